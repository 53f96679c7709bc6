//! A DAPO run: rollouts, what is learnt from them, and what is told of both.
//!
//! A round is
//!
//! ```text
//! questions ─ collect: rollouts until there are enough mixed groups ─▶ groups ─ tell: trajectories, judgments, rewards
//!                                                                        │
//!   the engine samples from the weights themselves ◀─ updates ◀──────────┘
//! ```
//!
//! The policy's version is the number of rounds that its weights have behind them. Engine and optimiser work on one copy
//! of the weights: behind an update the next turn is sampled from the new ones.
//!
//! A run that was killed goes on from its last checkpoint. Episodes that it had told since are not sampled again: what is
//! recorded is what happened. A deterministic run does sample them again, and to the same bits. So an event is told once,
//! and says what was trained on.
//! In [replay](stored) all episodes are recorded ones. [`evaluate()`] is a validation without a run around it.

mod collect;
mod evaluate;
mod job;
mod numbers;
mod record;
mod run;
pub mod stored;
mod trial;

pub use self::evaluate::{Evaluated, evaluate};
pub use self::job::run;
pub use self::run::{DapoEnd, DapoOutcome, DapoState};

//! The funnel: which trajectories are worth training on (paper, section 2.2).
//!
//! Three stages, each judging what passed the one before:
//!
//! | stage | asks | by |
//! |---|---|---|
//! | validity | is all that the agent wrote in the ReAct format? | [`rules`] |
//! | correctness | is the answer correct? | a [`Judge`] |
//! | quality | is it worth learning from? | [`rules`], then a model on three criteria, the [`Critic`] |
//!
//! Data flow: record batches of trajectories, with what is known of them, are handed in; [`Funnel::sift`] judges what
//! is not known yet, batch by batch, and hands out one `judgment` event for each verdict. An accepted trajectory belongs
//! to the SFT pool, a question without one to the RL pool; both are views over the judgments.
//!
//! # Versions
//!
//! What a stage judges by (its rules' version, its parameters, its judge and prompt) has a [digest](StageRules), and the
//! digest has a rule version, for ever. A trajectory that was judged by it is not judged by it again. Where a stage
//! judges by something new, it gets the next version with its first verdict and judges what reaches it: by rules, which
//! costs little; by models only where their part changed, since their decisions are handed in again with the batches and
//! are remembered. Other stages judge only what another outcome of this one sends their way. A stage that goes back to
//! what it judged by before goes back to that version, and to the verdicts that there are of it.
//!
//! The ids of events are derived from trajectory, stage, version and digest, so that a run that is repeated, or two that
//! run at once, leave one judgment.

mod columns;
mod critic;
mod events;
mod ngrams;
mod parameters;
pub mod report;
mod rewards;
pub mod rules;
mod sift;
mod stage;

pub use columns::{Attempts, COLUMNS, OBSERVATIONS};
pub use critic::{Criterion, Critic, CriticParameters, Opinion};
pub use events::{Run, RunState, SOURCE, config_of};
pub(crate) use ngrams::is_unspaced;
pub use parameters::{FunnelLimits, FunnelParameters, QualityParameters};
pub use rewards::{Rewarded, reward_all, reward_digest};
pub use sift::{Funnel, Sifted, StageCounts};
pub use stage::{Reason, Stage, StageRules};

#[cfg(doc)]
use webdancer_agent::judge::Judge;

/// Why batches were not judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FunnelError {
    /// Hand in other batches: this one lacks a column, or has it in another type.
    #[error("a batch of trajectories: {0}")]
    Batch(String),
    /// Change the parameters.
    #[error("the funnel's parameters: {0}")]
    Parameters(String),
    /// A fault of ours, or of the machine.
    #[error("the funnel: {0}")]
    Internal(String),
}

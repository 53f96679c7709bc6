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
//! What a stage judges by (its rules' version, its parameters, its judge and prompt) has a [digest](StageRules). While
//! it stays the same, a trajectory that was judged is not judged again. When it changes, the stage gets the next rule
//! version, the newest version is in force, and everything is judged anew: by rules, which costs little; by models only
//! where their part changed, since their decisions are handed in again with the batches and are remembered.
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

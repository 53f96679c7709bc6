//! What makes the runs of a slot: `eval run`, handed in.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::config::Schedule;
use super::slot::Cell;
use crate::run::Run;

/// One pass over a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// The schedule, which says what kind of run it is.
    pub schedule: Arc<Schedule>,
    /// Policy and benchmark.
    pub cell: Cell,
    /// The run's id: one that is there goes on, else it is begun.
    pub run_id: String,
    /// The run's start, from which its ids follow: the slot's time.
    pub start: DateTime<Utc>,
    /// Only one attempt at so many of the questions, always the same ones.
    pub canary: Option<u32>,
    /// What may still be spent.
    pub left: Left,
}

/// What is left of a slot's budget. What is None is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Left {
    /// Attempts.
    pub attempts: Option<u64>,
    /// Tokens.
    pub tokens: Option<u64>,
    /// Money.
    pub cost: Option<f64>,
    /// Seconds.
    pub time_s: Option<u64>,
}

/// What runs have used, as the tables tell: whoever made their attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spent {
    /// Attempts recorded.
    pub attempts: u64,
    /// Tokens that the policy read and wrote.
    pub tokens: u64,
    /// What these cost.
    pub cost: f64,
}

/// How a cell stands after a pass.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pass {
    /// Attempts that the pass was to see made.
    pub due: u64,
    /// Of these, recorded, by this pass or an earlier one.
    pub made: u64,
    /// Of these, with a verdict.
    pub judged: u64,
    /// Attempts, or verdicts, that failed and stay undone.
    pub failed: u64,
    /// Why it stopped before all were made.
    pub stopped: Option<String>,
}

impl Pass {
    /// Whether every attempt has a verdict.
    pub fn is_complete(&self) -> bool {
        self.judged >= self.due
    }

    /// The share of the attempts due that have a verdict; 1 of none.
    pub fn coverage(&self) -> f64 {
        share(self.judged, self.due)
    }

    /// The share of the attempts due that failed; 0 of none.
    pub fn errors(&self) -> f64 {
        if self.due == 0 { 0.0 } else { share(self.failed, self.due) }
    }
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 1.0 } else { part as f64 / of as f64 }
}

/// Makes runs, and reads them. Dropping a future stops the work as a kill would.
#[async_trait]
pub trait Runner: Send + Sync + std::fmt::Debug {
    /// Makes what the cell lacks. Where the process is asked to end it ends soon, and says so in [`Pass::stopped`].
    async fn attempt(&self, work: &Work) -> Result<Pass, RunnerError>;

    /// What these runs have used together.
    async fn spent(&self, runs: &[String]) -> Result<Spent, RunnerError>;

    /// These runs with their attempts; those that have none are left out.
    async fn read(&self, runs: &[String]) -> Result<Vec<Run>, RunnerError>;
}

/// Why a pass could not be made, by what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunnerError {
    /// Change the settings: the same fails again.
    #[error("{0}")]
    Settings(String),
    /// Try again.
    #[error("{0}")]
    Failed(String),
    /// Wait: another process works on the run, and leaves it when it ends. Nothing was tried.
    #[error("{0}")]
    Busy(String),
}

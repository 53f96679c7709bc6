//! How far sampling is, what it came to, and why it stopped.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Failed attempts named one by one; all are counted.
pub(super) const FAILED_NAMED_MAX: usize = 20;

/// Why no further attempts are begun.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// [`trajectories_max`](super::SampleConfig::trajectories_max).
    Trajectories,
    /// [`tokens_max`](super::SampleConfig::tokens_max).
    Tokens,
    /// [`time_ms_max`](super::SampleConfig::time_ms_max).
    Time,
    /// The model's own budget, of tokens, money or time.
    Budget(String),
    /// Too many attempts failed in a row; why the last did, unless it was at a gated question, which that may quote.
    Outage(String),
    /// No connection was ever made to the model; why not.
    Unreachable(String),
    /// Somebody asked.
    Asked,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Trajectories => f.write_str("the budget of trajectories is spent"),
            Stop::Tokens => f.write_str("the budget of tokens is spent"),
            Stop::Time => f.write_str("the time is over"),
            Stop::Budget(reason) | Stop::Unreachable(reason) => f.write_str(reason),
            Stop::Outage(reason) => write!(f, "too many attempts failed in a row: {reason}"),
            Stop::Asked => f.write_str("stopped"),
        }
    }
}

/// Sampling under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Trajectories recorded.
    pub trajectories: u64,
    /// Of these, by termination.
    pub by_termination: BTreeMap<String, u64>,
    /// Attempts under way.
    pub running: u64,
    /// Attempts begun anew after a failure.
    pub retried: u64,
    /// Attempts given up after their retries. They are not recorded.
    pub failed: u64,
    /// Tokens read by the policy.
    pub input_tokens: u64,
    /// Tokens written by the policy.
    pub output_tokens: u64,
    /// The first of those given up.
    pub named: Vec<FailedAttempt>,
    /// Attempts given up since the last that was not.
    pub failed_in_a_row: u32,
}

/// An attempt that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedAttempt {
    /// The question.
    pub qa_id: String,
    /// The attempt.
    pub attempt: i32,
    /// What failed last.
    pub reason: String,
    /// Whether the question is of a gated benchmark, which the reason may quote.
    #[serde(skip)]
    pub restricted: bool,
}

/// What sampling came to, this process alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleReport {
    /// Id of the run.
    pub run_id: String,
    /// Trajectories recorded.
    pub trajectories: u64,
    /// Of these, by termination.
    pub by_termination: BTreeMap<String, u64>,
    /// Attempts begun anew after a failure that is not the policy's.
    pub retried: u64,
    /// Attempts given up after their retries. They are not recorded; a repetition of the run makes them.
    pub failed: u64,
    /// The first of these.
    pub failures: Vec<FailedAttempt>,
    /// Attempts that were not made, beside those that failed; none where other machines share them and that is unknown.
    pub left: Option<u64>,
    /// Why, where something is left.
    pub stopped: Option<String>,
    /// Tokens read by the policy, failed attempts included.
    pub input_tokens: u64,
    /// Tokens written by the policy, failed attempts included.
    pub output_tokens: u64,
    /// Milliseconds of this process.
    pub elapsed_ms: u64,
}

impl SampleReport {
    /// Why the run is not whole, as its event has it; None where it is. What was said of an attempt at a gated question may
    /// quote it: that is for whoever makes the attempt, and stays out.
    pub fn lacking(&self) -> Option<String> {
        if self.stopped.is_some() || self.failed == 0 {
            return self.stopped.clone();
        }
        let failed = format!("{} attempts failed", self.failed);
        Some(match self.failures.first() {
            Some(first) if !first.restricted => format!("{failed}; the first: {}", first.reason),
            _ => failed,
        })
    }
}

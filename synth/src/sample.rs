//! Sampling: a number of attempts at each question, by any policy on any web.
//!
//! Data flow: [`missing`] lists the [`Attempt`]s that a [`SampleRun`] has not made yet. [`Sampler::run`] takes them from
//! a [`Source`], a [list](Listed) or tasks shared with other machines, lets an [agent](React) make them, several at a
//! time, and appends a trajectory event for each. The ids of trajectories are derived from run, question and attempt:
//! an attempt made twice shows once, whoever made it.
//!
//! What is not the policy's fault is no attempt. Where a model or a tool fails after its own retries, the attempt is
//! begun anew a few times, then reported, and nothing is recorded of it: a later repetition of the run makes it.
//!
//! A budget that is spent, a signal or an outage [stop](Stop) the work: nothing new is begun, what is under way may end
//! within a grace, and what is not made is left for a repetition.

mod attempt;
mod report;
mod work;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::sleep;
use webdancer_agent::react::React;
use webdancer_schemas::log::{EventLog, LogError};

pub use attempt::{Attempt, Claim, Listed, Question, SampleRun, Source, SourceError, missing};
pub use report::{FailedAttempt, SampleReport, Stop, Tally};

use work::Work;

/// CloudEvents `source` of the events of sampling.
pub const SOURCE: &str = "webdancer/sample";

/// How attempts are made: every limit with its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SampleConfig {
    /// Attempts under way at a time; beside each of them one may be being recorded. 8 by default.
    pub concurrency: usize,
    /// Times an attempt is begun anew after a failure that is not the policy's. 2 by default.
    pub retries_max: u32,
    /// Wait before the first of these; doubled each time, up to a minute. 2,000 by default.
    pub retry_delay_ms: u64,
    /// Attempts that may fail in a row, whatever the retries, before it counts as an outage. 20 by default.
    pub failures_in_a_row_max: u32,
    /// Trajectories to record, at most.
    pub trajectories_max: Option<u64>,
    /// Tokens to read and write, about: attempts under way are finished.
    pub tokens_max: Option<u64>,
    /// Wall-clock time.
    pub time_ms_max: Option<u64>,
    /// How long attempts under way may go on after a stop. 60,000 by default.
    pub grace_ms: u64,
}

impl Default for SampleConfig {
    fn default() -> SampleConfig {
        SampleConfig {
            concurrency: 8,
            retries_max: 2,
            retry_delay_ms: 2_000,
            failures_in_a_row_max: 20,
            trajectories_max: None,
            tokens_max: None,
            time_ms_max: None,
            grace_ms: 60_000,
        }
    }
}

/// Why sampling broke off, by what to do. What was recorded stays; a repetition goes on behind it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// See to the log.
    #[error("trajectories could not be appended: {0}")]
    Log(#[from] LogError),
    /// See to whatever gives the attempts.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Report it: a row could not be written as JSON, or a task panicked.
    #[error("sampling cannot work here: {0}")]
    Internal(String),
}

/// Makes attempts.
#[derive(Debug)]
pub struct Sampler {
    agent: React,
    run: SampleRun,
    config: SampleConfig,
}

impl Sampler {
    /// A sampler for `run`.
    pub fn new(agent: React, run: SampleRun, config: SampleConfig) -> Sampler {
        Sampler { agent, run, config }
    }

    /// Makes the attempts of `source` until it has no more, or until something stops it: a budget, an outage, or
    /// `asked`. Dropping the future stops at once, as a kill would.
    ///
    /// # Errors
    /// The log does not take the events, or the source fails. Attempts that fail are no error: the report names them.
    pub async fn run(
        self,
        log: Arc<dyn EventLog>,
        source: Arc<dyn Source>,
        progress: impl Fn(&Tally) + Send + Sync + 'static,
        asked: impl Future<Output = ()> + Send,
    ) -> Result<SampleReport, SampleError> {
        let begun = Instant::now();
        let (time, grace) = (self.config.time_ms_max, Duration::from_millis(self.config.grace_ms));
        let concurrency = self.config.concurrency.max(1);
        let run_id = self.run.id.clone();
        let work = Arc::new(Work::new(self, log, source.clone(), Box::new(progress)));
        if time == Some(0) {
            work.stop(Stop::Time);
        }
        let mut lanes = JoinSet::new();
        for _ in 0..concurrency {
            lanes.spawn(work.clone().lane());
        }
        let mut stopped = work.stopped();
        let late = async { sleep(time.map_or(Duration::MAX, Duration::from_millis)).await };
        let over = async {
            // Whoever holds the other end lives as long as this.
            let _ = stopped.wait_for(Option::is_some).await;
            sleep(grace).await;
        };
        tokio::pin!(late, over, asked);
        let (mut is_late, mut is_asked, mut is_over) = (false, false, false);
        loop {
            tokio::select! {
                lane = lanes.join_next() => match lane {
                    None => break,
                    Some(Ok(outcome)) => outcome?,
                    Some(Err(error)) if error.is_cancelled() => {}
                    Some(Err(error)) => return Err(SampleError::Internal(error.to_string())),
                },
                () = &mut late, if !is_late => {
                    is_late = true;
                    work.stop(Stop::Time);
                }
                () = &mut asked, if !is_asked => {
                    is_asked = true;
                    work.stop(Stop::Asked);
                }
                () = &mut over, if !is_over => {
                    is_over = true;
                    lanes.abort_all();
                }
            }
        }
        Ok(work.report(run_id, source.left(), begun.elapsed()))
    }
}

//! Attempts being made, by as many lanes as may be under way at a time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use webdancer_agent::chat::ChatError;
use webdancer_agent::react::{Failure, React, Task};
use webdancer_schemas::event::Event;
use webdancer_schemas::log::{EventLog, LogError};
use webdancer_schemas::rows::Trajectory;

use super::attempt::{Claim, SampleRun, Source};
use super::report::{FAILED_NAMED_MAX, FailedAttempt, SampleReport, Stop, Tally};
use super::{SOURCE, SampleConfig, SampleError, Sampler};

/// Longest wait before an attempt is begun anew.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);
/// What stands for why an attempt at a gated question failed: why attempts end goes into events that are not gated.
const GATED: &str = "why is not kept of a gated benchmark";
/// Times an append is repeated while the log is unavailable.
const APPEND_RETRIES: u32 = 5;

type OnProgress = Box<dyn Fn(&Tally) + Send + Sync>;

/// What all lanes share.
pub(super) struct Work {
    agent: React,
    run: SampleRun,
    config: SampleConfig,
    log: Arc<dyn EventLog>,
    source: Arc<dyn Source>,
    stop: watch::Sender<Option<Stop>>,
    tally: Mutex<Tally>,
    settled: Notify,
    progress: OnProgress,
}

/// Whether an attempt may be begun.
enum Admitted {
    Yes,
    /// Those under way would be enough, but may fail.
    Later,
    No,
}

/// What became of an attempt.
enum Outcome {
    /// It is there, to be recorded.
    Made(Box<Trajectory>),
    Recorded,
    Failed(String),
    /// Stopped before it was made.
    Left,
}

impl Work {
    pub(super) fn new(sampler: Sampler, log: Arc<dyn EventLog>, source: Arc<dyn Source>, progress: OnProgress) -> Work {
        let Sampler { agent, run, config } = sampler;
        let (stop, tally, settled) = (watch::Sender::new(None), Mutex::default(), Notify::new());
        Work { agent, run, config, log, source, stop, tally, settled, progress }
    }

    /// Where a stop can be waited for.
    pub(super) fn stopped(&self) -> watch::Receiver<Option<Stop>> {
        self.stop.subscribe()
    }

    /// Begins nothing any more. The first reason counts.
    pub(super) fn stop(&self, reason: Stop) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(reason);
            first
        });
    }

    /// What it came to. `left`: attempts that the source has not been told to be done.
    pub(super) fn report(&self, run_id: String, left: Option<u64>, elapsed: Duration) -> SampleReport {
        let tally = self.tally.lock().clone();
        // A budget that was just enough has stopped nothing.
        let stopped = self.stop.borrow().as_ref().filter(|_| left != Some(0)).map(Stop::to_string);
        SampleReport {
            run_id,
            trajectories: tally.trajectories,
            by_termination: tally.by_termination,
            retried: tally.retried,
            failed: tally.failed,
            failures: tally.named,
            left,
            stopped,
            input_tokens: tally.input_tokens,
            output_tokens: tally.output_tokens,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Makes one attempt after the other until there are no more or something stops it. While an attempt is being recorded
    /// the next one is made: a model is not kept waiting for a disk.
    pub(super) async fn lane(self: Arc<Work>) -> Result<(), SampleError> {
        let mut recording = JoinSet::new();
        let made = self.clone().make_all(&mut recording).await;
        recorded(&mut recording).await.and(made)
    }

    async fn make_all(self: Arc<Work>, recording: &mut JoinSet<Result<(), SampleError>>) -> Result<(), SampleError> {
        let mut stopped = self.stopped();
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // From here on nothing that is settled is missed.
            settled.as_mut().enable();
            match self.admit() {
                Admitted::Yes => {}
                Admitted::Later => {
                    tokio::select! {
                        () = &mut settled => {}
                        Some(done) = recording.join_next() => check(done)?,
                    }
                    continue;
                }
                Admitted::No => return Ok(()),
            }
            let claimed = match self.claim(&mut stopped, recording).await {
                Ok(Some(claim)) => claim,
                none => {
                    self.settle(None, &Outcome::Left);
                    return none.map(|_| ());
                }
            };
            let outcome = {
                let making = self.make(&claimed, &mut stopped);
                tokio::pin!(making);
                loop {
                    tokio::select! {
                        outcome = &mut making => break outcome,
                        // A log that takes nothing more ends the lane at once.
                        Some(done) = recording.join_next() => check(done)?,
                    }
                }
            };
            match outcome {
                Outcome::Made(trajectory) => {
                    // One at a time: there are no more that wait than lanes.
                    recorded(recording).await?;
                    recording.spawn(self.clone().keep(claimed, *trajectory));
                }
                outcome => self.settle(Some(&claimed), &outcome),
            }
        }
    }

    /// The next attempt to make. A source may wait for what others do, and so for what is being recorded: where that fails,
    /// nobody else tells.
    async fn claim(
        &self,
        stopped: &mut watch::Receiver<Option<Stop>>,
        recording: &mut JoinSet<Result<(), SampleError>>,
    ) -> Result<Option<Claim>, SampleError> {
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(Option::is_some) => return Ok(None),
                Some(done) = recording.join_next() => check(done)?,
                claimed = self.source.next() => return Ok(claimed?),
            }
        }
    }

    /// Records an attempt and counts it.
    async fn keep(self: Arc<Work>, claim: Claim, trajectory: Trajectory) -> Result<(), SampleError> {
        let outcome = self.record(&claim, trajectory).await;
        if outcome.is_ok() {
            self.source.done(&claim);
        }
        self.settle(Some(&claim), outcome.as_ref().unwrap_or(&Outcome::Left));
        outcome.map(|_| ())
    }

    /// Whether one more attempt may be begun; then it counts as under way.
    fn admit(&self) -> Admitted {
        let mut tally = self.tally.lock();
        let spent = |most: Option<u64>, used: u64| most.is_some_and(|most| used >= most);
        if spent(self.config.tokens_max, tally.input_tokens + tally.output_tokens) {
            self.stop(Stop::Tokens);
        } else if spent(self.config.trajectories_max, tally.trajectories) {
            self.stop(Stop::Trajectories);
        }
        if self.stop.borrow().is_some() {
            return Admitted::No;
        }
        if spent(self.config.trajectories_max, tally.trajectories + tally.running) {
            return Admitted::Later;
        }
        tally.running += 1;
        Admitted::Yes
    }

    /// Counts an attempt that is not under way any more.
    fn settle(&self, claim: Option<&Claim>, outcome: &Outcome) {
        let mut tally = self.tally.lock();
        tally.running -= 1;
        if let (Some(claim), Outcome::Failed(reason)) = (claim, outcome) {
            tally.failed += 1;
            tally.failed_in_a_row += 1;
            let attempt = &claim.attempt;
            let restricted = attempt.question.restricted == Some(true);
            tracing::warn!(qa_id = attempt.question.qa_id, attempt = attempt.attempt, reason, "attempt given up");
            if tally.named.len() < FAILED_NAMED_MAX {
                let qa_id = attempt.question.qa_id.clone();
                tally.named.push(FailedAttempt { qa_id, attempt: attempt.attempt, reason: reason.clone(), restricted });
            }
            if tally.failed_in_a_row >= self.config.failures_in_a_row_max {
                self.stop(Stop::Outage(if restricted { GATED.to_string() } else { reason.clone() }));
            }
        }
        let told = tally.clone();
        drop(tally);
        self.settled.notify_waiters();
        (self.progress)(&told);
    }

    /// Makes one attempt, with its retries.
    async fn make(&self, claim: &Claim, stopped: &mut watch::Receiver<Option<Stop>>) -> Outcome {
        let attempt = &claim.attempt;
        let trajectory_id = self.run.trajectory_id(attempt).to_string();
        let task = Task {
            trajectory_id: &trajectory_id,
            qa_id: &attempt.question.qa_id,
            question: &attempt.question.question,
            attempt: attempt.attempt,
            seed: Some(self.run.seed_of(attempt)),
            // The same whenever the run goes on.
            date: self.run.date(),
            restricted: attempt.question.restricted,
        };
        let mut delay = Duration::from_millis(self.config.retry_delay_ms).min(RETRY_DELAY_MAX);
        for tries in 0.. {
            let attempted = self.agent.attempt(&task).await;
            self.count_tokens(&attempted.trajectory);
            let Some(failure) = attempted.failure else { return Outcome::Made(Box::new(attempted.trajectory)) };
            let again = match &failure {
                Failure::Model(ChatError::BudgetSpent(_)) => {
                    self.stop(Stop::Budget(failure.to_string()));
                    return Outcome::Left;
                }
                Failure::Model(ChatError::Unreachable { .. }) => {
                    self.stop(Stop::Unreachable(failure.to_string()));
                    return Outcome::Left;
                }
                Failure::Model(ChatError::Refused { .. }) => false,
                _ => tries < self.config.retries_max,
            };
            if !again {
                self.source.done(claim);
                return Outcome::Failed(failure.to_string());
            }
            tracing::debug!(qa_id = task.qa_id, attempt = task.attempt, %failure, "attempt begun anew");
            self.tally.lock().retried += 1;
            tokio::select! {
                _ = stopped.wait_for(Option::is_some) => return Outcome::Left,
                () = sleep(delay) => delay = (delay * 2).min(RETRY_DELAY_MAX),
            }
        }
        Outcome::Left
    }

    fn count_tokens(&self, trajectory: &Trajectory) {
        let count = |tokens: Option<i64>| tokens.and_then(|tokens| u64::try_from(tokens).ok()).unwrap_or(0);
        let mut tally = self.tally.lock();
        tally.input_tokens += count(trajectory.input_tokens);
        tally.output_tokens += count(trajectory.output_tokens);
    }

    /// Appends a trajectory; returns when it is durable.
    async fn record(&self, claim: &Claim, mut trajectory: Trajectory) -> Result<Outcome, SampleError> {
        let termination = trajectory.termination.clone();
        let mut tries = 0;
        loop {
            let event = self.event(claim, &trajectory)?;
            match self.log.append(vec![event]).await {
                Ok(()) => break,
                Err(LogError::Unavailable(reason)) if tries < APPEND_RETRIES => {
                    tracing::warn!(reason, tries, "the event log is unavailable, trying again");
                    sleep(Duration::from_millis(200 << tries)).await;
                    tries += 1;
                }
                Err(LogError::TooLarge { .. }) if has_tokens(&trajectory) => {
                    tracing::warn!(trajectory.trajectory_id, "too large; recorded without token ids");
                    without_tokens(&mut trajectory);
                }
                Err(error @ LogError::TooLarge { .. }) => return Ok(Outcome::Failed(error.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        let mut tally = self.tally.lock();
        tally.trajectories += 1;
        tally.failed_in_a_row = 0;
        *tally.by_termination.entry(termination).or_default() += 1;
        Ok(Outcome::Recorded)
    }

    fn event(&self, claim: &Claim, trajectory: &Trajectory) -> Result<Event, SampleError> {
        let event = Event::new(SOURCE, trajectory).map_err(|e| SampleError::Internal(e.to_string()))?;
        let parents = vec![claim.attempt.question.qa_id.clone()];
        Ok(event.with_id(self.run.trajectory_id(&claim.attempt)).with_run(&self.run.id).with_parents(parents))
    }
}

/// Waits for what is being recorded.
async fn recorded(recording: &mut JoinSet<Result<(), SampleError>>) -> Result<(), SampleError> {
    while let Some(done) = recording.join_next().await {
        check(done)?;
    }
    Ok(())
}

fn check(done: Result<Result<(), SampleError>, JoinError>) -> Result<(), SampleError> {
    done.map_err(|error| SampleError::Internal(error.to_string()))?
}

fn has_tokens(trajectory: &Trajectory) -> bool {
    trajectory.turn_context_token_ids.is_some()
        || trajectory.turn_completion_token_ids.is_some()
        || trajectory.turn_log_probs.is_some()
}

fn without_tokens(trajectory: &mut Trajectory) {
    trajectory.turn_context_token_ids = None;
    trajectory.turn_completion_token_ids = None;
    trajectory.turn_log_probs = None;
}

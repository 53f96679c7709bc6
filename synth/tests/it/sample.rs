//! Sampling: what is attempted, what is recorded of it, and what ends it.

use std::collections::HashSet;
use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use webdancer_agent::chat::{ChatError, ChatModel, ChatRequest, Completion, Finish, SampledTokens, Usage};
use webdancer_agent::profile::Profile;
use webdancer_agent::react::{React, ReactConfig};
use webdancer_agent::tool::{Observation, Outcome, Web};
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog, LogError};
use webdancer_schemas::rows::Trajectory;
use webdancer_synth::sample::{
    Attempt, Claim, Listed, Question, SampleConfig, SampleError, SampleReport, SampleRun, Sampler, Source, SourceError,
    missing,
};

use crate::memory_log::MemoryLog;

/// What a model does at a call: the question asked, and how often it was asked that before.
type Deed = dyn Fn(&str, u32) -> Result<&'static str, ChatError> + Send + Sync;

/// No run of these tests takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A model that answers at once, fails, or waits until it may answer.
struct Model {
    deed: Box<Deed>,
    /// Closed while it has no permits.
    gate: Semaphore,
    calls: Mutex<Vec<(String, Option<i64>)>>,
    running: AtomicUsize,
    most: AtomicUsize,
    tokens: AtomicU32,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Model")
    }
}

impl Model {
    fn new(deed: impl Fn(&str, u32) -> Result<&'static str, ChatError> + Send + Sync + 'static) -> Model {
        Model {
            deed: Box::new(deed),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            calls: Mutex::default(),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            tokens: AtomicU32::new(0),
        }
    }

    /// Until it is opened nobody gets an answer.
    fn closed(self) -> Model {
        Model { gate: Semaphore::new(0), ..self }
    }

    fn open(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS);
    }

    /// Waits until so many calls are under way at once.
    async fn busy(&self, calls: usize) {
        while self.running.load(Ordering::SeqCst) < calls {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn calls(&self) -> Vec<String> {
        let mut calls: Vec<String> = self.calls.lock().iter().map(|(question, _)| question.clone()).collect();
        calls.sort();
        calls
    }
}

#[async_trait]
impl ChatModel for Model {
    fn name(&self) -> &str {
        "model"
    }

    async fn complete(&self, request: &ChatRequest) -> Result<Completion, ChatError> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        let passed = self.gate.acquire().await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        let message = &request.messages[1].content;
        let question = message.rsplit("User: ").next().unwrap().to_string();
        let before = {
            let mut calls = self.calls.lock();
            let before = calls.iter().filter(|(asked, _)| *asked == question).count() as u32;
            calls.push((question.clone(), request.sampling.seed));
            before
        };
        drop(passed);
        let answer = (self.deed)(&question, before)?;
        let tokens = self.tokens.load(Ordering::SeqCst);
        Ok(Completion {
            text: format!("<think>\nt\n</think>\n<answer>\n{answer}\n</answer>"),
            reasoning: None,
            finish: Finish::Stop,
            usage: Usage { input_tokens: 70, output_tokens: 30, ..Usage::default() },
            tokens: (tokens > 0).then(|| SampledTokens {
                prompt_ids: None,
                ids: vec![7; tokens as usize],
                log_probs: vec![-0.5; tokens as usize],
                ..SampledTokens::default()
            }),
            elapsed: Duration::ZERO,
        })
    }
}

/// A web on which nobody calls.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Web for Nothing {
    fn name(&self) -> &str {
        "nothing"
    }

    fn specifications(&self) -> Vec<Value> {
        Vec::new()
    }

    async fn call(&self, _: &str, _: &str) -> Observation {
        Observation::new("nothing", Outcome::Done)
    }
}

fn unavailable() -> ChatError {
    ChatError::Unavailable { model: "model".into(), attempts: 1, reason: "cut off".into() }
}

fn refused() -> ChatError {
    ChatError::Refused { model: "model".into(), reason: "no".into() }
}

fn run() -> SampleRun {
    let start = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
    SampleRun { id: "run-1".into(), ..SampleRun::new(7, start) }
}

/// `attempts` at each of `questions` questions, `q0?` and on.
fn attempts(questions: usize, attempts: u32) -> Vec<Attempt> {
    let question = |n| Question { qa_id: format!("q{n}"), question: format!("q{n}?"), restricted: None };
    missing(&(0..questions).map(question).collect::<Vec<Question>>(), attempts, &HashSet::new())
}

/// Limits that a test does not wait for.
fn quick() -> SampleConfig {
    SampleConfig { concurrency: 3, retry_delay_ms: 1, ..SampleConfig::default() }
}

fn sampler(model: &Arc<Model>, config: SampleConfig) -> Sampler {
    let agent = React::new(model.clone(), Arc::new(Nothing), Arc::new(Profile::compact()), ReactConfig::default());
    Sampler::new(agent, run(), config)
}

async fn sample(model: &Arc<Model>, config: SampleConfig, attempts: Vec<Attempt>) -> (SampleReport, Vec<Trajectory>) {
    let log = Arc::new(MemoryLog::default());
    let source = Arc::new(Listed::new(attempts));
    let report = sampler(model, config).run(log.clone(), source, |_| {}, pending()).await.unwrap();
    let mut rows = rows(&log);
    rows.sort_by(|a, b| (&a.qa_id, a.attempt).cmp(&(&b.qa_id, b.attempt)));
    assert_eq!(report.trajectories, rows.len() as u64);
    (report, rows)
}

fn rows(log: &MemoryLog) -> Vec<Trajectory> {
    log.events(Kind::Trajectory).iter().map(|event| serde_json::from_str(event.data.get()).unwrap()).collect()
}

#[tokio::test]
async fn every_attempt_becomes_one_trajectory_whose_ids_follow_from_it() {
    let model = Arc::new(Model::new(|_, _| Ok("42")));
    let log = Arc::new(MemoryLog::default());
    let all = attempts(3, 2);
    for _ in 0..2 {
        // A repetition makes the same events.
        let source = Arc::new(Listed::new(all.clone()));
        let report = sampler(&model, quick()).run(log.clone(), source, |_| {}, pending()).await.unwrap();
        assert_eq!((report.trajectories, report.left, report.failed, report.stopped), (6, Some(0), 0, None));
        assert_eq!(report.by_termination.into_iter().collect::<Vec<_>>(), [("answer".to_string(), 6)]);
        assert_eq!((report.input_tokens, report.output_tokens), (420, 180));
    }
    let events = log.events(Kind::Trajectory);
    assert_eq!(events.len(), 6);
    for attempt in &all {
        let id = run().trajectory_id(attempt).to_string();
        let event = events.iter().find(|event| event.id().to_string() == id).unwrap();
        let row: Trajectory = serde_json::from_str(event.data.get()).unwrap();
        assert_eq!(
            (row.trajectory_id, row.qa_id.as_str(), row.attempt),
            (id, attempt.question.qa_id.as_str(), attempt.attempt)
        );
        assert_eq!(row.seed, Some(run().seed_of(attempt)));
        assert_eq!(row.answer.as_deref(), Some("42"));
        assert!(row.system_prompt.unwrap().contains("2023-11-14"), "the date of the run, not of today");
        assert_eq!(event.envelope.run_id.as_deref(), Some("run-1"));
        assert_eq!(event.envelope.parents, std::slice::from_ref(&attempt.question.qa_id));
        assert_eq!(event.envelope.source, "webdancer/sample");
    }
    let seeds: HashSet<Option<i64>> = model.calls.lock().iter().map(|(_, seed)| *seed).collect();
    assert_eq!(seeds.len(), 6, "each attempt has its own seed, the same when it is repeated");
}

#[tokio::test]
async fn a_failure_that_passes_is_no_attempt() {
    let model = Arc::new(Model::new(|_, before| if before < 2 { Err(unavailable()) } else { Ok("42") }));
    let (report, rows) = sample(&model, quick(), attempts(2, 1)).await;
    assert_eq!((report.trajectories, report.retried, report.failed, report.stopped), (2, 4, 0, None));
    assert!(rows.iter().all(|row| row.termination == "answer" && row.attempt == 0));
}

#[tokio::test]
async fn an_attempt_that_fails_after_its_retries_is_reported_and_not_recorded() {
    let model = Arc::new(Model::new(|question, _| match question {
        "q1?" => Err(unavailable()),
        "q2?" => Err(refused()),
        _ => Ok("42"),
    }));
    let (report, rows) = sample(&model, quick(), attempts(4, 1)).await;
    assert_eq!(rows.iter().map(|row| row.qa_id.as_str()).collect::<Vec<_>>(), ["q0", "q3"]);
    assert_eq!((report.failed, report.retried, report.left, report.stopped), (2, 2, Some(0), None));
    let mut failures: Vec<(&str, &str)> =
        report.failures.iter().map(|failure| (failure.qa_id.as_str(), failure.reason.as_str())).collect();
    failures.sort_unstable();
    assert_eq!(failures, [("q1", "model: unavailable after 1 attempts: cut off"), ("q2", "model: refused: no")]);
    // What is refused is refused again: it is not asked twice.
    assert_eq!(model.calls(), ["q0?", "q1?", "q1?", "q1?", "q2?", "q3?"]);
}

#[tokio::test]
async fn the_models_budget_stops_the_work_and_leaves_the_rest() {
    let model = Arc::new(Model::new(|question, _| match question {
        "q0?" | "q1?" => Ok("42"),
        _ => Err(ChatError::BudgetSpent("1.00 of 1.00".into())),
    }));
    let config = SampleConfig { concurrency: 1, ..quick() };
    let (report, _) = sample(&model, config, attempts(5, 1)).await;
    assert_eq!((report.trajectories, report.failed, report.left), (2, 0, Some(3)));
    assert_eq!(report.stopped.as_deref(), Some("the budget is spent: 1.00 of 1.00"));
    assert_eq!(model.calls(), ["q0?", "q1?", "q2?"]);
}

#[tokio::test]
async fn a_budget_of_trajectories_is_kept_exactly_whatever_fails() {
    let model = Arc::new(Model::new(|question, _| if question == "q1?" { Err(refused()) } else { Ok("42") }));
    let config = SampleConfig { trajectories_max: Some(4), ..quick() };
    let (report, rows) = sample(&model, config.clone(), attempts(10, 1)).await;
    assert_eq!(rows.iter().map(|row| row.qa_id.as_str()).collect::<Vec<_>>(), ["q0", "q2", "q3", "q4"]);
    assert_eq!((report.failed, report.left), (1, Some(5)));
    assert_eq!(report.stopped.as_deref(), Some("the budget of trajectories is spent"));
    // One that is just enough stops nothing.
    let model = Arc::new(Model::new(|_, _| Ok("42")));
    let (report, _) = sample(&model, config, attempts(4, 1)).await;
    assert_eq!((report.trajectories, report.left, report.stopped), (4, Some(0), None));
}

#[tokio::test]
async fn a_budget_of_tokens_ends_with_the_attempt_that_spends_it() {
    let model = Arc::new(Model::new(|_, _| Ok("42")));
    let config = SampleConfig { concurrency: 1, tokens_max: Some(250), ..quick() };
    let (report, _) = sample(&model, config, attempts(9, 1)).await;
    assert_eq!((report.trajectories, report.left), (3, Some(6)));
    assert_eq!(report.stopped.as_deref(), Some("the budget of tokens is spent"));
}

#[tokio::test]
async fn an_outage_does_not_give_up_one_attempt_after_the_other() {
    let model = Arc::new(Model::new(|question, _| if question == "q0?" { Ok("42") } else { Err(unavailable()) }));
    let config = SampleConfig { concurrency: 1, failures_in_a_row_max: 3, retries_max: 1, ..quick() };
    let (report, _) = sample(&model, config, attempts(50, 1)).await;
    assert_eq!((report.trajectories, report.failed, report.left), (1, 3, Some(46)));
    assert_eq!(
        report.stopped.as_deref(),
        Some("too many attempts failed in a row: model: unavailable after 1 attempts: cut off")
    );
}

#[tokio::test]
async fn what_is_said_of_a_gated_question_stays_out_of_what_a_runs_event_has() {
    let of = |restricted| {
        let all = attempts(5, 1).into_iter();
        all.map(|one| Attempt { question: Question { restricted, ..one.question }, ..one }).collect::<Vec<Attempt>>()
    };
    let model = Arc::new(Model::new(|_, _| Err(unavailable())));
    let config = |most| SampleConfig { concurrency: 1, failures_in_a_row_max: most, retries_max: 0, ..quick() };
    for (restricted, outage, failed) in [
        (
            None,
            "too many attempts failed in a row: model: unavailable after 1 attempts: cut off",
            "5 attempts failed; the first: model: unavailable after 1 attempts: cut off",
        ),
        (Some(true), "too many attempts failed in a row: why is not kept of a gated benchmark", "5 attempts failed"),
    ] {
        let (report, _) = sample(&model, config(2), of(restricted)).await;
        assert_eq!(report.lacking().as_deref(), Some(outage));
        // Whoever makes the attempts is told.
        assert_eq!(report.failures[0].reason, "model: unavailable after 1 attempts: cut off");
        let (report, _) = sample(&model, config(9), of(restricted)).await;
        assert_eq!((report.stopped.as_deref(), report.lacking().as_deref()), (None, Some(failed)));
    }
    let answers = Arc::new(Model::new(|_, _| Ok("42")));
    assert_eq!(sample(&answers, quick(), of(Some(true))).await.0.lacking(), None);
}

#[tokio::test]
async fn as_many_attempts_are_under_way_as_may_be() {
    let model = Arc::new(Model::new(|_, _| Ok("42")).closed());
    let opened = async {
        model.busy(3).await;
        model.open();
    };
    let sampled = sample(&model, quick(), attempts(10, 1));
    let ((report, _), ()) = timeout(LIMIT, async { tokio::join!(sampled, opened) }).await.unwrap();
    assert_eq!(report.trajectories, 10);
    assert_eq!(model.most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_is_under_way_at_a_stop_is_finished_within_the_grace() {
    for (grace_ms, recorded) in [(60_000, 3), (1, 0)] {
        let model = Arc::new(Model::new(|_, _| Ok("42")).closed());
        let log = Arc::new(MemoryLog::default());
        let source = Arc::new(Listed::new(attempts(10, 1)));
        let asked = async {
            model.busy(3).await;
            if recorded > 0 {
                model.open();
            }
        };
        let sampler = sampler(&model, SampleConfig { grace_ms, ..quick() });
        let report = timeout(LIMIT, sampler.run(log.clone(), source, |_| {}, asked)).await.unwrap().unwrap();
        assert_eq!((report.trajectories, report.left), (recorded, Some(10 - recorded)));
        assert_eq!(rows(&log).len() as u64, recorded);
        assert_eq!(report.stopped.as_deref(), Some("stopped"));
    }
}

#[tokio::test]
async fn time_that_is_over_stops_the_work() {
    let model = Arc::new(Model::new(|_, _| Ok("42")).closed());
    let config = SampleConfig { time_ms_max: Some(1), grace_ms: 1, ..quick() };
    let (report, _) = timeout(LIMIT, sample(&model, config, attempts(10, 1))).await.unwrap();
    assert_eq!((report.trajectories, report.left), (0, Some(10)));
    assert_eq!(report.stopped.as_deref(), Some("the time is over"));
}

#[tokio::test]
async fn whoever_asks_stops_it_also_in_the_wait_before_a_retry() {
    let model = Arc::new(Model::new(|_, _| Err(unavailable())));
    let config = SampleConfig { retry_delay_ms: 60_000, ..quick() };
    let source = Arc::new(Listed::new(attempts(10, 1)));
    let asked = async {
        while model.calls().len() < 3 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let log = Arc::new(MemoryLog::default());
    let sampling = sampler(&model, config).run(log, source, |_| {}, asked);
    let report = timeout(Duration::from_secs(30), sampling).await.unwrap().unwrap();
    assert_eq!((report.trajectories, report.failed, report.left), (0, 0, Some(10)));
    assert_eq!(report.stopped.as_deref(), Some("stopped"));
    assert_eq!(model.calls(), ["q0?", "q1?", "q2?"]);
    let before = Arc::new(Listed::new(attempts(10, 1)));
    let log = Arc::new(MemoryLog::default());
    let report = sampler(&model, quick()).run(log, before.clone(), |_| {}, ready(())).await.unwrap();
    assert_eq!(report.left, before.left());
}

#[tokio::test]
async fn a_trajectory_too_large_for_the_log_is_recorded_without_its_tokens() {
    let model = Arc::new(Model::new(|_, _| Ok("42")));
    model.tokens.store(5, Ordering::SeqCst);
    let log = Arc::new(MemoryLog::default());
    let large = || LogError::TooLarge { id: "x".into(), bytes: 2, limit: 1 };
    *log.failures.lock() = vec![large()];
    let config = SampleConfig { concurrency: 1, ..quick() };
    let source = Arc::new(Listed::new(attempts(2, 1)));
    let report = sampler(&model, config.clone()).run(log.clone(), source, |_| {}, pending()).await.unwrap();
    assert_eq!(report.trajectories, 2);
    let tokens: Vec<bool> = rows(&log).iter().map(|row| row.turn_completion_token_ids.is_some()).collect();
    assert_eq!(tokens, [false, true]);
    // One that is too large even so is given up.
    let log = Arc::new(MemoryLog::default());
    *log.failures.lock() = vec![large(), large()];
    let source = Arc::new(Listed::new(attempts(2, 1)));
    let report = sampler(&model, config).run(log.clone(), source, |_| {}, pending()).await.unwrap();
    assert_eq!((report.trajectories, report.failed), (1, 1));
}

#[tokio::test]
async fn a_log_that_is_unavailable_is_tried_again_and_one_that_fails_ends_the_work() {
    let model = Arc::new(Model::new(|_, _| Ok("42")));
    let log = Arc::new(MemoryLog::default());
    *log.failures.lock() = vec![LogError::Unavailable("later".into()); 2];
    let source = Arc::new(Listed::new(attempts(2, 1)));
    let report = sampler(&model, quick()).run(log.clone(), source, |_| {}, pending()).await.unwrap();
    assert_eq!(report.trajectories, 2);
    let failing = Arc::new(MemoryLog::default());
    *failing.failures.lock() = vec![LogError::Failed("the disk is full".into()); 9];
    let source = Arc::new(Listed::new(attempts(2, 1)));
    let error = sampler(&model, quick()).run(failing.clone(), source, |_| {}, pending()).await.unwrap_err();
    assert!(matches!(&error, SampleError::Log(LogError::Failed(text)) if text == "the disk is full"), "{error}");
    failing.failures.lock().clear();
    failing.append(Vec::new()).await.unwrap();
}

/// A source that looks into the log whenever an attempt is said to be done.
#[derive(Debug)]
struct Watchful {
    listed: Listed,
    log: Arc<MemoryLog>,
    was_recorded: Mutex<Vec<bool>>,
}

impl Watchful {
    fn over(log: &Arc<MemoryLog>, attempts: Vec<Attempt>) -> Arc<Watchful> {
        let (listed, log) = (Listed::new(attempts), log.clone());
        Arc::new(Watchful { listed, log, was_recorded: Mutex::default() })
    }
}

#[async_trait]
impl Source for Watchful {
    async fn next(&self) -> Result<Option<Claim>, SourceError> {
        self.listed.next().await
    }

    fn done(&self, claim: &Claim) {
        let id = run().trajectory_id(&claim.attempt);
        self.was_recorded.lock().push(self.log.events(Kind::Trajectory).iter().any(|event| event.id() == id));
        self.listed.done(claim);
    }

    fn left(&self) -> Option<u64> {
        self.listed.left()
    }
}

#[tokio::test]
async fn an_attempt_is_done_when_its_trajectory_is_in_the_log_and_no_sooner() {
    let model = Arc::new(Model::new(|_, _| Ok("42")));
    let log = Arc::new(MemoryLog::default());
    let source = Watchful::over(&log, attempts(4, 2));
    sampler(&model, quick()).run(log.clone(), source.clone(), |_| {}, pending()).await.unwrap();
    assert_eq!(*source.was_recorded.lock(), [true; 8]);
    // What the log did not take stays open: another worker gets it.
    let failing = Arc::new(MemoryLog::default());
    *failing.failures.lock() = vec![LogError::Failed("the disk is full".into()); 9];
    let source = Watchful::over(&failing, attempts(2, 1));
    sampler(&model, quick()).run(failing.clone(), source.clone(), |_| {}, pending()).await.unwrap_err();
    assert_eq!((source.was_recorded.lock().len(), source.left()), (0, Some(2)));
}

#[tokio::test]
async fn progress_is_told_after_each_attempt() {
    let model = Arc::new(Model::new(|_, _| Ok("42")));
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = told.clone();
    let progress = move |tally: &webdancer_synth::sample::Tally| seen.lock().push((tally.trajectories, tally.running));
    let source = Arc::new(Listed::new(attempts(3, 1)));
    let config = SampleConfig { concurrency: 1, ..quick() };
    sampler(&model, config).run(Arc::new(MemoryLog::default()), source, progress, pending()).await.unwrap();
    let told = told.lock().clone();
    assert_eq!(told.last(), Some(&(3, 0)));
    let mut made: Vec<u64> = told.into_iter().map(|(trajectories, _)| trajectories).collect();
    made.dedup();
    assert_eq!(made, [1, 2, 3]);
}

/// A log that takes nothing before it is opened.
#[derive(Debug)]
struct SlowLog {
    log: MemoryLog,
    gate: Semaphore,
}

#[async_trait]
impl EventLog for SlowLog {
    async fn append(&self, events: Vec<Event>) -> Result<(), LogError> {
        let _turn = self.gate.acquire().await;
        self.log.append(events).await
    }
}

#[tokio::test]
async fn one_attempt_is_made_while_another_is_recorded_and_no_more() {
    for (trajectories_max, asked) in [(None, 2), (Some(1), 1)] {
        let model = Arc::new(Model::new(|_, _| Ok("42")));
        let log = Arc::new(SlowLog { log: MemoryLog::default(), gate: Semaphore::new(0) });
        let source = Arc::new(Listed::new(attempts(3, 1)));
        let config = SampleConfig { concurrency: 1, trajectories_max, ..quick() };
        let running = tokio::spawn(sampler(&model, config).run(log.clone(), source.clone(), |_| {}, pending()));
        let all_asked = async {
            while model.calls.lock().len() < asked {
                sleep(Duration::from_millis(5)).await
            }
        };
        timeout(Duration::from_secs(60), all_asked).await.unwrap();
        // Whoever asked for more would have by now.
        sleep(Duration::from_millis(100)).await;
        assert_eq!((model.calls.lock().len(), source.left()), (asked, Some(3)));
        log.gate.add_permits(1);
        let report = running.await.unwrap().unwrap();
        assert_eq!(report.trajectories, trajectories_max.unwrap_or(3));
    }
}

/// A source that waits, once it has given what it has, until all of it is done.
#[derive(Debug)]
struct Patient(Listed);

#[async_trait]
impl Source for Patient {
    async fn next(&self) -> Result<Option<Claim>, SourceError> {
        match self.0.next().await? {
            None if self.0.left() != Some(0) => pending().await,
            claim => Ok(claim),
        }
    }

    fn done(&self, claim: &Claim) {
        self.0.done(claim);
    }

    fn left(&self) -> Option<u64> {
        self.0.left()
    }
}

#[tokio::test]
async fn a_log_that_fails_ends_the_work_also_where_a_source_waits_for_what_is_recorded() {
    let model = Arc::new(Model::new(|_, _| Ok("42")));
    let log = Arc::new(MemoryLog::default());
    *log.failures.lock() = vec![LogError::Failed("the disk is full".into()); 9];
    let config = SampleConfig { concurrency: 1, ..quick() };
    let working = sampler(&model, config).run(log, Arc::new(Patient(Listed::new(attempts(1, 1)))), |_| {}, pending());
    let error = tokio::time::timeout(Duration::from_secs(60), working).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
}

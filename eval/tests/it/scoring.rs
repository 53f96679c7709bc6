//! Scoring: verdicts of two scorers, what counts, and what happens when one fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::DateTime;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use serde_json::json;
use webdancer_agent::judge::{Case, Decision, Judge, by_name};
use webdancer_eval::benchmark::{Benchmark, Definition, Limits, parse};
use webdancer_eval::scoring::{
    Answered, Given, ScoreConfig, ScoreTally, ScorerPlan, Scorers, ScorersPlan, Scoring, Tap,
};
use webdancer_schemas::event::Event;
use webdancer_schemas::log::{EventLog, LogError};
use webdancer_schemas::rows::{Judgment, Trajectory};

/// A log in memory.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<Event>>);

impl Kept {
    fn judgments(&self) -> Vec<Judgment> {
        self.0.lock().iter().map(|event| serde_json::from_str(event.data.get()).unwrap()).collect()
    }

    fn ids(&self) -> BTreeSet<String> {
        self.0.lock().iter().map(|event| event.id().to_string()).collect()
    }
}

#[async_trait]
impl EventLog for Kept {
    async fn append(&self, events: Vec<Event>) -> Result<(), LogError> {
        self.0.lock().extend(events);
        Ok(())
    }
}

/// Fails on the first `failures` cases, then says pass.
#[derive(Debug)]
struct Ill {
    failures: usize,
    asked: AtomicUsize,
}

#[async_trait]
impl Judge for Ill {
    fn name(&self) -> &str {
        "ill"
    }

    fn rule_version(&self) -> i32 {
        7
    }

    async fn judge(&self, _: &Case<'_>) -> Decision {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if asked < self.failures { Decision::error("the judge is out") } else { Decision::pass("") }
    }
}

fn plan(by: &str) -> ScorerPlan {
    ScorerPlan { by: by.to_string(), judge: by.to_string(), rule_version: 1, style: None }
}

fn scorers(counts: &str, beside: Option<Arc<dyn Judge>>) -> Scorers {
    let second = beside.as_ref().map(|judge| plan(judge.name()));
    Scorers { plan: ScorersPlan { counts: plan(counts), beside: second }, counts: by_name(counts).unwrap(), beside }
}

fn scoring(number: i32) -> Scoring {
    let start = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
    Scoring { run: "0190a6b2-0000-7000-8000-000000000001".to_string(), start, number, uncounted: None }
}

fn answered(id: &str, gold: &str, answer: &str) -> Answered {
    Answered {
        trajectory_id: id.to_string(),
        qa_id: format!("q-{id}"),
        question: "?".to_string(),
        gold: gold.to_string(),
        answer: answer.to_string(),
        due: [Some(Given::default()), Some(Given::default())],
        restricted: false,
    }
}

async fn score(number: i32, scorers: &Scorers, answered: Vec<Answered>, log: &Kept) -> ScoreTally {
    let config = ScoreConfig { concurrency: 1, errors_in_a_row_max: 3 };
    scoring(number).score(scorers, stream::iter(answered), log, &config, |_| ()).await.unwrap()
}

#[tokio::test]
async fn what_counts_has_the_highest_version_and_the_second_stands_beside_it() {
    let (log, scorers) = (Kept::default(), scorers("gaia", by_name("exact")));
    let answers =
        vec![answered("a", "1000", "1,000"), answered("b", "x", "x"), answered("c", "x", "y"), answered("d", "x", "")];
    let tally = score(1, &scorers, answers, &log).await;
    assert_eq!((tally.passed, tally.failed, tally.errors), (2, 2, 0));
    assert_eq!((tally.agreed, tally.disagreed), (3, 1));
    assert_eq!(tally.score(), Some(0.5));
    let told: Vec<(String, String, i32, String)> = log
        .judgments()
        .into_iter()
        .take(4)
        .map(|j| (j.trajectory_id, j.judge.unwrap(), j.rule_version, j.verdict))
        .collect();
    let row = |id: &str, judge: &str, version, verdict: &str| (id.into(), judge.into(), version, verdict.into());
    assert_eq!(
        told,
        [
            row("a", "gaia", 2, "pass"),
            row("a", "exact", 1, "fail"),
            row("b", "gaia", 2, "pass"),
            row("b", "exact", 1, "pass")
        ]
    );
    assert!(log.judgments().iter().all(|judgment| judgment.stage == "correctness"));
}

#[tokio::test]
async fn scored_again_adds_nothing_and_another_scoring_stands_above() {
    let log = Kept::default();
    let answers = || vec![answered("a", "x", "x"), answered("b", "x", "y")];
    score(1, &scorers("exact", None), answers(), &log).await;
    let once = log.ids();
    score(1, &scorers("exact", None), answers(), &log).await;
    assert_eq!((log.ids(), once.len()), (once, 2));
    score(2, &scorers("gaia", None), answers(), &log).await;
    let versions: BTreeSet<i32> = log.judgments().iter().map(|judgment| judgment.rule_version).collect();
    assert_eq!((log.ids().len(), versions), (4, BTreeSet::from([2, 4])));
    let runs: BTreeSet<Option<String>> = log.0.lock().iter().map(|event| event.envelope.run_id.clone()).collect();
    assert_eq!(runs.len(), 2);
    assert!(runs.contains(&Some(scoring(1).run)) && runs.contains(&Some(scoring(2).id())));
}

#[tokio::test]
async fn a_failure_of_a_scorer_is_no_wrong_answer_and_is_asked_again() {
    let log = Kept::default();
    let ill = Arc::new(Ill { failures: 1, asked: AtomicUsize::new(0) });
    let by_ill = Scorers { counts: ill, ..scorers("exact", None) };
    let tally = score(1, &by_ill, vec![answered("a", "x", "x")], &log).await;
    assert_eq!((tally.passed, tally.failed, tally.errors, tally.score()), (0, 0, 1, None));
    let failed_once = Given { failures: 1, ..Given::default() };
    let again = Answered { due: [Some(failed_once), None], ..answered("a", "x", "x") };
    assert_eq!(score(1, &by_ill, vec![again], &log).await.passed, 1);
    let verdicts: Vec<String> = log.judgments().into_iter().map(|judgment| judgment.verdict).collect();
    assert_eq!((verdicts, log.ids().len()), (vec!["error".to_string(), "pass".to_string()], 2));
}

#[tokio::test]
async fn of_the_verdicts_on_an_attempt_made_twice_one_is_kept_until_the_recorded_answer_is_judged() {
    let (log, exact) = (Kept::default(), scorers("exact", None));
    score(1, &exact, vec![answered("a", "x", "of the attempt that was not kept")], &log).await;
    score(1, &exact, vec![answered("a", "x", "x")], &log).await;
    // The table keeps the first event of an id.
    assert_eq!((log.judgments().len(), log.ids().len()), (2, 1));
    let given = Given { verdicts: 1, failures: 0 };
    let again = || vec![Answered { due: [Some(given), None], ..answered("a", "x", "x") }];
    score(1, &exact, again(), &log).await;
    score(1, &exact, again(), &log).await;
    assert_eq!(log.ids().len(), 2);
    let last = log.judgments().pop().unwrap();
    let case = answered("a", "x", "x").case().id().to_string();
    assert_eq!(
        (last.verdict.as_str(), last.rule_version, &last.criteria.unwrap().0["case"]),
        ("pass", 2, &json!(case))
    );
}

#[tokio::test]
async fn a_scorer_that_only_fails_is_asked_no_more() {
    let log = Kept::default();
    let ill = Arc::new(Ill { failures: 100, asked: AtomicUsize::new(0) });
    let by_ill = Scorers { counts: ill.clone(), ..scorers("exact", None) };
    let answers = (0..20).map(|n| answered(&n.to_string(), "x", "x")).collect();
    let tally = score(1, &by_ill, answers, &log).await;
    assert_eq!(tally.stopped.as_deref(), Some("a scorer failed 3 times in a row: the judge is out"));
    assert_eq!((tally.errors, ill.asked.load(Ordering::Relaxed), log.ids().len()), (3, 3, 3));
}

#[tokio::test]
async fn a_judge_that_is_out_does_not_keep_the_rule_that_counts_from_scoring() {
    let log = Kept::default();
    let ill = Arc::new(Ill { failures: 100, asked: AtomicUsize::new(0) });
    let answers = (0..20).map(|n| answered(&n.to_string(), "x", "x")).collect();
    let tally = score(1, &scorers("exact", Some(ill.clone())), answers, &log).await;
    // The rule's verdicts do not make the judge look well, and the judge does not end the rule's.
    assert_eq!((tally.passed, ill.asked.load(Ordering::Relaxed)), (20, 3));
    assert_eq!(tally.stopped.as_deref(), Some("a scorer failed 3 times in a row: the judge is out"));
    let verdicts = |of: &str| log.judgments().iter().filter(|judgment| judgment.verdict == of).count();
    assert_eq!((verdicts("pass"), verdicts("error")), (20, 3));
}

#[tokio::test]
async fn what_is_said_of_a_gated_benchmark_stays_with_marked_judgments() {
    let log = Kept::default();
    let ill = Arc::new(Ill { failures: 100, asked: AtomicUsize::new(0) });
    let by_ill = Scorers { counts: ill, ..scorers("exact", None) };
    let gated = |n: i32| Answered { restricted: true, ..answered(&n.to_string(), "x", "x") };
    let tally = score(1, &by_ill, (0..5).map(gated).collect(), &log).await;
    let why = tally.stopped.unwrap();
    assert!(why.starts_with("a scorer failed 3 times in a row") && !why.contains("the judge is out"), "{why}");
    for judgment in log.judgments() {
        assert_eq!(judgment.rationale.as_deref(), Some("the judge is out"));
        assert_eq!(judgment.criteria.unwrap().0["restricted"], true);
    }
    score(2, &scorers("exact", None), vec![answered("a", "x", "x")], &log).await;
    assert_eq!(log.judgments().pop().unwrap().criteria.unwrap().0.get("restricted"), None);
}

fn benchmark() -> Benchmark {
    let rows = br#"[{"question": "a?", "answer": "1"}, {"question": "b?", "answer": "2"}]"#;
    parse("mine", Definition::find("mine", Some(&toml::Table::new())).unwrap(), "m.json", rows, &Limits::default())
        .unwrap()
}

#[tokio::test]
async fn a_tap_hands_durable_trajectories_of_the_run_on_until_it_is_dropped() {
    let (log, benchmark) = (Arc::new(Kept::default()), benchmark());
    let (tap, waiting) = Tap::new(log.clone(), &benchmark.questions, false, true);
    let event = |qa_id: &str, answer: Option<&str>| {
        let row = Trajectory {
            trajectory_id: format!("t-{qa_id}"),
            qa_id: qa_id.to_string(),
            answer: answer.map(str::to_string),
            termination: "answer".to_string(),
            ..Trajectory::default()
        };
        Event::new("test", &row).unwrap()
    };
    let second = benchmark.questions[1].qa_id.as_str();
    let first = benchmark.questions[0].qa_id.as_str();
    let row = Trajectory {
        trajectory_id: "out".into(),
        qa_id: first.into(),
        termination: "error".into(),
        ..Trajectory::default()
    };
    let outage = Event::new("test", &row).unwrap();
    tap.append(vec![event("other", Some("x")), outage, event(second, None)]).await.unwrap();
    drop(tap);
    let handed: Vec<Answered> = waiting.collect().await;
    assert_eq!(log.0.lock().len(), 3);
    let due = Answered {
        trajectory_id: format!("t-{second}"),
        qa_id: second.to_string(),
        question: "b?".to_string(),
        gold: "2".to_string(),
        answer: String::new(),
        due: [Some(Given::default()), None],
        restricted: true,
    };
    assert_eq!(handed, [due]);
}

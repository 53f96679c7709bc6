//! What a judge says of which answers are the same.
//!
//! [`settle`] asks about the answers that rules hold for different, pair by pair, and records what it is told as judgments
//! of the stage `equivalence`: of the later attempt, `criteria.with` being the earlier. [`sql`] and [`judged`] read them
//! again, so that a report asks nobody. Where the judge failed the answers stay apart, and the pair is asked about again the
//! next time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::{Array as _, RecordBatch};
use arrow::datatypes::DataType;
use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::json;
use webdancer_agent::judge::{Case, Decision, Judge, Verdict};
use webdancer_schemas::answer::vote_key;
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::log::EventLog;
use webdancer_schemas::rows::Judgment;

use super::{Equivalence, by_rules};
use crate::attempts::{Attempt, RowsError, as_type, integers, judged_by, strings};
use crate::benchmark::SOURCE;
use crate::run::{Question, Run};
use crate::scoring::{Breaker, ScoreConfig, ScoringError};

/// The stage of these judgments.
const STAGE: &str = "equivalence";
/// Pairs of answers to one question that a judge is asked about; the rest counts as different.
const PAIRS_MAX: usize = 200;

/// A question, and the normal forms of two answers to it.
type Pair = (String, String, String);

/// What is known of pairs of answers. An answer is known by its normal form, whichever of a pair it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    pairs: HashMap<Pair, bool>,
}

impl Known {
    /// Whether two answers to a question are the same; None where nobody has said.
    pub fn said(&self, qa_id: &str, first: &str, second: &str) -> Option<bool> {
        self.pairs.get(&key(qa_id, first, second)).copied()
    }

    /// Keeps what was said of two answers.
    pub fn keep(&mut self, qa_id: &str, first: &str, second: &str, same: bool) {
        self.pairs.insert(key(qa_id, first, second), same);
    }
}

impl Equivalence for Known {
    fn same(&self, qa_id: &str, first: &str, second: &str) -> bool {
        self.said(qa_id, first, second) == Some(true)
    }
}

fn key(qa_id: &str, first: &str, second: &str) -> Pair {
    let mut forms = [vote_key(first), vote_key(second)].map(Option::unwrap_or_default);
    forms.sort_unstable();
    let [low, high] = forms;
    (qa_id.to_string(), low, high)
}

/// How the answers of a run were held against each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JudgedVotes {
    /// Who did, with the version of the prompt.
    pub judges: Vec<String>,
    /// Pairs of answers that are the same.
    pub same: u64,
    /// And that are not.
    pub different: u64,
    /// Pairs of which nobody could say, since the judge failed. They count as different.
    pub undecided: u64,
}

/// The query for what judges said of answers. `condition` as in [`attempts::sql`](crate::attempts::sql).
pub fn sql(condition: &str) -> String {
    format!(
        "SELECT t.run_id, t.qa_id, f.answer AS first, t.answer AS second, j.verdict, j.judge, \
           json_get_int(j.criteria, 'judged_by', 'rules', 'version') AS judge_version \
         FROM judgments AS j \
         JOIN current_trajectories AS t ON t.trajectory_id = j.trajectory_id \
         JOIN current_trajectories AS f ON f.trajectory_id = json_get_str(j.criteria, 'with') \
         LEFT JOIN current_qa AS q ON q.qa_id = t.qa_id \
         WHERE j.stage = '{STAGE}' AND f.answer IS NOT NULL AND t.answer IS NOT NULL AND ({condition}) \
         ORDER BY j.event_time, j.event_id"
    )
}

/// What these rows say, by run. Of several verdicts on a pair the last counts.
///
/// # Errors
/// [`RowsError`] when the rows are not those of [`sql`].
pub fn judged(batches: &[RecordBatch]) -> Result<BTreeMap<String, (Known, JudgedVotes)>, RowsError> {
    let mut runs: BTreeMap<String, Told> = BTreeMap::new();
    for batch in batches {
        let text = |name| strings(&as_type(batch, name, &DataType::Utf8)?, name);
        let (run, qa, first, second) = (text("run_id")?, text("qa_id")?, text("first")?, text("second")?);
        let (verdict, judge) = (text("verdict")?, text("judge")?);
        let version = integers(&as_type(batch, "judge_version", &DataType::Int64)?, "judge_version")?;
        for row in 0..batch.num_rows() {
            let run = if run.is_valid(row) { run.value(row) } else { "" };
            let Told { known, judges, failed } = runs.entry(run.to_string()).or_default();
            let (qa, first, second) = (qa.value(row), first.value(row), second.value(row));
            let judge = if judge.is_valid(row) { judge.value(row) } else { "unknown" };
            judges.insert(judged_by(judge, version.is_valid(row).then(|| version.value(row))));
            match Verdict::from_word(verdict.value(row)) {
                Some(Verdict::Pass) => known.keep(qa, first, second, true),
                Some(Verdict::Fail) => known.keep(qa, first, second, false),
                Some(Verdict::Error) | None => {
                    failed.insert(key(qa, first, second));
                }
            }
        }
    }
    Ok(runs.into_iter().map(|(run, told)| (run, told.counted())).collect())
}

/// What judges said of the answers of a run.
#[derive(Default)]
struct Told {
    known: Known,
    judges: BTreeSet<String>,
    failed: BTreeSet<Pair>,
}

impl Told {
    fn counted(self) -> (Known, JudgedVotes) {
        let Told { known, judges, failed } = self;
        let count = |said: bool| known.pairs.values().filter(|same| **same == said).count() as u64;
        let undecided = failed.iter().filter(|pair| !known.pairs.contains_key(*pair)).count() as u64;
        let judges = judges.into_iter().collect();
        let votes = JudgedVotes { judges, same: count(true), different: count(false), undecided };
        (known, votes)
    }
}

/// What asking has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VoteTally {
    /// Questions whose answers rules alone do not make one.
    pub questions: u64,
    /// Pairs of answers that are the same.
    pub same: u64,
    /// And that are not.
    pub different: u64,
    /// Pairs on which the judge failed.
    pub errors: u64,
    /// Pairs that were left, beyond what is asked of one question.
    pub left: u64,
    /// Why the judge was asked no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

impl VoteTally {
    fn add(&mut self, other: &VoteTally) {
        self.questions += other.questions;
        self.same += other.same;
        self.different += other.different;
        self.errors += other.errors;
        self.left += other.left;
    }
}

/// Asks `judge`, one of the style `same`, which answers of a run are the same where rules and `known` do not say, several
/// questions at a time; appends what it says. After `errors_in_a_row_max` failures the rest is left.
///
/// # Errors
/// The log does not take the judgments. A judge that fails is none: the pair is undecided.
pub async fn settle(
    run: &Run,
    judge: &dyn Judge,
    known: &Known,
    log: &dyn EventLog,
    config: &ScoreConfig,
    progress: impl Fn(&VoteTally) + Send,
) -> Result<VoteTally, ScoringError> {
    let breaker = Breaker::new(config.errors_in_a_row_max);
    let asking = stream::iter(&run.questions).map(|question| ask(question, judge, known, &breaker));
    let mut asking = std::pin::pin!(asking.buffer_unordered(config.concurrency.max(1)));
    let mut tally = VoteTally::default();
    while let Some(asked) = asking.next().await {
        let (of_question, events) = asked?;
        if !events.is_empty() {
            log.append(events).await?;
        }
        tally.add(&of_question);
        progress(&tally);
    }
    tally.stopped = breaker.reason();
    Ok(tally)
}

/// Asks about the clusters of one question, each by its first answer.
async fn ask(
    question: &Question,
    judge: &dyn Judge,
    known: &Known,
    breaker: &Breaker,
) -> Result<(VoteTally, Vec<Event>), ScoringError> {
    let firsts = representatives(question);
    let mut tally = VoteTally { questions: u64::from(firsts.len() > 1), ..VoteTally::default() };
    let mut events = Vec::new();
    let mut numbers: Vec<usize> = (0..firsts.len()).collect();
    let mut asked = 0;
    for (later, (second, answer)) in firsts.iter().enumerate() {
        for (earlier, (first, before)) in firsts.iter().enumerate().take(later) {
            let (Some(from), Some(to)) = (numbers.get(later).copied(), numbers.get(earlier).copied()) else { continue };
            if from == to || breaker.is_open() {
                continue;
            }
            let mut same = known.said(&question.qa_id, before, answer);
            if same.is_none() && asked >= PAIRS_MAX {
                tally.left += 1;
                continue;
            }
            if same.is_none() {
                asked += 1;
                let decision = judge.judge(&Case { question: &question.text, gold: before, answer }).await;
                breaker.count(&decision, question.restricted);
                same = (decision.verdict != Verdict::Error).then_some(decision.verdict == Verdict::Pass);
                events.push(event(question, judge, first, second, decision)?);
            }
            match same {
                Some(true) => {
                    tally.same += 1;
                    let (low, high) = (from.min(to), from.max(to));
                    numbers.iter_mut().filter(|number| **number == high).for_each(|number| *number = low);
                    // Its cluster has been held against the others.
                    break;
                }
                Some(false) => tally.different += 1,
                None => tally.errors += 1,
            }
        }
    }
    Ok((tally, events))
}

/// The first attempt of each cluster of answers, by rules, with its answer.
fn representatives(question: &Question) -> Vec<(&Attempt, &str)> {
    let answers: Vec<Option<&str>> = question.attempts.iter().map(Attempt::committed).collect();
    let (clusters, firsts) = by_rules(&answers);
    let first = |(number, answer): (usize, &'_ str)| {
        let place = clusters.iter().position(|cluster| *cluster == Some(number))?;
        let attempt = question.attempts.get(place)?;
        attempt.committed().filter(|given| *given == answer).map(|given| (attempt, given))
    };
    firsts.into_iter().enumerate().filter_map(first).collect()
}

fn event(
    question: &Question,
    judge: &dyn Judge,
    first: &Attempt,
    second: &Attempt,
    decision: Decision,
) -> Result<Event, serde_json::Error> {
    let (before, after) = (first.committed().unwrap_or_default(), second.committed().unwrap_or_default());
    let case = Case { question: &question.text, gold: before, answer: after };
    let version = judge.rule_version();
    let mut criteria = json!({
        "with": first.trajectory_id,
        "case": case.id().to_string(),
        "judged_by": {"judge": judge.name(), "rules": {"version": version, "style": "same"}},
    });
    if let (true, Some(criteria)) = (question.restricted, criteria.as_object_mut()) {
        criteria.insert("restricted".to_string(), json!(true));
    }
    let row = Judgment {
        trajectory_id: second.trajectory_id.clone(),
        stage: STAGE.to_string(),
        verdict: decision.verdict.as_str().to_string(),
        score: None,
        judge: Some(judge.name().to_string()),
        criteria: Some(JsonText(criteria)),
        rationale: Some(decision.rationale).filter(|rationale| !rationale.is_empty()),
        rule_version: version,
    };
    let event = Event::new(SOURCE, &row)?;
    let event = match decision.verdict {
        // A verdict is given once; each failure is an event of its own.
        Verdict::Pass | Verdict::Fail => {
            let said = [STAGE, &first.trajectory_id, &second.trajectory_id, judge.name(), &version.to_string()];
            event.with_id(EventId::from_producer(SOURCE, &said.join("\0")).0)
        }
        Verdict::Error => event,
    };
    Ok(event.with_run(&second.run_id).with_parents(vec![first.trajectory_id.clone(), second.trajectory_id.clone()]))
}

//! Scoring: verdicts on the attempts of a run, by what counts and by a second scorer beside it.
//!
//! A [`Scoring`] is one pass over a run: the one that is part of the run, or a later one by other scorers. It judges what
//! [`Answered`] hands in and appends [judgments](webdancer_schemas::rows::Judgment) of the stage `correctness`. The verdict
//! that counts has the highest rule version, so the view `current_judgments` takes it: the `n`th scoring of a run gives
//! what counts the version 2n, and what stands beside it 2n − 1. A [`Tap`] hands the trajectories that a sampler
//! appends to a scoring, so that a run has a score while it runs.
//!
//! Ids are derived from run, scoring, trajectory and scorer: a scoring that is taken up again repeats no verdict. Where a
//! judge fails, that is its verdict, `error`, and a later pass asks again; it never becomes a wrong answer.
//!
//! An attempt that is made twice has one trajectory, the one that came into the table first, and of the verdicts on both the
//! first is kept, as they have one id. That may be the verdict on the answer that was not kept: by its `case` a later pass
//! knows it, and gives the recorded answer a verdict of its own ([`Given`]), which as the later one is in force.

mod tap;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use webdancer_agent::judge::{Case, Decision, Judge, Style, Verdict};
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog, LogError};
use webdancer_schemas::rows::Judgment;

use crate::benchmark::SOURCE;

pub use tap::Tap;

/// Verdicts that are appended at once.
const APPENDED_AT_ONCE: usize = 128;
/// Hexadecimal digits of a digest in an event.
const DIGEST_DIGITS: usize = 16;

/// How scoring is done: `[eval]` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScoreConfig {
    /// Answers that are judged at a time. 16 by default.
    pub concurrency: usize,
    /// Failures of a judge in a row after which it is asked no more. 20 by default.
    pub errors_in_a_row_max: u32,
}

impl Default for ScoreConfig {
    fn default() -> ScoreConfig {
        ScoreConfig { concurrency: 16, errors_in_a_row_max: 20 }
    }
}

/// A scorer as a run names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScorerPlan {
    /// `gaia`, `normalised`, `exact`, or the role of a model.
    pub by: String,
    /// The judge's name in events: the model's, or the rules'.
    pub judge: String,
    /// Version of its rules and prompt.
    pub rule_version: i32,
    /// How a model is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<Style>,
}

/// Who scores a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScorersPlan {
    /// Whose verdict counts.
    pub counts: ScorerPlan,
    /// Whose verdict is told beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<ScorerPlan>,
}

impl ScorersPlan {
    /// SHA-256 of the plan, hex: equal for scorers that decide alike.
    pub fn digest(&self) -> String {
        let text = json!(self).to_string();
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The scorers of a plan, ready.
#[derive(Debug, Clone)]
pub struct Scorers {
    /// Who they are.
    pub plan: ScorersPlan,
    /// Whose verdict counts.
    pub counts: Arc<dyn Judge>,
    /// Whose verdict is told beside it.
    pub beside: Option<Arc<dyn Judge>>,
}

/// Which of two scorers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The one that counts.
    Counts,
    /// The one beside it.
    Beside,
}

impl Place {
    /// Both.
    pub const ALL: [Place; 2] = [Place::Counts, Place::Beside];

    fn name(self) -> &'static str {
        match self {
            Place::Counts => "counts",
            Place::Beside => "beside",
        }
    }

    /// The rule version of its verdicts in the `number`th scoring of a run.
    pub fn version(self, number: i32) -> i32 {
        let counts = number.saturating_mul(2);
        match self {
            Place::Counts => counts,
            Place::Beside => counts.saturating_sub(1),
        }
    }
}

/// One pass over the attempts of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scoring {
    /// The run that is scored.
    pub run: String,
    /// When that run began.
    pub start: DateTime<Utc>,
    /// Which of the run's scorings, from 1. 0: one that does not count.
    pub number: i32,
    /// Of one that does not count the digest of its scorers, which tells it from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncounted: Option<String>,
}

/// An attempt to be scored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answered {
    /// The trajectory.
    pub trajectory_id: String,
    /// The question's id.
    pub qa_id: String,
    /// The question.
    pub question: String,
    /// The gold answer.
    pub gold: String,
    /// The answer; none is wrong without asking anybody.
    pub answer: String,
    /// Where verdicts are due, by [`Place`], and what was given there before.
    pub due: [Option<Given>; 2],
    /// Whether the benchmark is gated: what a scorer says of it stays with the judgments, which are marked.
    pub restricted: bool,
}

/// What was given of an attempt that is due nevertheless: the ids of what comes next follow from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Given {
    /// Verdicts: on an answer that is not the recorded one, or before a failure.
    pub verdicts: u64,
    /// Failures of the scorer.
    pub failures: u64,
}

/// What a scoring has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ScoreTally {
    /// Attempts whose verdict that counts is a pass.
    pub passed: u64,
    /// And a fail.
    pub failed: u64,
    /// And neither, because the scorer failed.
    pub errors: u64,
    /// Attempts that both scorers decided alike.
    pub agreed: u64,
    /// And differently.
    pub disagreed: u64,
    /// Why a scorer was asked no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

impl ScoreTally {
    /// The share of verdicts that are passes.
    pub fn score(&self) -> Option<f64> {
        let judged = self.passed + self.failed;
        (judged > 0).then(|| self.passed as f64 / judged as f64)
    }

    /// The verdicts of both. Errors and the reason to stop are the later's: what failed before is asked again.
    pub fn with(&self, later: &ScoreTally) -> ScoreTally {
        ScoreTally {
            passed: self.passed + later.passed,
            failed: self.failed + later.failed,
            errors: later.errors,
            agreed: self.agreed + later.agreed,
            disagreed: self.disagreed + later.disagreed,
            stopped: later.stopped.clone(),
        }
    }

    fn count(&mut self, verdicts: [Option<Verdict>; 2]) {
        match verdicts[0] {
            Some(Verdict::Pass) => self.passed += 1,
            Some(Verdict::Fail) => self.failed += 1,
            Some(Verdict::Error) => self.errors += 1,
            None => {}
        }
        match verdicts {
            [Some(Verdict::Error), _] | [_, Some(Verdict::Error)] | [None, _] | [_, None] => {}
            [counts, beside] if counts == beside => self.agreed += 1,
            _ => self.disagreed += 1,
        }
    }
}

/// Why scoring broke off, by what to do. What was recorded stays; scoring again goes on behind it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoringError {
    /// See to the log.
    #[error("verdicts could not be appended: {0}")]
    Log(#[from] LogError),
    /// Report it: a row could not be written as JSON.
    #[error("a verdict as JSON: {0}")]
    Internal(#[from] serde_json::Error),
}

/// What came of one attempt.
type Judged = ([Option<Verdict>; 2], Vec<Event>);

impl Scoring {
    /// A pass whose verdicts do not count: their version is below that of any other. A comparison asks for them, to know
    /// what another judge says of the same answers.
    pub fn uncounted(run: &str, start: DateTime<Utc>, scorers: &ScorersPlan) -> Scoring {
        Scoring { run: run.to_string(), start, number: 0, uncounted: Some(scorers.digest()) }
    }

    /// The id of the run that the verdicts are of: the run itself for its first scoring, one derived from it for others.
    pub fn id(&self) -> String {
        let derived =
            |purpose: &str, step| EventId::derive(self.start, &self.run, Kind::Run, purpose, step).to_string();
        match (self.number, &self.uncounted) {
            (_, Some(scorers)) => derived(&format!("uncounted/{scorers}"), 0),
            (1, None) => self.run.clone(),
            (number, None) => derived("rescore", u64::try_from(number).unwrap_or(0)),
        }
    }

    /// Scores attempts as they come, several at a time, and appends the verdicts. After `errors_in_a_row_max` failures of
    /// a scorer the rest of its verdicts is passed over and stays due; the other scorer goes on.
    ///
    /// # Errors
    /// The log does not take the verdicts. A scorer that fails is none: that is a verdict.
    pub async fn score(
        &self,
        scorers: &Scorers,
        answered: impl Stream<Item = Answered> + Send,
        log: &dyn EventLog,
        config: &ScoreConfig,
        progress: impl Fn(&ScoreTally) + Send,
    ) -> Result<ScoreTally, ScoringError> {
        let breakers = Place::ALL.map(|_| Breaker::new(config.errors_in_a_row_max));
        let id = self.id();
        let judging = answered.map(|answered| {
            let (breakers, id) = (&breakers, id.as_str());
            async move { self.judge(scorers, &answered, id, breakers).await }
        });
        let judged = judging.buffer_unordered(config.concurrency.max(1)).ready_chunks(APPENDED_AT_ONCE);
        let mut judged = std::pin::pin!(judged);
        let mut tally = ScoreTally::default();
        while let Some(chunk) = judged.next().await {
            let mut events = Vec::new();
            for one in chunk {
                let (verdicts, made): Judged = one?;
                tally.count(verdicts);
                events.extend(made);
            }
            if !events.is_empty() {
                log.append(events).await?;
            }
            progress(&tally);
        }
        tally.stopped = breakers.iter().find_map(Breaker::reason);
        Ok(tally)
    }

    async fn judge(
        &self,
        scorers: &Scorers,
        answered: &Answered,
        id: &str,
        breakers: &[Breaker; 2],
    ) -> Result<Judged, ScoringError> {
        let (mut verdicts, mut events) = ([None; 2], Vec::new());
        let judges = [Some(&scorers.counts), scorers.beside.as_ref()];
        for (((place, judge), breaker), (due, verdict)) in
            Place::ALL.into_iter().zip(judges).zip(breakers).zip(answered.due.into_iter().zip(&mut verdicts))
        {
            let (Some(judge), Some(given)) = (judge, due) else { continue };
            if breaker.is_open() {
                continue;
            }
            let decision = judge.judge(&answered.case()).await;
            breaker.count(&decision, answered.restricted);
            *verdict = Some(decision.verdict);
            events.push(self.event(id, place, judge.as_ref(), scorers, answered, given, decision)?);
        }
        Ok((verdicts, events))
    }

    #[expect(clippy::too_many_arguments, reason = "what a verdict names")]
    fn event(
        &self,
        id: &str,
        place: Place,
        judge: &dyn Judge,
        scorers: &Scorers,
        answered: &Answered,
        given: Given,
        decision: Decision,
    ) -> Result<Event, ScoringError> {
        let plan = match place {
            Place::Counts => Some(&scorers.plan.counts),
            Place::Beside => scorers.plan.beside.as_ref(),
        };
        let digits = |text: String| text.chars().take(DIGEST_DIGITS).collect::<String>();
        let mut criteria = json!({
            "place": place.name(),
            "scoring": self.number,
            "digest": digits(scorers.plan.digest()),
            "case": answered.case().id().to_string(),
            "attempted": decision.attempted,
            "judged_by": {
                "judge": judge.name(),
                "rules": {"version": judge.rule_version(), "style": plan.and_then(|plan| plan.style)},
            },
        });
        let members =
            [("extracted", decision.extracted.map(Value::from)), ("confidence", decision.confidence.map(Value::from))];
        if let Some(object) = criteria.as_object_mut() {
            object.extend(answered.restricted.then(|| ("restricted".to_string(), json!(true))));
            object.extend(members.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))));
        }
        let row = Judgment {
            trajectory_id: answered.trajectory_id.clone(),
            stage: "correctness".to_string(),
            verdict: decision.verdict.as_str().to_string(),
            score: None,
            judge: Some(judge.name().to_string()),
            criteria: Some(JsonText(criteria)),
            rationale: Some(decision.rationale).filter(|rationale| !rationale.is_empty()),
            rule_version: place.version(self.number),
        };
        // Each failure is an event of its own; a verdict is given once, unless it was on another answer.
        let (what, step) = match decision.verdict {
            Verdict::Error => ("error", given.failures),
            Verdict::Pass | Verdict::Fail => ("verdict", given.verdicts),
        };
        let work = format!("{id}/{}/{what}", place.name());
        let event_id = EventId::derive(self.start, &work, Kind::Judgment, &answered.trajectory_id, step);
        let parents = vec![answered.trajectory_id.clone(), answered.qa_id.clone()];
        Ok(Event::new(SOURCE, &row)?.with_id(event_id).with_run(id).with_parents(parents))
    }
}

impl Answered {
    /// What is judged.
    pub fn case(&self) -> Case<'_> {
        Case { question: &self.question, gold: &self.gold, answer: &self.answer }
    }
}

/// Ends the asking when a scorer only fails.
#[derive(Debug)]
pub(crate) struct Breaker {
    most: u32,
    is_open: AtomicBool,
    state: Mutex<(u32, Option<String>)>,
}

impl Breaker {
    pub(crate) fn new(most: u32) -> Breaker {
        Breaker { most: most.max(1), is_open: AtomicBool::new(false), state: Mutex::default() }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Counts a decision. What a failure says may quote the answers, and so stays untold where the benchmark is gated.
    pub(crate) fn count(&self, decision: &Decision, restricted: bool) {
        let mut state = self.state.lock();
        if decision.verdict != Verdict::Error {
            state.0 = 0;
            return;
        }
        state.0 += 1;
        if state.0 >= self.most && state.1.is_none() {
            let why =
                if restricted { "the judgments of this gated benchmark say why" } else { decision.rationale.as_str() };
            state.1 = Some(format!("a scorer failed {} times in a row: {why}", state.0));
            self.is_open.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn reason(&self) -> Option<String> {
        self.state.lock().1.clone()
    }
}

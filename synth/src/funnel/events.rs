//! Runs and verdicts as events.

use chrono::{DateTime, SubsecRound as _, Utc};
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};
use webdancer_agent::judge::Verdict;
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::{Envelope, Event};
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::row::HasKind;
use webdancer_schemas::rows::{self, Judgment};

use super::rules::Ruling;
use super::stage::digest;
use super::{Attempts, FunnelError, Reason, StageRules};

/// The source of the funnel's events.
pub const SOURCE: &str = "webdancer/filter";

/// A run that judges or rewards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// When it began: the time of its judgments and rewards.
    pub start: DateTime<Utc>,
}

/// A verdict, and what is told of it.
#[derive(Debug, Clone)]
pub(super) struct Told<'a> {
    pub(super) verdict: Verdict,
    /// The name of why it does not pass.
    pub(super) reason: Option<&'static str>,
    /// Rules or model.
    pub(super) judge: &'a str,
    pub(super) rationale: String,
    pub(super) score: Option<f64>,
    /// Further members of the criteria.
    pub(super) found: Map<String, Value>,
    /// What was judged beside the trajectory, such as a digest of the gold answer.
    pub(super) judged: String,
}

impl Told<'_> {
    pub(super) fn by_rules(ruling: Ruling) -> Told<'static> {
        Told {
            verdict: if ruling.passed() { Verdict::Pass } else { Verdict::Fail },
            reason: ruling.reason.map(Reason::name),
            judge: "rules",
            rationale: ruling.detail,
            score: None,
            found: Map::new(),
            judged: String::new(),
        }
    }
}

/// The event of a verdict on the trajectory in `row`.
///
/// Its id is derived: from the trajectory and its time, the stage, its version and its rules, and the gold answer where
/// one is judged by. So one version of a stage judges a trajectory once. Failures of a judge are counted, each has an id
/// of its own; so has a verdict by a gold answer that was changed and is now what it was before.
pub(super) fn judgment(
    attempts: &Attempts<'_>,
    row: usize,
    rules: &StageRules,
    told: Told<'_>,
    run: &Run,
) -> Result<Event, FunnelError> {
    let trajectory_id = attempts.trajectory_id(row);
    let mut criteria = Map::from_iter([("digest".to_string(), Value::from(rules.digest.as_str()))]);
    if let Some(reason) = told.reason {
        criteria.insert("reason".to_string(), Value::from(reason));
    }
    criteria.extend(told.found);
    criteria.insert("judged_by".to_string(), rules.rules.clone());
    let judgment = Judgment {
        trajectory_id: trajectory_id.to_string(),
        stage: rules.stage.name().to_string(),
        verdict: told.verdict.as_str().to_string(),
        score: told.score,
        judge: Some(told.judge.to_string()),
        criteria: Some(JsonText(Value::Object(criteria))),
        rationale: Some(told.rationale).filter(|rationale| !rationale.is_empty()),
        rule_version: rules.version,
    };
    let work = format!("filter/{}/{}/{}/{}", rules.stage, rules.version, rules.digest, told.judged);
    let (work, step) = match told.verdict {
        Verdict::Error => (format!("{work}/error"), attempts.errors(rules.stage, row)),
        _ => (work, attempts.verdicts(rules.stage, row)),
    };
    let id = EventId::derive(attempts.event_time(row), &work, Kind::Judgment, trajectory_id, step);
    let parents = vec![trajectory_id.to_string(), attempts.qa_id(row).to_string()];
    event(id, &judgment, parents, run)
}

impl Run {
    /// The event that says that a run of `kind` began, under this configuration, or how it ended. To say the same again
    /// is the same event; under another configuration it is another one.
    ///
    /// # Errors
    /// [`FunnelError::Internal`] for what cannot be JSON.
    pub fn event(&self, kind: &str, state: RunState, config: Value, now: DateTime<Utc>) -> Result<Event, FunnelError> {
        let error = if let RunState::Failed(why) = &state { Some(why.clone()) } else { None };
        let work = format!("{}/{}", self.id, digest(&config));
        let row = rows::Run {
            kind: kind.to_string(),
            state: state.name().to_string(),
            config: Some(JsonText(config)),
            code_version: Some(webdancer_schemas::code::version()),
            error,
            ..rows::Run::default()
        };
        let id = EventId::derive(self.start, &work, Kind::Run, state.name(), 0);
        let mut event = event(id, &row, Vec::new(), self)?;
        event.envelope.subject = Some(self.id.clone());
        Ok(event.at(now))
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// It began.
    Started,
    /// It did all that there was to do.
    Finished,
    /// It was stopped, or stopped asking a judge that only failed; the next one goes on.
    Stopped,
    /// It failed, for this reason; the next one goes on.
    Failed(String),
}

impl RunState {
    fn name(&self) -> &'static str {
        match self {
            RunState::Started => "started",
            RunState::Finished => "finished",
            RunState::Stopped => "stopped",
            RunState::Failed(_) => "failed",
        }
    }
}

/// What the stages of a run judge by, as its configuration. The view `current_judgments` reads the rule versions from
/// there: those that the last run named are in force. A stage that has none yet, 0, names none.
pub fn config_of<'a>(rules: impl IntoIterator<Item = &'a StageRules>) -> Value {
    let stages = rules.into_iter().map(|rules| {
        let version = Some(rules.version).filter(|version| *version > 0);
        let stage = json!({"rule_version": version, "digest": rules.digest, "rules": rules.rules});
        (rules.stage.name().to_string(), stage)
    });
    Value::Object(stages.collect())
}

/// An event of `run`, at its time.
pub(super) fn event<R: HasKind>(id: EventId, row: &R, parents: Vec<String>, run: &Run) -> Result<Event, FunnelError> {
    let data = to_raw_value(row).map_err(|error| FunnelError::Internal(format!("a row as JSON: {error}")))?;
    let envelope = Envelope {
        id,
        source_event_id: None,
        source: SOURCE.to_string(),
        kind: R::KIND,
        time: Some(run.start.trunc_subsecs(6)),
        subject: Some(row.subject()),
        run_id: Some(run.id.clone()),
        parents,
        traceparent: None,
        extensions: Vec::new(),
    };
    Ok(Event { envelope, data })
}

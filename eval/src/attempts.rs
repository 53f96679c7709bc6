//! Attempts with their verdicts: what reports are made of, read from record batches.
//!
//! [`sql`] is the query that gives the columns. It joins what the view `evaluations` joins, but begins at the trajectories:
//! that view's rows are those with a verdict, and an attempt that nobody judged must be seen as that, not be missing.

use arrow::array::{Array as _, ArrayRef, AsArray as _, BooleanArray, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use serde_json::{Map, Value};
use webdancer_agent::tool::Tools;
use webdancer_query::{gated, literal};

use crate::scoring::ScorerPlan;

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Judged correct.
    Correct,
    /// Judged wrong, or ended without an answer by its own doing: limits, form, giving up.
    Wrong,
    /// The judge failed.
    JudgeFailed,
    /// An endpoint or a tool was out.
    Outage,
    /// There is an answer and no verdict.
    Unjudged,
    /// Its run set out to make it, and has not: given up after an outage, left by a budget, or still to come.
    Missing,
}

impl Outcome {
    /// Whether the answer is correct, where that is known.
    pub fn correct(self) -> Option<bool> {
        match self {
            Outcome::Correct => Some(true),
            Outcome::Wrong => Some(false),
            Outcome::JudgeFailed | Outcome::Outage | Outcome::Unjudged | Outcome::Missing => None,
        }
    }
}

/// One attempt at a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its trajectory; empty where the attempt is missing.
    pub trajectory_id: String,
    /// Its run; empty where none is named.
    pub run_id: String,
    /// The question.
    pub qa_id: String,
    /// Number of the attempt.
    pub number: i64,
    /// The policy: model, and version or checkpoint where there is one.
    pub policy: String,
    /// The model alone; empty where none is named.
    pub model: String,
    /// The question's text, as asked.
    pub question: String,
    /// `crawlqa`, `e2hqa`, `benchmark` or `import`.
    pub method: Option<String>,
    /// Type of the question.
    pub kind: Option<String>,
    /// Language of the question.
    pub language: Option<String>,
    /// Rewrites that the question is away from its root.
    pub rewrites: Option<i64>,
    /// Further attributes of the question.
    pub attributes: Map<String, Value>,
    /// The final answer.
    pub answer: Option<String>,
    /// Why it ended.
    pub termination: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Who judged, with the version of its rules and prompt: `gaia v1`. None where nobody did.
    pub judge: Option<String>,
    /// Whether a person overrode the judge.
    pub overridden: bool,
    /// Whether the answer commits itself, where the judge told: one that declines does not.
    pub attempted: Option<bool>,
    /// Confidence that the answer states, 0 to 1.
    pub confidence: Option<f64>,
    /// Whether the benchmark is gated.
    pub restricted: bool,
    /// Tokens that the policy read.
    pub input_tokens: Option<i64>,
    /// Tokens that it wrote.
    pub output_tokens: Option<i64>,
    /// Milliseconds from first to last turn; None where turns were not timed.
    pub wall_ms: Option<i64>,
    /// Of these, milliseconds of tool calls; the rest is the policy's. None where calls were not timed.
    pub tool_ms: Option<i64>,
    /// Tool calls.
    pub calls: u64,
    /// Tool calls of which it is known how they went.
    pub calls_known: u64,
    /// Those that brought nothing: invalid, missed, unreachable, out.
    pub calls_failed: u64,
    /// Calls of a tool that there is not.
    pub calls_invented: u64,
    /// Calls behind the observation in which the gold answer was first seen; None where it was not, or is too short to tell.
    pub calls_after_answer: Option<u64>,
}

impl Attempt {
    /// The answer, where one was given that does not decline.
    pub fn committed(&self) -> Option<&str> {
        self.answer.as_deref().filter(|_| self.attempted != Some(false))
    }
}

/// Rows that are not as [`sql`] gives them.
#[derive(Debug, thiserror::Error)]
#[error("column {column} of the attempts: {why}; give the rows of webdancer_eval::attempts::sql")]
pub struct RowsError {
    column: &'static str,
    why: String,
}

/// The columns of attempts `t`, their questions `q`, the gated ones `g` and their verdicts `j`, but for `qa_id` and
/// `calls_after_answer`.
const COLUMNS: &str = "t.trajectory_id, t.run_id, t.attempt, t.policy_model, \
    t.policy_version, t.policy_checkpoint_digest, coalesce(t.question, q.question) AS question, q.method, q.type, \
    q.language, q.rewrites, q.attributes, t.answer, t.termination, j.verdict, j.judge, j.rule_version, j.overridden, \
    json_get_int(j.criteria, 'judged_by', 'rules', 'version') AS judge_version, \
    json_get_float(j.criteria, 'confidence') AS confidence, json_get_bool(j.criteria, 'attempted') AS attempted, \
    (coalesce(t.restricted, false) OR g.qa_id IS NOT NULL) AS restricted, t.input_tokens, t.output_tokens, t.turn_ms, \
    t.turn_tool_ms, t.turn_tool, t.turn_outcome";
/// What joins `o`, the observations of attempts `t` among other columns. The view itself has to keep the rows of the attempts
/// asked for in memory, until it knows which of each is the current one; those of a join go by.
pub(crate) const OBSERVATIONS: &str = "JOIN trajectories AS o ON o.event_id = t.event_id AND o.source = t.source";

/// Calls after the answer was seen, which no observation was read for.
const UNREAD: &str = "CAST(NULL AS BIGINT) AS calls_after_answer";

/// The query for the attempts at questions. `condition` is SQL over the columns of `trajectories` as `t`, and of their
/// questions as `q`. It reads no observation, so that `calls_after_answer` is not known.
pub fn sql(condition: &str) -> String {
    select("current_judgments", condition, UNREAD, "")
}

/// The same with `calls_after_answer`: it reads the observations, the largest part of a trajectory.
pub fn sql_with_over_action(condition: &str) -> String {
    let seen = "calls_after_answer(q.answer, o.turn_observation, o.turn_tool) AS calls_after_answer";
    select("current_judgments", condition, seen, OBSERVATIONS)
}

/// The attempts with the verdicts of one judge, whether they count or not.
pub fn sql_judged_by(condition: &str, judge: &ScorerPlan) -> String {
    select(&verdicts_of(judge), condition, UNREAD, "")
}

/// A subquery for the verdicts of a judge on answers, one a trajectory. What a person said holds whoever judges, and an
/// error only where there is no verdict.
pub fn verdicts_of(judge: &ScorerPlan) -> String {
    let style = judge.style.and_then(|style| serde_json::to_value(style).ok());
    let style = style.as_ref().and_then(Value::as_str).map_or_else(|| "NULL".to_string(), literal::text);
    let (name, version) = (literal::text(&judge.judge), judge.rule_version);
    let columns = "trajectory_id, stage, verdict, judge, criteria, rule_version";
    format!(
        "(SELECT {columns}, overridden FROM ( \
            SELECT *, row_number() OVER (PARTITION BY trajectory_id \
              ORDER BY overridden DESC, verdict = 'error', event_time DESC, event_id DESC) AS place \
            FROM (SELECT {columns}, overridden, event_time, event_id FROM current_judgments \
                  WHERE stage = 'correctness' AND overridden \
                UNION ALL SELECT {columns}, false AS overridden, event_time, event_id FROM judgments \
                  WHERE stage = 'correctness' AND judge = {name} \
                    AND json_get_int(criteria, 'judged_by', 'rules', 'version') = {version} \
                    AND json_get_str(criteria, 'judged_by', 'rules', 'style') IS NOT DISTINCT FROM {style}) \
          ) WHERE place = 1)"
    )
}

fn select(judgments: &str, condition: &str, after_answer: &str, observations: &str) -> String {
    format!(
        "SELECT t.qa_id, {COLUMNS}, {after_answer} \
         FROM current_trajectories AS t \
         LEFT JOIN current_qa AS q ON q.qa_id = t.qa_id {} \
         LEFT JOIN {judgments} AS j ON j.trajectory_id = t.trajectory_id AND j.stage = 'correctness' {observations} \
         WHERE {condition} \
         ORDER BY t.run_id, t.qa_id, t.attempt, t.event_time, t.event_id",
        gated::joined_to("t")
    )
}

/// The query for questions as [`read`] takes them, each as one attempt that was not made. `condition` is SQL over the columns
/// of `qa` as `q`.
pub fn questions_sql(condition: &str) -> String {
    let of = |name: &str, sql_type: &str| match QUESTION.contains(&name) {
        true => format!("q.{name}"),
        false => format!("CAST(NULL AS {sql_type}) AS {name}"),
    };
    let list = |name: &str, element: &str| format!("arrow_cast(NULL, 'List({element})') AS {name}");
    let texts = TEXTS.iter().map(|name| of(name, "VARCHAR"));
    let numbers = NUMBERS.iter().map(|name| of(name, "BIGINT"));
    let truths = ["overridden", "attempted", "restricted"].map(|name| of(name, "BOOLEAN"));
    let lists = ["turn_ms", "turn_tool_ms"].map(|name| list(name, "Int64"));
    let names = ["turn_tool", "turn_outcome"].map(|name| list(name, "Utf8"));
    let columns: Vec<String> =
        texts.chain(numbers).chain(truths).chain([of("confidence", "DOUBLE")]).chain(lists).chain(names).collect();
    format!("SELECT {} FROM current_qa AS q WHERE {condition} ORDER BY q.qa_id", columns.join(", "))
}

/// The attempts of these rows, in their order.
///
/// # Errors
/// [`RowsError`] when a column is missing or of another type.
pub fn read(batches: &[RecordBatch]) -> Result<Vec<Attempt>, RowsError> {
    let mut attempts = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    let tools = Tools::standard().names();
    for batch in batches {
        let columns = Columns::of(batch)?;
        attempts.extend((0..batch.num_rows()).map(|row| columns.attempt(row, &tools)));
    }
    Ok(attempts)
}

struct Columns {
    texts: [StringArray; 14],
    numbers: [Int64Array; 8],
    overridden: BooleanArray,
    attempted: BooleanArray,
    restricted: BooleanArray,
    confidence: arrow::array::Float64Array,
    turn_ms: Lists<Int64Array>,
    turn_tool_ms: Lists<Int64Array>,
    turn_tool: Lists<StringArray>,
    turn_outcome: Lists<StringArray>,
}

const TEXTS: [&str; 14] = [
    "trajectory_id",
    "run_id",
    "qa_id",
    "policy_model",
    "policy_checkpoint_digest",
    "question",
    "method",
    "type",
    "language",
    "attributes",
    "answer",
    "termination",
    "verdict",
    "judge",
];
/// Those that a question has, attempted or not.
const QUESTION: [&str; 7] = ["qa_id", "question", "method", "type", "language", "rewrites", "attributes"];
const NUMBERS: [&str; 8] = [
    "attempt",
    "policy_version",
    "rewrites",
    "rule_version",
    "judge_version",
    "input_tokens",
    "output_tokens",
    "calls_after_answer",
];

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Columns, RowsError> {
        let mut texts = Vec::with_capacity(TEXTS.len());
        for name in TEXTS {
            texts.push(strings(&as_type(batch, name, &DataType::Utf8)?, name)?);
        }
        let mut numbers = Vec::with_capacity(NUMBERS.len());
        for name in NUMBERS {
            numbers.push(integers(&as_type(batch, name, &DataType::Int64)?, name)?);
        }
        let boolean = |name| {
            let column = as_type(batch, name, &DataType::Boolean)?;
            column.as_boolean_opt().cloned().ok_or_else(|| not_as_given(name))
        };
        let confidence = as_type(batch, "confidence", &DataType::Float64)?;
        Ok(Columns {
            texts: texts.try_into().map_err(|_| not_as_given("trajectory_id"))?,
            numbers: numbers.try_into().map_err(|_| not_as_given("attempt"))?,
            overridden: boolean("overridden")?,
            attempted: boolean("attempted")?,
            restricted: boolean("restricted")?,
            confidence: confidence.as_primitive_opt().cloned().ok_or_else(|| not_as_given("confidence"))?,
            turn_ms: Lists::of(batch, "turn_ms", &DataType::Int64, integers)?,
            turn_tool_ms: Lists::of(batch, "turn_tool_ms", &DataType::Int64, integers)?,
            turn_tool: Lists::of(batch, "turn_tool", &DataType::Utf8, strings)?,
            turn_outcome: Lists::of(batch, "turn_outcome", &DataType::Utf8, strings)?,
        })
    }

    fn attempt(&self, row: usize, tools: &[String]) -> Attempt {
        let [
            trajectory,
            run,
            qa,
            model,
            checkpoint,
            question,
            method,
            kind,
            language,
            attributes,
            answer,
            termination,
            verdict,
            judge,
        ] = self.texts.each_ref().map(|column| column.is_valid(row).then(|| column.value(row)));
        let [number, version, rewrites, rule_version, judge_version, input_tokens, output_tokens, after_answer] =
            self.numbers.each_ref().map(|column| column.is_valid(row).then(|| column.value(row)));
        let owned = |text: Option<&str>| text.map(str::to_string);
        let overridden = self.overridden.is_valid(row) && self.overridden.value(row);
        let answer = answer.filter(|answer| !answer.trim().is_empty());
        let termination = termination.unwrap_or_default();
        let (calls_known, calls_failed) = self.outcomes(row);
        let called: Vec<&str> = self.called(row).collect();
        let timed = |lists: &Lists<Int64Array>| {
            let times: Vec<i64> = lists.row(row).filter_map(|at| element(&lists.values, at)).collect();
            (!times.is_empty()).then(|| times.iter().sum::<i64>())
        };
        let wall_ms = timed(&self.turn_ms);
        Attempt {
            trajectory_id: trajectory.unwrap_or_default().to_string(),
            run_id: run.unwrap_or_default().to_string(),
            qa_id: qa.unwrap_or_default().to_string(),
            number: number.unwrap_or_default(),
            policy: policy(model, version, checkpoint),
            model: model.unwrap_or_default().to_string(),
            question: question.unwrap_or_default().to_string(),
            method: owned(method),
            kind: owned(kind),
            language: owned(language),
            rewrites,
            attributes: attributes.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
            answer: owned(answer),
            outcome: match trajectory {
                Some(_) => outcome(verdict, overridden, termination, answer.is_some()),
                None => Outcome::Missing,
            },
            termination: termination.to_string(),
            judge: judge.map(|judge| match overridden {
                true => judge.to_string(),
                // The judgment's own version counts verdicts of one trajectory: only the judge's tells judges apart.
                false => judged_by(judge, judge_version.or(rule_version)),
            }),
            overridden,
            attempted: self.attempted.is_valid(row).then(|| self.attempted.value(row)),
            confidence: self.confidence.is_valid(row).then(|| self.confidence.value(row)),
            restricted: self.restricted.is_valid(row) && self.restricted.value(row),
            input_tokens,
            output_tokens,
            wall_ms,
            // Where nothing was called, no time went into it.
            tool_ms: timed(&self.turn_tool_ms).or(wall_ms.filter(|_| called.is_empty()).map(|_| 0)),
            calls: called.len() as u64,
            calls_known,
            calls_failed,
            calls_invented: called.iter().filter(|tool| !tools.iter().any(|known| known == *tool)).count() as u64,
            calls_after_answer: after_answer.and_then(|calls| u64::try_from(calls).ok()),
        }
    }

    /// The tools that were called.
    fn called(&self, row: usize) -> impl Iterator<Item = &str> {
        let tools = &self.turn_tool.values;
        self.turn_tool.row(row).filter(|at| tools.is_valid(*at)).map(|at| tools.value(at))
    }

    /// Calls whose outcome is known, and those that brought nothing.
    fn outcomes(&self, row: usize) -> (u64, u64) {
        let outcomes: Vec<&str> = self
            .turn_outcome
            .row(row)
            .filter(|at| self.turn_outcome.values.is_valid(*at))
            .map(|at| self.turn_outcome.values.value(at))
            // A turn that was no call has this outcome, too.
            .filter(|outcome| *outcome != "malformed")
            .collect();
        let failed = outcomes.iter().filter(|outcome| **outcome != "done").count();
        (outcomes.len() as u64, failed as u64)
    }
}

pub(crate) fn policy(model: Option<&str>, version: Option<i64>, checkpoint: Option<&str>) -> String {
    let model = model.unwrap_or("unknown");
    match (version, checkpoint) {
        (Some(version), _) => format!("{model} at {version}"),
        (None, Some(digest)) => format!("{model} {}", digest.chars().take(12).collect::<String>()),
        (None, None) => model.to_string(),
    }
}

pub(crate) fn judged_by(judge: &str, rule_version: Option<i64>) -> String {
    rule_version.map_or_else(|| judge.to_string(), |version| format!("{judge} v{version}"))
}

/// What became of an attempt. Where an endpoint or a tool was out, only a person's word makes it more than that.
fn outcome(verdict: Option<&str>, overridden: bool, termination: &str, answered: bool) -> Outcome {
    match verdict {
        _ if termination == "error" && !overridden => Outcome::Outage,
        Some("pass") => Outcome::Correct,
        Some("fail") => Outcome::Wrong,
        Some(_) => Outcome::JudgeFailed,
        None if answered => Outcome::Unjudged,
        None => Outcome::Wrong,
    }
}

/// A column of lists whose elements have one type.
struct Lists<A> {
    lists: ListArray,
    values: A,
}

impl<A> Lists<A> {
    fn of(
        batch: &RecordBatch,
        name: &'static str,
        element: &DataType,
        read: fn(&ArrayRef, &'static str) -> Result<A, RowsError>,
    ) -> Result<Lists<A>, RowsError> {
        let column = batch.column_by_name(name).ok_or_else(|| missing(name))?;
        let lists = column.as_list_opt::<i32>().cloned().ok_or_else(|| not_as_given(name))?;
        let values =
            cast(lists.values(), element).map_err(|error| RowsError { column: name, why: error.to_string() })?;
        Ok(Lists { values: read(&values, name)?, lists })
    }

    /// Where the elements of a row stand among the values; nowhere if it has no list.
    fn row(&self, row: usize) -> std::ops::Range<usize> {
        if self.lists.is_null(row) {
            return 0..0;
        }
        let bound = |at: usize| self.lists.value_offsets().get(at).and_then(|offset| usize::try_from(*offset).ok());
        bound(row).unwrap_or(0)..bound(row + 1).unwrap_or(0)
    }
}

fn element(values: &Int64Array, at: usize) -> Option<i64> {
    values.is_valid(at).then(|| values.value(at))
}

pub(crate) fn as_type(batch: &RecordBatch, name: &'static str, wanted: &DataType) -> Result<ArrayRef, RowsError> {
    let column = batch.column_by_name(name).ok_or_else(|| missing(name))?;
    cast(column, wanted).map_err(|error| RowsError { column: name, why: error.to_string() })
}

pub(crate) fn strings(column: &ArrayRef, name: &'static str) -> Result<StringArray, RowsError> {
    column.as_string_opt::<i32>().cloned().ok_or_else(|| not_as_given(name))
}

pub(crate) fn integers(column: &ArrayRef, name: &'static str) -> Result<Int64Array, RowsError> {
    column.as_primitive_opt::<Int64Type>().cloned().ok_or_else(|| not_as_given(name))
}

fn missing(column: &'static str) -> RowsError {
    RowsError { column, why: "is missing".to_string() }
}

pub(crate) fn not_as_given(column: &'static str) -> RowsError {
    RowsError { column, why: "is of another type".to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_never_a_wrong_answer_and_no_answer_always_is() {
        for (verdict, overridden, termination, answered, due) in [
            (Some("pass"), false, "answer", true, Outcome::Correct),
            (Some("fail"), false, "forced", true, Outcome::Wrong),
            (Some("error"), false, "answer", true, Outcome::JudgeFailed),
            (None, false, "answer", true, Outcome::Unjudged),
            (None, false, "calls", false, Outcome::Wrong),
            (None, false, "malformed", false, Outcome::Wrong),
            (None, false, "error", false, Outcome::Outage),
            // A rule that fails what has no answer says nothing of an outage.
            (Some("fail"), false, "error", false, Outcome::Outage),
            (Some("fail"), true, "error", false, Outcome::Wrong),
        ] {
            assert_eq!(outcome(verdict, overridden, termination, answered), due, "{verdict:?} {termination}");
        }
    }

    #[test]
    fn rows_of_another_query_are_refused_by_the_column_that_they_lack() {
        let ids: ArrayRef = std::sync::Arc::new(StringArray::from(vec!["t"]));
        let batch = RecordBatch::try_from_iter([("trajectory_id", ids)]).unwrap();
        let error = read(&[batch]).unwrap_err().to_string();
        assert_eq!(error, "column run_id of the attempts: is missing; give the rows of webdancer_eval::attempts::sql");
    }

    #[test]
    fn a_policy_is_named_with_what_tells_it_from_another() {
        assert_eq!(policy(Some("qwen"), None, None), "qwen");
        assert_eq!(policy(Some("qwen"), Some(30), Some("abc")), "qwen at 30");
        assert_eq!(policy(Some("qwen"), None, Some("0123456789abcdef")), "qwen 0123456789ab");
        assert_eq!(policy(None, None, None), "unknown");
    }
}

//! What the tables say of a run: the attempts that are to be scored, and its scores.

use arrow::array::{Array as _, AsArray as _, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use serde::Serialize;
use webdancer_agent::chat::Usage;
use webdancer_eval::benchmark::SOURCE;
use webdancer_eval::run::of_runs;
use webdancer_eval::scoring::{Answered, Given, Place, Scoring};
use webdancer_query::literal;

use crate::columns::{column, query, strings, text};
use crate::context::Context;
use crate::failure::Failure;

/// The attempts of a run whose recorded answer lacks a verdict of a scoring, in the order in which they were made. A verdict
/// that is of another answer settles nothing: the attempt was made twice, and the table keeps one of both.
pub(super) async fn unscored(
    context: &Context,
    scoring: &Scoring,
    with_beside: bool,
) -> Result<Vec<Answered>, Failure> {
    let [counts, beside] = Place::ALL.map(|place| place.version(scoring.number));
    let sql = format!(
        "WITH given AS (
            SELECT trajectory_id, rule_version, count(*) FILTER (WHERE verdict <> 'error') AS verdicts,
                count(*) FILTER (WHERE verdict = 'error') AS failures,
                last_value(CASE WHEN verdict <> 'error' THEN json_get_str(criteria, 'case') END
                    ORDER BY event_time, event_id) AS judged
            FROM judgments WHERE source = '{SOURCE}' AND stage = 'correctness' AND run_id = '{id}'
            GROUP BY trajectory_id, rule_version
        )
        SELECT t.trajectory_id, t.qa_id, q.question, q.answer AS gold, t.answer, coalesce(t.restricted, false) AS restricted,
            c.judged AS counts_judged, coalesce(c.verdicts, 0) AS counts_verdicts, coalesce(c.failures, 0) AS counts_failures,
            b.judged AS beside_judged, coalesce(b.verdicts, 0) AS beside_verdicts, coalesce(b.failures, 0) AS beside_failures
        FROM current_trajectories AS t
        JOIN current_qa AS q ON q.qa_id = t.qa_id
        LEFT JOIN given AS c ON c.trajectory_id = t.trajectory_id AND c.rule_version = {counts}
        LEFT JOIN given AS b ON b.trajectory_id = t.trajectory_id AND b.rule_version = {beside}
        WHERE t.run_id = {run} AND t.termination <> 'error'
        ORDER BY t.event_time, t.event_id",
        id = scoring.id(),
        run = literal::text(&scoring.run),
    );
    let mut found = Vec::new();
    for batch in &query(context, &sql).await? {
        let (counts, beside) = (Earlier::of(batch, "counts")?, Earlier::of(batch, "beside")?);
        for (row, answered) in answered(batch)?.into_iter().enumerate() {
            let case = answered.case().id().to_string();
            let due = [counts.due(row, &case), beside.due(row, &case).filter(|_| with_beside)];
            if due.iter().any(Option::is_some) {
                found.push(Answered { due, ..answered });
            }
        }
    }
    Ok(found)
}

/// What a scorer has given of the attempts of a batch.
struct Earlier {
    /// The case that its last verdict is of; none where it failed last.
    judged: StringArray,
    verdicts: Int64Array,
    failures: Int64Array,
}

impl Earlier {
    fn of(batch: &RecordBatch, place: &str) -> Result<Earlier, Failure> {
        Ok(Earlier {
            judged: strings(batch, &format!("{place}_judged"))?,
            verdicts: number(batch, &format!("{place}_verdicts"))?,
            failures: number(batch, &format!("{place}_failures"))?,
        })
    }

    fn due(&self, row: usize, case: &str) -> Option<Given> {
        let count = |column: &Int64Array| u64::try_from(column.value(row)).unwrap_or(0);
        let given = Given { verdicts: count(&self.verdicts), failures: count(&self.failures) };
        (text(&self.judged, row) != Some(case)).then_some(given)
    }
}

/// The attempts of these rows, each with nothing due.
pub(super) fn answered(batch: &RecordBatch) -> Result<Vec<Answered>, Failure> {
    let names = ["trajectory_id", "qa_id", "question", "gold", "answer"];
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        columns.push(strings(batch, name)?);
    }
    let restricted = column(batch, "restricted", &DataType::Boolean)?;
    let is_restricted =
        |row| restricted.as_boolean_opt().is_some_and(|column| column.is_valid(row) && column.value(row));
    let row = |row: usize| {
        let of = |place: usize| columns.get(place).and_then(|column| text(column, row)).unwrap_or_default().to_string();
        Answered {
            trajectory_id: of(0),
            qa_id: of(1),
            question: of(2),
            gold: of(3),
            answer: of(4),
            due: [None, None],
            restricted: is_restricted(row),
        }
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

pub(in crate::commands) fn number(batch: &RecordBatch, name: &str) -> Result<Int64Array, Failure> {
    let column = column(batch, name, &DataType::Int64)?;
    column.as_primitive_opt::<Int64Type>().cloned().ok_or_else(|| Failure::usage(format!("column {name}")))
}

/// A run's scores as the tables have them.
#[derive(Debug, Default, Serialize)]
pub(super) struct Scores {
    /// Attempts recorded.
    pub(super) attempts: i64,
    /// Of these, with a verdict.
    pub(super) judged: i64,
    /// Correct.
    pub(super) correct: i64,
    /// Whose scorer failed.
    pub(super) errors: i64,
    /// The mean over questions of the share of attempts that is correct: Pass@1.
    pub(super) pass_at_1: Option<f64>,
    /// Attempts that two scorers judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) judged_by_both: Option<i64>,
    /// And decided alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agreed: Option<i64>,
}

/// The scores in force of a run, and how its scorers agree in this scoring.
pub(super) async fn scores(context: &Context, scoring: &Scoring, with_beside: bool) -> Result<Scores, Failure> {
    let run = literal::text(&scoring.run);
    let sql = format!(
        "WITH questions AS (
            SELECT t.qa_id, count(*) AS attempts, count(e.correct) AS judged,
                count(*) FILTER (WHERE e.correct) AS correct, count(*) FILTER (WHERE e.verdict = 'error') AS errors
            FROM current_trajectories AS t LEFT JOIN evaluations AS e ON e.trajectory_id = t.trajectory_id
            WHERE t.run_id = {run} AND t.termination <> 'error' GROUP BY t.qa_id
        )
        SELECT coalesce(sum(attempts), 0) AS attempts, coalesce(sum(judged), 0) AS judged,
            coalesce(sum(correct), 0) AS correct, coalesce(sum(errors), 0) AS errors,
            avg(CASE WHEN judged > 0 THEN CAST(correct AS DOUBLE) / judged END) AS pass_at_1
        FROM questions"
    );
    let mut scores = Scores::default();
    for batch in query(context, &sql).await?.iter().filter(|batch| batch.num_rows() > 0) {
        let first = |name| number(batch, name).map(|column| column.value(0));
        let pass_at_1 = column(batch, "pass_at_1", &DataType::Float64)?;
        scores = Scores {
            attempts: first("attempts")?,
            judged: first("judged")?,
            correct: first("correct")?,
            errors: first("errors")?,
            pass_at_1: pass_at_1.as_primitive_opt::<Float64Type>().filter(|c| c.is_valid(0)).map(|c| c.value(0)),
            ..Scores::default()
        };
    }
    if with_beside {
        let (both, agreed) = agreement(context, scoring).await?;
        (scores.judged_by_both, scores.agreed) = (Some(both), Some(agreed));
    }
    Ok(scores)
}

/// How some of a run's attempts stand.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Standing {
    /// Recorded.
    pub(super) made: u64,
    /// Of these, with a verdict.
    pub(super) judged: u64,
    /// Whose scorer failed.
    pub(super) errors: u64,
}

/// How the first attempts of a run stand, so many at each question, at all questions or at some.
pub(super) async fn standing(
    context: &Context,
    run: &str,
    attempts: u32,
    some: Option<&[String]>,
) -> Result<Standing, Failure> {
    let of = |ids: &[String]| literal::texts(ids.iter().map(String::as_str));
    let some = some.map(|ids| format!("AND t.qa_id IN {}", of(ids))).unwrap_or_default();
    let run = literal::text(run);
    let sql = format!(
        "SELECT count(*) AS made, count(e.correct) AS judged, count(*) FILTER (WHERE e.verdict = 'error') AS errors
        FROM current_trajectories AS t LEFT JOIN evaluations AS e ON e.trajectory_id = t.trajectory_id
        WHERE t.run_id = {run} AND t.termination <> 'error' AND t.attempt < {attempts} {some}"
    );
    let batches = query(context, &sql).await?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(Standing::default()) };
    let first = |name| number(batch, name).map(|column| u64::try_from(column.value(0)).unwrap_or(0));
    Ok(Standing { made: first("made")?, judged: first("judged")?, errors: first("errors")? })
}

/// What a model did as one policy, in some runs together.
#[derive(Debug)]
pub(super) struct Acted {
    /// The policy as the runs were told it, such as `endpoint:qwen`.
    pub(super) policy: Option<String>,
    pub(super) model: String,
    pub(super) attempts: u64,
    /// Tokens read and written.
    pub(super) usage: Usage,
}

/// What was done in these runs, by policy and model.
pub(super) async fn acted(context: &Context, runs: &[String]) -> Result<Vec<Acted>, Failure> {
    let sql = format!(
        "SELECT json_get_str(r.config, 'policy') AS policy, coalesce(t.policy_model, '') AS model, count(*) AS attempts,
            coalesce(sum(t.input_tokens), 0) AS read, coalesce(sum(t.output_tokens), 0) AS written
        FROM current_trajectories AS t LEFT JOIN run_state AS r ON r.run_id = t.run_id
        WHERE {} GROUP BY 1, 2 ORDER BY 1, 2",
        of_runs(runs.iter().map(String::as_str))
    );
    let mut found = Vec::new();
    for batch in &query(context, &sql).await? {
        let (policies, models) = (strings(batch, "policy")?, strings(batch, "model")?);
        let columns = [number(batch, "attempts")?, number(batch, "read")?, number(batch, "written")?];
        found.extend((0..batch.num_rows()).map(|row| {
            let [attempts, input_tokens, output_tokens] =
                columns.each_ref().map(|column| u64::try_from(column.value(row)).unwrap_or(0));
            Acted {
                policy: text(&policies, row).map(str::to_string),
                model: text(&models, row).unwrap_or_default().to_string(),
                attempts,
                usage: Usage { input_tokens, output_tokens, ..Usage::default() },
            }
        }));
    }
    Ok(found)
}

async fn agreement(context: &Context, scoring: &Scoring) -> Result<(i64, i64), Failure> {
    let [counts, beside] = Place::ALL.map(|place| place.version(scoring.number));
    let of = |version: i32| {
        format!(
            "SELECT trajectory_id, last_value(verdict ORDER BY event_time, event_id) AS verdict FROM judgments \
             WHERE source = '{SOURCE}' AND stage = 'correctness' AND run_id = '{}' AND rule_version = {version} \
             AND verdict <> 'error' GROUP BY trajectory_id",
            scoring.id()
        )
    };
    let sql = format!(
        "SELECT count(*) AS judged_by_both, count(*) FILTER (WHERE c.verdict = b.verdict) AS agreed \
         FROM ({}) AS c JOIN ({}) AS b ON b.trajectory_id = c.trajectory_id",
        of(counts),
        of(beside)
    );
    let batches = query(context, &sql).await?;
    match batches.first() {
        Some(batch) => Ok((number(batch, "judged_by_both")?.value(0), number(batch, "agreed")?.value(0))),
        None => Ok((0, 0)),
    }
}

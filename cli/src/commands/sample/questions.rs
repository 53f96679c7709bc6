//! What the tables say to a run: its questions, the attempts it has made, and its plan.

use std::collections::HashSet;

use arrow::array::{Array as _, AsArray as _, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use webdancer_synth::sample::Question;

use super::plan::{Plan, Questions};
use webdancer_query::literal;

use crate::acting::ActingPlan;
use crate::columns::{column, pinned, query, strings, text};
use crate::context::Context;
use crate::failure::Failure;
use crate::fitting::WebTexts;

/// All questions, each as it was told last, in the order in which they were first told. Benchmarks are evaluated, not
/// trained on: whoever wants attempts at them asks for them.
const ALL: &str = "SELECT qa_id, question, planned, evidence FROM (\
    SELECT q.qa_id, q.question, json_get_json(q.attributes, 'plan') IS NOT NULL AS planned, \
      array_to_string(q.evidence_page_digests, ' ') AS evidence, f.told_at \
    FROM current_qa AS q JOIN (SELECT qa_id, min(event_time) AS told_at FROM qa GROUP BY qa_id) AS f ON f.qa_id = q.qa_id \
    WHERE q.method IS DISTINCT FROM 'benchmark') AS told ORDER BY told_at, qa_id";

/// The questions of a plan, and those of the lake that it leaves out.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) questions: Vec<Question>,
    /// Questions that rest on other pages than the closed web's.
    pub(super) of_other_webs: usize,
    /// Questions that the policy has no plan for, where it needs one.
    pub(super) without_plan: usize,
}

/// The questions of a plan. Where it names none, they are all that fit its web and its policy.
pub(super) async fn asked(context: &Context, plan: &Plan) -> Result<Asked, Failure> {
    let (flag, batches) = match &plan.questions {
        Questions::All => return fitting(context, &plan.acting).await,
        Questions::Sql(sql) => ("--sql", query(context, sql).await),
        Questions::Pin(digest) => ("--pin", pinned(context, &context.lake.find_pin(digest).await?).await),
    };
    let mut questions = batches.and_then(|batches| questions(&batches)).map_err(|failure| failure.about(flag))?;
    // Whether the rows say so or not: attempts at a gated benchmark are marked.
    let gated = gated(context).await?;
    questions.iter_mut().filter(|question| gated.contains(&question.qa_id)).for_each(|question| {
        question.restricted = Some(true);
    });
    Ok(Asked { questions, ..Asked::default() })
}

/// The questions of gated benchmarks.
async fn gated(context: &Context) -> Result<HashSet<String>, Failure> {
    let sql = "SELECT DISTINCT qa_id FROM qa WHERE method = 'benchmark' AND json_get_bool(attributes, 'restricted')";
    let mut gated = HashSet::new();
    for batch in &query(context, sql).await? {
        gated.extend(strings(batch, "qa_id")?.iter().flatten().map(str::to_string));
    }
    Ok(gated)
}

async fn fitting(context: &Context, acting: &ActingPlan) -> Result<Asked, Failure> {
    let web = WebTexts::of(context, &acting.web).await?;
    let mut asked = Asked::default();
    for batch in &query(context, ALL).await? {
        let evidence = strings(batch, "evidence")?;
        let planned = column(batch, "planned", &DataType::Boolean)?;
        let planned: Option<&BooleanArray> = planned.as_boolean_opt();
        for (row, question) in questions(std::slice::from_ref(batch))?.into_iter().enumerate() {
            let has_plan = planned.is_some_and(|planned| !planned.is_null(row) && planned.value(row));
            if !web.hold(text(&evidence, row).unwrap_or_default()) {
                asked.of_other_webs += 1;
            } else if acting.needs_plans() && !has_plan {
                asked.without_plan += 1;
            } else {
                asked.questions.push(question);
            }
        }
    }
    Ok(asked)
}

/// The questions in these rows.
fn questions(batches: &[RecordBatch]) -> Result<Vec<Question>, Failure> {
    let mut found = Vec::new();
    for batch in batches {
        let (ids, texts) = (strings(batch, "qa_id")?, strings(batch, "question")?);
        let restricted = match batch.column_by_name("restricted") {
            Some(_) => Some(column(batch, "restricted", &DataType::Boolean)?),
            None => None,
        };
        let restricted: Option<&BooleanArray> = restricted.as_ref().and_then(|column| column.as_boolean_opt());
        for row in 0..batch.num_rows() {
            let (Some(id), Some(question)) = (text(&ids, row), text(&texts, row)) else {
                return Err(Failure::usage("the questions have rows without qa_id or question: leave them out"));
            };
            found.push(Question {
                qa_id: id.to_string(),
                question: question.to_string(),
                restricted: restricted.and_then(|column| (!column.is_null(row)).then(|| column.value(row))),
            });
        }
    }
    Ok(found)
}

/// The attempts that a run has made: question and number.
pub(in crate::commands) async fn made(context: &Context, run: &str) -> Result<HashSet<(String, i32)>, Failure> {
    let sql = format!(
        "SELECT qa_id, CAST(attempt AS BIGINT) AS attempt FROM trajectories \
         WHERE run_id = {} AND termination <> 'error'",
        literal::text(run)
    );
    let mut made = HashSet::new();
    for batch in &query(context, &sql).await? {
        let ids = strings(batch, "qa_id")?;
        let numbers = column(batch, "attempt", &DataType::Int64)?;
        let numbers: Option<&Int64Array> = numbers.as_primitive_opt::<Int64Type>();
        let pairs = ids.iter().zip(numbers.into_iter().flatten());
        made.extend(pairs.filter_map(|(id, number)| Some((id?.to_string(), i32::try_from(number?).ok()?))));
    }
    Ok(made)
}

/// The plan that a run was begun with, as JSON.
pub(super) async fn plan_of(context: &Context, run: &str) -> Result<String, Failure> {
    plan_of_kind(context, run, ("sample", "sampling")).await
}

/// The plan that a run of this kind was begun with, as JSON; the kind as it stands in `runs`, and in words.
pub(in crate::commands) async fn plan_of_kind(
    context: &Context,
    run: &str,
    (kind, what): (&str, &str),
) -> Result<String, Failure> {
    let sql = format!("SELECT config FROM run_state WHERE run_id = '{run}' AND kind = '{kind}'");
    let mut plans = Vec::new();
    for batch in &query(context, &sql).await? {
        plans.extend(strings(batch, "config")?.iter().flatten().map(str::to_string));
    }
    plans.pop().ok_or_else(|| {
        let ingest = "; with Kafka, what `webdancer ingest` has not brought there is not seen";
        Failure::usage(format!("there is no run {run} of {what} in the tables{ingest}"))
    })
}

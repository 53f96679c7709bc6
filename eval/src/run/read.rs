//! Runs out of the lake, whole: with what they set out to do and have not done.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use webdancer_query::literal;

use super::{Plan, Run, runs};
use crate::attempts::{self, RowsError, as_type, strings};

/// The condition for attempts of these runs; an empty id stands for attempts that name none.
pub fn of_runs<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let ids: Vec<&str> = ids.into_iter().collect();
    match ids.contains(&"") {
        // An index helps neither: attempts of no run have none.
        true => format!("coalesce(t.run_id, '') IN {}", literal::texts(ids)),
        false => format!("t.run_id IN {}", literal::texts(ids)),
    }
}

/// The runs whose attempts a query gives, one of [`attempts`], with the policy that they were told. What a run set out to
/// do and has not is among them as [missing](Run::complete): it is no reason to score what was done as if that were all.
/// `query` gives a statement's rows.
///
/// # Errors
/// Those of `query`, and rows that are not as the query gives them.
pub async fn read<E, F>(sql: String, query: impl Fn(String) -> F) -> Result<Vec<Run>, E>
where
    E: From<RowsError>,
    F: Future<Output = Result<Vec<RecordBatch>, E>>,
{
    let mut runs = runs(attempts::read(&query(sql).await?)?);
    let ids = literal::texts(runs.iter().map(|run| run.run_id.as_str()));
    let told = format!(
        "SELECT run_id, json_get_str(config, 'policy') AS policy, CASE WHEN kind = 'eval' THEN config END AS plan \
         FROM run_state WHERE run_id IN {ids}"
    );
    let mut told = read_told(&query(told).await?)?;
    for run in &mut runs {
        let Some(Told { policy, plan }) = told.remove(&run.run_id) else { continue };
        run.told_policy = policy;
        let Some(plan) = plan else { continue };
        let questions = match run.unattempted(&plan).is_empty() {
            true => Vec::new(),
            false => {
                let name = literal::text(&plan.benchmark.benchmark);
                let of_benchmark = format!("q.method = 'benchmark' AND q.generator = {name}");
                attempts::read(&query(attempts::questions_sql(&of_benchmark)).await?)?
            }
        };
        run.complete(&plan, questions);
    }
    Ok(runs)
}

/// What a run told of itself.
struct Told {
    policy: Option<String>,
    /// Of a run over a benchmark: what it set out to do.
    plan: Option<Plan>,
}

/// What each run told of itself.
fn read_told(batches: &[RecordBatch]) -> Result<HashMap<String, Told>, RowsError> {
    let mut told = HashMap::new();
    for batch in batches {
        let texts = |name| strings(&as_type(batch, name, &DataType::Utf8)?, name);
        let (ids, policies, plans) = (texts("run_id")?, texts("policy")?, texts("plan")?);
        let rows = ids.iter().zip(&policies).zip(&plans);
        told.extend(rows.filter_map(|((id, policy), plan)| {
            Some((id?.to_string(), Told { policy: policy.map(str::to_string), plan: plan.and_then(Plan::of_config) }))
        }));
    }
    Ok(told)
}

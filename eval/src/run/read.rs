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

/// The runs whose attempts a query gives, one of [`attempts`]. What a run set out to do and has not is among them as
/// [missing](Run::complete): it is no reason to score what was done as if that were all. `query` gives a statement's rows.
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
    let told = format!("SELECT run_id, config FROM run_state WHERE kind = 'eval' AND run_id IN {ids}");
    let plans = plans(&query(told).await?)?;
    for run in &mut runs {
        let Some(plan) = plans.get(&run.run_id) else { continue };
        let questions = match run.unattempted(plan).is_empty() {
            true => Vec::new(),
            false => {
                let name = literal::text(&plan.benchmark.benchmark);
                let of_benchmark = format!("q.method = 'benchmark' AND q.generator = {name}");
                attempts::read(&query(attempts::questions_sql(&of_benchmark)).await?)?
            }
        };
        run.complete(plan, questions);
    }
    Ok(runs)
}

/// What each run over a benchmark set out to do.
fn plans(batches: &[RecordBatch]) -> Result<HashMap<String, Plan>, RowsError> {
    let mut plans = HashMap::new();
    for batch in batches {
        let texts = |name| strings(&as_type(batch, name, &DataType::Utf8)?, name);
        let (ids, configs) = (texts("run_id")?, texts("config")?);
        let of = |(id, config): (Option<&str>, Option<&str>)| Some((id?.to_string(), Plan::of_config(config?)?));
        plans.extend(ids.iter().zip(&configs).filter_map(of));
    }
    Ok(plans)
}

//! `webdancer filter report`: the waterfall.

use std::path::Path;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use webdancer_query::QueryOptions;
use webdancer_synth::funnel::report::{Ended, Waterfall};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Methods that get bars of their own on a terminal; the table and the SVG have all.
const BARS_MAX: usize = 6;

/// Where trajectories ended. Benchmarks and gated questions do not go through the funnel.
const ENDED: &str = "SELECT coalesce(method, 'unknown') AS method, outcome, stage, reason, count(*) AS trajectories \
    FROM funnel WHERE NOT restricted AND (method IS DISTINCT FROM 'benchmark') GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4";

pub(super) async fn run(context: &Context, svg: Option<&Path>) -> Result<(), Failure> {
    context.drain_embedded().await?;
    let waterfall = waterfall(context).await?;
    if let Some(file) = svg {
        std::fs::write(file, waterfall.svg())
            .map_err(|e| Failure::failed(format!("writing {}: {e}", file.display())))?;
    }
    if context.json {
        return output::json(&waterfall);
    }
    output::line(&waterfall.table())?;
    output::line("")?;
    output::line(&waterfall.bars(None))?;
    if (2..=BARS_MAX).contains(&waterfall.methods.len()) {
        for (index, method) in waterfall.methods.iter().enumerate() {
            output::line(&format!("\n{method}\n{}", waterfall.bars(Some(index))))?;
        }
    }
    Ok(())
}

/// The waterfall of all that the tables hold.
pub(in crate::commands) async fn waterfall(context: &Context) -> Result<Waterfall, Failure> {
    let batches = context.job_engine()?.query(ENDED, &QueryOptions::default()).await?.read_all().await?;
    let ended: Vec<Ended> =
        batches.iter().flat_map(|batch| (0..batch.num_rows()).filter_map(|row| ended(batch, row))).collect();
    Ok(Waterfall::new(&ended))
}

fn ended(batch: &RecordBatch, row: usize) -> Option<Ended> {
    let text = |name: &str| {
        let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row).to_string())
    };
    let counts = batch.column_by_name("trajectories")?.as_primitive_opt::<Int64Type>()?;
    Some(Ended {
        method: text("method")?,
        outcome: text("outcome")?,
        stage: text("stage"),
        reason: text("reason"),
        count: u64::try_from(counts.value(row)).unwrap_or(0),
    })
}

//! What reports and comparisons read, and how they are asked for.

use std::collections::HashMap;
use std::path::Path;

use webdancer_agent::chat::Prices;
use webdancer_eval::attempts::{self, RowsError};
use webdancer_eval::report::Options;
use webdancer_eval::run::{Plan, Run, runs};
use webdancer_eval::stats::bootstrap::Bootstrap;

use crate::args::EvalView;
use crate::columns::{query, strings, text};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::NewFile;

/// Makes what was acknowledged visible.
///
/// # Errors
/// When two forms of the result are asked for.
pub(super) async fn prepare(context: &Context, view: &EvalView) -> Result<(), Failure> {
    if view.markdown && context.json {
        return Err(Failure::usage("--markdown and --json: give one of them"));
    }
    context.drain_embedded().await?;
    Ok(())
}

/// The runs whose attempts meet a condition, with the attempts that they set out to make and did not.
pub(super) async fn runs_where(context: &Context, condition: &str) -> Result<Vec<Run>, Failure> {
    read_runs(context, &attempts::sql(condition)).await
}

/// The same, with what was called after the answer had been seen: all observations are read for it.
pub(super) async fn runs_with_over_action(context: &Context, condition: &str) -> Result<Vec<Run>, Failure> {
    read_runs(context, &attempts::sql_with_over_action(condition)).await
}

/// The runs whose attempts a query gives.
pub(super) async fn read_runs(context: &Context, sql: &str) -> Result<Vec<Run>, Failure> {
    let mut runs = runs(attempts::read(&query(context, sql).await?)?);
    let plans = plans(context).await?;
    for run in &mut runs {
        let Some(plan) = plans.get(&run.run_id) else { continue };
        let questions = match run.unattempted(plan).is_empty() {
            true => Vec::new(),
            false => {
                let name = quoted(&plan.benchmark.benchmark);
                let told = attempts::questions_sql(&format!("q.method = 'benchmark' AND q.generator = {name}"));
                attempts::read(&query(context, &told).await?)?
            }
        };
        run.complete(plan, questions);
    }
    Ok(runs)
}

/// What each run over a benchmark set out to do.
async fn plans(context: &Context) -> Result<HashMap<String, Plan>, Failure> {
    let sql = "SELECT run_id, config FROM run_state WHERE kind = 'eval' AND config IS NOT NULL";
    let mut plans = HashMap::new();
    for batch in &query(context, sql).await? {
        let (ids, configs) = (strings(batch, "run_id")?, strings(batch, "config")?);
        let of = |row| Some((text(&ids, row)?.to_string(), Plan::of_config(text(&configs, row)?)?));
        plans.extend((0..batch.num_rows()).filter_map(of));
    }
    Ok(plans)
}

/// The condition for attempts of these runs.
pub(super) fn of_runs<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let ids: Vec<String> = ids.into_iter().map(quoted).collect();
    format!("t.run_id IN ({})", ids.join(", "))
}

pub(super) fn no_attempts(run: &str) -> Failure {
    Failure::usage(format!("run {run:?} has no attempts; SELECT DISTINCT run_id FROM trajectories"))
}

pub(in crate::commands) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) fn options(view: &EvalView) -> Options {
    let mut options = Options {
        bootstrap: Bootstrap { draws: view.draws, seed: view.seed, ..Bootstrap::default() },
        ..Options::default()
    };
    if !view.by.is_empty() {
        options.by.clone_from(&view.by);
    }
    if !view.ks.is_empty() {
        options.ks.clone_from(&view.ks);
    }
    options
}

/// What the tokens of a run cost: of the one policy that it has, if settings name prices for that model.
pub(super) fn prices(context: &Context, run: &Run) -> Option<Prices> {
    let [policy] = run.policies.as_slice() else { return None };
    prices_of(context, policy)
}

/// What a model's tokens cost, if settings name prices for it.
pub(super) fn prices_of(context: &Context, model: &str) -> Option<Prices> {
    let priced = |price: Option<f64>| price.is_some();
    let endpoints = context.config.endpoints.values();
    let mut named = endpoints.filter(|e| e.model == model && (priced(e.price_input) || priced(e.price_output)));
    named.next().map(|endpoint| endpoint.prices())
}

/// Writes a result to a file that is asked for and not there yet.
pub(super) fn write_file(file: Option<&Path>, text: impl FnOnce() -> String) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let new = NewFile::at(file)?;
    std::io::Write::write_all(&mut new.writer(), text().as_bytes())
        .map_err(|error| Failure::failed(format!("writing {}: {error}", file.display())))?;
    new.keep()
}

impl From<RowsError> for Failure {
    fn from(error: RowsError) -> Failure {
        Failure::failed(error.to_string())
    }
}

//! What reports and comparisons read, and how they are asked for.

use std::path::Path;

use webdancer_eval::attempts::{self, RowsError};
use webdancer_eval::report::Options;
use webdancer_eval::run::{self, Run};
use webdancer_eval::stats::bootstrap::Bootstrap;

use crate::args::EvalView;
use crate::columns::query;
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
    read_runs(context, attempts::sql(condition)).await
}

/// The same, with what was called after the answer had been seen: all observations are read for it.
pub(super) async fn runs_with_over_action(context: &Context, condition: &str) -> Result<Vec<Run>, Failure> {
    read_runs(context, attempts::sql_with_over_action(condition)).await
}

/// The runs whose attempts a query gives.
pub(super) async fn read_runs(context: &Context, sql: String) -> Result<Vec<Run>, Failure> {
    run::read(sql, |sql| async move { query(context, &sql).await }).await
}

pub(super) fn no_attempts(run: &str) -> Failure {
    Failure::usage(format!("run {run:?} has no attempts; SELECT DISTINCT run_id FROM trajectories"))
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

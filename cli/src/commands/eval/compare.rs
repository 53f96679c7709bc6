//! `webdancer eval compare`: two runs over the same questions, and why their scores differ as far as that is known.

use serde::Serialize;
use webdancer_eval::compare::{CompareError, Comparison, compare};
use webdancer_eval::run::{Run, of_runs};

use super::drift::Split;
use super::reading::{no_attempts, options, prepare, runs_where, write_file};
use crate::args::CompareArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// The result of the command.
#[derive(Debug, Serialize)]
struct Summary {
    #[serde(flatten)]
    comparison: Comparison,
    /// Why the score changed.
    split: Split,
}

pub(super) async fn run(context: &Context, args: &CompareArgs) -> Result<(), Failure> {
    let CompareArgs { before, after, view } = args;
    prepare(context, view).await?;
    let runs = runs_where(context, &of_runs([before.as_str(), after])).await?;
    let named =
        |id: &str| -> Result<&Run, Failure> { runs.iter().find(|run| run.run_id == id).ok_or_else(|| no_attempts(id)) };
    let comparison = compare(named(before)?, named(after)?, &options(view))?;
    write_file(view.svg.as_deref(), || comparison.svg())?;
    let split = Split::of(context, [before, after], &options(view)).await;
    let both = |comparison: String, split: String| format!("{comparison}\n{}", split.trim_end());
    match (context.json, view.markdown) {
        (true, _) => output::json(&Summary { comparison, split }),
        (false, true) => output::line(&both(comparison.markdown(), split.markdown())),
        (false, false) => output::line(&both(comparison.text(), split.text())),
    }
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Failure {
        Failure::usage(error.to_string())
    }
}

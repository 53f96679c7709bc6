//! `webdancer eval compare`: two runs over the same questions.

use webdancer_eval::compare::{CompareError, compare};
use webdancer_eval::run::{Run, of_runs};

use super::reading::{no_attempts, options, prepare, runs_where, write_file};
use crate::args::CompareArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

pub(super) async fn run(context: &Context, args: &CompareArgs) -> Result<(), Failure> {
    let CompareArgs { before, after, view } = args;
    prepare(context, view).await?;
    let runs = runs_where(context, &of_runs([before.as_str(), after])).await?;
    let named =
        |id: &str| -> Result<&Run, Failure> { runs.iter().find(|run| run.run_id == id).ok_or_else(|| no_attempts(id)) };
    let comparison = compare(named(before)?, named(after)?, &options(view))?;
    write_file(view.svg.as_deref(), || comparison.svg())?;
    match (context.json, view.markdown) {
        (true, _) => output::json(&comparison),
        (false, true) => output::line(comparison.markdown().trim_end()),
        (false, false) => output::line(comparison.text().trim_end()),
    }
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Failure {
        Failure::usage(error.to_string())
    }
}

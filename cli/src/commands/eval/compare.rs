//! `webdancer eval compare`: two runs over the same questions, and why their scores differ as far as that is known.

use serde::Serialize;
use webdancer_eval::compare::{CompareError, Comparison, compare};
use webdancer_eval::drift::web::{self, WebChange};
use webdancer_eval::run::{Run, of_runs};

use super::drift::Split;
use super::reading::{no_attempts, options, prepare, runs_where, write_file};
use crate::args::CompareArgs;
use crate::columns::query;
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
    /// What of the web differed, where that could be read.
    web: Option<WebChange>,
}

/// Of two runs that two judges judged.
#[derive(Debug, Serialize)]
struct ByJudge {
    /// Why there is no more.
    refused: String,
    /// Why the score changed.
    split: Split,
}

pub(super) async fn run(context: &Context, args: &CompareArgs) -> Result<(), Failure> {
    let CompareArgs { before, after, view } = args;
    prepare(context, view).await?;
    let runs = runs_where(context, &of_runs([before.as_str(), after])).await?;
    let named =
        |id: &str| -> Result<&Run, Failure> { runs.iter().find(|run| run.run_id == id).ok_or_else(|| no_attempts(id)) };
    let comparison = compare(named(before)?, named(after)?, &options(view));
    if let Err(error @ CompareError::Judges(..)) = comparison {
        return by_judge(context, args, error).await;
    }
    let comparison = comparison?;
    write_file(view.svg.as_deref(), || comparison.svg())?;
    let split = Split::of(context, [before, after], &options(view)).await;
    let web = match web_between(context, before, after).await {
        Ok(web) => Some(web),
        Err(failure) => {
            output::note(&format!("what of the web differed is not told: {failure}"));
            None
        }
    };
    let told = web.and_then(|web| web.sentence()).map(|told| format!("\n\n{told}")).unwrap_or_default();
    let both = |comparison: String, split: String| format!("{comparison}\n{}{told}", split.trim_end());
    match (context.json, view.markdown) {
        (true, _) => output::json(&Summary { comparison, split, web }),
        (false, true) => output::line(&both(comparison.markdown(), split.markdown())),
        (false, false) => output::line(&both(comparison.text(), split.text())),
    }
}

/// What of the web differed, by what calls read.
async fn web_between(context: &Context, before: &str, after: &str) -> Result<WebChange, Failure> {
    let batches = query(context, &web::sql(before, after)).await?;
    web::read(&batches).map_err(|error| Failure::failed(error.to_string()))
}

/// Scores by two judges are not a pair, but how much of their difference is the judge's can be told once each has judged the
/// answers of both.
async fn by_judge(context: &Context, args: &CompareArgs, refused: CompareError) -> Result<(), Failure> {
    let CompareArgs { before, after, view } = args;
    let split = Split::of(context, [before, after], &options(view)).await;
    if !matches!(split, Split::Parts(_)) || view.svg.is_some() {
        return Err(refused.into());
    }
    match (context.json, view.markdown) {
        (true, _) => output::json(&ByJudge { refused: refused.to_string(), split }),
        (false, true) => output::line(&format!("{refused}\n\n{}", split.markdown().trim_end())),
        (false, false) => output::line(&format!("{refused}\n\n{}", split.text().trim_end())),
    }
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Failure {
        Failure::usage(error.to_string())
    }
}

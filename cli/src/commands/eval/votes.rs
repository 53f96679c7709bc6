//! `webdancer eval votes`: which answers of a run a model holds for the same, beyond what rules tell. Reports count votes so.

use std::sync::Arc;

use serde::Serialize;
use webdancer_agent::judge::{CacheCounts, CachedJudge, Judge as _, ModelJudge, ModelJudgeOptions, Style};
use webdancer_eval::run::of_runs;
use webdancer_eval::votes::{self, Known, VoteTally};

use super::reading::{no_attempts, runs_where};
use crate::args::VotesArgs;
use crate::columns::query;
use crate::commands::filter::judges;
use crate::commands::sample::plan::known;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// The stage of these judgments.
const STAGE: &str = "equivalence";

#[derive(Debug, Serialize)]
struct Summary {
    run_id: String,
    judge: String,
    rule_version: i32,
    tally: VoteTally,
    /// Pairs decided from what the judge said before, of this run or another.
    cache: CacheCounts,
}

pub(super) async fn run(context: &Context, args: &VotesArgs) -> Result<(), Failure> {
    let id = known(&args.run)?;
    context.drain_embedded().await?;
    let condition = of_runs([id]);
    let runs = runs_where(context, &condition).await?;
    let run = runs.first().ok_or_else(|| no_attempts(id))?;
    let models = context.config.models()?;
    let model = judges::chat_model(&models, &args.judge)?;
    let judge = ModelJudge::new(model, Style::Same, ModelJudgeOptions::default());
    let past = judges::past_judgments_of(&context.job_engine()?, &judge, STAGE).await?;
    let judge = CachedJudge::new(Arc::new(judge), past);
    let mut said = votes::judged(&query(context, &votes::sql(&condition)).await?)?;
    let said: Known = said.remove(id).map(|(known, _)| known).unwrap_or_default();
    let log = context.event_log().await?;
    let bar = output::spinner(context.quiet);
    let progress = |tally: &VoteTally| bar.set_message(told(tally));
    let settled = tokio::select! {
        settled = votes::settle(run, &judge, &said, log.as_ref(), &context.config.eval, progress) => {
            settled.map_err(|e| Failure::failed(e.to_string()))
        }
        () = crate::commands::ingest::stopped() => Err(Failure::partly("stopped; the same command goes on where it was")),
    };
    bar.finish_and_clear();
    let tally = settled?;
    context.drain_embedded().await?;
    let (name, rule_version) = (judge.name().to_string(), judge.rule_version());
    tell(context, Summary { run_id: id.to_string(), judge: name, rule_version, tally, cache: judge.counts() })
}

fn told(tally: &VoteTally) -> String {
    let VoteTally { questions, same, different, errors, left, .. } = tally;
    let pairs = same + different + errors;
    let errors = if *errors > 0 { format!(", {errors} undecided") } else { String::new() };
    let left = if *left > 0 { format!(", {left} not asked about") } else { String::new() };
    format!("{pairs} pairs of answers to {questions} questions: {same} the same, {different} different{errors}{left}")
}

fn tell(context: &Context, summary: Summary) -> Result<(), Failure> {
    if context.json {
        output::json(&summary)?;
    } else {
        output::line(&format!("run {}: {}, says {}", summary.run_id, told(&summary.tally), summary.judge))?;
    }
    match (summary.tally.stopped, summary.tally.errors) {
        (Some(why), _) => Err(Failure::partly(format!("{why}; the same command goes on where it was"))),
        (None, errors @ 1..) => Err(Failure::partly(format!(
            "the judge failed on {errors} pairs: they count as different; the same command asks again"
        ))),
        (None, 0) => Ok(()),
    }
}

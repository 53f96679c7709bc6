//! `webdancer eval rescore`: other scorers over the attempts of a run. The policy is not asked.

use chrono::{SubsecRound as _, Utc};
use futures::stream;
use serde::Serialize;
use serde_json::json;
use webdancer_agent::judge::Style;
use webdancer_eval::benchmark::SOURCE;
use webdancer_eval::scoring::{ScoreTally, Scorers, Scoring};
use webdancer_lake::claims::Claim;
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::EventLog;
use webdancer_schemas::rows;

use super::plan::EvalPlan;
use super::run::told_scores;
use super::tables::{self, Scores};
use super::{benchmarks, scorers};
use crate::args::RescoreArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// The kind of claims on the scorings of a run: the `n`th generation is the `n`th scoring, held by its scorers' digest.
const CLAIM: &str = "scoring";
/// How often another may come first.
const CLAIMS_MAX: u32 = 100;
/// The kind of these runs.
const KIND: &str = "rescore";

#[derive(Debug, Serialize)]
struct Summary {
    run_id: String,
    rescored: String,
    scoring: i32,
    scorers: webdancer_eval::scoring::ScorersPlan,
    tally: ScoreTally,
    scores: Scores,
}

pub(super) async fn run(context: &Context, args: &RescoreArgs) -> Result<(), Failure> {
    context.drain_embedded().await?;
    let plan = EvalPlan::of(context, &args.run).await?;
    let models = context.config.models()?;
    let style = plan.scorers.counts.style.or_else(|| {
        // A benchmark of other settings than these has no definition here.
        benchmarks::definition(context, &plan.benchmark.benchmark).ok().map(|definition| definition.judge_style)
    });
    let scorers =
        scorers::choose(context, &models, &args.scorers, &plan.scorers.counts.by, style.unwrap_or(Style::Extract))
            .await?;
    let scoring = take(context, &plan, &scorers).await?;
    let log = context.event_log().await?;
    tell_run(log.as_ref(), &scoring, &scorers, "started", None).await?;
    let due = tables::unscored(context, &scoring, scorers.beside.is_some()).await?;
    let bar = output::bar(due.len() as u64, context.quiet);
    let progress = |tally: &ScoreTally| {
        bar.set_position(tally.passed + tally.failed + tally.errors);
        bar.set_message(told_scores(tally));
    };
    let scored = tokio::select! {
        scored = scoring.score(&scorers, stream::iter(due), log.as_ref(), &context.config.eval, progress) => {
            scored.map_err(|e| Failure::failed(e.to_string()))
        }
        () = crate::commands::ingest::stopped() => Err(Failure::partly("stopped; the same command goes on where it was")),
    };
    bar.finish_and_clear();
    let (state, why) = match &scored {
        Ok(ScoreTally { stopped: None, .. }) => ("finished", None),
        Ok(tally) => ("stopped", tally.stopped.clone()),
        Err(failure) => ("stopped", Some(failure.to_string())),
    };
    tell_run(log.as_ref(), &scoring, &scorers, state, why).await?;
    let tally = scored?;
    context.drain_embedded().await?;
    let scores = tables::scores(context, &scoring, scorers.beside.is_some()).await?;
    tell(
        context,
        Summary {
            run_id: scoring.id(),
            rescored: plan.run.id,
            scoring: scoring.number,
            scorers: scorers.plan,
            tally,
            scores,
        },
    )
}

/// The scoring of a run by these scorers: its last one, if that is by them, and is to go on, else the next.
async fn take(context: &Context, plan: &EvalPlan, scorers: &Scorers) -> Result<Scoring, Failure> {
    let holder = scorers.plan.digest();
    let number = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
    for _ in 0..CLAIMS_MAX {
        let last = context.lake.claimed(CLAIM, &plan.run.id).await?;
        let generation = match last {
            Some((generation, claim)) if claim.holder == holder => {
                return Ok(Scoring { number: number(generation), ..plan.scoring() });
            }
            Some((generation, _)) => generation + 1,
            // The run's own scoring is the first.
            None => 1 + u64::from(holder != plan.scorers.digest()),
        };
        let claim = Claim { holder: holder.clone(), taken: Utc::now().trunc_subsecs(6), expires: None };
        if context.lake.claim(CLAIM, &plan.run.id, generation, &claim).await? {
            return Ok(Scoring { number: number(generation), ..plan.scoring() });
        }
    }
    Err(Failure::failed(format!("others keep rescoring run {}; try again", plan.run.id)))
}

/// Records the state of a scoring that is a run of its own.
pub(super) async fn tell_run(
    log: &dyn EventLog,
    scoring: &Scoring,
    scorers: &Scorers,
    state: &str,
    error: Option<String>,
) -> Result<(), Failure> {
    match scoring.number {
        1 => Ok(()),
        _ => Ok(log.append(vec![event(scoring, scorers, state, error)?]).await?),
    }
}

fn event(scoring: &Scoring, scorers: &Scorers, state: &str, error: Option<String>) -> Result<Event, Failure> {
    let id = scoring.id();
    let row = rows::Run {
        kind: KIND.to_string(),
        state: state.to_string(),
        config: Some(JsonText(json!({"scoring": scoring, "scorers": scorers.plan}))),
        code_version: Some(webdancer_schemas::code::version()),
        parent_run: Some(scoring.run.clone()),
        error,
        ..rows::Run::default()
    };
    let event = Event::new(SOURCE, &row).map_err(|e| Failure::failed(format!("the run's event: {e}")))?.with_run(&id);
    Ok(match state {
        "started" => event.with_id(EventId::derive(scoring.start, &id, Kind::Run, state, 0)),
        _ => event,
    })
}

fn tell(context: &Context, summary: Summary) -> Result<(), Failure> {
    if context.json {
        output::json(&summary)?;
    } else {
        let Summary { run_id, rescored, tally, scores, scorers, .. } = &summary;
        output::line(&format!(
            "run {rescored} scored by {}: {}; run {run_id}",
            scorers.counts.judge,
            told_scores(tally)
        ))?;
        scores.tell(scorers)?;
    }
    match (summary.tally.stopped, summary.scores.errors) {
        (Some(why), _) => Err(Failure::partly(format!("{why}; the same command goes on where it was"))),
        (None, 1..) => Err(Failure::partly(format!(
            "the scorer failed on {} attempts: they are neither right nor wrong; the same command asks again",
            summary.scores.errors
        ))),
        (None, _) => Ok(()),
    }
}

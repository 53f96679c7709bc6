//! The verdicts of each run's judge on the answers of all runs.

use futures::stream;
use webdancer_agent::chat::Models;
use webdancer_eval::attempts::verdicts_of;
use webdancer_eval::scoring::{Answered, Given, ScorerPlan, ScorersPlan, Scoring};

use super::Side;
use webdancer_query::literal;

use crate::columns::query;
use crate::commands::eval::plan::EvalPlan;
use crate::commands::eval::rescore::tell_run;
use crate::commands::eval::{scorers, tables};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Answers of the two runs that the other's judge has not seen.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) count: u64,
}

impl Due {
    pub(super) async fn count(context: &Context, sides: &[Side; 2]) -> Result<Due, Failure> {
        let mut count = 0;
        if sides[0].judge != sides[1].judge {
            for (side, other) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
                let scoring = uncounted(&side.plan, &other.judge);
                count += missing(context, &scoring, &other.judge).await?.len() as u64;
            }
        }
        Ok(Due { count })
    }
}

/// The pass over a run's answers by a judge that does not count in it.
fn uncounted(plan: &EvalPlan, judge: &ScorerPlan) -> Scoring {
    Scoring::uncounted(&plan.run.id, plan.run.start, &alone(judge))
}

fn alone(judge: &ScorerPlan) -> ScorersPlan {
    ScorersPlan { counts: judge.clone(), beside: None }
}

/// Lets both judges judge what they have not; nothing that counts is changed.
pub(super) async fn judge(
    context: &Context,
    models: &Models,
    sides: &[Side; 2],
    runs: &[&EvalPlan],
) -> Result<(), Failure> {
    if sides[0].judge == sides[1].judge {
        return Ok(());
    }
    for judge in sides.iter().map(|side| &side.judge) {
        for plan in runs {
            let scoring = uncounted(plan, judge);
            let due = missing(context, &scoring, judge).await?;
            if !due.is_empty() {
                ask(context, models, judge, &scoring, due).await?;
            }
        }
    }
    Ok(())
}

async fn ask(
    context: &Context,
    models: &Models,
    judge: &ScorerPlan,
    scoring: &Scoring,
    due: Vec<Answered>,
) -> Result<(), Failure> {
    let what = format!("{} answers of run {} have no verdict of {}", due.len(), scoring.run, judge.judge);
    let scorers = scorers::of_plan(context, models, &alone(judge)).await.map_err(|failure| failure.about(&what))?;
    let log = context.event_log().await?;
    tell_run(log.as_ref(), scoring, &scorers, "started", None).await?;
    let bar = output::bar(due.len() as u64, context.quiet);
    let config = &context.config.eval;
    let progress = |tally: &webdancer_eval::scoring::ScoreTally| {
        bar.set_position(tally.passed + tally.failed + tally.errors);
    };
    let scored = tokio::select! {
        scored = scoring.score(&scorers, stream::iter(due), log.as_ref(), config, progress) => {
            scored.map_err(|e| Failure::failed(e.to_string()))
        }
        () = crate::commands::ingest::stopped() => Err(Failure::partly("stopped; the same command goes on where it was")),
    };
    bar.finish_and_clear();
    let why = match &scored {
        Ok(tally) => tally.stopped.clone(),
        Err(failure) => Some(failure.to_string()),
    };
    let state = if why.is_none() { "finished" } else { "stopped" };
    tell_run(log.as_ref(), scoring, &scorers, state, why.clone()).await?;
    scored?;
    context.drain_embedded().await?;
    match why {
        Some(why) => Err(Failure::partly(format!("{why}; the same command goes on where it was"))),
        None => Ok(()),
    }
}

/// The answers of a run that lack a judge's verdict.
async fn missing(context: &Context, scoring: &Scoring, judge: &ScorerPlan) -> Result<Vec<Answered>, Failure> {
    let sql = format!(
        "SELECT t.trajectory_id, t.qa_id, q.question, q.answer AS gold, t.answer, \
           coalesce(t.restricted, false) AS restricted, coalesce(f.failures, 0) AS failures \
         FROM current_trajectories AS t JOIN current_qa AS q ON q.qa_id = t.qa_id \
         LEFT JOIN {verdicts} AS j ON j.trajectory_id = t.trajectory_id \
         LEFT JOIN (SELECT trajectory_id, count(*) AS failures FROM judgments \
                    WHERE run_id = '{id}' AND verdict = 'error' GROUP BY trajectory_id) AS f \
           ON f.trajectory_id = t.trajectory_id \
         WHERE t.run_id = {run} AND t.termination <> 'error' AND (j.verdict IS NULL OR j.verdict = 'error') \
         ORDER BY t.event_time, t.event_id",
        verdicts = verdicts_of(judge),
        id = scoring.id(),
        run = literal::text(&scoring.run),
    );
    let mut found = Vec::new();
    for batch in &query(context, &sql).await? {
        let failures = tables::number(batch, "failures")?;
        found.extend(tables::answered(batch)?.into_iter().enumerate().map(|(row, answered)| {
            let failures = u64::try_from(failures.value(row)).unwrap_or(0);
            Answered { due: [Some(Given { verdicts: 0, failures }), None], ..answered }
        }));
    }
    Ok(found)
}

//! What schedules are run with: `eval run` under ids that are given.

use std::sync::Arc;

use async_trait::async_trait;
use webdancer_agent::chat::BudgetConfig;
use webdancer_eval::prices::PriceList;
use webdancer_eval::run::{Run, of_runs};
use webdancer_eval::schedule::{Pass, Runner, RunnerError, Spent, Work};
use webdancer_synth::sample::SampleRun;

use crate::args::{EvalRunArgs, LimitArgs, ScorerArgs};
use crate::commands::eval::reading::runs_where;
use crate::commands::eval::run::{Ordered, on_order};
use crate::commands::eval::tables::{self, Acted};
use crate::context::Context;
use crate::failure::Failure;

/// Makes runs as `eval run` does, and reads them as `eval compare` does.
#[derive(Debug)]
pub(super) struct EvalRunner(pub(super) Arc<Context>);

#[async_trait]
impl Runner for EvalRunner {
    async fn attempt(&self, work: &Work) -> Result<Pass, RunnerError> {
        let Work { schedule, run_id, start, canary, left, .. } = work;
        let run = SampleRun { id: run_id.clone(), start: *start, seed: schedule.seed.into(), date: None, parent: None };
        let budget = BudgetConfig { tokens: left.tokens, cost: left.cost, time_s: left.time_s };
        let order = Ordered { run, budget, first: canary.map(|questions| questions as usize) };
        let delivered = on_order(&self.0, &args(work), order).await.map_err(failed)?;
        Ok(Pass {
            due: delivered.due,
            made: delivered.standing.made,
            judged: delivered.standing.judged,
            failed: delivered.given_up + delivered.standing.errors,
            stopped: delivered.stopped,
        })
    }

    async fn spent(&self, runs: &[String]) -> Result<Spent, RunnerError> {
        self.0.drain_embedded().await.map_err(failed)?;
        let prices = PriceList::new(&self.0.config.endpoints);
        let mut spent = Spent::default();
        for Acted { policy, model, attempts, usage } in tables::acted(&self.0, runs).await.map_err(failed)? {
            spent.attempts += attempts;
            spent.tokens += usage.input_tokens + usage.output_tokens;
            spent.cost += prices.of(policy.as_deref(), &model).map_or(0.0, |prices| prices.cost(&usage));
        }
        Ok(spent)
    }

    async fn read(&self, runs: &[String]) -> Result<Vec<Run>, RunnerError> {
        self.0.drain_embedded().await.map_err(failed)?;
        runs_where(&self.0, &of_runs(runs.iter().map(String::as_str))).await.map_err(failed)
    }
}

/// The arguments of `eval run` that a schedule stands for.
fn args(work: &Work) -> EvalRunArgs {
    let schedule = &work.schedule;
    EvalRunArgs {
        benchmark: Some(work.cell.benchmark.clone()),
        limit: schedule.limit,
        policy: Some(work.cell.policy.clone()),
        web: schedule.web.clone(),
        profile: schedule.profile.clone(),
        attempts: Some(schedule.attempts),
        seed: Some(schedule.seed),
        scorers: ScorerArgs { scorer: schedule.scorer.clone(), judge: schedule.judge.clone(), style: None },
        limits: LimitArgs {
            concurrency: schedule.concurrency,
            max_trajectories: work.left.attempts,
            max_time: work.left.time_s,
            ..LimitArgs::default()
        },
        ..EvalRunArgs::default()
    }
}

/// What was asked wrongly is so the next time, too; what another process is at is free again in time.
fn failed(failure: Failure) -> RunnerError {
    match failure.exit_code() {
        2 => RunnerError::Settings(failure.to_string()),
        4 => RunnerError::Busy(failure.to_string()),
        _ => RunnerError::Failed(failure.to_string()),
    }
}

//! A run over a benchmark, made again.

use webdancer_agent::chat::Models;

use super::plan::{EvalPlan, KIND, model_of, policy_digest};
use super::run::{Ready, carry_out};
use super::scorers;
use crate::acting::{Again, Changes};
use crate::args::EvalRunArgs;
use crate::context::Context;
use crate::failure::Failure;

/// The attempts of a run made again and scored as they were, in a run of its own; that run's id.
pub(in crate::commands) async fn again(
    context: &Context,
    run: &str,
    how: &Again<'_>,
    models: &Models,
) -> Result<(String, Changes), Failure> {
    let mut plan = EvalPlan::of(context, run).await?;
    let changes = how.change(context, run, &mut plan.acting).await?;
    plan.policy_model = model_of(context, &plan.acting.policy);
    plan.policy_digest = policy_digest(plan.policy_model.as_deref(), &plan.acting);
    plan.scorers = plan.scorers_in_force(context).await?;
    let (made_again, goes_on) = how.run(context, &plan.run, KIND).await?;
    if goes_on {
        EvalPlan::of(context, &made_again.id).await?.check_settings(context)?;
    }
    plan.run = made_again;
    let args = EvalRunArgs { limits: how.limits.clone(), ..EvalRunArgs::default() };
    let ready = Ready {
        questions: plan.questions(context).await?,
        scorers: scorers::of_plan(context, models, &plan.scorers).await?,
        plan,
        goes_on,
        first: None,
    };
    let summary = carry_out(context, &args, ready, models).await?;
    summary.whole()?;
    Ok((summary.run_id, changes))
}

//! The runs of each policy on each web.

use serde::Serialize;
use webdancer_agent::chat::Models;
use webdancer_eval::drift::Misses;
use webdancer_eval::run::Run;
use webdancer_eval::scoring::ScorersPlan;
use webdancer_schemas::digest::sha256_hex;

use super::Side;
use webdancer_query::literal;

use crate::acting::ActingSettings;
use crate::args::{DriftArgs, EvalRunArgs};
use crate::columns::query;
use crate::commands::eval::plan::EvalPlan;
use crate::commands::eval::run::{Ready, carry_out};
use crate::commands::eval::{scorers, tables};
use crate::commands::sample::questions;
use crate::context::Context;
use crate::failure::Failure;

/// Policy and web of the cells, by side, in the order of a grid.
pub(super) const PLACES: [(usize, usize); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

/// What differs between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Neither,
    Policy,
    Web,
    Both,
}

impl Shape {
    pub(super) fn name(self) -> &'static str {
        match self {
            Shape::Neither => "neither",
            Shape::Policy => "policy",
            Shape::Web => "web",
            Shape::Both => "both",
        }
    }

    fn of(sides: &[Side; 2]) -> Shape {
        let [first, second] = sides;
        let acts = |side: &Side| (side.plan.policy_digest.clone(), side.run.policies.clone());
        // Two runs on the live web are on two webs: it changes. Who sums up its pages writes what a policy sees of them.
        let web = &first.plan.acting.web;
        let [then, now] = [first, second].map(|side| side.plan.acting.settings.as_ref());
        let same_view = then.zip(now).is_none_or(|(then, now)| then.summariser == now.summariser);
        let same_web = *web == second.plan.acting.web && web != "live" && same_view;
        match (acts(first) == acts(second), same_web) {
            (true, true) => Shape::Neither,
            (false, true) => Shape::Policy,
            (true, false) => Shape::Web,
            (false, false) => Shape::Both,
        }
    }
}

/// A run that is to be made.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Planned {
    pub(super) policy: String,
    pub(super) web: String,
    pub(super) run_id: String,
    /// Attempts that it lacks.
    pub(super) attempts: u64,
    /// Model calls that these take, about.
    pub(super) model_calls: u64,
}

/// The runs of a grid.
#[derive(Debug)]
pub(super) struct Cells {
    pub(super) shape: Shape,
    /// Those that are to be made, by their place, and whether they were begun.
    plans: Vec<((usize, usize), EvalPlan, bool)>,
    pub(super) planned: Vec<Planned>,
}

impl Cells {
    /// Which runs there must be, and what they lack.
    pub(super) async fn plan(context: &Context, sides: &[Side; 2], common: &[String]) -> Result<Cells, Failure> {
        let mut cells = Cells { shape: Shape::of(sides), plans: Vec::new(), planned: Vec::new() };
        if cells.shape != Shape::Both {
            return Ok(cells);
        }
        for (policy, web) in PLACES {
            let (side, other) = (&sides[policy], &sides[web]);
            if policy == web && is_closed(&side.plan) {
                continue;
            }
            let plan = crossed(side, other, common);
            let begun = EvalPlan::begun(context, &plan.run.id).await?;
            let (made, goes_on) = match begun {
                Some(_) => (questions::made(context, &plan.run.id).await?.len(), true),
                None => (0, false),
            };
            let asked = begun.as_ref().unwrap_or(&plan);
            let attempts = (asked.qa_ids.len() as u64 * u64::from(asked.attempts)).saturating_sub(made as u64);
            // What is made already needs nobody who acts.
            if attempts > 0 {
                let or = "; name one that is the same with --before-policy or --after-policy";
                asked.check_settings(context).map_err(|failure| failure.followed_by(or))?;
            }
            let plan = begun.unwrap_or_else(|| {
                let mut plan = plan;
                plan.acting.keep_settings(&context.config);
                plan
            });
            let turns = mean_turns(context, &side.plan.run.id).await?;
            cells.planned.push(Planned {
                policy: plan.acting.policy.clone(),
                web: plan.acting.web.clone(),
                run_id: plan.run.id.clone(),
                attempts,
                model_calls: (attempts as f64 * turns).ceil() as u64,
            });
            cells.plans.push(((policy, web), plan, goes_on));
        }
        Ok(cells)
    }

    /// The runs that there must be, those that lack nothing among them.
    pub(super) fn plans(&self) -> Vec<EvalPlan> {
        self.plans.iter().map(|(_, plan, _)| plan.clone()).collect()
    }

    /// Makes what they lack.
    pub(super) async fn make(
        &self,
        context: &Context,
        args: &DriftArgs,
        models: &Models,
        sides: &[Side; 2],
    ) -> Result<Vec<EvalPlan>, Failure> {
        let mut args = EvalRunArgs { limits: args.limits.clone(), ..EvalRunArgs::default() };
        let mut made = Vec::with_capacity(self.plans.len());
        for ((policy, _), plan, goes_on) in &self.plans {
            let of_policy =
                format!("{} as run {} did, on {}", plan.acting.policy, sides[*policy].run.run_id, plan.acting.web);
            let missing = |failure: Failure| failure.about(&of_policy);
            let ready = Ready {
                questions: plan.questions(context).await?,
                scorers: scorers::of_plan(context, models, &plan.scorers).await.map_err(missing)?,
                plan: plan.clone(),
                goes_on: *goes_on,
                first: None,
            };
            let summary = carry_out(context, &args, ready, models).await.map_err(missing)?;
            let again = "; the same command goes on";
            summary.whole().map_err(|failure| failure.about(&of_policy).followed_by(again))?;
            let used = summary.sampled.input_tokens + summary.sampled.output_tokens;
            args.limits.max_tokens = args.limits.max_tokens.map(|most| most.saturating_sub(used).max(1));
            made.push(plan.clone());
        }
        Ok(made)
    }

    /// The run of a place: one of the two, or one that was made.
    pub(super) fn run_at<'a>(&self, place: (usize, usize), sides: &'a [Side; 2], made: &'a [EvalPlan]) -> &'a EvalPlan {
        let at = self.plans.iter().position(|(planned, ..)| *planned == place);
        at.and_then(|at| made.get(at)).unwrap_or(&sides[place.0].plan)
    }
}

/// A run as this side's policy would make it on the other's web, over the common questions. Who sums up pages belongs to the
/// web that they are of.
fn crossed(side: &Side, other: &Side, common: &[String]) -> EvalPlan {
    let web = closed_web(&other.plan);
    let asked = sha256_hex(common.join("\n").as_bytes());
    let digits: String = asked.chars().take(16).collect();
    let mut plan = side.plan.again(&format!("drift/{web}/{digits}"));
    let settings = plan.acting.settings.take().zip(other.plan.acting.settings.clone());
    plan.acting.settings = settings.map(|(own, others)| ActingSettings {
        summariser: others.summariser.filter(|_| web.starts_with("closed:")),
        services: None,
        ..own
    });
    plan.acting.web = web;
    plan.acting.pages = None;
    plan.scorers = ScorersPlan { counts: side.judge.clone(), beside: None };
    plan.qa_ids.retain(|id| common.binary_search(id).is_ok());
    plan
}

/// Whether a run's web is one that can be served again to any policy.
fn is_closed(plan: &EvalPlan) -> bool {
    ["closed:", "visited:"].iter().any(|kind| plan.acting.web.starts_with(kind))
}

/// Whether a run's web holds no more than was asked for when it was recorded.
pub(super) fn is_recording(plan: &EvalPlan) -> bool {
    ["recorded:", "visited:"].iter().any(|kind| plan.acting.web.starts_with(kind))
}

/// A run's web as a closed one: itself, or what its visits showed.
fn closed_web(plan: &EvalPlan) -> String {
    if is_closed(plan) { plan.acting.web.clone() } else { format!("visited:{}", plan.run.id) }
}

/// What acted must be what acted in the run that it stands for.
pub(super) fn check_policy(side: &Side, made: &Run) -> Result<(), Failure> {
    if made.policies == side.run.policies {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "run {} was made by {}, and run {} by {}: serve the first run's policy and name its endpoint with --before-policy \
         or --after-policy",
        side.run.run_id,
        side.run.policies.join(", "),
        made.run_id,
        made.policies.join(", ")
    )))
}

async fn mean_turns(context: &Context, run: &str) -> Result<f64, Failure> {
    let sql = format!(
        "SELECT CAST(coalesce(sum(n_turns), 0) AS BIGINT) AS turns, count(*) AS attempts FROM trajectories \
         WHERE run_id = {}",
        literal::text(run)
    );
    let batches = query(context, &sql).await?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(0.0) };
    let (turns, attempts) = (tables::number(batch, "turns")?.value(0), tables::number(batch, "attempts")?.value(0));
    Ok(if attempts == 0 { 0.0 } else { turns as f64 / attempts as f64 })
}

/// Calls of a run that its web could answer or not.
pub(super) async fn misses(context: &Context, run: &str) -> Result<Misses, Failure> {
    let sql = format!(
        "SELECT count(*) AS calls, count(*) FILTER (WHERE outcome <> 'done') AS missed FROM ( \
           SELECT unnest(turn_outcome) AS outcome FROM trajectories WHERE run_id = {} \
         ) WHERE outcome IN ('done', 'miss', 'unreachable')",
        literal::text(run)
    );
    let batches = query(context, &sql).await?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(Misses::default()) };
    let count = |name| tables::number(batch, name).map(|column| u64::try_from(column.value(0)).unwrap_or(0));
    Ok(Misses { calls: count("calls")?, missed: count("missed")? })
}

//! What a run of sampling is: settled when it begins, kept in its first event, and handed to machines that join.

use std::time::Duration;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use webdancer_ingest::kafka::tasks::read_plan;
use webdancer_synth::sample::SampleRun;

use super::{Part, questions, share};
use crate::acting::ActingPlan;
use crate::args::SampleArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::lake_pages::find_pin;

/// Attempts at a question (paper, section 2.2: up to 5).
const ATTEMPTS: u32 = 5;
/// How long a machine that joins waits for the attempts to be shared.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);

/// A run: what would change its trajectories if it were changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Ids and seeds follow from it.
    pub(super) run: SampleRun,
    /// Attempts at each question.
    pub(super) attempts: u32,
    /// Which questions.
    pub(super) questions: Questions,
    /// Policy, web, profile and budgets of an attempt.
    #[serde(flatten)]
    pub(super) acting: ActingPlan,
}

/// Which questions are attempted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Questions {
    /// All of `qa` but benchmarks.
    All,
    /// The rows of a query.
    Sql(String),
    /// The rows of a pin, by digest.
    Pin(String),
}

/// The plan of this process's run, and its part in it.
pub(super) async fn settle(context: &Context, args: &SampleArgs) -> Result<(Part, Plan), Failure> {
    if let Some(run) = &args.join {
        let settings = share::settings(context, known(run)?)?;
        let plan = read_plan(&settings, JOIN_PATIENCE).await?;
        return Ok((Part::Joins, as_it_began(context, parse(run, plan.get())?)?));
    }
    if let Some(run) = &args.run {
        let mut plan = as_it_began(context, of(context, run).await?)?;
        plan.attempts = args.attempts.unwrap_or(plan.attempts);
        return Ok((Part::GoesOn, plan));
    }
    let questions = match (&args.sql, &args.pin) {
        (Some(sql), _) => Questions::Sql(sql.clone()),
        (None, Some(pin)) => {
            let found = find_pin(context, pin).await.map_err(|e| e.about(&format!("--pin {pin}")))?;
            Questions::Pin(found.digest)
        }
        (None, None) => Questions::All,
    };
    let acting = ActingPlan::new(context, args.policy.as_deref(), args.web.as_deref(), args.profile.as_deref()).await?;
    let run = SampleRun::new(args.seed.unwrap_or(0).into(), Utc::now());
    Ok((Part::Begins, Plan { run, attempts: args.attempts.unwrap_or(ATTEMPTS), questions, acting }))
}

/// A plan that goes on as it began.
///
/// # Errors
/// What of the settings is another.
pub(super) fn as_it_began(context: &Context, plan: Plan) -> Result<Plan, Failure> {
    match plan.acting.settings_changed(&context.config) {
        Some(changed) => {
            Err(Failure::usage(format!("run {} cannot go on as it began: {changed}; begin another run", plan.run.id)))
        }
        None => Ok(plan),
    }
}

/// The plan that a run was begun with.
pub(super) async fn of(context: &Context, run: &str) -> Result<Plan, Failure> {
    parse(run, &questions::plan_of(context, known(run)?).await?)
}

fn parse(run: &str, json: &str) -> Result<Plan, Failure> {
    let plan: Plan = serde_json::from_str(json)
        .map_err(|e| Failure::usage(format!("run {run} is not one that this version can go on with: {e}")))?;
    if plan.run.id != run {
        return Err(Failure::failed(format!("the plan of run {run} is that of run {}", plan.run.id)));
    }
    Ok(plan)
}

/// The id, if it may be one: it stands in queries and names of topics.
pub(in crate::commands) fn known(run: &str) -> Result<&str, Failure> {
    match Uuid::try_parse(run) {
        Ok(_) if run.len() == 36 => Ok(run),
        _ => Err(Failure::usage(format!("{run:?} is no id of a run; SELECT run_id, kind, state FROM run_state"))),
    }
}

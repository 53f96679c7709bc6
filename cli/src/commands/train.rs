//! `webdancer train`: a run of a trainer, which is a process of its own (`webdancer_train::contract`).
//!
//! The trainer knows no lake. It is given a pin's manifest and a folder; what it tells on standard output is appended
//! here, and the run's state is recorded here, since a trainer that was killed records nothing.

mod folder;
mod plan;
mod trainer;

use std::sync::Arc;

use chrono::{SubsecRound as _, Utc};
use serde::Serialize;
use serde_json::Value;
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::EventLog;
use webdancer_schemas::rows::{Artifact, Run};
use webdancer_train::events::SOURCE;

use crate::args::TrainCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
pub(super) use plan::{Asked, absolute, find_trainer};
use plan::{Plan, Training};
use trainer::{End, Told};

/// The result of the command.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) run_id: String,
    kind: Training,
    state: &'static str,
    pin: String,
    folder: String,
    events: u64,
    /// In order.
    pub(super) checkpoints: Vec<Artifact>,
    /// The one to use, where the trainer says which.
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<Artifact>,
    /// Why it did not finish.
    pub(super) error: Option<String>,
    /// Whether its configuration promises the same bits.
    #[serde(skip)]
    pub(super) deterministic: bool,
}

pub(crate) async fn run(context: &Context, command: &TrainCommand) -> Result<(), Failure> {
    let asked = match command {
        TrainCommand::Sft(args) => Asked::Sft(args),
        TrainCommand::Dapo(args) => Asked::Dapo(args),
    };
    let summary = train(context, asked).await?;
    tell(context, summary)
}

/// Begins a run, or goes on with one, and records how it ended.
pub(super) async fn train(context: &Context, asked: Asked<'_>) -> Result<Summary, Failure> {
    context.drain_embedded().await?;
    let plan = plan::settle(context, asked).await?;
    let resume = plan.goes_on;
    let folder = folder::prepare(context, &plan).await?;
    let log = context.event_log().await?;
    let config = serde_json::to_value(&plan).map_err(|e| Failure::failed(format!("the run's event: {e}")))?;
    log.append(vec![event(&plan, "started", Some(config), &Told::default(), None)?]).await?;
    if !context.quiet {
        output::note(&format!("run {}: {} in {}", plan.run_id, plan.trainer.display(), plan.folder.display()));
    }
    let (told, end) = trainer::run(&plan, &folder, resume, log.clone(), context.quiet).await;
    settle(context, &log, &plan, told, end).await
}

/// Records how the run ended.
async fn settle(
    context: &Context,
    log: &Arc<dyn EventLog>,
    plan: &Plan,
    told: Told,
    end: End,
) -> Result<Summary, Failure> {
    let (state, error) = match end {
        End::Done => ("finished", None),
        End::Interrupted => ("stopped", Some("interrupted".to_string())),
        End::Failed(reason) => ("failed", Some(reason)),
    };
    log.append(vec![event(plan, state, None, &told, error.clone())?]).await?;
    context.drain_embedded().await?;
    Ok(Summary {
        run_id: plan.run_id.clone(),
        kind: plan.kind,
        state,
        pin: plan.pin_name.clone(),
        folder: plan.folder.display().to_string(),
        events: told.events,
        best: told.best(),
        checkpoints: told.checkpoints,
        error,
        deterministic: plan.config.get("deterministic").and_then(Value::as_bool).unwrap_or(false),
    })
}

fn tell(context: &Context, summary: Summary) -> Result<(), Failure> {
    if context.json {
        output::json(&summary)?;
    } else {
        let Summary { run_id, state, events, checkpoints, best, folder, .. } = &summary;
        let count = checkpoints.len();
        output::line(&format!("run {run_id} {state}: {events} events, {count} checkpoints in {folder}"))?;
        if let Some(to_use) = best.as_ref().or(checkpoints.last()) {
            output::line(&format!("  {}", to_use.uri))?;
        }
    }
    let go_on = format!("`webdancer train {} --resume {}` goes on", summary.kind.name(), summary.run_id);
    match (summary.state, summary.error) {
        ("finished", _) => Ok(()),
        ("stopped", reason) => Err(Failure::partly(format!("{}; {go_on}", reason.unwrap_or_default()))),
        (_, reason) => Err(Failure::failed(format!("{}; {go_on}", reason.unwrap_or_default()))),
    }
}

/// The event of a state of the run. It is started once; it may end, and go on, more than once.
fn event(
    plan: &Plan,
    state: &str,
    config: Option<Value>,
    told: &Told,
    error: Option<String>,
) -> Result<Event, Failure> {
    let row = Run {
        kind: plan.kind.name().to_string(),
        state: state.to_string(),
        config: config.map(JsonText),
        code_version: Some(webdancer_schemas::code::version()),
        pin_id: Some(plan.pin_id.clone()),
        seed: plan.seed,
        artifacts: told.checkpoints.clone(),
        parent_run: plan.again.clone(),
        error,
    };
    let event = Event::new(SOURCE, &row).map_err(|e| Failure::failed(format!("the run's event: {e}")))?;
    let event = event.with_run(&plan.run_id).with_parents(plan.parents());
    if state != "started" || plan.goes_on {
        return Ok(event.at(Utc::now().trunc_subsecs(6)));
    }
    Ok(event.with_id(EventId::derive(plan.started, &plan.run_id, Kind::Run, state, 0)).at(plan.started))
}

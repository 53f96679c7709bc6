//! `webdancer eval schedule`: the schedules of the settings, and the loop that runs them.
//!
//! [`run_loop`] is what a server spawns beside everything else; `eval schedule run` is the same in the foreground.

mod show;
mod wiring;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound as _, Utc};
use serde::Serialize;
use serde_json::json;
use webdancer_agent::chat::SystemClock;
use webdancer_eval::schedule::orders::{Order, OrderError, Orders};
use webdancer_eval::schedule::{Ended, Hook, Parts, ScheduleError, Scheduler, Webhook, config};
use webdancer_schemas::rows;

use self::wiring::EvalRunner;
use crate::args::ScheduleCommand;
use crate::commands::claims::{LakeClaims, holder};
use crate::commands::ingest::stopped;
use crate::config::Config;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Times of a schedule that `check` tells.
const NEXT_TOLD: usize = 3;

pub(super) async fn run(context: Context, command: &ScheduleCommand) -> Result<(), Failure> {
    match command {
        ScheduleCommand::Check { file } => check(&context, file),
        ScheduleCommand::List => show::list(&context).await,
        ScheduleCommand::Show { name, slots } => show::show(&context, name, *slots).await,
        ScheduleCommand::Pause { name } => order(&context, name, Order::Pause).await,
        ScheduleCommand::Resume { name } => order(&context, name, Order::Resume).await,
        ScheduleCommand::RunNow { name } => run_now(context, name).await,
        ScheduleCommand::Run { until, once } => {
            let until = if *once { Some(Utc::now()) } else { *until };
            let (json, quiet) = (context.json, context.quiet);
            if context.config.schedule.is_empty() {
                return Err(Failure::usage("there are no schedules: write [[schedule]] into the settings"));
            }
            let ended = run_loop(context, until, move |slot| tell_event(slot, quiet), stopped()).await?;
            conclude(json, &ended)
        }
    }
}

/// Runs the schedules of the settings: until `stop`, or what is due up to `until`. What is under way hears itself of the
/// process's end. `observer` sees every event.
pub(crate) async fn run_loop(
    context: Context,
    until: Option<DateTime<Utc>>,
    observer: impl Fn(&rows::Slot) + Send + Sync + 'static,
    stop: impl Future<Output = ()> + Send,
) -> Result<Vec<Ended>, Failure> {
    Ok(scheduler(context, observer).await?.run(until, stop).await?)
}

async fn scheduler(
    context: Context,
    observer: impl Fn(&rows::Slot) + Send + Sync + 'static,
) -> Result<Scheduler, Failure> {
    let Config { schedule, scheduler, .. } = context.config.clone();
    let hook = Webhook::of(&scheduler.alert).map_err(Failure::usage)?;
    let log = context.event_log().await?;
    let claims = Arc::new(LakeClaims(context.lake.clone()));
    // Progress bars of several runs at once are no help.
    let runner = Arc::new(EvalRunner(Arc::new(Context { quiet: true, ..context })));
    let parts = Parts {
        claims,
        runner,
        log,
        hook: hook.map(|hook| Arc::new(hook) as Arc<dyn Hook>),
        clock: Arc::new(SystemClock),
        holder: holder(),
        observer: Arc::new(observer),
    };
    Ok(Scheduler::new(&schedule, &scheduler, parts)?)
}

async fn run_now(context: Context, name: &str) -> Result<(), Failure> {
    known(&context, name)?;
    let (json, quiet) = (context.json, context.quiet);
    let (claims, log) = (LakeClaims(context.lake.clone()), context.event_log().await?);
    let scheduler = scheduler(context, move |slot| tell_event(slot, quiet)).await?;
    let now = Utc::now().trunc_subsecs(6);
    Orders::give(&claims, log.as_ref(), name, (Order::RunNow, &holder()), now).await?;
    let ended = scheduler.run_now(name, now, stopped()).await?;
    if ended.is_empty() && !quiet {
        output::note(&format!("another scheduler took the slot: webdancer eval schedule show {name}"));
    }
    conclude(json, &ended)
}

async fn order(context: &Context, name: &str, order: Order) -> Result<(), Failure> {
    known(context, name)?;
    let (claims, log) = (LakeClaims(context.lake.clone()), context.event_log().await?);
    let since = Orders::give(&claims, log.as_ref(), name, (order, &holder()), Utc::now().trunc_subsecs(6)).await?;
    let (word, other) = match order {
        Order::Pause => ("paused", "is paused already"),
        _ => ("resumed", "is not paused"),
    };
    match (context.json, since) {
        (true, since) => output::json(&json!({"schedule": name, "changed": since.is_some(), "since": since})),
        (false, Some(since)) => output::line(&format!("{name}: {word}, {}", since.format("%Y-%m-%dT%H:%M:%SZ"))),
        (false, None) => output::line(&format!("{name} {other}")),
    }
}

/// When the next slots of a schedule are.
#[derive(Debug, Serialize)]
struct Checked {
    schedule: String,
    cells: usize,
    next: Vec<DateTime<Utc>>,
}

fn check(context: &Context, file: &Path) -> Result<(), Failure> {
    let config = Config::read(Some(file))?;
    let about = |error: ScheduleError| Failure::from(error).about(&file.display().to_string());
    let planned = config::plan(&config.schedule, &config.scheduler).map_err(about)?;
    Webhook::of(&config.scheduler.alert).map_err(|why| Failure::usage(why).about(&file.display().to_string()))?;
    let mut checked = Vec::new();
    for planned in planned {
        let mut next = Vec::new();
        let mut time = Utc::now();
        while let Some(after) = planned.times.next_after(time).filter(|_| next.len() < NEXT_TOLD) {
            next.push(after);
            time = after;
        }
        let schedule = &planned.schedule;
        for benchmark in &schedule.benchmarks {
            super::benchmarks::definition_of(&config, benchmark)
                .map_err(|failure| failure.about(&format!("{}: schedule {}", file.display(), schedule.name)))?;
        }
        checked.push(Checked { schedule: schedule.name.clone(), cells: schedule.cells().len(), next });
    }
    if context.json {
        return output::json(&checked);
    }
    for Checked { schedule, cells, next } in &checked {
        let next: Vec<String> = next.iter().map(|time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string()).collect();
        output::line(&format!("{schedule}: {cells} runs a slot; next {}", next.join(", ")))?;
    }
    output::line(&format!("{} schedules in order", checked.len()))
}

/// Refuses a name that no schedule has.
fn known(context: &Context, name: &str) -> Result<(), Failure> {
    let mut names = context.config.schedule.iter().map(|schedule| schedule.name.as_str());
    if names.any(|known| known == name) {
        return Ok(());
    }
    let names: Vec<&str> = context.config.schedule.iter().map(|schedule| schedule.name.as_str()).collect();
    let known = if names.is_empty() { "there are none".to_string() } else { format!("there are {}", names.join(", ")) };
    Err(Failure::usage(format!("there is no schedule {name:?} in the settings: {known}")))
}

/// An event of a slot, for people.
fn tell_event(slot: &rows::Slot, quiet: bool) {
    if quiet {
        return;
    }
    let cell = match (&slot.policy, &slot.benchmark) {
        (Some(policy), Some(benchmark)) => format!(" {policy} × {benchmark}"),
        _ => String::new(),
    };
    let reason = slot.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let time = slot.slot_time.format("%Y-%m-%dT%H:%M:%SZ");
    output::note(&format!("{} {time}{cell} {}{reason}", slot.schedule, slot.state));
}

/// The result of a loop that came to its end.
fn conclude(json: bool, ended: &[Ended]) -> Result<(), Failure> {
    if json {
        output::json(&ended)?;
    }
    let failed: Vec<String> = ended
        .iter()
        .filter(|ended| !matches!(ended.state, "finished" | "skipped"))
        .map(|ended| {
            let reason = ended.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            format!("{} {} {}{reason}", ended.schedule, ended.slot_time.format("%Y-%m-%dT%H:%M:%SZ"), ended.state)
        })
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::partly(failed.join("; "))) }
}

impl From<ScheduleError> for Failure {
    fn from(error: ScheduleError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<OrderError> for Failure {
    fn from(error: OrderError) -> Failure {
        Failure::failed(error.to_string())
    }
}

//! `webdancer serve`: the dashboard, what keeps it up to date, the schedules, and runs told as OpenLineage events.

use std::time::Duration;

use webdancer_eval::dashboard::{self, Dashboard, Readers, Settings};
use webdancer_eval::prices::PriceList;
use webdancer_schemas::rows::Slot;
use webdancer_serve::{Limits, Server};

use super::eval::schedule::run_loop;
use super::lineage::Sender;
use crate::args::ServeArgs;
use crate::context::{Context, LogUri};
use crate::failure::Failure;
use crate::output;

/// How often the embedded log is looked into.
const DRAIN_EVERY: Duration = Duration::from_secs(2);

pub(crate) async fn run(context: &Context, args: &ServeArgs) -> Result<(), Failure> {
    let readers = context.config.serve.readers()?;
    let groups = readers.as_ref().map(|_| context.config.serve.restricted_groups.join(", "));
    let lineage = Sender::of(context, chrono::Utc::now()).await?;
    let dashboard = Dashboard::new(context.engine()?, settings(context, args, readers));
    let limits = Limits::default();
    let failed = |e: std::io::Error| Failure::failed(format!("serving on {}: {e}", args.listen));
    let server = Server::start(dashboard::routes(dashboard.clone()), args.listen, &limits).await.map_err(failed)?;
    if context.json {
        // One line: whoever started the server reads it while the server runs.
        output::line(&serde_json::json!({"url": server.url(), "restricted": args.restricted}).to_string())?;
    } else {
        output::line(&format!("serving {} until interrupted", server.url()))?;
    }
    if let (Some(groups), Some(header), false) = (groups, &context.config.serve.groups_header, context.quiet) {
        output::note(&format!(
            "webdancer: readers of {groups} by the header {header} see rows of gated benchmarks: let none but the proxy set it"
        ));
    }
    if !args.listen.ip().is_loopback() && !context.quiet {
        output::note(
            "webdancer: whoever reaches this address reads the lake: put a proxy before it that knows who asks",
        );
    }
    let warming = tokio::spawn(async move { dashboard.warm_up().await });
    // Runs under way hear of the end themselves, and are waited for.
    let mut schedules = std::pin::pin!(schedules(context, args));
    let ended = tokio::select! {
        () = super::ingest::stopped() => None,
        () = keep_up(context, args) => None,
        () = tell_of_runs(lineage) => None,
        ended = &mut schedules => Some(ended),
    };
    warming.abort();
    server.stop().await;
    match ended {
        Some(ended) => ended,
        None => schedules.await,
    }
}

/// Runs the schedules of the settings, if there are any, until the process is asked to end.
async fn schedules(context: &Context, args: &ServeArgs) -> Result<(), Failure> {
    if args.no_schedules || context.config.schedule.is_empty() {
        super::ingest::stopped().await;
        return Ok(());
    }
    let tell = |slot: &Slot| tracing::info!(schedule = slot.schedule, slot = slot.slot_id, state = slot.state);
    run_loop(context.clone(), None, tell, super::ingest::stopped()).await.map(drop)
}

/// Sends runs as OpenLineage events where the settings name a place.
async fn tell_of_runs(lineage: Option<Sender>) {
    match lineage {
        Some(sender) => sender.run().await,
        None => std::future::pending().await,
    }
}

fn settings(context: &Context, args: &ServeArgs, readers: Option<Readers>) -> Settings {
    let folder = context.lake.local_path().map(|folder| folder.display().to_string());
    Settings {
        lake: folder.unwrap_or_else(|| context.lake.uri().to_string()),
        restricted: args.restricted,
        readers,
        prices: PriceList::new(&context.config.endpoints),
        ..Settings::default()
    }
}

/// Brings what producers append into the tables. With Kafka, `ingest` does; where the lake is not ours to write, others do.
async fn keep_up(context: &Context, args: &ServeArgs) {
    if args.no_ingest || !matches!(context.log, LogUri::Embedded) {
        return std::future::pending().await;
    }
    let mut told = None;
    loop {
        let behind = match context.try_draining().await {
            Ok((_, behind)) => behind,
            Err(failure) => Some(failure.to_string()),
        };
        // The same reason is told once.
        if let Some(why) = behind.as_ref().filter(|_| behind != told) {
            tracing::warn!("pages show the tables as they are: {why}");
        }
        told = behind;
        tokio::time::sleep(DRAIN_EVERY).await;
    }
}

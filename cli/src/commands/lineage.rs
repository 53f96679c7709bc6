//! `webdancer lineage`: where something came from and what came of it; runs as OpenLineage events.

mod sent;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use url::Url;
use webdancer_agent::post::Post;
use webdancer_agent::secret::Secret;
use webdancer_query::lineage::openlineage::{Naming, run_events};
use webdancer_query::lineage::{LineageLimits, lineage};
use webdancer_query::{QueryEngine, QueryOptions};
use webdancer_schemas::kind::Kind;

use crate::args::LineageArgs;
use crate::columns::strings;
use crate::config::OpenLineageConfig;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, NewFile};
use sent::Sent;

pub(crate) async fn run(context: &Context, args: &LineageArgs) -> Result<(), Failure> {
    context.drain_embedded().await?;
    let Some(id) = &args.id else { return events(context, args).await };
    let limits = LineageLimits {
        up_max: args.up,
        down_max: args.down,
        rows_max: args.rows,
        nodes_max: args.nodes as usize,
        ..LineageLimits::default()
    };
    let found = lineage(&context.job_engine()?, id, &limits).await?;
    match context.json {
        true => output::json(&found),
        false => output::line(found.tree().trim_end()),
    }
}

async fn events(context: &Context, args: &LineageArgs) -> Result<(), Failure> {
    let config = &context.config.openlineage;
    let naming = naming(context)?;
    // Settings that are wrong are told before anything is written.
    let post = if args.no_send { None } else { config.post()? };
    let events = run_events(&context.job_engine()?, &naming, args.run.as_deref(), args.since).await?;
    if let (Some(run), true) = (&args.run, events.is_empty()) {
        return Err(Failure::usage(format!("there is no run {run}; SELECT run_id, kind, state FROM run_state")));
    }
    write(args, &events)?;
    let Some(post) = post else { return Ok(()) };
    for (sent, event) in events.iter().enumerate() {
        let seed = event["run"]["runId"].as_str().unwrap_or_default();
        post.send(seed, event).await.map_err(|error| match sent {
            0 => Failure::failed(error.to_string()),
            _ => Failure::partly(format!("{error}; {sent} of {} events were sent", events.len())),
        })?;
    }
    if !context.quiet {
        output::note(&format!("{} events sent to {}", events.len(), config.address()));
    }
    Ok(())
}

fn naming(context: &Context) -> Result<Naming, Failure> {
    let lake = Url::parse(context.lake.uri()).map_err(|e| Failure::failed(format!("{}: {e}", context.lake.uri())))?;
    Ok(Naming { jobs: context.config.openlineage.namespace.clone(), ..Naming::of(lake) })
}

/// How often a server looks whether there is more of runs.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Sends the events of runs as their states change: what a server does beside everything else.
pub(super) struct Sender {
    engine: QueryEngine,
    naming: Naming,
    post: Post,
    sent: Sent,
    /// Where that is kept; None where there is no place for it.
    file: Option<PathBuf>,
    /// The version of the runs that was looked at last.
    version: Option<u64>,
}

impl Sender {
    /// What was told before goes on; else only runs that change from `since` on are told. None where the settings name no
    /// place.
    ///
    /// # Errors
    /// What is wrong with the settings, or with the file of what was told.
    pub(super) async fn of(context: &Context, since: DateTime<Utc>) -> Result<Option<Sender>, Failure> {
        let config = &context.config.openlineage;
        let Some(post) = config.post()? else { return Ok(None) };
        let (engine, naming) = (context.job_engine()?, naming(context)?);
        let file = sent::place(context, &config.address()).await?;
        let known = file.as_deref().map(Sent::read).transpose()?.flatten();
        let sent = known.unwrap_or_else(|| Sent::since(since));
        Ok(Some(Sender { engine, naming, post, sent, file, version: None }))
    }

    /// Sends until it is dropped. What cannot be sent is sent later.
    pub(super) async fn run(mut self) {
        let mut told = None;
        loop {
            let why = self.look(Utc::now()).await.err().map(|failure| failure.to_string());
            // The same reason is told once.
            if let Some(why) = why.as_ref().filter(|_| why != told) {
                tracing::warn!("runs are not told of: {why}");
            }
            told = why;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&mut self, now: DateTime<Utc>) -> Result<(), Failure> {
        let versions = self.engine.versions().await?;
        let version = versions.into_iter().find(|(kind, _)| *kind == Kind::Run).map(|(_, version)| version);
        if version == self.version {
            return Ok(());
        }
        for run in self.changed().await? {
            for event in run_events(&self.engine, &self.naming, Some(&run), None).await? {
                self.send(&event).await?;
            }
        }
        self.version = version;
        self.sent.all_by(now);
        self.keep()
    }

    /// An event that was sent, and is not noted before the process is killed, is sent again.
    fn keep(&self) -> Result<(), Failure> {
        self.file.as_deref().map_or(Ok(()), |file| self.sent.write(file))
    }

    async fn changed(&self) -> Result<Vec<String>, Failure> {
        let sql = format!(
            "SELECT DISTINCT run_id FROM runs WHERE run_id IS NOT NULL AND event_time >= CAST('{}' AS TIMESTAMP) \
             ORDER BY run_id",
            self.sent.since.to_rfc3339()
        );
        let mut runs = Vec::new();
        for batch in &self.engine.query(&sql, &QueryOptions::default()).await?.read_all().await? {
            runs.extend(strings(batch, "run_id")?.iter().flatten().map(str::to_string));
        }
        Ok(runs)
    }

    async fn send(&mut self, event: &Value) -> Result<(), Failure> {
        if self.sent.has(event) {
            return Ok(());
        }
        let seed = event["run"]["runId"].as_str().unwrap_or_default();
        self.post.send(seed, event).await.map_err(|error| Failure::failed(error.to_string()))?;
        self.sent.add(event);
        self.keep()
    }
}

fn write(args: &LineageArgs, events: &[Value]) -> Result<(), Failure> {
    let Some(file) = &args.output else { return events.iter().try_for_each(|event| output::line(&event.to_string())) };
    let new = NewFile::at(file)?;
    let mut writer = new.writer();
    let written = events.iter().try_for_each(|event| writeln!(writer, "{event}")).and_then(|()| writer.flush());
    written.map_err(|error| Failure::failed(format!("writing {}: {error}", file.display())))?;
    drop(writer);
    new.keep()
}

impl OpenLineageConfig {
    /// Where events are sent; None where the settings name no place.
    fn post(&self) -> Result<Option<Post>, Failure> {
        if self.url.is_none() {
            return Ok(None);
        }
        let key = match (&self.key_file, &self.key_env) {
            (Some(file), _) => Some(Secret::from_file(file)),
            (None, Some(name)) => Some(Secret::from_env(name)),
            (None, None) => None,
        };
        let key = key.transpose().map_err(|reason| Failure::usage(format!("openlineage: {reason}")))?;
        let post = Post::new("openlineage", &self.address(), key, self.requests.clone());
        post.map(Some).map_err(|error| Failure::usage(error.to_string()))
    }

    fn address(&self) -> String {
        let url = self.url.as_deref().unwrap_or_default();
        format!("{}/{}", url.trim_end_matches('/'), self.endpoint.trim_start_matches('/'))
    }
}

//! `webdancer ingest`

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::sync::{mpsc, watch};
use webdancer_ingest::IngestError;
use webdancer_ingest::drain::{Carries, Commit, Drain, DrainObserver, DrainReport, Until};
use webdancer_ingest::embedded::{self, EmbeddedLog};
use webdancer_ingest::kafka::{Admin, KafkaSettings, KafkaSource};
use webdancer_ingest::source::{Budget, TopicPartition};
use webdancer_schemas::kind::Kind;

use crate::args::IngestArgs;
use crate::context::{Context, LogUri, held_back};
use crate::failure::Failure;
use crate::output;

/// Waits between attempts after a failure that may pass; doubled each time up to the last.
const RESTART_FIRST: Duration = Duration::from_millis(200);
const RESTART_LAST: Duration = Duration::from_secs(15);

pub(crate) async fn run(context: &Context, args: &IngestArgs) -> Result<(), Failure> {
    let kinds = kinds(&args.kinds)?;
    check_args(context, args)?;
    if args.until_caught_up {
        check_log(context).await?;
    }
    if args.accept_older_log {
        accept_older_log(context).await?;
    }
    let until = if args.until_caught_up { Until::CaughtUp } else { Until::Stopped };
    let mut watch = Watch::new(context.quiet);
    let mut total = DrainReport::default();
    let patience = Duration::from_secs(context.config.ingest.patience_s);
    let mut wait = RESTART_FIRST;
    loop {
        let commits = watch.commits;
        let drained = match &context.log {
            LogUri::Embedded => {
                let log = context.embedded().await?;
                let options = context.config.drain_options(&[]);
                embedded::drain(&context.lake, &log, options, until, RESTART_LAST, &mut watch, stopped()).await
            }
            LogUri::Kafka(settings) => kafka(context, settings, &kinds, args, until, &mut watch).await,
        };
        match drained {
            Ok(report) => {
                add(&mut total, &report);
                let held = held_back(&report);
                if let (Some(why), Until::Stopped) = (&held, until)
                    && !is_stopped().await
                {
                    tracing::error!("{why}; the other tables are caught up, and this one is tried again");
                } else {
                    watch.bar.finish_and_clear();
                    tell(context, &total)?;
                    return held.map_or(Ok(()), |why| Err(Failure::partly(why)));
                }
            }
            // Nothing is lost: the tables know where to go on.
            Err(error @ (IngestError::Unavailable(_) | IngestError::Lake(webdancer_lake::LakeError::Store { .. }))) => {
                if until == Until::CaughtUp && watch.succeeded.elapsed() >= patience {
                    watch.bar.finish_and_clear();
                    return Err(given_up(error, patience));
                }
                if watch.commits > commits {
                    wait = RESTART_FIRST;
                }
                tracing::warn!(error = %Failure::from(error), wait_ms = wait.as_millis() as u64, "ingest starts again from the tables' positions");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped() => return tell(context, &total),
        }
        wait = (wait * 2).min(RESTART_LAST);
    }
}

/// Refuses what the log cannot do.
fn check_args(context: &Context, args: &IngestArgs) -> Result<(), Failure> {
    match &context.log {
        LogUri::Embedded if !args.accept_new_topic.is_empty() => {
            Err(Failure::usage("--accept-new-topic is for Kafka: the embedded log has no topics; give --log kafka://…"))
        }
        LogUri::Embedded if !args.kinds.is_empty() => Err(Failure::usage(
            "--kinds is for Kafka: the embedded log has all kinds in one and is drained as a whole; leave it out, or give \
             --log kafka://…",
        )),
        LogUri::Kafka(_) if args.accept_older_log => Err(Failure::usage(
            "--accept-older-log is for the embedded log; for a topic that was made again there is --accept-new-topic TOPIC",
        )),
        LogUri::Kafka(settings) => {
            let unknown = args.accept_new_topic.iter().find(|topic| settings.kind_of(topic).is_none());
            unknown.map_or(Ok(()), |unknown| {
                Err(Failure::usage(format!(
                    "--accept-new-topic {unknown}: is no topic of events; theirs are called like {}",
                    settings.topic(Kind::Trajectory)
                )))
            })
        }
        LogUri::Embedded => Ok(()),
    }
}

/// A prefix of a bucket cannot be missing as a folder can: where nothing was appended from here, there is nothing to
/// catch up with, and rather a slip of the pen.
async fn check_log(context: &Context) -> Result<(), Failure> {
    let (LogUri::Embedded, None) = (&context.log, context.lake.local_path()) else { return Ok(()) };
    let state_folder = context.config.log.state_folder.as_deref();
    match EmbeddedLog::existing_folder_of(&context.lake, state_folder).await? {
        Some(_) => Ok(()),
        None => Err(Failure::usage(format!(
            "nothing was appended to {} from this machine: look at --lake and log.state_folder; drain a log where it is",
            context.lake.uri()
        ))),
    }
}

async fn accept_older_log(context: &Context) -> Result<(), Failure> {
    let log = context.embedded().await?;
    if embedded::accept_older_log(&context.lake, &log, RESTART_LAST).await? {
        output::note(&format!("webdancer: the log in {} is taken up; all of it is read", log.folder().display()));
    }
    Ok(())
}

fn given_up(error: IngestError, patience: Duration) -> Failure {
    let why = Failure::from(error);
    Failure::failed(format!(
        "{why}; given up after {} s without success (ingest.patience_s). Nothing is lost: run it again when that is mended",
        patience.as_secs()
    ))
}

async fn kafka(
    context: &Context,
    settings: &KafkaSettings,
    kinds: &[Kind],
    args: &IngestArgs,
    until: Until,
    watch: &mut Watch,
) -> Result<DrainReport, IngestError> {
    let options = context.config.drain_options(&args.accept_new_topic);
    let mut settings = settings.clone();
    if until == Until::CaughtUp {
        let patience = Duration::from_secs(context.config.ingest.patience_s.max(1));
        settings.silence_limit = Some(patience);
        settings.admin_timeout_ms =
            settings.admin_timeout_ms.min(u32::try_from(patience.as_millis()).unwrap_or(u32::MAX));
    }
    let budget = Arc::new(Budget::default());
    let (sender, received) = mpsc::channel(64);
    let asked = settings.clone();
    let asking = tokio::task::spawn_blocking(move || Admin::new(&asked)?.cluster_id());
    let cluster = tokio::select! {
        cluster = asking => cluster.map_err(|e| IngestError::Fatal(format!("asking for the cluster id: {e}")))??,
        () = stopped() => return Ok(DrainReport::default()),
    };
    let source = KafkaSource::start(settings.clone(), kinds, budget, options.max_buffer_bytes, sender)?;
    let carries = Carries::OnePerTopic { prefix: settings.topic_prefix.clone() };
    let report = {
        let mut hinting = Hinting { source: &source, watch };
        let drain = Drain::new(context.lake.clone(), &cluster, carries, options, &mut hinting);
        drain.run(received, until, stopped()).await
    };
    source.stop();
    let joined = tokio::task::spawn_blocking(move || source.join()).await;
    joined.map_err(|e| IngestError::Fatal(format!("stopping the source: {e}")))??;
    report
}

/// Passes on what is durable as the group's offsets.
struct Hinting<'a> {
    source: &'a KafkaSource,
    watch: &'a mut Watch,
}

impl DrainObserver for Hinting<'_> {
    fn committed(&mut self, commit: &Commit) {
        self.watch.committed(commit);
    }
    fn durable(&mut self, partition: &TopicPartition, next: i64) {
        self.source.commit_hint(&[(partition.clone(), next)]);
        self.watch.durable(partition, next);
    }
    fn end(&mut self, partition: &TopicPartition, end: i64) {
        self.watch.end(partition, end);
    }
}

/// Shows lag and throughput.
struct Watch {
    bar: ProgressBar,
    begun: Instant,
    /// When something was last committed, or else the beginning.
    succeeded: Instant,
    commits: u64,
    rows: BTreeMap<&'static str, u64>,
    bytes: u64,
    next: HashMap<TopicPartition, i64>,
    ends: HashMap<TopicPartition, i64>,
    latency: Duration,
}

impl Watch {
    fn new(quiet: bool) -> Watch {
        Watch {
            bar: output::spinner(quiet),
            begun: Instant::now(),
            succeeded: Instant::now(),
            commits: 0,
            rows: BTreeMap::new(),
            bytes: 0,
            next: HashMap::new(),
            ends: HashMap::new(),
            latency: Duration::ZERO,
        }
    }

    fn show(&self) {
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        let rows: u64 = self.rows.values().sum();
        let lag: i64 = self.ends.iter().map(|(p, end)| (end - self.next.get(p).copied().unwrap_or(0)).max(0)).sum();
        self.bar.set_message(format!(
            "{rows} rows, {:.0} rows/s, {}/s, lag {lag}, commit {} ms",
            rows as f64 / seconds,
            output::bytes((self.bytes as f64 / seconds) as u64),
            self.latency.as_millis()
        ));
    }
}

impl DrainObserver for Watch {
    fn committed(&mut self, commit: &Commit) {
        *self.rows.entry(commit.kind.table()).or_default() += commit.rows;
        self.bytes += commit.bytes as u64;
        self.succeeded = Instant::now();
        self.commits += 1;
        self.latency = commit.latency;
        tracing::info!(
            table = commit.kind.table(),
            version = commit.version,
            rows = commit.rows,
            duplicates = commit.duplicates,
            bytes = commit.bytes,
            latency_ms = commit.latency.as_millis() as u64,
            "committed"
        );
        self.show();
    }
    fn durable(&mut self, partition: &TopicPartition, next: i64) {
        self.next.insert(partition.clone(), next);
        self.show();
    }
    fn end(&mut self, partition: &TopicPartition, end: i64) {
        self.ends.insert(partition.clone(), end);
        self.show();
    }
}

fn kinds(names: &[String]) -> Result<Vec<Kind>, Failure> {
    if names.is_empty() {
        return Ok(Kind::ALL.to_vec());
    }
    names.iter().map(|name| name.parse().map_err(|e| Failure::usage(format!("--kinds {name}: {e}")))).collect()
}

fn add(total: &mut DrainReport, report: &DrainReport) {
    for (table, rows) in &report.rows {
        *total.rows.entry(table.clone()).or_default() += rows;
    }
    total.duplicates += report.duplicates;
    total.commits += report.commits;
}

fn tell(context: &Context, report: &DrainReport) -> Result<(), Failure> {
    if context.json {
        return output::json(report);
    }
    let rows: u64 = report.rows.values().sum();
    output::line(&format!("{rows} rows in {} commits, {} duplicates left out", report.commits, report.duplicates))?;
    for (table, rows) in report.rows.iter().filter(|(_, rows)| **rows > 0) {
        output::line(&format!("  {table:<14} {rows:>10}"))?;
    }
    Ok(())
}

/// Whether Ctrl-C or a request to terminate has come.
async fn is_stopped() -> bool {
    tokio::time::timeout(Duration::ZERO, stopped()).await.is_ok()
}

/// Resolves once Ctrl-C or a request to terminate has come, also when it came before the call. A second one ends the
/// process at once.
pub(crate) async fn stopped() {
    static STOPPED: OnceLock<watch::Receiver<bool>> = OnceLock::new();
    let mut stopped = STOPPED
        .get_or_init(|| {
            let (sender, receiver) = watch::channel(false);
            tokio::spawn(async move {
                signal().await;
                sender.send_replace(true);
                signal().await;
                std::process::exit(130);
            });
            receiver
        })
        .clone();
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        // Without a listener there is nothing to wait for.
        std::future::pending::<()>().await;
    }
}

/// Waits for the next signal to end.
pub(super) async fn signal() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupted => {}
                _ = terminated.recv() => {}
            }
            return;
        }
    }
    if interrupted.await.is_err() {
        std::future::pending::<()>().await;
    }
}

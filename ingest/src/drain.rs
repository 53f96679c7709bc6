//! The commit loop: records of any log into tables, exactly once.
//!
//! For every table there is at most one commit under way; what arrives meanwhile gathers for the next. The loop trusts
//! the tables' positions alone. Whenever something is not as it should be (another worker has the partition, the store
//! does not answer), it ends with an error and forgets what it holds; starting again from the tables' positions loses
//! and repeats nothing. That is the only way of recovery, and so the one that is tested.

mod report;
mod streams;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use webdancer_lake::append::{Outcome, Part};
use webdancer_lake::{Lake, Table};
use webdancer_schemas::event::Rejection;
use webdancer_schemas::kind::Kind;

use crate::decode::Decoder;
use crate::error::{IngestError, Result};
use crate::source::{BudgetGuard, Record, SourceEvent, Start, TopicPartition};
use streams::{OwnEvents, Stream, Streams};

pub use report::{Commit, DrainObserver, DrainReport, Held};

/// Settings of a drain.
#[derive(Debug, Clone)]
pub struct DrainOptions {
    /// Records wait at most about this long for their commit.
    pub commit_interval: Duration,
    /// A table's records are committed as soon as they came from this many bytes of JSON.
    pub commit_bytes: usize,
    /// Bytes of records in memory, read and not yet committed; the source pauses above. At least twice `commit_bytes`.
    pub max_buffer_bytes: usize,
    /// A record larger than this is a dead letter.
    pub max_event_bytes: usize,
    /// A topic whose id changed is taken up from its beginning.
    pub accept_new_topics: Vec<String>,
}

impl Default for DrainOptions {
    fn default() -> DrainOptions {
        DrainOptions {
            commit_interval: Duration::from_secs(2),
            commit_bytes: 64 << 20,
            max_buffer_bytes: 192 << 20,
            max_event_bytes: 16 << 20,
            accept_new_topics: Vec::new(),
        }
    }
}

/// Which kinds a topic of the log carries.
#[derive(Debug, Clone)]
pub enum Carries {
    /// Every topic carries all kinds: the embedded log.
    All,
    /// A topic is a prefix and a kind's name: Kafka.
    OnePerTopic {
        /// The prefix.
        prefix: String,
    },
}

/// How a drain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When the source has been read to its end and all of it is committed.
    CaughtUp,
    /// When told to; what is in memory is committed first.
    Stopped,
}

/// What a finished commit hands back.
struct Finished {
    kind: Kind,
    table: Table,
    parts: Vec<(TopicPartition, i64)>,
    outcomes: Vec<Outcome>,
    bytes: usize,
    since: Instant,
    _guards: Vec<Arc<BudgetGuard>>,
}

/// The loop. See the [module](self).
pub struct Drain<'a> {
    lake: Lake,
    cluster: String,
    carries: Carries,
    options: DrainOptions,
    observer: &'a mut dyn DrainObserver,
    streams: Streams,
    commits: JoinSet<Result<Finished>>,
    report: DrainReport,
}

impl std::fmt::Debug for Drain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drain").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl<'a> Drain<'a> {
    /// A drain of the log `cluster` into `lake`.
    pub fn new(
        lake: Lake,
        cluster: &str,
        carries: Carries,
        options: DrainOptions,
        observer: &'a mut dyn DrainObserver,
    ) -> Drain<'a> {
        Drain {
            lake,
            cluster: cluster.to_string(),
            carries,
            options,
            observer,
            streams: Streams::default(),
            commits: JoinSet::new(),
            report: DrainReport::default(),
        }
    }

    /// Leaves records of these kinds in the log, and says why: their tables cannot be opened. What is durable does not
    /// move past them, and the drain ends when it has caught up, however it was to end: whoever started it tries again.
    pub(crate) fn holding_back(mut self, kinds: BTreeMap<Kind, String>) -> Drain<'a> {
        self.streams.hold_back(kinds);
        self
    }

    /// Takes records until the end that `until` names, or until `stop` resolves.
    ///
    /// # Errors
    /// Whatever stopped it; nothing is lost, start again from the tables' positions.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<SourceEvent>,
        until: Until,
        stop: impl Future<Output = ()>,
    ) -> Result<DrainReport> {
        tokio::pin!(stop);
        let mut tick = tokio::time::interval(self.options.commit_interval.max(Duration::from_millis(10)) / 4);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut finishing = false;
        loop {
            if finishing && self.streams.is_empty() && self.commits.is_empty() {
                self.tell_durable();
                let held = self.streams.held().iter();
                self.report.held = held.map(|(kind, held)| (kind.table().to_string(), held.clone())).collect();
                return Ok(self.report);
            }
            tokio::select! {
                biased;
                Some(finished) = self.commits.join_next(), if !self.commits.is_empty() => {
                    let finished = finished.map_err(|e| IngestError::Fatal(format!("a commit task ended: {e}")))?;
                    self.landed(finished?)?;
                    if finishing {
                        self.commit_due(true).await?;
                    }
                }
                () = &mut stop, if !finishing => {
                    finishing = true;
                    self.commit_due(true).await?;
                }
                event = events.recv(), if !finishing => match event {
                    Some(SourceEvent::CaughtUp) if until == Until::CaughtUp || !self.streams.held().is_empty() => {
                        finishing = true;
                        self.commit_due(true).await?;
                    }
                    Some(event) => self.handle(event).await?,
                    None => return Err(IngestError::Unavailable("the source of records has ended".to_string())),
                },
                _ = tick.tick() => self.commit_due(false).await?,
            }
        }
    }

    async fn handle(&mut self, event: SourceEvent) -> Result<()> {
        match event {
            SourceEvent::Assigned { partitions, reply } => {
                let mut starts = HashMap::new();
                for (partition, topic_id) in partitions {
                    let start = self.start_of(&partition, topic_id).await?;
                    starts.insert(partition, start);
                }
                reply.send(starts).map_err(|_| IngestError::Unavailable("the source did not wait for its start".into()))
            }
            SourceEvent::Revoked { partitions, done } => {
                // What is gathered goes; what is being committed is harmless (its position is checked) and soon over.
                self.streams.forget(&partitions);
                while let Some(finished) = self.commits.join_next().await {
                    let finished = finished.map_err(|e| IngestError::Fatal(format!("a commit task ended: {e}")))?;
                    self.landed(finished?)?;
                }
                // A source that gave up waiting needs no answer.
                let _ = done.send(());
                Ok(())
            }
            SourceEvent::Records { partition, records, budget } => self.take(&partition, records, budget).await,
            SourceEvent::Gap { partition, from, to, kinds, reason } => {
                self.streams.saw(&partition, to);
                if self.streams.hold_gap(&partition, &kinds, from) {
                    return Ok(());
                }
                self.gap(&partition, from, to, &reason).await
            }
            SourceEvent::Lag { partition, end } => {
                self.observer.end(&partition, end);
                Ok(())
            }
            SourceEvent::CaughtUp => {
                self.commit_due(false).await?;
                // Where nothing was new there is no commit that would tell it.
                self.tell_durable();
                Ok(())
            }
            SourceEvent::Failed(error) => Err(error),
        }
    }

    fn tell_durable(&mut self) {
        for (partition, next) in self.streams.durable() {
            self.observer.durable(&partition, next);
        }
    }

    /// Where a partition goes on: after the last position that its tables have.
    async fn start_of(&mut self, partition: &TopicPartition, topic_id: Option<i64>) -> Result<Start> {
        self.streams.assign(partition);
        let Some(kind) = self.kind_of_topic(&partition.topic)? else {
            // All kinds share the partition: the source has asked the tables itself, and each is asked again when its
            // first record comes.
            return Ok(Start::Beginning);
        };
        let table = match topic_id {
            Some(id) => self.check_topic(kind, &partition.topic, id).await?,
            None => self.lake.table_for_writing(kind).await?,
        };
        let app_id = match topic_id {
            Some(id) => format!("{}/{}@{id:x}/{}", self.cluster, partition.topic, partition.partition),
            None => app_id(&self.cluster, partition),
        };
        let position = table.position(&app_id).await?;
        self.streams.insert(Stream::new(partition.clone(), kind, app_id, position), table);
        Ok(position.map_or(Start::Beginning, |at| Start::At(at + 1)))
    }

    /// Makes sure that the topic is the one the table knows, or makes it known.
    async fn check_topic(&self, kind: Kind, topic: &str, id: i64) -> Result<Table> {
        let mark = format!("{}/{topic}#id", self.cluster);
        let mut table = self.lake.table_for_writing(kind).await?;
        loop {
            let known = table.position(&mark).await?;
            match known {
                Some(known) if known == id => return Ok(table),
                Some(_) if !self.options.accept_new_topics.iter().any(|accepted| accepted == topic) => {
                    return Err(IngestError::Fatal(format!(
                        "topic {topic} is not the one whose positions table {} has: it was deleted and made again, and \
                         what was not read of the old one is lost. `webdancer ingest --accept-new-topic {topic}` takes \
                         up the new one from its beginning",
                        kind.table(),
                    )));
                }
                _ => {}
            }
            // Of several workers one makes it known; the others look again.
            let part = Part { app_id: mark.clone(), from: known, to: id, fingerprint: None, batches: Vec::new() };
            table.append(&[part]).await?;
            table.refresh().await?;
        }
    }

    /// The stream of a kind in a partition; for the embedded log it is made when its first record comes.
    async fn ensure_stream(&mut self, partition: &TopicPartition, kind: Kind) -> Result<()> {
        if self.streams.contains(partition, kind) {
            return Ok(());
        }
        let table = self.lake.table_for_writing(kind).await?;
        let app_id = app_id(&self.cluster, partition);
        let position = table.position(&app_id).await?;
        self.streams.insert(Stream::new(partition.clone(), kind, app_id, position), table);
        Ok(())
    }

    async fn take(&mut self, partition: &TopicPartition, records: Vec<Record>, budget: BudgetGuard) -> Result<()> {
        if !self.streams.is_assigned(partition) {
            return Ok(());
        }
        let budget = Arc::new(budget);
        let topic_kind = self.kind_of_topic(&partition.topic)?;
        for record in records {
            self.streams.saw(partition, record.offset);
            let kind = topic_kind.or_else(|| record.envelope.as_ref().ok().map(|envelope| envelope.kind));
            if let Some(kind) = kind
                && self.streams.hold(partition, kind, record.offset)
            {
                continue;
            }
            let rejected = match kind {
                Some(kind) => {
                    self.ensure_stream(partition, kind).await?;
                    let limit = self.options.max_event_bytes;
                    let stream = self.streams.get_mut(partition, kind)?;
                    if !stream.is_new(record.offset) {
                        continue;
                    }
                    let pushed = match &record.envelope {
                        Err(rejection) => Err(rejection.clone()),
                        Ok(_) if kind != Kind::DeadLetter && record.payload.len() > limit => {
                            let bytes = record.payload.len();
                            Err(Rejection::of("data", format!("{bytes} bytes, more than the {limit} that are allowed")))
                        }
                        Ok(envelope) => stream.push(envelope, &record, &budget),
                    };
                    if pushed.is_err() && self.streams.hold_rejected(partition, Some(kind), record.offset) {
                        continue;
                    }
                    self.streams.get_mut(partition, kind)?.pass(&record, &budget);
                    pushed.err()
                }
                None if self.streams.hold_rejected(partition, None, record.offset) => continue,
                None => record.envelope.as_ref().err().cloned(),
            };
            if let Some(rejection) = rejected {
                let origin = self.streams.origin(&self.cluster, partition);
                let event = crate::dead_letter::of_record(&origin, partition, &record, &rejection)
                    .map_err(|e| IngestError::Fatal(format!("dead letter of {partition} {}: {e}", record.offset)))?;
                self.streams.own_event(partition, record.offset, &event)?;
            }
        }
        self.streams.cut_batches()?;
        // Not left to the timer: while records keep coming it may not get a turn.
        if self.streams.is_due(self.options.commit_bytes, self.options.commit_interval) {
            self.commit_due(false).await?;
        }
        Ok(())
    }

    /// The one kind that a topic carries; None: any.
    fn kind_of_topic(&self, topic: &str) -> Result<Option<Kind>> {
        match &self.carries {
            Carries::All => Ok(None),
            Carries::OnePerTopic { prefix } => {
                let kind = topic.strip_prefix(prefix.as_str()).and_then(|name| name.parse().ok());
                let unknown = || IngestError::Usage(format!("topic {topic} is no topic of a kind of events"));
                kind.ok_or_else(unknown).map(Some)
            }
        }
    }

    async fn gap(&mut self, partition: &TopicPartition, from: i64, to: i64, reason: &str) -> Result<()> {
        tracing::error!(%partition, from, to, reason, "records were lost before they were read; the gap is recorded");
        let origin = self.streams.origin(&self.cluster, partition);
        let event = crate::dead_letter::of_gap(&origin, partition, from, to, reason)
            .map_err(|e| IngestError::Fatal(format!("gap of {partition}: {e}")))?;
        self.streams.own_event(partition, to, &event)?;
        if let Some(kind) = self.kind_of_topic(&partition.topic)? {
            self.streams.get_mut(partition, kind)?.pass_gap(to);
        }
        Ok(())
    }

    /// Starts the commits that are due: all of them, or those that are large or old enough.
    async fn commit_due(&mut self, all: bool) -> Result<()> {
        self.commit_own_events().await?;
        for kind in self.streams.due(all, self.options.commit_bytes, self.options.commit_interval) {
            let Some(work) = self.streams.begin(kind)? else { continue };
            self.commits.spawn(async move {
                let streams::Work { mut table, parts, bytes, since, guards } = work;
                let positions = parts.iter().map(|(partition, part)| (partition.clone(), part.to)).collect();
                let parts: Vec<Part> = parts.into_iter().map(|(_, part)| part).collect();
                let outcomes = table.append(&parts).await?;
                Ok(Finished { kind, table, parts: positions, outcomes, bytes, since, _guards: guards })
            });
        }
        Ok(())
    }

    /// Dead letters and gaps go first: once the kind's own table has moved past a record, nothing would bring them back.
    async fn commit_own_events(&mut self) -> Result<()> {
        for OwnEvents { kind, partition, mut decoder, to, .. } in self.streams.take_own_events() {
            let batch = finish(&mut decoder)?;
            let mut table = self.lake.table_for_writing(kind).await?;
            // Uniqueness comes from the derived ids; the position only lets a failed attempt be recognised.
            let app_id = format!("{}/{partition}#{}", self.cluster, kind.name());
            let from = table.position(&app_id).await?;
            // A rival with other rows must not come to the same number: it would take our commit for its own.
            let to = to.max(from.map_or(0, |at| at + 1)) + rand::random_range(1..1 << 20);
            match table.append(&[Part { app_id, from, to, fingerprint: None, batches: vec![batch] }]).await?.first() {
                Some(Outcome::Landed { rows, .. }) => {
                    *self.report.rows.entry(kind.table().to_string()).or_default() += rows;
                    self.report.commits += 1;
                }
                _ => return Err(superseded(&partition, kind)),
            }
        }
        Ok(())
    }

    fn landed(&mut self, finished: Finished) -> Result<()> {
        let (mut rows, mut duplicates) = (0, 0);
        let mut positions = Vec::new();
        for ((partition, to), outcome) in finished.parts.iter().zip(&finished.outcomes) {
            match outcome {
                Outcome::Landed { rows: added, duplicates: left_out } => {
                    rows += added;
                    duplicates += left_out;
                    self.streams.landed(partition, finished.kind, *to);
                    positions.push((partition.clone(), *to));
                }
                Outcome::Superseded { .. } if !self.streams.is_assigned(partition) => {}
                Outcome::Superseded { .. } => return Err(superseded(partition, finished.kind)),
            }
        }
        let version = finished.table.version();
        self.streams.give_back(finished.kind, finished.table);
        *self.report.rows.entry(finished.kind.table().to_string()).or_default() += rows;
        self.report.duplicates += duplicates;
        self.report.commits += 1;
        self.observer.committed(&Commit {
            kind: finished.kind,
            version,
            positions,
            rows,
            duplicates,
            bytes: finished.bytes,
            latency: finished.since.elapsed(),
        });
        self.tell_durable();
        Ok(())
    }
}

/// What a table's position in a partition goes by, where the log has no topic ids.
pub(crate) fn app_id(cluster: &str, partition: &TopicPartition) -> String {
    format!("{cluster}/{partition}")
}

fn finish(decoder: &mut Decoder) -> Result<arrow::array::RecordBatch> {
    decoder.finish().map_err(|e| IngestError::Fatal(format!("rows of {} do not make a batch: {e}", decoder.kind())))
}

fn superseded(partition: &TopicPartition, kind: Kind) -> IngestError {
    IngestError::Unavailable(format!(
        "another worker has committed records of {partition} to table {}; starting again from where it is",
        kind.table()
    ))
}

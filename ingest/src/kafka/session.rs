//! The consumer's loop: poll, hand over, stay within the budget, and keep an eye on topics and positions.
//!
//! All state is owned by one thread, so nothing is locked: a rebalance is carried out between two polls
//! ([`assignment`](super::assignment)), and a record that does not belong to the present assignment finds no partition
//! to be added to. Positions only grow: whatever comes below the next expected offset is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::{self, Runtime};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use webdancer_schemas::kind::Kind;

use super::admin::Admin;
use super::consumer::Shared;
use super::context::ConsumerSide;
use super::ffi::DescribeTopics;
use super::record;
use super::settings::KafkaSettings;
use super::watch::{CaughtUp, Topic, topics};
use crate::error::IngestError;
use crate::source::{Budget, Record, SourceEvent, TopicPartition};

/// Longest poll while there is nothing to do: how soon a stop is noticed.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// Longest poll while the receiver or the budget has no room.
const BLOCKED_POLL: Duration = Duration::from_millis(5);
/// How long to wait for the budget before pausing. Pausing makes librdkafka throw its fetched messages away, so a commit
/// that is about to free memory is waited for.
const PAUSE_GRACE: Duration = Duration::from_millis(300);
/// Polls between two looks at the clock while messages flow.
const POLLS_PER_TICK: u32 = 64;
/// How long a request for the ends of partitions may hold up the loop.
pub(super) const ENDS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long after such a request failed the next may follow.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// Where records go and how many may be on the way.
pub(super) struct Flow {
    pub(super) budget: Arc<Budget>,
    pub(super) max_buffer_bytes: usize,
    pub(super) events: mpsc::Sender<SourceEvent>,
}

/// Why the loop ends.
pub(super) enum End {
    /// The handle asked for it, or nobody receives any more.
    Stopped,
    /// The receiver is told.
    Failed(IngestError),
}

impl From<IngestError> for End {
    fn from(error: IngestError) -> End {
        End::Failed(error)
    }
}

/// A partition assigned to this member.
pub(super) struct Partition {
    pub(super) key: TopicPartition,
    pub(super) kind: Kind,
    /// Offset of the next record.
    pub(super) next: i64,
    /// The end that counts as caught up.
    pub(super) target: i64,
    /// The last offset committed as a hint.
    pub(super) hinted: i64,
    pub(super) records: Vec<Record>,
    pub(super) bytes: usize,
    /// How many records the last batch had.
    pub(super) expected_records: usize,
}

impl Partition {
    /// Whether records before the target are still to come.
    pub(super) fn is_behind(&self) -> bool {
        self.next < self.target
    }
}

/// The consumer's loop and its state.
pub(super) struct Session<'c> {
    pub(super) consumer: &'c BaseConsumer<ConsumerSide>,
    pub(super) settings: &'c KafkaSettings,
    pub(super) shared: &'c Shared,
    pub(super) flow: Flow,
    /// Runs nothing but time-outs of waiting for the receiver.
    pub(super) runtime: Runtime,
    pub(super) topics: Vec<Topic>,
    /// Brokers to ask about topics, the last one first.
    pub(super) brokers: Vec<i32>,
    pub(super) partitions: Vec<Partition>,
    /// Events the receiver had no room for; records among them count against the budget.
    pub(super) outbox: VecDeque<SourceEvent>,
    /// Topic and partition of the last message, and its place in `partitions`: messages come in runs.
    pub(super) last: Option<(usize, i32, usize)>,
    pub(super) caught_up: CaughtUp,
    /// When the group last decided who reads what; none before this member joined it.
    pub(super) settled_at: Option<Instant>,
    /// When to look for positions that are gone.
    pub(super) reposition_at: Option<Instant>,
    /// How often in a row a position lay behind the end.
    pub(super) beyond_end: u32,
    pub(super) paused: bool,
    over_budget_since: Option<Instant>,
    pending_bytes: usize,
    oldest_pending: Option<Instant>,
    pub(super) idle: bool,
    pub(super) ends_at: Instant,
    check_at: Instant,
    pub(super) describing: Option<DescribeTopics<'c>>,
    /// Since when no broker answers.
    pub(super) silent_since: Option<Instant>,
}

impl<'c> Session<'c> {
    /// Reads until the end, tells a failure, and gives up what is assigned.
    pub(super) fn run(
        consumer: &'c BaseConsumer<ConsumerSide>,
        settings: &'c KafkaSettings,
        kinds: &[Kind],
        shared: &'c Shared,
        flow: Flow,
    ) {
        let runtime = match runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(source) => {
                let what = "starting the kafka thread".into();
                let _ = flow.events.blocking_send(SourceEvent::Failed(IngestError::Io { what, source }));
                return;
            }
        };
        let now = Instant::now();
        let mut session = Session {
            consumer,
            settings,
            shared,
            flow,
            runtime,
            topics: topics(settings, kinds),
            brokers: Vec::new(),
            partitions: Vec::new(),
            outbox: VecDeque::new(),
            last: None,
            caught_up: CaughtUp::Pursuing,
            settled_at: None,
            reposition_at: None,
            beyond_end: 0,
            paused: false,
            over_budget_since: None,
            pending_bytes: 0,
            oldest_pending: None,
            idle: false,
            ends_at: now,
            check_at: now + settings.check_interval(),
            describing: None,
            silent_since: None,
        };
        match session.read(kinds) {
            End::Stopped => session.give_up_all(),
            End::Failed(error) => {
                tracing::error!(%error, "kafka source failed");
                session.outbox.clear();
                session.deliver(SourceEvent::Failed(error), settings.rebalance_timeout());
            }
        }
        consumer.context().close();
    }

    fn read(&mut self, kinds: &[Kind]) -> End {
        match self.try_read(kinds) {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    fn try_read(&mut self, kinds: &[Kind]) -> Result<std::convert::Infallible, End> {
        Admin::new(self.settings)?.ensure_topics(kinds)?;
        let names: Vec<&str> = self.topics.iter().map(|topic| &*topic.name).collect();
        self.consumer
            .subscribe(&names)
            .map_err(|e| IngestError::Usage(format!("subscribing to {}: {e}", names.join(", "))))?;
        let mut polls = 0u32;
        loop {
            if self.shared.stopping() {
                return Err(End::Stopped);
            }
            self.send_outbox()?;
            if !self.within_budget() {
                continue;
            }
            match self.consumer.poll(self.patience()) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(KafkaError::PartitionEOF(_))) => self.idle = true,
                Some(Err(error)) => self.trouble(&error)?,
                None => {
                    self.idle = true;
                    self.carry_out_rebalances()?;
                }
            }
            polls = polls.wrapping_add(1);
            if self.idle || polls.is_multiple_of(POLLS_PER_TICK) {
                self.tick()?;
            }
        }
    }

    /// How long a poll may take.
    fn patience(&self) -> Duration {
        if self.paused || !self.outbox.is_empty() {
            return BLOCKED_POLL;
        }
        match self.oldest_pending {
            Some(since) => self.settings.batch_linger().saturating_sub(since.elapsed()).min(IDLE_POLL),
            None => IDLE_POLL,
        }
    }

    /// Adds a message to the batch of its partition.
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        self.consumer.context().noted.works();
        let Some((index, partition)) = self.partition_of(message) else {
            tracing::debug!(topic = message.topic(), partition = message.partition(), "dropped: not assigned");
            return;
        };
        let offset = message.offset();
        if offset < partition.next {
            tracing::debug!(partition = %partition.key, offset, "dropped: read before");
            return;
        }
        partition.next = offset + 1;
        let record = record::read(message, partition.kind);
        let bytes = record::bytes(&record);
        partition.bytes += bytes;
        if partition.records.is_empty() {
            // Idle partitions hold no memory, busy ones do not grow a batch step by step.
            partition.records.reserve(partition.expected_records);
        }
        partition.records.push(record);
        let (records, batch_bytes) = (partition.records.len(), partition.bytes);
        if self.pending_bytes == 0 {
            self.oldest_pending = Some(Instant::now());
        }
        self.pending_bytes += bytes;
        if self.caught_up == CaughtUp::Told {
            self.caught_up = CaughtUp::Stale;
        }
        if records >= self.settings.batch_records || batch_bytes >= self.settings.batch_bytes {
            self.flush(index);
        }
    }

    fn partition_of(&mut self, message: &BorrowedMessage<'_>) -> Option<(usize, &mut Partition)> {
        // The handle's address stands for the topic's name: it is the same for all its messages.
        let (topic, number) = (message.topic_ptr() as usize, message.partition());
        let index = match self.last {
            Some((last_topic, last_number, index)) if (last_topic, last_number) == (topic, number) => index,
            _ => {
                let name = message.topic();
                let found = |p: &Partition| p.key.partition == number && *p.key.topic == *name;
                let index = self.partitions.iter().position(found)?;
                self.last = Some((topic, number, index));
                index
            }
        };
        self.partitions.get_mut(index).map(|partition| (index, partition))
    }

    /// Hands the batch of a partition over.
    fn flush(&mut self, index: usize) {
        let Some(partition) = self.partitions.get_mut(index) else { return };
        if partition.records.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut partition.bytes);
        let records = std::mem::take(&mut partition.records);
        partition.expected_records = records.len();
        let key = partition.key.clone();
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        if self.pending_bytes == 0 {
            self.oldest_pending = None;
        }
        let budget = self.flow.budget.take(bytes);
        self.outbox.push_back(SourceEvent::Records { partition: key, records, budget });
    }

    /// Hands all batches over.
    pub(super) fn flush_all(&mut self) {
        for index in 0..self.partitions.len() {
            self.flush(index);
        }
        self.pending_bytes = 0;
        self.oldest_pending = None;
    }

    /// Drops the batches of partitions that are about to be removed.
    pub(super) fn forget_pending(&mut self, removed: &[Partition]) {
        let bytes: usize = removed.iter().map(|partition| partition.bytes).sum();
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
    }

    /// Sends what the receiver has room for.
    fn send_outbox(&mut self) -> Result<(), End> {
        while let Some(event) = self.outbox.pop_front() {
            match self.flow.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    break;
                }
                Err(TrySendError::Closed(_)) => return Err(End::Stopped),
            }
        }
        Ok(())
    }

    /// Sends everything in the outbox and then `event`, waiting for room; false when that took longer than `limit`.
    pub(super) fn deliver(&mut self, event: SourceEvent, limit: Duration) -> bool {
        self.outbox.push_back(event);
        let deadline = Instant::now() + limit;
        while let Some(event) = self.outbox.pop_front() {
            let wait = deadline.saturating_duration_since(Instant::now());
            // The permit comes first: an event must not be lost with a send that is given up.
            let sender = self.flow.events.clone();
            match self.runtime.block_on(async { tokio::time::timeout(wait, sender.reserve()).await }) {
                Ok(Ok(permit)) => permit.send(event),
                Ok(Err(_)) => return false,
                Err(_) => {
                    self.outbox.push_front(event);
                    return false;
                }
            }
        }
        true
    }

    /// Keeps the bytes on the way within the budget. False: look again instead of polling.
    fn within_budget(&mut self) -> bool {
        let used = self.flow.budget.used() + self.pending_bytes;
        if self.paused {
            if used * 2 < self.flow.max_buffer_bytes {
                self.set_paused(false);
            }
            return true;
        }
        if used <= self.flow.max_buffer_bytes {
            self.over_budget_since = None;
            return true;
        }
        if self.pending_bytes > 0 {
            self.flush_all();
            return false;
        }
        let since = *self.over_budget_since.get_or_insert_with(Instant::now);
        if since.elapsed() < PAUSE_GRACE {
            thread::sleep(Duration::from_millis(1));
            return false;
        }
        self.over_budget_since = None;
        self.set_paused(true);
        true
    }

    fn set_paused(&mut self, paused: bool) {
        let list = list(self.partitions.iter().map(|partition| (&partition.key, Offset::Invalid)));
        let done = if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        match done {
            Ok(()) => tracing::debug!(paused, "kafka source"),
            // A partition that is being taken away cannot be paused, and need not be.
            Err(error) => tracing::debug!(%error, paused, "kafka source"),
        }
        self.paused = paused;
    }

    /// Pauses what was just started, if everything else is paused.
    pub(super) fn pause_again(&mut self) {
        if self.paused {
            self.set_paused(true);
        }
    }

    /// What is done by the clock.
    fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.oldest_pending.is_some_and(|since| now - since >= self.settings.batch_linger()) {
            self.flush_all();
        }
        if self.reposition_at.is_some_and(|at| now >= at) {
            self.reposition()?;
        }
        self.pursue(now);
        self.idle = false;
        if now >= self.check_at {
            self.check_at = now + self.settings.check_interval();
            self.commit_hints();
            self.tell_lag();
            self.describe_topics();
        }
        self.compare_topics()
    }

    fn trouble(&mut self, error: &KafkaError) -> Result<(), End> {
        use RDKafkaErrorCode as Code;
        match error {
            KafkaError::MessageConsumptionFatal(code) => {
                let reason = self.consumer.client().fatal_error().map(|(_, reason)| reason).unwrap_or_default();
                Err(End::Failed(IngestError::Fatal(format!("kafka consumer: {code}: {reason}"))))
            }
            KafkaError::MessageConsumption(Code::AutoOffsetReset) => {
                self.reposition_at = Some(Instant::now());
                self.idle = true;
                Ok(())
            }
            KafkaError::MessageConsumption(
                Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownTopicId,
            ) => {
                self.check_at = Instant::now();
                self.idle = true;
                Ok(())
            }
            KafkaError::MessageConsumption(
                code @ (Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed),
            ) => Err(End::Failed(IngestError::Usage(format!(
                "group {} may not read at {}: {code}",
                self.settings.group, self.settings.brokers
            )))),
            // Everything else librdkafka retries by itself, and its context has told of it.
            error => {
                tracing::debug!(%error, "kafka consumer");
                Ok(())
            }
        }
    }
}

/// A list for librdkafka.
pub(super) fn list<'k>(entries: impl Iterator<Item = (&'k TopicPartition, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (key, offset) in entries {
        let mut element = list.add_partition(&key.topic, key.partition);
        // Only a negative offset fails, and then the entry stays without one, which librdkafka refuses.
        if let Err(error) = element.set_offset(offset) {
            tracing::error!(partition = %key, ?offset, %error, "offset");
        }
    }
    list
}

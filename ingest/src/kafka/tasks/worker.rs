//! A member of the group: a consumer on a thread of its own, and the handle through which its tasks are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::ledger::Ledger;
use super::reading::{Positions, bounds, committed, is_unknown, list, partitions};
use super::{Task, TaskSettings};
use crate::error::{IngestError, Result};
use crate::kafka::context::{ConsumerSide, Rebalance};

/// Longest poll: how soon a stop is noticed, and tasks that are done are committed.
const POLL: Duration = Duration::from_millis(50);
/// How long a question about positions may hold up the thread.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How often in a row the cluster must not know the topic before it counts as gone.
const MISSING_LIMIT: u32 = 5;

/// How far the whole group is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records of the topic: tasks, and one for each time that they were published.
    pub tasks: u64,
    /// Of these, before the positions that the group has committed.
    pub done: u64,
}

/// What the handle and the thread share.
#[derive(Debug, Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    progress: Mutex<Progress>,
    /// How it ended: with everything done, or with an error.
    end: Mutex<Option<Result<()>>>,
    changed: Notify,
    stop: AtomicBool,
}

impl Shared {
    fn end(&self, end: Result<()>) {
        self.end.lock().get_or_insert(end);
        self.changed.notify_waiters();
    }
}

/// A member of the group. Dropping it leaves the group without waiting.
#[derive(Debug)]
pub struct TaskWorker {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl TaskWorker {
    /// Joins the group. What goes wrong later comes out of [`next`](Self::next).
    ///
    /// # Errors
    /// [`IngestError::Usage`] for settings that are out of range or that librdkafka refuses.
    pub fn join(settings: &TaskSettings) -> Result<TaskWorker> {
        settings.validate()?;
        let consumer: BaseConsumer<ConsumerSide> = settings
            .consumer_config()
            .create_with_context(ConsumerSide::default())
            .map_err(|e| IngestError::Usage(format!("kafka settings: {e}")))?;
        let shared = Arc::new(Shared::default());
        let (settings, for_thread) = (settings.clone(), shared.clone());
        let thread = thread::Builder::new()
            .name("kafka-tasks".into())
            .spawn(move || {
                let mut member = Member::new(&consumer, &settings, &for_thread);
                let ended = member.work();
                member.commit();
                for_thread.end(ended);
                consumer.context().close();
            })
            .map_err(|source| IngestError::Io { what: "starting the kafka thread".into(), source })?;
        Ok(TaskWorker { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The next task; nothing when the whole group has done every task. Waits meanwhile. May be called by many at once,
    /// and dropped while it waits.
    ///
    /// A task that is not told to be [done](Self::done) goes to another member once this one has left.
    ///
    /// # Errors
    /// [`IngestError::Usage`] when this member may not read, or the topic is gone; [`IngestError::Fatal`] when the
    /// client broke off. A broker that does not answer is waited for.
    pub async fn next(&self) -> Result<Option<Task>> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // From here on nothing that happens is missed.
            changed.as_mut().enable();
            if let Some(task) = self.shared.ledger.lock().hand_out() {
                return Ok(Some(task));
            }
            match &*self.shared.end.lock() {
                Some(Ok(())) => return Ok(None),
                Some(Err(error)) => return Err(again(error)),
                None => {}
            }
            changed.await;
        }
    }

    /// A task is done, and what it made is durable.
    pub fn done(&self, task: &Task) {
        self.shared.ledger.lock().done(task);
    }

    /// How far the group was a moment ago.
    pub fn progress(&self) -> Progress {
        *self.shared.progress.lock()
    }

    /// Commits what is done and leaves the group: others get the rest at once.
    ///
    /// # Errors
    /// [`IngestError::Fatal`] when the thread panicked.
    pub async fn leave(&self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.lock().take() else { return Ok(()) };
        match tokio::task::spawn_blocking(move || thread.join()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(IngestError::Fatal("the kafka thread panicked; its message is in the log".into())),
        }
    }
}

impl Drop for TaskWorker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// An error for one more who asks.
fn again(error: &IngestError) -> IngestError {
    match error {
        IngestError::Usage(text) => IngestError::Usage(text.clone()),
        IngestError::Unavailable(text) => IngestError::Unavailable(text.clone()),
        other => IngestError::Fatal(other.to_string()),
    }
}

/// The consumer's loop and its state.
struct Member<'m> {
    consumer: &'m BaseConsumer<ConsumerSide>,
    settings: &'m TaskSettings,
    shared: &'m Shared,
    topic: String,
    paused: bool,
    commit_at: Instant,
    check_at: Instant,
    /// How often in a row the cluster did not know the topic: a new one takes a moment to be known to every broker.
    missing: u32,
}

impl<'m> Member<'m> {
    fn new(consumer: &'m BaseConsumer<ConsumerSide>, settings: &'m TaskSettings, shared: &'m Shared) -> Member<'m> {
        let now = Instant::now();
        let topic = settings.topic();
        Member { consumer, settings, shared, topic, paused: false, commit_at: now, check_at: now, missing: 0 }
    }

    /// Works until everything is done, the handle says stop, or it cannot go on.
    fn work(&mut self) -> Result<()> {
        self.consumer
            .subscribe(&[&self.topic])
            .map_err(|e| IngestError::Usage(format!("subscribing to {}: {e}", self.topic)))?;
        while !self.shared.stop.load(Ordering::Acquire) {
            self.stay_within_prefetch();
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) => self.trouble(&error)?,
                None => self.carry_out_rebalances()?,
            }
            let now = Instant::now();
            if now >= self.commit_at {
                self.commit_at = now + self.settings.commit_interval();
                self.commit();
            }
            if now >= self.check_at {
                self.check_at = now + self.settings.kafka.check_interval();
                if self.all_done()? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        self.consumer.context().noted.works();
        let (partition, offset) = (message.partition(), message.offset());
        let key = message.key().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
        let payload = serde_json::from_slice(message.payload().unwrap_or_default());
        let mut ledger = self.shared.ledger.lock();
        match payload {
            Ok(payload) if !key.is_empty() => {
                if ledger.add(Task { partition, offset, key: key.to_string(), payload }) {
                    drop(ledger);
                    self.shared.changed.notify_waiters();
                }
            }
            parsed => {
                // A record without a key is a plan.
                if let Err(error) = parsed {
                    tracing::warn!(topic = self.topic, partition, offset, %error, "no task; passed over");
                }
                ledger.pass((partition, offset));
            }
        }
    }

    /// Carries out what the group has decided.
    fn carry_out_rebalances(&mut self) -> Result<()> {
        while let Some(rebalance) = self.consumer.context().next_rebalance() {
            let done = match rebalance {
                Rebalance::Assign(added) => self.assign(&added),
                Rebalance::Revoke { partitions, lost } => self.revoke(&partitions, lost),
            };
            done.map_err(|e| IngestError::Unavailable(self.settings.unavailable("taking part in", &e)))?;
        }
        Ok(())
    }

    fn assign(&mut self, added: &TopicPartitionList) -> KafkaResult<()> {
        let numbers: Vec<i32> = added.elements().iter().map(|element| element.partition()).collect();
        let positions = if numbers.is_empty() {
            Default::default()
        } else {
            committed(self.consumer, &self.topic, &numbers, self.settings.kafka.admin_timeout())?
        };
        let start = |number: &i32| positions.get(number).map_or(Offset::Beginning, |offset| Offset::Offset(*offset));
        let started = list(&self.topic, numbers.iter().map(|number| (*number, start(number))))?;
        let mut ledger = self.shared.ledger.lock();
        numbers.iter().for_each(|number| ledger.assign(*number, positions.get(number).copied()));
        drop(ledger);
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&started)?,
            _ => self.consumer.assign(&started)?,
        }
        // What was paused when it was taken away comes back paused, and the other way round.
        self.set_paused(self.paused);
        tracing::info!(topic = self.topic, partitions = numbers.len(), "partitions of tasks assigned");
        Ok(())
    }

    fn revoke(&mut self, removed: &TopicPartitionList, lost: bool) -> KafkaResult<()> {
        if !lost {
            // Goes to the group before the request to join it again.
            self.commit();
        }
        let mut ledger = self.shared.ledger.lock();
        removed.elements().iter().for_each(|element| ledger.revoke(element.partition()));
        drop(ledger);
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_unassign(removed)?,
            _ => self.consumer.unassign()?,
        }
        tracing::info!(topic = self.topic, partitions = removed.count(), lost, "partitions of tasks revoked");
        Ok(())
    }

    /// Tells the group how far the tasks are done. Whether it took that is seen when it is next asked.
    fn commit(&self) {
        let positions = self.shared.ledger.lock().take_positions();
        if positions.is_empty() {
            return;
        }
        let sent = list(&self.topic, positions.iter().map(|(number, offset)| (*number, Offset::Offset(*offset))))
            .and_then(|offsets| self.consumer.commit(&offsets, CommitMode::Async));
        if let Err(error) = sent {
            tracing::debug!(%error, "committing tasks");
        }
    }

    /// Whether the group has done every task; notes how far it is.
    fn all_done(&mut self) -> Result<bool> {
        match self.ask_progress() {
            Ok(progress) => {
                self.missing = 0;
                *self.shared.progress.lock() = progress;
                Ok(progress.done == progress.tasks)
            }
            Err(error) if is_unknown(&error) => {
                self.missing += 1;
                if self.missing < MISSING_LIMIT {
                    return Ok(false);
                }
                Err(IngestError::Usage(format!("there are no tasks: {}", self.settings.unavailable("reading", &error))))
            }
            Err(error) => {
                tracing::debug!(%error, topic = self.topic, "asking how far the tasks are");
                Ok(false)
            }
        }
    }

    fn ask_progress(&self) -> KafkaResult<Progress> {
        let numbers = partitions(self.consumer, &self.topic, ASK_LIMIT)?;
        // In this order: a task published in between counts as open.
        let done = committed(self.consumer, &self.topic, &numbers, ASK_LIMIT)?;
        self.shared.ledger.lock().group_knows(&done);
        let firsts = bounds(self.consumer, &self.topic, &numbers, Offset::Beginning, ASK_LIMIT)?;
        let ends = bounds(self.consumer, &self.topic, &numbers, Offset::End, ASK_LIMIT)?;
        let mut progress = Progress::default();
        for number in numbers {
            let at = |positions: &Positions| positions.get(&number).copied().unwrap_or(0);
            let (first, end) = (at(&firsts), ends.get(&number).copied().ok_or(KafkaError::NoMessageReceived)?);
            // What retention removed will not be done any more.
            let reached = at(&done).clamp(first, end.max(first));
            progress.tasks += u64::try_from(end).unwrap_or(0);
            progress.done += u64::try_from(reached).unwrap_or(0);
        }
        Ok(progress)
    }

    /// Reads no further while enough tasks wait.
    fn stay_within_prefetch(&mut self) {
        let waiting = self.shared.ledger.lock().waiting();
        if !self.paused && waiting >= self.settings.prefetch_tasks {
            self.set_paused(true);
        } else if self.paused && waiting <= self.settings.prefetch_tasks / 2 {
            self.set_paused(false);
        }
    }

    fn set_paused(&mut self, paused: bool) {
        let numbers: Vec<i32> = self.shared.ledger.lock().partitions().collect();
        let changed = list(&self.topic, numbers.iter().map(|number| (*number, Offset::Invalid)))
            .and_then(|list| if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) });
        if let Err(error) = changed {
            // A partition that is being taken away cannot be paused, and need not be.
            tracing::debug!(%error, paused, "tasks");
        }
        self.paused = paused;
    }

    fn trouble(&self, error: &KafkaError) -> Result<()> {
        use RDKafkaErrorCode as Code;
        match error {
            KafkaError::MessageConsumptionFatal(code) => {
                let reason = self.consumer.client().fatal_error().map(|(_, reason)| reason).unwrap_or_default();
                Err(IngestError::Fatal(format!("kafka consumer: {code}: {reason}")))
            }
            KafkaError::MessageConsumption(
                code @ (Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed),
            ) => Err(IngestError::Usage(format!("group {} may not read: {code}", self.topic))),
            // Everything else librdkafka retries by itself, and its context has told of it.
            error => {
                tracing::debug!(%error, "tasks");
                Ok(())
            }
        }
    }
}

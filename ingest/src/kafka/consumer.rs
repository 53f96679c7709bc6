//! The Kafka source: a consumer on a thread of its own, spoken to over channels.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use rdkafka::consumer::BaseConsumer;
use tokio::sync::mpsc;
use webdancer_schemas::kind::Kind;

use super::context::ConsumerSide;
use super::session::{self, Session};
use super::settings::KafkaSettings;
use crate::error::{IngestError, Result};
use crate::source::{Budget, SourceEvent, TopicPartition};

/// What the handle and the thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stop: AtomicBool,
    hints: Mutex<HashMap<TopicPartition, i64>>,
}

impl Shared {
    /// Whether the thread is to end.
    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The offsets to commit since the last call.
    pub(super) fn take_hints(&self) -> HashMap<TopicPartition, i64> {
        std::mem::take(&mut *self.hints.lock())
    }
}

/// A running Kafka source. It sends [`SourceEvent`]s until it is stopped, fails, or the receiver is dropped; then it
/// leaves the group. Dropping the handle stops it without waiting.
#[derive(Debug)]
pub struct KafkaSource {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaSource {
    /// Starts reading the topics of `kinds` as a member of the group.
    ///
    /// Topics that do not exist are created first. Memory is bounded: beside `settings.prefetch_bytes`, reading pauses
    /// while `budget` has more than `max_buffer_bytes` in use. What goes wrong later comes as
    /// [`SourceEvent::Failed`], the last event.
    ///
    /// # Errors
    /// [`IngestError::Usage`] for settings that are out of range or that librdkafka refuses.
    pub fn start(
        settings: KafkaSettings,
        kinds: &[Kind],
        budget: Arc<Budget>,
        max_buffer_bytes: usize,
        events: mpsc::Sender<SourceEvent>,
    ) -> Result<KafkaSource> {
        settings.validate()?;
        if kinds.is_empty() {
            return Err(IngestError::Usage("no kinds to ingest".into()));
        }
        let consumer: BaseConsumer<ConsumerSide> = settings
            .consumer_config()
            .create_with_context(ConsumerSide::default())
            .map_err(|e| IngestError::Usage(format!("kafka settings: {e}")))?;
        let kinds = kinds.to_vec();
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        let thread = thread::Builder::new()
            .name("kafka-source".into())
            .spawn(move || {
                let flow = session::Flow { budget, max_buffer_bytes, events };
                Session::run(&consumer, &settings, &kinds, &for_thread, flow);
            })
            .map_err(|source| IngestError::Io { what: "starting the kafka thread".into(), source })?;
        Ok(KafkaSource { shared, thread: Some(thread) })
    }

    /// Asks the source to stop: it gives its partitions up as in a rebalance, leaves the group and ends.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// Whether the source has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end. Blocks; keep receiving events meanwhile, or drop the receiver.
    ///
    /// # Errors
    /// [`IngestError::Fatal`] when the thread panicked.
    pub fn join(mut self) -> Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(IngestError::Fatal("the kafka thread panicked; its message is in the log".into())),
            _ => Ok(()),
        }
    }

    /// Notes the offset of the next record of each partition for the group, for people who watch lag. Committed within
    /// [`check_interval_ms`](KafkaSettings::check_interval_ms); never used to decide where to start; errors are only
    /// logged; a smaller offset than before is ignored.
    pub fn commit_hint(&self, next: &[(TopicPartition, i64)]) {
        let mut hints = self.shared.hints.lock();
        for (partition, offset) in next {
            let hint = hints.entry(partition.clone()).or_insert(*offset);
            *hint = (*hint).max(*offset);
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.stop();
    }
}

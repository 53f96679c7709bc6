//! Appending to Kafka.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog, LogError};
use webdancer_schemas::wire;

use super::admin::Admin;
use super::context::{Batch, ProducerSide, Ticket, Undelivered};
use super::settings::KafkaSettings;
use crate::error::{IngestError, Result};

/// How long to wait when librdkafka's queue is full before trying again.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(2);
/// librdkafka reports every record by the delivery time-out; this much later its report counts as lost.
const REPORT_GRACE: Duration = Duration::from_secs(10);

type Producer = ThreadedProducer<ProducerSide>;

/// The event log in Kafka.
///
/// Producing is idempotent: a retry inside writes nothing twice and keeps the order of a key. An append that fails may
/// have been written in part; appending it again gives duplicates in the log, which the tables drop by event id.
pub struct KafkaLog {
    settings: KafkaSettings,
    producer: RwLock<Arc<Producer>>,
    /// Kinds whose topics are known to exist and to be large enough.
    ready: Mutex<HashSet<Kind>>,
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// A log at the brokers of `settings`; nothing is connected before the first append.
    ///
    /// # Errors
    /// [`IngestError::Usage`] for settings that are out of range or that librdkafka refuses.
    pub fn new(settings: KafkaSettings) -> Result<KafkaLog> {
        settings.validate()?;
        let producer = new_producer(&settings).map_err(|e| IngestError::Usage(format!("kafka settings: {e}")))?;
        Ok(KafkaLog { settings, producer: RwLock::new(producer), ready: Mutex::default() })
    }

    async fn ensure_topics(&self, events: &[Event]) -> Result<(), LogError> {
        let mut ready = self.ready.lock().await;
        let new: BTreeSet<Kind> = events.iter().map(Event::kind).filter(|kind| !ready.contains(kind)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let new: Vec<Kind> = new.into_iter().collect();
        let settings = self.settings.clone();
        let kinds = new.clone();
        tokio::task::spawn_blocking(move || Admin::new(&settings)?.ensure_topics(&kinds))
            .await
            .map_err(|e| LogError::Failed(format!("preparing topics: {e}")))?
            .map_err(|error| match error {
                IngestError::Unavailable(text) => LogError::Unavailable(text),
                other => LogError::Failed(other.to_string()),
            })?;
        ready.extend(new);
        Ok(())
    }

    /// Hands one event to librdkafka, waiting while its queue is full.
    async fn send(&self, producer: &Producer, event: &Event, ticket: Ticket) -> Result<(), RDKafkaErrorCode> {
        let topic = self.settings.topic(event.kind());
        let deadline = Instant::now() + self.settings.delivery_timeout() + REPORT_GRACE;
        let mut ticket = Box::new(ticket);
        loop {
            match enqueue(producer, &topic, event, ticket) {
                Ok(()) => return Ok(()),
                Err((RDKafkaErrorCode::QueueFull, refused)) if Instant::now() < deadline => ticket = refused,
                Err((code, _)) => return Err(code),
            }
            sleep(QUEUE_FULL_WAIT).await;
        }
    }

    /// What an undelivered record means to whoever appended it.
    async fn explain(&self, producer: &Arc<Producer>, events: &[Event], (code, index): Undelivered) -> LogError {
        let event = events.get(index);
        let topic = event.map(|event| self.settings.topic(event.kind())).unwrap_or_default();
        if let Some((code, reason)) = producer.client().fatal_error() {
            return self.replace(producer, code, &reason);
        }
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge => LogError::Failed(format!(
                "topic {topic} refused event {} as too large: raise its max.message.bytes to {}",
                event.map(|event| event.id().to_string()).unwrap_or_default(),
                event.map(|event| self.settings.max_message_bytes(event.kind())).unwrap_or_default()
            )),
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidRecord => LogError::Failed(format!("topic {topic}: {code}")),
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition => {
                self.ready.lock().await.clear();
                LogError::Unavailable(format!("topic {topic} is gone: {code}; append again to create it anew"))
            }
            _ => {
                let cause = producer.client().context().noted.last().map(|e| format!("; last error: {e}"));
                LogError::Unavailable(format!("{}: {code}{}", self.settings.brokers, cause.unwrap_or_default()))
            }
        }
    }

    /// A producer that lost track of its sequence refuses everything from then on: another one takes its place.
    fn replace(&self, failed: &Arc<Producer>, code: RDKafkaErrorCode, reason: &str) -> LogError {
        let mut current = self.producer.write();
        if Arc::ptr_eq(&current, failed) {
            match new_producer(&self.settings) {
                Ok(fresh) => {
                    tracing::warn!(%code, reason, "replaced the kafka producer");
                    let old = std::mem::replace(&mut *current, fresh);
                    // Dropping a producer blocks until its thread has ended.
                    thread::spawn(move || drop(old));
                }
                Err(error) => return LogError::Failed(format!("kafka producer: {reason}; making another: {error}")),
            }
        }
        LogError::Unavailable(format!("the kafka producer had to be replaced ({code}: {reason}); append again"))
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    async fn append(&self, events: Vec<Event>) -> Result<(), LogError> {
        if events.is_empty() {
            return Ok(());
        }
        for event in &events {
            let bytes = wire::size(event);
            let limit = self.settings.limit_of(event.kind());
            if bytes > limit {
                return Err(LogError::TooLarge { id: event.id().to_string(), bytes, limit });
            }
        }
        self.ensure_topics(&events).await?;
        let producer = self.producer.read().clone();
        let (batch, done) = Batch::new(events.len());
        for (index, event) in events.iter().enumerate() {
            if let Err(code) = self.send(&producer, event, Ticket { batch: batch.clone(), index }).await {
                // What follows must not overtake it.
                batch.report_many(events.len() - index, Some((code, index)));
                break;
            }
        }
        match timeout(self.settings.delivery_timeout() + REPORT_GRACE, done).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(undelivered))) => Err(self.explain(&producer, &events, undelivered).await),
            Ok(Err(_)) | Err(_) => Err(LogError::Unavailable(format!("{}: no delivery report", self.settings.brokers))),
        }
    }
}

fn new_producer(settings: &KafkaSettings) -> Result<Arc<Producer>, KafkaError> {
    settings.producer_config().create_with_context(ProducerSide::default()).map(Arc::new)
}

fn enqueue(
    producer: &Producer,
    topic: &str,
    event: &Event,
    ticket: Box<Ticket>,
) -> Result<(), (RDKafkaErrorCode, Box<Ticket>)> {
    let record =
        BaseRecord::with_opaque_to(topic, ticket).key(event.key()).payload(event.data.get()).headers(headers(event));
    producer.send(record).map_err(|(error, record)| {
        (error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown), record.delivery_opaque)
    })
}

/// The headers of the binary mode, the content type first: it decides how the rest is read.
fn headers(event: &Event) -> OwnedHeaders {
    let attributes = wire::attributes(&event.envelope);
    let capacity = attributes.len() + event.envelope.extensions.len() + 1;
    let mut headers =
        OwnedHeaders::new_with_capacity(capacity).insert(Header { key: "content-type", value: Some(wire::DATA) });
    let mut name = String::from("ce_");
    for (attribute, value) in &attributes {
        name.truncate(3);
        name.push_str(attribute);
        headers = headers.insert(Header { key: &name, value: Some(value.as_ref()) });
    }
    for (extension, json) in &event.envelope.extensions {
        name.truncate(3);
        name.push_str(extension);
        headers = headers.insert(Header { key: &name, value: Some(extension_text(json).as_ref()) });
    }
    headers
}

/// An extension's value as a header: a JSON string without its quotes, anything else as it is.
fn extension_text(json: &str) -> Cow<'_, str> {
    match serde_json::from_str::<String>(json) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(json),
    }
}

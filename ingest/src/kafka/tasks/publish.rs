//! Publishing tasks.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::reading::Topic;
use super::{NewTask, TaskSettings};
use crate::error::{IngestError, Result};
use crate::kafka::admin::Admin;
use crate::kafka::context::{Batch, ProducerSide, Ticket};

/// How long to wait when librdkafka's queue is full before trying again.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(2);
/// librdkafka reports every record by the delivery time-out; this much later its report counts as lost.
const REPORT_GRACE: Duration = Duration::from_secs(10);
/// The plan stands here: the last record of this partition tells whether a topic is complete.
const PLAN_PARTITION: i32 = 0;

/// What publishing came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Tasks written.
    pub added: u64,
    /// Tasks left out: tasks with their keys are in the topic, and not done yet.
    pub open: u64,
}

/// Writes `tasks` to their topic, which is made if it is not there, and then `plan`, which makes it complete.
///
/// Publishing again adds only tasks that are not waiting already, so that it may be cut off and repeated. A task whose
/// key was done before is published anew: the caller leaves out what need not be done again.
///
/// # Errors
/// [`IngestError::Usage`] for settings out of range, an empty key, a task that is too large, or a topic that may not
/// be made; [`IngestError::Unavailable`] when Kafka does not take them. Some may be written; publish again.
pub async fn publish(settings: &TaskSettings, plan: &RawValue, tasks: Vec<NewTask>) -> Result<Published> {
    settings.validate()?;
    check(settings, plan, &tasks)?;
    let (settings, plan) = (settings.clone(), plan.to_owned());
    let publishing = tokio::task::spawn_blocking(move || publish_blocking(&settings, &plan, tasks));
    publishing.await.map_err(|e| IngestError::Fatal(format!("publishing tasks: {e}")))?
}

fn check(settings: &TaskSettings, plan: &RawValue, tasks: &[NewTask]) -> Result<()> {
    let entries = tasks.iter().map(|task| (task.key.as_str(), &*task.payload));
    for (key, payload) in entries.chain([("plan", plan)]) {
        let (bytes, most) = (key.len() + payload.get().len(), settings.max_task_bytes);
        if key.is_empty() {
            return Err(IngestError::Usage("a task without a key cannot be told from others".into()));
        }
        if bytes > most {
            return Err(IngestError::Usage(format!("task {key} has {bytes} bytes; max_task_bytes is {most}")));
        }
    }
    Ok(())
}

fn publish_blocking(settings: &TaskSettings, plan: &RawValue, mut tasks: Vec<NewTask>) -> Result<Published> {
    ensure_topic(settings)?;
    let topic = Topic::open(settings)?;
    let partitions = topic.partitions()?;
    let open = topic.open_keys(&partitions)?;
    let offered = tasks.len();
    tasks.retain(|task| !open.contains(&task.key));
    let published = Published { added: tasks.len() as u64, open: (offered - tasks.len()) as u64 };
    let producer: ThreadedProducer<ProducerSide> = settings
        .producer_config()
        .create_with_context(ProducerSide::default())
        .map_err(|e| IngestError::Usage(format!("kafka settings: {e}")))?;
    // In turns: by a hash of its key, one of a few tasks may have a partition with many before it.
    let turns = partitions.iter().copied().cycle();
    let records = tasks.iter().zip(turns).map(|(task, partition)| (task.key.as_str(), &*task.payload, partition));
    deliver(settings, &producer, records.collect())?;
    deliver(settings, &producer, vec![("", plan, PLAN_PARTITION)])?;
    Ok(published)
}

fn ensure_topic(settings: &TaskSettings) -> Result<()> {
    let client = settings.client();
    let name = settings.topic();
    let largest = client.largest_message_bytes().to_string();
    let retention_ms = (u64::from(settings.retention_hours) * 3_600_000).to_string();
    let topic = NewTopic::new(&name, settings.partitions, TopicReplication::Fixed(client.replication))
        .set("max.message.bytes", &largest)
        .set("retention.ms", &retention_ms)
        .set("cleanup.policy", "delete");
    Admin::new(&client)?.ensure_topic(&topic)
}

/// Writes records and waits until all of them are acknowledged.
fn deliver(
    settings: &TaskSettings,
    producer: &ThreadedProducer<ProducerSide>,
    records: Vec<(&str, &RawValue, i32)>,
) -> Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let (count, topic) = (records.len(), settings.topic());
    let patience = settings.kafka.delivery_timeout() + REPORT_GRACE;
    let (batch, done) = Batch::new(count);
    for (index, (key, payload, partition)) in records.into_iter().enumerate() {
        let ticket = Box::new(Ticket { batch: batch.clone(), index });
        let mut record =
            BaseRecord::with_opaque_to(&topic, ticket).partition(partition).key(key).payload(payload.get());
        let deadline = Instant::now() + patience;
        let refused = loop {
            match producer.send(record) {
                Ok(()) => break None,
                Err((error, again)) if is_full(&error) && Instant::now() < deadline => record = again,
                Err((error, _)) => break Some(error),
            }
            thread::sleep(QUEUE_FULL_WAIT);
        };
        if let Some(error) = refused {
            return Err(undelivered(settings, producer, &error));
        }
    }
    match Handle::current().block_on(timeout(patience, done)) {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err((code, _)))) => Err(undelivered(settings, producer, &code)),
        Ok(Err(_)) | Err(_) => Err(undelivered(settings, producer, &"no delivery report")),
    }
}

fn is_full(error: &rdkafka::error::KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

fn undelivered(
    settings: &TaskSettings,
    producer: &ThreadedProducer<ProducerSide>,
    error: &dyn std::fmt::Display,
) -> IngestError {
    let cause = producer.client().context().noted.last().map(|e| format!("; last error: {e}")).unwrap_or_default();
    IngestError::Unavailable(format!("{}{cause}; publish again", settings.unavailable("writing tasks to", error)))
}

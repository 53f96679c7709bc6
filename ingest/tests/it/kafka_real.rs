//! Kafka against a real broker, for what the mock lacks. Needs `WEBDANCER_TEST_KAFKA=host:port`; without it the tests
//! pass without a word, or fail where `WEBDANCER_REQUIRE_KAFKA=1` says that there must be one.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;
use webdancer_ingest::error::IngestError;
use webdancer_ingest::kafka::{Admin, KafkaLog, KafkaSettings};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog as _, LogError};

use crate::kafka_support::{Told, Worker, metric, offsets, steps};

const ROOMY: usize = 64 << 20;

/// Settings with topics and a group of their own, or nothing where there is no broker.
fn settings() -> Option<KafkaSettings> {
    let Ok(brokers) = std::env::var("WEBDANCER_TEST_KAFKA") else {
        assert_ne!(std::env::var("WEBDANCER_REQUIRE_KAFKA").as_deref(), Ok("1"), "set WEBDANCER_TEST_KAFKA=host:port");
        return None;
    };
    let unique = Uuid::new_v4().simple().to_string();
    let mut settings = KafkaSettings::new(brokers);
    settings.topic_prefix = format!("t-{unique}.");
    settings.group = format!("g-{unique}");
    settings.partitions = 1;
    settings.session_timeout_ms = 3000;
    settings.check_interval_ms = 200;
    Some(settings)
}

fn admin(settings: &KafkaSettings) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &settings.brokers).create().unwrap()
}

async fn delete_topic(settings: &KafkaSettings) {
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    let topic = settings.topic(Kind::Metric);
    admin(settings).delete_topics(&[&topic], &options).await.unwrap()[0].as_ref().unwrap();
}

/// Deletes all records of partition 0 below `offset`.
async fn delete_records(settings: &KafkaSettings, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&settings.topic(Kind::Metric), 0, Offset::Offset(offset)).unwrap();
    let done = admin(settings).delete_records(&list, &AdminOptions::new()).await.unwrap();
    done.elements()[0].error().unwrap();
}

async fn topic_id(settings: &KafkaSettings) -> Option<i64> {
    let settings = settings.clone();
    let topic = settings.topic(Kind::Metric);
    tokio::task::spawn_blocking(move || Admin::new(&settings).unwrap().topic_ids(&[&topic]).unwrap().remove(&topic))
        .await
        .unwrap()
        .flatten()
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_on_first_use_and_take_the_largest_event() {
    let Some(mut settings) = settings() else { return };
    settings.partitions = 3;
    let log = KafkaLog::new(settings.clone()).unwrap();
    // Key, subject and name, and the rest of the envelope.
    let large = metric(&"x".repeat((16 << 20) / 3 - 200), 1);
    log.append(vec![large.clone()]).await.unwrap();
    let mut worker = Worker::start(&settings, ROOMY);
    let read = worker.until_caught_up().await;
    assert_eq!(worker.owned.len(), 3);
    assert_eq!(read.values().flatten().next().unwrap().payload, large.data.get().as_bytes());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_has_another_id_and_stops_the_source() {
    let Some(settings) = settings() else { return };
    let log = KafkaLog::new(settings.clone()).unwrap();
    log.append((0..5).map(|i| metric("m", i)).collect()).await.unwrap();
    let first = topic_id(&settings).await.unwrap();
    let mut worker = Worker::start(&settings, ROOMY);
    assert_eq!(steps(&worker.until_caught_up().await), [0, 1, 2, 3, 4]);
    assert_eq!(worker.ids, [Some(first)]);

    delete_topic(&settings).await;
    // More records than were read: by offsets alone nothing would be noticed.
    let again = KafkaLog::new(settings.clone()).unwrap();
    again.append((0..20).map(|i| metric("m", 100 + i)).collect()).await.unwrap();
    assert_ne!(topic_id(&settings).await.unwrap(), first);
    let error = worker.failure().await;
    let text = error.to_string();
    assert!(matches!(error, IngestError::Fatal(_)), "{text}");
    assert!(text.contains("--accept-new-topic") && text.contains(&settings.topic(Kind::Metric)), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_while_it_is_read_stops_the_source() {
    let Some(settings) = settings() else { return };
    let log = KafkaLog::new(settings.clone()).unwrap();
    log.append(vec![metric("m", 1)]).await.unwrap();
    let mut worker = Worker::start(&settings, ROOMY);
    assert_eq!(steps(&worker.until_caught_up().await), [1]);
    delete_topic(&settings).await;
    let error = worker.failure().await;
    assert!(matches!(&error, IngestError::Fatal(text) if text.contains("was deleted while")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_deleted_before_a_start_are_a_gap_with_exact_bounds() {
    let Some(settings) = settings() else { return };
    let log = KafkaLog::new(settings.clone()).unwrap();
    log.append((0..10).map(|i| metric("m", i)).collect()).await.unwrap();
    delete_records(&settings, 7).await;
    let mut worker = Worker::start(&settings, ROOMY).starting_at(0, 3);
    assert!(matches!(worker.next().await, Told::Gap(_, 3, 6)));
    assert_eq!(offsets(&worker.until_caught_up().await[&0]), [7, 8, 9]);
    worker.stop().await;

    // A table that never read the topic wants it from 0.
    let mut worker = Worker::start(&settings, ROOMY);
    assert!(matches!(worker.next().await, Told::Gap(_, 0, 6)));
    assert_eq!(offsets(&worker.until_caught_up().await[&0]), [7, 8, 9]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_deleted_while_reading_waits_are_a_gap_with_exact_bounds() {
    let Some(mut settings) = settings() else { return };
    settings.batch_records = 1;
    let log = KafkaLog::new(settings.clone()).unwrap();
    log.append((0..50).map(|i| metric("m", i)).collect()).await.unwrap();
    let mut worker = Worker::start(&settings, 2000);
    let mut held = Vec::new();
    let mut next = 0;
    // The budget is used up; a second later reading is paused and what was fetched ahead is dropped.
    while let Some(told) = worker.next_within(Duration::from_secs(if held.is_empty() { 20 } else { 1 })).await {
        let Told::Records(_, records, guard) = told else { panic!("not records") };
        next = records[0].offset + 1;
        held.push(guard);
    }
    assert!((2..20).contains(&next), "{next}");
    delete_records(&settings, 40).await;
    held.clear();
    let Told::Gap(_, from, to) = worker.next().await else { panic!("no gap") };
    assert_eq!((from, to), (next, 39));
    assert_eq!(offsets(&worker.until_caught_up().await[&0]), (40..50).collect::<Vec<i64>>());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_for_smaller_events_is_refused() {
    let Some(settings) = settings() else { return };
    let topic = settings.topic(Kind::Metric);
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "1000000");
    admin(&settings).create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();

    let expected = format!(
        "topic {topic} takes messages of at most 1000000 bytes, but log.max_event_bytes = 16777216 needs 16842752: raise \
         its max.message.bytes to 16842752 or lower log.max_event_bytes"
    );
    let error = Worker::start(&settings, ROOMY).failure().await;
    assert!(matches!(&error, IngestError::Usage(text) if *text == expected), "{error}");
    let error = KafkaLog::new(settings.clone()).unwrap().append(vec![metric("m", 1)]).await.unwrap_err();
    assert!(matches!(&error, LogError::Failed(text) if *text == expected), "{error}");
    let smaller = KafkaSettings { max_event_bytes: 500_000, ..settings };
    KafkaLog::new(smaller).unwrap().append(vec![metric("m", 1)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn markers_of_transactions_are_no_gap_and_do_not_keep_a_source_from_catching_up() {
    let Some(settings) = settings() else { return };
    KafkaLog::new(settings.clone()).unwrap().append(vec![metric("m", 0)]).await.unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &settings.brokers)
        .set("transactional.id", &settings.group)
        .create()
        .unwrap();
    let limit = Duration::from_secs(20);
    producer.init_transactions(limit).unwrap();
    let topic = settings.topic(Kind::Metric);
    for commit in [true, false] {
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::to(&topic).partition(0).key("k").payload("p")).map_err(|(e, _)| e).unwrap();
        producer.flush(limit).unwrap();
        if commit { producer.commit_transaction(limit) } else { producer.abort_transaction(limit) }.unwrap();
    }
    let mut worker = Worker::start(&settings, ROOMY);
    // 2 and 4 are markers, 3 was taken back.
    assert_eq!(offsets(&worker.until_caught_up().await[&0]), [0, 1]);
    worker.stop().await;
    // The position behind the markers is within the log.
    let mut worker = Worker::start(&settings, ROOMY).starting_at(0, 5);
    assert!(worker.until_caught_up().await.is_empty());
    worker.stop().await;
}

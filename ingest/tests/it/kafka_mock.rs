//! Kafka against librdkafka's mock cluster. What the mock lacks (creating and deleting topics, their settings, deleting
//! records) is tested against a real broker.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use webdancer_ingest::error::IngestError;
use webdancer_ingest::kafka::{Admin, KafkaLog, KafkaSettings};
use webdancer_ingest::source::{SourceEvent, Start, TopicPartition};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog as _, LogError};

use crate::kafka_support::{Told, Worker, metric, offsets, step, steps};

const TOPIC: &str = "webdancer.metric";
const ROOMY: usize = 64 << 20;

/// A cluster of one broker, living in a client.
pub(crate) struct Cluster {
    client: BaseProducer,
}

impl Cluster {
    pub(crate) fn mock(&self) -> MockCluster<'_, DefaultProducerContext> {
        self.client.client().mock_cluster().unwrap()
    }
}

/// A new group waits this long for further members; the mock's default of 3 s would be most of the time of each test.
#[allow(unsafe_code)]
fn form_groups_at_once(client: &BaseProducer) {
    // SAFETY: the client was made with a mock cluster, which lives as long as the client; the call sets an integer.
    unsafe {
        let mock = rdkafka_sys::rd_kafka_handle_mock_cluster(client.client().native_ptr());
        rdkafka_sys::rd_kafka_mock_group_initial_rebalance_delay_ms(mock, 0);
    }
}

pub(crate) fn cluster(partitions: i32) -> (Cluster, KafkaSettings) {
    let client = ClientConfig::new().set("test.mock.num.brokers", "1").create().unwrap();
    form_groups_at_once(&client);
    let cluster = Cluster { client };
    cluster.mock().create_topic(TOPIC, partitions, 1).unwrap();
    let mut settings = KafkaSettings::new(cluster.mock().bootstrap_servers());
    settings.max_event_bytes = 1 << 20;
    settings.session_timeout_ms = 3000;
    settings.check_interval_ms = 200;
    // The mock answers a fetch that finds nothing only when this is over.
    settings.extra.insert("fetch.wait.max.ms".into(), "20".into());
    settings.extra.insert("reconnect.backoff.max.ms".into(), "200".into());
    (cluster, settings)
}

/// Puts a message into the topic that is not one of ours.
fn produce_raw(settings: &KafkaSettings, headers: &[(&str, &str)], payload: Option<&str>) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &settings.brokers).create().unwrap();
    let headers =
        headers.iter().fold(OwnedHeaders::new(), |list, (key, value)| list.insert(Header { key, value: Some(*value) }));
    let mut record = BaseRecord::to(TOPIC).partition(0).key("raw-key").headers(headers);
    record.payload = payload;
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_comes_back_with_every_attribute() {
    let (_cluster, settings) = cluster(1);
    let mut sent = metric("loss", 7).with_run("run-1").with_parents(vec!["a".into(), "b".into()]);
    sent.envelope.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    sent.envelope.extensions = vec![("team".into(), "\"nlp \\u00e9\"".into())];
    KafkaLog::new(settings.clone()).unwrap().append(vec![sent.clone()]).await.unwrap();

    let mut worker = Worker::start(&settings, ROOMY);
    let read = worker.until_caught_up().await;
    let record = &read[&0][0];
    let mut expected = sent.envelope.clone();
    expected.extensions = vec![("team".into(), "\"nlp é\"".into())];
    assert_eq!(record.envelope, Ok(expected));
    assert_eq!(record.payload, sent.data.get().as_bytes());
    assert_eq!(record.offset, 0);
    assert!(record.timestamp_ms > 1_700_000_000_000);
    assert!(matches!(worker.ids[..], [Some(1..)]), "{:?}", worker.ids);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_events_come_as_rejections() {
    let (_cluster, settings) = cluster(1);
    let page = r#"{"specversion":"1.0","id":"1","source":"s","type":"webdancer.page.v1","data":{}}"#;
    let good = r#"{"specversion":"1.0","id":"2","source":"s","type":"webdancer.metric.v1","data":{"step":3}}"#;
    let structured = ("content-type", "application/cloudevents+json");
    produce_raw(&settings, &[], Some("hello"));
    produce_raw(&settings, &[("ce_specversion", "1.0")], None);
    produce_raw(&settings, &[structured], Some(page));
    produce_raw(&settings, &[structured], Some(good));

    let mut worker = Worker::start(&settings, ROOMY);
    let read = worker.until_caught_up().await;
    let fields: Vec<_> = read[&0]
        .iter()
        .map(|r| r.envelope.as_ref().map_or_else(|e| e.field.as_deref().unwrap_or(""), |_| "ok"))
        .collect();
    assert_eq!(fields, ["specversion", "data", "type", "ok"]);
    assert_eq!(read[&0][0].payload, r#"{"subject":"raw-key","data_base64":"aGVsbG8="}"#.as_bytes());
    assert_eq!(read[&0][2].payload, page.as_bytes());
    assert_eq!(read[&0][3].payload, br#"{"step":3}"#.as_slice());
    assert_eq!(read[&0][3].envelope.as_ref().unwrap().subject.as_deref(), Some("raw-key"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_key_keep_their_order() {
    let (_cluster, settings) = cluster(4);
    let log = KafkaLog::new(settings.clone()).unwrap();
    for round in 0..10 {
        let events = (0..100).map(|i| metric(&format!("key-{}", i % 20), round * 100 + i)).collect();
        log.append(events).await.unwrap();
    }
    let mut worker = Worker::start(&settings, ROOMY);
    let read = worker.until_caught_up().await;
    assert_eq!(read.len(), 4, "every partition has some of 20 keys");
    let mut by_key: HashMap<String, Vec<i64>> = HashMap::new();
    for records in read.values() {
        let expected: Vec<i64> = (0..records.len() as i64).collect();
        assert_eq!(offsets(records), expected);
        for record in records {
            let key = record.envelope.as_ref().unwrap().subject.clone().unwrap();
            by_key.entry(key).or_default().push(step(record));
        }
    }
    assert_eq!(by_key.len(), 20);
    for (key, steps) in by_key {
        assert_eq!(steps.len(), 50, "{key}");
        assert!(steps.is_sorted(), "{key}: {steps:?}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_produce_that_the_broker_refuses_for_now_is_delivered_once() {
    let (cluster, settings) = cluster(1);
    cluster.mock().request_errors(
        RDKafkaApiKey::Produce,
        &[
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        ],
    );
    let log = KafkaLog::new(settings.clone()).unwrap();
    log.append((0..50).map(|i| metric("m", i)).collect()).await.unwrap();
    let mut worker = Worker::start(&settings, ROOMY);
    assert_eq!(steps(&worker.until_caught_up().await), (0..50).collect::<Vec<i64>>());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_lost_its_sequence_is_replaced() {
    let (cluster, settings) = cluster(1);
    let log = KafkaLog::new(settings.clone()).unwrap();
    log.append(vec![metric("m", 0)]).await.unwrap();
    cluster
        .mock()
        .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let events = vec![metric("m", 1)];
    let error = log.append(events.clone()).await.unwrap_err();
    assert!(matches!(&error, LogError::Unavailable(text) if text.contains("append again")), "{error}");
    log.append(events).await.unwrap();
    let mut worker = Worker::start(&settings, ROOMY);
    assert_eq!(steps(&worker.until_caught_up().await), [0, 1]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_with_everything_appended_beside_it() {
    let (_cluster, mut settings) = cluster(1);
    settings.max_event_bytes = 4096;
    let log = KafkaLog::new(settings.clone()).unwrap();
    let large = metric(&"n".repeat(5000), 1);
    let error = log.append(vec![metric("m", 0), large.clone()]).await.unwrap_err();
    let LogError::TooLarge { id, bytes, limit: 4096 } = error else { panic!("{error}") };
    assert_eq!(id, large.id().to_string());
    // The name is key, subject and part of the data.
    assert!((15_000..16_000).contains(&bytes), "{bytes}");
    log.append(vec![metric("m", 2)]).await.unwrap();
    let mut worker = Worker::start(&settings, ROOMY);
    assert_eq!(steps(&worker.until_caught_up().await), [2]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_fails_appends_in_bounded_time_and_sources_outlive_it() {
    let (cluster, mut settings) = cluster(1);
    settings.delivery_timeout_ms = 1000;
    let log = KafkaLog::new(settings.clone()).unwrap();
    log.append(vec![metric("m", 0)]).await.unwrap();
    let mut worker = Worker::start(&settings, ROOMY);
    assert_eq!(steps(&worker.until_caught_up().await), [0]);

    cluster.mock().broker_down(-1).unwrap();
    let error = log.append(vec![metric("m", 1)]).await.unwrap_err();
    assert!(matches!(error, LogError::Unavailable(_)), "{error}");
    cluster.mock().broker_up(-1).unwrap();
    let again = loop {
        // The first connection after the outage may still be waited for.
        match log.append(vec![metric("m", 2)]).await {
            Err(LogError::Unavailable(_)) => {}
            other => break other,
        }
    };
    again.unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&2) {
        seen.extend(worker.until_count(1).await.iter().map(step));
    }
    assert!(!seen.contains(&0), "read before the outage");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_a_limit_gives_up_when_brokers_are_silent_for_longer() {
    let (cluster, mut settings) = cluster(1);
    settings.silence_limit = Some(Duration::from_secs(1));
    let mut worker = Worker::start(&settings, ROOMY);
    worker.until_caught_up().await;
    cluster.mock().broker_down(-1).unwrap();
    let failed = loop {
        match worker.next().await {
            Told::Failed(error) => break error,
            _ => continue,
        }
    };
    assert!(matches!(failed, IngestError::Unavailable(_)), "{failed}");
    let expected = format!("no broker has answered for 1 s at {}; last error: ", settings.brokers);
    assert!(failed.to_string().starts_with(&expected), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_starts_where_the_tables_say() {
    let (_cluster, settings) = cluster(1);
    KafkaLog::new(settings.clone()).unwrap().append((0..10).map(|i| metric("m", i)).collect()).await.unwrap();
    let mut worker = Worker::start(&settings, ROOMY).starting_at(0, 6);
    let read = worker.until_caught_up().await;
    assert_eq!(offsets(&read[&0]), [6, 7, 8, 9]);
    // The group's offsets are a hint: they do not move the next start.
    let key = TopicPartition { topic: TOPIC.into(), partition: 0 };
    worker.source.commit_hint(&[(key, 10)]);
    worker.stop().await;
    let mut worker = Worker::start(&settings, ROOMY).starting_at(0, 8);
    assert_eq!(offsets(&worker.until_caught_up().await[&0]), [8, 9]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_the_position_is_another_log() {
    let (_cluster, settings) = cluster(1);
    KafkaLog::new(settings.clone()).unwrap().append((0..3).map(|i| metric("m", i)).collect()).await.unwrap();
    let error = Worker::start(&settings, ROOMY).starting_at(0, 4).failure().await;
    assert!(matches!(error, IngestError::Fatal(_)));
    assert_eq!(
        error.to_string(),
        "topic webdancer.metric was re-created or truncated: partition 0 was read up to 4, but it ends at 3; \
         `webdancer ingest --accept-new-topic webdancer.metric` accepts it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_removed_before_they_were_read_are_a_gap() {
    let (_cluster, mut settings) = cluster(1);
    settings.extra.insert("compression.type".into(), "none".into());
    let log = KafkaLog::new(settings.clone()).unwrap();
    // The mock keeps 5 MiB of a partition; the name is key, subject and part of the data.
    for i in 0..10 {
        log.append(vec![metric(&"n".repeat(300_000), i)]).await.unwrap();
    }
    // A table that never read the topic wants it from 0.
    for (wanted, starts) in [(1, BTreeMap::from([(0, Start::At(1))])), (0, BTreeMap::new())] {
        let mut worker = Worker::start(&settings, ROOMY);
        worker.starts = starts;
        let Told::Gap(partition, from, to) = worker.next().await else { panic!("no gap from {wanted}") };
        assert_eq!((partition.to_string().as_str(), from), ("webdancer.metric/0", wanted));
        let read = worker.until_caught_up().await;
        assert_eq!(offsets(&read[&0]), (to + 1..10).collect::<Vec<i64>>());
        assert!(read[&0].len() > 2);
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn caught_up_is_told_again_after_new_records_and_not_without() {
    let (_cluster, settings) = cluster(2);
    let log = KafkaLog::new(settings.clone()).unwrap();
    let mut worker = Worker::start(&settings, ROOMY);
    assert!(worker.until_caught_up().await.is_empty());
    assert!(worker.next_within(Duration::from_millis(500)).await.is_none());
    log.append(vec![metric("m", 1)]).await.unwrap();
    assert_eq!(steps(&worker.until_caught_up().await), [1]);
    assert!(worker.next_within(Duration::from_millis(500)).await.is_none());
    assert_eq!(worker.ends.values().sum::<i64>(), 1, "{:?}", worker.ends);
    worker.stop().await;
}

/// A member of the group that reads nothing, and is dropped soon after its last poll, as one that was killed is.
fn member(settings: &KafkaSettings) -> BaseConsumer {
    let mut config = settings.consumer_config();
    config.set("session.timeout.ms", "1000").set("heartbeat.interval.ms", "300").set("max.poll.interval.ms", "1000");
    let member: BaseConsumer = config.create().unwrap();
    member.subscribe(&[TOPIC]).unwrap();
    member
}

fn poll_until_assigned(member: &BaseConsumer, partitions: usize) {
    let deadline = std::time::Instant::now() + Duration::from_secs(25);
    let assigned = || member.assignment().unwrap().count();
    while assigned() != partitions {
        assert!(std::time::Instant::now() < deadline, "{} partitions are assigned", assigned());
        drop(member.poll(Duration::from_millis(50)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_member_holds_is_waited_for_before_caught_up_is_told() {
    let (_cluster, settings) = cluster(4);
    let log = KafkaLog::new(settings.clone()).unwrap();
    log.append((0..200).map(|i| metric(&format!("k{i}"), i)).collect()).await.unwrap();
    let dying = member(&settings);
    poll_until_assigned(&dying, 4);

    let mut worker = Worker::start(&settings, ROOMY);
    let dead = tokio::task::spawn_blocking(move || {
        poll_until_assigned(&dying, 2);
        dying
    });
    let read = worker.until_caught_up().await;
    assert_eq!(read.values().map(Vec::len).sum::<usize>(), 200);
    worker.stop().await;
    drop(dead.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_waits_while_the_budget_is_used_up() {
    const MAX: usize = 64 << 10;
    let (_cluster, mut settings) = cluster(2);
    settings.batch_bytes = 16 << 10;
    let log = KafkaLog::new(settings.clone()).unwrap();
    let name = "n".repeat(400);
    log.append((0..500).map(|i| metric(&format!("{name}{i}"), i)).collect()).await.unwrap();

    let mut worker = Worker::start(&settings, MAX);
    let mut held = Vec::new();
    let mut read = BTreeSet::new();
    // Hold everything: the source fills the budget and stops, by pausing (it outlives the grace before that).
    while let Some(told) = worker.next_within(Duration::from_secs(if held.is_empty() { 20 } else { 1 })).await {
        let Told::Records(_, records, guard) = told else { continue };
        read.extend(records.iter().map(step));
        held.push(guard);
        assert!(worker.budget.used() <= MAX + settings.batch_bytes, "{}", worker.budget.used());
    }
    assert!(worker.budget.used() > MAX, "the source stopped early");
    assert!(read.len() < 500);
    // Let go: the rest comes, each record once.
    held.clear();
    while read.len() < 500 {
        let Told::Records(_, records, guard) = worker.next().await else { continue };
        assert!(worker.budget.used() <= MAX + settings.batch_bytes);
        for record in &records {
            assert!(read.insert(step(record)), "read twice");
        }
        drop(guard);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_come_while_reading_waits_are_read_once_it_goes_on() {
    const MAX: usize = 16 << 10;
    let (_cluster, mut settings) = cluster(4);
    settings.batch_bytes = 4 << 10;
    let mut other = Worker::start(&settings, ROOMY);
    let mut waiting = Worker::start(&settings, MAX);
    while (other.owned.len(), waiting.owned.len()) != (2, 2) {
        tokio::select! {
            _ = other.next_within(Duration::from_millis(100)) => {}
            _ = waiting.next_within(Duration::from_millis(100)) => {}
        }
    }
    let log = KafkaLog::new(settings.clone()).unwrap();
    log.append((0..400).map(|i| metric(&format!("k{i}"), i)).collect()).await.unwrap();
    // Long enough for the pause that follows its grace.
    let mut held = Vec::new();
    let mut read = Vec::new();
    while let Some(told) = waiting.next_within(Duration::from_secs(1)).await {
        if let Told::Records(_, records, guard) = told {
            read.extend(records);
            held.push(guard);
        }
    }
    assert!(waiting.budget.used() > MAX);
    let stopping = tokio::spawn(other.stop());
    while waiting.owned.len() < 4 {
        assert!(!matches!(waiting.next_within(Duration::from_millis(100)).await, Some(Told::Records(..))));
    }
    held.clear();
    while read.len() < 400 {
        if let Told::Records(_, records, _) = waiting.next().await {
            read.extend(records);
        }
    }
    let mut steps: Vec<i64> = read.iter().map(step).collect();
    steps.sort_unstable();
    assert_eq!(steps, (0..400).collect::<Vec<i64>>());
    stopping.await.unwrap();
    waiting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_cannot_say_where_to_start_ends_the_source() {
    let (_cluster, settings) = cluster(1);
    let mut worker = Worker::start(&settings, ROOMY);
    let SourceEvent::Assigned { reply, .. } = worker.raw().await else { panic!("no assignment") };
    drop(reply);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_and_cannot_be_made_is_named() {
    let (_cluster, settings) = cluster(1);
    let settings = KafkaSettings { topic_prefix: "other.".into(), admin_timeout_ms: 1000, ..settings };
    let error = Worker::start(&settings, ROOMY).failure().await;
    assert!(error.to_string().contains("other.metric"), "{error}");
    let error = KafkaLog::new(settings).unwrap().append(vec![metric("m", 1)]).await.unwrap_err();
    assert!(error.to_string().contains("other.metric"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_and_its_topics_have_ids() {
    let (_cluster, settings) = cluster(1);
    tokio::task::spawn_blocking(move || {
        let admin = Admin::new(&settings).unwrap();
        assert!(!admin.cluster_id().unwrap().is_empty());
        let ids = admin.topic_ids(&[TOPIC, "nowhere"]).unwrap();
        assert!(matches!(ids.into_iter().collect::<Vec<_>>()[..], [(_, Some(1..))]));
        admin.ensure_topics(&[Kind::Metric]).unwrap();
    })
    .await
    .unwrap();
}

/// Where each partition is, as tables would know it: shared by all workers.
#[derive(Default)]
struct Tables {
    next: BTreeMap<i32, i64>,
    steps: Vec<i64>,
    owners: BTreeMap<i32, usize>,
}

impl Tables {
    /// Commits records that follow on what is there.
    fn commit(&mut self, partition: i32, records: &[webdancer_ingest::source::Record]) {
        for record in records {
            let next = self.next.entry(partition).or_default();
            assert_eq!(record.offset, *next, "partition {partition}");
            *next += 1;
            self.steps.push(step(record));
        }
    }
}

/// Runs a worker over shared tables until `total` records are in them or it is stopped.
async fn work(number: usize, mut worker: Worker, tables: Arc<Mutex<Tables>>, stop: tokio::sync::oneshot::Receiver<()>) {
    let mut stop = Box::pin(stop);
    loop {
        let event = tokio::select! {
            event = worker.raw() => event,
            _ = &mut stop => break,
        };
        let mut tables = tables.lock().unwrap();
        match event {
            SourceEvent::Assigned { partitions, reply } => {
                let start =
                    |key: &TopicPartition| tables.next.get(&key.partition).map_or(Start::Beginning, |n| Start::At(*n));
                reply.send(partitions.iter().map(|(key, _)| (key.clone(), start(key))).collect()).unwrap();
                for (key, _) in partitions {
                    assert_eq!(tables.owners.insert(key.partition, number), None, "{key} has two owners");
                }
            }
            SourceEvent::Revoked { partitions, done } => {
                for key in partitions {
                    assert_eq!(tables.owners.remove(&key.partition), Some(number));
                }
                done.send(()).unwrap();
            }
            SourceEvent::Records { partition, records, .. } => {
                assert_eq!(tables.owners.get(&partition.partition), Some(&number), "{partition} is not ours");
                tables.commit(partition.partition, &records);
            }
            SourceEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    // What is still under way belongs to nobody: it is not committed.
    {
        let mut tables = tables.lock().unwrap();
        tables.owners.retain(|_, owner| *owner != number);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_partitions_and_every_record_is_committed_once() {
    let (_cluster, settings) = cluster(4);
    let log = KafkaLog::new(settings.clone()).unwrap();
    let tables = Arc::new(Mutex::new(Tables::default()));
    let committed = || tables.lock().unwrap().steps.len();
    let owners = || tables.lock().unwrap().owners.values().copied().collect::<Vec<usize>>();
    let mut produced = 0;
    let start = |number: usize| {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let worker = Worker::start(&settings, ROOMY);
        (stop, tokio::spawn(work(number, worker, tables.clone(), stopped)))
    };
    let (stop_one, one) = start(1);
    let mut two = None;
    let mut stop_one = Some(stop_one);
    let deadline = std::time::Instant::now() + Duration::from_secs(25);
    // Records keep coming while the group changes: one worker, then two, then the second alone.
    loop {
        assert!(
            std::time::Instant::now() < deadline,
            "{produced} produced, {} committed, owners {:?}",
            committed(),
            owners()
        );
        log.append((produced..produced + 20).map(|i| metric(&format!("k{i}"), i)).collect()).await.unwrap();
        produced += 20;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut present = owners();
        present.sort_unstable();
        match (&two, &stop_one) {
            (None, _) if present == [1, 1, 1, 1] && committed() > 100 => two = Some(start(2)),
            (Some(_), Some(_)) if present == [1, 1, 2, 2] => drop(stop_one.take().map(|stop| stop.send(()))),
            (Some(_), None) if present == [2, 2, 2, 2] => break,
            _ => {}
        }
    }
    while committed() < produced as usize {
        assert!(std::time::Instant::now() < deadline, "{produced} produced, {} committed", committed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (stop_two, two) = two.unwrap();
    stop_two.send(()).unwrap();
    one.await.unwrap();
    two.await.unwrap();
    let mut steps = std::mem::take(&mut tables.lock().unwrap().steps);
    steps.sort_unstable();
    assert_eq!(steps, (0..produced).collect::<Vec<i64>>());
}

//! Tasks shared out by Kafka: against librdkafka's mock cluster, and topics against a real broker. Members that are
//! killed are tested as processes, in the suites that span crates.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::value::RawValue;
use tokio::time::timeout;
use uuid::Uuid;
use webdancer_ingest::error::IngestError;
use webdancer_ingest::kafka::KafkaSettings;
use webdancer_ingest::kafka::tasks::{NewTask, Published, Task, TaskSettings, TaskWorker, publish, read_plan};

use crate::kafka_mock::{Cluster, cluster};

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(25);

/// A mock cluster with a topic of tasks.
fn tasks(partitions: i32) -> (Cluster, TaskSettings) {
    let (cluster, kafka) = cluster(1);
    let mut settings = TaskSettings::new(kafka, "run-1");
    settings.commit_interval_ms = 20;
    settings.kafka.check_interval_ms = 50;
    cluster.mock().create_topic(&settings.topic(), partitions, 1).unwrap();
    (cluster, settings)
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_string()).unwrap()
}

fn numbered(numbers: std::ops::Range<i32>) -> Vec<NewTask> {
    numbers.map(|n| NewTask { key: format!("k{n}"), payload: raw(&format!("{{\"n\":{n}}}")) }).collect()
}

async fn published(settings: &TaskSettings, numbers: std::ops::Range<i32>) -> Published {
    publish(settings, &raw("{\"plan\":1}"), numbered(numbers)).await.unwrap()
}

async fn next(worker: &TaskWorker) -> Option<Task> {
    timeout(PATIENCE, worker.next()).await.expect("no task comes").unwrap()
}

/// Takes and does everything; the keys in order of their names.
async fn do_all(worker: &TaskWorker) -> Vec<String> {
    let mut keys = Vec::new();
    while let Some(task) = next(worker).await {
        worker.done(&task);
        keys.push(task.key);
    }
    keys.sort();
    keys
}

fn keys(numbers: std::ops::Range<i32>) -> Vec<String> {
    let mut keys: Vec<String> = numbers.map(|n| format!("k{n}")).collect();
    keys.sort();
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_is_handed_out_once_and_then_there_are_no_more() {
    let (_cluster, mut settings) = tasks(4);
    // Fewer than there are: reading stops and goes on.
    settings.prefetch_tasks = 3;
    assert_eq!(published(&settings, 0..100).await, Published { added: 100, open: 0 });
    let worker = TaskWorker::join(&settings).unwrap();
    let first = next(&worker).await.unwrap();
    assert_eq!(first.payload.get(), format!("{{\"n\":{}}}", &first.key[1..]));
    worker.done(&first);
    let mut all = do_all(&worker).await;
    all.push(first.key);
    all.sort();
    assert_eq!(all, keys(0..100));
    // The record of the plan counts.
    assert_eq!((worker.progress().tasks, worker.progress().done), (101, 101));
    worker.leave().await.unwrap();
    let late = TaskWorker::join(&settings).unwrap();
    assert!(next(&late).await.is_none());
    late.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_tasks_waits_for_those_of_one_that_leaves() {
    let (_cluster, settings) = tasks(1);
    published(&settings, 0..3).await;
    let one = TaskWorker::join(&settings).unwrap();
    let first = next(&one).await.unwrap();
    let second = next(&one).await.unwrap();
    // Only the second is done: the first stands before it.
    one.done(&second);
    let two = TaskWorker::join(&settings).unwrap();
    assert!(timeout(Duration::from_millis(500), two.next()).await.is_err(), "all tasks belong to the other member");
    one.leave().await.unwrap();
    assert_eq!(first.key, "k0");
    assert_eq!(do_all(&two).await, keys(0..3));
    two.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_before_leaving_is_not_done_again() {
    let (_cluster, settings) = tasks(1);
    published(&settings, 0..5).await;
    let one = TaskWorker::join(&settings).unwrap();
    let taken = [next(&one).await.unwrap(), next(&one).await.unwrap(), next(&one).await.unwrap()];
    one.done(&taken[1]);
    one.done(&taken[0]);
    one.leave().await.unwrap();
    let two = TaskWorker::join(&settings).unwrap();
    assert_eq!(do_all(&two).await, keys(2..5));
    two.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_the_group_refuses_are_committed_again() {
    let (cluster, settings) = tasks(1);
    published(&settings, 0..2).await;
    let worker = TaskWorker::join(&settings).unwrap();
    let first = next(&worker).await.unwrap();
    let refusals = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS; 3];
    cluster.mock().request_errors(RDKafkaApiKey::OffsetCommit, &refusals);
    worker.done(&first);
    assert_eq!(do_all(&worker).await, keys(1..2));
    worker.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_again_adds_only_what_is_not_waiting() {
    let (_cluster, settings) = tasks(3);
    published(&settings, 0..10).await;
    assert_eq!(published(&settings, 5..12).await, Published { added: 2, open: 5 });
    let worker = TaskWorker::join(&settings).unwrap();
    assert_eq!(do_all(&worker).await, keys(0..12));
    worker.leave().await.unwrap();
    // What was done is not waiting: whoever publishes it wants it anew.
    assert_eq!(published(&settings, 11..13).await, Published { added: 2, open: 0 });
    let worker = TaskWorker::join(&settings).unwrap();
    assert_eq!(do_all(&worker).await, keys(11..13));
    worker.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_stands_behind_the_tasks_it_belongs_to() {
    let (_cluster, settings) = tasks(2);
    let error = read_plan(&settings, Duration::ZERO).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "topic webdancer.tasks.run-1 is not complete: whoever publishes these tasks has not finished"
    );
    published(&settings, 0..3).await;
    assert_eq!(read_plan(&settings, Duration::ZERO).await.unwrap().get(), "{\"plan\":1}");
    // A task behind the plan: somebody publishes again, and has not finished.
    send(&settings, Some("k9"), "{}");
    assert!(read_plan(&settings, Duration::ZERO).await.unwrap_err().to_string().contains("not complete"));
    let nowhere = TaskSettings { name: "nowhere".into(), ..settings };
    assert!(read_plan(&nowhere, Duration::ZERO).await.unwrap_err().to_string().contains("not complete"));
}

/// Puts a message into partition 0.
fn send(settings: &TaskSettings, key: Option<&str>, payload: &str) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &settings.kafka.brokers).create().unwrap();
    let topic = settings.topic();
    let mut record = BaseRecord::to(&topic).partition(0).payload(payload);
    record.key = key;
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_tasks_are_passed_over() {
    let (_cluster, settings) = tasks(1);
    send(&settings, Some("k"), "{\"n\":");
    send(&settings, None, "1");
    published(&settings, 0..1).await;
    let worker = TaskWorker::join(&settings).unwrap();
    assert_eq!(do_all(&worker).await, ["k0"]);
    worker.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_without_a_key_or_too_large_are_refused() {
    let (_cluster, mut settings) = tasks(1);
    settings.max_task_bytes = 1024;
    let refused = |key: &str, payload: String| {
        let (settings, task) = (settings.clone(), NewTask { key: key.into(), payload: raw(&payload) });
        async move { publish(&settings, &raw("1"), vec![task]).await.unwrap_err().to_string() }
    };
    assert_eq!(refused("", "1".into()).await, "a task without a key cannot be told from others");
    let long = format!("\"{}\"", "x".repeat(1100));
    assert_eq!(refused("k", long).await, "task k has 1103 bytes; max_task_bytes is 1024");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_gone_is_told() {
    let (_cluster, settings) = tasks(1);
    let nowhere = TaskSettings { name: "nowhere".into(), ..settings };
    let worker = TaskWorker::join(&nowhere).unwrap();
    let error = timeout(PATIENCE, worker.next()).await.unwrap().unwrap_err();
    assert!(matches!(&error, IngestError::Usage(text) if text.contains("webdancer.tasks.nowhere")), "{error}");
}

/// What members do, watched from outside.
#[derive(Default)]
struct Watch {
    /// Keys by member that has them now.
    working: BTreeSet<(usize, String)>,
    done: BTreeMap<String, u32>,
}

/// Works until everything is done, or until it has done `most` tasks: then it leaves, one task of its in hand.
async fn work(settings: TaskSettings, member: usize, most: usize, watch: Arc<Mutex<Watch>>) {
    let worker = TaskWorker::join(&settings).unwrap();
    for number in 0.. {
        let Some(task) = next(&worker).await else { break };
        let fresh = watch.lock().unwrap().working.insert((member, task.key.clone()));
        assert!(fresh, "member {member} works on {} already", task.key);
        if number == most {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        worker.done(&task);
        let mut watch = watch.lock().unwrap();
        watch.working.remove(&(member, task.key.clone()));
        *watch.done.entry(task.key).or_default() += 1;
    }
    worker.leave().await.unwrap();
}

/// Members come and go until all of `count` tasks are done.
async fn come_and_go(settings: &TaskSettings, count: i32) {
    published(settings, 0..count).await;
    let watch = Arc::new(Mutex::new(Watch::default()));
    let start = |member, most| tokio::spawn(work(settings.clone(), member, most, watch.clone()));
    let mut members = vec![start(0, usize::MAX)];
    for member in 1..4 {
        let leaves = start(member, 5 * member);
        members.push(start(10 + member, usize::MAX));
        leaves.await.unwrap();
    }
    for member in members {
        member.await.unwrap();
    }
    let done = std::mem::take(&mut watch.lock().unwrap().done);
    assert_eq!(done.len(), count as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_all_done_while_members_come_and_go() {
    let (_cluster, mut settings) = tasks(6);
    settings.prefetch_tasks = 2;
    come_and_go(&settings, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_broker_makes_the_topic_and_shares_its_tasks() {
    let Ok(brokers) = std::env::var("WEBDANCER_TEST_KAFKA") else {
        assert_ne!(std::env::var("WEBDANCER_REQUIRE_KAFKA").as_deref(), Ok("1"), "set WEBDANCER_TEST_KAFKA=host:port");
        return;
    };
    let mut settings = TaskSettings::new(KafkaSettings::new(brokers), Uuid::new_v4().to_string());
    settings.kafka.session_timeout_ms = 3000;
    settings.kafka.check_interval_ms = 200;
    come_and_go(&settings, 300).await;
    assert_eq!(read_plan(&settings, Duration::ZERO).await.unwrap().get(), "{\"plan\":1}");
    assert_eq!(published(&settings, 299..301).await, Published { added: 2, open: 0 });
}

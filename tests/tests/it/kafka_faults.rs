//! Kafka, a real broker: topics made again, records removed before they were read, and messages that are no events.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::check::{Order, exactly_once};
use crate::harness::{LIMIT, Site, wait_for};
use crate::kafka::{broker, catch_up, config, worker};
use crate::producer::{Sent, events, lines};
use crate::servers::Server;

const ROWS: &str = "SELECT * FROM metrics ORDER BY name, step";
const OLD_ROWS: &str = "SELECT * FROM metrics WHERE step < 50 ORDER BY name, step";
const SECOND: Duration = Duration::from_secs(1);

fn client(server: &Server) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", server.address());
    client
}

fn admin(server: &Server) -> AdminClient<DefaultClientContext> {
    client(server).create().unwrap()
}

/// Deletes a topic and waits until it is gone.
fn delete_topic(server: &Server, topic: &str) {
    let admin = admin(server);
    let results = block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
    results.into_iter().for_each(|result| drop(result.unwrap()));
    wait_for("end of the topic", LIMIT, || {
        let metadata = admin.inner().fetch_metadata(None, SECOND * 10).unwrap();
        metadata.topics().iter().all(|known| known.name() != topic).then_some(())
    });
}

/// Removes what lies before `offset`.
fn delete_records(server: &Server, topic: &str, offset: i64) {
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    let options = AdminOptions::new().operation_timeout(Some(SECOND * 10));
    let result = block_on(admin(server).delete_records(&before, &options)).unwrap();
    assert_eq!(result.find_partition(topic, 0).unwrap().offset(), Offset::Offset(offset));
}

#[test]
fn a_topic_made_again_stops_the_worker_until_it_is_accepted() {
    let Some((server, _up)) = broker() else { return };
    let topic = "again.metric";
    let site = Site::new(&config(server, "again", 2, 1 << 20));
    let old = events("old", 0, 50);
    site.append(&lines(&old));
    catch_up(&site);
    let rows = site.sql(ROWS);
    assert_eq!(rows.len(), 50);

    delete_topic(server, topic);
    // Some of the old events come again: their producer never heard that they were taken.
    let new = events("new", 0, 30);
    site.append(&lines(&[&old[40..], &new].concat()));
    let refused = site.run(&["ingest", "--kinds", "metric", "--until-caught-up"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains(&format!("ingest --accept-new-topic {topic}`")), "{}", refused.stderr);
    assert!(site.sql(ROWS) == rows, "what is in the table stays as it is");

    site.ok(&["ingest", "--kinds", "metric", "--until-caught-up", "--accept-new-topic", topic]);
    assert_eq!(site.sql("SELECT * FROM metrics WHERE name = 'old' ORDER BY step"), rows);
    exactly_once(&site, &[old.as_slice(), &new].concat(), Order::Any);

    // Once accepted it is the topic.
    let more = events("more", 0, 10);
    site.append(&lines(&more));
    catch_up(&site);
    exactly_once(&site, &[old, new, more].concat(), Order::Any);
}

#[test]
fn a_topic_made_again_stops_a_running_worker() {
    let Some((server, _up)) = broker() else { return };
    let topic = "again-live.metric";
    let site = Site::new(&config(server, "again-live", 2, 1 << 20));
    let old = events("m", 0, 50);
    site.append(&lines(&old));
    let running = worker(&site);
    wait_for("a table", LIMIT, || (site.versions("metrics") > 0).then_some(()));
    wait_for("rows", LIMIT, || (site.number("SELECT count(*) FROM metrics") == 50).then_some(()));
    let rows = site.sql(ROWS);

    // The same key, hence the same partition, which soon holds more than the old one did: the client library itself
    // would read on in the midst of it.
    delete_topic(server, topic);
    let new = events("m", 50, 80);
    site.append(&lines(&new));
    let refused = running.finish(LIMIT);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains(&format!("ingest --accept-new-topic {topic}`")), "{}", refused.stderr);
    assert!(site.sql(OLD_ROWS) == rows, "what is in the table stays as it is");

    site.ok(&["ingest", "--kinds", "metric", "--until-caught-up", "--accept-new-topic", topic]);
    assert!(site.sql(OLD_ROWS) == rows, "what is in the table stays as it is");
    exactly_once(&site, &[old, new].concat(), Order::Any);
}

#[test]
fn records_removed_before_they_were_read_are_a_recorded_gap() {
    let Some((server, _up)) = broker() else { return };
    let topic = "retention.metric";
    let site = Site::new(&config(server, "retention", 1, 1 << 20));
    let all = events("m", 0, 60);
    site.append(&lines(&all[..20]));
    catch_up(&site);
    site.append(&lines(&all[20..50]));
    delete_records(server, topic, 35);
    site.append(&lines(&all[50..]));
    let gaps = "SELECT topic, partition, from_offset, to_offset FROM gaps";
    for _ in 0..2 {
        catch_up(&site);
        let kept = [&all[..20], &all[35..]].concat();
        exactly_once(&site, &kept, Order::Any);
        let expected = json!({"topic": topic, "partition": 0, "from_offset": 20, "to_offset": 34});
        assert_eq!(site.sql(gaps), [expected], "one gap, however often the log is read");
    }
}

/// A message in the binary mode of CloudEvents, headers by name.
fn send(server: &Server, topic: &str, headers: &[(&str, &str)], value: Option<&[u8]>) {
    let producer: BaseProducer = client(server).create().unwrap();
    let mut list = OwnedHeaders::new().insert(Header { key: "content-type", value: Some("application/json") });
    for &(key, value) in headers {
        list = list.insert(Header { key, value: Some(value) });
    }
    let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(topic).key("k").headers(list);
    if let Some(value) = value {
        record = record.payload(value);
    }
    producer.send(record).unwrap();
    producer.flush(SECOND * 20).unwrap();
    assert_eq!(producer.in_flight_count(), 0);
}

fn headers<'a>(id: &'a str, event_type: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![("ce_specversion", "1.0"), ("ce_id", id), ("ce_source", "foreign"), ("ce_type", event_type)]
}

/// The dead letters' reasons by their offsets.
fn letters(site: &Site) -> BTreeMap<i64, String> {
    let rows = site.sql("SELECT origin_offset, field, reason FROM dead_letters WHERE state = 'rejected'");
    let reason = |row: &Value| format!("{}: {}", row["field"].as_str().unwrap_or("-"), row["reason"].as_str().unwrap());
    rows.iter().map(|row| (row["origin_offset"].as_i64().unwrap_or(-1), reason(row))).collect()
}

#[test]
fn messages_that_are_no_events_become_dead_letters_and_their_neighbours_arrive() {
    let Some((server, _up)) = broker() else { return };
    let topic = "broken.metric";
    let site = Site::new(&config(server, "broken", 1, 1 << 20));
    let good: Vec<Sent> = events("good", 0, 5);
    let metric = "webdancer.metric.v1";
    site.append(&lines(&good[..1]));
    send(server, topic, &headers("bad-json", metric), Some(b"{\"name\":\"x\",\"step\":1,"));
    site.append(&lines(&good[1..2]));
    send(server, topic, &headers("bad-kind", "webdancer.page.v1"), Some(b"{}"));
    site.append(&lines(&good[2..3]));
    let mut no_source = headers("no-source", metric);
    no_source.retain(|(name, _)| *name != "ce_source");
    send(server, topic, &no_source, Some(b"{\"name\":\"x\",\"step\":1,\"value\":1}"));
    site.append(&lines(&good[3..4]));
    send(server, topic, &headers("tombstone", metric), None);
    site.append(&lines(&good[4..]));
    send(server, topic, &headers("bad-type", metric), Some(b"{\"name\":\"x\",\"step\":\"one\",\"value\":1}"));
    catch_up(&site);
    exactly_once(&site, &good, Order::Kept);
    let letters = letters(&site);
    let offsets: Vec<i64> = letters.keys().copied().collect();
    assert_eq!(offsets, [1, 3, 5, 7, 9], "{letters:?}");
    let has = |offset: i64, words: &[&str]| {
        let reason = &letters[&offset];
        assert!(words.iter().all(|word| reason.contains(word)), "{offset}: {reason}");
    };
    has(1, &["EOF"]);
    has(3, &["type: ", "webdancer.page.v1", "webdancer.metric.v1"]);
    has(5, &["source: ", "missing"]);
    has(7, &["data: ", "no value"]);
    has(9, &["step"]);

    // Reading on adds none a second time.
    catch_up(&site);
    assert_eq!(self::letters(&site), letters);
}

#[test]
fn an_event_that_was_too_large_is_replayed_once_the_limit_is_raised() {
    let Some((server, _up)) = broker() else { return };
    let (small, large) = (2_000, 20_000);
    let site = Site::new(&config(server, "large", 1, small));
    let pad = "x".repeat(5_000);
    let data = json!({"name": "large", "step": 0, "value": 0.0, "pad": pad}).to_string();
    let neighbours = events("good", 0, 4);
    // One too large for the producer's limit, between neighbours that are not; the broker has it as a dead letter.
    let line = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"by-line\",\"source\":\"foreign\",\"type\":\"webdancer.metric.v1\",\"data\":{data}}}"
    );
    let mut offered = lines(&neighbours);
    offered.insert(2, line);
    let partly = site.try_append(&offered);
    assert_eq!(partly.status.code(), Some(3), "{partly:?}");
    assert_eq!(partly.stdout.lines().count(), 4, "{partly:?}");
    // One from a producer with another limit.
    send(server, "large.metric", &headers("by-topic", "webdancer.metric.v1"), Some(data.as_bytes()));
    let ingest = ["ingest", "--kinds", "metric,dead_letter", "--until-caught-up"];
    site.ok(&ingest);
    exactly_once(&site, &neighbours, Order::Any);
    let reasons: Vec<String> = letters(&site).into_values().collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons.iter().all(|reason| reason.contains("more than the 2000 that")), "{reasons:?}");

    let replay = || {
        let finished = site.run(&["dead-letters", "replay", "--json"]);
        (finished.status.code(), serde_json::from_str::<Value>(&finished.stdout).unwrap())
    };
    assert_eq!(replay(), (Some(3), json!({"replayed": 0, "still_rejected": 2})));

    site.configure(&config(server, "large", 1, large));
    let refused = site.run(&ingest);
    assert_eq!(refused.status.code(), Some(2), "a topic with the old limit is told of: {refused:?}");
    assert!(refused.stderr.contains("raise its max.message.bytes"), "{}", refused.stderr);
    let bytes = (large + (64 << 10)).to_string();
    let alter = AlterConfig::new(ResourceSpecifier::Topic("large.metric")).set("max.message.bytes", &bytes);
    block_on(admin(server).alter_configs(&[alter], &AdminOptions::new())).unwrap().into_iter().for_each(|result| {
        result.unwrap();
    });
    assert_eq!(replay(), (Some(0), json!({"replayed": 2, "still_rejected": 0})));
    for _ in 0..2 {
        site.ok(&ingest);
        let rows = site
            .sql("SELECT source_event_id, step, length(extra) AS size FROM metrics WHERE name = 'large' ORDER BY 1");
        let row = |id: &str| json!({"source_event_id": id, "step": 0, "size": pad.len() + "{\"pad\":\"\"}".len()});
        assert_eq!(rows, [row("by-line"), row("by-topic")]);
        // What is back is not brought back again.
        assert_eq!(replay(), (Some(0), json!({"replayed": 0, "still_rejected": 0})));
    }
}

//! The CloudEvents structured form and the Kafka binary binding.

use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::Metric;
use webdancer_schemas::wire::{attributes, key_in_data, parse_headers, parse_structured, structured};

const LOSS: &str = r#"{"specversion":"1.0","id":"0190a6b2-7c3d-7e4f-8a1b-2c3d4e5f6071","source":"t","type":"webdancer.metric.v1","time":"2026-01-02T03:04:05.123456789+01:00","subject":"loss","runid":"r1","parents":"a, b","myext":7,"data":{"name":"loss","step":1,"value":0.5}}"#;

fn rejected(text: &str) -> String {
    parse_structured(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn structured_attributes_are_read_and_time_is_utc_microseconds() {
    let (envelope, data) = parse_structured(LOSS.as_bytes()).unwrap();
    assert_eq!(envelope.kind, Kind::Metric);
    assert_eq!(envelope.time.unwrap().to_rfc3339(), "2026-01-02T02:04:05.123456+00:00");
    assert_eq!(envelope.parents, ["a", "b"]);
    assert_eq!(envelope.run_id.as_deref(), Some("r1"));
    assert_eq!(envelope.extensions, [("myext".to_string(), "7".to_string())]);
    assert_eq!(data.get(), r#"{"name":"loss","step":1,"value":0.5}"#);
}

#[test]
fn structured_round_trips() {
    let event = Event::new("test", &Metric { name: "lo\n\"ss".into(), step: 3, value: 0.25, unit: None })
        .unwrap()
        .with_run("r")
        .with_parents(vec!["p".into()]);
    let bytes = structured(&event);
    assert!(!bytes.contains(&b'\n'));
    let (envelope, data) = parse_structured(&bytes).unwrap();
    assert_eq!(envelope, event.envelope);
    assert_eq!(data.get(), event.data.get());
}

#[test]
fn headers_round_trip() {
    let event = Event::new("test", &Metric { name: "loss".into(), ..Metric::default() }).unwrap().with_run("r");
    let list: Vec<_> =
        attributes(&event.envelope).into_iter().map(|(k, v)| (format!("ce_{k}"), v.into_owned())).collect();
    let parsed = parse_headers(list.iter().map(|(k, v)| (k.as_str(), Some(v.as_bytes())))).unwrap();
    assert_eq!(parsed, event.envelope);
}

#[test]
fn each_fault_is_named() {
    assert_eq!(rejected(&LOSS.replace("\"source\":\"t\",", "")), "source: is required and missing");
    assert_eq!(rejected(&LOSS.replace("\"source\":\"t\"", "\"source\":\"\"")), "source: must not be empty");
    assert!(
        rejected(&LOSS.replace("metric.v1", "metrik.v1")).starts_with("type: unknown kind \"webdancer.metrik.v1\"")
    );
    assert!(rejected(&LOSS.replace("metric.v1", "metric.v2")).starts_with("type: unknown kind"));
    assert!(rejected(&LOSS.replace("\"1.0\"", "\"0.3\"")).starts_with("specversion: must be"));
    assert!(rejected(&LOSS.replace("2026-01-02T", "yesterday ")).starts_with("time: "));
    assert!(rejected(&LOSS.replace("\"source\":\"t\"", "\"source\":5")).contains("attribute source: invalid type"));
    assert!(rejected(&LOSS[..LOSS.len() - 9]).contains("EOF"));
    assert!(rejected(&format!("{LOSS}{LOSS}")).contains("trailing characters"));
    assert!(rejected("[1]").contains("expected a CloudEvents 1.0 event"));
    assert_eq!(parse_structured(b"{\"id\":\"\xff\"}").unwrap_err().to_string(), "invalid UTF-8 at byte 7");
    assert!(
        rejected(&LOSS.replace(",\"data\":{\"name\":\"loss\",\"step\":1,\"value\":0.5}", ""))
            .starts_with("data: is required")
    );
    assert!(
        rejected(&LOSS.replace("metric.v1", "run.v1").replace("\"runid\":\"r1\",", ""))
            .starts_with("runid: is required")
    );
}

#[test]
fn the_key_is_found_in_data() {
    let (_, data) = parse_structured(LOSS.as_bytes()).unwrap();
    assert_eq!(key_in_data(Kind::Metric, data).as_deref(), Some("loss"));
    assert_eq!(key_in_data(Kind::Page, data), None);
}

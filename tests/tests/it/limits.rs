//! Events at the limit of their size, without a broker.

use serde_json::{Value, json};

use crate::check::{Order, exactly_once};
use crate::harness::Site;
use crate::producer::{events, lines};

/// An event whose line has `bytes` bytes. It has neither time nor subject: in the log it is larger than its line.
fn line(id: &str, bytes: usize) -> String {
    let with = |pad: &str| {
        json!({"specversion": "1.0", "id": id, "source": "foreign", "type": "webdancer.metric.v1",
               "data": {"name": "large", "step": 0, "value": 0.0, "pad": pad}})
        .to_string()
    };
    let line = with(&"x".repeat(bytes - with("").len()));
    assert_eq!(line.len(), bytes);
    line
}

#[test]
fn an_event_that_only_just_exceeds_the_limit_does_not_hold_up_its_neighbours() {
    let config = |bytes: usize| format!("[lake]\nuri = \"lake\"\n[log]\nmax_event_bytes = {bytes}\n");
    let site = Site::new(&config(2000));
    let neighbours = events("good", 0, 4);
    let mut offered = lines(&neighbours);
    offered.insert(1, line("at", 2000));
    offered.insert(3, line("over", 2001));
    for _ in 0..2 {
        let partly = site.try_append(&offered);
        assert_eq!(partly.status.code(), Some(3), "{partly:?}");
        exactly_once(&site, &neighbours, Order::Kept);
        assert_eq!(site.number("SELECT count(*) FROM dead_letters"), 2, "a retry adds none");
    }
    let replay = || {
        let finished = site.run(&["dead-letters", "replay", "--json"]);
        (finished.status.code(), serde_json::from_str::<Value>(&finished.stdout).unwrap())
    };
    assert_eq!(replay(), (Some(3), json!({"replayed": 0, "still_rejected": 2})));
    site.configure(&config(2300));
    assert_eq!(replay(), (Some(0), json!({"replayed": 2, "still_rejected": 0})));
    let rows = site.sql("SELECT source_event_id FROM metrics WHERE name = 'large' ORDER BY 1");
    assert_eq!(rows, [json!({"source_event_id": "at"}), json!({"source_event_id": "over"})]);
}

//! The promise, held against the table: every acknowledged event is there exactly once, and in order within its key.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::harness::Site;
use crate::producer::Sent;

/// Whether the order within a key is checked. Events that went through two logs have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// By position in the log.
    Kept,
    /// Not checked.
    Any,
}

/// Holds the rows of `metrics` against the events that were acknowledged, which are all that were offered.
pub(crate) fn exactly_once(site: &Site, acknowledged: &[Sent], order: Order) {
    let rows = site.sql(
        "SELECT event_id, name, step, value, log_topic, log_partition, log_offset FROM metrics \
         ORDER BY log_topic, log_partition, log_offset",
    );
    let expected: HashMap<&str, &Sent> = acknowledged.iter().map(|event| (event.id.as_str(), event)).collect();
    assert_eq!(expected.len(), acknowledged.len(), "the test's ids are unique");
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        let id = text(row, "event_id");
        *seen.entry(id).or_default() += 1;
        let event = expected.get(id).unwrap_or_else(|| panic!("{row} was never offered"));
        assert_eq!((text(row, "name"), number(row, "step")), (event.key.as_str(), event.step), "{row}");
        assert_eq!(row["value"].as_f64(), Some(event.step as f64 / 4.0), "{row}");
    }
    let doubled: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "{} events are doubled, such as {:?}", doubled.len(), doubled.first());
    let lost: Vec<_> = acknowledged.iter().filter(|event| !seen.contains_key(event.id.as_str())).collect();
    assert!(lost.is_empty(), "{} acknowledged events are lost, such as {:?}", lost.len(), lost.first());
    if order == Order::Kept {
        in_order(&rows);
    }
}

fn in_order(rows: &[Value]) {
    let mut last: HashMap<&str, i64> = HashMap::new();
    let mut places: HashMap<&str, BTreeSet<(&str, i64)>> = HashMap::new();
    for row in rows {
        let (key, step) = (text(row, "name"), number(row, "step"));
        let before = last.insert(key, step).unwrap_or(-1);
        assert_eq!(step, before + 1, "{row} comes after step {before} of its key");
        places.entry(key).or_default().insert((text(row, "log_topic"), number(row, "log_partition")));
    }
    for (key, places) in places {
        assert_eq!(places.len(), 1, "the events of {key} lie in {places:?}");
    }
}

fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_else(|| panic!("{column} of {row}"))
}

fn number(row: &Value, column: &str) -> i64 {
    row[column].as_i64().unwrap_or_else(|| panic!("{column} of {row}"))
}

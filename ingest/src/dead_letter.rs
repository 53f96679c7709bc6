//! What could not be made a row: kept with its bytes and the reason, and brought back once it can.

use chrono::{DateTime, Utc};
use serde_json::json;
use webdancer_schemas::column::{Base64, JsonText};
use webdancer_schemas::digest::sha256_hex;
use webdancer_schemas::event::{Envelope, Event, Rejection};
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::{DeadLetter, Gap};
use webdancer_schemas::wire;

use crate::decode::{Decoder, Position};
use crate::source::{Record, TopicPartition};

/// `source` of the events that ingestion itself writes.
pub const SOURCE: &str = "webdancer/ingest";

/// Where rejected bytes came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// File or stream, such as `-` for standard input.
    pub uri: &'a str,
    /// Line, from 1.
    pub line: i64,
}

/// The dead letter of bytes that a producer offered and that are no event. Its id follows from the bytes and their
/// place: the same file offered again adds nothing, and equal lines of a file are as many dead letters.
///
/// # Errors
/// Never in practice: the row holds nothing that JSON has not.
pub fn of_bytes(
    bytes: &[u8],
    total_bytes: i64,
    content_type: &str,
    rejection: &Rejection,
    origin: Origin<'_>,
) -> Result<Event, serde_json::Error> {
    let raw_sha256 = sha256_hex(bytes);
    let line = origin.line.unsigned_abs();
    let id = EventId::derive(DateTime::UNIX_EPOCH, &raw_sha256, Kind::DeadLetter, origin.uri, line);
    let row = DeadLetter {
        raw_sha256,
        raw: Base64(bytes.to_vec()),
        raw_bytes: total_bytes,
        content_type: content_type.to_string(),
        reason: rejection.reason.clone(),
        field: rejection.field.clone(),
        source_uri: Some(origin.uri.to_string()),
        source_line: Some(origin.line),
        state: "rejected".to_string(),
        ..DeadLetter::default()
    };
    Ok(Event::new(SOURCE, &row)?.with_id(id))
}

/// The dead letter of a record of the log. Its id follows from the position, so that draining again adds nothing.
pub(crate) fn of_record(
    origin: &str,
    partition: &TopicPartition,
    record: &Record,
    rejection: &Rejection,
) -> Result<Event, serde_json::Error> {
    let mut row = DeadLetter {
        raw_sha256: sha256_hex(&record.payload),
        raw: Base64(record.payload.to_vec()),
        raw_bytes: record.payload.len() as i64,
        content_type: wire::STRUCTURED.to_string(),
        reason: rejection.reason.clone(),
        field: rejection.field.clone(),
        origin_topic: Some(partition.topic.to_string()),
        origin_partition: Some(partition.partition),
        origin_offset: Some(record.offset),
        state: "rejected".to_string(),
        ..DeadLetter::default()
    };
    if let Ok(envelope) = &record.envelope {
        row.content_type = wire::DATA.to_string();
        row.kind = Some(envelope.kind.name().to_string());
        row.attributes = Some(JsonText(attributes_json(envelope)));
    }
    // A derived id's time is that of the record, which retries share.
    let start = DateTime::from_timestamp_millis(record.timestamp_ms).unwrap_or_default();
    let id = EventId::derive(start, origin, Kind::DeadLetter, "record", record.offset as u64);
    Ok(Event::new(SOURCE, &row)?.with_id(id).at(start))
}

/// The record of positions that were lost before they were read. The same gap seen again has the same id. One that has
/// grown before the table moved past it has another: with the same id the rest of it would be left out as a duplicate.
pub(crate) fn of_gap(
    origin: &str,
    partition: &TopicPartition,
    from: i64,
    to: i64,
    reason: &str,
) -> Result<Event, serde_json::Error> {
    let row = Gap {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        from_offset: from,
        to_offset: to,
        reason: reason.to_string(),
    };
    let id = EventId::derive(DateTime::UNIX_EPOCH, origin, Kind::Gap, &to.to_string(), from as u64);
    Ok(Event::new(SOURCE, &row)?.with_id(id))
}

/// The context attributes as the members of a structured event.
fn attributes_json(envelope: &Envelope) -> serde_json::Value {
    let mut members = serde_json::Map::new();
    for (name, value) in wire::attributes(envelope) {
        members.insert(name.to_string(), json!(value));
    }
    for (name, text) in &envelope.extensions {
        members.insert(name.clone(), serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
    }
    serde_json::Value::Object(members)
}

/// The event that says a dead letter was brought back at `time`.
///
/// # Errors
/// Never in practice, see [`of_bytes`].
pub fn replayed(letter: &DeadLetter, letter_id: &str, time: DateTime<Utc>) -> Result<Event, serde_json::Error> {
    let row = DeadLetter { state: "replayed".to_string(), raw: Base64(Vec::new()), ..letter.clone() };
    let id = EventId::derive(DateTime::UNIX_EPOCH, letter_id, Kind::DeadLetter, "replayed", 0);
    Ok(Event::new(SOURCE, &row)?.with_id(id).at(time).with_parents(vec![letter_id.to_string()]))
}

/// The event in a dead letter, if today's schema takes it.
///
/// `raw` is the whole event or its `data`, as `content_type` says; in the second case `attributes` are the event's
/// context attributes as JSON. `time` stands in for an event that has none.
///
/// # Errors
/// Why it is still no event of its kind.
pub fn revive(
    content_type: &str,
    raw: &[u8],
    attributes: Option<&str>,
    time: DateTime<Utc>,
) -> Result<Event, Rejection> {
    let whole = match content_type {
        wire::STRUCTURED => raw.to_vec(),
        wire::DATA => {
            let head = attributes.unwrap_or("{}").trim().strip_suffix('}').unwrap_or("{");
            let comma = if head.trim_end().ends_with('{') { "" } else { "," };
            [head.as_bytes(), comma.as_bytes(), b"\"data\":", raw, b"}"].concat()
        }
        other => return Err(Rejection::new(format!("{other} cannot be replayed; import its file again"))),
    };
    let (mut envelope, data) = wire::parse_structured(&whole)?;
    envelope.time.get_or_insert(time);
    if envelope.subject.is_none() {
        envelope.subject = wire::key_in_data(envelope.kind, data);
    }
    let partition = TopicPartition { topic: "replay".into(), partition: 0 };
    let position = Position { partition: &partition, offset: 0, timestamp_ms: 0 };
    Decoder::new(envelope.kind).push(&envelope, data.get().as_bytes(), position)?;
    Ok(Event { envelope, data: data.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_one_event_until_it_grows() {
        let partition = TopicPartition { topic: "t".into(), partition: 0 };
        let id = |origin, from, to| of_gap(origin, &partition, from, to, "retention").unwrap().id();
        assert_eq!(id("c/t/0", 20, 34), id("c/t/0", 20, 34));
        assert_ne!(id("c/t/0", 20, 34), id("c/t/0", 20, 40));
        assert_ne!(id("c/t/0", 20, 34), id("c/t@1/0", 20, 34), "a topic made anew");
    }
}

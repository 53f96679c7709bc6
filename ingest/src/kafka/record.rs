//! From a Kafka message to a [`Record`].
//!
//! CloudEvents come in the binary mode (`ce_*` headers, the value is `data`) or, told by the content type, in the
//! structured mode (the value is the whole event). What is neither is kept whole: as a structured event made of headers
//! and value, so that a dead letter can be decoded again by a later version.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Message as _};
use serde_json::value::RawValue;
use webdancer_schemas::event::{Envelope, Rejection};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::wire;

use super::ffi;
use crate::source::Record;

/// Memory a record takes beside its payload: the struct and the strings of a usual envelope.
const RECORD_BYTES: usize = std::mem::size_of::<Record>() + 192;

/// Reads a message of the topic of `kind`.
pub(super) fn read(message: &BorrowedMessage<'_>, kind: Kind) -> Record {
    let (envelope, payload) = decode(message.key(), ffi::headers(message), message.payload(), kind);
    Record {
        offset: message.offset(),
        // Only producers from before 2016 send messages without a time.
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        fingerprint: None,
        envelope,
        payload,
    }
}

/// Memory that a record takes, roughly.
pub(super) fn bytes(record: &Record) -> usize {
    RECORD_BYTES + record.payload.len()
}

fn decode<'m>(
    key: Option<&[u8]>,
    headers: impl Iterator<Item = (&'m str, Option<&'m [u8]>)> + Clone,
    value: Option<&[u8]>,
    kind: Kind,
) -> (Result<Envelope, Rejection>, Bytes) {
    let structured = is_structured(headers.clone());
    let parsed = match value {
        None => Err(Rejection::of("data", "is required and missing: the message has no value")),
        Some(value) if structured => {
            wire::parse_structured(value).map(|(envelope, data)| (envelope, data.get().as_bytes()))
        }
        Some(value) => wire::parse_headers(headers.clone()).map(|envelope| (envelope, value)),
    };
    let checked = parsed.and_then(|(envelope, data)| Ok((of_kind(envelope, kind)?, data)));
    match checked {
        Ok((mut envelope, data)) => {
            if envelope.subject.is_none() {
                envelope.subject =
                    key.and_then(|key| std::str::from_utf8(key).ok()).filter(|key| !key.is_empty()).map(str::to_string);
            }
            (Ok(envelope), Bytes::copy_from_slice(data))
        }
        Err(rejection) if structured => (Err(rejection), Bytes::copy_from_slice(value.unwrap_or_default())),
        Err(rejection) => (Err(rejection), Bytes::from(whole(key, headers, value))),
    }
}

fn is_structured<'m>(mut headers: impl Iterator<Item = (&'m str, Option<&'m [u8]>)>) -> bool {
    headers.find(|(name, _)| name.eq_ignore_ascii_case("content-type")).and_then(|(_, value)| value).is_some_and(
        |value| {
            value.get(..wire::STRUCTURED.len()).is_some_and(|v| v.eq_ignore_ascii_case(wire::STRUCTURED.as_bytes()))
        },
    )
}

fn of_kind(envelope: Envelope, kind: Kind) -> Result<Envelope, Rejection> {
    if envelope.kind == kind {
        return Ok(envelope);
    }
    let reason = format!("is {:?} in the topic of {:?}", envelope.kind.event_type(), kind.event_type());
    Err(Rejection::of("type", reason))
}

/// A message in binary mode as one structured event; a value that is not JSON becomes `data_base64`.
fn whole<'m>(
    key: Option<&[u8]>,
    headers: impl Iterator<Item = (&'m str, Option<&'m [u8]>)>,
    value: Option<&[u8]>,
) -> Vec<u8> {
    let mut event = serde_json::Map::new();
    for (name, value) in headers {
        if let Some(attribute) = name.strip_prefix("ce_") {
            event.insert(attribute.to_string(), String::from_utf8_lossy(value.unwrap_or_default()).into());
        }
    }
    if let Some(key) = key {
        event.entry("subject").or_insert_with(|| String::from_utf8_lossy(key).into());
    }
    let mut out = serde_json::Value::Object(event).to_string().into_bytes();
    let Some(value) = value else { return out };
    out.pop();
    if out.len() > 1 {
        out.push(b',');
    }
    if serde_json::from_slice::<&RawValue>(value).is_ok() {
        out.extend_from_slice(b"\"data\":");
        out.extend_from_slice(value);
    } else {
        out.extend_from_slice(b"\"data_base64\":\"");
        out.extend_from_slice(STANDARD.encode(value).as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    type Header = (&'static str, Option<&'static [u8]>);

    const BINARY: &[Header] = &[
        ("content-type", Some(b"application/json")),
        ("ce_specversion", Some(b"1.0")),
        ("ce_id", Some(b"e-1")),
        ("ce_source", Some(b"s")),
        ("ce_type", Some(b"webdancer.metric.v1")),
    ];

    fn decoded(key: Option<&[u8]>, headers: &[Header], value: Option<&[u8]>) -> (Result<Envelope, Rejection>, String) {
        let (envelope, payload) = decode(key, headers.iter().copied(), value, Kind::Metric);
        (envelope, String::from_utf8(payload.to_vec()).unwrap())
    }

    #[test]
    fn binary_mode_takes_attributes_from_headers_and_the_subject_from_the_key() {
        let (envelope, payload) = decoded(Some(b"run-1"), BINARY, Some(b"{\"a\":1}"));
        let envelope = envelope.unwrap();
        assert_eq!(envelope.source_event_id.as_deref(), Some("e-1"));
        assert_eq!(envelope.subject.as_deref(), Some("run-1"));
        assert_eq!(payload, "{\"a\":1}");
    }

    #[test]
    fn structured_mode_takes_everything_from_the_value() {
        let value = br#"{"specversion":"1.0","id":"e-1","source":"s","type":"webdancer.metric.v1","subject":"m","data":{"a":1}}"#;
        let headers: &[Header] = &[("Content-Type", Some(b"application/cloudevents+json; charset=UTF-8"))];
        let (envelope, payload) = decoded(Some(b"key"), headers, Some(value));
        assert_eq!(envelope.unwrap().subject.as_deref(), Some("m"));
        assert_eq!(payload, "{\"a\":1}");
    }

    #[test]
    fn an_event_of_another_kind_is_rejected_and_kept_whole() {
        let mut headers = BINARY.to_vec();
        headers[4] = ("ce_type", Some(b"webdancer.page.v1"));
        let (envelope, payload) = decoded(None, &headers, Some(b"{\"a\":1}"));
        let rejection = envelope.unwrap_err();
        assert_eq!(rejection.field.as_deref(), Some("type"));
        assert_eq!(rejection.reason, r#"is "webdancer.page.v1" in the topic of "webdancer.metric.v1""#);
        assert_eq!(
            payload,
            r#"{"specversion":"1.0","id":"e-1","source":"s","type":"webdancer.page.v1","data":{"a":1}}"#
        );
        assert_eq!(wire::parse_structured(payload.as_bytes()).unwrap().0.kind, Kind::Page);
    }

    #[test]
    fn a_message_without_a_value_is_rejected() {
        let (envelope, payload) = decoded(Some(b"k"), BINARY, None);
        assert_eq!(envelope.unwrap_err().field.as_deref(), Some("data"));
        assert!(payload.contains(r#""subject":"k""#) && !payload.contains("data"), "{payload}");
    }

    #[test]
    fn foreign_bytes_are_kept_as_base64() {
        let (envelope, payload) = decoded(None, &[], Some(b"\xff\x00"));
        assert_eq!(envelope.unwrap_err().field.as_deref(), Some("specversion"));
        assert_eq!(payload, r#"{"data_base64":"/wA="}"#);
    }

    #[test]
    fn a_structured_event_that_is_broken_is_kept_as_it_came() {
        let headers: &[Header] = &[("content-type", Some(b"application/cloudevents+json"))];
        let (envelope, payload) = decoded(None, headers, Some(b"{\"id\":"));
        assert!(envelope.is_err());
        assert_eq!(payload, "{\"id\":");
    }
}

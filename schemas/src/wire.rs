//! CloudEvents 1.0 on the wire: the structured JSON form (HTTP, NDJSON, the embedded log) and the Kafka binary binding
//! (`ce_*` headers, the row as the message's value).
//!
//! Parsing borrows: `data` is a slice of the input, so that a drain decodes rows without copying them first.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, SecondsFormat, SubsecRound as _, Utc};
use serde::de::{Deserialize as _, Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{Envelope, Event, Rejection};
use crate::id::EventId;
use crate::kind::Kind;

/// Media type of the structured form.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// Media type of `data`.
pub const DATA: &str = "application/json";
/// Bytes around an attribute, at most: quotes in JSON, lengths in a Kafka header.
const MEMBER_BYTES: usize = 10;

/// The attributes as read, before they are checked.
#[derive(Default)]
struct Attributes<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    content_type: Option<Cow<'a, str>>,
    run_id: Option<Cow<'a, str>>,
    parents: Option<Cow<'a, str>>,
    traceparent: Option<Cow<'a, str>>,
    extensions: Vec<(String, String)>,
}

impl<'a> Attributes<'a> {
    /// The slot of a known attribute.
    fn slot(&mut self, name: &str) -> Option<&mut Option<Cow<'a, str>>> {
        Some(match name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.event_type,
            "time" => &mut self.time,
            "subject" => &mut self.subject,
            "datacontenttype" => &mut self.content_type,
            "runid" => &mut self.run_id,
            "parents" => &mut self.parents,
            "traceparent" => &mut self.traceparent,
            _ => return None,
        })
    }

    fn check(self) -> Result<Envelope, Rejection> {
        let required = |value: Option<Cow<'a, str>>, name: &str| match value {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => Err(Rejection::of(name, "must not be empty")),
            None => Err(Rejection::of(name, "is required and missing")),
        };
        let specversion = required(self.specversion, "specversion")?;
        if specversion != "1.0" {
            return Err(Rejection::of("specversion", format!("must be \"1.0\", is {specversion:?}")));
        }
        let event_type = required(self.event_type, "type")?;
        let kind = Kind::from_event_type(&event_type).map_err(|e| Rejection::of("type", e.to_string()))?;
        let source = required(self.source, "source")?.into_owned();
        let producer_id = required(self.id, "id")?;
        let (id, source_event_id) = EventId::from_producer(&source, &producer_id);
        if let Some(content_type) = &self.content_type
            && content_type.split(';').next().is_some_and(|media| media.trim() != DATA)
        {
            return Err(Rejection::of("datacontenttype", format!("must be {DATA:?}, is {content_type:?}")));
        }
        let time = self.time.map(|text| parse_time(&text)).transpose()?;
        let run_id = self.run_id.map(Cow::into_owned).filter(|text| !text.is_empty());
        let mut subject = self.subject.map(Cow::into_owned).filter(|text| !text.is_empty());
        if kind == Kind::Run {
            if run_id.is_none() {
                return Err(Rejection::of("runid", "is required in a run event and missing"));
            }
            subject = subject.or_else(|| run_id.clone());
        }
        Ok(Envelope {
            id,
            source_event_id,
            source,
            kind,
            time,
            subject,
            run_id,
            parents: self
                .parents
                .map(|text| text.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::to_string).collect())
                .unwrap_or_default(),
            traceparent: self.traceparent.map(Cow::into_owned).filter(|text| !text.is_empty()),
            extensions: self.extensions,
        })
    }
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, Rejection> {
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|e| Rejection::of("time", format!("{text:?} is not an RFC 3339 time: {e}")))?;
    Ok(time.with_timezone(&Utc).trunc_subsecs(6))
}

/// Parses the structured form. The second part is `data`, unchecked but for being JSON.
///
/// # Errors
/// Invalid UTF-8, JSON that is truncated or more than one value, attributes missing or of the wrong type, an unknown
/// kind.
pub fn parse_structured(bytes: &[u8]) -> Result<(Envelope, &RawValue), Rejection> {
    let text =
        std::str::from_utf8(bytes).map_err(|e| Rejection::new(format!("invalid UTF-8 at byte {}", e.valid_up_to())))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let (attributes, data) = deserializer.deserialize_map(StructuredVisitor).map_err(json_rejection)?;
    deserializer.end().map_err(json_rejection)?;
    let envelope = attributes.check()?;
    let data = data.ok_or_else(|| Rejection::of("data", "is required and missing"))?;
    Ok((envelope, data))
}

fn json_rejection(error: serde_json::Error) -> Rejection {
    Rejection::new(format!("not one JSON object: {error}"))
}

struct StructuredVisitor;

impl<'de> Visitor<'de> for StructuredVisitor {
    type Value = (Attributes<'de>, Option<&'de RawValue>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CloudEvents 1.0 event, a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        use serde::de::Error as _;
        let mut attributes = Attributes::default();
        let mut data = None;
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            if name == "data" {
                if data.replace(map.next_value::<&'de RawValue>()?).is_some() {
                    return Err(A::Error::duplicate_field("data"));
                }
                continue;
            }
            let value = map.next_value::<&'de RawValue>()?;
            match attributes.slot(&name) {
                Some(slot) => {
                    let text = Option::<Text<'de>>::deserialize(value)
                        .map_err(|e| A::Error::custom(format!("attribute {name}: {e}")))?;
                    if slot.is_some() {
                        return Err(A::Error::custom(format!("duplicate attribute {name}")));
                    }
                    *slot = text.map(|text| text.0);
                }
                None => attributes.extensions.push((name.into_owned(), value.get().to_string())),
            }
        }
        Ok((attributes, data))
    }
}

/// A JSON string, borrowed where it holds no escapes.
#[derive(Debug)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Text<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_string())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Parses the `ce_*` headers of the Kafka binary binding; other headers are ignored.
///
/// # Errors
/// Headers that are not UTF-8, attributes missing or malformed, an unknown kind.
pub fn parse_headers<'a>(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Result<Envelope, Rejection> {
    let mut attributes = Attributes::default();
    for (key, value) in headers {
        let name = match key.strip_prefix("ce_") {
            Some(name) => name,
            None if key.eq_ignore_ascii_case("content-type") => "datacontenttype",
            None => continue,
        };
        let text =
            std::str::from_utf8(value.unwrap_or_default()).map_err(|_| Rejection::of(key, "header is not UTF-8"))?;
        match attributes.slot(name) {
            Some(slot) => *slot = Some(Cow::Borrowed(text)),
            None => {
                let json = serde_json::to_string(text).map_err(|e| Rejection::of(key, e.to_string()))?;
                attributes.extensions.push((name.to_string(), json));
            }
        }
    }
    attributes.check()
}

/// The context attributes of an event by their CloudEvents names, in the order they are written.
pub fn attributes(envelope: &Envelope) -> Vec<(&str, Cow<'_, str>)> {
    let id = match &envelope.source_event_id {
        Some(original) => Cow::Borrowed(original.as_str()),
        None => Cow::Owned(envelope.id.to_string()),
    };
    let mut list = vec![
        ("specversion", Cow::Borrowed("1.0")),
        ("id", id),
        ("source", Cow::Borrowed(envelope.source.as_str())),
        ("type", Cow::Owned(envelope.kind.event_type())),
    ];
    if let Some(time) = envelope.time {
        list.push(("time", Cow::Owned(time.to_rfc3339_opts(SecondsFormat::Micros, true))));
    }
    for (name, value) in
        [("subject", &envelope.subject), ("runid", &envelope.run_id), ("traceparent", &envelope.traceparent)]
    {
        if let Some(value) = value {
            list.push((name, Cow::Borrowed(value)));
        }
    }
    if !envelope.parents.is_empty() {
        list.push(("parents", Cow::Owned(envelope.parents.join(","))));
    }
    list
}

/// Bytes that an event takes in a log, about: key, context attributes and `data`. This is what `log.max_event_bytes`
/// limits, in every log and where events come in: an event that was let in must not be refused later.
pub fn size(event: &Event) -> usize {
    let own = attributes(&event.envelope);
    let own = own.iter().map(|(name, value)| name.len() + value.len() + MEMBER_BYTES).sum::<usize>();
    let extensions = event.envelope.extensions.iter();
    let extensions = extensions.map(|(name, json)| name.len() + json.len() + MEMBER_BYTES).sum::<usize>();
    event.key().len() + event.data.get().len() + own + extensions
}

/// The structured form of an event, one line without a line break.
pub fn structured(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(event.data.get().len() + 320);
    out.push(b'{');
    for (name, value) in attributes(&event.envelope) {
        push_member(&mut out, name, &serde_json::Value::from(value.as_ref()).to_string());
    }
    for (name, json) in &event.envelope.extensions {
        push_member(&mut out, name, json);
    }
    push_member(&mut out, "data", event.data.get());
    out.push(b'}');
    out
}

fn push_member(out: &mut Vec<u8>, name: &str, json: &str) {
    if out.len() > 1 {
        out.push(b',');
    }
    out.extend_from_slice(serde_json::Value::from(name).to_string().as_bytes());
    out.push(b':');
    // A raw value may hold line breaks between its tokens; inside strings JSON escapes them.
    out.extend(json.bytes().map(|byte| if byte == b'\n' || byte == b'\r' { b' ' } else { byte }));
}

/// The value of the kind's key column in `data`, if it is there and a string.
pub fn key_in_data(kind: Kind, data: &RawValue) -> Option<String> {
    struct KeyVisitor(&'static str);
    impl<'de> Visitor<'de> for KeyVisitor {
        type Value = Option<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
            let mut found = None;
            while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
                let value = map.next_value::<&'de RawValue>()?;
                if name == self.0 {
                    found = serde_json::from_str(value.get()).ok();
                }
            }
            Ok(found)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(data.get());
    deserializer.deserialize_map(KeyVisitor(kind.key_column())).ok().flatten()
}

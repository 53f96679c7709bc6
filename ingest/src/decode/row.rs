//! One payload into the columns.

use std::fmt::{self, Write as _};

use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use webdancer_schemas::event::Rejection;
use webdancer_schemas::wire::Text;

use super::Decoder;
use super::columns::{Value, readable};

/// Where in the row the decoder is: what a rejection names.
#[derive(Debug, Default)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug)]
pub(super) enum Step {
    Column(usize),
    Member(String),
    Item(usize),
}

impl Path {
    pub(super) fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    pub(super) fn set(&mut self, step: Step) {
        if let Some(last) = self.0.last_mut() {
            *last = step;
        }
    }
}

/// What decoding a row needs besides the columns; kept from row to row to save allocations.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Members of the row that have no column, as `"name":value,…`.
    pub(super) extra: String,
    seen: Vec<bool>,
    path: Path,
}

pub(super) fn decode(decoder: &mut Decoder, payload: &[u8]) -> Result<(), Rejection> {
    decoder.scratch.extra.clear();
    decoder.scratch.seen.clear();
    decoder.scratch.seen.resize(decoder.columns.len(), false);
    decoder.scratch.path.0.clear();
    let text = std::str::from_utf8(payload)
        .map_err(|e| Rejection::of("data", format!("invalid UTF-8 at byte {}", e.valid_up_to())))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let decoded = deserializer.deserialize_map(RowVisitor(decoder)).and_then(|()| deserializer.end());
    decoded.map_err(|error| {
        decoder.scratch.extra.clear();
        Rejection { field: Some(field_path(decoder)), reason: error.to_string() }
    })
}

fn field_path(decoder: &Decoder) -> String {
    let mut text = String::from("data");
    for step in &decoder.scratch.path.0 {
        // Writing to a string does not fail.
        let _ = match step {
            Step::Column(index) => write!(text, ".{}", decoder.fields[*index].name()),
            Step::Member(name) => write!(text, ".{name}"),
            Step::Item(index) => write!(text, "[{index}]"),
        };
    }
    text
}

struct RowVisitor<'a>(&'a mut Decoder);

impl<'de> Visitor<'de> for RowVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let decoder = self.0;
        // Producers write fields in the order of the schema: the next one is most often the one after the last.
        let mut expected = 0;
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            let index = match decoder.fields.get(expected) {
                Some(field) if *field.name() == name => Some(expected),
                _ => decoder.index.get(name.as_ref()).copied(),
            };
            let Some(index) = index else {
                let text = map.next_value::<&'de RawValue>()?.get();
                match readable(text) {
                    Ok(()) => push_member(&mut decoder.scratch.extra, &name, text),
                    // Its text as a string: kept whole, and `extra` stays JSON.
                    Err(_) => {
                        push_member(&mut decoder.scratch.extra, &name, &serde_json::Value::from(text).to_string())
                    }
                }
                continue;
            };
            expected = index + 1;
            decoder.scratch.path.push(Step::Column(index));
            if std::mem::replace(&mut decoder.scratch.seen[index], true) {
                return Err(A::Error::custom("is given twice"));
            }
            map.next_value_seed(Value { column: &mut decoder.columns[index], path: &mut decoder.scratch.path })?;
            decoder.scratch.path.pop();
        }
        for index in 0..decoder.columns.len() {
            if !decoder.scratch.seen[index] && !decoder.columns[index].append_absent() {
                decoder.scratch.path.push(Step::Column(index));
                return Err(A::Error::custom("is required and missing"));
            }
        }
        Ok(())
    }
}

/// Adds `"name":json` to members written so far; `text` may begin with the object's brace.
pub(super) fn push_member(text: &mut String, name: &str, json: &str) {
    if !text.is_empty() && !text.ends_with('{') {
        text.push(',');
    }
    text.push_str(&serde_json::Value::from(name).to_string());
    text.push(':');
    text.push_str(json);
}

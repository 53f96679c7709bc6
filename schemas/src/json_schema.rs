//! The JSON Schema of each kind, for producers in other languages.

use serde_json::{Value, json};

use crate::kind::Kind;

/// The JSON Schema (2020-12) of a whole event of `kind` in the structured form.
pub fn event_schema(kind: Kind) -> Value {
    let row = kind.row_json_schema().to_value();
    let definitions = row.get("$defs").cloned();
    let mut data = row;
    if let Some(object) = data.as_object_mut() {
        object.remove("$schema");
        object.remove("$defs");
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.event_type(),
        "description": "A CloudEvents 1.0 event. Unknown fields of data are kept in the table's column `extra`.",
        "type": "object",
        "required": ["specversion", "id", "source", "type", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "minLength": 1, "description": "A UUID, best time-ordered. The same when a producer retries."},
            "source": {"type": "string", "minLength": 1},
            "type": {"const": kind.event_type()},
            "time": {"type": "string", "format": "date-time"},
            "subject": {"type": "string", "description": format!("The entity; if absent, data.{}.", kind.key_column())},
            "datacontenttype": {"const": "application/json"},
            "runid": {"type": "string"},
            "parents": {"type": "string", "description": "Ids, comma-separated."},
            "traceparent": {"type": "string"},
            "data": data,
        },
    });
    if let (Some(object), Some(definitions)) = (schema.as_object_mut(), definitions) {
        object.insert("$defs".to_string(), definitions);
    }
    schema
}

//! The Arrow schema of each event table.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Field, Schema, SchemaRef};
use chrono::{DateTime, Utc};

use crate::column::{JsonText, field};
use crate::kind::Kind;

/// Name of the column of event ids.
pub const EVENT_ID: &str = "event_id";
/// Name of the column of event times.
pub const EVENT_TIME: &str = "event_time";
/// Name of the column of sources.
pub const SOURCE: &str = "source";
/// Name of the column of unknown fields.
pub const EXTRA: &str = "extra";

/// The columns every event table starts with.
pub fn envelope_fields() -> Vec<Field> {
    vec![
        field::<String>(EVENT_ID, "Identity of the event within its source: a UUID, lower case."),
        field::<DateTime<Utc>>(EVENT_TIME, "When it happened."),
        field::<String>(SOURCE, "Who produced it (CloudEvents source)."),
        field::<Option<String>>("run_id", "The run it belongs to."),
        field::<Vec<String>>("parents", "What it came from."),
        field::<String>("log_topic", "Topic of the log it was read from."),
        field::<i32>("log_partition", "Partition of that topic."),
        field::<i64>("log_offset", "Offset in that partition."),
        field::<Option<String>>("subject", "The entity it is about (CloudEvents subject)."),
        field::<Option<String>>("source_event_id", "The producer's own id, where it is not a UUID."),
        field::<Option<String>>("traceparent", "W3C trace context."),
        field::<Option<JsonText>>(EXTRA, "Fields this version has no column for."),
    ]
}

/// The schema of the table of `kind`: the [envelope's columns](envelope_fields), then the row's.
pub fn table_schema(kind: Kind) -> SchemaRef {
    static SCHEMAS: LazyLock<Vec<SchemaRef>> = LazyLock::new(|| {
        Kind::ALL
            .iter()
            .map(|kind| {
                let mut fields = envelope_fields();
                fields.extend(kind.row_fields());
                Arc::new(Schema::new(fields)) as SchemaRef
            })
            .collect()
    });
    let index = Kind::ALL.iter().position(|k| *k == kind).unwrap_or(0);
    SCHEMAS[index].clone()
}

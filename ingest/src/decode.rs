//! JSON rows to Arrow, straight into column builders.
//!
//! One pass over each payload fills the columns, checks every type, finds missing fields and collects unknown ones. A
//! row that fails leaves its neighbours alone: what it had already put into the builders is masked out at the end. The
//! rejection names the field's path and the cause.

mod columns;
mod row;

use std::collections::HashMap;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Builder, Int64Builder, ListBuilder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, SchemaRef};
use std::sync::Arc;
use webdancer_schemas::event::{Envelope, Rejection};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::table::{envelope_fields, table_schema};

use crate::source::TopicPartition;
use columns::ColumnBuilder;

/// Decodes rows of one kind into record batches of its table's schema.
#[derive(Debug)]
pub struct Decoder {
    kind: Kind,
    schema: SchemaRef,
    fields: Vec<Arc<Field>>,
    index: HashMap<String, usize>,
    columns: Vec<ColumnBuilder>,
    envelope: EnvelopeColumns,
    extra: StringBuilder,
    keep: Vec<bool>,
    bytes: usize,
    scratch: row::Scratch,
}

#[derive(Debug)]
struct EnvelopeColumns {
    event_id: StringBuilder,
    event_time: TimestampMicrosecondBuilder,
    source: StringBuilder,
    run_id: StringBuilder,
    parents: ListBuilder<StringBuilder>,
    log_topic: StringBuilder,
    log_partition: Int32Builder,
    log_offset: Int64Builder,
    subject: StringBuilder,
    source_event_id: StringBuilder,
    traceparent: StringBuilder,
}

/// Where a record lies and when the log took it.
#[derive(Debug, Clone, Copy)]
pub struct Position<'a> {
    /// Partition.
    pub partition: &'a TopicPartition,
    /// Offset.
    pub offset: i64,
    /// Milliseconds since 1970: the event's time if it has none.
    pub timestamp_ms: i64,
}

impl Decoder {
    /// A decoder without rows.
    pub fn new(kind: Kind) -> Decoder {
        let schema = table_schema(kind);
        let fields: Vec<_> = schema.fields().iter().skip(envelope_fields().len()).cloned().collect();
        Decoder {
            kind,
            index: fields.iter().enumerate().map(|(index, field)| (field.name().clone(), index)).collect(),
            columns: fields.iter().map(|field| ColumnBuilder::new(field)).collect(),
            envelope: EnvelopeColumns::new(),
            extra: StringBuilder::new(),
            keep: Vec::new(),
            bytes: 0,
            scratch: row::Scratch::default(),
            fields,
            schema,
        }
    }

    /// Decodes one row.
    ///
    /// # Errors
    /// Why the payload is no row of this kind; the decoder goes on as if it had not been offered.
    pub fn push(&mut self, envelope: &Envelope, payload: &[u8], position: Position<'_>) -> Result<(), Rejection> {
        let decoded = row::decode(self, payload);
        let rows = self.keep.len() + 1;
        if decoded.is_err() {
            self.columns.iter_mut().for_each(|column| column.pad(rows));
        }
        self.keep.push(decoded.is_ok());
        self.envelope.push(envelope, position);
        self.push_extra(envelope);
        self.bytes += payload.len();
        decoded
    }

    fn push_extra(&mut self, envelope: &Envelope) {
        if envelope.extensions.is_empty() && self.scratch.extra.is_empty() {
            self.extra.append_null();
            return;
        }
        let mut json = String::from("{");
        for (name, value) in &envelope.extensions {
            row::push_member(&mut json, &format!("ce_{name}"), value);
        }
        if !self.scratch.extra.is_empty() {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&self.scratch.extra);
        }
        json.push('}');
        self.extra.append_value(json);
    }

    /// Rows decoded and not yet taken.
    pub fn rows(&self) -> usize {
        self.keep.iter().filter(|keep| **keep).count()
    }

    /// Bytes of JSON they came from.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the rows as a batch of the table's schema.
    ///
    /// # Errors
    /// When the builders do not fit together, which is a defect of ours and not of the data.
    pub fn finish(&mut self) -> Result<RecordBatch, arrow::error::ArrowError> {
        let mut arrays = self.envelope.finish(&mut self.extra);
        for (column, field) in self.columns.iter_mut().zip(&self.fields) {
            arrays.push(column.finish(field)?);
        }
        let keep = std::mem::take(&mut self.keep);
        self.bytes = 0;
        if keep.contains(&false) {
            let mask = BooleanArray::from(keep);
            arrays = arrays.iter().map(|array| filter(array, &mask)).collect::<Result<_, _>>()?;
        }
        RecordBatch::try_new(self.schema.clone(), arrays)
    }

    /// The kind whose rows it decodes.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl EnvelopeColumns {
    fn new() -> EnvelopeColumns {
        let element = Field::new("element", DataType::Utf8, false);
        EnvelopeColumns {
            event_id: StringBuilder::new(),
            event_time: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            source: StringBuilder::new(),
            run_id: StringBuilder::new(),
            parents: ListBuilder::new(StringBuilder::new()).with_field(element),
            log_topic: StringBuilder::new(),
            log_partition: Int32Builder::new(),
            log_offset: Int64Builder::new(),
            subject: StringBuilder::new(),
            source_event_id: StringBuilder::new(),
            traceparent: StringBuilder::new(),
        }
    }

    fn push(&mut self, envelope: &Envelope, position: Position<'_>) {
        let mut text = uuid::Uuid::encode_buffer();
        self.event_id.append_value(envelope.id.uuid().as_hyphenated().encode_lower(&mut text));
        let logged = position.timestamp_ms.saturating_mul(1000);
        self.event_time.append_value(envelope.time.map_or(logged, |time| time.timestamp_micros()));
        self.source.append_value(&envelope.source);
        self.run_id.append_option(envelope.run_id.as_deref());
        envelope.parents.iter().for_each(|parent| self.parents.values().append_value(parent));
        self.parents.append(true);
        self.log_topic.append_value(&position.partition.topic);
        self.log_partition.append_value(position.partition.partition);
        self.log_offset.append_value(position.offset);
        self.subject.append_option(envelope.subject.as_deref());
        self.source_event_id.append_option(envelope.source_event_id.as_deref());
        self.traceparent.append_option(envelope.traceparent.as_deref());
    }

    /// In the order of [`envelope_fields`].
    fn finish(&mut self, extra: &mut StringBuilder) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.event_id.finish()),
            Arc::new(self.event_time.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.run_id.finish()),
            Arc::new(self.parents.finish()),
            Arc::new(self.log_topic.finish()),
            Arc::new(self.log_partition.finish()),
            Arc::new(self.log_offset.finish()),
            Arc::new(self.subject.finish()),
            Arc::new(self.source_event_id.finish()),
            Arc::new(self.traceparent.finish()),
            Arc::new(extra.finish()),
        ]
    }
}

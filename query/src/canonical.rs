//! One physical type per logical type.
//!
//! The same column reaches us as `Utf8`, `Utf8View` or a dictionary, as plans and files have it. Results and pins show
//! one: strings `Utf8`, bytes `Binary`, lists `List` with a nullable `element`, time zones of offset zero `UTC`.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use crate::error::Result;

/// The type that stands for `data_type`.
pub(crate) fn canonical_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Dictionary(_, values) => canonical_type(values),
        DataType::Timestamp(unit, Some(zone)) if is_utc(zone) => DataType::Timestamp(*unit, Some("UTC".into())),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => {
            DataType::List(Arc::new(Field::new("element", canonical_type(field.data_type()), true)))
        }
        DataType::Struct(fields) => DataType::Struct(canonical_fields(fields)),
        other => other.clone(),
    }
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "utc" | "Etc/UTC" | "GMT" | "Z" | "+00:00" | "+0000" | "+00" | "-00:00")
}

fn canonical_fields(fields: &Fields) -> Fields {
    fields.iter().map(canonical_field).collect()
}

/// Every column may be null: whether a plan can prove that it is not says nothing about the data.
fn canonical_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), canonical_type(field.data_type()), true).with_metadata(field.metadata().clone()))
}

/// The schema of canonical types, all nullable.
pub(crate) fn canonical_schema(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(canonical_fields(schema.fields())))
}

/// A batch with its columns in the [canonical schema](canonical_schema).
///
/// # Errors
/// When values do not fit, such as more than 2 GiB of text in one column of one batch.
pub(crate) fn canonical_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(column.clone())
            } else {
                cast_with_options(column, field.data_type(), &options)
            }
        })
        .collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

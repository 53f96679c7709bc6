//! Rows of queries and pins, for commands that hand them on to a library.

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::TryStreamExt as _;
use webdancer_query::{PinManifest, QueryOptions, pin};

use crate::context::Context;
use crate::failure::Failure;

/// All rows of a query.
pub(crate) async fn query(context: &Context, sql: &str) -> Result<Vec<RecordBatch>, Failure> {
    Ok(context.job_engine()?.query(sql, &QueryOptions::default()).await?.read_all().await?)
}

/// All rows of a pin.
pub(crate) async fn pinned(context: &Context, manifest: &PinManifest) -> Result<Vec<RecordBatch>, Failure> {
    Ok(pin::read(&context.lake, manifest).try_collect().await?)
}

/// A column of text.
pub(crate) fn strings(batch: &RecordBatch, name: &str) -> Result<StringArray, Failure> {
    let column = column(batch, name, &DataType::Utf8)?;
    column.as_string_opt::<i32>().cloned().ok_or_else(|| Failure::usage(format!("column {name} holds no text")))
}

/// A column as another type, if it can be one.
pub(crate) fn column(batch: &RecordBatch, name: &str, wanted: &DataType) -> Result<ArrayRef, Failure> {
    let missing = || {
        let schema = batch.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Failure::usage(format!("there is no column {name} among {}", names.join(", ")))
    };
    cast(batch.column_by_name(name).ok_or_else(missing)?, wanted)
        .map_err(|e| Failure::usage(format!("column {name}: {e}")))
}

/// A cell of a column of text.
pub(crate) fn text(column: &StringArray, row: usize) -> Option<&str> {
    (!column.is_null(row)).then(|| column.value(row))
}

//! Rows of queries and pins, for commands that hand them on to a library.

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::json::LineDelimitedWriter;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use serde::de::DeserializeOwned;
use webdancer_query::{PinManifest, QueryError, QueryOptions, pin};

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

/// Rows as values of their type, such as [`Page`](webdancer_schemas::rows::Page), of at most so many bytes as JSON.
pub(crate) async fn rows<R: DeserializeOwned>(
    batches: impl Stream<Item = Result<RecordBatch, QueryError>>,
    bytes_max: u64,
) -> Result<Vec<R>, Failure> {
    let mut batches = std::pin::pin!(batches);
    let (mut rows, mut bytes) = (Vec::new(), 0u64);
    while let Some(batch) = batches.next().await {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer
            .write(&batch?)
            .and_then(|()| writer.finish())
            .map_err(|e| Failure::failed(format!("rows as JSON: {e}")))?;
        let json = writer.into_inner();
        bytes += json.len() as u64;
        if bytes > bytes_max {
            return Err(Failure::usage(format!("the rows are more than the {bytes_max} bytes that are read at once")));
        }
        for line in json.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let row = serde_json::from_slice(line);
            rows.push(row.map_err(|e| Failure::usage(format!("{e}; select the table's columns as they are")))?);
        }
    }
    Ok(rows)
}

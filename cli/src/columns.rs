//! Rows of queries and pins, for commands that hand them on to a library.

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::json::LineDelimitedWriter;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use serde_json::{Map, Value};
use webdancer_query::{PinManifest, QueryError, QueryOptions, pin};
use webdancer_schemas::column::JSON_MARK;
use webdancer_schemas::row::Row;

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
pub(crate) async fn rows<R: Row>(
    batches: impl Stream<Item = Result<RecordBatch, QueryError>>,
    bytes_max: u64,
) -> Result<Vec<R>, Failure> {
    let fields = R::fields();
    let json_columns: Vec<&str> = fields
        .iter()
        .filter(|field| field.metadata().contains_key(JSON_MARK))
        .map(|field| field.name().as_str())
        .collect();
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
            let row = match json_columns.is_empty() {
                true => serde_json::from_slice(line),
                false => with_values(line, &json_columns),
            };
            rows.push(row.map_err(|e| Failure::usage(format!("{e}; select the table's columns as they are")))?);
        }
    }
    Ok(rows)
}

/// A row whose columns of JSON are text, as in the table, and values in the row's type.
fn with_values<R: Row>(line: &[u8], json_columns: &[&str]) -> serde_json::Result<R> {
    let mut row: Map<String, Value> = serde_json::from_slice(line)?;
    for name in json_columns {
        if let Some(Value::String(text)) = row.get(*name)
            && let Ok(value) = serde_json::from_str(text)
        {
            row.insert((*name).to_string(), value);
        }
    }
    serde_json::from_value(Value::Object(row))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::stream;
    use webdancer_schemas::rows::Qa;

    use super::*;

    #[tokio::test]
    async fn json_that_a_table_holds_as_text_is_a_value_in_the_row() {
        let told = [Some("{\"answers\": [\"a\", \"b\"]}"), None, Some("no JSON")];
        let column = |texts: [Option<&str>; 3]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("qa_id", column([Some("q"); 3]), false),
            ("method", column([Some("import"); 3]), false),
            ("question", column([Some("?"); 3]), false),
            ("answer", column([Some("{\"a\": 1}"); 3]), false),
            ("attributes", column(told), true),
        ]);
        let rows: Vec<Qa> = rows(stream::iter([Ok(batch.unwrap())]), 1 << 20).await.unwrap();
        let attributes: Vec<Option<Value>> = rows.iter().map(|row| Some(row.attributes.clone()?.0)).collect();
        let answers = serde_json::json!({"answers": ["a", "b"]});
        assert_eq!(attributes, [Some(answers), None, Some(Value::from("no JSON"))]);
        // A column of text is text, whatever it looks like.
        assert!(rows.iter().all(|row| row.answer == "{\"a\": 1}"));
    }
}

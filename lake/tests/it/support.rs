//! Small tables of metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray as _, Float64Array, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt as _;
use webdancer_lake::append::Part;
use webdancer_lake::local::DurableLocal;
use webdancer_lake::location::Location;
use webdancer_lake::{Lake, LakeOptions, Table};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::table::table_schema;

use crate::fault_store::FaultStore;

pub(crate) fn lake(dir: &tempfile::TempDir) -> Lake {
    Lake::open(dir.path().to_str().unwrap(), LakeOptions::default()).unwrap()
}

/// A lake in a store that can be made to fail.
pub(crate) fn faulty(dir: &tempfile::TempDir, options: LakeOptions) -> (Arc<FaultStore>, Lake) {
    let store = FaultStore::new(Arc::new(DurableLocal::new()));
    let url = url::Url::from_directory_path(dir.path().canonicalize().unwrap()).unwrap();
    (store.clone(), Lake::with_location(Location::with_store(url, store).unwrap(), options))
}

/// The UUID text of a small number.
pub(crate) fn id(number: u64) -> String {
    format!("00000000-0000-7000-8000-{number:012x}")
}

/// Metric rows with these ids, in order; the row's step is the id's number, its offset `first_offset` onwards.
pub(crate) fn metrics(ids: &[u64], first_offset: i64) -> RecordBatch {
    let schema = table_schema(Kind::Metric);
    let n = ids.len();
    let mut parents = ListBuilder::new(StringBuilder::new()).with_field(arrow::datatypes::Field::new(
        "element",
        arrow::datatypes::DataType::Utf8,
        false,
    ));
    (0..n).for_each(|_| parents.append(true));
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            match field.name().as_str() {
                "event_id" => Arc::new(StringArray::from_iter_values(ids.iter().map(|i| id(*i)))),
                "event_time" => {
                    Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_000; n]).with_timezone("UTC"))
                }
                "source" | "log_topic" | "name" => Arc::new(StringArray::from(vec!["t"; n])),
                "parents" => Arc::new(parents.finish_cloned()),
                "log_partition" => Arc::new(Int32Array::from(vec![0; n])),
                "log_offset" => Arc::new(Int64Array::from_iter_values(first_offset..first_offset + n as i64)),
                "step" => Arc::new(Int64Array::from_iter_values(ids.iter().map(|i| *i as i64))),
                "value" => Arc::new(Float64Array::from(vec![0.5; n])),
                _ => new_null_array(field.data_type(), n),
            }
        })
        .collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

pub(crate) fn part(app_id: &str, from: Option<i64>, to: i64, ids: &[u64]) -> Part {
    let batches = if ids.is_empty() { Vec::new() } else { vec![metrics(ids, from.map_or(0, |f| f + 1))] };
    Part { app_id: app_id.into(), from, to, fingerprint: None, batches }
}

pub(crate) async fn writer(lake: &Lake) -> Table {
    lake.table_for_writing(Kind::Metric).await.unwrap()
}

/// How often each step shows in the table.
pub(crate) async fn steps(table: &Table) -> BTreeMap<i64, usize> {
    let context = datafusion::prelude::SessionContext::new();
    let frame = context.read_table(table.provider().await.unwrap()).unwrap();
    let batches: Vec<RecordBatch> =
        frame.select_columns(&["step"]).unwrap().execute_stream().await.unwrap().try_collect().await.unwrap();
    let mut counts = BTreeMap::new();
    for batch in batches {
        let column = batch.column(0).as_primitive::<Int64Type>();
        assert_eq!(column.null_count(), 0);
        for step in column.values() {
            *counts.entry(*step).or_default() += 1;
        }
    }
    counts
}

pub(crate) fn once(ids: impl IntoIterator<Item = i64>) -> BTreeMap<i64, usize> {
    ids.into_iter().map(|step| (step, 1)).collect()
}

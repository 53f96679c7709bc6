//! How event rows are laid out in Parquet files.

use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use buoyant_kernel::table_properties::DataSkippingNumIndexedCols;
use deltalake_core::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake_core::kernel::Add;
use object_store::ObjectStore;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use webdancer_schemas::table::EVENT_ID;

use crate::error::{Context as _, LakeError, Result};

/// Rows of a row group: small enough that one of 20 KB rows stays near 64 MiB of text before compression.
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Bytes of a row group, encoded.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Columns whose minimum and maximum go into the Delta log: ids, times and positions. Others, page texts above all,
/// would land in the log as well.
pub(crate) fn stats_columns(schema: &Schema) -> Vec<String> {
    let wanted = |name: &str| {
        name == "event_time"
            || name == "log_partition"
            || name == "log_offset"
            || name == "subject"
            || name.ends_with("_id")
    };
    schema.fields().iter().map(|f| f.name().clone()).filter(|name| wanted(name)).collect()
}

/// Parquet settings: zstd level 1, a Bloom filter for ids that are not time-ordered, no dictionary where values do not
/// repeat.
pub(crate) fn writer_properties(schema: &Schema) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_created_by(format!("webdancer {}", env!("CARGO_PKG_VERSION")))
        .set_column_bloom_filter_enabled(ColumnPath::from(EVENT_ID), true)
        .set_column_bloom_filter_fpp(ColumnPath::from(EVENT_ID), 0.01);
    for column in [EVENT_ID, "log_offset", "event_time"] {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
    }
    for field in schema.fields().iter().filter(|f| is_large_text(f.name())) {
        let mut path = vec![field.name().clone()];
        if matches!(field.data_type(), DataType::List(_)) {
            path.extend(["list".to_string(), "element".to_string()]);
        }
        properties = properties.set_column_dictionary_enabled(ColumnPath::new(path), false);
    }
    properties.build()
}

/// Columns of long text that does not repeat: building a dictionary for them is work thrown away.
pub(crate) fn is_large_text(name: &str) -> bool {
    matches!(
        name,
        "text" | "turn_thought" | "turn_observation" | "turn_observation_digest" | "turn_raw" | "raw" | "raw_sha256"
    )
}

/// Writes `batches` as data files of a table and returns the actions that add them.
pub(crate) async fn write(
    store: Arc<dyn ObjectStore>,
    table_schema: &SchemaRef,
    batches: &[RecordBatch],
    target_file_bytes: u64,
) -> Result<Vec<Add>> {
    let stats = stats_columns(table_schema);
    let config = WriterConfig::new(
        table_schema.clone(),
        Vec::new(),
        Some(writer_properties(table_schema)),
        NonZeroU64::new(target_file_bytes),
        None,
        DataSkippingNumIndexedCols::NumColumns(0),
        Some(stats),
    );
    let mut writer = DeltaWriter::new(store, config);
    for batch in batches {
        writer.write(&conform(table_schema, batch)?).await.context(|| "writing a data file".to_string())?;
    }
    writer.close().await.context(|| "writing a data file".to_string())
}

/// The batch with the table's columns: by name, in the table's order, null where this version has no such column.
pub(crate) fn conform(table_schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = table_schema
        .fields()
        .iter()
        .map(|field| -> Result<ArrayRef> {
            match batch.column_by_name(field.name()) {
                Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
                Some(column) => arrow::compute::cast(column, field.data_type())
                    .context(|| format!("column {} as {}", field.name(), field.data_type())),
                None if field.is_nullable() => Ok(new_null_array(field.data_type(), batch.num_rows())),
                None => Err(LakeError::Usage(format!("the table's column {} is required and missing", field.name()))),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(table_schema.clone(), columns).context(|| "fitting rows to the table".to_string())
}

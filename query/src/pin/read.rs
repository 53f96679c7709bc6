//! Reading the rows of a pin back, in their order.

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use webdancer_lake::pins::{PinFile, PinManifest};
use webdancer_schemas::digest::sha256_hex;

use crate::canonical::{canonical_batch, canonical_schema};
use crate::catalog::PinStore;
use crate::error::{QueryError, Result};
use crate::gated;
use crate::limits::QueryOptions;
use crate::output::{Format, Output, TableOptions};
use crate::pin::restricted::unrestricted;
use crate::session::QueryEngine;

/// The rows of a pin. Every file is checked against the manifest before its rows are given out; one file at a time is
/// held in memory.
///
/// # Errors
/// [`QueryError::Failed`] when a file is not what the manifest says.
pub fn read<'a>(store: &'a dyn PinStore, manifest: &'a PinManifest) -> impl Stream<Item = Result<RecordBatch>> + 'a {
    stream::iter(&manifest.files)
        .then(move |file| async move {
            let bytes = store.read_pin_file(&manifest.digest, &file.path).await?;
            if let Some(problem) = problem_of(file, &bytes) {
                return Err(QueryError::failed(format!("reading pin {}", manifest.name), problem));
            }
            Ok(stream::iter(batches(bytes)?))
        })
        .try_flatten()
}

/// The columns of a pin.
///
/// # Errors
/// When its first file cannot be read.
pub(super) async fn schema(store: &dyn PinStore, manifest: &PinManifest) -> Result<SchemaRef> {
    let file = manifest
        .files
        .first()
        .ok_or_else(|| QueryError::NotFound(format!("the manifest of pin {} names no file", manifest.name)))?;
    let bytes = store.read_pin_file(&manifest.digest, &file.path).await?;
    Ok(canonical_schema(ParquetRecordBatchReaderBuilder::try_new(bytes)?.schema()))
}

/// Checks that the rows of a pin tell which of them are of gated benchmarks, where any can be: else these cannot be left out.
///
/// # Errors
/// [`QueryError::Refused`] where they do not tell, or do not say so of what belongs to a gated question.
pub async fn check_open(engine: &QueryEngine, manifest: &PinManifest) -> Result<()> {
    let options = QueryOptions { restricted: false, ..QueryOptions::default() };
    // A name has letters, digits, and signs that mean nothing in a text of SQL.
    let sql = format!("SELECT 1 AS one FROM pin('{}') LIMIT 0", manifest.name);
    engine.query(&sql, &options).await?.read_all().await?;
    let schema = schema(engine.catalog(), manifest).await?;
    let Some(unsaid) = gated::unsaid(&schema, &format!("pin('{}')", manifest.name)) else { return Ok(()) };
    let rows = engine.query(&unsaid, &QueryOptions::default()).await?.read_all().await?;
    match rows.iter().map(RecordBatch::num_rows).sum::<usize>() {
        0 => Ok(()),
        count => Err(unsaid_of(manifest, count)),
    }
}

fn unsaid_of(manifest: &PinManifest, count: usize) -> QueryError {
    QueryError::Refused(format!(
        "{count} rows of pin {} are of gated questions and do not say so: pin it again without them, WHERE qa_id NOT IN \
         (SELECT qa_id FROM qa WHERE json_get_bool(attributes, 'restricted')), with the qa_id of `trajectories` where rows \
         have none",
        manifest.name
    ))
}

/// Writes the rows of a pin to one file in a [format](Format), those of gated benchmarks aside: how many these are is given
/// back with the writer.
///
/// # Errors
/// When a file is not what the manifest says, or the writer fails.
pub async fn export<W: Write + Send>(
    store: &dyn PinStore,
    manifest: &PinManifest,
    format: Format,
    writer: W,
) -> Result<(W, u64)> {
    let schema = schema(store, manifest).await?;
    let mut output = Output::new(format, schema, writer, TableOptions::default())?;
    let mut rows = std::pin::pin!(read(store, manifest));
    let mut left_out = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let shown = unrestricted(&batch)?;
        left_out += (batch.num_rows() - shown.num_rows()) as u64;
        output.write(&shown)?;
    }
    Ok((output.finish()?, left_out))
}

/// What is wrong with a file, if anything.
pub(super) fn problem_of(file: &PinFile, bytes: &Bytes) -> Option<String> {
    if bytes.len() as u64 != file.bytes {
        return Some(format!("{} has {} bytes, the manifest says {}", file.path, bytes.len(), file.bytes));
    }
    let sha256 = sha256_hex(bytes);
    (sha256 != file.sha256).then(|| format!("{} has SHA-256 {sha256}, the manifest says {}", file.path, file.sha256))
}

/// The rows of one Parquet file.
pub(super) fn batches(bytes: Bytes) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let reader: ParquetRecordBatchReader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
    let schema = canonical_schema(&Arc::new(reader_schema(&reader)));
    Ok(reader.map(move |batch| canonical_batch(&batch?, &schema)))
}

fn reader_schema(reader: &ParquetRecordBatchReader) -> arrow::datatypes::Schema {
    use arrow::array::RecordBatchReader as _;
    reader.schema().as_ref().clone()
}

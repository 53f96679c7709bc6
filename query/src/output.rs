//! Results as text or Parquet, written as they come.

mod table;

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use futures::StreamExt as _;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};

use crate::canonical::canonical_batch;
use crate::error::{QueryError, Result};
use crate::output::table::TableWriter;
use crate::stream::QueryResult;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns for people; long cells are cut.
    Table,
    /// RFC 4180 with a header; null is an empty field, lists and structs are JSON.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object per line.
    Ndjson,
    /// One Parquet file, zstd; intervals are text.
    Parquet,
}

impl Format {
    /// Every format, by the name that [`FromStr`] knows.
    pub const ALL: &'static [(&'static str, Format)] = &[
        ("table", Format::Table),
        ("csv", Format::Csv),
        ("json", Format::Json),
        ("ndjson", Format::Ndjson),
        ("parquet", Format::Parquet),
    ];
}

impl FromStr for Format {
    type Err = QueryError;
    fn from_str(name: &str) -> Result<Format> {
        Format::ALL.iter().find(|(known, _)| *known == name).map(|(_, format)| *format).ok_or_else(|| {
            let known: Vec<&str> = Format::ALL.iter().map(|(name, _)| *name).collect();
            QueryError::Sql(format!("unknown format {name:?}; known are {}", known.join(", ")))
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Format::ALL.iter().find(|(_, format)| format == self).map_or("", |(name, _)| *name))
    }
}

/// Settings of the table format.
#[derive(Debug, Clone, Copy)]
pub struct TableOptions {
    /// Columns on screen that one cell may take; longer ones end in `…`. Default 60.
    pub max_cell_width: usize,
    /// Rows looked at before the widths of columns are fixed. Default 1,000.
    pub sample_rows: usize,
    /// What a cell without a value shows. Default `null`.
    pub null: &'static str,
}

impl Default for TableOptions {
    fn default() -> TableOptions {
        TableOptions { max_cell_width: 60, sample_rows: 1_000, null: "null" }
    }
}

/// Writes batches in a format.
pub struct Output<W: Write + Send> {
    kind: Kind<Noting<W>>,
    failed: Arc<OnceLock<io::Error>>,
}

impl<W: Write + Send> fmt::Debug for Output<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

enum Kind<W: Write + Send> {
    Table(TableWriter<W>),
    Csv(Box<arrow::csv::Writer<W>>, SchemaRef),
    Json(Box<arrow::json::ArrayWriter<W>>),
    Ndjson(Box<arrow::json::LineDelimitedWriter<W>>),
    Parquet(Box<ArrowWriter<W>>, SchemaRef),
}

impl<W: Write + Send> Output<W> {
    /// An output of rows with these columns.
    ///
    /// # Errors
    /// When the format has no such columns.
    pub fn new(format: Format, schema: SchemaRef, writer: W, options: TableOptions) -> Result<Output<W>> {
        let failed = Arc::new(OnceLock::new());
        let writer = Noting { writer, failed: failed.clone() };
        let kind = Kind::new(format, schema, writer, options).map_err(|error| cause(&failed, error))?;
        Ok(Output { kind, failed })
    }

    /// Writes the rows of a batch.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.kind.write(batch).map_err(|error| cause(&self.failed, error))
    }

    /// Writes what is left and gives the writer back.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn finish(self) -> Result<W> {
        match self.kind.finish() {
            Ok(noting) => Ok(noting.writer),
            Err(error) => Err(cause(&self.failed, error)),
        }
    }
}

/// What the writer failed with, if it did: the libraries that lay out rows make errors of their own of it.
fn cause(failed: &OnceLock<io::Error>, error: QueryError) -> QueryError {
    failed.get().map_or(error, |cause| copy_of(cause).into())
}

fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// A writer that keeps its first failure.
struct Noting<W> {
    writer: W,
    failed: Arc<OnceLock<io::Error>>,
}

impl<W> Noting<W> {
    fn note<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &done
            && error.kind() != io::ErrorKind::Interrupted
        {
            // The first says why; what follows is its consequence.
            let _ = self.failed.set(copy_of(error));
        }
        done
    }
}

impl<W: Write> Write for Noting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.writer.write(bytes);
        self.note(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.writer.flush();
        self.note(done)
    }
}

impl<W: Write + Send> Kind<W> {
    fn new(format: Format, schema: SchemaRef, writer: W, options: TableOptions) -> Result<Kind<W>> {
        Ok(match format {
            Format::Table => Kind::Table(TableWriter::new(schema, writer, options)),
            Format::Csv => {
                let flat = flat_schema(&schema);
                let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(writer);
                // The header is written with the first batch, which may never come.
                writer.write(&RecordBatch::new_empty(flat.clone()))?;
                Kind::Csv(Box::new(writer), flat)
            }
            Format::Json => {
                Kind::Json(Box::new(arrow::json::WriterBuilder::new().with_explicit_nulls(true).build(writer)))
            }
            Format::Ndjson => {
                Kind::Ndjson(Box::new(arrow::json::WriterBuilder::new().with_explicit_nulls(true).build(writer)))
            }
            Format::Parquet => {
                let known = schema_without_intervals(&schema);
                Kind::Parquet(Box::new(ArrowWriter::try_new(writer, known.clone(), Some(parquet_properties()))?), known)
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Kind::Table(writer) => writer.write(batch)?,
            Kind::Csv(writer, flat) => writer.write(&flatten(batch, flat)?)?,
            Kind::Json(writer) => writer.write(batch)?,
            Kind::Ndjson(writer) => writer.write(batch)?,
            Kind::Parquet(writer, known) => writer.write(&canonical_batch(batch, known)?)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<W> {
        let mut writer = match self {
            Kind::Table(writer) => writer.finish()?,
            Kind::Csv(writer, _) => writer.into_inner(),
            Kind::Json(mut writer) => {
                writer.finish()?;
                let mut inner = writer.into_inner();
                inner.write_all(b"\n")?;
                inner
            }
            Kind::Ndjson(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
            Kind::Parquet(writer, _) => writer.into_inner()?,
        };
        writer.flush()?;
        Ok(writer)
    }
}

/// Writes a whole result. Its [`rows`](QueryResult::rows) and [`truncated`](QueryResult::truncated) tell the rest.
///
/// # Errors
/// The first error of the query or of the writer.
pub async fn write_result<W: Write + Send>(
    result: &mut QueryResult,
    format: Format,
    writer: W,
    options: TableOptions,
) -> Result<W> {
    let mut output = Output::new(format, result.schema(), writer, options)?;
    while let Some(batch) = result.next().await {
        output.write(&batch?)?;
    }
    output.finish()
}

/// Rows as JSON objects by column, as [`Format::Json`] writes them: what is null is there as null.
///
/// # Errors
/// When the format has no such columns.
pub fn objects(batches: &[RecordBatch]) -> Result<Vec<Map<String, Value>>> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let mut output = Output::new(Format::Json, first.schema(), Vec::new(), TableOptions::default())?;
    batches.iter().try_for_each(|batch| output.write(batch))?;
    serde_json::from_slice(&output.finish()?).map_err(|error| QueryError::failed("reading rows as JSON", error))
}

/// Properties of every Parquet file written here; fixed, so that the same rows give the same bytes.
pub(crate) fn parquet_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by("webdancer".to_string())
        .set_max_row_group_bytes(Some(64 << 20))
        .build()
}

/// Parquet has no intervals of months, days and nanoseconds: they are text, as in the other formats.
fn schema_without_intervals(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(field_without_intervals);
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

fn field_without_intervals(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Interval(_) => DataType::Utf8,
        DataType::List(element) => DataType::List(field_without_intervals(element)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field_without_intervals).collect()),
        other => other.clone(),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

fn is_nested(data_type: &DataType) -> bool {
    data_type.is_nested()
}

fn flat_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let data_type = if is_nested(field.data_type()) { DataType::Utf8 } else { field.data_type().clone() };
        Field::new(field.name(), data_type, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Lists and structs as JSON text.
fn flatten(batch: &RecordBatch, flat: &SchemaRef) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .map(|column| if is_nested(column.data_type()) { json_text(column) } else { Ok(column.clone()) })
        .collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(flat.clone(), columns, &options)?)
}

/// A column of any type as the JSON text of its values; null stays null.
fn json_text(column: &ArrayRef) -> Result<ArrayRef> {
    let field = Field::new("v", column.data_type().clone(), true);
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column.clone()])?;
    let mut writer: arrow::json::LineDelimitedWriter<Vec<u8>> =
        arrow::json::WriterBuilder::new().with_explicit_nulls(true).build(Vec::new());
    writer.write(&batch)?;
    writer.finish()?;
    let text = String::from_utf8(writer.into_inner()).map_err(|error| QueryError::failed("writing JSON", error))?;
    let values: StringArray = text
        .lines()
        .enumerate()
        .map(|(row, line)| if column.is_null(row) { None } else { line.strip_prefix("{\"v\":")?.strip_suffix('}') })
        .collect();
    Ok(Arc::new(values))
}

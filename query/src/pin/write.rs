//! The rows of a pin as Parquet files of bounded size, row groups encoded side by side.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::file::writer::SerializedFileWriter;
use tokio::task::JoinHandle;

use crate::error::{QueryError, Result};
use crate::output::parquet_properties;

/// Bytes of a row group in memory.
const GROUP_BYTES: usize = 64 << 20;
/// Row groups encoded at the same time, at most.
const MAX_ENCODING: usize = 4;

/// Where to write the rows of a result, on local disk.
#[derive(Debug, Clone)]
pub(super) struct Writing {
    pub(super) folder: PathBuf,
    /// Files are closed at about this size.
    pub(super) file_bytes: usize,
    /// Row groups to encode at the same time.
    pub(super) threads: usize,
}

/// A Parquet file on local disk.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) rows: u64,
}

/// Writes the batches of a result, in order.
pub(super) struct PartsWriter {
    writing: Writing,
    schema: SchemaRef,
    encoder: Arc<ArrowRowGroupWriterFactory>,
    group: Vec<RecordBatch>,
    group_bytes: usize,
    encoding: VecDeque<JoinHandle<Result<Group>>>,
    files: Files,
}

/// A row group ready to be appended to a file.
struct Group {
    columns: Vec<ArrowColumnChunk>,
    rows: u64,
}

#[derive(Default)]
struct Files {
    open: Option<(SerializedFileWriter<File>, Part)>,
    closed: Vec<Part>,
}

impl PartsWriter {
    pub(super) fn new(writing: Writing, schema: SchemaRef) -> Result<PartsWriter> {
        let nowhere = ArrowWriter::try_new(std::io::sink(), schema.clone(), Some(parquet_properties()))?;
        let (_, encoder) = nowhere.into_serialized_writer()?;
        Ok(PartsWriter {
            writing,
            schema,
            encoder: Arc::new(encoder),
            group: Vec::new(),
            group_bytes: 0,
            encoding: VecDeque::new(),
            files: Files::default(),
        })
    }

    /// Writes a batch.
    pub(super) async fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let group_bytes = GROUP_BYTES.min(self.writing.file_bytes);
        let pieces = batch.get_array_memory_size().div_ceil(group_bytes).max(1);
        let piece_rows = batch.num_rows().div_ceil(pieces).max(1);
        for start in (0..batch.num_rows()).step_by(piece_rows) {
            let piece = batch.slice(start, piece_rows.min(batch.num_rows() - start));
            self.group_bytes += batch.get_array_memory_size() / pieces;
            self.group.push(piece);
            if self.group_bytes >= group_bytes {
                self.encode().await?;
            }
        }
        Ok(())
    }

    /// Closes the last file; there is one even without rows.
    pub(super) async fn finish(mut self) -> Result<Vec<Part>> {
        if !self.group.is_empty() {
            self.encode().await?;
        }
        while !self.encoding.is_empty() {
            self.append().await?;
        }
        if self.files.open.is_none() && self.files.closed.is_empty() {
            self.files.open = Some(open(&self.writing, &self.schema, 0)?);
        }
        self.files.close()?;
        Ok(self.files.closed)
    }

    /// Starts to encode the row group that was gathered.
    async fn encode(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.group);
        self.group_bytes = 0;
        let (encoder, schema) = (self.encoder.clone(), self.schema.clone());
        self.encoding.push_back(tokio::task::spawn_blocking(move || encode(&encoder, &schema, &batches)));
        if self.encoding.len() > self.writing.threads.clamp(1, MAX_ENCODING) {
            self.append().await?;
        }
        Ok(())
    }

    /// Appends the row group that was started first, when it is ready.
    async fn append(&mut self) -> Result<()> {
        let Some(encoded) = self.encoding.pop_front() else { return Ok(()) };
        let failed = |error| QueryError::failed("writing the pin's files", error);
        let group = encoded.await.map_err(failed)??;
        let (writing, schema) = (self.writing.clone(), self.schema.clone());
        let mut files = std::mem::take(&mut self.files);
        let appending = tokio::task::spawn_blocking(move || {
            files.append(group, &writing, &schema)?;
            Ok::<_, QueryError>(files)
        });
        self.files = appending.await.map_err(failed)??;
        Ok(())
    }
}

fn encode(encoder: &ArrowRowGroupWriterFactory, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Group> {
    let mut writers = encoder.create_column_writers(0)?;
    let mut rows = 0;
    for batch in batches {
        rows += batch.num_rows() as u64;
        let mut leaves = writers.iter_mut();
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, column)? {
                if let Some(writer) = leaves.next() {
                    writer.write(&leaf)?;
                }
            }
        }
    }
    let columns = writers.into_iter().map(|writer| writer.close()).collect::<Result<Vec<_>, _>>()?;
    Ok(Group { columns, rows })
}

impl Files {
    fn append(&mut self, group: Group, writing: &Writing, schema: &SchemaRef) -> Result<()> {
        let (mut file, mut part) = match self.open.take() {
            Some(open) => open,
            None => open(writing, schema, self.closed.len())?,
        };
        let mut row_group = file.next_row_group()?;
        for column in group.columns {
            column.append_to_row_group(&mut row_group)?;
        }
        row_group.close()?;
        part.rows += group.rows;
        let full = file.bytes_written() >= writing.file_bytes;
        self.open = Some((file, part));
        if full { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<()> {
        if let Some((file, part)) = self.open.take() {
            file.close()?;
            self.closed.push(part);
        }
        Ok(())
    }
}

fn open(writing: &Writing, schema: &SchemaRef, index: usize) -> Result<(SerializedFileWriter<File>, Part)> {
    let path = writing.folder.join(format!("part-{index:05}.parquet"));
    let file = ArrowWriter::try_new(File::create(&path)?, schema.clone(), Some(parquet_properties()))?;
    Ok((file.into_serialized_writer()?.0, Part { path, rows: 0 }))
}

//! Draining the embedded log.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use webdancer_schemas::wire::parse_structured;

use super::appender::{Tail, lock_file};
use super::segment::{self, HEADER, io_error};
use super::{EmbeddedLog, TOPIC};
use crate::error::{IngestError, Result};
use crate::source::{Budget, Record, SourceEvent, Start, TopicPartition};

/// How often a drain that goes on looks for new records.
const POLL: Duration = Duration::from_millis(50);
/// Records are handed over in batches of about this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// The embedded log as a source of records.
#[derive(Debug)]
pub struct EmbeddedSource {
    folder: PathBuf,
    tail: Tail,
    /// The position that the last read ended at: a group begins there.
    group_start: Option<u64>,
    /// Held while draining: one drainer at a time.
    _lock: File,
}

impl EmbeddedSource {
    /// Becomes the drainer of the log.
    ///
    /// # Errors
    /// [`IngestError::Unavailable`] when another process drains it for longer than `patience`.
    pub async fn open(log: &EmbeddedLog, patience: Duration) -> Result<EmbeddedSource> {
        let folder = log.folder().to_path_buf();
        let lock = lock_file(&folder, "drain.lock")?;
        let deadline = tokio::time::Instant::now() + patience;
        while lock.try_lock().is_err() {
            if tokio::time::Instant::now() >= deadline {
                return Err(IngestError::Unavailable(format!(
                    "another process is draining the log in {}; try again when it is done",
                    folder.display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(EmbeddedSource { tail: Tail::open(&folder)?, folder, group_start: None, _lock: lock })
    }

    /// The log's one partition.
    pub fn partition() -> TopicPartition {
        TopicPartition { topic: Arc::from(TOPIC), partition: 0 }
    }

    /// Hands over records from the start that the loop names; returns at the end of the log, or never if `follow`.
    pub async fn run(
        mut self,
        events: mpsc::Sender<SourceEvent>,
        budget: Arc<Budget>,
        max_buffer_bytes: usize,
        follow: bool,
    ) -> Result<()> {
        let partition = EmbeddedSource::partition();
        let (reply, answer) = oneshot::channel();
        let gone = |_| IngestError::Unavailable("the commit loop has ended".to_string());
        let assigned = SourceEvent::Assigned { partitions: vec![(partition.clone(), None)], reply };
        events.send(assigned).await.map_err(|_| gone(()))?;
        let starts: HashMap<TopicPartition, Start> = answer.await.map_err(|_| gone(()))?;
        let mut position = match starts.get(&partition) {
            Some(Start::At(position)) => u64::try_from(*position).unwrap_or(0),
            _ => super::draining::hint(&self.folder),
        };
        let mut told_end = None;
        let end = self.durable_end()?;
        if position > end {
            return Err(IngestError::Fatal(shorter(&self.folder, end, position)));
        }
        loop {
            let end = self.durable_end()?;
            if told_end != Some(end) {
                let lag = SourceEvent::Lag { partition: partition.clone(), end: end as i64 };
                events.send(lag).await.map_err(|_| gone(()))?;
            }
            while position < end {
                let (records, next, bytes) = read(&self.folder, position, end, self.group_start == Some(position))?;
                self.group_start = Some(next);
                while budget.used() > max_buffer_bytes {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    if events.is_closed() {
                        return Err(gone(()));
                    }
                }
                position = next;
                if !records.is_empty() {
                    let records =
                        SourceEvent::Records { partition: partition.clone(), records, budget: budget.take(bytes) };
                    events.send(records).await.map_err(|_| gone(()))?;
                }
            }
            if told_end != Some(end) || !follow {
                told_end = Some(end);
                events.send(SourceEvent::CaughtUp).await.map_err(|_| gone(()))?;
            }
            if !follow {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The end of what is on disk for sure: the torn end of a crashed writer is cut off, the rest synced.
    fn durable_end(&mut self) -> Result<u64> {
        let _lock = self.tail.lock()?;
        self.tail.find_end(u64::MAX)?;
        Ok(self.tail.position())
    }
}

/// Records from `position` on, about [`BATCH_BYTES`]; the position after them; their bytes.
fn read(folder: &Path, position: u64, end: u64, at_group: bool) -> Result<(Vec<Record>, u64, usize)> {
    let segments = segment::list(folder)?;
    let index = segments.partition_point(|(base, _)| *base <= position);
    // A position before the first segment was drained and deleted: go on at the first there is.
    let Some((base, path)) = segments.get(index.saturating_sub(1)) else { return Ok((Vec::new(), end, 0)) };
    let segment_end = segments.get(index).map_or(end, |(next, _)| *next);
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Drained and deleted since it was listed: go on with what comes after it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), segment_end, 0)),
        Err(error) => return Err(io_error("opening", path)(error)),
    };
    let file_end = file.metadata().map_err(io_error("reading", path))?.len().min(segment_end - base);
    let wanted = position.saturating_sub(*base).max(HEADER);
    // A position may lie inside a group: groups are found from the segment's beginning.
    let mut offset = if at_group { wanted } else { HEADER };
    let (mut records, mut bytes) = (Vec::new(), 0);
    while offset < file_end && bytes < BATCH_BYTES {
        let group = segment::read_group(&mut file, offset, file_end).map_err(io_error("reading", path))?;
        let Some(group) = group else {
            return Err(IngestError::Fatal(format!(
                "{} is damaged at byte {offset}: restore it; the events from there on are not in the tables yet",
                path.display()
            )));
        };
        for (at, record) in group.records.into_iter().filter(|(at, _)| offset + at >= wanted) {
            bytes += record.len();
            records.push(as_record((base + offset + at) as i64, group.timestamp_ms, record));
        }
        offset += group.bytes;
    }
    let next = if offset >= file_end { segment_end } else { base + offset };
    Ok((records, next, bytes))
}

/// The message for a log that ends before what was drained of it.
pub(crate) fn shorter(folder: &Path, end: u64, position: u64) -> String {
    format!(
        "the log in {} ends at {end}, and {position} is in the tables: it is an older copy, or the tables are of another \
         log. Events appended to it now would be taken for old ones. Move the folder away: a new log takes its place",
        folder.display()
    )
}

/// Whether another drainer has everything in the tables that is in the log now, or has within `patience`.
///
/// # Errors
/// When the log cannot be read.
pub async fn caught_up(log: &EmbeddedLog, patience: Duration) -> Result<bool> {
    let folder = log.folder();
    let mut tail = Tail::open(folder)?;
    let lock = tail.lock()?;
    tail.find_end(u64::MAX)?;
    let end = tail.position();
    drop(lock);
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let mut position = super::draining::hint(folder);
        let mut waiting = false;
        while position < end && !waiting {
            let (records, next, _) = read(folder, position, end, false)?;
            waiting = !records.is_empty();
            position = next;
        }
        if !waiting || tokio::time::Instant::now() >= deadline {
            return Ok(!waiting);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Deletes the segments that lie wholly before `position`; the newest one stays.
pub(crate) fn delete_before(folder: &Path, position: u64) -> Result<usize> {
    let segments = segment::list(folder)?;
    let mut deleted = 0;
    for pair in segments.windows(2) {
        if let [(_, path), (next, _)] = pair
            && *next <= position
        {
            std::fs::remove_file(path).map_err(io_error("deleting drained segment", path))?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

fn as_record(offset: i64, timestamp_ms: i64, bytes: Bytes) -> Record {
    match parse_structured(&bytes) {
        Ok((envelope, data)) => {
            let payload = bytes.slice_ref(data.get().as_bytes());
            Record { offset, timestamp_ms, envelope: Ok(envelope), payload }
        }
        Err(rejection) => Record { offset, timestamp_ms, envelope: Err(rejection), payload: bytes },
    }
}

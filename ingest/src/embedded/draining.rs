//! The embedded log into the tables.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use webdancer_lake::Lake;

use super::drained::Note;
use super::segment::io_error;
use super::tables::Tables;
use super::{EmbeddedLog, EmbeddedSource, reader};
use crate::drain::{Carries, Commit, Drain, DrainObserver, DrainOptions, DrainReport, Until};
use crate::error::Result;
use crate::source::{Budget, TopicPartition};

/// Drains `log` into `lake`: to its present end, or until `stop` resolves.
///
/// Records of a table that cannot be opened stay in the log, and the report says so; the drain then ends when it has
/// caught up, in any case.
///
/// # Errors
/// When another process is draining for longer than `patience`, or whatever stopped the drain; nothing is lost.
/// [`IngestError::Fatal`](crate::IngestError::Fatal) when the log is an older copy of the one that the tables were
/// drained from; see [`accept_older_log`].
pub async fn drain(
    lake: &Lake,
    log: &EmbeddedLog,
    options: DrainOptions,
    until: Until,
    patience: Duration,
    observer: &mut dyn DrainObserver,
    stop: impl Future<Output = ()>,
) -> Result<DrainReport> {
    let mut source = EmbeddedSource::open(log, patience).await?;
    let _lock = source.lock();
    let budget = Arc::new(Budget::default());
    let (events, received) = mpsc::channel(16);
    let follow = until == Until::Stopped;
    let max_buffer_bytes = options.max_buffer_bytes;
    let tables = Tables::look_up(lake, log.cluster()).await?;
    if let Some(why) = source.older_copy(&tables)? {
        return Err(reader::is_older_copy(log.folder(), &why));
    }
    let note = source.find_start(&tables)?;
    let mut keeper = Keeper { folder: log.folder().to_path_buf(), note, boundaries: source.boundaries(), observer };
    let drain = Drain::new(lake.clone(), log.cluster(), Carries::All, options, &mut keeper).holding_back(tables.closed);
    let draining = drain.run(received, until, stop);
    let reading = source.run(events, budget, max_buffer_bytes, follow);
    tokio::pin!(draining, reading);
    tokio::select! {
        report = &mut draining => report,
        // The source's own end is the loop's to notice; its failure is the cause worth telling.
        read = &mut reading => match read {
            Ok(()) => draining.await,
            Err(error) => Err(error),
        },
    }
}

/// Takes up a log that is an older copy of the one that the tables were drained from; whether it was one.
///
/// It becomes a log of its own: the next drain reads all that it holds, and leaves out what the tables have, by the
/// events' ids. Records that are no events become dead letters once more. Processes that have it open append no more and
/// say that it was replaced: `log` is one of them, open it again.
///
/// # Errors
/// When another process is draining for longer than `patience`, or the log or the tables cannot be read.
pub async fn accept_older_log(lake: &Lake, log: &EmbeddedLog, patience: Duration) -> Result<bool> {
    let source = EmbeddedSource::open(log, patience).await?;
    let tables = Tables::look_up(lake, log.cluster()).await?;
    let Some(why) = source.older_copy(&tables)? else { return Ok(false) };
    tracing::warn!(folder = %log.folder().display(), why, "taking up an older copy of the log as a log of its own");
    source.renew()?;
    Ok(true)
}

/// Where groups begin behind the records that were read: what is drained is noted only up to such a place, so that
/// reading can go on there.
#[derive(Debug, Default)]
pub(super) struct Boundaries {
    /// One past the last record before it, and the position.
    ahead: Mutex<VecDeque<(i64, u64)>>,
}

impl Boundaries {
    /// Takes note that a group begins at `position` and that `last` is the last record before it.
    pub(super) fn push(&self, last: i64, position: u64) {
        self.ahead.lock().push_back((last + 1, position));
    }

    /// The last boundary that was reached when every record before `next` is in the tables; each is told once.
    fn reached(&self, next: i64) -> Option<u64> {
        let mut ahead = self.ahead.lock();
        let count = ahead.partition_point(|(after, _)| *after <= next);
        ahead.drain(..count).next_back().map(|(_, position)| position)
    }
}

/// Notes beside the log how far it is drained, and deletes what is.
struct Keeper<'a> {
    folder: PathBuf,
    note: Note,
    boundaries: Arc<Boundaries>,
    observer: &'a mut dyn DrainObserver,
}

impl DrainObserver for Keeper<'_> {
    fn committed(&mut self, commit: &Commit) {
        for (_, position) in &commit.positions {
            self.note.tables.insert(commit.kind, *position);
        }
        self.observer.committed(commit);
    }

    fn durable(&mut self, partition: &TopicPartition, next: i64) {
        if let Some(position) = self.boundaries.reached(next) {
            self.note.position = position;
            if let Err(error) = self.keep() {
                tracing::warn!(folder = %self.folder.display(), %error, "what is drained could not be noted");
            }
        }
        self.observer.durable(partition, next);
    }

    fn end(&mut self, partition: &TopicPartition, end: i64) {
        self.observer.end(partition, end);
    }
}

impl Keeper<'_> {
    fn keep(&self) -> Result<()> {
        self.note.write(&self.folder).map_err(io_error("noting what is drained in", &self.folder))?;
        reader::delete_before(&self.folder, self.note.position)?;
        Ok(())
    }
}

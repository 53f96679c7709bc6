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
use super::{EmbeddedLog, EmbeddedSource, reader};
use crate::drain::{Carries, Commit, Drain, DrainObserver, DrainOptions, DrainReport, Until};
use crate::error::Result;
use crate::source::{Budget, TopicPartition};

/// Drains `log` into `lake`: to its present end, or until `stop` resolves.
///
/// # Errors
/// When another process is draining for longer than `patience`, or whatever stopped the drain; nothing is lost.
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
    let note = source.find_start(lake, log.cluster()).await?;
    let mut keeper = Keeper { folder: log.folder().to_path_buf(), note, boundaries: source.boundaries(), observer };
    let drain = Drain::new(lake.clone(), log.cluster(), Carries::All, options, &mut keeper);
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

//! The embedded log into the tables.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use webdancer_lake::Lake;

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
    let source = EmbeddedSource::open(log, patience).await?;
    let _lock = source.lock();
    let budget = Arc::new(Budget::default());
    let (events, received) = mpsc::channel(16);
    let follow = until == Until::Stopped;
    let max_buffer_bytes = options.max_buffer_bytes;
    let mut keeper = Keeper { folder: log.folder().to_path_buf(), boundaries: source.boundaries(), observer };
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

/// Remembers beside the log how far it is drained, and deletes what is.
///
/// The file is a hint that saves reading: losing it costs time, and what it says was committed before it was written.
struct Keeper<'a> {
    folder: PathBuf,
    boundaries: Arc<Boundaries>,
    observer: &'a mut dyn DrainObserver,
}

impl DrainObserver for Keeper<'_> {
    fn committed(&mut self, commit: &Commit) {
        self.observer.committed(commit);
    }

    fn durable(&mut self, partition: &TopicPartition, next: i64) {
        if let Some(position) = self.boundaries.reached(next)
            && let Err(error) = keep(&self.folder, position)
        {
            tracing::warn!(folder = %self.folder.display(), %error, "what is drained could not be noted");
        }
        self.observer.durable(partition, next);
    }

    fn end(&mut self, partition: &TopicPartition, end: i64) {
        self.observer.end(partition, end);
    }
}

fn keep(folder: &Path, position: u64) -> Result<()> {
    let path = hint_path(folder);
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, position.to_string())
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(|source| crate::error::IngestError::Io { what: format!("writing {}", path.display()), source })?;
    reader::delete_before(folder, position)?;
    Ok(())
}

fn hint_path(folder: &Path) -> PathBuf {
    folder.join("drained")
}

/// The position before which everything is in the tables, as far as is noted.
pub(super) fn hint(folder: &Path) -> u64 {
    std::fs::read_to_string(hint_path(folder)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

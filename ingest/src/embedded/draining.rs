//! The embedded log into the tables.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
    let budget = Arc::new(Budget::default());
    let (events, received) = mpsc::channel(16);
    let follow = until == Until::Stopped;
    let max_buffer_bytes = options.max_buffer_bytes;
    let mut keeper = Keeper { folder: log.folder().to_path_buf(), written: 0, observer };
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

/// Remembers beside the log how far it is drained, and deletes what is.
///
/// The file is a hint that saves reading: losing it costs time, and what it says was committed before it was written.
struct Keeper<'a> {
    folder: PathBuf,
    written: i64,
    observer: &'a mut dyn DrainObserver,
}

impl DrainObserver for Keeper<'_> {
    fn committed(&mut self, commit: &Commit) {
        self.observer.committed(commit);
    }

    fn durable(&mut self, partition: &TopicPartition, next: i64) {
        if next > self.written {
            self.written = next;
            if let Err(error) = keep(&self.folder, next) {
                tracing::warn!(folder = %self.folder.display(), %error, "what is drained could not be noted");
            }
        }
        self.observer.durable(partition, next);
    }

    fn end(&mut self, partition: &TopicPartition, end: i64) {
        self.observer.end(partition, end);
    }
}

fn keep(folder: &Path, next: i64) -> Result<()> {
    let path = hint_path(folder);
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, next.to_string())
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(|source| crate::error::IngestError::Io { what: format!("writing {}", path.display()), source })?;
    reader::delete_before(folder, u64::try_from(next).unwrap_or(0))?;
    Ok(())
}

fn hint_path(folder: &Path) -> PathBuf {
    folder.join("drained")
}

/// The position before which everything is in the tables, as far as is noted.
pub(super) fn hint(folder: &Path) -> u64 {
    std::fs::read_to_string(hint_path(folder)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

//! The event log without a broker: segment files on local disk.
//!
//! Any number of processes append. Each has one writer thread that gathers what its producers offer into a group,
//! writes the group under the log's append lock, syncs, and acknowledges: one fsync for all that waited. A group has one
//! checksum, and the lock is held until it is on disk, so that at most the last group of a segment can be torn; whoever
//! takes the lock next cuts it off. Positions are byte positions in the endless sequence of segments.
//!
//! Only what is known to be on disk is drained: a position in a table never lies beyond the log.
//!
//! # What is read again, and what is not
//!
//! A log may hold gigabytes, and each command opens it. Three things keep the cost of that to what is new, and nothing
//! that matters rests on them:
//!
//! - *In a process*, the end that was found is remembered. As long as the last segment is the same and as long as it
//!   was, nothing is read.
//! - *Between processes*, a note (`checked`) says up to where the log is whole. It is written after that part was
//!   synced, under the append lock, by one who wrote or read every group since the note before. So what is before the
//!   note was on disk before the note was, and a crash or power cut can have torn only what is behind it: the checksums
//!   from there on find a torn end as those of the whole segment would. Damage before the note (a disk that loses what
//!   it had synced) is not seen by opening the log. It is seen by the drain, which reads the checksum of every group
//!   that is not in the tables yet; what is in the tables is not needed any more.
//! - *The drain* notes (`drained`) the position before which everything is in the tables, always one where a group
//!   begins, and the position that each table had then. It goes on reading there if no table has less. The tables' own
//!   positions decide: one that was restored from an older copy is read on from where it is, and what the log no longer
//!   holds of that is a gap. And they tell whether the log is the one that they were drained from: what they have is
//!   looked up in it before anything is read ([`tables`]).
//!
//! What is synced is never taken from a note: opening the log syncs its last segment, whatever is written about it.

mod appender;
mod checked;
mod drained;
mod draining;
mod lock;
mod reader;
mod segment;
mod tables;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use webdancer_lake::Lake;
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog, LogError};
use webdancer_schemas::wire::{size, structured};

use crate::error::{IngestError, Result};

pub use draining::{accept_older_log, drain};
pub use reader::{EmbeddedSource, caught_up, undrained};

/// Name that the embedded log's one partition goes by.
pub const TOPIC: &str = "embedded";

/// Settings of the embedded log.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Largest event, in bytes as [`size`] counts them.
    pub max_event_bytes: usize,
    /// Largest dead letter: events above the limit are kept up to this size.
    pub max_dead_letter_bytes: usize,
    /// Most bytes written and synced as one group; what waits beyond that waits for the next.
    pub max_group_bytes: usize,
    /// A segment is closed when it is this large; drained ones are deleted whole.
    pub segment_bytes: u64,
    /// How long the append lock is waited for: that of another process's group being written and synced, which takes
    /// milliseconds.
    pub lock_timeout: Duration,
}

impl Default for EmbeddedOptions {
    fn default() -> EmbeddedOptions {
        EmbeddedOptions {
            max_event_bytes: 16 << 20,
            max_dead_letter_bytes: 96 << 20,
            max_group_bytes: 8 << 20,
            segment_bytes: 64 << 20,
            lock_timeout: Duration::from_secs(30),
        }
    }
}

/// The embedded log of a lake. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EmbeddedLog {
    folder: PathBuf,
    options: EmbeddedOptions,
    appender: Arc<appender::Appender>,
}

impl EmbeddedLog {
    /// Where the log of `lake` lies: in its folder, or, when the lake is on an object store, in a state folder of this
    /// machine named after the lake's id.
    ///
    /// # Errors
    /// When the lake does not answer, or no state folder can be told.
    pub async fn folder_of(lake: &Lake, state_folder: Option<&Path>) -> Result<PathBuf> {
        match lake.local_path() {
            Some(path) => Ok(path.join("log")),
            None => state_folder_of(&lake.lake_id().await?, state_folder),
        }
    }

    /// Where the log of `lake` lies, if there is one on this machine. Writes nothing.
    ///
    /// # Errors
    /// See [`folder_of`](Self::folder_of).
    pub async fn existing_folder_of(lake: &Lake, state_folder: Option<&Path>) -> Result<Option<PathBuf>> {
        let folder = match lake.local_path() {
            Some(path) => path.join("log"),
            None => match lake.existing_id().await? {
                Some(id) => state_folder_of(&id, state_folder)?,
                None => return Ok(None),
            },
        };
        Ok(folder.is_dir().then_some(folder))
    }

    /// Opens or makes the log in `folder`. Blocks: it takes the append lock and reads the end of the last segment.
    ///
    /// # Errors
    /// When the folder cannot be used, a segment is damaged before its end, or another process holds the lock for
    /// longer than [`lock_timeout`](EmbeddedOptions::lock_timeout).
    pub fn open(folder: &Path, options: EmbeddedOptions) -> Result<EmbeddedLog> {
        let appender = Arc::new(appender::Appender::start(folder, &options)?);
        Ok(EmbeddedLog { folder: folder.to_path_buf(), options, appender })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Names the log in app ids: `embedded:<id of the log>`.
    pub fn cluster(&self) -> &str {
        self.appender.cluster()
    }

    fn limit_of(&self, kind: Kind) -> usize {
        if kind == Kind::DeadLetter {
            self.options.max_dead_letter_bytes.max(self.options.max_event_bytes)
        } else {
            self.options.max_event_bytes
        }
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    async fn append(&self, events: Vec<Event>) -> std::result::Result<(), LogError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut records = Vec::with_capacity(events.len());
        for event in &events {
            let (bytes, limit) = (size(event), self.limit_of(event.kind()));
            if bytes > limit {
                return Err(LogError::TooLarge { id: event.id().to_string(), bytes, limit });
            }
            records.push(structured(event));
        }
        self.appender.append(records).await
    }
}

fn state_folder_of(lake_id: &str, state_folder: Option<&Path>) -> Result<PathBuf> {
    let state = match state_folder {
        Some(folder) => folder.to_path_buf(),
        None => user_state_folder().ok_or_else(|| {
            IngestError::Usage(
                "a lake on an object store keeps its embedded log in a state folder: set log.state_folder, or HOME"
                    .to_string(),
            )
        })?,
    };
    Ok(state.join(lake_id).join("log"))
}

/// Where this user's state of webdancer lies: `$XDG_STATE_HOME/webdancer`, else `~/.local/state/webdancer`. None without
/// a home.
pub fn user_state_folder() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state")))?;
    Some(state.join("webdancer"))
}

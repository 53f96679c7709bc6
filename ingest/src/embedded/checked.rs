//! The note of how far a log was found whole and on disk, so that opening it reads only what came after.
//!
//! The file `checked` holds the log's id and a position where a group begins. It is written under the append lock, by
//! whoever has just synced what is before that position. So when the note is there, so is what it speaks of, also
//! after a power cut; losing the note costs reading, and it is itself not synced. It is a hint: one that is of another
//! log, lies beyond the end (the segment is an older copy) or points where no group begins is not followed.

use std::fs;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// Notes are written when so much was appended since the last: what an opening reads again at most, but for one group.
pub(super) const NOTE_BYTES: u64 = 1 << 20;

/// The position up to which the log `log` is known to be whole; 0 if nothing is known.
pub(super) fn read(folder: &Path, log: Uuid) -> u64 {
    let noted = || {
        let text = fs::read_to_string(path(folder)).ok()?;
        let (id, position) = text.trim().split_once(' ')?;
        (id.parse() == Ok(log)).then(|| position.parse().ok())?
    };
    noted().unwrap_or(0)
}

/// Notes that the log is whole and on disk up to `position`. Under the append lock.
pub(super) fn write(folder: &Path, log: Uuid, position: u64) -> std::io::Result<()> {
    let temporary = folder.join("checked.tmp");
    fs::write(&temporary, format!("{log} {position}\n"))?;
    fs::rename(&temporary, path(folder))
}

fn path(folder: &Path) -> PathBuf {
    folder.join("checked")
}

//! The note of what is drained: where to read on, and what the tables had by then.
//!
//! The file `drained` holds a position before which everything was in the tables, always one where a group begins, and
//! for each kind of events the position that its table had. Tables that still have it, or more, lack nothing before the
//! position: reading goes on there. A table that has less is an older copy, and is read on from where it is. So the
//! tables decide, and the note saves reading.
//!
//! A table that cannot be opened stays as it is noted: it is looked at again by the next drain.
//!
//! It is on disk before a segment is deleted: a deleted segment's records are known to have been in the tables.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use webdancer_schemas::kind::Kind;

use super::tables::Tables;

/// What is noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// Everything before it was in the tables.
    pub(super) position: u64,
    /// The tables' positions.
    pub(super) tables: BTreeMap<Kind, i64>,
}

impl Note {
    /// The note in `folder`; None if there is none that can be read.
    pub(super) fn read(folder: &Path) -> Option<Note> {
        let text = fs::read_to_string(path(folder)).ok()?;
        let mut lines = text.lines();
        let position = lines.next()?.trim().parse().ok()?;
        let table = |line: &str| {
            let (kind, position) = line.split_once(' ')?;
            Some((kind.parse().ok()?, position.parse().ok()?))
        };
        Some(Note { position, tables: lines.filter_map(table).collect() })
    }

    /// Removes the note, if there is one.
    pub(super) fn remove(folder: &Path) -> std::io::Result<()> {
        match fs::remove_file(path(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes the note, durably.
    pub(super) fn write(&self, folder: &Path) -> std::io::Result<()> {
        let path = path(folder);
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{}", self.position)?;
        for (kind, position) in &self.tables {
            writeln!(file, "{kind} {position}")?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    }

    /// The tables that have less than is noted, and what they have. Of those that cannot be opened nothing is said.
    pub(super) fn behind(&self, tables: &Tables) -> Vec<(Kind, Option<i64>)> {
        let open = self.tables.iter().filter(|(kind, _)| !tables.closed.contains_key(kind));
        let found = open.map(|(kind, noted)| (*kind, tables.position(*kind), Some(*noted)));
        found.filter(|(_, at, noted)| at < noted).map(|(kind, at, _)| (kind, at)).collect()
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("drained")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_so_is_one_of_earlier_versions() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Note::read(folder.path()), None);
        let note = Note { position: 96, tables: [(Kind::Metric, 32), (Kind::Page, 64)].into() };
        note.write(folder.path()).unwrap();
        assert_eq!(Note::read(folder.path()), Some(note));
        fs::write(folder.path().join("drained"), "96").unwrap();
        assert_eq!(Note::read(folder.path()), Some(Note { position: 96, tables: BTreeMap::new() }));
    }
}

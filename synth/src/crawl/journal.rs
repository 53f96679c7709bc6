//! The state of a crawl on disk: an append-only file of JSON lines.
//!
//! The first line says which crawl it is; then one line per URL that is done, written after the log acknowledged its
//! event. What a kill leaves is a file whose last line may be torn; that line is cut off, its URL is fetched again and
//! its event, having the same id, shows once. Lines of one depth come before those of the next.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::CrawlError;

const FILE: &str = "crawl.journal";

/// Which crawl a journal belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) run_id: String,
    pub(super) run_start: DateTime<Utc>,
    /// Digest of the roots and of every setting that decides which pages are fetched.
    pub(super) identity: String,
}

/// A URL that is done: what the frontier needs of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) url: String,
    pub(super) depth: u32,
    pub(super) status: u16,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// Where a root ended, if elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) moved_to: Option<String>,
    /// Links that were new when this page was done, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) links: Vec<String>,
    /// Links that lead out of the scope.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) out_of_scope: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A line after the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// Fetched and recorded.
    Page(Entry),
    /// Not fetched: robots.txt.
    Skipped { url: String, depth: u32, reason: String },
    /// The crawl is complete.
    Finished,
}

/// The journal, open for appending and locked against a second crawl.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal in `folder`. A journal of the same crawl is resumed: its lines go to `replay`. One that is
    /// finished, and a new folder, start with `new`. Returns the header that holds.
    pub(super) fn open(
        folder: &Path,
        new: Header,
        mut replay: impl FnMut(Line) -> Result<(), String>,
    ) -> Result<(Journal, Header), CrawlError> {
        let path = folder.join(FILE);
        let broken = |source| CrawlError::State { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(broken)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(broken)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CrawlError::StateBusy { path }),
            Err(TryLockError::Error(source)) => return Err(broken(source)),
        }
        if let Some(header) = Journal::resumable(&path, &file, &new)? {
            let whole = Journal::read(&path, &file, &mut replay)?;
            let mut journal = Journal { path: path.clone(), file };
            journal.file.set_len(whole).and_then(|()| journal.file.seek(SeekFrom::End(0))).map_err(broken)?;
            return Ok((journal, header));
        }
        let mut journal = Journal { path: path.clone(), file };
        journal.file.set_len(0).and_then(|()| journal.file.seek(SeekFrom::Start(0))).map_err(broken)?;
        journal.write_line(&new)?;
        journal.file.sync_data().map_err(broken)?;
        Ok((journal, new))
    }

    /// Appends lines.
    pub(super) fn append(&mut self, lines: &[Line]) -> Result<(), CrawlError> {
        let mut bytes = Vec::new();
        for line in lines {
            encode(line, &mut bytes).map_err(|source| self.broken(source))?;
        }
        self.file.write_all(&bytes).map_err(|source| self.broken(source))
    }

    /// The header of an unfinished journal of the same crawl.
    fn resumable(path: &Path, file: &File, new: &Header) -> Result<Option<Header>, CrawlError> {
        let mut first = None;
        let mut finished = false;
        lines(path, file, |number, text| {
            if number == 1 {
                first = Some(serde_json::from_str::<Header>(text).map_err(|e| e.to_string())?);
            }
            finished = text == "\"finished\"";
            Ok(())
        })?;
        match first {
            Some(header) if !finished && header.version == new.version && header.identity == new.identity => {
                Ok(Some(header))
            }
            Some(_) if !finished => Err(CrawlError::StateMismatch { path: path.to_path_buf() }),
            _ => Ok(None),
        }
    }

    /// Replays the lines after the header; returns the length of the whole lines.
    fn read(path: &Path, file: &File, replay: &mut impl FnMut(Line) -> Result<(), String>) -> Result<u64, CrawlError> {
        lines(path, file, |number, text| match number {
            1 => Ok(()),
            _ => replay(serde_json::from_str(text).map_err(|e| e.to_string())?),
        })
    }

    fn write_line(&mut self, line: &impl Serialize) -> Result<(), CrawlError> {
        let mut bytes = Vec::new();
        encode(line, &mut bytes).and_then(|()| self.file.write_all(&bytes)).map_err(|source| self.broken(source))
    }

    fn broken(&self, source: std::io::Error) -> CrawlError {
        CrawlError::State { path: self.path.clone(), source }
    }
}

fn encode(line: &impl Serialize, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    serde_json::to_writer(&mut *bytes, line)?;
    bytes.push(b'\n');
    Ok(())
}

/// Hands over each whole line with its number from 1; returns the bytes of the whole lines.
fn lines(
    path: &Path,
    mut file: &File,
    mut each: impl FnMut(u64, &str) -> Result<(), String>,
) -> Result<u64, CrawlError> {
    let broken = |source| CrawlError::State { path: path.to_path_buf(), source };
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    let mut reader = BufReader::new(file);
    let (mut whole, mut number) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line).map_err(broken)?;
        if line.pop() != Some(b'\n') {
            return Ok(whole);
        }
        number += 1;
        std::str::from_utf8(&line)
            .map_err(|e| e.to_string())
            .and_then(|text| each(number, text))
            .map_err(|reason| CrawlError::StateDamaged { path: path.to_path_buf(), line: number, reason })?;
        whole += length as u64;
    }
}

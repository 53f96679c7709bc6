//! Segment files: `<base>.seg`, a header, then groups of records.
//!
//! ```text
//! header  magic "WDLOG\0\x01\n" (8) · log id (16) · base position, u64 LE (8)
//! group   length n, u32 LE · milliseconds since 1970, i64 LE · CRC-32 of the two and the body, u32 LE · body of n bytes
//! body    records: length, u32 LE · bytes
//! ```
//!
//! A record's position is that of its length field.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::{Buf as _, Bytes};
use uuid::Uuid;

use crate::error::{IngestError, Result};

const MAGIC: &[u8; 8] = b"WDLOG\0\x01\n";
/// Bytes of a segment's header.
pub(super) const HEADER: u64 = 32;
/// Bytes before a group's body.
const GROUP_HEADER: usize = 16;
/// Bytes read at once, for groups that are smaller.
const READ_BYTES: usize = 256 << 10;

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IngestError {
    let what = format!("{what} {}", path.display());
    move |source| IngestError::Io { what, source }
}

/// The segments of a log, in order of their base positions.
pub(super) fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error("listing log folder", folder))? {
        let path = entry.map_err(io_error("listing log folder", folder))?.path();
        let base = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".seg"))
            .and_then(|base| base.parse().ok());
        segments.extend(base.map(|base| (base, path)));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Makes an empty segment, durably.
pub(super) fn create(folder: &Path, log: Uuid, base: u64) -> io::Result<PathBuf> {
    let path = folder.join(format!("{base:020}.seg"));
    let temporary = folder.join(format!("{base:020}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(MAGIC)?;
    file.write_all(log.as_bytes())?;
    file.write_all(&base.to_le_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(path)
}

/// Reads and checks a segment's header; gives the log's id.
pub(super) fn check_header(file: &mut File, path: &Path, base: u64) -> Result<Uuid> {
    let mut header = [0u8; HEADER as usize];
    let damaged = |why: &str| IngestError::Fatal(format!("{} is no segment of an event log: {why}", path.display()));
    file.seek(SeekFrom::Start(0)).map_err(io_error("reading", path))?;
    file.read_exact(&mut header).map_err(|_| damaged("the header is cut short"))?;
    let (magic, rest) = header.split_at(8);
    let (log, stored_base) = rest.split_at(16);
    if magic != MAGIC {
        return Err(damaged("the first bytes are others"));
    }
    if stored_base != base.to_le_bytes() {
        return Err(damaged("it begins at another position than its name says"));
    }
    Uuid::from_slice(log).map_err(|e| damaged(&e.to_string()))
}

/// Encodes records as one group.
pub(super) fn encode_group(records: &[Vec<u8>], timestamp_ms: i64) -> Vec<u8> {
    let body: usize = records.iter().map(|record| record.len() + 4).sum();
    let mut group = Vec::with_capacity(GROUP_HEADER + body);
    group.extend_from_slice(&(body as u32).to_le_bytes());
    group.extend_from_slice(&timestamp_ms.to_le_bytes());
    group.extend_from_slice(&[0; 4]);
    for record in records {
        group.extend_from_slice(&(record.len() as u32).to_le_bytes());
        group.extend_from_slice(record);
    }
    let checksum = checksum(&group[..12], &group[GROUP_HEADER..]);
    group[12..GROUP_HEADER].copy_from_slice(&checksum.to_le_bytes());
    group
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

/// A group read back.
#[derive(Debug)]
pub(super) struct Group {
    /// Where it begins in the file.
    pub(super) begin: u64,
    pub(super) timestamp_ms: i64,
    checksum: u32,
    /// Records with their offsets from the group's start.
    pub(super) records: Vec<(u64, Bytes)>,
}

impl Group {
    /// The fingerprint of the log at the record that is `offset` from the group's start: what [`bears`] looks for.
    ///
    /// The checksum is over the time as well: the same events appended again, to a copy of the log, make another one.
    pub(super) fn fingerprint(&self, offset: u64) -> i64 {
        (offset << 32 | u64::from(self.checksum)) as i64
    }
}

/// Whether the log in `folder` has a record at `position` in a group of this fingerprint. True of what is deleted: a log
/// deletes what was in the tables, so that what it was copied from had it too.
pub(super) fn bears(folder: &Path, position: u64, fingerprint: i64) -> Result<bool> {
    let segments = list(folder)?;
    let Some((base, path)) = segments.iter().rfind(|(base, _)| *base <= position) else { return Ok(true) };
    let (offset, checksum) = (fingerprint as u64 >> 32, fingerprint as u32);
    let Some(begin) = (position - base).checked_sub(offset).filter(|begin| *begin >= HEADER) else { return Ok(false) };
    let mut head = [0u8; GROUP_HEADER];
    match File::open(path).and_then(|file| file.read_exact_at(&mut head, begin)) {
        Ok(()) => {
            let (length, _, stored) = fields(&head);
            Ok(stored == checksum && offset < GROUP_HEADER as u64 + length)
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(io_error("reading", path)(error)),
    }
}

/// Length, milliseconds since 1970 and checksum in a group's header.
fn fields(mut head: &[u8]) -> (u64, i64, u32) {
    (u64::from(head.get_u32_le()), head.get_i64_le(), head.get_u32_le())
}

/// Reads the groups of a segment one after the other.
#[derive(Debug)]
pub(super) struct Groups<'f> {
    file: BufReader<&'f File>,
    offset: u64,
    end: u64,
}

impl<'f> Groups<'f> {
    /// From `offset`, where a group begins, up to `end`.
    pub(super) fn new(mut file: &'f File, offset: u64, end: u64) -> io::Result<Groups<'f>> {
        file.seek(SeekFrom::Start(offset))?;
        Ok(Groups { file: BufReader::with_capacity(READ_BYTES, file), offset, end })
    }

    /// Where the next group begins: behind the last one that was whole.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next group; None, from then on: what is there is no whole group.
    pub(super) fn next(&mut self) -> io::Result<Option<Group>> {
        let available = self.end.saturating_sub(self.offset);
        if available < GROUP_HEADER as u64 {
            return Ok(None);
        }
        let mut head = [0u8; GROUP_HEADER];
        self.file.read_exact(&mut head)?;
        let (length, timestamp_ms, stored) = fields(&head);
        let mut body = Vec::new();
        if length <= available - GROUP_HEADER as u64 {
            body.resize(length as usize, 0);
            self.file.read_exact(&mut body)?;
        }
        let whole = body.len() as u64 == length && checksum(&head[..12], &body) == stored;
        let Some(records) = whole.then(|| split(Bytes::from(body))).flatten() else {
            self.end = self.offset;
            return Ok(None);
        };
        let begin = self.offset;
        self.offset += GROUP_HEADER as u64 + length;
        Ok(Some(Group { begin, timestamp_ms, checksum: stored, records }))
    }
}

/// The records of a body, with their offsets from the group's start.
fn split(body: Bytes) -> Option<Vec<(u64, Bytes)>> {
    let mut records = Vec::new();
    let mut at = 0usize;
    while let Some(size) = body.get(at..at + 4) {
        let size = u32::from_le_bytes(size.try_into().ok()?) as usize;
        let end = at.checked_add(4 + size).filter(|end| *end <= body.len())?;
        records.push(((GROUP_HEADER + at) as u64, body.slice(at + 4..end)));
        at = end;
    }
    Some(records)
}

/// Whether a whole group with a record in it begins at the first of these bytes.
fn is_group(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_at_checked(GROUP_HEADER) else { return false };
    let (length, _, stored) = fields(head);
    length > 4 && rest.get(..length as usize).is_some_and(|body| checksum(&head[..12], body) == stored)
}

/// The end of the last whole group, looked for from `from` on, where a group begins or the file ends.
///
/// When what begins at `from` is no whole group, that is a torn end or `from` is a mistake: the whole file tells which.
///
/// # Errors
/// [`IngestError::Fatal`] when a whole group follows a damaged place: that is no torn end but a damaged file.
pub(super) fn valid_end(mut file: &File, path: &Path, from: u64) -> Result<u64> {
    let length = file.metadata().map_err(io_error("reading", path))?.len();
    let from = if from > length { HEADER } else { from };
    let mut groups = Groups::new(file, from, length).map_err(io_error("reading", path))?;
    while groups.next().map_err(io_error("reading", path))?.is_some() {}
    let end = groups.offset();
    if end >= length {
        return Ok(end);
    }
    if end == from && from > HEADER {
        return valid_end(file, path, HEADER);
    }
    // Only the last group can be torn, so nothing whole may follow.
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(end)).map_err(io_error("reading", path))?;
    file.read_to_end(&mut rest).map_err(io_error("reading", path))?;
    if let Some(probe) = (1..rest.len()).find(|probe| is_group(&rest[*probe..])) {
        return Err(IngestError::Fatal(format!(
            "{} is damaged at byte {end}: whole records follow {probe} bytes later. Restore the file; cutting it off \
             there would lose acknowledged events",
            path.display()
        )));
    }
    Ok(end)
}

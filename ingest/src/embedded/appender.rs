//! The one thread of a process that writes to the embedded log.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use uuid::Uuid;
use webdancer_schemas::log::LogError;

use super::lock::Lock;
use super::segment::{self, HEADER, io_error};
use super::{EmbeddedOptions, checked};
use crate::error::{IngestError, Result};

type Reply = oneshot::Sender<std::result::Result<(), LogError>>;

/// Records of one append call, waiting for the disk.
struct Request {
    records: Vec<Vec<u8>>,
    reply: Reply,
}

/// Handle of the writer thread; the thread ends when the handle is dropped.
#[derive(Debug)]
pub(super) struct Appender {
    requests: mpsc::SyncSender<Request>,
    cluster: String,
}

impl Appender {
    pub(super) fn start(folder: &Path, options: &EmbeddedOptions) -> Result<Appender> {
        create_folder(folder).map_err(io_error("creating log folder", folder))?;
        let tail = Tail::open(folder, options.lock_timeout)?;
        let cluster = format!("embedded:{}", tail.log);
        // As many calls may wait as there are producers; a bound keeps a runaway one from filling memory.
        let (requests, queue) = mpsc::sync_channel(1024);
        let (max_group_bytes, segment_bytes) = (options.max_group_bytes, options.segment_bytes);
        std::thread::Builder::new()
            .name("event-log".to_string())
            .spawn(move || Writer { tail, segment_bytes, failed: None }.run(&queue, max_group_bytes))
            .map_err(io_error("starting the writer thread of", folder))?;
        Ok(Appender { requests, cluster })
    }

    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(super) async fn append(&self, records: Vec<Vec<u8>>) -> std::result::Result<(), LogError> {
        let closed = || LogError::Failed("the writer thread has ended".to_string());
        let (reply, answer) = oneshot::channel();
        let mut request = Request { records, reply };
        // The queue is only full while the disk is behind: wait without holding a runtime thread.
        loop {
            match self.requests.try_send(request) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Full(back)) => {
                    request = back;
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(closed()),
            }
        }
        answer.await.map_err(|_| closed())?
    }
}

struct Writer {
    tail: Tail,
    segment_bytes: u64,
    /// Set when a sync failed: the kernel may have dropped the pages, so nothing written since can be trusted.
    failed: Option<String>,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Request>, max_group_bytes: usize) {
        let mut held = None;
        while let Some(first) = held.take().or_else(|| queue.recv().ok()) {
            let mut requests = vec![first];
            let size = |request: &Request| request.records.iter().map(|record| record.len() + 4).sum::<usize>();
            let mut bytes = size(&requests[0]);
            while let Ok(next) = queue.try_recv() {
                bytes += size(&next);
                if bytes > max_group_bytes {
                    held = Some(next);
                    break;
                }
                requests.push(next);
            }
            let mut records = Vec::new();
            for request in &mut requests {
                records.append(&mut request.records);
            }
            let outcome = self.write(&records, max_group_bytes);
            for request in requests {
                // A caller that stopped waiting does not need the answer.
                let _ = request.reply.send(outcome.clone());
            }
        }
    }

    fn write(&mut self, records: &[Vec<u8>], max_group_bytes: usize) -> std::result::Result<(), LogError> {
        if let Some(why) = &self.failed {
            return Err(LogError::Failed(why.clone()));
        }
        let written = (|| {
            let _held = self.tail.lock.take()?;
            self.tail.find_end(self.segment_bytes)?;
            let mut start = 0;
            while start < records.len() {
                let mut bytes = 0;
                let fits = records[start..].iter().take_while(|record| {
                    bytes += record.len() + 4;
                    bytes <= max_group_bytes
                });
                let end = start + fits.count().max(1);
                self.tail.append(&records[start..end])?;
                start = end;
            }
            Ok::<(), AppendError>(())
        })();
        match written {
            Ok(()) => Ok(()),
            Err(AppendError::Before(why)) => Err(LogError::Unavailable(why)),
            Err(AppendError::Refused(why)) => Err(LogError::Failed(why)),
            Err(AppendError::Sync(why)) => {
                self.failed = Some(why.clone());
                Err(LogError::Failed(why))
            }
        }
    }
}

/// Whether the disk can still be trusted after a failure.
enum AppendError {
    /// The write failed and was taken back, or never began.
    Before(String),
    /// The write never began, and will not the next time: the log is damaged, or not ours to write.
    Refused(String),
    /// The sync failed.
    Sync(String),
}

impl From<IngestError> for AppendError {
    fn from(error: IngestError) -> AppendError {
        let why = error.to_string();
        match error {
            IngestError::Fatal(_) => AppendError::Refused(why),
            IngestError::Io { source, .. } if cannot_pass(&source) => AppendError::Refused(why),
            _ => AppendError::Before(why),
        }
    }
}

/// Whether the system refuses, rather than that it could not at this moment, as when the disk is full.
fn cannot_pass(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Makes a folder and those above it, durably: a folder is on disk when the one that names it is.
fn create_folder(folder: &Path) -> std::io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let missing = folder.ancestors().take_while(|path| !path.exists()).count();
    std::fs::create_dir_all(&folder)?;
    for parent in folder.ancestors().skip(1).take(missing) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Whether the file at `path` is the one that is open.
fn same_file(open: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    open.metadata().map(place).ok() == std::fs::metadata(path).map(place).ok()
}

/// The end of the log, as one process knows it.
#[derive(Debug)]
pub(super) struct Tail {
    folder: PathBuf,
    lock: Lock,
    pub(super) log: Uuid,
    base: u64,
    path: PathBuf,
    file: File,
    /// End of the last whole group known in the segment.
    end: u64,
    /// The position that was last noted as checked.
    noted: u64,
}

impl Tail {
    /// Opens the log, making its first segment if it has none. Waits for the append lock.
    pub(super) fn open(folder: &Path, lock_timeout: Duration) -> Result<Tail> {
        let mut lock = Lock::new(folder, "append.lock", lock_timeout);
        let held = lock.take()?;
        let mut segments = segment::list(folder)?;
        if segments.is_empty() {
            let path = segment::create(folder, Uuid::now_v7(), 0).map_err(io_error("creating a segment in", folder))?;
            segments.push((0, path));
        }
        let (base, path) = segments.pop().unwrap_or_default();
        let mut file = open_segment(&path)?;
        let log = segment::check_header(&mut file, &path, base)?;
        let noted = checked::read(folder, log);
        let end = segment::valid_end(&file, &path, noted.saturating_sub(base).max(HEADER))?;
        // What a process that was killed wrote last may be in the page cache alone.
        file.sync_all().map_err(io_error("syncing", &path))?;
        let mut tail = Tail { folder: folder.to_path_buf(), lock, log, base, path, file, end, noted };
        tail.note();
        drop(held);
        Ok(tail)
    }

    /// The end of what is on disk for sure, as it was last found.
    pub(super) fn end(&self) -> u64 {
        self.base + self.end
    }

    /// Begins a segment with another id: from now on this is another log. Waits for the append lock.
    pub(super) fn renew(&mut self) -> Result<()> {
        let _held = self.lock.take()?;
        self.find_end(u64::MAX)?;
        segment::create(&self.folder, Uuid::now_v7(), self.end())
            .map_err(io_error("creating a segment in", &self.folder))?;
        Ok(())
    }

    /// The end of what is on disk for sure: the torn end of a crashed writer is cut off, the rest synced. Waits for the
    /// append lock if anything was appended since the last call.
    pub(super) fn durable_end(&mut self) -> Result<u64> {
        // Without the lock: what is appended at this moment is seen the next time.
        let newest = segment::list(&self.folder)?.pop();
        let length = self.file.metadata().map_err(io_error("reading", &self.path))?.len();
        if newest.is_none_or(|(base, _)| base != self.base) || length != self.end {
            let _held = self.lock.take()?;
            self.find_end(u64::MAX)?;
        }
        Ok(self.end())
    }

    /// Under the lock: takes in what other processes appended, cuts off what a crashed one left, starts a new segment
    /// when this one is full.
    fn find_end(&mut self, segment_bytes: u64) -> Result<()> {
        // Straight to the newest: those between may be drained and deleted at any moment.
        let newest = segment::list(&self.folder)?.pop();
        if let Some((base, path)) = newest.as_ref().filter(|(base, _)| *base > self.base) {
            let mut file = open_segment(path)?;
            if segment::check_header(&mut file, path, *base)? != self.log {
                return Err(self.replaced());
            }
            (self.base, self.path, self.file, self.end) = (*base, path.clone(), file, HEADER);
        } else if newest.is_none_or(|(base, _)| base < self.base) || !same_file(&self.file, &self.path) {
            return Err(self.replaced());
        }
        let length = self.file.metadata().map_err(io_error("reading", &self.path))?.len();
        if length != self.end {
            let end = segment::valid_end(&self.file, &self.path, self.end)?;
            if length > end {
                tracing::warn!(segment = %self.path.display(), from = end, to = length, "cutting off a group that was never acknowledged");
                self.file.set_len(end).map_err(io_error("cutting off the end of", &self.path))?;
            }
            // What another process wrote last may not be synced: it may have died before. Until it is, it is not the end.
            self.file.sync_all().map_err(io_error("syncing", &self.path))?;
            self.end = end;
            self.note();
        }
        if self.end >= segment_bytes {
            let base = self.base + self.end;
            self.path = segment::create(&self.folder, self.log, base)
                .map_err(io_error("creating a segment in", &self.folder))?;
            self.file = open_segment(&self.path)?;
            (self.base, self.end) = (base, HEADER);
        }
        Ok(())
    }

    /// What is appended to files that are no longer the log's would never be read.
    fn replaced(&self) -> IngestError {
        IngestError::Fatal(format!(
            "{} was moved or replaced while it was open: start this process again; nothing was appended to the old one",
            self.folder.display()
        ))
    }

    fn append(&mut self, records: &[Vec<u8>]) -> std::result::Result<(), AppendError> {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let group = segment::encode_group(records, now_ms);
        let written = self.file.seek(SeekFrom::Start(self.end)).and_then(|_| self.file.write_all(&group));
        if let Err(error) = written {
            // Nothing of it was acknowledged; what cannot be cut off now is cut off by the next append.
            let _ = self.file.set_len(self.end);
            return Err(io_error("writing", &self.path)(error).into());
        }
        if let Err(error) = self.file.sync_data() {
            // Nobody else may take it for durable. If this fails as well, the checksum is still the next one's guard.
            let _ = self.file.set_len(self.end);
            return Err(AppendError::Sync(format!("syncing {}: {error}", self.path.display())));
        }
        self.end += group.len() as u64;
        self.note();
        Ok(())
    }

    /// Notes how far the log is whole, for those that open it next. Under the lock, after a sync.
    fn note(&mut self) {
        let position = self.base + self.end;
        if position < self.noted.saturating_add(checked::NOTE_BYTES) && self.noted <= position {
            return;
        }
        match checked::write(&self.folder, self.log, position) {
            Ok(()) => self.noted = position,
            // The next one reads more.
            Err(error) => {
                tracing::debug!(folder = %self.folder.display(), %error, "what is checked could not be noted")
            }
        }
    }
}

fn open_segment(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).open(path).map_err(io_error("opening", path))
}

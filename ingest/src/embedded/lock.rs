//! The append lock, waited for within a limit.
//!
//! `flock` knows no limit, and asking again and again is unfair: a process that appends all the time lets go for
//! microseconds only. So when the lock is held, a thread waits in the kernel's queue and the caller waits for the
//! thread. When the caller gives up, the thread goes on; it lets go at once when it gets the lock, unless the caller has
//! come back to wait with it. So there is one such thread at most, however often the caller gives up.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::segment::io_error;
use crate::error::{IngestError, Result};

/// A lock file, and how long it is waited for.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    limit: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// What the thread is at.
#[derive(Debug, Default)]
enum Waiting {
    /// There is none.
    #[default]
    No,
    /// It waits; whether a caller waits for it.
    Yes { wanted: bool },
    /// It has the lock, or what kept it from it.
    Done(io::Result<File>),
}

impl Lock {
    pub(super) fn new(folder: &Path, name: &str, limit: Duration) -> Lock {
        Lock { path: folder.join(name), limit, shared: Arc::default() }
    }

    /// Takes the lock; dropping the file lets go. Blocks.
    ///
    /// # Errors
    /// [`IngestError::Unavailable`] when another has it for longer than the limit.
    pub(super) fn take(&mut self) -> Result<File> {
        let mut waiting = self.shared.waiting.lock();
        if matches!(*waiting, Waiting::No) {
            let file = open(&self.path)?;
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(io_error("locking", &self.path)(error)),
            }
            let shared = self.shared.clone();
            std::thread::Builder::new()
                .name("log-lock".to_string())
                .stack_size(64 << 10)
                .spawn(move || shared.wait(file))
                .map_err(io_error("starting the thread that waits for", &self.path))?;
        }
        *waiting = Waiting::Yes { wanted: true };
        let deadline = Instant::now() + self.limit;
        let mut late = false;
        loop {
            match std::mem::take(&mut *waiting) {
                Waiting::Done(locked) => return locked.map_err(io_error("locking", &self.path)),
                _ if late => {
                    *waiting = Waiting::Yes { wanted: false };
                    return Err(self.held());
                }
                still => *waiting = still,
            }
            late = self.shared.changed.wait_until(&mut waiting, deadline).timed_out();
        }
    }

    fn held(&self) -> IngestError {
        let holder = holder(&self.path).map_or("another process".to_string(), |id| format!("process {id}"));
        IngestError::Unavailable(format!(
            "{holder} has held {} for longer than {} ms (log.lock_timeout_ms); if it hangs, end it, and the lock is free",
            self.path.display(),
            self.limit.as_millis()
        ))
    }
}

impl Shared {
    fn wait(&self, file: File) {
        let locked = file.lock().map(|()| file);
        let mut waiting = self.waiting.lock();
        *waiting = match *waiting {
            Waiting::Yes { wanted: true } => Waiting::Done(locked),
            // Nobody waits any more: the file is closed, which lets go.
            _ => Waiting::No,
        };
        self.changed.notify_all();
    }
}

/// Opens a lock file, making it if need be.
pub(super) fn open(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(io_error("opening", path))
}

/// The process that holds a lock on the file, if the system tells: within one PID namespace of Linux.
#[cfg(target_os = "linux")]
fn holder(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let path = path.canonicalize().ok()?;
    let inode = path.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 4711 fe:00:123456 0 EOF
        let mut fields = line.split_whitespace().skip(1);
        let (kind, id, place) = (fields.next()?, fields.nth(2)?, fields.next()?);
        let id = id.parse().ok()?;
        (kind == "FLOCK" && place.rsplit(':').next() == Some(&inode) && has_open(id, &path)).then_some(id)
    })
}

#[cfg(not(target_os = "linux"))]
fn holder(_: &Path) -> Option<u32> {
    None
}

/// Inodes repeat from one file system to another: the process must have this very file open.
#[cfg(target_os = "linux")]
fn has_open(process: u32, path: &Path) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(folder: &Path, limit_ms: u64) -> Lock {
        Lock::new(folder, "append.lock", Duration::from_millis(limit_ms))
    }

    #[test]
    fn a_lock_that_is_not_let_go_is_given_up_and_its_holder_named() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path(), 0).take().unwrap();
        let mut waiting = lock(folder.path(), 30);
        for _ in 0..3 {
            let error = waiting.take().unwrap_err();
            assert!(matches!(error, IngestError::Unavailable(_)), "{error}");
            let expected = format!(
                "process {} has held {} for longer than 30 ms (log.lock_timeout_ms)",
                std::process::id(),
                folder.path().join("append.lock").display()
            );
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
        drop(held);
        // The thread that still waits gets it, and lets go at once: it is there for the next.
        drop(lock(folder.path(), 20_000).take().unwrap());
        drop(waiting.take());
    }

    #[test]
    fn who_waits_gets_it_when_it_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path(), 0).take().unwrap();
        let path = folder.path().to_path_buf();
        let taking = std::thread::spawn(move || lock(&path, 20_000).take().map(drop));
        std::thread::sleep(Duration::from_millis(20));
        drop(held);
        taking.join().unwrap().unwrap();
    }

    #[test]
    fn many_threads_hold_it_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut lock = lock(folder.path(), 20_000);
                    for _ in 0..50 {
                        let held = lock.take().unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
    }
}

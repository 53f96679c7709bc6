//! Local disk as an object store whose writes survive a power cut.
//!
//! `object_store`'s own local store never calls fsync, and makes an object visible before its bytes are on disk: after
//! a power cut a commit file can be there and be empty. Here an object is written to a temporary file, synced, then
//! linked (create) or renamed (overwrite) into place, and the directory synced.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;

/// Local disk from the root directory on, synced. See the [module](self).
#[derive(Debug, Clone)]
pub struct DurableLocal {
    inner: Arc<LocalFileSystem>,
    syncer: Arc<DirectorySyncer>,
}

/// The calls that durability hangs on: a test puts a disk in between that loses what was not synced.
pub trait Disk: std::fmt::Debug + Send + Sync {
    /// Writes a new file, without syncing it.
    fn write_new(&self, path: &FsPath, payload: &PutPayload) -> std::io::Result<()>;
    /// Makes a file's bytes durable.
    fn sync_file(&self, path: &FsPath) -> std::io::Result<()>;
    /// Makes a directory's entries durable.
    fn sync_directory(&self, path: &FsPath) -> std::io::Result<()>;
    /// A second name for a file; fails if the name is taken.
    fn link(&self, from: &FsPath, to: &FsPath) -> std::io::Result<()>;
    /// Another name for a file, in place of what had it.
    fn rename(&self, from: &FsPath, to: &FsPath) -> std::io::Result<()>;
    /// Removes a name.
    fn remove(&self, path: &FsPath) -> std::io::Result<()>;
}

/// The machine's disk.
#[derive(Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write_new(&self, path: &FsPath, payload: &PutPayload) -> std::io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        payload.iter().try_for_each(|part| file.write_all(part))
    }
    fn sync_file(&self, path: &FsPath) -> std::io::Result<()> {
        // fsync is of the file, whichever descriptor it is asked through.
        File::open(path)?.sync_all()
    }
    fn sync_directory(&self, path: &FsPath) -> std::io::Result<()> {
        File::open(path)?.sync_all()
    }
    fn link(&self, from: &FsPath, to: &FsPath) -> std::io::Result<()> {
        fs::hard_link(from, to)
    }
    fn rename(&self, from: &FsPath, to: &FsPath) -> std::io::Result<()> {
        fs::rename(from, to)
    }
    fn remove(&self, path: &FsPath) -> std::io::Result<()> {
        fs::remove_file(path)
    }
}

impl DurableLocal {
    /// A store of the whole file system: paths are absolute.
    pub fn new() -> DurableLocal {
        DurableLocal::on(Arc::new(RealDisk))
    }

    /// The same on a disk of the caller's.
    pub fn on(disk: Arc<dyn Disk>) -> DurableLocal {
        let syncer = DirectorySyncer { disk, failed: AtomicBool::new(false), durable: Mutex::default() };
        DurableLocal { inner: Arc::new(LocalFileSystem::new()), syncer: Arc::new(syncer) }
    }
}

impl Default for DurableLocal {
    fn default() -> DurableLocal {
        DurableLocal::new()
    }
}

impl std::fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DurableLocal")
    }
}

/// Syncs directories; remembers those known to be durable themselves, so that each is made so once.
#[derive(Debug)]
struct DirectorySyncer {
    disk: Arc<dyn Disk>,
    /// A sync failed: what reads show from then on may not be on disk, so nothing is read or written any more.
    failed: AtomicBool,
    durable: Mutex<HashSet<PathBuf>>,
}

impl DirectorySyncer {
    fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(generic(std::io::Error::other(
                "a sync to disk failed: what this process could read back may not survive; look at the disk, start again",
            )));
        }
        Ok(())
    }

    fn note<T>(&self, synced: std::io::Result<T>) -> std::io::Result<T> {
        if synced.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        synced
    }

    /// Makes the entries of `directory` durable, and the chain of directories that leads to it.
    fn sync(&self, directory: &FsPath) -> std::io::Result<()> {
        self.note(self.disk.sync_directory(directory))?;
        let mut child = directory.to_path_buf();
        while let Some(parent) = child.parent() {
            if self.durable.lock().contains(&child) {
                break;
            }
            // Directories above the lake may not be ours to open; they existed before us.
            match self.disk.sync_directory(parent) {
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => break,
                synced => self.note(synced)?,
            }
            self.durable.lock().insert(child.clone());
            child = parent.to_path_buf();
        }
        Ok(())
    }
}

fn generic(source: std::io::Error) -> Error {
    Error::Generic { store: "local", source: Box::new(source) }
}

/// The system's errors do not say where.
fn at(path: &FsPath, error: std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn put(syncer: &DirectorySyncer, path: &FsPath, payload: &PutPayload, create: bool) -> Result<PutResult> {
    let directory = path.parent().ok_or_else(|| generic(std::io::Error::other("no parent directory")))?;
    fs::create_dir_all(directory).map_err(|source| generic(at(directory, source)))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The name must not look like an object: listings skip names that end in '#' and digits.
    // Random: process ids repeat across containers that share a disk.
    let temporary = directory.join(format!("{name}#{}", rand::random::<u64>()));
    let disk = &syncer.disk;
    let written = disk
        .write_new(&temporary, payload)
        .and_then(|()| disk.sync_file(&temporary))
        .and_then(|()| if create { disk.link(&temporary, path) } else { disk.rename(&temporary, path) });
    if create || written.is_err() {
        // What a failed removal leaves is skipped by listings.
        let _ = disk.remove(&temporary);
    }
    match written {
        Ok(()) => {}
        Err(source) if create && source.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::AlreadyExists { path: path.display().to_string(), source: Box::new(source) });
        }
        Err(source) => return Err(generic(at(path, source))),
    }
    syncer.sync(directory).map_err(|source| generic(at(directory, source)))?;
    Ok(PutResult { e_tag: None, version: None })
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.syncer.check()?;
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.inner.put_opts(location, payload, opts).await,
        };
        let path = self.inner.path_to_filesystem(location)?;
        let syncer = self.syncer.clone();
        tokio::task::spawn_blocking(move || put(&syncer, &path, &payload, create))
            .await
            .map_err(|source| Error::JoinError { source })?
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.syncer.check()?;
        let upload = self.inner.put_multipart_opts(location, opts).await?;
        let path = self.inner.path_to_filesystem(location)?;
        Ok(Box::new(SyncedUpload { upload, path, syncer: self.syncer.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.syncer.check()?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.syncer.check()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.syncer.check() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::once(std::future::ready(Err(error))).boxed(),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.syncer.check() {
            Ok(()) => self.inner.list_with_offset(prefix, offset),
            Err(error) => futures::stream::once(std::future::ready(Err(error))).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.syncer.check()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        // Not used for anything that must survive a power cut.
        self.inner.copy_opts(from, to, options).await
    }
}

/// A multipart upload whose completion is durable.
#[derive(Debug)]
struct SyncedUpload {
    upload: Box<dyn MultipartUpload>,
    path: PathBuf,
    syncer: Arc<DirectorySyncer>,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.complete().await?;
        let (path, syncer) = (self.path.clone(), self.syncer.clone());
        tokio::task::spawn_blocking(move || {
            syncer.note(syncer.disk.sync_file(&path))?;
            path.parent().map_or(Ok(()), |directory| syncer.sync(directory))
        })
        .await
        .map_err(|source| Error::JoinError { source })?
        .map_err(generic)?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt as _;
    use object_store::ObjectStoreExt as _;

    #[tokio::test]
    async fn create_succeeds_once_and_leaves_no_temporary_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableLocal::new();
        let path = Path::from_filesystem_path(dir.path().canonicalize().unwrap()).unwrap().join("a").join("b.json");
        let create = || store.put_opts(&path, "one".into(), PutMode::Create.into());
        create().await.unwrap();
        assert!(matches!(create().await, Err(Error::AlreadyExists { .. })));
        store.put(&path, "two".into()).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
        let listed: Vec<_> = store
            .list(Some(
                &path
                    .prefix_matches(&path)
                    .then(|| Path::from_filesystem_path(dir.path().canonicalize().unwrap()).unwrap())
                    .unwrap(),
            ))
            .try_collect()
            .await
            .unwrap();
        assert_eq!(listed.len(), 1);
    }
}

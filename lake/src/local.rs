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
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
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

impl DurableLocal {
    /// A store of the whole file system: paths are absolute.
    pub fn new() -> DurableLocal {
        DurableLocal { inner: Arc::new(LocalFileSystem::new()), syncer: Arc::default() }
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
#[derive(Debug, Default)]
struct DirectorySyncer {
    durable: Mutex<HashSet<PathBuf>>,
}

impl DirectorySyncer {
    /// Makes the entries of `directory` durable, and the chain of directories that leads to it.
    fn sync(&self, directory: &FsPath) -> std::io::Result<()> {
        File::open(directory)?.sync_all()?;
        let mut child = directory.to_path_buf();
        while let Some(parent) = child.parent() {
            if self.durable.lock().contains(&child) {
                break;
            }
            // Directories above the lake may not be ours to open; they existed before us.
            let Ok(file) = File::open(parent) else { break };
            file.sync_all()?;
            self.durable.lock().insert(child.clone());
            child = parent.to_path_buf();
        }
        Ok(())
    }
}

fn generic(source: std::io::Error) -> Error {
    Error::Generic { store: "local", source: Box::new(source) }
}

static TEMPORARY: AtomicU64 = AtomicU64::new(0);

fn put(syncer: &DirectorySyncer, path: &FsPath, payload: &PutPayload, create: bool) -> Result<PutResult> {
    let directory = path.parent().ok_or_else(|| generic(std::io::Error::other("no parent directory")))?;
    fs::create_dir_all(directory).map_err(generic)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The name must not look like an object: listings skip names that end in '#' and digits.
    let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!("{name}#{}{number:06}", std::process::id()));
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).open(&temporary)?;
        for part in payload {
            file.write_all(part)?;
        }
        file.sync_all()?;
        if create { fs::hard_link(&temporary, path) } else { fs::rename(&temporary, path) }
    })();
    if create || written.is_err() {
        // What a failed removal leaves is skipped by listings.
        let _ = fs::remove_file(&temporary);
    }
    match written {
        Ok(()) => {}
        Err(source) if create && source.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::AlreadyExists { path: path.display().to_string(), source: Box::new(source) });
        }
        Err(source) => return Err(generic(source)),
    }
    syncer.sync(directory).map_err(generic)?;
    Ok(PutResult { e_tag: None, version: None })
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
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
        let upload = self.inner.put_multipart_opts(location, opts).await?;
        let path = self.inner.path_to_filesystem(location)?;
        Ok(Box::new(SyncedUpload { upload, path, syncer: self.syncer.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
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
            File::open(&path)?.sync_all()?;
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

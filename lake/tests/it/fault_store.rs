//! A store that fails as real ones do: error after success, error before, delay, and loss of unsynced bytes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// What happens to the next matching writes, one fault each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The write is carried out; the answer is an error.
    ErrorAfter,
    /// The write is carried out; the answer is "already exists": the store repeated our request.
    AlreadyExistsAfter,
    /// The write is carried out; from then on the store answers nothing but errors to reads.
    OutageAfter,
    /// The write is not carried out.
    ErrorBefore,
    /// The write is not carried out, and no answer ever comes.
    HangBefore,
    /// The write is carried out, and no answer ever comes.
    HangAfter,
    /// The write takes this many milliseconds.
    DelayMs(u64),
    /// The write is not carried out: 403.
    Denied,
    /// The write is carried out, and yet the answer is 403.
    DeniedAfter,
    /// The write is not carried out: the bucket is not there.
    NoSuchBucket,
    /// The write is not carried out: the system's error of this kind.
    System(std::io::ErrorKind),
}

#[derive(Debug)]
pub(crate) struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    /// Faults for conditional creates under `_delta_log`, in order.
    pub(crate) commits: Mutex<Vec<Fault>>,
    /// Reads that still fail.
    pub(crate) failing_reads: AtomicU64,
    /// Reads and listings that still get no answer.
    pub(crate) hanging_reads: AtomicU64,
    /// Every write of a checkpoint fails while set.
    pub(crate) fail_checkpoints: std::sync::atomic::AtomicBool,
    /// Conditional creates under `_delta_log` so far.
    pub(crate) commits_tried: AtomicU64,
    /// Bytes of data files read so far.
    pub(crate) data_bytes: AtomicU64,
}

impl FaultStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Arc<FaultStore> {
        Arc::new(FaultStore {
            inner,
            commits: Mutex::default(),
            failing_reads: AtomicU64::new(0),
            hanging_reads: AtomicU64::new(0),
            fail_checkpoints: false.into(),
            commits_tried: AtomicU64::new(0),
            data_bytes: AtomicU64::new(0),
        })
    }

    /// Whether this read gets no answer.
    fn hangs(&self) -> bool {
        self.hanging_reads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    fn count(&self, location: &Path, bytes: u64) {
        if location.as_ref().ends_with(".parquet") && !location.as_ref().contains("_delta_log") {
            self.data_bytes.fetch_add(bytes, Ordering::SeqCst);
        }
    }
}

impl std::fmt::Display for FaultStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultStore")
    }
}

fn fault(what: &'static str) -> Error {
    Error::Generic { store: "fault", source: what.into() }
}

fn denied() -> Error {
    let source = "403: <Error><Code>AccessDenied</Code><Message>not yours</Message></Error>".into();
    Error::PermissionDenied { path: "the log".into(), source }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let name = location.as_ref();
        if name.contains("checkpoint") && self.fail_checkpoints.load(Ordering::SeqCst) {
            return Err(fault("checkpoint write"));
        }
        let is_commit = name.contains("_delta_log/") && matches!(opts.mode, PutMode::Create);
        self.commits_tried.fetch_add(u64::from(is_commit), Ordering::SeqCst);
        let next =
            if is_commit && !self.commits.lock().is_empty() { Some(self.commits.lock().remove(0)) } else { None };
        match next {
            None => self.inner.put_opts(location, payload, opts).await,
            Some(Fault::ErrorBefore) => Err(fault("before the write")),
            Some(Fault::HangBefore) => std::future::pending().await,
            Some(Fault::HangAfter) => {
                self.inner.put_opts(location, payload, opts).await?;
                std::future::pending().await
            }
            Some(Fault::Denied) => Err(denied()),
            Some(Fault::DeniedAfter) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(denied())
            }
            Some(Fault::NoSuchBucket) => {
                Err(Error::NotFound { path: name.to_string(), source: "404: <Code>NoSuchBucket</Code>".into() })
            }
            Some(Fault::System(kind)) => {
                Err(Error::Generic { store: "fault", source: Box::new(std::io::Error::from(kind)) })
            }
            Some(Fault::DelayMs(ms)) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.inner.put_opts(location, payload, opts).await
            }
            Some(Fault::ErrorAfter) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(fault("after the write"))
            }
            Some(Fault::OutageAfter) => {
                self.inner.put_opts(location, payload, opts).await?;
                self.failing_reads.store(1000, Ordering::SeqCst);
                Err(fault("after the write"))
            }
            Some(Fault::AlreadyExistsAfter) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(Error::AlreadyExists { path: name.to_string(), source: "repeated request".into() })
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if location.as_ref().contains("checkpoint") && self.fail_checkpoints.load(Ordering::SeqCst) {
            return Err(fault("checkpoint write"));
        }
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if self.hangs() {
            std::future::pending::<()>().await;
        }
        let left = self.failing_reads.load(Ordering::SeqCst);
        if left > 0 {
            self.failing_reads.store(left - 1, Ordering::SeqCst);
            return Err(fault("read"));
        }
        let result = self.inner.get_opts(location, options).await?;
        self.count(location, result.range.end - result.range.start);
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.count(location, ranges.iter().map(|range| range.end - range.start).sum());
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.hangs() {
            return Box::pin(futures::stream::pending());
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

//! A time limit on every answer of a store, and a look at commits that cannot be what was written.
//!
//! The S3 client has time limits of its own, shorter ones. This is for what they do not reach: a file system on a
//! network that hangs, a store of the caller's. What did not answer may have been carried out all the same, as after
//! any error: the positions in the tables tell.
//!
//! A commit file is never empty. One that is was emptied by something else, such as a backup of a disk that had not
//! written it yet; the table format's readers take it for a commit without changes, and its rows for gone.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// A store that is given up when it does not answer.
#[derive(Debug)]
pub(crate) struct Patient {
    inner: Arc<dyn ObjectStore>,
    limit: Duration,
}

impl Patient {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, limit: Duration) -> Patient {
        Patient { inner, limit }
    }
}

/// A commit of a table's log without a byte.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is empty, and what it committed is lost with it: restore that file from a backup; or, if it is the table's last \
     commit, move it away: the table is then as before it, and its events are read from the log again"
)]
pub(crate) struct EmptyCommit(String);

fn is_commit(location: &Path) -> bool {
    let name = location.filename().and_then(|name| name.strip_suffix(".json"));
    name.is_some_and(|name| name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit()))
        && location.as_ref().contains("_delta_log/")
}

async fn within<T>(limit: Duration, what: &str, answer: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(unanswered(limit, what)))
}

fn unanswered(limit: Duration, what: &str) -> Error {
    let message = format!("the store did not answer within {} s: {what}", limit.as_secs_f64());
    Error::Generic { store: "lake", source: Box::new(std::io::Error::new(std::io::ErrorKind::TimedOut, message)) }
}

/// The same stream; it ends with an error when the next item does not come.
fn each_within<T: Send + 'static>(
    limit: Duration,
    what: String,
    stream: BoxStream<'static, Result<T>>,
) -> BoxStream<'static, Result<T>> {
    let next = move |(stream, what): (Option<BoxStream<'static, Result<T>>>, String)| async move {
        let mut stream = stream?;
        match tokio::time::timeout(limit, stream.next()).await {
            Ok(item) => item.map(|item| (item, (Some(stream), what))),
            Err(_) => Some((Err(unanswered(limit, &what)), (None, what))),
        }
    };
    // Some readers ask again after the end.
    futures::stream::unfold((Some(stream), what), next).fuse().boxed()
}

impl fmt::Display for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Patient {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        within(self.limit, &format!("writing {location}"), self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let what = format!("writing {location}");
        let inner = within(self.limit, &what, self.inner.put_multipart_opts(location, opts)).await?;
        Ok(Box::new(PatientUpload { inner, limit: self.limit, what }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let what = format!("reading {location}");
        let mut result = within(self.limit, &what, self.inner.get_opts(location, options)).await?;
        if result.meta.size == 0 && is_commit(location) {
            return Err(Error::Generic { store: "lake", source: Box::new(EmptyCommit(location.to_string())) });
        }
        result.payload = match result.payload {
            GetResultPayload::Stream(stream) => GetResultPayload::Stream(each_within(self.limit, what, stream)),
            file => file,
        };
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        within(self.limit, &format!("reading {location}"), self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        each_within(self.limit, "deleting".to_string(), self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        each_within(self.limit, listing(prefix), self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        each_within(self.limit, listing(prefix), self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        within(self.limit, &listing(prefix), self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        within(self.limit, &format!("copying {from}"), self.inner.copy_opts(from, to, options)).await
    }
}

fn listing(prefix: Option<&Path>) -> String {
    format!("listing {}", prefix.map_or("", Path::as_ref))
}

#[derive(Debug)]
struct PatientUpload {
    inner: Box<dyn MultipartUpload>,
    limit: Duration,
    what: String,
}

#[async_trait]
impl MultipartUpload for PatientUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, limit, what) = (self.inner.put_part(data), self.limit, self.what.clone());
        Box::pin(async move { within(limit, &what, part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        within(self.limit, &self.what, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        within(self.limit, &self.what, self.inner.abort()).await
    }
}

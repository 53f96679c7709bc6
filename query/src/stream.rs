//! A result being read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::error::{QueryError, Result};
use crate::session::{QueryEngine, Used, timed_out};

/// Batches as they are computed. Dropping it stops the query.
///
/// Columns are of few types: strings `Utf8`, bytes `Binary`, lists `List`, whatever the plan computes with.
#[derive(Debug)]
pub struct QueryResult {
    schema: SchemaRef,
    received: Received,
    /// Received, not read yet.
    first: Option<RecordBatch>,
    tables: Used,
    deadline: Pin<Box<Sleep>>,
    rows: u64,
    max_rows: u64,
    state: State,
    /// Keeps the threads alive that compute the rest.
    _engine: QueryEngine,
}

#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) receiver: mpsc::Receiver<Result<RecordBatch>>,
    pub(crate) task: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Complete,
    Truncated,
    Failed,
}

impl QueryResult {
    pub(crate) fn new(
        schema: SchemaRef,
        received: Received,
        tables: Used,
        deadline: Instant,
        engine: QueryEngine,
    ) -> QueryResult {
        QueryResult {
            schema,
            received,
            first: None,
            tables,
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            rows: 0,
            max_rows: u64::MAX,
            state: State::Reading,
            _engine: engine,
        }
    }

    /// Waits for the first rows: a statement that fails before them gives no result, and has let go of what it held.
    pub(crate) async fn begun(mut self) -> Result<QueryResult> {
        match self.next().await {
            Some(Ok(batch)) => self.first = Some(batch),
            Some(Err(error)) => {
                let _ = (&mut self.received.task).await;
                return Err(error);
            }
            None => {}
        }
        self.rows = 0;
        Ok(self)
    }

    pub(crate) fn cut_at(mut self, max_rows: u64) -> QueryResult {
        self.max_rows = max_rows;
        self
    }

    /// Columns of the result.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Tables and pins that the result is computed from, with their versions.
    pub fn tables(&self) -> &Used {
        &self.tables
    }

    /// Rows read so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether rows were cut off because the result has more than the row limit. Known once the stream has ended.
    pub fn truncated(&self) -> bool {
        self.state == State::Truncated
    }

    /// Reads all that is left.
    ///
    /// # Errors
    /// The first error of the query.
    pub async fn read_all(&mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }

    fn fail(&mut self, error: QueryError) -> Poll<Option<Result<RecordBatch>>> {
        self.state = State::Failed;
        self.received.receiver.close();
        self.received.task.abort();
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for QueryResult {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.state != State::Reading {
            return Poll::Ready(None);
        }
        if this.deadline.poll_unpin(context).is_ready() {
            return this.fail(timed_out());
        }
        loop {
            let received = match this.first.take() {
                Some(batch) => Some(Ok(batch)),
                None => ready!(this.received.receiver.poll_recv(context)),
            };
            return match received {
                Some(Ok(batch)) if batch.num_rows() == 0 => continue,
                Some(Ok(batch)) => {
                    let left = this.max_rows - this.rows;
                    if left == 0 {
                        this.state = State::Truncated;
                        this.received.receiver.close();
                        this.received.task.abort();
                        return Poll::Ready(None);
                    }
                    let take = left.min(batch.num_rows() as u64);
                    this.rows += take;
                    if take < batch.num_rows() as u64 {
                        this.state = State::Truncated;
                        this.received.receiver.close();
                        this.received.task.abort();
                        return Poll::Ready(Some(Ok(batch.slice(0, take as usize))));
                    }
                    Poll::Ready(Some(Ok(batch)))
                }
                Some(Err(error)) => this.fail(error),
                // The sender is gone: the task has ended, and if it panicked the result is not complete.
                None => match ready!(Pin::new(&mut this.received.task).poll(context)) {
                    Ok(()) => {
                        this.state = State::Complete;
                        Poll::Ready(None)
                    }
                    Err(error) => {
                        let error = QueryError::broken_off(&error);
                        this.fail(error)
                    }
                },
            };
        }
    }
}

//! What pages share: the engine, its limits, and what was computed before.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use webdancer_query::output::objects;
use webdancer_query::{QueryEngine, QueryError, QueryOptions, QueryResult};
use webdancer_schemas::kind::Kind;

use super::board::Board;
use super::fault::Fault;
use super::readers::Readers;
use crate::prices::PriceList;

/// How the dashboard is served; every limit has a default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The lake, as pages name it.
    pub lake: String,
    /// Whether rows of gated benchmarks are shown to everybody. Default: no.
    pub restricted: bool,
    /// Who is shown them otherwise. Default: nobody.
    pub readers: Option<Readers>,
    /// Time for the statements of one page. Default 30 s.
    pub query_time: Duration,
    /// Rows that one statement of a page may read into memory. Default 1,000,000.
    pub rows_max: u64,
    /// Rows of one download. Default 1,000,000.
    pub download_rows_max: u64,
    /// Statements that run at the same time; further ones wait. Default 8.
    pub statements_max: usize,
    /// How long the tables' versions are taken for the newest. Default 1 s.
    pub versions_time: Duration,
    /// How long a page waits for newer figures before it shows those of before, and says so. Default 50 ms.
    pub patience: Duration,
    /// Computed results kept, of which the largest are a run's attempts: about a kilobyte each. Default 64.
    pub memo_max: usize,
    /// Attempts of a run up to which its page shows each. Default 25,000.
    pub attempts_max: u64,
    /// Live streams of progress at the same time. Default 64.
    pub streams_max: usize,
    /// How often a live stream looks at the tables. Default 2 s.
    pub stream_every: Duration,
    /// The clock.
    pub now: fn() -> DateTime<Utc>,
    /// What tokens cost. Default: unknown.
    pub prices: PriceList,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            lake: String::new(),
            restricted: false,
            readers: None,
            query_time: Duration::from_secs(30),
            rows_max: 1_000_000,
            download_rows_max: 1_000_000,
            statements_max: 8,
            versions_time: Duration::from_secs(1),
            patience: Duration::from_millis(50),
            memo_max: 64,
            attempts_max: 25_000,
            streams_max: 64,
            stream_every: Duration::from_secs(2),
            now: Utc::now,
            prices: PriceList::default(),
        }
    }
}

/// What the handlers share, as a reader may see it. Cheap to clone.
#[derive(Clone)]
pub struct Dashboard {
    inner: Arc<Inner>,
    /// Whether the reader may see rows of gated benchmarks.
    restricted: bool,
}

/// A version of a table, and when it was committed, where that is known.
type Committed = (u64, Option<DateTime<Utc>>);

struct Inner {
    engine: QueryEngine,
    settings: Settings,
    statements: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    versions: tokio::sync::Mutex<Option<(Instant, Versions)>>,
    committed: Mutex<HashMap<Kind, Committed>>,
    memo: Mutex<HashMap<String, Kept>>,
    last_board: tokio::sync::Mutex<Option<Arc<Board>>>,
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

/// The version of every table that exists.
type Versions = Vec<(Kind, u64)>;

/// A result of any type.
type Made = Arc<dyn Any + Send + Sync>;

/// What is kept of one computation: the result that is there, and the one under way for newer tables.
struct Kept {
    used: Instant,
    ready: Option<(Versions, Made)>,
    coming: Option<(Versions, Arc<OnceCell<Made>>)>,
}

/// A computed result.
#[derive(Debug)]
pub struct Computed<T> {
    /// The result.
    pub value: Arc<T>,
    /// Whether the tables have changed since: newer figures are being computed.
    pub behind: bool,
}

/// A statement that runs. It counts as one for as long as this is kept.
#[derive(Debug)]
pub struct Running {
    /// Its rows.
    pub rows: QueryResult,
    _turn: OwnedSemaphorePermit,
}

impl Stream for Running {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rows.poll_next_unpin(context)
    }
}

/// Rows of a statement.
pub type Rows = Vec<Map<String, Value>>;

impl Dashboard {
    /// Pages over what `engine` reads.
    pub fn new(engine: QueryEngine, settings: Settings) -> Dashboard {
        let restricted = settings.restricted;
        let inner = Inner {
            statements: Arc::new(Semaphore::new(settings.statements_max.max(1))),
            streams: Arc::new(Semaphore::new(settings.streams_max)),
            engine,
            settings,
            versions: tokio::sync::Mutex::default(),
            committed: Mutex::default(),
            memo: Mutex::default(),
            last_board: tokio::sync::Mutex::default(),
        };
        Dashboard { inner: Arc::new(inner), restricted }
    }

    /// The same as whoever sent these headers may see it.
    #[must_use]
    pub fn as_seen_by(&self, headers: &HeaderMap) -> Dashboard {
        let settings = &self.inner.settings;
        let included = settings.readers.as_ref().is_some_and(|readers| readers.include(headers));
        Dashboard { inner: self.inner.clone(), restricted: settings.restricted || included }
    }

    /// Whether the reader may see rows of gated benchmarks.
    pub fn restricted(&self) -> bool {
        self.restricted
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The engine, for what runs no statement; else [`batches`](Self::batches), [`rows`](Self::rows) and [`in_turn`](Self::in_turn).
    pub fn engine(&self) -> &QueryEngine {
        &self.inner.engine
    }

    /// The board that was made last.
    pub(super) fn last_board(&self) -> &tokio::sync::Mutex<Option<Arc<Board>>> {
        &self.inner.last_board
    }

    /// Room for one more live stream; None where there is none.
    pub fn stream_permit(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        self.inner.streams.clone().try_acquire_owned().ok()
    }

    /// A statement's rows as they come, at most `rows_max` of them: one of a page, which knows what it may show.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn query(&self, sql: &str, rows_max: u64) -> Result<Running, Fault> {
        self.start(sql, rows_max, true).await
    }

    /// The same of a statement that a reader gave: gated rows are there for who may see them.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn query_of_reader(&self, sql: &str, rows_max: u64) -> Result<Running, Fault> {
        self.start(sql, rows_max, self.restricted).await
    }

    async fn start(&self, sql: &str, rows_max: u64, restricted: bool) -> Result<Running, Fault> {
        let turn = self.turn().await?;
        let timeout = Some(self.inner.settings.query_time);
        let options = QueryOptions { max_rows: Some(rows_max), timeout, restricted, ..QueryOptions::default() };
        Ok(Running { rows: self.inner.engine.query(sql, &options).await?, _turn: turn })
    }

    /// Waits until one more statement may run.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Fault> {
        let waiting = self.inner.statements.clone().acquire_owned();
        match tokio::time::timeout(self.inner.settings.query_time, waiting).await {
            Ok(Ok(turn)) => Ok(turn),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(Fault::Late("the server is busy with other pages; try again".to_string())),
        }
    }

    /// Runs what asks the engine by itself, as one statement: in its turn, and for no longer than a page may take.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn in_turn<T>(&self, work: impl Future<Output = Result<T, QueryError>>) -> Result<T, Fault> {
        let _turn = self.turn().await?;
        let limit = self.inner.settings.query_time;
        match tokio::time::timeout(limit, work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Fault::Late(format!("it took longer than {} s; ask for less", limit.as_secs()))),
        }
    }

    /// All rows of a statement as record batches. More than may be read are an error, never cut.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn batches(&self, sql: &str) -> Result<Vec<RecordBatch>, Fault> {
        let mut running = self.query(sql, self.inner.settings.rows_max).await?;
        let batches = running.rows.read_all().await?;
        if running.rows.truncated() {
            let max = self.inner.settings.rows_max;
            return Err(Fault::Late(format!("the page would read more than {max} rows; narrow it down")));
        }
        Ok(batches)
    }

    /// All rows of a statement as JSON objects by column, as every command has them.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn rows(&self, sql: &str) -> Result<Rows, Fault> {
        Ok(objects(&self.batches(sql).await?)?)
    }

    /// What `compute` gives for the present state of the tables of these kinds, computed once for each state and key.
    /// Where an older result is there and the newer takes longer than the [patience](Settings::patience), the older one
    /// is given and the newer goes on being computed.
    ///
    /// The key names the type of the result, too: one key, one type. What was computed for readers who may see gated rows is
    /// kept apart from what others are given.
    ///
    /// # Errors
    /// Those of `compute`, which are not kept.
    pub async fn memo<T, F>(&self, key: &str, kinds: &[Kind], compute: F) -> Result<Computed<T>, Fault>
    where
        T: Any + Send + Sync,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let versions = self.versions(kinds).await?;
        let key = if self.restricted { format!("restricted {key}") } else { key.to_string() };
        let Coming { older, cell, of } = match self.inner.lookup(&key, &versions) {
            Found::Ready(value) => return Ok(Computed { value: typed(value)?, behind: false }),
            Found::Coming(coming) => coming,
        };
        let behind = of != versions;
        let app = self.clone();
        // Boxed: what a page awaits is nested deeply, and an unoptimised build moves all of it over the stack.
        let working = Box::pin(async move {
            let making = async { Ok::<Made, Fault>(Arc::new(compute.await?)) };
            let value = cell.get_or_try_init(|| making).await?.clone();
            app.inner.keep(&key, of, value.clone());
            Ok::<Made, Fault>(value)
        });
        let Some(older) = older else {
            return Ok(Computed { value: typed(working.await?)?, behind });
        };
        let mut working = tokio::spawn(working);
        match tokio::time::timeout(self.inner.settings.patience, &mut working).await {
            Ok(Ok(Ok(value))) => Ok(Computed { value: typed(value)?, behind }),
            Ok(Ok(Err(fault))) => Err(fault),
            Ok(Err(error)) => Err(Fault::failed("the figures cannot be computed", &error)),
            Err(_) => Ok(Computed { value: typed(older)?, behind: true }),
        }
    }

    /// The same for what a page does without rather than wait for it longer than `wait`: None, and it goes on being computed.
    ///
    /// # Errors
    /// Those of `compute`, which are not kept.
    pub async fn memo_within<T, F>(
        &self,
        wait: Duration,
        key: &str,
        kinds: &'static [Kind],
        compute: F,
    ) -> Result<Option<Computed<T>>, Fault>
    where
        T: Any + Send + Sync,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let (app, key) = (self.clone(), key.to_string());
        let making = tokio::spawn(async move { app.memo(&key, kinds, compute).await });
        match tokio::time::timeout(wait, making).await {
            Ok(Ok(made)) => made.map(Some),
            Ok(Err(error)) => Err(Fault::failed("the figures cannot be computed", &error)),
            Err(_) => Ok(None),
        }
    }

    /// Computes what the first page would have to wait for.
    pub async fn warm_up(&self) {
        let warmed = async { futures::try_join!(self.board(), self.colours()) };
        if let Err(fault) = warmed.await {
            tracing::warn!("the first pages will have to wait: {fault}");
        }
    }

    /// When the lake was last changed, where that can be told.
    pub async fn last_commit(&self) -> Option<DateTime<Utc>> {
        for (kind, version) in self.versions(Kind::ALL).await.ok()? {
            let known = self.inner.committed.lock().get(&kind).is_some_and(|(of, _)| *of == version);
            if !known {
                let time = self.inner.engine.committed(kind, version).await.ok().flatten();
                self.inner.committed.lock().insert(kind, (version, time));
            }
        }
        self.inner.committed.lock().values().filter_map(|(_, time)| *time).max()
    }

    /// The versions of the tables of these kinds, as of a moment ago.
    async fn versions(&self, kinds: &[Kind]) -> Result<Versions, Fault> {
        let mut known = self.inner.versions.lock().await;
        let fresh = known.as_ref().filter(|(at, _)| at.elapsed() < self.inner.settings.versions_time);
        let versions = match fresh {
            Some((_, versions)) => versions.clone(),
            None => {
                let versions = self.inner.engine.versions().await?;
                *known = Some((Instant::now(), versions.clone()));
                versions
            }
        };
        Ok(versions.into_iter().filter(|(kind, _)| kinds.contains(kind)).collect())
    }
}

enum Found {
    Ready(Made),
    Coming(Coming),
}

/// A computation to wait for, or to begin.
struct Coming {
    /// What was computed before.
    older: Option<Made>,
    cell: Arc<OnceCell<Made>>,
    /// The tables that it is for.
    of: Versions,
}

impl Inner {
    fn lookup(&self, key: &str, versions: &Versions) -> Found {
        let mut memo = self.memo.lock();
        if !memo.contains_key(key) && memo.len() >= self.settings.memo_max.max(1) {
            let oldest = memo.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                memo.remove(&oldest);
            }
        }
        let new = || Kept { used: Instant::now(), ready: None, coming: None };
        let kept = memo.entry(key.to_string()).or_insert_with(new);
        kept.used = Instant::now();
        if let Some((of, value)) = &kept.ready
            && of == versions
        {
            return Found::Ready(value.clone());
        }
        let older = kept.ready.as_ref().map(|(_, value)| value.clone());
        // What somebody works on is waited for, even if tables have changed since: where commits come faster than figures
        // can be computed, one computation would else pile up on another.
        if let Some((of, cell)) = &kept.coming
            && (of == versions || Arc::strong_count(cell) > 1)
        {
            return Found::Coming(Coming { older, cell: cell.clone(), of: of.clone() });
        }
        let cell = Arc::new(OnceCell::new());
        kept.coming = Some((versions.clone(), cell.clone()));
        Found::Coming(Coming { older, cell, of: versions.clone() })
    }

    fn keep(&self, key: &str, versions: Versions, value: Made) {
        let mut memo = self.memo.lock();
        let Some(kept) = memo.get_mut(key) else { return };
        if kept.coming.as_ref().is_some_and(|(of, _)| *of == versions) {
            kept.coming = None;
        }
        kept.ready = Some((versions, value));
    }
}

fn typed<T: Any + Send + Sync>(value: Made) -> Result<Arc<T>, Fault> {
    value.downcast().map_err(|_| Fault::Wrong("two results of different types are kept under one key".to_string()))
}

//! The engine: plans statements and runs them within limits.
//!
//! Planning and running happen on threads of the engine's own, with 16 MiB stacks: plans are walked by recursion
//! (`recursive_protection` grows the stack where DataFusion recurses, the rest must fit), and a query that keeps a
//! processor busy does not starve the caller's runtime. A time limit ends the caller's wait at once; a thread busy
//! in planning finishes that step before it notices.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use datafusion::arrow::datatypes::DataType;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{FunctionRegistry as _, SendableRecordBatchStream, SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion_functions_json::functions::json_union_to_text;
use futures::StreamExt as _;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use webdancer_lake::lake::At;
use webdancer_lake::pins::PinnedTable;
use webdancer_schemas::kind::Kind;

use crate::apart::TextApart;
use crate::canonical::{canonical_batch, canonical_schema};
use crate::catalog::Catalog;
use crate::complete::Completer;
use crate::error::{QueryError, Result};
use crate::first_row::FirstRowPerKey;
use crate::functions::{self, bounded};
use crate::limits::{Limits, QueryOptions};
use crate::reference::{self, Reference};
use crate::resolve::{self, CATALOG, KnownPins, Resolved, Resolver, SCHEMA, Versions};
use crate::statement;
use crate::stream::{QueryResult, Received};

/// Rows per batch of a pin: sums of floats depend on it.
const PIN_BATCH_ROWS: usize = 8_192;
/// Rows per batch of a result that is sorted as a whole: merging holds a batch of each spilled file, of whole
/// trajectories often.
const SORTED_BATCH_ROWS: usize = 1_024;
/// Rows per batch of a query that ran out of memory with more: of the widest rows a batch has some megabytes.
const NARROW_BATCH_ROWS: usize = 32;
/// Name of the threads that plan and run statements. A panic on one of them comes back as an error.
pub const THREAD_NAME: &str = "query";
const STACK_BYTES: usize = 16 << 20;
/// Batches computed ahead of the caller.
const BATCHES_AHEAD: usize = 2;

/// Runs SQL over a catalogue. Cheap to clone; clones share memory and threads.
#[derive(Debug, Clone)]
pub struct QueryEngine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    catalog: Arc<dyn Catalog>,
    limits: Limits,
    state: SessionState,
    known_pins: KnownPins,
    runtime: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Dropping a runtime waits, which is not allowed on an async caller's thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How a statement is to be planned and run.
#[derive(Debug, Clone)]
pub(crate) struct Mode {
    pub(crate) versions: Versions,
    /// What is to be kept of the order of rows.
    pub(crate) order: Order,
    pub(crate) deadline: Instant,
    /// Whether rows of gated benchmarks are read.
    pub(crate) restricted: bool,
}

/// What a statement's result may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Rows come as is fastest.
    Any,
    /// The same, one partition and few rows at a time: slower, and within less memory where rows are wide.
    Narrow,
    /// All rows are sorted at the end, by one sort: several side by side, each with wide rows to merge from disk, would
    /// take the memory from each other.
    Sorted,
    /// One partition, rows of tables in a fixed order: for pins that depend on it.
    Fixed,
}

/// A statement parsed, checked, and freed of `at(…)` and `pin(…)`.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) statement: Statement,
    pub(crate) references: BTreeMap<String, Reference>,
}

impl QueryEngine {
    /// An engine over `catalog`, a [`webdancer_lake::Lake`] for example.
    ///
    /// # Errors
    /// When threads or the spill folder cannot be made.
    pub fn new(catalog: Arc<dyn Catalog>, limits: Limits) -> Result<QueryEngine> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(limits.target_partitions.max(2))
            .thread_stack_size(STACK_BYTES)
            .thread_name(THREAD_NAME)
            .enable_all()
            .build()
            .map_err(|error| QueryError::failed("starting the query threads", error))?;
        let state = base_state(catalog.as_ref(), &limits)?;
        Ok(QueryEngine {
            inner: Arc::new(Inner { catalog, limits, state, known_pins: KnownPins::default(), runtime: Some(runtime) }),
        })
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// The catalogue.
    pub fn catalog(&self) -> &dyn Catalog {
        self.inner.catalog.as_ref()
    }

    /// Plans and starts one statement, and waits for its first rows; more are computed as they are read.
    ///
    /// A statement that runs out of memory before its first row is run again with few rows at a time: how wide rows are
    /// is known when they are there, and sorts that run side by side take from each other what merging them needs.
    ///
    /// # Errors
    /// See [`QueryError`]; errors while rows are computed come out of the result.
    pub async fn query(&self, sql: &str, options: &QueryOptions) -> Result<QueryResult> {
        let limits = &self.inner.limits;
        let timeout = options.timeout.map_or(limits.timeout, |timeout| timeout.min(limits.timeout));
        let max_rows = options.max_rows.map_or(limits.max_rows, |rows| rows.min(limits.max_rows));
        let mode = Mode {
            versions: Versions::At(options.at),
            order: Order::Any,
            deadline: deadline_in(timeout),
            restricted: options.restricted,
        };
        let sql = sql.to_string();
        let engine = self.clone();
        let deadline = mode.deadline;
        let planning = async move {
            let prepared = engine.prepare(&sql)?;
            match engine.begin(&prepared, &mode).await {
                Err(error) if error.is_out_of_memory() => {
                    tracing::debug!(%error, "running the statement again with few rows at a time");
                    engine.begin(&prepared, &Mode { order: Order::Narrow, ..mode }).await
                }
                begun => begun,
            }
        };
        self.on_own_threads(planning, deadline).await.map(|result| result.cut_at(max_rows))
    }

    /// The version of each table that there is.
    ///
    /// # Errors
    /// When a table cannot be opened.
    pub async fn versions(&self) -> Result<Vec<(Kind, u64)>> {
        let engine = self.clone();
        let opening = async move {
            let catalog = engine.catalog();
            let mut versions = Vec::with_capacity(Kind::ALL.len());
            for kind in Kind::ALL {
                let table = catalog.table(*kind, At::Latest).await?;
                versions.extend(table.map(|table| (*kind, table.pinned.version)));
            }
            Ok(versions)
        };
        self.on_own_threads(opening, deadline_in(self.inner.limits.timeout)).await
    }

    /// When a version of a table was committed, where that is recorded.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn committed(&self, kind: Kind, version: u64) -> Result<Option<DateTime<Utc>>> {
        let engine = self.clone();
        let reading = async move { engine.catalog().committed(kind, version).await };
        self.on_own_threads(reading, deadline_in(self.inner.limits.timeout)).await
    }

    /// What completes table, column and function names in a shell. Names come from the schemas, pins from the store.
    ///
    /// # Errors
    /// When the pins cannot be listed.
    pub async fn completer(&self) -> Result<Completer> {
        let engine = self.clone();
        let deadline = deadline_in(self.inner.limits.timeout);
        let collecting = async move {
            let tables = resolve::declared_tables(&engine.inner.state, &engine.inner.limits).await?;
            let pins = engine.catalog().list_pins().await?;
            let tables = tables.into_iter().map(|(name, table)| {
                let columns = table.schema().fields().iter().map(|field| field.name().clone()).collect();
                (name, columns)
            });
            let state = &engine.inner.state;
            let functions = state.udfs().into_iter().chain(state.udafs()).chain(state.udwfs());
            Ok(Completer::new(tables.collect(), functions, pins.into_iter().map(|pin| pin.name)))
        };
        self.on_own_threads(collecting, deadline).await
    }

    /// Parses and checks a statement.
    pub(crate) fn prepare(&self, sql: &str) -> Result<Prepared> {
        let mut statement = statement::parse(sql, &self.inner.limits)?;
        if let Statement::Statement(inner) = &statement
            && matches!(inner.as_ref(), SqlStatement::ShowTables { .. })
        {
            statement = statement::parse(SHOW_TABLES, &self.inner.limits)?;
        }
        let references = reference::rewrite(&mut statement)?;
        Ok(Prepared { statement, references })
    }

    /// Opens the tables and plans.
    pub(crate) async fn resolve(&self, prepared: &Prepared, mode: &Mode) -> Result<Resolved> {
        let Inner { catalog, limits, state, known_pins, .. } = self.inner.as_ref();
        let mut state = match mode.order {
            Order::Any => state.clone(),
            Order::Narrow => narrow(state.clone()),
            Order::Sorted => sorted_at_once(state.clone()),
            Order::Fixed => sequential(state.clone()),
        };
        bounded::bind(&mut state, limits.memory_bytes)?;
        let resolver = Resolver::new(catalog.as_ref(), &state, limits, known_pins, mode);
        let resolved = resolver.plan(prepared.statement.clone(), &prepared.references).await?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&resolved.plan).map_err(|error| QueryError::Refused(error.strip_backtrace()))?;
        Ok(resolved)
    }

    /// Plans a statement and runs it up to its first rows.
    async fn begin(&self, prepared: &Prepared, mode: &Mode) -> Result<QueryResult> {
        let resolved = self.resolve(prepared, mode).await?;
        self.start(resolved, mode.deadline).await?.begun().await
    }

    /// Starts a plan; to be called on the engine's threads.
    pub(crate) async fn start(&self, resolved: Resolved, deadline: Instant) -> Result<QueryResult> {
        let Resolved { state, plan, used } = resolved;
        let plan = state.optimize(&json_as_text(plan)?).map_err(QueryError::planning)?;
        let batch_rows = state.config().batch_size();
        let plan = bounded::constants::guard(plan, self.inner.limits.memory_bytes, batch_rows)?;
        let planner = state.query_planner().clone();
        let physical = planner.create_physical_plan(&plan, &state).await.map_err(QueryError::planning)?;
        let schema = canonical_schema(physical.schema().as_ref());
        let stream = execute_stream(physical, state.task_ctx()).map_err(QueryError::running)?;
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let forwarding = self.inner.runtime()?.spawn(forward(stream, sender));
        let received = Received { receiver, task: AbortOnDropHandle::new(forwarding) };
        Ok(QueryResult::new(schema, received, used, deadline, self.clone()))
    }

    /// Runs `work` on the engine's threads until `deadline`.
    pub(crate) async fn on_own_threads<T, F>(&self, work: F, deadline: Instant) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = AbortOnDropHandle::new(self.inner.runtime()?.spawn(work));
        match tokio::time::timeout_at(deadline, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(QueryError::broken_off(&error)),
            Err(_) => Err(timed_out()),
        }
    }

    /// Folder for temporary files.
    pub(crate) fn spill_dir(&self) -> Option<&Path> {
        self.inner.limits.spill_dir.as_deref()
    }
}

impl Inner {
    fn runtime(&self) -> Result<&Runtime> {
        self.runtime.as_ref().ok_or_else(|| QueryError::Refused("the engine is shutting down".to_string()))
    }
}

pub(crate) fn timed_out() -> QueryError {
    QueryError::limit("the query took longer than it may", "select less, or raise sql.timeout_s")
}

async fn forward(mut stream: SendableRecordBatchStream, sender: mpsc::Sender<Result<arrow::array::RecordBatch>>) {
    let schema = canonical_schema(stream.schema().as_ref());
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(QueryError::running).and_then(|batch| canonical_batch(&batch, &schema));
        let failed = batch.is_err();
        if sender.send(batch).await.is_err() || failed {
            return;
        }
    }
}

const SHOW_TABLES: &str = "SELECT table_name, CASE table_type WHEN 'VIEW' THEN 'view' ELSE 'table' END AS kind \
    FROM information_schema.tables WHERE table_schema = 'public' ORDER BY kind, table_name";

/// The moment after `time`; a time that the clock cannot add is as good as none.
pub(crate) fn deadline_in(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 3600))
}

fn base_state(catalog: &dyn Catalog, limits: &Limits) -> Result<SessionState> {
    let spill = match &limits.spill_dir {
        Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    let disk = DiskManagerBuilder::default().with_mode(spill).with_max_temp_directory_size(limits.spill_bytes);
    let pool = TrackConsumersPool::new(FairSpillPool::new(limits.memory_bytes), NonZeroUsize::MIN.saturating_add(4));
    let runtime =
        RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_disk_manager_builder(disk).build_arc()?;
    for (url, store) in catalog.object_stores() {
        runtime.register_object_store(&url, store);
    }
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(limits.target_partitions.max(1))
        .with_batch_size(limits.batch_rows.max(1));
    let options = config.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.parquet.schema_force_view_types = false;
    // It hands the limit of a sort down to an aggregate below a window, which then sees only the first groups: in DataFusion
    // 55, `count(*) OVER ()` over groups counts no further than the LIMIT.
    options.optimizer.enable_topk_aggregation = false;
    // A sort starts spilling when what it must keep back for merging no longer fits: a tenth of all at most.
    options.execution.sort_spill_reservation_bytes =
        options.execution.sort_spill_reservation_bytes.min(limits.memory_bytes / 10);
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_optimizer_rule(Arc::new(FirstRowPerKey))
        .with_physical_optimizer_rule(Arc::new(TextApart))
        .build();
    datafusion_functions_json::register_all(&mut state)?;
    for function in functions::all() {
        state.register_udaf(Arc::new(function))?;
    }
    for function in functions::scalars() {
        state.register_udf(Arc::new(function))?;
    }
    Ok(state)
}

/// The same rows give the same result whatever the machine and the files: nothing runs side by side, and joins keep
/// the sides that the SQL gives them.
fn sequential(mut state: SessionState) -> SessionState {
    let config = state.config_mut();
    *config = std::mem::take(config).with_target_partitions(1).with_batch_size(PIN_BATCH_ROWS);
    let options = config.options_mut();
    options.optimizer.join_reordering = false;
    state
}

fn narrow(mut state: SessionState) -> SessionState {
    let config = state.config_mut();
    let batch_rows = config.batch_size().min(NARROW_BATCH_ROWS);
    *config = std::mem::take(config).with_target_partitions(1).with_batch_size(batch_rows);
    state
}

fn sorted_at_once(mut state: SessionState) -> SessionState {
    let config = state.config_mut();
    let batch_rows = config.batch_size().min(SORTED_BATCH_ROWS);
    *config = std::mem::take(config).with_repartition_sorts(false).with_batch_size(batch_rows);
    state
}

/// `json_get` and `->` return a union of JSON's types, which no format but Arrow has: results show its JSON text.
fn json_as_text(plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = plan.schema().clone();
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_))
        || !schema.fields().iter().any(|field| matches!(field.data_type(), DataType::Union(..)))
    {
        return Ok(plan);
    }
    let columns = schema.iter().map(|(qualifier, field)| {
        let column = Expr::Column((qualifier, field).into());
        match field.data_type() {
            DataType::Union(..) => json_union_to_text(column).alias(field.name()),
            _ => column,
        }
    });
    Ok(LogicalPlanBuilder::from(plan.clone()).project(columns.collect::<Vec<_>>())?.build()?)
}

/// The tables that a result was computed from.
pub(crate) type Used = BTreeMap<String, PinnedTable>;

//! Pins: the result of a query, made immutable.
//!
//! A pin is Parquet files, a manifest, and a digest that is its identity. Making one again from the same rows gives the
//! same digest on any machine, from any files and in any number of partitions. For that
//! - what may change between runs is refused: `now()`, `random()`, `uuid()`, the catalogue's own tables;
//! - rows come in a total order: the query's ORDER BY, completed by all columns (by `event_id` first, if the result
//!   has it). So a LIMIT means the same rows, too;
//! - where the result depends on the order in which rows are read, as sums of floats do, the plan runs in one partition
//!   over tables in the order of their event ids ([`order`] has which do, [`crate::ordered`] how).
//!
//! What is left open: a LIMIT or an order-dependent aggregate *within* a query, over a UNION, sees the union's parts
//! in whatever order they come. Give such a subquery an ORDER BY.

mod diff;
mod order;
mod read;
mod restricted;
mod ties;
mod verify;
mod write;

use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, Volatility, WindowFunctionDefinition};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, OrderBy, OrderByExpr, OrderByKind, OrderByOptions, Query, Statement as SqlStatement, Value,
};
use futures::StreamExt as _;
use tempfile::TempDir;
use tokio::time::Instant;
use webdancer_lake::lake::At;
use webdancer_lake::pins::{PinFile, PinManifest, check_name};
use webdancer_schemas::digest::sha256_hex;
use webdancer_schemas::table::EVENT_ID;

use crate::canonical::canonical_schema;
use crate::catalog::PinStore;
use crate::digest::{DatasetDigest, type_name};
use crate::error::{QueryError, Result};
use crate::resolve::Versions;
use crate::session::{Mode, Order, Prepared, QueryEngine, Used};
use crate::statement;
use crate::stream::QueryResult;
use ties::Ties;
use write::{Part, PartsWriter, Writing};

pub use diff::{Change, ChangedRow, PinDiff, diff};
pub use read::{check_open, export, read};
pub use verify::{Recomputed, Verification, verify};

/// Format of the manifests written here.
const MANIFEST_FORMAT: u32 = 1;

/// A pin that was made, or found made before.
#[derive(Debug, Clone)]
pub struct Created {
    /// Its manifest as stored.
    pub manifest: PinManifest,
    /// False when this very dataset had been pinned before.
    pub new: bool,
}

/// Runs `sql` over the newest tables and pins its result under `name`. `now` is recorded as the time of making.
///
/// Doing it again is no error while the rows are the same. Each name keeps the query that it was made with first.
///
/// # Errors
/// [`QueryError::Sql`] when the name is none, before the query runs; [`QueryError::Refused`] for SQL whose result may
/// change by itself, [`QueryError::Conflict`] when the name belongs to other rows, and those of a query.
pub async fn create(engine: &QueryEngine, name: &str, sql: &str, now: DateTime<Utc>) -> Result<Created> {
    // The query may run for hours: what can be told before is.
    check_name(name)?;
    let folder = temporary_folder(engine)?;
    let writing = Writing {
        folder: folder.path().to_path_buf(),
        file_bytes: engine.limits().pin_file_bytes,
        threads: engine.limits().target_partitions,
    };
    let computed = compute(engine, sql, Versions::At(At::Latest), Some(writing)).await?;
    let store = engine.catalog();
    match found(store.find_pin(name).await)?.filter(|pin| pin.name == name) {
        Some(holder) if holder.digest == computed.digest => {
            if files_of(engine, &holder, &computed).await? != holder.files {
                return Err(QueryError::Conflict(format!(
                    "files of pin {name:?} are missing or damaged, and cannot be made again as they were; pin the same \
                     query under another name"
                )));
            }
            return Ok(Created { manifest: holder, new: false });
        }
        Some(holder) => {
            return Err(QueryError::Conflict(format!(
                "the name {name:?} belongs to pin {}, which has other rows; a pin never changes, choose another name",
                holder.digest
            )));
        }
        None => {}
    }
    // The same rows may be there under another name: the files are theirs, what was asked for is this name's.
    let files = match found(store.find_pin(&computed.digest).await)? {
        Some(existing) => files_of(engine, &existing, &computed).await?,
        None => upload(engine, &computed).await?,
    };
    let manifest = PinManifest {
        format: MANIFEST_FORMAT,
        name: name.to_string(),
        definition: sql.to_string(),
        tables: computed.used,
        schema: schema_json(&computed.schema),
        files,
        rows: computed.rows,
        digest: computed.digest,
        created: now,
        code_version: webdancer_schemas::code::version(),
    };
    let new = store.commit_pin(&manifest).await?;
    // As stored: another process may have made the same pin at the same moment.
    Ok(Created { manifest: store.find_pin(name).await?, new })
}

/// The files of a pin of the rows just computed; where one of them is gone, they are stored again.
async fn files_of(engine: &QueryEngine, existing: &PinManifest, computed: &Computed) -> Result<Vec<PinFile>> {
    for file in &existing.files {
        match engine.catalog().read_pin_file(&existing.digest, &file.path).await {
            Ok(bytes) if sha256_hex(&bytes) == file.sha256 => {}
            // Named by their content: the same bytes come to the same place, others to another.
            _ => return upload(engine, computed).await,
        }
    }
    Ok(existing.files.clone())
}

/// SHA-256 of the manifest as stored: tells one lake's manifest from another's of the same dataset.
///
/// # Errors
/// When the manifest cannot be read.
pub async fn manifest_sha256(store: &dyn PinStore, manifest: &PinManifest) -> Result<String> {
    Ok(sha256_hex(store.manifest_bytes(manifest).await?))
}

/// None where there is no such pin.
fn found(result: Result<PinManifest>) -> Result<Option<PinManifest>> {
    match result {
        Ok(manifest) => Ok(Some(manifest)),
        Err(QueryError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn temporary_folder(engine: &QueryEngine) -> Result<TempDir> {
    let builder = || tempfile::Builder::new().prefix("webdancer-pin-").to_owned();
    let made = match engine.spill_dir() {
        Some(folder) => std::fs::create_dir_all(folder).and_then(|()| builder().tempdir_in(folder)),
        None => builder().tempdir(),
    };
    made.map_err(|error| QueryError::failed("making a temporary folder for the pin", error))
}

/// A result computed reproducibly.
#[derive(Debug)]
struct Computed {
    schema: SchemaRef,
    digest: String,
    rows: u64,
    used: Used,
    parts: Vec<Part>,
}

/// Computes the result of a pin's SQL and its digest; writes its rows if asked to.
async fn compute(engine: &QueryEngine, sql: &str, versions: Versions, writing: Option<Writing>) -> Result<Computed> {
    let deadline = crate::session::deadline_in(engine.limits().pin_timeout);
    let (owned, sql) = (engine.clone(), sql.to_string());
    let starting = async move { start(&owned, &sql, versions, deadline).await };
    let (mut result, mut ties) = engine.on_own_threads(starting, deadline).await?;
    let schema = result.schema();
    let mut digest = DatasetDigest::new(&schema)?;
    let mut writer = writing.map(|writing| PartsWriter::new(writing, schema.clone())).transpose()?;
    loop {
        let next = result.next().await.transpose()?;
        let ended = next.is_none();
        let settled = match (next, &mut ties) {
            (Some(batch), Some(ties)) => ties.push(batch)?,
            (Some(batch), None) => vec![batch],
            (None, Some(ties)) => ties.finish()?.into_iter().collect(),
            (None, None) => Vec::new(),
        };
        for batch in settled {
            if let Some(writer) = &mut writer {
                writer.push(batch.clone()).await?;
            }
            digest.update(&batch)?;
        }
        if ended {
            break;
        }
    }
    let parts = match writer {
        Some(writer) => writer.finish().await?,
        None => Vec::new(),
    };
    Ok(Computed { schema, rows: digest.rows(), digest: digest.finish(), used: result.tables().clone(), parts })
}

/// Starts the query in its total order, or by event id alone and [`Ties`] for the rest of the order.
async fn start(
    engine: &QueryEngine,
    sql: &str,
    versions: Versions,
    deadline: Instant,
) -> Result<(QueryResult, Option<Ties>)> {
    let prepared = engine.prepare(sql)?;
    if !statement::is_query(&prepared.statement) {
        return Err(QueryError::Refused("a pin is made of a query: SELECT, WITH or VALUES".to_string()));
    }
    let in_order = Mode { versions, order: Order::Fixed, deadline, restricted: true };
    let unordered = engine.resolve(&prepared, &in_order).await?;
    check_reproducible(&unordered.plan)?;
    let schema = canonical_schema(unordered.plan.schema().as_arrow());
    check_columns(&schema)?;
    // Planned again with the order completed, over the very versions just opened.
    let (ordered, ties) = in_total_order(prepared, &schema)?;
    let in_order = Mode { versions: Versions::Recorded(unordered.used), ..in_order };
    let in_any_order = Mode { order: Order::Sorted, ..in_order.clone() };
    let resolved = engine.resolve(&ordered, &in_any_order).await?;
    let optimized = resolved.state.optimize(&resolved.plan).map_err(QueryError::planning)?;
    let resolved = if order::is_free(&optimized)? { resolved } else { engine.resolve(&ordered, &in_order).await? };
    Ok((engine.start(resolved, deadline).await?, ties))
}

/// Refuses what gives another result at another time.
fn check_reproducible(plan: &LogicalPlan) -> Result<()> {
    let mut changing = None;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.schema() == Some("information_schema")
        {
            changing = Some(scan.table_name.to_string());
        }
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                let (name, volatility) = match part {
                    PlanExpr::ScalarFunction(call) => (call.func.name(), call.func.signature().volatility),
                    PlanExpr::AggregateFunction(call) => (call.func.name(), call.func.signature().volatility),
                    PlanExpr::WindowFunction(call) => match &call.fun {
                        WindowFunctionDefinition::AggregateUDF(function) => {
                            (function.name(), function.signature().volatility)
                        }
                        WindowFunctionDefinition::WindowUDF(function) => {
                            (function.name(), function.signature().volatility)
                        }
                    },
                    PlanExpr::ScalarVariable(_, names) => {
                        changing = Some(names.join("."));
                        return Ok(TreeNodeRecursion::Stop);
                    }
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                if volatility != Volatility::Immutable || name == "version" {
                    changing = Some(format!("{name}()"));
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match changing {
        None => Ok(()),
        Some(name) => Err(QueryError::Refused(format!(
            "{name} in a pin: it gives another result another time; write the value itself, and `at(…)` for a state"
        ))),
    }
}

fn check_columns(schema: &Schema) -> Result<()> {
    // Refuses types without an encoding.
    DatasetDigest::new(schema)?;
    for (index, field) in schema.fields().iter().enumerate() {
        if schema.fields().iter().take(index).any(|earlier| earlier.name() == field.name()) {
            return Err(QueryError::Sql(format!("two columns are named {:?}; give each a name with AS", field.name())));
        }
    }
    if schema.fields().is_empty() {
        return Err(QueryError::Sql("a dataset has at least one column".to_string()));
    }
    Ok(())
}

/// Completes the query's ORDER BY with every column of its result, the event id first. Where that is all of the order,
/// and there are no rows to be left out by it, the columns after it are left to [`Ties`].
fn in_total_order(mut prepared: Prepared, schema: &Schema) -> Result<(Prepared, Option<Ties>)> {
    let Some(query) = query_of(&mut prepared.statement) else {
        return Err(QueryError::Refused("a pin is made of a query: SELECT, WITH or VALUES".to_string()));
    };
    if !query.pipe_operators.is_empty() {
        return Err(QueryError::Sql("a pin's query has no |> steps; write it as SELECT".to_string()));
    }
    let event_id = schema.index_of(EVENT_ID).ok();
    let key = event_id.filter(|_| query.order_by.is_none() && query.limit_clause.is_none() && query.fetch.is_none());
    let mut columns: Vec<usize> = (0..schema.fields().len()).collect();
    columns.sort_by_key(|index| Some(*index) != event_id);
    if key.is_some() {
        columns.truncate(1);
    }
    let completion = columns.into_iter().map(|index| OrderByExpr {
        expr: Expr::value(Value::Number((index + 1).to_string(), false)),
        options: OrderByOptions::default(),
        with_fill: None,
    });
    match &mut query.order_by {
        None => {
            let kind = OrderByKind::Expressions(completion.collect());
            query.order_by = Some(OrderBy { kind, interpolate: None });
        }
        Some(OrderBy { kind: OrderByKind::Expressions(expressions), .. }) => expressions.extend(completion),
        // ORDER BY ALL names every column already.
        Some(OrderBy { kind: OrderByKind::All(_), .. }) => {}
    }
    Ok((prepared, key.map(Ties::new)))
}

fn query_of(statement: &mut Statement) -> Option<&mut Query> {
    match statement {
        Statement::Statement(inner) => match inner.as_mut() {
            SqlStatement::Query(query) => Some(query),
            _ => None,
        },
        _ => None,
    }
}

/// Files are named by content too: another writer of the same pin never replaces bytes that a manifest names.
async fn upload(engine: &QueryEngine, computed: &Computed) -> Result<Vec<PinFile>> {
    let mut files = Vec::with_capacity(computed.parts.len());
    for (index, part) in computed.parts.iter().enumerate() {
        let bytes = Bytes::from(tokio::fs::read(&part.path).await?);
        let sha256 = sha256_hex(&bytes);
        let path = format!("part-{index:05}-{}.parquet", &sha256[..8]);
        engine.catalog().put_pin_file(&computed.digest, &path, bytes.clone()).await?;
        files.push(PinFile { path, bytes: bytes.len() as u64, rows: part.rows, sha256 });
    }
    Ok(files)
}

fn schema_json(schema: &Schema) -> serde_json::Value {
    let fields = schema.fields().iter().map(
        |field| serde_json::json!({"name": field.name(), "type": type_name(field.data_type()).unwrap_or_default()}),
    );
    fields.collect()
}

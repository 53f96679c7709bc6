//! Pins: the result of a query, made immutable.
//!
//! A pin is Parquet files, a manifest, and a digest that is its identity. Making one again from the same rows gives the
//! same digest on any machine, from any files and in any number of partitions. For that
//! - what may change between runs is refused: `now()`, `random()`, `uuid()`, the catalogue's own tables;
//! - rows come in a total order: the query's ORDER BY, completed by all columns (by `event_id` first, if the result
//!   has it). So a LIMIT means the same rows, too;
//! - the plan runs in one partition over tables in the order of their event ids ([`crate::ordered`]), so that sums of
//!   floats add up in the same order.
//!
//! What is left open: a LIMIT or an order-dependent aggregate *within* a query, over a UNION, sees the union's parts
//! in whatever order they come. Give such a subquery an ORDER BY.

mod diff;
mod read;
mod verify;

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
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
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::Instant;
use webdancer_lake::lake::At;
use webdancer_lake::pins::{PinFile, PinManifest, check_name};
use webdancer_schemas::digest::sha256_hex;
use webdancer_schemas::table::EVENT_ID;

use crate::canonical::canonical_schema;
use crate::catalog::PinStore;
use crate::digest::{DatasetDigest, type_name};
use crate::error::{QueryError, Result};
use crate::output::parquet_properties;
use crate::resolve::Versions;
use crate::session::{Mode, Prepared, QueryEngine, Used};
use crate::statement;
use crate::stream::QueryResult;

pub use diff::{Change, ChangedRow, PinDiff, diff};
pub use read::{export, read};
pub use verify::{Recomputed, Verification, verify};

/// Format of the manifests written here.
const MANIFEST_FORMAT: u32 = 1;
/// Rows of one batch are handed to the Parquet writer in pieces of about this size, so that files keep their target.
const PIECE_BYTES: usize = 8 << 20;

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
/// Doing it again is no error while the rows are the same.
///
/// # Errors
/// [`QueryError::Sql`] when the name is none, before the query runs; [`QueryError::Refused`] for SQL whose result may
/// change by itself, [`QueryError::Conflict`] when the name belongs to other rows, and those of a query.
pub async fn create(engine: &QueryEngine, name: &str, sql: &str, now: DateTime<Utc>) -> Result<Created> {
    // The query may run for hours: what can be told before is.
    check_name(name)?;
    let folder = temporary_folder(engine)?;
    let writing = Writing { folder: folder.path().to_path_buf(), file_bytes: engine.limits().pin_file_bytes };
    let computed = compute(engine, sql, Versions::At(At::Latest), Some(writing)).await?;
    let store = engine.catalog();
    if let Some(holder) = found(store.find_pin(name).await)?.filter(|pin| pin.name == name)
        && holder.digest != computed.digest
    {
        return Err(QueryError::Conflict(format!(
            "the name {name:?} belongs to pin {}, which has other rows; a pin never changes, choose another name",
            holder.digest
        )));
    }
    let mut manifest = match found(store.find_pin(&computed.digest).await)? {
        Some(existing) => existing,
        None => {
            let files = upload(engine, &computed).await?;
            PinManifest {
                format: MANIFEST_FORMAT,
                name: name.to_string(),
                definition: sql.to_string(),
                tables: computed.used,
                schema: schema_json(&computed.schema),
                files,
                rows: computed.rows,
                digest: computed.digest,
                created: now,
                code_version: env!("CARGO_PKG_VERSION").to_string(),
            }
        }
    };
    manifest.name = name.to_string();
    let new = store.commit_pin(&manifest).await?;
    Ok(Created { manifest, new })
}

/// SHA-256 of the manifest as stored: tells one lake's manifest from another's of the same dataset.
///
/// # Errors
/// When the manifest cannot be read.
pub async fn manifest_sha256(store: &dyn PinStore, manifest: &PinManifest) -> Result<String> {
    Ok(sha256_hex(store.manifest_bytes(&manifest.digest).await?))
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

/// Where to write the rows of a result, on local disk.
#[derive(Debug, Clone)]
struct Writing {
    folder: PathBuf,
    file_bytes: usize,
}

/// A Parquet file on local disk.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    rows: u64,
}

/// Computes the result of a pin's SQL and its digest; writes its rows if asked to.
async fn compute(engine: &QueryEngine, sql: &str, versions: Versions, writing: Option<Writing>) -> Result<Computed> {
    let deadline = crate::session::deadline_in(engine.limits().pin_timeout);
    let (owned, sql) = (engine.clone(), sql.to_string());
    let starting = async move { start(&owned, &sql, versions, deadline).await };
    let mut result = engine.on_own_threads(starting, deadline).await?;
    let schema = result.schema();
    let mut digest = DatasetDigest::new(&schema)?;
    let (sender, receiver) = mpsc::channel(2);
    let writer = writing.map(|writing| {
        let schema = schema.clone();
        tokio::task::spawn_blocking(move || write_parts(&writing, &schema, receiver))
    });
    while let Some(batch) = result.next().await {
        let batch = batch?;
        digest.update(&batch)?;
        // A writer that is gone tells why below.
        if writer.is_some() && sender.send(batch).await.is_err() {
            break;
        }
    }
    drop(sender);
    let parts = match writer {
        Some(writer) => writer.await.map_err(|error| QueryError::failed("writing the pin's files", error))??,
        None => Vec::new(),
    };
    Ok(Computed { schema, rows: digest.rows(), digest: digest.finish(), used: result.tables().clone(), parts })
}

async fn start(engine: &QueryEngine, sql: &str, versions: Versions, deadline: Instant) -> Result<QueryResult> {
    let prepared = engine.prepare(sql)?;
    if !statement::is_query(&prepared.statement) {
        return Err(QueryError::Refused("a pin is made of a query: SELECT, WITH or VALUES".to_string()));
    }
    let mode = Mode { versions, reproducible: true, deadline };
    let unordered = engine.resolve(&prepared, &mode).await?;
    check_reproducible(&unordered.plan)?;
    let schema = canonical_schema(unordered.plan.schema().as_arrow());
    check_columns(&schema)?;
    // Planned again with the order completed, over the very versions just opened.
    let ordered = in_total_order(prepared, &schema)?;
    let mode = Mode { versions: Versions::Recorded(unordered.used), ..mode };
    let resolved = engine.resolve(&ordered, &mode).await?;
    engine.start(resolved, deadline).await
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

/// Completes the query's ORDER BY with every column of its result.
fn in_total_order(mut prepared: Prepared, schema: &Schema) -> Result<Prepared> {
    let Some(query) = query_of(&mut prepared.statement) else {
        return Err(QueryError::Refused("a pin is made of a query: SELECT, WITH or VALUES".to_string()));
    };
    if !query.pipe_operators.is_empty() {
        return Err(QueryError::Sql("a pin's query has no |> steps; write it as SELECT".to_string()));
    }
    let mut columns: Vec<usize> = (0..schema.fields().len()).collect();
    columns.sort_by_key(|index| schema.field(*index).name() != EVENT_ID);
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
    Ok(prepared)
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

/// Writes batches to Parquet files of bounded size, at least one.
fn write_parts(writing: &Writing, schema: &SchemaRef, mut batches: mpsc::Receiver<RecordBatch>) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut open: Option<(ArrowWriter<File>, Part)> = None;
    while let Some(batch) = batches.blocking_recv() {
        let pieces = batch.get_array_memory_size().div_ceil(PIECE_BYTES).max(1);
        let piece_rows = batch.num_rows().div_ceil(pieces).max(1);
        for start in (0..batch.num_rows()).step_by(piece_rows) {
            let piece = batch.slice(start, piece_rows.min(batch.num_rows() - start));
            let (mut writer, mut part) = match open.take() {
                Some(open) => open,
                None => open_part(&writing.folder, schema, parts.len())?,
            };
            writer.write(&piece)?;
            part.rows += piece.num_rows() as u64;
            if writer.bytes_written() + writer.in_progress_size() >= writing.file_bytes {
                writer.close()?;
                parts.push(part);
            } else {
                open = Some((writer, part));
            }
        }
    }
    if open.is_none() && parts.is_empty() {
        open = Some(open_part(&writing.folder, schema, 0)?);
    }
    if let Some((writer, part)) = open {
        writer.close()?;
        parts.push(part);
    }
    Ok(parts)
}

fn open_part(folder: &Path, schema: &SchemaRef, index: usize) -> Result<(ArrowWriter<File>, Part)> {
    let path = folder.join(format!("part-{index:05}.parquet"));
    let file = File::create(&path)?;
    Ok((ArrowWriter::try_new(file, schema.clone(), Some(parquet_properties()))?, Part { path, rows: 0 }))
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

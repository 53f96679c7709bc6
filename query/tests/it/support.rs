//! Tables and pins in memory, and rows written as JSON.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use datafusion::datasource::MemTable;
use futures::TryStreamExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use serde_json::{Map, Value, json};
use url::Url;
use webdancer_query::{
    At, Catalog, CatalogTable, DocumentStore, Limits, PinManifest, PinStore, PinnedTable, QueryEngine, QueryError,
    QueryOptions, Result, output,
};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::table::table_schema;

/// Versions of a table: partitions of batches, in the order of commits.
type Versions = Vec<Vec<Vec<RecordBatch>>>;

/// Version n was committed n hours after this.
pub(crate) fn epoch() -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

#[derive(Debug)]
pub(crate) struct Memory {
    tables: HashMap<Kind, Versions>,
    pins: std::sync::Mutex<HashMap<String, PinManifest>>,
    store: Arc<InMemory>,
    /// How often a table was opened at a version of its own.
    pub(crate) versions_opened: Arc<AtomicUsize>,
    /// No newer version of a table is there yet.
    pub(crate) newest_max: Arc<AtomicUsize>,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            tables: HashMap::new(),
            pins: std::sync::Mutex::default(),
            store: Arc::default(),
            versions_opened: Arc::default(),
            newest_max: Arc::new(AtomicUsize::new(usize::MAX)),
        }
    }
}

impl Memory {
    pub(crate) fn with(self, kind: Kind, rows: &[Value]) -> Memory {
        self.with_partitions(kind, vec![vec![rows_of(kind, rows)]])
    }

    pub(crate) fn with_partitions(mut self, kind: Kind, partitions: Vec<Vec<RecordBatch>>) -> Memory {
        self.tables.entry(kind).or_default().push(partitions);
        self
    }

    pub(crate) fn engine(self) -> QueryEngine {
        self.engine_with(Limits { target_partitions: 2, ..Limits::default() })
    }

    pub(crate) fn engine_with(self, limits: Limits) -> QueryEngine {
        QueryEngine::new(Arc::new(self), limits).unwrap()
    }

    fn path(digest: &str, file: &str) -> Path {
        Path::from(format!("pins/{digest}/{file}"))
    }
}

#[async_trait]
impl Catalog for Memory {
    fn object_stores(&self) -> Vec<(Url, Arc<dyn ObjectStore>)> {
        vec![(Url::parse("memory:///").unwrap(), self.store.clone())]
    }

    async fn table(&self, kind: Kind, at: At) -> Result<Option<CatalogTable>> {
        if matches!(at, At::Version(_)) {
            self.versions_opened.fetch_add(1, Ordering::Relaxed);
        }
        let Some(versions) = self.tables.get(&kind) else { return Ok(None) };
        let newest = (versions.len() - 1).min(self.newest_max.load(Ordering::Relaxed)) as u64;
        let version = match at {
            At::Latest => newest,
            At::Version(version) if version <= newest => version,
            At::Version(version) => return Err(QueryError::NotFound(format!("no version {version}"))),
            At::Time(time) if time < epoch() => return Ok(None),
            At::Time(time) => ((time - epoch()).num_hours() as u64).min(newest),
        };
        let partitions = versions[version as usize].clone();
        let schema = partitions.iter().flatten().next().map_or_else(|| table_schema(kind), RecordBatch::schema);
        let provider = Arc::new(MemTable::try_new(schema, partitions)?);
        let uri = format!("memory:///tables/{}", kind.table());
        Ok(Some(CatalogTable { pinned: PinnedTable { uri, version, id: None }, provider }))
    }
}

#[async_trait]
impl DocumentStore for Memory {
    async fn list_documents(&self, folder: &str) -> Result<Vec<String>> {
        let objects: Vec<_> = self.store.list(Some(&Path::from(folder))).try_collect().await.unwrap();
        let mut paths: Vec<String> = objects.into_iter().map(|object| object.location.to_string()).collect();
        paths.sort();
        Ok(paths)
    }
    async fn read_document(&self, path: &str, _bytes_max: u64) -> Result<Option<Bytes>> {
        let Ok(found) = self.store.get(&Path::from(path)).await else { return Ok(None) };
        Ok(Some(found.bytes().await.unwrap()))
    }
    async fn create_document(&self, path: &str, bytes: Bytes) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        Ok(self.store.put_opts(&Path::from(path), bytes.into(), options).await.is_ok())
    }
}

#[async_trait]
impl PinStore for Memory {
    async fn find_pin(&self, reference: &str) -> Result<PinManifest> {
        let pins = self.pins.lock().unwrap();
        let found = pins.get(reference).or_else(|| pins.values().find(|pin| pin.digest == reference));
        found.cloned().ok_or_else(|| QueryError::NotFound(format!("no pin {reference}")))
    }
    async fn list_pins(&self) -> Result<Vec<PinManifest>> {
        Ok(self.pins.lock().unwrap().values().cloned().collect())
    }
    async fn put_pin_file(&self, digest: &str, path: &str, bytes: Bytes) -> Result<()> {
        self.store.put(&Memory::path(digest, path), bytes.into()).await.unwrap();
        Ok(())
    }
    async fn commit_pin(&self, manifest: &PinManifest) -> Result<bool> {
        let mut pins = self.pins.lock().unwrap();
        let new = !pins.values().any(|pin| pin.digest == manifest.digest);
        pins.insert(manifest.name.clone(), manifest.clone());
        Ok(new)
    }
    async fn pin_file_bytes(&self, digest: &str, path: &str) -> Result<Option<u64>> {
        Ok(self.store.head(&Memory::path(digest, path)).await.ok().map(|object| object.size))
    }
    async fn read_pin_file(&self, digest: &str, path: &str) -> Result<Bytes> {
        match self.store.get(&Memory::path(digest, path)).await {
            Ok(object) => Ok(object.bytes().await.unwrap()),
            Err(error) => Err(QueryError::NotFound(error.to_string())),
        }
    }
    async fn manifest_bytes(&self, manifest: &PinManifest) -> Result<Bytes> {
        Ok(serde_json::to_vec(&self.find_pin(&manifest.name).await?).unwrap().into())
    }
    fn pin_file_url(&self, digest: &str, path: &str) -> String {
        format!("memory:///pins/{digest}/{path}")
    }
}

/// Rows of an event table from what matters in a test: the rest is filled in. The id counts rows, the time minutes.
pub(crate) fn rows_of(kind: Kind, rows: &[Value]) -> RecordBatch {
    let schema = table_schema(kind);
    let rows: Vec<Value> = rows.iter().enumerate().map(|(index, row)| complete(&schema, index, row)).collect();
    batch_of(&schema, &rows)
}

fn complete(schema: &Schema, index: usize, row: &Value) -> Value {
    let mut complete = Map::new();
    for field in schema.fields() {
        let value = match (row.get(field.name()), field.name().as_str()) {
            (Some(value), _) => value.clone(),
            (None, "event_id") => json!(format!("00000000-0000-7000-8000-{index:012}")),
            (None, "event_time") => json!((epoch() + TimeDelta::minutes(index as i64)).to_rfc3339()),
            (None, _) if field.is_nullable() => continue,
            (None, _) => match field.data_type() {
                DataType::List(_) => json!([]),
                DataType::Utf8 => json!("x"),
                DataType::Timestamp(..) => json!("2026-01-01T00:00:00Z"),
                _ => json!(0),
            },
        };
        complete.insert(field.name().clone(), value);
    }
    Value::Object(complete)
}

pub(crate) fn batch_of(schema: &SchemaRef, rows: &[Value]) -> RecordBatch {
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone()).with_batch_size(1 << 20).build_decoder().unwrap();
    decoder.serialize(rows).unwrap();
    decoder.flush().unwrap().unwrap_or_else(|| RecordBatch::new_empty(schema.clone()))
}

/// The rows of a query as CSV lines, without the header.
pub(crate) async fn csv(engine: &QueryEngine, sql: &str) -> Vec<String> {
    match try_csv(engine, sql, &QueryOptions::default()).await {
        Ok(lines) => lines,
        Err(error) => panic!("{sql}: {error}"),
    }
}

pub(crate) async fn try_csv(engine: &QueryEngine, sql: &str, options: &QueryOptions) -> Result<Vec<String>> {
    let mut result = engine.query(sql, options).await?;
    let text =
        output::write_result(&mut result, output::Format::Csv, Vec::new(), output::TableOptions::default()).await?;
    Ok(String::from_utf8(text).unwrap().lines().skip(1).map(str::to_string).collect())
}

pub(crate) async fn error(engine: &QueryEngine, sql: &str) -> QueryError {
    match try_csv(engine, sql, &QueryOptions::default()).await {
        Ok(lines) => panic!("{sql} gave {lines:?}"),
        Err(error) => error,
    }
}

//! Which event ids a table holds: the look-up that keeps a retried event from showing twice.
//!
//! Files are immutable, so what was read of one stays true. For each file the range of its ids is known from the Delta
//! log; only files whose range holds an id in question are read, and only their two identity columns. Ids of producers
//! of ours are time-ordered, so that a batch of new events meets few files. The ids of files seen are kept in memory up
//! to a limit, least recently used first out; nothing is kept of files that the table no longer has.
//!
//! Ids that are not time-ordered fall into the range of every file. When few of them are asked for, a file's Bloom
//! filter is asked before its ids are read: a small fraction of the bytes. It is asked once only: a process that
//! comes back to a file reads its ids and keeps them.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::DataType;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use uuid::Uuid;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::table::{EVENT_ID, SOURCE};

use crate::error::{Context as _, LakeError, Result};

/// An event's identity: id and a hash of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct IdKey {
    id: u128,
    source: u64,
}

/// The identities of the rows of a batch, in row order.
pub(crate) fn keys_of(batch: &RecordBatch) -> Result<Vec<IdKey>> {
    let text = |name: &str| {
        let column = batch
            .column_by_name(name)
            .ok_or_else(|| LakeError::Usage(format!("column {name}: is required and missing")))?;
        // Files rewritten by a compaction come back as string views.
        arrow::compute::cast(column, &DataType::Utf8).context(|| format!("column {name} as text"))
    };
    let (ids, sources) = (text(EVENT_ID)?, text(SOURCE)?);
    let (ids, sources) = (ids.as_string::<i32>(), sources.as_string::<i32>());
    // Sources repeat from row to row: hash one only when it changes.
    let mut last: Option<(&str, u64)> = None;
    let mut keys = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let id = Uuid::try_parse(ids.value(row)).context(|| format!("event_id {:?}", ids.value(row)))?;
        let source = sources.value(row);
        let hash = match last {
            Some((text, hash)) if text == source => hash,
            _ => {
                let mut hasher = DefaultHasher::new();
                source.hash(&mut hasher);
                hasher.finish()
            }
        };
        last = Some((source, hash));
        keys.push(IdKey { id: id.as_u128(), source: hash });
    }
    Ok(keys)
}

/// A data file of a table, as far as the look-up needs it.
#[derive(Debug)]
pub(crate) struct DataFile {
    /// Path within the table.
    pub(crate) path: Path,
    /// Bytes.
    pub(crate) size: u64,
    /// Delta statistics as JSON.
    pub(crate) stats: Option<String>,
}

type Keys = Arc<[IdKey]>;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct IdIndex {
    limit_bytes: usize,
    state: Mutex<State>,
}

/// Most ids for which a Bloom filter is asked. One in a hundred ids that are not there is said to be: with more of them
/// the file has to be read anyway.
const BLOOM_IDS: usize = 32;

/// What is known of a file without reading its ids.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Lowest and highest id.
    range: (u128, u128),
    /// Whether its Bloom filter was asked.
    asked: bool,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<Kind, HashMap<Path, Known>>,
    keys: HashMap<Path, (Keys, u64)>,
    bytes: usize,
    tick: u64,
}

impl IdIndex {
    pub(crate) fn new(limit_bytes: usize) -> IdIndex {
        IdIndex { limit_bytes, state: Mutex::default() }
    }

    /// Remembers the ids of a file just written, so that it need not be read back.
    pub(crate) fn remember(&self, kind: Kind, path: Path, mut keys: Vec<IdKey>) {
        keys.sort_unstable();
        let mut state = self.state.lock();
        if let (Some(first), Some(last)) = (keys.first(), keys.last()) {
            let known = Known { range: (first.id, last.id), asked: false };
            state.files.entry(kind).or_default().insert(path.clone(), known);
        }
        state.insert(path, keys.into(), self.limit_bytes);
    }

    /// Forgets the files of the table of `kind` that are not among `present`, which are all it has, once there are more
    /// of the former than of the latter.
    pub(crate) fn keep_only(&self, kind: Kind, present: &[DataFile]) {
        let mut state = self.state.lock();
        let State { files, keys, bytes, .. } = &mut *state;
        let Some(known) = files.get_mut(&kind).filter(|known| known.len() > present.len()) else { return };
        let present: HashSet<&Path> = present.iter().map(|file| &file.path).collect();
        known.retain(|path, _| {
            let stays = present.contains(path);
            if !stays && let Some((gone, _)) = keys.remove(path) {
                *bytes -= size_of_val::<[IdKey]>(&gone);
            }
            stays
        });
    }

    /// Which of `wanted` (sorted) are in one of `files` of the table of `kind`.
    pub(crate) async fn present(
        &self,
        kind: Kind,
        store: &Arc<dyn ObjectStore>,
        files: &[DataFile],
        wanted: &[IdKey],
    ) -> Result<HashSet<IdKey>> {
        let mut found = HashSet::new();
        for file in files {
            let Known { range: (low, high), asked } = self.known(kind, file);
            let from = wanted.partition_point(|key| key.id < low);
            let to = wanted.partition_point(|key| key.id <= high);
            let wanted = wanted.get(from..to).unwrap_or_default();
            if wanted.is_empty() {
                continue;
            }
            let few = (!asked && wanted.len() <= BLOOM_IDS).then_some(wanted);
            if let Some(keys) = self.keys(kind, store, file, few).await? {
                found.extend(wanted.iter().filter(|key| keys.binary_search(key).is_ok()));
            }
        }
        Ok(found)
    }

    fn known(&self, kind: Kind, file: &DataFile) -> Known {
        let mut state = self.state.lock();
        let files = state.files.entry(kind).or_default();
        if let Some(known) = files.get(&file.path) {
            return *known;
        }
        // Without statistics the file may hold anything.
        let range = file.stats.as_deref().and_then(id_range).unwrap_or((0, u128::MAX));
        let known = Known { range, asked: false };
        files.insert(file.path.clone(), known);
        known
    }

    /// The ids of a file; None when its Bloom filter, if it is to be asked, says that `few` are not among them.
    async fn keys(
        &self,
        kind: Kind,
        store: &Arc<dyn ObjectStore>,
        file: &DataFile,
        few: Option<&[IdKey]>,
    ) -> Result<Option<Keys>> {
        if let Some(keys) = self.state.lock().get(&file.path) {
            return Ok(Some(keys));
        }
        let read = read_keys(store.clone(), file, few).await?;
        let mut state = self.state.lock();
        if let Some(known) = state.files.get_mut(&kind).and_then(|files| files.get_mut(&file.path)) {
            known.asked = true;
        }
        let Some(mut keys) = read else { return Ok(None) };
        keys.sort_unstable();
        let keys: Keys = keys.into();
        state.insert(file.path.clone(), keys.clone(), self.limit_bytes);
        Ok(Some(keys))
    }
}

impl State {
    fn get(&mut self, path: &Path) -> Option<Keys> {
        self.tick += 1;
        let tick = self.tick;
        self.keys.get_mut(path).map(|(keys, used)| {
            *used = tick;
            keys.clone()
        })
    }

    fn insert(&mut self, path: Path, keys: Keys, limit_bytes: usize) {
        self.tick += 1;
        self.bytes += size_of_val::<[IdKey]>(&keys);
        if let Some((old, _)) = self.keys.insert(path, (keys, self.tick)) {
            self.bytes -= size_of_val::<[IdKey]>(&old);
        }
        while self.bytes > limit_bytes && self.keys.len() > 1 {
            let oldest = self.keys.iter().min_by_key(|(_, (_, used))| *used).map(|(path, _)| path.clone());
            if let Some((old, _)) = oldest.and_then(|path| self.keys.remove(&path)) {
                self.bytes -= size_of_val::<[IdKey]>(&old);
            }
        }
    }
}

fn id_range(stats: &str) -> Option<(u128, u128)> {
    #[derive(serde::Deserialize)]
    struct Ids {
        event_id: Option<String>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stats {
        min_values: Ids,
        max_values: Ids,
    }
    let stats: Stats = serde_json::from_str(stats).ok()?;
    let id = |ids: Ids| Uuid::try_parse(&ids.event_id?).ok().map(|id| id.as_u128());
    Some((id(stats.min_values)?, id(stats.max_values)?))
}

/// The identities in a file; None when `few` are given and its Bloom filter says that none of them is there.
async fn read_keys(store: Arc<dyn ObjectStore>, file: &DataFile, few: Option<&[IdKey]>) -> Result<Option<Vec<IdKey>>> {
    let what = || format!("reading event ids of {}", file.path);
    let reader = ObjectReader { store, path: file.path.clone(), size: file.size };
    let mut builder = ParquetRecordBatchStreamBuilder::new(reader).await.context(what)?;
    if let Some(few) = few
        && !may_hold(&mut builder, few).await.context(what)?
    {
        return Ok(None);
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), [EVENT_ID, SOURCE]);
    let mut stream = builder.with_projection(mask).build().context(what)?;
    let mut keys = Vec::new();
    while let Some(batch) = stream.try_next().await.context(what)? {
        keys.extend(keys_of(&batch)?);
    }
    Ok(Some(keys))
}

/// Whether the Bloom filters of a file leave it open that one of these ids is in it. Ids are written in one way only, as
/// [`EventId`](webdancer_schemas::id::EventId) shows them.
async fn may_hold(
    builder: &mut ParquetRecordBatchStreamBuilder<ObjectReader>,
    ids: &[IdKey],
) -> parquet::errors::Result<bool> {
    let columns = builder.parquet_schema().columns();
    let Some(column) = columns.iter().position(|column| column.path().string() == EVENT_ID) else { return Ok(true) };
    let ids: Vec<String> = ids.iter().map(|key| Uuid::from_u128(key.id).hyphenated().to_string()).collect();
    for group in 0..builder.metadata().num_row_groups() {
        match builder.get_row_group_column_bloom_filter(group, column).await? {
            Some(filter) if !ids.iter().any(|id| filter.check(id.as_str())) => {}
            _ => return Ok(true),
        }
    }
    Ok(false)
}

/// A Parquet file of an object store, read by ranges.
struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { Ok(self.store.get_range(&self.path, range).await?) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { Ok(self.store.get_ranges(&self.path, &ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let metadata = ParquetMetaDataReader::new().load_and_finish(&mut *self, size).await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u128) -> IdKey {
        IdKey { id, source: 0 }
    }

    #[test]
    fn the_cache_stays_within_its_limit_and_drops_the_least_recently_used() {
        let index = IdIndex::new(2 * 10 * size_of::<IdKey>());
        for name in ["a", "b"] {
            index.remember(Kind::Qa, Path::from(name), (0..10).map(key).collect());
        }
        assert!(index.state.lock().get(&Path::from("a")).is_some());
        index.remember(Kind::Qa, Path::from("c"), (0..10).map(key).collect());
        let state = index.state.lock();
        assert!(state.keys.contains_key(&Path::from("a")) && state.keys.contains_key(&Path::from("c")));
        assert!(!state.keys.contains_key(&Path::from("b")));
        assert_eq!(state.bytes, 2 * 10 * size_of::<IdKey>());
    }

    fn file(name: &str) -> DataFile {
        DataFile { path: Path::from(name), size: 0, stats: None }
    }

    #[test]
    fn files_that_a_table_no_longer_has_are_forgotten() {
        let index = IdIndex::new(1 << 20);
        for n in 0..100 {
            index.remember(Kind::Qa, Path::from(format!("qa-{n}")), vec![key(n)]);
            index.remember(Kind::Page, Path::from(format!("page-{n}")), vec![key(n)]);
        }
        index.keep_only(Kind::Qa, &[file("qa-7"), file("compacted")]);
        let state = index.state.lock();
        assert_eq!(state.files[&Kind::Qa].keys().collect::<Vec<_>>(), [&Path::from("qa-7")]);
        assert_eq!(state.files[&Kind::Page].len(), 100, "another table's files are not touched");
        assert_eq!(state.keys.len(), 101);
        assert_eq!(state.bytes, 101 * size_of::<IdKey>());
    }

    #[test]
    fn ranges_come_from_statistics() {
        let stats = r#"{"numRecords":2,"minValues":{"event_id":"00000000-0000-0000-0000-000000000001"},"maxValues":{"event_id":"00000000-0000-0000-0000-0000000000ff","other":3},"nullCount":{}}"#;
        assert_eq!(id_range(stats), Some((1, 255)));
        assert_eq!(id_range(r#"{"numRecords":2}"#), None);
    }
}

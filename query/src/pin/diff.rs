//! What differs between two pins.

use std::collections::{BTreeMap, HashMap};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use futures::StreamExt as _;
use serde::Serialize;
use serde_json::{Map, Value};
use webdancer_lake::pins::PinManifest;
use webdancer_schemas::table::EVENT_ID;

use super::read::{read, schema};
use crate::catalog::PinStore;
use crate::digest::RowHasher;
use crate::error::{QueryError, Result};

/// Rows that came in, went out or changed from one pin to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PinDiff {
    /// Columns that tell which row is which; empty: a row is its own key, and none can change.
    pub key: Vec<String>,
    /// Rows of the second pin alone.
    pub rows_in: u64,
    /// Rows of the first pin alone.
    pub rows_out: u64,
    /// Rows of both, with other values in columns of both.
    pub changed: u64,
    /// Rows of both with the same values in columns of both.
    pub same: u64,
    /// Columns of the second pin alone, or of another type there.
    pub columns_in: Vec<String>,
    /// Columns of the first pin alone, or of another type there.
    pub columns_out: Vec<String>,
    /// Some of the rows that differ, up to the number asked for of each kind.
    pub examples: Vec<ChangedRow>,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChangedRow {
    /// How.
    pub change: Change,
    /// The key's columns, or the whole row where it is its own key.
    pub row: Value,
    /// The columns whose values changed.
    pub columns: Vec<String>,
}

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// In the second pin alone.
    In,
    /// In the first pin alone.
    Out,
    /// In both, with other values.
    Changed,
}

/// Compares pins `a` and `b` by rows. `key`: the columns that identify a row; if empty, `event_id` where both have it,
/// else the whole row (then equal rows are matched by number). About 100 bytes of memory per row of `a`.
///
/// # Errors
/// When a key column is missing, or two rows of a pin have the same key.
pub async fn diff(
    store: &dyn PinStore,
    a: &PinManifest,
    b: &PinManifest,
    key: &[String],
    examples: usize,
) -> Result<PinDiff> {
    let (schema_a, schema_b) = (schema(store, a).await?, schema(store, b).await?);
    let common: Vec<&str> = names(&schema_a).filter(|name| same_column(&schema_a, &schema_b, name)).collect();
    let key: Vec<String> = match key {
        [] if common.contains(&EVENT_ID) => vec![EVENT_ID.to_string()],
        [] => Vec::new(),
        given => given.to_vec(),
    };
    if let Some(missing) = key.iter().find(|name| !common.contains(&name.as_str())) {
        return Err(QueryError::Sql(format!("key column {missing:?} is not in both pins with the same type")));
    }
    if common.is_empty() {
        return Err(QueryError::Sql(format!(
            "pins {} and {} have no column in common: there is nothing to compare",
            a.name, b.name
        )));
    }
    let compared = Compared { key: &key, common: &common };

    let mut rows: HashMap<u128, Vec<(u64, u128)>> = HashMap::new();
    compared.each_row(store, a, |number, key, row| rows.entry(key).or_default().push((number, row))).await?;
    if !key.is_empty() && rows.values().any(|same| same.len() > 1) {
        return Err(not_unique(&key, a));
    }
    let mut difference = Difference { limit: examples, ..Difference::default() };
    let mut seen = std::collections::HashSet::new();
    let mut repeated = false;
    compared
        .each_row(store, b, |number, key, row| {
            repeated |= !seen.insert(key);
            let matching = rows.get_mut(&key).and_then(Vec::pop);
            match matching {
                None => difference.came_in(number),
                Some((_, old)) if old == row => difference.same += 1,
                Some((old_number, _)) => difference.changed_from(old_number, number),
            }
        })
        .await?;
    if repeated && !key.is_empty() {
        return Err(not_unique(&key, b));
    }
    let mut left: Vec<u64> = rows.into_values().flatten().map(|(number, _)| number).collect();
    left.sort_unstable();
    difference.went_out(&left);

    let shown: Vec<&str> = if key.is_empty() { common.clone() } else { key.iter().map(String::as_str).collect() };
    let examples = difference.examples(store, a, b, &common, &shown).await?;
    Ok(PinDiff {
        rows_in: difference.rows_in,
        rows_out: left.len() as u64,
        changed: difference.changed,
        same: difference.same,
        columns_in: only_in(&schema_b, &common),
        columns_out: only_in(&schema_a, &common),
        examples,
        key,
    })
}

fn names(schema: &Schema) -> impl Iterator<Item = &str> {
    schema.fields().iter().map(|field| field.name().as_str())
}

fn same_column(a: &Schema, b: &Schema, name: &str) -> bool {
    match (a.field_with_name(name), b.field_with_name(name)) {
        (Ok(a), Ok(b)) => a.data_type() == b.data_type(),
        _ => false,
    }
}

fn only_in(schema: &Schema, common: &[&str]) -> Vec<String> {
    names(schema).filter(|name| !common.contains(name)).map(str::to_string).collect()
}

fn not_unique(key: &[String], pin: &PinManifest) -> QueryError {
    QueryError::Sql(format!("several rows of pin {} have the same {}; name more key columns", pin.name, key.join(", ")))
}

struct Compared<'a> {
    key: &'a [String],
    common: &'a [&'a str],
}

impl Compared<'_> {
    /// Calls `each` with number, hash of the key and hash of the common columns of every row.
    async fn each_row(
        &self,
        store: &dyn PinStore,
        pin: &PinManifest,
        mut each: impl FnMut(u64, u128, u128),
    ) -> Result<()> {
        let mut number = 0;
        let mut batches = std::pin::pin!(read(store, pin));
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let common = indices(&batch, self.common.iter().copied());
            let row_hasher = RowHasher::new(&batch, &common)?;
            let key = indices(&batch, self.key.iter().map(String::as_str));
            let key_hasher = RowHasher::new(&batch, if key.is_empty() { &common } else { &key })?;
            for row in 0..batch.num_rows() {
                each(number, key_hasher.hash(row), row_hasher.hash(row));
                number += 1;
            }
        }
        Ok(())
    }
}

fn indices<'a>(batch: &RecordBatch, names: impl Iterator<Item = &'a str>) -> Vec<usize> {
    names.filter_map(|name| batch.schema().index_of(name).ok()).collect()
}

/// Counts, and the numbers of the first rows of each kind.
#[derive(Default)]
struct Difference {
    limit: usize,
    rows_in: u64,
    changed: u64,
    same: u64,
    first_in: Vec<u64>,
    first_out: Vec<u64>,
    first_changed: Vec<(u64, u64)>,
}

impl Difference {
    fn came_in(&mut self, number: u64) {
        self.rows_in += 1;
        if self.first_in.len() < self.limit {
            self.first_in.push(number);
        }
    }

    fn changed_from(&mut self, old: u64, new: u64) {
        self.changed += 1;
        if self.first_changed.len() < self.limit {
            self.first_changed.push((old, new));
        }
    }

    fn went_out(&mut self, numbers: &[u64]) {
        self.first_out = numbers.iter().copied().take(self.limit).collect();
    }

    async fn examples(
        &self,
        store: &dyn PinStore,
        a: &PinManifest,
        b: &PinManifest,
        common: &[&str],
        shown: &[&str],
    ) -> Result<Vec<ChangedRow>> {
        let wanted_a = self.first_out.iter().chain(self.first_changed.iter().map(|(old, _)| old));
        let wanted_b = self.first_in.iter().chain(self.first_changed.iter().map(|(_, new)| new));
        let rows_a = rows_at(store, a, wanted_a.copied().collect(), common).await?;
        let rows_b = rows_at(store, b, wanted_b.copied().collect(), common).await?;
        let part = |row: Option<&Map<String, Value>>| -> Value {
            let row = row.into_iter().flat_map(|row| shown.iter().filter_map(|name| row.get_key_value(*name)));
            Value::Object(row.map(|(name, value)| (name.clone(), value.clone())).collect())
        };
        let plain = |change, row| ChangedRow { change, row, columns: Vec::new() };
        let came_in = self.first_in.iter().map(|number| plain(Change::In, part(rows_b.get(number))));
        let went_out = self.first_out.iter().map(|number| plain(Change::Out, part(rows_a.get(number))));
        let changed = self.first_changed.iter().map(|(old, new)| {
            let (old, new) = (rows_a.get(old), rows_b.get(new));
            let value = |row: Option<&Map<String, Value>>, name: &str| row.and_then(|row| row.get(name)).cloned();
            let columns = common.iter().filter(|name| value(old, name) != value(new, name));
            ChangedRow {
                change: Change::Changed,
                row: part(new),
                columns: columns.map(|name| (*name).to_string()).collect(),
            }
        });
        Ok(came_in.chain(went_out).chain(changed).collect())
    }
}

/// The rows with these numbers, as JSON objects.
async fn rows_at(
    store: &dyn PinStore,
    pin: &PinManifest,
    mut wanted: Vec<u64>,
    columns: &[&str],
) -> Result<BTreeMap<u64, Map<String, Value>>> {
    wanted.sort_unstable();
    let mut rows = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(rows);
    }
    let mut first = 0;
    let mut batches = std::pin::pin!(read(store, pin));
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let batch = batch.project(&indices(&batch, columns.iter().copied()))?;
        let end = first + batch.num_rows() as u64;
        for number in wanted.iter().filter(|number| (first..end).contains(number)) {
            let mut writer: arrow::json::LineDelimitedWriter<Vec<u8>> =
                arrow::json::WriterBuilder::new().with_explicit_nulls(true).build(Vec::new());
            writer.write(&batch.slice((number - first) as usize, 1))?;
            writer.finish()?;
            let row = serde_json::from_slice(&writer.into_inner())
                .map_err(|error| QueryError::failed("showing a row as JSON", error))?;
            rows.insert(*number, row);
        }
        first = end;
    }
    Ok(rows)
}

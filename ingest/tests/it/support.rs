//! Lakes, logs and what is in them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt as _;
use webdancer_ingest::IngestError;
use webdancer_ingest::drain::{Commit, DrainObserver, DrainOptions, DrainReport, Until};
use webdancer_ingest::embedded::{self, EmbeddedLog, EmbeddedOptions};
use webdancer_ingest::source::TopicPartition;
use webdancer_lake::{Lake, LakeOptions};
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::{Metric, Qa};

#[derive(Default)]
pub(crate) struct Watcher {
    pub(crate) commits: Vec<Commit>,
    pub(crate) durable: i64,
}

impl DrainObserver for Watcher {
    fn committed(&mut self, commit: &Commit) {
        self.commits.push(commit.clone());
    }
    fn durable(&mut self, _: &TopicPartition, next: i64) {
        assert!(next >= self.durable, "positions never go back");
        self.durable = next;
    }
    fn end(&mut self, _: &TopicPartition, _: i64) {}
}

pub(crate) fn lake(dir: &tempfile::TempDir) -> Lake {
    Lake::open(dir.path().to_str().unwrap(), LakeOptions::default()).unwrap()
}

pub(crate) async fn log(lake: &Lake, options: EmbeddedOptions) -> EmbeddedLog {
    EmbeddedLog::open(&EmbeddedLog::folder_of(lake, None).await.unwrap(), options).unwrap()
}

pub(crate) async fn drain(lake: &Lake, log: &EmbeddedLog, options: DrainOptions) -> DrainReport {
    let patience = Duration::from_secs(5);
    embedded::drain(lake, log, options, Until::CaughtUp, patience, &mut Watcher::default(), std::future::pending())
        .await
        .unwrap()
}

pub(crate) async fn try_drain(lake: &Lake, log: &EmbeddedLog) -> Result<DrainReport, IngestError> {
    let (options, stop) = (DrainOptions::default(), std::future::pending());
    embedded::drain(lake, log, options, Until::CaughtUp, Duration::ZERO, &mut Watcher::default(), stop).await
}

/// Copies a folder with what is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

pub(crate) fn question(number: i64) -> Event {
    let row = Qa { qa_id: format!("q{number}"), question: "?".into(), answer: "!".into(), ..Qa::default() };
    Event::new("test", &row).unwrap()
}

/// Each of these steps, once.
pub(crate) fn once(range: std::ops::Range<i64>) -> BTreeMap<i64, usize> {
    range.map(|step| (step, 1)).collect()
}

pub(crate) async fn count(lake: &Lake, kind: Kind) -> usize {
    rows(lake, kind).await.iter().map(|batch| batch.num_rows()).sum()
}

pub(crate) fn metric(step: i64) -> Event {
    Event::new("test", &Metric { name: "loss".into(), step, value: 0.5, unit: None }).unwrap()
}

pub(crate) async fn rows(lake: &Lake, kind: Kind) -> Vec<RecordBatch> {
    let Some(table) = lake.table(kind).await.unwrap() else { return Vec::new() };
    let context = datafusion::prelude::SessionContext::new();
    let frame = context.read_table(table.provider().await.unwrap()).unwrap();
    frame.execute_stream().await.unwrap().try_collect().await.unwrap()
}

/// How often each step shows, and the steps in order of their offsets.
pub(crate) async fn steps(lake: &Lake) -> (BTreeMap<i64, usize>, Vec<i64>) {
    let mut by_offset = Vec::new();
    for batch in rows(lake, Kind::Metric).await {
        let column = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
        by_offset.extend(column("log_offset").into_iter().zip(column("step")));
    }
    by_offset.sort_unstable();
    let order: Vec<i64> = by_offset.into_iter().map(|(_, step)| step).collect();
    let mut counts = BTreeMap::new();
    order.iter().for_each(|step| *counts.entry(*step).or_default() += 1);
    (counts, order)
}

/// A text column of all rows.
pub(crate) fn text(batches: &[RecordBatch], name: &str) -> Vec<Option<String>> {
    batches
        .iter()
        .flat_map(|batch| {
            let column =
                arrow::compute::cast(batch.column_by_name(name).unwrap(), &arrow::datatypes::DataType::Utf8).unwrap();
            column.as_string::<i32>().iter().map(|value| value.map(str::to_string)).collect::<Vec<_>>()
        })
        .collect()
}

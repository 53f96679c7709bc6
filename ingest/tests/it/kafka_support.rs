//! A commit loop in miniature: answers a Kafka source and notes what it delivers.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use webdancer_ingest::error::IngestError;
use webdancer_ingest::kafka::{KafkaSettings, KafkaSource};
use webdancer_ingest::source::{Budget, BudgetGuard, Record, SourceEvent, Start, TopicPartition};
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::Metric;

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(25);

/// An event of kind metric with its own id; the name is the key in the log.
pub(crate) fn metric(name: &str, step: i64) -> Event {
    let row = Metric { name: name.into(), step, value: 0.5, unit: None };
    Event::new("test", &row).unwrap()
}

/// The step of a metric record.
pub(crate) fn step(record: &Record) -> i64 {
    let row: Metric = serde_json::from_slice(&record.payload).unwrap();
    row.step
}

/// What a worker was told, beside rebalances, which it answers.
pub(crate) enum Told {
    Records(TopicPartition, Vec<Record>, BudgetGuard),
    Gap(TopicPartition, i64, i64),
    CaughtUp,
    Failed(IngestError),
}

/// A source with a loop that starts each partition where `starts` says, else at the beginning.
pub(crate) struct Worker {
    pub(crate) source: KafkaSource,
    pub(crate) budget: Arc<Budget>,
    pub(crate) starts: BTreeMap<i32, Start>,
    pub(crate) owned: HashSet<TopicPartition>,
    pub(crate) ids: Vec<Option<i64>>,
    pub(crate) ends: BTreeMap<i32, i64>,
    events: mpsc::Receiver<SourceEvent>,
}

impl Worker {
    pub(crate) fn start(settings: &KafkaSettings, max_buffer_bytes: usize) -> Worker {
        let budget = Arc::new(Budget::default());
        let (sender, events) = mpsc::channel(4);
        let source =
            KafkaSource::start(settings.clone(), &[Kind::Metric], budget.clone(), max_buffer_bytes, sender).unwrap();
        Worker {
            source,
            budget,
            starts: BTreeMap::new(),
            owned: HashSet::new(),
            ids: Vec::new(),
            ends: BTreeMap::new(),
            events,
        }
    }

    pub(crate) fn starting_at(mut self, partition: i32, offset: i64) -> Worker {
        self.starts.insert(partition, Start::At(offset));
        self
    }

    /// The next event that is not a rebalance.
    pub(crate) async fn next(&mut self) -> Told {
        timeout(PATIENCE, self.wait_next()).await.expect("the source says nothing")
    }

    /// The next event, or nothing within `limit`.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Option<Told> {
        timeout(limit, self.wait_next()).await.ok()
    }

    async fn wait_next(&mut self) -> Told {
        loop {
            match self.raw().await {
                SourceEvent::Assigned { partitions, reply } => {
                    let start =
                        |key: &TopicPartition| self.starts.get(&key.partition).copied().unwrap_or(Start::Beginning);
                    let answer = partitions.iter().map(|(key, _)| (key.clone(), start(key))).collect();
                    self.ids.extend(partitions.iter().map(|(_, id)| *id));
                    for (key, _) in partitions {
                        assert!(self.owned.insert(key), "assigned twice");
                    }
                    reply.send(answer).unwrap();
                }
                SourceEvent::Revoked { partitions, done } => {
                    for key in partitions {
                        assert!(self.owned.remove(&key), "revoked without being assigned");
                    }
                    done.send(()).unwrap();
                }
                SourceEvent::Records { partition, records, budget } => {
                    assert!(self.owned.contains(&partition), "records of {partition}, which is not assigned");
                    return Told::Records(partition, records, budget);
                }
                SourceEvent::Gap { partition, from, to, .. } => return Told::Gap(partition, from, to),
                SourceEvent::CaughtUp => return Told::CaughtUp,
                SourceEvent::Lag { partition, end } => drop(self.ends.insert(partition.partition, end)),
                SourceEvent::Failed(error) => return Told::Failed(error),
            }
        }
    }

    /// The next event as it comes.
    pub(crate) async fn raw(&mut self) -> SourceEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("the source says nothing").expect("the source has ended")
    }

    /// Records by partition until the source says that it has caught up.
    pub(crate) async fn until_caught_up(&mut self) -> BTreeMap<i32, Vec<Record>> {
        let mut read: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
        loop {
            match self.next().await {
                Told::Records(partition, records, _) => read.entry(partition.partition).or_default().extend(records),
                Told::CaughtUp => return read,
                Told::Gap(partition, from, to) => panic!("gap in {partition}: {from} to {to}"),
                Told::Failed(error) => panic!("{error}"),
            }
        }
    }

    /// All records until the source has told of `count`.
    pub(crate) async fn until_count(&mut self, count: usize) -> Vec<Record> {
        let mut read = Vec::new();
        while read.len() < count {
            match self.next().await {
                Told::Records(_, records, _) => read.extend(records),
                Told::CaughtUp => {}
                Told::Gap(partition, from, to) => panic!("gap in {partition}: {from} to {to}"),
                Told::Failed(error) => panic!("{error}"),
            }
        }
        read
    }

    /// What the source fails with.
    pub(crate) async fn failure(&mut self) -> IngestError {
        loop {
            if let Told::Failed(error) = self.next().await {
                return error;
            }
        }
    }

    /// Stops and goes on answering until the source has ended.
    pub(crate) async fn stop(mut self) {
        self.source.stop();
        while let Ok(Some(event)) = timeout(PATIENCE, self.events.recv()).await {
            if let SourceEvent::Revoked { done, .. } = event {
                done.send(()).unwrap();
            }
        }
        let source = self.source;
        tokio::task::spawn_blocking(move || source.join()).await.unwrap().unwrap();
    }
}

/// Steps in the order they were read, by partition and offset.
pub(crate) fn steps(read: &BTreeMap<i32, Vec<Record>>) -> Vec<i64> {
    read.values().flatten().map(step).collect()
}

/// Offsets of records.
pub(crate) fn offsets(records: &[Record]) -> Vec<i64> {
    records.iter().map(|record| record.offset).collect()
}

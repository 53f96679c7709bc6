//! What a drain tells: commits as they land, and what it did in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use webdancer_schemas::kind::Kind;

use crate::source::TopicPartition;

/// What a drain tells those who watch it.
pub trait DrainObserver: Send + Sync {
    /// A commit landed.
    fn committed(&mut self, commit: &Commit);
    /// Every record before `next` of the partition is in the tables.
    fn durable(&mut self, partition: &TopicPartition, next: i64);
    /// The end of a partition in the log.
    fn end(&mut self, partition: &TopicPartition, end: i64);
}

/// A commit that landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Table.
    pub kind: Kind,
    /// Version of the table.
    pub version: u64,
    /// The last position committed, by partition.
    pub positions: Vec<(TopicPartition, i64)>,
    /// Rows added.
    pub rows: u64,
    /// Rows left out because their event was there already.
    pub duplicates: u64,
    /// Bytes of JSON.
    pub bytes: usize,
    /// From the first record's arrival to the commit.
    pub latency: Duration,
}

/// What a drain did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct DrainReport {
    /// Rows added, by table.
    pub rows: BTreeMap<String, u64>,
    /// Rows left out because their event was there already.
    pub duplicates: u64,
    /// Commits.
    pub commits: u64,
    /// Tables that cannot be opened, with their records that stay in the log.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, Held>,
}

/// Records that stay in the log, since their table cannot be opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Held {
    /// How many there are from where the drain began.
    pub records: u64,
    /// What is wrong with the table.
    pub why: String,
}

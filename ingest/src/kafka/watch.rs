//! What a source does by the clock: telling that it has caught up and how far behind it is, committing offsets as a hint,
//! and comparing the topics with those that it began to read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use webdancer_schemas::kind::Kind;

use super::admin::known;
use super::ffi::{self, DescribeTopics, TopicDescription};
use super::session::{End, Partition, RETRY, Session};
use super::settings::KafkaSettings;
use crate::error::IngestError;
use crate::source::SourceEvent;

/// How long the regular look at the topics waits for a broker before it asks another.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A topic that is read.
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    /// Its id as of the last assignment.
    pub(super) id: Option<i64>,
    /// How many partitions it had then.
    pub(super) partitions: usize,
    /// How often in a row the cluster did not know it.
    missing: u32,
}

/// The topics of `kinds`, each once.
pub(super) fn topics(settings: &KafkaSettings, kinds: &[Kind]) -> Vec<Topic> {
    let mut topics: Vec<Topic> = Vec::new();
    for kind in kinds {
        if topics.iter().all(|topic| topic.kind != *kind) {
            topics.push(Topic { name: settings.topic(*kind).into(), kind: *kind, id: None, partitions: 0, missing: 0 });
        }
    }
    topics
}

/// Whether the receiver was told that everything is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaughtUp {
    /// It was, and nothing was read since.
    Told,
    /// Records were read since: new targets are needed.
    Stale,
    /// Partitions are on the way to their targets.
    Pursuing,
}

impl Session<'_> {
    /// Tells when every partition has reached the end it had when last asked.
    pub(super) fn pursue(&mut self, now: Instant) {
        if self.caught_up == CaughtUp::Stale && self.idle && now >= self.ends_at {
            match self.ends() {
                Ok(ends) => {
                    for partition in &mut self.partitions {
                        partition.target = ends.get(&partition.key).copied().unwrap_or(partition.target);
                    }
                    self.caught_up = CaughtUp::Pursuing;
                }
                Err(error) => {
                    tracing::debug!(%error, "asking for the ends of partitions");
                    self.ends_at = now + RETRY;
                }
            }
        }
        if self.caught_up != CaughtUp::Pursuing {
            return;
        }
        if self.partitions.iter().any(Partition::is_behind) && self.idle {
            self.skip_markers();
        }
        if self.partitions.iter().any(Partition::is_behind) || !self.others_live(now) {
            return;
        }
        self.flush_all();
        self.outbox.push_back(SourceEvent::CaughtUp);
        self.caught_up = CaughtUp::Told;
    }

    /// Whether what this member does not read is read by others. The group counts a member that died as one of its own
    /// until its session ends, and hands its partitions over only then: they are nobody's until that time has passed.
    fn others_live(&self, now: Instant) -> bool {
        let Some(settled_at) = self.settled_at else { return false };
        let all: usize = self.topics.iter().map(|topic| topic.partitions).sum();
        let reads_all = all > 0 && self.partitions.len() >= all;
        reads_all || now - settled_at > self.settings.eviction_limit()
    }

    /// Markers of transactions take offsets and never come out of a poll: librdkafka's position tells of them.
    pub(super) fn skip_markers(&mut self) {
        let Ok(positions) = self.consumer.position() else { return };
        for partition in &mut self.partitions {
            let position = positions.find_partition(&partition.key.topic, partition.key.partition);
            if let Some(Offset::Offset(position)) = position.map(|element| element.offset()) {
                partition.next = partition.next.max(position);
            }
        }
    }

    /// Commits offsets for people who watch the group; nobody reads them to decide where to start.
    pub(super) fn commit_hints(&mut self) {
        let hints = self.shared.take_hints();
        let mut offsets = TopicPartitionList::new();
        for partition in &mut self.partitions {
            let Some(hint) = hints.get(&partition.key).copied().filter(|hint| *hint > partition.hinted) else {
                continue;
            };
            partition.hinted = hint;
            let added =
                offsets.add_partition_offset(&partition.key.topic, partition.key.partition, Offset::Offset(hint));
            if let Err(error) = added {
                tracing::debug!(%error, "committing offsets as a hint");
            }
        }
        if offsets.count() > 0
            && let Err(error) = self.consumer.commit(&offsets, CommitMode::Async)
        {
            tracing::debug!(%error, "committing offsets as a hint");
        }
    }

    pub(super) fn tell_lag(&mut self) {
        if !self.outbox.is_empty() {
            return;
        }
        for partition in &self.partitions {
            let key = &partition.key;
            if let Some(end) = ffi::known_end(self.consumer.client(), &key.topic, key.partition) {
                self.outbox.push_back(SourceEvent::Lag { partition: key.clone(), end });
            }
        }
    }

    pub(super) fn describe_topics(&mut self) {
        if self.describing.is_some() {
            return;
        }
        let names: Vec<&str> = self.topics.iter().map(|topic| &*topic.name).collect();
        // A broker that does not answer is followed by the next, and after the last known one by the controller.
        let broker = self.brokers.pop();
        let limit = self.settings.silence_limit.map_or(DESCRIBE_TIMEOUT, |silence| silence.min(DESCRIBE_TIMEOUT));
        match DescribeTopics::send(self.consumer.client(), &names, broker, limit) {
            Ok(request) => self.describing = Some(request),
            Err(error) => tracing::debug!(%error, "describing topics"),
        }
    }

    /// Looks at the answer, if it is there: librdkafka itself reads on in a topic that was deleted and made anew.
    pub(super) fn compare_topics(&mut self) -> Result<(), End> {
        let Some(answer) = self.describing.as_ref().and_then(|request| request.poll(Duration::ZERO)) else {
            return Ok(());
        };
        let broker = self.describing.take().and_then(|request| request.broker());
        match answer {
            Ok(answer) => {
                self.silent_since = None;
                self.brokers.extend(broker);
                self.compare(answer)
            }
            Err(error) => {
                tracing::debug!(%error, "describing topics");
                self.bear_silence(&error)
            }
        }
    }

    /// Fails when no broker has answered for too long.
    fn bear_silence(&mut self, error: &KafkaError) -> Result<(), End> {
        if !is_silence(error) {
            self.silent_since = None;
            return Ok(());
        }
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        match self.settings.silence_limit {
            Some(limit) if since.elapsed() >= limit => Err(End::Failed(IngestError::Unavailable(format!(
                "no broker has answered for {} s at {}; last error: {}",
                limit.as_secs(),
                self.settings.brokers,
                self.consumer.context().noted.last().unwrap_or_else(|| error.to_string())
            )))),
            _ => Ok(()),
        }
    }

    fn compare(&mut self, answer: Vec<TopicDescription>) -> Result<(), End> {
        let mut found = BTreeMap::new();
        for description in answer {
            let name = description.name.clone();
            match known(description) {
                Ok(topic) => drop(found.insert(name, topic.map(|(_, id)| id))),
                Err(error) => tracing::debug!(%error, "describing topics"),
            }
        }
        for topic in &mut self.topics {
            match found.get(&*topic.name) {
                Some(Some(id)) => {
                    topic.missing = 0;
                    if topic.id.is_some() && *id != topic.id {
                        return Err(End::Failed(recreated(&topic.name, "its id has changed while it was being read")));
                    }
                }
                Some(None) => {
                    topic.missing += 1;
                    // One broker may not know of a new topic yet; twice in a row is no accident.
                    if topic.missing >= 2 {
                        return Err(End::Failed(deleted(&topic.name)));
                    }
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// Whether this is what is left of a request that no broker answered, rather than an answer.
fn is_silence(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let KafkaError::AdminOp(code) = error else { return false };
    matches!(
        code,
        Code::OperationTimedOut | Code::RequestTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown
    )
}

/// The error for a topic that is not the one that was read before.
pub(super) fn recreated(topic: &str, what: &str) -> IngestError {
    IngestError::Fatal(format!(
        "topic {topic} was re-created or truncated: {what}; `webdancer ingest --accept-new-topic {topic}` accepts it"
    ))
}

fn deleted(topic: &str) -> IngestError {
    IngestError::Fatal(format!(
        "topic {topic} was deleted while it was being read: what was not committed is lost; create it again, then \
         `webdancer ingest --accept-new-topic {topic}` accepts it"
    ))
}

//! Topics: creating them, checking that they take our largest event, and telling their ids.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use webdancer_schemas::kind::Kind;

use super::context::AdminSide;
use super::ffi::{self, DescribeTopics, TopicDescription};
use super::settings::KafkaSettings;
use crate::error::{IngestError, Result};

/// How long to wait between looks at a topic that was just created.
const PROPAGATION_POLL: Duration = Duration::from_millis(50);

/// A connection for administration. All calls block: use a thread where that is allowed.
#[derive(Debug)]
pub struct Admin {
    client: AdminClient<AdminSide>,
    settings: KafkaSettings,
}

impl Admin {
    /// A client; nothing is connected yet.
    ///
    /// # Errors
    /// [`IngestError::Usage`] for settings that librdkafka refuses.
    pub fn new(settings: &KafkaSettings) -> Result<Admin> {
        settings.validate()?;
        let client = settings
            .admin_config()
            .create_with_context(AdminSide::default())
            .map_err(|e| IngestError::Usage(format!("kafka settings: {e}")))?;
        Ok(Admin { client, settings: settings.clone() })
    }

    /// The cluster's id, which tells one cluster's offsets from another's.
    ///
    /// # Errors
    /// [`IngestError::Unavailable`] when no broker answers in time.
    pub fn cluster_id(&self) -> Result<String> {
        let id = self.client.inner().fetch_cluster_id(self.settings.admin_timeout());
        id.filter(|id| !id.is_empty()).ok_or_else(|| self.unavailable("asking for the cluster id", "no answer"))
    }

    /// The ids of the topics that exist. See [`fold_id`] for the number; `None` where the cluster has no topic ids.
    ///
    /// # Errors
    /// [`IngestError::Unavailable`] when no broker answers in time, [`IngestError::Usage`] when we may not look.
    pub fn topic_ids(&self, topics: &[&str]) -> Result<BTreeMap<String, Option<i64>>> {
        describe(self.client.inner(), topics, self.settings.admin_timeout())
            .map_err(|e| self.explain("describing topics", e))?
            .into_iter()
            .filter_map(|topic| known(topic).transpose())
            .collect()
    }

    /// Creates the topics of `kinds` that are missing and checks that every one takes our largest event.
    ///
    /// # Errors
    /// [`IngestError::Usage`] for a topic that takes only smaller events or may not be created,
    /// [`IngestError::Unavailable`] when no broker answers in time.
    pub fn ensure_topics(&self, kinds: &[Kind]) -> Result<()> {
        if kinds.is_empty() {
            return Ok(());
        }
        let names: BTreeSet<String> = kinds.iter().map(|kind| self.settings.topic(*kind)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let existing = self.topic_ids(&names)?;
        let missing: Vec<&str> = names.iter().copied().filter(|name| !existing.contains_key(*name)).collect();
        if !missing.is_empty() {
            self.create_for_events(&missing)?;
        }
        // A topic that somebody else created a moment ago, with other settings, is checked as well.
        self.check_sizes(&names)
    }

    /// Creates a topic that is not for events, unless it is there.
    pub(super) fn ensure_topic(&self, topic: &NewTopic<'_>) -> Result<()> {
        if self.topic_ids(&[topic.name])?.is_empty() { self.create(std::slice::from_ref(topic)) } else { Ok(()) }
    }

    fn create_for_events(&self, names: &[&str]) -> Result<()> {
        let sizes: Vec<String> = names.iter().map(|name| self.needed(name).to_string()).collect();
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .zip(&sizes)
            .map(|(name, max_message_bytes)| {
                NewTopic::new(name, self.settings.partitions, TopicReplication::Fixed(self.settings.replication))
                    .set("max.message.bytes", max_message_bytes)
                    .set("cleanup.policy", "delete")
            })
            .collect();
        self.create(&topics)
    }

    fn create(&self, topics: &[NewTopic<'_>]) -> Result<()> {
        let names: Vec<&str> = topics.iter().map(|topic| topic.name).collect();
        let limit = self.settings.admin_timeout();
        let options = AdminOptions::new().request_timeout(Some(limit)).operation_timeout(Some(limit));
        let results = block_on(self.client.create_topics(topics, &options))
            .map_err(|e| self.explain(&format!("creating topics {}", names.join(", ")), e))?;
        for result in results {
            match result {
                Ok(name) => tracing::info!(topic = %name, "created"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(self.explain(&format!("creating topic {name}"), KafkaError::AdminOp(code)));
                }
            }
        }
        self.await_topics(&names)
    }

    /// A new topic takes a moment to be known to every broker.
    fn await_topics(&self, names: &[&str]) -> Result<()> {
        let deadline = Instant::now() + self.settings.admin_timeout();
        while self.topic_ids(names)?.len() < names.len() {
            if Instant::now() > deadline {
                return Err(self.unavailable("creating topics", "brokers do not know them yet"));
            }
            thread::sleep(PROPAGATION_POLL);
        }
        Ok(())
    }

    fn check_sizes(&self, names: &[&str]) -> Result<()> {
        let limit = self.settings.admin_timeout();
        // Any broker knows, and asking one does not depend on the controller.
        let broker = ffi::brokers(self.client.inner(), limit).map_err(|e| self.explain("asking for brokers", e))?;
        let options = AdminOptions::new().request_timeout(Some(limit)).broker_id(broker.first().copied());
        let resources: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let unchecked = |code: RDKafkaErrorCode| {
            // Without the right to look, the broker still refuses what is too large, one event at a time.
            tracing::warn!(%code, "cannot read max.message.bytes of the topics; going on without the check");
        };
        let answers = match block_on(self.client.describe_configs(&resources, &options)) {
            Ok(answers) => answers,
            Err(KafkaError::AdminOp(code)) if is_refusal(code) => {
                unchecked(code);
                return Ok(());
            }
            Err(error) => return Err(self.explain("reading the topics' settings", error)),
        };
        for (name, answer) in names.iter().zip(answers) {
            let limit = match answer {
                Ok(resource) => resource.get("max.message.bytes").and_then(|entry| entry.value.clone()),
                Err(code) if is_refusal(code) => {
                    unchecked(code);
                    continue;
                }
                Err(code) => {
                    return Err(self.explain(&format!("reading settings of {name}"), KafkaError::AdminOp(code)));
                }
            };
            let needed = self.needed(name);
            if let Some(limit) = limit.and_then(|text| text.parse::<usize>().ok())
                && limit < needed
            {
                let kind = self.kind(name);
                let (setting, bytes) = (KafkaSettings::limit_name(kind), self.settings.limit_of(kind));
                return Err(IngestError::Usage(format!(
                    "topic {name} takes messages of at most {limit} bytes, but {setting} = {bytes} needs {needed}: \
                     raise its max.message.bytes to {needed} or lower {setting}"
                )));
            }
        }
        Ok(())
    }

    /// The kind of one of our topics.
    fn kind(&self, topic: &str) -> Kind {
        self.settings.kind_of(topic).unwrap_or(Kind::Page)
    }

    /// What a topic must let through.
    fn needed(&self, topic: &str) -> usize {
        self.settings.max_message_bytes(self.kind(topic))
    }

    fn explain(&self, what: &str, error: KafkaError) -> IngestError {
        let code = match &error {
            KafkaError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        match code {
            Some(
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::PolicyViolation
                | RDKafkaErrorCode::InvalidConfig
                | RDKafkaErrorCode::InvalidTopic
                | RDKafkaErrorCode::InvalidPartitions
                | RDKafkaErrorCode::InvalidReplicationFactor
                | RDKafkaErrorCode::UnsupportedFeature),
            ) => IngestError::Usage(format!("{what} at {}: {code}", self.settings.brokers)),
            _ => self.unavailable(what, &error.to_string()),
        }
    }

    fn unavailable(&self, what: &str, error: &str) -> IngestError {
        let cause =
            self.client.inner().context().noted.last().map(|e| format!("; last error: {e}")).unwrap_or_default();
        IngestError::Unavailable(format!("{what} at {}: {error}{cause}", self.settings.brokers))
    }
}

/// Folds a topic's UUID into 63 bits: its halves xor-ed, the sign bit cleared.
///
/// Kafka draws topic ids at random, so two topics fold alike with a chance of about 2⁻⁶². The all-zero UUID means
/// that the cluster has no topic ids (brokers before 2.8).
pub(super) fn fold_id((high, low): (i64, i64)) -> Option<i64> {
    if (high, low) == (0, 0) {
        return None;
    }
    Some(((high ^ low) & i64::MAX).max(1))
}

/// A topic that exists, with its id; `None` for one that does not.
pub(super) fn known(topic: TopicDescription) -> Result<Option<(String, Option<i64>)>> {
    match topic.error {
        None => Ok(Some((topic.name, fold_id(topic.id)))),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicId,
        ) => Ok(None),
        Some(code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::InvalidTopic)) => {
            Err(IngestError::Usage(format!("topic {}: {code}", topic.name)))
        }
        Some(code) => Err(IngestError::Unavailable(format!("topic {}: {code}", topic.name))),
    }
}

/// Asks for topics and waits for the answer.
pub(super) fn describe<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    limit: Duration,
) -> Result<Vec<TopicDescription>, KafkaError> {
    let broker = ffi::brokers(client, limit)?.first().copied();
    let request = DescribeTopics::send(client, topics, broker, limit)?;
    // librdkafka answers by itself when the limit is over; the second is for its own delay.
    request
        .poll(limit + Duration::from_secs(1))
        .unwrap_or(Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut)))
}

fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnsupportedFeature
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_folds_to_a_positive_number_and_zero_means_none() {
        assert_eq!(fold_id((0, 0)), None);
        assert_eq!(fold_id((0b1100, 0b1010)), Some(0b0110));
        assert_eq!(fold_id((i64::MIN, 5)), Some(5));
        assert_eq!(fold_id((7, 7)), Some(1));
    }
}

//! Settings of the Kafka log, and the librdkafka configuration that follows from them.
//!
//! One number, `max_event_bytes`, decides what the producer sends, what our topics accept and what a fetch can hold:
//! three settings that, set apart, lead to events that can be written and never read. Dead letters have a larger limit,
//! so that what was too large for an event is kept with its bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use webdancer_schemas::kind::Kind;

use crate::error::{IngestError, Result};

/// Bytes a record may need beside key, value and headers: batch header, lengths, and zstd on what does not compress.
const RECORD_OVERHEAD_BYTES: usize = 64 * 1024;
/// Kafka's port where a URL names none.
const DEFAULT_PORT: u16 = 9092;
/// librdkafka takes no larger message.
const MAX_EVENT_BYTES_MAX: usize = 900_000_000;

/// What exactly-once, order and rebalancing rest on: not for `extra` to change.
const RESERVED: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "group.id",
    "group.protocol",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "partitioner",
    "request.required.acks",
    "session.timeout.ms",
    "transactional.id",
];

/// How to reach Kafka and how to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port`, comma-separated; any of them leads to the whole cluster.
    pub brokers: String,
    /// Put before a kind's name to make the name of its topic. Default `webdancer.`.
    pub topic_prefix: String,
    /// Partitions of a topic that is created; existing topics stay as they are. Default 4.
    pub partitions: i32,
    /// Copies of each partition of a topic that is created. Default 1, for one broker: with three brokers or more set
    /// it to 3 (and `min.insync.replicas` to 2 on the brokers), or a lost disk loses acknowledged events.
    pub replication: i32,
    /// Largest event: key, value and headers together. Default 16 MiB.
    pub max_event_bytes: usize,
    /// Largest dead letter: events above the limit are kept up to this size. Default 96 MiB.
    pub max_dead_letter_bytes: usize,
    /// Consumer group; its members share the partitions. Default `webdancer-ingest`.
    pub group: String,
    /// A member that is silent this long loses its partitions. Default 10,000 ms.
    pub session_timeout_ms: u32,
    /// How long the commit loop may take to say where to start, or to let go of partitions. Default 30,000 ms.
    pub rebalance_timeout_ms: u32,
    /// How long an append may wait for its acknowledgement. Default 30,000 ms.
    pub delivery_timeout_ms: u32,
    /// How long creating and describing topics may take. Default 30,000 ms.
    pub admin_timeout_ms: u32,
    /// Bytes appended and not yet acknowledged, per process; more appends wait. Default 128 MiB.
    pub producer_queue_bytes: usize,
    /// Bytes fetched ahead of the commit loop, beside its own budget; one fetch may exceed it. Default 32 MiB.
    pub prefetch_bytes: usize,
    /// Records handed over at once, per partition, at most. Default 4,096.
    pub batch_records: usize,
    /// Bytes handed over at once, per partition, at most (a single record may be larger). Default 1 MiB.
    pub batch_bytes: usize,
    /// How long a record may wait for others to be handed over with. Default 10 ms.
    pub batch_linger_ms: u32,
    /// How often topic ids are compared, lag is told and offsets are committed as a hint. Default 1,000 ms.
    pub check_interval_ms: u32,
    /// How long brokers may be silent before the source fails. None, the default: it waits for them, however long.
    pub silence_limit: Option<Duration>,
    /// Further librdkafka properties, such as `security.protocol` or `sasl.password`. Values never show in `Debug`.
    pub extra: BTreeMap<String, String>,
}

impl KafkaSettings {
    /// The defaults, for these brokers.
    pub fn new(brokers: impl Into<String>) -> KafkaSettings {
        KafkaSettings {
            brokers: brokers.into(),
            topic_prefix: "webdancer.".into(),
            partitions: 4,
            replication: 1,
            max_event_bytes: 16 << 20,
            max_dead_letter_bytes: 96 << 20,
            group: "webdancer-ingest".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 30_000,
            delivery_timeout_ms: 30_000,
            admin_timeout_ms: 30_000,
            producer_queue_bytes: 128 << 20,
            prefetch_bytes: 32 << 20,
            batch_records: 4096,
            batch_bytes: 1 << 20,
            batch_linger_ms: 10,
            check_interval_ms: 1000,
            silence_limit: None,
            extra: BTreeMap::new(),
        }
    }

    /// The defaults, for the brokers of `kafka://host[:port][,host[:port]…]`.
    ///
    /// # Errors
    /// [`IngestError::Usage`] for anything else; credentials belong into `extra`, not into a URL that is logged.
    pub fn from_url(url: &str) -> Result<KafkaSettings> {
        let usage = |what: &str| {
            let shown = url.rsplit_once('@').map_or(url, |(_, host)| host);
            IngestError::Usage(format!("log {shown:?}: {what}; expected kafka://host:port[,host:port...]"))
        };
        let list = url.strip_prefix("kafka://").ok_or_else(|| usage("is not a kafka:// URL"))?;
        if list.contains('@') {
            return Err(usage("must not hold a password: use sasl.* settings"));
        }
        let list = list.strip_suffix('/').unwrap_or(list);
        if list.contains(['/', '?', '#', ' ']) {
            return Err(usage("has more than brokers in it"));
        }
        let brokers =
            list.split(',').map(|broker| with_port(broker).ok_or_else(|| usage(&format!("broker {broker:?}"))));
        Ok(KafkaSettings::new(brokers.collect::<Result<Vec<String>>>()?.join(",")))
    }

    /// The topic of a kind.
    pub fn topic(&self, kind: Kind) -> String {
        format!("{}{}", self.topic_prefix, kind.name())
    }

    /// The kind whose topic this is.
    pub fn kind_of(&self, topic: &str) -> Option<Kind> {
        topic.strip_prefix(&self.topic_prefix)?.parse().ok()
    }

    /// The largest event of a kind.
    pub fn limit_of(&self, kind: Kind) -> usize {
        match kind {
            Kind::DeadLetter => self.max_dead_letter_bytes.max(self.max_event_bytes),
            _ => self.max_event_bytes,
        }
    }

    /// What the topic of a kind must let through: the largest event and what Kafka wraps around it.
    pub fn max_message_bytes(&self, kind: Kind) -> usize {
        self.limit_of(kind) + RECORD_OVERHEAD_BYTES
    }

    /// The name of the setting that [`limit_of`](Self::limit_of) follows.
    pub(super) fn limit_name(kind: Kind) -> &'static str {
        if kind == Kind::DeadLetter { "log.max_dead_letter_bytes" } else { "log.max_event_bytes" }
    }

    /// The largest message of all.
    pub(super) fn largest_message_bytes(&self) -> usize {
        self.limit_of(Kind::DeadLetter) + RECORD_OVERHEAD_BYTES
    }

    /// Checks ranges and `extra`.
    ///
    /// # Errors
    /// [`IngestError::Usage`] that names the setting.
    pub fn validate(&self) -> Result<()> {
        let usage = |text: String| Err(IngestError::Usage(text));
        if self.brokers.is_empty() {
            return usage("the kafka:// URL names no broker; expected kafka://host:port[,host:port...]".into());
        }
        if self.group.is_empty() {
            return usage("log.group is empty; workers of one lake share a group name".into());
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.topic_prefix.len() > 200 || !self.topic_prefix.chars().all(allowed) {
            return usage(format!(
                "log.topic_prefix {:?} must be at most 200 letters, digits, '.', '_', '-'",
                self.topic_prefix
            ));
        }
        for (name, bytes) in
            [("max_event_bytes", self.max_event_bytes), ("max_dead_letter_bytes", self.max_dead_letter_bytes)]
        {
            if !(1024..=MAX_EVENT_BYTES_MAX).contains(&bytes) {
                return usage(format!("log.{name} is {bytes}; it must be from 1024 to {MAX_EVENT_BYTES_MAX}"));
            }
        }
        for (name, value) in [
            ("partitions", i64::from(self.partitions)),
            ("replication", i64::from(self.replication)),
            ("session_timeout_ms", i64::from(self.session_timeout_ms)),
            ("rebalance_timeout_ms", i64::from(self.rebalance_timeout_ms)),
            ("delivery_timeout_ms", i64::from(self.delivery_timeout_ms)),
            ("admin_timeout_ms", i64::from(self.admin_timeout_ms)),
            ("check_interval_ms", i64::from(self.check_interval_ms)),
        ] {
            if !(1..=3_600_000).contains(&value) {
                return usage(format!("log.{name} is {value}; it must be from 1 to 3600000"));
            }
        }
        for (name, value) in [("batch_records", self.batch_records), ("batch_bytes", self.batch_bytes)] {
            if value == 0 {
                return usage(format!("log.{name} must not be 0"));
            }
        }
        match self.extra.keys().find(|key| RESERVED.contains(&key.as_str())) {
            Some(key) => usage(format!("kafka property {key} cannot be set: delivery guarantees rest on it")),
            None => Ok(()),
        }
    }

    /// Configuration of an admin client.
    pub fn admin_config(&self) -> ClientConfig {
        self.base_config()
    }

    /// Configuration of a producer: nothing is acknowledged before all replicas have it, nothing is written twice by
    /// a retry, and the order of one key is kept.
    pub fn producer_config(&self) -> ClientConfig {
        let mut config = self.base_config();
        let queue_kbytes = self.producer_queue_bytes.max(2 * self.largest_message_bytes()) / 1024;
        config
            .set("message.max.bytes", self.largest_message_bytes().to_string())
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "zstd")
            .set("linger.ms", "1")
            // The Java clients' choice, so that a foreign producer puts a key into the same partition.
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", self.delivery_timeout_ms.to_string())
            .set("queue.buffering.max.kbytes", queue_kbytes.to_string());
        self.with_extra(config)
    }

    /// Configuration of a consumer that is told where to start and commits nothing by itself.
    pub fn consumer_config(&self) -> ClientConfig {
        let mut config = self.base_config();
        // A dead letter may be larger: a broker answers with a partition's next message whatever its size.
        let fetch_bytes = self.max_event_bytes + RECORD_OVERHEAD_BYTES;
        let fetch_all_bytes = fetch_bytes.max(8 << 20);
        let answer_bytes = fetch_all_bytes.max(self.largest_message_bytes()) + (8 << 20);
        config
            .set("group.id", &self.group)
            .set("session.timeout.ms", self.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (self.session_timeout_ms / 3).clamp(1, 3000).to_string())
            .set("max.poll.interval.ms", self.max_poll_interval_ms().to_string())
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("fetch.message.max.bytes", fetch_bytes.to_string())
            .set("fetch.max.bytes", fetch_all_bytes.to_string())
            .set("receive.message.max.bytes", answer_bytes.max(100_000_000).to_string())
            .set("queued.max.messages.kbytes", (self.prefetch_bytes / 1024).clamp(1, 2_000_000).to_string())
            // The default of one second would leave the consumer without messages each time it has drained its queue.
            .set("fetch.queue.backoff.ms", "5")
            .set("topic.metadata.refresh.interval.ms", "60000");
        self.with_extra(config)
    }

    /// How long after the group has settled a member may turn out to be dead: it is dropped when its session ends, and
    /// the others hear of it with their next heartbeats.
    pub(super) fn eviction_limit(&self) -> Duration {
        Duration::from_millis(2 * u64::from(self.session_timeout_ms))
    }

    /// The group waits this long for a member that does not poll.
    fn max_poll_interval_ms(&self) -> u32 {
        (3 * self.rebalance_timeout_ms).max(300_000).max(self.session_timeout_ms)
    }

    /// See [`KafkaSettings::rebalance_timeout_ms`].
    pub(super) fn rebalance_timeout(&self) -> Duration {
        Duration::from_millis(self.rebalance_timeout_ms.into())
    }

    /// See [`KafkaSettings::admin_timeout_ms`].
    pub(super) fn admin_timeout(&self) -> Duration {
        Duration::from_millis(self.admin_timeout_ms.into())
    }

    /// See [`KafkaSettings::delivery_timeout_ms`].
    pub(super) fn delivery_timeout(&self) -> Duration {
        Duration::from_millis(self.delivery_timeout_ms.into())
    }

    /// See [`KafkaSettings::check_interval_ms`].
    pub(super) fn check_interval(&self) -> Duration {
        Duration::from_millis(self.check_interval_ms.into())
    }

    /// See [`KafkaSettings::batch_linger_ms`].
    pub(super) fn batch_linger(&self) -> Duration {
        Duration::from_millis(self.batch_linger_ms.into())
    }

    fn base_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "webdancer")
            .set("message.max.bytes", (self.max_event_bytes + RECORD_OVERHEAD_BYTES).to_string())
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "2000")
            .set("allow.auto.create.topics", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        self.with_extra(config)
    }

    fn with_extra(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in &self.extra {
            config.set(key, value);
        }
        config
    }
}

/// `host:port` of a broker, or nothing if it is not one. An IPv6 address stands in brackets.
fn with_port(broker: &str) -> Option<String> {
    let (host, port) = match broker.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok().filter(|port| *port > 0)?),
        _ => (broker, DEFAULT_PORT),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return None;
    }
    Some(format!("{host}:{port}"))
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("topic_prefix", &self.topic_prefix)
            .field("group", &self.group)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("max_event_bytes", &self.max_event_bytes)
            .field("extra", &self.extra.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_brokers_and_the_port_may_be_left_out() {
        let brokers = |url: &str| KafkaSettings::from_url(url).map(|s| s.brokers).map_err(|e| e.to_string());
        assert_eq!(brokers("kafka://a:1"), Ok("a:1".into()));
        assert_eq!(brokers("kafka://a,b:19092/"), Ok("a:9092,b:19092".into()));
        assert_eq!(brokers("kafka://[::1]:9,[::2]"), Ok("[::1]:9,[::2]:9092".into()));
        for wrong in ["a:1", "kafka://", "kafka://a:", "kafka://a:x", "kafka://a:0", "kafka://a,,b", "kafka://a/b"] {
            assert!(brokers(wrong).is_err_and(|e| e.contains("expected kafka://host:port")), "{wrong}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let error = KafkaSettings::from_url("kafka://user:hunter2@a:1").map_err(|e| e.to_string());
        assert!(error.as_ref().is_err_and(|e| e.contains("password") && !e.contains("hunter2")), "{error:?}");
    }

    #[test]
    fn one_setting_sizes_producer_and_consumer() {
        let settings = KafkaSettings { max_event_bytes: 1 << 20, ..KafkaSettings::new("a:1") };
        let expected = Some("1114112");
        assert_eq!(settings.max_message_bytes(Kind::Metric), 1_114_112);
        assert_eq!(settings.max_message_bytes(Kind::DeadLetter), 100_728_832);
        assert_eq!(settings.producer_config().get("message.max.bytes"), Some("100728832"));
        assert_eq!(settings.consumer_config().get("receive.message.max.bytes"), Some("109117440"));
        assert_eq!(settings.consumer_config().get("message.max.bytes"), expected);
        assert_eq!(settings.consumer_config().get("fetch.message.max.bytes"), expected);
    }

    #[test]
    fn librdkafka_accepts_the_configurations() {
        let settings = KafkaSettings::new("a:1");
        for config in [settings.admin_config(), settings.producer_config(), settings.consumer_config()] {
            assert!(config.create_native_config().is_ok());
        }
    }

    #[test]
    fn debug_shows_no_value_of_extra() {
        let mut settings = KafkaSettings::new("a:1");
        settings.extra.insert("sasl.password".into(), "hunter2".into());
        let shown = format!("{settings:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn extra_cannot_undo_the_guarantees() {
        let mut settings = KafkaSettings::new("a:1");
        settings.extra.insert("security.protocol".into(), "ssl".into());
        assert!(settings.validate().is_ok());
        settings.extra.insert("enable.idempotence".into(), "false".into());
        assert!(settings.validate().is_err_and(|e| e.to_string().contains("enable.idempotence")));
    }

    #[test]
    fn a_topic_is_prefix_and_kind_and_back() {
        let settings = KafkaSettings { topic_prefix: "team.x.".into(), ..KafkaSettings::new("a:1") };
        assert_eq!(settings.topic(Kind::DeadLetter), "team.x.dead_letter");
        assert_eq!(settings.kind_of("team.x.dead_letter"), Some(Kind::DeadLetter));
        assert_eq!(settings.kind_of("webdancer.page"), None);
    }
}

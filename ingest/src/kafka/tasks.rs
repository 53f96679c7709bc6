//! Work shared out over machines: tasks in a topic of their own, taken by the members of a consumer group.
//!
//! [`publish`] writes tasks to a topic and, behind them, the plan that they belong to; a topic whose last record of
//! partition 0 is a plan is complete. A [`TaskWorker`] joins the group, hands tasks out and is told when they are done.
//! It commits a partition's offset only as far as every task before it is done, so that the tasks of a member that dies
//! go to others. [`TaskWorker::next`] gives nothing more when the whole group has done everything: until then a member
//! without tasks waits, for those of another that may die.
//!
//! A task is done at least once. Usually that is once; it is twice when its member dies, or is cut off from the broker,
//! between doing it and committing. So whatever a task makes has ids derived from the task, and shows once in the
//! tables.

mod ledger;
mod publish;
mod reading;
mod worker;

use std::time::Duration;

use rdkafka::config::ClientConfig;
use serde_json::value::RawValue;

use super::settings::KafkaSettings;
use crate::error::{IngestError, Result};

pub use publish::{Published, publish};
pub use reading::read_plan;
pub use worker::{Progress, TaskWorker};

/// Bytes fetched of a partition at once, about.
const FETCH_BYTES: usize = 64 << 10;
/// Tasks in a batch of the topic.
const BATCH_TASKS: &str = "32";

/// The topic and the group of some tasks, and how its members work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSettings {
    /// How to reach Kafka; of the log's own settings, topics and group are not used.
    pub kafka: KafkaSettings,
    /// What the tasks belong to, such as a run's id. Topic and group are called `<topic prefix>tasks.<name>`.
    pub name: String,
    /// Partitions of a topic that is created: no more members than that can work at a time. Default 16.
    pub partitions: i32,
    /// How long a topic that is created keeps its tasks, done or not. Default 168 hours.
    pub retention_hours: u32,
    /// Largest task: key and payload. Default 1 MiB.
    pub max_task_bytes: usize,
    /// Tasks that a member holds ready beside those it works on, about; the rest stays with the broker. Default 64.
    pub prefetch_tasks: usize,
    /// How often positions are committed: a member that is killed repeats what it did since. Default 200 ms.
    pub commit_interval_ms: u32,
}

impl TaskSettings {
    /// The defaults, for tasks of this name.
    pub fn new(kafka: KafkaSettings, name: impl Into<String>) -> TaskSettings {
        TaskSettings {
            kafka,
            name: name.into(),
            partitions: 16,
            retention_hours: 168,
            max_task_bytes: 1 << 20,
            prefetch_tasks: 64,
            commit_interval_ms: 200,
        }
    }

    /// The topic, and the group.
    pub fn topic(&self) -> String {
        format!("{}tasks.{}", self.kafka.topic_prefix, self.name)
    }

    /// Checks ranges, names and the settings of Kafka.
    ///
    /// # Errors
    /// [`IngestError::Usage`] that names the setting.
    pub fn validate(&self) -> Result<()> {
        self.client().validate()?;
        let usage = |text: String| Err(IngestError::Usage(text));
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.name.is_empty() || self.topic().len() > 249 || !self.name.chars().all(allowed) {
            return usage(format!("tasks of {:?}: a name has letters, digits, '.', '_' and '-' only", self.name));
        }
        for (name, value, most) in [
            ("partitions", i64::from(self.partitions), 10_000),
            ("retention_hours", i64::from(self.retention_hours), 24 * 3650),
            ("commit_interval_ms", i64::from(self.commit_interval_ms), 60_000),
            ("prefetch_tasks", i64::try_from(self.prefetch_tasks).unwrap_or(i64::MAX), 1_000_000),
        ] {
            if !(1..=most).contains(&value) {
                return usage(format!("tasks.{name} is {value}; it must be from 1 to {most}"));
            }
        }
        Ok(())
    }

    /// The settings of the clients: sizes and group are those of the tasks.
    fn client(&self) -> KafkaSettings {
        KafkaSettings {
            max_event_bytes: self.max_task_bytes,
            max_dead_letter_bytes: self.max_task_bytes,
            group: self.topic(),
            ..self.kafka.clone()
        }
    }

    /// Configuration of a consumer. Tasks that retention removed are gone: the first that is there is the next.
    fn consumer_config(&self) -> ClientConfig {
        let mut config = self.client().consumer_config();
        config
            .set("auto.offset.reset", "earliest")
            // What is fetched beyond the tasks held ready is thrown away: a broker gives one batch, however large.
            .set("queued.min.messages", "1")
            .set("fetch.message.max.bytes", FETCH_BYTES.to_string());
        config
    }

    /// Configuration of the producer: small batches, since whole ones are fetched.
    fn producer_config(&self) -> ClientConfig {
        let mut config = self.client().producer_config();
        config.set("batch.num.messages", BATCH_TASKS);
        config
    }

    fn commit_interval(&self) -> Duration {
        Duration::from_millis(self.commit_interval_ms.into())
    }
}

/// A task to be published.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// What tells it from other tasks of the same name; not empty.
    pub key: String,
    /// What is to be done.
    pub payload: Box<RawValue>,
}

/// A task handed out to a member.
#[derive(Debug, Clone)]
pub struct Task {
    partition: i32,
    offset: i64,
    /// What tells it from other tasks.
    pub key: String,
    /// What is to be done.
    pub payload: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_have_a_topic_and_a_group_of_their_own() {
        let settings = TaskSettings::new(KafkaSettings::new("a:1"), "run-1");
        assert_eq!(settings.topic(), "webdancer.tasks.run-1");
        assert_eq!(settings.kafka.kind_of(&settings.topic()), None);
        let config = settings.consumer_config();
        assert_eq!(config.get("group.id"), Some("webdancer.tasks.run-1"));
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        assert_eq!(config.get("auto.offset.reset"), Some("earliest"));
        assert!(config.create_native_config().is_ok());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let good = TaskSettings::new(KafkaSettings::new("a:1"), "run-1");
        assert!(good.validate().is_ok());
        let refused = |settings: TaskSettings| settings.validate().unwrap_err().to_string();
        assert!(refused(TaskSettings { name: "a b".into(), ..good.clone() }).contains("\"a b\""));
        assert!(refused(TaskSettings { partitions: 0, ..good.clone() }).contains("tasks.partitions is 0"));
        assert!(refused(TaskSettings { prefetch_tasks: 0, ..good.clone() }).contains("tasks.prefetch_tasks"));
        assert!(refused(TaskSettings { max_task_bytes: 1, ..good }).contains("max_event_bytes is 1"));
    }
}

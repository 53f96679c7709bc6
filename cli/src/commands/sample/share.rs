//! Attempts shared with other machines: each is a task of the run's topic.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::value::to_raw_value;
use webdancer_ingest::kafka::tasks::{self, NewTask, Published, Task, TaskSettings, TaskWorker};
use webdancer_synth::sample::{Attempt, Claim, Source, SourceError};

use super::plan::Plan;
use crate::context::{Context, LogUri};
use crate::failure::Failure;

/// The topic and the group of a run.
pub(super) fn settings(context: &Context, run: &str) -> Result<TaskSettings, Failure> {
    let LogUri::Kafka(kafka) = &context.log else {
        return Err(Failure::usage("attempts are shared over Kafka: give --log kafka://host:port"));
    };
    let config = &context.config.tasks;
    let settings = TaskSettings {
        partitions: config.partitions,
        retention_hours: config.retention_hours,
        max_task_bytes: config.max_task_bytes,
        prefetch_tasks: config.prefetch_tasks,
        commit_interval_ms: config.commit_interval_ms,
        ..TaskSettings::new(kafka.as_ref().clone(), run)
    };
    settings.validate()?;
    Ok(settings)
}

/// Publishes the attempts that are not waiting already.
pub(super) async fn publish(settings: &TaskSettings, plan: &Plan, attempts: &[Attempt]) -> Result<Published, Failure> {
    let json = |e: serde_json::Error| Failure::failed(format!("an attempt as JSON: {e}"));
    let task = |attempt: &Attempt| Ok(NewTask { key: attempt.key(), payload: to_raw_value(attempt)? });
    let tasks = attempts.iter().map(task).collect::<Result<Vec<NewTask>, serde_json::Error>>().map_err(json)?;
    Ok(tasks::publish(settings, &to_raw_value(plan).map_err(json)?, tasks).await?)
}

/// The attempts of a run as its members share them.
#[derive(Debug)]
pub(super) struct Shared {
    worker: TaskWorker,
    next_ticket: AtomicU64,
    claimed: Mutex<HashMap<u64, Task>>,
}

impl Shared {
    /// Becomes a member.
    pub(super) fn join(settings: &TaskSettings) -> Result<Shared, Failure> {
        let worker = TaskWorker::join(settings)?;
        Ok(Shared { worker, next_ticket: AtomicU64::new(0), claimed: Mutex::default() })
    }

    /// Hands what is not done to the other members.
    pub(super) async fn leave(&self) -> Result<(), Failure> {
        Ok(self.worker.leave().await?)
    }
}

#[async_trait]
impl Source for Shared {
    async fn next(&self) -> Result<Option<Claim>, SourceError> {
        loop {
            let next = self.worker.next().await.map_err(|e| SourceError(e.to_string()))?;
            let Some(task) = next else { return Ok(None) };
            match serde_json::from_str(task.payload.get()) {
                Ok(attempt) => {
                    let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
                    self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket, task);
                    return Ok(Some(Claim { attempt, ticket }));
                }
                Err(error) => {
                    tracing::warn!(key = task.key, %error, "no attempt; passed over");
                    self.worker.done(&task);
                }
            }
        }
    }

    fn done(&self, claim: &Claim) {
        if let Some(task) = self.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&claim.ticket) {
            self.worker.done(&task);
        }
    }

    fn left(&self) -> Option<u64> {
        let progress = self.worker.progress();
        (progress.tasks > 0).then(|| progress.tasks - progress.done)
    }
}

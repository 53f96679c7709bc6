//! What a server has told of runs, in a file beside the log: a server that starts again goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use webdancer_ingest::embedded::EmbeddedLog;
use webdancer_schemas::digest::sha256_hex;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::NewFile;

/// How late an event may come in. Of what was told longer ago the command tells.
const LATE_MAX: TimeDelta = TimeDelta::minutes(10);
/// Runs that are remembered. Beyond that the one whose last event is oldest is forgotten: if it goes on, it is told whole.
const RUNS_MAX: usize = 1_000;

/// What was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    /// Runs that changed from then on are told, from their start.
    pub(super) since: DateTime<Utc>,
    /// Time and type of the events that were sent, by run.
    runs: BTreeMap<String, BTreeSet<[String; 2]>>,
}

impl Sent {
    /// Nothing yet: what was over before `since` is not told.
    pub(super) fn since(since: DateTime<Utc>) -> Sent {
        Sent { since, runs: BTreeMap::new() }
    }

    /// Whether an event was sent.
    pub(super) fn has(&self, event: &Value) -> bool {
        let [run, told @ ..] = key(event);
        self.runs.get(&run).is_some_and(|sent| sent.contains(&told))
    }

    /// That it was.
    pub(super) fn add(&mut self, event: &Value) {
        let [run, told @ ..] = key(event);
        self.runs.entry(run).or_default().insert(told);
        while self.runs.len() > RUNS_MAX {
            let oldest = self.runs.iter().min_by_key(|(_, sent)| sent.last()).map(|(run, _)| run.clone());
            let Some(oldest) = oldest else { break };
            self.runs.remove(&oldest);
        }
    }

    /// That all was told that had come in by `now`.
    pub(super) fn all_by(&mut self, now: DateTime<Utc>) {
        self.since = self.since.max(now - LATE_MAX);
    }

    /// What the file says; nothing where there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(file: &Path) -> Result<Option<Sent>, Failure> {
        let wrong =
            |error: String| Failure::failed(format!("{}: {error}; without it runs are told anew", file.display()));
        match std::fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| wrong(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Puts it into the file, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, file: &Path) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("writing {}: {error}", file.display()));
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let new = NewFile::at(file)?;
        let mut writer = new.writer();
        serde_json::to_writer(&mut writer, self).map_err(std::io::Error::from).map_err(failed)?;
        writer.flush().map_err(failed)?;
        drop(writer);
        new.keep()
    }
}

/// Run, time and type.
fn key(event: &Value) -> [String; 3] {
    let of = |value: &Value| value.as_str().unwrap_or_default().to_string();
    [of(&event["run"]["runId"]), of(&event["eventTime"]), of(&event["eventType"])]
}

/// Where it is kept of what is sent to this address; None where this machine has no place for it: a lake on an object store
/// that is not there yet.
///
/// # Errors
/// The lake does not answer.
pub(super) async fn place(context: &Context, address: &str) -> Result<Option<PathBuf>, Failure> {
    if context.lake.local_path().is_none() && context.lake.existing_id().await?.is_none() {
        return Ok(None);
    }
    let log = EmbeddedLog::folder_of(&context.lake, context.config.log.state_folder.as_deref()).await?;
    let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let of: String = sha256_hex(address.as_bytes()).chars().take(16).collect();
    Ok(Some(log.with_file_name(format!("{name}-openlineage-{of}.json"))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(run: &str, time: &str, kind: &str) -> Value {
        json!({"run": {"runId": run}, "eventTime": time, "eventType": kind})
    }

    #[test]
    fn what_was_sent_is_known_to_whoever_reads_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("of/sent.json");
        assert_eq!(Sent::read(&file).unwrap(), None);
        let mut sent = Sent::since("2026-01-01T00:00:00Z".parse().unwrap());
        sent.add(&event("a", "2026-01-01T00:00:01", "START"));
        sent.all_by("2026-01-01T00:15:00Z".parse().unwrap());
        sent.write(&file).unwrap();
        let known = Sent::read(&file).unwrap().unwrap();
        assert_eq!(known, sent);
        assert_eq!(known.since.to_rfc3339(), "2026-01-01T00:05:00+00:00");
        // However long ago: a run may take days.
        assert!(known.has(&event("a", "2026-01-01T00:00:01", "START")));
        assert!(!known.has(&event("a", "2026-01-01T00:00:01", "COMPLETE")));
        assert!(!known.has(&event("b", "2026-01-01T00:00:01", "START")));
        std::fs::write(&file, "{").unwrap();
        assert!(Sent::read(&file).unwrap_err().to_string().contains("sent.json: EOF"));
    }

    #[test]
    fn the_run_that_was_told_of_longest_ago_is_forgotten_first() {
        let mut sent = Sent::since(DateTime::default());
        sent.add(&event("old", "2026-01-01T00:00:00", "START"));
        for run in 0..RUNS_MAX {
            sent.add(&event(&run.to_string(), "2026-01-01T00:00:01", "START"));
        }
        assert_eq!((sent.runs.len(), sent.runs.contains_key("old")), (RUNS_MAX, false));
    }
}

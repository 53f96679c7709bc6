//! Runs of questions by models.

use chrono::{DateTime, SubsecRound as _, Utc};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use webdancer_schemas::column::JsonText;
use webdancer_schemas::digest::hex;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::Run;

use super::SynthError;
use crate::atlasqa::events::SOURCE;

/// Hexadecimal digits of a digest in a run's id.
const RUN_DIGITS: usize = 16;

/// The run that questions belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOf {
    /// Its id.
    pub run_id: String,
    /// When it began.
    pub start: DateTime<Utc>,
}

impl RunOf {
    /// A run of `kind`, `crawlqa` or `e2hqa`. Its id is of kind and configuration: the same run again is the same run.
    pub fn derived(kind: &str, config: &Value, start: DateTime<Utc>) -> RunOf {
        let digest = hex(Sha256::digest(config.to_string()));
        let digits: String = digest.chars().take(RUN_DIGITS).collect();
        RunOf { run_id: format!("{kind}-{digits}"), start: start.trunc_subsecs(6) }
    }

    /// The event that the run entered a state at `now`: `started`, `finished`, `stopped` or `failed`, the latter two with
    /// a reason.
    ///
    /// # Errors
    /// When `config` holds what JSON has not.
    pub fn event(
        &self,
        kind: &str,
        state: &str,
        config: &Value,
        reason: Option<String>,
        now: DateTime<Utc>,
    ) -> Result<Event, SynthError> {
        let row = Run {
            kind: kind.to_string(),
            state: state.to_string(),
            config: Some(JsonText(config.clone())),
            code_version: Some(webdancer_schemas::code::version()),
            error: reason,
            ..Run::default()
        };
        let event = Event::new(SOURCE, &row).map_err(|e| SynthError::Unwritable(e.to_string()))?;
        let now = now.trunc_subsecs(6);
        let subject = format!("{}/{state}", self.run_id);
        Ok(event.with_id(EventId::derive(now, SOURCE, Kind::Run, &subject, 0)).with_run(&self.run_id).at(now))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_run_again_is_the_same_run() {
        let id = |kind: &str, seed: u64| RunOf::derived(kind, &json!({ "seed": seed }), Utc::now()).run_id;
        assert_eq!(id("crawlqa", 1), id("crawlqa", 1));
        assert_eq!(id("crawlqa", 1).len(), "crawlqa-".len() + 16);
        assert_ne!(id("crawlqa", 1), id("crawlqa", 2));
        assert_ne!(id("crawlqa", 1), id("e2hqa", 1));
    }
}

//! What is to be attempted, and the ids and seeds that follow from it.

use std::collections::{HashSet, VecDeque};

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, SubsecRound as _, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows;

use super::SOURCE;

/// Seeds are small enough for every endpoint.
const SEED_BITS: u32 = 31;

/// A question to be attempted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Its id.
    pub qa_id: String,
    /// The question.
    pub question: String,
    /// Whether it is of a gated benchmark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restricted: Option<bool>,
}

/// One attempt at a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The question.
    #[serde(flatten)]
    pub question: Question,
    /// Number of the attempt, from 0.
    pub attempt: i32,
}

impl Attempt {
    /// What tells it from the other attempts of its run.
    pub fn key(&self) -> String {
        format!("{}#{}", self.question.qa_id, self.attempt)
    }
}

/// The attempts that are not `made` yet: the first at every question, then the second, and so on, so that a budget
/// that ends early leaves no question out. Questions in the order given; one that is there twice counts once.
pub fn missing(questions: &[Question], attempts: u32, made: &HashSet<(String, i32)>) -> Vec<Attempt> {
    let mut seen = HashSet::new();
    let distinct: Vec<&Question> = questions.iter().filter(|question| seen.insert(&question.qa_id)).collect();
    let rounds = 0..i32::try_from(attempts).unwrap_or(i32::MAX);
    let all = rounds.flat_map(|attempt| distinct.iter().map(move |question| (*question, attempt)));
    all.filter(|(question, attempt)| !made.contains(&(question.qa_id.clone(), *attempt)))
        .map(|(question, attempt)| Attempt { question: question.clone(), attempt })
        .collect()
}

/// A run of sampling: what the ids and seeds of its attempts follow from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRun {
    /// Its id.
    pub id: String,
    /// When it was begun; repetitions have the same.
    pub start: DateTime<Utc>,
    /// Its seed.
    pub seed: u64,
    /// The day that models are told it is, where that is not the day of its start: a run that makes another again tells
    /// what that one told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<NaiveDate>,
    /// The run that it makes again, or that it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

impl SampleRun {
    /// A new run, begun now.
    pub fn new(seed: u64, now: DateTime<Utc>) -> SampleRun {
        SampleRun { id: Uuid::now_v7().to_string(), start: now.trunc_subsecs(6), seed, date: None, parent: None }
    }

    /// A run, begun now, whose attempts have the seeds and are told the day of this one's. `purpose` tells it from others
    /// like it: the id follows from both.
    #[must_use]
    pub fn again(&self, purpose: &str, now: DateTime<Utc>) -> SampleRun {
        SampleRun {
            id: EventId::derive(self.start, &self.id, Kind::Run, purpose, 0).to_string(),
            start: now.trunc_subsecs(6),
            seed: self.seed,
            date: Some(self.date()),
            parent: Some(self.id.clone()),
        }
    }

    /// The day that models are told it is.
    pub fn date(&self) -> NaiveDate {
        self.date.unwrap_or_else(|| self.start.date_naive())
    }

    /// The id of an attempt's trajectory, which is the id of its event too.
    pub fn trajectory_id(&self, attempt: &Attempt) -> EventId {
        let step = u64::try_from(attempt.attempt).unwrap_or(u64::MAX);
        EventId::derive(self.start, &self.id, Kind::Trajectory, &attempt.question.qa_id, step)
    }

    /// The seed of an attempt.
    pub fn seed_of(&self, attempt: &Attempt) -> i64 {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(attempt.attempt.to_be_bytes());
        hash.update(attempt.question.qa_id.as_bytes());
        let drawn = hash.finalize().iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        i64::try_from(drawn >> (64 - SEED_BITS)).unwrap_or(0)
    }

    /// The event of a new state of the run: `started`, `finished`, `failed` or `stopped`, the latter two with a reason.
    /// A run is started once, however often that is said; it may end, and go on, more than once. `config` is complete and
    /// without secrets.
    ///
    /// # Errors
    /// When `config` holds what JSON has not.
    pub fn event(
        &self,
        state: &str,
        config: Option<Value>,
        reason: Option<String>,
    ) -> Result<Event, serde_json::Error> {
        self.event_of((SOURCE, "sample"), state, config, reason)
    }

    /// The event of a new state of a run that does more than sampling: by which source, of which kind.
    ///
    /// # Errors
    /// See [`event`](Self::event).
    pub fn event_of(
        &self,
        (source, kind): (&str, &str),
        state: &str,
        config: Option<Value>,
        reason: Option<String>,
    ) -> Result<Event, serde_json::Error> {
        let row = rows::Run {
            kind: kind.to_string(),
            state: state.to_string(),
            config: config.map(JsonText),
            code_version: Some(webdancer_schemas::code::version()),
            seed: i64::try_from(self.seed).ok(),
            parent_run: self.parent.clone(),
            error: reason,
            ..rows::Run::default()
        };
        let event = Event::new(source, &row)?.with_run(&self.id);
        if state != "started" {
            return Ok(event);
        }
        Ok(event.with_id(EventId::derive(self.start, &self.id, Kind::Run, state, 0)).at(self.start))
    }
}

/// Where attempts come from.
#[async_trait]
pub trait Source: Send + Sync + std::fmt::Debug {
    /// The next attempt to make; nothing when there are no more. May be dropped while it waits.
    async fn next(&self) -> Result<Option<Claim>, SourceError>;

    /// The attempt is recorded, or given up: it is not handed out again.
    fn done(&self, claim: &Claim);

    /// How many attempts are not done, where that is known.
    fn left(&self) -> Option<u64>;
}

/// An attempt handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The attempt.
    pub attempt: Attempt,
    /// By which its source knows it.
    pub ticket: u64,
}

/// A source cannot go on; the text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Attempts of this process alone.
#[derive(Debug)]
pub struct Listed {
    waiting: Mutex<VecDeque<Attempt>>,
    /// Attempts that are not done.
    open: Mutex<u64>,
}

impl Listed {
    /// The attempts, in this order.
    pub fn new(attempts: Vec<Attempt>) -> Listed {
        Listed { open: Mutex::new(attempts.len() as u64), waiting: Mutex::new(attempts.into()) }
    }
}

#[async_trait]
impl Source for Listed {
    async fn next(&self) -> Result<Option<Claim>, SourceError> {
        Ok(self.waiting.lock().pop_front().map(|attempt| Claim { attempt, ticket: 0 }))
    }

    fn done(&self, _: &Claim) {
        let mut open = self.open.lock();
        *open = open.saturating_sub(1);
    }

    fn left(&self) -> Option<u64> {
        Some(*self.open.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: &str) -> Question {
        Question { qa_id: id.into(), question: format!("{id}?"), restricted: None }
    }

    fn attempt(id: &str, attempt: i32) -> Attempt {
        Attempt { question: question(id), attempt }
    }

    fn run() -> SampleRun {
        let start = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
        SampleRun { id: "r".into(), ..SampleRun::new(7, start) }
    }

    #[test]
    fn attempts_go_round_by_round_and_leave_out_what_is_made() {
        let made = HashSet::from([("b".to_string(), 0), ("a".to_string(), 1), ("gone".to_string(), 0)]);
        let keys = |attempts: u32| -> Vec<String> {
            let questions = [question("a"), question("b"), question("a")];
            missing(&questions, attempts, &made).iter().map(Attempt::key).collect()
        };
        assert_eq!(keys(2), ["a#0", "b#1"]);
        assert_eq!(keys(3), ["a#0", "b#1", "a#2", "b#2"]);
        assert!(keys(0).is_empty());
    }

    #[test]
    fn ids_and_seeds_follow_from_run_question_and_attempt() {
        let run = run();
        let id = run.trajectory_id(&attempt("a", 0)).to_string();
        assert!(id.starts_with("018bcfe5-6800-8"), "{id}");
        assert_eq!(id, run.trajectory_id(&attempt("a", 0)).to_string());
        let other = SampleRun { id: "s".into(), ..run.clone() };
        let ids = [
            run.trajectory_id(&attempt("a", 1)),
            run.trajectory_id(&attempt("b", 0)),
            other.trajectory_id(&attempt("a", 0)),
        ];
        assert!(ids.iter().all(|other| other.to_string() != id));
        let seeds: HashSet<i64> = (0..1000).map(|n| run.seed_of(&attempt("a", n))).collect();
        assert_eq!(seeds.len(), 1000);
        assert!(seeds.iter().all(|seed| (0..1 << 31).contains(seed)));
        assert_ne!(run.seed_of(&attempt("a", 0)), SampleRun { seed: 8, ..run.clone() }.seed_of(&attempt("a", 0)));
    }

    #[test]
    fn a_run_starts_once_and_ends_as_often_as_it_goes_on() {
        let id = |state: &str| run().event(state, None, None).unwrap().id();
        assert_eq!(id("started"), id("started"));
        assert_ne!(id("finished"), id("finished"));
        assert_ne!(id("stopped"), id("stopped"));
        let event = run().event("stopped", None, Some("the budget".into())).unwrap();
        assert_eq!(event.envelope.run_id.as_deref(), Some("r"));
        assert!(event.data.get().contains(r#""seed":7"#) && event.data.get().contains("the budget"));
    }

    #[test]
    fn a_run_made_again_has_the_seeds_and_the_day_of_the_first_and_ids_of_its_own() {
        let now = DateTime::from_timestamp_millis(1_800_000_000_000).unwrap();
        let again = run().again("again", now);
        assert_eq!((again.start, again.date(), again.parent.as_deref()), (now, run().date(), Some("r")));
        assert_eq!(again.again("twice", now).date(), run().date());
        assert_eq!(again.seed_of(&attempt("a", 1)), run().seed_of(&attempt("a", 1)));
        assert_ne!(again.trajectory_id(&attempt("a", 1)), run().trajectory_id(&attempt("a", 1)));
        assert_eq!((again.id == run().again("again", now).id, again.id == run().again("other", now).id), (true, false));
        // What earlier versions stored is read as it was.
        let stored = r#"{"id":"r","start":"2023-11-14T22:13:20Z","seed":7}"#;
        assert_eq!(serde_json::from_str::<SampleRun>(stored).unwrap(), run());
    }

    #[test]
    fn an_attempt_travels_as_json() {
        let json = serde_json::to_string(&attempt("a", 3)).unwrap();
        assert_eq!(json, r#"{"qa_id":"a","question":"a?","attempt":3}"#);
        assert_eq!(serde_json::from_str::<Attempt>(&json).unwrap(), attempt("a", 3));
    }
}

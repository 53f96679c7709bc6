//! What a trainer tells: events, one JSON line each, on standard output and in `events.ndjson` in the run's folder.
//!
//! The file is written first. A run that goes on hands out again what the file holds, and nothing else is told twice:
//! ids are derived from run, kind, subject and step ([`EventId::derive`]), so that a step that is made again has the
//! event that it had. Whoever appends them may do so twice; they show once.
//!
//! A line that was cut off when the machine or the process died is removed. So is a whole [group of events](Events::begin)
//! that was not [complete](Events::commit): nobody has heard of it.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use webdancer_schemas::event::{Envelope, Event};
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::row::{HasKind, Row};
use webdancer_schemas::rows::{Checkpoint, Judgment, Metric, Reward, Trajectory};
use webdancer_schemas::wire;

use crate::input::{InputError, read_file, write_whole};

/// The file in a run's folder.
pub const EVENTS_FILE: &str = "events.ndjson";
/// The file beside it that says how long it was before a group of events was begun, while there is one.
const BEGUN_FILE: &str = "events.begun";
/// Bytes of that.
const BEGUN_BYTES_MAX: u64 = 64;
/// CloudEvents `source` of the native trainer.
pub const SOURCE: &str = "webdancer/train";
/// Bytes of an event's line; longer ones are no trainer's. A trajectory repeats its context each turn, so a long one has
/// some megabytes.
pub const LINE_BYTES_MAX: usize = 32 << 20;

/// The run that events belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunIdentity {
    /// Its id.
    pub id: String,
    /// When it was first started: part of every event's id.
    pub started: DateTime<Utc>,
    /// Digest of the pin that it is trained on.
    pub pin_id: Option<String>,
}

impl RunIdentity {
    /// The id of a trajectory that this run makes: of the attempt at a question, the `place`-th of the run in the order in
    /// which questions are drawn, by the policy of a version.
    pub fn trajectory_id(&self, qa_id: &str, place: &str, version: u64, attempt: u64) -> EventId {
        let subject = format!("{version}/{place}/{qa_id}");
        EventId::derive(self.started, &self.id, Kind::Trajectory, &subject, attempt)
    }
}

/// Where a trainer's events go.
#[derive(Debug)]
pub struct Events<W> {
    run: RunIdentity,
    path: PathBuf,
    file: File,
    out: W,
    told: HashSet<EventId>,
    /// Where the group of events that is being told begins in the file.
    begun: Option<u64>,
}

impl<W: Write> Events<W> {
    /// Opens the events of a run and hands out what it has told before.
    ///
    /// # Errors
    /// The file cannot be read or written, holds what is no event, or is another run's; or `out` is closed.
    pub fn open(folder: &Path, run: RunIdentity, out: W) -> Result<Events<W>, InputError> {
        let path = folder.join(EVENTS_FILE);
        roll_back(folder)?;
        let opened = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = opened.map_err(|error| InputError::file(&path, error))?;
        let mut events = Events { run, path, file, out, told: HashSet::new(), begun: None };
        events.tell_again()?;
        Ok(events)
    }

    /// How many events were told, in this process and before.
    pub fn len(&self) -> usize {
        self.told.len()
    }

    /// Whether none was told.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// A number measured at a step. False: this was told before.
    ///
    /// # Errors
    /// The number is infinite or none; the file or `out` cannot be written to.
    pub fn metric(
        &mut self,
        name: &str,
        step: u64,
        value: f64,
        unit: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<bool, InputError> {
        if !value.is_finite() {
            return Err(InputError::new(format!("metric {name}, step {step}"), format!("is {value}")));
        }
        let row = Metric { name: name.to_string(), step: signed(step), value, unit: unit.map(str::to_string) };
        self.tell(&row, name, step, now)
    }

    /// A checkpoint that is complete on disk. `digest`: SHA-256 of its weights, hex.
    ///
    /// # Errors
    /// The file or `out` cannot be written to.
    pub fn checkpoint(
        &mut self,
        step: u64,
        digest: &str,
        uri: &str,
        base_model: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<bool, InputError> {
        let row = Checkpoint {
            digest: digest.to_string(),
            step: signed(step),
            uri: uri.to_string(),
            base_model: base_model.map(str::to_string),
            pin_id: self.run.pin_id.clone(),
        };
        let told = self.tell(&row, digest, step, now)?;
        // Whoever hears of a checkpoint may rely on it.
        self.sync()?;
        Ok(told)
    }

    /// Returns when all that was told is on disk in the file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&mut self) -> Result<(), InputError> {
        self.file.sync_data().map_err(|error| InputError::file(&self.path, error))
    }

    /// Begins a group of events that are told together or not at all: none is handed out before all are on disk, and one
    /// that the process died in is removed when the run goes on.
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(&mut self) -> Result<(), InputError> {
        let length = self.file.metadata().map_err(|error| InputError::file(&self.path, error))?.len();
        write_whole(&self.path.with_file_name(BEGUN_FILE), length.to_string().as_bytes())?;
        self.begun = Some(length);
        Ok(())
    }

    /// Ends the group, and hands it out.
    ///
    /// # Errors
    /// What the file system says; or `out` cannot be written to.
    pub fn commit(&mut self) -> Result<(), InputError> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        self.sync()?;
        let mark = self.path.with_file_name(BEGUN_FILE);
        std::fs::remove_file(&mark).map_err(|error| InputError::file(&mark, error))?;
        let failed = |error: std::io::Error| InputError::file(&self.path, error);
        let mut reader = BufReader::new(File::open(&self.path).map_err(failed)?);
        reader.seek(SeekFrom::Start(begun)).map_err(failed)?;
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(|error| InputError::file(&self.path, error))? == 0 {
                return Ok(());
            }
            self.hand_out(&line)?;
        }
    }

    /// A trajectory: its id, which [`RunIdentity::trajectory_id`] gave it, is the event's too. One that is longer than a
    /// line may be is told without its token ids.
    ///
    /// # Errors
    /// The file or `out` cannot be written to.
    pub fn trajectory(&mut self, row: &Trajectory, now: DateTime<Utc>) -> Result<bool, InputError> {
        let (id, _) = EventId::from_producer(SOURCE, &row.trajectory_id);
        let parents =
            self.run.pin_id.iter().chain([&row.qa_id]).filter(|id| !id.is_empty()).cloned().collect::<Vec<_>>();
        let line = self.line(id, row, parents.clone(), now)?;
        if line.len() <= LINE_BYTES_MAX {
            return self.tell_line(id, &line);
        }
        let short = Trajectory {
            turn_context_token_ids: None,
            turn_completion_token_ids: None,
            turn_log_probs: None,
            ..row.clone()
        };
        let line = self.line(id, &short, parents, now)?;
        self.tell_line(id, &line)
    }

    /// What the judge said of a trajectory's answer.
    ///
    /// # Errors
    /// The file or `out` cannot be written to.
    pub fn judgment(&mut self, row: &Judgment, now: DateTime<Utc>) -> Result<bool, InputError> {
        self.tell_of(&row.trajectory_id, row, now)
    }

    /// The reward of a trajectory.
    ///
    /// # Errors
    /// The file or `out` cannot be written to.
    pub fn reward(&mut self, row: &Reward, now: DateTime<Utc>) -> Result<bool, InputError> {
        self.tell_of(&row.trajectory_id, row, now)
    }

    /// The id of the judgment of a trajectory of this run.
    pub fn judgment_id(&self, trajectory_id: &str) -> EventId {
        EventId::derive(self.run.started, &self.run.id, Kind::Judgment, trajectory_id, 0)
    }

    /// What is said of a trajectory once.
    fn tell_of<R: HasKind>(&mut self, trajectory_id: &str, row: &R, now: DateTime<Utc>) -> Result<bool, InputError> {
        let id = EventId::derive(self.run.started, &self.run.id, R::KIND, trajectory_id, 0);
        let parents = self.run.pin_id.iter().cloned().chain([trajectory_id.to_string()]).collect();
        let line = self.line(id, row, parents, now)?;
        self.tell_line(id, &line)
    }

    fn tell<R: HasKind>(&mut self, row: &R, subject: &str, step: u64, now: DateTime<Utc>) -> Result<bool, InputError> {
        let id = EventId::derive(self.run.started, &self.run.id, R::KIND, subject, step);
        let line = self.line(id, row, self.run.pin_id.iter().cloned().collect(), now)?;
        self.tell_line(id, &line)
    }

    fn line<R: HasKind>(
        &self,
        id: EventId,
        row: &R,
        parents: Vec<String>,
        now: DateTime<Utc>,
    ) -> Result<Vec<u8>, InputError> {
        let event = Event::new(SOURCE, row).map_err(|error| InputError::file(&self.path, error))?;
        let event = event.with_id(id).with_run(&self.run.id).with_parents(parents).at(now);
        let mut line = wire::structured(&event);
        line.push(b'\n');
        Ok(line)
    }

    fn tell_line(&mut self, id: EventId, line: &[u8]) -> Result<bool, InputError> {
        if !self.told.insert(id) {
            return Ok(false);
        }
        self.file.write_all(line).map_err(|error| InputError::file(&self.path, error))?;
        if self.begun.is_none() {
            self.hand_out(line)?;
        }
        Ok(true)
    }

    fn hand_out(&mut self, line: &[u8]) -> Result<(), InputError> {
        let written = self.out.write_all(line).and_then(|()| self.out.flush());
        written.map_err(|error| InputError::new("standard output", format!("nobody takes the events: {error}")))
    }

    /// Hands out the lines of the file, and cuts off the last if it is torn.
    fn tell_again(&mut self) -> Result<(), InputError> {
        let path = self.path.clone();
        let fault = |reason: String| InputError::file(&path, reason);
        let failed = |error: std::io::Error| InputError::file(&path, error);
        let mut reader = BufReader::new(self.file.try_clone().map_err(failed)?);
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let (mut line, mut whole, mut number) = (Vec::new(), 0, 0);
        loop {
            line.clear();
            let limit = LINE_BYTES_MAX as u64 + 1;
            let read = std::io::Read::take(&mut reader, limit).read_until(b'\n', &mut line).map_err(failed)?;
            number += 1;
            if read == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                if read > LINE_BYTES_MAX {
                    return Err(fault(format!("line {number} has more than {LINE_BYTES_MAX} bytes")));
                }
                return self.file.set_len(whole).map_err(failed);
            }
            whole += read as u64;
            let event = read_line(&line, &self.run.id).map_err(|reason| fault(format!("line {number}: {reason}")))?;
            self.told.insert(event.id());
            self.hand_out(&line)?;
        }
    }
}

/// Removes the group of events that a process died in, if there is one. What reads `events.ndjson` of a run that is to go
/// on calls this before.
///
/// # Errors
/// What the file system says.
pub(crate) fn roll_back(folder: &Path) -> Result<(), InputError> {
    let (mark, path) = (folder.join(BEGUN_FILE), folder.join(EVENTS_FILE));
    if !mark.exists() {
        return Ok(());
    }
    let text = read_file(&mark, BEGUN_BYTES_MAX)?;
    let begun = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let begun = begun.ok_or_else(|| InputError::file(&mark, "is damaged: it holds no number"))?;
    let failed = |error: std::io::Error| InputError::file(&path, error);
    let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() > begun {
        file.set_len(begun).and_then(|()| file.sync_all()).map_err(failed)?;
    }
    std::fs::remove_file(&mark).map_err(|error| InputError::file(&mark, error))
}

/// The event in a line that a trainer of `run_id` told; or what is wrong with it.
///
/// # Errors
/// It is no event, one of another run or of a kind that trainers do not tell, or its row is not of its kind.
pub fn read_line(line: &[u8], run_id: &str) -> Result<Event, String> {
    let (envelope, data) = wire::parse_structured(line).map_err(|rejection| format!("is no event: {rejection}"))?;
    if envelope.run_id.as_deref() != Some(run_id) {
        return Err(format!("is an event of another run than {run_id}"));
    }
    let subject = match envelope.kind {
        Kind::Metric => subject_of::<Metric>(data),
        Kind::Checkpoint => subject_of::<Checkpoint>(data),
        Kind::Trajectory => subject_of::<Trajectory>(data),
        Kind::Reward => subject_of::<Reward>(data),
        Kind::Judgment => subject_of::<Judgment>(data),
        other => Err(format!("is an event of kind {}, which is not a trainer's to tell", other.name())),
    }?;
    let subject = envelope.subject.clone().or(Some(subject));
    Ok(Event { envelope: Envelope { subject, ..envelope }, data: data.to_owned() })
}

fn subject_of<R: Row>(data: &RawValue) -> Result<String, String> {
    serde_json::from_str::<R>(data.get()).map(|row| row.subject()).map_err(|error| format!("data: {error}"))
}

fn signed(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunIdentity {
        let started = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
        RunIdentity { id: "r1".to_string(), started, pin_id: Some("p1".to_string()) }
    }

    fn open(folder: &Path, out: &mut Vec<u8>) -> Result<usize, InputError> {
        Events::open(folder, run(), out).map(|events| events.len())
    }

    #[test]
    fn an_event_is_on_disk_and_on_standard_output_and_in_its_derived_id() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        let mut events = Events::open(folder.path(), run(), &mut out).unwrap();
        assert!(events.metric("loss", 3, 0.5, None, run().started).unwrap());
        assert!(!events.metric("loss", 3, 0.6, None, run().started).unwrap(), "the same step is told once");
        assert!(events.checkpoint(4, "d", "file:///c", None, run().started).unwrap());
        drop(events);
        assert_eq!(std::fs::read(folder.path().join(EVENTS_FILE)).unwrap(), out);
        let lines: Vec<&[u8]> = out.split_inclusive(|&byte| byte == b'\n').collect();
        let (envelope, data) = wire::parse_structured(lines[0]).unwrap();
        assert_eq!(envelope.id, EventId::derive(run().started, "r1", Kind::Metric, "loss", 3));
        assert_eq!((envelope.run_id.as_deref(), envelope.parents), (Some("r1"), vec!["p1".to_string()]));
        assert_eq!(data.get(), r#"{"name":"loss","step":3,"value":0.5,"unit":null}"#);
        let (envelope, data) = wire::parse_structured(lines[1]).unwrap();
        assert_eq!((envelope.kind, lines.len()), (Kind::Checkpoint, 2));
        assert_eq!(data.get(), r#"{"digest":"d","step":4,"uri":"file:///c","base_model":null,"pin_id":"p1"}"#);
    }

    #[test]
    fn a_run_that_goes_on_hands_out_what_it_told_and_tells_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let mut before = Vec::new();
        let mut events = Events::open(folder.path(), run(), &mut before).unwrap();
        events.metric("loss", 1, 0.5, None, run().started).unwrap();
        events.metric("loss", 2, 0.4, None, run().started).unwrap();
        drop(events);
        let mut after = Vec::new();
        let mut events = Events::open(folder.path(), run(), &mut after).unwrap();
        assert!(!events.metric("loss", 2, 0.4, None, Utc::now()).unwrap());
        assert!(events.metric("loss", 3, 0.3, None, Utc::now()).unwrap());
        drop(events);
        assert!(after.starts_with(&before));
        assert_eq!(after.iter().filter(|&&byte| byte == b'\n').count(), 3);
        assert_eq!(std::fs::read(folder.path().join(EVENTS_FILE)).unwrap(), after);
    }

    #[test]
    fn a_torn_last_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let mut whole = Vec::new();
        let mut events = Events::open(folder.path(), run(), &mut whole).unwrap();
        events.metric("loss", 1, 0.5, None, run().started).unwrap();
        events.metric("loss", 2, 0.4, None, run().started).unwrap();
        drop(events);
        let path = folder.path().join(EVENTS_FILE);
        let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for cut in [first + 1, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut out = Vec::new();
            assert_eq!(open(folder.path(), &mut out).unwrap(), 1);
            assert_eq!((out, std::fs::read(&path).unwrap()), (whole[..first].to_vec(), whole[..first].to_vec()));
        }
    }

    #[test]
    fn a_group_of_events_is_told_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS_FILE);
        let mut out = Vec::new();
        let mut events = Events::open(folder.path(), run(), &mut out).unwrap();
        events.metric("loss", 1, 0.5, None, run().started).unwrap();
        events.begin().unwrap();
        events.metric("loss", 2, 0.4, None, run().started).unwrap();
        // The process dies here.
        drop(events);
        let heard = out.iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!((heard, std::fs::read(&path).unwrap().starts_with(&out)), (1, true));
        assert!(std::fs::read(&path).unwrap().len() > out.len());

        let mut again = Vec::new();
        let mut events = Events::open(folder.path(), run(), &mut again).unwrap();
        assert_eq!(events.len(), 1);
        events.begin().unwrap();
        assert!(events.metric("loss", 2, 0.3, None, run().started).unwrap(), "nobody has heard of it");
        assert!(events.metric("loss", 3, 0.2, None, run().started).unwrap());
        events.commit().unwrap();
        assert!(events.metric("loss", 4, 0.1, None, run().started).unwrap());
        drop(events);
        assert_eq!(std::fs::read(&path).unwrap(), again);
        assert!(again.starts_with(&out) && again.iter().filter(|&&byte| byte == b'\n').count() == 4);
        assert!(!folder.path().join(BEGUN_FILE).exists());
    }

    #[test]
    fn a_file_that_is_not_this_runs_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS_FILE);
        std::fs::write(&path, "{}\n").unwrap();
        let error = open(folder.path(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("events.ndjson: line 1: is no event: "), "{error}");
        std::fs::remove_file(&path).unwrap();
        let other = RunIdentity { id: "r2".to_string(), ..run() };
        Events::open(folder.path(), other, Vec::new()).unwrap().metric("loss", 1, 0.5, None, run().started).unwrap();
        let error = open(folder.path(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.ends_with("line 1: is an event of another run than r1"), "{error}");
    }

    #[test]
    fn a_line_that_is_not_a_trainers_is_named() {
        let line = |kind: &str, run: &str, data: &str| {
            format!(
                r#"{{"specversion":"1.0","id":"x","source":"s","type":"webdancer.{kind}.v1","runid":"{run}","data":{data}}}"#
            )
        };
        let read = |line: String| read_line(line.as_bytes(), "r1").map(|event| event.envelope.subject);
        let metric = r#"{"name":"loss","step":1,"value":2}"#;
        assert_eq!(read(line("metric", "r1", metric)), Ok(Some("loss".to_string())));
        assert_eq!(read(line("metric", "r2", metric)), Err("is an event of another run than r1".to_string()));
        let lacking = read(line("metric", "r1", r#"{"name":"loss","step":1}"#)).unwrap_err();
        assert!(lacking.starts_with("data: missing field `value`"), "{lacking}");
        let other = read(line("page", "r1", "{}")).unwrap_err();
        assert_eq!(other, "is an event of kind page, which is not a trainer's to tell");
        assert!(read("step 1".to_string()).unwrap_err().starts_with("is no event: not one JSON object"));
    }

    #[test]
    fn a_number_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::open(folder.path(), run(), Vec::new()).unwrap();
        let error = events.metric("loss", 7, f64::NAN, None, Utc::now()).unwrap_err();
        assert_eq!(error.to_string(), "metric loss, step 7: is NaN");
        assert!(events.is_empty());
    }
}

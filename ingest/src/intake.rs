//! NDJSON into the log: one CloudEvent in its structured form a line, from any language.

use std::io::{BufRead, Read as _};

use chrono::{SubsecRound as _, Utc};
use tokio::sync::mpsc;
use webdancer_schemas::event::{Event, Rejection};
use webdancer_schemas::id::EventId;
use webdancer_schemas::log::EventLog;
use webdancer_schemas::wire::{STRUCTURED, key_in_data, parse_structured, size};

use crate::dead_letter::{Origin, of_bytes};
use crate::error::{IngestError, Result};

/// Settings of the intake.
#[derive(Debug, Clone)]
pub struct IntakeOptions {
    /// Largest event, in bytes of its line and in the log.
    pub max_event_bytes: usize,
    /// What is kept of a longer line.
    pub max_kept_bytes: usize,
    /// Events offered to the log at once, at most.
    pub batch_events: usize,
    /// Bytes of lines offered to the log at once, about.
    pub batch_bytes: usize,
}

impl Default for IntakeOptions {
    fn default() -> IntakeOptions {
        IntakeOptions { max_event_bytes: 16 << 20, max_kept_bytes: 64 << 20, batch_events: 1000, batch_bytes: 1 << 20 }
    }
}

/// Lines that are no events and are told one by one; all of them are dead letters.
const MAX_WARNINGS: u64 = 10;

/// What became of the lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct IntakeReport {
    /// Events acknowledged.
    pub acknowledged: u64,
    /// Lines that are no event, acknowledged as dead letters.
    pub rejected: u64,
}

/// A line as read.
struct Line {
    number: i64,
    bytes: Vec<u8>,
    /// Length on the wire: more than `bytes` where the line was cut.
    total_bytes: u64,
}

/// Appends every line of `input`; `acknowledged` hears of each event as soon as it is durable, in order.
///
/// Empty lines are passed over. A line that is no event is appended as a dead letter; the rest goes on.
///
/// # Errors
/// When the input cannot be read, or the log does not take the events: what was acknowledged until then is durable, and
/// offering the same input again doubles nothing as long as the events carry ids.
pub async fn append_lines(
    log: &dyn EventLog,
    input: impl std::io::Read + Send + 'static,
    name: &str,
    options: &IntakeOptions,
    mut acknowledged: impl FnMut(EventId),
) -> Result<IntakeReport> {
    let (sender, mut lines) = mpsc::channel::<std::io::Result<Line>>(4096);
    let keep = options.max_kept_bytes as u64;
    // Standard input blocks: it is read on a thread of its own.
    let reader = std::thread::Builder::new().name("intake".to_string()).spawn(move || read_lines(input, keep, &sender));
    reader.map_err(|source| IngestError::Io { what: "starting the intake thread".to_string(), source })?;
    let mut report = IntakeReport::default();
    let mut warnings = 0;
    while let Some(first) = lines.recv().await {
        let mut batch = vec![first];
        let mut bytes = 0;
        while batch.len() < options.batch_events && bytes < options.batch_bytes {
            let Ok(next) = lines.try_recv() else { break };
            bytes += next.as_ref().map_or(0, |line| line.bytes.len());
            batch.push(next);
        }
        let mut events = Vec::with_capacity(batch.len());
        let mut ids = Vec::with_capacity(batch.len());
        for line in batch {
            let line = line.map_err(|source| IngestError::Io { what: format!("reading {name}"), source })?;
            match event_of(&line, options.max_event_bytes) {
                Ok(event) => {
                    ids.push(Some(event.id()));
                    events.push(event);
                }
                Err(rejection) => {
                    warnings += 1;
                    if warnings <= MAX_WARNINGS {
                        tracing::warn!(input = name, line = line.number, %rejection, "not an event; kept as a dead letter");
                    }
                    ids.push(None);
                    events.push(dead_letter(&line, &rejection, name)?);
                }
            }
        }
        log.append(events).await.map_err(|e| IngestError::Unavailable(e.to_string()))?;
        for id in ids {
            match id {
                Some(id) => {
                    report.acknowledged += 1;
                    acknowledged(id);
                }
                None => report.rejected += 1,
            }
        }
    }
    Ok(report)
}

fn dead_letter(line: &Line, rejection: &Rejection, name: &str) -> Result<Event> {
    let origin = Origin { uri: name, line: line.number };
    of_bytes(&line.bytes, line.total_bytes as i64, STRUCTURED, rejection, origin)
        .map_err(|e| IngestError::Fatal(format!("dead letter of line {}: {e}", line.number)))
}

/// The event of a line, with the attributes that a producer may leave out.
fn event_of(line: &Line, max_event_bytes: usize) -> Result<Event, Rejection> {
    let within_limit = |bytes: u64| {
        let why = || format!("{bytes} bytes, more than the {max_event_bytes} that log.max_event_bytes allows");
        if bytes > max_event_bytes as u64 { Err(Rejection::new(why())) } else { Ok(()) }
    };
    within_limit(line.total_bytes)?;
    let (mut envelope, data) = parse_structured(&line.bytes)?;
    envelope.time.get_or_insert_with(|| Utc::now().trunc_subsecs(6));
    if envelope.subject.is_none() {
        envelope.subject = key_in_data(envelope.kind, data);
    }
    let event = Event { envelope, data: data.to_owned() };
    // With what its producer left out it may be larger than its line, and the log would refuse its whole batch.
    within_limit(size(&event) as u64)?;
    Ok(event)
}

fn read_lines(input: impl std::io::Read, keep: u64, sender: &mpsc::Sender<std::io::Result<Line>>) {
    let mut input = std::io::BufReader::with_capacity(1 << 18, input);
    let mut number = 0;
    loop {
        number += 1;
        match read_line(&mut input, keep) {
            Ok(Some((bytes, _))) if bytes.iter().all(u8::is_ascii_whitespace) => {}
            Ok(Some((bytes, total_bytes))) => {
                if sender.blocking_send(Ok(Line { number, bytes, total_bytes })).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                // Nobody listens any more if this fails.
                let _ = sender.blocking_send(Err(error));
                return;
            }
        }
    }
}

/// One line without its end, at most `keep` bytes of it, and its length; None at the end of the input.
pub(crate) fn read_line(input: &mut impl BufRead, keep: u64) -> std::io::Result<Option<(Vec<u8>, u64)>> {
    let mut bytes = Vec::new();
    let read = input.by_ref().take(keep.saturating_add(1)).read_until(b'\n', &mut bytes)? as u64;
    if read == 0 {
        return Ok(None);
    }
    let mut total = read;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        total -= 1;
    } else if read > keep {
        bytes.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        loop {
            let available = input.fill_buf()?;
            let Some(end) = available.iter().position(|byte| *byte == b'\n') else {
                let length = available.len();
                if length == 0 {
                    break;
                }
                total += length as u64;
                input.consume(length);
                continue;
            };
            total += end as u64;
            input.consume(end + 1);
            break;
        }
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
        total -= 1;
    }
    Ok(Some((bytes, total)))
}

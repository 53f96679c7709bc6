//! `webdancer import`

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use webdancer_agent::profile::Profile;
use webdancer_agent::published::{Importer, LineOf, line_event_id};
use webdancer_ingest::dead_letter::{Origin, of_bytes};
use webdancer_schemas::digest::sha256_hex;
use webdancer_schemas::event::{Event, Rejection};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::EventLog;

use crate::args::ImportCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Events offered to the log at once.
const BATCH_EVENTS: usize = 256;
/// Malformed lines told one by one; all of them are dead letters.
const MAX_WARNINGS: u64 = 10;
/// Decompressed bytes of a file, at most.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// What became of a file's lines.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(crate) struct ImportReport {
    pub(crate) lines: u64,
    pub(crate) events: u64,
    pub(crate) rejected: u64,
}

pub(crate) async fn run(context: &Context, command: &ImportCommand) -> Result<(), Failure> {
    let (file, what) = match command {
        ImportCommand::Trajectories { file } => (file, Kind::Trajectory),
        ImportCommand::Qa { file } => (file, Kind::Qa),
        ImportCommand::Profile { file, name, output } => {
            return import_profile(context, file, name, output.as_deref()).await;
        }
    };
    let log = context.event_log().await?;
    let report = import(log, file, what, context.quiet).await?;
    if context.json {
        output::json(&report)?;
    } else {
        output::line(&format!("{} lines, {} events acknowledged", report.lines, report.events))?;
    }
    if report.rejected == 0 {
        return Ok(());
    }
    let told = format!(
        "{} of {} lines of {} are malformed; `webdancer dead-letters list` names line and cause",
        report.rejected,
        report.lines,
        file.display()
    );
    // Nothing is no part.
    Err(if report.rejected == report.lines { Failure::failed(told) } else { Failure::partly(told) })
}

/// Takes the prompt profile out of a file of trajectories, into the lake or into a file.
async fn import_profile(context: &Context, file: &Path, name: &str, to: Option<&Path>) -> Result<(), Failure> {
    let content = read(file)?;
    check_kind(file, &content, LineOf::Trajectories)?;
    let profile = Profile::from_published(name, content.split(|byte| *byte == b'\n'))
        .map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    let document = profile.to_json();
    let place = match to {
        Some(path) => {
            std::fs::write(path, document).map_err(|e| Failure::usage(format!("writing {}: {e}", path.display())))?;
            path.display().to_string()
        }
        None => {
            context.lake.put_profile(name, document.into()).await?;
            format!("{}profiles/{name}.json", context.lake.uri())
        }
    };
    if context.json {
        let digest = profile.digest();
        return output::json(&serde_json::json!({"name": name, "id": profile.id(), "digest": digest, "uri": place}));
    }
    output::line(&format!("profile {}: {place}", profile.id()))
}

/// Refuses a file that is plainly of another kind, by its first line or its first bytes: better than a dead letter for
/// each line.
fn check_kind(file: &Path, content: &[u8], expected: LineOf) -> Result<(), Failure> {
    let first = content.split(|byte| *byte == b'\n').find(|line| !line.iter().all(u8::is_ascii_whitespace));
    let found = match first.and_then(LineOf::look) {
        Some(found) if found == expected => return Ok(()),
        Some(LineOf::Trajectories) => {
            "a file of trajectories: its lines have messages; `webdancer import trajectories` takes it"
        }
        Some(LineOf::Questions) => {
            "a file of questions: its lines have a question and an answer; `webdancer import qa` takes it"
        }
        Some(LineOf::Events) => "a file of events: its lines have a specversion; `webdancer append` takes it",
        None => match content {
            [b'P', b'A', b'R', b'1', ..] => "a Parquet file; what is imported has one JSON object a line",
            [b'P', b'K', 3, 4, ..] => "a ZIP archive; unpack it first",
            [b'[', ..] => "one JSON array; what is imported has one JSON object a line",
            [b'<', ..] => "HTML or XML; what is imported has one JSON object a line",
            _ if std::str::from_utf8(content).is_ok_and(|text| Profile::from_json(text).is_ok()) => {
                "a prompt profile; `webdancer sample --profile` takes it as it is"
            }
            _ => return Ok(()),
        },
    };
    Err(Failure::usage(format!("{} looks like {found}", file.display())))
}

/// Imports the lines of `file` as events of `what`: trajectories (with their questions) or questions.
pub(crate) async fn import(
    log: Arc<dyn EventLog>,
    file: &Path,
    what: Kind,
    quiet: bool,
) -> Result<ImportReport, Failure> {
    let content = read(file)?;
    check_kind(file, &content, if what == Kind::Trajectory { LineOf::Trajectories } else { LineOf::Questions })?;
    let modified = std::fs::metadata(file).and_then(|m| m.modified()).map_or_else(|_| Utc::now(), DateTime::from);
    let digest = sha256_hex(&content);
    let uri = file.display().to_string();
    let mut importer = Importer::new(&digest, modified);
    let mut report = ImportReport::default();
    let bar = output::bar(content.iter().filter(|byte| **byte == b'\n').count() as u64, quiet);
    let mut events: Vec<Event> = Vec::new();
    for (line, number) in content.split(|byte| *byte == b'\n').zip(1u64..) {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        report.lines += 1;
        let made = if what == Kind::Trajectory {
            importer.trajectory(number, line).map(Vec::from)
        } else {
            importer.qa(line).map(|event| vec![event])
        };
        match made {
            Ok(made) => events.extend(made),
            Err(rejection) => {
                report.rejected += 1;
                if report.rejected <= MAX_WARNINGS {
                    tracing::warn!(file = uri, line = number, %rejection, "malformed; kept as a dead letter");
                }
                events.push(dead_letter(line, number, &rejection, &uri, &digest)?);
            }
        }
        if events.len() >= BATCH_EVENTS {
            report.events += events.len() as u64;
            log.append(std::mem::take(&mut events)).await?;
            bar.set_position(number);
        }
    }
    report.events += events.len() as u64;
    log.append(events).await?;
    report.events -= report.rejected;
    bar.finish_and_clear();
    Ok(report)
}

fn dead_letter(line: &[u8], number: u64, rejection: &Rejection, uri: &str, digest: &str) -> Result<Event, Failure> {
    let origin = Origin { uri, line: number as i64 };
    let event = of_bytes(line, line.len() as i64, "application/jsonl", rejection, origin)
        .map_err(|e| Failure::failed(format!("dead letter of {uri} line {number}: {e}")))?;
    Ok(event.with_id(line_event_id(Kind::DeadLetter, digest, number)))
}

/// The file, decompressed if it is gzip.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |e: std::io::Error| Failure::usage(format!("reading {}: {e}", file.display()));
    let packed = std::fs::read(file).map_err(failed)?;
    if !packed.starts_with(&[0x1f, 0x8b]) {
        return Ok(packed);
    }
    let mut content = Vec::new();
    flate2::read::MultiGzDecoder::new(packed.as_slice())
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(Failure::usage(format!("{} has more than {MAX_FILE_BYTES} bytes decompressed", file.display())));
    }
    Ok(content)
}

//! `webdancer dead-letters`

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use chrono::{DateTime, SubsecRound as _, Utc};
use futures::TryStreamExt as _;
use serde_json::json;
use webdancer_ingest::dead_letter::{replayed, revive};
use webdancer_query::output::{Format, TableOptions};
use webdancer_query::{QueryEngine, QueryOptions};
use webdancer_schemas::event::{Event, Rejection};
use webdancer_schemas::rows::DeadLetter;
use webdancer_schemas::wire::size;

use crate::args::DeadLettersCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Letters that were not brought back yet.
const OPEN: &str = "state = 'rejected' AND event_id NOT IN \
    (SELECT parents[1] FROM dead_letters WHERE state = 'replayed' AND parents[1] IS NOT NULL)";

/// Letters decoded at once: one may be as large as the largest event.
const BATCH: usize = 64;

pub(crate) async fn run(context: &Context, command: &DeadLettersCommand) -> Result<(), Failure> {
    context.drain_embedded().await?;
    let engine = context.engine()?;
    match command {
        DeadLettersCommand::List { limit } => {
            let sql = format!(
                "SELECT event_id, event_time, field, reason, kind, \
                   coalesce(source_uri || ':' || source_line, \
                     origin_topic || '/' || origin_partition || '@' || origin_offset) AS origin \
                 FROM dead_letters WHERE {OPEN} ORDER BY event_time DESC, event_id DESC LIMIT {limit}"
            );
            let format = if context.json { Format::Json } else { Format::Table };
            // Most have no field, many no kind: empty cells are easier to read than many times `null`.
            let table = TableOptions { null: "", ..TableOptions::default() };
            let (options, out) = (QueryOptions::default(), std::io::stdout());
            let answer = super::sql::answer_with(&engine, &sql, &options, format, out, table).await?;
            if !answer.reader_gone {
                let all = count(&engine).await?;
                output::note(&match answer.rows {
                    rows if rows < all => format!("{rows} of {all} dead letters; --limit shows more"),
                    rows => format!("{rows} dead letters"),
                });
            }
            Ok(())
        }
        DeadLettersCommand::Show { id } => {
            let letters = read(&engine, &format!("event_id = '{}'", quoted(id)?)).await?;
            let letter = letters.first().ok_or_else(|| Failure::failed(format!("there is no dead letter {id}")))?;
            let text = String::from_utf8_lossy(&letter.row.raw.0);
            if context.json {
                return output::json(&json!({"event_id": letter.id, "row": letter.row, "text": text}));
            }
            output::line(&format!("reason  {}", letter.row.reason))?;
            output::line(&format!("field   {}", letter.row.field.as_deref().unwrap_or("–")))?;
            output::line(&format!("kind    {}", letter.row.kind.as_deref().unwrap_or("–")))?;
            output::line(&format!("origin  {}", letter.origin()))?;
            output::line(&format!("bytes   {} of {}", letter.row.raw.0.len(), letter.row.raw_bytes))?;
            // Control characters could drive the terminal.
            let shown: String =
                text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
            output::line(&shown)
        }
        DeadLettersCommand::Replay { ids } => replay(context, &engine, ids).await,
    }
}

async fn replay(context: &Context, engine: &QueryEngine, ids: &[String]) -> Result<(), Failure> {
    let mut open = OPEN.to_string();
    if !ids.is_empty() {
        let list = ids.iter().map(|id| Ok(format!("'{}'", quoted(id)?))).collect::<Result<Vec<_>, Failure>>()?;
        open = format!("{open} AND event_id IN ({})", list.join(", "));
    }
    let log = context.event_log().await?;
    let now = Utc::now().trunc_subsecs(6);
    let (mut back, mut still) = (0u64, 0u64);
    let mut after = String::new();
    loop {
        let letters = read(engine, &format!("{open} AND event_id > '{after}' ORDER BY event_id LIMIT {BATCH}")).await?;
        let Some(last) = letters.last() else { break };
        after.clone_from(&last.id);
        let mut events = Vec::new();
        for letter in &letters {
            let attributes = letter.row.attributes.as_ref().map(|json| json.0.to_string());
            let revived = revive(&letter.row.content_type, &letter.row.raw.0, attributes.as_deref(), letter.time);
            // One that the log would refuse must not hold up the others.
            match revived.and_then(|event| within_limit(event, context.config.log.max_event_bytes)) {
                Ok(event) => {
                    let note = replayed(&letter.row, &letter.id, now)
                        .map_err(|e| Failure::failed(format!("dead letter {}: {e}", letter.id)))?;
                    events.extend([event, note]);
                    back += 1;
                }
                Err(rejection) => {
                    still += 1;
                    tracing::info!(dead_letter = letter.id, %rejection, "still rejected");
                }
            }
        }
        log.append(events).await?;
    }
    context.drain_embedded().await?;
    if context.json {
        output::json(&json!({"replayed": back, "still_rejected": still}))?;
    } else {
        output::line(&format!("{back} replayed, {still} still rejected"))?;
    }
    if still > 0 {
        return Err(Failure::partly(format!(
            "{back} dead letters came back as events, {still} remain: today's schema and limits do not take them either; `-v` says why"
        )));
    }
    Ok(())
}

fn within_limit(event: Event, limit: usize) -> Result<Event, Rejection> {
    match size(&event) {
        bytes if bytes > limit => {
            Err(Rejection::new(format!("{bytes} bytes, more than the {limit} that log.max_event_bytes allows")))
        }
        _ => Ok(event),
    }
}

/// A dead letter with its event's id and time.
struct Letter {
    id: String,
    time: DateTime<Utc>,
    row: DeadLetter,
}

impl Letter {
    /// File and line, or the position in the log.
    fn origin(&self) -> String {
        let row = &self.row;
        match (&row.source_uri, row.source_line, &row.origin_topic, row.origin_partition, row.origin_offset) {
            (Some(uri), Some(line), ..) => format!("{uri}:{line}"),
            (_, _, Some(topic), Some(partition), Some(offset)) => format!("{topic}/{partition}@{offset}"),
            _ => "–".to_string(),
        }
    }
}

/// How many letters were not brought back yet.
async fn count(engine: &QueryEngine) -> Result<u64, Failure> {
    let sql = format!("SELECT count(*) FROM dead_letters WHERE {OPEN}");
    let batches: Vec<RecordBatch> = engine.query(&sql, &QueryOptions::default()).await?.try_collect().await?;
    let counts = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().iter());
    Ok(counts.map(|count| u64::try_from(*count).unwrap_or(0)).sum())
}

async fn read(engine: &QueryEngine, condition: &str) -> Result<Vec<Letter>, Failure> {
    let sql = format!(
        "SELECT event_id, event_time, raw, raw_sha256, raw_bytes, content_type, reason, field, kind, attributes, \
           origin_topic, origin_partition, origin_offset, source_uri, source_line, state \
         FROM dead_letters WHERE {condition}"
    );
    let result = engine.query(&sql, &QueryOptions::default()).await?;
    let batches: Vec<RecordBatch> = result.try_collect().await?;
    let mut letters = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            letters.push(letter(batch, row)?);
        }
    }
    Ok(letters)
}

fn letter(batch: &RecordBatch, row: usize) -> Result<Letter, Failure> {
    let column = |name: &str, data_type: &DataType| {
        let column =
            batch.column_by_name(name).ok_or_else(|| Failure::failed(format!("dead_letters has no {name}")))?;
        arrow::compute::cast(column, data_type).map_err(|e| Failure::failed(format!("dead_letters.{name}: {e}")))
    };
    let text = |name: &str| {
        let column = column(name, &DataType::Utf8)?;
        let column = column.as_string::<i32>();
        Ok::<_, Failure>(column.is_valid(row).then(|| column.value(row).to_string()))
    };
    let integer = |name: &str| {
        let column = column(name, &DataType::Int64)?;
        let column = column.as_primitive::<Int64Type>();
        Ok::<_, Failure>(column.is_valid(row).then(|| column.value(row)))
    };
    let required = |name: &str| Ok::<_, Failure>(text(name)?.unwrap_or_default());
    let micros = batch
        .column_by_name("event_time")
        .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
        .map_or(0, |column| column.value(row));
    let attributes = text("attributes")?.and_then(|text| serde_json::from_str(&text).ok());
    Ok(Letter {
        id: required("event_id")?,
        time: DateTime::from_timestamp_micros(micros).unwrap_or_default(),
        row: DeadLetter {
            raw_sha256: required("raw_sha256")?,
            raw: webdancer_schemas::column::Base64(
                column("raw", &DataType::Binary)?.as_binary::<i32>().value(row).to_vec(),
            ),
            raw_bytes: integer("raw_bytes")?.unwrap_or(0),
            content_type: required("content_type")?,
            reason: required("reason")?,
            field: text("field")?,
            kind: text("kind")?,
            attributes: attributes.map(webdancer_schemas::column::JsonText),
            origin_topic: text("origin_topic")?,
            origin_partition: integer("origin_partition")?.and_then(|n| i32::try_from(n).ok()),
            origin_offset: integer("origin_offset")?,
            source_uri: text("source_uri")?,
            source_line: integer("source_line")?,
            state: required("state")?,
        },
    })
}

/// An event id as it may stand in SQL.
fn quoted(id: &str) -> Result<&str, Failure> {
    let valid = id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if valid {
        Ok(id)
    } else {
        Err(Failure::usage(format!("{id:?} is no event id; `webdancer dead-letters list` shows them")))
    }
}

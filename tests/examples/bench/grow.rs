//! A table that grows: what a commit and what opening the table costs at each size.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use chrono::Utc;
use serde_json::{Value, json};
use webdancer_ingest::decode::{Decoder, Position};
use webdancer_ingest::source::TopicPartition;
use webdancer_lake::append::Part;
use webdancer_lake::{Lake, LakeOptions};
use webdancer_schemas::event::Envelope;
use webdancer_schemas::kind::Kind;

use crate::events;

/// Rows of the commits that are timed, at least.
const TIMED_ROWS: u64 = 1_000;
/// Commits that are timed, at the end.
const TIMED: u64 = 20;

pub(crate) async fn run(folder: &Path, rows: u64, commits: u64) -> Result<Value, Box<dyn Error>> {
    let uri = folder.to_string_lossy();
    let lake = Lake::open(&uri, LakeOptions::default())?;
    let mut table = lake.table_for_writing(Kind::Metric).await?;
    let mut at = table.position("bench").await?;
    // The position is the number of rows.
    let mut written = at.unwrap_or_default() as u64;
    let missing = commits.saturating_sub(table.version());
    let mut times_ms = Vec::new();
    for number in 0..missing + TIMED {
        let timed = number >= missing;
        let share = (rows.saturating_sub(written)) / (missing.saturating_sub(number)).max(1);
        let share = if timed { TIMED_ROWS } else { share.max(1) };
        let batch = metrics(written, share)?;
        written += share;
        let to = written as i64;
        let begun = Instant::now();
        table.append(&[Part { app_id: "bench".into(), from: at, to, fingerprint: None, batches: vec![batch] }]).await?;
        at = Some(to);
        if timed {
            times_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    times_ms.sort_by(f64::total_cmp);
    let begun = Instant::now();
    let reopened = Lake::open(&uri, LakeOptions::default())?.table(Kind::Metric).await?;
    let open_ms = begun.elapsed().as_secs_f64() * 1e3;
    let version = reopened.map(|table| table.version());
    Ok(json!({
        "rows": written, "version": version, "open_ms": open_ms,
        "commit_p50_ms": times_ms.get(times_ms.len() / 2), "commit_max_ms": times_ms.last(),
    }))
}

fn metrics(first: u64, count: u64) -> Result<arrow::array::RecordBatch, Box<dyn Error>> {
    let mut decoder = Decoder::new(Kind::Metric);
    let partition = TopicPartition { topic: "bench".into(), partition: 0 };
    for number in first..first + count {
        let envelope = Envelope {
            id: events::id(Kind::Metric, 1, number),
            source_event_id: None,
            source: "bench".into(),
            kind: Kind::Metric,
            time: Some(Utc::now()),
            subject: Some("loss".into()),
            run_id: Some("run-1".into()),
            parents: Vec::new(),
            traceparent: None,
            extensions: Vec::new(),
        };
        let row = format!("{{\"name\":\"loss\",\"step\":{number},\"value\":0.5}}");
        let position = Position { partition: &partition, offset: number as i64, timestamp_ms: 0 };
        decoder.push(&envelope, row.as_bytes(), position)?;
    }
    Ok(decoder.finish()?)
}

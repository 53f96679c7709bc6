//! Durable appends of one event each by many producers at once.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use webdancer_ingest::embedded::{EmbeddedLog, EmbeddedOptions};
use webdancer_ingest::kafka::{KafkaLog, KafkaSettings};
use webdancer_schemas::event::Event;
use webdancer_schemas::log::EventLog;
use webdancer_schemas::rows::Judgment;

pub(crate) async fn embedded(
    folder: &Path,
    producers: usize,
    seconds: f64,
    bytes: usize,
) -> Result<Value, Box<dyn Error>> {
    load(Arc::new(EmbeddedLog::open(folder, EmbeddedOptions::default())?), producers, seconds, bytes).await
}

pub(crate) async fn kafka(
    url: &str,
    topic_prefix: String,
    producers: usize,
    seconds: f64,
    bytes: usize,
) -> Result<Value, Box<dyn Error>> {
    let settings = KafkaSettings { topic_prefix, ..KafkaSettings::from_url(url)? };
    load(Arc::new(KafkaLog::new(settings)?), producers, seconds, bytes).await
}

async fn load(log: Arc<dyn EventLog>, producers: usize, seconds: f64, bytes: usize) -> Result<Value, Box<dyn Error>> {
    // The envelope takes about 300 bytes.
    let row = Judgment {
        trajectory_id: "t-1".into(),
        stage: "correctness".into(),
        verdict: "pass".into(),
        rationale: Some("x".repeat(bytes.saturating_sub(300))),
        rule_version: 1,
        ..Judgment::default()
    };
    // Connections are made and topics looked up before the clock runs.
    log.append(vec![Event::new("bench", &row)?]).await?;
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(seconds);
    let mut tasks = Vec::new();
    for _ in 0..producers {
        let (log, row) = (log.clone(), row.clone());
        tasks.push(tokio::spawn(async move {
            let mut waits = Vec::new();
            while Instant::now() < until {
                let event = Event::new("bench", &row).map_err(|e| e.to_string())?;
                let asked = Instant::now();
                log.append(vec![event]).await.map_err(|e| e.to_string())?;
                waits.push(asked.elapsed());
            }
            Ok::<_, String>(waits)
        }));
    }
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await??);
    }
    let wall_s = begun.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).map(|wait| wait.as_secs_f64() * 1e3);
    Ok(json!({
        "events": waits.len(), "per_s": waits.len() as f64 / wall_s, "p50_ms": at(0.5), "p99_ms": at(0.99),
    }))
}

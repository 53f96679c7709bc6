//! A peer of `webdancer ingest`: Kafka to Delta as kafka-delta-ingest does it. Each payload is parsed into a JSON value,
//! values are gathered by partition up to 5,000 messages, turned into a record batch by arrow-json, and a file is closed
//! and committed at 128 MiB, with the offsets in the commit. The writer is delta-rs's `JsonWriter`, which came from
//! there. The program itself is no longer built on present libraries; its defaults are used as they stand in its
//! documentation.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use deltalake_core::DeltaTable;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, StructType, Transaction};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::writer::{DeltaWriter as _, JsonWriter};
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::Message as _;
use serde_json::{Value, json};

use crate::events::Shape;
use crate::limits::{beginning, row_schema};

const MAX_MESSAGES_PER_BATCH: usize = 5_000;
const MIN_BYTES_PER_FILE: usize = 128 << 20;

pub(crate) async fn run(
    brokers: &str,
    topic: &str,
    count: u64,
    shape: Shape,
    folder: &Path,
) -> Result<Value, Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let schema: StructType = row_schema(shape).as_ref().try_into_kernel()?;
    let mut table =
        CreateBuilder::new().with_location(folder.to_string_lossy()).with_columns(schema.fields().cloned()).await?;
    let mut writer = JsonWriter::for_table(&table)?;
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.assign(&beginning(&consumer, topic)?)?;

    let begun = Instant::now();
    let mut offsets = BTreeMap::new();
    let mut values: BTreeMap<i32, Vec<Value>> = BTreeMap::new();
    let (mut waiting, mut seen, mut commits) = (0, 0u64, 0u64);
    while seen < count {
        let message = consumer.recv().await?;
        values
            .entry(message.partition())
            .or_default()
            .push(serde_json::from_slice(message.payload().unwrap_or(b"{}"))?);
        offsets.insert(message.partition(), message.offset());
        seen += 1;
        waiting += 1;
        if waiting >= MAX_MESSAGES_PER_BATCH || seen == count {
            writer.write(std::mem::take(&mut values).into_values().flatten().collect()).await?;
            waiting = 0;
        }
        if waiting == 0 && (writer.buffer_len() >= MIN_BYTES_PER_FILE || seen == count) {
            commit(&mut table, &mut writer, topic, &offsets).await?;
            commits += 1;
        }
    }
    Ok(json!({ "events": seen, "commits": commits, "wall_s": begun.elapsed().as_secs_f64() }))
}

async fn commit(
    table: &mut DeltaTable,
    writer: &mut JsonWriter,
    topic: &str,
    offsets: &BTreeMap<i32, i64>,
) -> Result<(), Box<dyn Error>> {
    let adds = writer.flush().await?;
    let transactions =
        offsets.iter().map(|(partition, offset)| Transaction::new(format!("{topic}/{partition}"), *offset)).collect();
    let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
    let committed = CommitBuilder::from(CommitProperties::default().with_application_transactions(transactions))
        .with_actions(adds.into_iter().map(Action::Add).collect())
        .build(Some(table.snapshot()?), table.log_store(), operation)
        .await?;
    table.state = Some(committed.snapshot());
    Ok(())
}

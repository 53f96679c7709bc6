//! What a machine gives at best: decoding and writing in memory, reading a topic, syncing a disk.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::events::Shape;

/// Rows decoded at once.
const BATCH_ROWS: usize = 8_192;

/// The columns of `data`; what is any JSON to us is given its type, since arrow-json cannot keep text.
pub(crate) fn row_schema(shape: Shape) -> SchemaRef {
    let threshold = Field::new("threshold", DataType::Int64, true);
    let fields = shape.kind().row_fields().into_iter().map(|field| match field.name().as_str() {
        "criteria" => Field::new("criteria", DataType::Struct(vec![threshold.clone()].into()), true),
        _ => field,
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

pub(crate) fn decode_write(shape: Shape, file: &Path) -> Result<Value, Box<dyn Error>> {
    let rows = BufReader::new(File::open(file)?).split(b'\n').collect::<Result<Vec<_>, _>>()?;
    let bytes: usize = rows.iter().map(Vec::len).sum();
    let schema = row_schema(shape);
    let (mut decode_s, mut write_s) = (0.0, 0.0);
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?;
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(BATCH_ROWS).build_decoder()?;
    for chunk in rows.chunks(BATCH_ROWS) {
        let begun = cpu_s()?;
        for row in chunk {
            decoder.decode(row)?;
        }
        let batch = decoder.flush()?;
        let decoded = cpu_s()?;
        if let Some(batch) = batch {
            writer.write(&batch)?;
        }
        decode_s += decoded - begun;
        write_s += cpu_s()? - decoded;
    }
    let begun = cpu_s()?;
    let written = writer.into_inner()?.len();
    write_s += cpu_s()? - begun;
    Ok(
        json!({ "events": rows.len(), "bytes": bytes, "parquet_bytes": written, "decode_cpu_s": decode_s, "write_cpu_s": write_s }),
    )
}

/// CPU time of this thread.
fn cpu_s() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: u64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds as f64 / 1e9)
}

/// A consumer of all partitions from their beginnings, in no group.
pub(crate) fn consumer(brokers: &str, topic: &str) -> Result<BaseConsumer, Box<dyn Error>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.assign(&beginning(&consumer, topic)?)?;
    Ok(consumer)
}

pub(crate) fn beginning<C: rdkafka::consumer::ConsumerContext>(
    consumer: &impl rdkafka::consumer::Consumer<C>,
    topic: &str,
) -> Result<TopicPartitionList, Box<dyn Error>> {
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(30))?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    Ok(list)
}

pub(crate) fn discard(brokers: &str, topic: &str, count: u64) -> Result<Value, Box<dyn Error>> {
    let consumer = consumer(brokers, topic)?;
    let begun = Instant::now();
    let (mut seen, mut bytes) = (0u64, 0usize);
    while seen < count {
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            bytes += message?.payload_len();
            seen += 1;
        }
    }
    Ok(json!({ "events": seen, "bytes": bytes, "wall_s": begun.elapsed().as_secs_f64() }))
}

pub(crate) fn fsync(folder: &Path, seconds: f64, bytes: usize) -> Result<Value, Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let mut file = File::create(folder.join("fsync"))?;
    let block = vec![b'x'; bytes];
    let begun = Instant::now();
    let mut syncs = 0u64;
    while begun.elapsed().as_secs_f64() < seconds {
        file.write_all(&block)?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(json!({ "syncs": syncs, "per_s": syncs as f64 / begun.elapsed().as_secs_f64() }))
}

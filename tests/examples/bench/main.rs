//! What the benchmarks in `tests/bench` need besides the command itself: data, limits to compare with, and peers that
//! are Rust programs. Every subcommand prints one JSON object, or, for `events`, events.
#![allow(clippy::print_stdout, reason = "a program for benchmark scripts")]

mod append;
mod events;
mod grow;
mod limits;
mod value_consumer;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Data, limits and peers of the benchmarks.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Events as NDJSON on standard output: judgments of about 1 KB, trajectories of about 20 KB, or small metrics.
    Events {
        #[arg(value_enum)]
        shape: events::Shape,
        count: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Write `data` alone, as arrow-json reads it.
        #[arg(long)]
        rows: bool,
    },
    /// Decodes rows (NDJSON of `data`) with arrow-json and writes them as Parquet, both in memory, on one core.
    DecodeWrite {
        #[arg(value_enum)]
        shape: events::Shape,
        file: PathBuf,
    },
    /// Reads a topic with librdkafka and throws it away.
    Discard { brokers: String, topic: String, count: u64 },
    /// Topic to table as kafka-delta-ingest does it, at its defaults.
    ValueConsumer {
        brokers: String,
        topic: String,
        count: u64,
        #[arg(value_enum)]
        shape: events::Shape,
        table: PathBuf,
    },
    /// Durable appends of one event each by concurrent producers to the embedded log.
    Append {
        folder: PathBuf,
        #[arg(long)]
        producers: usize,
        #[arg(long)]
        seconds: f64,
        #[arg(long, default_value_t = 1024)]
        bytes: usize,
    },
    /// Appends of one event each to Kafka by one client, each producer waiting for its acknowledgement.
    AppendKafka {
        url: String,
        /// Of the topic's name.
        #[arg(long)]
        prefix: String,
        #[arg(long)]
        producers: usize,
        #[arg(long)]
        seconds: f64,
        #[arg(long, default_value_t = 1024)]
        bytes: usize,
    },
    /// How often the disk syncs a write of so many bytes.
    Fsync {
        folder: PathBuf,
        #[arg(long)]
        seconds: f64,
        #[arg(long, default_value_t = 1024)]
        bytes: usize,
    },
    /// Makes a table of metrics grow to so many rows in so many commits, and times the last ones.
    Grow {
        lake: PathBuf,
        #[arg(long)]
        rows: u64,
        #[arg(long)]
        commits: u64,
    },
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let result = match Arguments::parse().command {
        Command::Events { shape, count, seed, rows } => return events::write(shape, count, seed, rows),
        Command::DecodeWrite { shape, file } => limits::decode_write(shape, &file)?,
        Command::Discard { brokers, topic, count } => limits::discard(&brokers, &topic, count)?,
        Command::ValueConsumer { brokers, topic, count, shape, table } => {
            value_consumer::run(&brokers, &topic, count, shape, &table).await?
        }
        Command::Append { folder, producers, seconds, bytes } => {
            append::embedded(&folder, producers, seconds, bytes).await?
        }
        Command::AppendKafka { url, prefix, producers, seconds, bytes } => {
            append::kafka(&url, prefix, producers, seconds, bytes).await?
        }
        Command::Fsync { folder, seconds, bytes } => limits::fsync(&folder, seconds, bytes)?,
        Command::Grow { lake, rows, commits } => grow::run(&lake, rows, commits).await?,
    };
    println!("{result}");
    Ok(())
}

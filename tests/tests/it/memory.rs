//! Ingestion stays within a bound that follows from its settings, however much there is to ingest.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::harness::{Site, say};
use crate::kafka;

const MIB: u64 = 1 << 20;
/// The process without records in memory: code, runtimes, table states, the Parquet writer's buffers.
const BASE: u64 = 160 * MIB;
/// What Kafka's client may have fetched and not handed over.
const FETCHED_AHEAD: u64 = 64 * MIB;

/// What may be in memory at once.
const BUFFER: u64 = 32 * MIB;
const SETTINGS: &str = "[ingest]\ncommit_bytes = 8388608\nmax_buffer_bytes = 33554432\n";
const EVENTS: u64 = 6_000;
/// Bytes of an event's text.
const TEXT: usize = 20_000;

#[test]
fn memory_follows_the_buffer_and_not_the_backlog() {
    let site = Site::new(&format!("[lake]\nuri = \"lake\"\n{SETTINGS}"));
    append_pages(&site);
    let peak = ingest(&site, &[]);
    // Each record in the buffer stands in memory as JSON or as Arrow, and once more while it is encoded.
    assert!(peak < BASE + 3 * BUFFER, "peak {} MiB", peak / MIB);
}

#[test]
fn memory_follows_the_buffer_with_kafka_too() {
    let Some((server, _stays)) = kafka::broker() else { return };
    let name = format!("memory{}", rand::rng().random_range(0..1_000_000));
    let site = Site::new(&kafka::config(server, &name, 3, 1 << 20).replace("[ingest]\n", SETTINGS));
    append_pages(&site);
    let peak = ingest(&site, &["--kinds", "page"]);
    // What librdkafka has fetched ahead comes on top; it is bounded by its own settings.
    assert!(peak < BASE + 3 * BUFFER + FETCHED_AHEAD, "peak {} MiB", peak / MIB);
}

/// Appends pages whose texts do not compress well; each has another piece of a random text.
fn append_pages(site: &Site) {
    let mut append = site.command(&["append", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut input = std::io::BufWriter::new(append.stdin.take().unwrap());
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let pool: String = (0..1_000_000).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
    for number in 0..EVENTS {
        let start = random.random_range(0..pool.len() - TEXT);
        let text = &pool[start..start + TEXT];
        writeln!(
            input,
            r#"{{"specversion":"1.0","id":"{number}","source":"m","type":"webdancer.page.v1","data":{{"url":"u{number}","final_url":"u","root_url":"r","depth":0,"status":200,"text":"{text}"}}}}"#
        )
        .unwrap();
    }
    drop(input);
    assert!(append.wait().unwrap().success());
}

/// Moves the pages into their table; the most memory that this took.
fn ingest(site: &Site, more: &[&str]) -> u64 {
    let mut ingest =
        site.command(&["ingest", "--until-caught-up", "--quiet"]).args(more).stdout(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    while ingest.try_wait().unwrap().is_none() {
        peak = peak.max(resident_peak(ingest.id()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(ingest.wait().unwrap().success());
    say(&format!("{} MiB of events, buffer {} MiB, peak {} MiB", EVENTS * TEXT as u64 / MIB, BUFFER / MIB, peak / MIB));
    assert_eq!(site.number("SELECT count(*) AS n FROM pages"), EVENTS as i64);
    peak
}

/// The most resident memory that a process has had, in bytes.
fn resident_peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

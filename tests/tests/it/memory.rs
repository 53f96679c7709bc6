//! Ingestion stays within a bound that follows from its settings, however much there is to ingest.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::embedded_kill::{query, webdancer};

const MIB: u64 = 1 << 20;
/// The process without records in memory: code, runtimes, table states, the Parquet writer's buffers.
const BASE: u64 = 160 * MIB;

#[test]
fn memory_follows_the_buffer_and_not_the_backlog() {
    const EVENTS: u64 = 6_000;
    let folder = tempfile::tempdir().unwrap();
    let (lake, config) = (folder.path().join("lake"), folder.path().join("webdancer.toml"));
    std::fs::write(&config, "[ingest]\ncommit_bytes = 8388608\nmax_buffer_bytes = 33554432\n").unwrap();
    let mut append = Command::new(webdancer())
        .args(["append", "--quiet", "--lake"])
        .arg(&lake)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = std::io::BufWriter::new(append.stdin.take().unwrap());
    let mut random = ChaCha8Rng::seed_from_u64(1);
    // Text that does not compress well; each event has another piece of it.
    let pool: String = (0..1_000_000).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
    for number in 0..EVENTS {
        let start = random.random_range(0..pool.len() - 20_000);
        let text = &pool[start..start + 20_000];
        writeln!(
            input,
            r#"{{"specversion":"1.0","id":"{number}","source":"m","type":"webdancer.page.v1","data":{{"url":"u{number}","final_url":"u","root_url":"r","depth":0,"status":200,"text":"{text}"}}}}"#
        )
        .unwrap();
    }
    drop(input);
    assert!(append.wait().unwrap().success());

    let mut ingest = Command::new(webdancer())
        .args(["ingest", "--until-caught-up", "--quiet", "--lake"])
        .arg(&lake)
        .arg("--config")
        .arg(&config)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut peak = 0;
    while ingest.try_wait().unwrap().is_none() {
        peak = peak.max(resident_peak(ingest.id()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(ingest.wait().unwrap().success());
    println!("{} MiB of events, buffer 32 MiB, peak {} MiB", EVENTS * 20_000 / MIB, peak / MIB);
    assert_eq!(query(&lake, "SELECT count(*) AS n FROM pages")[0]["n"], EVENTS);
    // Each record in the buffer stands in memory as JSON or as Arrow, and once more while it is encoded.
    assert!(peak < BASE + 3 * 32 * MIB, "peak {} MiB", peak / MIB);
}

/// The most resident memory that a process has had, in bytes.
fn resident_peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

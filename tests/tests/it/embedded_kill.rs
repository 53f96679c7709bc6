//! kill -9 of producers and of the drain at random moments: every acknowledged event exactly once, in order.
//!
//! `WEBDANCER_KILLS` sets how often (10), `WEBDANCER_TEST_SEED` the seed, which is printed.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

pub(crate) fn webdancer() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let path = exe.parent().unwrap().parent().unwrap().join("webdancer");
    assert!(path.is_file(), "{} is not built: cargo build --workspace --bins", path.display());
    path
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A producer: one key, steps counted up, unacknowledged events offered again with the same ids after each kill.
struct Producer {
    key: String,
    next_step: u64,
    /// Offered and not acknowledged, in order.
    open: VecDeque<(String, u64)>,
    acknowledged: Vec<(String, u64)>,
}

impl Producer {
    fn line(&self, id: &str, step: u64) -> String {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"kill-test","type":"webdancer.metric.v1","subject":"{key}","data":{{"name":"{key}","step":{step},"value":0.5}}}}"#,
            key = self.key
        ) + "\n"
    }

    /// Runs `append` until it is killed after `life`; None: lets it finish all that is open.
    fn run(&mut self, lake: &Path, life: Option<Duration>) {
        let mut child = Command::new(webdancer())
            .args(["append", "--ids", "--quiet", "--lake"])
            .arg(lake)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let reading = {
            let (out, acknowledged) = (child.stdout.take().unwrap(), acknowledged.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines() {
                    // The last line may be cut off by the kill.
                    let Ok(line) = line else { break };
                    if line.len() == 36 {
                        acknowledged.lock().unwrap().push(line);
                    }
                }
            })
        };
        let mut input = child.stdin.take().unwrap();
        let begun = std::time::Instant::now();
        let again: Vec<_> = self.open.iter().cloned().collect();
        let mut broken = again.iter().any(|(id, step)| input.write_all(self.line(id, *step).as_bytes()).is_err());
        while let Some(life) = life
            && begun.elapsed() < life
            && !broken
        {
            let (id, step) = (uuid_of(&self.key, self.next_step), self.next_step);
            self.next_step += 1;
            broken = input.write_all(self.line(&id, step).as_bytes()).is_err();
            self.open.push_back((id, step));
            std::thread::sleep(Duration::from_micros(200));
        }
        if life.is_some() {
            child.kill().unwrap();
        }
        drop(input);
        child.wait().unwrap();
        reading.join().unwrap();
        for id in acknowledged.lock().unwrap().drain(..) {
            let (open, step) = self.open.pop_front().expect("acknowledged without being offered");
            assert_eq!(open, id, "acknowledgements come in order");
            self.acknowledged.push((id, step));
        }
    }
}

/// A time-ordered id that depends on key and step alone.
fn uuid_of(key: &str, step: u64) -> String {
    let key: u64 = key.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    format!("{:08x}-{:04x}-7000-8000-{:04x}{:08x}", 0x0190_a6b2 + (step >> 16), step & 0xffff, key & 0xffff, step)
}

fn drain(lake: &Path, config: &Path) -> Child {
    Command::new(webdancer())
        .args(["ingest", "--quiet", "--lake"])
        .arg(lake)
        .arg("--config")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killed_producers_and_drains_lose_and_double_nothing() {
    let seed = setting("WEBDANCER_TEST_SEED", rand::rng().random());
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let config = folder.path().join("webdancer.toml");
    // Small segments and frequent commits: the kills meet rolls and commits, not only waiting.
    std::fs::write(&config, "[ingest]\ncommit_interval_ms = 40\n[log]\nsegment_bytes = 65536\n").unwrap();
    let mut producers: Vec<_> = ["a", "b"]
        .map(|key| Producer { key: key.into(), next_step: 0, open: VecDeque::new(), acknowledged: Vec::new() })
        .into();
    // A drain is no reason to make a lake.
    std::fs::create_dir(&lake).unwrap();
    let mut draining = drain(&lake, &config);
    for _ in 0..setting("WEBDANCER_KILLS", 10) {
        let lives: Vec<_> = producers.iter().map(|_| Duration::from_millis(random.random_range(60..500))).collect();
        let drain_life = Duration::from_millis(random.random_range(30..500));
        std::thread::scope(|scope| {
            for (producer, life) in producers.iter_mut().zip(lives) {
                let lake = &lake;
                scope.spawn(move || producer.run(lake, Some(life)));
            }
            std::thread::sleep(drain_life);
            draining.kill().unwrap();
            draining.wait().unwrap();
            draining = drain(&lake, &config);
        });
    }
    draining.kill().unwrap();
    draining.wait().unwrap();
    producers.iter_mut().for_each(|producer| producer.run(&lake, None));

    let rows = query(&lake, "SELECT event_id, name, step FROM metrics ORDER BY log_offset");
    let mut steps: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut ids = HashSet::new();
    for row in &rows {
        assert!(ids.insert(row["event_id"].as_str().unwrap().to_string()), "{row} is there twice");
        steps.entry(row["name"].as_str().unwrap().into()).or_default().push(row["step"].as_u64().unwrap());
    }
    let mut total = 0;
    for producer in &producers {
        assert!(producer.open.is_empty(), "an append that was left alone acknowledges all");
        for (id, step) in &producer.acknowledged {
            assert!(ids.contains(id), "acknowledged event {id} (step {step}) of {} is lost", producer.key);
        }
        let steps = &steps[&producer.key];
        assert!(steps.is_sorted(), "the order of key {} is broken", producer.key);
        assert_eq!(steps.len() as u64, producer.next_step, "every event offered was acknowledged in the end");
        total += steps.len();
    }
    assert!(total > 100, "the test offered only {total} events");
    println!("{total} events");
    assert_eq!(query(&lake, "SELECT count(*) AS n FROM dead_letters")[0]["n"], 0);
}

pub(crate) fn query(lake: &Path, sql: &str) -> Vec<serde_json::Value> {
    let output = Command::new(webdancer())
        .args(["sql", "--format", "ndjson", "--quiet", "--lake"])
        .arg(lake)
        .arg(sql)
        .output()
        .unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

//! A producer that does not give up: it feeds `webdancer append --ids`, notes what is acknowledged, and when the process
//! ends, by a kill or by itself, offers what is not acknowledged again, with the same ids, to a new one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;

use crate::harness::Site;

/// A log that is down for longer than this is not coming back.
const PATIENCE: Duration = Duration::from_secs(120);
/// Events offered and not yet acknowledged, at most.
const WINDOW: usize = 300;

/// An event that was generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) step: i64,
}

impl Sent {
    /// The `step`th event of `key`: always the same id.
    pub(crate) fn new(key: &str, step: i64) -> Sent {
        let start = DateTime::<Utc>::from_timestamp(1_790_000_000, 0).unwrap();
        let id = EventId::derive(start, "producer", Kind::Metric, key, step as u64).to_string();
        Sent { id, key: key.to_string(), step }
    }

    /// The event as a line.
    pub(crate) fn line(&self) -> String {
        json!({
            "specversion": "1.0", "id": self.id, "source": "test", "type": "webdancer.metric.v1", "subject": self.key,
            "data": {"name": self.key, "step": self.step, "value": self.step as f64 / 4.0},
        })
        .to_string()
    }
}

/// `count` events of one key, from `first` on.
pub(crate) fn events(key: &str, first: i64, count: i64) -> Vec<Sent> {
    (first..first + count).map(|step| Sent::new(key, step)).collect()
}

/// Their lines.
pub(crate) fn lines(events: &[Sent]) -> Vec<String> {
    events.iter().map(Sent::line).collect()
}

/// A producer at work.
#[derive(Debug)]
pub(crate) struct Producer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Sent>>,
}

impl Producer {
    /// Starts the producer `name` in the folder of `site`; `kills`: its processes are killed now and then.
    pub(crate) fn start(site: &Site, name: &str, rng: ChaCha8Rng, kills: bool) -> Producer {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let work = Work {
            name: name.to_string(),
            rng,
            kills,
            stop: stop.clone(),
            acknowledged: acknowledged.clone(),
            sent: Vec::new(),
            steps: [0; 4],
        };
        let command = site.command(&["append", "--ids"]);
        let thread = std::thread::Builder::new().name(name.to_string()).spawn(move || work.run(command)).unwrap();
        Producer { stop, acknowledged, thread }
    }

    /// How many events were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        assert!(!self.thread.is_finished(), "the producer has given up");
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Lets it end when everything is acknowledged; all events it offered.
    pub(crate) fn finish(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.thread.join().unwrap();
        assert_eq!(self.acknowledged.load(Ordering::Relaxed), sent.len());
        assert!(!sent.is_empty(), "nothing was ever acknowledged");
        sent
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Work {
    name: String,
    rng: ChaCha8Rng,
    kills: bool,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    sent: Vec<Sent>,
    steps: [i64; 4],
}

impl Work {
    fn run(mut self, mut command: Command) -> Vec<Sent> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut progress = (0, Instant::now());
        while !(self.stop.load(Ordering::Relaxed) && self.done() == self.sent.len()) {
            let mut child = command.spawn().unwrap();
            let ids = read_ids(&mut child);
            self.feed(&mut child, &ids);
            let _ = child.kill();
            child.wait().unwrap();
            // What was printed before the end was acknowledged.
            ids.iter().for_each(|id| self.note(&id));
            if self.done() > progress.0 {
                progress = (self.done(), Instant::now());
            }
            assert!(progress.1.elapsed() < PATIENCE, "{}: nothing was acknowledged for {PATIENCE:?}", self.name);
            std::thread::sleep(Duration::from_millis(50));
        }
        std::mem::take(&mut self.sent)
    }

    /// Feeds one process until it ends, its time is up, or all is done.
    fn feed(&mut self, child: &mut Child, ids: &mpsc::Receiver<String>) {
        let mut stdin = child.stdin.take().unwrap();
        let mut next = self.done();
        let last = self.kills.then(|| self.done() + self.rng.random_range(100..1500));
        loop {
            ids.try_iter().for_each(|id| self.note(&id));
            if last.is_some_and(|last| self.done() >= last) || child.try_wait().unwrap().is_some() {
                return;
            }
            let stopping = self.stop.load(Ordering::Relaxed);
            if stopping && self.done() == self.sent.len() {
                drop(stdin);
                let status = child.wait().unwrap();
                assert!(status.success(), "{}: append ended with {status}", self.name);
                return;
            }
            if next == self.sent.len() && !stopping && next - self.done() < WINDOW {
                for _ in 0..self.rng.random_range(1..10) {
                    let which = self.rng.random_range(0..self.steps.len());
                    self.sent.push(Sent::new(&format!("{}-{which}", self.name), self.steps[which]));
                    self.steps[which] += 1;
                }
            }
            let mut block = String::new();
            for event in &self.sent[next..] {
                block.push_str(&event.line());
                block.push('\n');
            }
            next = self.sent.len();
            if stdin.write_all(block.as_bytes()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn done(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn note(&mut self, id: &str) {
        let index = self.acknowledged.fetch_add(1, Ordering::Relaxed);
        assert_eq!(self.sent[index].id, id, "events are acknowledged in the order in which they were offered");
    }
}

/// The ids that the process prints; one that was cut off by a kill is none.
fn read_ids(child: &mut Child) -> mpsc::Receiver<String> {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, ids) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        while stdout.read_line(&mut line).is_ok() && line.ends_with('\n') {
            if sender.send(line.trim_end().to_string()).is_err() {
                return;
            }
            line.clear();
        }
    });
    ids
}

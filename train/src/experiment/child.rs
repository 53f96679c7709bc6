//! A stage as a process: started, listened to, asked to stop.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::{Checkpoint, Metric};
use webdancer_schemas::wire;

use super::plan::StageKind;
use super::table::State;
use crate::contract::INTERRUPTED;
use crate::events::LINE_BYTES_MAX;

/// Bytes of what a process said last that are looked at.
const SAID_BYTES_MAX: u64 = 64 << 10;
/// How many threads libtorch computes on.
const THREADS: &str = "OMP_NUM_THREADS";

/// What a stage has told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Told {
    /// Metrics: steps and values, in the order in which they were told.
    pub(super) curves: BTreeMap<String, Vec<(u64, f64)>>,
    /// Folders of checkpoints, by step.
    pub(super) checkpoints: BTreeMap<u64, PathBuf>,
}

/// How a process is started.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) run: StageKind,
    pub(super) arguments: Vec<OsString>,
    /// File that what it says for people is added to.
    pub(super) log: PathBuf,
    /// Threads that it computes on, unless the environment says otherwise.
    pub(super) threads: usize,
}

/// A process that can be asked to stop while another thread listens to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Handle(Arc<Mutex<Process>>);

#[derive(Debug, Default)]
struct Process {
    /// None before it is started, and as soon as it may be gone: its number may then be another's.
    number: Option<u32>,
    /// Whether it was asked to stop.
    is_asked: bool,
}

impl Handle {
    /// Sends a signal that asks it to stop, or ends it; one that is just being started is sent it then.
    pub(super) fn signal(&self, name: &str) {
        let mut process = self.lock();
        process.is_asked = true;
        process.signal(name);
    }

    fn started(&self, number: u32) {
        let mut process = self.lock();
        process.number = Some(number);
        if process.is_asked {
            process.signal("INT");
        }
    }

    /// Says whether it was asked to stop.
    fn ended(&self) -> bool {
        let mut process = self.lock();
        process.number = None;
        process.is_asked
    }

    fn lock(&self) -> MutexGuard<'_, Process> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// The shell's own `kill` does it without unsafe code of ours.
    fn signal(&self, name: &str) {
        if let Some(number) = self.number {
            // One that cannot be reached is waited for all the same.
            let _ = Command::new("sh").args(["-c", &format!("kill -{name} \"$0\""), &number.to_string()]).status();
        }
    }
}

/// Runs a process to its end. What it told, how it ended, and if it failed, why.
pub(super) fn run(launch: &Launch, handle: &Handle) -> (Told, State, Option<String>) {
    let mut told = Told::default();
    let failed = |reason: String| (State::Failed, Some(reason));
    let (state, error) = match start(launch) {
        Err(error) => failed(format!("starting {}: {error}", launch.program.display())),
        Ok(mut child) => {
            handle.started(child.id());
            if let Some(stdout) = child.stdout.take() {
                listen(BufReader::with_capacity(1 << 18, stdout), &mut told);
            }
            let is_asked = handle.ended();
            match child.wait() {
                Err(error) => failed(format!("waiting for it: {error}")),
                Ok(status) if status.success() => (State::Done, None),
                Ok(status) if status.code() == Some(INTERRUPTED) => (State::Stopped, None),
                // It had not come to hear of signals yet, or had to be ended.
                Ok(status) if is_asked && status.signal().is_some() => (State::Stopped, None),
                Ok(status) => failed(last_words(&launch.log, status)),
            }
        }
    };
    (told, state, error)
}

fn start(launch: &Launch) -> std::io::Result<Child> {
    let log = File::options().create(true).append(true).open(&launch.log)?;
    let mut command = Command::new(&launch.program);
    if std::env::var_os(THREADS).is_none() {
        command.env(THREADS, launch.threads.to_string());
    }
    command
        .arg(launch.run.name())
        .args(&launch.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // A terminal's Ctrl-C comes to it once, from us.
        .process_group(0)
        .spawn()
}

/// Takes what is told until there is no more. What is neither metric nor checkpoint is not looked at.
fn listen(mut events: impl BufRead, told: &mut Told) {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = events.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
        if !read.is_ok_and(|bytes| bytes > 0) {
            return;
        }
        told.take(&line);
    }
}

impl Told {
    fn take(&mut self, line: &[u8]) {
        let Ok((envelope, data)) = wire::parse_structured(line) else { return };
        let step = |step: i64| u64::try_from(step).unwrap_or(0);
        match envelope.kind {
            Kind::Metric => {
                let Ok(metric) = serde_json::from_str::<Metric>(data.get()) else { return };
                self.curves.entry(metric.name).or_default().push((step(metric.step), metric.value));
            }
            Kind::Checkpoint => {
                let Ok(checkpoint) = serde_json::from_str::<Checkpoint>(data.get()) else { return };
                self.checkpoints.insert(step(checkpoint.step), checkpoint.uri.into());
            }
            _ => {}
        }
    }
}

/// Why a process failed: the last line that it said.
fn last_words(log: &Path, status: ExitStatus) -> String {
    let said = || {
        let mut file = File::open(log).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(SAID_BYTES_MAX))).ok()?;
        let mut bytes = Vec::new();
        file.take(SAID_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let last = text.lines().rfind(|line| !line.trim().is_empty())?;
        last.strip_prefix("error: ").map(str::to_string)
    };
    said().unwrap_or_else(|| format!("it ended with {status}; see {}", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_told_metrics_and_checkpoints_are_taken() {
        let line = |kind: &str, data: &str| {
            format!(
                r#"{{"specversion":"1.0","id":"x","source":"s","type":"webdancer.{kind}.v1","runid":"r","data":{data}}}"#
            )
        };
        let lines = [
            line("metric", r#"{"name":"loss","step":1,"value":2.5}"#),
            line("reward", r#"{"trajectory_id":"t"}"#),
            "no event".to_string(),
            line("metric", r#"{"name":"loss","step":2,"value":1.5}"#),
            line("checkpoint", r#"{"digest":"d","step":2,"uri":"a/b","base_model":null,"pin_id":null}"#),
        ];
        let mut told = Told::default();
        listen(lines.join("\n").as_bytes(), &mut told);
        assert_eq!(told.curves, BTreeMap::from([("loss".to_string(), vec![(1, 2.5), (2, 1.5)])]));
        assert_eq!(told.checkpoints, BTreeMap::from([(2, PathBuf::from("a/b"))]));
    }

    #[test]
    fn a_program_that_is_not_there_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let (program, log) = (folder.path().join("nowhere"), folder.path().join("log"));
        let launch = Launch { program, run: StageKind::Sft, arguments: Vec::new(), log, threads: 1 };
        let (_, state, error) = run(&launch, &Handle::default());
        assert_eq!(state, State::Failed);
        assert!(error.unwrap().starts_with(&format!("starting {}/nowhere: ", folder.path().display())));
    }

    #[test]
    fn the_last_line_that_is_an_error_is_why() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let status = Command::new("sh").args(["-c", "exit 4"]).status().unwrap();
        std::fs::write(&log, "step 1: loss 3\nerror: the loss is NaN\n\n").unwrap();
        assert_eq!(last_words(&log, status), "the loss is NaN");
        std::fs::write(&log, "step 1: loss 3\n").unwrap();
        assert_eq!(last_words(&log, status), format!("it ended with exit status: 4; see {}", log.display()));
    }
}

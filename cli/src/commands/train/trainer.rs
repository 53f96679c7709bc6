//! The trainer's process: started, listened to, waited for.

use std::collections::{HashMap, VecDeque};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog, LogError};
use webdancer_schemas::rows::{Artifact, Checkpoint, Metric};
use webdancer_train::contract::{BEST_STEP, DapoJob, INTERRUPTED, Job};
use webdancer_train::events::{LINE_BYTES_MAX, read_line};

use super::folder::{CONFIG_FILE, RunFolder};
use super::plan::{Plan, Training};
use crate::output;

/// Events appended at a time.
const BATCH_EVENTS: usize = 256;
/// Times an append is repeated while the log is unavailable.
const APPEND_RETRIES: u32 = 5;
/// How long the output of a trainer that has ended is waited for.
const GRACE: Duration = Duration::from_secs(5);
/// Lines of standard error that a failed run keeps, the last.
const KEPT_LINES: usize = 10;
/// Characters of each.
const KEPT_CHARS: usize = 400;
/// Lines that are no events of which each is told.
const BAD_LINES_TOLD: u64 = 3;
/// Parts of the names of environment variables whose values are secrets.
const SECRET_NAMES: [&str; 4] = ["KEY", "TOKEN", "SECRET", "PASSWORD"];
/// Characters of a value that is looked for: shorter ones occur by chance.
const SECRET_CHARS_MIN: usize = 8;

/// What a trainer told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Events appended.
    pub(super) events: u64,
    /// Its checkpoints, in order.
    pub(super) checkpoints: Vec<Artifact>,
    /// The checkpoint of a step.
    of_step: HashMap<i64, Artifact>,
    /// The step whose checkpoint is to be used.
    best_step: Option<i64>,
    /// Lines that were no events of it.
    bad_lines: u64,
    /// The first of them, and what is wrong with it.
    first_bad: Option<String>,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum End {
    Done,
    /// It was asked to stop, and can go on.
    Interrupted,
    Failed(String),
}

/// Runs the trainer to its end. A signal to this process is passed on to it.
pub(super) async fn run(
    plan: &Plan,
    folder: &RunFolder,
    resume: bool,
    log: Arc<dyn EventLog>,
    quiet: bool,
) -> (Told, End) {
    let mut told = Told::default();
    // A program inherits signals that are ignored, as those of a script's background jobs are, and a shell could then not
    // react to ours; handled ones it begins with afresh. So the handler is there before the trainer is.
    let _handled = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
    let mut child = match start(plan, folder, resume) {
        Ok(child) => child,
        Err(error) => return (told, End::Failed(format!("starting {}: {error}", plan.trainer.display()))),
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let kept = tokio::spawn(listen_to_messages(stderr, quiet));
    let process = child.id();
    let (mut interrupted, mut status) = (false, None);
    let (tell_ended, ended) = watch::channel(false);
    let listened = {
        let listening = listen_to_events(stdout, ended, &plan.run_id, log.as_ref(), &mut told);
        tokio::pin!(listening);
        loop {
            tokio::select! {
                listened = &mut listening => break listened,
                () = super::super::ingest::stopped(), if !interrupted => {
                    output::note("webdancer: the trainer was asked to stop; once more ends this at once");
                    interrupt(process).await;
                    interrupted = true;
                }
                waited = child.wait(), if status.is_none() => {
                    status = Some(waited);
                    tell_ended.send_replace(true);
                }
            }
        }
    };
    if let Err(error) = listened {
        // What it goes on to tell would be lost here; its folder keeps it.
        let _ = child.start_kill();
        let _ = child.wait().await;
        return (told, End::Failed(format!("the trainer's events could not be appended: {error}")));
    }
    let status = match status {
        Some(status) => status,
        None => child.wait().await,
    };
    let messages = timeout(GRACE, kept).await.ok().and_then(Result::ok).unwrap_or_default();
    let end = match status {
        Ok(status) => end_of(status, interrupted, &told, &messages),
        Err(error) => End::Failed(format!("waiting for the trainer: {error}")),
    };
    (told, end)
}

fn start(plan: &Plan, folder: &RunFolder, resume: bool) -> std::io::Result<Child> {
    let job = Job {
        run: plan.run_id.clone(),
        started: plan.started,
        pins: vec![folder.manifest.clone()],
        config: plan.folder.join(CONFIG_FILE),
        out: plan.folder.clone(),
        resume,
    };
    let arguments = match plan.kind {
        Training::Sft => job.arguments(),
        Training::Dapo => {
            let replay = plan.replay.then(|| folder.manifest.clone());
            let (pages, init, date) = (folder.pages.clone(), plan.init.clone(), plan.date);
            DapoJob { job, pages, init, replay, date }.arguments()
        }
    };
    Command::new(&plan.trainer)
        .arg(plan.kind.name())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A terminal's Ctrl-C comes to it once, from us.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Sends SIGINT. The shell's own `kill` does it without unsafe code of ours.
async fn interrupt(process: Option<u32>) {
    let Some(process) = process else { return };
    let sent = Command::new("sh").args(["-c", "kill -INT \"$0\"", &process.to_string()]).status().await;
    if let Err(error) = sent {
        output::note(&format!("webdancer: the trainer could not be asked to stop: {error}"));
    }
}

/// Appends what the trainer tells, until its standard output is closed; or, once it has `ended`, tells nothing more:
/// processes that it started may hold its output open.
async fn listen_to_events(
    stdout: Option<ChildStdout>,
    mut ended: watch::Receiver<bool>,
    run_id: &str,
    log: &dyn EventLog,
    told: &mut Told,
) -> Result<(), LogError> {
    let Some(stdout) = stdout else { return Ok(()) };
    let mut reader = BufReader::with_capacity(1 << 18, stdout);
    let mut waiting: Vec<Event> = Vec::new();
    let mut number = 0_u64;
    loop {
        let next = tokio::select! {
            biased;
            next = next_line(&mut reader) => next,
            () = quiet_after(&mut ended) => break,
        };
        let line = match next {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                told.note_bad(number + 1, &error.to_string());
                break;
            }
        };
        number += 1;
        match line.ok_or_else(|| format!("has more than {LINE_BYTES_MAX} bytes")) {
            Ok(line) if line.iter().all(u8::is_ascii_whitespace) => {}
            line => match line.and_then(|line| read_line(&line, run_id)) {
                Ok(event) => {
                    told.note(&event);
                    waiting.push(event);
                }
                Err(reason) => told.note_bad(number, &reason),
            },
        }
        // A trainer tells little at a time: what is there is appended before it is waited for more.
        if waiting.len() >= BATCH_EVENTS || reader.buffer().is_empty() {
            append(log, &mut waiting, told).await?;
        }
    }
    append(log, &mut waiting, told).await
}

/// Waits until the trainer has ended, and then for what is still on its way.
async fn quiet_after(ended: &mut watch::Receiver<bool>) {
    if ended.wait_for(|ended| *ended).await.is_err() {
        std::future::pending::<()>().await;
    }
    sleep(GRACE).await;
}

/// The next line; None inside when it is longer than a line may be. None at the end.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Option<Vec<u8>>>> {
    let mut line = Vec::new();
    let read = (&mut *reader).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') || read < LINE_BYTES_MAX {
        return Ok(Some(Some(line)));
    }
    loop {
        line.clear();
        let read = (&mut *reader).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
        if read == 0 || line.last() == Some(&b'\n') {
            return Ok(Some(None));
        }
    }
}

async fn append(log: &dyn EventLog, waiting: &mut Vec<Event>, told: &mut Told) -> Result<(), LogError> {
    if waiting.is_empty() {
        return Ok(());
    }
    let events = std::mem::take(waiting);
    let count = events.len() as u64;
    let mut attempt = 0;
    loop {
        match log.append(events.clone()).await {
            Ok(()) => {
                told.events += count;
                return Ok(());
            }
            Err(LogError::Unavailable(_)) if attempt < APPEND_RETRIES => {
                sleep(Duration::from_secs(1 << attempt)).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Passes on what the trainer says to people; the last lines of it.
async fn listen_to_messages(stderr: Option<ChildStderr>, quiet: bool) -> Vec<String> {
    let Some(stderr) = stderr else { return Vec::new() };
    let mut reader = BufReader::new(stderr);
    let mut kept = VecDeque::new();
    while let Ok(Some(line)) = next_line(&mut reader).await {
        let line = line.unwrap_or_default();
        let text = String::from_utf8_lossy(&line);
        let text = without_secrets(text.trim_end());
        if !quiet {
            output::note(&text);
        }
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(text.chars().filter(|c| !c.is_control()).take(KEPT_CHARS).collect());
    }
    kept.into()
}

fn end_of(status: ExitStatus, interrupted: bool, told: &Told, messages: &[String]) -> End {
    if interrupted && status.code() == Some(INTERRUPTED) {
        return End::Interrupted;
    }
    let said = match messages.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect::<Vec<_>>() {
        lines if lines.is_empty() => String::new(),
        lines => format!(": {}", lines.join(" / ")),
    };
    match (status.success(), &told.first_bad) {
        (true, None) => End::Done,
        (true, Some(first)) => End::Failed(format!(
            "the trainer wrote {} lines on standard output that are no events of it; {first}",
            told.bad_lines
        )),
        (false, _) => End::Failed(format!("the trainer ended with {}{said}", in_words(status))),
    }
}

fn in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "signal 9 (killed: by hand, or for want of memory)".to_string(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// `text` without the values of environment variables that are named like secrets.
fn without_secrets(text: &str) -> String {
    let secret = |name: &str| SECRET_NAMES.iter().any(|part| name.to_ascii_uppercase().contains(part));
    std::env::vars()
        .filter(|(name, value)| secret(name) && value.chars().count() >= SECRET_CHARS_MIN)
        .fold(text.to_string(), |text, (_, value)| text.replace(&value, "***"))
}

impl Told {
    fn note_bad(&mut self, number: u64, reason: &str) {
        self.bad_lines += 1;
        let told = format!("line {number}: {reason}");
        if self.bad_lines <= BAD_LINES_TOLD {
            output::note(&format!("webdancer: the trainer's standard output, {told}"));
        }
        self.first_bad.get_or_insert(told);
    }

    fn note(&mut self, event: &Event) {
        let data = event.data.get();
        match event.kind() {
            Kind::Checkpoint => {
                if let Ok(row) = serde_json::from_str::<Checkpoint>(data) {
                    self.note_checkpoint(row);
                }
            }
            Kind::Metric => {
                let row = serde_json::from_str::<Metric>(data).ok().filter(|row| row.name == BEST_STEP);
                self.best_step = row.map(|row| row.value as i64).or(self.best_step);
            }
            _ => {}
        }
    }

    fn note_checkpoint(&mut self, row: Checkpoint) {
        let artifact = Artifact { uri: row.uri, digest: Some(row.digest) };
        self.of_step.insert(row.step, artifact.clone());
        if !self.checkpoints.contains(&artifact) {
            self.checkpoints.push(artifact);
        }
    }

    /// The checkpoint to use, where the trainer said which.
    pub(super) fn best(&self) -> Option<Artifact> {
        self.of_step.get(&self.best_step?).cloned()
    }
}

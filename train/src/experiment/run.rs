//! The stages of an experiment, as many at a time as there may be, until all are done or time is up.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::child::{self, Handle, Launch, Told};
use super::plan::{Begin, ExperimentError, Plan, StageKind, with_checkpoint};
use super::stages::{self, Stage, Work};
use super::table::{ArmResult, Results, StageResult, State};
use super::{ExperimentArgs, machine};
use crate::contract::{DapoJob, EvaluateJob, Job, QUESTIONS_FILE};
use crate::events::EVENTS_FILE;
use crate::input::{read_file, write_whole};
use crate::lock;
use crate::score::QuestionScore;

/// Stages at a time where nobody says how many.
const JOBS_MAX: usize = 8;
/// Time that a stage that was asked to stop may take to come to the end of its step.
const GRACE: Duration = Duration::from_secs(30);
/// Time between two looks at the clock.
const GLANCE: Duration = Duration::from_millis(100);
/// Time that the folder is waited for where another experiment is just ending in it.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// What a finished stage came to, in its folder.
const RESULT_FILE: &str = "stage.json";
/// When a stage was begun, and what it took so far.
const CLOCK_FILE: &str = "clock.json";
/// What a stage said for people.
const LOG_FILE: &str = "progress.log";
/// Bytes of these files, and of what each question came to.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// How an experiment ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// What it came to.
    pub results: Results,
    /// The same as `results.md` has it.
    pub markdown: String,
    /// The same as `results.json` has it.
    pub json: String,
}

/// When a stage was begun, and what its processes took so far.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Clock {
    started: DateTime<Utc>,
    seconds: f64,
}

/// Runs an experiment by `program`, this program's own file: results into the folder of its name in `args.out`, progress to
/// `progress`.
///
/// # Errors
/// The experiment's file, an argument or a pin is wrong, or the folder cannot be written to. A stage that fails is no error: it
/// is told in the results.
pub fn run(
    args: &ExperimentArgs,
    program: &Path,
    interrupt: &AtomicBool,
    progress: impl Write,
) -> Result<Ended, ExperimentError> {
    let begun = Instant::now();
    let plan = Plan::read(&args.file)?;
    let minutes = args.minutes.unwrap_or(plan.minutes);
    let budget = Duration::try_from_secs_f64(minutes * 60.0)
        .map_err(|_| ExperimentError::new(format!("--minutes {minutes}: must be a number of minutes")))?;
    let work = Work::of(&plan, args)?;
    let failed = |error: &dyn Display| ExperimentError::new(format!("{}: {error}", args.out.display()));
    // A stage that goes on must find what it began with in the same place.
    let out = std::path::absolute(&args.out).map_err(|error| failed(&error))?;
    let name = args.file.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let folder = out.join(&name);
    std::fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
    let _lock = lock::take(&out, LOCK_WAIT)?;
    let threads = machine::threads();
    let jobs = args.jobs.map_or_else(|| threads.min(JOBS_MAX), usize::from).max(1);
    let (tell, told) = mpsc::channel();
    let mut runner = Runner {
        plan: &plan,
        work: &work,
        out: &out,
        program,
        jobs,
        threads: (threads / jobs).max(1),
        begun,
        results: vec![None; work.stages.len()],
        under_way: BTreeMap::new(),
        tell,
        told,
        progress,
    };
    runner.take_up();
    runner.finish(budget, interrupt);
    let results = Results {
        name,
        title: plan.title.clone(),
        question: plan.question.clone(),
        quick: args.quick,
        preset: args.preset.clone(),
        metrics: plan.metrics.clone(),
        curves: plan.curves.clone(),
        minutes,
        seconds: begun.elapsed().as_secs_f64(),
        program: machine::program(program),
        device: machine::device(),
        arms: runner.arms(),
        stages: runner.results.into_iter().flatten().collect(),
    };
    let json = serde_json::to_string(&results).map_err(|error| failed(&error))?;
    let ended = Ended { markdown: results.markdown(), json, results };
    for (name, text) in
        [("results.json", &ended.json), ("results.md", &ended.markdown), ("curves.csv", &ended.results.csv())]
    {
        write_whole(&folder.join(name), text.as_bytes())?;
    }
    Ok(ended)
}

struct Runner<'a, P> {
    plan: &'a Plan,
    work: &'a Work,
    out: &'a Path,
    program: &'a Path,
    jobs: usize,
    /// Threads that a stage computes on.
    threads: usize,
    begun: Instant,
    /// By the places of stages; None: not begun, or under way.
    results: Vec<Option<StageResult>>,
    under_way: BTreeMap<usize, Handle>,
    tell: Sender<(usize, StageResult)>,
    told: Receiver<(usize, StageResult)>,
    progress: P,
}

impl<P: Write> Runner<'_, P> {
    /// What was finished before is taken as it is.
    fn take_up(&mut self) {
        for (place, stage) in self.work.stages.iter().enumerate() {
            let folder = stages::folder(self.out, &stage.id);
            let found: Option<StageResult> = read_json(&folder.join(RESULT_FILE));
            let is_whole = |found: &StageResult| {
                let kept = |from| found.checkpoint(from).is_some_and(|checkpoint| folder.join(checkpoint).is_dir());
                found.id == stage.id && (!stage.run.trains() || kept(Begin::Last))
            };
            if let Some(found) = found.filter(is_whole) {
                self.say(place, "was finished before");
                self.put(place, found);
            }
        }
    }

    /// Until there is nothing left that can be begun, or time is up.
    fn finish(&mut self, budget: Duration, interrupt: &AtomicBool) {
        let mut stopped: Option<Instant> = None;
        loop {
            match stopped {
                None if self.begun.elapsed() >= budget || interrupt.load(Ordering::Relaxed) => {
                    stopped = Some(Instant::now());
                    self.signal("INT", "is asked to stop");
                }
                None => self.begin_what_can_be(),
                Some(at) if at.elapsed() >= GRACE => {
                    stopped = Some(Instant::now());
                    self.signal("KILL", "did not stop, and is ended");
                }
                Some(_) => {}
            }
            if self.under_way.is_empty() {
                return;
            }
            match self.told.recv_timeout(GLANCE) {
                Ok((place, result)) => self.ended(place, result),
                // A sender of ours is alive as long as this is.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    fn signal(&mut self, name: &str, what: &str) {
        for (place, handle) in self.under_way.clone() {
            self.say(place, what);
            handle.signal(name);
        }
    }

    fn begin_what_can_be(&mut self) {
        for place in 0..self.work.stages.len() {
            if self.under_way.len() >= self.jobs {
                return;
            }
            if self.can_begin(place) {
                self.begin(place);
            }
        }
    }

    fn can_begin(&self, place: usize) -> bool {
        let is_open = self.result(place).is_none() && !self.under_way.contains_key(&place);
        let after = self.work.stages.get(place).and_then(|stage| stage.after);
        is_open && after.is_none_or(|after| self.result(after).is_some_and(|result| result.state == State::Done))
    }

    fn result(&self, place: usize) -> Option<&StageResult> {
        self.results.get(place).and_then(Option::as_ref)
    }

    fn put(&mut self, place: usize, result: StageResult) {
        if let Some(slot) = self.results.get_mut(place) {
            *slot = Some(result);
        }
    }

    fn begin(&mut self, place: usize) {
        let Some(stage) = self.work.stages.get(place) else { return };
        self.say(place, "begins");
        let prepared = self.prepare(stage);
        let (launch, mut result, clock) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.ended(place, StageResult { state: State::Failed, error: Some(error.to_string()), ..blank(stage) });
                return;
            }
        };
        let handle = Handle::default();
        self.under_way.insert(place, handle.clone());
        let (tell, folder, run) = (self.tell.clone(), stages::folder(self.out, &stage.id), stage.run);
        std::thread::spawn(move || {
            let begun = Instant::now();
            let (told, state, error) = child::run(&launch, &handle);
            (result.state, result.error) = (state, error);
            result.seconds = clock.seconds + begun.elapsed().as_secs_f64();
            if let Err(error) = keep(&folder, run, &mut result, told, clock) {
                (result.state, result.error) = (State::Failed, Some(error.to_string()));
            }
            // Nobody listens any more once the experiment has ended.
            let _ = tell.send((place, result));
        });
    }

    /// Writes a stage's configuration, and says how it is started.
    fn prepare(&self, stage: &Stage) -> Result<(Launch, StageResult, Clock), ExperimentError> {
        let folder = stages::folder(self.out, &stage.id);
        std::fs::create_dir_all(&folder)
            .map_err(|error| ExperimentError::new(format!("{}: {error}", folder.display())))?;
        let checkpoint = self.checkpoint(stage)?;
        let settings = with_checkpoint(stage.settings.clone(), stage.run, checkpoint.as_deref());
        let text = toml::to_string(&settings).map_err(ExperimentError::new)?;
        let config = folder.join("config.toml");
        write_whole(&config, text.as_bytes())?;
        let clock_file = folder.join(CLOCK_FILE);
        let clock = read_json(&clock_file).unwrap_or_else(|| Clock { started: Utc::now(), seconds: 0.0 });
        write_json(&clock_file, &clock)?;
        let job = Job {
            run: stage.id.clone(),
            started: clock.started,
            pins: stage.pins.clone(),
            config,
            resume: folder.join(EVENTS_FILE).exists(),
            out: folder.clone(),
        };
        let date = Some(self.plan.date);
        let init = || checkpoint.clone().ok_or_else(|| ExperimentError::new("there is no checkpoint to begin with"));
        let pages = || stage.pages.clone().ok_or_else(|| ExperimentError::new("there is no pin of pages"));
        let arguments = match stage.run {
            StageKind::Sft => job.arguments(),
            StageKind::Dapo => {
                DapoJob { job, pages: Some(pages()?), init: Some(init()?), replay: None, date }.arguments()
            }
            StageKind::Evaluate => EvaluateJob { job, pages: pages()?, init: init()?, date }.arguments(),
        };
        let launch = Launch {
            program: self.program.to_path_buf(),
            run: stage.run,
            arguments,
            log: folder.join(LOG_FILE),
            threads: self.threads,
        };
        Ok((launch, StageResult { config: text, ..blank(stage) }, clock))
    }

    /// The folder of the checkpoint that a stage begins with.
    fn checkpoint(&self, stage: &Stage) -> Result<Option<PathBuf>, ExperimentError> {
        let Some(after) = stage.after else { return Ok(None) };
        let found = self.result(after).and_then(|before| Some((before, before.checkpoint(stage.from)?)));
        let (before, checkpoint) =
            found.ok_or_else(|| ExperimentError::new("the stage before it left no checkpoint"))?;
        Ok(Some(stages::folder(self.out, &before.id).join(checkpoint)))
    }

    fn ended(&mut self, place: usize, result: StageResult) {
        let what = match result.state {
            State::Done => format!("is done, {:.0} s", result.seconds),
            State::Stopped => "was stopped".to_string(),
            State::Failed => format!("failed: {}", result.error.as_deref().unwrap_or_default()),
        };
        self.say(place, &what);
        self.under_way.remove(&place);
        self.put(place, result);
    }

    /// A line for people. A stage that arms share goes by the first of them.
    fn say(&mut self, place: usize, what: &str) {
        let of = |chain: &&stages::Chain| chain.stages.contains(&place);
        let (Some(chain), Some(stage)) = (self.work.chains.iter().find(of), self.work.stages.get(place)) else {
            return;
        };
        let number = chain.stages.iter().position(|other| *other == place).map_or(0, |at| at + 1);
        // Progress that nobody reads is no reason to stop.
        let _ = writeln!(
            self.progress,
            "[{:>4.0} s] {}, seed {}: stage {number} ({}, {}) {what}",
            self.begun.elapsed().as_secs_f64(),
            chain.arm,
            chain.seed,
            stage.run.name(),
            stage.id
        );
    }

    fn arms(&self) -> Vec<ArmResult> {
        let arm = |chain: &stages::Chain| {
            let kinds: Vec<StageKind> =
                chain.stages.iter().filter_map(|place| self.work.stages.get(*place)).map(|stage| stage.run).collect();
            let found: Vec<Option<&StageResult>> = chain.stages.iter().map(|place| self.result(*place)).collect();
            ArmResult::of(&chain.arm, chain.seed, &kinds, &found)
        };
        self.work.chains.iter().map(arm).collect()
    }
}

/// A stage that has come to nothing yet.
fn blank(stage: &Stage) -> StageResult {
    StageResult {
        id: stage.id.clone(),
        run: stage.run,
        state: State::Stopped,
        error: None,
        seconds: 0.0,
        config: String::new(),
        pins: stage.pin_ids.clone(),
        curves: BTreeMap::new(),
        checkpoints: BTreeMap::new(),
        questions: Vec::new(),
    }
}

/// Puts what a stage told into its result, and what it came to into its folder.
fn keep(
    folder: &Path,
    run: StageKind,
    result: &mut StageResult,
    told: Told,
    clock: Clock,
) -> Result<(), ExperimentError> {
    result.curves = told.curves;
    let within = |path: PathBuf| path.strip_prefix(folder).map(Path::to_path_buf).unwrap_or(path);
    result.checkpoints = told.checkpoints.into_iter().map(|(step, path)| (step, within(path))).collect();
    write_json(&folder.join(CLOCK_FILE), &Clock { seconds: result.seconds, ..clock })?;
    if result.state != State::Done {
        return Ok(());
    }
    if run == StageKind::Evaluate {
        let path = folder.join(QUESTIONS_FILE);
        let questions: Option<Vec<QuestionScore>> = read_json(&path);
        result.questions = questions
            .ok_or_else(|| ExperimentError::new(format!("{}: is not what an evaluation leaves", path.display())))?;
    }
    write_json(&folder.join(RESULT_FILE), result)
}

/// What a file holds; None where it is not there, or holds something else.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&read_file(path, FILE_BYTES_MAX).ok()?).ok()
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ExperimentError> {
    let text =
        serde_json::to_vec(value).map_err(|error| ExperimentError::new(format!("{}: {error}", path.display())))?;
    Ok(write_whole(path, &text)?)
}

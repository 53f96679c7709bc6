//! Supervised fine-tuning: the loop.
//!
//! A step takes some micro-batches, sums their gradients, and updates the weights once. Between two steps the run can be
//! validated, stopped, and kept as a [`checkpoint`]; a resumed run goes on behind the last one and
//! comes to the same weights. What it has to tell goes to a [`Reporter`].

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tch::{Device, Kind, Tensor};

use crate::batch::{BatchSource, Update};
use crate::checkpoint::{self, Checkpoint, State};
use crate::config::SftConfig;
use crate::contract::BEST_STEP;
use crate::device::{matmul_flops, memory};
use crate::error::{TrainError, guard};
use crate::loss::{self, Targets};
use crate::model::Qwen;
use crate::optim::{AdamW, Schedule};

/// Dense bf16 operations a second of an H100 or H200, which MFU is measured against there.
const PEAK_FLOPS_CUDA: f64 = 989e12;
/// Steps between reports on a GPU, since each waits for it. On a processor each step is reported.
const REPORT_EVERY_CUDA: u64 = 10;

/// Who is told of a run's progress.
pub trait Reporter {
    /// A number at a step.
    ///
    /// # Errors
    ///
    /// It could not be told; the run ends.
    fn metric(&mut self, step: u64, name: &'static str, value: f64, unit: &'static str) -> Result<(), TrainError>;

    /// A checkpoint is complete. A run that goes on tells of all that are there, since it does not know whether the one
    /// before it came to that.
    ///
    /// # Errors
    ///
    /// It could not be told; the run ends.
    fn checkpoint(&mut self, step: u64, checkpoint: &Checkpoint) -> Result<(), TrainError>;

    /// A checkpoint is about to be made: what was told so far must not be lost once it is there, as a run that goes on from
    /// it does not come to those steps again.
    ///
    /// # Errors
    ///
    /// It could not be made durable; the run ends.
    fn settle(&mut self) -> Result<(), TrainError>;
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Where it stands.
    pub state: State,
    /// The last checkpoint.
    pub last: Checkpoint,
    /// The folder of the checkpoint to use: of the lowest validation loss, or the last without validation.
    pub best: PathBuf,
    /// Why there were no more steps.
    pub end: End,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Complete,
    /// The validation loss had not become lower for too long.
    OutOfPatience,
    /// It was asked to, and can go on.
    Interrupted,
}

/// What a run works on.
#[derive(Debug)]
pub struct Places<'a> {
    /// The Hugging Face folder to begin with; weights may be missing when the model was drawn.
    pub base: &'a Path,
    /// Where checkpoints go.
    pub checkpoints: &'a Path,
    /// What the run is of: pin, base model, settings. A checkpoint of another is not resumed.
    pub fingerprint: &'a str,
    /// Becomes true when the run is to end behind the step it is at, with a checkpoint.
    pub interrupt: &'a AtomicBool,
}

/// Runs to the end, from the last checkpoint if there is one; `model` is what a new run begins with.
///
/// # Errors
///
/// Nothing to train on, a loss that is no number, a device that ran out of memory, a file that could not be written. No
/// half checkpoint stays behind.
pub fn run(
    config: &SftConfig,
    model: Qwen,
    source: &dyn BatchSource,
    places: &Places<'_>,
    reporter: &mut dyn Reporter,
) -> Result<Outcome, TrainError> {
    let run = Run::start(config, model, source, places, reporter)?;
    guard(|| run.finish()).map_err(TrainError::while_training)
}

struct Run<'a> {
    config: &'a SftConfig,
    model: Qwen,
    optimizer: AdamW,
    schedule: Schedule,
    source: &'a dyn BatchSource,
    validation: Update,
    places: &'a Places<'a>,
    reporter: &'a mut dyn Reporter,
    state: State,
    window: Window,
    peak_flops: f64,
}

/// What happened since the last report.
struct Window {
    since: Instant,
    steps: u64,
    tokens: u64,
    trained: u64,
    flops: f64,
    /// Sum of losses, and the last length of the gradient: on the device.
    loss: Tensor,
    norm: Tensor,
}

impl Window {
    fn new(device: Device) -> Self {
        let zero = || Tensor::zeros([], (Kind::Float, device));
        Self { since: Instant::now(), steps: 0, tokens: 0, trained: 0, flops: 0.0, loss: zero(), norm: zero() }
    }
}

impl<'a> Run<'a> {
    fn start(
        config: &'a SftConfig,
        model: Qwen,
        source: &'a dyn BatchSource,
        places: &'a Places<'a>,
        reporter: &'a mut dyn Reporter,
    ) -> Result<Self, TrainError> {
        let planned = config.schedule.epochs * source.updates_per_epoch();
        let total_steps = config.schedule.steps_max.map_or(planned, |most| most.min(planned));
        if total_steps == 0 {
            return Err(TrainError::Usage("there is nothing to train on: the pin gave no document".into()));
        }
        let schedule = Schedule::new(&config.schedule, config.optimizer.lr, total_steps);
        let (kind, device) = (model.head().kind(), model.head().device());
        checkpoint::sweep(places.checkpoints)?;
        let last = checkpoint::latest(places.checkpoints)?;
        let (model, optimizer, state) = match last {
            None => {
                let optimizer = AdamW::new(&config.optimizer, model.trained())?;
                (model, optimizer, State { fingerprint: places.fingerprint.into(), ..State::default() })
            }
            Some(folder) => {
                checkpoint::verify(&folder)?;
                let state: State = checkpoint::read_state(&folder)?;
                if state.fingerprint != places.fingerprint {
                    let message =
                        "is of another run (pin, base model or settings differ): choose an empty output folder";
                    return Err(TrainError::file(&folder, message));
                }
                let model = checkpoint::read_model(&folder, model)?;
                let mut optimizer = AdamW::new(&config.optimizer, model.trained())?;
                checkpoint::read_optimizer(&folder, &mut optimizer)?;
                for folder in checkpoint::all(places.checkpoints)? {
                    let step = checkpoint::step_of(&folder).unwrap_or(state.step);
                    reporter.checkpoint(step, &checkpoint::listed(&folder)?)?;
                }
                (model, optimizer, state)
            }
        };
        let peak_flops = match device {
            Device::Cpu => guard(|| Ok(matmul_flops(kind, device)))?,
            _ => PEAK_FLOPS_CUDA,
        };
        let window = Window::new(device);
        let validation = Update { batches: source.validation().to_vec() };
        Ok(Self { config, model, optimizer, schedule, source, validation, places, reporter, state, window, peak_flops })
    }

    fn finish(mut self) -> Result<Outcome, TrainError> {
        let source = self.source;
        let per_epoch = source.updates_per_epoch();
        let mut last = None;
        if self.config.checkpoints.initial && self.state.step == 0 && !self.folder(0).exists() {
            self.validate()?;
            last = Some(self.keep()?);
        } else if self.validation_is_due() {
            // An interrupt may have left it out.
            self.validate()?;
        }
        let mut end = self.end();
        while end.is_none() {
            let epoch = self.state.step / per_epoch;
            // What a resumed run did before is not made again.
            let done = self.state.step % per_epoch;
            for update in source.epoch(epoch).skip(done as usize) {
                self.step(&update)?;
                end = self.look_around(&mut last)?;
                if end.is_some() {
                    break;
                }
            }
        }
        let last = match last {
            Some(last) => last,
            // It was stopped before its first step.
            None if self.state.step == 0 => self.keep()?,
            // Nothing was left to do.
            None => checkpoint::verify(&self.folder(self.state.step))?,
        };
        let end = end.unwrap_or(End::Complete);
        if let (Some(best), End::Complete | End::OutOfPatience) = (self.state.best_step, end) {
            self.reporter.metric(self.state.step, BEST_STEP, best as f64, "")?;
        }
        let best = self.state.best_step.map_or_else(|| last.folder.clone(), |step| self.folder(step));
        Ok(Outcome { state: self.state, last, best, end })
    }

    /// What is due behind a step: reports, validation, a checkpoint. Says whether it was the last.
    fn look_around(&mut self, last: &mut Option<Checkpoint>) -> Result<Option<End>, TrainError> {
        let step = self.state.step;
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        let report_every = if self.model.head().device() == Device::Cpu { 1 } else { REPORT_EVERY_CUDA };
        let keeps = due(self.config.checkpoints.every_steps);
        if due(report_every) || keeps || self.validation_is_due() || self.end().is_some() {
            self.report()?;
        }
        if self.validation_is_due() {
            self.validate()?;
        }
        let end = self.end();
        if keeps || end.is_some() || self.state.best_step == Some(step) {
            *last = Some(self.keep()?);
        }
        Ok(end)
    }

    /// Whether no step is to follow.
    fn end(&self) -> Option<End> {
        let patience = self.config.early_stop.patience;
        if patience > 0 && self.state.validations_since_best >= patience {
            Some(End::OutOfPatience)
        } else if self.state.step >= self.schedule.total_steps && !self.validation_is_due() {
            Some(End::Complete)
        } else {
            self.is_interrupted().then_some(End::Interrupted)
        }
    }

    fn is_interrupted(&self) -> bool {
        self.places.interrupt.load(Ordering::Relaxed)
    }

    /// Whether the validation behind this step is still to be made: every so often, and behind the last step.
    fn validation_is_due(&self) -> bool {
        let (step, every) = (self.state.step, self.config.validation.every_steps);
        let due = (every > 0 && step.is_multiple_of(every)) || step >= self.schedule.total_steps;
        due && step > self.state.validated_step
    }

    /// One update.
    fn step(&mut self, update: &Update) -> Result<(), TrainError> {
        let weights = update.weights(self.config.loss.aggregation);
        for (batch, weights) in update.batches.iter().zip(&weights) {
            let targets = Targets::new(batch, weights);
            self.window.loss += loss::backward(&self.model, batch, &targets, self.optimizer.gradient());
            self.window.tokens += batch.tokens() as u64;
            self.window.trained += targets.ids.len() as u64;
            let adapters = self.model.adapters().map(|adapters| adapters.parameters().count());
            self.window.flops += self.model.config().flops(batch.lengths(), targets.ids.len() as i64, adapters);
            self.state.tokens += batch.tokens() as u64;
        }
        let learning_rate = self.schedule.at(self.state.step);
        self.window.norm = self.optimizer.step(self.model.trained(), learning_rate)?;
        self.window.steps += 1;
        self.state.step += 1;
        Ok(())
    }

    /// Tells what happened since the last report. Waits for the device, and looks whether the numbers still are numbers.
    fn report(&mut self) -> Result<(), TrainError> {
        if self.window.steps == 0 {
            return Ok(());
        }
        let window = std::mem::replace(&mut self.window, Window::new(self.model.head().device()));
        let loss = window.loss.double_value(&[]) / window.steps as f64;
        let norm = window.norm.double_value(&[]);
        let seconds = window.since.elapsed().as_secs_f64();
        let step = self.state.step;
        let learning_rate = self.schedule.at(step - 1);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(TrainError::Diverged(format!(
                "the loss is {loss} and the gradient's length {norm} at step {step} (learning rate {learning_rate:.2e}): \
                 lower the learning rate, or look at the data of this step"
            )));
        }
        let told = [
            ("loss", loss, "nat"),
            ("grad_norm", norm, ""),
            ("learning_rate", learning_rate, ""),
            ("tokens", self.state.tokens as f64, "token"),
            ("trained_tokens", window.trained as f64, "token"),
            ("tokens_per_second", window.tokens as f64 / seconds, "token/s"),
            ("mfu", window.flops / seconds / self.peak_flops, "1"),
        ];
        for (name, value, unit) in told.into_iter().chain(memory(self.model.head().device())?) {
            self.reporter.metric(step, name, value, unit)?;
        }
        Ok(())
    }

    /// Measures the validation loss, if there is anything to measure it on. Who interrupts the run does not wait for it: it
    /// is left for the run that goes on, which comes to the same as one that was never interrupted.
    fn validate(&mut self) -> Result<(), TrainError> {
        if self.validation.trained_tokens() == 0 {
            self.state.validated_step = self.state.step;
            return Ok(());
        }
        let weights = self.validation.weights(self.config.loss.aggregation);
        let mut loss = 0.0;
        for (batch, weights) in self.validation.batches.iter().zip(&weights) {
            if self.is_interrupted() {
                return Ok(());
            }
            loss += loss::evaluate(&self.model, batch, &Targets::new(batch, weights)).double_value(&[]);
        }
        let step = self.state.step;
        if !loss.is_finite() {
            return Err(TrainError::Diverged(format!("the validation loss is {loss} at step {step}")));
        }
        self.reporter.metric(step, "validation_loss", loss, "nat")?;
        self.state.validated_step = step;
        if self.state.best_loss.is_none_or(|best| loss < best - self.config.early_stop.min_delta) {
            self.state.best_loss = Some(loss);
            self.state.best_step = Some(step);
            self.state.validations_since_best = 0;
        } else {
            self.state.validations_since_best += 1;
        }
        // Time spent here is not training.
        self.window.since = Instant::now();
        Ok(())
    }

    /// Makes a checkpoint and removes those that are not to be kept.
    fn keep(&mut self) -> Result<Checkpoint, TrainError> {
        self.reporter.settle()?;
        let (step, kind) = (self.state.step, self.model.head().kind());
        let trainer = Some((&self.optimizer, &self.state));
        let name = checkpoint::name_of(step);
        let made = checkpoint::write(self.places.checkpoints, self.places.base, &self.model, kind, trainer, &name)?;
        self.reporter.checkpoint(step, &made)?;
        let best = self.state.best_step.map(|step| self.folder(step));
        let mut others = checkpoint::all(self.places.checkpoints)?;
        let initial = self.config.checkpoints.initial.then(|| self.folder(0));
        others.retain(|folder| Some(folder) != best.as_ref() && Some(folder) != initial.as_ref());
        let surplus = others.len().saturating_sub(self.config.checkpoints.keep.max(1));
        for step in others[..surplus].iter().filter_map(|folder| checkpoint::step_of(folder)) {
            checkpoint::discard(self.places.checkpoints, &checkpoint::name_of(step))?;
        }
        self.window.since = Instant::now();
        Ok(made)
    }

    fn folder(&self, step: u64) -> PathBuf {
        self.places.checkpoints.join(checkpoint::name_of(step))
    }
}

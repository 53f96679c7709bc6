//! Supervised fine-tuning: the loop.
//!
//! A step takes some micro-batches, sums their gradients, and updates the weights once. Between two steps the run can be
//! validated, stopped, and kept as a [`checkpoint`]; a resumed run goes on behind the last one and
//! comes to the same weights. What it has to tell goes to a [`Reporter`].

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::batch::{BatchSource, PackedBatch};
use crate::checkpoint::{self, Checkpoint, State};
use crate::device::peak_memory_bytes;
use crate::error::{TrainError, guard};
use crate::loss::{self, Aggregation};
use crate::model::Qwen;
use crate::optim::{AdamW, AdamWConfig, Decay, Schedule};

/// The numbers of a run. The paper states none of them but the loss.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// Times that each document is seen.
    pub epochs: u64,
    /// Ends the run after so many steps, whatever `epochs` says.
    pub max_steps: Option<u64>,
    /// Micro-batches a step: tokens a step are this times the tokens of a packed batch.
    pub accumulate: usize,
    /// Learning rate at the end of the warm-up.
    pub learning_rate: f64,
    /// Share of all steps that it rises over.
    pub warmup: f64,
    /// How it falls.
    pub decay: Decay,
    /// The share of it that is left at the end.
    pub floor: f64,
    /// The optimiser.
    pub adamw: AdamWConfig,
    /// How losses of tokens become one; the paper's is the default.
    pub aggregation: Aggregation,
    /// Steps between reports; each waits for the device.
    pub report_every: u64,
    /// Steps between validations; also done at the end.
    pub validate_every: u64,
    /// Steps between checkpoints; one is also made at the end.
    pub checkpoint_every: u64,
    /// Checkpoints kept: the latest, and the best besides.
    pub keep_checkpoints: usize,
    /// Ends the run after so many validations without a lower loss.
    pub patience: Option<u32>,
    /// Floating-point operations a second that MFU is measured against. Without it, a matrix product timed at the start.
    pub peak_flops: Option<f64>,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            epochs: 3,
            max_steps: None,
            accumulate: 8,
            learning_rate: 1e-5,
            warmup: 0.03,
            decay: Decay::Cosine,
            floor: 0.1,
            adamw: AdamWConfig::default(),
            aggregation: Aggregation::TokenMean,
            report_every: 1,
            validate_every: 100,
            checkpoint_every: 100,
            keep_checkpoints: 2,
            patience: None,
            peak_flops: None,
        }
    }
}

/// Who is told of a run's progress.
pub trait Reporter {
    /// A number at a step.
    ///
    /// # Errors
    ///
    /// It could not be told; the run ends.
    fn metric(&mut self, step: u64, name: &'static str, value: f64, unit: &'static str) -> Result<(), TrainError>;

    /// A checkpoint is complete.
    ///
    /// # Errors
    ///
    /// It could not be told; the run ends.
    fn checkpoint(&mut self, step: u64, checkpoint: &Checkpoint) -> Result<(), TrainError>;
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
    /// It ended for want of a lower validation loss.
    pub stopped_early: bool,
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
    guard(|| run.to_the_end())
}

struct Run<'a> {
    config: &'a SftConfig,
    model: Qwen,
    optimizer: AdamW,
    schedule: Schedule,
    source: &'a dyn BatchSource,
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
        let steps_of = |epoch| source.epoch(epoch).count().div_ceil(config.accumulate.max(1)) as u64;
        let planned: u64 = (0..config.epochs).map(steps_of).sum();
        let total_steps = config.max_steps.map_or(planned, |most| most.min(planned));
        if total_steps == 0 {
            return Err(TrainError::Usage("there is nothing to train on: the pin gave no document".into()));
        }
        let schedule = Schedule {
            peak: config.learning_rate,
            warmup_steps: (config.warmup * total_steps as f64).ceil() as u64,
            total_steps,
            decay: config.decay,
            floor: config.floor,
        };
        let (kind, device) = (model.parameters().flat().kind(), model.parameters().flat().device());
        let last = checkpoint::latest(places.checkpoints)?;
        let (model, optimizer, state) = match last {
            None => {
                let optimizer = AdamW::new(config.adamw, model.parameters())?;
                (model, optimizer, State { fingerprint: places.fingerprint.into(), ..State::default() })
            }
            Some(folder) => {
                checkpoint::verify(&folder)?;
                drop(model);
                let model = Qwen::read(&folder, kind, device)?;
                let mut optimizer = AdamW::new(config.adamw, model.parameters())?;
                let state = checkpoint::read_trainer(&folder, &mut optimizer)?;
                if state.fingerprint != places.fingerprint {
                    let message = "is of another run (pin, base model or settings differ): choose an empty output folder";
                    return Err(TrainError::file(&folder, message));
                }
                (model, optimizer, state)
            }
        };
        let peak_flops = match config.peak_flops {
            Some(flops) => flops,
            None => guard(|| Ok(matmul_flops(kind, device)))?,
        };
        let window = Window::new(device);
        Ok(Self { config, model, optimizer, schedule, source, places, reporter, state, window, peak_flops })
    }

    fn to_the_end(mut self) -> Result<Outcome, TrainError> {
        let mut walked = 0;
        let mut last = None;
        let mut stopped_early = self.out_of_patience();
        let source = self.source;
        for epoch in 0..self.config.epochs {
            let mut batches = source.epoch(epoch).peekable();
            while batches.peek().is_some() && walked < self.schedule.total_steps && !stopped_early {
                let group: Vec<PackedBatch> = batches.by_ref().take(self.config.accumulate.max(1)).collect();
                walked += 1;
                if walked <= self.state.step {
                    continue;
                }
                self.step(&group)?;
                let at_end = walked == self.schedule.total_steps;
                let due = |every: u64| at_end || walked % every.max(1) == 0;
                let reported = [self.config.report_every, self.config.validate_every, self.config.checkpoint_every];
                if reported.into_iter().any(due) {
                    self.report()?;
                }
                if due(self.config.validate_every) {
                    self.validate()?;
                    stopped_early = self.out_of_patience();
                }
                if due(self.config.checkpoint_every) || self.state.best_step == Some(walked) || stopped_early {
                    last = Some(self.keep()?);
                }
            }
        }
        let last = match last {
            Some(last) => last,
            // Killed between the last checkpoint and the end of the run.
            None => checkpoint::verify(&self.places.checkpoints.join(checkpoint::name_of(self.state.step)))?,
        };
        let best = self.state.best_step.map_or_else(|| last.folder.clone(), |step| self.folder(step));
        Ok(Outcome { state: self.state, last, best, stopped_early })
    }

    /// One update.
    fn step(&mut self, group: &[PackedBatch]) -> Result<(), TrainError> {
        let targets = self.config.aggregation.targets(group);
        for (batch, targets) in group.iter().zip(&targets) {
            self.window.loss += loss::backward(&self.model, batch, targets, self.optimizer.gradient());
            self.window.tokens += batch.tokens() as u64;
            self.window.trained += targets.ids.len() as u64;
            self.window.flops += self.model.config().flops(batch.lengths(), targets.ids.len() as i64);
        }
        let learning_rate = self.schedule.at(self.state.step);
        self.window.norm = self.optimizer.step(self.model.parameters(), learning_rate);
        self.window.steps += 1;
        self.state.step += 1;
        self.state.tokens += group.iter().map(|batch| batch.tokens() as u64).sum::<u64>();
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
        for (name, value, unit) in [
            ("loss", loss, "nat"),
            ("grad_norm", norm, ""),
            ("learning_rate", learning_rate, ""),
            ("tokens", self.state.tokens as f64, "token"),
            ("trained_tokens", window.trained as f64, "token"),
            ("tokens_per_second", window.tokens as f64 / seconds, "token/s"),
            ("mfu", window.flops / seconds / self.peak_flops, "1"),
            ("peak_memory", peak_memory_bytes() as f64, "byte"),
        ] {
            self.reporter.metric(step, name, value, unit)?;
        }
        Ok(())
    }

    /// Whether too many validations went by without a lower loss.
    fn out_of_patience(&self) -> bool {
        self.config.patience.is_some_and(|patience| self.state.validations_since_best >= patience)
    }

    /// Measures the validation loss, if there is anything to measure it on.
    fn validate(&mut self) -> Result<(), TrainError> {
        let batches = self.source.validation();
        let targets = self.config.aggregation.targets(batches);
        if targets.iter().all(|targets| targets.ids.is_empty()) {
            return Ok(());
        }
        let losses = batches.iter().zip(&targets).map(|(batch, targets)| loss::evaluate(&self.model, batch, targets));
        let loss = losses.map(|loss| loss.double_value(&[])).sum::<f64>();
        let step = self.state.step;
        if !loss.is_finite() {
            return Err(TrainError::Diverged(format!("the validation loss is {loss} at step {step}")));
        }
        self.reporter.metric(step, "validation_loss", loss, "nat")?;
        if self.state.best_loss.is_none_or(|best| loss < best) {
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
        let (step, kind) = (self.state.step, self.model.head().kind());
        let trainer = Some((&self.optimizer, &self.state));
        let name = checkpoint::name_of(step);
        let made =
            checkpoint::write(self.places.checkpoints, self.places.base, &self.model, kind, trainer, &name)?;
        self.reporter.checkpoint(step, &made)?;
        let best = self.state.best_step.map(|step| self.folder(step));
        let mut others = checkpoint::all(self.places.checkpoints)?;
        others.retain(|folder| Some(folder) != best.as_ref());
        let surplus = others.len().saturating_sub(self.config.keep_checkpoints.max(1));
        for folder in &others[..surplus] {
            std::fs::remove_dir_all(folder).map_err(|error| TrainError::file(folder, error))?;
        }
        self.window.since = Instant::now();
        Ok(made)
    }

    fn folder(&self, step: u64) -> PathBuf {
        self.places.checkpoints.join(checkpoint::name_of(step))
    }
}

/// Floating-point operations a second of a large matrix product, the best of a few.
fn matmul_flops(kind: Kind, device: Device) -> f64 {
    let size = if device == Device::Cpu { 1024 } else { 8192 };
    let matrix = Tensor::ones([size, size], (kind, device));
    let timed = |_| {
        let start = Instant::now();
        let product = matrix.matmul(&matrix);
        let _ = product.get(0).get(0).double_value(&[]);
        2.0 * (size as f64).powi(3) / start.elapsed().as_secs_f64()
    };
    (0..5).map(timed).fold(0.0, f64::max)
}

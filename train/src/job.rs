//! An SFT run from its arguments to its end: what `webdancer-train sft` does.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use chrono::Utc;
use sha2::{Digest, Sha256};

use crate::checkpoint::{self, Checkpoint};
use crate::config::{ConfigError, ModelSource, SftConfig};
use crate::contract::Job;
use crate::device;
use crate::error::{TrainError, guard};
use crate::events::Events;
use crate::input::InputError;
use crate::model::{ModelConfig, Parameters, Qwen};
use crate::prepare::{masker, open_pins, prepare};
use crate::sft::{self, Outcome, Places, Reporter};

/// Folder of checkpoints in that of the run.
pub const CHECKPOINTS: &str = "checkpoints";
/// Folder with the tokenizer of a model from nothing, in that of the run.
pub const SCRATCH: &str = "scratch";

impl From<InputError> for TrainError {
    fn from(error: InputError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ConfigError> for TrainError {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Runs a job: events to `out`, progress to `progress`, checkpoints into the job's folder.
///
/// # Errors
///
/// One line on what was wrong with the settings, the pin, the model, or on what failed.
pub fn run(
    job: &Job,
    interrupt: &AtomicBool,
    out: impl Write,
    mut progress: impl Write,
) -> Result<Outcome, TrainError> {
    let mut say = |line: String| {
        // Progress that nobody reads is no reason to stop.
        let _ = writeln!(progress, "{line}");
    };
    let config = SftConfig::read(&job.config)?;
    std::fs::create_dir_all(&job.out).map_err(|error| TrainError::file(&job.out, error))?;
    let checkpoints = job.out.join(CHECKPOINTS);
    if !job.resume && checkpoint::latest(&checkpoints)?.is_some() {
        return Err(TrainError::file(&checkpoints, "holds a run already: give --resume, or another folder"));
    }
    std::fs::create_dir_all(&checkpoints).map_err(|error| TrainError::file(&checkpoints, error))?;
    if config.deterministic {
        // Sums are cut by the number of threads.
        tch::set_num_threads(1);
    }

    let pins = open_pins(&config, &job.pins)?;
    let scratch = job.out.join(SCRATCH);
    let (masker, difference) = masker(&config, &pins, &scratch)?;
    if let Some(difference) = difference {
        say(difference.to_string());
    }
    let prepared = prepare(&config, &pins, &masker, |_| {})?;
    say(prepared.report.summary());

    let device = device::device(config.device)?;
    let kind = device::kind(config.dtype, device);
    let (base, model) = load(&config, &scratch, masker.tokenizer().ids(), kind, device)?;
    let tokens = i64::from(masker.tokenizer().ids());
    if tokens > model.config().vocab_size {
        let vocabulary = model.config().vocab_size;
        return Err(TrainError::file(base, format!("the tokenizer has {tokens} tokens and the model {vocabulary}")));
    }
    say(format!("{:.1} M weights, {kind:?}, {device:?}", model.parameters().count() as f64 / 1e6));

    let identity = job.identity(prepared.pin_ids.first().cloned());
    let events = Events::open(&job.out, identity, out)?;
    let base_model = config.model.folder.as_ref().map(|folder| folder.display().to_string());
    let mut teller = Teller { events, base_model, say };
    let places =
        Places { base, checkpoints: &checkpoints, fingerprint: &fingerprint(&config, &prepared.pin_ids), interrupt };
    sft::run(&config, model, &prepared.packing, &places, &mut teller)
}

/// The model that a new run begins with, and its folder.
fn load<'a>(
    config: &'a SftConfig,
    scratch: &'a Path,
    tokens: u32,
    kind: tch::Kind,
    device: tch::Device,
) -> Result<(&'a Path, Qwen), TrainError> {
    match &config.model {
        ModelSource { folder: Some(folder), .. } => Ok((folder, Qwen::read(folder, kind, device)?)),
        ModelSource { scratch: Some(shape), .. } => {
            let shape = ModelConfig::scratch(shape, tokens)?;
            let parameters = guard(|| Parameters::draw(&shape, config.seed, kind, device))?;
            Ok((scratch, Qwen::new(shape, parameters)?))
        }
        ModelSource { .. } => Err(TrainError::Usage("model: give folder, or a [model.scratch]".into())),
    }
}

/// What a run is of: its settings and its pins.
fn fingerprint(config: &SftConfig, pin_ids: &[String]) -> String {
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(config).unwrap_or_default());
    for pin in pin_ids {
        hash.update(pin);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Teller<W, S> {
    events: Events<W>,
    base_model: Option<String>,
    say: S,
}

impl<W: Write, S: FnMut(String)> Reporter for Teller<W, S> {
    fn metric(&mut self, step: u64, name: &'static str, value: f64, unit: &'static str) -> Result<(), TrainError> {
        if matches!(name, "loss" | "validation_loss") {
            (self.say)(format!("step {step}: {name} {value:.4}"));
        }
        self.events.metric(name, step, value, Some(unit).filter(|unit| !unit.is_empty()), Utc::now())?;
        Ok(())
    }

    fn checkpoint(&mut self, step: u64, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        (self.say)(format!("step {step}: checkpoint {}", checkpoint.folder.display()));
        let uri = checkpoint.folder.display().to_string();
        self.events.checkpoint(step, &checkpoint.digest, &uri, self.base_model.as_deref(), Utc::now())?;
        Ok(())
    }
}

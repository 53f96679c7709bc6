//! An SFT run from its arguments to its end: what `webdancer-train sft` does.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use chrono::Utc;
use sha2::{Digest, Sha256};

use crate::checkpoint::{self, Checkpoint};
use crate::config::{ConfigError, Device, Dtype, ModelSource, SftConfig};
use crate::contract::Job;
use crate::device;
use crate::error::{TrainError, guard};
use crate::events::Events;
use crate::input::InputError;
use crate::lock;
use crate::model::{ModelConfig, Parameters, Qwen};
use crate::prepare::{masker, open_pins, prepare};
use crate::sft::{self, End, Outcome, Places, Reporter};

/// Folder of checkpoints in that of the run.
pub const CHECKPOINTS: &str = "checkpoints";
/// Folder with the tokenizer of a model from nothing, in that of the run.
pub const SCRATCH: &str = "scratch";

/// How long a run that goes on waits for another trainer in its folder to end.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(30);

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
    // A trainer whose parent was killed ends soon, and may just not have ended when the run is gone on with.
    let wait = if job.resume { LOCK_WAIT } else { Duration::ZERO };
    let _lock = lock::take(&job.out, wait)?;
    let checkpoints = job.out.join(CHECKPOINTS);
    if !job.resume && checkpoint::latest(&checkpoints)?.is_some() {
        return Err(TrainError::file(&checkpoints, "holds a run already: give --resume, or another folder"));
    }
    std::fs::create_dir_all(&checkpoints).map_err(|error| TrainError::file(&checkpoints, error))?;
    let device = device::device(config.device)?;
    let kind = device::kind(config.dtype, device);
    if config.deterministic {
        device::be_deterministic(device)?;
    }

    let pins = open_pins(&config, &job.pins)?;
    let scratch = job.out.join(SCRATCH);
    let (masker, difference) = masker(&config, &pins, &scratch)?;
    if let Some(difference) = difference {
        say(difference.to_string());
    }
    let prepared = prepare(&config, &pins, &masker, |_| {})?;
    say(prepared.report.summary());

    let (base, mut model) = load(&config, &scratch, masker.tokenizer().ids(), kind, device)?;
    let mut identities = prepared.pin_ids.clone();
    if let Some(lora) = &config.lora {
        model = model.with_adapters(lora, config.seed)?;
        // Every checkpoint goes on beside these weights, which none has.
        identities.push(checkpoint::digest_of_weights(base)?);
    }
    model = model.with_activation_checkpointing(config.batch.activation_checkpointing);
    check_fit(masker.tokenizer().ids(), prepared.packing.longest_tokens(), model.config())
        .map_err(|message| TrainError::file(base, message))?;
    say(format!("{}, {kind:?}, {device:?}", weights_of(&model)));

    let identity = job.identity(prepared.pin_ids.first().cloned());
    let events = Events::open(&job.out, identity, out)?;
    let base_model = config.model.folder.as_ref().map(|folder| folder.display().to_string());
    let mut teller = Teller { events, base_model, say };
    let fingerprint = fingerprint(&config, kind, &identities);
    let places = Places { base, checkpoints: &checkpoints, fingerprint: &fingerprint, interrupt };
    let outcome = sft::run(&config, model, &prepared.packing, &places, &mut teller)?;
    if outcome.end != End::Interrupted {
        (teller.say)(format!("step {}: the checkpoint to use is {}", outcome.state.step, outcome.best.display()));
    }
    Ok(outcome)
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
            let architecture = ModelConfig::scratch(shape, tokens)?;
            let parameters = guard(|| Parameters::draw(&architecture, config.seed, kind, device))?;
            if shape.mimetic_gain > 0.0 {
                parameters.mimic(&architecture, shape.mimetic_gain, shape.previous_token_heads)?;
            }
            Ok((scratch, Qwen::new(architecture, parameters)?))
        }
        ModelSource { .. } => Err(TrainError::Usage("model: give folder, or a [model.scratch]".into())),
    }
}

/// How many weights a model has, and of how many all that is trained consists, for people.
pub(crate) fn weights_of(model: &Qwen) -> String {
    let millions = |count: i64| format!("{:.1} M", count as f64 / 1e6);
    let all = millions(model.parameters().count());
    match model.adapters() {
        None => format!("{all} weights"),
        Some(adapters) => format!("{all} weights, frozen, {} of adapters", millions(adapters.parameters().count())),
    }
}

/// Whether the model has a row for every token, and the positions of every document.
fn check_fit(tokens: u32, longest: i64, model: &ModelConfig) -> Result<(), String> {
    let (vocabulary, most) = (model.vocab_size, model.max_positions);
    if i64::from(tokens) > vocabulary {
        return Err(format!("the tokenizer has {tokens} tokens and the model {vocabulary}"));
    }
    if longest > most {
        return Err(format!(
            "the longest trajectory has {longest} tokens and the model's context {most}: give data.document_tokens_max = \
             {most}, which leaves longer ones out"
        ));
    }
    Ok(())
}

/// What a run is of: its settings, and the digests of its data. Where it computes, how much at a time and what of it is kept
/// for the way back are not part of it, since a run that did not fit goes on elsewhere or in smaller pieces; the number
/// format that follows from the first is.
fn fingerprint(config: &SftConfig, kind: tch::Kind, identities: &[String]) -> String {
    let mut learnt = config.clone();
    (learnt.device, learnt.dtype, learnt.batch.tokens) = (Device::Auto, Dtype::Auto, 0);
    learnt.batch.activation_checkpointing = false;
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(&learnt).unwrap_or_default());
    hash.update(format!("{kind:?}"));
    for identity in identities {
        hash.update(identity);
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
        let uri = checkpoint.folder.display().to_string();
        if self.events.checkpoint(step, &checkpoint.digest, &uri, self.base_model.as_deref(), Utc::now())? {
            (self.say)(format!("step {step}: checkpoint {uri}"));
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), TrainError> {
        Ok(self.events.sync()?)
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::config::LoraConfig;

    #[test]
    fn a_run_stays_the_same_elsewhere_and_in_smaller_pieces_and_not_with_other_settings() {
        let (config, pins) = (SftConfig::preset("demo").unwrap(), ["p".to_string()]);
        let of = |change: &dyn Fn(&mut SftConfig), kind| {
            let mut changed = config.clone();
            change(&mut changed);
            fingerprint(&changed, kind, &pins)
        };
        let same = fingerprint(&config, Kind::Float, &pins);
        assert_eq!(of(&|config| config.batch.tokens = 4_096, Kind::Float), same);
        assert_eq!(of(&|config| config.batch.activation_checkpointing = true, Kind::Float), same);
        assert_ne!(of(&|config| config.lora = Some(LoraConfig::default()), Kind::Float), same);
        assert_eq!(of(&|config| config.device = Device::Cuda(1), Kind::Float), same);
        assert_eq!(of(&|config| config.dtype = Dtype::Fp32, Kind::Float), same);
        assert_ne!(of(&|_| {}, Kind::BFloat16), same);
        assert_ne!(of(&|config| config.batch.trajectories = 3, Kind::Float), same);
        assert_ne!(of(&|config| config.seed = 1, Kind::Float), same);
        assert_ne!(fingerprint(&config, Kind::Float, &["q".to_string()]), same);
    }
}

//! The configuration of an SFT run: one TOML file over a preset.
//!
//! Every key has a default and may be left out. The paper states none of these numbers: each is named after where it
//! comes from, `reference (verl)` for the values of verl's SFT trainer, `reference (DAPO/verl)` for those of the DAPO
//! recipe, `ours` where there is no reference.
//!
//! A file may name a [preset](PRESETS) and change what differs. A mistake is one line with file, key and what is allowed.

mod dapo;
mod data;
mod evaluate;
mod file;
mod learning;
mod lora;
mod model;
mod rollout;

use serde::{Deserialize, Serialize};

pub use self::dapo::{
    DAPO_PRESETS, DapoBatchConfig, DapoConfig, DapoLossConfig, GroupConfig, OldLogProbs, OverlongConfig,
    PolicyAggregation, PolicyConfig,
};
pub use self::data::{BatchConfig, DataConfig, TooLong, ValidationConfig};
pub use self::evaluate::{EVALUATE_PRESETS, EvaluateConfig};
pub use self::file::ConfigError;
pub(crate) use self::file::over;
pub use self::learning::{Aggregation, EarlyStopConfig, LossConfig, OptimizerConfig, ScheduleConfig, ScheduleKind};
pub use self::lora::{LoraConfig, Projection};
pub use self::model::{Family, ModelSource, ScratchModel, SmallTokenizerConfig, SmallTokenizerKind};
pub use self::rollout::{JudgeConfig, JudgeKind, JudgeStyle, RolloutConfig, TrialConfig};

/// The presets by name, each a TOML file of this very format.
pub const PRESETS: [(&str, &str); 5] = [
    ("demo", include_str!("../presets/demo.toml")),
    ("30m", include_str!("../presets/30m.toml")),
    ("0.5b", include_str!("../presets/0.5b.toml")),
    ("1.5b", include_str!("../presets/1.5b.toml")),
    ("7b", include_str!("../presets/7b.toml")),
];

/// An SFT run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// Preset that the file changes; none: the defaults of this module.
    pub preset: Option<String>,
    /// Seed of initialisation, shuffling and the validation split. 0: ours.
    pub seed: u64,
    /// The same bits from the same inputs, on one kind of processor; slower, and not on a GPU. False: ours.
    pub deterministic: bool,
    /// Where the model computes.
    pub device: Device,
    /// In what it computes.
    pub dtype: Dtype,
    /// What is trained.
    pub model: ModelSource,
    /// Adapters that are trained in place of its weights. None: all weights are trained.
    pub lora: Option<LoraConfig>,
    /// What it is trained on.
    pub data: DataConfig,
    /// How much of it at a time.
    pub batch: BatchConfig,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Learning rate over time, and how long to train.
    pub schedule: ScheduleConfig,
    /// The loss.
    pub loss: LossConfig,
    /// Loss on questions that are not trained on.
    pub validation: ValidationConfig,
    /// When to end early.
    pub early_stop: EarlyStopConfig,
    /// What is kept.
    pub checkpoints: CheckpointConfig,
}

impl SftConfig {
    /// Checks ranges; `KEY: what is allowed` if one does not hold.
    fn check(&self) -> Result<(), String> {
        self.model.check()?;
        self.lora.as_ref().map_or(Ok(()), LoraConfig::check)?;
        within(
            self.lora.is_none() || self.model.scratch.is_none(),
            "lora",
            "left out with model.scratch: random weights have learnt nothing that could be kept",
        )?;
        self.data.check()?;
        self.batch.check()?;
        self.optimizer.check()?;
        self.schedule.check()?;
        self.validation.check()?;
        within(
            !self.deterministic || !matches!(self.device, Device::Cuda(_)),
            "deterministic",
            "false where device is a GPU: the same bits are promised on a processor",
        )?;
        self.early_stop.check(&self.validation)?;
        self.checkpoints.check()
    }
}

/// `device`: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Device {
    /// The first GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, from 0.
    Cuda(usize),
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(name: String) -> Result<Device, String> {
        let number = || name.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        match name.as_str() {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            _ => number().map(Device::Cuda).ok_or_else(|| "must be auto, cpu, cuda or cuda:N".to_string()),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> String {
        match device {
            Device::Auto => "auto".to_string(),
            Device::Cpu => "cpu".to_string(),
            Device::Cuda(number) => format!("cuda:{number}"),
        }
    }
}

/// `dtype`: what weights and activations are while the model computes. Master weights and the optimiser's state are
/// always fp32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// bf16 on a GPU, fp32 on a CPU.
    #[default]
    Auto,
    /// 32-bit floats.
    Fp32,
    /// bfloat16, with fp32 masters.
    Bf16,
}

/// `[checkpoints]`: there is always one at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Updates between two checkpoints; 0: only the last. 100: ours.
    pub every_steps: u64,
    /// Checkpoints that are kept, the newest; the one of the lowest validation loss is kept besides. 2: ours.
    pub keep: usize,
    /// Keep the model that the run began with, too, with its validation loss: what training is compared with. false: ours.
    pub initial: bool,
}

impl Default for CheckpointConfig {
    fn default() -> CheckpointConfig {
        CheckpointConfig { every_steps: 100, keep: 2, initial: false }
    }
}

impl CheckpointConfig {
    fn check(&self) -> Result<(), String> {
        within(self.keep >= 1, "checkpoints.keep", "at least 1")
    }
}

fn within(holds: bool, key: &str, allowed: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{key}: must be {allowed}")) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<SftConfig, String> {
        SftConfig::parse(Path::new("sft.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn every_preset_is_a_configuration_once_it_has_a_model() {
        for (name, _) in PRESETS {
            let config = SftConfig::preset(name).unwrap();
            let is_drawn = matches!(name, "demo" | "30m");
            assert_eq!(config.model.scratch.is_some(), is_drawn);
            let model = if is_drawn { "" } else { "[model]\nfolder = 'm'" };
            let text = format!("preset = '{name}'\n{model}");
            let read = parse(&text).unwrap();
            assert_eq!((read.preset.as_deref(), read.batch.tokens), (Some(name), config.batch.tokens));
        }
    }

    #[test]
    fn a_file_changes_its_preset_key_by_key() {
        let demo = SftConfig::preset("demo").unwrap();
        let changed = parse("preset = 'demo'\n[optimizer]\nlr = 0.5\n[model.scratch]\nlayers = 5\n").unwrap();
        assert_eq!((changed.optimizer.lr, changed.optimizer.betas), (0.5, demo.optimizer.betas));
        let (changed, demo) = (changed.model.scratch.unwrap(), demo.model.scratch.unwrap());
        assert_eq!((changed.layers, changed.hidden_size), (5, demo.hidden_size));
        let folder = parse("preset = 'demo'\n[model]\nfolder = 'm'\n").unwrap();
        assert_eq!((folder.model.folder.as_deref(), folder.model.scratch), (Some(Path::new("m")), None));
    }

    #[test]
    fn a_share_of_the_updates_takes_the_place_of_a_presets_number_of_them() {
        let warmup = |text: &str| {
            let schedule = parse(&format!("preset = 'demo'\n{text}")).unwrap().schedule;
            (schedule.warmup_share, schedule.warmup_steps)
        };
        assert_eq!(warmup(""), (0.1, Some(30)));
        assert_eq!(warmup("[schedule]\nwarmup_share = 0.3\n"), (0.3, None));
        assert_eq!(warmup("[schedule]\nwarmup_steps = 3\n"), (0.1, Some(3)));
    }

    #[test]
    fn a_mistake_is_one_line_with_file_key_and_what_is_allowed() {
        let model = "[model]\nfolder = 'm'\n";
        for (text, line) in [
            ("lr = 1\n", "sft.toml:1:1: lr: unknown field `lr`, expected one of `preset`, `seed`"),
            ("[optimizer]\nlr = 'x'\n", "sft.toml:2:6: optimizer.lr: invalid type: string, expected f64"),
            (
                "[loss]\naggregation = 'mean'\n",
                "sft.toml:2:15: loss.aggregation: unknown variant `mean`, expected one of `token-mean`, `seq-mean-token-mean`, `seq-mean-token-sum`",
            ),
            ("device = 'tpu'\n", "sft.toml:1:10: device: must be auto, cpu, cuda or cuda:N"),
            ("preset = '3b'\n", "sft.toml: preset: must be one of demo, 30m, 0.5b, 1.5b, 7b"),
            ("seed = 1\n", "sft.toml: model: give folder, or a [model.scratch]"),
            ("[model]\nfolder = 'm'\n[model.scratch]\n", "sft.toml: model: give folder or scratch, not both"),
            ("[model.scratch]\nkv_heads = 3\n", "sft.toml: model.scratch.kv_heads: must divide heads"),
            (
                "[model.scratch]\nkv_heads = 2\nmimetic_gain = 1\n",
                "sft.toml: model.scratch.mimetic_gain: must be 0 where there are fewer kv_heads than heads",
            ),
            (
                "[model.scratch]\nprevious_token_heads = 1\n",
                "sft.toml: model.scratch.previous_token_heads: must be 0 without a mimetic_gain, and in a qwen2 model",
            ),
            (&format!("{model}[optimizer]\nlr = 0\n"), "sft.toml: optimizer.lr: must be above 0 and at most 1"),
            (&format!("{model}[optimizer]\nlr = nan\n"), "sft.toml: optimizer.lr: must be above 0 and at most 1"),
            (&format!("{model}[validation]\nshare = 0.6\n"), "sft.toml: validation.share: must be from 0 to 0.5"),
            (
                &format!("deterministic = true\ndevice = 'cuda'\n{model}"),
                "sft.toml: deterministic: must be false where device is a GPU: the same bits are promised on a processor",
            ),
            (&format!("{model}[batch]\ntokens = 6\n"), "sft.toml: batch.tokens: must be at least 16"),
            (&format!("{model}[lora]\nrank = 0\n"), "sft.toml: lora.rank: must be from 1 to 4096"),
            (&format!("{model}[lora]\nalpha = 0\n"), "sft.toml: lora.alpha: must be from 1 to 65536"),
            (
                &format!("{model}[lora]\ntargets = []\n"),
                "sft.toml: lora.targets: must be one projection or more, each once",
            ),
            (
                &format!("{model}[lora]\ntargets = ['q', 'v', 'q']\n"),
                "sft.toml: lora.targets: must be one projection or more, each once",
            ),
            (
                "[lora]\ntargets = ['q', 'head']\n",
                "sft.toml:2:17: lora.targets: unknown variant `head`, expected one of `q`, `k`, `v`, `o`, `gate`, `up`, `down`",
            ),
            ("[lora]\ndropout = 0.1\n", "sft.toml:2:1: lora.dropout: unknown field `dropout`, expected one of `rank`"),
            (
                "preset = 'demo'\n[lora]\n",
                "sft.toml: lora: must be left out with model.scratch: random weights have learnt nothing",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(line), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn devices_are_read_and_written() {
        for (name, device) in [("auto", Device::Auto), ("cpu", Device::Cpu), ("cuda:3", Device::Cuda(3))] {
            assert_eq!(Device::try_from(name.to_string()), Ok(device));
            assert_eq!(String::from(device), name);
        }
        assert_eq!(Device::try_from("cuda".to_string()), Ok(Device::Cuda(0)));
    }
}

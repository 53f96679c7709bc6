//! The configuration of a DAPO run: one TOML file over a [preset](DAPO_PRESETS), or over the defaults.
//!
//! Where a value comes from is said at each: *paper* is WebDancer, *DAPO* the paper of that name, `reference (DAPO/verl)`
//! the recipe that its authors published with verl, `ours` where there is no reference.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Table;
use webdancer_agent::reward::RewardParameters;

use super::file::{self, ConfigError};
use super::{
    CheckpointConfig, Device, Dtype, EarlyStopConfig, JudgeConfig, LoraConfig, OptimizerConfig, RolloutConfig,
    ScheduleConfig, ScheduleKind, TrialConfig, within,
};

/// The presets by name, each a TOML file of this very format.
pub const DAPO_PRESETS: [(&str, &str); 2] =
    [("demo", include_str!("../../presets/dapo-demo.toml")), ("30m", include_str!("../../presets/dapo-30m.toml"))];

/// A DAPO run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DapoConfig {
    /// Preset that the file changes; none: the defaults of this module.
    pub preset: Option<String>,
    /// Seed of the order of prompts and of all sampling. 0: ours.
    pub seed: u64,
    /// The same bits from the same inputs, on one kind of machine; slower. False: ours.
    pub deterministic: bool,
    /// Where the model computes.
    pub device: Device,
    /// In what it computes.
    pub dtype: Dtype,
    /// The policy.
    pub policy: PolicyConfig,
    /// Adapters that are trained in place of its weights. None: all weights are trained.
    pub lora: Option<LoraConfig>,
    /// How it is tried.
    pub rollouts: RolloutConfig,
    /// Who says whether an answer is correct.
    pub judge: JudgeConfig,
    /// Groups of rollouts, and which of them are trained on.
    pub groups: GroupConfig,
    /// Punishment of length.
    pub overlong: OverlongConfig,
    /// Reward for format and answer.
    pub reward: RewardParameters,
    /// How many groups make an update, and how much of it is computed at a time.
    pub batch: DapoBatchConfig,
    /// The loss.
    pub loss: DapoLossConfig,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Learning rate over updates, and how long to train: `epochs` are passes through the prompts.
    pub schedule: ScheduleConfig,
    /// Attempts at questions that are not trained on.
    pub validation: TrialConfig,
    /// When to end early: `min_delta` is of the validation accuracy.
    pub early_stop: EarlyStopConfig,
    /// What is kept: `every_steps` are rounds, and the best is the one of the highest validation accuracy.
    pub checkpoints: CheckpointConfig,
}

impl Default for DapoConfig {
    fn default() -> DapoConfig {
        DapoConfig {
            preset: None,
            seed: 0,
            deterministic: false,
            device: Device::default(),
            dtype: Dtype::default(),
            policy: PolicyConfig::default(),
            lora: None,
            rollouts: RolloutConfig::default(),
            judge: JudgeConfig::default(),
            groups: GroupConfig::default(),
            overlong: OverlongConfig::default(),
            reward: RewardParameters::default(),
            batch: DapoBatchConfig::default(),
            loss: DapoLossConfig::default(),
            // 1e-6, 0.1, 1.0: reference (DAPO/verl); betas: AdamW's usual values.
            optimizer: OptimizerConfig { lr: 1e-6, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.1, grad_clip: 1.0 },
            // Constant after 10 updates: reference (DAPO/verl). One pass: ours.
            schedule: ScheduleConfig {
                kind: ScheduleKind::Constant,
                warmup_steps: Some(10),
                epochs: 1,
                ..ScheduleConfig::default()
            },
            validation: TrialConfig::default(),
            early_stop: EarlyStopConfig::default(),
            checkpoints: CheckpointConfig::default(),
        }
    }
}

/// `[policy]`: what is trained.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Folder of the checkpoint to begin with, in Hugging Face's layout. The one given to the command comes in its place.
    pub folder: Option<PathBuf>,
    /// Folder of the checkpoint that `loss.kl` holds the policy to. None: the one that it began with.
    pub reference: Option<PathBuf>,
}

/// `[groups]`: a group is the rollouts of one prompt. It is trained on if some of its answers are correct and some are
/// wrong (dynamic sampling, DAPO section 3.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupConfig {
    /// Rollouts of a prompt, G. 16: paper.
    pub size: usize,
    /// Temperature that they are sampled at, from the whole distribution (top_p 1.0: paper). The loss is that of the policy
    /// at this temperature. 1.0: paper.
    pub temperature: f64,
    /// Whether groups that are all correct or all wrong are left out, and others rolled out in their place. Without, all
    /// groups of two episodes and more are trained on, to measure what it is worth: then `oversampling` above 1 rolls
    /// out what nobody looks at. True: paper.
    pub dynamic_sampling: bool,
    /// Groups that are trained on between two rounds of rollouts. 512: reference (DAPO/verl).
    pub prompts: usize,
    /// Prompts rolled out for each group that is still missing. 3: reference (DAPO/verl: generation batch 3 times the
    /// training batch). It is a matter of time alone: which groups are trained on does not depend on it, as long as
    /// the limit on refills is not reached.
    pub oversampling: f64,
    /// Times that further prompts are rolled out where groups are still missing; then the batch is trained on as it is.
    /// 9: reference (DAPO/verl: 10 generation batches).
    pub refills_max: u32,
    /// Batches in a row without a single group to train on after which the run ends. 5: ours.
    pub empty_batches_max: u32,
    /// Added to the standard deviation that advantages are divided by. 1e-6: reference (verl); TRL has 1e-4.
    pub std_eps: f64,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            size: 16,
            temperature: 1.0,
            dynamic_sampling: true,
            prompts: 512,
            oversampling: 3.0,
            refills_max: 9,
            empty_batches_max: 5,
            std_eps: 1e-6,
        }
    }
}

/// `[overlong]`: soft overlong punishment (DAPO, section 3.4). The paper does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OverlongConfig {
    /// Tokens that the agent may write in a trajectory before it gets the whole punishment; 0: there is none. 20,480:
    /// reference (DAPO/verl).
    pub tokens_max: u64,
    /// Tokens over which the punishment grows, up to `tokens_max`. 4,096: reference (DAPO/verl).
    pub cache_tokens: u64,
}

impl Default for OverlongConfig {
    fn default() -> OverlongConfig {
        OverlongConfig { tokens_max: 20_480, cache_tokens: 4_096 }
    }
}

/// `[batch]`: an update is made over whole groups, cut into micro-batches of so many tokens. What is learnt from it
/// depends on neither `tokens` nor `activation_checkpointing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DapoBatchConfig {
    /// Groups of an update. 32: reference (DAPO/verl: 512 responses, in groups of 16).
    pub groups: usize,
    /// Times that the groups of a round are gone through. 1: reference (DAPO/verl).
    pub passes: u64,
    /// Tokens of a micro-batch, at most; a longer trajectory stands alone. 32,768: ours.
    pub tokens: usize,
    /// Whether layers are run again on the way back, as in fine-tuning. False: ours.
    pub activation_checkpointing: bool,
}

impl Default for DapoBatchConfig {
    fn default() -> DapoBatchConfig {
        DapoBatchConfig { groups: 32, passes: 1, tokens: 32_768, activation_checkpointing: false }
    }
}

/// `[loss]`: of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DapoLossConfig {
    /// How the tokens of an update are brought together. Token-mean: reference (DAPO/verl).
    pub aggregation: PolicyAggregation,
    /// ε_low: a ratio counts from 1 − ε_low on. 0.2: DAPO.
    pub clip_low: f64,
    /// ε_high: a ratio counts up to 1 + ε_high. 0.28: DAPO.
    pub clip_high: f64,
    /// c: with a negative advantage A, a token costs c·|A| at most; 0: no limit. 10: reference (DAPO/verl; verl's own
    /// default is 3).
    pub dual_clip: f64,
    /// β, weight of the divergence from the reference. 0: paper and DAPO have none.
    pub kl: f64,
    /// Whose log-probabilities the ratio is taken to. Sampler: ours.
    pub old_log_probs: OldLogProbs,
}

impl Default for DapoLossConfig {
    fn default() -> DapoLossConfig {
        DapoLossConfig {
            aggregation: PolicyAggregation::TokenMean,
            clip_low: 0.2,
            clip_high: 0.28,
            dual_clip: 10.0,
            kl: 0.0,
            old_log_probs: OldLogProbs::Sampler,
        }
    }
}

/// `aggregation`: the loss of an update over its trained tokens. A sequence is an episode, in however many documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyAggregation {
    /// Mean over all trained tokens of the update: verl's `token-mean`, TRL's `dapo`.
    #[default]
    TokenMean,
    /// Mean over groups of the mean over their trained tokens: the formula in the papers (DAPO, equation 8).
    GroupMeanTokenMean,
    /// Mean over episodes of the mean over their trained tokens: GRPO.
    SeqMeanTokenMean,
    /// Mean over episodes of the sum over their trained tokens.
    SeqMeanTokenSum,
}

/// `old_log_probs`: what a ratio is taken to; it is fixed for all updates of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OldLogProbs {
    /// Those that were recorded when the tokens were drawn.
    #[default]
    Sampler,
    /// Those that the trainer computes before the first update: a forward pass more.
    Trainer,
}

impl DapoConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or holds a mistake.
    pub fn read(file: &Path) -> Result<DapoConfig, ConfigError> {
        DapoConfig::parse(file, &file::text_of(file)?)
    }

    /// The configuration in `text`, the content of `file`.
    ///
    /// # Errors
    /// A key that is not known, a value of the wrong type or out of its range, a preset that does not exist.
    pub fn parse(file: &Path, text: &str) -> Result<DapoConfig, ConfigError> {
        let alone: DapoConfig = file::alone(file, text)?;
        let preset = alone.preset.as_deref().map(|name| file::preset_table(&DAPO_PRESETS, name));
        let base = preset.transpose().map_err(|message| ConfigError::in_file(file, message))?.unwrap_or_default();
        // What a table of the file leaves out is this module's default, not the one of the struct, which SFT has too.
        let defaults = Table::try_from(DapoConfig::default()).map_err(|error| ConfigError::in_file(file, error))?;
        let config: DapoConfig = file::laid_over(file, file::over(defaults, base), text)?;
        config.check().map_err(|message| ConfigError::in_file(file, message))?;
        Ok(config)
    }

    /// Checks ranges; `KEY: what is allowed` if one does not hold.
    fn check(&self) -> Result<(), String> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let weights = [self.reward.format_weight, self.reward.answer_weight];
        self.lora.as_ref().map_or(Ok(()), LoraConfig::check)?;
        self.rollouts.check()?;
        self.judge.check()?;
        self.groups.check()?;
        within(
            self.overlong.cache_tokens <= self.overlong.tokens_max,
            "overlong.cache_tokens",
            "at most overlong.tokens_max",
        )?;
        within(weights.into_iter().all(share), "reward", "weights from 0 to 1")?;
        within(
            self.reward.answer_weight > 0.0,
            "reward.answer_weight",
            "above 0: there is nothing else to learn from",
        )?;
        within(self.batch.groups >= 1, "batch.groups", "at least 1")?;
        within((1..=100).contains(&self.batch.passes), "batch.passes", "from 1 to 100")?;
        within(self.batch.tokens >= 1, "batch.tokens", "at least 1")?;
        self.loss.check()?;
        within(
            self.policy.reference.is_none() || self.loss.kl > 0.0,
            "policy.reference",
            "left out where loss.kl is 0: nothing looks at it",
        )?;
        self.optimizer.check()?;
        self.schedule.check()?;
        self.validation.check()?;
        within(
            self.early_stop.patience == 0 || self.validation.share > 0.0,
            "early_stop.patience",
            "0 where validation.share is 0: there is no accuracy to wait for",
        )?;
        self.checkpoints.check()
    }
}

impl GroupConfig {
    fn check(&self) -> Result<(), String> {
        within(
            (2..=4_096).contains(&self.size),
            "groups.size",
            "from 2 to 4096: one rollout has nothing to compare with",
        )?;
        within((0.01..=100.0).contains(&self.temperature), "groups.temperature", "from 0.01 to 100")?;
        within((1..=65_536).contains(&self.prompts), "groups.prompts", "from 1 to 65536")?;
        within((1.0..=100.0).contains(&self.oversampling), "groups.oversampling", "from 1 to 100")?;
        within(self.refills_max <= 1_000, "groups.refills_max", "at most 1000")?;
        within(self.empty_batches_max >= 1, "groups.empty_batches_max", "at least 1")?;
        within(self.std_eps > 0.0 && self.std_eps < 1.0, "groups.std_eps", "above 0 and below 1")
    }
}

impl DapoLossConfig {
    fn check(&self) -> Result<(), String> {
        within(self.clip_low > 0.0 && self.clip_low <= 1.0, "loss.clip_low", "above 0 and at most 1")?;
        within(self.clip_high > 0.0 && self.clip_high <= 100.0, "loss.clip_high", "above 0 and at most 100")?;
        within(
            self.dual_clip == 0.0 || (self.dual_clip.is_finite() && self.dual_clip > 1.0),
            "loss.dual_clip",
            "0, or above 1",
        )?;
        within(self.kl.is_finite() && self.kl >= 0.0, "loss.kl", "0 or above")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DapoConfig, String> {
        DapoConfig::parse(Path::new("dapo.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_file_leaves_out_is_as_it_is_by_default() {
        assert_eq!(parse(""), Ok(DapoConfig::default()));
        let changed =
            parse("[optimizer]\nlr = 1e-5\n[schedule]\nepochs = 2\n[loss]\naggregation = 'group-mean-token-mean'\n");
        let mut expected = DapoConfig::default();
        expected.optimizer.lr = 1e-5;
        expected.schedule.epochs = 2;
        expected.loss.aggregation = PolicyAggregation::GroupMeanTokenMean;
        assert_eq!(changed, Ok(expected));
    }

    #[test]
    fn the_defaults_are_the_papers_and_the_recipes() {
        let DapoConfig { groups, overlong, batch, loss, optimizer, schedule, .. } = DapoConfig::default();
        assert_eq!((groups.size, groups.prompts, groups.oversampling, groups.refills_max), (16, 512, 3.0, 9));
        assert_eq!((overlong.tokens_max, overlong.cache_tokens), (20_480, 4_096));
        assert_eq!((batch.groups * groups.size, batch.passes), (512, 1));
        assert_eq!((loss.clip_low, loss.clip_high, loss.dual_clip, loss.kl), (0.2, 0.28, 10.0, 0.0));
        assert_eq!((optimizer.lr, optimizer.weight_decay, optimizer.grad_clip), (1e-6, 0.1, 1.0));
        assert_eq!((schedule.kind, schedule.warmup_steps), (ScheduleKind::Constant, Some(10)));
    }

    #[test]
    fn every_preset_is_a_configuration_that_a_file_changes() {
        for (name, _) in DAPO_PRESETS {
            let preset = parse(&format!("preset = '{name}'")).unwrap();
            let changed = parse(&format!("preset = '{name}'\n[groups]\nsize = 5\n")).unwrap();
            assert_eq!((changed.groups.size, changed.groups.prompts), (5, preset.groups.prompts));
        }
    }

    #[test]
    fn a_mistake_is_one_line_with_file_key_and_what_is_allowed() {
        for (text, line) in [
            (
                "[groups]\nG = 1\n",
                "dapo.toml:2:1: groups.G: unknown field `G`, expected one of `size`, `temperature`, `dynamic_sampling`",
            ),
            ("[loss]\nclip_low = 'x'\n", "dapo.toml:2:12: loss.clip_low: invalid type: string, expected f64"),
            ("preset = 'x'\n", "dapo.toml: preset: must be one of demo"),
            ("[groups]\nsize = 1\n", "dapo.toml: groups.size: must be from 2 to 4096: one rollout has nothing"),
            ("[groups]\noversampling = nan\n", "dapo.toml: groups.oversampling: must be from 1 to 100"),
            ("[overlong]\ntokens_max = 1\n", "dapo.toml: overlong.cache_tokens: must be at most overlong.tokens_max"),
            ("[reward]\nanswer_weight = 0\n", "dapo.toml: reward.answer_weight: must be above 0"),
            ("[loss]\ndual_clip = 1\n", "dapo.toml: loss.dual_clip: must be 0, or above 1"),
            ("[loss]\nkl = -1\n", "dapo.toml: loss.kl: must be 0 or above"),
            ("[policy]\nreference = 'm'\n", "dapo.toml: policy.reference: must be left out where loss.kl is 0"),
            ("[optimizer]\nlr = 0\n", "dapo.toml: optimizer.lr: must be above 0 and at most 1"),
            ("[lora]\nrank = 0\n", "dapo.toml: lora.rank: must be from 1 to 4096"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(line), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}

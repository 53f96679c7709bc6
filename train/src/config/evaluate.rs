//! The configuration of an evaluation: a checkpoint attempts questions on a closed web, and nothing is learnt.

use std::path::Path;

use serde::{Deserialize, Serialize};
use webdancer_agent::reward::RewardParameters;

use super::file::{self, ConfigError};
use super::{Device, Dtype, JudgeConfig, RolloutConfig, within};

/// The presets by name, each a TOML file of this very format.
pub const EVALUATE_PRESETS: [(&str, &str); 1] = [("demo", include_str!("../../presets/evaluate-demo.toml"))];

/// An evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateConfig {
    /// Preset that the file changes; none: the defaults of this module.
    pub preset: Option<String>,
    /// Seed of all sampling. Which questions are asked does not depend on it. 0: ours.
    pub seed: u64,
    /// The same bits from the same inputs, on one kind of machine; slower. False: ours.
    pub deterministic: bool,
    /// Where the model computes.
    pub device: Device,
    /// In what it computes.
    pub dtype: Dtype,
    /// Questions asked, at most; the same ones of a pin each time. 500: ours.
    pub questions_max: usize,
    /// Attempts at each. 3: paper, which tells Pass@3.
    pub attempts: u32,
    /// The k of each Pass@k that is told, from 1 to `attempts`. 1 and 3: paper.
    pub pass_at: Vec<u32>,
    /// 0.6: paper, at inference.
    pub temperature: f64,
    /// 0.95: paper, at inference.
    pub top_p: f64,
    /// How it is tried.
    pub rollouts: RolloutConfig,
    /// Who says whether an answer is correct.
    pub judge: JudgeConfig,
    /// Reward for format and answer.
    pub reward: RewardParameters,
}

impl Default for EvaluateConfig {
    fn default() -> EvaluateConfig {
        EvaluateConfig {
            preset: None,
            seed: 0,
            deterministic: false,
            device: Device::default(),
            dtype: Dtype::default(),
            questions_max: 500,
            attempts: 3,
            pass_at: vec![1, 3],
            temperature: 0.6,
            top_p: 0.95,
            rollouts: RolloutConfig::default(),
            judge: JudgeConfig::default(),
            reward: RewardParameters::default(),
        }
    }
}

impl EvaluateConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or holds a mistake.
    pub fn read(file: &Path) -> Result<EvaluateConfig, ConfigError> {
        EvaluateConfig::parse(file, &file::text_of(file)?)
    }

    /// The configuration in `text`, the content of `file`.
    ///
    /// # Errors
    /// A key that is not known, a value of the wrong type or out of its range, a preset that does not exist.
    pub fn parse(file: &Path, text: &str) -> Result<EvaluateConfig, ConfigError> {
        let alone: EvaluateConfig = file::alone(file, text)?;
        let config = match &alone.preset {
            None => alone,
            Some(name) => {
                let base = file::preset_table(&EVALUATE_PRESETS, name);
                file::laid_over(file, base.map_err(|message| ConfigError::in_file(file, message))?, text)?
            }
        };
        config.check().map_err(|message| ConfigError::in_file(file, message))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        within(self.questions_max >= 1, "questions_max", "at least 1")?;
        within((1..=1_024).contains(&self.attempts), "attempts", "from 1 to 1024")?;
        let told = |k: &u32| (1..=self.attempts).contains(k);
        within(
            !self.pass_at.is_empty() && self.pass_at.iter().all(told),
            "pass_at",
            "one number or more, from 1 to attempts",
        )?;
        within((0.0..=100.0).contains(&self.temperature), "temperature", "from 0 to 100")?;
        within(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", "above 0 and at most 1")?;
        self.rollouts.check()?;
        self.judge.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<EvaluateConfig, String> {
        EvaluateConfig::parse(Path::new("evaluate.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_file_leaves_out_is_as_it_is_by_default_or_in_its_preset() {
        assert_eq!(parse(""), Ok(EvaluateConfig::default()));
        let found = parse("preset = 'demo'\ntemperature = 1.0\n[rollouts]\nthreads = 1\n").unwrap();
        assert_eq!((found.temperature, found.top_p), (1.0, 0.95));
        assert_eq!((found.rollouts.threads, found.rollouts.profile.as_str()), (1, "compact"));
    }

    #[test]
    fn a_mistake_is_one_line_with_file_key_and_what_is_allowed() {
        for (text, line) in [
            ("attempt = 1\n", "evaluate.toml:1:1: attempt: unknown field `attempt`, expected one of `preset`, `seed`"),
            ("preset = '7b'\n", "evaluate.toml: preset: must be one of demo"),
            ("attempts = 2\n", "evaluate.toml: pass_at: must be one number or more, from 1 to attempts"),
            ("pass_at = []\n", "evaluate.toml: pass_at: must be one number or more, from 1 to attempts"),
            ("temperature = -1\n", "evaluate.toml: temperature: must be from 0 to 100"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(line) && !error.contains('\n'), "{error}");
        }
    }
}

//! How a policy is tried: rollouts, the web they act on, who judges them, and questions kept back to validate on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use webdancer_agent::chat::{EndpointConfig, Sampling};
use webdancer_agent::judge::Style;
use webdancer_agent::react::{Cot, ReactConfig};

use super::within;

/// `[rollouts]`: attempts at questions, made in the trainer's process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutConfig {
    /// Attempts at a time. 64: ours.
    pub episodes_max: usize,
    /// Tokens of a conversation, at most; the model's own limit if that is lower. 32,768: ours.
    pub context_tokens_max: usize,
    /// Tokens of prompts that are read between two tokens of the attempts under way. 8,192: ours.
    pub prompt_tokens_per_step: usize,
    /// Tokens are written in steps of fixed shapes, which a GPU records as CUDA graphs. Off; unmeasured.
    // Not told where it is off: runs that were begun before there was such a key are the same runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cuda_graphs: bool,
    /// Threads that tools and judges run on. 2: ours.
    pub threads: usize,
    /// Prompt profile: `standard`, `compact`, or the file of one. Standard: ours.
    pub profile: String,
    /// The agent's budgets, as `[agent]` of `webdancer.toml` has them. Its sampling is not used.
    pub agent: ReactConfig,
    /// Pages of the closed web. 500,000: ours.
    pub pages_max: u64,
    /// Bytes of one file of a pin. 16 GiB: ours.
    pub file_bytes_max: u64,
}

impl Default for RolloutConfig {
    fn default() -> RolloutConfig {
        RolloutConfig {
            episodes_max: 64,
            context_tokens_max: 32_768,
            prompt_tokens_per_step: 8_192,
            cuda_graphs: false,
            threads: 2,
            profile: "standard".to_string(),
            agent: ReactConfig::default(),
            pages_max: 500_000,
            file_bytes_max: 16 << 30,
        }
    }
}

impl RolloutConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        within((1..=4_096).contains(&self.episodes_max), "rollouts.episodes_max", "from 1 to 4096")?;
        within(self.context_tokens_max >= 16, "rollouts.context_tokens_max", "at least 16")?;
        within(self.prompt_tokens_per_step >= 1, "rollouts.prompt_tokens_per_step", "at least 1")?;
        within((1..=256).contains(&self.threads), "rollouts.threads", "from 1 to 256")?;
        within(!self.profile.is_empty(), "rollouts.profile", "standard, compact, or a file")?;
        within(self.agent.calls_max >= 1, "rollouts.agent.calls_max", "at least 1")?;
        within(
            self.agent.cot == Cot::Short,
            "rollouts.agent.cot",
            "short: what is trained is what was read, and past thoughts are part of it",
        )?;
        within(
            self.agent.sampling == Sampling::default(),
            "rollouts.agent.sampling",
            "left out: rollouts are sampled at groups.temperature from the whole distribution, and those that measure at \
             their own",
        )?;
        within(self.pages_max >= 1, "rollouts.pages_max", "at least 1")?;
        within(self.file_bytes_max >= 1, "rollouts.file_bytes_max", "at least 1")
    }
}

/// `[judge]`: who says whether an answer is correct.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JudgeConfig {
    /// Which. Normalised: ours; the paper asks a model.
    pub kind: JudgeKind,
    /// How a model is asked. Match: ours.
    pub style: JudgeStyle,
    /// Base URL of the model's endpoint, such as `http://127.0.0.1:8000/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Environment variable that holds the endpoint's key.
    pub api_key_env: Option<String>,
    /// File that holds the key.
    pub api_key_file: Option<PathBuf>,
    /// Requests at once. 16: ours.
    pub concurrency: usize,
    /// Attempts at a request before the judge has failed. 6: ours.
    pub attempts_max: u32,
}

impl Default for JudgeConfig {
    fn default() -> JudgeConfig {
        JudgeConfig {
            kind: JudgeKind::Normalised,
            style: JudgeStyle::Match,
            url: String::new(),
            model: String::new(),
            api_key_env: None,
            api_key_file: None,
            concurrency: 16,
            attempts_max: 6,
        }
    }
}

/// `kind` of a judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgeKind {
    /// Equality.
    Exact,
    /// Equality of normal forms.
    #[default]
    Normalised,
    /// GAIA's quasi-exact match.
    Gaia,
    /// A model behind an endpoint.
    Model,
}

impl JudgeKind {
    /// The name of a judge by rules.
    pub fn name(self) -> &'static str {
        match self {
            JudgeKind::Exact => "exact",
            JudgeKind::Normalised => "normalised",
            JudgeKind::Gaia => "gaia",
            JudgeKind::Model => "model",
        }
    }
}

/// `style`: how a model is asked to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgeStyle {
    /// Correct or Incorrect.
    #[default]
    Match,
    /// The answer is extracted, then compared.
    Extract,
    /// A, B or C.
    Grade,
}

impl From<JudgeStyle> for Style {
    fn from(style: JudgeStyle) -> Style {
        match style {
            JudgeStyle::Match => Style::Match,
            JudgeStyle::Extract => Style::Extract,
            JudgeStyle::Grade => Style::Grade,
        }
    }
}

impl JudgeConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        let asks = self.kind == JudgeKind::Model;
        within(asks || self.url.is_empty(), "judge.url", "left out where judge.kind is not model: nobody is asked")?;
        within(!asks || !self.url.is_empty(), "judge.url", "an endpoint's base URL where judge.kind is model")?;
        within(!asks || !self.model.is_empty(), "judge.model", "a model's name where judge.kind is model")?;
        within((1..=4_096).contains(&self.concurrency), "judge.concurrency", "from 1 to 4096")?;
        within(self.attempts_max >= 1, "judge.attempts_max", "at least 1")
    }

    /// The endpoint of a judge that is a model.
    pub fn endpoint(&self) -> EndpointConfig {
        EndpointConfig {
            url: self.url.clone().into(),
            model: self.model.clone(),
            api_key_env: self.api_key_env.clone(),
            api_key_file: self.api_key_file.clone(),
            concurrency: self.concurrency,
            attempts_max: self.attempts_max,
            ..EndpointConfig::default()
        }
    }
}

/// `[validation]` of a DAPO run: questions that share no root question and no entity with the trained ones, attempted as
/// in evaluation. The checkpoint with the highest mean correctness is the best one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrialConfig {
    /// Share of the questions, about; 0: none. 0.05: ours.
    pub share: f64,
    /// Questions attempted, at most: the first of those kept back. 128: ours.
    pub questions_max: usize,
    /// Attempts at each. 1: ours.
    pub attempts: u32,
    /// Rounds between two looks; there is one before the first and one behind the last. 10: ours.
    pub every_rounds: u64,
    /// 0.6: paper, at inference.
    pub temperature: f64,
    /// 0.95: paper, at inference.
    pub top_p: f64,
}

impl Default for TrialConfig {
    fn default() -> TrialConfig {
        TrialConfig { share: 0.05, questions_max: 128, attempts: 1, every_rounds: 10, temperature: 0.6, top_p: 0.95 }
    }
}

impl TrialConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        within((0.0..=0.5).contains(&self.share), "validation.share", "from 0 to 0.5")?;
        within(self.questions_max >= 1, "validation.questions_max", "at least 1")?;
        within((1..=1_024).contains(&self.attempts), "validation.attempts", "from 1 to 1024")?;
        within(self.every_rounds >= 1, "validation.every_rounds", "at least 1")?;
        within((0.0..=100.0).contains(&self.temperature), "validation.temperature", "from 0 to 100")?;
        within(self.top_p > 0.0 && self.top_p <= 1.0, "validation.top_p", "above 0 and at most 1")
    }
}

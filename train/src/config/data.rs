//! `[data]`, `[batch]`, `[validation]`: what it is trained on, how much at a time, and what is kept back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::within;

/// `[data]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Manifests of pins of trajectories. Those given to the command come in their place.
    pub pins: Vec<PathBuf>,
    /// Tokens of a trajectory, at most. 32,768: reference (LLaMA-Factory's cutoff for these trajectories).
    pub document_tokens_max: usize,
    /// What becomes of longer ones; none is ever cut. Skip: ours.
    pub too_long: TooLong,
    /// Whether trajectories whose answer was forced are trained on. False: ours.
    pub forced_answers: bool,
    /// Whether what tools answered is trained on, too: everything from the agent's first token to its last. It is there
    /// to measure what the mask is worth. False: paper.
    pub observations: bool,
    /// Whether token ids that were recorded by this very tokenizer are used as they are. True: ours.
    pub recorded_tokens: bool,
    /// Bytes of one file of a pin. 16 GiB: ours.
    pub file_bytes_max: u64,
    /// Tokens of all trajectories in memory, 5 bytes each. 4e9: ours.
    pub tokens_max: u64,
}

impl Default for DataConfig {
    fn default() -> DataConfig {
        DataConfig {
            pins: Vec::new(),
            document_tokens_max: 32_768,
            too_long: TooLong::Skip,
            forced_answers: false,
            observations: false,
            recorded_tokens: true,
            file_bytes_max: 16 << 30,
            tokens_max: 4_000_000_000,
        }
    }
}

impl DataConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        within(self.document_tokens_max >= 16, "data.document_tokens_max", "at least 16")?;
        within(self.file_bytes_max > 0, "data.file_bytes_max", "at least 1")?;
        within(self.tokens_max > 0, "data.tokens_max", "at least 1")
    }
}

/// `too_long`: what becomes of a trajectory with more tokens than `document_tokens_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// It is left out, and counted.
    #[default]
    Skip,
    /// The run fails.
    Fail,
}

/// `[batch]`: an update is made over a number of trajectories, cut into micro-batches of so many tokens. What is
/// learnt from it depends on neither `tokens` nor `activation_checkpointing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Trajectories of an update. 256: reference (verl).
    pub trajectories: usize,
    /// Tokens of a micro-batch, at most: what fits into memory at a time. A trajectory that is longer is one by itself.
    /// 32,768: ours.
    pub tokens: usize,
    /// Whether layers are run again on the way back, so that of each only its input is kept: memory for time, a forward
    /// pass more. The gradients are the same. False: ours.
    pub activation_checkpointing: bool,
}

impl Default for BatchConfig {
    fn default() -> BatchConfig {
        BatchConfig { trajectories: 256, tokens: 32_768, activation_checkpointing: false }
    }
}

impl BatchConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        within(self.trajectories >= 1, "batch.trajectories", "at least 1")?;
        within(self.tokens >= 16, "batch.tokens", "at least 16")
    }
}

/// `[validation]`: questions that share no root question and no entity with the trained ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationConfig {
    /// Share of the trajectories, about: groups of questions stay together. 0: none. 0.05: ours.
    pub share: f64,
    /// Updates between two looks at it. 50: ours.
    pub every_steps: u64,
    /// Trajectories kept back, at most. 512: ours.
    pub trajectories_max: usize,
}

impl Default for ValidationConfig {
    fn default() -> ValidationConfig {
        ValidationConfig { share: 0.05, every_steps: 50, trajectories_max: 512 }
    }
}

impl ValidationConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        within((0.0..=0.5).contains(&self.share), "validation.share", "from 0 to 0.5")?;
        within(self.every_steps >= 1, "validation.every_steps", "at least 1")?;
        within(self.trajectories_max >= 1, "validation.trajectories_max", "at least 1")
    }
}

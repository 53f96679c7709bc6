//! `[lora]`: adapters of low rank.

use serde::{Deserialize, Serialize};

use super::within;

/// `[lora]`: adapters are trained in place of the weights (LoRA: Hu and others, 2021). Beside a matrix W stand A and B, and
/// an input x gives W·x + (alpha / rank)·B·A·x. There is no dropout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rows of A, columns of B. 16: ours; reference (LLaMA-Factory) has 8.
    pub rank: u32,
    /// What is learnt weighs alpha / rank. 32: ours; reference (LLaMA-Factory) has twice the rank, too.
    pub alpha: u32,
    /// The projections that adapters stand beside, in every layer. All: reference (LLaMA-Factory).
    pub targets: Vec<Projection>,
}

impl Default for LoraConfig {
    fn default() -> LoraConfig {
        LoraConfig { rank: 16, alpha: 32, targets: Projection::ALL.to_vec() }
    }
}

impl LoraConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        within((1..=4_096).contains(&self.rank), "lora.rank", "from 1 to 4096")?;
        within((1..=65_536).contains(&self.alpha), "lora.alpha", "from 1 to 65536")?;
        let twice = self.targets.iter().enumerate().any(|(at, target)| self.targets[..at].contains(target));
        within(!self.targets.is_empty() && !twice, "lora.targets", "one projection or more, each once")
    }
}

/// A matrix of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Projection {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// What attention gives.
    O,
    /// The gate of the feed-forward layer.
    Gate,
    /// What the gate lets through.
    Up,
    /// Out of the feed-forward layer.
    Down,
}

impl Projection {
    /// All of a layer.
    pub const ALL: [Projection; 7] = [
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::O,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    /// The name of its module in transformers.
    pub fn module(self) -> &'static str {
        match self {
            Projection::Q => "q_proj",
            Projection::K => "k_proj",
            Projection::V => "v_proj",
            Projection::O => "o_proj",
            Projection::Gate => "gate_proj",
            Projection::Up => "up_proj",
            Projection::Down => "down_proj",
        }
    }
}

//! `[model]`: what is trained.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[model]`: a model's folder, or a shape to initialise.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSource {
    /// Folder in Hugging Face's layout: config.json, tokenizer.json, *.safetensors.
    pub folder: Option<PathBuf>,
    /// A model from nothing, in place of `folder`.
    pub scratch: Option<ScratchModel>,
}

impl ModelSource {
    pub(super) fn check(&self) -> Result<(), String> {
        match (&self.folder, &self.scratch) {
            (Some(_), Some(_)) => Err("model: give folder or scratch, not both".to_string()),
            (None, None) => Err("model: give folder, or a [model.scratch]".to_string()),
            (None, Some(scratch)) => scratch.check(),
            (Some(_), None) => Ok(()),
        }
    }
}

/// Architecture of a dense decoder, and its family of chat templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Qwen2, Qwen2.5, QwQ: biases on queries, keys and values.
    Qwen2,
    /// Qwen3 dense: normalised queries and keys, no biases.
    #[default]
    Qwen3,
}

/// `[model.scratch]`: the shape of a model that begins with random weights. All defaults are ours: the learner of the
/// closed web, about a million parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScratchModel {
    /// Architecture.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; they divide the query heads.
    pub kv_heads: usize,
    /// Width of a head, even.
    pub head_dim: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: usize,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Positions that the model is meant for.
    pub positions_max: usize,
    /// Whether the output layer is the embedding.
    pub tie_embeddings: bool,
    /// Standard deviation of the initial weights.
    pub init_std: f64,
    /// How strongly heads begin as ones that copy: keys with the weights of queries, outputs with those of values,
    /// transposed and times this. 0: all weights are drawn by themselves.
    pub mimetic_gain: f64,
    /// Heads of the first layer that begin as ones that look at the token before, and so make induction heads of later ones,
    /// which copy what followed. 0: none does. It takes a `mimetic_gain` and the family qwen3.
    pub previous_token_heads: usize,
    /// Its tokenizer, made from the data.
    pub tokenizer: SmallTokenizerConfig,
}

impl Default for ScratchModel {
    fn default() -> ScratchModel {
        ScratchModel {
            family: Family::Qwen3,
            hidden_size: 128,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            head_dim: 32,
            intermediate_size: 384,
            rope_theta: 10_000.0,
            positions_max: 4_096,
            tie_embeddings: true,
            init_std: 0.02,
            mimetic_gain: 0.0,
            previous_token_heads: 0,
            tokenizer: SmallTokenizerConfig::default(),
        }
    }
}

impl ScratchModel {
    fn check(&self) -> Result<(), String> {
        let size = |value: usize, max: usize, key: &str| {
            let holds = (1..=max).contains(&value);
            if holds { Ok(()) } else { Err(format!("model.scratch.{key}: must be from 1 to {max}")) }
        };
        size(self.hidden_size, 16_384, "hidden_size")?;
        size(self.layers, 256, "layers")?;
        size(self.heads, 256, "heads")?;
        size(self.kv_heads, 256, "kv_heads")?;
        size(self.head_dim, 512, "head_dim")?;
        size(self.intermediate_size, 131_072, "intermediate_size")?;
        size(self.positions_max, 1 << 24, "positions_max")?;
        size(self.tokenizer.piece_count_min, 1 << 30, "tokenizer.piece_count_min")?;
        let within = |holds: bool, key: &str, allowed: &str| {
            if holds { Ok(()) } else { Err(format!("model.scratch.{key}: must {allowed}")) }
        };
        within(self.heads.is_multiple_of(self.kv_heads), "kv_heads", "divide heads")?;
        within(self.head_dim.is_multiple_of(2), "head_dim", "be even")?;
        within(
            self.family == Family::Qwen3 || self.heads * self.head_dim == self.hidden_size,
            "head_dim",
            "be hidden_size / heads in a qwen2 model",
        )?;
        within(self.rope_theta.is_finite() && self.rope_theta >= 1.0, "rope_theta", "be at least 1")?;
        within(self.init_std > 0.0 && self.init_std <= 1.0, "init_std", "be above 0 and at most 1")?;
        within((0.0..=16.0).contains(&self.mimetic_gain), "mimetic_gain", "be from 0 to 16")?;
        within(
            self.mimetic_gain == 0.0 || self.heads == self.kv_heads,
            "mimetic_gain",
            "be 0 where there are fewer kv_heads than heads",
        )?;
        within(self.previous_token_heads <= self.heads, "previous_token_heads", "be at most heads")?;
        within(
            self.previous_token_heads == 0 || (self.mimetic_gain > 0.0 && self.family == Family::Qwen3),
            "previous_token_heads",
            "be 0 without a mimetic_gain, and in a qwen2 model",
        )?;
        let tokenizer = &self.tokenizer;
        within((0.0..=1.0).contains(&tokenizer.word_share_min), "tokenizer.word_share_min", "be from 0 to 1")?;
        within((1..=8).contains(&tokenizer.piece_letters), "tokenizer.piece_letters", "be from 1 to 8")?;
        within(tokenizer.words_max <= 65_536, "tokenizer.words_max", "be at most 65536")?;
        within(tokenizer.pieces_max <= 65_536, "tokenizer.pieces_max", "be at most 65536")
    }
}

/// `[model.scratch.tokenizer]`: the small tokenizer of a model from nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SmallTokenizerConfig {
    /// What text is cut into.
    pub kind: SmallTokenizerKind,
    /// Whole words that get a token, at most.
    pub words_max: usize,
    /// Share of the trajectories that a word must occur in to get one.
    pub word_share_min: f64,
    /// Letters of a piece, from 1 to 8. The fewer, the fewer pieces there are, and the more often each is trained.
    pub piece_letters: usize,
    /// Pieces that get a token, at most.
    pub pieces_max: usize,
    /// Times that a piece must occur in trained text to get one: a token that is never trained is never learnt.
    pub piece_count_min: usize,
}

impl Default for SmallTokenizerConfig {
    fn default() -> SmallTokenizerConfig {
        SmallTokenizerConfig {
            kind: SmallTokenizerKind::Pieces,
            words_max: 512,
            word_share_min: 0.2,
            piece_letters: 2,
            pieces_max: 4_096,
            piece_count_min: 20,
        }
    }
}

/// `kind`: what a small tokenizer cuts text into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmallTokenizerKind {
    /// Frequent words, pieces of a few letters, and bytes for the rest.
    #[default]
    Pieces,
    /// Bytes alone.
    Bytes,
}

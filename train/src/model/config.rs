//! `config.json`: which architecture, and its sizes.

use std::path::Path;

use serde_json::{Map, Value, json};
use tch::Kind;

use super::rope::Yarn;
use super::weights::write_bytes;
use crate::config::{Family, ScratchModel};
use crate::error::TrainError;
use crate::input::read_file;

/// Bytes of a `config.json`.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Sizes at most, several times those of the largest dense models: products of them are then far from the end of 64 bits,
/// and a file of a few bytes cannot ask for more layers than could be listed.
const SIZES_MAX: [(&str, i64); 8] = [
    ("vocab_size", 1 << 24),
    ("hidden_size", 1 << 17),
    ("intermediate_size", 1 << 20),
    ("num_hidden_layers", 1 << 10),
    ("num_attention_heads", 1 << 12),
    ("num_key_value_heads", 1 << 12),
    ("head_dim", 1 << 12),
    ("max_position_embeddings", 1 << 32),
];

/// What a model is, as far as its computation goes; sizes are counts of elements.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Architecture.
    pub family: Family,
    /// Rows of the embedding, V.
    pub vocab_size: i64,
    /// Width of the residual stream, d.
    pub hidden_size: i64,
    /// Width inside the SwiGLU.
    pub intermediate_size: i64,
    /// Layers, L.
    pub layers: i64,
    /// Query heads.
    pub heads: i64,
    /// Key and value heads; divides `heads`.
    pub kv_heads: i64,
    /// Width of a head; even.
    pub head_dim: i64,
    /// Inside the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How they are stretched, where they are.
    pub yarn: Option<Yarn>,
    /// The head is the embedding, transposed.
    pub tied: bool,
    /// Biases on queries, keys and values.
    pub qkv_bias: bool,
    /// Bias behind attention (Qwen3 with `attention_bias`).
    pub output_bias: bool,
    /// Longest context, in tokens.
    pub max_positions: i64,
    /// Standard deviation of freshly drawn matrices.
    pub initializer_range: f64,
    /// The file as it was read: saved again with what this program does not know.
    pub raw: Map<String, Value>,
}

impl ModelConfig {
    /// Reads `config.json` of a folder.
    ///
    /// # Errors
    ///
    /// The file is missing, broken, or asks for what is not implemented here; nothing is silently ignored that would change
    /// the result.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join("config.json");
        let text = read_file(&path, FILE_BYTES_MAX)?;
        let raw: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|error| TrainError::file(&path, format!("is not JSON: {error}")))?;
        Self::parse(raw).map_err(|message| TrainError::file(&path, message))
    }

    /// Takes the members of a `config.json`.
    ///
    /// # Errors
    ///
    /// One line that names the member.
    pub fn parse(raw: Map<String, Value>) -> Result<Self, String> {
        let fields = Fields(&raw);
        let family = match raw.get("model_type").and_then(Value::as_str) {
            Some("qwen2") => Family::Qwen2,
            Some("qwen3") => Family::Qwen3,
            other => {
                return Err(format!("architecture {} is not known; qwen2 and qwen3 are", other.unwrap_or("(none)")));
            }
        };
        fields.refuse_unknown_computations()?;
        let hidden_size = fields.size("hidden_size")?;
        let heads = fields.size("num_attention_heads")?;
        let head_dim = match fields.optional_size("head_dim")? {
            Some(size) => size,
            None if hidden_size % heads == 0 => hidden_size / heads,
            None => return Err(format!("hidden_size {hidden_size} is not a multiple of {heads} heads")),
        };
        let attention_bias = fields.flag("attention_bias", false)?;
        let positions = fields.optional_size("max_position_embeddings")?.unwrap_or(32_768);
        let yarn = fields.yarn(positions)?;
        let config = Self {
            family,
            vocab_size: fields.size("vocab_size")?,
            hidden_size,
            intermediate_size: fields.size("intermediate_size")?,
            layers: fields.size("num_hidden_layers")?,
            heads,
            kv_heads: fields.optional_size("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            rms_norm_eps: fields.number("rms_norm_eps", 1e-6)?,
            rope_theta: fields.rope_theta()?,
            max_positions: yarn.as_ref().map_or(positions, |yarn| yarn.positions().max(positions)),
            yarn,
            tied: fields.flag("tie_word_embeddings", false)?,
            qkv_bias: family == Family::Qwen2 || attention_bias,
            output_bias: family == Family::Qwen3 && attention_bias,
            initializer_range: fields.number("initializer_range", 0.02)?,
            raw: raw.clone(),
        };
        if config.heads % config.kv_heads != 0 {
            return Err(format!("{} heads are not a multiple of {} key-value heads", config.heads, config.kv_heads));
        }
        if config.head_dim % 2 != 0 {
            return Err(format!("head_dim {} is odd; rotary positions need pairs", config.head_dim));
        }
        Ok(config)
    }

    /// Writes `config.json` for weights stored in this number format.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write(&self, folder: &Path, stored: Kind) -> Result<(), TrainError> {
        let name = if stored == Kind::BFloat16 { "bfloat16" } else { "float32" };
        let mut members = self.raw.clone();
        // transformers renamed it; older readers know the first only.
        members.insert("torch_dtype".into(), name.into());
        members.insert("dtype".into(), name.into());
        write_bytes(&folder.join("config.json"), format!("{:#}\n", Value::Object(members)).as_bytes())
    }

    /// A model from nothing, of so many tokens.
    ///
    /// # Errors
    ///
    /// Its sizes do not fit together.
    pub fn scratch(shape: &ScratchModel, vocab_size: u32) -> Result<Self, TrainError> {
        let (architecture, model_type) = match shape.family {
            Family::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Family::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        };
        let raw = json!({
            "architectures": [architecture],
            "model_type": model_type,
            "vocab_size": vocab_size,
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "rope_theta": shape.rope_theta,
            "tie_word_embeddings": shape.tie_embeddings,
            "attention_bias": false,
            "max_position_embeddings": shape.positions_max,
            "initializer_range": shape.init_std,
            "use_cache": true,
        });
        let raw = raw.as_object().cloned().unwrap_or_default();
        Self::parse(raw).map_err(|message| TrainError::Usage(format!("model.scratch: {message}")))
    }

    /// Elements of the matrices that every token is multiplied with; the head apart, which is only used where there is a
    /// loss. For model FLOPs: 6 · this · tokens.
    pub fn matmul_elements(&self) -> i64 {
        let attention = self.hidden_size * self.head_dim * (2 * self.heads + 2 * self.kv_heads);
        self.layers * (attention + 3 * self.hidden_size * self.intermediate_size)
    }

    /// Floating-point operations of forward and backward over documents of these lengths, with `trained` positions through
    /// the head: 6·N·T + 6·L·heads·d·Σℓ² + 6·V·h·trained (causal attention counted by halves). Where so many weights of
    /// `adapters` alone are trained, the others have no gradient and count 4, and 6·adapters·T is added. What is computed
    /// again to save memory does not count.
    pub fn flops(&self, lengths: impl Iterator<Item = i64>, trained: i64, adapters: Option<i64>) -> f64 {
        let (mut tokens, mut squares) = (0, 0);
        for length in lengths {
            tokens += length;
            squares += length * length;
        }
        let (per_weight, adapters) = adapters.map_or((6.0, 0), |count| (4.0, count));
        (per_weight * self.matmul_elements() as f64 + 6.0 * adapters as f64) * tokens as f64
            + 6.0 * (self.layers * self.heads * self.head_dim) as f64 * squares as f64
            + per_weight * (self.vocab_size * self.hidden_size) as f64 * trained as f64
    }
}

/// Reads members by name; errors name them.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn optional_size(&self, name: &str) -> Result<Option<i64>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let most = SIZES_MAX.iter().find(|(known, _)| *known == name).map_or(i64::MAX, |(_, most)| *most);
        match value.as_i64() {
            Some(size) if size > most => Err(format!("{name} is {size}, more than {most}")),
            Some(size) if size >= 1 => Ok(Some(size)),
            _ => Err(format!("{name} is {value}, not a count")),
        }
    }

    fn size(&self, name: &str) -> Result<i64, String> {
        self.optional_size(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    fn number(&self, name: &str, default: f64) -> Result<f64, String> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| format!("{name} is {value}, not a number")),
        }
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| format!("{name} is {value}, neither true nor false")),
        }
    }

    /// `rope_theta`, or inside `rope_parameters`, where transformers 5 writes it.
    fn rope_theta(&self) -> Result<f64, String> {
        if let Some(theta) = self.get("rope_parameters").and_then(|inner| inner.get("rope_theta")) {
            return theta.as_f64().ok_or_else(|| format!("rope_theta is {theta}, not a number"));
        }
        self.number("rope_theta", 10_000.0)
    }

    /// How rotary frequencies are stretched: `rope_scaling`, or `rope_parameters`, where transformers 5 writes it.
    fn yarn(&self, positions: i64) -> Result<Option<Yarn>, String> {
        let mut found = None;
        for name in ["rope_scaling", "rope_parameters"] {
            let Some(rope) = self.get(name) else { continue };
            let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str).unwrap_or("default");
            match kind {
                "default" => {}
                "yarn" => found = Some(Yarn::parse(rope, positions)?),
                _ => {
                    return Err(format!(
                        "{name} of type {kind} is not implemented; remove it to work within the native context"
                    ));
                }
            }
        }
        Ok(found)
    }

    /// What would change the result and is not implemented.
    fn refuse_unknown_computations(&self) -> Result<(), String> {
        if self.flag("use_sliding_window", false)? {
            return Err("use_sliding_window is not implemented".into());
        }
        if let Some(act) = self.get("hidden_act").filter(|act| act.as_str() != Some("silu")) {
            return Err(format!("hidden_act {act} is not implemented; silu is"));
        }
        if self.number("attention_dropout", 0.0)? != 0.0 {
            return Err("attention_dropout is not implemented".into());
        }
        if self.get("quantization_config").is_some() {
            return Err("quantised weights are not implemented".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Map<String, Value> {
        ModelConfig::scratch(&ScratchModel::default(), 64).unwrap().raw
    }

    #[test]
    fn what_would_compute_something_else_is_refused_in_one_line() {
        for (name, value, says) in [
            ("model_type", json!("llama"), "architecture llama is not known; qwen2 and qwen3 are"),
            ("hidden_act", json!("gelu"), "hidden_act \"gelu\" is not implemented; silu is"),
            ("use_sliding_window", json!(true), "use_sliding_window is not implemented"),
            ("num_key_value_heads", json!(3), "4 heads are not a multiple of 3 key-value heads"),
            ("hidden_size", json!("big"), "hidden_size is \"big\", not a count"),
            ("hidden_size", json!(1_u64 << 32), "hidden_size is 4294967296, more than 131072"),
            ("vocab_size", json!(1_u64 << 32), "vocab_size is 4294967296, more than 16777216"),
            ("num_hidden_layers", json!(4_000_000_000_u64), "num_hidden_layers is 4000000000, more than 1024"),
            ("num_hidden_layers", json!(u64::MAX), "num_hidden_layers is 18446744073709551615, not a count"),
            (
                "rope_scaling",
                json!({"rope_type": "longrope", "factor": 4.0}),
                "rope_scaling of type longrope is not implemented; remove it to work within the native context",
            ),
        ] {
            let mut raw = small();
            raw.insert(name.into(), value);
            assert_eq!(ModelConfig::parse(raw).unwrap_err(), says);
        }
    }

    #[test]
    fn qwen25_half_a_billion_has_its_published_size() {
        let raw = json!({"model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864,
            "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": true,
            "rope_theta": 1e6});
        let config = ModelConfig::parse(raw.as_object().unwrap().clone()).unwrap();
        assert_eq!((config.head_dim, config.qkv_bias), (64, true));
        // 0.36 B without the embedding, as the model's page says.
        assert_eq!(config.matmul_elements(), 357_826_560);
    }

    #[test]
    fn a_weight_that_is_not_trained_takes_four_operations_a_token_and_no_six() {
        let config = ModelConfig::parse(small()).unwrap();
        let of = |adapters| config.flops([3, 5].into_iter(), 2, adapters);
        // Of 8 tokens; 2 of them through a head of 64 x 128.
        let weights = (8 * config.matmul_elements() + 2 * 64 * 128) as f64;
        assert_eq!(of(None) - of(Some(0)), 2.0 * weights);
        assert_eq!(of(Some(10)) - of(Some(0)), 480.0);
    }
}

//! The forward pass of Qwen2, Qwen2.5, QwQ and Qwen3: token ids in, hidden states out.
//!
//! Tokens stand in one row without a batch dimension, documents one after the other; who may look at whom is a matter of
//! [`Attention`] alone, and everything else works on tokens one by one. T tokens, width h, H query heads, K key-value
//! heads of width D.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::attention::{Attention, PackedCausal};
use super::config::ModelConfig;
use super::lora::{Adapter, Adapters};
use super::params::Parameters;
use super::rope::frequencies;
use super::weights;
use crate::batch::PackedBatch;
use crate::config::{Family, LoraConfig};
use crate::device::upload;
use crate::error::{TrainError, guard};

/// Where tokens stand, as the model needs it.
#[derive(Debug)]
pub struct Context {
    /// Token ids, \[T\], int64.
    ids: Tensor,
    /// Cosines of the rotary angles, \[T, 1, D\], in the model's number format.
    cos: Tensor,
    /// Sines with the signs of the rotation: minus in the first half.
    sin: Tensor,
}

impl Context {
    /// Another name for the same tensors.
    pub(crate) fn shallow_clone(&self) -> Self {
        let Self { ids, cos, sin } = self;
        Self { ids: ids.shallow_clone(), cos: cos.shallow_clone(), sin: sin.shallow_clone() }
    }

    /// Takes over what another one of as many tokens says, in the memory that this one has.
    pub(crate) fn assign(&mut self, other: &Self) {
        self.ids.copy_(&other.ids);
        self.cos.copy_(&other.cos);
        self.sin.copy_(&other.sin);
    }
}

/// A model in memory.
#[derive(Debug)]
pub struct Qwen {
    config: ModelConfig,
    parameters: Parameters,
    adapters: Option<Adapters>,
    activation_checkpointing: bool,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
}

/// Views of the parameters of a layer.
#[derive(Debug)]
struct Layer {
    input_norm: Tensor,
    qkv: Linear,
    /// Norms of queries and keys, \[D\] each.
    qk_norms: Option<(Tensor, Tensor)>,
    output: Linear,
    mlp_norm: Tensor,
    gate_up: Linear,
    down: Linear,
}

/// A matrix that tokens are multiplied with, and what is learnt beside it.
#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    adapter: Option<Adapter>,
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Tensor {
        let product = x.linear(&self.weight, self.bias.as_ref());
        match &self.adapter {
            None => product,
            Some(adapter) => product + adapter.forward(x),
        }
    }
}

impl Qwen {
    /// Takes weights of this configuration.
    ///
    /// # Errors
    ///
    /// They are of another layout.
    pub fn new(config: ModelConfig, parameters: Parameters) -> Result<Self, TrainError> {
        Self::assemble(config, parameters, None)
    }

    fn assemble(config: ModelConfig, parameters: Parameters, adapters: Option<Adapters>) -> Result<Self, TrainError> {
        let found = |name: &str| {
            parameters.leaf(name).ok_or_else(|| TrainError::Usage(format!("the weights have no parameter {name}")))
        };
        let leaf = |name: &str| Ok::<_, TrainError>(found(name)?.0);
        let layer = |at: i64| -> Result<Layer, TrainError> {
            let within = |name: &str| format!("model.layers.{at}.{name}");
            let leaf = |name: &str| leaf(&within(name));
            let linear = |name: &str, has_bias: bool| -> Result<Linear, TrainError> {
                let (weight, pieces) = found(&within(&format!("{name}.weight")))?;
                let bias = has_bias.then(|| leaf(&format!("{name}.bias"))).transpose()?;
                Ok(Linear { weight, bias, adapter: adapters.as_ref().and_then(|adapters| adapters.beside(pieces)) })
            };
            Ok(Layer {
                input_norm: leaf("input_layernorm.weight")?,
                qkv: linear("self_attn.q_proj", config.qkv_bias)?,
                qk_norms: match config.family {
                    Family::Qwen2 => None,
                    Family::Qwen3 => Some((leaf("self_attn.q_norm.weight")?, leaf("self_attn.k_norm.weight")?)),
                },
                output: linear("self_attn.o_proj", config.output_bias)?,
                mlp_norm: leaf("post_attention_layernorm.weight")?,
                gate_up: linear("mlp.gate_proj", false)?,
                down: linear("mlp.down_proj", false)?,
            })
        };
        Ok(Self {
            embedding: leaf("model.embed_tokens.weight")?,
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
            norm: leaf("model.norm.weight")?,
            head: leaf(if config.tied { "model.embed_tokens.weight" } else { "lm_head.weight" })?,
            config,
            parameters,
            adapters,
            activation_checkpointing: false,
        })
    }

    /// The model with fresh adapters, which alone are trained: see [`Adapters::draw`].
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub fn with_adapters(self, config: &LoraConfig, seed: u64) -> Result<Self, TrainError> {
        let flat = self.parameters.flat();
        let adapters = Adapters::draw(&self.config, config, seed, flat.kind(), flat.device())?;
        self.parameters.freeze();
        let checkpointed = self.activation_checkpointing;
        Ok(Self::assemble(self.config, self.parameters, Some(adapters))?.with_activation_checkpointing(checkpointed))
    }

    /// The model, its layers run again on the [way back](super::Trace), or not.
    pub fn with_activation_checkpointing(self, activation_checkpointing: bool) -> Self {
        Self { activation_checkpointing, ..self }
    }

    /// Reads a Hugging Face folder.
    ///
    /// # Errors
    ///
    /// What [`ModelConfig::read`] and [`Parameters::read`] refuse.
    pub fn read(folder: &Path, kind: Kind, device: Device) -> Result<Self, TrainError> {
        let config = ModelConfig::read(folder)?;
        let parameters = Parameters::read(&config, folder, kind, device)?;
        Self::new(config, parameters)
    }

    /// Token ids and positions on the model's device.
    pub fn context(&self, ids: &[i64], positions: &[i64]) -> Context {
        let (kind, device) = (self.parameters.flat().kind(), self.parameters.flat().device());
        let ModelConfig { rope_theta, head_dim, yarn, .. } = &self.config;
        // Angles in fp32, whatever the model's format, as in transformers.
        let steps = frequencies(*rope_theta, *head_dim, yarn.as_ref());
        let positions = upload(positions, device).to_kind(Kind::Float);
        let angles = positions.outer(&upload(&steps, device));
        let sharpness = yarn.as_ref().map_or(1.0, |yarn| yarn.attention_factor);
        let (cos, sin) = (angles.cos() * sharpness, angles.sin() * sharpness);
        Context {
            ids: upload(ids, device),
            cos: Tensor::cat(&[&cos, &cos], 1).unsqueeze(1).to_kind(kind),
            sin: Tensor::cat(&[&sin.neg(), &sin], 1).unsqueeze(1).to_kind(kind),
        }
    }

    /// Hidden states behind the last norm, \[T, h\].
    pub fn hidden(&self, context: &Context, attention: &mut dyn Attention) -> Tensor {
        let mut stream = self.embed(context);
        for at in 0..self.layers.len() {
            stream = self.layer(at, &stream, context, attention);
        }
        self.last_norm(&stream)
    }

    /// What the first layer is given, \[T, h\].
    pub(super) fn embed(&self, context: &Context) -> Tensor {
        Tensor::embedding(&self.embedding, &context.ids, -1, false, false)
    }

    /// What a layer makes of the stream, \[T, h\] to \[T, h\].
    pub(super) fn layer(&self, at: usize, stream: &Tensor, context: &Context, attention: &mut dyn Attention) -> Tensor {
        let layer = &self.layers[at];
        let stream = stream + self.attention_block(at, layer, stream, context, attention);
        &stream + self.mlp_block(layer, &stream)
    }

    /// Number of layers.
    pub(super) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// What the head is given, of what the last layer gives.
    pub(super) fn last_norm(&self, stream: &Tensor) -> Tensor {
        self.rms_norm(stream, &self.norm)
    }

    /// Hidden states of a batch, \[T, h\].
    pub fn hidden_of(&self, batch: &PackedBatch) -> Tensor {
        let context = self.context(&batch.ids, &batch.positions);
        self.hidden(&context, &mut PackedCausal::new(&batch.doc_starts, context.ids.device()))
    }

    /// The matrix that hidden states become logits by, \[V, h\].
    pub fn head(&self) -> &Tensor {
        &self.head
    }

    /// Where [`Self::head`] stands among what is [trained](Self::trained): tied, it is the embedding. None where it is frozen.
    pub fn head_position(&self) -> Option<usize> {
        self.trained().leaves().iter().position(|leaf| leaf.data_ptr() == self.head.data_ptr())
    }

    /// Its weights, without what was learnt beside them.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What is learnt beside its weights.
    pub fn adapters(&self) -> Option<&Adapters> {
        self.adapters.as_ref()
    }

    /// What is trained: its adapters where it has any, else its weights.
    pub fn trained(&self) -> &Parameters {
        self.adapters.as_ref().map_or(&self.parameters, Adapters::parameters)
    }

    /// Whether layers are run again on the way back.
    pub fn activation_checkpointing(&self) -> bool {
        self.activation_checkpointing
    }

    /// Writes its weights in the layout of a Hugging Face folder, in the number format asked for and in shards of so many
    /// bytes. What was learnt beside them is added to them.
    ///
    /// # Errors
    ///
    /// See [`weights::write()`].
    pub fn write_weights(&self, folder: &Path, kind: Kind, shard_bytes: usize) -> Result<(), TrainError> {
        let tensors = guard(|| {
            let own = self.parameters.pieces(self.parameters.flat());
            let Some(adapters) = &self.adapters else {
                return Ok(own.map(|(name, tensor)| (name, tensor.to_kind(kind))).collect::<Vec<_>>());
            };
            // Sums are new tensors, for which a device that is trained on may have no memory.
            let sums = adapters.merged(own).map(|(name, tensor)| (name, tensor.to_kind(kind).to_device(Device::Cpu)));
            Ok(sums.collect())
        })?;
        weights::write(folder, tensors, shard_bytes)
    }

    /// Its sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn rms_norm(&self, stream: &Tensor, weight: &Tensor) -> Tensor {
        self.normalise(stream) * weight
    }

    /// x / √(mean x² + ε), along the last dimension.
    fn normalise(&self, x: &Tensor) -> Tensor {
        let (width, eps) = (x.size().last().copied().unwrap_or(1), self.config.rms_norm_eps);
        if x.kind() != Kind::Float {
            // libtorch's own computes in fp32, as transformers does.
            return x.rms_norm([width], None::<&Tensor>, eps);
        }
        // On a processor less than half of what libtorch's own takes: one pass for the length, and its gradient is short.
        let length = x.norm_scalaropt_dim(2, [-1], true);
        x * (length.square() / width as f64 + eps).rsqrt()
    }

    fn attention_block(
        &self,
        at: usize,
        layer: &Layer,
        stream: &Tensor,
        context: &Context,
        attention: &mut dyn Attention,
    ) -> Tensor {
        let ModelConfig { heads, kv_heads, head_dim, .. } = self.config;
        let normed = self.rms_norm(stream, &layer.input_norm);
        let qkv = layer.qkv.forward(&normed).view([-1, heads + 2 * kv_heads, head_dim]);
        // Queries and keys are turned together. Split and not narrowed: one gradient is put together, not three added up.
        let [mut qk, value] = split(&qkv, [heads + kv_heads, kv_heads]);
        if let Some((q_norm, k_norm)) = &layer.qk_norms {
            let scale = Tensor::cat(&[q_norm.expand([heads, -1], false), k_norm.expand([kv_heads, -1], false)], 0);
            qk = self.normalise(&qk) * scale;
        }
        // Not addcmul: its gradient multiplies by factors of one.
        let qk = &qk * &context.cos + qk.roll([head_dim / 2], [-1]) * &context.sin;
        let [query, key] = split(&qk, [heads, kv_heads]);
        layer.output.forward(&attention.attend(at, &query, &key, &value))
    }

    fn mlp_block(&self, layer: &Layer, stream: &Tensor) -> Tensor {
        let inner = self.config.intermediate_size;
        let gate_up = layer.gate_up.forward(&self.rms_norm(stream, &layer.mlp_norm));
        let [gate, up] = split(&gate_up, [inner, inner]);
        layer.down.forward(&(gate.silu() * up))
    }
}

/// Two parts of a tensor, of these sizes along its second dimension.
fn split(tensor: &Tensor, sizes: [i64; 2]) -> [Tensor; 2] {
    let parts = tensor.split_with_sizes(sizes, 1);
    [parts[0].shallow_clone(), parts[1].shallow_clone()]
}

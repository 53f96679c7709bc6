//! Weights in memory: one flat buffer, of which every parameter is a view.
//!
//! What is multiplied with the same input lies together and is one parameter: queries, keys and values; gate and up. So a
//! layer is four matrix products. The buffer holds what weight decay applies to first. The optimiser works on the buffer
//! as a whole, with no loop over parameters, and a copy in another number format is one operation.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::weights::Weights;
use crate::config::Family;
use crate::error::{TrainError, guard};

/// Parameters begin at multiples of so many elements, so that matrix products read aligned rows.
const ALIGNMENT: i64 = 32;

/// A tensor of a Hugging Face folder: some rows of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its name there.
    pub name: String,
    /// Size of its first dimension.
    pub rows: i64,
}

/// A parameter: its pieces one below the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) pieces: Vec<Piece>,
    /// Size of the second dimension; none for vectors.
    pub(super) columns: Option<i64>,
    /// Where it begins in the buffer, in elements.
    offset: i64,
}

impl Slot {
    /// Its place is found when the buffer is laid out.
    pub(super) fn new(pieces: Vec<Piece>, columns: Option<i64>) -> Self {
        Self { pieces, columns, offset: 0 }
    }

    fn shape(&self) -> Vec<i64> {
        let rows = self.pieces.iter().map(|piece| piece.rows).sum();
        std::iter::once(rows).chain(self.columns).collect()
    }
}

/// All weights of a model.
#[derive(Debug)]
pub struct Parameters {
    slots: Vec<Slot>,
    /// \[P\], with gaps of zeros for alignment.
    flat: Tensor,
    /// Leaves that share the buffer's memory, in the order of `slots`.
    leaves: Vec<Tensor>,
    decayed: i64,
}

impl Parameters {
    /// Zeros in the layout of a model.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub fn zeros(config: &ModelConfig, kind: Kind, device: Device) -> Result<Self, TrainError> {
        Self::zeros_in(layout(config), kind, device)
    }

    /// Zeros in a layout of matrices, which weight decay applies to, and vectors.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub(super) fn zeros_in(layout: (Vec<Slot>, Vec<Slot>), kind: Kind, device: Device) -> Result<Self, TrainError> {
        let (mut slots, vectors) = layout;
        let matrices = slots.len();
        slots.extend(vectors);
        let (mut offset, mut decayed) = (0, 0);
        for (at, slot) in slots.iter_mut().enumerate() {
            slot.offset = offset;
            offset += slot.shape().iter().product::<i64>();
            offset = (offset + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            if at + 1 == matrices {
                decayed = offset;
            }
        }
        guard(|| {
            let flat = Tensor::zeros([offset], (kind, device));
            let leaves = slots.iter().map(|slot| view(&flat, slot).detach().set_requires_grad(true)).collect();
            Ok(Self { slots, flat, leaves, decayed })
        })
    }

    /// Reads the weights of a folder.
    ///
    /// # Errors
    ///
    /// A file or a tensor is missing, of another shape, or left over.
    pub fn read(config: &ModelConfig, folder: &Path, kind: Kind, device: Device) -> Result<Self, TrainError> {
        let mut weights = Weights::open(folder)?;
        let layout = layout(config);
        // Before there is memory for what a configuration asks for, the files must have it.
        for slot in layout.0.iter().chain(&layout.1) {
            for piece in &slot.pieces {
                let shape: Vec<i64> = std::iter::once(piece.rows).chain(slot.columns).collect();
                weights.check(&piece.name, &shape)?;
            }
        }
        let parameters = Self::zeros_in(layout, kind, device)?;
        guard(|| {
            for (name, mut place) in parameters.pieces(&parameters.flat) {
                weights.copy_to(&name, &mut place)?;
            }
            Ok(())
        })?;
        // A head of its own in a folder with tied weights is a copy, and the rotary table is computed.
        let known = |name: &str| (config.tied && name == "lm_head.weight") || name.ends_with("rotary_emb.inv_freq");
        match weights.remaining().find(|name| !known(name)) {
            None => Ok(parameters),
            Some(name) => Err(TrainError::file(folder, format!("holds {name}, which this architecture has not"))),
        }
    }

    /// Views of a buffer of this layout by the names of a Hugging Face folder: weights, gradients, moments.
    pub fn pieces<'a>(&'a self, buffer: &'a Tensor) -> impl Iterator<Item = (String, Tensor)> + 'a {
        self.slots.iter().flat_map(move |slot| {
            let whole = view(buffer, slot);
            let mut from = 0;
            slot.pieces.iter().map(move |piece| {
                let part = whole.narrow(0, from, piece.rows);
                from += piece.rows;
                (piece.name.clone(), part)
            })
        })
    }

    /// Views of a buffer of this layout, one a parameter, in the order of [`Self::leaves`].
    pub fn views(&self, buffer: &Tensor) -> Vec<Tensor> {
        self.slots.iter().map(|slot| view(buffer, slot)).collect()
    }

    /// The parameters, as autograd sees them.
    pub fn leaves(&self) -> &[Tensor] {
        &self.leaves
    }

    /// The parameter that begins with this tensor of a Hugging Face folder, and its pieces.
    pub(super) fn leaf(&self, name: &str) -> Option<(Tensor, &[Piece])> {
        let at = self.slots.iter().position(|slot| slot.pieces[0].name == name)?;
        Some((self.leaves[at].shallow_clone(), &self.slots[at].pieces))
    }

    /// Where parameters stand among [`Self::leaves`], by the name of the tensor that they begin with.
    pub(super) fn positions(&self, wanted: impl Fn(&str) -> bool) -> Vec<usize> {
        (0..self.slots.len()).filter(|&at| wanted(&self.slots[at].pieces[0].name)).collect()
    }

    /// Has autograd pass the parameters by: they are not trained.
    pub(super) fn freeze(&self) {
        for leaf in &self.leaves {
            let _ = leaf.set_requires_grad(false);
        }
    }

    /// The buffer, \[P\].
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Elements at the head of the buffer that weight decay applies to: matrices, not norms and biases.
    pub fn decayed(&self) -> i64 {
        self.decayed
    }

    /// Number of weights, alignment not counted.
    pub fn count(&self) -> i64 {
        self.slots.iter().map(|slot| slot.shape().iter().product::<i64>()).sum()
    }
}

fn view(buffer: &Tensor, slot: &Slot) -> Tensor {
    let shape = slot.shape();
    buffer.narrow(0, slot.offset, shape.iter().product()).view(shape.as_slice())
}

/// The matrices and the vectors of a model.
pub(super) fn layout(config: &ModelConfig) -> (Vec<Slot>, Vec<Slot>) {
    let slot = |pieces: &[(String, i64)], columns| {
        Slot::new(pieces.iter().map(|(name, rows)| Piece { name: name.clone(), rows: *rows }).collect(), columns)
    };
    let width = config.hidden_size;
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let mut matrices = vec![slot(&[("model.embed_tokens.weight".into(), config.vocab_size)], Some(width))];
    let mut vectors = Vec::new();
    for layer in 0..config.layers {
        let named = |name: &str| format!("model.layers.{layer}.{name}");
        let attention = |name: &str, kind: &str| named(&format!("self_attn.{name}_proj.{kind}"));
        let qkv = |kind: &str| [(attention("q", kind), q), (attention("k", kind), kv), (attention("v", kind), kv)];
        let inner = config.intermediate_size;
        matrices.push(slot(&qkv("weight"), Some(width)));
        matrices.push(slot(&[(attention("o", "weight"), width)], Some(q)));
        matrices
            .push(slot(&[(named("mlp.gate_proj.weight"), inner), (named("mlp.up_proj.weight"), inner)], Some(width)));
        matrices.push(slot(&[(named("mlp.down_proj.weight"), width)], Some(inner)));
        vectors.push(slot(&[(named("input_layernorm.weight"), width)], None));
        vectors.push(slot(&[(named("post_attention_layernorm.weight"), width)], None));
        if config.qkv_bias {
            vectors.push(slot(&qkv("bias"), None));
        }
        if config.output_bias {
            vectors.push(slot(&[(attention("o", "bias"), width)], None));
        }
        if config.family == Family::Qwen3 {
            vectors.push(slot(&[(named("self_attn.q_norm.weight"), config.head_dim)], None));
            vectors.push(slot(&[(named("self_attn.k_norm.weight"), config.head_dim)], None));
        }
    }
    vectors.push(slot(&[("model.norm.weight".into(), width)], None));
    if !config.tied {
        matrices.push(slot(&[("lm_head.weight".into(), config.vocab_size)], Some(width)));
    }
    (matrices, vectors)
}

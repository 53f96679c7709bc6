//! The way back through a model: from the gradient by its hidden states to those of what is trained.
//!
//! By itself autograd keeps all that the way back will need. With activation checkpointing (Chen and others, 2016) layers
//! are run without it, what each was given is kept, \[T, h\], and on the way back each is run again, this time with
//! autograd, when its turn comes. So there is one layer's worth of memory in place of all L, for one forward pass more. Both
//! ways do the same operations in the same order, and come to the same bits.

use tch::Tensor;

use super::attention::PackedCausal;
use super::params::Parameters;
use super::qwen::{Context, Qwen};
use crate::batch::PackedBatch;

const EMBEDDING: &str = "model.embed_tokens.weight";
const LAST_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// A forward pass that can be gone back through, once.
#[derive(Debug)]
pub struct Trace<'a> {
    model: &'a Qwen,
    context: Context,
    attention: PackedCausal,
    kept: Kept,
}

/// What the forward pass left.
#[derive(Debug)]
enum Kept {
    /// Hidden states, with all that autograd keeps.
    Graph(Tensor),
    /// What each layer was given, and at the end what the last norm was.
    Inputs(Vec<Tensor>),
}

impl Qwen {
    /// Hidden states of a batch, \[T, h\], and the way back from them.
    pub fn trace(&self, batch: &PackedBatch) -> (Tensor, Trace<'_>) {
        let context = self.context(&batch.ids, &batch.positions);
        let mut attention = PackedCausal::new(&batch.doc_starts, self.head().device());
        let (hidden, kept) = if self.activation_checkpointing() {
            tch::no_grad(|| {
                let mut inputs = vec![self.embed(&context)];
                for at in 0..self.depth() {
                    inputs.push(self.layer(at, &inputs[at], &context, &mut attention));
                }
                (self.last_norm(&inputs[self.depth()]), Kept::Inputs(inputs))
            })
        } else {
            let hidden = self.hidden(&context, &mut attention);
            (hidden.detach(), Kept::Graph(hidden))
        };
        (hidden, Trace { model: self, context, attention, kept })
    }
}

impl Trace<'_> {
    /// Adds the gradients of what is trained to `gradients`, one a parameter in the order of [`Parameters::leaves`], from
    /// that by the hidden states, \[T, h\]. What the head owes to its own products is not part of it.
    pub fn backward(self, mut gradient: Tensor, gradients: &mut [Tensor]) {
        let Self { model, context, mut attention, kept } = self;
        let mut sums = Sums { trained: model.trained(), gradients };
        match kept {
            Kept::Graph(hidden) => {
                sums.go_back(&hidden, &gradient, None, |name| name != HEAD);
            }
            Kept::Inputs(inputs) => {
                for (at, input) in inputs.into_iter().enumerate().rev() {
                    let input = input.set_requires_grad(true);
                    let (output, of) = if at == model.depth() {
                        (model.last_norm(&input), LAST_NORM.to_string())
                    } else {
                        (model.layer(at, &input, &context, &mut attention), format!("model.layers.{at}."))
                    };
                    let found = sums.go_back(&output, &gradient, Some(&input), |name| name.contains(&of));
                    gradient = found.unwrap_or(gradient);
                }
                sums.go_back(&model.embed(&context), &gradient, None, |name| name == EMBEDDING);
            }
        }
    }
}

/// Gradients of what is trained, as they are summed.
struct Sums<'a> {
    trained: &'a Parameters,
    gradients: &'a mut [Tensor],
}

impl Sums<'_> {
    /// Goes back from `output`, the gradient of which is known, to the parameters whose names are wanted; gives the gradient
    /// of `input`.
    fn go_back(
        &mut self,
        output: &Tensor,
        gradient: &Tensor,
        input: Option<&Tensor>,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<Tensor> {
        let places = self.trained.positions(wanted);
        let leaves = self.trained.leaves();
        let inputs: Vec<&Tensor> = places.iter().map(|&at| &leaves[at]).chain(input).collect();
        if inputs.is_empty() {
            return None;
        }
        // The scalar whose gradient by `output` is the one that is known.
        let surrogate = (output * gradient).sum(output.kind());
        let mut found = Tensor::run_backward(&[surrogate], &inputs, false, false);
        let of_input = input.and_then(|_| found.pop());
        tch::no_grad(|| {
            for (at, found) in places.into_iter().zip(found) {
                let _ = self.gradients[at].g_add_(&found);
            }
        });
        of_input
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::config::ScratchModel;
    use crate::model::ModelConfig;

    #[test]
    fn with_activation_checkpointing_nothing_is_kept_but_what_each_layer_was_given() {
        let shape =
            ScratchModel { hidden_size: 8, layers: 3, heads: 2, kv_heads: 2, head_dim: 4, ..Default::default() };
        let config = ModelConfig::scratch(&shape, 16).unwrap();
        let parameters = Parameters::draw(&config, 3, Kind::Float, Device::Cpu).unwrap();
        let model = Qwen::new(config, parameters).unwrap();
        let mut batch = PackedBatch::default();
        batch.push(0, &[1, 2, 3, 4, 5], &[true; 5]);
        let (hidden, trace) = model.trace(&batch);
        assert!(matches!(&trace.kept, Kept::Graph(kept) if kept.requires_grad()));

        let model = model.with_activation_checkpointing(true);
        let (again, trace) = model.trace(&batch);
        assert_eq!(again, hidden);
        let Kept::Inputs(inputs) = &trace.kept else { panic!("{:?}", trace.kept) };
        // Three layers and the last norm. A tensor that needs no gradient has no graph behind it.
        assert_eq!(inputs.len(), 4);
        assert!(inputs.iter().all(|input| input.size() == [5, 8] && !input.requires_grad()));
        assert!(!again.requires_grad());
    }
}

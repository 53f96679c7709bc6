//! The loss of supervised fine-tuning, and its gradient: head and cross-entropy where a token is trained, and nowhere else.
//!
//! In a web trajectory most tokens are observations, and the head is a quarter of a small model's products. So hidden
//! states are picked first and the head works on these, in chunks: logits of a whole batch never exist. Gradients of
//! cross-entropy are written down rather than traced: softmax minus one-hot, in place in the logits, and the head's
//! gradient is summed straight into the buffer of the optimiser. The rest of the way back is autograd's.

use tch::{Kind, Tensor};

use crate::batch::PackedBatch;
use crate::model::Qwen;

/// Logits that exist at a time, at most: 64 Mi elements, 256 MiB in fp32.
const LOGITS_MAX: i64 = 64 << 20;

/// What the loss sees of a micro-batch, on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Targets {
    /// Positions whose hidden states predict a trained token, \[N\].
    pub positions: Vec<i64>,
    /// Those tokens, \[N\].
    pub ids: Vec<i64>,
    /// The weight of each in the loss, \[N\].
    pub weights: Vec<f32>,
}

impl Targets {
    /// Of a micro-batch and what its tokens weigh, \[T\]: see [`Update::weights`](crate::batch::Update::weights).
    pub fn new(batch: &PackedBatch, weights: &[f32]) -> Self {
        let mut targets = Self { positions: Vec::new(), ids: Vec::new(), weights: Vec::new() };
        let tokens = batch.ids.iter().zip(&batch.trained).zip(weights).enumerate();
        for (at, ((&id, _), &weight)) in tokens.filter(|(_, ((_, trained), _))| **trained) {
            targets.positions.push(at as i64 - 1);
            targets.ids.push(id);
            targets.weights.push(weight);
        }
        targets
    }
}

/// Adds the gradients of a micro-batch to `gradient` (fp32, \[P\], in the layout of the parameters) and gives its weighted
/// loss, a scalar on the device: reading it waits for the device.
pub fn backward(model: &Qwen, batch: &PackedBatch, targets: &Targets, gradient: &Tensor) -> Tensor {
    let leaves = model.parameters().leaves();
    let mut gradients = model.parameters().views(gradient);
    if targets.ids.is_empty() {
        return Tensor::zeros([], (Kind::Float, gradient.device()));
    }
    let hidden = model.hidden_of(batch);
    let mut head_gradient = model.head_position().map(|at| gradients[at].shallow_clone());
    let (loss, hidden_gradient) =
        tch::no_grad(|| head_loss(&hidden.detach(), &model.head().detach(), targets, head_gradient.as_mut()));
    // The scalar whose gradient by `hidden` is the one that is wanted.
    let surrogate = (&hidden * hidden_gradient.unwrap_or_else(|| hidden.zeros_like())).sum(hidden.kind());
    // A head of its own took no part in `hidden`.
    let traced: Vec<usize> =
        (0..leaves.len()).filter(|&at| model.config().tied || Some(at) != model.head_position()).collect();
    let inputs: Vec<&Tensor> = traced.iter().map(|&at| &leaves[at]).collect();
    let found = Tensor::run_backward(&[surrogate], &inputs, false, false);
    tch::no_grad(|| {
        for (at, found) in traced.into_iter().zip(found) {
            let _ = gradients[at].g_add_(&found);
        }
    });
    loss
}

/// The weighted loss of a micro-batch without gradients, a scalar on the device.
pub fn evaluate(model: &Qwen, batch: &PackedBatch, targets: &Targets) -> Tensor {
    tch::no_grad(|| {
        let device = model.head().device();
        if targets.ids.is_empty() {
            return Tensor::zeros([], (Kind::Float, device));
        }
        head_loss(&model.hidden_of(batch), model.head(), targets, None).0
    })
}

/// Loss, and with a place for the head's gradient \[V, h\] also that by the hidden states \[T, h\].
fn head_loss(
    hidden: &Tensor,
    head: &Tensor,
    targets: &Targets,
    mut head_gradient: Option<&mut Tensor>,
) -> (Tensor, Option<Tensor>) {
    let device = hidden.device();
    let positions = Tensor::from_slice(&targets.positions).to_device(device);
    let ids = Tensor::from_slice(&targets.ids).to_device(device).unsqueeze(1);
    let weights = Tensor::from_slice(&targets.weights).to_device(device).unsqueeze(1);
    let picked = hidden.index_select(0, &positions);
    let mut picked_gradient = head_gradient.is_some().then(|| picked.empty_like());
    let mut loss = Tensor::zeros([], (Kind::Float, device));
    let (count, vocabulary) = (picked.size()[0], head.size()[0]);
    let step = (LOGITS_MAX / vocabulary).clamp(1, count);
    for from in (0..count).step_by(step as usize) {
        let rows = |tensor: &Tensor| tensor.narrow(0, from, step.min(count - from));
        let (inputs, ids, weights) = (rows(&picked), rows(&ids), rows(&weights));
        let mut logits = inputs.matmul(&head.tr()).to_kind(Kind::Float);
        let log_total = logits.logsumexp([1], true);
        loss += ((&log_total - logits.gather(1, &ids, false)) * &weights).sum(Kind::Float);
        let (Some(head_gradient), Some(picked_gradient)) = (&mut head_gradient, &mut picked_gradient) else { continue };
        // Softmax minus one-hot, weighted, where the logits were.
        let _ = logits.g_sub_(&log_total).exp_().g_mul_(&weights).scatter_add_(1, &ids, &weights.neg());
        let logits_gradient = logits.to_kind(head.kind());
        rows(picked_gradient).copy_(&logits_gradient.matmul(head));
        if head.kind() == Kind::Float {
            let _ = head_gradient.addmm_(&logits_gradient.tr(), &inputs);
        } else {
            let _ = head_gradient.g_add_(&logits_gradient.tr().matmul(&inputs));
        }
    }
    let hidden_gradient = picked_gradient.map(|found| hidden.zeros_like().index_copy_(0, &positions, &found));
    (loss, hidden_gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trained_token_is_predicted_from_the_one_before() {
        let mut batch = PackedBatch::default();
        batch.push(0, &[10, 11, 12], &[true, false, true]);
        batch.push(1, &[13, 14], &[false, true]);
        let targets = Targets::new(&batch, &[0.0, 0.0, 0.25, 0.0, 0.75]);
        assert_eq!(targets.positions, [1, 3]);
        assert_eq!(targets.ids, [12, 14]);
        assert_eq!(targets.weights, [0.25, 0.75]);
    }
}

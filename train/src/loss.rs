//! Losses of trained tokens, and their gradients: head and softmax where a token is trained, and nowhere else.
//!
//! In a web trajectory most tokens are observations, and the head is a quarter of a small model's products. So hidden
//! states are picked first and the head works on these, in chunks: logits of a whole batch never exist. A loss is told the
//! log-probabilities of a chunk and says what they cost and by how much that changes with each: its [`Terms`]. From there
//! gradients are written down rather than traced: the slope times one-hot minus softmax, in place in the logits, and the
//! head's gradient, if it is trained, is summed straight into the buffer of the optimiser. The rest of the way back is the
//! model's [`Trace`](crate::model::Trace).
//!
//! [`backward`] and [`evaluate`] are those of supervised fine-tuning: −log p, weighted. [`backward_by`] and
//! [`evaluate_by`] take any other.

use tch::{Kind, Tensor};

use crate::batch::PackedBatch;
use crate::device::upload;
use crate::model::Qwen;

/// Logits that exist at a time, at most: 64 Mi elements, 256 MiB in fp32; as much again where entropies are asked for.
const LOGITS_MAX: i64 = 64 << 20;

/// Trained tokens of a micro-batch, and the distributions that they are looked at in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Places<'a> {
    /// Positions whose hidden states predict them, \[N\].
    pub positions: &'a [i64],
    /// Their ids, \[N\].
    pub ids: &'a [i64],
    /// What logits are divided by. Log-probabilities, entropies and gradients are of what comes of that.
    pub temperature: f64,
}

/// A chunk of trained tokens under the model.
#[derive(Debug)]
pub struct Chunk {
    /// Place of its first token among the N.
    pub from: i64,
    /// Log-probability of each token, \[n\] in fp32.
    pub log_probs: Tensor,
    /// Entropy of each prediction in nats, \[n\], where the loss [asks](Loss::entropy) for it.
    pub entropies: Option<Tensor>,
}

/// What a chunk costs.
#[derive(Debug)]
pub struct Terms {
    /// The loss of its tokens, weighted and summed, a scalar.
    pub loss: Tensor,
    /// By how much that grows with the log-probability of each token, \[n\].
    pub slopes: Tensor,
}

/// A loss that is a sum over trained tokens, each by its own log-probability.
pub trait Loss {
    /// Whether it looks at entropies.
    fn entropy(&self) -> bool;

    /// The terms of a chunk. Chunks come in order, each once.
    fn terms(&mut self, chunk: &Chunk) -> Terms;
}

/// What supervised fine-tuning sees of a micro-batch, on the host.
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

    fn places(&self) -> Places<'_> {
        Places { positions: &self.positions, ids: &self.ids, temperature: 1.0 }
    }
}

/// Cross-entropy: −log p, weighted.
struct CrossEntropy {
    /// \[N\]
    weights: Tensor,
}

impl CrossEntropy {
    fn new(model: &Qwen, targets: &Targets) -> Self {
        Self { weights: upload(&targets.weights, model.head().device()) }
    }
}

impl Loss for CrossEntropy {
    fn entropy(&self) -> bool {
        false
    }

    fn terms(&mut self, chunk: &Chunk) -> Terms {
        let slopes = chunk.of(&self.weights).neg();
        Terms { loss: (&chunk.log_probs * &slopes).sum(Kind::Float), slopes }
    }
}

impl Chunk {
    /// The chunk's part of something that there is one of for each of the N tokens.
    pub fn of(&self, all: &Tensor) -> Tensor {
        all.narrow(0, self.from, self.log_probs.size()[0])
    }
}

/// Adds the gradients of a micro-batch to `gradient` (fp32, \[P\], in the layout of what is
/// [trained](crate::model::Qwen::trained)) and gives its weighted loss, a scalar on the device: reading it waits for the device.
pub fn backward(model: &Qwen, batch: &PackedBatch, targets: &Targets, gradient: &Tensor) -> Tensor {
    backward_by(model, batch, targets.places(), gradient, &mut CrossEntropy::new(model, targets))
}

/// The weighted loss of a micro-batch without gradients, a scalar on the device.
pub fn evaluate(model: &Qwen, batch: &PackedBatch, targets: &Targets) -> Tensor {
    evaluate_by(model, batch, targets.places(), &mut CrossEntropy::new(model, targets))
}

/// As [`backward`], with another loss.
pub fn backward_by(
    model: &Qwen,
    batch: &PackedBatch,
    places: Places<'_>,
    gradient: &Tensor,
    loss: &mut dyn Loss,
) -> Tensor {
    if places.ids.is_empty() {
        return Tensor::zeros([], (Kind::Float, gradient.device()));
    }
    let mut gradients = model.trained().views(gradient);
    let head_gradient = model.head_position().map(|at| gradients[at].shallow_clone());
    let (hidden, trace) = model.trace(batch);
    let wanted = Wanted::Gradients { of_head: head_gradient };
    let (total, hidden_gradient) = tch::no_grad(|| head_loss(&hidden, &model.head().detach(), places, loss, wanted));
    trace.backward(hidden_gradient.unwrap_or_else(|| hidden.zeros_like()), &mut gradients);
    total
}

/// As [`evaluate`], with another loss.
pub fn evaluate_by(model: &Qwen, batch: &PackedBatch, places: Places<'_>, loss: &mut dyn Loss) -> Tensor {
    tch::no_grad(|| {
        if places.ids.is_empty() {
            return Tensor::zeros([], (Kind::Float, model.head().device()));
        }
        head_loss(&model.hidden_of(batch), model.head(), places, loss, Wanted::Loss).0
    })
}

/// What is computed.
enum Wanted {
    /// The loss alone.
    Loss,
    /// Also its gradient by the hidden states, and by the head, \[V, h\], which is added here; a head that is frozen has none.
    Gradients { of_head: Option<Tensor> },
}

/// The loss, and its gradient by the hidden states, \[T, h\], where that is wanted.
fn head_loss(
    hidden: &Tensor,
    head: &Tensor,
    places: Places<'_>,
    loss: &mut dyn Loss,
    mut wanted: Wanted,
) -> (Tensor, Option<Tensor>) {
    let device = hidden.device();
    let positions = upload(places.positions, device);
    let ids = upload(places.ids, device).unsqueeze(1);
    let picked = hidden.index_select(0, &positions);
    let mut picked_gradient = matches!(wanted, Wanted::Gradients { .. }).then(|| picked.empty_like());
    let mut total = Tensor::zeros([], (Kind::Float, device));
    let (count, vocabulary) = (picked.size()[0], head.size()[0]);
    let step = (LOGITS_MAX / vocabulary).clamp(1, count);
    for from in (0..count).step_by(step as usize) {
        let rows = |tensor: &Tensor| tensor.narrow(0, from, step.min(count - from));
        let (inputs, ids) = (rows(&picked), rows(&ids));
        let mut logits = inputs.matmul(&head.tr()).to_kind(Kind::Float);
        if places.temperature != 1.0 {
            let _ = logits.g_div_scalar_(places.temperature);
        }
        let log_total = logits.logsumexp([1], true);
        let log_probs = logits.gather(1, &ids, false) - &log_total;
        // Where the logits were: log-probabilities of the whole vocabulary.
        let _ = logits.g_sub_(&log_total);
        let probabilities = loss.entropy().then(|| logits.exp());
        let entropies = probabilities.as_ref().map(|probabilities| {
            let products = probabilities.unsqueeze(1).bmm(&logits.unsqueeze(2));
            products.neg().view([-1])
        });
        let terms = loss.terms(&Chunk { from, log_probs: log_probs.view([-1]), entropies });
        total += terms.loss;
        let (Wanted::Gradients { of_head }, Some(picked_gradient)) = (&mut wanted, &mut picked_gradient) else {
            continue;
        };
        // Slope times one-hot minus softmax, by the temperature.
        let slopes = terms.slopes.unsqueeze(1) / places.temperature;
        let mut found = probabilities.unwrap_or_else(|| logits.exp_());
        let _ = found.g_mul_(&slopes.neg()).scatter_add_(1, &ids, &slopes);
        let logits_gradient = found.to_kind(head.kind());
        rows(picked_gradient).copy_(&logits_gradient.matmul(head));
        let Some(head_gradient) = of_head else { continue };
        if head.kind() == Kind::Float {
            let _ = head_gradient.addmm_(&logits_gradient.tr(), &inputs);
        } else {
            let _ = head_gradient.g_add_(&logits_gradient.tr().matmul(&inputs));
        }
    }
    let hidden_gradient = picked_gradient.map(|found| hidden.zeros_like().index_copy_(0, &positions, &found));
    (total, hidden_gradient)
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

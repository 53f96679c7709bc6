//! Updates of the policy: what a round of rollouts does to the weights.
//!
//! Before the first update of a round, what does not change in it is computed: the log-probabilities that ratios are taken
//! to, unless they are the sampler's own, and those of the reference, if there is one. Then each [`PolicyUpdate`] is a
//! step of the optimiser, `passes` times over. The ratios of the first update are 1 but for the [mismatch](Mismatch) of
//! trainer and sampler; those of the later ones have moved, and are clipped.

use tch::Device;

use super::batch::{PolicyUpdate, Round};
use super::loss::{PolicyLoss, Tally, log_probs};
use crate::config::{DapoLossConfig, OldLogProbs};
use crate::error::{TrainError, guard};
use crate::loss::backward_by;
use crate::model::Qwen;
use crate::optim::AdamW;

/// What an update did.
#[derive(Debug, Clone, PartialEq)]
pub struct Updated {
    /// The loss, before the weights were changed.
    pub loss: f64,
    /// Length of the gradient before it was cut.
    pub grad_norm: f64,
    /// Name, mean over trained tokens and unit: see [`Tally::read`].
    pub means: Vec<(&'static str, f64, &'static str)>,
}

/// Difference of the trainer's log-probabilities from the sampler's, over the trained tokens of a round.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Mismatch {
    /// Mean of its absolute value, nats.
    pub mean: f64,
    /// Highest absolute value, nats.
    pub max: f64,
}

/// Fixes what ratios are taken to, and gives how far that is from the sampler's; none where it is the sampler's own.
///
/// # Errors
/// Memory ran out, or libtorch failed.
pub fn fix_old_log_probs(
    model: &Qwen,
    round: &mut Round,
    config: &DapoLossConfig,
) -> Result<Option<Mismatch>, TrainError> {
    if config.old_log_probs == OldLogProbs::Sampler {
        return Ok(None);
    }
    let (mut sum, mut max, mut count) = (0.0, 0.0_f64, 0.0_f64);
    guard(|| {
        for batch in round.batches_mut() {
            batch.targets.old_log_probs = log_probs(model, batch);
            for (old, sampler) in batch.targets.old_log_probs.iter().zip(&batch.targets.sampler_log_probs) {
                let difference = f64::from((old - sampler).abs());
                (sum, max, count) = (sum + difference, max.max(difference), count + 1.0);
            }
        }
        Ok(Some(Mismatch { mean: sum / count.max(1.0), max }))
    })
}

/// Fixes what the policy is held to; `reference` is never trained.
///
/// # Errors
/// Memory ran out, or libtorch failed.
pub fn fix_reference_log_probs(reference: &Qwen, round: &mut Round) -> Result<(), TrainError> {
    guard(|| {
        round.batches_mut().for_each(|batch| batch.targets.reference_log_probs = log_probs(reference, batch));
        Ok(())
    })
}

/// One step of the optimiser. Waits for the device.
///
/// # Errors
/// Loss or gradient is no number, memory ran out, or libtorch failed: the weights are not to be used again.
pub fn update(
    model: &Qwen,
    optimizer: &mut AdamW,
    learning_rate: f64,
    update: &PolicyUpdate,
    config: &DapoLossConfig,
) -> Result<Updated, TrainError> {
    guard(|| {
        let device: Device = model.head().device();
        let mut tally = Tally::new(device);
        let mut loss = tch::Tensor::zeros([], (tch::Kind::Float, device));
        for batch in &update.batches {
            let mut of_policy = PolicyLoss::new(config, &batch.targets, device, &mut tally);
            loss += backward_by(model, &batch.packed, batch.targets.places(), optimizer.gradient(), &mut of_policy);
        }
        let norm = optimizer.step(model.trained(), learning_rate)?;
        let (loss, grad_norm) = (loss.double_value(&[]), norm.double_value(&[]));
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(TrainError::Diverged(format!(
                "the loss of the policy is {loss} and the gradient's length {grad_norm} (learning rate \
                 {learning_rate:.2e}): lower the learning rate"
            )));
        }
        Ok(Updated { loss, grad_norm, means: tally.read() })
    })
}

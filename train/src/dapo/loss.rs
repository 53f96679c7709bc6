//! The loss of a token, and how it changes with the token's log-probability.
//!
//! π is the policy at the temperature that its tokens were drawn at: logits are divided by it, as verl does.
//! With r = π(token) / π_old(token), A the advantage of its episode, and q the reference:
//!
//! ```text
//! clipped  = −min(r·A, clip(r, 1 − ε_low, 1 + ε_high)·A)       DAPO, equation 8
//! capped   = min(clipped, c·|A|)  where A < 0                  dual clip (Ye and others, 2020)
//! loss     = capped + β·(q/π − log(q/π) − 1)                   KL, the estimator k3 (Schulman, 2020); off by default
//! ```
//!
//! Logarithms of ratios are kept within ±20, as verl does, so that none becomes infinite. The slope is d loss / d log π,
//! and 0 wherever a limit holds:
//!
//! ```text
//! −r·A where r counts in the minimum, the cap does not hold and |log r| ≤ 20, else 0;  + β·(1 − q/π) where |log q/π| ≤ 20
//! ```
//!
//! [`PolicyLoss`] sums weight times loss over a micro-batch and keeps [`Tally`], what there is to tell of it. It holds
//! nothing of the micro-batch's shape: what a token costs depends on the token and its weight alone.

use tch::{Device, Kind, Tensor};

use super::batch::{PolicyBatch, PolicyTargets};
use crate::config::DapoLossConfig;
use crate::device::upload;
use crate::loss::{Chunk, Loss, Places, Terms, evaluate_by};
use crate::model::Qwen;

/// Logarithms of ratios are kept within ± this.
const LOG_RATIO_MAX: f64 = 20.0;

/// Loss and slope of tokens, not weighted, and which limits hold. All \[n\].
#[derive(Debug)]
pub struct TokenLosses {
    /// The loss.
    pub losses: Tensor,
    /// d loss / d log π.
    pub slopes: Tensor,
    /// 1 where A < 0 and the ratio is below 1 − ε_low.
    pub clipped_low: Tensor,
    /// 1 where A > 0 and the ratio is above 1 + ε_high.
    pub clipped_high: Tensor,
    /// 1 where A < 0 and the cap holds.
    pub capped: Tensor,
    /// The estimate of the divergence from the reference; none without one.
    pub divergences: Option<Tensor>,
}

impl TokenLosses {
    /// Of tokens with these log-probabilities, now and before, and these advantages; \[n\] each, in fp32.
    pub fn new(
        config: &DapoLossConfig,
        log_probs: &Tensor,
        old_log_probs: &Tensor,
        advantages: &Tensor,
        reference_log_probs: Option<&Tensor>,
    ) -> Self {
        let log_ratios = log_probs - old_log_probs;
        let ratios = log_ratios.clamp(-LOG_RATIO_MAX, LOG_RATIO_MAX).exp();
        let unclipped = -(&ratios * advantages);
        let clipped = -(ratios.clamp(1.0 - config.clip_low, 1.0 + config.clip_high) * advantages);
        let negative = advantages.lt(0.0);
        let mut losses = unclipped.maximum(&clipped);
        let caps = (config.dual_clip > 0.0).then(|| advantages.abs() * config.dual_clip);
        let capped = match &caps {
            None => negative.zeros_like(),
            Some(caps) => losses.gt_tensor(caps).logical_and(&negative),
        };
        let counts = unclipped.ge_tensor(&clipped);
        let moves = counts.logical_and(&capped.logical_not()).logical_and(&within(&log_ratios));
        let mut slopes = &unclipped * moves.to_kind(Kind::Float);
        if let Some(caps) = &caps {
            losses = losses.where_self(&capped.logical_not(), caps);
        }
        let mut divergences = None;
        if let Some(reference) = reference_log_probs {
            let log_ratios = reference - log_probs;
            let kept = log_ratios.clamp(-LOG_RATIO_MAX, LOG_RATIO_MAX);
            let ratios = kept.exp();
            let divergence = &ratios - &kept - 1.0;
            slopes += (1.0 - &ratios) * within(&log_ratios).to_kind(Kind::Float) * config.kl;
            losses += &divergence * config.kl;
            divergences = Some(divergence);
        }
        let clipped_where = |of_sign: &Tensor| clipped.gt_tensor(&unclipped).logical_and(of_sign).to_kind(Kind::Float);
        Self {
            clipped_low: clipped_where(&negative),
            clipped_high: clipped_where(&advantages.gt(0.0)),
            capped: capped.to_kind(Kind::Float),
            losses,
            slopes,
            divergences,
        }
    }
}

fn within(log_ratios: &Tensor) -> Tensor {
    log_ratios.abs().le(LOG_RATIO_MAX)
}

/// Sums over trained tokens, on the device.
#[derive(Debug)]
pub struct Tally {
    tokens: i64,
    /// In the order of [`Tally::MEANS`].
    sums: Tensor,
    has_reference: bool,
    mismatch_max: Tensor,
}

impl Tally {
    /// Means over trained tokens, by name and unit.
    const MEANS: [(&str, &str); 9] = [
        ("policy_loss", "nat"),
        ("entropy", "nat"),
        ("clip_fraction.low", "1"),
        ("clip_fraction.high", "1"),
        ("clip_fraction.dual", "1"),
        ("policy_kl", "nat"),
        ("mismatch.mean", "nat"),
        ("mismatch.kl", "nat"),
        ("reference_kl", "nat"),
    ];

    /// Of nothing yet.
    pub fn new(device: Device) -> Self {
        let zeros = |sizes: &[i64]| Tensor::zeros(sizes, (Kind::Float, device));
        let sums = zeros(&[Self::MEANS.len() as i64]);
        Self { tokens: 0, sums, has_reference: false, mismatch_max: zeros(&[]) }
    }

    /// Name, value and unit of each: waits for the device. Nothing without a token.
    ///
    /// Mismatch is between trainer and sampler: of |Δ| mean and highest, and the estimate k3 of the divergence, with
    /// Δ = log π − log π_sampler. It is one of numbers, and not of weights, in the first update of a round alone.
    pub fn read(&self) -> Vec<(&'static str, f64, &'static str)> {
        if self.tokens == 0 {
            return Vec::new();
        }
        let sums = Vec::<f64>::try_from(self.sums.to_kind(Kind::Double)).unwrap_or_default();
        let means = Self::MEANS.iter().zip(sums).map(|(&(name, unit), sum)| (name, sum / self.tokens as f64, unit));
        let told = means.filter(|mean| self.has_reference || mean.0 != "reference_kl");
        told.chain([("mismatch.max", self.mismatch_max.double_value(&[]), "nat")]).collect()
    }

    fn add(&mut self, chunk: &Chunk, found: &TokenLosses, old: &Tensor, sampler: &Tensor) {
        let differences = &chunk.log_probs - sampler;
        let kept = differences.clamp(-LOG_RATIO_MAX, LOG_RATIO_MAX);
        let zero = Tensor::zeros([], (Kind::Float, differences.device()));
        let sum = |values: &Tensor| values.sum(Kind::Float);
        let sums = [
            sum(&found.losses),
            chunk.entropies.as_ref().map_or_else(|| zero.shallow_clone(), &sum),
            sum(&found.clipped_low),
            sum(&found.clipped_high),
            sum(&found.capped),
            sum(&(old - &chunk.log_probs)),
            sum(&differences.abs()),
            sum(&(kept.exp() - &kept - 1.0)),
            found.divergences.as_ref().map_or_else(|| zero.shallow_clone(), &sum),
        ];
        self.tokens += differences.size()[0];
        self.has_reference |= found.divergences.is_some();
        self.sums += Tensor::stack(&sums, 0);
        self.mismatch_max = self.mismatch_max.maximum(&differences.abs().max());
    }
}

/// The loss of a micro-batch.
#[derive(Debug)]
pub struct PolicyLoss<'a> {
    config: &'a DapoLossConfig,
    weights: Tensor,
    advantages: Tensor,
    old_log_probs: Tensor,
    sampler_log_probs: Tensor,
    reference_log_probs: Option<Tensor>,
    tally: &'a mut Tally,
}

impl<'a> PolicyLoss<'a> {
    /// Of a micro-batch on `device`; what there is to tell of it is added to `tally`.
    pub fn new(config: &'a DapoLossConfig, targets: &PolicyTargets, device: Device, tally: &'a mut Tally) -> Self {
        let tensor = |values: &[f32]| upload(values, device);
        let reference = &targets.reference_log_probs;
        Self {
            config,
            weights: tensor(&targets.weights),
            advantages: tensor(&targets.advantages),
            old_log_probs: tensor(&targets.old_log_probs),
            sampler_log_probs: tensor(&targets.sampler_log_probs),
            reference_log_probs: (config.kl > 0.0 && !reference.is_empty()).then(|| tensor(reference)),
            tally,
        }
    }
}

impl Loss for PolicyLoss<'_> {
    fn entropy(&self) -> bool {
        true
    }

    fn terms(&mut self, chunk: &Chunk) -> Terms {
        let (old, sampler) = (chunk.of(&self.old_log_probs), chunk.of(&self.sampler_log_probs));
        let reference = self.reference_log_probs.as_ref().map(|all| chunk.of(all));
        let advantages = chunk.of(&self.advantages);
        let found = TokenLosses::new(self.config, &chunk.log_probs, &old, &advantages, reference.as_ref());
        self.tally.add(chunk, &found, &old, &sampler);
        let weights = chunk.of(&self.weights);
        Terms { loss: (&found.losses * &weights).sum(Kind::Float), slopes: &found.slopes * &weights }
    }
}

impl PolicyTargets {
    /// Where they stand.
    pub fn places(&self) -> Places<'_> {
        Places { positions: &self.positions, ids: &self.ids, temperature: self.temperature }
    }
}

/// Log-probabilities of a micro-batch's trained tokens under a model, \[N\].
pub fn log_probs(model: &Qwen, batch: &PolicyBatch) -> Vec<f32> {
    let mut found = Collected(Vec::new());
    let _ = evaluate_by(model, &batch.packed, batch.targets.places(), &mut found);
    if found.0.is_empty() {
        return Vec::new();
    }
    Vec::try_from(Tensor::cat(&found.0, 0)).unwrap_or_default()
}

/// Costs nothing and keeps what it is told.
struct Collected(Vec<Tensor>);

impl Loss for Collected {
    fn entropy(&self) -> bool {
        false
    }

    fn terms(&mut self, chunk: &Chunk) -> Terms {
        self.0.push(chunk.log_probs.shallow_clone());
        let zeros = chunk.log_probs.zeros_like();
        Terms { loss: zeros.sum(Kind::Float), slopes: zeros }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(config: &DapoLossConfig, ratio: f64, advantage: f64) -> (f64, f64) {
        let tensor = |value: f64| Tensor::from_slice(&[value as f32]);
        let found = TokenLosses::new(config, &tensor(ratio.ln()), &tensor(0.0), &tensor(advantage), None);
        (found.losses.double_value(&[0]), found.slopes.double_value(&[0]))
    }

    fn assert_losses(ratio: f64, advantage: f64, loss: f64, slope: f64) {
        let found = losses(&DapoLossConfig::default(), ratio, advantage);
        let close = |found: f64, expected: f64| (found - expected).abs() < 1e-4 * expected.abs().max(1.0);
        assert!(close(found.0, loss) && close(found.1, slope), "{ratio} {advantage}: {found:?}, not {loss} {slope}");
    }

    #[test]
    fn a_good_token_counts_up_to_its_limit() {
        assert_losses(1.0, 2.0, -2.0, -2.0);
        assert_losses(1.5, 2.0, -2.56, 0.0);
        assert_losses(1.27, 2.0, -2.54, -2.54);
        // There is no limit below: it may always become likelier.
        assert_losses(0.5, 2.0, -1.0, -1.0);
    }

    #[test]
    fn a_bad_token_counts_down_to_its_limit_and_up_to_the_cap() {
        assert_losses(1.0, -2.0, 2.0, 2.0);
        assert_losses(0.5, -2.0, 1.6, 0.0);
        assert_losses(0.81, -2.0, 1.62, 1.62);
        assert_losses(5.0, -2.0, 10.0, 10.0);
        assert_losses(20.0, -2.0, 20.0, 0.0);
        let uncapped = DapoLossConfig { dual_clip: 0.0, ..DapoLossConfig::default() };
        assert_eq!(losses(&uncapped, 1.5, -2.0), (3.0, 3.0));
        let (loss, slope) = losses(&uncapped, 20.0, -2.0);
        assert!((loss - 40.0).abs() < 1e-3 && (slope - 40.0).abs() < 1e-3);
    }

    #[test]
    fn without_an_advantage_there_is_nothing_to_learn() {
        for ratio in [0.1, 1.0, 30.0] {
            assert_eq!(losses(&DapoLossConfig::default(), ratio, 0.0), (0.0, 0.0));
        }
    }

    #[test]
    fn no_ratio_is_infinite() {
        let uncapped = DapoLossConfig { dual_clip: 0.0, ..DapoLossConfig::default() };
        let tensor = |value: f32| Tensor::from_slice(&[value]);
        for (now, old) in [(0.0, -500.0), (-500.0, 0.0)] {
            let found = TokenLosses::new(&uncapped, &tensor(now), &tensor(old), &tensor(-1.0), Some(&tensor(old)));
            assert!(found.losses.double_value(&[0]).is_finite());
            assert_eq!(found.slopes.double_value(&[0]), 0.0);
        }
    }

    #[test]
    fn the_divergence_from_the_reference_is_k3() {
        let config = DapoLossConfig { kl: 0.5, ..DapoLossConfig::default() };
        let tensor = |value: f64| Tensor::from_slice(&[value as f32]);
        let zero = tensor(0.0);
        let found = TokenLosses::new(&config, &tensor(-1.0), &tensor(-1.0), &zero, Some(&tensor(-1.5)));
        // With log q/π = −0.5: e^−0.5 + 0.5 − 1 = 0.10653.
        assert!((found.divergences.unwrap().double_value(&[0]) - 0.10653).abs() < 1e-5);
        assert!((found.losses.double_value(&[0]) - 0.05327).abs() < 1e-5);
        assert!((found.slopes.double_value(&[0]) - 0.5 * (1.0 - 0.60653)).abs() < 1e-5);
    }

    #[test]
    fn what_was_clipped_is_marked_by_its_side() {
        let tensor = |values: &[f32]| Tensor::from_slice(values);
        let ratios = tensor(&[0.5, 0.5, 1.5, 1.5, 20.0]).log();
        let advantages = tensor(&[1.0, -1.0, 1.0, -1.0, -1.0]);
        let found = TokenLosses::new(&DapoLossConfig::default(), &ratios, &ratios.zeros_like(), &advantages, None);
        let marks = |marks: &Tensor| Vec::<f32>::try_from(marks).unwrap();
        assert_eq!(marks(&found.clipped_low), [0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(marks(&found.clipped_high), [0.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!(marks(&found.capped), [0.0, 0.0, 0.0, 0.0, 1.0]);
    }
}

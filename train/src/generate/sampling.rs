//! From logits to tokens.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::device::upload;

/// How a sequence is sampled. Cuts are made in the order of transformers: penalty, temperature, top-k, top-p.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// 0 takes the most likely token.
    pub temperature: f64,
    /// The fewest tokens whose probabilities reach this.
    pub top_p: f64,
    /// So many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Above 1, tokens of prompt and completion become less likely (Keskar and others, 2019).
    pub repetition_penalty: f64,
    /// Of the sequence's own generator.
    pub seed: u64,
    /// Whether the log-probabilities told are those at the temperature, and not the model's own.
    #[serde(skip)]
    pub tell_tempered: bool,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, repetition_penalty: 1.0, seed: 0, tell_tempered: false }
    }
}

/// Below it the likeliest token is taken: quotients of logits would be no numbers any more. vLLM's bound.
const TEMPERATURE_MIN: f64 = 1e-5;

impl SamplingConfig {
    fn greedy(&self) -> bool {
        self.temperature < TEMPERATURE_MIN
    }

    /// What logits are divided by before their log-probabilities are told.
    fn told_at(&self) -> f64 {
        if self.tell_tempered && !self.greedy() { self.temperature } else { 1.0 }
    }

    fn cuts(&self) -> bool {
        self.top_p < 1.0 || self.top_k > 0
    }
}

/// One row to sample: how, from what, and what was read and written so far.
pub(super) struct Row<'a> {
    pub(super) config: &'a SamplingConfig,
    pub(super) random: &'a mut ChaCha8Rng,
    pub(super) tokens: &'a [i64],
}

/// The generator of a sequence.
pub(super) fn generator(config: &SamplingConfig) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(config.seed)
}

/// Samples a token of each row of logits \[B, V\]; gives ids and log-probabilities, \[B\] each.
pub(super) fn sample(logits: &Tensor, rows: &mut [Row<'_>]) -> (Vec<i64>, Vec<f32>) {
    let logits = logits.to_kind(Kind::Float);
    let penalised = penalise(&logits, rows);
    let mut ids = penalised.argmax(1, false);
    // Cut and uncut rows walk their tokens in different orders, and how a row is drawn must not depend on its neighbours.
    for cut in [false, true] {
        let drawn: Vec<i64> = (0..rows.len())
            .filter(|&at| !rows[at].config.greedy() && rows[at].config.cuts() == cut)
            .map(|at| at as i64)
            .collect();
        if drawn.is_empty() {
            continue;
        }
        let configs: Vec<SamplingConfig> = drawn.iter().map(|&at| *rows[at as usize].config).collect();
        let uniform: Vec<f32> = drawn.iter().map(|&at| rows[at as usize].random.random::<f32>()).collect();
        let at = upload(&drawn, logits.device());
        let found = draw(&penalised.index_select(0, &at), &configs, &uniform, cut);
        let _ = ids.index_copy_(0, &at, &found);
    }
    let told = match rows.iter().all(|row| row.config.told_at() == 1.0) {
        true => logits,
        false => &logits / column(&logits, rows.iter().map(|row| row.config.told_at() as f32).collect()),
    };
    let log_probs = told.gather(1, &ids.unsqueeze(1), false) - told.logsumexp([1], true);
    (to_vec(&ids), to_vec_f32(&log_probs.squeeze_dim(1)))
}

/// A value for each row of logits, \[B, 1\].
fn column(logits: &Tensor, values: Vec<f32>) -> Tensor {
    upload(&values, logits.device()).unsqueeze(1)
}

/// By inverting the cumulative distribution at a uniform number a row.
fn draw(logits: &Tensor, configs: &[SamplingConfig], uniform: &[f32], cut: bool) -> Tensor {
    let device = logits.device();
    let column = |values| column(logits, values);
    let scaled = logits / column(configs.iter().map(|config| config.temperature as f32).collect());
    let uniform = upload(uniform, device).unsqueeze(1);
    if !cut {
        return invert(&scaled.softmax(1, Kind::Float), &uniform).squeeze_dim(1);
    }
    let vocabulary = logits.size()[1];
    let (sorted, order) = scaled.sort(1, true);
    let ranks = Tensor::arange(vocabulary, (Kind::Float, device)).unsqueeze(0);
    let most = |config: &SamplingConfig| if config.top_k == 0 { vocabulary as f32 } else { config.top_k as f32 };
    let within_k = ranks.less_tensor(&column(configs.iter().map(most).collect()));
    // The probabilities that top-p adds up are those that top-k left.
    let kept = sorted.masked_fill(&within_k.logical_not(), f64::NEG_INFINITY).softmax(1, Kind::Float);
    let above = kept.cumsum(1, Kind::Float) - &kept;
    let within_p = above.less_tensor(&column(configs.iter().map(|config| config.top_p as f32).collect()));
    // The first always stays.
    let stays = within_p.logical_or(&ranks.less(1.0));
    let rank = invert(&(kept * stays.to_kind(Kind::Float)), &uniform);
    order.gather(1, &rank, false).squeeze_dim(1)
}

/// The first place of each row \[B, V\] where the sum so far exceeds the share `uniform` \[B, 1\] of the whole: \[B, 1\].
fn invert(weights: &Tensor, uniform: &Tensor) -> Tensor {
    let sums = weights.cumsum(1, Kind::Float);
    let last = weights.size()[1] - 1;
    let wanted = uniform * sums.narrow(1, last, 1);
    // Rounding must not lead to a token of weight 0 behind the last that has any.
    let possible = weights.gt(0.0).to_kind(Kind::Int64) * Tensor::arange(last + 1, (Kind::Int64, weights.device()));
    let most = possible.amax([1], true);
    sums.less_equal_tensor(&wanted).sum_dim_intlist([1].as_slice(), true, Kind::Int64).minimum(&most)
}

fn penalise(logits: &Tensor, rows: &[Row<'_>]) -> Tensor {
    if rows.iter().all(|row| row.config.repetition_penalty == 1.0) {
        return logits.shallow_clone();
    }
    let penalised = logits.copy();
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| row.config.repetition_penalty != 1.0) {
        let mut seen = row.tokens.to_vec();
        seen.sort_unstable();
        seen.dedup();
        let seen = upload(&seen, logits.device());
        let mut scores = penalised.get(at as i64);
        let held = scores.index_select(0, &seen);
        let penalty = row.config.repetition_penalty;
        let lowered = (&held / penalty).where_self(&held.gt(0.0), &(&held * penalty));
        let _ = scores.index_copy_(0, &seen, &lowered);
    }
    penalised
}

fn to_vec(tensor: &Tensor) -> Vec<i64> {
    let mut values = vec![0; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}

fn to_vec_f32(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares of the tokens in many draws, and the log-probability told for each.
    fn shares(probabilities: &[f32], config: SamplingConfig, tokens: &[i64]) -> (Vec<f64>, Vec<f32>) {
        let logits = Tensor::from_slice(probabilities).log().unsqueeze(0);
        let mut random = generator(&config);
        let (mut counts, mut told) = (vec![0.0; probabilities.len()], vec![f32::NAN; probabilities.len()]);
        for _ in 0..4000 {
            let (ids, log_probs) = sample(&logits, &mut [Row { config: &config, random: &mut random, tokens }]);
            counts[ids[0] as usize] += 1.0 / 4000.0;
            told[ids[0] as usize] = log_probs[0];
        }
        (counts, told)
    }

    fn assert_near(found: &[f64], expected: &[f64]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.03), "{found:?} {expected:?}");
    }

    #[test]
    fn tokens_come_as_often_as_they_are_likely_and_tell_their_log_probability() {
        let (found, told) = shares(&[0.5, 0.2, 0.3], SamplingConfig::default(), &[]);
        assert_near(&found, &[0.5, 0.2, 0.3]);
        assert!((told[2] - 0.3f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn temperature_sharpens_and_zero_takes_the_first() {
        let cold = SamplingConfig { temperature: 0.5, ..SamplingConfig::default() };
        assert_near(&shares(&[0.5, 0.2, 0.3], cold, &[]).0, &[0.25 / 0.38, 0.04 / 0.38, 0.09 / 0.38]);
        // Where quotients would be no numbers any more, too.
        for temperature in [0.0, 1e-50, 9e-6] {
            let greedy = SamplingConfig { temperature, ..SamplingConfig::default() };
            assert_eq!(shares(&[0.2, 0.5, 0.3], greedy, &[]).0[1].round(), 1.0, "{temperature}");
        }
    }

    #[test]
    fn the_log_probability_told_is_the_models_or_that_at_the_temperature() {
        for (tell_tempered, temperature, expected) in [
            (false, 0.5, 0.3f32),
            (true, 0.5, 0.09 / 0.38),
            (true, 1.0, 0.3),
            // There is no distribution to tell of.
            (true, 0.0, 0.5),
        ] {
            let config = SamplingConfig { temperature, tell_tempered, ..SamplingConfig::default() };
            let told = shares(&[0.5, 0.2, 0.3], config, &[]).1[if temperature == 0.0 { 0 } else { 2 }];
            assert!((told - expected.ln()).abs() < 1e-5, "{tell_tempered} {temperature}: {}", told.exp());
        }
    }

    #[test]
    fn top_k_and_top_p_leave_the_likeliest() {
        let k = SamplingConfig { top_k: 2, ..SamplingConfig::default() };
        assert_near(&shares(&[0.2, 0.5, 0.3], k, &[]).0, &[0.0, 0.625, 0.375]);
        // 0.5 does not reach 0.6; with 0.3 it does.
        let p = SamplingConfig { top_p: 0.6, ..SamplingConfig::default() };
        assert_near(&shares(&[0.2, 0.5, 0.3], p, &[]).0, &[0.0, 0.625, 0.375]);
        let none = SamplingConfig { top_p: 0.0, ..SamplingConfig::default() };
        assert_near(&shares(&[0.2, 0.5, 0.3], none, &[]).0, &[0.0, 1.0, 0.0]);
    }

    #[test]
    fn what_was_said_is_penalised_and_the_log_probability_is_the_models() {
        let config = SamplingConfig { temperature: 0.0, repetition_penalty: 2.0, ..SamplingConfig::default() };
        // ln 0.5 doubled is below ln 0.3.
        let (found, told) = shares(&[0.2, 0.5, 0.3], config, &[1, 1]);
        assert_eq!(found[2].round(), 1.0);
        assert!((told[2] - 0.3f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn a_draw_does_not_depend_on_the_neighbours() {
        let logits = Tensor::from_slice(&[0.2f32, 0.5, 0.3]).log().unsqueeze(0);
        let plain = SamplingConfig { seed: 7, ..SamplingConfig::default() };
        let cut = SamplingConfig { top_p: 0.9, temperature: 0.7, seed: 8, ..SamplingConfig::default() };
        let run = |with_neighbour: bool| {
            let (mut random, mut other) = (generator(&plain), generator(&cut));
            let draw = |_| {
                let mut rows = vec![Row { config: &plain, random: &mut random, tokens: &[] }];
                if with_neighbour {
                    rows.push(Row { config: &cut, random: &mut other, tokens: &[] });
                }
                sample(&logits.expand([rows.len() as i64, -1], false), &mut rows).0[0]
            };
            (0..50).map(draw).collect::<Vec<_>>()
        };
        assert_eq!(run(false), run(true));
    }
}

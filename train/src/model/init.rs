//! Weights from scratch.

use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::params::Parameters;
use super::rope::frequencies;
use crate::error::{TrainError, guard};

impl Parameters {
    /// Draws weights: matrices normal with `initializer_range`, those that write into the residual stream narrower by
    /// 1/√(2L) (GPT-2), norms one, biases zero. A seed gives the same weights on every machine.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub fn draw(config: &ModelConfig, seed: u64, kind: Kind, device: Device) -> Result<Self, TrainError> {
        let parameters = Self::zeros(config, kind, device)?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let residual = config.initializer_range / (2.0 * config.layers as f64).sqrt();
        guard(|| {
            for (name, mut place) in parameters.pieces(parameters.flat()) {
                if place.dim() == 2 {
                    let narrow = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
                    let spread = if narrow { residual } else { config.initializer_range };
                    let drawn = normal(&mut random, place.numel(), spread);
                    place.copy_(&Tensor::from_slice(&drawn).view(place.size().as_slice()));
                } else if name.ends_with("norm.weight") {
                    let _ = place.fill_(1.0);
                }
            }
            Ok(())
        })?;
        Ok(parameters)
    }

    /// Makes heads begin as ones that copy, in the manner of Trockman and Kolter (Mimetic Initialization of Self-Attention
    /// Layers, 2023): keys take the weights of queries, so that a token is looked for where it stood before; outputs those of
    /// values, transposed and times `gain`, so that what was read is written as it was. A small learner need not find out how
    /// to copy then, only what. There are as many key heads as query heads.
    ///
    /// With `previous` above 0 they begin as induction heads (Olsson and others, 2022), which copy what followed: so many
    /// heads of the first layer note at each token which one stands before it, and half of the heads of every later layer
    /// look for a token among these notes. It takes a family that normalises queries and keys.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    pub fn mimic(&self, config: &ModelConfig, gain: f64, previous: usize) -> Result<(), TrainError> {
        guard(|| {
            let by_name: HashMap<String, Tensor> = self.pieces(self.flat()).collect();
            let noted = previous as i64 * config.head_dim;
            let looking = (config.heads / 2).max(1) * config.head_dim;
            // What is written of a token into the stream of the next, \[h, h\].
            let mut note = None;
            for layer in 0..config.layers {
                let of = |name: &str| by_name.get(&format!("model.layers.{layer}.self_attn.{name}.weight"));
                let projections = (of("q_proj"), of("k_proj"), of("v_proj"), of("o_proj"));
                let (Some(query), Some(key), Some(value), Some(output)) = projections else { continue };
                let drawn = output.copy();
                key.shallow_clone().copy_(query);
                output.shallow_clone().copy_(&(value.tr() * gain));
                match &note {
                    _ if previous == 0 => {}
                    None => {
                        // Not as it was: a note must not be taken for the token itself.
                        let written = drawn.narrow(1, 0, noted) * gain;
                        output.narrow(1, 0, noted).copy_(&written);
                        note = Some(written.matmul(&value.narrow(0, 0, noted)));
                    }
                    Some(note) => {
                        let query = query.narrow(0, 0, looking);
                        let sought = query.matmul(&note.tr());
                        key.narrow(0, 0, looking).copy_(&(&sought * (query.norm() / sought.norm())));
                    }
                }
            }
            if let Some(embedding) = by_name.get("model.embed_tokens.weight").filter(|_| previous > 0) {
                // The same in every token: what heads that go by the position alone make their queries and keys of.
                let _ = embedding.narrow(1, 0, 1).fill_(4.0 * config.initializer_range);
                look_back(&by_name, config, previous as i64);
            }
            Ok(())
        })
    }
}

/// Makes heads of the first layer attend to the token before, whatever it is: queries and keys are the same at every token,
/// but for their rotary angles, and queries are turned back by one position. So their product is largest one position back.
fn look_back(by_name: &HashMap<String, Tensor>, config: &ModelConfig, heads: i64) {
    // The fastest pairs tell neighbours apart; the sharper, the larger the norms' weights.
    const PAIRS: usize = 4;
    const SHARPNESS: f64 = 1.5;
    let width = config.head_dim;
    let angles = frequencies(config.rope_theta, width, None);
    for (which, turn) in [("q", -1.0), ("k", 0.0)] {
        let of = |name: &str| by_name.get(&format!("model.layers.0.self_attn.{which}_{name}.weight"));
        let (Some(projection), Some(norm)) = (of("proj"), of("norm")) else { continue };
        for head in 0..heads {
            let mut rows = projection.narrow(0, head * width, width);
            let _ = rows.zero_();
            for (pair, &angle) in angles.iter().take(PAIRS).enumerate() {
                let angle = turn * f64::from(angle);
                for (row, value) in [(pair as i64, angle.cos()), (pair as i64 + width / 2, angle.sin())] {
                    let _ = rows.narrow(0, row, 1).narrow(1, 0, 1).fill_(value);
                }
            }
        }
        let _ = norm.shallow_clone().fill_(SHARPNESS);
    }
}

/// Normal numbers by Box and Muller: libtorch's generators differ by device and version.
fn normal(random: &mut ChaCha8Rng, count: usize, spread: f64) -> Vec<f32> {
    let mut drawn = Vec::with_capacity(count + 1);
    while drawn.len() < count {
        let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt() * spread;
        let angle = std::f64::consts::TAU * random.random::<f64>();
        drawn.push((radius * angle.cos()) as f32);
        drawn.push((radius * angle.sin()) as f32);
    }
    drawn.truncate(count);
    drawn
}

#[cfg(test)]
mod tests {
    use rand::seq::SliceRandom;

    use super::super::attention::Attention;
    use super::super::qwen::Qwen;
    use super::*;
    use crate::config::ScratchModel;

    #[test]
    fn a_head_that_copies_looks_with_what_it_is_looked_for_by_and_writes_what_it_read() {
        let shape =
            ScratchModel { hidden_size: 8, layers: 2, heads: 2, kv_heads: 2, head_dim: 4, ..ScratchModel::default() };
        let config = ModelConfig::scratch(&shape, 16).unwrap();
        let parameters = Parameters::draw(&config, 3, Kind::Float, Device::Cpu).unwrap();
        let piece = |name: &str| {
            let found = parameters.pieces(parameters.flat()).find(|(found, _)| found == name);
            found.unwrap().1.copy()
        };
        let of = |layer: usize, name: &str| piece(&format!("model.layers.{layer}.self_attn.{name}_proj.weight"));
        let before = [of(1, "q"), of(1, "v"), piece("model.layers.1.mlp.down_proj.weight")];
        assert_ne!(of(1, "k"), of(1, "q"));
        parameters.mimic(&config, 2.0, 0).unwrap();
        for layer in 0..2 {
            assert_eq!(of(layer, "k"), of(layer, "q"));
            assert_eq!(of(layer, "o"), of(layer, "v").transpose(0, 1) * 2.0);
        }
        assert_eq!([of(1, "q"), of(1, "v"), piece("model.layers.1.mlp.down_proj.weight")], before);
    }

    /// Keeps what each head of a layer attends to, \[T, T\] each.
    #[derive(Default)]
    struct Seen(Vec<Vec<Tensor>>);

    impl Attention for Seen {
        fn attend(&mut self, _layer: usize, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
            let (heads, width) = (query.size()[1], query.size()[2] as f64);
            let of = |tensor: &Tensor, head: i64| tensor.select(1, head);
            let weights: Vec<Tensor> = (0..heads)
                .map(|head| {
                    let products = of(query, head).matmul(&of(key, head).tr()) / width.sqrt();
                    let behind = products.ones_like().triu(1).to_kind(Kind::Bool);
                    products.masked_fill(&behind, f64::NEG_INFINITY).softmax(-1, Kind::Float)
                })
                .collect();
            let read: Vec<Tensor> = (0..heads).map(|head| weights[head as usize].matmul(&of(value, head))).collect();
            self.0.push(weights);
            Tensor::stack(&read, 1).flatten(1, 2)
        }
    }

    /// Of 63 tokens in any order, said twice: the mean attention of the first head of the first and the second layer at the
    /// second time, to the token before and to what followed the same token at the first time.
    fn attention(previous: usize) -> [f64; 2] {
        let shape = ScratchModel { layers: 2, init_std: 0.06, ..ScratchModel::default() };
        let config = ModelConfig::scratch(&shape, 64).unwrap();
        let parameters = Parameters::draw(&config, 1, Kind::Float, Device::Cpu).unwrap();
        parameters.mimic(&config, 4.0, previous).unwrap();
        let model = Qwen::new(config, parameters).unwrap();
        let mut once: Vec<i64> = (0..63).collect();
        once.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
        let (ids, positions) = ([once.clone(), once].concat(), (0..126).collect::<Vec<i64>>());
        let mut seen = Seen::default();
        let _ = model.hidden(&model.context(&ids, &positions), &mut seen);
        let mean = |layer: usize, back: i64| {
            let rows = seen.0[layer][0].narrow(0, 63, 62);
            rows.diagonal(63 - back, 0, 1).mean(Kind::Double).double_value(&[])
        };
        [mean(0, 1), mean(1, 62)]
    }

    #[test]
    fn heads_that_look_back_attend_to_the_token_before_and_later_ones_lean_to_what_followed() {
        let _guard = tch::no_grad_guard();
        let [without, with] = [attention(0), attention(2)];
        assert!(without[0] < 0.02 && with[0] > 0.7, "to the token before: {without:?} {with:?}");
        assert!(with[1] > 2.0 * without[1], "to what followed: {without:?} {with:?}");
    }
}

//! Weights from scratch.

use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::params::Parameters;
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

    /// Makes every head begin as one that copies, in the manner of Trockman and Kolter (Mimetic Initialization of
    /// Self-Attention Layers, 2023): keys take the weights of queries, so that a token is looked for where it stood before;
    /// outputs those of values, transposed and times `gain`, so that what was read is written as it was. A small learner
    /// need not find out how to copy then, only what. There are as many key heads as query heads.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    pub fn mimic(&self, config: &ModelConfig, gain: f64) -> Result<(), TrainError> {
        guard(|| {
            let by_name: HashMap<String, Tensor> = self.pieces(self.flat()).collect();
            for layer in 0..config.layers {
                let of = |name: &str| by_name.get(&format!("model.layers.{layer}.self_attn.{name}_proj.weight"));
                if let (Some(query), Some(key), Some(value), Some(output)) = (of("q"), of("k"), of("v"), of("o")) {
                    key.shallow_clone().copy_(query);
                    output.shallow_clone().copy_(&(value.tr() * gain));
                }
            }
            Ok(())
        })
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
        parameters.mimic(&config, 2.0).unwrap();
        for layer in 0..2 {
            assert_eq!(of(layer, "k"), of(layer, "q"));
            assert_eq!(of(layer, "o"), of(layer, "v").transpose(0, 1) * 2.0);
        }
        assert_eq!([of(1, "q"), of(1, "v"), piece("model.layers.1.mlp.down_proj.weight")], before);
    }
}

//! Weights from scratch.

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

//! AdamW with decoupled weight decay (Loshchilov and Hutter, 2019), over the flat buffer of the parameters.
//!
//! Gradients, both moments and, for weights in bf16, their masters are fp32 buffers of the same layout. An update is ATen's
//! fused kernel over them: each is read from memory once and not once an operation. The gradient is cut as the kernel reads
//! it, by a divisor that stays on the device.

use std::path::Path;

use tch::{Kind, Tensor};

use crate::config::OptimizerConfig;
use crate::error::{TrainError, guard};
use crate::model::{Parameters, weights};
use crate::shim::{self, Rates};

/// The optimiser's state.
#[derive(Debug)]
pub struct AdamW {
    config: OptimizerConfig,
    /// Sum of the gradients of a step so far, \[P\].
    gradient: Tensor,
    /// First and second moment, \[P\].
    moments: [Tensor; 2],
    /// The weights in fp32 where the model has them in fewer bits, \[P\].
    master: Option<Tensor>,
    /// Views of moments and master, by their names in a file.
    pieces: Vec<(String, Tensor)>,
    steps: u64,
}

impl AdamW {
    /// At rest, for these weights.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    pub fn new(config: &OptimizerConfig, parameters: &Parameters) -> Result<Self, TrainError> {
        guard(|| {
            let flat = parameters.flat();
            let zeros = || Tensor::zeros(flat.size(), (Kind::Float, flat.device()));
            let master = (flat.kind() != Kind::Float).then(|| flat.to_kind(Kind::Float));
            let moments = [zeros(), zeros()];
            let pieces =
                [("exp_avg", Some(&moments[0])), ("exp_avg_sq", Some(&moments[1])), ("master", master.as_ref())]
                    .into_iter()
                    .filter_map(|(kind, buffer)| Some((kind, buffer?)))
                    .flat_map(|(kind, buffer)| {
                        parameters.pieces(buffer).map(move |(name, piece)| (format!("{kind}.{name}"), piece))
                    })
                    .collect();
            Ok(Self { config: config.clone(), gradient: zeros(), moments, master, pieces, steps: 0 })
        })
    }

    /// Where the gradients of a step are summed, \[P\] in fp32; zeros at its beginning.
    pub fn gradient(&self) -> &Tensor {
        &self.gradient
    }

    /// Updates done so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Updates the weights by the gradients summed so far and sets these to zero. Gives the length of the gradient before
    /// it was cut, a scalar on the device; nothing here waits for the device.
    ///
    /// A gradient that is no number makes weights of the kind, so that the next loss tells of it.
    ///
    /// # Errors
    ///
    /// libtorch has no fused AdamW for the device.
    pub fn step(&mut self, parameters: &Parameters, learning_rate: f64) -> Result<Tensor, TrainError> {
        tch::no_grad(|| {
            self.steps += 1;
            let weights = self.master.as_ref().unwrap_or(parameters.flat());
            let step = Tensor::full([], self.steps as f64, (Kind::Float, weights.device()));
            let norm = self.gradient.norm();
            // As torch.nn.utils.clip_grad_norm_, the other way up: never longer, only shorter.
            let clip = self.config.grad_clip;
            let divisor = (clip > 0.0).then(|| ((&norm + 1e-6) / clip).clamp_min(1.0));
            let (total, decayed) = (weights.numel() as i64, parameters.decayed());
            let ranges = [(0, decayed, self.config.weight_decay), (decayed, total, 0.0)];
            // Adapters are matrices alone.
            for (from, to, weight_decay) in ranges.into_iter().filter(|(from, to, _)| from < to) {
                let [first, second] = &self.moments;
                let parts = [weights, &self.gradient, first, second].map(|buffer| buffer.narrow(0, from, to - from));
                let OptimizerConfig { betas, eps, .. } = self.config;
                let rates = Rates { learning_rate, betas, eps, weight_decay };
                shim::fused_adamw(parts.each_ref(), &step, divisor.as_ref(), rates)?;
            }
            let _ = self.gradient.zero_();
            if let Some(master) = &self.master {
                parameters.flat().shallow_clone().copy_(master);
            }
            Ok(norm)
        })
    }

    /// Writes the state into one file: a tensor for each of a Hugging Face folder, since one at a time is brought to the
    /// host.
    ///
    /// # Errors
    ///
    /// See [`weights::write_file`].
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        let mut tensors: Vec<_> =
            self.pieces.iter().map(|(name, piece)| (name.clone(), piece.shallow_clone())).collect();
        tensors.push(("steps".into(), Tensor::from_slice(&[self.steps as i64])));
        weights::write_file(path, tensors)
    }

    /// Reads the state that [`Self::write`] wrote for the same model.
    ///
    /// # Errors
    ///
    /// The file is broken, or of another model or number format.
    pub fn read(&mut self, path: &Path) -> Result<(), TrainError> {
        let mut tensors = weights::map(path)?;
        let mut take = |name: &str| {
            tensors.remove(name).ok_or_else(|| TrainError::file(path, format!("has no tensor named {name}")))
        };
        let steps = take("steps")?;
        guard(|| {
            for (name, place) in &mut self.pieces {
                let found = take(name)?;
                if place.size() != found.size() {
                    return Err(TrainError::file(path, "is the state of another model"));
                }
                tch::no_grad(|| place.copy_(&found));
            }
            self.steps = steps.int64_value(&[0]).unsigned_abs();
            Ok(())
        })
    }
}

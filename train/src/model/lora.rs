//! Adapters of low rank beside the weights of a model (LoRA: Hu and others, 2021), in the layout of PEFT.
//!
//! Beside a matrix W \[out, in\] stand A \[r, in\] and B \[out, r\], and an input x \[T, in\] gives x·Wᵀ + α/r · x·Aᵀ·Bᵀ. W is
//! frozen. A begins uniform and B as zeros, so that training begins with the very model. Adapters are a buffer of
//! [`Parameters`] of their own, in the number format of the weights; masters, moments and gradients are of this buffer
//! alone. What is one parameter of the model is one here: the matrices A of queries, keys and values lie one below the
//! other, so do their B.

use std::collections::HashMap;
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::params::{Parameters, Piece, Slot, layout};
use super::weights::{self, Weights};
use crate::config::{LoraConfig, Projection};
use crate::error::{TrainError, guard};

/// The file of settings in a folder of PEFT's.
const SETTINGS: &str = "adapter_config.json";
/// The file of adapters there.
const WEIGHTS: &str = "adapter_model.safetensors";

/// All adapters of a model.
#[derive(Debug)]
pub struct Adapters {
    config: LoraConfig,
    parameters: Parameters,
}

/// What stands beside one parameter.
#[derive(Debug)]
pub(super) struct Adapter {
    /// Matrices A of the pieces that are adapted, \[n·r, in\].
    a: Tensor,
    /// Their matrices B, \[Σ out, r\].
    b: Tensor,
    /// Rows of each piece of the parameter, and whether it is adapted.
    pieces: Vec<(i64, bool)>,
    scale: f64,
}

impl Adapters {
    /// Fresh ones, beside a model of this configuration: A uniform within ±1/√in, as PEFT has it (Kaiming's bound with
    /// a = √5), B zero. A seed gives the same on every machine.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub fn draw(
        model: &ModelConfig,
        config: &LoraConfig,
        seed: u64,
        kind: Kind,
        device: Device,
    ) -> Result<Self, TrainError> {
        let (matrices, _) = layout(model);
        let slots = matrices.iter().flat_map(|slot| beside(slot, config)).collect();
        let parameters = Parameters::zeros_in((slots, Vec::new()), kind, device)?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        guard(|| {
            let of_a = |(name, place): (String, Tensor)| name.ends_with(&ending("A")).then_some(place);
            for mut place in parameters.pieces(parameters.flat()).filter_map(of_a) {
                let bound = 1.0 / (place.size()[1] as f64).sqrt();
                let draw = |_| ((2.0 * random.random::<f64>() - 1.0) * bound) as f32;
                let drawn: Vec<f32> = (0..place.numel()).map(draw).collect();
                place.copy_(&Tensor::from_slice(&drawn).view(place.size().as_slice()));
            }
            Ok(())
        })?;
        Ok(Self { config: config.clone(), parameters })
    }

    /// Their weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What stands beside a parameter of these pieces, if anything does.
    pub(super) fn beside(&self, pieces: &[Piece]) -> Option<Adapter> {
        let adapted = |piece: &Piece| is_adapted(&piece.name, &self.config);
        let first = pieces.iter().find(|piece| adapted(piece))?;
        let leaf = |matrix: &str| self.parameters.leaf(&name_of(&first.name, matrix)).map(|(leaf, _)| leaf);
        Some(Adapter {
            a: leaf("A")?,
            b: leaf("B")?,
            pieces: pieces.iter().map(|piece| (piece.rows, adapted(piece))).collect(),
            scale: self.scale(),
        })
    }

    /// Tensors of the model, by their names in a Hugging Face folder, with what was learnt beside them: W + α/r · B·A, in
    /// fp32. Those without an adapter are given as they are.
    pub(super) fn merged(
        &self,
        weights: impl Iterator<Item = (String, Tensor)>,
    ) -> impl Iterator<Item = (String, Tensor)> {
        let matrices: HashMap<String, Tensor> = self.parameters.pieces(self.parameters.flat()).collect();
        let scale = self.scale();
        weights.map(move |(name, weight)| {
            let matrix = |matrix: &str| Some(matrices.get(&name_of(&name, matrix))?.to_kind(Kind::Float));
            let merged = match (matrix("A"), matrix("B")) {
                (Some(a), Some(b)) => weight.to_kind(Kind::Float) + b.matmul(&a) * scale,
                _ => weight,
            };
            (name, merged)
        })
    }

    /// Writes them as PEFT does, beside the model in the folder `base`; all is on disk when it returns.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write(&self, folder: &Path, base: &Path) -> Result<(), TrainError> {
        let LoraConfig { rank, alpha, targets } = &self.config;
        let settings = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base.display().to_string(),
            "r": rank,
            "lora_alpha": alpha,
            "lora_dropout": 0.0,
            "target_modules": targets.iter().map(|target| target.module()).collect::<Vec<_>>(),
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
        });
        weights::write_bytes(&folder.join(SETTINGS), format!("{settings:#}\n").as_bytes())?;
        weights::write_file(&folder.join(WEIGHTS), self.parameters.pieces(self.parameters.flat()).collect())
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    ///
    /// The file is broken, or of adapters of other sizes.
    pub fn read(&self, folder: &Path) -> Result<(), TrainError> {
        let mut weights = Weights::of_file(&folder.join(WEIGHTS))?;
        guard(|| {
            let mut places = self.parameters.pieces(self.parameters.flat());
            places.try_for_each(|(name, mut place)| weights.copy_to(&name, &mut place))
        })
    }

    fn scale(&self) -> f64 {
        f64::from(self.config.alpha) / f64::from(self.config.rank)
    }
}

impl Adapter {
    /// What it adds to the product of its parameter: \[T, in\] to \[T, out\].
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let none = None::<&Tensor>;
        let low = x.linear(&self.a, none) * self.scale;
        if let [_] = self.pieces[..] {
            return low.linear(&self.b, none);
        }
        let rows: Vec<i64> = self.pieces.iter().filter(|(_, adapted)| *adapted).map(|(rows, _)| *rows).collect();
        let lows = low.split(self.b.size()[1], 1);
        let mut products = lows.iter().zip(self.b.split_with_sizes(rows, 0)).map(|(low, b)| low.linear(&b, none));
        let zeros = |rows| Tensor::zeros([x.size()[0], rows], (x.kind(), x.device()));
        let mut of_piece = |adapted: bool| if adapted { products.next() } else { None };
        let parts = self.pieces.iter().map(|&(rows, adapted)| of_piece(adapted).unwrap_or_else(|| zeros(rows)));
        Tensor::cat(&parts.collect::<Vec<_>>(), 1)
    }
}

/// The matrices A and the matrices B beside the pieces of a parameter that are adapted; none where none is.
fn beside(slot: &Slot, config: &LoraConfig) -> Vec<Slot> {
    let rank = i64::from(config.rank);
    let adapted: Vec<&Piece> = slot.pieces.iter().filter(|piece| is_adapted(&piece.name, config)).collect();
    if adapted.is_empty() {
        return Vec::new();
    }
    let pieces = |matrix: &str, rows: &dyn Fn(&Piece) -> i64| {
        adapted.iter().map(|piece| Piece { name: name_of(&piece.name, matrix), rows: rows(piece) }).collect()
    };
    vec![Slot::new(pieces("A", &|_| rank), slot.columns), Slot::new(pieces("B", &|piece| piece.rows), Some(rank))]
}

fn is_adapted(name: &str, config: &LoraConfig) -> bool {
    let is_of = |target: &Projection| name.ends_with(&format!(".{}.weight", target.module()));
    config.targets.iter().any(is_of)
}

/// PEFT's name of a matrix beside a tensor of a Hugging Face folder.
fn name_of(weight: &str, matrix: &str) -> String {
    format!("base_model.model.{}{}", weight.strip_suffix("weight").unwrap_or(weight), ending(matrix))
}

fn ending(matrix: &str) -> String {
    format!("lora_{matrix}.weight")
}

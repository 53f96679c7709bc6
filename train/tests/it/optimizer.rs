//! AdamW over many steps beside its formula in double precision. parity.rs holds one step against PyTorch's.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use webdancer_train::batch::Update;
use webdancer_train::config::{Aggregation, OptimizerConfig};
use webdancer_train::loss::{self, Targets};
use webdancer_train::model::{Parameters, weights};
use webdancer_train::optim::AdamW;

use crate::parity::distance;
use crate::training::{documents, model, pack};

const STEPS: i32 = 5;
/// Of numbers that are summed in fp32; the length of a gradient alone is a millionth off.
const TOLERANCE: f64 = 1e-5;

/// The algorithm of Loshchilov and Hutter (2019), written down in fp64. Decay is on matrices, not on vectors.
struct Formula {
    config: OptimizerConfig,
    weights: Tensor,
    moments: [Tensor; 2],
    decay: Tensor,
    step: i32,
}

impl Formula {
    fn new(config: &OptimizerConfig, parameters: &Parameters) -> Self {
        let weights = parameters.flat().detach().to_kind(Kind::Double);
        let decay = weights.zeros_like();
        for (_, mut piece) in parameters.pieces(&decay).filter(|(_, piece)| piece.dim() == 2) {
            let _ = piece.fill_(config.weight_decay);
        }
        Self { config: config.clone(), moments: [weights.zeros_like(), weights.zeros_like()], weights, decay, step: 0 }
    }

    fn step(&mut self, gradient: &Tensor, learning_rate: f64) {
        self.step += 1;
        let OptimizerConfig { betas: [beta1, beta2], eps, grad_clip, .. } = self.config;
        let norm = gradient.norm().double_value(&[]);
        let scale = if grad_clip > 0.0 { (grad_clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let gradient = gradient * scale;
        self.moments[0] = &self.moments[0] * beta1 + &gradient * (1.0 - beta1);
        self.moments[1] = &self.moments[1] * beta2 + &gradient * &gradient * (1.0 - beta2);
        let first = &self.moments[0] / (1.0 - beta1.powi(self.step));
        let second = &self.moments[1] / (1.0 - beta2.powi(self.step));
        self.weights =
            &self.weights * (1.0 - learning_rate * &self.decay) - learning_rate * first / (second.sqrt() + eps);
    }
}

/// The state as a checkpoint has it.
fn state(optimizer: &AdamW) -> BTreeMap<String, Tensor> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    optimizer.write(&path).unwrap();
    let copied = |(name, tensor): (String, Tensor)| (name, tensor.copy());
    weights::map(&path).unwrap().into_iter().map(copied).collect()
}

/// Steps of two micro-batches each: lengths of the gradients before they were cut.
fn compare(kind: Kind, grad_clip: f64) -> Vec<f64> {
    let model = model(5, kind);
    let parameters = model.parameters();
    let config = OptimizerConfig { lr: 1e-2, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, grad_clip };
    let mut optimizer = AdamW::new(&config, parameters).unwrap();
    let mut formula = Formula::new(&config, parameters);
    let documents = documents(12);
    let update = Update { batches: documents.chunks(6).map(pack).collect() };
    let weights = update.weights(Aggregation::TokenMean);
    let norms = (1..=STEPS).map(|step| {
        let mut sum = formula.weights.zeros_like();
        for (batch, weights) in update.batches.iter().zip(&weights) {
            let targets = Targets::new(batch, weights);
            let alone = Tensor::zeros(sum.size(), (Kind::Float, Device::Cpu));
            let _ = loss::backward(&model, batch, &targets, &alone);
            sum += alone.to_kind(Kind::Double);
            let _ = loss::backward(&model, batch, &targets, optimizer.gradient());
        }
        let learning_rate = 1e-2 / f64::from(step);
        formula.step(&sum, learning_rate);
        let norm = optimizer.step(parameters, learning_rate).unwrap().double_value(&[]);
        let apart = (norm / sum.norm().double_value(&[]) - 1.0).abs();
        assert!(apart < TOLERANCE, "{kind:?}: step {step}: length of the gradient differs by {apart:.1e}");
        norm
    });
    let norms = norms.collect();

    let state = state(&optimizer);
    assert_eq!(state["steps"].int64_value(&[0]), i64::from(STEPS));
    let near = |found: &Tensor, expected: &Tensor, what: &str| {
        let apart = distance(found, expected);
        assert!(apart < TOLERANCE, "{kind:?}, clip {grad_clip}: {what} differs by {apart:.1e}");
    };
    for (buffer, prefix) in [(&formula.moments[0], "exp_avg"), (&formula.moments[1], "exp_avg_sq")] {
        parameters.pieces(buffer).for_each(|(name, expected)| {
            let what = format!("{prefix}.{name}");
            near(&state[&what], &expected, &what);
        });
    }
    for ((name, expected), (_, found)) in parameters.pieces(&formula.weights).zip(parameters.pieces(parameters.flat()))
    {
        let master = state.get(&format!("master.{name}"));
        assert_eq!(master.is_some(), kind != Kind::Float);
        near(master.unwrap_or(&found), &expected, &name);
        // What the model is multiplied with is the master, rounded.
        assert!(master.is_none_or(|master| master.to_kind(kind) == found));
    }
    norms
}

#[test]
fn steps_of_adamw_are_those_of_its_formula() {
    let norms = compare(Kind::Float, 0.0);
    let (shortest, longest) =
        norms.iter().fold((f64::MAX, 0.0f64), |(low, high), &norm| (low.min(norm), high.max(norm)));
    // Cut at every step; at some alone.
    assert!(shortest < longest);
    compare(Kind::Float, shortest / 10.0);
    compare(Kind::Float, (shortest + longest) / 2.0);
}

#[test]
fn masters_of_bf16_weights_are_stepped_by_the_formula() {
    compare(Kind::BFloat16, 0.1);
}

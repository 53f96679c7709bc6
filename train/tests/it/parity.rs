//! The same numbers as transformers: fixtures of train/parity/parity.py, made with the versions in versions.json.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};
use webdancer_train::batch::{PackedBatch, Update};
use webdancer_train::config::{Aggregation, OptimizerConfig};
use webdancer_train::loss::{self, Targets};
use webdancer_train::model::{Parameters, Qwen, weights};
use webdancer_train::optim::AdamW;

pub(crate) const MODELS: [&str; 3] = ["qwen2", "qwen3", "qwen3-yarn"];
const LENGTHS: [usize; 2] = [13, 7];
const TOLERANCE: f64 = 1e-4;

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(name)
}

pub(crate) struct Case {
    pub(crate) model: Qwen,
    pub(crate) expected: BTreeMap<String, Tensor>,
    pub(crate) batch: PackedBatch,
}

pub(crate) fn case(name: &str) -> Case {
    let folder = folder(name);
    let model = Qwen::read(&folder, Kind::Float, Device::Cpu).unwrap();
    let expected = weights::map(&folder.join("expected.safetensors")).unwrap();
    let ids = Vec::<i64>::try_from(&expected["ids"]).unwrap();
    let trained: Vec<bool> = Vec::<i64>::try_from(&expected["trained"]).unwrap().iter().map(|&t| t == 1).collect();
    let mut batch = PackedBatch::default();
    let mut from = 0;
    for (row, length) in LENGTHS.into_iter().enumerate() {
        batch.push(row as u32, &ids[from..from + length], &trained[from..from + length]);
        from += length;
    }
    Case { model, expected, batch }
}

fn targets(batch: &PackedBatch) -> Targets {
    let update = Update { batches: vec![batch.clone()] };
    Targets::new(batch, &update.weights(Aggregation::TokenMean)[0])
}

/// ‖a − b‖ / ‖b‖.
pub(crate) fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let [found, expected] = [found, expected].map(|tensor| tensor.detach().to_kind(Kind::Double));
    ((found - &expected).norm() / expected.norm()).double_value(&[])
}

fn assert_pieces(parameters: &Parameters, buffer: &Tensor, expected: &BTreeMap<String, Tensor>, prefix: &str) {
    let mut compared = 0;
    for (name, found) in parameters.pieces(buffer) {
        let apart = distance(&found, &expected[&format!("{prefix}.{name}")]);
        assert!(apart < TOLERANCE, "{prefix} of {name} differs by {apart:.1e}");
        compared += 1;
    }
    assert_eq!(compared, expected.keys().filter(|name| name.starts_with(prefix)).count());
}

#[test]
fn logits_loss_and_every_gradient_are_those_of_transformers() {
    for name in MODELS {
        let Case { model, expected, batch } = case(name);
        let logits = model.hidden_of(&batch).matmul(&model.head().tr());
        let apart = distance(&logits, &expected["logits"]);
        assert!(apart < TOLERANCE, "{name}: logits differ by {apart:.1e}");

        let optimizer = AdamW::new(&OptimizerConfig::default(), model.parameters()).unwrap();
        let targets = targets(&batch);
        let loss = loss::backward(&model, &batch, &targets, optimizer.gradient());
        let expected_loss = expected["loss"].double_value(&[0]);
        assert!((loss.double_value(&[]) / expected_loss - 1.0).abs() < TOLERANCE, "{name}: {loss:?}");
        let evaluated = loss::evaluate(&model, &batch, &targets);
        assert!((evaluated.double_value(&[]) / expected_loss - 1.0).abs() < TOLERANCE, "{name}: {evaluated:?}");
        assert_pieces(model.parameters(), optimizer.gradient(), &expected, "gradient");
    }
}

#[test]
fn a_step_of_adamw_is_that_of_pytorch() {
    for name in MODELS {
        let Case { model, expected, batch } = case(name);
        let config = OptimizerConfig { lr: 1e-2, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, grad_clip: 1.0 };
        let mut optimizer = AdamW::new(&config, model.parameters()).unwrap();
        let targets = targets(&batch);
        let _ = loss::backward(&model, &batch, &targets, optimizer.gradient());
        let norm = optimizer.step(model.parameters(), 1e-2).unwrap().double_value(&[]);
        let expected_norm = expected["norm"].double_value(&[0]);
        assert!(expected_norm > 1.0, "the gradient is cut");
        assert!((norm / expected_norm - 1.0).abs() < TOLERANCE, "{name}: {norm} {expected_norm}");
        assert_pieces(model.parameters(), model.parameters().flat(), &expected, "stepped");
        assert_eq!(optimizer.gradient().abs().max().double_value(&[]), 0.0);
    }
}

/// What `parity.py check` loads with transformers; without WEBDANCER_PARITY_OUT, what is saved is only read back.
#[test]
fn what_is_saved_is_read_back_as_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let out = std::env::var_os("WEBDANCER_PARITY_OUT").map_or_else(|| scratch.path().to_path_buf(), PathBuf::from);
    for name in MODELS {
        let Case { model, batch, .. } = case(name);
        let ids = &batch.ids[..LENGTHS[0]];
        let mut document = PackedBatch::default();
        document.push(0, ids, &[true; LENGTHS[0]]);
        let logits = model.hidden_of(&document).matmul(&model.head().tr()).detach();
        for (variant, kind, shard_bytes) in [
            ("whole", Kind::Float, weights::SHARD_BYTES),
            ("shards", Kind::Float, 10_000),
            ("bf16", Kind::BFloat16, weights::SHARD_BYTES),
        ] {
            let folder = out.join(format!("{name}-{variant}"));
            std::fs::create_dir_all(&folder).unwrap();
            model.config().write(&folder, kind).unwrap();
            model.write_weights(&folder, kind, shard_bytes).unwrap();
            let expected = vec![("ids".to_string(), Tensor::from_slice(ids)), ("logits".to_string(), logits.copy())];
            weights::write_file(&folder.join("expected.safetensors"), expected).unwrap();

            let again = Qwen::read(&folder, Kind::Float, Device::Cpu).unwrap();
            let apart = distance(again.parameters().flat(), model.parameters().flat());
            assert!(if kind == Kind::Float { apart == 0.0 } else { apart < 4e-3 }, "{name}-{variant}: {apart:.1e}");
        }
        assert!(out.join(format!("{name}-shards")).join(weights::INDEX).exists());
    }
}

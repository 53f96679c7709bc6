//! Adapters of low rank: what they add, what they leave alone, and what is written of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use webdancer_train::batch::{PackedBatch, Update};
use webdancer_train::checkpoint::{self, ADAPTER};
use webdancer_train::config::{Aggregation, LoraConfig, OptimizerConfig, Projection};
use webdancer_train::loss::{self, Targets};
use webdancer_train::model::{Qwen, weights};
use webdancer_train::optim::AdamW;
use webdancer_train::sft::{End, Outcome};

use crate::dapo_runs::{self, DAPO, SAMPLED, WORLD, digest, finish, metric};
use crate::parity::{Case, MODELS, case, distance};
use crate::training::{config, model, train_model_until};

/// All, some of what is multiplied together, and one that stands alone.
const TARGETS: [&[Projection]; 3] =
    [&Projection::ALL, &[Projection::Q, Projection::V, Projection::Up], &[Projection::Down]];

fn settings(targets: &[Projection]) -> LoraConfig {
    LoraConfig { rank: 4, alpha: 8, targets: targets.to_vec() }
}

fn logits(model: &Qwen, batch: &PackedBatch) -> Tensor {
    tch::no_grad(|| model.hidden_of(batch).matmul(&model.head().tr()))
}

/// Adds the gradients of a batch, and gives its loss.
fn backward(model: &Qwen, batch: &PackedBatch, gradient: &Tensor) -> f64 {
    let update = Update { batches: vec![batch.clone()] };
    let targets = Targets::new(batch, &update.weights(Aggregation::TokenMean)[0]);
    loss::backward(model, batch, &targets, gradient).double_value(&[])
}

/// The losses of some steps.
fn train(model: &Qwen, batch: &PackedBatch) -> Vec<f64> {
    let mut optimizer = AdamW::new(&OptimizerConfig::default(), model.trained()).unwrap();
    let step = |_| {
        let loss = backward(model, batch, optimizer.gradient());
        let _ = optimizer.step(model.trained(), 1e-2).unwrap();
        loss
    };
    (0..6).map(step).collect()
}

/// The model as it is served: read again from the weights that were written of it.
fn merged(model: &Qwen) -> Qwen {
    let folder = tempfile::tempdir().unwrap();
    model.config().write(folder.path(), Kind::Float).unwrap();
    model.write_weights(folder.path(), Kind::Float, weights::SHARD_BYTES).unwrap();
    Qwen::read(folder.path(), Kind::Float, Device::Cpu).unwrap()
}

fn of_name(model: &Qwen, buffer: &Tensor) -> BTreeMap<String, Tensor> {
    model.trained().pieces(buffer).collect()
}

#[test]
fn fresh_adapters_change_nothing() {
    for name in MODELS {
        for targets in TARGETS {
            let Case { model, batch, .. } = case(name);
            let expected = logits(&model, &batch);
            let adapted = model.with_adapters(&settings(targets), 1).unwrap();
            assert_eq!(logits(&adapted, &batch), expected, "{name}, {targets:?}");
            assert_eq!(logits(&merged(&adapted), &batch), expected, "{name}, {targets:?}");
        }
    }
}

#[test]
fn a_is_drawn_as_by_kaiming_and_b_is_zero() {
    let drawn = |seed| case("qwen2").model.with_adapters(&LoraConfig::default(), seed).unwrap();
    let model = drawn(1);
    for (name, tensor) in of_name(&model, model.trained().flat()) {
        // of what it is multiplied with
        let bound = 1.0 / (tensor.size()[1] as f64).sqrt();
        let (highest, spread) = (tensor.abs().max().double_value(&[]), tensor.std(true).double_value(&[]));
        if name.ends_with("lora_A.weight") {
            assert!(highest <= bound && highest > 0.9 * bound, "{name}: {highest} of {bound}");
            assert!((spread / (bound / 3f64.sqrt()) - 1.0).abs() < 0.15, "{name}: {spread}");
        } else {
            assert_eq!(highest, 0.0, "{name}");
        }
    }
    assert_eq!(drawn(1).trained().flat(), model.trained().flat());
    assert_ne!(drawn(2).trained().flat(), model.trained().flat());
}

#[test]
fn adapters_are_trained_and_weights_are_not_and_merged_they_are_the_same_model() {
    for name in MODELS {
        for targets in TARGETS {
            let Case { model, batch, .. } = case(name);
            let model = model.with_adapters(&settings(targets), 1).unwrap();
            let (before, first) = (model.parameters().flat().copy(), logits(&model, &batch));
            let losses = train(&model, &batch);
            assert!(losses[5] < losses[0] - 0.01, "{name}, {targets:?}: {losses:?}");
            assert_eq!(model.parameters().flat(), &before, "{name}, {targets:?}");
            // Nor has autograd anything to keep for them.
            assert!(model.parameters().leaves().iter().all(|leaf| !leaf.requires_grad()));
            let trained = logits(&model, &batch);
            assert!(distance(&trained, &first) > 1e-2, "{name}, {targets:?}");
            let apart = distance(&logits(&merged(&model), &batch), &trained);
            assert!(apart < 1e-5, "{name}, {targets:?}: logits differ by {apart:.1e}");
        }
    }
}

#[test]
fn gradients_of_adapters_follow_from_those_of_the_weights_that_they_are_added_to() {
    for name in MODELS {
        for targets in TARGETS {
            let Case { model, batch, .. } = case(name);
            let model = model.with_adapters(&settings(targets), 1).unwrap();
            // B is no longer zero, and A has a gradient.
            train(&model, &batch);
            let gradient = |model: &Qwen| {
                let found = Tensor::zeros(model.trained().flat().size(), (Kind::Float, Device::Cpu));
                backward(model, &batch, &found);
                of_name(model, &found)
            };
            let (found, dense) = (gradient(&model), gradient(&merged(&model)));
            let adapters = of_name(&model, model.trained().flat());
            assert_eq!(found.len(), 2 * 2 * targets.len());
            for (name, found) in &found {
                let of = |ending: &str| name.replace("lora_A.weight", ending).replace("lora_B.weight", ending);
                let weight = of("weight").replace("base_model.model.", "");
                let [a, b] = ["lora_A.weight", "lora_B.weight"].map(|ending| &adapters[&of(ending)]);
                // α/r is 2.
                let expected = match name.ends_with("lora_A.weight") {
                    true => b.tr().matmul(&dense[&weight]) * 2.0,
                    false => dense[&weight].matmul(&a.tr()) * 2.0,
                };
                let apart = distance(found, &expected);
                assert!(apart < 1e-4, "{name}, {targets:?}: differs by {apart:.1e}");
            }
        }
    }
}

#[test]
fn a_checkpoint_has_them_in_its_weights_and_beside_as_peft_names_them() {
    let Case { model, batch, .. } = case("qwen2");
    let model = model.with_adapters(&settings(&[Projection::Q, Projection::K, Projection::Down]), 1).unwrap();
    train(&model, &batch);
    let (out, base) = (tempfile::tempdir().unwrap(), Path::new("/models/qwen"));
    let none = None::<(&AdamW, &())>;
    let made = checkpoint::write(out.path(), base, &model, Kind::Float, none, "step-00000001").unwrap();
    let within = made.folder.join(ADAPTER);

    let settings: Value = serde_json::from_slice(&fs::read(within.join("adapter_config.json")).unwrap()).unwrap();
    let expected = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "/models/qwen",
        "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["q_proj", "k_proj", "down_proj"], "bias": "none",
        "fan_in_fan_out": false, "init_lora_weights": true, "inference_mode": true,
    });
    assert_eq!(settings, expected);

    let held = weights::map(&within.join("adapter_model.safetensors")).unwrap();
    let shapes: Vec<(&str, Vec<i64>)> = held.iter().map(|(name, tensor)| (name.as_str(), tensor.size())).collect();
    let expected: [(&str, Vec<i64>); 12] = [
        ("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", vec![4, 32]),
        ("base_model.model.model.layers.0.mlp.down_proj.lora_B.weight", vec![24, 4]),
        ("base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight", vec![4, 24]),
        ("base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight", vec![12, 4]),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", vec![4, 24]),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", vec![24, 4]),
        ("base_model.model.model.layers.1.mlp.down_proj.lora_A.weight", vec![4, 32]),
        ("base_model.model.model.layers.1.mlp.down_proj.lora_B.weight", vec![24, 4]),
        ("base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight", vec![4, 24]),
        ("base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight", vec![12, 4]),
        ("base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", vec![4, 24]),
        ("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight", vec![24, 4]),
    ];
    assert_eq!(shapes, expected);

    // The weights by hand: W + 8/4·B·A where there are adapters, and W elsewhere.
    let (own, written) = (case("qwen2").model, Qwen::read(&made.folder, Kind::Float, Device::Cpu).unwrap());
    let [own, written] = [&own, &written].map(|model| of_name(model, model.parameters().flat()));
    for (name, weight) in &own {
        let matrix = |matrix: &str| held.get(&format!("base_model.model.{}", name.replace("weight", matrix)));
        match (matrix("lora_A.weight"), matrix("lora_B.weight")) {
            (Some(a), Some(b)) => assert!(distance(&written[name], &(weight + b.matmul(a) * 2.0)) < 1e-6, "{name}"),
            _ => assert_eq!(&written[name], weight, "{name}"),
        }
    }

    // What is listed there is looked at, too.
    assert_eq!(checkpoint::verify(&made.folder).unwrap(), made);
    fs::remove_file(within.join("adapter_config.json")).unwrap();
    let error = checkpoint::verify(&made.folder).unwrap_err().to_string();
    assert!(error.ends_with("adapter_config.json: is missing from the checkpoint"), "{error}");
}

#[test]
fn a_run_that_goes_on_comes_to_the_same_weights() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let run = |folder: &Path, step| {
            let model = model(5, kind).with_adapters(&settings(&Projection::ALL), 3).unwrap();
            train_model_until(model, folder, &config(), step).0
        };
        let expected = run(whole.path(), u64::MAX);
        assert_eq!((expected.end, expected.state.step), (End::Complete, 16));
        for step in [4, 7] {
            assert_eq!(run(parts.path(), step).end, End::Interrupted);
        }
        let again = run(parts.path(), u64::MAX);
        assert_eq!(again.last.digest, expected.last.digest);
        let held = |outcome: &Outcome, file: &str| weights::map(&outcome.last.folder.join(file)).unwrap();
        for file in ["adapter/adapter_model.safetensors", "trainer/optimizer.safetensors"] {
            assert_eq!(held(&again, file), held(&expected, file), "{kind:?}: {file}");
        }
        // The frozen weights have no state.
        let state = held(&expected, "trainer/optimizer.safetensors");
        let (steps, others): (Vec<&String>, _) = state.keys().partition(|name| *name == "steps");
        assert_eq!(steps.len(), 1);
        // 7 projections of 2 layers have 2 matrices each, and these 2 moments, and a master in bf16.
        assert_eq!(others.len(), 7 * 2 * 2 * if kind == Kind::Float { 2 } else { 3 });
        assert!(others.iter().all(|name| name.contains(".lora_")), "{others:?}");
    }
}

const SFT: &str = r#"
deterministic = true
[model]
folder = "base"
[lora]
rank = 4
targets = ["q", "k", "v", "o"]
[data]
document_tokens_max = 1024
[batch]
trajectories = 16
tokens = 2048
activation_checkpointing = true
[optimizer]
lr = 1e-2
[schedule]
epochs = 1
[validation]
share = 0.0
"#;

/// A folder with the model that DAPO's runs begin with as `base`, and settings.
fn site(settings: &str) -> tempfile::TempDir {
    let site = tempfile::tempdir().unwrap();
    fs::create_dir(site.path().join("base")).unwrap();
    for entry in fs::read_dir(&WORLD.checkpoint).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), site.path().join("base").join(entry.file_name())).unwrap();
    }
    fs::write(site.path().join("sft.toml"), settings).unwrap();
    site
}

/// Exit code, and what was said.
fn sft(site: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_webdancer-train"))
        .args(["sft", "--run", "s1", "--started", "2026-01-02T03:04:05Z", "--config", "sft.toml", "--out", "out"])
        .arg("--pin")
        .arg(WORLD.folder.path().join("trajectories/manifest.json"))
        .args(more)
        .current_dir(site)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn embedding(folder: PathBuf) -> Tensor {
    weights::map(&folder.join("model.safetensors")).unwrap()["model.embed_tokens.weight"].copy()
}

#[test]
fn the_program_trains_adapters_and_goes_on_beside_the_very_weights_that_it_began_beside() {
    let site = site(SFT);
    let (code, said) = sft(site.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" M weights, frozen, 0.0 M of adapters, Float, Cpu"), "{said}");
    let last = checkpoint::latest(&site.path().join("out/checkpoints")).unwrap().unwrap();
    assert!(last.join("adapter/adapter_model.safetensors").exists() && last.join("tokenizer.json").exists());
    assert_eq!(embedding(last.clone()), embedding(site.path().join("base")));
    assert_ne!(checkpoint::verify(&last).unwrap().digest, checkpoint::verify(&WORLD.checkpoint).unwrap().digest);

    assert_eq!(sft(site.path(), &["--resume"]).0, Some(0));
    // Nothing of a checkpoint would tell, since it has the adapters alone.
    let path = site.path().join("base/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let (code, said) = sft(site.path(), &["--resume"]);
    assert!(code == Some(1) && said.contains("is of another run (pin, base model or settings differ)"), "{said}");
}

#[test]
fn a_policy_learns_by_adapters_and_what_was_recorded_of_it_gives_its_weights_again() {
    let settings = DAPO
        .replace("\ntokens = 1024", "\ntokens = 1024\nactivation_checkpointing = true")
        .replace("steps_max = 10", "steps_max = 4")
        .replace("[optimizer]\nlr = 1e-3", "[lora]\nrank = 4\n[optimizer]\nlr = 1e-2");
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let (events, said, code) = finish(dapo_runs::start(&whole, &settings, &SAMPLED));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(" of adapters, Float, Cpu"), "{said}");
    assert_eq!(metric(&events, "updates").values().copied().fold(0.0, f64::max), 4.0, "{said}");
    // What is sampled from is what is trained.
    assert!(metric(&events, "mismatch.mean").values().all(|apart| *apart < 1e-4), "{said}");
    let last = checkpoint::latest(&whole.join("checkpoints")).unwrap().unwrap();
    assert!(last.join("adapter/adapter_config.json").exists());
    assert_eq!(embedding(last), embedding(WORLD.checkpoint.clone()));
    assert_ne!(digest(&whole), checkpoint::verify(&WORLD.checkpoint).unwrap().digest);

    let replayed = folder.path().join("replayed");
    let recorded = whole.join("events.ndjson").display().to_string();
    let (_, said, code) = finish(dapo_runs::start(&replayed, &settings, &["--replay", &recorded]));
    assert_eq!(code, 0, "{said}");
    assert_eq!(digest(&replayed), digest(&whole));

    // Gone on with from an earlier checkpoint, of which the adapters alone are read.
    let kept = checkpoint::all(&whole.join("checkpoints")).unwrap();
    let expected = digest(&whole);
    assert!(kept.len() > 1, "{kept:?}");
    fs::remove_dir_all(kept.last().unwrap()).unwrap();
    let (_, said, code) = finish(dapo_runs::start(&whole, &settings, &[&SAMPLED[..], &["--resume"]].concat()));
    assert_eq!((code, digest(&whole)), (0, expected), "{said}");
}

//! Layers that are run again on the way back: the same numbers, and less memory.

use std::process::{Command, Stdio};

use tch::{Device, Kind, Tensor};
use webdancer_train::batch::{PackedBatch, Update};
use webdancer_train::config::{Aggregation, LoraConfig, ScratchModel};
use webdancer_train::device::memory;
use webdancer_train::loss::{self, Targets};
use webdancer_train::model::{ModelConfig, Parameters, Qwen};

use crate::parity::{MODELS, folder};
use crate::training::{config, documents, model, pack, train_model_until};

/// Gradient and losses of an update's micro-batches, which are summed.
fn gradient(model: &Qwen, batches: &[PackedBatch]) -> (Tensor, Vec<f64>) {
    let gradient = Tensor::zeros(model.trained().flat().size(), (Kind::Float, Device::Cpu));
    let update = Update { batches: batches.to_vec() };
    let weights = update.weights(Aggregation::TokenMean);
    let loss = |(batch, weights): (&PackedBatch, &Vec<f32>)| {
        loss::backward(model, batch, &Targets::new(batch, weights), &gradient).double_value(&[])
    };
    let losses = update.batches.iter().zip(&weights).map(loss).collect();
    (gradient, losses)
}

/// Qwen2 and Qwen3, with a head of its own and without, in this number format.
fn models(kind: Kind) -> Vec<Qwen> {
    let read = |name| Qwen::read(&folder(name), kind, Device::Cpu).unwrap();
    MODELS.into_iter().map(read).chain([model(1, kind)]).collect()
}

/// Adapters that have learnt something.
fn adapted(model: Qwen) -> Qwen {
    let model = model.with_adapters(&LoraConfig { rank: 4, ..LoraConfig::default() }, 7).unwrap();
    let _ = model.trained().flat().shallow_clone().uniform_(-0.1, 0.1);
    model
}

#[test]
fn gradients_and_losses_are_the_same_to_the_bit() {
    tch::set_num_threads(1);
    let documents = documents(9);
    // Several documents to a micro-batch, and several micro-batches to an update.
    let batches = [pack(&documents[..4]), pack(&documents[4..5]), pack(&documents[5..])];
    for kind in [Kind::Float, Kind::BFloat16] {
        for (at, model) in models(kind).into_iter().chain(models(kind).into_iter().map(adapted)).enumerate() {
            let (expected, losses) = gradient(&model, &batches);
            assert!(expected.abs().max().double_value(&[]) > 0.0);
            let (found, again) = gradient(&model.with_activation_checkpointing(true), &batches);
            assert_eq!(again, losses, "{kind:?}, model {at}");
            let apart = (&found - &expected).abs().max().double_value(&[]);
            assert!(found == expected, "{kind:?}, model {at}: gradients differ by {apart:.1e}");
        }
    }
}

#[test]
fn a_run_comes_to_the_same_weights_also_when_it_is_gone_on_with() {
    let [plain, again] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let begun = |checkpointed| model(5, Kind::Float).with_activation_checkpointing(checkpointed);
    let expected = train_model_until(begun(false), plain.path(), &config(), u64::MAX).0;
    // Whether the rest of it does the same is a matter of memory alone.
    for (checkpointed, step) in [(true, 5), (false, 9), (true, u64::MAX)] {
        let outcome = train_model_until(begun(checkpointed), again.path(), &config(), step).0;
        assert_eq!(outcome.state.step, step.min(16));
        if step == u64::MAX {
            assert_eq!(outcome.last.digest, expected.last.digest);
        }
    }
}

const LAYERS: usize = 16;

/// Prints by how many bytes the process grows at a gradient; run as a process of its own by the test below.
#[test]
fn child() {
    let Ok(asked) = std::env::var("WEBDANCER_TEST_MEMORY") else { return };
    tch::set_num_threads(1);
    let shape = ScratchModel { hidden_size: 64, layers: LAYERS, intermediate_size: 256, ..ScratchModel::default() };
    let config = ModelConfig::scratch(&shape, 64).unwrap();
    let parameters = Parameters::draw(&config, 1, Kind::Float, Device::Cpu).unwrap();
    let model = Qwen::new(config, parameters).unwrap().with_activation_checkpointing(asked == "checkpointed");
    let of = |count: usize| {
        let ids: Vec<i64> = (0..128).map(|at| at % 64).collect();
        pack(&vec![(ids, vec![true; 128]); count])
    };
    let peak = || memory(Device::Cpu).unwrap()[0].1;
    // What libtorch makes for itself at first use is there before it is measured.
    let _ = gradient(&model, &[of(1)]);
    let before = peak();
    let _ = gradient(&model, &[of(16)]);
    println!("\ngrown {}", peak() - before);
}

#[test]
fn memory_is_that_of_one_layer_and_not_of_all() {
    let grown = |asked: &str| -> f64 {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "activation_checkpointing::child", "--nocapture"])
            .env("WEBDANCER_TEST_MEMORY", asked)
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().find_map(|line| line.strip_prefix("grown "));
        line.unwrap_or_else(|| panic!("{said}")).parse().unwrap()
    };
    let (kept, checkpointed) = (grown("kept"), grown("checkpointed"));
    // 2,048 tokens of 6·64 + 4·256 + 4·128 + 4·128 numbers in fp32: 20 MB a layer.
    assert!(kept > LAYERS as f64 * 10e6, "{kept}");
    assert!(checkpointed < kept / 3.0, "{checkpointed} of {kept} bytes");
}

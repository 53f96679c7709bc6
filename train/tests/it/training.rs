//! Fine-tuning: what the loss depends on and what it does not, checkpoints, kills.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, Tensor};
use webdancer_train::batch::{BatchSource, PackedBatch, Update};
use webdancer_train::checkpoint::{self, Checkpoint};
use webdancer_train::config::{Aggregation, OptimizerConfig, ScratchModel, SftConfig};
use webdancer_train::contract::BEST_STEP;
use webdancer_train::error::TrainError;
use webdancer_train::loss::{self, Targets};
use webdancer_train::model::{ModelConfig, Parameters, Qwen, weights};
use webdancer_train::optim::AdamW;
use webdancer_train::sft::{self, End, Outcome, Places, Reporter};

use crate::parity::distance;

const VOCABULARY: u32 = 40;

pub(crate) fn model(seed: u64, kind: Kind) -> Qwen {
    let shape = ScratchModel {
        hidden_size: 32,
        layers: 2,
        head_dim: 8,
        intermediate_size: 64,
        positions_max: 128,
        ..ScratchModel::default()
    };
    let config = ModelConfig::scratch(&shape, VOCABULARY).unwrap();
    let parameters = Parameters::draw(&config, seed, kind, Device::Cpu).unwrap();
    Qwen::new(config, parameters).unwrap()
}

/// Documents that can be learnt: each goes up by its own step; the first half is told, the second to be written.
pub(crate) fn documents(count: i64) -> Vec<(Vec<i64>, Vec<bool>)> {
    let document = |row: i64| {
        let length = 8 + row % 5;
        let ids = (0..length).map(|at| (row + at * (1 + row % 3)) % i64::from(VOCABULARY)).collect();
        (ids, (0..length).map(|at| at >= length / 2).collect())
    };
    (0..count).map(document).collect()
}

pub(crate) fn pack(documents: &[(Vec<i64>, Vec<bool>)]) -> PackedBatch {
    let mut batch = PackedBatch::default();
    for (row, (ids, trained)) in documents.iter().enumerate() {
        batch.push(row as u32, ids, trained);
    }
    batch
}

fn gradient_and_loss(model: &Qwen, aggregation: Aggregation, batches: &[PackedBatch]) -> (Tensor, f64) {
    let optimizer = AdamW::new(&OptimizerConfig::default(), model.parameters()).unwrap();
    let update = Update { batches: batches.to_vec() };
    let losses = update.batches.iter().zip(update.weights(aggregation)).map(|(batch, weights)| {
        loss::backward(model, batch, &Targets::new(batch, &weights), optimizer.gradient()).double_value(&[])
    });
    let loss = losses.sum();
    (optimizer.gradient().copy(), loss)
}

#[test]
fn neither_packing_nor_micro_batches_change_loss_or_gradient() {
    let model = model(1, Kind::Float);
    let documents = documents(9);
    for aggregation in [Aggregation::TokenMean, Aggregation::SeqMeanTokenMean, Aggregation::SeqMeanTokenSum] {
        let (together, loss) = gradient_and_loss(&model, aggregation, &[pack(&documents)]);
        let mut reversed = documents.clone();
        reversed.reverse();
        for batches in [
            documents.iter().map(|document| pack(std::slice::from_ref(document))).collect::<Vec<_>>(),
            vec![pack(&documents[..2]), pack(&documents[2..])],
            vec![pack(&reversed[..5]), pack(&reversed[5..])],
        ] {
            let (apart, other) = gradient_and_loss(&model, aggregation, &batches);
            assert!((other / loss - 1.0).abs() < 1e-5, "{aggregation:?}: {other} {loss}");
            let distance = distance(&apart, &together);
            assert!(distance < 1e-5, "{aggregation:?}: gradients differ by {distance:.1e}");
        }
    }
    let token = gradient_and_loss(&model, Aggregation::TokenMean, &[pack(&documents)]).1;
    let document = gradient_and_loss(&model, Aggregation::SeqMeanTokenMean, &[pack(&documents)]).1;
    assert_ne!(token, document);
}

#[test]
fn what_is_not_trained_is_no_target_and_all_that_is_trained_is() {
    let model = model(2, Kind::Float);
    let loss = |ids: &[i64], trained: &[bool]| {
        gradient_and_loss(&model, Aggregation::TokenMean, &[pack(&[(ids.to_vec(), trained.to_vec())])]).1
    };
    // The last token has nobody who reads it: it can only matter as a target.
    let trained = [false, true, true, false, true, false];
    assert_eq!(loss(&[1, 2, 3, 4, 5, 6], &trained), loss(&[1, 2, 3, 4, 5, 30], &trained));
    for last in 1..5 {
        let ids = [1, 2, 3, 4, 5, 6];
        let mut other = ids;
        other[last] = 30;
        let changed = loss(&ids[..=last], &trained[..=last]) != loss(&other[..=last], &trained[..=last]);
        assert_eq!(changed, trained[last], "token {last}");
    }
}

#[test]
fn a_document_does_not_see_its_neighbours() {
    let model = model(3, Kind::Float);
    let documents = documents(3);
    let hidden = |documents: &[_]| model.hidden_of(&pack(documents)).detach();
    let alone = hidden(&documents[1..2]);
    let between = hidden(&documents).narrow(0, documents[0].0.len() as i64, documents[1].0.len() as i64);
    assert!(distance(&between, &alone) < 1e-6);
}

#[test]
fn bf16_weights_have_fp32_masters() {
    let model = model(4, Kind::BFloat16);
    let config = OptimizerConfig { weight_decay: 0.0, ..OptimizerConfig::default() };
    let mut optimizer = AdamW::new(&config, model.parameters()).unwrap();
    let before = model.parameters().flat().copy();
    let update = Update { batches: vec![pack(&documents(4))] };
    let batch = &update.batches[0];
    let targets = Targets::new(batch, &update.weights(Aggregation::TokenMean)[0]);
    // Each step is far below what bf16 can tell apart at these weights' size; together they are not.
    for _ in 0..400 {
        let _ = loss::backward(&model, batch, &targets, optimizer.gradient());
        let _ = optimizer.step(model.parameters(), 1e-5).unwrap();
    }
    assert_eq!(model.parameters().flat().kind(), Kind::BFloat16);
    let norm = model.parameters().leaves().iter().position(|leaf| leaf.dim() == 1).unwrap();
    let moved = (&model.parameters().views(model.parameters().flat())[norm] - &model.parameters().views(&before)[norm])
        .abs()
        .max()
        .double_value(&[]);
    assert!(moved > 2e-3, "{moved}");
}

/// Updates of two micro-batches of two documents; an epoch walks through them from another place.
struct Source {
    train: Vec<Update>,
    validation: Vec<PackedBatch>,
}

impl Source {
    fn new() -> Self {
        let documents = documents(20);
        let update = |documents: &[_]| Update { batches: documents.chunks(2).map(pack).collect() };
        Self { train: documents[..16].chunks(4).map(update).collect(), validation: vec![pack(&documents[16..])] }
    }
}

impl BatchSource for Source {
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Update> + '_> {
        let from = epoch as usize * 3 % self.train.len();
        Box::new(self.train[from..].iter().chain(&self.train[..from]).cloned())
    }

    fn updates_per_epoch(&self) -> u64 {
        self.train.len() as u64
    }

    fn validation(&self) -> &[PackedBatch] {
        &self.validation
    }
}

#[derive(Default)]
struct Told<'a> {
    metrics: Vec<(u64, &'static str, f64)>,
    checkpoints: Vec<u64>,
    /// Metrics told before each checkpoint was begun.
    settled: Vec<usize>,
    aloud: bool,
    /// Set behind this step.
    interrupts: Option<(u64, &'a AtomicBool)>,
}

impl Told<'_> {
    fn values(&self, name: &str) -> Vec<(u64, f64)> {
        self.metrics.iter().filter(|told| told.1 == name).map(|told| (told.0, told.2)).collect()
    }
}

impl Reporter for Told<'_> {
    fn metric(&mut self, step: u64, name: &'static str, value: f64, _unit: &'static str) -> Result<(), TrainError> {
        if self.aloud && name == "loss" {
            println!("\nstep {step}");
        }
        if let Some((at, interrupt)) = self.interrupts {
            interrupt.store(step == at, Ordering::Relaxed);
        }
        self.metrics.push((step, name, value));
        Ok(())
    }

    fn checkpoint(&mut self, step: u64, _checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.checkpoints.push(step);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), TrainError> {
        self.settled.push(self.metrics.len());
        Ok(())
    }
}

pub(crate) fn config() -> SftConfig {
    let mut config = SftConfig::default();
    config.optimizer.lr = 1e-2;
    config.schedule.epochs = 4;
    config.validation.every_steps = 5;
    config.checkpoints.every_steps = 3;
    config
}

/// Trains `model` until behind `step`, where it is interrupted; what was told.
pub(crate) fn train_model_until(
    model: Qwen,
    folder: &Path,
    config: &SftConfig,
    step: u64,
) -> (Outcome, Vec<(u64, &'static str, f64)>) {
    tch::set_num_threads(1);
    let (checkpoints, interrupt) = (folder.join("checkpoints"), AtomicBool::new(false));
    let places = Places { base: folder, checkpoints: &checkpoints, fingerprint: "pin abc", interrupt: &interrupt };
    let mut told = Told { interrupts: Some((step, &interrupt)), ..Told::default() };
    let outcome = sft::run(config, model, &Source::new(), &places, &mut told).unwrap();
    (outcome, told.metrics)
}

fn train_until(folder: &Path, config: &SftConfig, step: u64) -> (Outcome, Vec<(u64, f64)>) {
    let (outcome, metrics) = train_model_until(model(5, Kind::Float), folder, config, step);
    (outcome, Told { metrics, ..Told::default() }.values("validation_loss"))
}

fn train(folder: &Path, config: &SftConfig, source: &Source, told: &mut Told<'_>) -> Result<Outcome, TrainError> {
    tch::set_num_threads(1);
    let checkpoints = folder.join("checkpoints");
    let interrupt = AtomicBool::new(false);
    let places = Places { base: folder, checkpoints: &checkpoints, fingerprint: "pin abc", interrupt: &interrupt };
    sft::run(config, model(5, Kind::Float), source, &places, told)
}

#[test]
fn it_learns_validates_and_keeps_the_best_and_the_last() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let mut told = Told::default();
    let outcome = train(folder.path(), &config(), &Source::new(), &mut told).unwrap();

    let losses = told.values("loss");
    assert_eq!(losses.iter().map(|told| told.0).collect::<Vec<_>>(), (1..=16).collect::<Vec<_>>());
    assert!(losses[15].1 < losses[0].1 * 0.7, "{losses:?}");
    let validations = told.values("validation_loss");
    assert_eq!(validations.iter().map(|told| told.0).collect::<Vec<_>>(), [5, 10, 15, 16]);
    for name in ["grad_norm", "learning_rate", "tokens_per_second", "mfu", "peak_memory"] {
        let values = told.values(name);
        assert!(values.len() == 16 && values.iter().all(|value| value.1 > 0.0), "{name}: {values:?}");
    }
    assert_eq!((outcome.state.step, outcome.state.tokens), (16, 4 * 158));
    assert_eq!(outcome.end, End::Complete);

    let best = validations.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
    assert_eq!(outcome.best, folder.path().join("checkpoints").join(checkpoint::name_of(best)));
    assert_eq!(told.values(BEST_STEP), [(16, best as f64)]);
    assert_eq!(outcome.last.folder, folder.path().join("checkpoints/step-00000016"));
    assert!(outcome.best.join("tokenizer.json").exists());
    assert_eq!(checkpoint::verify(&outcome.last.folder).unwrap(), outcome.last);
    // A model of its own, without the trainer.
    Qwen::read(&outcome.best, Kind::Float, Device::Cpu).unwrap();
    assert_eq!(outcome.last.digest.len(), 64);
}

#[test]
fn what_it_began_with_is_kept_if_that_is_asked_for_and_changes_nothing() {
    let (folder, without) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = config();
    config.checkpoints.initial = true;
    let mut told = Told::default();
    let outcome = train(folder.path(), &config, &Source::new(), &mut told).unwrap();
    assert_eq!((told.checkpoints[0], told.values("validation_loss")[0].0), (0, 0));
    let initial = folder.path().join("checkpoints").join(checkpoint::name_of(0));
    let kept = Qwen::read(&initial, Kind::Float, Device::Cpu).unwrap();
    assert_eq!(kept.parameters().flat(), model(5, Kind::Float).parameters().flat());
    // Resumed from there, it is told again, as all that lies there, and not made again.
    for later in checkpoint::all(&folder.path().join("checkpoints")).unwrap() {
        if later != initial {
            fs::remove_dir_all(later).unwrap();
        }
    }
    let mut again = Told::default();
    let resumed = train(folder.path(), &config, &Source::new(), &mut again).unwrap();
    assert_eq!(again.checkpoints.iter().filter(|step| **step == 0).count(), 1, "{:?}", again.checkpoints);
    config.checkpoints.initial = false;
    let plain = train(without.path(), &config, &Source::new(), &mut Told::default()).unwrap();
    assert_eq!((&outcome.last.digest, &resumed.last.digest), (&plain.last.digest, &plain.last.digest));
}

#[test]
fn it_stops_when_validation_gets_no_better() {
    let folder = tempfile::tempdir().unwrap();
    // So high a rate that the first validation is the best.
    let mut config = config();
    config.optimizer.lr = 1.0;
    config.validation.every_steps = 1;
    config.early_stop.patience = 2;
    let mut told = Told::default();
    let outcome = train(folder.path(), &config, &Source::new(), &mut told).unwrap();
    assert!(outcome.end == End::OutOfPatience && outcome.state.step < 16, "{outcome:?}");
    assert_eq!(outcome.state.step, outcome.state.best_step.unwrap() + 2);
    assert_eq!(told.values(BEST_STEP), [(outcome.state.step, (outcome.state.step - 2) as f64)]);
    // Started again, it stays where it is.
    let again = train(folder.path(), &config, &Source::new(), &mut Told::default()).unwrap();
    assert_eq!((again.state, again.end), (outcome.state, End::OutOfPatience));
}

/// Trains in the folder of WEBDANCER_TEST_SFT; run as a process of its own by the tests below.
#[test]
fn child() {
    let Some(folder) = std::env::var_os("WEBDANCER_TEST_SFT") else { return };
    let mut told = Told { aloud: true, ..Told::default() };
    match train(Path::new(&folder), &config(), &Source::new(), &mut told) {
        Ok(outcome) => println!("\ndone {}", outcome.last.digest),
        Err(error) => println!("\nerror {error}"),
    }
}

fn spawn(folder: &Path, shell: &str) -> std::process::Child {
    let test = std::env::current_exe().unwrap();
    Command::new("sh")
        .args(["-c", &format!("{shell} exec {} --exact training::child --nocapture", test.display())])
        .env("WEBDANCER_TEST_SFT", folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn lines(child: &mut std::process::Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

fn last_line(folder: &Path, shell: &str) -> String {
    let mut child = spawn(folder, shell);
    let said = lines(&mut child).filter(|line| line.starts_with("done") || line.starts_with("error")).last();
    child.wait().unwrap();
    said.unwrap_or_else(|| "nothing".into())
}

#[test]
fn killed_and_resumed_it_comes_to_the_same_weights() {
    let whole = tempfile::tempdir().unwrap();
    let expected = last_line(whole.path(), "");
    assert!(expected.starts_with("done "), "{expected}");

    let killed = tempfile::tempdir().unwrap();
    for at in [2, 5, 11] {
        let mut child = spawn(killed.path(), "");
        let step = format!("step {at}");
        assert!(lines(&mut child).any(|line| line == step), "never came to {step}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(last_line(killed.path(), ""), expected);
    let kept = checkpoint::all(&killed.path().join("checkpoints")).unwrap();
    assert!(kept.iter().all(|folder| checkpoint::verify(folder).is_ok()), "{kept:?}");
}

#[test]
fn interrupted_it_keeps_where_it_is_and_goes_on_to_the_same_weights() {
    let (whole, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = train(whole.path(), &config(), &Source::new(), &mut Told::default()).unwrap();
    let (outcome, _) = train_until(folder.path(), &config(), 7);
    assert_eq!((outcome.end, outcome.state.step), (End::Interrupted, 7));
    let again = train(folder.path(), &config(), &Source::new(), &mut Told::default()).unwrap();
    assert_eq!(again.last.digest, expected.last.digest);
}

#[test]
fn in_bf16_it_goes_on_from_its_fp32_masters() {
    let (whole, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let train = |folder: &Path, step| train_model_until(model(5, Kind::BFloat16), folder, &config(), step).0;
    let expected = train(whole.path(), u64::MAX);
    assert_eq!((expected.end, expected.state.step), (End::Complete, 16));
    let stopped = train(folder.path(), 7);
    assert_eq!((stopped.end, stopped.state.step), (End::Interrupted, 7));
    let state = |outcome: &Outcome| weights::map(&outcome.last.folder.join("trainer/optimizer.safetensors")).unwrap();
    for (name, tensor) in state(&stopped) {
        assert_eq!(tensor.kind(), if name == "steps" { Kind::Int64 } else { Kind::Float }, "{name}");
    }
    // What is in the masters and not in the weights is lost where it is not kept.
    let master = &state(&stopped)["master.model.norm.weight"];
    assert_ne!(master, &master.to_kind(Kind::BFloat16).to_kind(Kind::Float));

    let again = train(folder.path(), u64::MAX);
    assert_eq!(again.last.digest, expected.last.digest);
    assert_eq!(state(&again), state(&expected));
}

#[test]
fn an_interrupt_does_not_wait_for_a_validation_and_takes_no_patience() {
    let (whole, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = config();
    // A first lowest loss, and none that is lower by so much.
    (config.early_stop.patience, config.early_stop.min_delta) = (2, 100.0);
    let mut told = Told::default();
    let expected = train(whole.path(), &config, &Source::new(), &mut told).unwrap();
    assert_eq!((expected.end, expected.state.step), (End::OutOfPatience, 15));

    let mut validations = Vec::new();
    // 10 is a step behind which it is validated: that is left to the next run.
    for step in [6, 7, 8, 10, 11] {
        let (outcome, found) = train_until(folder.path(), &config, step);
        assert_eq!((outcome.end, outcome.state.step), (End::Interrupted, step));
        assert!(found.iter().all(|(at, _)| *at < step), "behind step {step}: {found:?}");
        validations.extend(found);
    }
    let mut again = Told::default();
    let outcome = train(folder.path(), &config, &Source::new(), &mut again).unwrap();
    assert_eq!((outcome.end, outcome.state), (expected.end, expected.state));
    validations.extend(again.values("validation_loss"));
    assert_eq!(validations, told.values("validation_loss"));
}

#[test]
fn stopped_behind_the_last_step_the_last_validation_is_made_by_the_run_that_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (outcome, found) = train_until(folder.path(), &config(), 16);
    assert_eq!((outcome.end, found.last().unwrap().0), (End::Interrupted, 15));
    let mut told = Told::default();
    let outcome = train(folder.path(), &config(), &Source::new(), &mut told).unwrap();
    let names: Vec<_> = told.metrics.iter().map(|told| (told.0, told.1)).collect();
    assert_eq!((outcome.end, names), (End::Complete, vec![(16, "validation_loss"), (16, BEST_STEP)]));
}

#[test]
fn stopped_before_its_first_step_it_can_go_on() {
    let (whole, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = train(whole.path(), &config(), &Source::new(), &mut Told::default()).unwrap();
    let (checkpoints, interrupt) = (folder.path().join("checkpoints"), AtomicBool::new(true));
    let places =
        Places { base: folder.path(), checkpoints: &checkpoints, fingerprint: "pin abc", interrupt: &interrupt };
    let told = &mut Told::default();
    let outcome = sft::run(&config(), model(5, Kind::Float), &Source::new(), &places, told).unwrap();
    assert_eq!((outcome.end, outcome.state.step), (End::Interrupted, 0));
    let again = train(folder.path(), &config(), &Source::new(), &mut Told::default()).unwrap();
    assert_eq!(again.last.digest, expected.last.digest);
}

#[test]
fn a_run_that_goes_on_tells_of_all_checkpoints_and_clears_away_what_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    train(folder.path(), &config(), &Source::new(), &mut told).unwrap();
    // Metrics are durable before the checkpoint is begun: behind the last one comes only which is best.
    assert_eq!((told.settled.len(), told.settled.last()), (told.checkpoints.len(), Some(&(told.metrics.len() - 1))));
    assert_eq!(told.metrics.last().unwrap().1, BEST_STEP);
    let checkpoints = folder.path().join("checkpoints");
    let kept: Vec<u64> =
        checkpoint::all(&checkpoints).unwrap().iter().map(|folder| checkpoint::step_of(folder).unwrap()).collect();
    assert!(kept.len() > 1, "{kept:?}");
    for left in [".step-00000003.partial", ".step-00000006.old.partial"] {
        fs::create_dir(checkpoints.join(left)).unwrap();
        fs::write(checkpoints.join(left).join("model.safetensors"), "half").unwrap();
    }
    let mut again = Told::default();
    train(folder.path(), &config(), &Source::new(), &mut again).unwrap();
    assert_eq!(again.checkpoints, kept);
    assert_eq!(fs::read_dir(&checkpoints).unwrap().count(), kept.len());
}

#[test]
fn a_full_disk_is_one_line_and_leaves_no_half_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    // No file longer than 40 KiB, and no signal for trying.
    let said = last_line(folder.path(), "trap '' XFSZ; ulimit -f 80;");
    assert!(said.starts_with("error ") && said.contains("model.safetensors") && said.contains("too large"), "{said}");
    assert_eq!(fs::read_dir(folder.path().join("checkpoints")).unwrap().count(), 0);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_without_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.optimizer.lr = f64::INFINITY;
    let error = train(folder.path(), &config, &Source::new(), &mut Told::default()).unwrap_err();
    assert!(matches!(error, TrainError::Diverged(_)), "{error}");
    assert!(error.to_string().starts_with("the loss is NaN"), "{error}");
    assert_eq!(checkpoint::latest(&folder.path().join("checkpoints")).unwrap(), None);
}

#[test]
fn a_pin_without_documents_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source { train: Vec::new(), validation: Vec::new() };
    let error = train(folder.path(), &config(), &source, &mut Told::default()).unwrap_err();
    assert_eq!(error.to_string(), "there is nothing to train on: the pin gave no document");
}

#[test]
fn a_checkpoint_that_was_changed_or_is_of_another_run_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let mut short = config();
    short.schedule.steps_max = Some(2);
    let last = train(folder.path(), &short, &Source::new(), &mut Told::default()).unwrap().last.folder;
    let checkpoints = folder.path().join("checkpoints");
    let interrupt = AtomicBool::new(false);
    let places =
        Places { base: folder.path(), checkpoints: &checkpoints, fingerprint: "pin xyz", interrupt: &interrupt };
    let error = sft::run(&config(), model(5, Kind::Float), &Source::new(), &places, &mut Told::default()).unwrap_err();
    assert!(error.to_string().contains("step-00000002: is of another run"), "{error}");

    let path = last.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = train(folder.path(), &config(), &Source::new(), &mut Told::default()).unwrap_err();
    assert!(error.to_string().ends_with("model.safetensors: was changed after the checkpoint was written"), "{error}");
}

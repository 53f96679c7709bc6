//! DAPO's loss and its gradient: held against a straightforward one by autograd, and against TRL's.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use webdancer_agent::react::Termination;
use webdancer_agent::reward::RewardParts;
use webdancer_train::config::{
    DapoBatchConfig, DapoLossConfig, GroupConfig, OldLogProbs, OptimizerConfig, OverlongConfig, PolicyAggregation,
};
use webdancer_train::dapo::batch::{PolicyUpdate, Round};
use webdancer_train::dapo::groups::Group;
use webdancer_train::dapo::loss::{PolicyLoss, Tally, TokenLosses, log_probs};
use webdancer_train::dapo::update::{self, Updated};
use webdancer_train::episode::{Episode, Turn};
use webdancer_train::error::TrainError;
use webdancer_train::loss::{backward_by, evaluate_by};
use webdancer_train::model::Qwen;
use webdancer_train::optim::AdamW;

use crate::parity::{case, distance};
use crate::training::model;

const AGGREGATIONS: [PolicyAggregation; 4] = [
    PolicyAggregation::TokenMean,
    PolicyAggregation::GroupMeanTokenMean,
    PolicyAggregation::SeqMeanTokenMean,
    PolicyAggregation::SeqMeanTokenSum,
];

fn episode(prompt: u64, attempt: usize, reward: f64, turns: Vec<Turn>) -> Episode {
    Episode {
        trajectory_id: format!("{prompt}-{attempt}"),
        qa_id: prompt.to_string(),
        group: prompt,
        attempt: attempt as i32,
        turns: turns.into_iter().map(Ok).collect(),
        written_tokens: 0,
        reward: Ok(RewardParts { format: true, answer: reward >= 0.9, reward, fault: None }),
        termination: Termination::Answer,
    }
}

fn group(prompt: u64, episodes: Vec<Episode>, std_eps: f64) -> Group {
    Group::new(prompt, episodes, &GroupConfig { std_eps, ..GroupConfig::default() }, &OverlongConfig::default())
}

/// Three groups of four episodes of two turns, of different lengths; in some the second turn does not extend the first.
fn groups() -> Vec<Group> {
    let of = |prompt: u64, attempt: usize| {
        let id = |at: usize| (7 * prompt as usize + 5 * attempt + 3 * at) as u32 % 40;
        let ids = |from: usize, count: usize| (from..from + count).map(id).collect::<Vec<_>>();
        let turn = |context: &[u32], from: usize, count: usize| {
            // What the sampler is said to have had; the model's own are about ln 40 = 3.7 below 0.
            let log_prob = |at: usize| -2.0 - 0.6 * ((at * 11 + attempt) % 10) as f32;
            let log_probs = (from..from + count).map(log_prob).collect();
            Turn { context: context.to_vec(), completion: ids(from, count), log_probs, policy_version: 0 }
        };
        let first = turn(&ids(0, 3 + attempt), 10, 2 + attempt);
        let mut context =
            if attempt == 2 { ids(40, 2) } else { [first.context.clone(), first.completion.clone()].concat() };
        context.extend(ids(20, 3));
        let second = turn(&context, 30, 1 + prompt as usize);
        episode(prompt, attempt, [0.0, 1.0, 0.1, 0.9][(attempt + prompt as usize) % 4], vec![first, second])
    };
    (0..3).map(|prompt| group(prompt, (0..4).map(|attempt| of(prompt, attempt)).collect(), 1e-6)).collect()
}

fn updates(aggregation: PolicyAggregation, tokens: usize) -> Vec<PolicyUpdate> {
    Round::new(&groups(), aggregation, &DapoBatchConfig { groups: 3, tokens, ..DapoBatchConfig::default() }).updates
}

/// Gradient, loss and what is told.
fn found(model: &Qwen, update: &PolicyUpdate, config: &DapoLossConfig) -> (Tensor, f64, HashMap<&'static str, f64>) {
    let optimizer = AdamW::new(&OptimizerConfig::default(), model.parameters()).unwrap();
    let mut tally = Tally::new(Device::Cpu);
    let mut loss = 0.0;
    for batch in &update.batches {
        let mut of_policy = PolicyLoss::new(config, &batch.targets, Device::Cpu, &mut tally);
        let places = batch.targets.places();
        loss += backward_by(model, &batch.packed, places, optimizer.gradient(), &mut of_policy).double_value(&[]);
    }
    (optimizer.gradient().copy(), loss, tally.read().into_iter().map(|(name, value, _)| (name, value)).collect())
}

/// The textbook: all logits, probabilities by softmax, ratios as quotients, and autograd for the rest.
fn straightforward(model: &Qwen, update: &PolicyUpdate, config: &DapoLossConfig) -> (Tensor, f64) {
    let gradient = model.parameters().flat().zeros_like();
    let mut total = 0.0;
    for batch in &update.batches {
        let targets = &batch.targets;
        let tensor = |values: &[f32]| Tensor::from_slice(values);
        let logits = model.hidden_of(&batch.packed).matmul(&model.head().tr()) / targets.temperature;
        let predicted = logits.softmax(-1, Kind::Float).index_select(0, &Tensor::from_slice(&targets.positions));
        let probabilities = predicted.gather(1, &Tensor::from_slice(&targets.ids).unsqueeze(1), false).squeeze_dim(1);
        let ratios = &probabilities / tensor(&targets.old_log_probs).exp();
        let advantages = tensor(&targets.advantages);
        let inner = ratios.clamp(1.0 - config.clip_low, 1.0 + config.clip_high);
        let objective = (&ratios * &advantages).minimum(&(inner * &advantages));
        let floor = &advantages * config.dual_clip;
        let objective = objective.maximum(&floor).where_self(&advantages.lt(0.0), &objective);
        let mut losses = -objective;
        if config.kl > 0.0 {
            let quotients = tensor(&targets.reference_log_probs).exp() / &probabilities;
            losses += (&quotients - quotients.log() - 1.0) * config.kl;
        }
        let loss = (losses * tensor(&targets.weights)).sum(Kind::Float);
        total += loss.double_value(&[]);
        let inputs: Vec<&Tensor> = model.parameters().leaves().iter().collect();
        let gradients = Tensor::run_backward(&[loss], &inputs, false, false);
        tch::no_grad(|| {
            for (mut place, gradient) in model.parameters().views(&gradient).into_iter().zip(gradients) {
                let _ = place.g_add_(&gradient);
            }
        });
    }
    (gradient, total)
}

#[test]
fn layers_that_are_run_again_change_neither_loss_nor_gradient_nor_what_is_told() {
    let config = DapoLossConfig::default();
    for update in updates(PolicyAggregation::TokenMean, 40) {
        assert!(update.batches.len() > 1);
        let expected = found(&model(1, Kind::Float), &update, &config);
        assert_eq!(found(&model(1, Kind::Float).with_activation_checkpointing(true), &update, &config), expected);
    }
}

#[test]
fn loss_and_gradient_are_those_of_a_straightforward_implementation() {
    let tied = model(1, Kind::Float);
    // Of transformers' fixtures, one has a head of its own; its vocabulary is larger, which does no harm.
    let untied = case("qwen3").model;
    for (model, kl, temperature) in [(&tied, 0.0, 1.0), (&tied, 0.3, 1.0), (&tied, 0.3, 0.6), (&untied, 0.0, 0.6)] {
        let config = DapoLossConfig { kl, dual_clip: 3.0, ..DapoLossConfig::default() };
        for aggregation in AGGREGATIONS {
            for mut update in updates(aggregation, 40) {
                assert!(update.batches.len() > 2);
                for batch in &mut update.batches {
                    batch.targets.temperature = temperature;
                    let reference = log_probs(model, batch).iter().map(|log_prob| log_prob * 0.8).collect();
                    batch.targets.reference_log_probs = if kl > 0.0 { reference } else { Vec::new() };
                }
                let (gradient, loss, told) = found(model, &update, &config);
                let (expected, expected_loss) = straightforward(model, &update, &config);
                assert!((loss - expected_loss).abs() < 1e-5, "{aggregation:?}: {loss} {expected_loss}");
                let apart = distance(&gradient, &expected);
                assert!(apart < 1e-5, "{aggregation:?}: gradients differ by {apart:.1e}");
                // Every limit holds somewhere.
                for limit in ["clip_fraction.low", "clip_fraction.high", "clip_fraction.dual"] {
                    assert!(!model.config().tied || told[limit] > 0.0, "{limit}: {told:?}");
                }
            }
        }
    }
}

#[test]
fn neither_packing_nor_micro_batches_change_loss_gradient_or_what_is_told() {
    let model = model(2, Kind::Float);
    let config = DapoLossConfig::default();
    for aggregation in AGGREGATIONS {
        let (gradient, loss, told) = found(&model, &updates(aggregation, 10_000)[0], &config);
        for tokens in [1, 23, 64] {
            let update = &updates(aggregation, tokens)[0];
            assert!(update.batches.len() > 1);
            let (other, other_loss, other_told) = found(&model, update, &config);
            assert!((loss - other_loss).abs() < 1e-5, "{aggregation:?}: {loss} {other_loss}");
            let apart = distance(&other, &gradient);
            assert!(apart < 1e-5, "{aggregation:?}, {tokens}: gradients differ by {apart:.1e}");
            for (name, value) in &told {
                assert!((other_told[name] - value).abs() < 1e-5, "{name}: {value} {}", other_told[name]);
            }
        }
    }
}

#[test]
fn entropy_and_mismatch_are_those_of_the_models_own_predictions() {
    let model = model(3, Kind::Float);
    let update = &updates(PolicyAggregation::TokenMean, 50)[0];
    let (_, _, told) = found(&model, update, &DapoLossConfig::default());
    let (mut entropy, mut differences, mut kl) = (0.0, Vec::new(), 0.0);
    for batch in &update.batches {
        let targets = &batch.targets;
        let logits = model.hidden_of(&batch.packed).matmul(&model.head().tr()).detach();
        let all = logits.log_softmax(-1, Kind::Double).index_select(0, &Tensor::from_slice(&targets.positions));
        entropy -= (all.exp() * &all).sum(Kind::Double).double_value(&[]);
        for (row, (&id, &sampler)) in targets.ids.iter().zip(&targets.sampler_log_probs).enumerate() {
            let difference = all.double_value(&[row as i64, id]) - f64::from(sampler);
            kl += difference.exp() - difference - 1.0;
            differences.push(difference.abs());
        }
    }
    let count = differences.len() as f64;
    for (name, expected) in [
        ("entropy", entropy / count),
        ("mismatch.mean", differences.iter().sum::<f64>() / count),
        ("mismatch.max", differences.iter().copied().fold(0.0, f64::max)),
        ("mismatch.kl", kl / count),
    ] {
        assert!((told[name] / expected - 1.0).abs() < 1e-4, "{name}: {} {expected}", told[name]);
    }
    // A sampler with the trainer's own log-probabilities: no mismatch, no clipping.
    let mut own = update.clone();
    for batch in &mut own.batches {
        batch.targets.sampler_log_probs = log_probs(&model, batch);
        batch.targets.old_log_probs = batch.targets.sampler_log_probs.clone();
    }
    let (_, _, told) = found(&model, &own, &DapoLossConfig::default());
    for name in ["mismatch.max", "clip_fraction.low", "clip_fraction.high", "clip_fraction.dual", "policy_kl"] {
        assert!(told[name].abs() < 1e-5, "{name}: {}", told[name]);
    }
}

#[derive(Deserialize)]
struct Fixture {
    rewards: Vec<Vec<f64>>,
    advantages: Vec<f32>,
    log_probs: Vec<Vec<f32>>,
    old_log_probs: Vec<Vec<f32>>,
    reference_log_probs: Vec<Vec<f32>>,
    mask: Vec<Vec<u8>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    loss_type: String,
    delta: f64,
    beta: f64,
    loss: f64,
    gradient: Vec<Vec<f64>>,
    metrics: HashMap<String, f64>,
}

impl Fixture {
    fn read() -> Fixture {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/trl-loss.json");
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    /// The fixture's sequences as episodes: a token's id says its row and column, masked tokens are observations.
    fn groups(&self) -> Vec<Group> {
        let of = |prompt: usize, attempt: usize| {
            let row = prompt * self.rewards[0].len() + attempt;
            let id = |column: usize| (1_000 + row * 10 + column) as u32;
            let mut before = vec![1];
            let mut turns = Vec::new();
            for run in
                (0..self.mask[row].len()).collect::<Vec<_>>().chunk_by(|&a, &b| self.mask[row][a] == self.mask[row][b])
            {
                let ids: Vec<u32> = run.iter().map(|&column| id(column)).collect();
                if self.mask[row][run[0]] == 1 {
                    let log_probs = run.iter().map(|&column| self.old_log_probs[row][column]).collect();
                    turns.push(Turn { context: before.clone(), completion: ids.clone(), log_probs, policy_version: 0 });
                }
                before.extend(ids);
            }
            episode(prompt as u64, attempt, self.rewards[prompt][attempt], turns)
        };
        let group_of = |prompt: usize| {
            group(prompt as u64, (0..self.rewards[prompt].len()).map(|attempt| of(prompt, attempt)).collect(), 1e-4)
        };
        (0..self.rewards.len()).map(group_of).collect()
    }
}

#[test]
fn advantages_loss_and_gradient_are_those_of_trl() {
    let fixture = Fixture::read();
    let groups = fixture.groups();
    let advantages = groups.iter().flat_map(|group| &group.scored).map(|scored| scored.advantage.unwrap() as f32);
    for (ours, theirs) in advantages.zip(&fixture.advantages) {
        assert!((ours - theirs).abs() < 1e-5, "{ours} {theirs}");
    }
    for case in &fixture.cases {
        let aggregation = match case.loss_type.as_str() {
            "dapo" => PolicyAggregation::TokenMean,
            "grpo" => PolicyAggregation::SeqMeanTokenMean,
            other => panic!("{other}"),
        };
        let config = DapoLossConfig { dual_clip: case.delta, kl: case.beta, ..DapoLossConfig::default() };
        let round = Round::new(&groups, aggregation, &DapoBatchConfig { tokens: 20, ..DapoBatchConfig::default() });
        let (mut loss, mut compared, mut told) = (0.0, 0, HashMap::<&str, f64>::new());
        for targets in round.updates.iter().flat_map(|update| &update.batches).map(|batch| &batch.targets) {
            let places: Vec<(usize, usize)> =
                targets.ids.iter().map(|&id| ((id as usize - 1_000) / 10, id as usize % 10)).collect();
            let of = |table: &[Vec<f32>]| {
                Tensor::from_slice(&places.iter().map(|&(row, column)| table[row][column]).collect::<Vec<_>>())
            };
            let tensor = |values: &[f32]| Tensor::from_slice(values);
            let reference = (case.beta > 0.0).then(|| of(&fixture.reference_log_probs));
            let old = of(&fixture.old_log_probs);
            assert_eq!(old, tensor(&targets.old_log_probs));
            let log_probs = of(&fixture.log_probs);
            let found = TokenLosses::new(&config, &log_probs, &old, &tensor(&targets.advantages), reference.as_ref());
            let weights = tensor(&targets.weights);
            loss += (&found.losses * &weights).sum(Kind::Double).double_value(&[]);
            let slopes = Vec::<f32>::try_from(&found.slopes * &weights).unwrap();
            for ((row, column), slope) in places.into_iter().zip(slopes) {
                let theirs = case.gradient[row][column];
                assert!((f64::from(slope) - theirs).abs() < 1e-6, "{}: {row} {column}: {slope} {theirs}", case.name);
                compared += 1;
            }
            for (name, sums) in [
                ("clip_ratio/low_mean", Some(&found.clipped_low)),
                ("clip_ratio/high_mean", Some(&found.clipped_high)),
                ("kl", found.divergences.as_ref()),
            ] {
                *told.entry(name).or_default() += sums.map_or(0.0, |sums| sums.sum(Kind::Double).double_value(&[]));
            }
        }
        assert!((loss - case.loss).abs() < 1e-6, "{}: {loss} {}", case.name, case.loss);
        let masked = fixture.mask.iter().flatten().filter(|&&mask| mask == 1).count();
        assert_eq!(compared, masked);
        for (name, sum) in told {
            let theirs = case.metrics.get(name).copied().unwrap_or(0.0);
            assert!(
                (sum / masked as f64 - theirs).abs() < 1e-6,
                "{}: {name}: {} {theirs}",
                case.name,
                sum / masked as f64
            );
        }
    }
}

fn step(model: &Qwen, optimizer: &mut AdamW, round: &Round, config: &DapoLossConfig) -> Updated {
    update::update(model, optimizer, 3e-3, &round.updates[0], config).unwrap()
}

#[test]
fn what_got_an_advantage_becomes_likelier_and_old_log_probabilities_stay() {
    let model = model(4, Kind::Float);
    let config = DapoLossConfig { old_log_probs: OldLogProbs::Trainer, ..DapoLossConfig::default() };
    let mut round =
        Round::new(&groups(), config.aggregation, &DapoBatchConfig { groups: 3, ..DapoBatchConfig::default() });
    let mismatch = update::fix_old_log_probs(&model, &mut round, &config).unwrap().unwrap();
    assert!(mismatch.max > mismatch.mean && mismatch.mean > 0.1, "{mismatch:?}");
    let fixed = round.updates[0].batches[0].targets.old_log_probs.clone();
    let mut optimizer = AdamW::new(&OptimizerConfig::default(), model.parameters()).unwrap();
    let of = |updated: &Updated, name: &str| updated.means.iter().find(|mean| mean.0 == name).unwrap().1;
    let losses: Vec<Updated> = (0..12).map(|_| step(&model, &mut optimizer, &round, &config)).collect();
    assert_eq!(of(&losses[0], "policy_kl"), 0.0);
    assert!(losses[11].loss < losses[0].loss - 0.05, "{losses:?}");
    assert!(of(&losses[11], "clip_fraction.high") > 0.0 && of(&losses[11], "clip_fraction.low") > 0.0);
    assert_eq!(round.updates[0].batches[0].targets.old_log_probs, fixed);
    let (mut up, mut down) = (0.0, 0.0);
    for batch in &round.updates[0].batches {
        let targets = &batch.targets;
        for ((now, old), advantage) in
            log_probs(&model, batch).iter().zip(&targets.old_log_probs).zip(&targets.advantages)
        {
            *(if *advantage > 0.0 { &mut up } else { &mut down }) += now - old;
        }
    }
    assert!(up > 0.0 && down < 0.0, "{up} {down}");
}

#[test]
fn a_policy_is_held_to_its_reference() {
    let away = |kl: f64| {
        let (policy, reference) = (model(5, Kind::Float), model(5, Kind::Float));
        let config = DapoLossConfig { kl, old_log_probs: OldLogProbs::Trainer, ..DapoLossConfig::default() };
        let mut round =
            Round::new(&groups(), config.aggregation, &DapoBatchConfig { groups: 3, ..DapoBatchConfig::default() });
        update::fix_old_log_probs(&policy, &mut round, &config).unwrap();
        update::fix_reference_log_probs(&reference, &mut round).unwrap();
        let mut optimizer = AdamW::new(&OptimizerConfig::default(), policy.parameters()).unwrap();
        (0..10).for_each(|_| drop(step(&policy, &mut optimizer, &round, &config)));
        let batch = &round.updates[0].batches[0];
        let now = log_probs(&policy, batch);
        now.iter().zip(&batch.targets.reference_log_probs).map(|(now, reference)| (now - reference).abs()).sum::<f32>()
    };
    assert!(away(2.0) < 0.7 * away(0.0), "{} {}", away(2.0), away(0.0));
}

#[test]
fn a_loss_that_is_no_number_is_an_error() {
    let model = model(6, Kind::Float);
    let mut optimizer = AdamW::new(&OptimizerConfig::default(), model.parameters()).unwrap();
    let round = Round::new(&groups(), PolicyAggregation::TokenMean, &DapoBatchConfig::default());
    let config = DapoLossConfig::default();
    update::update(&model, &mut optimizer, f64::INFINITY, &round.updates[0], &config).unwrap();
    let error = update::update(&model, &mut optimizer, 1e-3, &round.updates[0], &config).unwrap_err();
    assert!(matches!(error, TrainError::Diverged(_)), "{error}");
    assert!(error.to_string().starts_with("the loss of the policy is NaN"), "{error}");
}

#[test]
fn a_micro_batch_without_a_trained_token_costs_nothing() {
    let model = model(7, Kind::Float);
    let mut update = updates(PolicyAggregation::TokenMean, 10_000).remove(0);
    update.batches[0].targets = Default::default();
    let mut tally = Tally::new(Device::Cpu);
    let batch = &update.batches[0];
    let config = DapoLossConfig::default();
    let mut of_policy = PolicyLoss::new(&config, &batch.targets, Device::Cpu, &mut tally);
    let loss = evaluate_by(&model, &batch.packed, batch.targets.places(), &mut of_policy).double_value(&[]);
    assert_eq!((loss, tally.read()), (0.0, Vec::new()));
    assert_eq!(log_probs(&model, batch), Vec::<f32>::new());
}

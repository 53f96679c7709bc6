//! Generation: the tokens of transformers, whoever else is being written at the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use webdancer_train::batch::PackedBatch;
use webdancer_train::config::OptimizerConfig;
use webdancer_train::generate::{Engine, EngineConfig, Finish, Request, RequestId, SamplingConfig, Written};
use webdancer_train::loss::{self, Targets};
use webdancer_train::optim::AdamW;

use crate::parity::{Case, case};

/// Tokens read as letters.
fn letters(ids: &[i64]) -> String {
    ids.iter().map(|id| char::from(b'A' + *id as u8)).collect()
}

fn engine(name: &str, config: EngineConfig) -> Engine {
    Engine::new(config, case(name).model, Arc::new(letters))
}

fn greedy(prompt: &[i64], max_tokens: usize) -> Request {
    let sampling = SamplingConfig { temperature: 0.0, ..SamplingConfig::default() };
    Request { prompt: prompt.to_vec(), max_tokens, sampling, ..Request::default() }
}

/// Runs until nothing is left; what was written, by request.
fn run(engine: &mut Engine) -> BTreeMap<RequestId, Vec<Written>> {
    let mut all: BTreeMap<RequestId, Vec<Written>> = BTreeMap::new();
    while !engine.idle() {
        for written in engine.step().unwrap() {
            all.entry(written.request).or_default().push(written);
        }
    }
    all
}

fn ids(written: &[Written]) -> Vec<i64> {
    written.iter().map(|written| written.id).collect()
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for name in ["qwen2", "qwen3", "qwen3-yarn"] {
        let Case { expected, batch, .. } = case(name);
        let expected = Vec::<i64>::try_from(&expected["greedy"]).unwrap();
        let mut engine = engine(name, EngineConfig::default());
        let id = engine.submit(greedy(&batch.ids[..13], expected.len())).unwrap();
        let written = run(&mut engine).remove(&id).unwrap();
        assert_eq!(ids(&written), expected, "{name}");
        assert_eq!(written.last().unwrap().finish, Some(Finish::Length));
        assert_eq!(written.iter().map(|written| written.text.as_str()).collect::<String>(), letters(&expected));
    }
}

#[test]
fn steps_of_fixed_shapes_write_the_same_tokens_and_say_why_nothing_is_recorded() {
    for name in ["qwen2", "qwen3", "qwen3-yarn"] {
        let batch = case(name).batch;
        let written = |cuda_graphs| {
            let mut engine = engine(name, EngineConfig { cuda_graphs, ..EngineConfig::default() });
            // Three, then two, then one: rows are filled up, and shapes change.
            for (from, max_tokens) in [(0, 5), (3, 9), (7, 14)] {
                engine.submit(greedy(&batch.ids[from..13], max_tokens)).unwrap();
            }
            let written = run(&mut engine);
            (written, engine.unrecorded().map(str::to_string))
        };
        let ((plain, none), (fixed, reason)) = (written(false), written(true));
        assert_eq!((none, reason.as_deref()), (None, Some("no CUDA graphs: they are a GPU's")));
        assert_eq!(fixed.values().map(Vec::len).collect::<Vec<_>>(), [5, 9, 14]);
        for (plain, fixed) in plain.values().zip(fixed.values()) {
            assert_eq!(ids(fixed), ids(plain), "{name}");
            let apart = plain.iter().zip(fixed).map(|(plain, fixed)| (plain.log_prob - fixed.log_prob).abs());
            assert!(apart.fold(0.0, f32::max) < 1e-5, "{name}");
        }
    }
}

#[test]
fn log_probabilities_are_those_that_training_sees() {
    let Case { model, batch, .. } = case("qwen3");
    let prompt = &batch.ids[..13];
    let mut engine = engine("qwen3", EngineConfig::default());
    let sampling = SamplingConfig {
        temperature: 0.7,
        top_p: 0.9,
        repetition_penalty: 1.1,
        seed: 3,
        top_k: 30,
        ..SamplingConfig::default()
    };
    engine.submit(Request { sampling, ..greedy(prompt, 10) }).unwrap();
    let written = run(&mut engine).into_values().next().unwrap();

    let mut whole = PackedBatch::default();
    let all: Vec<i64> = prompt.iter().copied().chain(ids(&written)).collect();
    whole.push(0, &all, &vec![true; all.len()]);
    for (at, written) in written.iter().enumerate() {
        let place = (prompt.len() + at) as i64;
        let targets = Targets { positions: vec![place - 1], ids: vec![written.id], weights: vec![1.0] };
        let expected = -loss::evaluate(&model, &whole, &targets).double_value(&[]);
        assert!((f64::from(written.log_prob) - expected).abs() < 1e-4, "{at}: {} {expected}", written.log_prob);
    }
}

#[test]
fn companions_change_nothing_and_few_places_are_shared_in_turn() {
    let batch = case("qwen2").batch;
    let request = |at: usize| {
        let sampling = match at % 3 {
            0 => SamplingConfig { temperature: 0.0, ..SamplingConfig::default() },
            1 => SamplingConfig { seed: at as u64, ..SamplingConfig::default() },
            _ => SamplingConfig { seed: at as u64, top_p: 0.8, repetition_penalty: 1.2, ..SamplingConfig::default() },
        };
        Request { sampling, ..greedy(&batch.ids[at % 5..13], 3 + at * 7 % 11) }
    };
    let alone: Vec<Vec<i64>> = (0..12)
        .map(|at| {
            let mut engine = engine("qwen2", EngineConfig::default());
            engine.submit(request(at)).unwrap();
            ids(&run(&mut engine).into_values().next().unwrap())
        })
        .collect();
    let config = EngineConfig { sequences_max: 3, prompt_tokens_per_step: 20, ..EngineConfig::default() };
    let mut engine = engine("qwen2", config);
    for at in 0..12 {
        engine.submit(request(at)).unwrap();
    }
    let mut together: BTreeMap<RequestId, Vec<i64>> = BTreeMap::new();
    while !engine.idle() {
        for written in engine.step().unwrap() {
            together.entry(written.request).or_default().push(written.id);
        }
        assert!(engine.active() <= 3);
    }
    assert_eq!(together.into_values().collect::<Vec<_>>(), alone);
}

#[test]
fn stop_strings_and_tokens_end_a_sequence() {
    let Case { expected, batch, .. } = case("qwen2");
    let expected = Vec::<i64>::try_from(&expected["greedy"]).unwrap();
    let text = letters(&expected);
    let stop = text[4..7].to_string();
    let at = text.find(&stop).unwrap();
    let mut engine = engine("qwen2", EngineConfig::default());
    let by_text = engine.submit(Request { stop: vec![stop], ..greedy(&batch.ids[..13], 24) }).unwrap();
    let first = expected.iter().position(|id| *id == expected[5]).unwrap();
    let by_token = engine.submit(Request { stop_ids: vec![expected[5]], ..greedy(&batch.ids[..13], 24) }).unwrap();
    let all = run(&mut engine);
    let told = |id| all[&id].iter().map(|written| written.text.as_str()).collect::<String>();
    assert_eq!(told(by_text), text[..at]);
    assert_eq!(ids(&all[&by_text]), expected[..at + 3]);
    assert_eq!(ids(&all[&by_token]), expected[..=first]);
    for written in all.values() {
        assert_eq!(written.last().unwrap().finish, Some(Finish::Stop));
    }
    let told = |id| all[&id].last().unwrap().stop.clone();
    assert_eq!((told(by_text), told(by_token)), (Some(text[4..7].to_string()), None));
}

/// A prompt of so many tokens, the first ones shared with those of the same kind.
fn prompt(kind: i64, tokens: i64) -> Vec<i64> {
    (0..tokens).map(|at| (at * 7 + at / 11 * 5 + if at < 40 { 0 } else { kind }) % 48).collect()
}

/// What an episode of three turns comes to, each beginning with all of the last one, beside others that are longer and
/// shorter: tokens and log-probabilities; and how much of each prompt was held already.
fn episode(prefix_bytes_max: usize) -> (Vec<(i64, f32)>, Vec<usize>) {
    let mut engine = engine("qwen3", EngineConfig { prefix_bytes_max, ..EngineConfig::default() });
    let (mut told, mut cached) = (Vec::new(), Vec::new());
    let mut context = prompt(0, 45);
    for turn in 0..3 {
        let mut asked = Vec::new();
        for prompt in [prompt(3, 70), context.clone(), prompt(turn + 20, 12)] {
            asked.push(engine.submit(greedy(&prompt, 15)).unwrap());
        }
        let all = run(&mut engine);
        cached.extend(asked.iter().map(|id| all[id][0].prompt_cached));
        told.extend(asked.iter().flat_map(|id| &all[id]).map(|written| (written.id, written.log_prob)));
        context.extend(ids(&all[&asked[1]]));
        context.extend(prompt(turn, 5));
    }
    (told, cached)
}

#[test]
fn what_is_held_of_earlier_sequences_changes_no_token_and_no_log_probability() {
    let ((with, cached), (without, none)) = (episode(1 << 20), episode(0));
    // Turns of 45, 65 and 85 tokens; the last token written is not held, and only whole blocks of 16 are. All begin with
    // the same 40 tokens.
    assert_eq!((cached, none), (vec![0, 32, 0, 64, 48, 0, 64, 64, 0], vec![0; 9]));
    assert_eq!(with.len(), 3 * 3 * 15);
    for ((id, log_prob), (other, expected)) in with.iter().zip(&without) {
        assert_eq!(id, other);
        assert!((log_prob - expected).abs() < 1e-5, "{log_prob} {expected}");
    }
}

#[test]
fn the_prompt_of_a_group_is_read_once() {
    let mut engine = engine("qwen2", EngineConfig::default());
    let sampled = |seed| SamplingConfig { seed, ..SamplingConfig::default() };
    let ids: Vec<_> = (0..4)
        .map(|seed| engine.submit(Request { sampling: sampled(seed), ..greedy(&prompt(0, 50), 8) }).unwrap())
        .collect();
    let first = engine.step().unwrap();
    assert_eq!(first.iter().map(|written| written.request).collect::<Vec<_>>(), ids[..1]);
    let second = engine.step().unwrap();
    assert_eq!(second.iter().map(|written| written.prompt_cached).collect::<Vec<_>>(), [0, 48, 48, 48]);
}

#[test]
fn what_other_weights_computed_is_forgotten() {
    let mut engine = engine("qwen2", EngineConfig::default());
    let ask = |engine: &mut Engine| {
        engine.submit(greedy(&prompt(0, 50), 10)).unwrap();
        let written = run(engine).into_values().next().unwrap();
        (written[0].prompt_cached, written[0].log_prob)
    };
    let (first, again) = (ask(&mut engine), ask(&mut engine));
    assert_eq!((first.0, again.0), (0, 48));
    // Changed while a sequence is under way: what it holds is of both, and is not kept.
    engine.submit(greedy(&prompt(1, 50), 10)).unwrap();
    engine.step().unwrap();
    // As training changes them: in place, by one operator.
    let parameters = engine.model().parameters();
    let mut optimizer = AdamW::new(&OptimizerConfig::default(), parameters).unwrap();
    let _ = optimizer.gradient().shallow_clone().uniform_(-1.0, 1.0);
    let _ = optimizer.step(parameters, 0.1).unwrap();
    run(&mut engine);
    engine.submit(greedy(&prompt(1, 50), 1)).unwrap();
    assert_eq!(run(&mut engine).into_values().next().unwrap()[0].prompt_cached, 0);
    let changed = ask(&mut engine);
    assert_eq!(changed.0, 32, "the beginning that it shares with the one before");
    assert!((changed.1 - first.1).abs() > 1e-3, "{changed:?} {first:?}");
    assert_eq!(ask(&mut engine).0, 48);
}

#[test]
fn a_cancelled_request_frees_its_place_at_once() {
    let batch = case("qwen2").batch;
    let mut engine = engine("qwen2", EngineConfig { sequences_max: 2, ..EngineConfig::default() });
    let submit = |engine: &mut Engine| engine.submit(greedy(&batch.ids[..13], 50)).unwrap();
    let (first, second, third) = (submit(&mut engine), submit(&mut engine), submit(&mut engine));
    engine.step().unwrap();
    assert_eq!(engine.active(), 2);
    engine.cancel(first);
    assert_eq!(engine.active(), 1);
    engine.step().unwrap();
    engine.cancel(second);
    let rest = run(&mut engine);
    assert_eq!(rest.keys().copied().collect::<Vec<_>>(), [third]);
    assert_eq!(rest[&third].len(), 49, "one was written in the step before");
}

#[test]
fn what_cannot_be_written_on_is_refused() {
    let mut engine = engine("qwen2", EngineConfig { waiting_max: 1, ..EngineConfig::default() });
    let mut refused = |request| engine.submit(request).map(|_| ()).unwrap_err().to_string();
    assert_eq!(refused(greedy(&[], 1)), "the prompt has 0 tokens; 1 to 127 fit the context");
    assert_eq!(refused(greedy(&[1; 128], 1)), "the prompt has 128 tokens; 1 to 127 fit the context");
    assert_eq!(refused(greedy(&[48], 1)), "token 48 of the prompt is not among the model's 48");
    assert_eq!(refused(greedy(&[1], 0)), "max_tokens is 0");
    engine.submit(greedy(&[1], 1)).unwrap();
    assert_eq!(engine.submit(greedy(&[1], 1)).unwrap_err().to_string(), "1 requests are waiting; try again later");
}

#[test]
fn a_sequence_ends_with_the_context() {
    let mut engine = engine("qwen2", EngineConfig { context_max: 20, ..EngineConfig::default() });
    engine.submit(greedy(&[1; 15], 50)).unwrap();
    let written = run(&mut engine).into_values().next().unwrap();
    assert_eq!((written.len(), written[4].finish), (5, Some(Finish::Length)));
}

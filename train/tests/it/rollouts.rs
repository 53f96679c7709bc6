//! Rollouts: the tokens that are kept, who waits for whom, what rewards a policy can and cannot get.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use tch::{Device, Kind};
use tokio::sync::Notify;
use webdancer_agent::conversation::{Role, render_messages};
use webdancer_agent::judge::{Case, Decision, Judge};
use webdancer_agent::react::ReactConfig;
use webdancer_agent::reward::Withheld;
use webdancer_agent::tool::{Outcome, Web};
use webdancer_schemas::rows::Trajectory;
use webdancer_train::batch::PackedBatch;
use webdancer_train::config::ScratchModel;
use webdancer_train::episode::Episode;
use webdancer_train::error::TrainError;
use webdancer_train::generate::{Decode as _, Engine, EngineConfig, Refusal, Request, RequestId, Written};
use webdancer_train::model::{ModelConfig, Parameters, Qwen};
use webdancer_train::rollout::{Finished, Generator, Renderer};
use webdancer_train::tokenizer::ChatTokenizer;

use crate::policies::{Answers, Listed, Play, Played, Stage, attempt, says};
use crate::support::TOKENIZERS;

const SEARCH: &str = "<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"a\"]}}\n</tool_call>";

const VISIT: &str =
    "<tool_call>\n{\"name\": \"visit\", \"arguments\": {\"url\": [\"http://a/\"], \"goal\": \"b\"}}\n</tool_call>";

fn thinks(thought: &str, action: &str) -> String {
    format!("<think>\n{thought}\n</think>\n{action}")
}

fn answers(text: &str) -> String {
    thinks("So it is.", &format!("<answer>\n{text}\n</answer>"))
}

/// Turns of the assistant in a prompt.
fn turns(prompt: &str) -> usize {
    prompt.matches("<|im_start|>assistant").count() - 1
}

/// Whatever a model may write: calls, answers, made-up observations, broken turns, ends or none.
fn anything(prompt: &str, random: &mut StdRng) -> (String, bool) {
    let words = ["naïve ", "Zürich ", "東京", "🦀 ", "a\n\n", " <b> ", "Arg entina ", "\t", "<|im_end|>", "x"];
    let mut thought = String::new();
    for _ in 0..random.random_range(0..6) {
        thought.push_str(words[random.random_range(0..words.len())]);
    }
    let text = match random.random_range(0..16) {
        0..=4 => thinks(&thought, SEARCH),
        5 => thinks(&thought, &SEARCH.replace("search", "calculate")),
        6 => thinks(&thought, &format!("{SEARCH}\n<tool_response>\nmade up\n</tool_response>")),
        7 => format!("{thought} <tool_response> and on"),
        8 => thought,
        9 => format!("no tag {thought}\n</think>\n{SEARCH}"),
        10 => thinks(&thought, &format!("{SEARCH}\n{SEARCH}")),
        11 => answers(&format!("{} {thought}", turns(prompt))),
        12..=13 => thinks(&thought, VISIT),
        _ => thinks(&thought, SEARCH),
    };
    let text = if text.is_empty() { "x".to_string() } else { text };
    (text, random.random_bool(0.7))
}

fn columns(row: &Trajectory) -> Vec<(Vec<i64>, Vec<i64>, Vec<f32>)> {
    let wide = |ids: &Option<Vec<i32>>| ids.as_ref().unwrap().iter().map(|id| i64::from(*id)).collect::<Vec<_>>();
    let (contexts, completions) =
        (row.turn_context_token_ids.as_ref().unwrap(), row.turn_completion_token_ids.as_ref().unwrap());
    let log_probs = row.turn_log_probs.as_ref().unwrap();
    let turns = contexts.iter().zip(completions).zip(log_probs);
    turns
        .map(|((context, completion), log_probs)| (wide(context), wide(completion), log_probs.clone().unwrap()))
        .collect()
}

#[test]
fn token_ids_kept_are_bit_for_bit_those_sampled_and_each_context_extends_the_last() {
    let (mut endings, mut longest) = (std::collections::BTreeSet::new(), 0);
    for (number, tokenizer) in TOKENIZERS.iter().enumerate() {
        let mut stage = Stage::new(tokenizer);
        stage.react = ReactConfig {
            calls_max: 5,
            malformed_max: [1, 9, 9][number],
            turn_tokens_max: Some([24, 60, 160][number]),
            context_tokens_max: Some([700, 1400, 3000][number]),
            written_tokens_max: [None, Some(150), None][number],
            ..ReactConfig::default()
        };
        let mut played = Played::new(tokenizer, &anything).with_context([900, 1500, 3200][number]);
        let web: Arc<dyn Web> = Arc::new(Answers(|tool: String, arguments: String| async move {
            let page = "Zürich <|im_start|> 東京\n\n \u{1f980} ".repeat(arguments.len() % 7);
            (format!("{tool} found:\n{page}"), Outcome::Done)
        }));
        let mut attempts = Listed::new((0..60).map(|at| attempt(at, &format!("Who — {at}? <|im_end|>"), "4")));
        stage.run(&mut played, web, &mut attempts);
        let mut told = std::mem::take(&mut played.told);
        let mut kept = Vec::new();
        for (_, Finished { trajectory, reward, .. }) in &attempts.ended {
            let mut before = Vec::new();
            let mut sampled = Vec::new();
            for (context, completion, log_probs) in columns(trajectory) {
                assert!(context.starts_with(&before), "a context that does not extend the last");
                assert_eq!(log_probs, (1..=completion.len()).map(|at| -(at as f32) / 64.0).collect::<Vec<_>>());
                before = [context.clone(), completion.clone()].concat();
                sampled.extend(completion.iter().map(|id| *id as u32));
                kept.push((context, completion));
            }
            longest = longest.max(trajectory.n_turns);
            endings.insert(trajectory.termination.clone());
            // What is trained is what was sampled, in one document.
            let episode = Episode::of_row(trajectory, 0, reward.clone(), tokenizer.digest()).unwrap();
            let found = episode.documents();
            assert_eq!((found.documents.len(), found.left_out.len()), (1, 0));
            let document = &found.documents[0];
            let trained = document.ids.iter().zip(&document.trained).filter(|(_, trained)| **trained);
            assert_eq!(trained.map(|(id, _)| *id).collect::<Vec<_>>(), sampled);
            assert_eq!(document.ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>(), before);
        }
        told.sort();
        kept.sort();
        assert!(told == kept, "what was written is not what was kept");
    }
    assert!(longest >= 5, "{longest} turns: too tame a policy");
    assert_eq!(endings.into_iter().collect::<Vec<_>>(), ["answer", "calls", "forced", "malformed", "tokens"]);
}

#[test]
fn a_context_reads_as_the_conversation_does_where_every_turn_ended_its_message() {
    let tokenizer = &TOKENIZERS[1];
    let play = |prompt: &str, _: &mut StdRng| match turns(prompt) {
        0 | 1 => (thinks("I look.", SEARCH), true),
        _ => (answers("Rome"), true),
    };
    let stage = Stage::new(tokenizer);
    let mut attempts = Listed::new([attempt(0, "Where?", "Rome")]);
    stage.run(&mut Played::new(tokenizer, &play), says("a page"), &mut attempts);
    let (_, finished) = &attempts.ended[0];
    let messages = render_messages(&finished.trajectory).unwrap();
    assert_eq!(messages.iter().filter(|message| message.role == Role::Assistant).count(), 3);
    let mut text = String::new();
    for message in &messages {
        text.push_str(&format!("<|im_start|>{}\n{}<|im_end|>\n", message.role.name(), message.content));
    }
    let (context, completion, _) = columns(&finished.trajectory).pop().unwrap();
    let renderer = Renderer::new(tokenizer.clone(), Default::default());
    assert_eq!(format!("{}\n", renderer.decode(&[context, completion].concat())), text);
    assert_eq!(finished.reward.as_ref().unwrap().reward, 1.0);
}

#[test]
fn an_episode_whose_tool_is_slow_holds_no_other_and_its_place_alone() {
    let tokenizer = &TOKENIZERS[2];
    let mut stage = Stage::new(tokenizer);
    stage.episodes_max = 2;
    let play = |prompt: &str, _: &mut StdRng| match turns(prompt) {
        0 if prompt.contains("slow") => (thinks("", &SEARCH.replace("[\"a\"]", "[\"slow\"]")), true),
        0 => (thinks("", SEARCH), true),
        _ => (answers("yes"), true),
    };
    let (count, ended) = (Arc::new(Mutex::new(0)), Arc::new(Notify::new()));
    let (counted, told) = (count.clone(), ended.clone());
    // The slow tool comes back when all others have ended.
    let web = Answers(move |_, arguments: String| {
        let (counted, told) = (counted.clone(), told.clone());
        async move {
            while arguments.contains("slow") && *counted.lock().unwrap() < 7 {
                told.notified().await;
            }
            ("done".to_string(), Outcome::Done)
        }
    });
    let mut attempts = Listed::new((0..8).map(|at| attempt(at, if at == 0 { "slow?" } else { "quick?" }, "yes")));
    (attempts.count, attempts.on_end) = (count, Some(ended));
    let mut played = Played::new(tokenizer, &play);
    let time = stage.run(&mut played, Arc::new(web), &mut attempts);
    let order: Vec<u64> = attempts.ended.iter().map(|(attempt, _)| attempt.group).collect();
    assert_eq!(order, [1, 2, 3, 4, 5, 6, 7, 0]);
    assert!(played.most <= 2 && time.tokens > 0 && time.total >= time.model + time.idle);
}

#[test]
fn an_interrupt_is_heard_while_every_episode_waits_for_its_tool() {
    let tokenizer = &TOKENIZERS[2];
    for lockstep in [false, true] {
        let stage = Stage { lockstep, ..Stage::new(tokenizer) };
        let play = |_: &str, _: &mut StdRng| (thinks("", SEARCH), true);
        let interrupt = Arc::new(AtomicBool::new(false));
        let asked = interrupt.clone();
        // A tool that asks for the end, and never comes back.
        let web = Answers(move |_, _: String| {
            asked.store(true, Ordering::Relaxed);
            std::future::pending::<(String, Outcome)>()
        });
        let mut attempts = Listed::new((0..3).map(|at| attempt(at, "Where?", "Rome")));
        let mut played = Played::new(tokenizer, &play);
        let time = stage.run_until(&mut played, Arc::new(web), &mut attempts, &interrupt);
        assert!(time.interrupted && attempts.ended.is_empty());
    }
}

/// A judge that fails.
#[derive(Debug)]
struct Fails;

#[async_trait::async_trait]
impl Judge for Fails {
    fn name(&self) -> &str {
        "fails"
    }

    fn rule_version(&self) -> i32 {
        1
    }

    async fn judge(&self, _: &Case<'_>) -> Decision {
        Decision::error("no connection")
    }
}

/// The only attempt's end: (format, answer, reward) or why there is none; its termination.
fn rewarded(stage: &Stage, web: Arc<dyn Web>, play: &Play<'_>) -> (Result<(bool, bool, f64), Withheld>, Finished) {
    let mut attempts = Listed::new([attempt(0, "Paris or Rome?", "Paris")]);
    stage.run(&mut Played::new(&stage.tokenizer, play), web, &mut attempts);
    let (_, finished) = attempts.ended.pop().unwrap();
    (finished.reward.clone().map(|parts| (parts.format, parts.answer, parts.reward)), finished)
}

#[test]
fn what_a_policy_makes_up_gets_what_the_rules_give_it_and_no_more() {
    let mut stage = Stage::new(&TOKENIZERS[0]);
    stage.react = ReactConfig { calls_max: 3, malformed_max: 1, ..ReactConfig::default() };
    let gold = answers("Paris");
    let made_up = thinks("", &format!("{SEARCH}\n<tool_response>\nParis\n</tool_response>\n{gold}"));
    let twice = thinks("", &format!("{SEARCH}\n{SEARCH}"));
    let within = thinks("<answer>\nParis\n</answer>", SEARCH);
    let bare = "<answer>\nParis\n</answer>".to_string();
    let unopened = "It is.\n</think>\n<answer>\nParis\n</answer>".to_string();
    let unknown = thinks("", &SEARCH.replace("search", "calculate"));
    let broken = thinks("", "<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\n</tool_call>");
    let in_thought = thinks("The page will say <tool_response> Paris", "<answer>\nParis\n</answer>");
    let after = format!("{gold}\nand Rome");
    let search = thinks("", SEARCH);
    for (what, first, then, expected, termination) in [
        ("plain", &search, &gold, (true, true, 1.0), "answer"),
        ("the gold stands in the question", &gold, &gold, (true, true, 1.0), "answer"),
        ("all of the question's names", &answers("Paris or Rome"), &gold, (true, false, 0.1), "answer"),
        ("a made-up observation", &made_up, &gold, (false, true, 0.9), "answer"),
        ("a made-up observation, then a wrong answer", &made_up, &answers("Rome"), (false, false, 0.0), "answer"),
        ("several calls in a turn", &twice, &gold, (false, true, 0.9), "answer"),
        ("several calls in every turn", &twice, &twice, (false, false, 0.0), "malformed"),
        ("an answer inside a thought, and never one", &within, &within, (false, false, 0.0), "calls"),
        ("an answer inside a thought, then a wrong one", &within, &answers("Rome"), (true, false, 0.1), "answer"),
        ("an answer without a thought", &bare, &bare, (false, false, 0.0), "malformed"),
        ("a thought that was never opened", &unopened, &gold, (false, true, 0.9), "answer"),
        ("a tool that does not exist", &unknown, &gold, (false, true, 0.9), "answer"),
        ("a call that is no JSON", &broken, &gold, (false, true, 0.9), "answer"),
        ("an observation announced in a thought", &in_thought, &gold, (false, true, 0.9), "answer"),
        ("words after the answer", &after, &gold, (false, true, 0.9), "answer"),
        ("an answer when asked for it", &search, &search, (false, false, 0.0), "calls"),
    ] {
        let play = |prompt: &str, _: &mut StdRng| (if turns(prompt) == 0 { first } else { then }.clone(), true);
        let (found, finished) = rewarded(&stage, says("a page"), &play);
        assert_eq!(found, Ok(expected), "{what}: {:?}", finished.reward);
        assert_eq!(finished.trajectory.termination, termination, "{what}");
    }
    // Asked for the answer at last, it gives it.
    let forced = |prompt: &str, _: &mut StdRng| {
        (if prompt.contains("Answer now.") { gold.clone() } else { search.clone() }, true)
    };
    let (found, finished) = rewarded(&stage, says("a page"), &forced);
    assert_eq!((found, finished.trajectory.termination.as_str()), (Ok((false, true, 0.9)), "forced"));
}

#[test]
fn a_made_up_observation_is_cut_at_the_end_of_a_token_and_answered_by_the_tool() {
    let stage = Stage::new(&TOKENIZERS[0]);
    let play = |prompt: &str, _: &mut StdRng| match turns(prompt) {
        0 => (thinks("", &format!("{SEARCH}\n<tool_response>\nParis\n</tool_response>")), true),
        _ => (answers("Paris"), true),
    };
    let (_, finished) = rewarded(&stage, says("the page itself"), &play);
    let row = &finished.trajectory;
    assert_eq!(row.turn_observation[0].as_deref(), Some("the page itself"));
    let renderer = Renderer::new(stage.tokenizer.clone(), Default::default());
    let (_, completion, _) = columns(row).remove(0);
    let text = renderer.decode(&completion);
    assert_eq!(row.turn_raw[0].as_deref(), Some(text.as_str()));
    let tag = text.find("<tool_response>").unwrap() + "<tool_response>".len();
    let last = renderer.decode(&completion[completion.len() - 1..]);
    assert!(text.len() - tag < last.len() && !text.contains("Paris"), "{text:?}");
}

#[test]
fn a_failure_that_is_not_the_policys_gives_no_reward() {
    let mut stage = Stage::new(&TOKENIZERS[0]);
    let play = |prompt: &str, _: &mut StdRng| match turns(prompt) {
        0 => (thinks("", SEARCH), true),
        _ => (answers("Paris"), true),
    };
    let outage: Arc<dyn Web> = Arc::new(Answers(|_, _| async { ("down".to_string(), Outcome::Outage) }));
    let (found, finished) = rewarded(&stage, outage, &play);
    assert_eq!((found, finished.failure.as_deref()), (Err(Withheld::AttemptFailed), Some("the tool search failed")));
    assert!(finished.decision.is_none(), "nobody was asked");
    stage.judge = Arc::new(Fails);
    let (found, finished) = rewarded(&stage, says("a page"), &play);
    assert_eq!(found, Err(Withheld::JudgeFailed));
    assert_eq!(finished.decision.unwrap().rationale, "no connection");
}

/// An engine that comes to the end of no turn: it writes a token of each at a step, or is busy with others.
struct Endless {
    is_busy: bool,
    asked: Vec<RequestId>,
}

impl Generator for Endless {
    fn submit(&mut self, _: Request) -> Result<RequestId, Refusal> {
        self.asked.push(RequestId(0));
        Ok(RequestId(0))
    }

    fn cancel(&mut self, id: RequestId) {
        self.asked.retain(|asked| *asked != id);
    }

    fn step(&mut self) -> Result<Vec<Written>, TrainError> {
        std::thread::sleep(Duration::from_millis(1));
        let written = |request: &RequestId| Written {
            request: *request,
            id: 0,
            log_prob: -1.0,
            piece: String::new(),
            text: String::new(),
            finish: None,
            stop: None,
            prompt_cached: 0,
        };
        Ok(if self.is_busy { Vec::new() } else { self.asked.iter().map(written).collect() })
    }
}

#[test]
fn time_that_runs_out_is_the_policys_only_where_the_engine_had_begun_its_turn() {
    let mut stage = Stage::new(&TOKENIZERS[0]);
    stage.react.time_ms_max = 300;
    for (is_busy, due) in [(false, Ok(0.0)), (true, Err(Withheld::AttemptFailed))] {
        let mut attempts = Listed::new([attempt(0, "Where?", "Rome")]);
        stage.run(&mut Endless { is_busy, asked: Vec::new() }, says("a page"), &mut attempts);
        let (_, finished) = attempts.ended.pop().unwrap();
        assert_eq!(finished.reward.map(|parts| parts.reward), due, "{:?}", finished.failure);
        let busy = finished.failure.is_some_and(|failure| failure.contains("nothing was written within the "));
        assert_eq!(busy, is_busy);
    }
}

fn small_model(tokenizer: &ChatTokenizer) -> Qwen {
    let shape = ScratchModel {
        hidden_size: 32,
        layers: 2,
        head_dim: 8,
        intermediate_size: 64,
        positions_max: 4096,
        init_std: 0.2,
        ..ScratchModel::default()
    };
    let config = ModelConfig::scratch(&shape, tokenizer.ids()).unwrap();
    let parameters = Parameters::draw(&config, 5, Kind::Float, Device::Cpu).unwrap();
    Qwen::new(config, parameters).unwrap()
}

fn sampled(episodes: u64, episodes_max: usize, lockstep: bool, tool_ms: u64) -> (Engine, Vec<Trajectory>) {
    let tokenizer = &TOKENIZERS[0];
    let mut stage = Stage::new(tokenizer);
    (stage.episodes_max, stage.lockstep) = (episodes_max, lockstep);
    stage.react = ReactConfig { calls_max: 3, turn_tokens_max: Some(20), malformed_max: 9, ..ReactConfig::default() };
    let renderer = Arc::new(Renderer::new(tokenizer.clone(), Default::default()));
    let mut engine = Engine::new(EngineConfig::default(), small_model(tokenizer), renderer);
    let web: Arc<dyn Web> = Arc::new(Answers(move |_, arguments: String| async move {
        tokio::time::sleep(std::time::Duration::from_millis(tool_ms * (arguments.len() as u64 % 5))).await;
        ("a page".to_string(), Outcome::Done)
    }));
    let mut attempts = Listed::new((0..episodes).map(|at| attempt(at, &format!("Question {at}?"), "yes")));
    stage.run(&mut engine, web, &mut attempts);
    attempts.ended.sort_by_key(|(attempt, _)| attempt.group);
    (engine, attempts.ended.into_iter().map(|(_, finished)| finished.trajectory).collect())
}

#[test]
fn the_log_probabilities_of_the_sampler_are_those_of_the_trainer() {
    let (engine, rows) = sampled(6, 5, false, 0);
    let mut compared = 0;
    for row in &rows {
        for (context, completion, log_probs) in columns(row) {
            let ids = [context.clone(), completion.clone()].concat();
            let mut batch = PackedBatch::default();
            batch.push(0, &ids, &vec![true; ids.len()]);
            let model = engine.model();
            let found = tch::no_grad(|| model.hidden_of(&batch).matmul(&model.head().tr()).log_softmax(1, Kind::Float));
            for (at, (id, told)) in completion.iter().zip(&log_probs).enumerate() {
                let computed = found.double_value(&[(context.len() + at) as i64 - 1, *id]);
                assert!((computed - f64::from(*told)).abs() < 1e-4, "{computed} {told}");
                compared += 1;
            }
        }
    }
    assert!(compared > 250, "{compared}");
}

#[test]
fn who_is_written_beside_an_episode_does_not_change_its_draws() {
    let texts = |rows: &[Trajectory]| rows.iter().map(|row| row.turn_raw.clone()).collect::<Vec<_>>();
    let alone = texts(&sampled(5, 1, false, 0).1);
    assert_eq!(alone, texts(&sampled(5, 5, false, 1).1));
    assert!(alone.iter().enumerate().all(|(at, turns)| !alone[..at].contains(turns)), "streams of their own");
    // In lockstep not even the last bit depends on how long tools take.
    let bits = |rows: &[Trajectory]| rows.iter().map(|row| format!("{:?}", row.turn_log_probs)).collect::<Vec<_>>();
    assert_eq!(bits(&sampled(6, 4, true, 2).1), bits(&sampled(6, 4, true, 0).1));
}

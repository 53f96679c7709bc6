//! The ReAct loop, played by scripts: every end, every fault, and the conversation that the row renders to.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use webdancer_agent::chat::{ChatError, Completion, Finish, Sampling, Usage};
use webdancer_agent::conversation::{Message, Role, parse_messages, render_messages};
use webdancer_agent::profile::Profile;
use webdancer_agent::react::{Attempted, Cot, Failure, React, ReactConfig};
use webdancer_agent::tool::Outcome;
use webdancer_schemas::column::JsonText;
use webdancer_schemas::rows::Trajectory;

use crate::scripted::{Observations, Scripted, answers, calls, context_full, says, task, with_tokens};

const QUESTION: &str = "Which river flows through Maribor?";

type Turns = Vec<Result<Completion, ChatError>>;

fn compact(model: &Arc<Scripted>, web: &Arc<Observations>, config: ReactConfig) -> React {
    React::new(model.clone(), web.clone(), Arc::new(Profile::compact()), config).with_clock(model.clock.clone())
}

async fn play(turns: Turns, given: &[(&str, Outcome)], config: ReactConfig) -> (Attempted, Arc<Scripted>) {
    let model = Scripted::new(turns);
    let web = Observations::new(given, model.clock.clone());
    let attempted = compact(&model, &web, config).attempt(&task(QUESTION)).await;
    // Whatever happened, the lists are of one length and the row can be rendered.
    let row = &attempted.trajectory;
    render_messages(row).unwrap();
    assert_eq!(row.n_turns as usize, row.turn_thought.len());
    assert_eq!(row.turn_ms.as_ref().unwrap().len(), row.turn_thought.len());
    assert_eq!(row.turn_outcome.as_ref().unwrap().len(), row.turn_thought.len());
    assert_eq!(attempted.failure.is_some(), row.termination == "error");
    (attempted, model)
}

fn search() -> Result<Completion, ChatError> {
    says(&calls("look", "search", json!({"query": ["river"]})))
}

fn strings(list: &[&str]) -> Vec<Option<String>> {
    list.iter().map(|text| (!text.is_empty()).then(|| text.to_string())).collect()
}

fn contents(messages: &[Message]) -> Vec<(Role, &str)> {
    messages.iter().map(|message| (message.role, message.content.as_str())).collect()
}

#[tokio::test]
async fn a_question_becomes_a_trajectory_complete_in_every_column() {
    let turns = vec![
        with_tokens(says(&calls("look", "search", json!({"query": ["river Maribor"]}))), 10),
        with_tokens(says(&calls("read", "visit", json!({"url": ["http://a.example/"], "goal": "river"}))), 20),
        with_tokens(says(&answers("found", "The Drava.")), 30),
    ];
    let config = ReactConfig {
        sampling: Sampling { temperature: Some(0.6), seed: Some(1), ..Sampling::default() },
        turn_tokens_max: Some(500),
        tokens: true,
        ..ReactConfig::default()
    };
    let given = [("hits\n", Outcome::Done), ("page\n", Outcome::Unreachable)];
    let (attempted, model) = play(turns, &given, config).await;
    let expected = Trajectory {
        trajectory_id: "t-1".to_string(),
        qa_id: "qa-1".to_string(),
        policy_model: Some("scripted".to_string()),
        policy_version: Some(3),
        sampling_parameters: Some(JsonText(json!({"temperature": 0.6, "seed": 7, "max_tokens": 500, "cot": "short"}))),
        seed: Some(7),
        attempt: 2,
        tokenizer_digest: Some("tok".to_string()),
        prompt_profile: Some(Profile::compact().id()),
        system_prompt: Some("Search and visit, then answer. Current date: 2026-03-04".to_string()),
        user_prefix: Some("User: ".to_string()),
        question: Some(QUESTION.to_string()),
        answer: Some("The Drava.".to_string()),
        termination: "answer".to_string(),
        n_turns: 3,
        n_tool_calls: 2,
        input_tokens: Some(300),
        output_tokens: Some(30),
        turn_thought: strings(&["look", "read", "found"]),
        turn_tool: strings(&["search", "visit", ""]),
        turn_arguments: strings(&[
            r#"{"query":["river Maribor"]}"#,
            r#"{"url":["http://a.example/"],"goal":"river"}"#,
            "",
        ]),
        turn_observation: strings(&["hits\n", "page\n", ""]),
        turn_observation_digest: strings(&[
            "c32411e17d7906288c6e78e3f109c8f06b7730c44eb460b61cbbe0cc936be0cb",
            "362a07bbb5c74b982bed644b9f7e298837d7a3a232c964d039bb7e49ebea825f",
            "",
        ]),
        turn_raw: strings(&["", "", ""]),
        turn_context_token_ids: Some(vec![Some(vec![1, 2, 10]), Some(vec![1, 2, 20]), Some(vec![1, 2, 30])]),
        turn_completion_token_ids: Some(vec![Some(vec![10, 11]), Some(vec![20, 21]), Some(vec![30, 31])]),
        turn_log_probs: Some(vec![Some(vec![-0.5, -0.25]); 3]),
        turn_policy_version: Some(vec![Some(3); 3]),
        turn_ms: Some(vec![Some(42), Some(42), Some(40)]),
        turn_outcome: Some(strings(&["done", "unreachable", ""])),
        turn_input_tokens: Some(vec![Some(100); 3]),
        turn_output_tokens: Some(vec![Some(10); 3]),
        turn_tool_ms: Some(vec![Some(2), Some(2), None]),
        turn_source_urls: Some(vec![Some(vec!["http://a.example/".to_string()]), None, None]),
        turn_source_digests: Some(vec![Some(vec!["digest of a".to_string()]), None, None]),
        ..Trajectory::default()
    };
    assert_eq!(attempted, Attempted { trajectory: expected, failure: None });

    let row = attempted.trajectory;
    let messages = render_messages(&row).unwrap();
    let requests = model.requests.lock();
    // What was sent last, and the answer to it, are the conversation.
    assert_eq!(messages[..6], requests[2].messages);
    assert_eq!(messages[6].content, answers("found", "The Drava."));
    assert_eq!(parse_messages(&messages).unwrap().turn_tool, row.turn_tool);
    assert_eq!(
        contents(&requests[1].messages),
        [
            (Role::System, "Search and visit, then answer. Current date: 2026-03-04"),
            (Role::User, "User: Which river flows through Maribor?"),
            (Role::Assistant, calls("look", "search", json!({"query": ["river Maribor"]})).as_str()),
            (Role::User, "<tool_response>\nhits\n\n</tool_response>"),
        ]
    );
    for request in requests.iter() {
        assert_eq!(request.stop, ["\n<tool_response>", "<tool_response>"]);
        assert_eq!((request.max_tokens, request.tokens, request.sampling.seed), (Some(500), true, Some(7)));
    }
}

#[tokio::test]
async fn the_standard_profile_tells_of_the_webs_tools() {
    let model = Scripted::new([says(&answers("known", "x"))]);
    let web = Observations::new(&[], model.clock.clone());
    let profile = Arc::new(Profile::standard());
    let agent = React::new(model.clone(), web, profile, ReactConfig::default());
    let row = agent.attempt(&task(QUESTION)).await.trajectory;
    assert!(row.system_prompt.unwrap().ends_with("\nCurrent date: 2026-03-04"));
    let requests = model.requests.lock();
    let first = &requests[0].messages[1].content;
    assert!(first.contains("<tools>\n{\"name\":\"search\"}\n{\"name\":\"visit\"}\n</tools>"), "{first}");
    assert!(first.ends_with("\n\nUser: Which river flows through Maribor?"));
}

#[tokio::test]
async fn past_thoughts_are_withheld_in_long_mode_and_kept_in_the_trajectory() {
    let reasoned = |text: &str, reasoning: &str| {
        says(text).map(|completion| Completion { reasoning: Some(reasoning.to_string()), ..completion })
    };
    let call = "<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\":[\"river\"]}}\n</tool_call>";
    let turns = vec![
        reasoned(call, "First I look."),
        reasoned(&format!("\n\n{call}"), "Again."),
        reasoned("<answer>\nThe Drava.\n</answer>", "It is the Drava."),
    ];
    let config = ReactConfig { cot: Cot::Long, ..ReactConfig::default() };
    let (attempted, model) = play(turns, &[("one", Outcome::Done), ("two", Outcome::Done)], config).await;
    let row = attempted.trajectory;
    assert_eq!(row.turn_thought, strings(&["First I look.", "Again.", "It is the Drava."]));
    assert_eq!((row.termination.as_str(), row.answer.as_deref()), ("answer", Some("The Drava.")));
    assert_eq!(row.sampling_parameters, Some(JsonText(json!({"seed": 7, "cot": "long"}))));
    let sent = &model.requests.lock()[2].messages;
    let user = |text: &str| format!("<tool_response>\n{text}\n</tool_response>");
    assert_eq!(
        contents(sent)[2..],
        [(Role::Assistant, call), (Role::User, &user("one")), (Role::Assistant, call), (Role::User, &user("two"))]
    );
    let rendered = render_messages(&row).unwrap();
    assert_eq!(rendered[2].content, format!("<think>\nFirst I look.\n</think>\n{call}"));
    assert_eq!(rendered[6].content, "<think>\nIt is the Drava.\n</think>\n<answer>\nThe Drava.\n</answer>");
    assert_eq!(row.turn_raw, strings(&["", "", ""]));
}

#[tokio::test]
async fn a_simulated_observation_is_cut_off_and_the_call_is_carried_out() {
    let own = calls("look", "search", json!({"query": ["river"]}));
    let written = format!("{own}\n<tool_response>\nParis\n</tool_response>\n{}", answers("so", "Paris"));
    let turns = vec![with_tokens(says(&written), 10), with_tokens(says(&answers("found", "Drava")), 20)];
    let (attempted, model) = play(turns, &[("hits", Outcome::Done)], ReactConfig::default()).await;
    let row = attempted.trajectory;
    assert_eq!((row.termination.as_str(), row.answer.as_deref()), ("answer", Some("Drava")));
    assert_eq!(row.turn_tool, strings(&["search", ""]));
    assert_eq!(row.turn_observation, strings(&["hits", ""]));
    // The opening tag shows what was there; nothing after it is in the conversation.
    assert_eq!(row.turn_raw, strings(&[&format!("{own}\n<tool_response>"), ""]));
    assert_eq!(model.requests.lock()[1].messages[2].content, format!("{own}\n<tool_response>"));
    // The sampled tokens of the cut turn are not those of its text.
    assert_eq!(row.turn_completion_token_ids, Some(vec![None, Some(vec![20, 21])]));
    assert_eq!(row.turn_log_probs, Some(vec![None, Some(vec![-0.5, -0.25])]));
}

#[tokio::test]
async fn a_turn_out_of_format_is_kept_and_explained() {
    let turns = vec![says("It is the Drava."), says("<think>\nso\n</think>\n<answer>\nThe Drava.\n</answer>\n")];
    let (attempted, model) = play(turns, &[], ReactConfig::default()).await;
    let row = attempted.trajectory;
    assert_eq!((row.termination.as_str(), row.answer.as_deref()), ("answer", Some("The Drava.")));
    assert_eq!((row.n_turns, row.n_tool_calls), (2, 0));
    assert_eq!(row.turn_thought, strings(&["", "so"]));
    assert_eq!(
        row.turn_raw,
        strings(&["It is the Drava.", "<think>\nso\n</think>\n<answer>\nThe Drava.\n</answer>\n"])
    );
    assert_eq!(row.turn_outcome, Some(strings(&["malformed", ""])));
    let explanation = "This turn was not carried out: byte 0: expected <think>, found \"It is the Drava.\". Write a \
        thought between <think> and </think>, and after it exactly one action: a call between <tool_call> and \
        </tool_call>, as {\"name\": …, \"arguments\": {…}}, or the answer between <answer> and </answer>.\n";
    assert_eq!(row.turn_observation, strings(&[explanation, ""]));
    let sent = &model.requests.lock()[1].messages;
    assert_eq!(sent[2].content, "It is the Drava.");
    assert_eq!(sent[3].content, format!("<tool_response>\n{explanation}\n</tool_response>"));
    assert_eq!(render_messages(&row).unwrap()[..4], sent[..]);
}

#[tokio::test]
async fn turns_out_of_format_are_answered_so_often_and_no_more() {
    let turns = || (0..9).map(|_| says("Paris")).collect::<Turns>();
    let config = ReactConfig { malformed_max: 2, ..ReactConfig::default() };
    let (attempted, model) = play(turns(), &[], config).await;
    let row = attempted.trajectory;
    assert_eq!((row.termination.as_str(), row.n_turns, row.answer), ("malformed", 3, None));
    assert_eq!(row.turn_outcome, Some(strings(&["malformed", "malformed", ""])));
    assert_eq!(model.requests.lock().len(), 3);
}

#[tokio::test]
async fn an_observation_that_the_endpoint_went_on_with_is_marked_too() {
    let own = calls("look", "search", json!({"query": ["river"]}));
    let overrun = with_tokens(says(&own), 10).map(|c| Completion { finish: Finish::Overrun, ..c });
    let turns = vec![overrun, says(&answers("found", "Drava"))];
    let (attempted, model) = play(turns, &[("hits", Outcome::Done)], ReactConfig::default()).await;
    let row = attempted.trajectory;
    assert_eq!(row.turn_raw, strings(&[&format!("{own}\n<tool_response>"), ""]));
    assert_eq!(model.requests.lock()[1].messages[2].content, format!("{own}\n<tool_response>"));
    assert_eq!((row.turn_observation, row.turn_completion_token_ids), (strings(&["hits", ""]), None));
}

#[tokio::test]
async fn calls_with_bad_json_are_wrong_calls_and_end_nothing() {
    let call = |json: &str| says(&format!("<think>\nlook\n</think>\n<tool_call>\n{json}\n</tool_call>"));
    let turns = vec![
        call("{\"name\": \"search\", \"arguments\": {\"query\": [\"river\"}}"),
        call("{\"name\": \"search\", \"arguments\": \"river\"}"),
        call("{\"tool\": \"search\", \"arguments\": {}}"),
        call("[\"search\", {}]"),
        says(&answers("so", "Drava")),
    ];
    let config = ReactConfig { malformed_max: 1, ..ReactConfig::default() };
    let (attempted, _) = play(turns, &[], config).await;
    let row = attempted.trajectory;
    assert_eq!((row.termination.as_str(), row.n_turns, row.n_tool_calls), ("answer", 5, 0));
    assert_eq!(row.turn_outcome, Some(strings(&["invalid", "invalid", "invalid", "malformed", ""])));
    let said = |turn: usize| row.turn_observation[turn].as_deref().unwrap().split(". ").next().unwrap();
    let wrong =
        "This turn was not carried out: byte 34: the tool call is not {\"name\": string, \"arguments\": object}: ";
    assert_eq!(said(0), format!("{wrong}expected `,` or `]` at line 1 column 51"));
    assert_eq!(said(1), format!("{wrong}arguments: invalid type: string \"river\", expected a map at line 1 column 7"));
    assert_eq!(said(2), format!("{wrong}missing field `name` at line 1 column 35"));
}

#[tokio::test]
async fn a_turn_cut_off_at_its_limit_is_told_so() {
    let long = says("<think>\nand so on").map(|completion| Completion { finish: Finish::Length, ..completion });
    let (attempted, _) = play(vec![long, says(&answers("a", "b"))], &[], ReactConfig::default()).await;
    let observation = attempted.trajectory.turn_observation[0].clone().unwrap();
    assert!(observation.starts_with("This turn was not carried out: it became too long and was cut off. "));
}

#[tokio::test]
async fn wrong_calls_and_misses_are_observed_and_the_trajectory_goes_on() {
    let turns = vec![
        says(&calls("a", "calculate", json!({"expression": "1+1"}))),
        says(&calls("b", "search", json!({"query": 3}))),
        search(),
        says(&answers("c", "d")),
    ];
    let given =
        [("There is no tool", Outcome::Invalid), ("not valid", Outcome::Invalid), ("not recorded", Outcome::Miss)];
    let (attempted, _) = play(turns, &given, ReactConfig::default()).await;
    let row = attempted.trajectory;
    assert_eq!((row.termination.as_str(), row.n_tool_calls), ("answer", 3));
    assert_eq!(row.turn_outcome, Some(strings(&["invalid", "invalid", "miss", ""])));
}

#[tokio::test]
async fn spent_calls_force_an_answer_by_an_appended_message() {
    let config = ReactConfig { calls_max: 2, ..ReactConfig::default() };
    let given = [("one", Outcome::Done), ("two", Outcome::Done)];
    let turns = || vec![search(), search(), says(&answers("must", "Drava"))];
    let (attempted, model) = play(turns(), &given, config.clone()).await;
    let row = attempted.trajectory;
    assert_eq!((row.termination.as_str(), row.answer.as_deref(), row.n_turns), ("forced", Some("Drava"), 3));
    assert_eq!(row.final_instruction.as_deref(), Some("Answer now."));
    let requests = model.requests.lock().clone();
    assert_eq!(
        contents(&requests[2].messages)[4..],
        [
            (Role::Assistant, calls("look", "search", json!({"query": ["river"]})).as_str()),
            (Role::User, "<tool_response>\ntwo\n</tool_response>"),
            (Role::User, "Answer now."),
        ]
    );
    let rendered = render_messages(&row).unwrap();
    assert_eq!(rendered[..7], requests[2].messages);
    assert_eq!(rendered[7].content, answers("must", "Drava"));

    // One that calls all the same is at its end; the call is not carried out.
    let (attempted, _) = play(vec![search(), search(), search()], &given, config.clone()).await;
    let row = attempted.trajectory;
    assert_eq!((row.termination.as_str(), row.n_turns, row.answer), ("calls", 3, None));
    assert_eq!(row.turn_observation, strings(&["one", "two", ""]));

    let config = ReactConfig { force_answer: false, ..config };
    let (attempted, model) = play(turns(), &given, config).await;
    assert_eq!((attempted.trajectory.termination.as_str(), attempted.trajectory.final_instruction), ("calls", None));
    assert_eq!(model.requests.lock().len(), 2);
}

#[tokio::test]
async fn a_full_context_forces_an_answer_and_the_last_observation_makes_room() {
    let long = "word ".repeat(100);
    let turns = vec![search(), context_full(), context_full(), context_full(), says(&answers("must", "Drava"))];
    let (attempted, model) = play(turns, &[(&long, Outcome::Done)], ReactConfig::default()).await;
    let row = attempted.trajectory;
    assert_eq!((row.termination.as_str(), row.answer.as_deref()), ("forced", Some("Drava")));
    // Refused whole as an ordinary turn and as the final one, then halved twice.
    let lengths: Vec<usize> = model.requests.lock().iter().map(|r| r.messages.last().unwrap().content.len()).collect();
    assert_eq!(lengths.len(), 5);
    let observation = row.turn_observation[0].clone().unwrap();
    assert!(observation.ends_with(" …") && observation.chars().count() <= 125, "{observation}");
    assert_eq!(render_messages(&row).unwrap()[..5], model.requests.lock()[4].messages);
    // The digest is of what the model saw.
    let mut again = parse_messages(
        &[
            render_messages(&row).unwrap()[..4].to_vec(),
            vec![Message { role: Role::Assistant, content: answers("must", "Drava") }],
        ]
        .concat(),
    )
    .unwrap();
    assert_eq!(again.turn_observation_digest.remove(0), row.turn_observation_digest[0]);
}

#[tokio::test]
async fn a_context_that_nothing_makes_room_in_ends_the_trajectory() {
    // The question itself does not fit.
    let (attempted, _) = play(vec![context_full()], &[], ReactConfig::default()).await;
    assert_eq!((attempted.trajectory.termination.as_str(), attempted.trajectory.n_turns), ("tokens", 0));
    // Halving does not help: the observation is whole again.
    let turns = std::iter::once(search()).chain((0..9).map(|_| context_full())).collect();
    let (attempted, model) = play(turns, &[("a long observation", Outcome::Done)], ReactConfig::default()).await;
    let row = attempted.trajectory;
    assert_eq!((row.termination.as_str(), row.n_turns, row.final_instruction), ("tokens", 1, None));
    assert_eq!(row.turn_observation, strings(&["a long observation"]));
    assert_eq!(model.requests.lock().len(), 7);
}

#[tokio::test]
async fn a_context_limit_of_ones_own_forces_the_answer_before_it_is_reached() {
    // 110 tokens so far, 60 for the 180 bytes around and in the observation, 50 for the next turn.
    let observation = "x".repeat(180 - "<tool_response>\n\n</tool_response>".len());
    for (max, forced) in [(220, false), (219, true)] {
        let config = ReactConfig { context_tokens_max: Some(max), turn_tokens_max: Some(50), ..ReactConfig::default() };
        let turns = vec![search(), says(&answers("a", "b"))];
        let (attempted, _) = play(turns, &[(&observation, Outcome::Done)], config).await;
        assert_eq!(attempted.trajectory.termination, if forced { "forced" } else { "answer" }, "{max}");
    }
}

#[tokio::test]
async fn thoughts_that_are_withheld_take_no_room_in_the_context() {
    // 100 tokens read; 28 for the 82 bytes of the call, 13 for the observation around its text, 50 for the next turn.
    let turns = || {
        let reasoned = says(&calls("look", "search", json!({"query": ["river"]})))
            .map(|completion| Completion { usage: Usage { output_tokens: 5_000, ..completion.usage }, ..completion });
        vec![reasoned, says(&answers("a", "b"))]
    };
    for (cot, ended) in [(Cot::Long, "answer"), (Cot::Short, "forced")] {
        let config =
            ReactConfig { context_tokens_max: Some(200), turn_tokens_max: Some(50), cot, ..ReactConfig::default() };
        let (attempted, _) = play(turns(), &[("x", Outcome::Done)], config).await;
        assert_eq!(attempted.trajectory.termination, ended, "{cot:?}");
    }
}

#[tokio::test]
async fn tokens_to_write_end_without_another_turn() {
    let config = ReactConfig { written_tokens_max: Some(25), turn_tokens_max: Some(20), ..ReactConfig::default() };
    let given = [("one", Outcome::Done), ("two", Outcome::Done), ("three", Outcome::Done)];
    let (attempted, model) = play(vec![search(), search(), search()], &given, config).await;
    assert_eq!((attempted.trajectory.termination.as_str(), attempted.trajectory.n_turns), ("tokens", 3));
    // What is left limits a turn, too.
    let limits: Vec<Option<u32>> = model.requests.lock().iter().map(|request| request.max_tokens).collect();
    assert_eq!(limits, [Some(20), Some(15), Some(5)]);
}

#[tokio::test]
async fn time_ends_between_turns_and_within_them() {
    // Each turn takes 42 ms.
    let config = ReactConfig { time_ms_max: 84, ..ReactConfig::default() };
    let given = [("one", Outcome::Done), ("two", Outcome::Done)];
    let (attempted, model) = play(vec![search(), search(), search()], &given, config).await;
    assert_eq!((attempted.trajectory.termination.as_str(), attempted.trajectory.n_turns), ("time", 2));
    assert_eq!(model.requests.lock().len(), 2);
    // A model that never answers, a tool that never answers.
    let config = ReactConfig { time_ms_max: 100, ..ReactConfig::default() };
    let (attempted, _) = play(vec![], &[], config.clone()).await;
    assert_eq!((attempted.trajectory.termination.as_str(), attempted.trajectory.n_turns), ("time", 0));
    let (attempted, _) = play(vec![search()], &[], config).await;
    let row = attempted.trajectory;
    assert_eq!((row.termination.as_str(), row.n_turns, row.turn_observation), ("time", 1, strings(&[""])));
}

#[tokio::test]
async fn failures_that_are_not_the_policys_end_with_error() {
    let unavailable =
        ChatError::Unavailable { model: "scripted".to_string(), attempts: 4, reason: "status 500".to_string() };
    let spent = ChatError::BudgetSpent("100 tokens".to_string());
    for error in [unavailable, spent] {
        let turns = vec![search(), Err(error.clone())];
        let (attempted, _) = play(turns, &[("one", Outcome::Done)], ReactConfig::default()).await;
        let row = attempted.trajectory;
        assert_eq!((row.termination.as_str(), row.n_turns, row.answer), ("error", 1, None));
        assert_eq!(attempted.failure, Some(Failure::Model(error)));
    }
    let (attempted, _) = play(vec![search()], &[("failed", Outcome::Outage)], ReactConfig::default()).await;
    assert_eq!(attempted.trajectory.turn_outcome, Some(strings(&["outage"])));
    assert_eq!(attempted.failure, Some(Failure::Tool("search".to_string())));
    let withheld = says("<think>\nI").map(|completion| Completion { finish: Finish::Filtered, ..completion });
    let (attempted, _) = play(vec![withheld], &[], ReactConfig::default()).await;
    assert_eq!(attempted.failure.unwrap().to_string(), "scripted: the endpoint withheld a turn");
    // Also while the final answer is asked for: nothing was written to that, so nobody was asked.
    let error = ChatError::Unavailable { model: "scripted".to_string(), attempts: 1, reason: "gone".to_string() };
    let config = ReactConfig { calls_max: 1, ..ReactConfig::default() };
    let (attempted, _) = play(vec![search(), Err(error)], &[("one", Outcome::Done)], config).await;
    let row = attempted.trajectory;
    assert_eq!((row.termination.as_str(), row.final_instruction, row.n_turns), ("error", None, 1));
}

#[tokio::test]
async fn the_same_script_gives_the_same_trajectory() {
    let turns = || vec![search(), says("Paris"), says(&answers("found", "Drava"))];
    let (first, _) = play(turns(), &[("hits", Outcome::Done)], ReactConfig::default()).await;
    let (second, _) = play(turns(), &[("hits", Outcome::Done)], ReactConfig::default()).await;
    assert_eq!(first, second);
}

/// Pieces that are hard on whoever takes turns apart.
fn piece() -> impl Strategy<Value = String> {
    let pieces = [
        "<think>\n",
        "\n</think>\n",
        "<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"a\"]}}\n</tool_call>",
        "<tool_call>",
        "<answer>\nDrava\n</answer>",
        "</answer>",
        "<tool_response>\nmade up\n</tool_response>",
        "\n",
        " so ",
    ];
    prop_oneof![prop::sample::select(pieces.to_vec()).prop_map(str::to_string), "\\PC{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_model_writes_the_row_renders_to_what_was_sent(
        turns in prop::collection::vec(prop::collection::vec(piece(), 0..8), 0..6),
        calls_max in 0u32..6,
        reasoning in prop::option::of("\\PC{0,8}"),
    ) {
        let says_it = |pieces: Vec<String>| {
            says(&pieces.concat()).map(|completion| Completion { reasoning: reasoning.clone(), ..completion })
        };
        let mut script: Turns = turns.into_iter().map(says_it).collect();
        script.push(Err(ChatError::BudgetSpent("the script is over".to_string())));
        let config = ReactConfig { calls_max, malformed_max: 2, ..ReactConfig::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (attempted, model) = runtime.block_on(play(script, &[("hits", Outcome::Done); 8], config));
        let row = attempted.trajectory;
        let rendered = render_messages(&row).unwrap();
        if let Some(last) = model.requests.lock().last() {
            let sent = if row.final_instruction.is_none() && attempted.failure.is_some() && calls_max == row.n_turns as u32 {
                // The request for a final answer that failed is not in the row.
                &last.messages[..last.messages.len().min(rendered.len())]
            } else {
                &last.messages[..]
            };
            prop_assert_eq!(&rendered[..sent.len()], sent);
        }
        prop_assert_eq!(row.answer.is_some(), ["answer", "forced"].contains(&row.termination.as_str()));
    }
}

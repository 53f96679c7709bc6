//! What comes back: text, reasoning, tokens, counts; and what is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use webdancer_agent::chat::{ChatModel as _, ChatRequest, Finish, SampledTokens, Sampling, Secret, TokenIds, Usage};
use webdancer_tests::stub_model::{Answer, Part, StubModel, delta, events, finish, usage};

use super::*;

fn with_stop(stop: &str) -> ChatRequest {
    ChatRequest { stop: vec![stop.to_string()], ..question() }
}

fn with_tokens() -> ChatRequest {
    ChatRequest { tokens: true, ..question() }
}

#[tokio::test]
async fn a_streamed_answer_is_put_together() {
    let setup = Setup::new([Answer::says("Paris, on the Seine.")]).await;
    let completion = setup.ask().await;
    assert_eq!(completion.text, "Paris, on the Seine.");
    assert_eq!((completion.reasoning, completion.finish, completion.tokens), (None, Finish::Stop, None));
    let counted = Usage { input_tokens: 6, output_tokens: 4, ..Usage::default() };
    assert_eq!(completion.usage, counted);
    assert_eq!((setup.budget.spent().answers, setup.budget.spent().input_tokens), (1, 6));
    assert!(setup.clock.waits().is_empty());
}

#[tokio::test]
async fn what_is_asked_reaches_the_server() {
    let setup = Setup::with([Answer::says("Paris")], |config| {
        config.headers = BTreeMap::from([("x-team".to_string(), Secret::new("dancers"))]);
        config.body = json!({"min_p": 0.05}).as_object().unwrap().clone();
        config.sampling.top_p = Some(0.95);
    })
    .await;
    let request = ChatRequest {
        sampling: Sampling { temperature: Some(0.6), seed: Some(3), ..Sampling::default() },
        stop: vec!["\n<tool_response>".to_string()],
        max_tokens: Some(1_000),
        ..question()
    };
    setup.endpoint.complete(&request).await.unwrap();
    let asked = &setup.server.asked()[0];
    assert_eq!(asked.uri, "/v1/chat/completions");
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!((asked.header("authorization"), asked.header("x-team")), (None, Some("dancers")));
    assert_eq!(
        asked.body,
        json!({
            "model": "m", "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "temperature": 0.6, "top_p": 0.95, "seed": 3, "max_tokens": 1_000, "stop": ["\n<tool_response>"],
            "stream": true, "stream_options": {"include_usage": true}, "min_p": 0.05,
        })
    );
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_is_read_as_well() {
    let asked_for = Setup::with([Answer::says("Paris")], |config| config.stream = false).await;
    assert_eq!(asked_for.ask().await.text, "Paris");
    assert_eq!(asked_for.server.asked()[0].body["stream"], false);
    let whole = json!({"choices": [{"message": {"content": "Paris"}, "finish_reason": "length"}], "usage": null});
    let unasked = Setup::new([Answer::json(&whole)]).await.ask().await;
    assert_eq!((unasked.text.as_str(), unasked.finish, unasked.usage.estimated), ("Paris", Finish::Length, true));
}

#[tokio::test]
async fn a_stop_string_ends_the_text_wherever_chunks_divide_it() {
    let chunks = [delta("Call it.\n<tool_"), delta("respo"), delta("nse>\nmade up"), finish("stop"), usage(1, 2)];
    let setup = Setup::new([Answer::stream(&chunks)]).await;
    let completion = setup.endpoint.complete(&with_stop("<tool_response>")).await.unwrap();
    assert_eq!((completion.text.as_str(), completion.finish), ("Call it.\n", Finish::Overrun));
    // A server that leaves the stop string in has counted by then.
    assert_eq!(completion.usage, Usage { input_tokens: 1, output_tokens: 2, ..Usage::default() });
}

#[tokio::test]
async fn a_server_that_ignores_stop_strings_is_left_and_its_tokens_are_estimated() {
    let endless = Part::Endless(events(&[delta("made up ")]));
    let answer = Answer::parts([Part::Bytes(events(&[delta("Call."), delta("STOP")])), endless]);
    let setup = Setup::new([answer]).await;
    let completion = setup.endpoint.complete(&with_stop("STOP")).await.unwrap();
    assert_eq!((completion.text.as_str(), completion.finish), ("Call.", Finish::Overrun));
    // "Call.STOP" are 9 bytes; the prompt has 30.
    let estimate = Usage { input_tokens: 8, output_tokens: 3, cached_input_tokens: 0, estimated: true };
    assert_eq!(completion.usage, estimate);
    assert_eq!(setup.budget.spent().estimated_tokens, 11);
}

#[tokio::test]
async fn characters_may_be_divided_between_pieces() {
    let bytes = events(&[delta("東京は日本の首都。🗼"), finish("stop")]);
    // Every byte on its own.
    let parts = bytes.iter().map(|byte| Part::Bytes(Bytes::copy_from_slice(&[*byte])));
    let parts = parts.flat_map(|part| [part, Part::Pause(Duration::from_micros(1))]);
    let setup = Setup::new([Answer::parts(parts)]).await;
    assert_eq!(setup.ask().await.text, "東京は日本の首都。🗼");
}

#[tokio::test]
async fn reasoning_is_kept_apart_under_either_name() {
    let reasoning = |member: &str| json!({"choices": [{"delta": {member: "France, hence "}}]});
    let both = json!({"choices": [{"delta": {"reasoning": "Paris.", "reasoning_content": "Paris."}}]});
    for member in ["reasoning_content", "reasoning"] {
        let chunks = [reasoning(member), both.clone(), delta("Paris"), finish("stop")];
        let completion = Setup::new([Answer::stream(&chunks)]).await.ask().await;
        assert_eq!(
            (completion.reasoning.as_deref(), completion.text.as_str()),
            (Some("France, hence Paris."), "Paris")
        );
    }
}

#[tokio::test]
async fn what_surrounds_the_chunks_of_real_servers_is_passed_over() {
    let body = concat!(
        ": OPENROUTER PROCESSING\n\n",
        "event: message\r\nid: 1\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}],\"usage\":null}\r\n\r\n",
        "data:{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"another choice\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Paris\"},\"logprobs\":null,\"finish_reason\":null,\"new\":{}}]}\n\n",
        "data: {\"choices\":null,\"x_groq\":{}}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":null,\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1,\"prompt_tokens_details\":{\"cached_tokens\":5}}}\n\n",
        "data: [DONE]\n\n",
    );
    let setup = Setup::new([Answer::parts([Part::Bytes(Bytes::from_static(body.as_bytes()))])]).await;
    let completion = setup.ask().await;
    assert_eq!(completion.text, "Paris");
    let counted = Usage { input_tokens: 7, output_tokens: 1, cached_input_tokens: 5, estimated: false };
    assert_eq!(completion.usage, counted);
}

#[tokio::test]
async fn counts_that_cannot_be_true_are_estimated_instead() {
    let setup = Setup::new([Answer::stream(&[delta("Paris"), finish("stop"), usage(u64::MAX, u64::MAX)])]).await;
    let estimate = Usage { input_tokens: 8, output_tokens: 2, cached_input_tokens: 0, estimated: true };
    assert_eq!(setup.ask().await.usage, estimate);
}

#[tokio::test]
async fn token_ids_and_log_probabilities_of_vllm_are_kept() {
    let chunk = |text: &str, ids: Value, log_probs: &[f64]| {
        let content: Vec<Value> =
            log_probs.iter().map(|p| json!({"token": "x", "logprob": p, "bytes": null})).collect();
        json!({"choices": [{"index": 0, "delta": {"content": text}, "logprobs": {"content": content}, "token_ids": ids}]})
    };
    let mut first = chunk("", Value::Null, &[]);
    first["prompt_token_ids"] = json!([1, 2, 3]);
    let chunks =
        [first, chunk("Pa", json!([10]), &[-0.5]), chunk("ris", json!([11, 12]), &[-0.25, 0.0]), finish("stop")];
    let setup = Setup::with([Answer::stream(&chunks)], |config| config.token_ids = TokenIds::Vllm).await;
    let completion = setup.endpoint.complete(&with_tokens()).await.unwrap();
    assert_eq!(completion.tokens, Some(sampled(Some(vec![1, 2, 3]), &[10, 11, 12], &[-0.5, -0.25, 0.0])));
    // They are counted, too, where the endpoint does not count.
    assert_eq!(completion.usage, Usage { input_tokens: 3, output_tokens: 3, ..Usage::default() });
    let body = &setup.server.asked()[0].body;
    assert_eq!((&body["return_token_ids"], &body["logprobs"]), (&json!(true), &json!(true)));
    assert_eq!(setup.ask().await.tokens, None, "not asked for");
}

#[tokio::test]
async fn token_ids_are_found_wherever_servers_put_them() {
    let content =
        json!({"content": [{"token": "token_id:10", "logprob": -0.5}, {"token": "token_id:11", "logprob": -1.0}]});
    let message = json!({"content": "Paris"});
    let old_vllm =
        Answer::stream(&[json!({"choices": [{"delta": {"content": "Paris"}, "logprobs": content}]}), finish("stop")]);
    let sglang_streamed = Answer::stream(&[
        json!({"choices": [{"delta": {"content": "Paris"}, "logprobs": content}]}),
        finish("stop"),
        json!({"choices": [], "sglext": {"input_ids": [1, 2], "output_ids": [[10, 11]]}}),
    ]);
    let sglang_whole = Answer::json(&json!({"choices": [{
        "message": message, "finish_reason": "stop", "logprobs": content, "token_ids": [10, 11], "prompt_token_ids": [1, 2],
    }]}));
    for (answer, prompt_ids) in
        [(old_vllm, None), (sglang_streamed, Some(vec![1, 2])), (sglang_whole, Some(vec![1, 2]))]
    {
        let setup = Setup::with([answer], |config| config.token_ids = TokenIds::Sglang).await;
        let completion = setup.endpoint.complete(&with_tokens()).await.unwrap();
        assert_eq!(completion.tokens, Some(sampled(prompt_ids, &[10, 11], &[-0.5, -1.0])));
    }
}

fn sampled(prompt_ids: Option<Vec<i32>>, ids: &[i32], log_probs: &[f32]) -> SampledTokens {
    SampledTokens { prompt_ids, ids: ids.to_vec(), log_probs: log_probs.to_vec(), ..SampledTokens::default() }
}

#[tokio::test]
async fn log_probabilities_that_do_not_match_the_ids_are_dropped() {
    let chunk = |ids: Value, content: Value| json!({"choices": [{"delta": {"content": "Paris"}, "token_ids": ids, "logprobs": {"content": content}, "finish_reason": "stop"}]});
    let taken = async |chunk: Value| {
        let setup = Setup::with([Answer::stream(&[chunk])], |config| config.token_ids = TokenIds::Vllm).await;
        setup.endpoint.complete(&with_tokens()).await.unwrap().tokens
    };
    let tokens = |ids: &[i32], log_probs: &[f32]| Some(sampled(None, ids, log_probs));
    assert_eq!(taken(chunk(json!([1, 2]), json!([{"logprob": -1.0}]))).await, tokens(&[1, 2], &[]));
    assert_eq!(taken(chunk(json!([1]), json!([{"logprob": null}]))).await, tokens(&[1], &[]));
    assert_eq!(taken(chunk(json!(null), json!([{"token": "Paris", "logprob": -1.0}]))).await, tokens(&[], &[-1.0]));
    assert_eq!(taken(chunk(json!(null), json!(null))).await, None);
}

#[tokio::test]
async fn tokens_after_a_stop_string_that_the_server_ignored_are_not_taken_for_the_text() {
    let chunk =
        json!({"choices": [{"delta": {"content": "a STOP b"}, "token_ids": [1, 2, 3], "finish_reason": "stop"}]});
    let server = StubModel::in_order([Answer::stream(&[chunk])]).await;
    let setup = Setup::of(server, BudgetConfig::default(), |config| config.token_ids = TokenIds::Vllm);
    let request = ChatRequest { stop: vec!["STOP".to_string()], ..with_tokens() };
    let completion = setup.endpoint.complete(&request).await.unwrap();
    assert_eq!((completion.text.as_str(), completion.tokens), ("a ", None));
}

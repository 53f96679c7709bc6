//! The body of a request.

use serde_json::{Map, Value, json};

use super::config::{EndpointConfig, TokenIds};
use super::{ChatRequest, Sampling};

/// The body that asks for `request`: the request's parameters before the endpoint's.
pub(super) fn body(config: &EndpointConfig, request: &ChatRequest) -> Map<String, Value> {
    let mut body = Map::new();
    let mut set = |member: &str, value: Value| {
        if !value.is_null() {
            body.insert(member.to_string(), value);
        }
    };
    set("model", json!(config.model));
    let messages = request.messages.iter();
    set("messages", messages.map(|message| json!({"role": message.role.name(), "content": message.content})).collect());
    let sampling = request.sampling.or(config.sampling);
    let Sampling { temperature, top_p, top_k, repetition_penalty, .. } = sampling;
    set("temperature", json!(temperature));
    set("top_p", json!(top_p));
    set("top_k", json!(top_k));
    set("repetition_penalty", json!(repetition_penalty));
    set("seed", json!(sampling.seed_of_turn(request.turn)));
    set(config.max_tokens_member.name(), json!(request.max_tokens.or(config.max_tokens)));
    if !request.stop.is_empty() {
        set("stop", json!(request.stop));
    }
    set("stream", json!(config.stream));
    if config.stream {
        set("stream_options", json!({"include_usage": true}));
    }
    if request.tokens {
        for member in token_members(config) {
            set(member, json!(true));
        }
    }
    body.extend(config.body.clone());
    body.retain(|member, _| !config.omit.contains(member));
    body
}

fn token_members(config: &EndpointConfig) -> &'static [&'static str] {
    match (config.token_ids, config.stream) {
        (TokenIds::None, _) => &[],
        (TokenIds::Logprobs, _) => &["logprobs"],
        (TokenIds::Vllm, _) => &["logprobs", "return_token_ids", "return_tokens_as_token_ids"],
        (TokenIds::Sglang, true) => &["logprobs", "return_input_ids_in_sglext", "return_output_ids_in_sglext"],
        (TokenIds::Sglang, false) => &[
            "logprobs",
            "return_input_ids_in_sglext",
            "return_output_ids_in_sglext",
            "return_token_ids",
            "return_prompt_token_ids",
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::MaxTokensMember;
    use crate::conversation::{Message, Role};

    fn request() -> ChatRequest {
        ChatRequest {
            messages: vec![Message { role: Role::User, content: "Hi".to_string() }],
            sampling: Sampling { temperature: Some(0.6), top_k: Some(20), ..Sampling::default() },
            stop: vec!["\n<tool_response>".to_string()],
            max_tokens: Some(100),
            tokens: true,
            turn: 0,
        }
    }

    #[test]
    fn a_request_says_what_is_asked_and_nothing_else() {
        let config = EndpointConfig { model: "m".to_string(), ..EndpointConfig::default() };
        assert_eq!(
            Value::from(body(&config, &request())),
            json!({
                "model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.6, "top_k": 20,
                "max_tokens": 100, "stop": ["\n<tool_response>"], "stream": true,
                "stream_options": {"include_usage": true},
            })
        );
    }

    #[test]
    fn each_turn_is_sampled_from_a_stream_of_its_own() {
        let config = EndpointConfig { model: "m".to_string(), ..EndpointConfig::default() };
        let seed = |seed, turn| {
            let sampling = Sampling { seed: Some(seed), ..Sampling::default() };
            body(&config, &ChatRequest { sampling, turn, ..request() })["seed"].as_i64().unwrap()
        };
        assert_eq!((seed(7, 0), seed(7, 1), seed(7, 1)), (7, 484_797_977, 484_797_977));
        let drawn: std::collections::HashSet<i64> = (0..100).flat_map(|turn| [seed(7, turn), seed(8, turn)]).collect();
        assert!(drawn.len() == 200 && drawn.iter().all(|seed| (0..1 << 31).contains(seed)));
        assert!(!body(&config, &ChatRequest { turn: 3, ..request() }).contains_key("seed"));
    }

    #[test]
    fn the_endpoints_settings_fill_in_and_adapt() {
        let config = EndpointConfig {
            model: "m".to_string(),
            sampling: Sampling { temperature: Some(1.0), repetition_penalty: Some(1.1), ..Sampling::default() },
            body: json!({"chat_template_kwargs": {"enable_thinking": false}}).as_object().unwrap().clone(),
            omit: vec!["stop".to_string(), "stream_options".to_string()],
            max_tokens_member: MaxTokensMember::MaxCompletionTokens,
            token_ids: TokenIds::Vllm,
            ..EndpointConfig::default()
        };
        assert_eq!(
            Value::from(body(&config, &request())),
            json!({
                "model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.6, "top_k": 20,
                "repetition_penalty": 1.1, "max_completion_tokens": 100, "stream": true, "logprobs": true,
                "return_token_ids": true, "return_tokens_as_token_ids": true,
                "chat_template_kwargs": {"enable_thinking": false},
            })
        );
    }

    #[test]
    fn sglang_is_asked_for_ids_in_the_way_that_it_streams() {
        let members = |stream| {
            let config = EndpointConfig { token_ids: TokenIds::Sglang, stream, ..EndpointConfig::default() };
            let body = body(&config, &request());
            ["return_output_ids_in_sglext", "return_token_ids", "stream_options"]
                .map(|member| body.contains_key(member))
        };
        assert_eq!(members(true), [true, false, true]);
        assert_eq!(members(false), [true, true, false]);
    }
}

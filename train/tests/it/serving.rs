//! A served checkpoint, asked by the chat client of the agents.

use std::sync::Arc;

use tch::{Device, Kind};
use webdancer_agent::chat::{ChatModel as _, ChatRequest, Endpoint, Sampling};
use webdancer_agent::conversation::Message;
use webdancer_train::generate::{Decode, Engine, EngineConfig};
use webdancer_train::model::{ModelConfig, Parameters, Qwen};
use webdancer_train::serve::{ChatCodec, Served, Weights, Worker, router};

use crate::contract::{self, Subject, holds_for, question};
use crate::parity;

/// The 48 tokens of the small models are letters from `A` on; a prompt is the text of the last message.
struct Letters;

impl Decode for Letters {
    fn decode(&self, ids: &[i64]) -> String {
        ids.iter().map(|id| char::from(b'A' + *id as u8)).collect()
    }
}

impl ChatCodec for Letters {
    fn prompt(&self, messages: &[Message]) -> Result<Vec<i64>, String> {
        let last = messages.last().ok_or("no message")?;
        Ok(last.content.bytes().map(|byte| i64::from(byte) - i64::from(b'A')).collect())
    }

    fn stop_ids(&self) -> Vec<i64> {
        Vec::new()
    }
}

/// The model of the fixtures, which writes as far as the context of the engine goes.
async fn serve(config: EngineConfig) -> Server {
    serve_by(|model| Engine::new(config, model, Arc::new(Letters))).await
}

async fn serve_by(engine: impl FnOnce(Qwen) -> Engine) -> Server {
    let folder = parity::folder("qwen2");
    let model = ModelConfig { max_positions: 1 << 24, ..ModelConfig::read(&folder).unwrap() };
    let parameters = Parameters::read(&model, &folder, Kind::Float, Device::Cpu).unwrap();
    let model = Qwen::new(model, parameters).unwrap();
    let worker = Worker::start(engine(model)).unwrap();
    let served =
        Served { model: "small".into(), weights: self::weights(), codec: Arc::new(Letters), worker: worker.clone() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router(served)).await.unwrap() });
    Server { worker, url }
}

/// What the server says of its weights.
fn weights() -> Weights {
    Weights { checkpoint_digest: Some("c".repeat(64)), tokenizer_digest: Some("d".repeat(64)) }
}

struct Server {
    worker: Worker,
    url: String,
}

impl Subject for Server {
    async fn start(context_max: usize) -> Server {
        serve(EngineConfig { context_max, sequences_max: 16, ..EngineConfig::default() }).await
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    fn active(&self) -> usize {
        self.worker.active()
    }
}

holds_for!(Server);

fn endpoint(server: &Server, stream: bool) -> Endpoint {
    contract::endpoint(server, |config| config.stream = stream)
}

#[tokio::test]
async fn every_answer_says_which_weights_gave_it() {
    let server = serve(EngineConfig::default()).await;
    for stream in [true, false] {
        let endpoint = endpoint(&server, stream);
        endpoint.complete(&question("HELLO", 3)).await.unwrap();
        let policy = endpoint.policy();
        assert_eq!(policy.checkpoint_digest, Some("c".repeat(64)), "stream: {stream}");
        assert_eq!(policy.tokenizer_digest, Some("d".repeat(64)), "stream: {stream}");
    }
}

/// What is answered to a number of requests, asked in this order, so many at a time.
async fn answers(server: &Server, order: &[usize], at_a_time: usize) -> Vec<(String, Vec<u32>)> {
    use futures::{StreamExt as _, stream};
    let asked = stream::iter(order.to_vec()).map(|number| async move {
        let text = "HELLOWORLDABCDEFGHIJ".chars().cycle().skip(number).take(10 + 7 * number).collect::<String>();
        let sampling =
            Sampling { temperature: Some(0.7), top_p: Some(0.9), seed: Some(number as i64), ..Sampling::default() };
        let request = ChatRequest { sampling, turn: number as u32 % 3, ..question(&text, 30) };
        let completion = endpoint(server, number % 2 == 0).complete(&request).await.unwrap();
        let bits = completion.tokens.unwrap().log_probs.iter().map(|p| p.to_bits()).collect();
        (number, (completion.text, bits))
    });
    let mut answered: Vec<_> = asked.buffer_unordered(at_a_time).collect().await;
    answered.sort();
    answered.into_iter().map(|(_, answer)| answer).collect()
}

#[tokio::test]
async fn a_deterministic_server_gives_the_same_bits_whatever_else_is_asked_and_when() {
    let config = EngineConfig { context_max: 512, sequences_max: 16, ..EngineConfig::default() };
    let deterministic = |model| Engine::deterministic(config, model, Arc::new(Letters)).unwrap();
    tch::set_num_threads(1);
    let alone = answers(&serve_by(deterministic).await, &[0, 1, 2, 3, 4, 5, 6, 7], 1).await;
    let server = serve_by(deterministic).await;
    for order in [[7, 6, 5, 4, 3, 2, 1, 0], [3, 0, 7, 1, 5, 2, 6, 4]] {
        assert_eq!(answers(&server, &order, 8).await, alone, "{order:?}");
    }
}

#[tokio::test]
async fn the_next_turn_of_an_episode_is_read_only_from_where_it_goes_on() {
    let server = serve(EngineConfig::default()).await;
    let endpoint = endpoint(&server, true);
    let first = endpoint.complete(&question("HELLOHELLOHELLO", 20)).await.unwrap();
    assert_eq!(first.usage.cached_input_tokens, 0);
    let next = question(&format!("HELLOHELLOHELLO{}WORLD", first.text), 5);
    let second = endpoint.complete(&next).await.unwrap();
    // 34 tokens are held, in whole blocks of 16; 40 are asked.
    assert_eq!((second.usage.input_tokens, second.usage.cached_input_tokens), (40, 32));
    let plain = serve(EngineConfig { prefix_bytes_max: 0, ..EngineConfig::default() }).await;
    let unshared = self::endpoint(&plain, true).complete(&next).await.unwrap();
    assert_eq!((second.text, unshared.usage.cached_input_tokens), (unshared.text, 0));
}

#[tokio::test]
async fn what_would_change_the_answer_and_is_not_offered_is_refused_and_null_is_nothing() {
    let server = serve(EngineConfig::default()).await;
    let ask = |more: &'static str| {
        let url = format!("{}/chat/completions", server.url);
        let body = format!(r#"{{"messages": [{{"role": "user", "content": "HI"}}], "max_tokens": 2, {more}}}"#);
        async move {
            let answer = reqwest::Client::new().post(url).body(body).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        }
    };
    for (idle, refused) in [
        (r#""stream": null"#, r#""presence_penalty": 1.1"#),
        (r#""top_logprobs": 0, "stop": null"#, r#""top_logprobs": 2"#),
        (r#""response_format": {"type": "text"}"#, r#""response_format": {"type": "json_object"}"#),
        (r#""tools": []"#, r#""tools": [{"type": "function"}]"#),
        (r#""min_tokens": 0"#, r#""min_tokens": 5"#),
        (r#""ignore_eos": false"#, r#""ignore_eos": true"#),
        (r#""stop_token_ids": []"#, r#""stop_token_ids": [7]"#),
        (r#""bad_words": []"#, r#""bad_words": ["no"]"#),
        (r#""allowed_token_ids": null"#, r#""allowed_token_ids": [7]"#),
        (r#""include_stop_str_in_output": false"#, r#""include_stop_str_in_output": true"#),
        (r#""guided_regex": null"#, r#""guided_regex": "[0-9]+""#),
        (r#""guided_choice": null"#, r#""guided_choice": ["yes", "no"]"#),
        (r#""guided_grammar": null"#, r#""guided_grammar": "root ::= a""#),
        (r#""structured_outputs": {}"#, r#""structured_outputs": {"choice": ["yes", "no"]}"#),
        (r#""chat_template": null"#, r#""chat_template": "{{ messages }}""#),
        (r#""chat_template_kwargs": {}"#, r#""chat_template_kwargs": {"enable_thinking": false}"#),
        (r#""continue_final_message": false"#, r#""continue_final_message": true"#),
    ] {
        let (status, text) = ask(idle).await;
        assert_eq!(status, 200, "{idle}: {text}");
        let (status, text) = ask(refused).await;
        let name = refused.split('"').nth(1).unwrap();
        assert!(status == 400 && text.contains(&format!("{name} is not offered here")), "{refused}: {text}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong() {
    let server = serve(EngineConfig { context_max: 128, ..EngineConfig::default() }).await;
    let endpoint = endpoint(&server, true);
    let refused = |request: ChatRequest| {
        let endpoint = &endpoint;
        async move { endpoint.complete(&request).await.unwrap_err().to_string() }
    };
    let long = refused(question(&"A".repeat(128), 3)).await;
    assert!(long.contains("the prompt has 128 tokens; 1 to 127 fit the context"), "{long}");
    let strange = refused(question("~", 3)).await;
    assert!(strange.contains("token 61 of the prompt is not among the model's 48"), "{strange}");
    let hot = ChatRequest { sampling: Sampling { temperature: Some(-1.0), ..Sampling::default() }, ..question("A", 3) };
    let hot = refused(hot).await;
    assert!(hot.contains("temperature is -1; it goes from 0 to 100"), "{hot}");
}

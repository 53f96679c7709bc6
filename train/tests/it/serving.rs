//! A served checkpoint, asked by the chat client of the agents.

use std::sync::Arc;
use std::time::Duration;

use webdancer_agent::chat::{
    Budget, BudgetConfig, ChatModel as _, ChatRequest, Endpoint, EndpointConfig, Finish, Sampling, SystemClock,
    TokenIds,
};
use webdancer_agent::conversation::{Message, Role};
use webdancer_train::generate::{Decode, Engine, EngineConfig};
use webdancer_train::serve::{ChatCodec, Served, Worker, router};

use crate::parity::case;

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

struct Server {
    worker: Worker,
    url: String,
}

async fn serve(config: EngineConfig) -> Server {
    let worker = Worker::start(Engine::new(config, case("qwen2").model, Arc::new(Letters))).unwrap();
    let served = Served { model: "small".into(), codec: Arc::new(Letters), worker: worker.clone() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router(served)).await.unwrap() });
    Server { worker, url }
}

fn endpoint(server: &Server, change: impl FnOnce(&mut EndpointConfig)) -> Endpoint {
    let mut config = EndpointConfig {
        url: server.url.clone(),
        model: "small".into(),
        attempts_max: 1,
        concurrency: 64,
        token_ids: TokenIds::Vllm,
        ..EndpointConfig::default()
    };
    change(&mut config);
    let clock = Arc::new(SystemClock);
    let budget = Arc::new(Budget::new(BudgetConfig::default(), clock.clone()));
    Endpoint::new("served", config, budget, clock, 7).unwrap()
}

fn question(text: &str, max_tokens: u32) -> ChatRequest {
    ChatRequest {
        messages: vec![Message { role: Role::User, content: text.into() }],
        sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
        max_tokens: Some(max_tokens),
        tokens: true,
        ..ChatRequest::default()
    }
}

#[tokio::test]
async fn streamed_or_whole_text_tokens_and_counts_are_the_same() {
    let server = serve(EngineConfig::default()).await;
    let mut answers = Vec::new();
    for stream in [true, false] {
        let completion =
            endpoint(&server, |config| config.stream = stream).complete(&question("HELLO", 12)).await.unwrap();
        let tokens = completion.tokens.clone().unwrap();
        assert_eq!(completion.finish, Finish::Length);
        assert_eq!(tokens.prompt_ids.as_deref(), Some(&[7, 4, 11, 11, 14][..]));
        assert_eq!((tokens.ids.len(), tokens.log_probs.len()), (12, 12));
        assert_eq!(completion.text, Letters.decode(&tokens.ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>()));
        assert_eq!((completion.usage.input_tokens, completion.usage.output_tokens), (5, 12));
        assert!(!completion.usage.estimated && tokens.log_probs.iter().all(|log_prob| *log_prob < 0.0));
        answers.push((completion.text, tokens));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_its_tokens_are_told() {
    let server = serve(EngineConfig::default()).await;
    let endpoint = endpoint(&server, |_| {});
    let whole = endpoint.complete(&question("HELLO", 12)).await.unwrap().text;
    let stop = whole[3..6].to_string();
    let at = whole.find(&stop).unwrap();
    let stopped = endpoint.complete(&ChatRequest { stop: vec![stop], ..question("HELLO", 12) }).await.unwrap();
    assert_eq!((stopped.text.as_str(), stopped.finish), (&whole[..at], Finish::Stop));
    assert_eq!(stopped.tokens.unwrap().ids.len(), at + 3);
}

#[tokio::test]
async fn sixty_four_streams_at_once_are_each_their_own() {
    let server = serve(EngineConfig { sequences_max: 16, ..EngineConfig::default() }).await;
    let endpoint = Arc::new(endpoint(&server, |_| {}));
    let ask = |at: usize| {
        let request = ChatRequest {
            sampling: Sampling { temperature: Some(1.0), seed: Some(at as i64), ..Sampling::default() },
            ..question(["HELLO", "WORLD", "ABC"][at % 3], 5 + at as u32 % 20)
        };
        let endpoint = endpoint.clone();
        tokio::spawn(async move { endpoint.complete(&request).await.unwrap().text })
    };
    let all = |answers: Vec<_>| async { futures::future::try_join_all(answers).await.unwrap() };
    let first = all((0..64).map(ask).collect()).await;
    let second = all((0..64).rev().map(ask).collect()).await;
    assert_eq!(first, second.into_iter().rev().collect::<Vec<_>>());
    assert!(first.iter().enumerate().all(|(at, text)| text.len() == 5 + at % 20));
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let server = serve(EngineConfig { sequences_max: 2, context_max: 100_000, ..EngineConfig::default() }).await;
    let endpoint = Arc::new(endpoint(&server, |_| {}));
    let asked: Vec<_> = (0..4)
        .map(|_| {
            let endpoint = endpoint.clone();
            tokio::spawn(async move { endpoint.complete(&question("HELLO", 100)).await.map(|_| ()) })
        })
        .collect();
    while server.worker.active() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    asked.iter().for_each(tokio::task::JoinHandle::abort);
    // All four would have been written otherwise before this one.
    let completion = endpoint.complete(&question("WORLD", 3)).await.unwrap();
    assert_eq!(completion.text.len(), 3);
    while server.worker.active() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_one_line() {
    let server = serve(EngineConfig::default()).await;
    let endpoint = endpoint(&server, |_| {});
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

//! A model that plays turns it was given, and a web that gives observations it was given.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use webdancer_agent::chat::{ChatError, ChatModel, ChatRequest, Completion, Finish, Policy, SampledTokens, Usage};
use webdancer_agent::clock::Clock;
use webdancer_agent::react::Task;
use webdancer_agent::tool::{Observation, Outcome, Source, Web};

/// A completion of `text`: 100 tokens read, 10 written.
#[allow(clippy::needless_update, reason = "what else an endpoint may count does not matter here")]
pub(crate) fn says(text: &str) -> Result<Completion, ChatError> {
    Ok(Completion {
        text: text.to_string(),
        reasoning: None,
        finish: Finish::Stop,
        usage: Usage { input_tokens: 100, output_tokens: 10, ..Usage::default() },
        tokens: None,
        elapsed: Duration::ZERO,
    })
}

/// A turn that calls a tool.
pub(crate) fn calls(thought: &str, tool: &str, arguments: Value) -> String {
    format!(
        "<think>\n{thought}\n</think>\n<tool_call>\n{{\"name\": \"{tool}\", \"arguments\": {arguments}}}\n</tool_call>"
    )
}

/// A turn that answers.
pub(crate) fn answers(thought: &str, answer: &str) -> String {
    format!("<think>\n{thought}\n</think>\n<answer>\n{answer}\n</answer>")
}

pub(crate) fn with_tokens(completion: Result<Completion, ChatError>, first: i32) -> Result<Completion, ChatError> {
    let tokens = SampledTokens {
        prompt_ids: Some(vec![1, 2, first]),
        ids: vec![first, first + 1],
        log_probs: vec![-0.5, -0.25],
        ..SampledTokens::default()
    };
    completion.map(|completion| Completion { tokens: Some(tokens), ..completion })
}

pub(crate) fn context_full() -> Result<Completion, ChatError> {
    Err(ChatError::ContextFull { model: "scripted".to_string(), reason: "too long".to_string() })
}

pub(crate) fn task(question: &str) -> Task<'_> {
    Task {
        trajectory_id: "t-1",
        qa_id: "qa-1",
        question,
        attempt: 2,
        seed: Some(7),
        date: "2026-03-04".parse().unwrap(),
        restricted: None,
    }
}

/// Plays completions in order, and keeps what it was asked. Each takes the clock forward.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    turns: Mutex<VecDeque<Result<Completion, ChatError>>>,
    pub(crate) requests: Mutex<Vec<ChatRequest>>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) turn_ms: u64,
}

impl Scripted {
    pub(crate) fn new(turns: impl IntoIterator<Item = Result<Completion, ChatError>>) -> Arc<Scripted> {
        Arc::new(Scripted { turns: Mutex::new(turns.into_iter().collect()), turn_ms: 40, ..Scripted::default() })
    }
}

#[async_trait]
impl ChatModel for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    async fn complete(&self, request: &ChatRequest) -> Result<Completion, ChatError> {
        self.requests.lock().push(request.clone());
        self.clock.pass(Duration::from_millis(self.turn_ms));
        let next = self.turns.lock().pop_front();
        match next {
            Some(turn) => turn,
            // Whoever plays on without a script waits for ever.
            None => std::future::pending().await,
        }
    }

    fn policy(&self) -> Policy {
        Policy { version: Some(3), tokenizer_digest: Some("tok".to_string()), ..Policy::default() }
    }
}

/// What every observation of a call that was carried out is made of.
pub(crate) fn source() -> Source {
    Source { url: "http://a.example/".to_string(), digest: "digest of a".to_string() }
}

/// Gives observations in order.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    given: Mutex<VecDeque<Observation>>,
    pub(crate) asked: Mutex<Vec<(String, String)>>,
    clock: Option<Arc<ManualClock>>,
}

impl Observations {
    pub(crate) fn new(given: &[(&str, Outcome)], clock: Arc<ManualClock>) -> Arc<Observations> {
        let given = given.iter().map(|(text, outcome)| {
            let sources = if *outcome == Outcome::Done { vec![source()] } else { Vec::new() };
            Observation { text: text.to_string(), outcome: *outcome, sources }
        });
        Arc::new(Observations { given: Mutex::new(given.collect()), clock: Some(clock), ..Observations::default() })
    }
}

#[async_trait]
impl Web for Observations {
    fn name(&self) -> &str {
        "given"
    }

    fn specifications(&self) -> Vec<Value> {
        vec![json!({"name": "search"}), json!({"name": "visit"})]
    }

    async fn call(&self, tool: &str, arguments: &str) -> Observation {
        self.asked.lock().push((tool.to_string(), arguments.to_string()));
        if let Some(clock) = &self.clock {
            clock.pass(Duration::from_millis(2));
        }
        let next = self.given.lock().pop_front();
        match next {
            Some(observation) => observation,
            None => std::future::pending().await,
        }
    }
}

/// A clock that is moved by hand.
#[derive(Debug)]
pub(crate) struct ManualClock {
    start: Instant,
    passed: Mutex<Duration>,
}

impl Default for ManualClock {
    fn default() -> ManualClock {
        ManualClock { start: Instant::now(), passed: Mutex::default() }
    }
}

impl ManualClock {
    pub(crate) fn pass(&self, duration: Duration) {
        *self.passed.lock() += duration;
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.start + *self.passed.lock()
    }

    fn utc(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + *self.passed.lock()
    }

    async fn sleep(&self, duration: Duration) {
        self.pass(duration);
    }
}

//! Between episodes and the engine: an episode asks for its next turn, the loop that owns the engine answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use webdancer_agent::chat::{
    ChatError, ChatModel, ChatRequest, Completion, Finish, Policy, SampledTokens, Sampling, Usage,
};

use super::attempt::Finished;
use super::thread::{Renderer, Thread};
use crate::generate::{self, Refusal, Request, SamplingConfig};

/// A turn as it was sampled.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sampled {
    /// Token ids, with the one that ended the turn.
    pub(super) ids: Vec<i64>,
    /// Log-probability of each.
    pub(super) log_probs: Vec<f32>,
    /// Why it ended; none while it is under way.
    pub(super) finish: Option<generate::Finish>,
}

/// Why there is no turn.
#[derive(Debug)]
pub(super) enum NoTurn {
    /// The engine does not take the request.
    Refused(Refusal),
    /// The engine has stopped.
    Stopped,
    /// The engine had written nothing of it within the time that was left: it was busy with others.
    Late(Duration),
}

/// What an episode tells the loop.
#[derive(Debug)]
pub(super) enum Told {
    /// It wants a turn.
    Asks(Asks),
    /// It is over; without an outcome where it panicked.
    Ends { episode: usize, outcome: Option<Box<Finished>> },
}

impl Told {
    /// Whose word it is, by the order in which episodes were begun.
    pub(super) fn episode(&self) -> usize {
        match self {
            Told::Asks(asks) => asks.episode,
            Told::Ends { episode, .. } => *episode,
        }
    }
}

/// A turn wanted.
#[derive(Debug)]
pub(super) struct Asks {
    pub(super) episode: usize,
    pub(super) request: Request,
    /// Closed when the episode does not wait any more.
    pub(super) reply: oneshot::Sender<Result<Sampled, NoTurn>>,
    /// Set with the first token.
    pub(super) begun: Arc<AtomicBool>,
}

/// Where an episode asks.
pub(super) trait Desk: Send + Sync {
    /// Hands a request in; nothing comes back when the loop has ended.
    fn ask(&self, asks: Asks);
}

impl Desk for mpsc::Sender<Told> {
    fn ask(&self, asks: Asks) {
        // Whoever asks sees its reply closed.
        let _ = self.send(Told::Asks(asks));
    }
}

/// What all episodes of a run have in common as a model.
#[derive(Debug, Clone)]
pub struct PolicyModel {
    /// The name in `policy_model`.
    pub name: String,
    /// Text and tokens.
    pub renderer: Arc<Renderer>,
    /// What is known of the weights: the version is that of the engine's weights now.
    pub policy: Policy,
}

/// The policy as one episode sees it: a chat model that remembers the conversation's tokens.
pub(super) struct EpisodeModel {
    shared: Arc<PolicyModel>,
    desk: Arc<dyn Desk>,
    episode: usize,
    thread: Mutex<Thread>,
}

impl std::fmt::Debug for EpisodeModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpisodeModel").field("episode", &self.episode).finish_non_exhaustive()
    }
}

impl EpisodeModel {
    pub(super) fn new(shared: Arc<PolicyModel>, desk: Arc<dyn Desk>, episode: usize) -> EpisodeModel {
        EpisodeModel { shared, desk, episode, thread: Mutex::default() }
    }

    fn thread(&self) -> std::sync::MutexGuard<'_, Thread> {
        // A thread is changed in one go: whoever panicked left it whole.
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: NoTurn) -> ChatError {
        let model = self.shared.name.clone();
        match error {
            NoTurn::Refused(refusal @ Refusal::TooLong { .. }) => {
                ChatError::ContextFull { model, reason: refusal.to_string() }
            }
            NoTurn::Refused(Refusal::Invalid(reason)) => ChatError::Refused { model, reason },
            NoTurn::Refused(refusal) => ChatError::Unavailable { model, attempts: 1, reason: refusal.to_string() },
            NoTurn::Stopped => {
                ChatError::Unavailable { model, attempts: 1, reason: "the engine has stopped".to_string() }
            }
            NoTurn::Late(limit) => {
                let reason = format!("nothing was written within the {} ms that were left", limit.as_millis());
                ChatError::Unavailable { model, attempts: 1, reason }
            }
        }
    }
}

#[async_trait]
impl ChatModel for EpisodeModel {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn policy(&self) -> Policy {
        self.shared.policy.clone()
    }

    async fn complete(&self, asked: &ChatRequest) -> Result<Completion, ChatError> {
        self.ask(asked, Arc::default()).await
    }

    async fn complete_within(&self, asked: &ChatRequest, limit: Duration) -> Result<Option<Completion>, ChatError> {
        let begun = Arc::new(AtomicBool::new(false));
        match tokio::time::timeout(limit, self.ask(asked, begun.clone())).await {
            Ok(completed) => completed.map(Some),
            Err(_) if begun.load(Ordering::Relaxed) => Ok(None),
            Err(_) => Err(self.failed(NoTurn::Late(limit))),
        }
    }
}

impl EpisodeModel {
    /// The next turn. `begun` is set when its first token is there.
    async fn ask(&self, asked: &ChatRequest, begun: Arc<AtomicBool>) -> Result<Completion, ChatError> {
        let began = Instant::now();
        let renderer = self.shared.renderer.as_ref();
        let refused = |reason| self.failed(NoTurn::Refused(Refusal::Invalid(reason)));
        let (context, turn) = {
            let thread = self.thread();
            (thread.context(renderer, &asked.messages).map_err(refused)?, thread.turns())
        };
        let request = Request {
            prompt: context.clone(),
            max_tokens: asked.max_tokens.map_or(usize::MAX, |most| most as usize),
            sampling: sampling(&asked.sampling, turn),
            stop: asked.stop.clone(),
            stop_ids: renderer.stop_ids(),
        };
        let (reply, sampled) = oneshot::channel();
        self.desk.ask(Asks { episode: self.episode, request, reply, begun });
        let sampled = sampled.await.unwrap_or(Err(NoTurn::Stopped)).map_err(|error| self.failed(error))?;
        self.thread().take(&asked.messages, &context, &sampled.ids);
        Ok(completion(renderer, &self.shared.policy, asked, &context, sampled, began.elapsed()))
    }
}

/// What was sampled, as an agent reads it. A stop string ends the text where it begins; the tokens go on to the end of
/// the one that it ends in, and what they hold of it is the tail.
fn completion(
    renderer: &Renderer,
    policy: &Policy,
    asked: &ChatRequest,
    context: &[i64],
    sampled: Sampled,
    elapsed: Duration,
) -> Completion {
    let mut text = renderer.written(&sampled.ids);
    let at = asked.stop.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop.as_str())).min();
    let tail = at.map(|at| text.split_off(at)).unwrap_or_default();
    let finish = match sampled.finish {
        _ if !tail.is_empty() => Finish::Overrun,
        Some(generate::Finish::Length) => Finish::Length,
        _ => Finish::Stop,
    };
    let usage = Usage {
        input_tokens: context.len() as u64,
        output_tokens: sampled.ids.len() as u64,
        cached_input_tokens: 0,
        estimated: false,
    };
    let tokens = SampledTokens {
        prompt_ids: Some(narrow(context)),
        ids: narrow(&sampled.ids),
        log_probs: sampled.log_probs,
        tail,
        policy_version: policy.version,
    };
    Completion { text, reasoning: None, finish, usage, tokens: Some(tokens), elapsed }
}

/// How a turn is sampled: each has a random stream of its own, whoever its neighbours are.
fn sampling(asked: &Sampling, turn: u64) -> SamplingConfig {
    let own = SamplingConfig::default();
    let mut hash = Sha256::new();
    hash.update(asked.seed.unwrap_or(0).to_be_bytes());
    hash.update(turn.to_be_bytes());
    SamplingConfig {
        temperature: asked.temperature.unwrap_or(own.temperature),
        top_p: asked.top_p.unwrap_or(own.top_p),
        top_k: asked.top_k.map_or(own.top_k, |top_k| top_k as usize),
        repetition_penalty: asked.repetition_penalty.unwrap_or(own.repetition_penalty),
        tell_tempered: true,
        seed: hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)),
    }
}

/// Ids of a vocabulary fit 32 bits.
fn narrow(ids: &[i64]) -> Vec<i32> {
    ids.iter().map(|id| i32::try_from(*id).unwrap_or(i32::MAX)).collect()
}

//! What a chat model is to everything here: messages in, one completion out.
//!
//! Agents, synthesisers, summarisers and judges ask through [`ChatModel`] and do not know who answers: an endpoint, a
//! served checkpoint or a program that plays a model.
//!
//! [`Endpoint`] is the one client for endpoints: [`Models`] makes them from the settings, by role. A request is written
//! (`request`), waits for its turn (`limit`), is answered in chunks (`wire`, `answer`, `stop`) or fails (`fault`), and is
//! asked again where that may help (`endpoint`). What was used is charged to one [`Budget`]. Keys are [`Secret`]s.

mod answer;
mod budget;
mod config;
mod endpoint;
mod fault;
mod limit;
mod models;
mod request;
mod stop;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use self::budget::{Budget, BudgetConfig, Prices, Spent};
pub use self::config::{
    BaseUrl, EndpointConfig, MaxTokensMember, ModelRole, RolesConfig, SettingsError, TokenIds, validate,
};
pub use self::endpoint::Endpoint;
pub use self::models::Models;
pub use crate::clock::{Clock, SystemClock};
use crate::conversation::Message;
pub use crate::secret::Secret;

/// Something that completes conversations.
#[async_trait]
pub trait ChatModel: Send + Sync + std::fmt::Debug {
    /// The model's name, as it stands in `policy_model`, `judge` and `generator`.
    fn name(&self) -> &str;

    /// The next message of the conversation. Retries what may pass; what it returns as an error is final for this call.
    async fn complete(&self, request: &ChatRequest) -> Result<Completion, ChatError>;

    /// The next message, if it is there within `limit`, waits and retries included. None if the model was still writing it:
    /// one that cannot tell is taken to have been. One that had begun no answer was unavailable.
    async fn complete_within(&self, request: &ChatRequest, limit: Duration) -> Result<Option<Completion>, ChatError> {
        tokio::time::timeout(limit, self.complete(request)).await.map_or(Ok(None), |completed| completed.map(Some))
    }

    /// How it samples where a request does not say, and how many tokens it writes at most then.
    fn defaults(&self) -> (Sampling, Option<u32>) {
        (Sampling::default(), None)
    }

    /// What is known of the weights that answer now.
    fn policy(&self) -> Policy {
        Policy::default()
    }
}

/// What is known of the weights behind a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Digest of the checkpoint.
    pub checkpoint_digest: Option<String>,
    /// Digest of the tokenizer that token ids belong to.
    pub tokenizer_digest: Option<String>,
    /// Update step within a training run.
    pub version: Option<i64>,
}

/// What a model is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatRequest {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// How to sample.
    pub sampling: Sampling,
    /// Generation ends before the first of these; it is not part of the text.
    pub stop: Vec<String>,
    /// Tokens to write at most (gen_ai.request.max_tokens).
    pub max_tokens: Option<u32>,
    /// Ask for token ids and log-probabilities, where the endpoint has them.
    pub tokens: bool,
    /// Which turn of an attempt is asked for, from 0: each is sampled from a random stream of its own, see
    /// [`Sampling::seed_of_turn`].
    pub turn: u32,
}

/// Sampling parameters; what is absent is left to the endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// gen_ai.request.temperature
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// gen_ai.request.top_p
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// gen_ai.request.top_k
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Above 1, tokens already written become less likely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// gen_ai.request.seed
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
}

impl Sampling {
    /// These parameters, and `other` where they say nothing.
    #[must_use]
    pub fn or(self, other: Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.or(other.temperature),
            top_p: self.top_p.or(other.top_p),
            top_k: self.top_k.or(other.top_k),
            repetition_penalty: self.repetition_penalty.or(other.repetition_penalty),
            seed: self.seed.or(other.seed),
        }
    }

    /// The seed of a turn of the attempt whose seed this is: its own in the first turn, one derived from it in a later
    /// one. With one seed for all, every turn would begin with the same draws.
    pub fn seed_of_turn(&self, turn: u32) -> Option<i64> {
        let seed = self.seed?;
        if turn == 0 {
            return Some(seed);
        }
        let hash = Sha256::new().chain_update(seed.to_be_bytes()).chain_update(turn.to_be_bytes()).finalize();
        let drawn = hash.iter().take(4).fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        // Small enough for every endpoint.
        Some(i64::from(drawn >> 1))
    }
}

/// What a model wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The message, without the stop string that ended it.
    pub text: String,
    /// Reasoning that the endpoint returned apart from the message.
    pub reasoning: Option<String>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens read and written.
    pub usage: Usage,
    /// Token ids and log-probabilities, where asked for and returned.
    pub tokens: Option<SampledTokens>,
    /// From the request to the last byte, retries not counted.
    pub elapsed: Duration,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// By itself; or at a stop string, where the endpoint cuts it off and does not say so.
    Stop,
    /// It ran into a stop string: the endpoint says so, or did not cut it off. What followed is dropped.
    Overrun,
    /// At `max_tokens` or the end of the context.
    Length,
    /// The endpoint withheld the rest.
    Filtered,
}

/// Tokens of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// gen_ai.usage.input_tokens
    pub input_tokens: u64,
    /// gen_ai.usage.output_tokens; reasoning is part of it.
    pub output_tokens: u64,
    /// Those of `input_tokens` that the endpoint had in its cache (gen_ai.usage.cache_read.input_tokens).
    pub cached_input_tokens: u64,
    /// The endpoint did not count: these are estimates, a token for every four bytes of text.
    pub estimated: bool,
}

/// What was sampled, token by token: what the model wrote, reasoning, stop string and end token included.
///
/// Endpoints return ids, log-probabilities or both. If both, there is one for one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SampledTokens {
    /// Ids of the whole prompt, where returned.
    pub prompt_ids: Option<Vec<i32>>,
    /// Ids of the completion; empty where none were returned.
    pub ids: Vec<i32>,
    /// Log-probability of each token, natural logarithm; empty where not returned for all of them.
    pub log_probs: Vec<f32>,
    /// What the tokens hold behind the text where it [ran into](Finish::Overrun) a stop string: the stop string, to the
    /// end of the token that it ends in. Tokens behind that are left out.
    pub tail: String,
    /// Update step of the weights that they were sampled from, where the endpoint says it.
    pub policy_version: Option<i64>,
}

/// Why there is no completion, by what the caller should do. No variant holds a key or a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// Change the request or the settings: the endpoint refused them, and will again.
    #[error("{model}: refused: {reason}")]
    Refused {
        /// The model asked.
        model: String,
        /// What the endpoint said, clipped.
        reason: String,
    },
    /// Make the conversation shorter: it does not fit the context.
    #[error("{model}: the conversation does not fit the context: {reason}")]
    ContextFull {
        /// The model asked.
        model: String,
        /// What the endpoint said, clipped.
        reason: String,
    },
    /// See to the endpoint or its address: no connection was ever made to it.
    #[error("{model}: cannot be reached: {reason}")]
    Unreachable {
        /// The model asked.
        model: String,
        /// What went wrong last, where, and when it was given up.
        reason: String,
    },
    /// Try again later: the endpoint could not be reached, or did not answer as it should, in all attempts.
    #[error("{model}: unavailable after {attempts} attempts: {reason}")]
    Unavailable {
        /// The model asked.
        model: String,
        /// How often it was tried.
        attempts: u32,
        /// What went wrong last.
        reason: String,
    },
    /// Stop: the budget of tokens, money or time is spent.
    #[error("the budget is spent: {0}")]
    BudgetSpent(String),
}

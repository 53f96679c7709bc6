//! Generation: many sequences at a time, a token each a step.
//!
//! [`Engine`] holds a model and the keys and values of all sequences under way. A step takes in what waits and fits, runs
//! its prompts (packed, as in training), then one token of every sequence as one batch. Whoever is done leaves its place
//! at once. A sequence draws from a generator of its own seed, so who its neighbours are does not change its draws.
//!
//! The next turn of an episode begins with all of the last one. Keys and values of what was read and written are kept in
//! blocks (`prefix`), and a prompt that begins as an earlier sequence did is read only from where it differs.

mod cache;
mod engine;
mod prefix;
mod sampling;
mod steps;
mod text;

pub use self::engine::{Engine, EngineConfig, Refusal, RequestId};
pub use self::sampling::SamplingConfig;
pub use self::text::Decode;

/// What to write on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// Token ids of the prompt; not empty.
    pub prompt: Vec<i64>,
    /// Tokens to write at most.
    pub max_tokens: usize,
    /// How to sample.
    pub sampling: SamplingConfig,
    /// Text that ends the sequence; it is not part of what is handed out.
    pub stop: Vec<String>,
    /// Tokens that end the sequence: ends of turn and of text. They are told, and give no text.
    pub stop_ids: Vec<i64>,
}

/// What a step made of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Whose.
    pub request: RequestId,
    /// The token.
    pub id: i64,
    /// Its log-probability, natural logarithm: of the model itself, before penalties and cuts; see
    /// [`SamplingConfig::tell_tempered`].
    pub log_prob: f32,
    /// The token's own text. A character of several tokens is the last one's; an end of turn has none.
    pub piece: String,
    /// Text that is certain now; nothing while a character or a stop string may still be under way.
    pub text: String,
    /// It was the last token.
    pub finish: Option<Finish>,
    /// The stop string that it completed.
    pub stop: Option<String>,
    /// Tokens of the prompt whose keys and values were held already.
    pub prompt_cached: usize,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// At a stop string or token.
    Stop,
    /// At `max_tokens`, or at the end of the context.
    Length,
}

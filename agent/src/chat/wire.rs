//! What endpoints send: chunks of a stream, and whole answers, which are read as one chunk.
//!
//! Servers differ in what they leave out, set to null or add. What matters is read in every form that is known; the rest
//! is passed over.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Usage;

/// How vLLM writes a token as its id.
const TOKEN_ID: &str = "token_id:";

/// What an answer says that it is.
#[derive(Debug)]
pub(super) enum Media {
    Events,
    Json,
    Other(String),
}

impl Media {
    /// Where it does not say, it is what it was asked for.
    pub(super) fn of(headers: &HeaderMap, stream: bool) -> Media {
        let value = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let value = value.unwrap_or_default();
        match value.split(';').next().unwrap_or_default().trim() {
            "" if stream => Media::Events,
            "" => Media::Json,
            events if events.eq_ignore_ascii_case("text/event-stream") => Media::Events,
            json if json.eq_ignore_ascii_case("application/json") => Media::Json,
            other => Media::Other(other.to_string()),
        }
    }
}

/// A chunk of a stream, or a whole answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Chunk {
    #[serde(deserialize_with = "null_as_default")]
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Option<WireUsage>,
    pub(super) error: Option<Value>,
    /// vLLM, in the first chunk.
    pub(super) prompt_token_ids: Option<Vec<i32>>,
    /// sglang, in the last chunk.
    pub(super) sglext: Option<SglExt>,
    /// `webdancer-train serve`, in any chunk: which weights answer.
    pub(super) webdancer: Option<Weights>,
}

/// Which weights answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Weights {
    pub(super) checkpoint_digest: Option<String>,
    pub(super) tokenizer_digest: Option<String>,
    pub(super) policy_version: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    pub(super) index: Option<u32>,
    #[serde(alias = "message", deserialize_with = "null_as_default")]
    pub(super) delta: Delta,
    pub(super) finish_reason: Option<String>,
    /// vLLM and `webdancer-train serve`: the stop string that ended the text, or the id of the stop token.
    stop_reason: Option<Value>,
    /// sglang: the same.
    matched_stop: Option<Value>,
    pub(super) logprobs: Option<LogProbs>,
    /// vLLM: those of this chunk. sglang: all, in a whole answer.
    pub(super) token_ids: Option<Vec<i32>>,
    /// sglang, in a whole answer.
    pub(super) prompt_token_ids: Option<Vec<i32>>,
}

impl Choice {
    /// The stop string that the server says it ended the text at.
    pub(super) fn stop_string(&self) -> Option<&str> {
        [&self.stop_reason, &self.matched_stop].into_iter().flatten().find_map(Value::as_str)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delta {
    pub(super) content: Option<String>,
    /// DeepSeek, DashScope, sglang, vLLM up to 0.11.
    pub(super) reasoning_content: Option<String>,
    /// vLLM, OpenRouter. Where both are sent they say the same.
    pub(super) reasoning: Option<String>,
    /// OpenAI, in place of content.
    pub(super) refusal: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LogProbs {
    pub(super) content: Option<Vec<LogProb>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LogProb {
    pub(super) token: Option<String>,
    pub(super) logprob: Option<f32>,
    /// The token's text as UTF-8 bytes, which may end within a character; anything else is passed over.
    #[serde(deserialize_with = "bytes_or_none")]
    pub(super) bytes: Option<Vec<u8>>,
}

impl LogProb {
    /// The text that it stands for; None where it is not known.
    pub(super) fn text(&self) -> Option<&[u8]> {
        self.bytes.as_deref().or_else(|| {
            let token = self.token.as_deref().filter(|token| !token.starts_with(TOKEN_ID));
            token.map(str::as_bytes)
        })
    }

    /// The id, where vLLM was told to write tokens as `token_id:123`.
    pub(super) fn token_id(&self) -> Option<i32> {
        self.token.as_deref()?.strip_prefix(TOKEN_ID)?.parse().ok()
    }
}

/// sglang's extension.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SglExt {
    pub(super) input_ids: Option<Vec<i32>>,
    pub(super) output_ids: Option<OutputIds>,
}

/// Ids of each choice; of the only one, perhaps.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OutputIds {
    OfChoices(Vec<Vec<i32>>),
    Plain(Vec<i32>),
}

impl OutputIds {
    pub(super) fn first(self) -> Option<Vec<i32>> {
        match self {
            OutputIds::OfChoices(choices) => choices.into_iter().next(),
            OutputIds::Plain(ids) => Some(ids),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

impl WireUsage {
    /// The counts, if both are there and can be true.
    pub(super) fn usage(&self) -> Option<Usage> {
        let credible = |count: Option<u64>| count.filter(|count| u32::try_from(*count).is_ok());
        let input_tokens = credible(self.prompt_tokens)?;
        let cached = credible(self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens));
        Some(Usage {
            input_tokens,
            output_tokens: credible(self.completion_tokens)?,
            cached_input_tokens: cached.unwrap_or_default().min(input_tokens),
            estimated: false,
        })
    }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn bytes_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

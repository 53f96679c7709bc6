//! Requests and answers as they are on the wire: OpenAI's chat completions, with vLLM's members for tokens.

use serde::Deserialize;
use serde_json::{Value, json};
use webdancer_agent::conversation::{Message, Role};

use super::Weights;
use crate::generate::{Finish, Request, SamplingConfig, Written};

/// Tokens written when a request does not say how many: up to the end of the context.
const UNLIMITED: usize = usize::MAX;

/// Members that would change the answer and are not offered, OpenAI's and then vLLM's, each with what changes nothing.
const NOT_OFFERED: &[(&str, &[&str])] = &[
    ("frequency_penalty", &["0", "0.0"]),
    ("presence_penalty", &["0", "0.0"]),
    ("logit_bias", &["{}"]),
    ("top_logprobs", &["0"]),
    ("tools", &["[]"]),
    ("functions", &["[]"]),
    ("response_format", &[r#"{"type":"text"}"#]),
    ("min_p", &["0", "0.0"]),
    ("min_tokens", &["0"]),
    ("ignore_eos", &["false"]),
    ("stop_token_ids", &["[]"]),
    ("bad_words", &["[]"]),
    ("allowed_token_ids", &[]),
    ("include_stop_str_in_output", &["false"]),
    ("guided_json", &[]),
    ("guided_regex", &[]),
    ("guided_choice", &[]),
    ("guided_grammar", &[]),
    ("structured_outputs", &["{}"]),
    ("chat_template", &[]),
    ("chat_template_kwargs", &["{}"]),
    ("continue_final_message", &["false"]),
];

/// What is read of a request; members that change nothing here are passed over.
#[derive(Debug, Deserialize)]
struct WireRequest {
    messages: Vec<WireMessage>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    repetition_penalty: Option<f64>,
    seed: Option<i64>,
    stop: Option<Stop>,
    n: Option<u64>,
    #[serde(default)]
    logprobs: bool,
    #[serde(default)]
    return_token_ids: bool,
    #[serde(default)]
    return_tokens_as_token_ids: bool,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct WireMessage {
    role: String,
    content: Value,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

/// A request that was understood.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) messages: Vec<Message>,
    pub(super) stream: bool,
    usage: bool,
    logprobs: bool,
    token_ids: bool,
    tokens_as_ids: bool,
    max_tokens: usize,
    sampling: SamplingConfig,
    stop: Vec<String>,
}

impl Asked {
    /// Reads a body; one line on what is wrong with it.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let mut members: serde_json::Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        // A member that is null is one that is not there.
        members.retain(|_, value| !value.is_null());
        for (name, idle) in NOT_OFFERED {
            if members.get(*name).is_some_and(|value| !idle.contains(&value.to_string().as_str())) {
                return Err(format!("{name} is not offered here: leave it out"));
            }
        }
        let wire: WireRequest = serde_json::from_value(Value::Object(members)).map_err(|error| error.to_string())?;
        if wire.n.is_some_and(|n| n != 1) {
            return Err("n must be 1: ask again for another answer".into());
        }
        let within = |name: &str, value: Option<f64>, default: f64, from: f64, to: f64| match value.unwrap_or(default) {
            value if (from..=to).contains(&value) => Ok(value),
            value => Err(format!("{name} is {value}; it goes from {from} to {to}")),
        };
        let sampling = SamplingConfig {
            temperature: within("temperature", wire.temperature, 1.0, 0.0, 100.0)?,
            top_p: within("top_p", wire.top_p, 1.0, 0.0, 1.0)?,
            // -1 is vLLM's way to say all.
            top_k: usize::try_from(wire.top_k.unwrap_or(0)).unwrap_or(0),
            repetition_penalty: within("repetition_penalty", wire.repetition_penalty, 1.0, 0.01, 100.0)?,
            seed: wire.seed.map_or_else(rand::random, i64::cast_unsigned),
            ..SamplingConfig::default()
        };
        Ok(Self {
            messages: wire.messages.into_iter().map(message).collect::<Result<_, _>>()?,
            stream: wire.stream,
            usage: !wire.stream || wire.stream_options.is_some_and(|options| options.include_usage),
            logprobs: wire.logprobs,
            token_ids: wire.return_token_ids,
            tokens_as_ids: wire.return_tokens_as_token_ids,
            max_tokens: wire.max_completion_tokens.or(wire.max_tokens).unwrap_or(UNLIMITED),
            sampling,
            stop: match wire.stop {
                None => Vec::new(),
                Some(Stop::One(stop)) => vec![stop],
                Some(Stop::Many(stop)) => stop,
            },
        })
    }

    /// What the engine is asked.
    pub(super) fn request(&self, prompt: Vec<i64>, stop_ids: Vec<i64>) -> Request {
        Request { prompt, max_tokens: self.max_tokens, sampling: self.sampling, stop: self.stop.clone(), stop_ids }
    }
}

fn message(wire: WireMessage) -> Result<Message, String> {
    let role = [Role::System, Role::User, Role::Assistant].into_iter().find(|role| role.name() == wire.role);
    let role = role.ok_or_else(|| format!("role {} is not known; system, user and assistant are", wire.role))?;
    let content = match wire.content {
        Value::String(text) => text,
        // Content in parts: text only.
        Value::Array(parts) => {
            let text = |part: &Value| part.get("text").and_then(Value::as_str).map(str::to_string);
            parts.iter().map(text).collect::<Option<String>>().ok_or("content holds what is no text")?
        }
        _ => return Err("content is no text".into()),
    };
    Ok(Message { role, content })
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Told {
    id: String,
    model: String,
    weights: Weights,
    created: u64,
    usage: bool,
    logprobs: bool,
    token_ids: bool,
    tokens_as_ids: bool,
    prompt: Vec<i64>,
    completion_tokens: usize,
}

impl Told {
    pub(super) fn new(model: &str, weights: &Weights, created: u64, asked: &Asked, prompt: Vec<i64>) -> Self {
        Self {
            id: format!("chatcmpl-{:016x}", rand::random::<u64>()),
            model: model.to_string(),
            weights: weights.clone(),
            created,
            usage: asked.usage,
            logprobs: asked.logprobs,
            token_ids: asked.token_ids,
            tokens_as_ids: asked.tokens_as_ids,
            prompt,
            completion_tokens: 0,
        }
    }

    /// The first event of a stream: the role, the prompt's tokens, and whose words will follow.
    pub(super) fn first(&self) -> String {
        let mut body = self.body("chat.completion.chunk");
        body["choices"] = json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]);
        body["webdancer"] = json!(self.weights);
        if self.token_ids {
            body["prompt_token_ids"] = json!(self.prompt);
        }
        event(&body)
    }

    /// The event of a token.
    pub(super) fn chunk(&mut self, written: &Written) -> String {
        self.completion_tokens += 1;
        let mut choice = json!({"index": 0, "delta": {"content": written.text}, "finish_reason": finish(written)});
        choice["stop_reason"] = json!(written.stop);
        self.add_tokens(&mut choice, std::slice::from_ref(written));
        let mut body = self.body("chat.completion.chunk");
        body["choices"] = json!([choice]);
        event(&body)
    }

    /// The event of the last token, and what ends a stream.
    pub(super) fn last(&mut self, written: &Written) -> String {
        let mut text = self.chunk(written);
        if self.usage {
            let mut body = self.body("chat.completion.chunk");
            body["choices"] = json!([]);
            body["usage"] = self.usage_of(self.completion_tokens, written.prompt_cached);
            text.push_str(&event(&body));
        }
        text.push_str("data: [DONE]\n\n");
        text
    }

    /// The answer as one document.
    pub(super) fn whole(&self, all: &[Written]) -> Value {
        let text: String = all.iter().map(|written| written.text.as_str()).collect();
        let message = json!({"role": "assistant", "content": text});
        let last = all.last();
        let mut choice = json!({"index": 0, "message": message, "finish_reason": last.and_then(finish)});
        choice["stop_reason"] = json!(last.and_then(|written| written.stop.as_deref()));
        self.add_tokens(&mut choice, all);
        let mut body = self.body("chat.completion");
        body["choices"] = json!([choice]);
        body["usage"] = self.usage_of(all.len(), last.map_or(0, |written| written.prompt_cached));
        body["webdancer"] = json!(self.weights);
        if self.token_ids {
            body["prompt_token_ids"] = json!(self.prompt);
        }
        body
    }

    fn add_tokens(&self, choice: &mut Value, all: &[Written]) {
        if self.logprobs {
            let token = |written: &Written| {
                let (piece, bytes) = (&written.piece, written.piece.as_bytes());
                let token = if self.tokens_as_ids { format!("token_id:{}", written.id) } else { piece.clone() };
                json!({"token": token, "logprob": written.log_prob, "bytes": bytes, "top_logprobs": []})
            };
            choice["logprobs"] = json!({"content": all.iter().map(token).collect::<Vec<_>>()});
        }
        if self.token_ids {
            choice["token_ids"] = all.iter().map(|written| written.id).collect();
        }
    }

    fn usage_of(&self, completion: usize, cached: usize) -> Value {
        let prompt = self.prompt.len();
        json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        })
    }

    fn body(&self, object: &str) -> Value {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model})
    }
}

/// The event of an error within a stream, which ends it.
pub(super) fn stream_error(reason: &str) -> String {
    event(&json!({"error": {"message": reason, "type": "server_error", "code": null}}))
}

fn finish(written: &Written) -> Option<&'static str> {
    written.finish.map(|finish| match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    })
}

fn event(body: &Value) -> String {
    format!("data: {body}\n\n")
}

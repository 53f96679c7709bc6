//! What went wrong in one attempt, and what follows from it.
//!
//! Everything that can go wrong ends here: a status, an error object inside a stream, a connection. What a server says is
//! read in all the forms that the common ones use (OpenAI and DashScope `{"error": {…}}`, vLLM and sglang
//! `{"object": "error", …}`, FastAPI `{"detail": …}`, plain text, HTML), since whether a conversation is too long or a
//! quota is spent stands only there.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore as _;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::Value;

/// Characters of a server's words that are kept.
const REASON_CHARS_MAX: usize = 500;

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) reason: String,
}

/// What follows from a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ask again, at the earliest after `wait`. If `busy`, the endpoint wants to be left alone by everybody.
    Passing { wait: Option<Duration>, busy: bool },
    /// No connection was made.
    NoConnection,
    /// The endpoint does not answer as it should, and would not next time.
    Lasting,
    /// The request is wrong.
    Refused,
    /// The conversation is too long.
    ContextFull,
    /// There is nothing left to ask with.
    BudgetSpent,
}

impl Fault {
    pub(super) fn new(kind: Kind, reason: impl Into<String>) -> Fault {
        Fault { kind, reason: reason.into() }
    }

    /// One that passes.
    pub(super) fn passing(reason: impl Into<String>) -> Fault {
        Fault::new(Kind::Passing { wait: None, busy: false }, reason)
    }

    /// One that does not.
    pub(super) fn lasting(reason: impl Into<String>) -> Fault {
        Fault::new(Kind::Lasting, reason)
    }

    /// An answer other than 200.
    pub(super) fn of_status(status: u16, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Fault {
        let said = Said::in_body(body);
        let mut fault = said.fault(Some(status));
        if let Kind::Passing { wait, .. } = &mut fault.kind {
            *wait = retry_after(headers, now);
        }
        fault.reason = match said.message.is_empty() {
            true => format!("status {status}"),
            false => format!("status {status}: {}", fault.reason),
        };
        fault
    }

    /// An error object in place of an answer: the status is in it, if anywhere.
    pub(super) fn of_error(error: &Value) -> Fault {
        let said = Said::in_value(error);
        let mut fault = said.fault(said.status);
        fault.reason = format!("error in the answer: {}", fault.reason);
        fault
    }

    /// A request that got no answer, or an answer that broke off.
    pub(super) fn of_transport(error: reqwest::Error) -> Fault {
        let error = error.without_url();
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let next = inner.to_string();
            if !reason.contains(&next) {
                reason = format!("{reason}: {next}");
            }
            cause = inner.source();
        }
        match error {
            _ if error.is_builder() => Fault::new(Kind::Refused, reason),
            _ if error.is_connect() => Fault::new(Kind::NoConnection, reason),
            _ => Fault::passing(reason),
        }
    }
}

/// What a server said.
#[derive(Debug, Default)]
struct Said {
    message: String,
    code: String,
    status: Option<u16>,
}

impl Said {
    fn in_body(body: &[u8]) -> Said {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) if value.is_object() => Said::in_value(value.get("error").unwrap_or(&value)),
            _ => Said { message: String::from_utf8_lossy(body).into_owned(), ..Said::default() },
        }
    }

    fn in_value(value: &Value) -> Said {
        let text = |key: &str| match value.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        let message = match value {
            Value::String(text) => text.clone(),
            _ => [text("message"), text("detail"), text("error")]
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or_else(|| value.to_string()),
        };
        let status = text("code").parse().ok().filter(|status| (400..600).contains(status));
        Said { message, code: format!("{} {}", text("code"), text("type")), status }
    }

    fn fault(&self, status: Option<u16>) -> Fault {
        let kind = match status {
            Some(429) if self.code.contains("insufficient_quota") => Kind::Refused,
            Some(429 | 503) => Kind::Passing { wait: None, busy: true },
            _ if self.is_context_full() => Kind::ContextFull,
            Some(408 | 409 | 425 | 500..) | None => Kind::Passing { wait: None, busy: false },
            Some(_) => Kind::Refused,
        };
        Fault::new(kind, self.message.clone())
    }

    fn is_context_full(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        self.code.contains("context_length_exceeded")
            || self.code.contains("exceed_context_size")
            || CONTEXT_FULL.iter().any(|all| all.iter().all(|part| message.contains(part)))
    }
}

/// How servers say that a conversation is too long: every part stands in the message.
const CONTEXT_FULL: &[&[&str]] = &[
    // OpenAI, vLLM, sglang, Mistral: "This model's maximum context length is 8192 tokens. However, …"
    &["maximum context length"],
    // sglang: "The input (61709 tokens) is longer than the model's context length (40960 tokens)."
    &["longer than the model's context length"],
    // sglang: "Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens)."
    &["input length", "exceeds the maximum allowed length"],
    // vLLM: "The decoder prompt (length 9000) is longer than the maximum model length of 8192."
    &["longer than the maximum model length"],
    // vLLM: "The prompt (total length 9000) is too long to fit into the model (context length 8192)."
    &["too long to fit into the model"],
    // DashScope: "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]"
    &["range of input length should be"],
    // OpenAI's newer models: "Your input exceeds the context window of this model."
    &["exceeds the context window"],
    // llama.cpp: "the request exceeds the available context size (4096 tokens), try increasing it"
    &["exceeds the available context size"],
    // Anthropic: "prompt is too long: 210000 tokens > 200000 maximum"
    &["prompt is too long"],
    // Gemini: "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576)."
    &["input token count", "exceeds the maximum"],
    // TGI: "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 100 `max_new_tokens`"
    &["`inputs` tokens + `max_new_tokens` must be"],
];

/// How long a server asks to wait: `retry-after-ms` (OpenAI, Azure), or `Retry-After` in seconds or as a date (RFC 9110
/// section 10.2.3). A date is compared with the server's own, whose clock need not be ours.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = |text: &str, per_second: f64| {
        let number: f64 = text.parse().ok()?;
        Duration::try_from_secs_f64(number / per_second).ok()
    };
    if let Some(wait) = text("retry-after-ms").and_then(|ms| seconds(ms, 1000.0)) {
        return Some(wait);
    }
    let value = text(RETRY_AFTER.as_str())?;
    seconds(value, 1.0).or_else(|| {
        let date = httpdate::parse_http_date(value).ok()?;
        let now = text(DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
        Some(date.duration_since(now).unwrap_or_default())
    })
}

/// How long to wait before the attempt after `attempts`: doubled each time, the upper half of it at random, so that
/// clients that failed together do not come back together. Never less than the server asks for.
pub(super) fn back_off(
    attempts: u32,
    base: Duration,
    max: Duration,
    asked: Option<Duration>,
    jitter: &mut ChaCha8Rng,
) -> Duration {
    let full = base.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(max);
    let share = f64::from(jitter.next_u32()) / f64::from(u32::MAX);
    let own = full / 2 + (full / 2).mul_f64(share);
    // What the server asked for is spread as well, upwards.
    asked.map_or(own, |asked| asked + (full / 2).mul_f64(share)).max(own)
}

/// `text` as it may stand in a message: one line, without control characters, not endless.
pub(super) fn clip(text: &str) -> String {
    let mut clipped = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !clipped.is_empty() {
            clipped.push(' ');
        }
        clipped.push_str(word);
        if let Some((end, _)) = clipped.char_indices().nth(REASON_CHARS_MAX) {
            clipped.truncate(end);
            clipped.push('…');
            break;
        }
    }
    clipped
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng as _;
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn kind(status: u16, body: &str) -> Kind {
        Fault::of_status(status, &HeaderMap::new(), body.as_bytes(), SystemTime::UNIX_EPOCH).kind
    }

    #[test]
    fn servers_say_in_many_ways_that_the_context_is_full() {
        let cases = [
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
            ),
            (400, r#"{"error":{"message":"too much","code":"context_length_exceeded"}}"#),
            (
                400,
                r#"{"object":"error","message":"This model's maximum context length is 32768 tokens. However, you requested 41648 tokens (37552 in the messages, 4096 in the completion).","type":"BadRequestError","param":null,"code":400}"#,
            ),
            (
                400,
                r#"{"object":"error","message":"The input (61709 tokens) is longer than the model's context length (40960 tokens).","type":"BadRequestError","code":400}"#,
            ),
            (
                400,
                r#"{"object":"error","message":"Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens).","code":400}"#,
            ),
            (
                400,
                r#"{"error":{"code":"invalid_parameter_error","message":"<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 983616]","type":"invalid_request_error"},"request_id":"x"}"#,
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"the request exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error"}}"#,
            ),
            (500, "The decoder prompt (length 9000) is longer than the maximum model length of 8192."),
        ];
        for (status, body) in cases {
            assert_eq!(kind(status, body), Kind::ContextFull, "{body}");
        }
    }

    #[test]
    fn a_status_says_whether_to_ask_again() {
        for status in [401, 403, 404, 400, 413, 422, 307] {
            assert_eq!(kind(status, "no"), Kind::Refused, "{status}");
        }
        for status in [408, 409, 425, 500, 502, 504, 529] {
            assert_eq!(kind(status, "no"), Kind::Passing { wait: None, busy: false }, "{status}");
        }
        for status in [429, 503] {
            assert_eq!(kind(status, "no"), Kind::Passing { wait: None, busy: true }, "{status}");
        }
        let quota = r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;
        assert_eq!(kind(429, quota), Kind::Refused);
    }

    #[test]
    fn the_reason_is_what_the_server_said() {
        let reason =
            |body: &str| Fault::of_status(400, &HeaderMap::new(), body.as_bytes(), SystemTime::UNIX_EPOCH).reason;
        assert_eq!(reason(r#"{"error":{"message":"bad top_p"}}"#), "status 400: bad top_p");
        assert_eq!(reason(r#"{"error":"bad top_p"}"#), "status 400: bad top_p");
        assert_eq!(reason(r#"{"detail":[{"loc":["body"]}]}"#), r#"status 400: [{"loc":["body"]}]"#);
        assert_eq!(reason(r#"{"unknown":1}"#), r#"status 400: {"unknown":1}"#);
        assert_eq!(reason("<h1>Bad</h1>"), "status 400: <h1>Bad</h1>");
        assert_eq!(reason(""), "status 400");
    }

    #[test]
    fn an_error_in_the_stream_is_told_by_its_code() {
        let fault =
            Fault::of_error(&serde_json::json!({"message": "boom", "type": "InternalServerError", "code": 500}));
        assert_eq!(fault, Fault::passing("error in the answer: boom"));
        let fault = Fault::of_error(&serde_json::json!({"message": "no such model", "code": "404"}));
        assert_eq!(fault.kind, Kind::Refused);
        assert_eq!(Fault::of_error(&serde_json::json!("boom")).kind, Kind::Passing { wait: None, busy: false });
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 08:00:00 GMT").unwrap();
        let wait = |pairs| retry_after(&headers(pairs), now).map(|wait| wait.as_millis());
        assert_eq!(wait(&[("retry-after", "7")]), Some(7_000));
        assert_eq!(wait(&[("retry-after", "0.25")]), Some(250));
        assert_eq!(wait(&[("retry-after", "7"), ("retry-after-ms", "120")]), Some(120));
        assert_eq!(wait(&[("retry-after", "Sat, 21 Nov 2026 08:00:30 GMT")]), Some(30_000));
        // By the server's own clock, which is ten minutes ahead.
        let ahead = [("retry-after", "Sat, 21 Nov 2026 08:10:30 GMT"), ("date", "Sat, 21 Nov 2026 08:10:00 GMT")];
        assert_eq!(retry_after(&headers(&ahead), now), Some(Duration::from_secs(30)));
        assert_eq!(wait(&[("retry-after", "Sat, 21 Nov 2026 07:00:00 GMT")]), Some(0));
        for nonsense in ["soon", "-3", "NaN", "inf", "1e300", ""] {
            assert_eq!(retry_after(&headers(&[("retry-after", nonsense)]), now), None, "{nonsense}");
        }
    }

    #[test]
    fn the_wait_doubles_within_bounds_and_never_undercuts_the_server() {
        let mut jitter = ChaCha8Rng::seed_from_u64(1);
        let (base, max) = (Duration::from_secs(1), Duration::from_secs(60));
        for (attempts, full) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (40, 60)] {
            for _ in 0..50 {
                let wait = back_off(attempts, base, max, None, &mut jitter);
                let full = Duration::from_secs(full);
                assert!(full / 2 <= wait && wait <= full, "{attempts}: {wait:?}");
                let asked = Duration::from_secs(100);
                let wait = back_off(attempts, base, max, Some(asked), &mut jitter);
                assert!(asked <= wait && wait <= asked + full / 2, "{attempts}: {wait:?}");
            }
        }
        let waits = |seed| {
            let mut jitter = ChaCha8Rng::seed_from_u64(seed);
            (1..5).map(|attempts| back_off(attempts, base, max, None, &mut jitter)).collect::<Vec<_>>()
        };
        assert_eq!(waits(5), waits(5));
        assert_ne!(waits(5), waits(6));
    }

    #[test]
    fn what_a_server_says_becomes_one_short_line() {
        assert_eq!(clip(" a\n\tb\u{1b}[31m\0c "), "a b [31m c");
        let long = clip(&"ж".repeat(10_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (501, true));
    }
}

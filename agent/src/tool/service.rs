//! A service of the operator's over HTTP: a search engine, a page reader. Retries, limits, a key.
//!
//! Its address comes from the settings, not from a stranger, so it may be anywhere; redirects are not followed, since
//! they would take the key along.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::fetch::USER_AGENT;
use crate::fetch::transport::{backoff, describe, read, retry_after};
use crate::format::clip;
use crate::secret::{Scrubber, Secret, keys_in_url};

/// Characters of a service's own words in an error.
const REASON_CHARS_MAX: usize = 200;

/// Limits of the requests to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Requests at once. 8 by default.
    pub concurrency: usize,
    /// Time of one request to its last byte. 30,000 by default.
    pub timeout_ms: u64,
    /// Times a request is repeated after 429, 5xx or a connection that failed. 3 by default.
    pub retries_max: u32,
    /// Wait before the first repetition, doubled with each, half of it spread. 500 by default.
    pub backoff_ms: u64,
    /// Longest wait before a repetition, also where `Retry-After` asks for more. 30,000 by default.
    pub backoff_ms_max: u64,
    /// Bytes of an answer. 16 MiB by default.
    pub body_bytes_max: usize,
}

impl Default for ServiceConfig {
    fn default() -> ServiceConfig {
        ServiceConfig {
            concurrency: 8,
            timeout_ms: 30_000,
            retries_max: 3,
            backoff_ms: 500,
            backoff_ms_max: 30_000,
            body_bytes_max: 16 << 20,
        }
    }
}

/// Why a service cannot be used, by what is to be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ServiceError(pub(crate) String);

/// A service.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    client: Client,
    config: ServiceConfig,
    scrubber: Scrubber,
    turns: Semaphore,
}

/// What a service answered: any status but those that were retried to no avail.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// It failed or could not be reached, in all attempts. The status of the last, where there was one.
    Failed { status: Option<u16>, reason: String },
    /// Its answer is larger than is read.
    TooLarge(String),
}

/// How one attempt ended.
enum Attempt {
    Answer(Answer),
    /// Worth another, after this wait where the service asked for one.
    Again {
        status: Option<u16>,
        reason: String,
        wait: Option<Duration>,
    },
    Final(NoAnswer),
}

impl Service {
    /// A service at `url`; a key comes with the header that it goes into, and what stands before it. What of key and URL a
    /// server repeats is in no error.
    pub(crate) fn new(
        name: &'static str,
        url: &str,
        config: ServiceConfig,
        key: Option<(Secret, HeaderName, &str)>,
    ) -> Result<Service, ServiceError> {
        let mut headers = HeaderMap::new();
        let scrubber = Scrubber::new(key.iter().map(|(key, ..)| key).chain(&keys_in_url(url)));
        if let Some((key, header, prefix)) = key {
            let mut value = HeaderValue::from_str(&format!("{prefix}{}", key.expose()))
                .map_err(|_| ServiceError(format!("{name}: the key holds what no header may; check its file")))?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_millis(config.timeout_ms))
            .build()
            .map_err(|e| ServiceError(format!("{name}: the HTTP client cannot be made: {}", describe(&e))))?;
        let turns = Semaphore::new(config.concurrency.max(1));
        Ok(Service { name, client, config, scrubber, turns })
    }

    /// The answer to a request, after retries. `seed` spreads the waits between them.
    pub(crate) async fn ask(
        &self,
        seed: &str,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer, NoAnswer> {
        // The semaphore is never closed, so there is always a permit in the end.
        let _turn = self.turns.acquire().await.ok();
        let mut tries = 0;
        loop {
            let (status, reason, wait) = match self.attempt(request(&self.client)).await {
                Attempt::Answer(answer) => return Ok(answer),
                Attempt::Final(no_answer) => return Err(no_answer),
                Attempt::Again { status, reason, wait } => (status, reason, wait),
            };
            if tries >= self.config.retries_max {
                let reason = self.error(&format!("{reason} ({} attempts)", tries + 1));
                return Err(NoAnswer::Failed { status, reason });
            }
            let wait = wait.unwrap_or_else(|| backoff(self.config.backoff_ms, seed, tries));
            tokio::time::sleep(wait.min(Duration::from_millis(self.config.backoff_ms_max))).await;
            tries += 1;
        }
    }

    async fn attempt(&self, request: RequestBuilder) -> Attempt {
        let lost =
            |error: reqwest::Error| Attempt::Again { status: None, reason: describe(&error.without_url()), wait: None };
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return lost(error),
        };
        let status = response.status().as_u16();
        let wait = retry_after(response.headers());
        let body = match read(&mut response, self.config.body_bytes_max).await {
            Ok((_, true)) => {
                let reason = format!("the answer is larger than {} bytes", self.config.body_bytes_max);
                return Attempt::Final(NoAnswer::TooLarge(self.error(&reason)));
            }
            Ok((body, false)) => body,
            Err(reason) => return Attempt::Again { status: None, reason, wait: None },
        };
        let answer = Answer { status, body };
        match status {
            429 | 500..=599 => {
                let reason = self.reason(&answer);
                Attempt::Again { status: Some(status), reason, wait }
            }
            _ => Attempt::Answer(answer),
        }
    }

    /// Status and the beginning of an answer's body, for an error. Scrubbed whole: half a key is a key's half.
    pub(crate) fn reason(&self, answer: &Answer) -> String {
        let text = self.scrubber.scrub(&String::from_utf8_lossy(&answer.body));
        let text = super::one_line(&clip(&text, REASON_CHARS_MAX));
        let status = answer.status;
        if text.is_empty() { format!("status {status}") } else { format!("status {status}: {text}") }
    }

    /// An error's text: whose it is, and no key in it.
    pub(crate) fn error(&self, reason: &str) -> String {
        format!("{}: {}", self.name, self.scrubber.scrub(reason))
    }
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl NoAnswer {
    /// Why, in words.
    pub(crate) fn reason(self) -> String {
        match self {
            NoAnswer::Failed { reason, .. } | NoAnswer::TooLarge(reason) => reason,
        }
    }
}

//! A model behind an HTTP endpoint: one request, its attempts, and what becomes of each.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response};
use url::Url;

use super::answer::{Answer, estimate_prompt, parse_chunk, read_stream};
use super::budget::{Bill, Budget};
use super::config::{EndpointConfig, SettingsError};
use super::fault::{Fault, Kind, back_off, clip};
use super::limit::{Gate, Place};
use super::request;
use super::wire::Media;
use super::{ChatError, ChatModel, ChatRequest, Completion, Policy, Sampling};
use crate::clock::Clock;
use crate::secret::{Scrubber, Secret};

/// Name and version that servers see.
const USER_AGENT: &str = concat!("webdancer/", env!("CARGO_PKG_VERSION"));
/// Bytes that are read of an answer that is none.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Bytes at the end of a cut error that are thrown away: part of a key would not be known as one.
const ERROR_TAIL_BYTES: usize = 4 << 10;

/// A chat model behind an HTTP endpoint that speaks OpenAI's chat completions.
///
/// It can be shared: rates, concurrency and rests hold for all who ask through it.
pub struct Endpoint {
    name: String,
    config: EndpointConfig,
    url: Url,
    client: Client,
    headers: HeaderMap,
    scrubber: Scrubber,
    gate: Gate,
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
    jitter: Mutex<ChaCha8Rng>,
    reach: Mutex<Reach>,
    /// What the last answer said about the weights behind it.
    policy: Mutex<Policy>,
}

/// A request under way.
struct Call<'a> {
    request: &'a ChatRequest,
    body: Bytes,
    /// Attempts begun.
    attempts: AtomicU32,
    /// The attempt under way has been answered in part.
    answering: AtomicBool,
}

/// Whether anybody is there.
#[derive(Debug, Default)]
struct Reach {
    /// It has answered at least once, whatever it said.
    answered: bool,
    /// Since when no connection was made, if the last try failed so.
    failing_since: Option<Instant>,
    /// Why it was given up without ever having answered.
    given_up: Option<String>,
    /// What it said when it refused the key, if it has answered no question since.
    refused: Option<String>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { name, config, gate, budget, .. } = self;
        f.debug_struct("Endpoint")
            .field("name", name)
            .field("config", config)
            .field("gate", gate)
            .field("budget", budget)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The endpoint `[endpoints.<name>]`. Reads its key; asks nobody. `seed` spreads the waits between attempts.
    ///
    /// # Errors
    /// A key of the settings that is wrong, an API key that is not where the settings say.
    pub fn new(
        name: &str,
        config: EndpointConfig,
        budget: Arc<Budget>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Endpoint, SettingsError> {
        config.validate(name)?;
        let wrong = |key: &str, reason: String| SettingsError::new(format!("endpoints.{name}.{key}"), reason);
        let url = config.completions_url().map_err(|reason| wrong("url", reason))?;
        let key = config.key(name)?;
        let headers = headers(&config, key.as_ref()).map_err(|reason| wrong("api_key_header", reason))?;
        let client = client(&config, &url).map_err(|e| wrong("url", Fault::of_transport(e).reason))?;
        let gate = Gate::new(config.concurrency, config.requests_per_minute, config.tokens_per_minute, clock.clone());
        Ok(Endpoint {
            name: name.to_string(),
            scrubber: Scrubber::new(key.iter().chain(config.headers.values()).chain(&config.keys_in_url())),
            jitter: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
            reach: Mutex::default(),
            policy: Mutex::default(),
            url,
            client,
            headers,
            gate,
            budget,
            clock,
            config,
        })
    }

    /// Why it was given up, if it was and has never answered.
    pub fn given_up(&self) -> Option<String> {
        self.reach.lock().given_up.clone()
    }

    /// What it said when it refused the key (status 401 or 403), if it did and has answered no question since.
    pub fn key_refused(&self) -> Option<String> {
        self.reach.lock().refused.clone()
    }

    /// Whether anybody is there, before there is much to ask: any answer to a request for the head of the base URL will do,
    /// which asks the model nothing. Who is not there is waited for as with a question.
    ///
    /// # Errors
    /// [`ChatError::Unreachable`].
    pub async fn reach(&self) -> Result<(), ChatError> {
        // Its parts were looked at when the endpoint was made.
        let Ok(base) = self.config.base_url() else { return Ok(()) };
        let mut attempts = 0;
        while !self.reach.lock().answered {
            attempts += 1;
            let begun = self.clock.now();
            let head = self.client.head(base.clone()).timeout(self.config.first_byte_timeout()).send().await;
            let fault = match head.map_err(Fault::of_transport) {
                Ok(_) => {
                    *self.reach.lock() = Reach { answered: true, ..Reach::default() };
                    break;
                }
                Err(fault) if fault.kind == Kind::NoConnection => fault,
                // Somebody took the connection: what else is wrong, questions will tell.
                Err(_) => break,
            };
            let wait = self.wait_after(attempts, begun, fault).map_err(|fault| self.error(attempts, &fault))?;
            self.clock.sleep(wait).await;
        }
        Ok(())
    }

    /// Its settings.
    pub fn config(&self) -> &EndpointConfig {
        &self.config
    }

    fn call<'a>(&self, request: &'a ChatRequest) -> Result<Call<'a>, ChatError> {
        let body = serde_json::to_vec(&request::body(&self.config, request));
        let body = body.map_err(|e| self.error(0, &Fault::new(Kind::Refused, format!("the request as JSON: {e}"))))?;
        Ok(Call { request, body: body.into(), attempts: AtomicU32::new(0), answering: AtomicBool::new(false) })
    }

    /// Attempt after attempt.
    async fn finish(&self, call: &Call<'_>) -> Result<Completion, ChatError> {
        loop {
            let attempts = call.attempts.fetch_add(1, Ordering::Relaxed) + 1;
            let begun = self.clock.now();
            let fault = match self.attempt(call).await {
                Ok(completion) => return Ok(completion),
                Err(fault) => fault,
            };
            call.answering.store(false, Ordering::Relaxed);
            let wait = self.wait_after(attempts, begun, fault).map_err(|fault| self.error(attempts, &fault))?;
            self.clock.sleep(wait).await;
        }
    }

    /// One attempt: waits for its turn, asks, reads the answer.
    async fn attempt(&self, call: &Call<'_>) -> Result<Completion, Fault> {
        self.budget.check()?;
        let written = call.request.max_tokens.or(self.config.max_tokens).unwrap_or_default();
        let reserved = estimate_prompt(call.request) + u64::from(written);
        let place = self.budget.within(async { Ok(self.gate.enter(reserved).await) }).await?;
        // Others may have spent it meanwhile.
        self.budget.check()?;
        let limit = self.config.attempt_timeout();
        let too_slow = || Fault::lasting(format!("no whole answer within {} ms", limit.as_millis()));
        let answer =
            async { tokio::time::timeout(limit, self.exchange(call, place)).await.unwrap_or_else(|_| Err(too_slow())) };
        self.budget.within(answer).await
    }

    /// Keeps its place until it has the answer, or none.
    async fn exchange(&self, call: &Call<'_>, place: Place<'_>) -> Result<Completion, Fault> {
        let start = Instant::now();
        let patience = self.config.first_byte_timeout();
        let first_by = tokio::time::Instant::now() + patience;
        let post = self.client.post(self.url.clone()).headers(self.headers.clone()).body(call.body.clone());
        let response = tokio::time::timeout_at(first_by, post.send())
            .await
            .map_err(|_| no_answer(patience))?
            .map_err(Fault::of_transport)?;
        {
            let mut reach = self.reach.lock();
            let refused = reach.refused.take().filter(|_| response.status() != 200);
            *reach = Reach { answered: true, refused, ..Reach::default() };
        }
        if response.status() != 200 {
            return Err(self.refusal(response, first_by).await);
        }
        let mut answer = Answer::to(call.request);
        let mut bill = Bill::open(&self.budget, self.config.prices(), place);
        match Media::of(response.headers(), self.config.stream) {
            Media::Events => {
                let read = |answer: &Answer<'_>| {
                    call.answering.store(true, Ordering::Relaxed);
                    bill.usage = Some(answer.usage());
                };
                read_stream(self.pieces(response, first_by), &mut answer, read).await?;
            }
            Media::Json => {
                let (whole, _) = collect(self.pieces(response, first_by), usize::MAX).await?;
                answer.push(parse_chunk(&whole)?)?;
            }
            Media::Other(other) => {
                let (start, _) = collect(self.pieces(response, first_by), ERROR_BYTES_MAX).await?;
                let start = String::from_utf8_lossy(&start);
                return Err(Fault::passing(format!("content type {other} where an answer was due: {start}")));
            }
        }
        bill.usage = Some(answer.usage());
        if *answer.policy() != Policy::default() {
            self.policy.lock().clone_from(answer.policy());
        }
        answer.complete(start.elapsed())
    }

    /// What an answer other than 200 says.
    async fn refusal(&self, response: Response, first_by: tokio::time::Instant) -> Fault {
        let status = response.status();
        let headers = response.headers().clone();
        if status.is_redirection() {
            return Fault::new(
                Kind::Refused,
                format!("status {}: redirects are not followed: change url", status.as_u16()),
            );
        }
        // What can be read of it will do.
        let (mut body, cut) = collect(self.pieces(response, first_by), ERROR_BYTES_MAX).await.unwrap_or_default();
        if cut {
            body.truncate(body.len().saturating_sub(ERROR_TAIL_BYTES));
        }
        let fault = Fault::of_status(status.as_u16(), &headers, &body, self.clock.utc());
        if [401, 403].contains(&status.as_u16()) {
            let refused = self.error(1, &fault).to_string();
            self.reach.lock().refused = Some(refused);
        }
        fault
    }

    /// The body, piece by piece, within the limits of time and size.
    fn pieces(
        &self,
        response: Response,
        first_by: tokio::time::Instant,
    ) -> impl Stream<Item = Result<Bytes, Fault>> + use<> {
        let (patience, idle) = (self.config.first_byte_timeout(), self.config.idle_timeout());
        let bytes_max = self.config.response_bytes_max;
        futures::stream::unfold(Some((response, None)), move |state| async move {
            let (mut response, read) = state?;
            let until = read.map_or(first_by, |_| tokio::time::Instant::now() + idle);
            let late = || match read {
                None => no_answer(patience),
                Some(_) => Fault::passing(format!("nothing came for {} ms", idle.as_millis())),
            };
            let piece = match tokio::time::timeout_at(until, response.chunk()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => return None,
                Ok(Err(error)) => return Some((Err(Fault::of_transport(error)), None)),
                Err(_) => return Some((Err(late()), None)),
            };
            let read = read.unwrap_or(0) + piece.len();
            if read > bytes_max {
                let fault = Fault::lasting(format!("the answer is larger than response_bytes_max, {bytes_max} bytes"));
                return Some((Err(fault), None));
            }
            Some((Ok(piece), Some((response, Some(read)))))
        })
    }

    /// How long to wait before the next attempt; or what the request ends with. `begun`: when the last one was.
    fn wait_after(&self, attempts: u32, begun: Instant, mut fault: Fault) -> Result<Duration, Fault> {
        let (asked, busy) = match fault.kind {
            Kind::Passing { wait, busy } => (wait, busy),
            Kind::NoConnection => (None, false),
            _ => return Err(fault),
        };
        let millis = Duration::from_millis;
        if let Some(asked) = asked.filter(|asked| *asked > millis(self.config.retry_after_ms_max)) {
            let much = format!("asks to wait {} s, more than retry_after_ms_max: ", asked.as_secs());
            fault.reason.insert_str(0, &much);
            return Err(fault);
        }
        if let (true, Some(asked)) = (busy, asked) {
            self.gate.close_for(asked);
        }
        if attempts >= self.config.attempts_max {
            return Err(fault);
        }
        let (base, max) = (millis(self.config.backoff_ms), millis(self.config.backoff_ms_max));
        let mut wait = back_off(attempts, base, max, asked, &mut self.jitter.lock());
        if fault.kind == Kind::NoConnection {
            let Some(shorter) = self.wait_for_connection(wait, begun, &fault) else { return Err(fault) };
            wait = shorter;
        }
        if self.budget.time_left().is_some_and(|left| left <= wait) {
            return Err(self.budget.out_of_time());
        }
        let (reason, wait_ms) = (self.said(&fault), wait.as_millis() as u64);
        tracing::info!(endpoint = self.name, attempts, wait_ms, reason, "the model did not answer; asking again");
        Ok(wait)
    }

    /// The wait after a connection that was not made: less than `wait` where an endpoint that has never answered would be
    /// given up before; None where it is. The first of several in a row is told.
    fn wait_for_connection(&self, wait: Duration, begun: Instant, fault: &Fault) -> Option<Duration> {
        let mut reach = self.reach.lock();
        let is_first = reach.failing_since.is_none();
        let since = *reach.failing_since.get_or_insert(begun);
        let patience = Duration::from_millis(self.config.unreachable_ms_max);
        let left = patience.saturating_sub(self.clock.now().saturating_duration_since(since));
        if !reach.answered && left.is_zero() {
            return None;
        }
        if is_first {
            let until = match reach.answered {
                true => format!("{} attempts at each request", self.config.attempts_max),
                false => format!("up to {} s", left.as_secs_f64().ceil()),
            };
            let (name, reason) = (&self.name, self.said(fault));
            tracing::warn!("endpoints.{name} at {} cannot be reached, trying again, {until}: {reason}", self.place());
        }
        Some(if reach.answered { wait } else { wait.min(left) })
    }

    /// Its URL without a query, in which some services want their key.
    fn place(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.into()
    }

    /// The error that a fault ends a request with.
    fn error(&self, attempts: u32, fault: &Fault) -> ChatError {
        let model = format!("{} (endpoints.{})", self.config.model, self.name);
        let reason = self.said(fault);
        let has_answered = self.reach.lock().answered;
        match fault.kind {
            Kind::Refused => ChatError::Refused { model, reason },
            Kind::ContextFull => ChatError::ContextFull { model, reason },
            Kind::NoConnection if !has_answered => {
                let reason = format!("{}: {reason}; it has never answered: is it up, and is url right?", self.place());
                let error = ChatError::Unreachable { model, reason };
                self.reach.lock().given_up = Some(error.to_string());
                error
            }
            Kind::Passing { .. } | Kind::NoConnection | Kind::Lasting => {
                ChatError::Unavailable { model, attempts, reason }
            }
            Kind::BudgetSpent => ChatError::BudgetSpent(reason),
        }
    }

    /// A fault's reason as others may see it. Secrets go first: a clipped key would not be known as one.
    fn said(&self, fault: &Fault) -> String {
        clip(&self.scrubber.scrub(&fault.reason))
    }
}

#[async_trait]
impl ChatModel for Endpoint {
    fn name(&self) -> &str {
        &self.config.model
    }

    fn defaults(&self) -> (Sampling, Option<u32>) {
        (self.config.sampling, self.config.max_tokens)
    }

    fn policy(&self) -> Policy {
        let said = self.policy.lock().clone();
        Policy {
            checkpoint_digest: said.checkpoint_digest.or_else(|| self.config.checkpoint_digest.clone()),
            tokenizer_digest: said.tokenizer_digest.or_else(|| self.config.tokenizer_digest.clone()),
            version: said.version,
        }
    }

    async fn complete(&self, request: &ChatRequest) -> Result<Completion, ChatError> {
        self.finish(&self.call(request)?).await
    }

    async fn complete_within(&self, request: &ChatRequest, limit: Duration) -> Result<Option<Completion>, ChatError> {
        let call = self.call(request)?;
        match tokio::time::timeout(limit, self.finish(&call)).await {
            Ok(completed) => completed.map(Some),
            Err(_) if call.answering.load(Ordering::Relaxed) => Ok(None),
            Err(_) => {
                let reason = format!("nothing was answered within the {} ms that were left", limit.as_millis());
                Err(self.error(call.attempts.load(Ordering::Relaxed), &Fault::lasting(reason)))
            }
        }
    }
}

fn client(config: &EndpointConfig, url: &Url) -> Result<Client, reqwest::Error> {
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        // The key goes to the endpoint that was configured, and no further.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(config.connect_timeout())
        .pool_max_idle_per_host(config.concurrency);
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder.build()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(domain)) => domain == "localhost",
        None => false,
    }
}

fn headers(config: &EndpointConfig, key: Option<&Secret>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"));
    let mut insert = |name: &str, value: &str| {
        let name = HeaderName::try_from(name).map_err(|e| e.to_string())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| "the key holds characters that no header can have")?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok::<_, String>(())
    };
    if let Some(key) = key {
        let bearer = config.api_key_header.eq_ignore_ascii_case(AUTHORIZATION.as_str());
        let value = if bearer { format!("Bearer {}", key.expose()) } else { key.expose().to_string() };
        insert(&config.api_key_header, &value)?;
    }
    for (name, value) in &config.headers {
        insert(name, value.expose())?;
    }
    Ok(headers)
}

/// Up to `bytes_max` bytes of a body, and whether there is more.
async fn collect(pieces: impl Stream<Item = Result<Bytes, Fault>>, bytes_max: usize) -> Result<(Vec<u8>, bool), Fault> {
    let mut pieces = std::pin::pin!(pieces);
    let mut body = Vec::new();
    while let Some(piece) = pieces.next().await {
        body.extend_from_slice(&piece?);
        if body.len() > bytes_max {
            body.truncate(bytes_max);
            return Ok((body, true));
        }
    }
    Ok((body, false))
}

fn no_answer(patience: Duration) -> Fault {
    Fault::passing(format!("no answer within {} ms", patience.as_millis()))
}

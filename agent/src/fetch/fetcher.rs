//! One URL over HTTP: redirects, retries, limits, manners; and the text of what came back.
//!
//! Redirects are followed here, not by the HTTP client: every hop is checked for scheme, scope, robots.txt and address
//! like a link is.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, StatusCode};
use url::Url;

use super::address::{Addresses, Forbidden, Lookup, SystemLookup};
use super::charset::{decode, media_type};
use super::config::FetchConfig;
use super::extract::{self, Extract};
use super::hosts::Hosts;
use super::robots::{Known, ROBOTS_BYTES_MAX, Robots, Verdict};
use super::transport::{self, describe, read, retry_after};
use super::url::{canonical, site};
use crate::format::clip;

/// Name and version that servers see.
pub const USER_AGENT: &str = concat!("webdancer/", env!("CARGO_PKG_VERSION"));
const ACCEPTED: &str = "text/html,application/xhtml+xml,text/markdown;q=0.9,text/plain;q=0.8,*/*;q=0.1";
/// Media types that text is taken from.
const READABLE: &[&str] = &["text/html", "application/xhtml+xml", "text/plain", "text/markdown"];

/// Characters of a header that are repeated.
const HEADER_CHARS_MAX: usize = 100;

/// What became of a URL.
#[derive(Debug)]
pub struct Fetched {
    /// URL after redirects.
    pub final_url: Url,
    /// HTTP status; 0 without an answer.
    pub status: u16,
    /// Media type without parameters.
    pub content_type: Option<String>,
    /// Charset of the `Content-Type`.
    pub charset: Option<String>,
    /// Milliseconds of the requests, without waits between them.
    pub fetch_ms: i64,
    /// The body without its transfer encodings, or why there is none.
    pub body: Result<Vec<u8>, String>,
}

impl Fetched {
    /// Not fetched, and why.
    pub fn refused(url: &Url, reason: String) -> Fetched {
        Fetched { final_url: url.clone(), status: 0, content_type: None, charset: None, fetch_ms: 0, body: Err(reason) }
    }
}

/// Fetches for one crawl, or for the visits of one process.
#[derive(Debug)]
pub struct Fetcher {
    client: Client,
    config: FetchConfig,
    addresses: Addresses,
    hosts: Hosts,
    robots: Known,
}

/// An answer to one request.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Result<Vec<u8>, String>,
}

/// Why a request had no answer.
enum Failure {
    /// No connection, or lost before an answer: worth another try.
    Lost(String),
    /// Not worth one.
    Final(String),
}

/// How much of a body is wanted.
#[derive(Clone, Copy)]
enum Wanted {
    /// A page: complete, of a readable type.
    Page { bytes_max: usize },
    /// The start of whatever it is.
    Start { bytes: usize },
}

impl Fetcher {
    /// A fetcher that asks the system's resolver for names.
    ///
    /// # Errors
    /// The HTTP client cannot be made here: there are no certificates to trust, say.
    pub fn new(config: FetchConfig) -> Result<Fetcher, reqwest::Error> {
        Fetcher::with_lookup(config, Arc::new(SystemLookup))
    }

    /// A fetcher that asks `names` for names. Its answers are checked like any other.
    ///
    /// # Errors
    /// As [`new`](Fetcher::new).
    pub fn with_lookup(config: FetchConfig, names: Arc<dyn Lookup>) -> Result<Fetcher, reqwest::Error> {
        let addresses = Addresses {
            any: config.allow_private,
            listed: config.allow_addresses.iter().map(std::net::IpAddr::to_canonical).collect(),
            names,
        };
        let millis = Duration::from_millis;
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))]))
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would connect for us, to addresses that nobody checked.
            .no_proxy()
            .referer(false)
            .dns_resolver(Arc::new(addresses.clone()))
            .connect_timeout(millis(config.connect_timeout_ms))
            .read_timeout(millis(config.read_timeout_ms))
            .pool_max_idle_per_host(config.connections_per_host)
            .build()?;
        let hosts = Hosts::new(config.connections_per_host, config.delay());
        Ok(Fetcher { client, config, addresses, hosts, robots: Known::default() })
    }

    /// The limits.
    pub fn config(&self) -> &FetchConfig {
        &self.config
    }

    /// What robots.txt of the URL's origin says about it; read once per origin. A `Crawl-delay` takes effect with it.
    pub async fn verdict(&self, url: &Url) -> Verdict {
        if !self.config.robots {
            return Verdict::Allowed;
        }
        let origin = self.robots.origin(url);
        let robots = origin.get_or_init(|| self.read_robots(url)).await;
        if let Some(delay) = robots.delay(Duration::from_millis(self.config.crawl_delay_ms_max)) {
            self.hosts.host(&site(url)).slow_down(delay);
        }
        robots.verdict(url)
    }

    async fn read_robots(&self, url: &Url) -> Robots {
        let Ok(mut at) = url.join("/robots.txt") else { return Robots::None };
        let wanted = Wanted::Start { bytes: ROBOTS_BYTES_MAX };
        for _ in 0..=self.config.redirects_max {
            let answer = match self.answer(&at, wanted).await {
                Ok((answer, _)) => answer,
                Err(reason) => return Robots::Unreachable(reason),
            };
            match answer.status.as_u16() {
                200..=299 => return self.parse_robots(answer.body).await,
                300..=399 => match next_hop(&at, &answer.headers) {
                    Some(next) => at = next,
                    None => return Robots::None,
                },
                429 | 500..=599 => return Robots::Unreachable(format!("status {}", answer.status.as_u16())),
                _ => return Robots::None,
            }
        }
        // RFC 9309 section 2.3.1.2: too many redirects count as no robots.txt.
        Robots::None
    }

    async fn parse_robots(&self, body: Result<Vec<u8>, String>) -> Robots {
        let body = match body {
            Ok(body) => body,
            Err(reason) => return Robots::Unreachable(reason),
        };
        self.robots.count(body.len());
        let parsed = tokio::task::spawn_blocking(move || Robots::parse(&body)).await;
        parsed.unwrap_or_else(|_| Robots::Unreachable("it could not be parsed".to_string()))
    }

    /// Fetches `url`; whether robots.txt allows it has been asked before. Redirects are followed to where `in_scope`
    /// says, and where robots.txt does not forbid it.
    pub async fn fetch(&self, url: &Url, in_scope: &(dyn Fn(&Url) -> bool + Sync)) -> Fetched {
        let mut fetched = Fetched::refused(url, String::new());
        fetched.body = self.follow(url, in_scope, &mut fetched).await;
        fetched
    }

    /// Takes the body out of `fetched` and reads it.
    ///
    /// # Errors
    /// There is no body, or no text can be made of it; said in words.
    pub async fn extract(&self, fetched: &mut Fetched) -> Result<Extract, String> {
        let body = std::mem::replace(&mut fetched.body, Ok(Vec::new()))?;
        let url = fetched.final_url.clone();
        let charset = fetched.charset.clone();
        let media = fetched.content_type.clone();
        let limits = extract::Limits {
            links_max: self.config.links_max,
            parse_time_max: Duration::from_millis(self.config.parse_timeout_ms),
        };
        let work = move || match media.as_deref() {
            Some("text/plain") => Ok(extract::plain(&decode(&body, charset.as_deref(), false), false)),
            Some("text/markdown") => Ok(extract::plain(&decode(&body, charset.as_deref(), false), true)),
            _ => extract::html(&decode(&body, charset.as_deref(), true), &url, limits),
        };
        // A parser that fails on one page must not end the work on the others.
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err("the document could not be parsed".to_string()))
    }

    async fn follow(
        &self,
        url: &Url,
        in_scope: &(dyn Fn(&Url) -> bool + Sync),
        fetched: &mut Fetched,
    ) -> Result<Vec<u8>, String> {
        let wanted = Wanted::Page { bytes_max: self.config.body_bytes_max };
        let mut at = url.clone();
        for _ in 0..=self.config.redirects_max {
            let (answer, ms) = self.answer(&at, wanted).await?;
            fetched.fetch_ms += ms;
            fetched.status = answer.status.as_u16();
            if !answer.status.is_redirection() {
                let value = answer.headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
                if let Some((media, charset)) = value.as_deref().map(media_type) {
                    fetched.content_type = Some(media).filter(|media| !media.is_empty());
                    fetched.charset = charset;
                }
                return answer.body;
            }
            let next = next_hop(&at, &answer.headers)
                .ok_or_else(|| format!("status {} without a Location that can be followed", fetched.status))?;
            if !in_scope(&next) {
                return Err(format!("redirects to {next}, which is out of scope"));
            }
            self.addresses.check(&next).map_err(|forbidden| format!("redirects to {next}: {forbidden}"))?;
            if let Some(refusal) = self.verdict(&next).await.refusal() {
                return Err(format!("redirects to {next}: {refusal}"));
            }
            if let Some(next) = canonical(&next) {
                fetched.final_url = next;
            }
            at = next;
        }
        Err(format!("more than {} redirects", self.config.redirects_max))
    }

    /// The answer to a GET, after retries, and the milliseconds of the last try.
    async fn answer(&self, url: &Url, wanted: Wanted) -> Result<(Answer, i64), String> {
        self.addresses.check(url).map_err(|forbidden| forbidden.to_string())?;
        let host = self.hosts.host(&site(url));
        let mut tries = 0;
        loop {
            let (result, took) = {
                let _turn = host.turn().await;
                let start = Instant::now();
                let timeout = Duration::from_millis(self.config.request_timeout_ms);
                let late = || Failure::Final(format!("no complete answer within {} ms", timeout.as_millis()));
                let result = tokio::time::timeout(timeout, self.request(url, wanted)).await;
                (result.unwrap_or_else(|_| Err(late())), start.elapsed())
            };
            let again = tries < self.config.retries_max;
            let wait = match &result {
                Ok(answer) if again && matches!(answer.status.as_u16(), 429 | 503) => {
                    Some(retry_after(&answer.headers).map_or_else(|| self.backoff(url, tries), |wait| self.cap(wait)))
                }
                Err(Failure::Lost(_)) if again => Some(self.backoff(url, tries)),
                _ => None,
            };
            match (wait, result) {
                (Some(wait), _) => host.back_off(wait),
                (None, Ok(answer)) => return Ok((answer, i64::try_from(took.as_millis()).unwrap_or(i64::MAX))),
                (None, Err(Failure::Lost(reason) | Failure::Final(reason))) => return Err(reason),
            }
            tries += 1;
        }
    }

    async fn request(&self, url: &Url, wanted: Wanted) -> Result<Answer, Failure> {
        let mut response = self.client.get(url.clone()).send().await.map_err(|error| self.failure(error))?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let body = match (status.is_success(), wanted) {
            (false, _) => Err(format!("status {}", status.as_u16())),
            (true, Wanted::Start { bytes }) => read(&mut response, bytes).await.map(|(body, _)| body),
            (true, Wanted::Page { bytes_max }) => match unreadable(&headers) {
                Some(reason) => Err(reason),
                None => match read(&mut response, bytes_max).await {
                    Ok((_, true)) => Err(format!("larger than {bytes_max} bytes")),
                    Ok((body, false)) => Ok(body),
                    Err(reason) => Err(reason),
                },
            },
        };
        Ok(Answer { status, headers, body })
    }

    fn failure(&self, error: reqwest::Error) -> Failure {
        let error = error.without_url();
        let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
        if let Some(forbidden) = causes.find_map(|cause| cause.downcast_ref::<Forbidden>()) {
            return Failure::Final(forbidden.to_string());
        }
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => Failure::Lost(format!("no connection within {} ms", self.config.connect_timeout_ms)),
            (false, true) => Failure::Final(describe(&error)),
            (_, false) => Failure::Lost(describe(&error)),
        }
    }

    /// Wait before the next try: doubled each time, half of it spread by the URL so that hosts are not met in step.
    fn backoff(&self, url: &Url, tries: u32) -> Duration {
        self.cap(transport::backoff(self.config.backoff_ms, url.as_str(), tries))
    }

    fn cap(&self, wait: Duration) -> Duration {
        wait.min(Duration::from_millis(self.config.backoff_ms_max))
    }
}

/// Why no text can be taken from what these headers announce.
fn unreadable(headers: &HeaderMap) -> Option<String> {
    // The client takes off the encodings that it asked for, and the header with them.
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(encoding) = encodings.find(|encoding| !encoding.trim().eq_ignore_ascii_case("identity")) {
        return Some(format!("its encoding is {}, which was not asked for", clip(&encoding, HEADER_CHARS_MAX)));
    }
    // Servers that leave the type out mostly mean HTML.
    let value = headers.get(CONTENT_TYPE)?;
    let (media, _) = media_type(&String::from_utf8_lossy(value.as_bytes()));
    let readable = media.is_empty() || READABLE.contains(&media.as_str());
    (!readable).then(|| format!("no text is taken from {}", clip(&media, HEADER_CHARS_MAX)))
}

fn next_hop(at: &Url, headers: &HeaderMap) -> Option<Url> {
    let location = String::from_utf8_lossy(headers.get(LOCATION)?.as_bytes()).into_owned();
    let mut next = at.join(location.trim()).ok()?;
    next.set_fragment(None);
    canonical(&next).map(|_| next)
}

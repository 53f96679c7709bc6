//! What fetching may cost, and manners towards hosts: every limit with its default.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits and manners of fetching. The defaults suit a site of somebody else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchConfig {
    /// Obey robots.txt. True by default.
    pub robots: bool,
    /// Connections to one host. 1 by default.
    pub connections_per_host: usize,
    /// From the end of a request to the start of the next one to the same host. 500 by default; a longer
    /// `Crawl-delay` in robots.txt wins.
    pub delay_ms: u64,
    /// Longest `Crawl-delay` that is obeyed to the letter; longer ones become this. 60,000 by default.
    pub crawl_delay_ms_max: u64,
    /// Redirects followed per URL. 5 by default.
    pub redirects_max: usize,
    /// Times a request is repeated after 429, 503 or a connection that failed or was lost. 3 by default.
    pub retries_max: u32,
    /// Wait before the first repetition, doubled with each, half of it spread. 500 by default.
    pub backoff_ms: u64,
    /// Longest wait before a repetition, also where `Retry-After` asks for more. 30,000 by default.
    pub backoff_ms_max: u64,
    /// Time to connect. 10,000 by default.
    pub connect_timeout_ms: u64,
    /// Time without a byte. 15,000 by default.
    pub read_timeout_ms: u64,
    /// Time of one request to its last byte. 60,000 by default.
    pub request_timeout_ms: u64,
    /// Time to parse one page. 10,000 by default.
    pub parse_timeout_ms: u64,
    /// Bytes of a page after decompression; reading stops there and the page has no text. 5 MiB by default.
    pub body_bytes_max: usize,
    /// Links taken from a page. 10,000 by default.
    pub links_max: usize,
    /// Connect to private, loopback and reserved addresses too.
    pub allow_private: bool,
    /// Addresses to connect to though they are not public.
    pub allow_addresses: Vec<IpAddr>,
}

impl Default for FetchConfig {
    fn default() -> FetchConfig {
        FetchConfig {
            robots: true,
            connections_per_host: 1,
            delay_ms: 500,
            crawl_delay_ms_max: 60_000,
            redirects_max: 5,
            retries_max: 3,
            backoff_ms: 500,
            backoff_ms_max: 30_000,
            connect_timeout_ms: 10_000,
            read_timeout_ms: 15_000,
            request_timeout_ms: 60_000,
            parse_timeout_ms: 10_000,
            body_bytes_max: 5 << 20,
            links_max: 10_000,
            allow_private: false,
            allow_addresses: Vec::new(),
        }
    }
}

impl FetchConfig {
    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

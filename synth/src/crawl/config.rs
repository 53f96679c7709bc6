//! What a crawl may do: every limit with its default.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::url::site;

/// Which links are followed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those to the hosts (and ports) of the roots, and to the host that a root redirects to.
    #[default]
    SameHost,
    /// Those to these hosts besides; `name` or `name:port`.
    Hosts(Vec<String>),
    /// All.
    Any,
}

/// Limits and manners of a crawl. The defaults suit a site of somebody else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrawlConfig {
    /// Links followed from a root; 0 fetches the roots only. 5 by default.
    pub depth_max: u32,
    /// URLs recorded, whatever became of them. 10,000 by default.
    pub pages_max: u64,
    /// URLs known and not fetched yet; further ones are dropped and counted. 1,000,000 by default.
    pub frontier_max: usize,
    /// Which links are followed.
    pub scope: Scope,
    /// Pages fetched at once. 8 by default.
    pub concurrency: usize,
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
    /// Bytes of a page after decompression; reading stops there and the page is recorded without text. 5 MiB by
    /// default.
    pub body_bytes_max: usize,
    /// Links recorded per page. 10,000 by default.
    pub links_max: usize,
    /// Pages appended to the log at once. 64 by default.
    pub batch_pages: usize,
    /// Longest time that a fetched page waits for its batch. 200 by default.
    pub batch_ms: u64,
    /// Connect to private, loopback and reserved addresses too.
    pub allow_private: bool,
    /// Addresses to connect to though they are not public.
    pub allow_addresses: Vec<IpAddr>,
    /// Folder that holds the state for resuming. Without one a crawl that is killed starts again.
    #[serde(skip)]
    pub state_folder: Option<PathBuf>,
}

impl Default for CrawlConfig {
    fn default() -> CrawlConfig {
        CrawlConfig {
            depth_max: 5,
            pages_max: 10_000,
            frontier_max: 1_000_000,
            scope: Scope::SameHost,
            concurrency: 8,
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
            batch_pages: 64,
            batch_ms: 200,
            allow_private: false,
            allow_addresses: Vec::new(),
            state_folder: None,
        }
    }
}

impl CrawlConfig {
    /// No delays and `connections` at once to one host: for a site of one's own. robots.txt is obeyed all the same.
    #[must_use]
    pub fn impolite(mut self, connections: usize) -> CrawlConfig {
        self.delay_ms = 0;
        self.concurrency = connections;
        self.connections_per_host = connections;
        self
    }

    /// What decides which pages are fetched: the same roots and this give the same pages, whatever the manners.
    pub(super) fn identity(&self, roots: &[Url]) -> String {
        let deciding = serde_json::json!({
            "roots": roots,
            "depth_max": self.depth_max,
            "pages_max": self.pages_max,
            "frontier_max": self.frontier_max,
            "scope": self.scope,
            "redirects_max": self.redirects_max,
            "body_bytes_max": self.body_bytes_max,
            "links_max": self.links_max,
            "allow_private": self.allow_private,
            "allow_addresses": self.allow_addresses,
        });
        super::extract::sha256_hex(deciding.to_string().as_bytes())
    }

    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

/// The sites that links are followed to.
#[derive(Debug, Clone)]
pub(super) struct Sites {
    /// None: all.
    sites: Option<Vec<String>>,
}

impl Sites {
    pub(super) fn new(scope: &Scope, roots: &[Url]) -> Sites {
        let mut sites: Vec<String> = roots.iter().map(site).collect();
        match scope {
            Scope::SameHost => {}
            Scope::Hosts(hosts) => sites.extend(hosts.iter().map(|host| host.to_ascii_lowercase())),
            Scope::Any => return Sites { sites: None },
        }
        Sites { sites: Some(sites) }
    }

    pub(super) fn contain(&self, url: &Url) -> bool {
        self.sites.as_ref().is_none_or(|sites| sites.contains(&site(url)))
    }

    pub(super) fn add(&mut self, url: &Url) {
        if let Some(sites) = self.sites.as_mut().filter(|sites| !sites.contains(&site(url))) {
            sites.push(site(url));
        }
    }
}

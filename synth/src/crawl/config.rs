//! What a crawl may do: every limit with its default.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::Url;
use webdancer_agent::fetch::FetchConfig;
use webdancer_agent::fetch::url::site;

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
    /// How pages are fetched.
    pub fetch: FetchConfig,
    /// Pages appended to the log at once. 64 by default.
    pub batch_pages: usize,
    /// Longest time that a fetched page waits for its batch. 200 by default.
    pub batch_ms: u64,
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
            fetch: FetchConfig::default(),
            batch_pages: 64,
            batch_ms: 200,
            state_folder: None,
        }
    }
}

impl CrawlConfig {
    /// No delays and `connections` at once to one host: for a site of one's own. robots.txt is obeyed all the same.
    #[must_use]
    pub fn impolite(mut self, connections: usize) -> CrawlConfig {
        self.fetch.delay_ms = 0;
        self.concurrency = connections;
        self.fetch.connections_per_host = connections;
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
            "redirects_max": self.fetch.redirects_max,
            "body_bytes_max": self.fetch.body_bytes_max,
            "links_max": self.fetch.links_max,
            "allow_private": self.fetch.allow_private,
            "allow_addresses": self.fetch.allow_addresses,
        });
        format!("{:x}", Sha256::digest(deciding.to_string()))
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

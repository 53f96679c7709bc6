//! The live web as `webdancer.toml` describes it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::live::Live;
use crate::fetch::{FetchConfig, Fetcher};
use crate::index::PageIndex;
use crate::secret::Secret;
use crate::tool::direct::Direct;
use crate::tool::jina::{self, Jina};
use crate::tool::search::SearchEngine;
use crate::tool::searxng::Searxng;
use crate::tool::serper::{self, Serper};
use crate::tool::service::{ServiceConfig, ServiceError};
use crate::tool::summary::Summariser;
use crate::tool::visit::PageSource;
use crate::tool::{BackEnds, ObservationLimits, Tools, Toolset};

/// `[web]`: which services the tools use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebConfig {
    /// Where queries go.
    pub search: SearchConfig,
    /// Where pages come from.
    pub visit: VisitConfig,
    /// Pages of the lake, for `engine = "pages"`, `reader = "pages"` and closed webs.
    pub pages: PagesConfig,
}

/// `[web.pages]`: pages of the lake that are searched and visited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PagesConfig {
    /// The pin that the live web's pages are of. By default the table `pages` as it is when a run begins.
    pub pin: Option<String>,
    /// Pages that are read into memory. 500,000 by default.
    pub rows_max: u64,
    /// Bytes of them: URLs, titles and texts. 2 GiB by default.
    pub bytes_max: u64,
}

impl Default for PagesConfig {
    fn default() -> PagesConfig {
        PagesConfig { pin: None, rows_max: 500_000, bytes_max: 2 << 30 }
    }
}

/// `[web.search]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchConfig {
    /// Which engine.
    pub engine: Engine,
    /// Where it is: a SearXNG instance's start page; Serper's own address by default.
    pub url: Option<String>,
    /// Environment variable that holds Serper's key. `SERPER_API_KEY` by default.
    pub key_env: Option<String>,
    /// File that holds the key instead.
    pub key_file: Option<PathBuf>,
    /// Country that Serper searches from, two letters.
    pub country: Option<String>,
    /// Language of the results, such as `en`.
    pub language: Option<String>,
    /// Limits of the requests.
    pub requests: ServiceConfig,
}

/// A search engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Google, by way of serper.dev.
    #[default]
    Serper,
    /// A SearXNG instance.
    Searxng,
    /// The full-text index of pages handed in, those of `[web.pages]`.
    Pages,
}

/// `[web.visit]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VisitConfig {
    /// Who reads pages.
    pub reader: Reader,
    /// Where Jina Reader is; its own address by default.
    pub url: Option<String>,
    /// Environment variable that holds Jina's key. `JINA_API_KEY` by default; without one the service is slow.
    pub key_env: Option<String>,
    /// File that holds the key instead.
    pub key_file: Option<PathBuf>,
    /// Limits of the requests to Jina Reader.
    pub requests: ServiceConfig,
    /// Time for a page that is fetched from here, with its redirects and retries. 60,000 by default.
    pub page_time_ms_max: u64,
    /// Limits and manners of fetching from here.
    pub fetch: FetchConfig,
}

impl Default for VisitConfig {
    fn default() -> VisitConfig {
        VisitConfig {
            reader: Reader::default(),
            url: None,
            key_env: None,
            key_file: None,
            requests: ServiceConfig::default(),
            page_time_ms_max: 60_000,
            fetch: FetchConfig::default(),
        }
    }
}

/// Who reads pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reader {
    /// They are fetched from here.
    #[default]
    Direct,
    /// Jina Reader.
    Jina,
    /// They are among the pages handed in, those of `[web.pages]`.
    Pages,
}

/// Why there is no live web, by what to change in the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// Give the key.
    #[error("{section}: there is no key: {reason}")]
    Key {
        /// Section of the settings.
        section: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Give the address.
    #[error("web.search.url is missing: give the start page of the SearXNG instance")]
    NoUrl,
    /// Hand in pages.
    #[error("{0} is \"pages\", and there are no pages: choose another, or name a pin of pages")]
    NoPages(&'static str),
    /// Correct what the message names.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Report it.
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
}

impl WebConfig {
    /// Whether queries or visits go to pages that are handed in.
    pub fn uses_pages(&self) -> bool {
        self.search.engine == Engine::Pages || self.visit.reader == Reader::Pages
    }

    /// The live web of these settings. `pages` are those that `engine = "pages"` and `reader = "pages"` use.
    ///
    /// # Errors
    /// What the settings lack.
    pub fn live(
        &self,
        limits: &ObservationLimits,
        pages: Option<Arc<PageIndex>>,
        summariser: Option<Arc<Summariser>>,
    ) -> Result<Live, WebError> {
        let engine = self.search.engine(pages.clone())?;
        let source = self.visit.source(pages)?;
        let back_ends = BackEnds::new(engine, source, limits.clone()).summarised_by(summariser);
        Ok(Live::new(Toolset::new(Tools::standard(), back_ends)))
    }
}

impl SearchConfig {
    fn engine(&self, pages: Option<Arc<PageIndex>>) -> Result<Arc<dyn SearchEngine>, WebError> {
        Ok(match self.engine {
            Engine::Serper => {
                let key = key(self.key_env.as_deref(), self.key_file.as_ref(), "SERPER_API_KEY");
                let key = key.map_err(|reason| WebError::Key { section: "web.search", reason })?;
                let serper = Serper::new(self.url.as_deref().unwrap_or(serper::URL), key, self.requests.clone())?;
                Arc::new(serper.located(self.country.clone(), self.language.clone()))
            }
            Engine::Searxng => {
                let url = self.url.as_deref().ok_or(WebError::NoUrl)?;
                Arc::new(Searxng::new(url, self.requests.clone())?.in_language(self.language.clone()))
            }
            Engine::Pages => pages.ok_or(WebError::NoPages("web.search.engine"))?,
        })
    }
}

impl VisitConfig {
    fn source(&self, pages: Option<Arc<PageIndex>>) -> Result<Arc<dyn PageSource>, WebError> {
        Ok(match self.reader {
            Reader::Direct => {
                let fetcher = Fetcher::new(self.fetch.clone()).map_err(|e| WebError::Client(e.to_string()))?;
                Arc::new(Direct::new(Arc::new(fetcher), Duration::from_millis(self.page_time_ms_max)))
            }
            Reader::Jina => {
                let found = key(self.key_env.as_deref(), self.key_file.as_ref(), "JINA_API_KEY");
                let asked_for = self.key_env.is_some() || self.key_file.is_some();
                let key = match found {
                    Err(reason) if asked_for => return Err(WebError::Key { section: "web.visit", reason }),
                    found => found.ok(),
                };
                Arc::new(Jina::new(self.url.as_deref().unwrap_or(jina::URL), key, self.requests.clone())?)
            }
            Reader::Pages => pages.ok_or(WebError::NoPages("web.visit.reader"))?,
        })
    }
}

fn key(env: Option<&str>, file: Option<&PathBuf>, default_env: &str) -> Result<Secret, String> {
    match (file, env) {
        (Some(file), _) => Secret::from_file(file),
        (None, Some(env)) => Secret::from_env(env),
        (None, None) => Secret::from_env(default_env).map_err(|_| format!("set {default_env}, or name a key_file")),
    }
}

//! SearXNG: an instance of one's own, <https://docs.searxng.org/dev/search_api.html>. Its settings must allow the
//! format `json`.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::search::{EngineFailed, Hit, SearchEngine};
use super::service::{NoAnswer, Service, ServiceConfig, ServiceError};

/// A SearXNG instance as a search engine.
#[derive(Debug)]
pub struct Searxng {
    service: Service,
    url: Url,
    language: Option<String>,
}

/// What it answers; the rest is not used.
#[derive(Deserialize)]
struct Results {
    results: Vec<Found>,
    /// Pairs of an engine and what is wrong with it.
    #[serde(default)]
    unresponsive_engines: Vec<Value>,
}

#[derive(Deserialize)]
struct Found {
    url: String,
    #[serde(default)]
    title: String,
    content: Option<String>,
    #[serde(rename = "publishedDate")]
    published: Option<String>,
}

impl Searxng {
    /// The instance whose start page is at `url`.
    ///
    /// # Errors
    /// `url` is no http or https URL, or there is no HTTP client here.
    pub fn new(url: &str, config: ServiceConfig) -> Result<Searxng, ServiceError> {
        // It is not repeated: there may be a password in it.
        let wrong = || ServiceError("searxng: its URL is none of http or https; give the instance's start page".into());
        let mut base = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(wrong)?;
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let service = Service::new("searxng", url, config, None)?;
        let url = base.join("search").map_err(|_| wrong())?;
        Ok(Searxng { service, url, language: None })
    }

    /// Searches in this language, such as `en` or `zh-CN`.
    #[must_use]
    pub fn in_language(mut self, language: Option<String>) -> Searxng {
        self.language = language;
        self
    }
}

#[async_trait]
impl SearchEngine for Searxng {
    async fn search(&self, query: &str, results_max: usize) -> Result<Vec<Hit>, EngineFailed> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("q", query).append_pair("format", "json");
        if let Some(language) = &self.language {
            url.query_pairs_mut().append_pair("language", language);
        }
        let failed = |reason: String| EngineFailed(self.service.error(&reason));
        let answer = self.service.ask(query, |client| client.get(url.clone())).await;
        let answer = answer.map_err(NoAnswer::reason).map_err(EngineFailed)?;
        match answer.status {
            200..=299 => {}
            403 => {
                return Err(failed(format!(
                    "{}; add json to search.formats in its settings.yml",
                    self.service.reason(&answer)
                )));
            }
            _ => return Err(failed(self.service.reason(&answer))),
        }
        let found: Results =
            serde_json::from_slice(&answer.body).map_err(|e| failed(format!("not the JSON that is expected: {e}")))?;
        if found.results.is_empty() && !found.unresponsive_engines.is_empty() {
            let engines = Value::from(found.unresponsive_engines).to_string();
            return Err(failed(format!("no engine of the instance answered: {engines}")));
        }
        let hits = found.results.into_iter().take(results_max);
        Ok(hits
            .map(|hit| Hit {
                title: hit.title,
                url: hit.url,
                date: hit.published,
                source: None,
                snippet: hit.content.unwrap_or_default(),
            })
            .collect())
    }
}

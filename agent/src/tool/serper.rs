//! Serper: Google's results as JSON, <https://serper.dev>.

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderName};
use serde::Deserialize;
use serde_json::json;

use super::search::{EngineFailed, Hit, SearchEngine};
use super::service::{NoAnswer, Service, ServiceConfig, ServiceError};
use crate::secret::Secret;

/// Where the service is.
pub const URL: &str = "https://google.serper.dev/search";

/// Serper as a search engine.
#[derive(Debug)]
pub struct Serper {
    service: Service,
    url: String,
    country: Option<String>,
    language: Option<String>,
}

/// What it answers; the rest is not used.
#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    organic: Vec<Organic>,
}

#[derive(Deserialize)]
struct Organic {
    #[serde(default)]
    title: String,
    link: String,
    #[serde(default)]
    snippet: String,
    date: Option<String>,
    source: Option<String>,
}

impl Serper {
    /// Asks at `url`, which is [`URL`] but for a gateway of one's own.
    ///
    /// # Errors
    /// The key cannot be sent, or there is no HTTP client here.
    pub fn new(url: &str, key: Secret, config: ServiceConfig) -> Result<Serper, ServiceError> {
        let key = Some((key, HeaderName::from_static("x-api-key"), ""));
        Ok(Serper {
            service: Service::new("serper", url, config, key)?,
            url: url.to_string(),
            country: None,
            language: None,
        })
    }

    /// Searches as from this country (`gl`) and in this language (`hl`), two letters each.
    #[must_use]
    pub fn located(mut self, country: Option<String>, language: Option<String>) -> Serper {
        self.country = country;
        self.language = language;
        self
    }
}

#[async_trait]
impl SearchEngine for Serper {
    async fn search(&self, query: &str, results_max: usize) -> Result<Vec<Hit>, EngineFailed> {
        let mut body = json!({"q": query, "num": results_max});
        for (name, value) in [("gl", &self.country), ("hl", &self.language)] {
            if let (Some(value), Some(members)) = (value, body.as_object_mut()) {
                members.insert(name.to_string(), value.as_str().into());
            }
        }
        let body = body.to_string();
        let request = |client: &reqwest::Client| {
            client.post(&self.url).header(CONTENT_TYPE, "application/json").body(body.clone())
        };
        let answer = self.service.ask(query, request).await.map_err(NoAnswer::reason).map_err(EngineFailed)?;
        if !answer.is_success() {
            return Err(EngineFailed(self.service.error(&self.service.reason(&answer))));
        }
        let results: Results = serde_json::from_slice(&answer.body)
            .map_err(|e| EngineFailed(self.service.error(&format!("not the JSON that is expected: {e}"))))?;
        let hits = results.organic.into_iter().take(results_max);
        Ok(hits
            .map(|hit| Hit {
                title: hit.title,
                url: hit.link,
                date: hit.date,
                source: hit.source,
                snippet: hit.snippet,
            })
            .collect())
    }
}

//! Jina Reader: pages as Markdown, <https://jina.ai/reader>. The service fetches, so no connection to the page is made
//! from here.

use async_trait::async_trait;
use reqwest::header::{ACCEPT, AUTHORIZATION};
use serde::Deserialize;
use url::Url;

use super::service::{Answer, NoAnswer, Service, ServiceConfig, ServiceError};
use super::visit::{PageFailed, PageSource, PageText};
use crate::secret::Secret;

/// Where the service is; the page's URL is put after it.
pub const URL: &str = "https://r.jina.ai/";
/// Statuses that say something about the page: it is refused, gone, blocked, empty, or answers too late.
const OF_THE_PAGE: &[u16] = &[400, 404, 408, 409, 410, 422, 451, 504, 524];

/// Jina Reader as a source of pages.
#[derive(Debug)]
pub struct Jina {
    service: Service,
    url: String,
}

/// What it answers; the rest is not used.
#[derive(Deserialize)]
struct Read {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    title: Option<String>,
    content: Option<String>,
}

impl Jina {
    /// Asks at `url`, which is [`URL`] but for an instance of one's own. Without a key the service is slow.
    ///
    /// # Errors
    /// The key cannot be sent, or there is no HTTP client here.
    pub fn new(url: &str, key: Option<Secret>, config: ServiceConfig) -> Result<Jina, ServiceError> {
        let key = key.map(|key| (key, AUTHORIZATION, "Bearer "));
        Ok(Jina { service: Service::new("jina", url, config, key)?, url: format!("{}/", url.trim_end_matches('/')) })
    }

    fn read(&self, answer: &Answer) -> Result<PageText, PageFailed> {
        if OF_THE_PAGE.contains(&answer.status) {
            return Err(PageFailed::Unreachable(format!("the reader got nothing, status {}", answer.status)));
        }
        if !answer.is_success() {
            return Err(PageFailed::Outage(self.service.error(&self.service.reason(answer))));
        }
        let read: Read = serde_json::from_slice(&answer.body)
            .map_err(|e| PageFailed::Outage(self.service.error(&format!("not the JSON that is expected: {e}"))))?;
        match read.data.content.filter(|content| !content.trim().is_empty()) {
            Some(text) => Ok(PageText { title: read.data.title, text }),
            None => Err(PageFailed::Unreachable("the page has no text".to_string())),
        }
    }
}

#[async_trait]
impl PageSource for Jina {
    async fn page(&self, url: &Url) -> Result<PageText, PageFailed> {
        let at = format!("{}{url}", self.url);
        let request = |client: &reqwest::Client| client.get(&at).header(ACCEPT, "application/json");
        match self.service.ask(url.as_str(), request).await {
            Ok(answer) => self.read(&answer),
            Err(NoAnswer::Failed { status: Some(status), .. }) if OF_THE_PAGE.contains(&status) => {
                Err(PageFailed::Unreachable(format!("the reader got nothing, status {status}")))
            }
            Err(NoAnswer::TooLarge(_)) => Err(PageFailed::Unreachable("the page is too large".to_string())),
            Err(NoAnswer::Failed { reason, .. }) => Err(PageFailed::Outage(reason)),
        }
    }
}

//! Pages fetched from where they are, by the [guarded fetcher](crate::fetch).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

use super::visit::{PageFailed, PageSource, PageText};
use crate::fetch::Fetcher;

/// The fetcher as a source of pages.
#[derive(Debug)]
pub struct Direct {
    fetcher: Arc<Fetcher>,
    page_time_max: Duration,
}

impl Direct {
    /// Pages by `fetcher`; one that takes longer than `page_time_max`, with its redirects and retries, is given up.
    pub fn new(fetcher: Arc<Fetcher>, page_time_max: Duration) -> Direct {
        Direct { fetcher, page_time_max }
    }

    async fn fetch(&self, url: &Url) -> Result<PageText, String> {
        if let Some(refusal) = self.fetcher.verdict(url).await.refusal() {
            return Err(refusal);
        }
        let mut fetched = self.fetcher.fetch(url, &|_| true).await;
        let extract = self.fetcher.extract(&mut fetched).await?;
        let text = extract.text.ok_or("the page has no text")?;
        Ok(PageText { title: extract.title, text })
    }
}

#[async_trait]
impl PageSource for Direct {
    async fn page(&self, url: &Url) -> Result<PageText, PageFailed> {
        let fetched = tokio::time::timeout(self.page_time_max, self.fetch(url)).await;
        let late = || Err(format!("it did not come within {} ms", self.page_time_max.as_millis()));
        // Whatever a page does, it is the page's doing: nothing that fails here is an outage of ours.
        fetched.unwrap_or_else(|_| late()).map_err(PageFailed::Unreachable)
    }
}

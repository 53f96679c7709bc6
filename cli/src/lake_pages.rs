//! Pages of the lake that webs are made of: a pin's, or those of the table as it was when a run began.

use std::fmt;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use webdancer_agent::index::PageIndex;
use webdancer_agent::web::batches;
use webdancer_agent::web::config::PagesConfig;
use webdancer_lake::LakeError;
use webdancer_query::{PinManifest, QueryOptions, pin};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::Page;

use crate::context::Context;
use crate::failure::Failure;

/// Which pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LakePages {
    /// Those of the pin of this digest.
    Pin(String),
    /// Those of the table `pages` at this version.
    Version(u64),
}

impl fmt::Display for LakePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LakePages::Pin(digest) => write!(f, "pin:{digest}"),
            LakePages::Version(version) => write!(f, "pages@{version}"),
        }
    }
}

impl LakePages {
    /// The pages that the settings name for the live web.
    pub(crate) async fn of_settings(context: &Context) -> Result<LakePages, Failure> {
        if let Some(name) = &context.config.web.pages.pin {
            return Ok(LakePages::Pin(find_pin(context, name).await.map_err(|e| e.about("web.pages.pin"))?.digest));
        }
        match context.lake.table(Kind::Page).await? {
            Some(table) => Ok(LakePages::Version(table.version())),
            None => Err(Failure::usage(
                "the settings of [web] want pages of the lake, and it has none: crawl some, or choose another engine and reader",
            )),
        }
    }

    /// Reads and indexes them, within the limits of `[web.pages]`.
    pub(crate) async fn index(&self, context: &Context) -> Result<PageIndex, Failure> {
        let pages = self.read(context).await?;
        if pages.is_empty() {
            return Err(Failure::usage(format!("{self} holds no pages")));
        }
        PageIndex::in_memory(pages).map_err(|e| Failure::failed(format!("indexing {self}: {e}")))
    }

    async fn read(&self, context: &Context) -> Result<Vec<Page>, Failure> {
        let mut room = Room { what: self.to_string(), limits: &context.config.web.pages, rows: 0, bytes: 0 };
        let mut found = Vec::new();
        match self {
            LakePages::Pin(digest) => {
                let manifest = find_pin(context, digest).await?;
                room.what = format!("pin {}", manifest.name);
                let mut batches = std::pin::pin!(pin::read(&context.lake, &manifest));
                while let Some(batch) = batches.next().await {
                    room.take(&batch?, &mut found)?;
                }
            }
            LakePages::Version(version) => {
                // Of several fetches of a URL the first counts: the newest that got a text.
                let sql = format!(
                    "SELECT url, final_url, title, text, error FROM at('pages', {version}) \
                     ORDER BY text IS NULL, event_time DESC, event_id"
                );
                let mut batches = context.job_engine()?.query(&sql, &QueryOptions::default()).await?;
                while let Some(batch) = batches.next().await {
                    room.take(&batch?, &mut found)?;
                }
            }
        }
        Ok(found)
    }
}

/// The pin of this name or digest.
///
/// # Errors
/// Wrong usage, where there is none.
pub(crate) async fn find_pin(context: &Context, name: &str) -> Result<PinManifest, Failure> {
    context.lake.find_pin(name).await.map_err(|error| match error {
        LakeError::NotFound(message) => Failure::usage(message),
        other => other.into(),
    })
}

/// What has been read of pages, and how much may be.
struct Room<'a> {
    what: String,
    limits: &'a PagesConfig,
    rows: u64,
    bytes: u64,
}

impl Room<'_> {
    fn take(&mut self, batch: &arrow::array::RecordBatch, found: &mut Vec<Page>) -> Result<(), Failure> {
        let PagesConfig { rows_max, bytes_max, .. } = self.limits;
        self.rows += batch.num_rows() as u64;
        if self.rows > *rows_max {
            let what = &self.what;
            return Err(Failure::usage(format!("{what} holds more than the {rows_max} pages of web.pages.rows_max")));
        }
        let pages = batches::pages(batch).map_err(|e| Failure::usage(format!("{}: {e}", self.what)))?;
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let size = |page: &Page| page.url.len() + page.final_url.len() + length(&page.title) + length(&page.text);
        self.bytes += pages.iter().map(size).sum::<usize>() as u64;
        if self.bytes > *bytes_max {
            let what = &self.what;
            return Err(Failure::usage(format!("{what} holds more than the {bytes_max} bytes of web.pages.bytes_max")));
        }
        found.extend(pages);
        Ok(())
    }
}

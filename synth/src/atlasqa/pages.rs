//! The atlas's pages as a crawl records them: their text and its digest, without a server.
//!
//! The text of a page depends on the article alone, not on the address it is served at, and the crawler's own extractor
//! makes it here: so the digests are those of `pages.digest` after any crawl of the same atlas.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use url::Url;

use super::plan::{Articles, Field};
use super::reading;
use crate::atlas::Atlas;
use webdancer_agent::fetch::extract::{self, Limits};

/// A page that a question rests on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Evidence {
    /// Title of the article.
    pub title: String,
    /// Path on the site, such as `/country/France`.
    pub path: String,
    /// SHA-256 of the main text, hex: `digest` of the table `pages`.
    pub digest: String,
}

/// The articles of an atlas as their pages give them.
#[derive(Debug)]
pub struct Pages {
    by_title: BTreeMap<String, (Evidence, String)>,
}

/// Why the pages could not be read: a fault of the atlas, reported with the page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the page {path} of the atlas: {reason}")]
pub struct PageError {
    path: String,
    reason: String,
}

impl Pages {
    /// Makes and reads every page.
    ///
    /// # Errors
    /// A page that the crawler would not read: does not happen for an atlas.
    pub fn of(atlas: &Atlas) -> Result<Pages, PageError> {
        let limits = Limits { links_max: usize::MAX, parse_time_max: Duration::from_secs(60) };
        let mut by_title = BTreeMap::new();
        for entity in atlas.entities() {
            let wrong = |reason: String| PageError { path: entity.path.clone(), reason };
            let url = Url::parse("http://localhost/").and_then(|root| root.join(&entity.path));
            let url = url.map_err(|e| wrong(e.to_string()))?;
            let page = extract::html(&atlas.entity_page(entity), &url, limits).map_err(wrong)?;
            let (Some(text), Some(digest)) = (page.text, page.digest) else {
                return Err(wrong("it has no text".to_string()));
            };
            let evidence = Evidence { title: entity.title.clone(), path: entity.path.clone(), digest };
            by_title.insert(entity.title.clone(), (evidence, text));
        }
        Ok(Pages { by_title })
    }

    /// Where the article of a title is.
    pub fn evidence(&self, title: &str) -> Option<&Evidence> {
        self.by_title.get(title).map(|(evidence, _)| evidence)
    }

    /// The text of the article of a title.
    pub fn text(&self, title: &str) -> Option<&str> {
        self.by_title.get(title).map(|(_, text)| text.as_str())
    }
}

/// Reads articles and keeps which ones it read.
#[derive(Debug)]
pub struct Reader<'a> {
    pages: &'a Pages,
    /// What was read before, by title and field.
    known: HashMap<(String, Field), Vec<String>>,
    opened: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader of `pages`.
    pub fn new(pages: &'a Pages) -> Reader<'a> {
        Reader { pages, known: HashMap::new(), opened: Vec::new() }
    }

    /// The titles of the articles read since the last call, in order.
    pub fn take_opened(&mut self) -> Vec<String> {
        std::mem::take(&mut self.opened)
    }
}

impl Articles for Reader<'_> {
    fn read(&mut self, title: &str, field: Field) -> Option<Vec<String>> {
        if !self.opened.iter().any(|opened| opened == title) {
            self.opened.push(title.to_string());
        }
        let pages = self.pages;
        let find = || {
            let found = pages.text(title).and_then(|text| reading::find(text, field));
            found.filter(|found| found.whole).map(|found| found.values).unwrap_or_default()
        };
        Some(self.known.entry((title.to_string(), field)).or_insert_with(find).clone())
    }
}

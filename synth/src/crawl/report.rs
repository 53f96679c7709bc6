//! What a crawl came to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::journal::Entry;

/// Why a URL was not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// robots.txt forbids it.
    Robots,
    /// robots.txt could not be read, so nothing of the site is fetched.
    RobotsUnreachable,
    /// The page limit was reached.
    PageLimit,
    /// It is deeper than the depth limit. Counted per link.
    Depth,
    /// It leads out of the scope. Counted per link.
    OutOfScope,
    /// Too many URLs were waiting. Counted per link.
    FrontierFull,
}

impl Skip {
    pub(super) const NAMES: &[(Skip, &str)] =
        &[(Skip::Robots, "robots"), (Skip::RobotsUnreachable, "robots_unreachable")];

    pub(super) fn name(self) -> &'static str {
        Skip::NAMES.iter().find(|(skip, _)| *skip == self).map_or("", |(_, name)| name)
    }

    pub(super) fn from_name(name: &str) -> Option<Skip> {
        Skip::NAMES.iter().find(|(_, known)| *known == name).map(|(skip, _)| *skip)
    }
}

/// A root that gave no text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedRoot {
    /// The root.
    pub url: String,
    /// Why.
    pub error: String,
}

/// What a crawl came to, work before a resume included.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CrawlReport {
    /// Id of the run.
    pub run_id: String,
    /// Page events, one per URL.
    pub pages: u64,
    /// Of these, recorded before this resume.
    pub resumed: u64,
    /// Pages by HTTP status; 0 is no answer.
    pub by_status: BTreeMap<u16, u64>,
    /// Pages without text, for a reason that their event names.
    pub errors: u64,
    /// Bytes of bodies, decompressed.
    pub bytes: u64,
    /// Pages whose main text another page has too; recorded, their links not followed.
    pub duplicates: u64,
    /// What was not fetched, and why.
    pub skipped: BTreeMap<Skip, u64>,
    /// Roots that gave no text.
    pub failed_roots: Vec<FailedRoot>,
    /// Milliseconds of this process.
    pub elapsed_ms: u64,
}

impl CrawlReport {
    pub(super) fn count(&mut self, entry: &Entry) {
        self.pages += 1;
        *self.by_status.entry(entry.status).or_default() += 1;
        self.bytes += entry.bytes;
        if let Some(error) = &entry.error {
            self.errors += 1;
            if entry.depth == 0 {
                self.failed_roots.push(FailedRoot { url: entry.url.clone(), error: error.clone() });
            }
        }
    }

    pub(super) fn skip_many(&mut self, reason: Skip, count: u64) {
        if count > 0 {
            *self.skipped.entry(reason).or_default() += count;
        }
    }
}

/// A crawl under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Depth being fetched.
    pub depth: u32,
    /// Page events that are durable.
    pub fetched: u64,
    /// URLs waiting, of this depth and the next.
    pub queued: u64,
    /// Pages without text.
    pub errors: u64,
    /// Bytes of bodies.
    pub bytes: u64,
}

/// Who wants to know how a crawl goes on.
pub trait Progress: Send + Sync {
    /// Called whenever pages have become durable, and at the start of a depth.
    fn on_progress(&self, counts: Counts);
}

/// Nobody.
impl Progress for () {
    fn on_progress(&self, _: Counts) {}
}

impl<F: Fn(Counts) + Send + Sync> Progress for F {
    fn on_progress(&self, counts: Counts) {
        self(counts);
    }
}

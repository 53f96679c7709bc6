//! Pages out of the web, politely, into the log.
//!
//! [`Crawl::run`] goes breadth first from its roots. Every URL it fetches becomes one `page` event, whatever became of
//! it: an error and no text where there is none. Around the pages it appends `run` events. A URL that robots.txt
//! forbids is not fetched and has no event; it is counted in the [`CrawlReport`]. Roots are the exception: the user
//! named them, so they always have an event.
//!
//! What is one page: URLs are [canonical](webdancer_agent::fetch::url). A redirect is followed, the event keeps both URLs. A page that names
//! another URL of its site as its canonical one (`rel=canonical`) has that as its final URL, and that URL is crawled
//! too. Of pages with the same main text every one is recorded, with the same digest, and the links of one are
//! followed.
//!
//! A crawl with a state folder survives a kill: a [journal](CrawlConfig::state_folder) of what is done is replayed by
//! the next crawl with the same roots and limits. Ids of page events are derived from run and URL, so a page fetched
//! again between its event and its journal line shows once.

mod config;
mod frontier;
mod journal;
mod level;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound as _, Utc};
use url::Url;
use uuid::Uuid;
use webdancer_agent::fetch::{self, Fetcher};
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog, LogError};
use webdancer_schemas::rows;

pub use config::{CrawlConfig, Scope};
pub use report::{Counts, CrawlReport, FailedRoot, Progress, Skip};

use config::Sites;
use frontier::Frontier;
use journal::{Header, Journal, Line};

/// CloudEvents `source` of the events of a crawl.
pub const SOURCE: &str = "webdancer/crawl";
/// Version of the journal's format.
const JOURNAL_VERSION: u32 = 1;
/// Times an append is repeated while the log is unavailable.
const APPEND_RETRIES: u32 = 5;

/// Why a crawl did not start or did not finish, by what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrawlError {
    /// Correct the root.
    #[error("{root:?} cannot be crawled: give a URL that begins with http:// or https://")]
    Root {
        /// What was given.
        root: String,
    },
    /// Give roots.
    #[error("there is nothing to crawl: give at least one URL")]
    NoRoots,
    /// Wait for the other crawl, or use another folder.
    #[error("{} is in use by another crawl; use another state folder", path.display())]
    StateBusy {
        /// The journal.
        path: PathBuf,
    },
    /// Use another folder, or delete the journal to give up the crawl it belongs to.
    #[error("{} belongs to an unfinished crawl with other roots or limits; use another state folder, or delete it", path.display())]
    StateMismatch {
        /// The journal.
        path: PathBuf,
    },
    /// Delete the journal; the crawl starts again.
    #[error("{} is damaged at line {line}: {reason}; delete it to start again", path.display())]
    StateDamaged {
        /// The journal.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// Look at the disk.
    #[error("{}: {source}; the crawl can be resumed once the folder can be written", path.display())]
    State {
        /// The journal.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// See to the log; then crawl again with the same state folder to go on.
    #[error("pages could not be appended: {0}")]
    Log(#[from] LogError),
    /// Report it: the HTTP client could not be made, or a row could not be written as JSON.
    #[error("the crawl cannot work here: {0}")]
    Internal(String),
}

/// A crawl to be run.
#[derive(Debug)]
pub struct Crawl {
    roots: Vec<Url>,
    config: Arc<CrawlConfig>,
    run_id: String,
    run_start: DateTime<Utc>,
}

/// What every event of a run carries.
#[derive(Debug, Clone)]
struct Run {
    id: String,
    start: DateTime<Utc>,
}

impl Crawl {
    /// A crawl from `roots`, with a new run id. Roots that are one page count once.
    ///
    /// # Errors
    /// No roots, or one that is not an http or https URL.
    pub fn new(roots: impl IntoIterator<Item = impl AsRef<str>>, config: CrawlConfig) -> Result<Crawl, CrawlError> {
        let mut canonical: Vec<Url> = Vec::new();
        for root in roots {
            let root = root.as_ref();
            let url = fetch::url::parse(root).ok_or_else(|| CrawlError::Root { root: root.to_string() })?;
            if !canonical.contains(&url) {
                canonical.push(url);
            }
        }
        if canonical.is_empty() {
            return Err(CrawlError::NoRoots);
        }
        let run_start = Utc::now().trunc_subsecs(6);
        Ok(Crawl { roots: canonical, config: Arc::new(config), run_id: Uuid::now_v7().to_string(), run_start })
    }

    /// Sets id and start of the run. A resumed crawl keeps those it began with.
    #[must_use]
    pub fn with_run(mut self, run_id: impl Into<String>, run_start: DateTime<Utc>) -> Crawl {
        self.run_id = run_id.into();
        self.run_start = run_start.trunc_subsecs(6);
        self
    }

    /// Crawls until nothing is left or a limit is reached. Dropping the future stops at once, as a kill would.
    ///
    /// # Errors
    /// The state folder cannot be used, or the log does not take the events. Pages that cannot be fetched are no
    /// error: they are recorded.
    pub async fn run(self, log: Arc<dyn EventLog>, progress: impl Progress) -> Result<CrawlReport, CrawlError> {
        let begun = Instant::now();
        let sites = Sites::new(&self.config.scope, &self.roots);
        let mut frontier = Frontier::new(&self.roots, sites, self.config.depth_max, self.config.frontier_max);
        let (journal, run) = self.open_journal(&mut frontier)?;
        frontier.report.resumed = frontier.report.pages;
        let fetcher = Fetcher::new(self.config.fetch.clone()).map_err(|e| CrawlError::Internal(e.to_string()))?;
        let mut work = Work {
            fetcher: Arc::new(fetcher),
            config: self.config.clone(),
            roots: Arc::new(self.roots.iter().map(Url::to_string).collect()),
            run: run.clone(),
            log,
            journal,
            frontier,
            progress: &progress,
        };
        work.append(vec![self.run_event(&run, "started", None)?]).await?;
        if let Err(error) = work.all_levels().await {
            // Best effort: the log may be what failed.
            let event = self.run_event(&run, "failed", Some(error.to_string()))?;
            let _ = work.log.append(vec![event]).await;
            return Err(error);
        }
        work.append(vec![self.run_event(&run, "finished", None)?]).await?;
        work.write(&[Line::Finished])?;
        let mut report = work.frontier.report;
        report.run_id = run.id;
        report.elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    fn open_journal(&self, frontier: &mut Frontier) -> Result<(Option<Journal>, Run), CrawlError> {
        let run = Run { id: self.run_id.clone(), start: self.run_start };
        let Some(folder) = &self.config.state_folder else { return Ok((None, run)) };
        let header = Header {
            version: JOURNAL_VERSION,
            run_id: run.id,
            run_start: run.start,
            identity: self.config.identity(&self.roots),
        };
        let (journal, header) = Journal::open(folder, header, |line| {
            let (url, depth) = match &line {
                Line::Page(entry) => (&entry.url, entry.depth),
                Line::Skipped { url, depth, .. } => (url, *depth),
                Line::Finished => return Ok(()),
            };
            let position =
                frontier.locate(url, depth).ok_or_else(|| format!("{url} is not linked to at depth {depth}"))?;
            match &line {
                Line::Page(entry) => frontier.finish(position, entry),
                Line::Skipped { reason, .. } => {
                    let skip = Skip::from_name(reason).ok_or_else(|| format!("unknown reason {reason:?}"))?;
                    frontier.skip(position, skip);
                }
                Line::Finished => {}
            }
            Ok(())
        })?;
        Ok((Some(journal), Run { id: header.run_id, start: header.run_start }))
    }

    fn run_event(&self, run: &Run, state: &str, error: Option<String>) -> Result<Event, CrawlError> {
        let internal = |e: serde_json::Error| CrawlError::Internal(e.to_string());
        let config = serde_json::json!({ "roots": self.roots, "limits": *self.config });
        let row = rows::Run {
            kind: "crawl".to_string(),
            state: state.to_string(),
            config: Some(JsonText(config)),
            code_version: Some(webdancer_schemas::code::version()),
            error,
            ..rows::Run::default()
        };
        let event = Event::new(SOURCE, &row).map_err(internal)?.with_run(&run.id);
        Ok(match state {
            // The same event when a resumed crawl says it again.
            "started" => event.with_id(run.event_id(Kind::Run, state)).at(run.start),
            "finished" => event.with_id(run.event_id(Kind::Run, state)),
            // It may fail more than once.
            _ => event,
        })
    }
}

impl Run {
    fn event_id(&self, kind: Kind, subject: &str) -> EventId {
        EventId::derive(self.start, &self.id, kind, subject, 0)
    }
}

/// A crawl under way.
struct Work<'a, P> {
    fetcher: Arc<Fetcher>,
    config: Arc<CrawlConfig>,
    roots: Arc<Vec<String>>,
    run: Run,
    log: Arc<dyn EventLog>,
    journal: Option<Journal>,
    frontier: Frontier,
    progress: &'a P,
}

impl<P: Progress> Work<'_, P> {
    async fn all_levels(&mut self) -> Result<(), CrawlError> {
        loop {
            self.tell();
            let more = self.level().await?;
            if !more {
                let left = self.frontier.queued();
                self.frontier.report.skip_many(Skip::PageLimit, left);
                return Ok(());
            }
            if !self.frontier.advance() {
                return Ok(());
            }
        }
    }

    /// Appends events; repeats while the log is unavailable.
    async fn append(&self, mut events: Vec<Event>) -> Result<(), CrawlError> {
        let mut tries = 0;
        loop {
            match self.log.append(events.clone()).await {
                Ok(()) => return Ok(()),
                Err(LogError::Unavailable(reason)) if tries < APPEND_RETRIES => {
                    tracing::warn!(reason, tries, "the event log is unavailable, trying again");
                    tokio::time::sleep(Duration::from_millis(200 << tries)).await;
                    tries += 1;
                }
                Err(LogError::TooLarge { id, bytes, limit }) => {
                    let event = events.iter_mut().find(|event| event.id().to_string() == id);
                    let smaller = event.and_then(|event| level::without_text(event, bytes, limit));
                    smaller.ok_or(LogError::TooLarge { id, bytes, limit })?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn write(&mut self, lines: &[Line]) -> Result<(), CrawlError> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.append(lines))
    }

    fn tell(&self) {
        let report = &self.frontier.report;
        self.progress.on_progress(Counts {
            depth: self.frontier.depth(),
            fetched: report.pages,
            queued: self.frontier.waiting() + self.frontier.queued(),
            errors: report.errors,
            bytes: report.bytes,
        });
    }
}

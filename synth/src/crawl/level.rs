//! One depth of a crawl: fetched by lanes, collected in batches.
//!
//! A lane takes the pages of one host one after the other; as many lanes run at once as the configuration allows.
//! Finished pages meet in a bounded channel. The collector appends them to the log in batches, and only then writes
//! their journal lines and takes their links over: what the journal says is in the log.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use url::Url;
use webdancer_agent::fetch::extract::Extract;
use webdancer_agent::fetch::url::site;
use webdancer_agent::fetch::{Fetched, Fetcher, Verdict};
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows;

use super::config::Sites;
use super::frontier::Item;
use super::journal::{Entry, Line};
use super::report::{Progress, Skip};
use super::{CrawlError, Run, SOURCE, Work};

/// Bytes of text and links that end a batch early.
const BATCH_BYTES: usize = 8 << 20;

/// A page that is done.
struct Visit {
    position: u32,
    event: Event,
    links: Vec<Url>,
    entry: Entry,
}

impl Visit {
    fn bytes(&self) -> usize {
        self.event.data.get().len()
    }
}

/// What lanes share.
struct Shared {
    fetcher: Arc<Fetcher>,
    roots: Arc<Vec<String>>,
    run: Run,
    sites: Sites,
    depth: u32,
}

/// The pages of one host.
type Queue = Arc<Mutex<VecDeque<(u32, Item)>>>;

impl<P: Progress> Work<'_, P> {
    /// Fetches what is left of this depth; false when the page limit ends the crawl.
    pub(super) async fn level(&mut self) -> Result<bool, CrawlError> {
        let room = self.config.pages_max.saturating_sub(self.frontier.report.pages);
        let (allowed, cut) = self.allowed(usize::try_from(room).unwrap_or(usize::MAX)).await?;
        self.fetch_all(allowed).await?;
        self.frontier.report.skip_many(Skip::PageLimit, cut);
        Ok(cut == 0 && self.frontier.report.pages < self.config.pages_max)
    }

    /// The first `room` URLs of this depth that robots.txt allows, and how many are left out for want of room. Roots
    /// are always fetched, or recorded with the reason why not.
    async fn allowed(&mut self, room: usize) -> Result<(Vec<(u32, Item)>, u64), CrawlError> {
        let pending = self.frontier.pending();
        let waiting = pending.len() as u64;
        let depth = self.frontier.depth();
        let fetcher = &self.fetcher;
        let mut verdicts = stream::iter(pending)
            .map(|(position, item)| {
                let fetcher = fetcher.clone();
                async move {
                    let verdict = if depth == 0 { Verdict::Allowed } else { fetcher.verdict(&item.url).await };
                    (position, item, verdict)
                }
            })
            .buffered(self.config.concurrency.max(1));
        let mut allowed = Vec::new();
        let mut looked_at = 0;
        let mut skipped = Vec::new();
        while allowed.len() < room
            && let Some((position, item, verdict)) = verdicts.next().await
        {
            looked_at += 1;
            let skip = match verdict {
                Verdict::Allowed => {
                    allowed.push((position, item));
                    continue;
                }
                Verdict::Disallowed => Skip::Robots,
                Verdict::Unreachable(_) => Skip::RobotsUnreachable,
            };
            skipped.push((position, item.url, skip));
        }
        drop(verdicts);
        let mut lines = Vec::with_capacity(skipped.len());
        for (position, url, skip) in skipped {
            self.frontier.skip(position, skip);
            lines.push(Line::Skipped { url: url.to_string(), depth, reason: skip.name().to_string() });
        }
        self.write(&lines)?;
        Ok((allowed, waiting - looked_at))
    }

    async fn fetch_all(&mut self, items: Vec<(u32, Item)>) -> Result<(), CrawlError> {
        let concurrency = self.config.concurrency.max(1);
        let shared = Arc::new(Shared {
            fetcher: self.fetcher.clone(),
            roots: self.roots.clone(),
            run: self.run.clone(),
            sites: self.frontier.sites().clone(),
            depth: self.frontier.depth(),
        });
        let mut queues = queues(items, self.config.fetch.connections_per_host.max(1)).into_iter();
        let (sender, mut visits) = mpsc::channel(concurrency * 2);
        let mut sender = Some(sender);
        let mut lanes = JoinSet::new();
        let mut batch: Vec<Visit> = Vec::new();
        let mut due = Instant::now();
        loop {
            while lanes.len() < concurrency
                && let Some(open) = &sender
            {
                match queues.next() {
                    Some(queue) => drop(lanes.spawn(lane(shared.clone(), queue, open.clone()))),
                    // The channel closes when the last lane is done.
                    None => sender = None,
                }
            }
            tokio::select! {
                visit = visits.recv() => match visit {
                    Some(visit) => {
                        if batch.is_empty() {
                            due = Instant::now() + Duration::from_millis(self.config.batch_ms);
                        }
                        batch.push(visit?);
                        if batch.len() >= self.config.batch_pages.max(1)
                            || batch.iter().map(Visit::bytes).sum::<usize>() >= BATCH_BYTES
                        {
                            self.record(std::mem::take(&mut batch)).await?;
                        }
                    }
                    None => return self.record(batch).await,
                },
                Some(done) = lanes.join_next() => done.map_err(|e| CrawlError::Internal(e.to_string()))?,
                () = tokio::time::sleep_until(due), if !batch.is_empty() => {
                    self.record(std::mem::take(&mut batch)).await?;
                }
            }
        }
    }

    /// Makes a batch durable, then takes its links over.
    async fn record(&mut self, batch: Vec<Visit>) -> Result<(), CrawlError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut events = Vec::with_capacity(batch.len());
        let mut lines = Vec::with_capacity(batch.len());
        let mut positions = Vec::with_capacity(batch.len());
        for visit in batch {
            let Visit { position, event, links, mut entry } = visit;
            let moved_to = entry.moved_to.as_deref().and_then(|url| Url::parse(url).ok());
            (entry.links, entry.out_of_scope) = self.frontier.sort_out(&links, moved_to.as_ref());
            events.push(event);
            positions.push(position);
            lines.push(Line::Page(entry));
        }
        self.append(events).await?;
        self.write(&lines)?;
        for (position, line) in positions.into_iter().zip(&lines) {
            if let Line::Page(entry) = line {
                self.frontier.finish(position, entry);
            }
        }
        self.tell();
        Ok(())
    }
}

/// Pages by host, in the order in which hosts appear; a host with several connections appears as often.
fn queues(items: Vec<(u32, Item)>, connections: usize) -> Vec<Queue> {
    let mut hosts: Vec<Queue> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (position, item) in items {
        let index = *known.entry(site(&item.url)).or_insert_with(|| {
            hosts.push(Queue::default());
            hosts.len() - 1
        });
        if let Some(queue) = hosts.get(index) {
            queue.lock().push_back((position, item));
        }
    }
    let rounds = (0..connections).map(|round| hosts.iter().filter(move |queue| queue.lock().len() > round).cloned());
    rounds.flatten().collect()
}

async fn lane(shared: Arc<Shared>, queue: Queue, visits: mpsc::Sender<Result<Visit, CrawlError>>) {
    loop {
        let next = queue.lock().pop_front();
        let Some((position, item)) = next else { return };
        let visit = shared.visit(position, item).await;
        if visits.send(visit).await.is_err() {
            return;
        }
    }
}

impl Shared {
    async fn visit(&self, position: u32, item: Item) -> Result<Visit, CrawlError> {
        let mut fetched = self.fetch(&item).await;
        let bytes = fetched.body.as_ref().map_or(0, Vec::len) as u64;
        let (extract, error) = match self.fetcher.extract(&mut fetched).await {
            Ok(extract) => (extract, None),
            Err(reason) => (Extract::default(), Some(reason)),
        };
        let moved_to = (self.depth == 0 && fetched.final_url != item.url).then(|| fetched.final_url.to_string());
        let Extract { title, text, mut links, canonical, digest, language } = extract;
        let row_links = links.iter().map(Url::to_string).collect();
        let preferred = canonical.filter(|url| site(url) == site(&fetched.final_url) && *url != fetched.final_url);
        if let Some(url) = preferred {
            links.retain(|link| *link != url);
            links.insert(0, url.clone());
            fetched.final_url = url;
        }
        let entry = Entry {
            url: item.url.to_string(),
            depth: self.depth,
            status: fetched.status,
            bytes,
            digest: digest.clone(),
            error: error.clone(),
            moved_to,
            ..Entry::default()
        };
        let row = rows::Page {
            url: item.url.to_string(),
            final_url: fetched.final_url.to_string(),
            root_url: self.roots.get(item.root as usize).cloned().unwrap_or_default(),
            depth: i32::try_from(self.depth).unwrap_or(i32::MAX),
            status: i32::from(fetched.status),
            content_type: fetched.content_type,
            title,
            text,
            links: row_links,
            digest,
            language,
            fetch_ms: (fetched.status != 0).then_some(fetched.fetch_ms),
            error,
        };
        let event = Event::new(SOURCE, &row)
            .map_err(|e| CrawlError::Internal(e.to_string()))?
            .with_id(self.run.event_id(Kind::Page, item.url.as_str()))
            .with_run(&self.run.id);
        Ok(Visit { position, event, links, entry })
    }

    async fn fetch(&self, item: &Item) -> Fetched {
        let root = self.depth == 0;
        if root && let Some(refusal) = self.fetcher.verdict(&item.url).await.refusal() {
            return Fetched::refused(&item.url, refusal);
        }
        // A root may say where it lives now; a link may not lead out of the scope by a detour.
        self.fetcher.fetch(&item.url, &|url| root || self.sites.contain(url)).await
    }
}

/// Makes a page event fit the log: the page without text and links, and why. None where it is none.
pub(super) fn without_text(event: &mut Event, bytes: usize, limit: usize) -> Option<()> {
    let mut row: rows::Page = (event.kind() == Kind::Page).then(|| serde_json::from_str(event.data.get()).ok())??;
    if row.text.is_none() && row.links.is_empty() {
        return None;
    }
    row.error = Some(format!("{bytes} bytes of text and links, more than the {limit} of an event"));
    row.text = None;
    row.links = Vec::new();
    row.digest = None;
    event.data = serde_json::value::to_raw_value(&row).ok()?;
    Some(())
}

//! Which text of a page a visit read: that of the attempt's closed web, or the one whose digest it recorded, or where it
//! recorded none what the lake had fetched last when it ended.
//!
//! A URL is fetched again and again, and its text changes. All visits are looked up together: a closed web's by their URLs in
//! its pin, all others in `pages`.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use webdancer_schemas::table::EVENT_ID;

use super::{NodeKind, lists, literal, relations, rows, text};
use crate::error::Result;
use crate::gated;
use crate::session::QueryEngine;

/// That an attempt visited a URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Visit {
    pub(super) trajectory: String,
    pub(super) run: Option<String>,
    /// When the attempt ended.
    pub(super) time: DateTime<Utc>,
    /// Canonical where it is known what was read, else as the agent wrote it.
    pub(super) url: String,
    /// Digest of the text that was read.
    pub(super) read: Option<String>,
}

/// Trajectories with the keys of the pages that they read: digests, and URLs where there is none. Such a URL of a gated attempt
/// is left out: a search has the words of the question in it.
pub(super) async fn keys_read(engine: &QueryEngine, visits: &BTreeSet<Visit>) -> Result<BTreeSet<(String, String)>> {
    let pages = Pages::of(engine, visits).await?;
    let unstored = visits.iter().filter(|visit| pages.digest(visit).is_none());
    let unstored: BTreeSet<&str> = unstored.map(|visit| visit.trajectory.as_str()).collect();
    let gated = gated_among(engine, &unstored.into_iter().collect::<Vec<_>>()).await?;
    let key = |visit: &Visit| {
        let as_written = (!gated.contains(&visit.trajectory)).then_some(&visit.url);
        let key = pages.digest(visit).or(as_written)?;
        Some((visit.trajectory.clone(), key.clone()))
    };
    Ok(visits.iter().filter_map(key).collect())
}

/// Those of these trajectories that are gated.
async fn gated_among(engine: &QueryEngine, trajectories: &[&str]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for list in lists(trajectories) {
        let sql = format!("SELECT trajectory_id FROM ({}) WHERE trajectory_id {list}", gated::trajectories());
        found.extend(rows(engine, &sql).await?.iter().filter_map(|row| text(row, "trajectory_id")).map(str::to_string));
    }
    Ok(found)
}

/// Texts under the URLs of visits.
struct Pages {
    /// The pins of closed webs, by run.
    webs: BTreeMap<String, String>,
    /// Digests by URL, by pin.
    pinned: BTreeMap<String, BTreeMap<String, String>>,
    /// Digests by URL, each from when on it was fetched there, in this order.
    fetched: BTreeMap<String, Vec<(DateTime<Utc>, String)>>,
    /// Those digests that visits recorded whose texts the lake has.
    stored: BTreeSet<String>,
}

impl Pages {
    async fn of(engine: &QueryEngine, visits: &BTreeSet<Visit>) -> Result<Pages> {
        let runs: BTreeSet<&str> = visits.iter().filter_map(|visit| visit.run.as_deref()).collect();
        let webs = webs(engine, &runs.into_iter().collect::<Vec<_>>()).await?;
        let mut closed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut open: BTreeSet<&str> = BTreeSet::new();
        for visit in visits {
            match visit.run.as_ref().and_then(|run| webs.get(run)) {
                Some(pin) => closed.entry(pin).or_default().insert(&visit.url),
                None if visit.read.is_none() => open.insert(&visit.url),
                None => false,
            };
        }
        let mut pinned = BTreeMap::new();
        for (pin, urls) in closed {
            let urls: Vec<&str> = urls.into_iter().collect();
            match in_pin(engine, pin, &urls).await? {
                Some(pages) => {
                    pinned.insert(pin.to_string(), pages);
                }
                // Where there is no such pin any more, the lake of then is nearest.
                None => open.extend(urls),
            }
        }
        let fetched = fetched(engine, &open.into_iter().collect::<Vec<_>>()).await?;
        let read: BTreeSet<&str> = visits.iter().filter_map(|visit| visit.read.as_deref()).collect();
        let stored = stored(engine, &read.into_iter().collect::<Vec<_>>()).await?;
        Ok(Pages { webs, pinned, fetched, stored })
    }

    /// The digest of what a visit read. A closed web has nothing but its pin.
    fn digest(&self, visit: &Visit) -> Option<&String> {
        let pin = visit.run.as_ref().and_then(|run| self.webs.get(run));
        if let Some(pages) = pin.and_then(|pin| self.pinned.get(pin)) {
            return pages.get(&visit.url);
        }
        if let Some(read) = &visit.read {
            return self.stored.get(read);
        }
        let fetched = self.fetched.get(&visit.url)?;
        let until = fetched.partition_point(|(time, _)| *time <= visit.time);
        fetched.get(until.checked_sub(1)?).map(|(_, digest)| digest)
    }
}

/// The pins of the closed webs of runs, by run.
async fn webs(engine: &QueryEngine, runs: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for list in lists(runs) {
        let sql = format!(
            "SELECT run_id, json_get_str(config, 'web') AS web, json_get_str(config, 'pages_id') AS pages_id FROM runs \
             WHERE config IS NOT NULL AND run_id {list}"
        );
        for row in rows(engine, &sql).await? {
            let closed = text(&row, "web").and_then(|web| web.strip_prefix("closed:"));
            if let (Some(run), Some(pin)) = (text(&row, "run_id"), closed.or_else(|| text(&row, "pages_id"))) {
                found.insert(run.to_string(), pin.to_string());
            }
        }
    }
    Ok(found)
}

/// The digests of a pin's pages by URL, as its closed web has them: of several pages of a URL the first. None where there is no
/// such pin, or it is none of pages.
async fn in_pin(engine: &QueryEngine, digest: &str, urls: &[&str]) -> Result<Option<BTreeMap<String, String>>> {
    let Some(manifest) = relations::pin(engine, digest).await? else { return Ok(None) };
    let Some((NodeKind::Page, key)) = relations::rows_of(&manifest) else { return Ok(None) };
    let columns = relations::columns(&manifest);
    let arrived = if columns.contains(&"final_url") { "final_url" } else { "url" };
    // The order of a pin's rows, unless its query gave another.
    let order = if columns.contains(&EVENT_ID) { "ORDER BY event_id" } else { "" };
    let mut found = BTreeMap::new();
    for list in lists(urls) {
        let sql = format!(
            "SELECT url, {arrived} AS arrived, {key} AS key FROM pin({}) WHERE url {list} OR {arrived} {list} {order}",
            literal(digest)
        );
        for row in rows(engine, &sql).await? {
            let url = text(&row, "url");
            // The key of a page without text is its URL.
            let Some(key) = text(&row, "key").filter(|key| Some(*key) != url) else { continue };
            for url in [url, text(&row, "arrived")].into_iter().flatten() {
                found.entry(url.to_string()).or_insert_with(|| key.to_string());
            }
        }
    }
    Ok(Some(found))
}

/// Those of these digests whose texts are in `pages`.
async fn stored(engine: &QueryEngine, digests: &[&str]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for list in lists(digests) {
        let sql = format!("SELECT DISTINCT digest FROM pages WHERE digest {list}");
        found.extend(rows(engine, &sql).await?.iter().filter_map(|row| text(row, "digest")).map(str::to_string));
    }
    Ok(found)
}

/// The digests that were fetched from URLs, or from what led there, each from when on.
async fn fetched(engine: &QueryEngine, urls: &[&str]) -> Result<BTreeMap<String, Vec<(DateTime<Utc>, String)>>> {
    let mut found: BTreeMap<String, Vec<(DateTime<Utc>, String)>> = BTreeMap::new();
    for list in lists(urls) {
        // A URL that is fetched daily and stays as it is has one row.
        let sql = format!(
            "SELECT url, event_time, digest FROM ( \
               SELECT url, event_time, event_id, digest, \
                 lag(digest) OVER (PARTITION BY url ORDER BY event_time, event_id) AS earlier \
               FROM ( \
                 SELECT url, event_time, event_id, digest FROM pages WHERE url {list} AND digest IS NOT NULL \
                 UNION ALL \
                 SELECT final_url AS url, event_time, event_id, digest FROM pages \
                 WHERE final_url {list} AND final_url <> url AND digest IS NOT NULL \
               ) \
             ) WHERE earlier IS NULL OR earlier <> digest ORDER BY url, event_time, event_id"
        );
        for row in rows(engine, &sql).await? {
            let time = text(&row, "event_time").and_then(|time| time.parse().ok());
            if let (Some(url), Some(time), Some(digest)) = (text(&row, "url"), time, text(&row, "digest")) {
                found.entry(url.to_string()).or_default().push((time, digest.to_string()));
            }
        }
    }
    Ok(found)
}

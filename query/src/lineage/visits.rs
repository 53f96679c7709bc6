//! Which pages a trajectory visited: the one relation that the lists of turns are read for.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::read::{Visit, keys_read};
use super::relations::Link;
use super::{NodeId, NodeKind, lists, literal, rows, text};
use crate::error::Result;
use crate::session::QueryEngine;

const VISITED: &str = "was visited in";
/// Addresses of one text that its readers are looked for by.
const URLS_MAX: usize = 100;

/// The pages that trajectories read.
pub(super) async fn pages_of(engine: &QueryEngine, trajectories: &[&str], rows_max: u32) -> Result<Vec<Link>> {
    let mut visited = BTreeSet::new();
    for list in lists(trajectories) {
        visited.extend(visits(engine, &format!("trajectory_id {list}"), "true").await?);
    }
    let read = keys_read(engine, &visited).await?;
    let mut pages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (trajectory, page) in &read {
        pages.entry(trajectory).or_default().insert(page);
    }
    let link = |(trajectory, pages): (&str, BTreeSet<&str>)| {
        let (near, total) = (NodeId::new(NodeKind::Trajectory, trajectory), pages.len() as u64);
        let shown = pages.into_iter().take(rows_max as usize);
        let far = |key| NodeId::new(NodeKind::Page, key);
        shown.map(|key| Link { near: near.clone(), far: far(key), relation: VISITED, total }).collect::<Vec<_>>()
    };
    Ok(pages.into_iter().flat_map(link).collect())
}

/// The trajectories that read pages. Every call of the lake is looked at, so few pages are asked for at a time.
pub(super) async fn trajectories_of(engine: &QueryEngine, pages: &[&str], rows_max: u32) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    for page in pages.iter().take(rows_max as usize) {
        let known = format!(
            "SELECT DISTINCT url, final_url FROM pages WHERE coalesce(digest, url) = {} ORDER BY url, final_url LIMIT {URLS_MAX}",
            literal(page)
        );
        let known = rows(engine, &known).await?;
        let known = known.iter().flat_map(|row| [text(row, "url"), text(row, "final_url")]).flatten();
        let mut urls: BTreeSet<String> = known.map(str::to_string).collect();
        if page.contains("://") {
            urls.insert((*page).to_string());
        }
        if urls.is_empty() {
            continue;
        }
        let quoted: Vec<String> = urls.iter().map(|url| literal(&Value::from(url.as_str()).to_string())).collect();
        let mut holds: Vec<String> = quoted.iter().map(|url| format!("strpos(arguments, {url}) > 0")).collect();
        holds.push(format!("array_has(digests, {})", literal(page)));
        let mut visited = visits(engine, "true", &format!("({})", holds.join(" OR "))).await?;
        visited.retain(|visit| urls.contains(&visit.url) || visit.read.as_deref() == Some(*page));
        let read = keys_read(engine, &visited).await?;
        let readers = read.iter().filter(|(_, key)| key.as_str() == *page);
        let readers: BTreeSet<&str> = readers.map(|(trajectory, _)| trajectory.as_str()).collect();
        let total = readers.len() as u64;
        links.extend(readers.into_iter().take(rows_max as usize).map(|trajectory| Link {
            near: NodeId::new(NodeKind::Page, *page),
            far: NodeId::new(NodeKind::Trajectory, trajectory),
            relation: VISITED,
            total,
        }));
    }
    Ok(links)
}

/// The visits in those calls that meet a condition, of the trajectories that meet one.
async fn visits(engine: &QueryEngine, trajectories: &str, calls: &str) -> Result<BTreeSet<Visit>> {
    let sql = format!(
        "SELECT trajectory_id, run_id, event_time, arguments, urls, digests FROM ( \
           SELECT trajectory_id, run_id, event_time, unnest(turn_tool) AS tool, unnest(turn_arguments) AS arguments, \
             unnest(turn_source_urls) AS urls, unnest(turn_source_digests) AS digests, unnest(turn_outcome) AS outcome \
           FROM trajectories WHERE {trajectories} \
         ) WHERE tool = 'visit' AND coalesce(outcome, 'done') NOT IN ('unreachable', 'invalid') AND {calls}"
    );
    Ok(rows(engine, &sql).await?.iter().flat_map(visits_of).collect())
}

/// The visits of a call: of what it read, where that is recorded, else of what it asked for.
fn visits_of(row: &Map<String, Value>) -> Vec<Visit> {
    let time: Option<DateTime<Utc>> = text(row, "event_time").and_then(|time| time.parse().ok());
    let (Some(trajectory), Some(time)) = (text(row, "trajectory_id"), time) else { return Vec::new() };
    let run = text(row, "run_id").map(str::to_string);
    let visit = |(url, read)| Visit { trajectory: trajectory.to_string(), run: run.clone(), time, url, read };
    let texts = |name: &str| row.get(name).map(strings).unwrap_or_default();
    let read: Vec<_> = texts("urls").into_iter().zip(texts("digests").into_iter().map(Some)).collect();
    let asked = || urls(text(row, "arguments").unwrap_or_default()).into_iter().map(|url| (url, None)).collect();
    let visits = if read.is_empty() { asked() } else { read };
    visits.into_iter().map(visit).collect()
}

/// The URLs of a call of `visit`, as written: one, or a list of them.
fn urls(arguments: &str) -> Vec<String> {
    let Ok(arguments) = serde_json::from_str::<Value>(arguments) else { return Vec::new() };
    arguments.get("url").map(strings).unwrap_or_default()
}

/// A text, or those of a list.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_string).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urls_of_a_call_are_read_in_either_form_and_bad_json_has_none() {
        assert_eq!(urls(r#"{"url": ["a", "b", 3], "goal": "g"}"#), ["a", "b"]);
        assert_eq!(urls(r#"{"url": "a"}"#), ["a"]);
        assert!(urls("{").is_empty() && urls(r#"{"query": ["a"]}"#).is_empty());
    }
}

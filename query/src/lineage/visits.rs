//! Which pages a trajectory visited: the one relation that the lists of turns are read for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::relations::Link;
use super::{NodeId, NodeKind, lists, literal, rows, text};
use crate::error::Result;
use crate::gated;
use crate::session::QueryEngine;

const VISITED: &str = "was visited in";

/// The pages that trajectories visited: as the lake last had them before the attempt, by digest; by URL where it has none. Such
/// a URL of a gated attempt is left out: a search has the words of the question in it.
pub(super) async fn pages_of(engine: &QueryEngine, trajectories: &[&str], rows_max: u32) -> Result<Vec<Link>> {
    let mut visits: BTreeSet<(String, String)> = BTreeSet::new();
    for list in lists(trajectories) {
        let sql = format!(
            "SELECT trajectory_id, unnest(turn_tool) AS tool, unnest(turn_arguments) AS arguments \
             FROM trajectories WHERE trajectory_id {list}"
        );
        for row in rows(engine, &sql).await?.iter().filter(|row| text(row, "tool") == Some("visit")) {
            let Some(trajectory) = text(row, "trajectory_id") else { continue };
            let urls = urls(text(row, "arguments").unwrap_or_default());
            visits.extend(urls.into_iter().map(|url| (trajectory.to_string(), url)));
        }
    }
    let urls: BTreeSet<&str> = visits.iter().map(|(_, url)| url.as_str()).collect();
    let digests = digests(engine, &urls.into_iter().collect::<Vec<_>>()).await?;
    let unstored = visits.iter().filter(|(_, url)| !digests.contains_key(url));
    let unstored: BTreeSet<&str> = unstored.map(|(trajectory, _)| trajectory.as_str()).collect();
    let gated = gated_among(engine, &unstored.into_iter().collect::<Vec<_>>()).await?;
    let mut pages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (trajectory, url) in &visits {
        let as_written = (!gated.contains(trajectory)).then_some(url);
        if let Some(key) = digests.get(url).or(as_written) {
            pages.entry(trajectory).or_default().insert(key);
        }
    }
    let link = |(trajectory, pages): (&str, BTreeSet<&str>)| {
        let (near, total) = (NodeId::new(NodeKind::Trajectory, trajectory), pages.len() as u64);
        let shown = pages.into_iter().take(rows_max as usize);
        let far = |key| NodeId::new(NodeKind::Page, key);
        shown.map(|key| Link { near: near.clone(), far: far(key), relation: VISITED, total }).collect::<Vec<_>>()
    };
    Ok(pages.into_iter().flat_map(link).collect())
}

/// The trajectories that visited pages. Every call of the lake is looked at, so few pages are asked for at a time.
pub(super) async fn trajectories_of(engine: &QueryEngine, pages: &[&str], rows_max: u32) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    for page in pages.iter().take(rows_max as usize) {
        let known = format!("SELECT DISTINCT url FROM pages WHERE coalesce(digest, url) = {} LIMIT 10", literal(page));
        let mut urls: BTreeSet<String> =
            rows(engine, &known).await?.iter().filter_map(|row| text(row, "url")).map(str::to_string).collect();
        if page.contains("://") {
            urls.insert((*page).to_string());
        }
        if urls.is_empty() {
            continue;
        }
        let quoted: Vec<String> = urls.iter().map(|url| literal(&Value::from(url.as_str()).to_string())).collect();
        let holds: Vec<String> = quoted.iter().map(|url| format!("strpos(arguments, {url}) > 0")).collect();
        let sql = format!(
            "SELECT trajectory_id, total FROM ( \
               SELECT trajectory_id, count(*) OVER () AS total, row_number() OVER (ORDER BY trajectory_id) AS place \
               FROM (SELECT DISTINCT trajectory_id FROM ( \
                 SELECT trajectory_id, unnest(turn_tool) AS tool, unnest(turn_arguments) AS arguments FROM trajectories \
               ) WHERE tool = 'visit' AND ({})) \
             ) WHERE place <= {rows_max} ORDER BY trajectory_id",
            holds.join(" OR ")
        );
        for row in rows(engine, &sql).await? {
            let Some(trajectory) = text(&row, "trajectory_id") else { continue };
            links.push(Link {
                near: NodeId::new(NodeKind::Page, *page),
                far: NodeId::new(NodeKind::Trajectory, trajectory),
                relation: VISITED,
                total: row.get("total").and_then(Value::as_u64).unwrap_or_default(),
            });
        }
    }
    Ok(links)
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

/// The digests of pages by URL, of the last fetch that got a text.
async fn digests(engine: &QueryEngine, urls: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for list in lists(urls) {
        for column in ["final_url", "url"] {
            let sql = format!(
                "SELECT {column} AS url, last_value(digest ORDER BY event_time, event_id) AS digest FROM pages \
                 WHERE {column} {list} AND digest IS NOT NULL GROUP BY {column}"
            );
            for row in rows(engine, &sql).await? {
                if let (Some(url), Some(digest)) = (text(&row, "url"), text(&row, "digest")) {
                    found.insert(url.to_string(), digest.to_string());
                }
            }
        }
    }
    Ok(found)
}

/// The URLs of a call of `visit`, as written: one, or a list of them.
fn urls(arguments: &str) -> Vec<String> {
    let Ok(arguments) = serde_json::from_str::<Value>(arguments) else { return Vec::new() };
    match arguments.get("url") {
        Some(Value::String(url)) => vec![url.clone()],
        Some(Value::Array(urls)) => urls.iter().filter_map(Value::as_str).map(str::to_string).collect(),
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

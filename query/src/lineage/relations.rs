//! What leads from one thing to another: one declaration each, walked in both directions.

use std::collections::BTreeMap;

use serde_json::Value;
use webdancer_lake::pins::PinManifest;

use super::{Direction, LineageLimits, NodeId, NodeKind, lists, literal, rows, some_at_once, text, visits};
use crate::error::{QueryError, Result};
use crate::literal::texts;
use crate::session::QueryEngine;

/// A step from a node to a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) near: NodeId,
    pub(super) far: NodeId,
    pub(super) relation: &'static str,
    /// Neighbours of `near` by this relation, those left out with them.
    pub(super) total: u64,
}

/// Pairs of keys, `parent` and `child`, that a query gives.
struct Relation {
    from: NodeKind,
    to: NodeKind,
    name: &'static str,
    pairs: &'static str,
}

/// The webs of runs by what the run's plan calls them.
macro_rules! webs {
    ($select:literal, $condition:literal) => {
        concat!(
            "SELECT ",
            $select,
            " AS parent, run_id AS child FROM (SELECT run_id, json_get_str(config, 'web') AS web FROM runs \
             WHERE config IS NOT NULL) WHERE ",
            $condition
        )
    };
}

use NodeKind::{Checkpoint, Judgment, Page, Pin, Question, Reward, Run, Score, Trajectory};

const RELATIONS: &[Relation] = &[
    Relation {
        from: Page,
        to: Question,
        name: "is evidence of",
        pairs: "SELECT unnest(evidence_page_digests) AS parent, qa_id AS child FROM qa",
    },
    Relation {
        from: Question,
        to: Question,
        name: "was rewritten to",
        pairs: "SELECT parent_qa_id AS parent, qa_id AS child FROM qa",
    },
    Relation {
        from: Question,
        to: Trajectory,
        name: "was attempted in",
        pairs: "SELECT qa_id AS parent, trajectory_id AS child FROM trajectories",
    },
    Relation {
        from: Run,
        to: Page,
        name: "fetched",
        pairs: "SELECT run_id AS parent, coalesce(digest, url) AS child FROM pages",
    },
    Relation { from: Run, to: Question, name: "wrote", pairs: "SELECT run_id AS parent, qa_id AS child FROM qa" },
    Relation {
        from: Run,
        to: Trajectory,
        name: "made",
        pairs: "SELECT run_id AS parent, trajectory_id AS child FROM trajectories",
    },
    Relation {
        from: Run,
        to: Judgment,
        name: "gave",
        pairs: "SELECT run_id AS parent, event_id AS child FROM judgments",
    },
    Relation {
        from: Trajectory,
        to: Judgment,
        name: "was judged in",
        pairs: "SELECT trajectory_id AS parent, event_id AS child FROM judgments",
    },
    Relation {
        from: Trajectory,
        to: Reward,
        name: "was rewarded by",
        pairs: "SELECT trajectory_id AS parent, event_id AS child FROM rewards",
    },
    Relation { from: Run, to: Reward, name: "gave", pairs: "SELECT run_id AS parent, event_id AS child FROM rewards" },
    Relation {
        from: Judgment,
        to: Score,
        name: "counts in",
        pairs: "SELECT j.event_id AS parent, t.run_id AS child FROM current_judgments AS j \
                JOIN trajectories AS t ON t.trajectory_id = j.trajectory_id WHERE j.stage = 'correctness'",
    },
    Relation {
        from: Run,
        to: Checkpoint,
        name: "wrote",
        pairs: "SELECT run_id AS parent, digest AS child FROM checkpoints",
    },
    Relation {
        from: Checkpoint,
        to: Trajectory,
        name: "acted in",
        pairs: "SELECT policy_checkpoint_digest AS parent, trajectory_id AS child FROM trajectories",
    },
    Relation {
        from: Checkpoint,
        to: Run,
        name: "acted in",
        pairs: "SELECT policy_checkpoint_digest AS parent, run_id AS child FROM trajectories",
    },
    Relation {
        from: Checkpoint,
        to: Run,
        name: "was the beginning of",
        pairs: "SELECT c.digest AS parent, r.run_id AS child FROM checkpoints AS c JOIN ( \
                  SELECT run_id, coalesce(json_get_str(config, 'init'), json_get_str(config, 'config', 'policy', 'folder'), \
                    json_get_str(config, 'config', 'model', 'folder')) AS folder FROM runs WHERE config IS NOT NULL \
                ) AS r ON r.folder = c.uri",
    },
    Relation { from: Pin, to: Run, name: "was read by", pairs: "SELECT pin_id AS parent, run_id AS child FROM runs" },
    Relation { from: Pin, to: Run, name: "was the web of", pairs: webs!("substr(web, 8)", "web LIKE 'closed:%'") },
    Relation {
        from: Pin,
        to: Run,
        name: "was the web of",
        pairs: webs!("substr(web, 10)", "web LIKE 'recorded:%' AND length(web) = 73"),
    },
    Relation {
        from: Pin,
        to: Run,
        name: "was the web of",
        pairs: "SELECT coalesce(json_get_str(config, 'pages_id'), json_get_str(config, 'pages', 'pin')) AS parent, \
                run_id AS child FROM runs WHERE config IS NOT NULL",
    },
    Relation {
        from: Run,
        to: Run,
        name: "recorded the web of",
        pairs: webs!(
            "split_part(web, ':', 2)",
            "(web LIKE 'recorded:%' AND length(web) <> 73) OR web LIKE 'visited:%'"
        ),
    },
    Relation { from: Run, to: Run, name: "preceded", pairs: "SELECT parent_run AS parent, run_id AS child FROM runs" },
];

/// All steps from the nodes of a level in a direction.
pub(super) async fn links(
    engine: &QueryEngine,
    direction: Direction,
    level: &[NodeId],
    limits: &LineageLimits,
) -> Result<Vec<Link>> {
    let mut keys: BTreeMap<NodeKind, Vec<&str>> = BTreeMap::new();
    for id in level {
        keys.entry(id.kind).or_default().push(&id.key);
    }
    let mut due = Vec::new();
    for relation in RELATIONS {
        let near = match direction {
            Direction::Up => relation.to,
            Direction::Down => relation.from,
        };
        if let Some(keys) = keys.get(&near) {
            due.push(relation.links(engine, direction, keys, limits.rows_max));
        }
    }
    let (related, others) = futures::try_join!(some_at_once(due), others(engine, direction, &keys, limits))?;
    Ok(related.into_iter().flatten().chain(others).collect())
}

/// Steps that are no pairs of keys: what was visited, and what is in a pin.
async fn others(
    engine: &QueryEngine,
    direction: Direction,
    keys: &BTreeMap<NodeKind, Vec<&str>>,
    limits: &LineageLimits,
) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    let of = |kind: NodeKind| keys.get(&kind).map(Vec::as_slice).unwrap_or_default();
    match direction {
        Direction::Up => {
            links.extend(visits::pages_of(engine, of(Trajectory), limits.rows_max).await?);
            for pin in of(Pin) {
                links.extend(sources_of(engine, pin, limits.rows_max).await?);
            }
        }
        Direction::Down => {
            links.extend(visits::trajectories_of(engine, of(Page), limits.rows_max).await?);
            links.extend(pins_of(engine, keys, limits).await?);
        }
    }
    Ok(links)
}

impl Relation {
    async fn links(
        &self,
        engine: &QueryEngine,
        direction: Direction,
        keys: &[&str],
        rows_max: u32,
    ) -> Result<Vec<Link>> {
        let (near, far, near_kind, far_kind) = match direction {
            Direction::Up => ("child", "parent", self.to, self.from),
            Direction::Down => ("parent", "child", self.from, self.to),
        };
        let mut links = Vec::new();
        for list in lists(keys) {
            let pairs = self.pairs_of(engine, direction, &list).await?;
            let sql = format!(
                "SELECT near, far, total FROM ( \
                   SELECT near, far, count(*) OVER (PARTITION BY near) AS total, \
                     row_number() OVER (PARTITION BY near ORDER BY far) AS place \
                   FROM (SELECT DISTINCT {near} AS near, {far} AS far FROM ({pairs}) \
                         WHERE {near} {list} AND {far} IS NOT NULL AND {far} <> '') \
                 ) WHERE place <= {rows_max} ORDER BY near, far"
            );
            for row in rows(engine, &sql).await? {
                let (Some(near), Some(far)) = (text(&row, "near"), text(&row, "far")) else { continue };
                links.push(Link {
                    near: NodeId::new(near_kind, near),
                    far: NodeId::new(far_kind, far),
                    relation: self.name,
                    total: row.get("total").and_then(Value::as_u64).unwrap_or_default(),
                });
            }
        }
        Ok(links)
    }

    /// The pairs, those of the keys in `list` among them. Which verdict holds is decided trajectory by trajectory: where these
    /// are named, those of all others are not ranked.
    async fn pairs_of(&self, engine: &QueryEngine, direction: Direction, list: &str) -> Result<String> {
        if (self.to, direction) != (Score, Direction::Down) {
            return Ok(self.pairs.to_string());
        }
        let judged =
            rows(engine, &format!("SELECT DISTINCT trajectory_id FROM judgments WHERE event_id {list}")).await?;
        let judged = texts(judged.iter().filter_map(|row| text(row, "trajectory_id")));
        Ok(format!("{} AND j.trajectory_id IN {judged}", self.pairs))
    }
}

/// The pin with this digest, if it is there.
pub(super) async fn pin(engine: &QueryEngine, digest: &str) -> Result<Option<PinManifest>> {
    match engine.catalog().find_pin(digest).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(QueryError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names of a pin's columns.
pub(super) fn columns(manifest: &PinManifest) -> Vec<&str> {
    let columns = manifest.schema.as_array().into_iter().flatten();
    columns.filter_map(|column| column["name"].as_str()).collect()
}

/// What the rows of a pin are, and the expression that gives their keys; None where they are none of ours.
pub(super) fn rows_of(manifest: &PinManifest) -> Option<(NodeKind, &'static str)> {
    let columns = columns(manifest);
    let has = |name: &str| columns.contains(&name);
    if has("trajectory_id") {
        Some((Trajectory, "trajectory_id"))
    } else if has("qa_id") {
        Some((Question, "qa_id"))
    } else if has("url") && has("digest") {
        Some((Page, "coalesce(digest, url)"))
    } else if has("url") && has("text") {
        // A page's digest is that of its text.
        Some((Page, "coalesce(encode(sha256(text), 'hex'), url)"))
    } else {
        None
    }
}

/// The tables that a pin was made from, and its rows.
async fn sources_of(engine: &QueryEngine, digest: &str, rows_max: u32) -> Result<Vec<Link>> {
    let Some(manifest) = pin(engine, digest).await? else { return Ok(Vec::new()) };
    let near = NodeId::new(Pin, digest);
    let total = manifest.tables.len() as u64;
    let mut links: Vec<Link> = manifest
        .tables
        .iter()
        .take(rows_max as usize)
        .map(|(name, table)| Link {
            near: near.clone(),
            far: NodeId::new(NodeKind::Table, format!("{name}@{}", table.version)),
            relation: "was read for",
            total,
        })
        .collect();
    let Some((kind, key)) = rows_of(&manifest) else { return Ok(links) };
    // A window over what is limited would be limited before it counts: hence the number of the row.
    let sql = format!(
        "SELECT key, total FROM (SELECT key, count(*) OVER () AS total, row_number() OVER (ORDER BY key) AS place \
           FROM (SELECT DISTINCT {key} AS key FROM pin({})) WHERE key IS NOT NULL) WHERE place <= {rows_max} ORDER BY key",
        literal(digest)
    );
    for row in rows(engine, &sql).await? {
        let Some(key) = text(&row, "key") else { continue };
        let total = row.get("total").and_then(Value::as_u64).unwrap_or_default();
        links.push(Link { near: near.clone(), far: NodeId::new(kind, key), relation: "is a row of", total });
    }
    Ok(links)
}

/// The pins that have these among their rows.
async fn pins_of(
    engine: &QueryEngine,
    keys: &BTreeMap<NodeKind, Vec<&str>>,
    limits: &LineageLimits,
) -> Result<Vec<Link>> {
    if ![Trajectory, Question, Page].iter().any(|kind| keys.contains_key(kind)) {
        return Ok(Vec::new());
    }
    let mut pins = engine.catalog().list_pins().await?;
    pins.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.digest.cmp(&b.digest)));
    pins.dedup_by(|a, b| a.digest == b.digest);
    let mut found: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for pin in pins.iter().take(limits.pins_max) {
        let Some((kind, key)) = rows_of(pin) else { continue };
        for list in lists(keys.get(&kind).map(Vec::as_slice).unwrap_or_default()) {
            let sql = format!(
                "SELECT DISTINCT key FROM (SELECT {key} AS key FROM pin({})) WHERE key {list}",
                literal(&pin.digest)
            );
            for row in rows(engine, &sql).await? {
                let Some(key) = text(&row, "key") else { continue };
                found.entry(NodeId::new(kind, key)).or_default().push(NodeId::new(Pin, &*pin.digest));
            }
        }
    }
    let link = |(near, pins): (NodeId, Vec<NodeId>)| {
        let total = pins.len() as u64;
        let shown = pins.into_iter().take(limits.rows_max as usize);
        shown.map(move |far| Link { near: near.clone(), far, relation: "is a row of", total }).collect::<Vec<_>>()
    };
    Ok(found.into_iter().flat_map(link).collect())
}

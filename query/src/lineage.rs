//! Where something came from, and what came of it: a graph over all that the lake holds.
//!
//! [`lineage`] finds what an id names, and walks from it up, to what it came from, and down, to what came of it. Each
//! level is a query per kind of relation, whatever the number of nodes. Edges lead from what was there first
//! to what was made of it:
//!
//! ```text
//! table ─▶ pin ─▶ run ─▶ checkpoint ─▶ trajectory ─▶ judgment ─▶ score
//!           ▲      │                      ▲    │
//!           │      ├──▶ page ─▶ question ─┘    ├──▶ reward
//!           └──────┴──────────────◀────────────┘
//! ```
//!
//! A node has at most [`rows_max`](LineageLimits::rows_max) neighbours of a relation; how many there are is in
//! [`Lineage::cut`]. The lists of turns are read for one relation only: which pages a trajectory visited, each as it was then.

mod facts;
mod find;
pub mod openlineage;
mod read;
mod relations;
mod show;
mod visits;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::limits::QueryOptions;
use crate::literal::{text as literal, texts};
use crate::output::objects;
use crate::session::QueryEngine;
use relations::Link;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// A state of a table that a pin was made from; its key is `table@version`.
    Table,
    /// A dataset, by its digest.
    Pin,
    /// A run, by its id.
    Run,
    /// Weights, by their digest.
    Checkpoint,
    /// A page, by the digest of its text; one without text by its URL.
    Page,
    /// A question, by its `qa_id`.
    Question,
    /// A trajectory, by its id.
    Trajectory,
    /// A verdict, by the id of its event.
    Judgment,
    /// A reward, by the id of its event.
    Reward,
    /// The score of a run: what its verdicts in force come to. Its key is the run's id.
    Score,
}

impl NodeKind {
    /// Every kind.
    pub const ALL: [NodeKind; 10] = [
        NodeKind::Table,
        NodeKind::Pin,
        NodeKind::Run,
        NodeKind::Checkpoint,
        NodeKind::Page,
        NodeKind::Question,
        NodeKind::Trajectory,
        NodeKind::Judgment,
        NodeKind::Reward,
        NodeKind::Score,
    ];

    /// Its name in ids, such as `run`.
    pub fn name(self) -> &'static str {
        match self {
            NodeKind::Table => "table",
            NodeKind::Pin => "pin",
            NodeKind::Run => "run",
            NodeKind::Checkpoint => "checkpoint",
            NodeKind::Page => "page",
            NodeKind::Question => "question",
            NodeKind::Trajectory => "trajectory",
            NodeKind::Judgment => "judgment",
            NodeKind::Reward => "reward",
            NodeKind::Score => "score",
        }
    }
}

/// Names a node: `kind:key`, such as `run:0190a6b2-…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// What it is.
    pub kind: NodeKind,
    /// Which one.
    pub key: String,
}

impl NodeId {
    /// The node of this kind and key.
    pub fn new(kind: NodeKind, key: impl Into<String>) -> NodeId {
        NodeId { kind, key: key.into() }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), self.key)
    }
}

impl Serialize for NodeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for NodeId {
    type Err = NoNodeId;

    fn from_str(text: &str) -> std::result::Result<NodeId, NoNodeId> {
        let (kind, key) = text.split_once(':').ok_or(NoNodeId)?;
        let kind = NodeKind::ALL.into_iter().find(|known| known.name() == kind).ok_or(NoNodeId)?;
        Ok(NodeId::new(kind, key))
    }
}

/// A text that is not `kind:key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not kind:key, such as run:0190a6b2-…")]
pub struct NoNodeId;

/// Something that the lake holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    /// Which.
    pub id: NodeId,
    /// What it is.
    pub kind: NodeKind,
    /// What tells it from others of its kind, for people, in one line.
    pub label: String,
    /// What is known of it. Texts of gated benchmarks are left out, and `restricted` is true.
    pub facts: BTreeMap<String, Value>,
    /// Steps from what was asked for, towards what it came from. None if it is no such.
    pub up: Option<u32>,
    /// Steps from what was asked for, towards what came of it. None if it is no such.
    pub down: Option<u32>,
}

/// That one thing was made of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Edge {
    /// What was there first.
    pub from: NodeId,
    /// What came of it.
    pub to: NodeId,
    /// How: a verb that leads from the one to the other, such as `made`.
    pub relation: &'static str,
}

/// Neighbours that were left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// Whose.
    pub node: NodeId,
    /// In which direction.
    pub direction: Direction,
    /// By which relation.
    pub relation: &'static str,
    /// Of which kind.
    pub kind: NodeKind,
    /// How many are in the graph.
    pub shown: u64,
    /// How many there are.
    pub total: u64,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To what it came from.
    Up,
    /// To what came of it.
    Down,
}

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineageLimits {
    /// Steps up; 12 by default: from a score to the pages behind the data that its model was trained on.
    pub up_max: u32,
    /// Steps down; 4 by default.
    pub down_max: u32,
    /// Neighbours of a node by one relation; 10 by default, the first by their ids.
    pub rows_max: u32,
    /// Nodes; 1,000 by default.
    pub nodes_max: usize,
    /// Pins that are searched for a row, the newest first; 100 by default.
    pub pins_max: usize,
}

impl Default for LineageLimits {
    fn default() -> LineageLimits {
        LineageLimits { up_max: 12, down_max: 4, rows_max: 10, nodes_max: 1_000, pins_max: 100 }
    }
}

/// What an id came from, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lineage {
    /// What the id names: a run that was scored is a run and a score.
    pub roots: Vec<NodeId>,
    /// All nodes, in the order of their ids.
    pub nodes: Vec<Node>,
    /// All edges.
    pub edges: Vec<Edge>,
    /// What was left out beside them.
    pub cut: Vec<Cut>,
    /// Whether it ended at the limit of nodes or of steps, with more behind it.
    pub is_partial: bool,
}

/// The lineage of an id: of a run (or its score), a trajectory, a question, a judgment or reward (the id of its event), a
/// checkpoint (its digest), a pin (name or digest), a page (URL or digest of its text). Digests may be given by their first
/// digits, 8 at least. `kind:key` says of which kind it is.
///
/// # Errors
/// [`QueryError::NotFound`](crate::QueryError::NotFound) when nothing has that id, and those of a query.
pub async fn lineage(engine: &QueryEngine, id: &str, limits: &LineageLimits) -> Result<Lineage> {
    let roots = find::find(engine, id).await?;
    let mut walk =
        Walk { engine, limits, seen: BTreeMap::new(), edges: BTreeSet::new(), cut: Vec::new(), partial: false };
    for root in &roots {
        walk.seen.insert(root.clone(), Seen { up: Some(0), down: Some(0) });
    }
    walk.go(Direction::Up, roots.clone(), limits.up_max).await?;
    walk.go(Direction::Down, roots.clone(), limits.down_max).await?;
    let Walk { seen, edges, cut, partial, .. } = walk;
    let mut told = facts::facts(engine, seen.keys()).await?;
    let nodes = seen.into_iter().map(|(id, Seen { up, down })| {
        let facts = told.remove(&id).unwrap_or_default();
        Node { kind: id.kind, label: facts::label(&id, &facts), id, facts, up, down }
    });
    Ok(Lineage { roots, nodes: nodes.collect(), edges: edges.into_iter().collect(), cut, is_partial: partial })
}

/// How far a node is from what was asked for.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    up: Option<u32>,
    down: Option<u32>,
}

struct Walk<'a> {
    engine: &'a QueryEngine,
    limits: &'a LineageLimits,
    seen: BTreeMap<NodeId, Seen>,
    edges: BTreeSet<Edge>,
    cut: Vec<Cut>,
    partial: bool,
}

impl Walk<'_> {
    /// Level after level from the roots on.
    async fn go(&mut self, direction: Direction, roots: Vec<NodeId>, steps_max: u32) -> Result<()> {
        let mut level = roots;
        for step in 1..=steps_max {
            let links = relations::links(self.engine, direction, &level, self.limits).await?;
            level = self.take(direction, step, links);
            if level.is_empty() {
                return Ok(());
            }
        }
        if !relations::links(self.engine, direction, &level, self.limits).await?.is_empty() {
            self.partial = true;
        }
        Ok(())
    }

    /// Adds what a level leads to; the nodes among it that are new in this direction.
    fn take(&mut self, direction: Direction, step: u32, links: Vec<Link>) -> Vec<NodeId> {
        let mut next = Vec::new();
        let mut shown: BTreeMap<(NodeId, &'static str, NodeKind), (u64, u64)> = BTreeMap::new();
        for Link { near, far, relation, total } in links {
            if !self.seen.contains_key(&far) && self.seen.len() >= self.limits.nodes_max {
                self.partial = true;
                continue;
            }
            let seen = self.seen.entry(far.clone()).or_default();
            let distance = match direction {
                Direction::Up => &mut seen.up,
                Direction::Down => &mut seen.down,
            };
            if distance.is_none() {
                *distance = Some(step);
                next.push(far.clone());
            }
            let counted = shown.entry((near.clone(), relation, far.kind)).or_insert((0, total));
            counted.0 += 1;
            let (from, to) = match direction {
                Direction::Up => (far, near),
                Direction::Down => (near, far),
            };
            self.edges.insert(Edge { from, to, relation });
        }
        let left = shown.into_iter().filter(|(_, (shown, total))| shown < total);
        self.cut.extend(left.map(|((node, relation, kind), (shown, total))| Cut {
            node,
            direction,
            relation,
            kind,
            shown,
            total,
        }));
        next
    }
}

/// Keys that one query asks for.
const KEYS_AT_ONCE: usize = 200;

/// `IN (…)` over keys as literals, some at a time.
fn lists<'a>(keys: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    keys.chunks(KEYS_AT_ONCE).map(|keys| format!("IN {}", texts(keys.iter().copied())))
}

/// Statements of a lineage that run at a time.
const STATEMENTS_AT_ONCE: usize = 4;

/// What each of these gives, in their order, some of them at a time: those of one level need not wait for one another.
async fn some_at_once<T>(work: Vec<impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    futures::stream::iter(work).buffered(STATEMENTS_AT_ONCE).try_collect().await
}

/// The rows of a query as JSON objects; what is null is not there.
async fn rows(engine: &QueryEngine, sql: &str) -> Result<Vec<Map<String, Value>>> {
    let mut rows = objects(&engine.query(sql, &QueryOptions::default()).await?.read_all().await?)?;
    rows.iter_mut().for_each(|row| row.retain(|_, value| !value.is_null()));
    Ok(rows)
}

/// The text in a member of a row.
fn text<'r>(row: &'r Map<String, Value>, name: &str) -> Option<&'r str> {
    row.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_kind_and_key_and_a_url_is_no_kind() {
        let id: NodeId = "page:https://a.example/x?y=1".parse().unwrap();
        assert_eq!((id.kind, id.key.as_str()), (NodeKind::Page, "https://a.example/x?y=1"));
        assert_eq!(id.to_string(), "page:https://a.example/x?y=1");
        assert_eq!("https://a.example/".parse::<NodeId>(), Err(NoNodeId));
        assert_eq!("0190a6b2".parse::<NodeId>(), Err(NoNodeId));
    }

    #[test]
    fn keys_are_literals_whatever_they_hold() {
        let keys = ["a", "b'); DROP TABLE qa; --"];
        let made: Vec<String> = lists(&keys).collect();
        assert_eq!(made, ["IN ('a', 'b''); DROP TABLE qa; --')"]);
        let many = vec!["k"; 401];
        assert_eq!(lists(&many).count(), 3);
    }
}

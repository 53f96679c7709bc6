//! What an id names.

use super::{NodeId, NodeKind, literal, rows, some_at_once, text};
use crate::error::{QueryError, Result};
use crate::session::QueryEngine;

/// Bytes of an id.
const ID_BYTES_MAX: usize = 4_096;
/// First digits of a digest that name it.
const DIGITS_MIN: usize = 8;

/// The queries that look for an id, and what it is if they find it. `?` stands for the id as a literal; the second is for
/// the first digits of a digest.
const PLACES: &[(NodeKind, &str, Option<&str>)] = &[
    (NodeKind::Run, "SELECT run_id AS key FROM runs WHERE run_id = ? LIMIT 1", None),
    (NodeKind::Trajectory, "SELECT trajectory_id AS key FROM trajectories WHERE trajectory_id = ? LIMIT 1", None),
    (NodeKind::Question, "SELECT qa_id AS key FROM qa WHERE qa_id = ? LIMIT 1", None),
    (NodeKind::Judgment, "SELECT event_id AS key FROM judgments WHERE event_id = ? LIMIT 1", None),
    (NodeKind::Reward, "SELECT event_id AS key FROM rewards WHERE event_id = ? LIMIT 1", None),
    (
        NodeKind::Checkpoint,
        "SELECT digest AS key FROM checkpoints WHERE digest = ? LIMIT 1",
        Some("SELECT DISTINCT digest AS key FROM checkpoints WHERE starts_with(digest, ?) ORDER BY digest LIMIT 2"),
    ),
    (
        NodeKind::Page,
        "SELECT DISTINCT coalesce(digest, url) AS key FROM pages WHERE digest = ? OR url = ? OR final_url = ? ORDER BY key",
        Some("SELECT DISTINCT digest AS key FROM pages WHERE starts_with(digest, ?) ORDER BY digest LIMIT 2"),
    ),
];

/// The nodes that an id names.
///
/// # Errors
/// [`QueryError::NotFound`] where there is none, [`QueryError::Sql`] where it names more than one of a kind.
pub(super) async fn find(engine: &QueryEngine, id: &str) -> Result<Vec<NodeId>> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(QueryError::Sql(format!("an id has from 1 to {ID_BYTES_MAX} bytes")));
    }
    let typed: Option<NodeId> = id.parse().ok();
    let (kind, key) = typed.as_ref().map_or((None, id), |typed| (Some(typed.kind), typed.key.as_str()));
    let places: Vec<_> = PLACES.iter().filter(|place| kind.is_none_or(|kind| kind == place.0)).collect();
    let mut due = Vec::new();
    for (_, exact, _) in &places {
        due.push(keys(engine, exact, key));
    }
    let exactly = some_at_once(due).await?;
    let mut found = Vec::new();
    for ((place, _, first_digits), mut keys) in places.into_iter().zip(exactly) {
        if let Some(first_digits) = first_digits.filter(|_| keys.is_empty() && is_digits(key)) {
            keys = self::keys(engine, first_digits, key).await?;
            if keys.len() > 1 {
                return Err(QueryError::Sql(format!(
                    "more than one {} begins with {key}; give more digits",
                    place.name()
                )));
            }
        }
        found.extend(keys.into_iter().map(|key| NodeId::new(*place, key)));
    }
    if kind.is_none_or(|kind| kind == NodeKind::Pin)
        && let Some(pin) = pin(engine, key).await?
    {
        found.push(pin);
    }
    let runs: Vec<String> = match kind {
        Some(NodeKind::Score) => vec![key.to_string()],
        _ => found.iter().filter(|id| id.kind == NodeKind::Run).map(|id| id.key.clone()).collect(),
    };
    for run in runs.iter().filter(|_| kind != Some(NodeKind::Run)) {
        let scored = "SELECT t.run_id AS key FROM trajectories AS t JOIN judgments AS j ON j.trajectory_id = t.trajectory_id \
                      WHERE t.run_id = ? AND j.stage IN ('correctness', 'override') LIMIT 1";
        found.extend(keys(engine, scored, run).await?.into_iter().map(|key| NodeId::new(NodeKind::Score, key)));
    }
    if found.is_empty() {
        return Err(QueryError::NotFound(format!(
            "nothing in the lake has the id {id:?}: give that of a run, trajectory, question, judgment or reward, a \
             checkpoint's or page's digest, a page's URL, or a pin's name or digest"
        )));
    }
    Ok(found)
}

async fn keys(engine: &QueryEngine, sql: &str, key: &str) -> Result<Vec<String>> {
    let rows = rows(engine, &sql.replace('?', &literal(key))).await?;
    Ok(rows.iter().filter_map(|row| text(row, "key")).map(str::to_string).collect())
}

fn is_digits(key: &str) -> bool {
    key.len() >= DIGITS_MIN && key.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A pin by its name, or its digest. That first digits of something else are no pin's is no error.
async fn pin(engine: &QueryEngine, reference: &str) -> Result<Option<NodeId>> {
    match engine.catalog().find_pin(reference).await {
        Ok(manifest) => Ok(Some(NodeId::new(NodeKind::Pin, manifest.digest))),
        Err(QueryError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

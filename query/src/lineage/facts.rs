//! What is known of nodes, and how people are told of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{NodeId, NodeKind, lists, rows, some_at_once};
use crate::error::Result;
use crate::gated;
use crate::session::QueryEngine;

type Facts = BTreeMap<String, Value>;

/// The facts about nodes of a kind: a query whose column `key` tells them apart; `?` stands for `IN (…)`, `{gated}` for the
/// [gated questions](gated::QUESTIONS).
fn query(kind: NodeKind) -> Option<&'static str> {
    Some(match kind {
        NodeKind::Run => {
            "SELECT run_id AS key, kind, state, started, updated, code_version, seed, error, pin_id, \
               json_get_str(config, 'policy') AS policy, json_get_str(config, 'web') AS web, \
               json_get_str(config, 'benchmark', 'benchmark') AS benchmark FROM run_state WHERE run_id ?"
        }
        NodeKind::Trajectory => {
            "SELECT t.trajectory_id AS key, t.event_time AS time, t.qa_id, t.run_id, t.attempt, t.policy_model AS model, \
               t.policy_version, t.termination, t.n_turns AS turns, \
               (coalesce(t.restricted, false) OR g.qa_id IS NOT NULL) AS restricted, \
               CASE WHEN t.restricted IS NOT TRUE AND g.qa_id IS NULL THEN left(t.answer, 200) END AS answer \
             FROM trajectories AS t LEFT JOIN ({gated}) AS g ON g.qa_id = t.qa_id \
             WHERE t.trajectory_id ? ORDER BY t.event_time, t.event_id"
        }
        NodeKind::Question => {
            "SELECT q.qa_id AS key, q.event_time AS time, q.method, q.type, q.language, q.rewrites, q.generator, \
               g.qa_id IS NOT NULL AS restricted, CASE WHEN g.qa_id IS NULL THEN left(q.question, 300) END AS question \
             FROM qa AS q LEFT JOIN ({gated}) AS g ON g.qa_id = q.qa_id WHERE q.qa_id ? ORDER BY q.event_time, q.event_id"
        }
        NodeKind::Page => {
            "SELECT key, min(url) AS url, min(title) AS title, min(time) AS first_fetched, max(time) AS last_fetched \
             FROM (SELECT coalesce(digest, url) AS key, url, title, event_time AS time FROM pages) WHERE key ? GROUP BY key"
        }
        NodeKind::Checkpoint => {
            "SELECT digest AS key, event_time AS time, step, uri, base_model, pin_id, run_id \
             FROM checkpoints WHERE digest ? ORDER BY event_time, event_id"
        }
        NodeKind::Judgment => {
            "SELECT event_id AS key, event_time AS time, trajectory_id, stage, verdict, score, judge, rule_version \
             FROM judgments WHERE event_id ?"
        }
        NodeKind::Reward => {
            "SELECT event_id AS key, event_time AS time, trajectory_id, reward, format, answer, advantage, policy_version \
             FROM rewards WHERE event_id ?"
        }
        NodeKind::Score => {
            "SELECT run_id AS key, count(DISTINCT qa_id) AS questions, count(correct) AS judged, \
               count(*) FILTER (WHERE correct) AS correct FROM evaluations WHERE run_id ? GROUP BY run_id"
        }
        NodeKind::Pin | NodeKind::Table => return None,
    })
}

/// The facts about nodes. Of something that was recorded twice, those recorded last.
pub(super) async fn facts<'a>(
    engine: &QueryEngine,
    ids: impl Iterator<Item = &'a NodeId>,
) -> Result<BTreeMap<NodeId, Facts>> {
    let mut keys: BTreeMap<NodeKind, Vec<&str>> = BTreeMap::new();
    for id in ids {
        keys.entry(id.kind).or_default().push(&id.key);
    }
    let mut found = BTreeMap::new();
    let mut due = Vec::new();
    for (kind, keys) in keys {
        if kind == NodeKind::Pin {
            for digest in keys {
                found.extend(pin(engine, digest).await?);
            }
            continue;
        }
        let Some(query) = query(kind) else { continue };
        for list in lists(&keys) {
            let sql = query.replace("{gated}", gated::QUESTIONS).replace('?', &list);
            due.push(told(engine, kind, sql));
        }
    }
    found.extend(some_at_once(due).await?.into_iter().flatten());
    Ok(found)
}

/// What a query says of nodes of a kind, in the order of its rows.
async fn told(engine: &QueryEngine, kind: NodeKind, sql: String) -> Result<Vec<(NodeId, Facts)>> {
    let mut told = Vec::new();
    for mut row in rows(engine, &sql).await? {
        if let Some(Value::String(key)) = row.remove("key") {
            told.push((NodeId::new(kind, key), row.into_iter().collect()));
        }
    }
    Ok(told)
}

async fn pin(engine: &QueryEngine, digest: &str) -> Result<Option<(NodeId, Facts)>> {
    let Some(manifest) = super::relations::pin(engine, digest).await? else { return Ok(None) };
    let facts = json!({
        "name": manifest.name,
        "rows": manifest.rows,
        "sql": manifest.definition,
        "created": manifest.created,
        "code_version": manifest.code_version,
    });
    let facts = if let Value::Object(members) = facts { members.into_iter().collect() } else { Facts::new() };
    Ok(Some((NodeId::new(NodeKind::Pin, digest), facts)))
}

/// What tells a node from others of its kind, in one line.
pub(super) fn label(id: &NodeId, facts: &Facts) -> String {
    let said = |name: &str| match facts.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    let with = |before: &str, name: &str| said(name).map(|value| format!("{before}{value}"));
    let parts: Vec<Option<String>> = match id.kind {
        // Nothing is recorded of it but its name, which says all.
        NodeKind::Table => {
            return match id.key.rsplit_once('@') {
                Some((table, version)) => format!("{}, version {}", one_line(table), one_line(version)),
                None => one_line(&id.key),
            };
        }
        NodeKind::Pin => vec![said("name"), said("rows").map(|rows| format!("{rows} rows"))],
        NodeKind::Run => vec![
            said("kind"),
            said("state"),
            said("benchmark"),
            with("by ", "policy"),
            with("on ", "web"),
            with("code ", "code_version"),
        ],
        NodeKind::Checkpoint => vec![with("step ", "step"), said("uri")],
        NodeKind::Page => vec![said("url"), said("title")],
        NodeKind::Question => vec![said("method"), said("type"), said("question")],
        NodeKind::Trajectory => vec![
            said("model"),
            with("attempt ", "attempt"),
            said("turns").map(|turns| format!("{turns} turns")),
            said("termination"),
            said("answer"),
        ],
        NodeKind::Judgment => {
            vec![said("stage"), said("verdict"), with("by ", "judge"), with("version ", "rule_version")]
        }
        NodeKind::Reward => vec![with("reward ", "reward"), with("advantage ", "advantage")],
        NodeKind::Score => {
            let correct = said("correct").unwrap_or_default();
            vec![said("judged").map(|judged| format!("{correct} of {judged} attempts correct"))]
        }
    };
    let said: Vec<String> = parts.into_iter().flatten().map(|part| one_line(&part)).collect();
    match said.is_empty() && facts.is_empty() {
        true => "not in the lake".to_string(),
        false => said.join(", "),
    }
}

/// Characters of a part of a label.
const PART_CHARS_MAX: usize = 80;

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(PART_CHARS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_in_one_line_what_is_known() {
        let facts = |json: Value| json.as_object().unwrap().clone().into_iter().collect::<Facts>();
        let of = |kind, json| label(&NodeId::new(kind, "k"), &facts(json));
        assert_eq!(of(NodeKind::Pin, json!({"name": "train", "rows": 12})), "train, 12 rows");
        assert_eq!(of(NodeKind::Score, json!({"judged": 6, "correct": 4})), "4 of 6 attempts correct");
        assert_eq!(of(NodeKind::Question, json!({"method": "import", "question": "Who\n is?"})), "import, Who is?");
        assert_eq!(of(NodeKind::Run, json!({})), "not in the lake");
        assert_eq!(label(&NodeId::new(NodeKind::Table, "qa@3"), &Facts::new()), "qa, version 3");
        assert_eq!(of(NodeKind::Table, json!({})), "k");
    }
}

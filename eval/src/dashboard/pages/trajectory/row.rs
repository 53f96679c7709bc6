//! One trajectory as rows: what it is, the window of turns that the rail shows, one turn in full, and what others said of
//! it. A row is found by its id before any list of turns is read, and no list is read that is not shown.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use webdancer_query::gated;

use super::super::read::{all, first};
use crate::dashboard::fault::Fault;
use crate::dashboard::sql::{text, texts};
use crate::dashboard::state::Dashboard;

/// Attempts at one question that are gone through.
const ATTEMPTS_MAX: usize = 1_000;
/// Verdicts and rewards of one trajectory.
const VERDICTS_MAX: usize = 200;

/// A trajectory without its turns.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Head {
    pub(super) trajectory_id: String,
    pub(super) event_id: String,
    pub(super) event_time: String,
    pub(super) source: Option<String>,
    pub(super) qa_id: String,
    pub(super) run_id: Option<String>,
    pub(super) policy_model: Option<String>,
    pub(super) policy_checkpoint_digest: Option<String>,
    pub(super) policy_version: Option<i64>,
    pub(super) sampling_parameters: Option<String>,
    pub(super) seed: Option<i64>,
    pub(super) attempt: i64,
    pub(super) tokenizer_digest: Option<String>,
    pub(super) prompt_profile: Option<String>,
    pub(super) question: Option<String>,
    pub(super) answer: Option<String>,
    pub(super) termination: String,
    pub(super) n_turns: i64,
    pub(super) n_tool_calls: i64,
    pub(super) input_tokens: Option<i64>,
    pub(super) output_tokens: Option<i64>,
    pub(super) restricted: bool,
    pub(super) parents: Vec<String>,
    pub(super) turns: i64,
}

const HEAD: &str = "trajectory_id, event_id, event_time, source, qa_id, run_id, policy_model, policy_checkpoint_digest, \
    policy_version, sampling_parameters, seed, attempt, tokenizer_digest, prompt_profile, question, answer, termination, \
    n_turns, n_tool_calls, input_tokens, output_tokens, coalesce(restricted, false) AS restricted, parents, \
    greatest(CAST(n_turns AS BIGINT), CAST(coalesce(array_length(turn_tool), 0) AS BIGINT)) AS turns";

/// A turn as the rail has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Step {
    /// Number, from 0.
    pub(super) turn: usize,
    pub(super) tool: Option<String>,
    pub(super) outcome: Option<String>,
    pub(super) ms: Option<i64>,
    pub(super) input_tokens: Option<i64>,
    pub(super) output_tokens: Option<i64>,
}

/// The lists of the rail, cut to its window.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lists {
    tool: Vec<Option<String>>,
    outcome: Vec<Option<String>>,
    ms: Vec<Option<i64>>,
    input_tokens: Vec<Option<i64>>,
    output_tokens: Vec<Option<i64>>,
}

/// One turn in full.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Turn {
    pub(super) thought: Option<String>,
    pub(super) tool: Option<String>,
    pub(super) arguments: Option<String>,
    pub(super) observation: Option<String>,
    pub(super) observation_digest: Option<String>,
    pub(super) outcome: Option<String>,
    pub(super) raw: Option<String>,
    pub(super) ms: Option<i64>,
    pub(super) policy_version: Option<i64>,
    pub(super) input_tokens: Option<i64>,
    pub(super) output_tokens: Option<i64>,
    pub(super) final_instruction: Option<String>,
    /// Of what the call was answered from.
    pub(super) source_urls: Option<Vec<String>>,
    pub(super) source_digests: Option<Vec<String>>,
}

/// A page of the lake.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) url: String,
    pub(super) digest: String,
    /// Whether this is what the call read, and not what was stored last.
    pub(super) as_read: bool,
}

/// The tokens of one turn.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Tokens {
    pub(super) context: Option<Vec<i64>>,
    pub(super) completion: Option<Vec<i64>>,
    pub(super) log_probs: Option<Vec<Option<f64>>>,
}

/// A verdict on a trajectory.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Verdict {
    pub(super) event_id: String,
    pub(super) event_time: String,
    pub(super) stage: String,
    pub(super) verdict: String,
    pub(super) score: Option<f64>,
    pub(super) judge: Option<String>,
    pub(super) criteria: Option<String>,
    pub(super) rationale: Option<String>,
    pub(super) rule_version: i64,
    /// Whether it is the one that holds.
    pub(super) current: bool,
}

/// A reward and its parts.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Reward {
    pub(super) event_id: String,
    pub(super) group_id: Option<String>,
    pub(super) format: Option<f64>,
    pub(super) answer: Option<f64>,
    pub(super) overlong_penalty: Option<f64>,
    pub(super) reward: f64,
    pub(super) advantage: Option<f64>,
    pub(super) policy_version: Option<i64>,
    pub(super) criteria: Option<String>,
}

/// The question that was attempted.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Question {
    pub(super) qa_id: String,
    pub(super) question: String,
    pub(super) answer: String,
    pub(super) method: String,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) language: Option<String>,
    pub(super) restricted: bool,
}

/// Another attempt at the same question.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Attempt {
    pub(super) trajectory_id: String,
    pub(super) run_id: Option<String>,
    pub(super) attempt: i64,
    pub(super) policy_model: Option<String>,
}

/// A run, as far as a trajectory names it.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Run {
    pub(super) kind: Option<String>,
    pub(super) pin_id: Option<String>,
    pub(super) seed: Option<i64>,
    pub(super) web: Option<String>,
}

/// The trajectory of an id.
pub(super) async fn head(app: &Dashboard, id: &str) -> Result<Head, Fault> {
    let found: Option<Head> = first(app, &of_one(HEAD, id)).await?;
    found.ok_or_else(|| missing(id))
}

/// A trajectory as a page opens it.
pub(super) struct Opened {
    pub(super) head: Head,
    /// The turns of the rail's window, as the rail has them.
    pub(super) steps: Vec<Step>,
    /// The open turn.
    pub(super) turn: Turn,
}

/// The trajectory of an id with the turns `from..to`, as far as there are so many, and one turn. One statement: to find the
/// row is most of what each of them would take.
pub(super) async fn opened(
    app: &Dashboard,
    id: &str,
    (from, to): (usize, usize),
    turn: usize,
) -> Result<Opened, Fault> {
    let slice = |name: &str| format!("array_slice(turn_{name}, {}, {to}) AS rail_{name}", from + 1);
    let lists = ["tool", "outcome", "ms", "input_tokens", "output_tokens"].map(slice).join(", ");
    let columns = format!("{HEAD}, {lists}, {}", turn_columns(turn, "open_"));
    let row: Option<Map<String, Value>> = first(app, &of_one(&columns, id)).await?;
    let row = row.ok_or_else(|| missing(id))?;
    let head: Head = part(&row, "")?;
    let to = to.min(usize::try_from(head.turns).unwrap_or(0));
    Ok(Opened { steps: steps(part(&row, "rail_")?, from, to), turn: part(&row, "open_")?, head })
}

/// The columns of a row whose names begin so, without that.
fn part<T: DeserializeOwned>(row: &Map<String, Value>, prefix: &str) -> Result<T, Fault> {
    let of = |(name, value): (&String, &Value)| Some((name.strip_prefix(prefix)?.to_string(), value.clone()));
    let found = serde_json::from_value(Value::Object(row.iter().filter_map(of).collect()));
    found.map_err(|error| Fault::failed("rows of the lake cannot be read", &error))
}

fn missing(id: &str) -> Fault {
    Fault::Missing(format!("there is no trajectory {id}"))
}

fn steps(lists: Lists, from: usize, to: usize) -> Vec<Step> {
    let step = |at: usize| Step {
        turn: from + at,
        tool: lists.tool.get(at).cloned().flatten(),
        outcome: lists.outcome.get(at).cloned().flatten(),
        ms: lists.ms.get(at).copied().flatten(),
        input_tokens: lists.input_tokens.get(at).copied().flatten(),
        output_tokens: lists.output_tokens.get(at).copied().flatten(),
    };
    (0..to.saturating_sub(from)).map(step).collect()
}

/// One turn, counted from 0.
pub(super) async fn turn(app: &Dashboard, id: &str, turn: usize) -> Result<Turn, Fault> {
    Ok(first(app, &of_one(&turn_columns(turn, ""), id)).await?.unwrap_or_default())
}

/// What is read of a turn, counted from 0, under names that begin with `prefix`.
fn turn_columns(turn: usize, prefix: &str) -> String {
    let lists = [
        "thought",
        "tool",
        "arguments",
        "observation",
        "observation_digest",
        "outcome",
        "raw",
        "ms",
        "policy_version",
        "input_tokens",
        "output_tokens",
        "source_urls",
        "source_digests",
    ];
    let element = |name: &str| format!("array_element(turn_{name}, {}) AS {prefix}{name}", turn + 1);
    format!("{}, final_instruction AS {prefix}final_instruction", lists.map(element).join(", "))
}

/// The tokens of one turn, counted from 0.
pub(super) async fn tokens(app: &Dashboard, id: &str, turn: usize) -> Result<Tokens, Fault> {
    let element = |list: &str, name: &str| format!("array_element({list}, {}) AS {name}", turn + 1);
    let columns = [
        element("turn_context_token_ids", "context"),
        element("turn_completion_token_ids", "completion"),
        element("turn_log_probs", "log_probs"),
    ];
    Ok(first(app, &of_one(&columns.join(", "), id)).await?.unwrap_or_default())
}

/// What was done in each turn: tool, arguments, and the digest of what came back.
pub(super) type Calls = Vec<(Option<String>, Option<String>, Option<String>)>;

/// The calls of all turns, at most `turns_max`.
pub(super) async fn calls(app: &Dashboard, id: &str, turns_max: usize) -> Result<Calls, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Row {
        tool: Vec<Option<String>>,
        arguments: Vec<Option<String>>,
        digest: Vec<Option<String>>,
    }
    let slice = |list: &str, name: &str| format!("array_slice({list}, 1, {turns_max}) AS {name}");
    let columns =
        [slice("turn_tool", "tool"), slice("turn_arguments", "arguments"), slice("turn_observation_digest", "digest")];
    let row: Row = first(app, &of_one(&columns.join(", "), id)).await?.unwrap_or_default();
    let mut arguments = row.arguments.into_iter();
    let mut digests = row.digest.into_iter();
    Ok(row.tool.into_iter().map(|tool| (tool, arguments.next().flatten(), digests.next().flatten())).collect())
}

/// Every verdict, the newest first, with those marked that hold.
pub(super) async fn verdicts(app: &Dashboard, id: &str) -> Result<Vec<Verdict>, Fault> {
    let id = text(id);
    let sql = format!(
        "SELECT j.event_id, j.event_time, j.stage, j.verdict, j.score, j.judge, j.criteria, j.rationale, j.rule_version, \
           c.event_id IS NOT NULL AS current \
         FROM judgments AS j \
         LEFT JOIN (SELECT event_id FROM current_judgments WHERE trajectory_id = {id}) AS c ON c.event_id = j.event_id \
         WHERE j.trajectory_id = {id} \
         ORDER BY current DESC, j.event_time DESC, j.event_id DESC LIMIT {VERDICTS_MAX}"
    );
    all(app, &sql).await
}

/// Every reward, the newest first.
pub(super) async fn rewards(app: &Dashboard, id: &str) -> Result<Vec<Reward>, Fault> {
    let sql = format!(
        "SELECT event_id, group_id, format, answer, overlong_penalty, reward, advantage, policy_version, criteria \
         FROM rewards WHERE trajectory_id = {} ORDER BY event_time DESC, event_id DESC LIMIT {VERDICTS_MAX}",
        text(id)
    );
    all(app, &sql).await
}

/// The question of an id.
pub(super) async fn question(app: &Dashboard, qa_id: &str) -> Result<Option<Question>, Fault> {
    let sql = format!(
        "SELECT q.qa_id, q.question, q.answer, q.method, q.type, q.language, g.qa_id IS NOT NULL AS restricted \
         FROM qa AS q {} WHERE q.qa_id = {} ORDER BY q.event_time DESC, q.event_id DESC LIMIT 1",
        gated::joined_to("q"),
        text(qa_id)
    );
    first(app, &sql).await
}

/// The attempts at a question, those of one run side by side.
pub(super) async fn attempts(app: &Dashboard, qa_id: &str) -> Result<Vec<Attempt>, Fault> {
    let sql = format!(
        "SELECT DISTINCT trajectory_id, run_id, attempt, policy_model FROM trajectories WHERE qa_id = {} \
         ORDER BY run_id, attempt, trajectory_id LIMIT {ATTEMPTS_MAX}",
        text(qa_id)
    );
    all(app, &sql).await
}

/// The run of an id: what it was of and over.
pub(super) async fn run(app: &Dashboard, run_id: &str) -> Result<Option<Run>, Fault> {
    let sql = format!(
        "SELECT max(kind) AS kind, max(pin_id) AS pin_id, max(seed) AS seed, max(json_get_str(config, 'web')) AS web \
         FROM runs WHERE run_id = {}",
        text(run_id)
    );
    first(app, &sql).await
}

/// The stored pages of these addresses, which a turn's call named: as it read them, else as they were stored last. What was
/// read is known by its digest: a closed web may have a page under another address than the lake.
pub(super) async fn pages(app: &Dashboard, turn: &Turn, urls: &[String]) -> Result<Vec<Stored>, Fault> {
    #[derive(Deserialize)]
    struct Row {
        url: Option<String>,
        digest: String,
    }
    if urls.is_empty() {
        return Ok(Vec::new());
    }
    let read = turn.source_digests.as_deref().unwrap_or_default();
    let of_digests = match read {
        [] => String::new(),
        read => format!(
            " UNION ALL SELECT DISTINCT CAST(NULL AS VARCHAR) AS url, digest FROM pages WHERE digest IN {}",
            texts(read.iter().map(String::as_str))
        ),
    };
    let sql = format!(
        "SELECT url, last_value(digest ORDER BY event_time, event_id) AS digest FROM pages \
         WHERE url IN {} AND digest IS NOT NULL GROUP BY url{of_digests}",
        texts(urls.iter().map(String::as_str))
    );
    let (known, by_digest): (Vec<Row>, Vec<Row>) =
        all(app, &sql).await?.into_iter().partition(|row: &Row| row.url.is_some());
    let sources = turn.source_urls.iter().flatten().zip(read);
    let as_read = sources.filter(|(_, digest)| by_digest.iter().any(|row| row.digest == **digest));
    let as_read = as_read.map(|(url, digest)| Stored { url: url.clone(), digest: digest.clone(), as_read: true });
    let last = known.into_iter().filter_map(|row| Some(Stored { url: row.url?, digest: row.digest, as_read: false }));
    Ok(as_read.chain(last).collect())
}

/// Columns of the newest row of a trajectory. The id is compared before lists are read; nothing is sorted but that row.
fn of_one(columns: &str, id: &str) -> String {
    format!(
        "SELECT {columns} FROM trajectories WHERE trajectory_id = {} ORDER BY event_time DESC, event_id DESC LIMIT 1",
        text(id)
    )
}

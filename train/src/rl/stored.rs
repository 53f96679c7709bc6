//! Episodes that were recorded: of a run that goes on, and of any run to learn from without sampling.
//!
//! A run's `events.ndjson` holds them as events; a pin holds them as rows of `trajectories` joined with `rewards`:
//!
//! ```sql
//! SELECT t.*, r.group_id, r.format, r.answer AS answer_reward FROM trajectories t JOIN rewards r
//!   ON r.trajectory_id = t.trajectory_id AND r.run_id = t.run_id WHERE t.run_id = '…'
//! ```
//!
//! In whatever order rows lie, a run's groups are gone through in the order of their rounds and prompts. A turn whose ids or
//! log-probabilities have a null among them has none: it is left out, and counted. So is an attempt that was not sampled at
//! temperature 1 from the whole distribution: endpoints record the model's own log-probabilities, and a ratio to them would
//! say nothing of how its tokens were drawn. Rollouts at another temperature record theirs, but a row does not say whose it
//! is.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use serde_json::Value;
use webdancer_agent::judge::{Decision, Verdict};
use webdancer_agent::reward::{RewardParameters, RewardParts};
use webdancer_schemas::column::JsonText;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::{Judgment, Reward, Trajectory};
use webdancer_schemas::wire;

use crate::data::{Columns, Pin, RowKind, ids_at, list_at, list_of, text_at};
use crate::events::LINE_BYTES_MAX;
use crate::input::InputError;

/// An episode as it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The trajectory, with token ids.
    pub trajectory: Trajectory,
    /// What the judge said.
    pub decision: Option<Decision>,
    /// Whether format and answer were right, where a reward was given.
    pub scores: Option<(bool, bool)>,
    /// Its group.
    pub group: Option<String>,
}

impl Stored {
    /// The reward by these parameters; none where none was given.
    pub fn reward(&self, parameters: &RewardParameters) -> Option<RewardParts> {
        let (format, answer) = self.scores?;
        let weigh = |part: bool, weight: f64| if part { weight } else { 0.0 };
        let reward = weigh(format, parameters.format_weight) + weigh(answer, parameters.answer_weight);
        Some(RewardParts { format, answer, reward, fault: None })
    }

    /// Whether its tokens were drawn by the probabilities that are recorded, whoever recorded them: at temperature 1, without
    /// cuts or penalties, as far as its sampling parameters tell.
    pub fn is_of_the_whole_distribution(&self) -> bool {
        let Some(JsonText(parameters)) = &self.trajectory.sampling_parameters else { return true };
        let is = |name: &str, allowed: &[f64]| {
            let value = parameters.get(name).and_then(Value::as_f64);
            value.is_none_or(|value| allowed.contains(&value))
        };
        // A top_k of 0 or −1 cuts nothing.
        is("temperature", &[1.0])
            && is("top_p", &[1.0])
            && is("repetition_penalty", &[1.0])
            && is("top_k", &[0.0, -1.0])
    }
}

/// The episodes at `place`: a run's `events.ndjson`, or a pin's manifest or folder. In the order in which they lie there.
///
/// # Errors
/// It cannot be read, or is neither.
pub fn read(place: &Path, file_bytes_max: u64) -> Result<Vec<Stored>, InputError> {
    if place.extension().is_some_and(|extension| extension == "ndjson") {
        of_events(place, 0)
    } else {
        of_pin(&Pin::open(place)?, file_bytes_max)
    }
}

/// Groups to train on: episodes with a reward and log-probabilities. The groups of a run of ours are in the order of their
/// rounds and prompts, whose numbers their ids end in; others in the order of their first episodes. Attempts at gated
/// benchmarks are never trained on.
///
/// # Errors
/// There is none, or an episode is there twice.
pub fn groups(place: &Path, stored: Vec<Stored>) -> Result<Vec<Vec<Stored>>, InputError> {
    let mut groups: Vec<(String, Vec<Stored>)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut seen: HashSet<String> = HashSet::new();
    for episode in stored {
        if episode.trajectory.restricted == Some(true) {
            continue;
        }
        let (Some(group), Some(_), Some(_)) = (&episode.group, episode.scores, &episode.trajectory.turn_log_probs)
        else {
            continue;
        };
        if !seen.insert(episode.trajectory.trajectory_id.clone()) {
            let reason = format!(
                "holds trajectory {} twice: it has several rewards, of which the run's own is the one to pin (r.run_id = \
                 t.run_id)",
                episode.trajectory.trajectory_id
            );
            return Err(InputError::file(place, reason));
        }
        let at = *known.entry(group.clone()).or_insert_with(|| {
            groups.push((group.clone(), Vec::new()));
            groups.len() - 1
        });
        if let Some((_, group)) = groups.get_mut(at) {
            group.push(episode);
        }
    }
    // Stable, and by number: as text the tenth round comes before the second.
    if let Some(places) = groups.iter().map(|(id, _)| place_of(id)).collect::<Option<Vec<_>>>() {
        let mut placed: Vec<_> = places.into_iter().zip(groups).collect();
        placed.sort_by_key(|(place, _)| *place);
        groups = placed.into_iter().map(|(_, group)| group).collect();
    }
    let groups: Vec<Vec<Stored>> = groups.into_iter().map(|(_, group)| group).collect();
    if groups.is_empty() {
        return Err(InputError::file(
            place,
            "holds no episode with token ids, log-probabilities, a reward and a group",
        ));
    }
    Ok(groups)
}

/// Round and prompt of a group, as the run that sampled it names it: `RUN/ROUND/PROMPT`.
fn place_of(group: &str) -> Option<(u64, u64)> {
    let (rest, prompt) = group.rsplit_once('/')?;
    let (_, round) = rest.rsplit_once('/')?;
    Some((round.parse().ok()?, prompt.parse().ok()?))
}

/// The episodes in a run's events, of a version of the policy and later ones. A line that was cut off at the end is passed over.
///
/// # Errors
/// The file cannot be read, or holds what is no event.
pub fn of_events(path: &Path, version_min: u64) -> Result<Vec<Stored>, InputError> {
    let failed = |error: std::io::Error| InputError::file(path, error);
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let (mut found, mut places): (Vec<Stored>, HashMap<String, usize>) = (Vec::new(), HashMap::new());
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        (&mut reader).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).map_err(failed)?;
        number += 1;
        if line.last() != Some(&b'\n') {
            return Ok(found);
        }
        let fault = |reason: String| InputError::file(path, format!("line {number}: {reason}"));
        let (envelope, data) = wire::parse_structured(&line).map_err(|e| fault(format!("is no event: {e}")))?;
        let of_row = |error: serde_json::Error| fault(format!("data: {error}"));
        match envelope.kind {
            Kind::Trajectory => {
                let trajectory: Trajectory = serde_json::from_str(data.get()).map_err(of_row)?;
                if trajectory.policy_version.is_some_and(|version| version.cast_unsigned() < version_min) {
                    continue;
                }
                places.insert(trajectory.trajectory_id.clone(), found.len());
                found.push(Stored { trajectory, decision: None, scores: None, group: None });
            }
            Kind::Judgment => {
                let row: Judgment = serde_json::from_str(data.get()).map_err(of_row)?;
                let episode = places.get(&row.trajectory_id).and_then(|at| found.get_mut(*at));
                if let (Some(episode), Some(verdict)) = (episode, Verdict::from_word(&row.verdict)) {
                    let rationale = row.rationale.unwrap_or_default();
                    episode.decision = Some(Decision { verdict, ..Decision::error(rationale) });
                }
            }
            Kind::Reward => {
                let row: Reward = serde_json::from_str(data.get()).map_err(of_row)?;
                if let Some(episode) = places.get(&row.trajectory_id).and_then(|at| found.get_mut(*at)) {
                    episode.scores = row.format.zip(row.answer).map(|(format, answer)| (format > 0.5, answer > 0.5));
                    episode.group = row.group_id;
                }
            }
            _ => {}
        }
    }
}

const EPISODES: RowKind = RowKind {
    name: "trajectories with rewards",
    required: &[
        "trajectory_id",
        "turn_thought",
        "turn_context_token_ids",
        "turn_completion_token_ids",
        "turn_log_probs",
        "turn_policy_version",
        "termination",
        "tokenizer_digest",
        "group_id",
        "format",
        "answer_reward",
    ],
    optional: &["qa_id", "attempt", "output_tokens", "restricted", "sampling_parameters"],
};

fn of_pin(pin: &Pin, file_bytes_max: u64) -> Result<Vec<Stored>, InputError> {
    let mut found = Vec::new();
    for batch in pin.batches(&EPISODES, file_bytes_max) {
        let (path, batch) = batch?;
        found.extend(rows_of(&Columns { batch: &batch, path: &path })?);
    }
    Ok(found)
}

fn rows_of(columns: &Columns<'_>) -> Result<Vec<Stored>, InputError> {
    let text = |name| columns.text(name);
    let (id, qa, group) = (text("trajectory_id")?, text("qa_id")?, text("group_id")?);
    let (termination, tokenizer) = (text("termination")?, text("tokenizer_digest")?);
    let number = |name, kind: &DataType| columns.cast_to(name, kind);
    let (format, answer) = (number("format", &DataType::Float64)?, number("answer_reward", &DataType::Float64)?);
    let (attempt, written) = (number("attempt", &DataType::Int32)?, number("output_tokens", &DataType::Int64)?);
    let lists = |name, inner: DataType| columns.cast_to(name, &list_of(inner));
    let thoughts = columns.texts("turn_thought")?;
    let context = lists("turn_context_token_ids", list_of(DataType::Int32))?;
    let completion = lists("turn_completion_token_ids", list_of(DataType::Int32))?;
    let log_probs = lists("turn_log_probs", list_of(DataType::Float32))?;
    let versions = lists("turn_policy_version", DataType::Int64)?;
    let (restricted, sampling) = (columns.cast_to("restricted", &DataType::Boolean)?, text("sampling_parameters")?);
    let share = |column: &Option<arrow::array::ArrayRef>, row: usize| {
        let column = column.as_ref()?.as_primitive_opt::<Float64Type>()?;
        column.is_valid(row).then(|| column.value(row) > 0.5)
    };
    let row = |row: usize| {
        let turn_thought = crate::data::texts_at(thoughts.as_ref(), row);
        let log_probs_at = || {
            let turns = list_at(log_probs.as_ref(), row)?;
            let values = |turn| {
                let values = list_at(Some(&turns), turn)?;
                let values = values.as_primitive_opt::<Float32Type>()?;
                (values.null_count() == 0).then(|| values.values().to_vec())
            };
            Some((0..turns.len()).map(values).collect())
        };
        let versions_at = || {
            let turns = list_at(versions.as_ref(), row)?;
            Some(turns.as_primitive_opt::<Int64Type>()?.iter().collect())
        };
        let attempt_at = || {
            let column = attempt.as_ref()?.as_primitive_opt::<Int32Type>()?;
            column.is_valid(row).then(|| column.value(row))
        };
        let written_at = || {
            let column = written.as_ref()?.as_primitive_opt::<Int64Type>()?;
            column.is_valid(row).then(|| column.value(row))
        };
        let restricted_at = || {
            let column = restricted.as_ref()?.as_boolean_opt()?;
            column.is_valid(row).then(|| column.value(row))
        };
        let sampling_at = || serde_json::from_str(&text_at(sampling.as_ref(), row)?).ok().map(JsonText);
        let trajectory = Trajectory {
            trajectory_id: text_at(id.as_ref(), row).unwrap_or_default(),
            qa_id: text_at(qa.as_ref(), row).unwrap_or_default(),
            attempt: attempt_at().unwrap_or_default(),
            termination: text_at(termination.as_ref(), row).unwrap_or_default(),
            tokenizer_digest: text_at(tokenizer.as_ref(), row),
            output_tokens: written_at(),
            restricted: restricted_at(),
            sampling_parameters: sampling_at(),
            n_turns: i32::try_from(turn_thought.len()).unwrap_or(i32::MAX),
            turn_thought,
            turn_context_token_ids: ids_at(context.as_ref(), row),
            turn_completion_token_ids: ids_at(completion.as_ref(), row),
            turn_log_probs: log_probs_at(),
            turn_policy_version: versions_at(),
            ..Trajectory::default()
        };
        let scores = share(&format, row).zip(share(&answer, row));
        Stored { trajectory, decision: None, scores, group: text_at(group.as_ref(), row) }
    };
    Ok((0..columns.batch.num_rows()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn episode(group: &str, id: &str) -> Stored {
        let trajectory =
            Trajectory { trajectory_id: id.to_string(), turn_log_probs: Some(Vec::new()), ..Trajectory::default() };
        Stored { trajectory, decision: None, scores: Some((true, true)), group: Some(group.to_string()) }
    }

    fn order(ids: &[&str]) -> Vec<Vec<String>> {
        let stored = ids.iter().enumerate().map(|(at, id)| episode(id, &at.to_string())).collect();
        let groups = groups(Path::new("p"), stored).unwrap();
        groups.into_iter().map(|group| group.into_iter().map(|of| of.trajectory.trajectory_id).collect()).collect()
    }

    #[test]
    fn only_what_was_drawn_by_the_recorded_probabilities_is_replayed() {
        let sampled = |parameters: Option<&str>| {
            let mut stored = episode("g", "t");
            stored.trajectory.sampling_parameters =
                parameters.map(|parameters| JsonText(serde_json::from_str(parameters).unwrap()));
            stored.is_of_the_whole_distribution()
        };
        for whole in [
            None,
            Some("{}"),
            Some(
                r#"{"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1, "seed": 7, "cot": "short"}"#,
            ),
            Some(r#"{"temperature": null, "top_k": 0}"#),
        ] {
            assert!(sampled(whole), "{whole:?}");
        }
        for cut in [
            r#"{"temperature": 0.6, "top_p": 1.0}"#,
            r#"{"temperature": 1.0, "top_p": 0.95}"#,
            r#"{"top_k": 20}"#,
            r#"{"repetition_penalty": 1.1}"#,
            r#"{"temperature": 0}"#,
        ] {
            assert!(!sampled(Some(cut)), "{cut}");
        }
    }

    #[test]
    fn groups_come_in_the_order_of_rounds_and_prompts_by_number() {
        // As a pin sorts text.
        let ids = ["r/0/10", "r/0/2", "r/0/2", "r/10/30", "r/2/20"];
        assert_eq!(order(&ids), [vec!["1", "2"], vec!["0"], vec!["4"], vec!["3"]]);
        // Groups of others are as they come.
        assert_eq!(order(&["b", "a", "r/0/1", "b"]), [vec!["0", "3"], vec!["1"], vec!["2"]]);
    }
}

//! Batches of trajectories and verdicts to `reward` events.

use std::collections::BTreeMap;

use arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use serde_json::{Map, Value, json};
use webdancer_agent::judge::Verdict;
use webdancer_agent::output::Output;
use webdancer_agent::reward::{RewardParameters, RewardParts, Withheld, reward};
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::Reward;

use super::events::event;
use super::stage::digest;
use super::{Attempts, FunnelError, Run};

/// What became of batches.
#[derive(Debug, Default)]
pub struct Rewarded {
    /// A `reward` for each trajectory that got one.
    pub events: Vec<Event>,
    /// Their rewards, summed.
    pub sum: f64,
    /// How many got none, by why.
    pub withheld: BTreeMap<Withheld, u64>,
}

/// The digest of what rewards are computed by: `digest` in a reward's criteria.
pub fn reward_digest(parameters: &RewardParameters) -> String {
    digest(&json!(parameters))
}

/// Rewards the trajectories of `batches`.
///
/// Beside what [`Attempts`] reads, a batch has `verdict` and `judgment_id`, the current correctness judgment, and may
/// have `group_id` and `policy_version`. A reward's id is derived from trajectory, judgment and parameters: the same
/// judgment gives one reward, another judgment another.
///
/// # Errors
/// [`FunnelError::Batch`] when a column is missing.
pub fn reward_all(batches: &[RecordBatch], parameters: &RewardParameters, run: &Run) -> Result<Rewarded, FunnelError> {
    let digest = reward_digest(parameters);
    let mut rewarded = Rewarded::default();
    for batch in batches {
        let attempts = Attempts::new(batch)?;
        let judged = Judged::new(batch)?;
        let mut turns = Vec::new();
        for row in 0..attempts.len() {
            // Lists that differ in length are no turns: the format was not obeyed.
            let none = Output { termination: attempts.termination(row), answer: attempts.answer(row), turns: &[] };
            let output = attempts.output(row, &mut turns).unwrap_or(none);
            match reward(&output, judged.verdict(row), parameters) {
                Ok(parts) => {
                    rewarded.sum += parts.reward;
                    rewarded.events.push(judged.event(&attempts, row, &parts, (parameters, &digest), run)?);
                }
                Err(why) => *rewarded.withheld.entry(why).or_default() += 1,
            }
        }
    }
    Ok(rewarded)
}

/// The columns of a batch that tell of the judgment.
struct Judged<'a> {
    batch: &'a RecordBatch,
    verdict: &'a StringArray,
    judgment_id: &'a StringArray,
}

impl<'a> Judged<'a> {
    fn new(batch: &'a RecordBatch) -> Result<Judged<'a>, FunnelError> {
        let text = |name: &str| {
            let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.ok_or_else(|| FunnelError::Batch(format!("it has no column {name} of text")))
        };
        Ok(Judged { batch, verdict: text("verdict")?, judgment_id: text("judgment_id")? })
    }

    fn verdict(&self, row: usize) -> Option<Verdict> {
        Verdict::from_word(value(self.verdict, row)?)
    }

    fn event(
        &self,
        attempts: &Attempts<'_>,
        row: usize,
        parts: &RewardParts,
        (parameters, digest): (&RewardParameters, &str),
        run: &Run,
    ) -> Result<Event, FunnelError> {
        let trajectory_id = attempts.trajectory_id(row).to_string();
        let judgment_id = value(self.judgment_id, row);
        let group = self.batch.column_by_name("group_id").and_then(|column| column.as_string_opt::<i32>());
        let version = self.batch.column_by_name("policy_version");
        let version = version.and_then(|column| column.as_primitive_opt::<Int64Type>());
        let mut criteria = Map::from_iter([("digest".to_string(), Value::from(digest))]);
        criteria.extend(judgment_id.map(|id| ("judgment".to_string(), Value::from(id))));
        criteria.extend(parts.fault.as_deref().map(|fault| ("fault".to_string(), Value::from(fault))));
        criteria.insert("parameters".to_string(), json!(parameters));
        let as_number = |part: bool| Some(f64::from(u8::from(part)));
        let reward = Reward {
            trajectory_id: trajectory_id.clone(),
            group_id: group.and_then(|column| value(column, row)).map(str::to_string),
            format: as_number(parts.format),
            answer: as_number(parts.answer),
            reward: parts.reward,
            policy_version: version.filter(|column| column.is_valid(row)).map(|column| column.value(row)),
            criteria: Some(JsonText(Value::Object(criteria))),
            ..Reward::default()
        };
        let work = format!("reward/{digest}/{}", judgment_id.unwrap_or_default());
        let id = EventId::derive(attempts.event_time(row), &work, Kind::Reward, &trajectory_id, 0);
        let parents = [Some(trajectory_id.as_str()), judgment_id].into_iter().flatten().map(str::to_string).collect();
        event(id, &reward, parents, run)
    }
}

fn value(array: &StringArray, row: usize) -> Option<&str> {
    (row < array.len() && !array.is_null(row)).then(|| array.value(row))
}

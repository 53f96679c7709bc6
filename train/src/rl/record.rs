//! What is told of an episode: its trajectory, what the judge said, its reward.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use std::io::Write;
use webdancer_agent::judge::{Decision, Judge};
use webdancer_agent::reward::RewardParameters;
use webdancer_schemas::column::JsonText;
use webdancer_schemas::id::EventId;
use webdancer_schemas::rows::{Judgment, Reward};

use crate::dapo::groups::Group;
use crate::error::TrainError;
use crate::events::Events;
use crate::rollout::Finished;

/// What rewards are computed by, and whose word it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scoring<'a> {
    pub(super) judge: &'a dyn Judge,
    pub(super) rewards: &'a RewardParameters,
}

impl Scoring<'_> {
    /// Tells of an attempt, and of its place in a group if it is in one that was looked at.
    pub(super) fn tell<W: Write>(
        &self,
        events: &mut Events<W>,
        finished: &Finished,
        group: Option<(&str, &Group)>,
        now: DateTime<Utc>,
    ) -> Result<(), TrainError> {
        events.trajectory(&finished.trajectory, now)?;
        if let Some(decision) = &finished.decision {
            events.judgment(&self.judgment(finished, decision), now)?;
        }
        // By it the reward holds in `current_rewards`, for as long as nobody else judges the answer.
        let judgment = finished.decision.is_some().then(|| events.judgment_id(&finished.trajectory.trajectory_id));
        if let Some(reward) = self.reward(finished, group, judgment) {
            events.reward(&reward, now)?;
        }
        Ok(())
    }

    fn judgment(&self, finished: &Finished, decision: &Decision) -> Judgment {
        Judgment {
            trajectory_id: finished.trajectory.trajectory_id.clone(),
            stage: "correctness".to_string(),
            verdict: decision.verdict.as_str().to_string(),
            score: None,
            judge: Some(self.judge.name().to_string()),
            criteria: Some(JsonText(json!({"judged_by": {"judge": self.judge.name()}}))),
            rationale: Some(decision.rationale.clone()).filter(|rationale| !rationale.is_empty()),
            rule_version: self.judge.rule_version(),
        }
    }

    /// None where the reward is withheld.
    fn reward(&self, finished: &Finished, group: Option<(&str, &Group)>, judgment: Option<EventId>) -> Option<Reward> {
        let parts = finished.reward.as_ref().ok()?;
        let id = &finished.trajectory.trajectory_id;
        let of_group = |group: &Group| {
            let scored = group.scored.iter().find(|scored| scored.episode.trajectory_id == *id)?;
            Some((scored.overlong_penalty, scored.reward, scored.advantage))
        };
        let scored = group.and_then(|(_, group)| of_group(group));
        let as_number = |part: bool| Some(f64::from(u8::from(part)));
        let mut criteria = Map::new();
        criteria.extend(parts.fault.as_deref().map(|fault| ("fault".to_string(), Value::from(fault))));
        criteria.extend(judgment.map(|id| ("judgment".to_string(), Value::from(id.to_string()))));
        criteria.insert("parameters".to_string(), json!(self.rewards));
        Some(Reward {
            trajectory_id: id.clone(),
            group_id: group.map(|(id, _)| id.to_string()),
            format: as_number(parts.format),
            answer: as_number(parts.answer),
            overlong_penalty: scored.map(|(penalty, ..)| penalty),
            reward: scored.map_or(parts.reward, |(_, reward, _)| reward),
            advantage: scored.and_then(|(.., advantage)| advantage),
            policy_version: finished.trajectory.policy_version,
            criteria: Some(JsonText(Value::Object(criteria))),
        })
    }
}

//! From groups to updates: which tokens are trained, what each weighs, and what was recorded of it.
//!
//! The groups of a round are cut into updates, in the order of prompts, whole groups each. What a token weighs follows
//! from its update alone; then the documents are packed into micro-batches. So neither the packing nor the number of
//! tokens a micro-batch holds changes the loss: it is the sum of weight times loss over the tokens of all of them.

use std::collections::{BTreeMap, HashMap};

use super::groups::Group;
use crate::batch::PackedBatch;
use crate::config::{DapoBatchConfig, PolicyAggregation};
use crate::episode::{LeftOut, SampledDocument};
use crate::pack::{PackDocument, pack};

/// What one update of the policy is made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyUpdate {
    /// The micro-batches; gradients are summed over them.
    pub batches: Vec<PolicyBatch>,
}

/// One micro-batch, and what the loss knows of its trained tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyBatch {
    /// All tokens.
    pub packed: PackedBatch,
    /// Those that are trained.
    pub targets: PolicyTargets,
}

/// Trained tokens of a micro-batch, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyTargets {
    /// Temperature of the distributions that the tokens were drawn from, which ratios are ratios of.
    pub temperature: f64,
    /// Positions whose hidden states predict them, \[N\].
    pub positions: Vec<i64>,
    /// Their ids, \[N\].
    pub ids: Vec<i64>,
    /// What each weighs in the loss of the update, \[N\].
    pub weights: Vec<f32>,
    /// The advantage of the episode that it is of, \[N\].
    pub advantages: Vec<f32>,
    /// Log-probability under the sampler, \[N\].
    pub sampler_log_probs: Vec<f32>,
    /// What the ratio is taken to, \[N\].
    pub old_log_probs: Vec<f32>,
    /// Log-probability under the reference, \[N\]; empty without one.
    pub reference_log_probs: Vec<f32>,
}

/// The updates of a round of rollouts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Round {
    /// In the order in which they are made.
    pub updates: Vec<PolicyUpdate>,
    /// Turns that are not trained, by reason.
    pub left_out: BTreeMap<LeftOut, u64>,
}

/// A document of an episode, and what its tokens get.
#[derive(Debug)]
struct Part {
    document: SampledDocument,
    advantage: f32,
    /// Of the episode and the group within the update.
    episode: usize,
    group: usize,
}

impl Round {
    /// The updates over the groups that are kept; the others are passed over.
    pub fn new<'a>(
        groups: impl IntoIterator<Item = &'a Group>,
        aggregation: PolicyAggregation,
        config: &DapoBatchConfig,
    ) -> Round {
        let kept: Vec<&Group> = groups.into_iter().filter(|group| group.is_kept()).collect();
        let mut round = Round::default();
        for groups in kept.chunks(config.groups.max(1)) {
            let parts = parts(groups, &mut round.left_out);
            if !parts.is_empty() {
                round.updates.push(PolicyUpdate::new(parts, aggregation, config.tokens));
            }
        }
        round
    }

    /// The same of tokens that were drawn at this temperature.
    pub fn at_temperature(mut self, temperature: f64) -> Round {
        self.batches_mut().for_each(|batch| batch.targets.temperature = temperature);
        self
    }

    /// Trained tokens of all updates.
    pub fn trained_tokens(&self) -> usize {
        self.updates.iter().map(PolicyUpdate::trained_tokens).sum()
    }

    /// All micro-batches.
    pub fn batches_mut(&mut self) -> impl Iterator<Item = &mut PolicyBatch> {
        self.updates.iter_mut().flat_map(|update| &mut update.batches)
    }
}

impl PolicyUpdate {
    fn new(parts: Vec<Part>, aggregation: PolicyAggregation, budget_tokens: usize) -> PolicyUpdate {
        let weights = weights(&parts, aggregation);
        let documents: Vec<PackDocument> = parts
            .iter()
            .enumerate()
            .map(|(row, Part { document, .. })| PackDocument {
                row: row as u32,
                ids: document.ids.clone(),
                trained: document.trained.clone(),
            })
            .collect();
        let packed = pack(&documents.iter().collect::<Vec<_>>(), budget_tokens);
        let batch = |packed: PackedBatch| PolicyBatch { targets: targets(&packed, &parts, &weights), packed };
        PolicyUpdate { batches: packed.into_iter().map(batch).collect() }
    }

    /// Trained tokens.
    pub fn trained_tokens(&self) -> usize {
        self.batches.iter().map(|batch| batch.targets.ids.len()).sum()
    }

    /// Tokens, trained or not.
    pub fn tokens(&self) -> usize {
        self.batches.iter().map(|batch| batch.packed.tokens()).sum()
    }
}

/// The documents of groups.
fn parts(groups: &[&Group], left_out: &mut BTreeMap<LeftOut, u64>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut episodes = 0;
    for (group, scored) in groups.iter().enumerate().flat_map(|(at, group)| group.scored.iter().map(move |s| (at, s))) {
        let Some(advantage) = scored.advantage else { continue };
        let found = scored.episode.documents();
        found.left_out.into_iter().for_each(|(reason, count)| *left_out.entry(reason).or_default() += count);
        let part = |document| Part { document, advantage: advantage as f32, episode: episodes, group };
        parts.extend(found.documents.into_iter().map(part));
        episodes += 1;
    }
    parts
}

/// What a trained token of each part weighs. Episodes and groups without a trained token are no part of a mean.
fn weights(parts: &[Part], aggregation: PolicyAggregation) -> Vec<f32> {
    let (mut all, mut of_episode, mut of_group) = (0, HashMap::<usize, usize>::new(), HashMap::<usize, usize>::new());
    for part in parts {
        let trained = part.document.trained_tokens();
        all += trained;
        *of_episode.entry(part.episode).or_default() += trained;
        *of_group.entry(part.group).or_default() += trained;
    }
    let count = |of: &HashMap<usize, usize>, key: usize| of.get(&key).copied().unwrap_or(1) as f64;
    let (episodes, groups) = (of_episode.len() as f64, of_group.len() as f64);
    let weight = |part: &Part| match aggregation {
        PolicyAggregation::TokenMean => 1.0 / all as f64,
        PolicyAggregation::GroupMeanTokenMean => 1.0 / (groups * count(&of_group, part.group)),
        PolicyAggregation::SeqMeanTokenMean => 1.0 / (episodes * count(&of_episode, part.episode)),
        PolicyAggregation::SeqMeanTokenSum => 1.0 / episodes,
    };
    parts.iter().map(|part| weight(part) as f32).collect()
}

/// The trained tokens of a packed batch; its rows are places in `parts`.
fn targets(packed: &PackedBatch, parts: &[Part], weights: &[f32]) -> PolicyTargets {
    let mut targets = PolicyTargets { temperature: 1.0, ..PolicyTargets::default() };
    for (&row, &start) in packed.rows.iter().zip(&packed.doc_starts) {
        let (Some(part), Some(&weight)) = (parts.get(row as usize), weights.get(row as usize)) else { continue };
        let SampledDocument { ids, trained, log_probs } = &part.document;
        let tokens = ids.iter().zip(trained).zip(log_probs).enumerate();
        for (at, ((&id, _), &log_prob)) in tokens.filter(|(_, ((_, trained), _))| **trained) {
            targets.positions.push(start + at as i64 - 1);
            targets.ids.push(i64::from(id));
            targets.weights.push(weight);
            targets.advantages.push(part.advantage);
            targets.sampler_log_probs.push(log_prob);
            targets.old_log_probs.push(log_prob);
        }
    }
    targets
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use webdancer_agent::reward::Withheld;

    use super::super::groups::tests::{episode, group_of};
    use super::*;
    use crate::episode::{Episode, Turn};

    pub(crate) fn turn(context: &[u32], completion: &[u32]) -> Turn {
        let log_probs = completion.iter().map(|&id| -(id as f32) / 8.0).collect();
        Turn { context: context.to_vec(), completion: completion.to_vec(), log_probs, policy_version: 0 }
    }

    fn with(prompt: u64, attempt: i32, reward: f64, turns: Vec<Turn>) -> Episode {
        Episode { turns: turns.into_iter().map(Ok).collect(), ..episode(prompt, attempt, Ok(reward)) }
    }

    /// Two groups: of the first, one episode is two documents, since a thought was withheld, and one is without a token.
    fn groups() -> Vec<Group> {
        vec![
            group_of(
                0,
                vec![
                    with(0, 0, 1.0, vec![turn(&[1, 2], &[3, 4]), turn(&[1, 2, 4, 5], &[6])]),
                    with(0, 1, 0.0, vec![turn(&[1, 2], &[7])]),
                    Episode { turns: vec![Err(LeftOut::NoIds)], ..episode(0, 2, Ok(0.0)) },
                    episode(0, 3, Err(Withheld::JudgeFailed)),
                ],
            ),
            group_of(
                1,
                vec![with(1, 0, 0.1, vec![turn(&[8], &[9, 9, 9, 9])]), with(1, 1, 0.9, vec![turn(&[8], &[3, 3])])],
            ),
            // Not trained on.
            group_of(2, vec![with(2, 0, 1.0, vec![turn(&[1], &[2])]), with(2, 1, 0.9, vec![turn(&[1], &[2])])]),
        ]
    }

    fn round(groups: &[Group], aggregation: PolicyAggregation, of: usize, tokens: usize) -> Round {
        Round::new(groups, aggregation, &DapoBatchConfig { groups: of, tokens, ..DapoBatchConfig::default() })
    }

    /// Weight and advantage by id and log-probability, sorted: what does not depend on packing.
    fn tokens(update: &PolicyUpdate) -> Vec<(i64, String, String, String)> {
        let mut found = Vec::new();
        for PolicyTargets { ids, weights, advantages, old_log_probs, .. } in update.batches.iter().map(|b| &b.targets) {
            for (at, &id) in ids.iter().enumerate() {
                let text = |value: f32| format!("{value:.4}");
                found.push((id, text(weights[at]), text(advantages[at]), text(old_log_probs[at])));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_token_weighs_what_its_aggregation_says() {
        use PolicyAggregation::{GroupMeanTokenMean, SeqMeanTokenMean, SeqMeanTokenSum, TokenMean};
        // Tokens: 3 and 1 in the first group, 4 and 2 in the second; four episodes with tokens.
        for (aggregation, [a, b, c, d]) in [
            (TokenMean, [0.1, 0.1, 0.1, 0.1]),
            (GroupMeanTokenMean, [1.0 / 8.0, 1.0 / 8.0, 1.0 / 12.0, 1.0 / 12.0]),
            (SeqMeanTokenMean, [1.0 / 12.0, 1.0 / 4.0, 1.0 / 16.0, 1.0 / 8.0]),
            (SeqMeanTokenSum, [0.25, 0.25, 0.25, 0.25]),
        ] {
            let round = round(&groups(), aggregation, 2, 100);
            let [update] = round.updates.as_slice() else { panic!("{round:?}") };
            let mut weights: Vec<(i64, f32)> = Vec::new();
            for batch in &update.batches {
                weights.extend(batch.targets.ids.iter().copied().zip(batch.targets.weights.iter().copied()));
            }
            weights.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
            let mut expected: Vec<(i64, f32)> =
                vec![(3, a), (4, a), (6, a), (7, b), (9, c), (9, c), (9, c), (9, c), (3, d), (3, d)];
            expected.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
            assert_eq!(weights, expected, "{aggregation:?}");
        }
    }

    #[test]
    fn a_token_gets_its_own_log_probability_and_its_episodes_advantage() {
        let round = round(&groups()[..1], PolicyAggregation::TokenMean, 1, 5);
        assert_eq!(round.left_out, BTreeMap::from([(LeftOut::NoIds, 1)]));
        let [update] = round.updates.as_slice() else { panic!("{round:?}") };
        // Micro-batches of 5 tokens: the longest document first, then the one that fills it.
        let [first, second, third] = update.batches.as_slice() else { panic!("{update:?}") };
        assert_eq!(
            (first.packed.ids.as_slice(), second.packed.ids.as_slice()),
            (&[1, 2, 4, 5, 6][..], &[1, 2, 3, 4][..])
        );
        assert_eq!(first.targets.positions, [3]);
        assert_eq!(second.targets.positions, [1, 2]);
        assert_eq!((third.targets.positions.as_slice(), third.targets.ids.as_slice()), (&[1][..], &[7][..]));
        assert_eq!(second.targets.old_log_probs, [-0.375, -0.5]);
        assert_eq!(second.targets.sampler_log_probs, second.targets.old_log_probs);
        // Of {1, 0, 0}: the episode without tokens counts in its group.
        let advantage =
            |batch: &PolicyBatch| batch.targets.advantages.iter().map(|a| (a * 1e3).round()).collect::<Vec<_>>();
        assert_eq!(
            (advantage(first), advantage(second), advantage(third)),
            (vec![1155.0], vec![1155.0; 2], vec![-577.0])
        );
    }

    #[test]
    fn updates_are_of_whole_groups_and_weigh_by_themselves() {
        let round = round(&groups(), PolicyAggregation::TokenMean, 1, 100);
        let weights = |update: &PolicyUpdate| -> Vec<f32> {
            update.batches.iter().flat_map(|batch| batch.targets.weights.clone()).collect()
        };
        assert_eq!(round.updates.iter().map(weights).collect::<Vec<_>>(), [vec![0.25; 4], vec![1.0 / 6.0; 6]]);
        assert_eq!((round.trained_tokens(), round.updates[0].tokens()), (10, 5 + 4 + 3));
    }

    #[test]
    fn without_a_kept_group_there_is_no_update() {
        assert_eq!(round(&groups()[2..], PolicyAggregation::TokenMean, 1, 100), Round::default());
    }

    proptest! {
        #[test]
        fn every_sampled_token_is_trained_once_and_bit_for_bit_however_it_is_packed(
            shape in proptest::collection::vec(
                proptest::collection::vec((1usize..5, 1usize..6, any::<bool>()), 1..5), 2..8),
            budget in 1usize..60,
        ) {
            let mut next = 0;
            let mut fresh = |count: usize| -> Vec<u32> { (0..count).map(|_| { next += 1; next }).collect() };
            let mut sampled: Vec<u32> = Vec::new();
            let mut episodes = Vec::new();
            for (attempt, turns) in shape.iter().enumerate() {
                let (mut before, mut made) = (Vec::new(), Vec::new());
                for &(observed, written, extends) in turns {
                    if !extends {
                        before.clear();
                    }
                    before.extend(fresh(observed));
                    let completion = fresh(written);
                    sampled.extend(&completion);
                    made.push(turn(&before, &completion));
                    before.extend(completion);
                }
                episodes.push(with(0, attempt as i32, if attempt == 0 { 1.0 } else { 0.0 }, made));
            }
            let group = group_of(0, episodes);
            let found = round(std::slice::from_ref(&group), PolicyAggregation::SeqMeanTokenMean, 1, budget);
            let mut ids: Vec<u32> = found.updates[0].batches.iter().flat_map(|b| &b.targets.ids).map(|&id| id as u32).collect();
            ids.sort_unstable();
            prop_assert_eq!(ids, sampled);
            for PolicyBatch { packed, targets } in &found.updates[0].batches {
                prop_assert_eq!(packed.trained_tokens(), targets.ids.len());
                for ((&position, &id), &log_prob) in targets.positions.iter().zip(&targets.ids).zip(&targets.old_log_probs) {
                    prop_assert_eq!(packed.ids[position as usize + 1], id);
                    prop_assert_eq!(log_prob, -(id as f32) / 8.0);
                }
            }
            let whole = round(std::slice::from_ref(&group), PolicyAggregation::SeqMeanTokenMean, 1, 100_000);
            prop_assert_eq!(tokens(&found.updates[0]), tokens(&whole.updates[0]));
        }
    }
}

//! From the rewards of a prompt's rollouts to advantages, and whether there is anything to learn from them.
//!
//! An episode whose reward is withheld (its judge, a tool or the engine failed) leaves its group; everything else is
//! about the rest. A group is trained on if some of the rest are correct and some are not. It is correctness that is
//! looked at, and not the reward: rewards of 1.0 and 0.9 differ by the format alone, and a group of these would teach
//! nothing but that.
//!
//! | the rest | [`Fate`] |
//! |---|---|
//! | some correct, some not | `Kept` |
//! | fewer than two | `TooSmall` |
//! | all correct | `AllCorrect` |
//! | all wrong | `AllWrong` |
//!
//! Without `groups.dynamic_sampling` only a group that is too small is left out.

use webdancer_agent::reward::{RewardParts, Withheld};

use crate::config::{GroupConfig, OverlongConfig};
use crate::episode::Episode;

/// Episodes that a group needs for a mean and a deviation.
const EPISODES_MIN: usize = 2;

/// The rollouts of a prompt, with what they are worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Place of the prompt in the order in which prompts are drawn.
    pub prompt: u64,
    /// What its answers are, by which dynamic sampling decides.
    pub fate: Fate,
    /// Episodes with a reward.
    pub scored: Vec<Scored>,
    /// Episodes that left the group, and why.
    pub withheld: Vec<(Episode, Withheld)>,
}

/// What the answers of a group are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// Some are correct and some are not: it is trained on.
    Kept,
    /// Too few rewards are left to compare.
    TooSmall,
    /// There is nothing to compare: all answers are correct.
    AllCorrect,
    /// There is nothing to compare: no answer is correct.
    AllWrong,
}

/// An episode and what it is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The episode.
    pub episode: Episode,
    /// Its reward for format and answer.
    pub parts: RewardParts,
    /// Punishment of its length, 0 to −1.
    pub overlong_penalty: f64,
    /// Reward for format and answer, and the punishment.
    pub reward: f64,
    /// (reward − mean) / deviation, in a group that is trained on.
    pub advantage: Option<f64>,
}

impl Group {
    /// The group of all rollouts of a prompt, in whatever order they ended: they are put in the order of attempts.
    pub fn new(prompt: u64, mut episodes: Vec<Episode>, groups: &GroupConfig, overlong: &OverlongConfig) -> Group {
        episodes.sort_by_key(|episode| episode.attempt);
        let mut group = Group { prompt, fate: Fate::TooSmall, scored: Vec::new(), withheld: Vec::new() };
        for episode in episodes {
            match episode.reward.clone() {
                Ok(parts) => group.scored.push(Scored::new(episode, parts, overlong)),
                Err(reason) => group.withheld.push((episode, reason)),
            }
        }
        group.fate = fate(&group.correct());
        let trains = match group.fate {
            Fate::Kept => true,
            Fate::TooSmall => false,
            Fate::AllCorrect | Fate::AllWrong => !groups.dynamic_sampling,
        };
        if trains {
            let rewards: Vec<f64> = group.scored.iter().map(|scored| scored.reward).collect();
            for (scored, advantage) in group.scored.iter_mut().zip(advantages(&rewards, groups.std_eps)) {
                scored.advantage = Some(advantage);
            }
        }
        group
    }

    /// Whether it is trained on.
    pub fn is_kept(&self) -> bool {
        self.scored.iter().any(|scored| scored.advantage.is_some())
    }

    /// Share of the answers that are correct; None without any reward.
    pub fn accuracy(&self) -> Option<f64> {
        let correct = self.correct();
        let count = correct.iter().filter(|&&correct| correct).count();
        (!correct.is_empty()).then(|| count as f64 / correct.len() as f64)
    }

    fn correct(&self) -> Vec<bool> {
        self.scored.iter().map(|scored| scored.parts.answer).collect()
    }
}

impl Scored {
    fn new(episode: Episode, parts: RewardParts, overlong: &OverlongConfig) -> Scored {
        let overlong_penalty = overlong.penalty(episode.written_tokens);
        Scored { reward: parts.reward + overlong_penalty, episode, parts, overlong_penalty, advantage: None }
    }
}

fn fate(correct: &[bool]) -> Fate {
    if correct.len() < EPISODES_MIN {
        Fate::TooSmall
    } else if correct.iter().all(|&correct| correct) {
        Fate::AllCorrect
    } else if correct.iter().any(|&correct| correct) {
        Fate::Kept
    } else {
        Fate::AllWrong
    }
}

/// (R − mean) / (deviation + `std_eps`) of each reward; the deviation is the unbiased one, over n − 1. Zeros, up to rounding,
/// where there are fewer than two rewards or all are equal.
pub fn advantages(rewards: &[f64], std_eps: f64) -> Vec<f64> {
    let count = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / count;
    let squares: f64 = rewards.iter().map(|reward| (reward - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
    rewards.iter().map(|reward| (reward - mean) / (deviation + std_eps)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use webdancer_agent::react::Termination;

    use super::*;

    /// An episode of a reward; the parts follow from it.
    pub(crate) fn episode(prompt: u64, attempt: i32, reward: Result<f64, Withheld>) -> Episode {
        let parts = |reward: f64| RewardParts {
            format: reward == 1.0 || reward == 0.1,
            answer: reward >= 0.9,
            reward,
            fault: None,
        };
        Episode {
            trajectory_id: format!("{prompt}-{attempt}"),
            qa_id: format!("q{prompt}"),
            group: prompt,
            attempt,
            turns: Vec::new(),
            written_tokens: 0,
            reward: reward.map(parts),
            termination: Termination::Answer,
        }
    }

    pub(crate) fn group_of(prompt: u64, episodes: Vec<Episode>) -> Group {
        Group::new(prompt, episodes, &GroupConfig::default(), &OverlongConfig::default())
    }

    pub(crate) fn group(prompt: u64, rewards: &[Result<f64, Withheld>]) -> Group {
        let episodes = rewards.iter().enumerate().map(|(attempt, &reward)| episode(prompt, attempt as i32, reward));
        group_of(prompt, episodes.collect())
    }

    fn assert_advantages(group: &Group, expected: &[f64]) {
        let found: Vec<f64> = group.scored.iter().map(|scored| scored.advantage.unwrap()).collect();
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-3), "{found:?}");
    }

    #[test]
    fn the_deviation_is_the_unbiased_one() {
        let group = group(0, &[Ok(1.0), Ok(0.0), Ok(0.0), Ok(1.0)]);
        // Mean ½, deviation √(4 · ¼ / 3) = 0.577.
        assert_advantages(&group, &[0.866, -0.866, -0.866, 0.866]);
        assert_eq!((group.fate, group.accuracy()), (Fate::Kept, Some(0.5)));
    }

    #[test]
    fn a_group_is_kept_by_correctness_and_not_by_reward() {
        for (rewards, fate, accuracy) in [
            (&[Ok(1.0), Ok(0.9)][..], Fate::AllCorrect, Some(1.0)),
            (&[Ok(0.1), Ok(0.0), Ok(0.1)], Fate::AllWrong, Some(0.0)),
            (&[Ok(0.9), Ok(0.1)], Fate::Kept, Some(0.5)),
            (&[Ok(0.9)], Fate::TooSmall, Some(1.0)),
            (&[], Fate::TooSmall, None),
        ] {
            let group = group(0, rewards);
            assert_eq!((group.fate, group.accuracy()), (fate, accuracy), "{rewards:?}");
            assert!(group.scored.iter().all(|scored| scored.advantage.is_some() == (fate == Fate::Kept)));
        }
    }

    #[test]
    fn without_dynamic_sampling_every_group_that_can_be_compared_is_trained_on() {
        let config = GroupConfig { dynamic_sampling: false, ..GroupConfig::default() };
        let of = |rewards: &[f64]| {
            let episodes = rewards.iter().enumerate().map(|(at, &reward)| episode(0, at as i32, Ok(reward))).collect();
            Group::new(0, episodes, &config, &OverlongConfig::default())
        };
        let equal = of(&[1.0, 1.0]);
        assert_eq!((equal.fate, equal.is_kept()), (Fate::AllCorrect, true));
        assert_advantages(&equal, &[0.0, 0.0]);
        // Here the format alone tells them apart: mean 0.05, deviation 0.0707.
        assert_advantages(&of(&[0.1, 0.0]), &[0.707, -0.707]);
        assert!(!of(&[1.0]).is_kept());
        assert!(!group(0, &[Ok(1.0), Ok(1.0)]).is_kept(), "with it they are left out");
    }

    #[test]
    fn an_episode_without_a_reward_leaves_its_group_and_is_no_zero() {
        let failed = Err(Withheld::JudgeFailed);
        let kept = group(0, &[Ok(1.0), failed, Ok(0.0), Err(Withheld::AttemptFailed), Ok(0.0)]);
        // Of {1, 0, 0}: mean ⅓, deviation √(⅔ / 2) = 0.577.
        assert_advantages(&kept, &[1.155, -0.577, -0.577]);
        assert_eq!(kept.scored.iter().map(|scored| scored.episode.attempt).collect::<Vec<_>>(), [0, 2, 4]);
        let reasons: Vec<_> = kept.withheld.iter().map(|(episode, reason)| (episode.attempt, *reason)).collect();
        assert_eq!(reasons, [(1, Withheld::JudgeFailed), (3, Withheld::AttemptFailed)]);
        // What is left is no longer mixed, or too small.
        assert_eq!(group(0, &[Ok(1.0), Ok(1.0), failed]).fate, Fate::AllCorrect);
        assert_eq!(group(0, &[failed, Ok(0.0), Ok(0.1)]).fate, Fate::AllWrong);
        assert_eq!(group(0, &[Ok(1.0), failed, failed]).fate, Fate::TooSmall);
    }

    #[test]
    fn length_is_punished_in_the_reward_and_does_not_change_what_is_correct() {
        let long = Episode { written_tokens: 20_480, ..episode(0, 0, Ok(1.0)) };
        let found = group_of(0, vec![long, episode(0, 1, Ok(0.1)), episode(0, 2, Ok(0.9))]);
        let worth: Vec<_> = found.scored.iter().map(|scored| (scored.overlong_penalty, scored.reward)).collect();
        assert_eq!(worth, [(-1.0, 0.0), (0.0, 0.1), (0.0, 0.9)]);
        // Mean ⅓, deviation √((0.1111 + 0.0544 + 0.3211) / 2) = 0.4933.
        assert_advantages(&found, &[-0.676, -0.473, 1.149]);
        // A group that only its lengths tell apart is dropped.
        let long = Episode { written_tokens: 20_480, ..episode(0, 0, Ok(1.0)) };
        assert_eq!(group_of(0, vec![long, episode(0, 1, Ok(1.0))]).fate, Fate::AllCorrect);
    }

    #[test]
    fn a_forced_answer_counts_without_format_and_a_truncated_episode_is_a_zero() {
        let forced = Episode { termination: Termination::Forced, ..episode(0, 0, Ok(0.9)) };
        let truncated = Episode { termination: Termination::Tokens, ..episode(0, 1, Ok(0.0)) };
        let found = group_of(0, vec![forced, truncated, episode(0, 2, Ok(1.0))]);
        assert_eq!((found.fate, found.withheld.len()), (Fate::Kept, 0));
        // Of {0.9, 0, 1}: mean 0.6333, deviation √((0.0711 + 0.4011 + 0.1344) / 2) = 0.5508.
        assert_advantages(&found, &[0.484, -1.150, 0.666]);
        assert_eq!(
            found.scored.iter().map(|s| (s.episode.forced(), s.episode.truncated())).collect::<Vec<_>>(),
            [(true, false), (false, true), (false, false)]
        );
    }

    #[test]
    fn equal_rewards_have_no_advantage() {
        assert_eq!(advantages(&[0.5, 0.5, 0.5], 1e-6), [0.0, 0.0, 0.0]);
        assert_eq!(advantages(&[0.4], 1e-6), [0.0]);
        assert_eq!(advantages(&[], 1e-6), [0.0; 0]);
    }

    proptest! {
        #[test]
        fn advantages_sum_to_zero_and_grow_with_the_reward(rewards in proptest::collection::vec(-1.0f64..1.0, 2..40)) {
            let found = advantages(&rewards, 1e-6);
            prop_assert!(found.iter().sum::<f64>().abs() < 1e-9);
            for (a, x) in rewards.iter().zip(&found) {
                for (b, y) in rewards.iter().zip(&found) {
                    prop_assert!(a > b || x <= y, "{a} {b}: {x} {y}");
                }
            }
            // Of unit deviation, unless all are all but equal.
            let squares: f64 = found.iter().map(|advantage| advantage * advantage).sum();
            prop_assert!(squares <= rewards.len() as f64 - 1.0 + 1e-9);
        }

        #[test]
        fn the_order_in_which_episodes_end_changes_nothing(
            rewards in proptest::collection::vec(0usize..6, 1..20),
            order in any::<u64>(),
        ) {
            let of = |&choice: &usize| match choice {
                4 => Err(Withheld::JudgeFailed),
                5 => Err(Withheld::AttemptFailed),
                choice => Ok([0.0, 0.1, 0.9, 1.0][choice]),
            };
            let mut episodes: Vec<Episode> =
                rewards.iter().enumerate().map(|(attempt, reward)| episode(3, attempt as i32, of(reward))).collect();
            let expected = group_of(3, episodes.clone());
            // Some permutation.
            episodes.sort_by_key(|episode| (episode.attempt as u64 + 1).wrapping_mul(order | 1).rotate_left(17));
            prop_assert_eq!(group_of(3, episodes), expected);
        }
    }
}

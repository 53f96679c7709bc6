//! What reinforcement learning learns from: an episode, token by token as it was sampled.
//!
//! An episode is one attempt of the policy at a question. Its turns hold the ids that the model read and those that were
//! sampled; nothing is ever rendered or tokenised again, since other ids have other probabilities, and ratios of these
//! would be noise. [`Episode::documents`] lays the turns one after the other:
//!
//! | a turn | becomes |
//! |---|---|
//! | whose context is all that came before, and more | the rest of the document: what is new of the context, not trained, and the completion, trained |
//! | whose context is anything else: past thoughts were withheld, an observation was shortened | the start of a new document |
//! | that lacks something, see [`LeftOut`] | nothing of its own, and is counted; it may be part of a later context |
//!
//! So a token is trained if and only if it was sampled in a turn that is whole. An instruction that forced the answer is
//! part of a context. Where a made-up observation was cut off, the completion ends with the token that its tag ends in.

use std::collections::BTreeMap;

use webdancer_agent::react::Termination;
use webdancer_agent::reward::{RewardParts, Withheld};
use webdancer_schemas::rows::Trajectory;

/// One attempt of a policy at a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// Id of its trajectory.
    pub trajectory_id: String,
    /// The question.
    pub qa_id: String,
    /// Place of the prompt in the order in which prompts are drawn, from 0, over all passes through the data. Episodes
    /// with the same one are a group.
    pub group: u64,
    /// Attempt within the group, from 0.
    pub attempt: i32,
    /// The turns, in order.
    pub turns: Vec<Result<Turn, LeftOut>>,
    /// Tokens that the agent wrote, in all turns: those without ids, too.
    pub written_tokens: u64,
    /// Reward for format and answer, or why there is none: then the episode leaves its group. Whatever depends on
    /// length or group is not part of it.
    pub reward: Result<RewardParts, Withheld>,
    /// Why it ended.
    pub termination: Termination,
}

/// One turn of an episode: what the model read, and what was sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Token ids that the model read; not empty.
    pub context: Vec<u32>,
    /// Token ids that were sampled, \[N\]; not empty. The token that ended the turn is the last, if it was sampled.
    pub completion: Vec<u32>,
    /// Log-probability of each under the sampler, natural logarithm, at the temperature that it was drawn at, \[N\].
    pub log_probs: Vec<f32>,
    /// Update step of the weights that they were sampled from.
    pub policy_version: i64,
}

/// Why a turn is not trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum LeftOut {
    /// There are no token ids of its completion: its text was cut without them, for one.
    #[error("no token ids")]
    NoIds,
    /// There are no token ids of what the model read.
    #[error("no context")]
    NoContext,
    /// There are no log-probabilities, or not one a token.
    #[error("no log-probabilities")]
    NoLogProbs,
    /// Nobody knows which weights wrote it.
    #[error("no policy version")]
    NoVersion,
    /// Ids or log-probabilities are none.
    #[error("no valid ids or log-probabilities")]
    Invalid,
    /// Its ids are of another tokenizer than the policy's.
    #[error("another tokenizer")]
    OtherTokenizer,
}

/// Token ids to train on, and which of them were sampled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SampledDocument {
    /// Token ids, \[T\].
    pub ids: Vec<u32>,
    /// Whether the token was sampled, \[T\].
    pub trained: Vec<bool>,
    /// Log-probability of each sampled token under the sampler, \[T\]; 0 elsewhere.
    pub log_probs: Vec<f32>,
}

/// What an episode is trained on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EpisodeDocuments {
    /// The documents, in order of their turns. Every one has a trained token.
    pub documents: Vec<SampledDocument>,
    /// Turns that are in none, by reason.
    pub left_out: BTreeMap<LeftOut, u64>,
}

impl Episode {
    /// The episode of a trajectory whose ids are of the tokenizer with this digest.
    ///
    /// # Errors
    /// The row's termination is none that is known.
    pub fn of_row(
        row: &Trajectory,
        group: u64,
        reward: Result<RewardParts, Withheld>,
        tokenizer_digest: &str,
    ) -> Result<Episode, UnknownTermination> {
        let known = row.tokenizer_digest.as_deref() == Some(tokenizer_digest);
        let turn = |at| if known { turn_of(row, at) } else { Err(LeftOut::OtherTokenizer) };
        Ok(Episode {
            trajectory_id: row.trajectory_id.clone(),
            qa_id: row.qa_id.clone(),
            group,
            attempt: row.attempt,
            turns: (0..row.turn_thought.len()).map(turn).collect(),
            written_tokens: row.output_tokens.and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
            reward,
            termination: Termination::from_word(&row.termination)
                .ok_or_else(|| UnknownTermination { trajectory_id: row.trajectory_id.clone() })?,
        })
    }

    /// Whether the answer is correct; None where nobody can say, and the episode leaves its group.
    pub fn correct(&self) -> Option<bool> {
        self.reward.as_ref().ok().map(|parts| parts.answer)
    }

    /// Whether the answer was asked for, since calls or context were spent.
    pub fn forced(&self) -> bool {
        self.termination == Termination::Forced
    }

    /// Whether the agent spent a budget of its own before it answered.
    pub fn truncated(&self) -> bool {
        matches!(self.termination, Termination::Calls | Termination::Tokens | Termination::Time)
    }

    /// What is trained of it.
    pub fn documents(&self) -> EpisodeDocuments {
        let mut found = EpisodeDocuments::default();
        for turn in &self.turns {
            match turn {
                Ok(turn) => found.push(turn),
                Err(reason) => *found.left_out.entry(*reason).or_default() += 1,
            }
        }
        found
    }
}

/// A row that ended in a way that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trajectory {trajectory_id}: its termination is none that is known: it is of a later version of the program")]
pub struct UnknownTermination {
    /// The trajectory.
    pub trajectory_id: String,
}

impl SampledDocument {
    /// Tokens that are trained.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().filter(|&&trained| trained).count()
    }

    fn push(&mut self, added: &[u32], turn: &Turn) {
        self.ids.extend_from_slice(added);
        self.trained.resize(self.ids.len(), false);
        self.log_probs.resize(self.ids.len(), 0.0);
        self.ids.extend_from_slice(&turn.completion);
        self.trained.resize(self.ids.len(), true);
        self.log_probs.extend_from_slice(&turn.log_probs);
    }
}

impl EpisodeDocuments {
    fn push(&mut self, turn: &Turn) {
        if let Err(reason) = turn.check() {
            *self.left_out.entry(reason).or_default() += 1;
            return;
        }
        if let Some(last) = self.documents.last_mut()
            && let Some(added) = turn.context.strip_prefix(last.ids.as_slice())
        {
            return last.push(added, turn);
        }
        let mut document = SampledDocument::default();
        document.push(&turn.context, turn);
        self.documents.push(document);
    }
}

impl Turn {
    /// Whether there is one log-probability a token, and something that predicts the first.
    fn check(&self) -> Result<(), LeftOut> {
        if self.completion.is_empty() {
            return Err(LeftOut::NoIds);
        }
        if self.context.is_empty() {
            return Err(LeftOut::NoContext);
        }
        if self.log_probs.len() != self.completion.len() {
            return Err(LeftOut::NoLogProbs);
        }
        // A token that was drawn has a probability.
        if self.log_probs.iter().any(|log_prob| !log_prob.is_finite()) {
            return Err(LeftOut::Invalid);
        }
        Ok(())
    }
}

fn turn_of(row: &Trajectory, at: usize) -> Result<Turn, LeftOut> {
    let completion = element(row.turn_completion_token_ids.as_deref(), at).ok_or(LeftOut::NoIds)?;
    let context = element(row.turn_context_token_ids.as_deref(), at).ok_or(LeftOut::NoContext)?;
    let turn = Turn {
        context: ids(context)?,
        completion: ids(completion)?,
        log_probs: element(row.turn_log_probs.as_deref(), at).ok_or(LeftOut::NoLogProbs)?.clone(),
        policy_version: *element(row.turn_policy_version.as_deref(), at).ok_or(LeftOut::NoVersion)?,
    };
    turn.check()?;
    Ok(turn)
}

fn element<T>(column: Option<&[Option<T>]>, at: usize) -> Option<&T> {
    column?.get(at)?.as_ref()
}

fn ids(recorded: &[i32]) -> Result<Vec<u32>, LeftOut> {
    recorded.iter().map(|&id| u32::try_from(id).map_err(|_| LeftOut::Invalid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(context: &[u32], completion: &[u32]) -> Turn {
        let log_probs = completion.iter().map(|&id| -(id as f32) / 8.0).collect();
        Turn { context: context.to_vec(), completion: completion.to_vec(), log_probs, policy_version: 3 }
    }

    fn episode(turns: Vec<Result<Turn, LeftOut>>) -> Episode {
        Episode {
            trajectory_id: "t".to_string(),
            qa_id: "q".to_string(),
            group: 0,
            attempt: 0,
            turns,
            written_tokens: 0,
            reward: Err(Withheld::NotJudged),
            termination: Termination::Answer,
        }
    }

    #[test]
    fn turns_that_extend_each_other_are_one_document_in_which_completions_are_trained() {
        let found = episode(vec![Ok(turn(&[1, 2], &[3, 4])), Ok(turn(&[1, 2, 3, 4, 5, 6], &[7]))]).documents();
        assert_eq!(found.left_out, BTreeMap::new());
        let [document] = found.documents.as_slice() else { panic!("{found:?}") };
        assert_eq!(document.ids, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(document.trained, [false, false, true, true, false, false, true]);
        assert_eq!(document.log_probs, [0.0, 0.0, -0.375, -0.5, 0.0, 0.0, -0.875]);
    }

    #[test]
    fn a_context_that_lacks_something_that_came_before_starts_a_document() {
        // Of the thought 3, action 4, the next turn saw the action alone.
        let found = episode(vec![
            Ok(turn(&[1, 2], &[3, 4])),
            Ok(turn(&[1, 2, 4, 5], &[6])),
            Ok(turn(&[1, 2, 4, 5, 6, 7], &[8])),
        ]);
        let found = found.documents().documents;
        assert_eq!(
            found.iter().map(|document| document.ids.clone()).collect::<Vec<_>>(),
            [vec![1, 2, 3, 4], vec![1, 2, 4, 5, 6, 7, 8]]
        );
        assert_eq!(found[1].trained, [false, false, false, false, true, false, true]);
        assert_eq!(found.iter().map(SampledDocument::trained_tokens).sum::<usize>(), 4);
    }

    #[test]
    fn a_turn_without_ids_drops_out_is_counted_and_may_be_read_later() {
        // 9, 9 is what was left of the turn's text when it was sent again.
        let found = episode(vec![
            Ok(turn(&[1], &[2])),
            Err(LeftOut::NoIds),
            Ok(turn(&[1, 2, 5, 9, 9, 6], &[7])),
            Ok(turn(&[], &[8])),
            Ok(turn(&[1], &[])),
            Ok(Turn { log_probs: vec![-1.0], ..turn(&[1], &[2, 3]) }),
            Ok(Turn { log_probs: vec![f32::NEG_INFINITY], ..turn(&[1], &[2]) }),
        ]);
        let found = found.documents();
        let expected = [(LeftOut::NoIds, 2), (LeftOut::NoContext, 1), (LeftOut::NoLogProbs, 1), (LeftOut::Invalid, 1)];
        assert_eq!(found.left_out, BTreeMap::from(expected));
        let [document] = found.documents.as_slice() else { panic!("{found:?}") };
        assert_eq!(document.ids, [1, 2, 5, 9, 9, 6, 7]);
        assert_eq!(document.trained, [false, true, false, false, false, false, true]);
    }

    fn row() -> Trajectory {
        let some = |ids: &[i32]| Some(ids.to_vec());
        Trajectory {
            trajectory_id: "t".to_string(),
            termination: "forced".to_string(),
            tokenizer_digest: Some("d".to_string()),
            output_tokens: Some(5),
            turn_thought: vec![None; 3],
            turn_context_token_ids: Some(vec![some(&[1]), some(&[1, 2, 3]), some(&[1])]),
            turn_completion_token_ids: Some(vec![some(&[2]), None, some(&[-1])]),
            turn_log_probs: Some(vec![Some(vec![-0.5]), None, Some(vec![-0.5])]),
            turn_policy_version: Some(vec![Some(4), Some(4), Some(4)]),
            ..Trajectory::default()
        }
    }

    #[test]
    fn a_row_gives_the_turns_that_are_whole_and_says_what_the_others_lack() {
        let found = Episode::of_row(&row(), 7, Err(Withheld::NotJudged), "d").unwrap();
        let first = Turn { context: vec![1], completion: vec![2], log_probs: vec![-0.5], policy_version: 4 };
        assert_eq!(found.turns, [Ok(first), Err(LeftOut::NoIds), Err(LeftOut::Invalid)]);
        assert_eq!((found.group, found.written_tokens, found.forced(), found.truncated()), (7, 5, true, false));
        let other = Episode::of_row(&row(), 7, Err(Withheld::NotJudged), "e").unwrap();
        assert_eq!(other.turns, [const { Err(LeftOut::OtherTokenizer) }; 3]);
        let changed = |change: fn(&mut Trajectory)| {
            let mut row = row();
            change(&mut row);
            Episode::of_row(&row, 7, Err(Withheld::NotJudged), "d").unwrap().turns.remove(0)
        };
        assert_eq!(changed(|row| row.turn_context_token_ids = None), Err(LeftOut::NoContext));
        assert_eq!(changed(|row| row.turn_log_probs = Some(vec![Some(vec![])])), Err(LeftOut::NoLogProbs));
        assert_eq!(changed(|row| row.turn_policy_version = None), Err(LeftOut::NoVersion));
        let unknown = Trajectory { termination: "bored".to_string(), ..row() };
        let error = Episode::of_row(&unknown, 7, Err(Withheld::NotJudged), "d").unwrap_err().to_string();
        assert!(error.starts_with("trajectory t: its termination is none that is known"), "{error}");
    }
}

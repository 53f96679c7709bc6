//! The groups of a round: sampled, taken up again, or replayed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};

use webdancer_agent::judge::Verdict;
use webdancer_agent::react::Termination;
use webdancer_agent::reward::{RewardParameters, RewardParts, Withheld};

use super::stored::Stored;
use crate::config::DapoConfig;
use crate::dapo::groups::Group;
use crate::dapo::refill::{Batch, Refill};
use crate::episode::Episode;
use crate::error::TrainError;
use crate::events::RunIdentity;
use crate::questions::Question;
use crate::rollout::{Attempt, Attempts, Finished};

/// The prompts of a run: its questions, passed through a number of times, each time in another order.
#[derive(Debug)]
pub(super) struct Prompts {
    questions: Vec<Arc<Question>>,
    seed: u64,
    /// The order of the pass that was looked at last.
    order: Option<(u64, Vec<usize>)>,
}

impl Prompts {
    pub(super) fn new(questions: Vec<Question>, seed: u64) -> Prompts {
        Prompts { questions: questions.into_iter().map(Arc::new).collect(), seed, order: None }
    }

    /// The question of a prompt.
    pub(super) fn question(&mut self, prompt: u64) -> Option<Arc<Question>> {
        let count = (self.questions.len() as u64).max(1);
        let (pass, place) = (prompt / count, (prompt % count) as usize);
        if self.order.as_ref().is_none_or(|(of, _)| *of != pass) {
            let mut order: Vec<usize> = (0..self.questions.len()).collect();
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(draw(self.seed, &["order", &pass.to_string()])));
            self.order = Some((pass, order));
        }
        let (_, order) = self.order.as_ref()?;
        self.questions.get(*order.get(place)?).cloned()
    }
}

/// A number that follows from the run's seed and what it is for.
pub(super) fn draw(seed: u64, of: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_be_bytes());
    for part in of {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What a round came to.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) batch: Batch,
    /// Attempts that ended, by prompt and attempt: also those of groups that were never complete.
    pub(super) finished: BTreeMap<(u64, i32), Finished>,
}

/// Why nothing can be learnt from attempts, though they were made: what withheld the reward of all of them, or a judge that
/// answered to none. An attempt without an answer has its reward of 0 without a judge, and says nothing of it.
pub(super) fn outage<'a>(finished: impl Iterator<Item = &'a Finished> + Clone) -> Option<Withheld> {
    let reason = finished.clone().find_map(|finished| finished.reward.as_ref().err().copied())?;
    let is_judged = |parts: &RewardParts| parts.answer || parts.format;
    let decided = |finished: &Finished| {
        let verdict = finished.decision.as_ref().map(|decision| decision.verdict);
        matches!(verdict, Some(Verdict::Pass | Verdict::Fail)) || finished.reward.as_ref().is_ok_and(is_judged)
    };
    if finished.clone().any(decided) {
        return None;
    }
    let judge_failed = finished.clone().any(|finished| finished.reward == Err(Withheld::JudgeFailed));
    let all_withheld = finished.clone().all(|finished| finished.reward.is_err());
    if judge_failed { Some(Withheld::JudgeFailed) } else { all_withheld.then_some(reason) }
}

/// A round being sampled.
pub(super) struct Collector<'a> {
    pub(super) config: &'a DapoConfig,
    pub(super) identity: &'a RunIdentity,
    pub(super) tokenizer_digest: &'a str,
    /// The policy's version.
    pub(super) round: u64,
    pub(super) prompts: &'a mut Prompts,
    /// Episodes that were told before the run was killed, by trajectory.
    pub(super) recorded: &'a mut HashMap<String, Stored>,
    pub(super) refill: Refill,
    pub(super) queue: VecDeque<(u64, i32)>,
    pub(super) open: BTreeMap<u64, Vec<Episode>>,
    pub(super) finished: BTreeMap<(u64, i32), Finished>,
}

impl Collector<'_> {
    /// What there is, complete or not.
    pub(super) fn collected(self) -> Collected {
        Collected { batch: self.refill.finish(), finished: self.finished }
    }

    fn attempt(&mut self, prompt: u64, attempt: i32) -> Option<Attempt> {
        let question = self.prompts.question(prompt)?;
        let (round, place) = (self.round.to_string(), prompt.to_string());
        let number = u64::try_from(attempt).unwrap_or(0);
        let id = self.identity.trajectory_id(&question.qa_id, &place, self.round, number).to_string();
        let of = [question.qa_id.as_str(), &place, &round, &attempt.to_string()].map(str::to_string);
        let seed = draw(self.config.seed, &of.each_ref().map(String::as_str));
        // Columns and endpoints hold signed numbers.
        let seed = i64::try_from(seed >> 1).unwrap_or(0);
        Some(Attempt { trajectory_id: id, question, group: prompt, attempt, seed, recorded: None })
    }
}

impl Attempts for Collector<'_> {
    fn next(&mut self) -> Result<Option<Attempt>, TrainError> {
        loop {
            let Some((prompt, number)) = self.queue.pop_front() else {
                let Some(range) = self.refill.ask() else { return Ok(None) };
                let size = i32::try_from(self.config.groups.size).unwrap_or(i32::MAX);
                self.queue.extend(range.flat_map(|prompt| (0..size).map(move |attempt| (prompt, attempt))));
                continue;
            };
            let Some(attempt) = self.attempt(prompt, number) else { return Ok(None) };
            match take_up(attempt, self.recorded, &self.config.reward) {
                TakenUp::Finished(attempt, finished) => self.finished(&attempt, *finished)?,
                TakenUp::Open(attempt) => return Ok(Some(attempt)),
            }
        }
    }

    fn enough(&self) -> bool {
        self.refill.end().is_some()
    }

    fn finished(&mut self, attempt: &Attempt, finished: Finished) -> Result<(), TrainError> {
        let told = |error: &dyn std::fmt::Display| TrainError::Usage(error.to_string());
        let (row, reward) = (&finished.trajectory, finished.reward.clone());
        let episode = Episode::of_row(row, attempt.group, reward, self.tokenizer_digest).map_err(|e| told(&e))?;
        self.finished.insert((attempt.group, attempt.attempt), finished);
        let open = self.open.entry(attempt.group).or_default();
        open.push(episode);
        if open.len() < self.config.groups.size {
            return Ok(());
        }
        let episodes = self.open.remove(&attempt.group).unwrap_or_default();
        let group = Group::new(attempt.group, episodes, &self.config.groups, &self.config.overlong);
        self.refill.offer(group).map_err(|e| told(&e))
    }
}

/// An attempt, as far as it was made before.
pub(super) enum TakenUp {
    /// It has ended.
    Finished(Attempt, Box<Finished>),
    /// It is to be made, or judged.
    Open(Attempt),
}

/// Looks whether an attempt was made and told before the run was killed.
pub(super) fn take_up(
    mut attempt: Attempt,
    recorded: &mut HashMap<String, Stored>,
    parameters: &RewardParameters,
) -> TakenUp {
    let Some(stored) = recorded.remove(&attempt.trajectory_id) else { return TakenUp::Open(attempt) };
    match known_reward(&stored, parameters) {
        Some(reward) => {
            let Stored { trajectory, decision, .. } = stored;
            TakenUp::Finished(attempt, Box::new(Finished { trajectory, decision, reward, failure: None }))
        }
        // It was told by a trainer that tells of a reward later.
        None => {
            attempt.recorded = Some(Arc::new(stored.trajectory));
            TakenUp::Open(attempt)
        }
    }
}

/// The reward that was told of an episode, or why there was none; None where it was not told yet.
fn known_reward(stored: &Stored, parameters: &RewardParameters) -> Option<Result<RewardParts, Withheld>> {
    if let Some(parts) = stored.reward(parameters) {
        return Some(Ok(parts));
    }
    if stored.trajectory.termination == Termination::Error.as_str() {
        return Some(Err(Withheld::AttemptFailed));
    }
    let failed = stored.decision.as_ref().is_some_and(|decision| decision.verdict == Verdict::Error);
    failed.then_some(Err(Withheld::JudgeFailed))
}

/// The groups of a round from recorded ones: the place of a group is its prompt.
pub(super) fn replay(
    config: &DapoConfig,
    stored: &[Vec<Stored>],
    tokenizer_digest: &str,
    mut refill: Refill,
) -> Result<Batch, TrainError> {
    let told = |error: &dyn std::fmt::Display| TrainError::Usage(error.to_string());
    while let Some(range) = refill.ask() {
        for prompt in range {
            let group = usize::try_from(prompt).ok().and_then(|at| stored.get(at));
            let episode = |stored: &Stored| {
                let reward = stored.reward(&config.reward).ok_or(Withheld::NotJudged);
                Episode::of_row(&stored.trajectory, prompt, reward, tokenizer_digest)
            };
            let episodes: Vec<Episode> =
                group.into_iter().flatten().map(episode).collect::<Result<_, _>>().map_err(|e| told(&e))?;
            let group = Group::new(prompt, episodes, &config.groups, &config.overlong);
            refill.offer(group).map_err(|e| told(&e))?;
        }
    }
    Ok(refill.finish())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use webdancer_agent::judge::Decision;
    use webdancer_schemas::rows::Trajectory;

    use super::*;

    fn questions(count: usize) -> Vec<Question> {
        (0..count).map(|at| Question { qa_id: format!("q{at}"), ..Question::default() }).collect()
    }

    #[test]
    fn a_judge_that_answers_to_nobody_is_an_outage_though_some_attempts_need_none() {
        let finished = |reward: Result<(bool, bool), Withheld>, decision: Option<Decision>| {
            let parts = |(format, answer)| RewardParts { format, answer, reward: 0.0, fault: None };
            Finished { trajectory: Trajectory::default(), decision, reward: reward.map(parts), failure: None }
        };
        let unanswered = || finished(Ok((false, false)), None);
        let unjudged = || finished(Err(Withheld::JudgeFailed), Some(Decision::error("down")));
        let failed = || finished(Err(Withheld::AttemptFailed), None);
        let wrong = || finished(Ok((false, false)), Some(Decision::fail("")));
        let recorded = || finished(Ok((true, false)), None);
        for (attempts, expected) in [
            (vec![], None),
            (vec![unanswered()], None),
            (vec![unanswered(), unjudged()], Some(Withheld::JudgeFailed)),
            (vec![failed(), unjudged()], Some(Withheld::JudgeFailed)),
            (vec![failed(), failed()], Some(Withheld::AttemptFailed)),
            (vec![failed(), unanswered()], None),
            (vec![unjudged(), wrong()], None),
            (vec![unjudged(), recorded()], None),
        ] {
            assert_eq!(outage(attempts.iter()), expected, "{attempts:?}");
        }
    }

    #[test]
    fn every_pass_has_every_question_once_in_an_order_of_its_own() {
        let mut prompts = Prompts::new(questions(50), 7);
        let pass = |prompts: &mut Prompts, number: u64| -> Vec<String> {
            (0..50).map(|at| prompts.question(50 * number + at).unwrap().qa_id.clone()).collect()
        };
        let (first, second) = (pass(&mut prompts, 0), pass(&mut prompts, 1));
        assert_ne!(first, second);
        assert_eq!(pass(&mut prompts, 0), first, "an order depends on seed and pass alone");
        let mut sorted = second.clone();
        sorted.sort();
        let mut all: Vec<String> = questions(50).into_iter().map(|question| question.qa_id).collect();
        all.sort();
        assert_eq!(sorted, all);
        assert_ne!(pass(&mut Prompts::new(questions(50), 8), 0), first);
        assert!(Prompts::new(Vec::new(), 0).question(0).is_none());
    }

    #[test]
    fn what_was_recorded_is_not_attempted_again_and_what_lacks_its_reward_is_judged() {
        let config = {
            let mut config = DapoConfig::default();
            (config.groups.size, config.groups.prompts, config.groups.oversampling) = (4, 1, 1.0);
            config
        };
        let started = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
        let identity = RunIdentity { id: "r".to_string(), started, pin_id: None };
        let id = |attempt| identity.trajectory_id("q0", "0", 3, attempt).to_string();
        let stored = |attempt, termination: &str| {
            let trajectory = Trajectory {
                trajectory_id: id(attempt),
                attempt: attempt as i32,
                termination: termination.to_string(),
                ..Trajectory::default()
            };
            Stored { trajectory, decision: None, scores: None, group: None }
        };
        let mut recorded = HashMap::from([
            (id(0), Stored { scores: Some((true, false)), ..stored(0, "answer") }),
            (id(1), Stored { decision: Some(Decision::error("down")), ..stored(1, "answer") }),
            (id(2), stored(2, "answer")),
        ]);
        let mut prompts = Prompts::new(questions(1), 0);
        let mut collector = Collector {
            config: &config,
            identity: &identity,
            tokenizer_digest: "d",
            round: 3,
            prompts: &mut prompts,
            recorded: &mut recorded,
            refill: Refill::new(&config.groups, 0, 1),
            queue: VecDeque::new(),
            open: BTreeMap::new(),
            finished: BTreeMap::new(),
        };
        let third = collector.next().unwrap().unwrap();
        assert_eq!((third.attempt, third.recorded.unwrap().trajectory_id.clone()), (2, id(2)));
        let fourth = collector.next().unwrap().unwrap();
        assert_eq!((fourth.attempt, fourth.trajectory_id, fourth.recorded), (3, id(3), None));
        assert!(collector.next().unwrap().is_none());
        let rewards: Vec<_> = collector.finished.values().map(|finished| finished.reward.clone()).collect();
        let parts = RewardParts { format: true, answer: false, reward: 0.1, fault: None };
        assert_eq!(rewards, [Ok(parts), Err(Withheld::JudgeFailed)]);
    }
}

//! The loop: rounds until there are no more, and what is due between two of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use webdancer_agent::chat::Policy;
use webdancer_agent::reward::Withheld;

use super::collect::{Collected, Collector, Prompts, outage, replay};
use super::numbers::{Means, times};
use super::record::Scoring;
use super::stored::Stored;
use super::trial::{COVERAGE_MIN, Trial, TrialScore};
use crate::checkpoint::{self, Checkpoint};
use crate::config::DapoConfig;
use crate::contract::BEST_STEP;
use crate::dapo::batch::Round;
use crate::dapo::groups::Group;
use crate::dapo::refill::{Batch, Refill};
use crate::dapo::statistics;
use crate::dapo::update::{fix_old_log_probs, fix_reference_log_probs, update};
use crate::device::memory;
use crate::error::TrainError;
use crate::events::{Events, RunIdentity};
use crate::generate::Engine;
use crate::model::Qwen;
use crate::optim::{AdamW, Schedule};
use crate::questions::Question;
use crate::rollout::{Agent, PolicyModel, Renderer, RolloutTime, Rollouts};

/// Where a run stands, between two rounds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DapoState {
    /// Rounds done: the policy's version.
    pub round: u64,
    /// Updates done.
    pub updates: u64,
    /// The prompt that the next round begins with.
    pub next_prompt: u64,
    /// Tokens trained on.
    pub trained_tokens: u64,
    /// Rounds without a group to train on, in a row.
    pub empty_rounds: u32,
    /// The highest validation accuracy so far.
    pub best_accuracy: Option<f64>,
    /// The round that had it.
    pub best_round: Option<u64>,
    /// Validations since, without a higher one.
    pub validations_since_best: u64,
    /// What the run is of: pins, pages, first checkpoint, settings. Only the same may be resumed.
    pub fingerprint: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct DapoOutcome {
    /// Where it stands.
    pub state: DapoState,
    /// The last checkpoint.
    pub last: Checkpoint,
    /// The folder of the checkpoint to use: of the highest validation accuracy, or the last without validation.
    pub best: PathBuf,
    /// Why there were no more rounds.
    pub end: DapoEnd,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DapoEnd {
    /// All updates are done, or all prompts were looked at.
    Complete,
    /// The validation accuracy had not become higher for too long.
    OutOfPatience,
    /// Too many rounds in a row had no group to learn from.
    NothingToLearn,
    /// It was asked to, and can go on.
    Interrupted,
}

/// Where episodes come from.
pub(super) enum Source {
    /// The policy attempts questions.
    Sampled(Sampled),
    /// They were recorded: groups, in their order.
    Replayed(Vec<Vec<Stored>>),
}

/// All that attempts need beside the policy's weights.
pub(super) struct Sampled {
    pub(super) runtime: Handle,
    pub(super) prompts: Prompts,
    /// Episodes that were told before the run was killed, by trajectory.
    pub(super) recorded: HashMap<String, Stored>,
    pub(super) agent: Arc<Agent>,
    /// Questions to validate on, and who attempts them.
    pub(super) validation: Vec<Arc<Question>>,
    pub(super) trial_agent: Arc<Agent>,
}

/// A run of what, and where.
pub(super) struct Run<'a, W, S> {
    pub(super) config: &'a DapoConfig,
    pub(super) identity: RunIdentity,
    pub(super) name: String,
    pub(super) renderer: Arc<Renderer>,
    pub(super) source: Source,
    pub(super) engine: Engine,
    pub(super) reference: Option<Qwen>,
    pub(super) optimizer: AdamW,
    pub(super) schedule: Schedule,
    pub(super) prompts_end: u64,
    pub(super) state: DapoState,
    pub(super) base: &'a Path,
    pub(super) base_model: String,
    pub(super) checkpoints: &'a Path,
    pub(super) interrupt: &'a AtomicBool,
    pub(super) events: Events<W>,
    pub(super) say: S,
}

impl<W: Write, S: FnMut(String)> Run<'_, W, S> {
    /// Rounds, from where the state is.
    pub(super) fn finish(mut self, goes_on: bool) -> Result<DapoOutcome, TrainError> {
        for folder in checkpoint::all(self.checkpoints)? {
            // Told already, unless the run ended between the two.
            let round = checkpoint::step_of(&folder).unwrap_or(self.state.round);
            self.tell_checkpoint(round, &checkpoint::listed(&folder)?)?;
        }
        let mut last = None;
        if !goes_on && self.has_validation() {
            self.validate()?;
        }
        if !goes_on && (self.has_validation() || self.config.checkpoints.initial) {
            last = Some(self.keep()?);
        }
        let mut end = self.end();
        while end.is_none() {
            if !self.round()? {
                end = Some(DapoEnd::Interrupted);
                break;
            }
            end = self.look_around(&mut last)?;
        }
        let folder = self.folder(self.state.round);
        let last = match last {
            Some(last) if last.folder == folder => last,
            // Interrupted between two checkpoints, or nothing was left to do.
            _ if folder.exists() => checkpoint::verify(&folder)?,
            _ => self.keep()?,
        };
        let round = self.state.round;
        let best_round = self.state.best_round.unwrap_or(round);
        let best = self.folder(best_round);
        if let Some(reason) = self.why(end) {
            (self.say)(format!("round {round}: {reason}"));
        }
        if end != Some(DapoEnd::Interrupted) {
            self.tell(round, &[(BEST_STEP, best_round as f64, "")])?;
            (self.say)(format!("round {round}: the checkpoint to use is {}", best.display()));
        }
        Ok(DapoOutcome { state: self.state, last, best, end: end.unwrap_or(DapoEnd::Complete) })
    }

    /// Whether no round is to follow.
    fn end(&self) -> Option<DapoEnd> {
        let (config, state) = (self.config, &self.state);
        let patience = config.early_stop.patience;
        if patience > 0 && state.validations_since_best >= patience {
            Some(DapoEnd::OutOfPatience)
        } else if state.empty_rounds >= config.groups.empty_batches_max {
            Some(DapoEnd::NothingToLearn)
        } else if state.updates >= self.schedule.total_steps || state.next_prompt >= self.prompts_end {
            Some(DapoEnd::Complete)
        } else {
            self.interrupt.load(Ordering::Relaxed).then_some(DapoEnd::Interrupted)
        }
    }

    /// Why it ended before all was done, in words; none where it did not, or where whoever reads it asked for it.
    fn why(&self, end: Option<DapoEnd>) -> Option<String> {
        let state = &self.state;
        match end? {
            DapoEnd::OutOfPatience => Some(format!(
                "it ends early: the validation accuracy has not become higher {} times (early_stop.patience)",
                state.validations_since_best
            )),
            DapoEnd::NothingToLearn => Some(format!(
                "it ends early: no group of the last {} rounds had both correct and wrong answers \
                 (groups.empty_batches_max): choose questions that the policy answers at times, or begin with a better one",
                state.empty_rounds
            )),
            DapoEnd::Complete | DapoEnd::Interrupted => None,
        }
    }

    /// One round. False: it was interrupted, and nothing of it remains.
    fn round(&mut self) -> Result<bool, TrainError> {
        let began = Instant::now();
        let tools = self.tool_time();
        let (collected, time) = self.collect()?;
        if time.interrupted {
            return Ok(false);
        }
        let tools = self.tool_time().saturating_sub(tools);
        // What happened in a round is told under the number that the policy has behind it; its episodes name the policy.
        let round = self.state.round + 1;
        if let Some(reason) = outage(collected.finished.values()) {
            // Nothing of the round is told: a run that goes on tries again.
            return Err(unjudged(&format!("round {round}"), reason));
        }
        self.tell_episodes(&collected)?;
        let mut numbers = statistics::of(&collected.batch);
        let updating = Instant::now();
        numbers.extend(self.learn(&collected.batch)?);
        let updating = updating.elapsed();
        self.state.round = round;
        self.state.next_prompt = collected.batch.next_prompt;
        let kept = collected.batch.kept().count();
        self.state.empty_rounds = if kept == 0 { self.state.empty_rounds + 1 } else { 0 };
        numbers.extend(times(&time, tools, updating, began.elapsed()));
        self.tell(round, &numbers)?;
        let of =
            |name: &str| numbers.iter().find(|(other, ..)| *other == name).map_or(f64::NAN, |(_, value, _)| *value);
        let speed = of("rollout_tokens_per_second");
        let speed = if speed.is_nan() { String::new() } else { format!(", {speed:.0} tokens/s") };
        (self.say)(format!(
            "round {round}: accuracy {:.3}, reward {:.3}, {kept} of {} groups, {} updates{speed}",
            of("accuracy"),
            of("reward"),
            collected.batch.examined.len(),
            self.state.updates,
        ));
        Ok(true)
    }

    /// The groups of a round.
    fn collect(&mut self) -> Result<(Collected, RolloutTime), TrainError> {
        let refill = Refill::new(&self.config.groups, self.state.next_prompt, self.prompts_end);
        let digest = self.renderer.tokenizer().digest();
        let sampled = match &mut self.source {
            Source::Replayed(stored) => {
                let batch = replay(self.config, stored, digest, refill)?;
                return Ok((Collected { batch, finished: BTreeMap::new() }, RolloutTime::default()));
            }
            Source::Sampled(sampled) => sampled,
        };
        let rollouts = Rollouts {
            runtime: sampled.runtime.clone(),
            policy: policy(&self.name, &self.renderer, self.state.round),
            agent: sampled.agent.clone(),
            episodes_max: self.config.rollouts.episodes_max,
            lockstep: self.config.deterministic,
        };
        let mut collector = Collector {
            config: self.config,
            identity: &self.identity,
            tokenizer_digest: digest,
            round: self.state.round,
            prompts: &mut sampled.prompts,
            recorded: &mut sampled.recorded,
            refill,
            queue: VecDeque::new(),
            open: BTreeMap::new(),
            finished: BTreeMap::new(),
        };
        let time = rollouts.run(&mut self.engine, &mut collector, self.interrupt)?;
        Ok((collector.collected(), time))
    }

    fn tell_episodes(&mut self, collected: &Collected) -> Result<(), TrainError> {
        let Source::Sampled(sampled) = &self.source else { return Ok(()) };
        let scoring = Scoring { judge: sampled.agent.judge(), rewards: sampled.agent.rewards() };
        let groups: HashMap<u64, &Group> = collected.batch.examined.iter().map(|group| (group.prompt, group)).collect();
        let now = Utc::now();
        // A run that was killed takes up all of a round that it told, and comes to the groups that were trained on; or it
        // has told nothing of it, and samples it again.
        self.events.begin()?;
        for ((prompt, _), finished) in &collected.finished {
            let id = format!("{}/{}/{prompt}", self.identity.id, self.state.round);
            let group = groups.get(prompt).map(|group| (id.as_str(), *group));
            scoring.tell(&mut self.events, finished, group, now)?;
        }
        Ok(self.events.commit()?)
    }

    /// The updates of a round; what there is to tell of them, as means over updates.
    fn learn(&mut self, batch: &Batch) -> Result<Vec<statistics::Named>, TrainError> {
        let config = self.config;
        let round = Round::new(&batch.examined, config.loss.aggregation, &config.batch);
        let mut round = round.at_temperature(config.groups.temperature);
        let model = self.engine.model();
        // How far trainer and sampler are apart, each update tells.
        fix_old_log_probs(model, &mut round, &config.loss)?;
        if let Some(reference) = &self.reference {
            fix_reference_log_probs(reference, &mut round)?;
        }
        let mut means = Means::default();
        'passes: for _ in 0..config.batch.passes {
            for one in &round.updates {
                if self.state.updates >= self.schedule.total_steps {
                    break 'passes;
                }
                let learning_rate = self.schedule.at(self.state.updates);
                let updated = update(model, &mut self.optimizer, learning_rate, one, &config.loss)?;
                self.state.updates += 1;
                self.state.trained_tokens += one.trained_tokens() as u64;
                means.add("loss", updated.loss, "nat");
                means.add("grad_norm", updated.grad_norm, "");
                means.add("learning_rate", learning_rate, "");
                updated.means.into_iter().for_each(|(name, value, unit)| means.add(name, value, unit));
            }
        }
        let mut numbers = means.named();
        numbers.push(("updates", self.state.updates as f64, ""));
        numbers.push(("trained_tokens", self.state.trained_tokens as f64, "token"));
        numbers.push(("turns_left_out", round.left_out.values().sum::<u64>() as f64, ""));
        numbers.extend(memory(self.engine.model().head().device())?);
        Ok(numbers)
    }

    /// What is due behind a round: validation, a checkpoint. Says whether it was the last.
    fn look_around(&mut self, last: &mut Option<Checkpoint>) -> Result<Option<DapoEnd>, TrainError> {
        let round = self.state.round;
        // A run that was interrupted goes on, and validates where it would have.
        let at_end = self.end().is_some_and(|end| end != DapoEnd::Interrupted);
        let due = |every: u64| at_end || (every > 0 && round.is_multiple_of(every));
        let keeps = due(self.config.checkpoints.every_steps);
        if self.has_validation() && due(self.config.validation.every_rounds) {
            self.validate()?;
        }
        let end = self.end();
        if keeps || end.is_some() || self.state.best_round == Some(round) {
            *last = Some(self.keep()?);
        }
        Ok(end)
    }

    fn has_validation(&self) -> bool {
        matches!(&self.source, Source::Sampled(sampled) if !sampled.validation.is_empty())
    }

    /// Attempts the questions kept back.
    fn validate(&mut self) -> Result<(), TrainError> {
        let Source::Sampled(sampled) = &mut self.source else { return Ok(()) };
        let (config, round) = (self.config, self.state.round);
        let attempts = config.validation.attempts;
        let (identity, recorded) = (&self.identity, &mut sampled.recorded);
        let mut trial =
            Trial::new(&sampled.validation, attempts, identity, config.seed, round, recorded, &config.reward);
        let rollouts = Rollouts {
            runtime: sampled.runtime.clone(),
            policy: policy(&self.name, &self.renderer, round),
            agent: sampled.trial_agent.clone(),
            episodes_max: config.rollouts.episodes_max,
            lockstep: config.deterministic,
        };
        // A trial that is cut short says nothing; it is short enough to be waited for.
        rollouts.run(&mut self.engine, &mut trial, &AtomicBool::new(false))?;
        let (score, reason) = (trial.score(), outage(trial.finished.iter()));
        let (Some(score), None) = (score, reason) else {
            // Nothing of it is told: a run that goes on tries again.
            return Err(unjudged(&format!("validation at round {round}"), reason.unwrap_or(Withheld::NotJudged)));
        };
        let scoring = Scoring { judge: sampled.agent.judge(), rewards: sampled.agent.rewards() };
        let now = Utc::now();
        trial.finished.sort_by(|a, b| a.trajectory.trajectory_id.cmp(&b.trajectory.trajectory_id));
        self.events.begin()?;
        for finished in &trial.finished {
            scoring.tell(&mut self.events, finished, None, now)?;
        }
        self.events.commit()?;
        let TrialScore { accuracy, format, reward, written_tokens, coverage } = score;
        (self.say)(format!("round {round}: validation accuracy {accuracy:.3}, format {format:.3}"));
        if !score.is_comparable() {
            (self.say)(format!(
                "round {round}: only {:.0} % of the attempts could be judged, {:.0} % are needed: it is not compared with \
                 the best",
                coverage * 100.0,
                COVERAGE_MIN * 100.0
            ));
        } else if self.state.best_accuracy.is_none_or(|best| accuracy > best + config.early_stop.min_delta) {
            self.state.best_accuracy = Some(accuracy);
            self.state.best_round = Some(round);
            self.state.validations_since_best = 0;
        } else {
            self.state.validations_since_best += 1;
        }
        self.tell(
            round,
            &[
                ("validation_accuracy", accuracy, "1"),
                ("validation_format", format, "1"),
                ("validation_reward", reward, ""),
                ("validation_written_tokens", written_tokens, "token"),
                ("validation_coverage", coverage, "1"),
            ],
        )
    }

    fn tell_checkpoint(&mut self, round: u64, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let uri = checkpoint.folder.display().to_string();
        if self.events.checkpoint(round, &checkpoint.digest, &uri, Some(&self.base_model), Utc::now())? {
            (self.say)(format!("round {round}: checkpoint {uri}"));
        }
        Ok(())
    }

    /// Makes a checkpoint and removes those that are not to be kept.
    fn keep(&mut self) -> Result<Checkpoint, TrainError> {
        let (round, model) = (self.state.round, self.engine.model());
        let trainer = Some((&self.optimizer, &self.state));
        let name = checkpoint::name_of(round);
        // What a run that goes on does not do again is on disk before it.
        self.events.sync()?;
        let made = checkpoint::write(self.checkpoints, self.base, model, model.head().kind(), trainer, &name)?;
        self.tell_checkpoint(round, &made)?;
        let best = self.state.best_round.map(|round| self.folder(round));
        let mut others = checkpoint::all(self.checkpoints)?;
        let initial = self.config.checkpoints.initial.then(|| self.folder(0));
        others.retain(|folder| Some(folder) != best.as_ref() && Some(folder) != initial.as_ref());
        let surplus = others.len().saturating_sub(self.config.checkpoints.keep.max(1));
        for round in others.iter().take(surplus).filter_map(|folder| checkpoint::step_of(folder)) {
            checkpoint::discard(self.checkpoints, &checkpoint::name_of(round))?;
        }
        Ok(made)
    }

    fn tell(&mut self, round: u64, numbers: &[statistics::Named]) -> Result<(), TrainError> {
        for (name, value, unit) in numbers {
            self.events.metric(name, round, *value, Some(*unit).filter(|unit| !unit.is_empty()), Utc::now())?;
        }
        Ok(())
    }

    fn tool_time(&self) -> Duration {
        match &self.source {
            Source::Sampled(sampled) => sampled.agent.tool_time(),
            Source::Replayed(_) => Duration::ZERO,
        }
    }

    fn folder(&self, round: u64) -> PathBuf {
        self.checkpoints.join(checkpoint::name_of(round))
    }
}

/// The policy of a version.
pub(super) fn policy(name: &str, renderer: &Arc<Renderer>, version: u64) -> Arc<PolicyModel> {
    let policy = Policy {
        checkpoint_digest: None,
        tokenizer_digest: Some(renderer.tokenizer().digest().to_string()),
        version: i64::try_from(version).ok(),
    };
    Arc::new(PolicyModel { name: name.to_string(), renderer: renderer.clone(), policy })
}

/// That nobody could say what attempts are worth.
pub(super) fn unjudged(what: &str, reason: Withheld) -> TrainError {
    let remedy = "see to the judge and the tools, then go on with the run";
    TrainError::Usage(format!("{what}: no answer could be judged: {reason}; {remedy}"))
}

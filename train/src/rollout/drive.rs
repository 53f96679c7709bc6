//! The loop that owns the engine: begins attempts while there are places, hands turns in, and lets the engine write.
//!
//! Episodes are tasks on other threads. While one searches or reads, the others' turns are written; what ends makes room
//! for the next at once. In lockstep the engine waits until every episode has asked or ended: then what stands in a batch
//! does not depend on how long a tool took, and the same seeds give the same bits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::attempt::{Agent, Attempt, Finished};
use super::desk::{Asks, Desk, EpisodeModel, NoTurn, PolicyModel, Sampled, Told};
use crate::error::TrainError;
use crate::generate::{Engine, Refusal, Request, RequestId, Written};

/// Time between two looks at whether it is to end, while all episodes wait for their tools.
const GLANCE: Duration = Duration::from_millis(100);

/// What writes turns: an [`Engine`], or a program that plays one.
pub trait Generator {
    /// Takes a request.
    ///
    /// # Errors
    ///
    /// It makes no sense, or does not fit.
    fn submit(&mut self, request: Request) -> Result<RequestId, Refusal>;

    /// Gives a request up.
    fn cancel(&mut self, id: RequestId);

    /// Writes some tokens of what is under way.
    ///
    /// # Errors
    ///
    /// All requests are given up.
    fn step(&mut self) -> Result<Vec<Written>, TrainError>;
}

impl Generator for Engine {
    fn submit(&mut self, request: Request) -> Result<RequestId, Refusal> {
        Engine::submit(self, request)
    }

    fn cancel(&mut self, id: RequestId) {
        Engine::cancel(self, id);
    }

    fn step(&mut self) -> Result<Vec<Written>, TrainError> {
        Engine::step(self)
    }
}

/// Who says what is attempted, and takes what came of it.
pub trait Attempts {
    /// The next attempt to begin; none for now. It is asked again whenever one has ended.
    ///
    /// # Errors
    ///
    /// What ends the run.
    fn next(&mut self) -> Result<Option<Attempt>, TrainError>;

    /// Whether nothing more is wanted: what is under way is given up.
    fn enough(&self) -> bool {
        false
    }

    /// An attempt has ended. They end in any order.
    ///
    /// # Errors
    ///
    /// What ends the run.
    fn finished(&mut self, attempt: &Attempt, finished: Finished) -> Result<(), TrainError>;
}

/// How attempts are made.
#[derive(Debug, Clone)]
pub struct Rollouts {
    /// Threads that episodes run on.
    pub runtime: Handle,
    /// Who acts.
    pub policy: Arc<PolicyModel>,
    /// On what, and how.
    pub agent: Arc<Agent>,
    /// Attempts at a time.
    pub episodes_max: usize,
    /// Whether batches must not depend on time.
    pub lockstep: bool,
}

/// Where the time of some rollouts went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RolloutTime {
    /// In the engine.
    pub model: Duration,
    /// With nothing to write, until a tool or a judge came back.
    pub idle: Duration,
    /// All.
    pub total: Duration,
    /// Tokens written.
    pub tokens: u64,
    /// Whether it ended because it was asked to.
    pub interrupted: bool,
}

impl Rollouts {
    /// Makes attempts until `attempts` has none and all have ended, or has enough, or `interrupt` is set: then what is
    /// under way is given up.
    ///
    /// # Errors
    ///
    /// The engine failed, an episode panicked, or `attempts` ended it.
    pub fn run(
        &self,
        generator: &mut dyn Generator,
        attempts: &mut dyn Attempts,
        interrupt: &AtomicBool,
    ) -> Result<RolloutTime, TrainError> {
        let (desk, told) = mpsc::channel();
        let mut state = Loop {
            rollouts: self,
            generator,
            desk,
            told,
            under_way: BTreeMap::new(),
            asked: BTreeMap::new(),
            begun: 0,
            time: RolloutTime::default(),
        };
        let began = Instant::now();
        let outcome = state.run(attempts, interrupt);
        for id in state.asked.keys() {
            state.generator.cancel(*id);
        }
        state.time.total = began.elapsed();
        outcome.map(|()| state.time)
    }
}

struct Loop<'a> {
    rollouts: &'a Rollouts,
    generator: &'a mut dyn Generator,
    desk: Sender<Told>,
    told: Receiver<Told>,
    /// Attempts begun and not ended, by the order in which they were begun.
    under_way: BTreeMap<usize, Attempt>,
    /// Turns being written.
    asked: BTreeMap<RequestId, Turn>,
    begun: usize,
    time: RolloutTime,
}

struct Turn {
    sampled: Sampled,
    reply: oneshot::Sender<Result<Sampled, NoTurn>>,
    begun: Arc<AtomicBool>,
}

impl Loop<'_> {
    fn run(&mut self, attempts: &mut dyn Attempts, interrupt: &AtomicBool) -> Result<(), TrainError> {
        loop {
            if interrupt.load(Ordering::Relaxed) {
                self.time.interrupted = true;
                return Ok(());
            }
            while self.under_way.len() < self.rollouts.episodes_max.max(1) {
                let Some(attempt) = attempts.next()? else { break };
                self.begin(attempt);
            }
            if self.under_way.is_empty() || attempts.enough() {
                return Ok(());
            }
            let mut has_ended = false;
            for told in self.listen(interrupt) {
                match told {
                    Told::Asks(asks) => self.take(asks),
                    Told::Ends { episode, outcome } => {
                        has_ended = true;
                        let attempt = self.under_way.remove(&episode);
                        let lost = || TrainError::Usage("an episode panicked; what it said stands above".to_string());
                        attempts.finished(&attempt.ok_or_else(lost)?, *outcome.ok_or_else(lost)?)?;
                    }
                }
            }
            // A place that became free is taken before the engine goes on.
            if !has_ended && !self.asked.is_empty() && !interrupt.load(Ordering::Relaxed) {
                self.write()?;
            }
        }
    }

    fn begin(&mut self, attempt: Attempt) {
        let (episode, agent) = (self.begun, self.rollouts.agent.clone());
        self.begun += 1;
        let desk: Arc<dyn Desk> = Arc::new(self.desk.clone());
        let model = Arc::new(EpisodeModel::new(self.rollouts.policy.clone(), desk, episode));
        let ending = Ending { desk: self.desk.clone(), episode, outcome: None };
        let task = attempt.clone();
        self.rollouts.runtime.spawn(async move {
            // The whole of it moves into the task, not the one field that is written.
            let mut ending = ending;
            ending.outcome = Some(Box::new(agent.attempt(&task, model).await));
        });
        self.under_way.insert(episode, attempt);
    }

    /// What episodes have told: of those that are waited for, in the order in which they were begun.
    fn listen(&mut self, interrupt: &AtomicBool) -> Vec<Told> {
        let mut told = Vec::new();
        loop {
            self.forget_those_who_left();
            let silent = self.under_way.len().saturating_sub(self.asked.len() + told.len());
            let must_wait = match self.rollouts.lockstep {
                true => silent > 0,
                false => self.asked.is_empty() && told.is_empty(),
            };
            if !must_wait || interrupt.load(Ordering::Relaxed) {
                break;
            }
            let began = Instant::now();
            match self.told.recv_timeout(GLANCE) {
                Ok(one) => told.push(one),
                // A sender of ours is alive as long as this is.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if self.asked.is_empty() {
                self.time.idle += began.elapsed();
            }
        }
        told.extend(self.told.try_iter());
        told.sort_by_key(Told::episode);
        told
    }

    fn take(&mut self, Asks { request, reply, begun, .. }: Asks) {
        match self.generator.submit(request) {
            Ok(id) => {
                self.asked.insert(id, Turn { sampled: Sampled::default(), reply, begun });
            }
            Err(refusal) => {
                let _ = reply.send(Err(NoTurn::Refused(refusal)));
            }
        }
    }

    fn write(&mut self) -> Result<(), TrainError> {
        let began = Instant::now();
        let written = self.generator.step()?;
        self.time.model += began.elapsed();
        self.time.tokens += written.len() as u64;
        for Written { request, id, log_prob, finish, .. } in written {
            let Some(turn) = self.asked.get_mut(&request) else { continue };
            turn.begun.store(true, Ordering::Relaxed);
            turn.sampled.ids.push(id);
            turn.sampled.log_probs.push(log_prob);
            turn.sampled.finish = finish;
            if finish.is_some()
                && let Some(Turn { sampled, reply, .. }) = self.asked.remove(&request)
            {
                let _ = reply.send(Ok(sampled));
            }
        }
        Ok(())
    }

    /// Those whose time is spent do not wait for their turn any more.
    fn forget_those_who_left(&mut self) {
        let left: Vec<RequestId> =
            self.asked.iter().filter(|(_, turn)| turn.reply.is_closed()).map(|(id, _)| *id).collect();
        for id in left {
            self.generator.cancel(id);
            self.asked.remove(&id);
        }
    }
}

/// Tells that an episode is over, also when it panicked.
struct Ending {
    desk: Sender<Told>,
    episode: usize,
    outcome: Option<Box<Finished>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Nobody listens any more when the rollouts were given up.
        let _ = self.desk.send(Told::Ends { episode: self.episode, outcome: self.outcome.take() });
    }
}

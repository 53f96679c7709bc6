//! The ReAct loop: a question, a model and a web become a trajectory (paper, section 2.2).
//!
//! Each turn the model is given the conversation and writes a thought and an action; a call is carried out on the web
//! and observed; an answer ends the trajectory. What goes wrong is either the policy's, and stays in the trajectory for
//! it to learn from, or it is not, and ends the trajectory with `error`, so that nobody takes it for a wrong answer:
//!
//! | what happens | what follows | termination |
//! |---|---|---|
//! | an answer | the end | `answer` |
//! | a turn that is no thought and one action | an observation that says what is wrong; after too many the end | `malformed` |
//! | a wrong call, bad JSON too; a miss; a page that is not there | an observation that says so | |
//! | an observation that the model wrote itself | cut off at a token's end; the turn's raw text keeps its opening tag | |
//! | model calls spent, or the context full | one more turn, which is asked for the answer | `forced`; without an answer `calls`, `tokens` |
//! | tokens to write spent | the end | `tokens` |
//! | time spent, also within a call | the end | `time` |
//! | model or tool fail after their retries; time spent while the model had begun no answer | the end | `error` |
//!
//! [`render_messages`](crate::conversation::render_messages) of the row gives the very messages of the conversation. In
//! [long](Cot::Long) mode these are not what the model was sent: it saw its past actions without the thoughts.

mod record;
mod termination;
mod turn;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use webdancer_schemas::rows::Trajectory;

use crate::chat::{ChatError, ChatModel, ChatRequest, Completion, Finish, Sampling};
use crate::clock::{Clock, SystemClock};
use crate::format::FormatError;
use crate::profile::Profile;
use crate::tool::{Observation, Outcome, Web};
use record::Record;
pub use termination::Termination;
use turn::{Deed, Written};

/// Where generation ends: a model that goes on would write the tool's part.
const STOP: [&str; 2] = ["\n<tool_response>", "<tool_response>"];
/// Times the last observation is halved to make room for the final turn.
const HALVINGS_MAX: u32 = 4;
/// Bytes of text that a token is taken to have when an observation's tokens are estimated.
const BYTES_PER_TOKEN: u64 = 3;
/// Tokens left free for a turn whose length is not limited.
const TURN_TOKENS: u64 = 1_024;

/// How an agent acts: every budget with its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReactConfig {
    /// Model calls, the final one not counted. 40 by default.
    pub calls_max: u32,
    /// Tokens of the conversation. By default the model says when its context is full.
    pub context_tokens_max: Option<u64>,
    /// Tokens that the model may write in all.
    pub written_tokens_max: Option<u64>,
    /// Tokens that the model may write in one turn.
    pub turn_tokens_max: Option<u32>,
    /// Wall-clock time. 1,800,000 by default. Where it runs out while a model has not begun to answer (it is waited for, or
    /// asked again), the model was unavailable.
    pub time_ms_max: u64,
    /// Turns without a thought and one action that are answered; one more ends the trajectory. A call whose JSON is bad
    /// is a wrong call, and none of these. 3 by default.
    pub malformed_max: u32,
    /// Ask for the answer when calls or context are spent. True by default.
    pub force_answer: bool,
    /// What the model sees of its past thoughts.
    pub cot: Cot,
    /// How to sample; an attempt's seed goes before the one in here.
    pub sampling: Sampling,
    /// Ask for token ids and log-probabilities.
    pub tokens: bool,
}

/// What a model sees of its past thoughts (paper, section 2.2). The trajectory keeps all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cot {
    /// All: a model that follows instructions writes short thoughts.
    #[default]
    Short,
    /// None: a reasoning model thinks anew in each turn, and what it reasons is the turn's thought.
    Long,
}

impl Default for ReactConfig {
    fn default() -> ReactConfig {
        ReactConfig {
            calls_max: 40,
            context_tokens_max: None,
            written_tokens_max: None,
            turn_tokens_max: None,
            time_ms_max: 1_800_000,
            malformed_max: 3,
            force_answer: true,
            cot: Cot::Short,
            sampling: Sampling::default(),
            tokens: false,
        }
    }
}

/// One attempt at a question.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// Id that the trajectory gets.
    pub trajectory_id: &'a str,
    /// Id of the question.
    pub qa_id: &'a str,
    /// The question.
    pub question: &'a str,
    /// Attempt, from 0.
    pub attempt: i32,
    /// Seed of the attempt.
    pub seed: Option<i64>,
    /// The date that the model is told.
    pub date: NaiveDate,
    /// Whether the question is of a gated benchmark.
    pub restricted: Option<bool>,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempted {
    /// The trajectory, complete but for the event around it.
    pub trajectory: Trajectory,
    /// Why the termination is `error`.
    pub failure: Option<Failure>,
}

/// What failed that is not the policy's. Holds no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The model.
    #[error(transparent)]
    Model(#[from] ChatError),
    /// The endpoint withheld what the model wrote.
    #[error("{0}: the endpoint withheld a turn")]
    Filtered(String),
    /// A tool.
    #[error("the tool {0} failed")]
    Tool(String),
}

/// An agent: a policy with its profile on a web. Cheap to clone.
#[derive(Debug, Clone)]
pub struct React {
    model: Arc<dyn ChatModel>,
    web: Arc<dyn Web>,
    profile: Arc<Profile>,
    config: Arc<ReactConfig>,
    clock: Arc<dyn Clock>,
}

/// How a trajectory ended.
#[derive(Debug)]
enum End {
    Answer,
    Forced,
    Spent(Budget),
    Malformed,
    Failed(Failure),
}

/// What was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Budget {
    Calls,
    Context,
    Written,
    Time,
}

impl End {
    fn termination(&self) -> Termination {
        match self {
            End::Answer => Termination::Answer,
            End::Forced => Termination::Forced,
            End::Spent(Budget::Calls) => Termination::Calls,
            End::Spent(Budget::Context | Budget::Written) => Termination::Tokens,
            End::Spent(Budget::Time) => Termination::Time,
            End::Malformed => Termination::Malformed,
            End::Failed(_) => Termination::Error,
        }
    }
}

impl React {
    /// An agent on the machine's clock.
    pub fn new(model: Arc<dyn ChatModel>, web: Arc<dyn Web>, profile: Arc<Profile>, config: ReactConfig) -> React {
        React { model, web, profile, config: Arc::new(config), clock: Arc::new(SystemClock) }
    }

    /// The same agent on another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> React {
        self.clock = clock;
        self
    }

    /// The web it acts on.
    pub fn web(&self) -> &Arc<dyn Web> {
        &self.web
    }

    /// Attempts a task. Whatever happens, there is a trajectory.
    pub async fn attempt(&self, task: &Task<'_>) -> Attempted {
        let record = Record::new(task, &self.profile, &self.web.specifications(), self.config.cot);
        let mut episode = Episode { agent: self, task, record, start: self.clock.now(), malformed: 0 };
        let end = match episode.run().await {
            Ok(end) | Err(end) => end,
        };
        let mut trajectory = episode.record.finish();
        trajectory.termination = end.termination().as_str().to_string();
        trajectory.policy_model = Some(self.model.name().to_string());
        let policy = self.model.policy();
        trajectory.policy_checkpoint_digest = policy.checkpoint_digest;
        trajectory.tokenizer_digest = policy.tokenizer_digest;
        trajectory.policy_version = policy.version;
        trajectory.sampling_parameters = Some(self.config.sampling_parameters(task.seed, self.model.defaults()));
        let failure = if let End::Failed(failure) = end { Some(failure) } else { None };
        Attempted { trajectory, failure }
    }
}

/// One attempt under way.
struct Episode<'a> {
    agent: &'a React,
    task: &'a Task<'a>,
    record: Record,
    start: Instant,
    malformed: u32,
}

impl Episode<'_> {
    /// Turn after turn. An end is an error where it ends in the middle of something.
    async fn run(&mut self) -> Result<End, End> {
        let config = &self.agent.config;
        for _ in 0..config.calls_max {
            self.remaining()?;
            if config.written_tokens_max.is_some_and(|max| self.record.written_tokens() >= max) {
                return Ok(End::Spent(Budget::Written));
            }
            if self.context_is_full() {
                return self.force(Budget::Context).await;
            }
            let began = self.agent.clock.now();
            let completion = match self.complete().await? {
                Some(completion) => completion,
                None => return self.force(Budget::Context).await,
            };
            if let Some(end) = self.take(completion, began).await? {
                return Ok(end);
            }
        }
        self.force(Budget::Calls).await
    }

    /// Carries out what the model wrote; the end, if this was it.
    async fn take(&mut self, completion: Completion, began: Instant) -> Result<Option<End>, End> {
        let cut_off = completion.finish == Finish::Length;
        let written = self.written(&completion)?;
        let index = self.record.push(written.clone(), &completion, self.agent.model.policy().version);
        let end = match written.deed {
            Deed::Answer(_) => Some(End::Answer),
            Deed::Call { tool, arguments } => {
                let called = self.agent.clock.now();
                let observation = self.call(&tool, &arguments).await;
                self.record.tool_took(index, self.agent.clock.now() - called);
                match observation {
                    Ok(Observation { text, outcome, sources }) => {
                        self.record.observe(&text, outcome.as_str());
                        self.record.made_of(sources);
                        (outcome == Outcome::Outage).then_some(End::Failed(Failure::Tool(tool)))
                    }
                    Err(end) => Some(end),
                }
            }
            Deed::Malformed(fault) => self.reject(&fault, cut_off),
        };
        self.record.took(index, self.agent.clock.now() - began);
        Ok(end)
    }

    /// Says what is wrong with a turn that could not be carried out; the end, if it was one too many.
    fn reject(&mut self, fault: &FormatError, cut_off: bool) -> Option<End> {
        let config = &self.agent.config;
        if cut_off && config.written_tokens_max.is_some_and(|max| self.record.written_tokens() >= max) {
            return Some(End::Spent(Budget::Written));
        }
        let outcome = match fault {
            FormatError::ToolCall { .. } if !cut_off => Outcome::Invalid.as_str(),
            _ => {
                self.malformed += 1;
                turn::MALFORMED
            }
        };
        if self.malformed > config.malformed_max {
            return Some(End::Malformed);
        }
        self.record.observe(&turn::explain(fault, cut_off), outcome);
        None
    }

    /// One more turn, which is asked for the answer.
    async fn force(&mut self, spent: Budget) -> Result<End, End> {
        if !self.agent.config.force_answer || !self.record.begin_final(&self.agent.profile.final_instruction) {
            return Ok(End::Spent(spent));
        }
        match self.final_turn(spent).await {
            Ok(Some(end)) => Ok(end),
            // Nothing was written to the request, so it was not made.
            other => {
                self.record.abandon_final();
                other.map(|_| End::Spent(spent))
            }
        }
    }

    /// The end that the final turn is; None when the conversation fits the context with little of its last observation
    /// neither.
    async fn final_turn(&mut self, spent: Budget) -> Result<Option<End>, End> {
        let began = self.agent.clock.now();
        for halvings in 0..=HALVINGS_MAX {
            if halvings > 0 {
                self.record.halve_last_observation();
            }
            let Some(completion) = self.complete().await? else { continue };
            let written = self.written(&completion)?;
            let end = if matches!(written.deed, Deed::Answer(_)) { End::Forced } else { End::Spent(spent) };
            let index = self.record.push(written, &completion, self.agent.model.policy().version);
            self.record.took(index, self.agent.clock.now() - began);
            return Ok(Some(end));
        }
        Ok(None)
    }

    /// The next completion; None when the conversation does not fit the context.
    async fn complete(&mut self) -> Result<Option<Completion>, End> {
        let config = &self.agent.config;
        let left = config.written_tokens_max.map(|max| max.saturating_sub(self.record.written_tokens()).max(1));
        let left = left.map(|left| u32::try_from(left).unwrap_or(u32::MAX));
        let mut sampling = config.sampling;
        sampling.seed = self.task.seed.or(sampling.seed);
        let request = ChatRequest {
            messages: self.record.messages().to_vec(),
            sampling,
            stop: STOP.map(str::to_string).to_vec(),
            max_tokens: left.into_iter().chain(config.turn_tokens_max).min(),
            tokens: config.tokens,
            turn: self.record.turns(),
        };
        match self.agent.model.complete_within(&request, self.remaining()?).await {
            Ok(Some(completion)) => Ok(Some(completion)),
            Ok(None) => Err(End::Spent(Budget::Time)),
            Err(ChatError::ContextFull { .. }) => Ok(None),
            Err(error) => Err(End::Failed(error.into())),
        }
    }

    async fn call(&self, tool: &str, arguments: &str) -> Result<Observation, End> {
        let calling = tokio::time::timeout(self.remaining()?, self.agent.web.call(tool, arguments));
        calling.await.map_err(|_| End::Spent(Budget::Time))
    }

    fn written(&self, completion: &Completion) -> Result<Written, End> {
        let written = turn::written(completion, self.agent.config.cot);
        // Half of a turn is not what the policy wrote.
        if completion.finish == Finish::Filtered && matches!(written.deed, Deed::Malformed(_)) {
            return Err(End::Failed(Failure::Filtered(self.agent.model.name().to_string())));
        }
        Ok(written)
    }

    fn remaining(&self) -> Result<Duration, End> {
        let max = Duration::from_millis(self.agent.config.time_ms_max);
        let left = max.checked_sub(self.agent.clock.now() - self.start).filter(|left| !left.is_zero());
        left.ok_or(End::Spent(Budget::Time))
    }

    /// Whether the next turn would not fit, as far as that can be told before it is tried.
    fn context_is_full(&self) -> bool {
        let config = &self.agent.config;
        let turn = config.turn_tokens_max.map_or(TURN_TOKENS, u64::from);
        let next = self.record.context_tokens(BYTES_PER_TOKEN) + turn;
        config.context_tokens_max.is_some_and(|max| self.record.has_turns() && next > max)
    }
}

impl ReactConfig {
    /// What the endpoint was asked for, by this or by its own settings, and whether it saw past thoughts.
    fn sampling_parameters(
        &self,
        seed: Option<i64>,
        (own, own_max): (Sampling, Option<u32>),
    ) -> webdancer_schemas::column::JsonText {
        let mut sampling = self.sampling.or(own);
        sampling.seed = seed.or(sampling.seed);
        let mut json = serde_json::to_value(sampling).unwrap_or_default();
        if let Some(members) = json.as_object_mut() {
            members.extend(self.turn_tokens_max.or(own_max).map(|max| ("max_tokens".to_string(), max.into())));
            let cot = if self.cot == Cot::Long { "long" } else { "short" };
            members.insert("cot".to_string(), cot.into());
        }
        webdancer_schemas::column::JsonText(json)
    }
}

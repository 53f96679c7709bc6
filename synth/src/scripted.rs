//! The scripted policy: an expert that plays a chat model over an atlas.
//!
//! It recognises the question, follows the question's [`Plan`] by search and visit, and reads every fact from what the
//! tools answered, never from the plan: on a web that says otherwise it answers otherwise. It keeps nothing between
//! calls; what it does next follows from the conversation and the attempt's seed. With [`MistakeRates`] above zero
//! it errs as models do, so that what filters trajectories has something real to catch.

mod mistakes;
mod notes;
mod speech;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use webdancer_agent::chat::{ChatError, ChatModel, ChatRequest, Completion, Finish, Usage};
use webdancer_schemas::rows::Qa;

pub use self::mistakes::{Mistake, MistakeRates, RatesError};
pub(crate) use self::notes::hit;
use self::notes::{Notes, asked};
use self::speech::{Speech, bad_json, call, repeated, simulated};
use crate::atlasqa::plan::{Missing, Plan};
use crate::atlasqa::{Question, below, shuffle};
use crate::question::normalised;

/// Queries of one search, and addresses of one visit, at most.
const BATCH_MAX: usize = 5;
/// Names that a goal spells out, at most.
const SOUGHT_MAX: usize = 60;
/// What it answers when it found nothing.
const UNKNOWN: &str = "unknown";

/// A question that the policy knows how to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The question.
    pub question: String,
    /// How to find the answer.
    pub plan: Plan,
    /// What an attempt answers that looks nothing up ([`Mistake::NoToolCall`]). No other attempt sees it.
    pub remembered: String,
}

impl Task {
    /// The task of a row of the table `qa`: None where it has no plan (`attributes.plan`).
    pub fn of(row: &Qa) -> Option<Task> {
        let plan = row.attributes.as_ref()?.0.get("plan")?;
        let plan = serde_json::from_value(plan.clone()).ok()?;
        Some(Task { question: row.question.clone(), plan, remembered: row.answer.clone() })
    }
}

impl From<&Question> for Task {
    fn from(question: &Question) -> Task {
        let (plan, remembered) = (question.plan.clone(), question.answer.clone());
        Task { question: question.text.clone(), plan, remembered }
    }
}

/// A policy that follows plans.
#[derive(Debug)]
pub struct Scripted {
    name: String,
    tasks: HashMap<String, Task>,
    rates: MistakeRates,
    seed: u64,
    is_terse: bool,
}

impl Scripted {
    /// A policy for these tasks. The seed is of attempts whose request has none.
    ///
    /// # Errors
    /// Rates that cannot be.
    pub fn new(tasks: impl IntoIterator<Item = Task>, rates: MistakeRates, seed: u64) -> Result<Scripted, RatesError> {
        let tasks = tasks.into_iter().map(|task| (normalised(&task.question), task)).collect();
        Ok(Scripted { name: "scripted".to_string(), tasks, rates: rates.checked()?, seed, is_terse: false })
    }

    /// The same under another name. What it is told to be, mistakes and all, tells it from another: as its attempts are recorded,
    /// so they are scored.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Scripted {
        Scripted { name: name.into(), ..self }
    }

    /// One that says everything in one way and in few words, and looks up one thing at a time, each by one search and one visit:
    /// what small learners can imitate. It repeats no name that it need not.
    pub fn terse(self) -> Scripted {
        Scripted { is_terse: true, ..self }
    }

    /// The mistake that the attempt of a seed at a question makes.
    pub fn mistake(&self, question: &str, seed: Option<i64>) -> Option<Mistake> {
        Attempt::new(self, question, seed).mistake
    }
}

#[async_trait]
impl ChatModel for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    async fn complete(&self, request: &ChatRequest) -> Result<Completion, ChatError> {
        let candidates = asked(&request.messages);
        let task = candidates.iter().find_map(|question| self.tasks.get(&normalised(question)));
        let task = task.ok_or_else(|| ChatError::Refused {
            model: self.name.clone(),
            reason: "it has no plan for this question; give it the questions of this world's atlas".to_string(),
        })?;
        let attempt = Attempt::new(self, &task.question, request.sampling.seed);
        let notes = Notes::of(&request.messages);
        let text = attempt.turn(task, &if self.is_terse { notes.at_first_sight() } else { notes });
        let words = |text: &str| text.split_whitespace().count() as u64;
        let input_tokens = request.messages.iter().map(|message| words(&message.content)).sum();
        Ok(Completion {
            usage: Usage { input_tokens, output_tokens: words(&text), ..Usage::default() },
            text,
            reasoning: None,
            finish: Finish::Stop,
            tokens: None,
            elapsed: Duration::ZERO,
        })
    }
}

/// One attempt at a question: what its seed decides.
struct Attempt {
    seed: [u8; 32],
    mistake: Option<Mistake>,
    /// The turn at which a mistake in the form of a turn is made, from 0.
    at: usize,
    /// How many calls too many.
    extra: usize,
    is_terse: bool,
}

impl Attempt {
    fn new(policy: &Scripted, question: &str, seed: Option<i64>) -> Attempt {
        let seed = seed.map_or(format!("policy {}", policy.seed), |seed| format!("attempt {seed}"));
        let seed: [u8; 32] = Sha256::digest(format!("{seed}\n{question}")).into();
        let mut random = ChaCha8Rng::from_seed(seed);
        // 53 bits: every one of them fits the number.
        let drawn = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let (at, extra) = (below(3, &mut random), 2 + below(3, &mut random));
        Attempt { seed, mistake: policy.rates.draw(drawn), at, extra, is_terse: policy.is_terse }
    }

    /// The text of the next turn.
    fn turn(&self, task: &Task, notes: &Notes) -> String {
        let mut random = self.random(notes.turns);
        let mut speech = Speech::new(&mut random, self.is_terse);
        let mut articles = notes;
        let found = task.plan.follow(&mut articles);
        if notes.is_forced {
            let answer = found.ok().and_then(single).unwrap_or_else(|| UNKNOWN.to_string());
            return speech.answer(&answer);
        }
        if self.mistake == Some(Mistake::NoToolCall) {
            return speech.answer_from_memory(&task.remembered);
        }
        let is_ready = found.is_ok();
        let (tool, arguments, thought) = match &found {
            Err(missing) => self.look_up(missing, notes, &mut speech),
            Ok(_) => self.look_again(notes, &mut speech),
        };
        if !self.is_made(notes) && (notes.turns == self.at || (is_ready && notes.turns < self.at)) {
            match self.mistake {
                Some(Mistake::BadJson) => return bad_json(&thought, &tool, &arguments),
                Some(Mistake::UnknownTool) => {
                    let arguments = json!({ "expression": speech.sum() });
                    return call(&thought, "calculate", &arguments);
                }
                Some(Mistake::Repetition) => return call(&repeated(&thought), &tool, &arguments),
                Some(Mistake::SimulatedObservation) => return simulated(&thought, &tool, &arguments),
                _ => {}
            }
        }
        match (self.mistake, found) {
            (_, Err(_)) | (Some(Mistake::NoAnswer), Ok(_)) => call(&thought, &tool, &arguments),
            (Some(Mistake::OverAction), Ok(_)) if repeats(notes) < self.extra => call(&thought, &tool, &arguments),
            (mistake, Ok(values)) => {
                let answer = single(values);
                let answer = answer.map(|answer| match mistake {
                    Some(Mistake::WrongAnswer) => speech.another(&answer, notes),
                    _ => answer,
                });
                speech.answer(&answer.unwrap_or_else(|| UNKNOWN.to_string()))
            }
        }
    }

    /// Whether the conversation shows the attempt's mistake.
    fn is_made(&self, notes: &Notes) -> bool {
        match self.mistake {
            Some(Mistake::BadJson | Mistake::SimulatedObservation) => notes.malformed > 0,
            Some(Mistake::UnknownTool) => notes.calls.iter().any(|call| call.tool == "calculate"),
            Some(Mistake::Repetition) => notes.thoughts.iter().any(|thought| speech::is_repeated(thought)),
            _ => false,
        }
    }

    /// The call that finds what is missing: a search for the articles that were not found yet, else a visit.
    fn look_up(&self, missing: &Missing, notes: &Notes, speech: &mut Speech<'_>) -> (String, Value, String) {
        let mut titles = missing.titles.clone();
        // Attempts differ in the order in which they look and in how much at once.
        let mut random = self.random(usize::MAX);
        let batch = if self.is_terse { 1 } else { 1 + below(BATCH_MAX, &mut random) };
        shuffle(&mut titles, &mut random);
        // One way for everything: who is terse searches for what it visits, also where it has seen the address by chance.
        let is_unknown =
            |title: &&String| notes.address(title).is_none() || (self.is_terse && notes.searches(title) == 0);
        let unknown: Vec<&String> = titles.iter().filter(is_unknown).take(batch).collect();
        if !unknown.is_empty() {
            // The second time by the title alone, which finds an article of that title.
            let mut query = |title: &String| match notes.searches(title) {
                0 => speech.query(title, missing.field),
                _ => title.clone(),
            };
            let queries: Vec<String> = unknown.iter().map(|title| query(title)).collect();
            let thought = speech.search_thought(&unknown, missing.field);
            return ("search".to_string(), json!({ "query": queries }), thought);
        }
        let found = titles.iter().filter_map(|title| Some((title, notes.address(title)?)));
        let (mut names, mut urls): (Vec<&String>, Vec<&str>) = found.take(batch).unzip();
        // The second time more exactly: a page for itself has more room, and a list that is shown in part is asked for the
        // names that matter.
        let again = urls.iter().any(|url| notes.visits(url, missing.field) > 0);
        if again {
            names.truncate(1);
            urls.truncate(1);
        }
        let sought = match missing.sought.as_slice() {
            names if again && names.len() <= SOUGHT_MAX => names.iter().map(|name| format!("{name}, ")).collect(),
            _ => String::new(),
        };
        let goal = if again {
            format!("{sought}{} of {}", missing.field.words(), speech::listed(&names))
        } else {
            speech.goal(&names, missing.field)
        };
        let thought = speech.visit_thought(&names, missing.field);
        ("visit".to_string(), json!({ "url": urls, "goal": goal }), thought)
    }

    /// A call that nobody needs: one that was made before.
    fn look_again(&self, notes: &Notes, speech: &mut Speech<'_>) -> (String, Value, String) {
        let made: Vec<_> = notes.calls.iter().filter(|call| call.tool != "calculate").collect();
        let again = made.get(speech.below(made.len().max(1)));
        let (tool, arguments) = again.map_or_else(
            || ("search".to_string(), json!({ "query": ["atlas"] })),
            |c| (c.tool.clone(), c.arguments.clone()),
        );
        (tool, arguments, speech.doubt())
    }

    /// The randomness of a turn.
    fn random(&self, turn: usize) -> ChaCha8Rng {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update((turn as u64).to_be_bytes());
        ChaCha8Rng::from_seed(hash.finalize().into())
    }
}

/// How many calls were made before in the same words.
fn repeats(notes: &Notes) -> usize {
    let calls = &notes.calls;
    calls.iter().enumerate().filter(|(place, call)| calls.iter().take(*place).any(|before| before == *call)).count()
}

fn single(values: Vec<String>) -> Option<String> {
    <[String; 1]>::try_from(values).ok().map(|[value]| value)
}

//! The attempts of a run, by question.

mod read;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use crate::attempts::{Attempt, Outcome};
use crate::stats::coverage::Outcomes;
use crate::stats::{Valued, mean_correct, pass_at_k, pass_hat_k};
use crate::votes::{self, Equivalence};

pub use read::{of_runs, read};

/// Characters of a value by which questions of a gated benchmark are told apart; a longer one is [`GATED`].
const GATED_VALUE_CHARS_MAX: usize = 40;
/// What stands for what is not shown of a gated benchmark.
pub(crate) const GATED: &str = "(gated)";

/// One question with the attempts at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Its id.
    pub qa_id: String,
    /// Its text, as asked.
    pub text: String,
    /// Whether its benchmark is gated: its text is not to be shown.
    pub restricted: bool,
    /// What its errors go together with: its source, or itself.
    pub cluster: String,
    /// The attempts, in their order; one for each number.
    pub attempts: Vec<Attempt>,
}

impl Question {
    /// Attempts right, wrong, and without a verdict.
    pub fn outcomes(&self) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for attempt in &self.attempts {
            match attempt.outcome.correct() {
                Some(true) => outcomes.correct += 1,
                Some(false) => outcomes.wrong += 1,
                None => outcomes.unknown += 1,
            }
        }
        outcomes
    }

    /// The share of the judged attempts that is correct. None where none is judged.
    pub fn mean(&self) -> Option<f64> {
        let outcomes = self.outcomes();
        mean_correct(outcomes.judged(), outcomes.correct)
    }

    /// Pass@k of the judged attempts; None with fewer than k.
    pub fn pass_at_k(&self, k: u64) -> Option<f64> {
        let outcomes = self.outcomes();
        pass_at_k(outcomes.judged(), outcomes.correct, k)
    }

    /// pass^k of the judged attempts; None with fewer than k.
    pub fn pass_hat_k(&self, k: u64) -> Option<f64> {
        let outcomes = self.outcomes();
        pass_hat_k(outcomes.judged(), outcomes.correct, k)
    }

    /// The majority vote of k of the judged attempts; None with fewer than k, or too many to average over.
    pub fn majority(&self, k: u64, judged: &dyn Equivalence) -> Option<f64> {
        let attempts: Vec<(Option<&str>, bool)> = self
            .attempts
            .iter()
            .filter_map(|attempt| Some((attempt.committed(), attempt.outcome.correct()?)))
            .collect();
        votes::majority(&self.qa_id, &attempts, k, judged).ok().flatten()
    }

    /// Its value of a breakdown: `type`, `language`, `method`, `hops`, or any attribute that is a text or a number. Of a gated
    /// benchmark a long text is not told: it may be what is gated.
    pub fn facet(&self, name: &str) -> Option<String> {
        let gated = |text: &String| self.restricted && text.chars().count() > GATED_VALUE_CHARS_MAX;
        self.value(name).map(|text| if gated(&text) { GATED.to_string() } else { text })
    }

    fn value(&self, name: &str) -> Option<String> {
        let first = self.attempts.first()?;
        let attribute = || match first.attributes.get(name)? {
            Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        match name {
            "type" => first.kind.clone(),
            "language" => first.language.clone(),
            "method" => first.method.clone(),
            "hops" => attribute().or_else(|| first.rewrites.map(|rewrites| rewrites.to_string())),
            _ => attribute(),
        }
    }
}

/// A run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// Its id; empty for attempts that name none.
    pub run_id: String,
    /// Its policies, sorted: usually one.
    pub policies: Vec<String>,
    /// Their models, sorted: of two checkpoints one.
    pub models: Vec<String>,
    /// The policy as the run was told it, such as `endpoint:qwen`; None where the run told nothing of itself.
    pub told_policy: Option<String>,
    /// Who judged its answers, sorted: usually one.
    pub judges: Vec<String>,
    /// The questions, by id.
    pub questions: Vec<Question>,
}

/// What a run of `eval` set out to do, as its event says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Plan {
    /// Attempts at each question, numbered from 0.
    pub attempts: u32,
    /// The questions.
    pub qa_ids: Vec<String>,
    /// The benchmark.
    pub benchmark: PlanBenchmark,
}

/// The benchmark of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PlanBenchmark {
    /// Its name.
    pub benchmark: String,
    /// Whether it is gated.
    pub restricted: bool,
}

impl Plan {
    /// The plan in the configuration of a run of kind `eval`; None where it has another form.
    pub fn of_config(config: &str) -> Option<Plan> {
        serde_json::from_str(config).ok()
    }
}

impl Run {
    /// The questions of a plan at which the run has no attempt.
    pub fn unattempted<'p>(&self, plan: &'p Plan) -> Vec<&'p str> {
        let known: HashSet<&str> = self.questions.iter().map(|question| question.qa_id.as_str()).collect();
        plan.qa_ids.iter().map(String::as_str).filter(|id| !known.contains(id)).collect()
    }

    /// Adds what the run set out to do and did not: as attempts whose outcome is missing, neither right nor wrong.
    /// `questions` are those that it has not attempted at all, as [`questions_sql`](crate::attempts::questions_sql) gives them.
    pub fn complete(&mut self, plan: &Plan, questions: Vec<Attempt>) {
        let planned: HashSet<&str> = plan.qa_ids.iter().map(String::as_str).collect();
        let known: HashSet<String> = self.questions.iter().map(|question| question.qa_id.clone()).collect();
        for mut told in questions {
            if planned.contains(told.qa_id.as_str()) && !known.contains(&told.qa_id) {
                told.run_id.clone_from(&self.run_id);
                told.restricted |= plan.benchmark.restricted;
                self.questions.extend(question(vec![told]));
            }
        }
        self.questions.sort_by(|a, b| a.qa_id.cmp(&b.qa_id));
        for question in self.questions.iter_mut().filter(|question| planned.contains(question.qa_id.as_str())) {
            question.fill(plan.attempts);
        }
    }
}

impl Question {
    /// Adds the attempts that are missing of so many, numbered from 0.
    fn fill(&mut self, attempts: u32) {
        let Some(like) = self.attempts.first().map(Attempt::missing) else { return };
        let made: HashSet<i64> = self.attempts.iter().map(|attempt| attempt.number).collect();
        let missing = (0..i64::from(attempts)).filter(|number| !made.contains(number));
        self.attempts.extend(missing.map(|number| Attempt { number, ..like.clone() }));
        self.attempts.sort_by_key(|attempt| attempt.number);
    }
}

impl Attempt {
    /// An attempt at the same question that was not made.
    fn missing(&self) -> Attempt {
        Attempt {
            trajectory_id: String::new(),
            policy: String::new(),
            model: String::new(),
            answer: None,
            termination: String::new(),
            outcome: Outcome::Missing,
            judge: None,
            overridden: false,
            attempted: None,
            confidence: None,
            input_tokens: None,
            output_tokens: None,
            wall_ms: None,
            tool_ms: None,
            calls: 0,
            calls_known: 0,
            calls_failed: 0,
            calls_invented: 0,
            calls_after_answer: None,
            ..self.clone()
        }
    }
}

/// Attributes that name what a question shares with others, the first that it has.
const CLUSTER: [&str; 3] = ["cluster", "root_url", "root_qa_id"];

/// The runs of these attempts, by id; what a run told of itself is not among them. Where a run made an attempt at a question
/// more than once, the last that was no outage counts.
pub fn runs(attempts: Vec<Attempt>) -> Vec<Run> {
    let mut runs: BTreeMap<String, BTreeMap<String, BTreeMap<i64, Attempt>>> = BTreeMap::new();
    for attempt in attempts {
        let questions = runs.entry(attempt.run_id.clone()).or_default();
        let numbers = questions.entry(attempt.qa_id.clone()).or_default();
        let held = numbers.get(&attempt.number).is_some_and(|held| held.outcome != Outcome::Outage);
        if !(held && attempt.outcome == Outcome::Outage) {
            numbers.insert(attempt.number, attempt);
        }
    }
    runs.into_iter()
        .map(|(run_id, questions)| {
            let questions: Vec<Question> =
                questions.into_values().filter_map(|attempts| question(attempts.into_values().collect())).collect();
            Run {
                run_id,
                policies: named(&questions, |attempt| Some(&attempt.policy)),
                models: named(&questions, |attempt| Some(&attempt.model)),
                told_policy: None,
                judges: named(&questions, |attempt| attempt.judge.as_ref()),
                questions,
            }
        })
        .collect()
}

fn question(attempts: Vec<Attempt>) -> Option<Question> {
    let first = attempts.first()?;
    let cluster = CLUSTER.iter().find_map(|name| match first.attributes.get(*name)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()).filter(|_| !other.is_null()),
    });
    Some(Question {
        qa_id: first.qa_id.clone(),
        text: first.question.clone(),
        restricted: attempts.iter().any(|a| a.restricted || a.attributes.get("restricted") == Some(&Value::Bool(true))),
        cluster: cluster.unwrap_or_else(|| first.qa_id.clone()),
        attempts,
    })
}

fn named(questions: &[Question], name: impl Fn(&Attempt) -> Option<&String>) -> Vec<String> {
    let attempts = questions.iter().flat_map(|question| &question.attempts);
    let mut names: Vec<String> = attempts.filter_map(|attempt| name(attempt).cloned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Values of questions with their clusters, numbered.
pub(crate) fn valued<'q>(values: impl Iterator<Item = (&'q Question, Option<f64>)>) -> Vec<Valued> {
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    values
        .filter_map(|(question, value)| {
            let next = numbers.len();
            Some(Valued { value: value?, cluster: *numbers.entry(&question.cluster).or_insert(next) })
        })
        .collect()
}

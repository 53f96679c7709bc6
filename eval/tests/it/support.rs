//! Attempts made by hand.

use serde_json::{Map, Value, json};
use webdancer_eval::attempts::{Attempt, Outcome};
use webdancer_eval::run::{Run, runs};

/// An attempt that answered, judged by `gaia v1`.
pub(crate) fn attempt(run: &str, question: &str, number: i64, outcome: Outcome) -> Attempt {
    Attempt {
        trajectory_id: format!("{run}/{question}/{number}"),
        run_id: run.to_string(),
        qa_id: question.to_string(),
        number,
        policy: format!("policy of {run}"),
        model: format!("model of {run}"),
        question: format!("What is {question}?"),
        method: Some("benchmark".to_string()),
        kind: None,
        language: None,
        rewrites: None,
        attributes: Map::new(),
        answer: Some("an answer".to_string()),
        termination: "answer".to_string(),
        outcome,
        judge: outcome.correct().map(|_| "gaia v1".to_string()),
        overridden: false,
        attempted: None,
        confidence: None,
        restricted: false,
        input_tokens: Some(1_000),
        output_tokens: Some(100),
        wall_ms: Some(2_000),
        tool_ms: Some(500),
        calls: 2,
        calls_known: 2,
        calls_failed: 0,
        calls_invented: 0,
        calls_after_answer: None,
    }
}

pub(crate) fn outcome(correct: bool) -> Outcome {
    if correct { Outcome::Correct } else { Outcome::Wrong }
}

/// One run of single attempts: question i is right if `right(i)`.
pub(crate) fn single(run: &str, questions: usize, right: impl Fn(usize) -> bool) -> Run {
    of((0..questions).map(|i| attempt(run, &format!("q{i:03}"), 0, outcome(right(i)))).collect())
}

/// The one run of these attempts.
pub(crate) fn of(attempts: Vec<Attempt>) -> Run {
    let mut all = runs(attempts);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

pub(crate) fn with(attempt: Attempt, attributes: Value) -> Attempt {
    let Value::Object(attributes) = attributes else { panic!("{}", json!(attributes)) };
    Attempt { attributes, ..attempt }
}

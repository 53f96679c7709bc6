//! Whether an answer is correct.
//!
//! A verdict is pass, fail or error. An error says that the judge failed, not the answer: it is counted, may be judged
//! again, and never becomes a fail.

use async_trait::async_trait;

/// Something that judges answers.
#[async_trait]
pub trait Judge: Send + Sync + std::fmt::Debug {
    /// The judge's name, as it stands in `judge`: `exact`, `normalised`, `gaia`, or the model's.
    fn name(&self) -> &str;

    /// Version of its rules and prompt.
    fn rule_version(&self) -> i32;

    /// Judges one answer. Retries what may pass.
    async fn judge(&self, case: &Case<'_>) -> Decision;
}

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Case<'a> {
    /// The question.
    pub question: &'a str,
    /// The gold answer.
    pub gold: &'a str,
    /// The answer given. No answer is judged without asking anybody: it fails.
    pub answer: &'a str,
}

/// What a judge decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// The confidence that the judged answer states, 0 to 1, where the judge extracts it.
    pub confidence: Option<f64>,
    /// Why.
    pub rationale: String,
}

/// A verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Correct.
    Pass,
    /// Wrong.
    Fail,
    /// The judge failed.
    Error,
}

impl Verdict {
    /// The word in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Error => "error",
        }
    }
}

//! Whether an answer is correct.
//!
//! A verdict is pass, fail or error. An error says that the judge failed, not the answer: it is counted, may be judged
//! again, and never becomes a fail.
//!
//! | judge | is |
//! |---|---|
//! | [`Exact`] | equality, white space at the ends aside |
//! | [`Normalised`] | equality of [normal forms](normalise) |
//! | [`Gaia`] | GAIA's quasi-exact match |
//! | [`ModelJudge`] | a chat model, asked in one of four [styles](Style) |
//!
//! [`CachedJudge`] puts a memory before any of them: what was judged before is not asked again.

mod cache;
mod gaia;
mod matching;
mod model;
mod prompts;
pub mod reply;

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

pub use cache::{CacheCounts, CachedJudge, PastJudgment};
pub use gaia::{Gaia, gaia_match};
pub use matching::{Exact, Normalised, by_name};
pub use model::{ModelJudge, ModelJudgeOptions, ask};
pub use prompts::Style;
pub use webdancer_schemas::answer::normalise;

/// Something that judges answers.
#[async_trait]
pub trait Judge: Send + Sync + std::fmt::Debug {
    /// The judge's name, as it stands in `judge`: `exact`, `normalised`, `gaia`, or the model's.
    fn name(&self) -> &str;

    /// Version of its rules and prompt. Judges of one name and version decide alike.
    fn rule_version(&self) -> i32;

    /// Judges one answer. Retries what may pass.
    async fn judge(&self, case: &Case<'_>) -> Decision;

    /// Judges one answer by the case's gold answer and by `others`, any of which will do: correct by the first that says
    /// so; an error where none does and the judge failed on one.
    async fn judge_by_any(&self, case: &Case<'_>, others: &[String]) -> Decision {
        by_any(self, case, others).await
    }
}

/// Each gold answer in turn, until the answer is correct by one.
async fn by_any<J: Judge + ?Sized>(judge: &J, case: &Case<'_>, others: &[String]) -> Decision {
    let mut decided = judge.judge(case).await;
    for gold in others {
        if decided.verdict == Verdict::Pass {
            break;
        }
        let next = judge.judge(&Case { gold, ..*case }).await;
        if next.verdict == Verdict::Pass || decided.verdict == Verdict::Fail {
            decided = next;
        }
    }
    decided
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

impl Case<'_> {
    /// What is known without a judge: a blank answer fails.
    pub fn settled(&self) -> Option<Decision> {
        self.answer.trim().is_empty().then(|| Decision { attempted: false, ..Decision::fail("there is no answer") })
    }

    /// The case's identity: judgments of equal cases by one judge and prompt are interchangeable.
    pub fn id(&self) -> CaseId {
        self.id_with(&[])
    }

    /// The identity of the case with further gold answers, in their order. Without any it is the case's own.
    pub fn id_with(&self, others: &[String]) -> CaseId {
        let mut hash = Sha256::new();
        for part in [self.question, self.gold, self.answer].into_iter().chain(others.iter().map(String::as_str)) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut id = [0; 16];
        id.iter_mut().zip(hash.finalize()).for_each(|(byte, hashed)| *byte = hashed);
        CaseId(id)
    }
}

/// The first 128 bits of the SHA-256 of question, gold answer, answer and further gold answers; 32 hexadecimal digits as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaseId([u8; 16]);

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for CaseId {
    type Err = InvalidCaseId;

    fn from_str(text: &str) -> Result<CaseId, InvalidCaseId> {
        let invalid = || InvalidCaseId { given: crate::format::clip(text, 40).into_owned() };
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        u128::from_str_radix(text, 16).map(|id| CaseId(id.to_be_bytes())).map_err(|_| invalid())
    }
}

/// Text that is no case's identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no case id: 32 hexadecimal digits")]
pub struct InvalidCaseId {
    /// What was given, clipped.
    pub given: String,
}

/// What a judge decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Whether an answer was given at all, as far as the judge can tell. SimpleQA counts those not attempted apart.
    pub attempted: bool,
    /// The final answer as the judge extracted it.
    pub extracted: Option<String>,
    /// The confidence that the judged answer states, 0 to 1, where the judge extracts it.
    pub confidence: Option<f64>,
    /// Why.
    pub rationale: String,
}

impl Decision {
    /// The answer is correct.
    pub fn pass(rationale: impl Into<String>) -> Decision {
        Decision::of(Verdict::Pass, rationale)
    }

    /// The answer is wrong.
    pub fn fail(rationale: impl Into<String>) -> Decision {
        Decision::of(Verdict::Fail, rationale)
    }

    /// The judge failed.
    pub fn error(rationale: impl Into<String>) -> Decision {
        Decision::of(Verdict::Error, rationale)
    }

    fn of(verdict: Verdict, rationale: impl Into<String>) -> Decision {
        Decision { verdict, attempted: true, extracted: None, confidence: None, rationale: rationale.into() }
    }
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

    /// The verdict of a word in an event.
    pub fn from_word(word: &str) -> Option<Verdict> {
        [Verdict::Pass, Verdict::Fail, Verdict::Error].into_iter().find(|verdict| verdict.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_known_by_every_part_and_where_each_ends() {
        let case = Case { question: "q", gold: "g", answer: "a" };
        assert_eq!(case.id(), Case { ..case }.id());
        for other in [
            Case { question: "Q", ..case },
            Case { gold: "G", ..case },
            Case { answer: "A", ..case },
            Case { question: "qg", gold: "", answer: "a" },
            Case { question: "q", gold: "a", answer: "g" },
        ] {
            assert_ne!(case.id(), other.id(), "{other:?}");
        }
        let with = |golds: &[&str]| case.id_with(&golds.iter().map(|gold| gold.to_string()).collect::<Vec<_>>());
        assert_eq!(with(&[]), case.id());
        let ids = [with(&[]), with(&["h"]), with(&["h", "i"]), with(&["i", "h"]), with(&["hi"])];
        let distinct: std::collections::HashSet<CaseId> = ids.into_iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn a_case_id_is_read_back_from_its_digits_and_nothing_else() {
        let id = Case { question: "q", gold: "g", answer: "a" }.id();
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "0", "+0000000000000000000000000000000", "zz000000000000000000000000000000"] {
            assert!(text.parse::<CaseId>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_blank_answer_is_settled_without_a_judge() {
        let case = |answer| Case { question: "q", gold: "g", answer };
        let settled = case(" \n\t").settled().unwrap_or_else(|| Decision::pass(""));
        assert_eq!((settled.verdict, settled.attempted), (Verdict::Fail, false));
        assert_eq!(case(".").settled(), None);
    }
}

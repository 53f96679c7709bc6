//! Stages, why they reject, and what they judge by.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A stage of the funnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Is all that the agent wrote in the format?
    Validity,
    /// Is the answer correct?
    Correctness,
    /// Is it worth learning from?
    Quality,
}

impl Stage {
    /// The stages in their order.
    pub const ALL: [Stage; 3] = [Stage::Validity, Stage::Correctness, Stage::Quality];

    /// The name in events.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Validity => "validity",
            Stage::Correctness => "correctness",
            Stage::Quality => "quality",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $reason:ident, $name:literal;)*) => {
        /// Why a trajectory did not pass a stage: `reason` in a judgment's criteria.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $reason,)*
        }

        impl Reason {
            /// Every reason, in the order in which they are looked for.
            pub const ALL: &'static [Reason] = &[$(Reason::$reason,)*];

            /// The name in events.
            pub fn name(self) -> &'static str {
                match self { $(Reason::$reason => $name,)* }
            }
        }
    };
}

reasons! {
    /// The attempt ended by a failure of the model's endpoint, a tool or the engine.
    AttemptFailed, "attempt_failed";
    /// The agent used up its calls, tokens or time.
    OutOfBudget, "out_of_budget";
    /// There is no turn.
    NoTurns, "no_turns";
    /// The lists of the row's turns differ in length.
    UnequalLists, "unequal_lists";
    /// A turn is not a thought and one action.
    NotInFormat, "not_in_format";
    /// The arguments of a call are no JSON object.
    BadArguments, "bad_arguments";
    /// A turn before the last answers.
    EarlyAnswer, "early_answer";
    /// A call got no observation, and another turn follows.
    NoObservation, "no_observation";
    /// The trajectory ended without an answer.
    NoAnswer, "no_answer";
    /// The judge says that the answer is wrong.
    WrongAnswer, "wrong_answer";
    /// The answer was forced by the engine at the end of the context.
    ForcedAnswer, "forced_answer";
    /// A tool was called that does not exist.
    UnknownTool, "unknown_tool";
    /// The agent wrote an observation itself. Behind an action that is out of format, which validity sees; within a
    /// thought or an answer quality does.
    SimulatedObservation, "simulated_observation";
    /// There are fewer actions than asked for.
    TooFewActions, "too_few_actions";
    /// An n-gram occurs more often than allowed.
    Repetition, "repetition";
    /// The critic: it gathers the same information again.
    Redundant, "redundant";
    /// The critic: it strays from the question.
    OffGoal, "off_goal";
    /// The critic: its reasoning is illogical, or not borne out by what it saw.
    PoorReasoning, "poor_reasoning";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name, in a judgment's criteria, of what is no rejection: the judge or the critic failed.
pub(super) const JUDGE_FAILED: &str = "judge_failed";

/// What a stage judges by, and the rule version that stands for it.
#[derive(Debug, Clone, PartialEq)]
pub struct StageRules {
    /// The stage.
    pub stage: Stage,
    /// The version of its judgments. Whoever records which digest has which version assigns it; 0 until then.
    pub version: i32,
    /// Rules' version, parameters, judge and prompt.
    pub rules: Value,
    /// The first 16 hexadecimal digits of the SHA-256 of the rules.
    pub digest: String,
}

impl StageRules {
    pub(super) fn new(stage: Stage, rules: Value) -> StageRules {
        let rules = json!({"stage": stage.name(), "rules": rules});
        let digest = digest(&rules);
        StageRules { stage, version: 0, rules, digest }
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of a JSON value's text. Members keep the order of declaration, so that
/// one value has one text.
pub(super) fn digest(value: &Value) -> String {
    text_digest(&value.to_string())
}

/// The first 16 hexadecimal digits of the SHA-256 of a text.
pub(super) fn text_digest(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_reason_has_a_name_of_its_own() {
        let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.name()).chain([JUDGE_FAILED]).collect();
        assert_eq!(names.len(), Reason::ALL.len() + 1);
    }

    #[test]
    fn rules_have_one_digest_while_they_stay_the_same() {
        let rules = |value| StageRules::new(Stage::Quality, value);
        assert_eq!(rules(json!({"a": 1})).digest, rules(json!({"a": 1})).digest);
        assert_ne!(rules(json!({"a": 1})).digest, rules(json!({"a": 2})).digest);
        assert_ne!(rules(json!({})).digest, StageRules::new(Stage::Validity, json!({})).digest);
        assert_eq!(rules(json!({})).digest.len(), 16);
    }
}

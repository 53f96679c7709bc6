//! Why trajectories end.

use serde::{Deserialize, Serialize};

/// Why a trajectory ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Termination {
    /// The policy answered.
    Answer,
    /// It answered when it was asked to, since calls or context were spent.
    Forced,
    /// Its model calls were spent, and it gave no answer.
    Calls,
    /// Its context was full or its tokens were spent, and it gave no answer.
    Tokens,
    /// Its time was spent.
    Time,
    /// Too many of its turns were out of format.
    Malformed,
    /// The model or a tool failed. Never the policy's fault: it counts neither as right nor as wrong.
    Error,
}

impl Termination {
    /// All.
    pub const ALL: [Termination; 7] = [
        Termination::Answer,
        Termination::Forced,
        Termination::Calls,
        Termination::Tokens,
        Termination::Time,
        Termination::Malformed,
        Termination::Error,
    ];

    /// The word in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Termination::Answer => "answer",
            Termination::Forced => "forced",
            Termination::Calls => "calls",
            Termination::Tokens => "tokens",
            Termination::Time => "time",
            Termination::Malformed => "malformed",
            Termination::Error => "error",
        }
    }

    /// The reason of this word.
    pub fn from_word(word: &str) -> Option<Termination> {
        Termination::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_its_word() {
        for reason in Termination::ALL {
            assert_eq!(Termination::from_word(reason.as_str()), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert_eq!(Termination::from_word("gave_up"), None);
    }
}

//! What questions have in common, whoever writes them: types, and what makes one fit to be asked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::atlas::{fold, words as runs};
use crate::funnel::is_unspaced;

/// Types of questions: those the paper names (section 2.1), Mintaka's, and look-ups of one fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuestionType {
    /// How many there are.
    Count,
    /// One fact leads to the next.
    MultiHop,
    /// What two descriptions have in common.
    Intersection,
    /// Which of two has more of something.
    Comparative,
    /// Which of many has most of something.
    Superlative,
    /// Which of many is second, third, …
    Ordinal,
    /// By how much two differ.
    Difference,
    /// Whether something is so.
    YesNo,
    /// One fact.
    Generic,
}

impl QuestionType {
    /// Every type.
    pub const ALL: [QuestionType; 9] = [
        QuestionType::Count,
        QuestionType::MultiHop,
        QuestionType::Intersection,
        QuestionType::Comparative,
        QuestionType::Superlative,
        QuestionType::Ordinal,
        QuestionType::Difference,
        QuestionType::YesNo,
        QuestionType::Generic,
    ];

    /// The word in events and settings, such as `multi-hop`.
    pub fn as_str(self) -> &'static str {
        match self {
            QuestionType::Count => "count",
            QuestionType::MultiHop => "multi-hop",
            QuestionType::Intersection => "intersection",
            QuestionType::Comparative => "comparative",
            QuestionType::Superlative => "superlative",
            QuestionType::Ordinal => "ordinal",
            QuestionType::Difference => "difference",
            QuestionType::YesNo => "yes-no",
            QuestionType::Generic => "generic",
        }
    }
}

impl fmt::Display for QuestionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no type of questions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no type of questions; those are count, multi-hop, intersection, comparative, superlative, ordinal, difference, yes-no and generic"
)]
pub struct UnknownType(String);

impl FromStr for QuestionType {
    type Err = UnknownType;

    fn from_str(word: &str) -> Result<QuestionType, UnknownType> {
        QuestionType::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| UnknownType(word.to_string()))
    }
}

/// The words of a text: lower case, letters without their marks, nothing but letters and digits. In scripts without
/// spaces each character is one.
pub fn words(text: &str) -> Vec<String> {
    let folded = fold(text);
    let parts = runs(&folded).flat_map(|run| run.split_inclusive(is_unspaced));
    // A part ends with the character that it was split at, if there is one.
    let split = parts.flat_map(|part| match part.char_indices().next_back().filter(|(_, last)| is_unspaced(*last)) {
        Some((start, _)) => <[&str; 2]>::from(part.split_at(start)),
        None => [part, ""],
    });
    split.filter(|word| !word.is_empty()).map(str::to_string).collect()
}

/// The text as its [words](words()), one space between two: equal for texts that differ in case, marks, punctuation
/// and white space only.
pub fn normalised(text: &str) -> String {
    words(text).join(" ")
}

/// Whether the question holds the answer: all its words, in a row. Yes and no are in no question as answers.
pub fn leaks(question: &str, answer: &str) -> bool {
    let (question, answer) = (words(question), words(answer));
    if answer == ["yes"] || answer == ["no"] {
        return false;
    }
    answer.is_empty() || question.windows(answer.len()).any(|window| window == answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_the_whole_answer_in_a_row() {
        assert!(leaks("What is the capital of São Tomé and Príncipe?", "sao tome"));
        assert!(leaks("Which country has the capital City of San Marino?", "San Marino"));
        assert!(!leaks("What is the capital of Guatemala?", "Guatemala City"));
        assert!(!leaks("How many of the 12 border Iran?", "2"));
        assert!(!leaks("Are there no borders?", "no"));
        assert!(leaks("Anything?", "?"));
    }

    #[test]
    fn characters_of_scripts_without_spaces_are_words() {
        assert_eq!(words("长沙市有ABC大学？ Köln"), ["长", "沙", "市", "有", "abc", "大", "学", "koln"]);
        assert!(leaks("哪所大学位于湖南省长沙市？", "长沙市"));
        assert!(!leaks("哪所大学位于湖南省？", "长沙市"));
    }

    #[test]
    fn types_are_read_back_from_their_words() {
        for kind in QuestionType::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert!("riddle".parse::<QuestionType>().unwrap_err().to_string().starts_with("\"riddle\" is no type"));
    }
}

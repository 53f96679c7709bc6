//! What the funnel can be told: every threshold, with its default.

use serde::{Deserialize, Serialize};
use webdancer_agent::reward::OBSERVATION_MARKS;
use webdancer_agent::tool::Tools;

use super::critic::CriticParameters;

/// The thresholds of the funnel. A change of any makes a new rule version of its stage.
///
/// Validity has none: the format is obeyed or it is not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FunnelParameters {
    /// Quality, by rules.
    pub quality: QualityParameters,
    /// Quality, by a model.
    pub critic: CriticParameters,
}

/// Thresholds of the quality rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualityParameters {
    /// The tools that exist: a call of another is a hallucination. Default those of the registry, search
    /// and visit (paper).
    pub tools: Vec<String>,
    /// What marks an observation. An agent that writes one of these itself made the observation up. Default the tags.
    pub observation_marks: Vec<String>,
    /// Words of an n-gram. Default 10 (paper). Words are what white space parts; in scripts without spaces, such as
    /// Chinese, every character is a word. What the agent wrote counts: thoughts, arguments, the answer.
    pub ngram_words: usize,
    /// How often the most frequent n-gram may occur. Default 4 (paper).
    pub ngram_count_max: u32,
    /// Actions at least, the answer among them. Default 2 (our reading of the paper).
    pub actions_min: u32,
    /// Whether an answer that the engine forced is good enough to learn from. Default false.
    pub forced_answers: bool,
}

impl Default for QualityParameters {
    fn default() -> QualityParameters {
        QualityParameters {
            tools: Tools::standard().names(),
            observation_marks: OBSERVATION_MARKS.map(str::to_string).to_vec(),
            ngram_words: 10,
            ngram_count_max: 4,
            actions_min: 2,
            forced_answers: false,
        }
    }
}

impl FunnelParameters {
    /// What is wrong with them, if anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let quality = &self.quality;
        if quality.ngram_words == 0 || quality.ngram_words > 1_000 {
            return Some("quality.ngram_words must be from 1 to 1,000");
        }
        if quality.tools.is_empty() || quality.tools.iter().any(String::is_empty) {
            return Some("quality.tools must name at least one tool, and no empty one");
        }
        if quality.observation_marks.iter().any(String::is_empty) {
            return Some("quality.observation_marks must not hold an empty mark: it would be found everywhere");
        }
        if self.critic.criteria.is_empty() {
            return Some("critic.criteria must name at least one criterion");
        }
        None
    }
}

/// How the funnel works, without bearing on any verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunnelLimits {
    /// Cases that are judged by models at once. Default 16.
    pub concurrency: usize,
    /// Errors of a judge in a row after which no more is asked: an outage, or a budget that is spent. Default 20.
    pub errors_in_a_row_max: u32,
    /// Threads for the rules. Default: the processors.
    pub threads: usize,
}

impl Default for FunnelLimits {
    fn default() -> FunnelLimits {
        FunnelLimits {
            concurrency: 16,
            errors_in_a_row_max: 20,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

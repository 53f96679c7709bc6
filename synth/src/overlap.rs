//! Questions that are too much alike: near-duplicates, and questions of benchmarks.
//!
//! Both compare runs of words (n-grams) of the [normalised](crate::question::normalised) text, exactly, by an index of
//! every run: no sketch, no chance.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};

use crate::question::words;

/// Words of the runs that near-duplicates are told by.
const DUPLICATE_WORDS: usize = 3;

/// Finds questions that are nearly one seen before.
#[derive(Debug)]
pub struct NearDuplicates {
    similarity_min: f64,
    /// By run: the texts that have it.
    holders: HashMap<u64, Vec<usize>>,
    /// By text: how many runs it has.
    sizes: Vec<usize>,
}

impl NearDuplicates {
    /// Nothing seen yet. Two texts are near-duplicates from this Jaccard similarity of their runs of three words on.
    pub fn new(similarity_min: f64) -> NearDuplicates {
        NearDuplicates { similarity_min, holders: HashMap::new(), sizes: Vec::new() }
    }

    /// Remembers the text, unless it is nearly one seen before; whether it was new.
    pub fn insert(&mut self, text: &str) -> bool {
        let runs: HashSet<u64> = runs(&words(text), DUPLICATE_WORDS);
        let mut shared: HashMap<usize, usize> = HashMap::new();
        for holder in runs.iter().filter_map(|run| self.holders.get(run)).flatten() {
            *shared.entry(*holder).or_default() += 1;
        }
        let alike = |(holder, shared): (usize, usize)| {
            let union = self.sizes.get(holder).copied().unwrap_or_default() + runs.len() - shared;
            shared as f64 >= self.similarity_min * union as f64
        };
        if shared.into_iter().any(alike) {
            return false;
        }
        let text = self.sizes.len();
        self.sizes.push(runs.len());
        runs.into_iter().for_each(|run| self.holders.entry(run).or_default().push(text));
        true
    }
}

/// Questions that must not be trained on.
#[derive(Debug)]
pub struct Benchmarks {
    run_words: usize,
    texts: HashSet<Vec<String>>,
    runs: HashSet<u64>,
}

impl Benchmarks {
    /// The questions of benchmarks, one each. `run_words` is the length of a run of words that no other question may
    /// share with one of them.
    pub fn new(questions: impl IntoIterator<Item = impl AsRef<str>>, run_words: usize) -> Benchmarks {
        let mut benchmarks = Benchmarks { run_words: run_words.max(1), texts: HashSet::new(), runs: HashSet::new() };
        for question in questions {
            let words = words(question.as_ref());
            if words.len() >= benchmarks.run_words {
                benchmarks.runs.extend(runs(&words, benchmarks.run_words));
            }
            benchmarks.texts.insert(words);
        }
        benchmarks
    }

    /// Whether a question is one of them but for case, marks and punctuation, or shares a run of words with one.
    pub fn holds(&self, question: &str) -> bool {
        let words = words(question);
        let long = words.len() >= self.run_words;
        self.texts.contains(&words) || (long && runs(&words, self.run_words).iter().any(|run| self.runs.contains(run)))
    }
}

/// Digests of all runs of `length` words; of a text that is shorter, of the whole text.
fn runs(words: &[String], length: usize) -> HashSet<u64> {
    words.windows(length.min(words.len()).max(1)).map(digest).collect()
}

fn digest(run: &[String]) -> u64 {
    // Its keys are fixed: the same run has the same digest in every process.
    let mut hasher = DefaultHasher::new();
    run.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_duplicates_are_found_whatever_their_case_and_punctuation() {
        let mut seen = NearDuplicates::new(0.7);
        assert!(seen.insert("Which river flows through the city where the treaty of 1713 was signed?"));
        assert!(!seen.insert("which river flows through the city, where the Treaty of 1713 was signed"));
        assert!(seen.insert("Which river flows through the city where the treaty of 1714 was signed?"));
        assert!(seen.insert("Which mountain rises above the city where the treaty of 1648 was signed?"));
        assert!(seen.insert("Who?"));
        assert!(!seen.insert("who"));
        assert!(seen.insert(""));
    }

    #[test]
    fn benchmark_questions_are_found_whole_and_in_parts() {
        let benchmarks = Benchmarks::new(
            ["Who wrote it?", "In which year did the expedition that mapped the northern coast return to its port?"],
            8,
        );
        assert!(benchmarks.holds("who wrote IT"));
        assert!(!benchmarks.holds("Who wrote it first?"));
        assert!(benchmarks.holds("Who led the expedition that mapped the northern coast return to its origin?"));
        assert!(!benchmarks.holds("Who led the expedition that mapped the southern coast?"));
        assert!(!Benchmarks::new([] as [&str; 0], 8).holds("Who?"));
    }
}

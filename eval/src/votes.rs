//! Which answers are the same, for a vote.
//!
//! Answers are one cluster if they are the same [for a vote](vote_key), which is the rule of SQL's `maj_at_k`, too, or if a
//! judge holds them for equivalent. The gold answer takes no part in it: a vote must not know which answer is right.

mod judged;

use std::collections::HashMap;

pub use judged::{JudgedVotes, Known, VoteTally, judged, settle, sql};
use webdancer_schemas::answer::vote_key;

use crate::stats::{Cluster, maj_at_k};

/// A judge's memory of which answers to a question are the same; both are given as they were answered.
pub trait Equivalence {
    /// Whether the two answers to the question of this id are known to be the same.
    fn same(&self, qa_id: &str, first: &str, second: &str) -> bool;
}

/// Knows of none.
#[derive(Debug, Clone, Copy, Default)]
pub struct RulesAlone;

impl Equivalence for RulesAlone {
    fn same(&self, _: &str, _: &str, _: &str) -> bool {
        false
    }
}

/// The cluster of each answer, numbered in the order in which they first occur; None for those that abstain: no answer, or
/// a blank one.
///
/// A judge is asked about the first answer of each cluster only ([`settle`]). Where it holds an answer for the same as two
/// clusters, they become one.
pub fn clusters(qa_id: &str, answers: &[Option<&str>], judged: &dyn Equivalence) -> Vec<Option<usize>> {
    let (by_rules, firsts) = by_rules(answers);
    let joined = join(qa_id, &firsts, judged);
    by_rules.into_iter().map(|cluster| joined.get(cluster?).copied()).collect()
}

/// The cluster of each answer by rules alone, and the first answer of each cluster.
fn by_rules<'a>(answers: &[Option<&'a str>]) -> (Vec<Option<usize>>, Vec<&'a str>) {
    let mut forms: HashMap<String, usize> = HashMap::new();
    let mut firsts: Vec<&str> = Vec::new();
    let numbers = answers
        .iter()
        .map(|answer| {
            let answer = (*answer)?;
            Some(*forms.entry(vote_key(answer)?).or_insert_with(|| {
                firsts.push(answer);
                firsts.len() - 1
            }))
        })
        .collect();
    (numbers, firsts)
}

/// The number that each cluster has once those that a judge holds for the same are one.
fn join(qa_id: &str, firsts: &[&str], judged: &dyn Equivalence) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..firsts.len()).collect();
    for (later, second) in firsts.iter().enumerate() {
        for (earlier, first) in firsts.iter().enumerate().take(later) {
            let (Some(from), Some(to)) = (numbers.get(later).copied(), numbers.get(earlier).copied()) else { continue };
            if from != to && judged.same(qa_id, first, second) {
                let (low, high) = (from.min(to), from.max(to));
                numbers.iter_mut().filter(|number| **number == high).for_each(|number| *number = low);
            }
        }
    }
    // Without gaps, in the order of first occurrence.
    let mut left: Vec<usize> = numbers.clone();
    left.sort_unstable();
    left.dedup();
    numbers.iter().map(|number| left.binary_search(number).unwrap_or(0)).collect()
}

/// The majority vote of k attempts at one question: answers and whether each is correct.
///
/// # Errors
/// As [`maj_at_k`]: more attempts than can be averaged over exactly.
pub fn majority(
    qa_id: &str,
    attempts: &[(Option<&str>, bool)],
    k: u64,
    judged: &dyn Equivalence,
) -> Result<Option<f64>, String> {
    let answers: Vec<Option<&str>> = attempts.iter().map(|(answer, _)| *answer).collect();
    let mut votes: Vec<Cluster> = Vec::new();
    let mut abstentions = 0;
    for (cluster, (_, correct)) in clusters(qa_id, &answers, judged).into_iter().zip(attempts) {
        let Some(cluster) = cluster else {
            abstentions += 1;
            continue;
        };
        if votes.len() <= cluster {
            votes.resize_with(cluster + 1, Cluster::default);
        }
        if let Some(votes) = votes.get_mut(cluster) {
            votes.votes += 1;
            votes.correct += u64::from(*correct);
        }
    }
    maj_at_k(&votes, abstentions, k)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Pairs(&'static [(&'static str, &'static str)]);

    impl Equivalence for Pairs {
        fn same(&self, _: &str, first: &str, second: &str) -> bool {
            self.0.iter().any(|(a, b)| (*a, *b) == (first, second) || (*b, *a) == (first, second))
        }
    }

    fn of(answers: &[&str], judged: &dyn Equivalence) -> Vec<Option<usize>> {
        clusters("q", &answers.iter().map(|answer| Some(*answer)).collect::<Vec<_>>(), judged)
    }

    #[test]
    fn wording_and_spelling_of_numbers_do_not_part_answers() {
        let same = [
            ("The Derby", "derby"),
            ("1,000", "1000"),
            ("1000.0", "1 000"),
            ("$ 5", "5.00"),
            ("50%", "50"),
            ("-0", "0"),
            ("“Dune”", "dune."),
            ("?!", " ?! "),
        ];
        for (a, b) in same {
            assert_eq!(of(&[a, b], &RulesAlone), [Some(0), Some(0)], "{a:?} and {b:?}");
        }
        for (a, b) in [
            ("1, 2", "12"),
            ("2 3", "23"),
            ("12 apples", "12"),
            ("5", "-5"),
            ("3.5", "35"),
            ("inf", "infinity"),
            ("?!", "!"),
        ] {
            assert_eq!(of(&[a, b], &RulesAlone), [Some(0), Some(1)], "{a:?} and {b:?}");
        }
    }

    #[test]
    fn blank_answers_abstain() {
        assert_eq!(
            clusters("q", &[None, Some(" \n"), Some("x"), Some("X")], &RulesAlone),
            [None, None, Some(0), Some(0)]
        );
    }

    #[test]
    fn a_judge_joins_clusters_and_what_it_joins_stays_joined() {
        let judged = Pairs(&[("NYC", "New York"), ("New York", "the big apple")]);
        let answers = ["NYC", "Boston", "the big apple", "new york", "New York", "nyc"];
        // `new york` is the first of its cluster, and the judge knows another spelling: the clusters stay apart.
        assert_eq!(of(&answers, &judged), [0, 1, 2, 3, 3, 0].map(Some));
        let answers = ["NYC", "Boston", "the big apple", "New York", "new york"];
        assert_eq!(of(&answers, &judged), [0, 1, 0, 0, 0].map(Some));
    }

    #[test]
    fn the_vote_counts_clusters_and_not_spellings() {
        let attempts = [(Some("1,000"), true), (Some("1000"), true), (Some("999"), false), (None, false)];
        assert_eq!(majority("q", &attempts, 4, &RulesAlone), Ok(Some(1.0)));
        let spelled_apart = [(Some("a b"), true), (Some("ab"), true), (Some("c"), false), (Some("c"), false)];
        assert_eq!(majority("q", &spelled_apart, 4, &RulesAlone), Ok(Some(0.0)));
        assert_eq!(majority("q", &[(None, false); 3], 3, &RulesAlone), Ok(Some(0.0)));
        assert_eq!(majority("q", &attempts, 5, &RulesAlone), Ok(None));
    }

    proptest! {
        #[test]
        fn any_answers_have_clusters_numbered_without_gaps(answers in prop::collection::vec(any::<String>(), 0..8)) {
            let answers: Vec<Option<&str>> = answers.iter().map(|answer| Some(answer.as_str())).collect();
            let mut seen = 0;
            for cluster in clusters("q", &answers, &RulesAlone).into_iter().flatten() {
                prop_assert!(cluster <= seen);
                seen = seen.max(cluster + 1);
            }
        }
    }
}

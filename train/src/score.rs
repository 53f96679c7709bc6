//! What attempts at questions come to.

use serde::{Deserialize, Serialize};

/// The attempts at a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionScore {
    /// The question.
    pub qa_id: String,
    /// What questions that stand or fall together have in common: the entity that the root question asks about, or else
    /// the root question.
    pub cluster: String,
    /// Attempts whose answer could be judged.
    pub judged: u32,
    /// Those of them that are correct.
    pub correct: u32,
}

/// Pass@k of a question with `correct` of `attempts` correct: the unbiased estimator 1 − C(n − c, k) / C(n, k), as a product.
/// None where there are fewer than k attempts.
pub fn pass_at_k(attempts: u32, correct: u32, k: u32) -> Option<f64> {
    if k == 0 || attempts < k || correct > attempts {
        return None;
    }
    let wrong = attempts - correct;
    let all_wrong: f64 =
        (0..k).map(|drawn| f64::from(wrong.saturating_sub(drawn)) / f64::from(attempts - drawn)).product();
    Some(1.0 - all_wrong)
}

/// The mean of Pass@k over the questions that have k judged attempts; None where none has.
pub fn mean_pass_at_k(questions: &[QuestionScore], k: u32) -> Option<f64> {
    let values: Vec<f64> = questions.iter().filter_map(|of| pass_at_k(of.judged, of.correct, k)).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_is_the_share_of_draws_of_k_that_hold_a_correct_one() {
        for (attempts, correct, k, expected) in [
            (3, 0, 1, Some(0.0)),
            (3, 1, 1, Some(1.0 / 3.0)),
            (3, 1, 3, Some(1.0)),
            (3, 3, 2, Some(1.0)),
            // Of the ten pairs of five, three hold no correct one.
            (5, 2, 2, Some(0.7)),
            (2, 1, 3, None),
            (2, 1, 0, None),
        ] {
            let found = pass_at_k(attempts, correct, k);
            let close = |(found, expected): (f64, f64)| (found - expected).abs() < 1e-12;
            assert!(found.is_some() == expected.is_some() && found.zip(expected).is_none_or(close), "{found:?}");
        }
    }

    #[test]
    fn questions_with_too_few_judged_attempts_are_left_out_of_the_mean() {
        let of = |judged, correct| QuestionScore { qa_id: String::new(), cluster: String::new(), judged, correct };
        let questions = [of(3, 3), of(3, 0), of(1, 1)];
        assert_eq!(mean_pass_at_k(&questions, 3), Some(0.5));
        assert_eq!(mean_pass_at_k(&questions, 1), Some(2.0 / 3.0));
        assert_eq!(mean_pass_at_k(&questions[2..], 3), None);
    }
}

//! Two runs over the same questions.

use serde_json::json;
use webdancer_eval::attempts::{Attempt, Outcome};
use webdancer_eval::compare::{CompareError, LeftOut, compare};
use webdancer_eval::report::Options;
use webdancer_eval::run::{Plan, Run};
use webdancer_eval::stats::paired::mcnemar_exact;

use crate::support::{attempt, of, outcome, single, with};

#[test]
fn fixed_and_broken_questions_and_both_tests() {
    // Of 60: 0–29 right in both, 30–41 only in the second, 42–44 only in the first.
    let before = single("before", 60, |i| i < 30 || (42..45).contains(&i));
    let after = single("after", 60, |i| i < 42);
    let comparison = compare(&before, &after, &Options::default()).unwrap();
    assert!((comparison.difference.value - 9.0 / 60.0).abs() < 1e-12);
    assert_eq!((comparison.fixed.len(), comparison.broken.len()), (12, 3));
    assert_eq!(comparison.mcnemar_p, Some(mcnemar_exact(12, 3)));
    assert_eq!(
        (comparison.broken[0].qa_id.as_str(), comparison.broken[0].before, comparison.broken[0].after),
        ("q042", 1.0, 0.0)
    );
    assert_eq!(comparison.broken[0].trajectories_after, ["after/q042/0"]);
    let ends = comparison.difference.interval.unwrap();
    assert!(ends.low > 0.0 && comparison.difference.p_value.unwrap() < 0.05, "{comparison:?}");
    // s² of the differences is (15 − 60 · 0.15²) / 59.
    let error = ((15.0 - 1.35) / 59.0 / 60.0f64).sqrt();
    assert!((comparison.difference.standard_error.unwrap() - error).abs() < 1e-12);
    assert!((comparison.minimum_detectable.unwrap() / error - 2.801_585).abs() < 1e-5);
    assert!(comparison.verdict().starts_with("The second run is better: +15.0 ["), "{}", comparison.verdict());
    // The other way round everything is turned.
    let back = compare(&after, &before, &Options::default()).unwrap();
    assert_eq!((back.fixed.len(), back.broken.len(), back.difference.value), (3, 12, -comparison.difference.value));
}

#[test]
fn attempts_that_were_not_made_are_missed() {
    // The hard half of the second run was given up: what is there looks better.
    let before = single("before", 20, |i| i < 10);
    let mut after = single("after", 10, |_| true);
    let qa_ids: Vec<String> = before.questions.iter().map(|question| question.qa_id.clone()).collect();
    let config = json!({"attempts": 1, "qa_ids": qa_ids, "benchmark": {"benchmark": "b", "restricted": false}});
    let missing = |question: &webdancer_eval::run::Question| Attempt {
        trajectory_id: String::new(),
        outcome: Outcome::Missing,
        ..question.attempts[0].clone()
    };
    after.complete(&Plan::of_config(&config.to_string()).unwrap(), before.questions.iter().map(missing).collect());
    assert_eq!(after.questions.len(), 20);
    let error = compare(&before, &after, &Options::default()).unwrap_err();
    assert!(error.to_string().starts_with("only 50.0 % of the attempts of run after"), "{error}");
}

#[test]
fn mcnemar_is_for_single_attempts_at_questions_that_stand_alone() {
    let twice = |run: &str| of((0..4).map(|i| attempt(run, &format!("q{}", i / 2), i % 2, outcome(i == 0))).collect());
    assert_eq!(compare(&twice("a"), &twice("b"), &Options::default()).unwrap().mcnemar_p, None);
    let together = |run: &str| {
        of((0..4).map(|i| with(attempt(run, &format!("q{i}"), 0, outcome(i == 0)), json!({"cluster": "x"}))).collect())
    };
    let comparison = compare(&together("a"), &together("b"), &Options::default()).unwrap();
    assert_eq!((comparison.mcnemar_p, comparison.difference.clusters, comparison.difference.interval), (None, 1, None));
    assert!(comparison.verdict().starts_with("Too few questions to tell"));
}

fn refused(before: &Run, after: &Run) -> String {
    compare(before, after, &Options::default()).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_paired_is_refused_with_what_to_do() {
    let run = single("a", 50, |i| i < 20);
    assert_eq!(refused(&run, &run), "a is compared with itself; name two runs");
    let other = of(vec![attempt("b", "other", 0, Outcome::Correct)]);
    assert!(refused(&run, &other).contains("have no question in common"));

    // One of 50 unknown is 98 %, two are less.
    let missing = |count: usize| {
        let unknown = |i| if i < count { Outcome::JudgeFailed } else { Outcome::Wrong };
        of((0..50).map(|i| attempt("b", &format!("q{i:03}"), 0, unknown(i))).collect())
    };
    let comparison = compare(&run, &missing(1), &Options::default()).unwrap();
    assert_eq!(comparison.left_out, LeftOut { only_before: 0, only_after: 0, incomplete: 1 });
    assert_eq!(comparison.difference.questions, 49);
    assert!(refused(&run, &missing(2)).starts_with("only 96.0 % of the attempts of run b"));
    assert!(refused(&missing(2), &run).starts_with("only 96.0 % of the attempts of run b"));

    let judged = |judge: &str, overridden| {
        let made = |i: usize| Attempt {
            judge: Some(judge.to_string()),
            overridden,
            ..attempt("b", &format!("q{i:03}"), 0, Outcome::Wrong)
        };
        of((0..50).map(made).collect())
    };
    let error = refused(&run, &judged("gaia v2", false));
    assert_eq!(
        error,
        "run a is judged by gaia v1, run b by gaia v2: a difference would be the judges', too; judge both by one, or see \
         what the judge changed with `webdancer eval drift a b`"
    );
    assert!(compare(&run, &judged("a person", true), &Options::default()).is_ok(), "overrides hold in either run");

    let reworded = Attempt { question: "Otherwise?".to_string(), ..attempt("b", "q007", 0, Outcome::Wrong) };
    assert_eq!(
        compare(&run, &of(vec![reworded]), &Options::default()).unwrap_err(),
        CompareError::Wording { qa_id: "q007".to_string() }
    );
}

#[test]
fn only_common_questions_count_and_gated_text_is_not_shown() {
    let restricted = |run: &str, from: usize, right: bool| {
        let made = |i| Attempt { restricted: true, ..attempt(run, &format!("q{i:03}"), 0, outcome(right)) };
        of((from..from + 30).map(made).collect())
    };
    let comparison = compare(&restricted("a", 0, false), &restricted("b", 10, true), &Options::default()).unwrap();
    assert_eq!(comparison.left_out, LeftOut { only_before: 10, only_after: 10, incomplete: 0 });
    assert_eq!((comparison.difference.questions, comparison.difference.value), (20, 1.0));
    assert_eq!((comparison.fixed.len(), &comparison.fixed[0].question), (20, &None));
    let shown = [comparison.text(), comparison.markdown(), serde_json::to_string(&comparison).unwrap()].concat();
    assert!(!shown.contains("What is"), "{shown}");
}

#[test]
fn slices_are_corrected_together_and_shown() {
    let run = |name: &str, right: &dyn Fn(usize) -> bool| {
        let made = (0..80)
            .map(|i| with(attempt(name, &format!("q{i:03}"), 0, outcome(right(i))), json!({"level": i % 2 + 1})));
        of(made.collect())
    };
    let comparison = compare(&run("a", &|i| i < 8), &run("b", &|i| i < 8 || i % 4 == 1), &Options::default()).unwrap();
    let [one, two] = comparison.slices.as_slice() else { panic!("{:?}", comparison.slices) };
    assert_eq!((one.value.as_str(), one.difference.value, one.difference.p_value), ("1", 0.0, Some(1.0)));
    assert_eq!((two.value.as_str(), two.difference.questions), ("2", 40));
    assert_eq!(two.holm_p, Some(two.difference.p_value.unwrap() * 2.0));
    let (text, svg) = (comparison.text(), comparison.svg());
    assert!(text.contains("Fixed: 18 questions") && text.contains("level 2"), "{text}");
    assert!(svg.contains("level 2") && svg.contains("policy of b less policy of a"), "{svg}");
    assert!(!text.contains('†') && !svg.contains('†'), "{text}");
}

#[test]
fn a_difference_of_few_clusters_is_marked() {
    let run = |name: &str, right: &dyn Fn(usize) -> bool| {
        let made = (0..40).map(|i| {
            with(attempt(name, &format!("q{i:03}"), 0, outcome(right(i))), json!({"level": if i < 37 { 1 } else { 2 }}))
        });
        of(made.collect())
    };
    let comparison =
        compare(&run("a", &|i| i < 8), &run("b", &|i| !(8..=36).contains(&i)), &Options::default()).unwrap();
    assert!(comparison.notes.is_empty(), "{:?}", comparison.notes);
    let text = comparison.text();
    assert!(text.contains("level 1         37") && text.contains("  +100.0†"), "{text}");
    assert!(text.ends_with("note: † fewer than 20 clusters of questions: rough\n"), "{text}");
}

#[test]
fn runs_that_do_not_differ_say_that_nothing_can_be_estimated() {
    let right = |i: usize| i < 20;
    let same = compare(&single("a", 60, right), &single("b", 60, right), &Options::default()).unwrap();
    assert_eq!((same.minimum_detectable, same.difference.interval, same.difference.p_value), (None, None, Some(1.0)));
    assert_eq!(
        same.verdict(),
        "No difference is shown: 0.0 points over 60 questions, p = 1.0000; no paired difference in the data, so that the \
         least that would be seen cannot be estimated."
    );
    assert!(!same.text().contains("[0.0, 0.0]") && !same.svg().contains("[0.0, 0.0]"), "{}", same.text());
    // All wrong before and all right after: better by the sign test, though no draw differs from another.
    let all = compare(&single("a", 10, |_| false), &single("b", 10, |_| true), &Options::default()).unwrap();
    assert_eq!((all.minimum_detectable, all.difference.interval), (None, None));
    assert_eq!(
        all.verdict(),
        "The second run is better: +100.0 points over 10 questions, p = 0.0020; all questions differ alike, so that \
         neither an interval nor the least that would be seen can be estimated."
    );
    // Of three questions that is no more than luck.
    let few = compare(&single("a", 3, |_| false), &single("b", 3, |_| true), &Options::default()).unwrap();
    assert!(few.verdict().starts_with("No difference is shown: +100.0 points over 3 questions, p = 0.2500"), "{few:?}");
}

#[test]
fn a_run_of_more_than_one_policy_is_told_of() {
    let (before, mut after) = (single("before", 30, |i| i < 15), single("after", 30, |i| i < 20));
    after.policies = vec!["one".to_string(), "two".to_string()];
    let notes = compare(&before, &after, &Options::default()).unwrap().notes;
    assert_eq!(notes, ["2 policies acted in the second run: its score is of none of them alone"]);
    let notes = compare(&after, &before, &Options::default()).unwrap().notes;
    assert_eq!(notes, ["2 policies acted in the first run: its score is of none of them alone"]);
}

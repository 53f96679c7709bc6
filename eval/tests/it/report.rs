//! Reports of runs.

use serde_json::json;
use webdancer_eval::attempts::{Attempt, Outcome};
use webdancer_eval::report::{Options, report};
use webdancer_eval::run::{Plan, runs};
use webdancer_eval::stats::bootstrap::Bootstrap;
use webdancer_eval::stats::mean::Method;
use webdancer_eval::votes::RulesAlone;

use crate::support::{attempt, of, outcome, single, with};

fn three_each(outcomes: &[[Outcome; 3]]) -> Vec<Attempt> {
    let each = outcomes.iter().enumerate();
    each.flat_map(|(i, of)| (0..3).zip(of).map(move |(n, outcome)| attempt("r", &format!("q{i}"), n, *outcome)))
        .collect()
}

use Outcome::{Correct as Yes, JudgeFailed, Missing, Outage, Unjudged, Wrong as No};

#[test]
fn one_three_and_the_vote_of_three() {
    let mut attempts = three_each(&[[Yes, No, No], [Yes, Yes, No], [No, No, No], [Yes, Yes, Yes]]);
    for (attempt, answer) in attempts.iter_mut().zip(["a", "b", "c", "a", "A.", "b", "x", "y", "x", "1", "1.0", "1"]) {
        attempt.answer = Some(answer.to_string());
    }
    let report = report(&of(attempts), &Options::default(), &RulesAlone);
    assert_eq!((report.attempts_each, report.coverage.complete), (3, 4));
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} for {b}");
    let score = report.pass_at_1.unwrap();
    close(score.value, 0.5);
    assert_eq!(score.method, Method::Bootstrap);
    let [at] = report.at_k.as_slice() else { panic!("{:?}", report.at_k) };
    assert_eq!(at.k, 3);
    close(at.pass_at_k.value, 0.75);
    close(at.pass_hat_k.unwrap().value, 0.25);
    // Three answers tie for the first question, one of them right.
    close(at.maj_at_k.unwrap().value, (1.0 / 3.0 + 1.0 + 0.0 + 1.0) / 4.0);
}

#[test]
fn failures_are_in_no_mean_and_in_the_bounds() {
    let attempts = three_each(&[[Yes, No, JudgeFailed], [Outage, Outage, Outage], [Yes, Yes, Unjudged]]);
    let report = report(&of(attempts), &Options::default(), &RulesAlone);
    let score = report.pass_at_1.unwrap();
    assert_eq!((score.value, score.questions), (0.75, 2));
    assert_eq!((report.coverage.questions, report.coverage.complete, report.coverage.unknown), (3, 0, 5));
    let bounds = report.coverage.bounds.unwrap();
    assert!((bounds.low - 1.0 / 3.0).abs() < 1e-12 && (bounds.high - 8.0 / 9.0).abs() < 1e-12, "{bounds:?}");
    let unknown = report.unknown;
    assert_eq!((unknown.judge_failed, unknown.outage, unknown.unjudged), (1, 3, 1));
    assert!(report.at_k.is_empty(), "no question has three verdicts");
    assert!(report.notes[0].starts_with("1 answers are not judged: `webdancer filter"), "{:?}", report.notes);
    assert!(report.text().contains("  33.3 to 88.9  "), "{}", report.text());
}

#[test]
fn what_a_run_set_out_to_do_and_did_not_is_in_no_mean_and_in_the_bounds() {
    let config = json!({"attempts": 2, "qa_ids": ["q0", "q1", "q2"], "benchmark": {"benchmark": "b", "restricted": true},
        "policy": "endpoint:x"});
    let plan = Plan::of_config(&config.to_string()).unwrap();
    let mut run = of(vec![attempt("r", "q0", 0, Yes), attempt("r", "q0", 1, Yes), attempt("r", "q1", 1, No)]);
    assert_eq!(run.unattempted(&plan), ["q2"]);
    // As the lake tells the questions of the benchmark: the one that is missing, and others.
    let told =
        |id: &str| with(Attempt { trajectory_id: String::new(), ..attempt("", id, 0, Missing) }, json!({"level": 3}));
    run.complete(&plan, ["q0", "q2", "q9"].map(told).to_vec());
    let report = report(&run, &Options { ks: vec![2], ..Options::default() }, &RulesAlone);
    assert_eq!((report.attempts_each, report.unknown.missing, report.coverage.attempts), (2, 3, 6));
    assert_eq!((report.coverage.questions, report.coverage.complete), (3, 1));
    let score = report.pass_at_1.unwrap();
    assert_eq!((score.value, score.questions), (0.5, 2));
    let bounds = report.coverage.bounds.unwrap();
    assert!((bounds.low - 1.0 / 3.0).abs() < 1e-12 && (bounds.high - 2.5 / 3.0).abs() < 1e-12, "{bounds:?}");
    assert_eq!(report.at_k[0].pass_at_k.questions, 1);
    assert!(report.slices.iter().any(|slice| slice.value == "3" && slice.coverage.unknown == 2), "{:?}", report.slices);
    assert!(report.notes[0].starts_with("3 of 6 attempts are not made"), "{:?}", report.notes);
    // What was not made took nothing, and abstained from nothing.
    assert_eq!((report.effort.calls, report.effort.abstentions, report.effort.terminations.len()), (6, 0, 1));
    let text = report.text();
    let took: Vec<&str> = text.lines().filter(|line| line.starts_with("attempts  ")).collect();
    assert_eq!((report.made(), took[0].split_whitespace().nth(1)), (3, Some("3")), "{text}");
    assert_eq!(report.policies, ["policy of r"]);
    assert!(run.questions.iter().all(|question| question.attempts.len() == 2));
    assert_eq!(Plan::of_config("{}"), None);
}

#[test]
fn declining_is_neither_a_vote_nor_an_incorrect_answer() {
    let declined = |n| Attempt { attempted: Some(false), ..attempt("r", "q", n, No) };
    let attempts = vec![declined(0), declined(1), Attempt { answer: Some("Velm".into()), ..attempt("r", "q", 2, Yes) }];
    let report = report(&of(attempts), &Options::default(), &RulesAlone);
    // Two that decline alike outvote nobody.
    assert_eq!(report.at_k[0].maj_at_k.unwrap().value, 1.0);
    let graded = report.graded.unwrap();
    assert_eq!((graded.correct, graded.incorrect, graded.not_attempted), (1, 0, 2));
    assert_eq!((graded.accuracy_given_attempted, graded.f1), (Some(1.0), Some(0.5)));
    assert_eq!(report.effort.abstentions, 2);
    assert!(report.markdown().contains("| correct of those attempted | 100.0 |"), "{}", report.markdown());
}

#[test]
fn long_values_of_gated_questions_are_not_shown() {
    let gated = |text: &str| {
        let one = Attempt { restricted: true, ..attempt("r", text, 0, Yes) };
        with(one, json!({"steps": text}))
    };
    let long = "First the registry of bridges is searched for Velm";
    let options = Options { by: vec!["steps".to_string()], ..Options::default() };
    let report = report(&of(vec![gated(long), gated("two")]), &options, &RulesAlone);
    let values: Vec<&str> = report.slices.iter().map(|slice| slice.value.as_str()).collect();
    assert_eq!(values, ["(gated)", "two"]);
    assert!(!serde_json::to_string(&report).unwrap().contains("registry"));
}

#[test]
fn an_attempt_made_again_after_an_outage_counts_once() {
    let again = Attempt { trajectory_id: "t2".to_string(), ..attempt("r", "q", 0, Yes) };
    for order in [[attempt("r", "q", 0, Outage), again.clone()], [again.clone(), attempt("r", "q", 0, Outage)]] {
        let run = of(order.to_vec());
        assert_eq!(run.questions[0].attempts, std::slice::from_ref(&again));
    }
    assert_eq!(runs(vec![attempt("a", "q", 0, Yes), attempt("b", "q", 0, Yes)]).len(), 2);
}

#[test]
fn questions_of_one_source_are_one_cluster() {
    let attempts = (0..40).map(|i| {
        let one = attempt("r", &format!("q{i}"), 0, outcome(i / 4 % 2 == 0));
        with(one, json!({"root_url": format!("http://site-{}/", i / 4), "level": i / 4 + 2}))
    });
    let report = report(&of(attempts.collect()), &Options::default(), &RulesAlone);
    let score = report.pass_at_1.unwrap();
    assert_eq!((score.questions, score.clusters, score.method), (40, 10, Method::Bootstrap));
    assert!(score.standard_error.unwrap() > 0.16, "{score:?}");
    assert!(report.notes[0].starts_with("only 10 clusters"), "{:?}", report.notes);
    // Numbers are sorted as numbers.
    assert_eq!(report.slices.iter().map(|slice| slice.value.as_str()).collect::<Vec<_>>()[7..], ["9", "10", "11"]);
}

#[test]
fn a_slice_of_few_clusters_is_marked_though_the_run_has_many() {
    // As GAIA has them: 52 questions of level 2, 12 of level 3.
    let attempts = (0..64).map(|i| {
        let level = if i < 52 { 2 } else { 3 };
        with(attempt("r", &format!("q{i:02}"), 0, outcome(i % 4 == 0)), json!({"level": level}))
    });
    let report = report(&of(attempts.collect()), &Options::default(), &RulesAlone);
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    let text = report.text();
    assert!(text.contains("25.0 [16.0, 36.8] ") && text.contains("25.0 [15.2, 38.2]\n"), "{text}");
    assert!(text.contains("25.0 [8.9, 53.2]†\n"), "{text}");
    assert!(text.ends_with("note: † fewer than 20 clusters of questions: rough\n"), "{text}");
    assert!(report.svg().contains(">† fewer than 20 clusters of questions: rough</text>"), "{}", report.svg());
    let whole = webdancer_eval::report::report(&single("r", 20, |_| true), &Options::default(), &RulesAlone);
    assert!(!whole.text().contains('†') && !whole.svg().contains('†'), "{}", whole.text());
}

#[test]
fn sites_that_are_all_wrong_are_not_known_for_certain() {
    // Three sites of four questions: every draw of them is wrong.
    let attempts = (0..12).map(|i| {
        with(attempt("r", &format!("q{i:02}"), 0, No), json!({"root_url": format!("http://site-{}/", i / 4)}))
    });
    let score = report(&of(attempts.collect()), &Options::default(), &RulesAlone).pass_at_1.unwrap();
    let ends = score.interval.unwrap();
    assert_eq!((score.value, score.questions, score.clusters, score.method), (0.0, 12, 3, Method::Wilson));
    assert_eq!((ends.low, (ends.high * 1e4).round()), (0.0, 5_615.0));
}

#[test]
fn rare_values_are_one() {
    let shown = |values_max| -> Vec<(String, usize)> {
        let domains = (0..20).map(|i| {
            with(attempt("r", &format!("q{i:02}"), 0, outcome(i == 0)), json!({"domain": format!("d{}", i / 3)}))
        });
        let report = report(&of(domains.collect()), &Options { values_max, ..Options::default() }, &RulesAlone);
        report.slices.into_iter().map(|slice| (slice.value, slice.coverage.questions)).collect()
    };
    let due = |values: &[(&str, usize)]| -> Vec<(String, usize)> {
        values.iter().map(|(value, questions)| (value.to_string(), *questions)).collect()
    };
    assert_eq!(shown(6), due(&[("d0", 3), ("d1", 3), ("d2", 3), ("d3", 3), ("d4", 3), ("d5", 3), ("others", 2)]));
    // Of equally rare ones the first are kept.
    assert_eq!(shown(2), due(&[("d0", 3), ("d1", 3), ("others", 14)]));
}

#[test]
fn equal_rows_give_equal_reports() {
    let make = |seed| {
        let bootstrap = Bootstrap { seed, draws: 100, ..Bootstrap::default() };
        let options = Options { bootstrap, ..Options::default() };
        let attempts =
            (0..30).flat_map(|i| (0..2).map(move |n| attempt("r", &format!("q{i}"), n, outcome((i + n) % 3 == 0))));
        serde_json::to_string(&report(&of(attempts.collect()), &options, &RulesAlone)).unwrap()
    };
    assert_eq!(make(5), make(5));
    // Means lie on a grid, so that two seeds may well give the same ends; not all do.
    assert!((6..12).any(|seed| make(seed) != make(5)));
}

#[test]
fn what_a_run_took() {
    let mut attempts = vec![attempt("r", "a", 0, Yes), attempt("r", "b", 0, No), attempt("r", "c", 0, Outage)];
    attempts[0].confidence = Some(0.9);
    attempts[1].answer = None;
    attempts[1].termination = "calls".to_string();
    attempts[1].wall_ms = Some(6_000);
    attempts[1].calls_failed = 1;
    attempts[0].calls_after_answer = Some(0);
    attempts[1].calls_after_answer = Some(3);
    attempts[2].tool_ms = None;
    attempts[2].answer = None;
    attempts[2].termination = "error".to_string();
    attempts[2].wall_ms = None;
    attempts[2].calls = 0;
    attempts[2].calls_known = 0;
    let prices = webdancer_agent::chat::Prices { input: 2.0, cached_input: 1.0, output: 10.0 };
    let options = Options { prices: Some(prices), ..Options::default() };
    let report = report(&of(attempts), &options, &RulesAlone);
    let effort = &report.effort;
    assert_eq!((effort.input_tokens, effort.output_tokens, effort.cost), (3_000, 300, Some(0.009)));
    let wall = effort.wall_ms.unwrap();
    assert_eq!((wall.mean, wall.p50, wall.p95), (4_000.0, 4_000.0, 5_800.0));
    assert_eq!((effort.calls, effort.calls_failed, effort.abstentions), (4, Some(0.25), 1));
    assert_eq!(serde_json::to_value(&effort.terminations).unwrap(), json!({"answer": 1, "calls": 1, "error": 1}));
    // 500 of 2,000 and of 6,000 milliseconds.
    assert_eq!((effort.tool_time, effort.policy_ms.unwrap().p50), (Some(0.125), 3_500.0));
    let over = effort.over_action.unwrap();
    assert_eq!((over.seen, over.acted, over.share, over.calls, over.calls_each.p50), (2, 1, 0.5, 3, 1.5));
    let text = report.text();
    assert!(text.contains("attempts that went on after it") && text.contains(" 1 of 2"), "{text}");
    assert!(text.contains("Stated confidence, of 1 attempts") && text.contains("Brier's score"), "{text}");
    let calibration = report.calibration.unwrap();
    assert_eq!((calibration.predictions, calibration.bins.len()), (1, 5));
    assert!((calibration.brier.unwrap() - 0.01).abs() < 1e-12);
}

#[test]
fn a_report_is_shown_as_text_markdown_and_plot() {
    let report = report(&single("run-1", 40, |i| i < 10), &Options::default(), &RulesAlone);
    let text = report.text();
    assert!(text.starts_with("policy of run-1 · run-1\n"), "{text}");
    assert!(text.contains("\nPass@1 (the paper's Cons)  25.0 [14.2, 40.2]    6.9         40        40\n"), "{text}");
    assert!(report.markdown().contains("| Pass@1 (the paper's Cons) | 25.0 \\[14.2, 40.2\\] | 6.9 | 40 | 40 |"));
    let svg = report.svg();
    assert!(svg.starts_with("<svg ") && svg.contains(">25.0 [14.2, 40.2]</text>"), "{svg}");
}

#[test]
fn a_score_of_more_than_one_policy_is_told_as_that() {
    let mut attempts = three_each(&[[Yes, No, No], [Yes, Yes, No]]);
    let noted = |attempts: &[Attempt]| report(&of(attempts.to_vec()), &Options::default(), &RulesAlone).notes;
    let told = "2 policies acted in the run: its score is of none of them alone".to_string();
    assert!(!noted(&attempts).contains(&told));
    attempts[5].policy = "another".to_string();
    assert!(noted(&attempts).contains(&told), "{:?}", noted(&attempts));
}

//! The aggregate functions against brute force, through SQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use webdancer_query::functions;
use webdancer_query::stats::{Cluster, ClusterSum, clustered_error, maj_at_k, pass_at_k, pass_hat_k};

use crate::support::{Memory, csv, error};

/// An attempt: its answer (None abstains) and whether it is correct (None: the judge failed).
type Attempt = (Option<u8>, Option<bool>);

fn subsets(n: usize, k: usize) -> impl Iterator<Item = Vec<usize>> {
    (0u32..1 << n)
        .filter(move |mask| mask.count_ones() as usize == k)
        .map(move |mask| (0..n).filter(|i| mask & (1 << i) != 0).collect())
}

fn brute_force_pass(attempts: &[Attempt], k: usize) -> Option<f64> {
    let judged: Vec<bool> = attempts.iter().filter_map(|(_, correct)| *correct).collect();
    average(judged.len(), k, |subset| f64::from(u8::from(subset.iter().any(|i| judged[*i]))))
}

fn brute_force_majority(attempts: &[Attempt], k: usize) -> Option<f64> {
    let judged: Vec<(Option<u8>, bool)> = attempts.iter().filter_map(|(a, correct)| Some((*a, (*correct)?))).collect();
    average(judged.len(), k, |subset| {
        let mut votes: BTreeMap<u8, (usize, usize)> = BTreeMap::new();
        for i in subset {
            if let (Some(answer), correct) = judged[*i] {
                let cluster = votes.entry(answer).or_default();
                cluster.0 += 1;
                cluster.1 += usize::from(correct);
            }
        }
        let most = votes.values().map(|(votes, _)| *votes).max().unwrap_or(0);
        let tied: Vec<f64> =
            votes.values().filter(|(votes, _)| *votes == most).map(|(votes, c)| *c as f64 / *votes as f64).collect();
        if tied.is_empty() { 0.0 } else { tied.iter().sum::<f64>() / tied.len() as f64 }
    })
}

fn average(n: usize, k: usize, value: impl Fn(&[usize]) -> f64) -> Option<f64> {
    if n < k {
        return None;
    }
    let values: Vec<f64> = subsets(n, k).map(|subset| value(&subset)).collect();
    Some(values.iter().sum::<f64>() / values.len() as f64)
}

/// The clustered error of correctness, those without an answer each alone.
fn clustered(attempts: &[Attempt]) -> Option<f64> {
    let judged = attempts
        .iter()
        .enumerate()
        .filter_map(|(i, (a, correct))| Some((a.ok_or(i), f64::from(u8::from((*correct)?)))));
    let mut sums: BTreeMap<Result<u8, usize>, ClusterSum> = BTreeMap::new();
    for (cluster, value) in judged {
        let cluster = sums.entry(cluster).or_default();
        cluster.count += 1;
        cluster.sum += value;
    }
    clustered_error(&sums.into_values().collect::<Vec<_>>())
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-12,
        (None, None) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pass_at_k_is_the_mean_over_subsets(n in 1usize..11, c in 0usize..11, k in 1usize..12) {
        let c = c.min(n);
        let attempts: Vec<Attempt> = (0..n).map(|i| (None, Some(i < c))).collect();
        prop_assert!(close(pass_at_k(n as u64, c as u64, k as u64), brute_force_pass(&attempts, k)));
    }

    #[test]
    fn pass_hat_k_is_the_share_of_subsets_that_are_right_throughout(n in 1usize..11, c in 0usize..11, k in 1usize..12) {
        let c = c.min(n);
        let slow = average(n, k, |subset| f64::from(u8::from(subset.iter().all(|i| *i < c))));
        prop_assert!(close(pass_hat_k(n as u64, c as u64, k as u64), slow));
    }

    #[test]
    fn maj_at_k_is_the_mean_over_subsets(
        attempts in prop::collection::vec(
            (prop::option::weighted(0.8, 0u8..4), prop::option::weighted(0.9, any::<bool>())),
            0..11,
        ),
        k in 1usize..12,
    ) {
        let mut clusters: BTreeMap<u8, Cluster> = BTreeMap::new();
        let mut abstentions = 0;
        for (answer, correct) in attempts.iter().filter_map(|(answer, correct)| Some((answer, (*correct)?))) {
            match answer {
                Some(answer) => {
                    let cluster = clusters.entry(*answer).or_default();
                    cluster.votes += 1;
                    cluster.correct += u64::from(correct);
                }
                None => abstentions += 1,
            }
        }
        let clusters: Vec<Cluster> = clusters.into_values().collect();
        let fast = maj_at_k(&clusters, abstentions, k as u64).unwrap();
        let slow = brute_force_majority(&attempts, k);
        prop_assert!(close(fast, slow), "{fast:?} {slow:?}");
    }
}

/// Many questions, spread over partitions so that partial results are merged, each checked against brute force.
#[tokio::test]
async fn partial_results_merge_to_the_same_values() {
    let mut random = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(
        (0i32..40, prop::option::weighted(0.8, 0u8..3), prop::option::weighted(0.9, any::<bool>())),
        400,
    );
    let rows = strategy.new_tree(&mut random).unwrap().current();
    let partitions: Vec<Vec<RecordBatch>> = rows
        .chunks(50)
        .map(|rows| {
            let question: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0)));
            let answers = rows.iter().map(|row| row.1.map(|answer| format!("answer {answer}")));
            let answer: ArrayRef = Arc::new(answers.collect::<StringArray>());
            let correct: ArrayRef = Arc::new(rows.iter().map(|row| row.2).collect::<BooleanArray>());
            let columns = [("question", question, true), ("answer", answer, true), ("correct", correct, true)];
            vec![RecordBatch::try_from_iter_with_nullable(columns).unwrap()]
        })
        .collect();
    let table = MemTable::try_new(partitions[0][0].schema(), partitions).unwrap();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(4));
    for function in functions::all() {
        context.register_udaf(function);
    }
    context.register_table("attempts", Arc::new(table)).unwrap();
    let plan = "SELECT question, pass_at_k(correct, 3), cons(correct), maj_at_k(answer, correct, 3),
                       pass_hat_k(correct, 2), clustered_error(CAST(correct AS INT), answer)
                FROM attempts GROUP BY question";
    let explained = context.sql(&format!("EXPLAIN {plan}")).await.unwrap().to_string().await.unwrap();
    assert!(explained.contains("mode=Partial") && explained.contains("Final"), "{explained}");
    let batches = context.sql(plan).await.unwrap().collect().await.unwrap();
    let mut checked = 0;
    for batch in batches {
        use arrow::array::AsArray as _;
        use arrow::datatypes::{Float64Type, Int32Type};
        for row in 0..batch.num_rows() {
            let question = batch.column(0).as_primitive::<Int32Type>().value(row);
            let attempts: Vec<Attempt> = rows.iter().filter(|r| r.0 == question).map(|r| (r.1, r.2)).collect();
            let value = |column: usize| batch.column(column).as_primitive::<Float64Type>().iter().nth(row).unwrap();
            let judged: Vec<bool> = attempts.iter().filter_map(|(_, correct)| *correct).collect();
            let share = judged.iter().filter(|correct| **correct).count() as f64 / judged.len() as f64;
            assert!(close(value(1), brute_force_pass(&attempts, 3)));
            assert!(close(value(2), Some(share)));
            assert!(close(value(3), brute_force_majority(&attempts, 3)));
            let right = |subset: &[usize]| f64::from(u8::from(subset.iter().all(|i| judged[*i])));
            assert!(close(value(4), average(judged.len(), 2, right)));
            assert!(close(value(5), clustered(&attempts)));
            checked += 1;
        }
    }
    assert_eq!(checked, 40);
}

#[tokio::test]
async fn per_question_values_and_nulls() {
    let engine = Memory::default().engine();
    let attempts = "WITH attempts (qa, answer, correct) AS (VALUES
        ('a', 'x', true), ('a', 'x', true), ('a', 'y', false),
        ('b', 'x', false), ('b', 'y', true), ('b', NULL, false),
        ('c', '', false), ('c', ' ', false), ('c', NULL, false),
        ('d', 'x', true), ('d', 'x', NULL), ('d', 'y', false),
        ('e', 'x', NULL))";
    let sql = format!(
        "{attempts} SELECT qa, round(pass_at_k(correct, 3), 6), round(pass_at_k(correct, 1), 6), round(cons(correct), 6),
                    round(maj_at_k(answer, correct, 3), 6), round(maj_at_k(answer, correct, 2), 6)
         FROM attempts GROUP BY qa ORDER BY qa"
    );
    assert_eq!(
        csv(&engine, &sql).await,
        [
            // Of the pairs one is of two right votes, two tie.
            "a,1.0,0.666667,0.666667,1.0,0.666667",
            // Two answers tie for the vote; of the pairs one ties, one is right, one is wrong.
            "b,1.0,0.333333,0.333333,0.5,0.5",
            "c,0.0,0.0,0.0,0.0,0.0",
            // An error of the judge leaves two attempts.
            "d,,0.5,0.5,,0.5",
            "e,,,,,",
        ]
    );
    assert_eq!(csv(&engine, "SELECT pass_at_k(correct, 1) FROM evaluations").await, ["\"\""]);
}

#[tokio::test]
async fn a_vote_counts_answers_and_not_spellings_of_them() {
    let engine = Memory::default().engine();
    let attempts = "WITH attempts (qa, answer, correct) AS (VALUES
        ('a', '1,000', true), ('a', '$ 1000.0', true), ('a', '999', false),
        ('b', 'The Derby', true), ('b', 'derby.', true), ('b', 'Oaks', false),
        ('c', '?!', true), ('c', '!', false), ('c', '1, 2', false))";
    let sql =
        format!("{attempts} SELECT qa, round(maj_at_k(answer, correct, 3), 6) FROM attempts GROUP BY qa ORDER BY qa");
    // What differs in more than spelling stays apart: one of three tied answers to `c` is right.
    assert_eq!(csv(&engine, &sql).await, ["a,1.0", "b,1.0", "c,0.333333"]);
}

#[tokio::test]
async fn attempts_are_counted_with_filters_over_windows_and_without_groups() {
    let engine = Memory::default().engine();
    let attempts = "WITH attempts (n, answer, correct) AS (VALUES (1, 'x', true), (2, 'y', false), (3, 'x', true))";
    let sql = format!(
        "{attempts} SELECT cons(correct) FILTER (WHERE n > 1), pass_at_k(correct, 1) FILTER (WHERE n < 3),
                    maj_at_k(answer, correct, 2) FILTER (WHERE n <> 2) FROM attempts"
    );
    assert_eq!(csv(&engine, &sql).await, ["0.5,0.5,1.0"]);
    let sql = format!(
        "{attempts} SELECT cons(correct) OVER (ORDER BY n), maj_at_k(answer, correct, 1) OVER (ORDER BY n) FROM attempts"
    );
    assert_eq!(csv(&engine, &sql).await, ["1.0,1.0", "0.5,0.5", "0.6666666666666666,0.6666666666666666"]);
    assert_eq!(csv(&engine, &format!("{attempts} SELECT cons(correct) FROM attempts WHERE n > 9")).await, ["\"\""]);
}

#[tokio::test]
async fn shares_have_wilsons_interval_and_clustered_values_their_error() {
    let engine = Memory::default().engine();
    let sql = "SELECT round(wilson_low(n <= 3), 6), round(wilson_high(n <= 3), 6), wilson_low(CAST(NULL AS BOOLEAN))
               FROM generate_series(1, 10) AS t (n)";
    assert_eq!(csv(&engine, sql).await, ["0.107791,0.603222,"]);
    let sql =
        "WITH scores (value, source) AS (VALUES (1, 'a'), (1, 'a'), (0, 'a'), (0, 'b'), (0, 'b'), (1, 'c'), (1, 'c'))
               SELECT round(clustered_error(value, source), 6), round(clustered_error(value, NULL), 6),
                      round(stddev(value) / sqrt(count(value)), 6), clustered_error(value, 'one') FROM scores";
    assert_eq!(csv(&engine, sql).await, ["0.254898,0.202031,0.202031,"]);
}

#[tokio::test]
async fn what_is_known_and_its_bounds() {
    let engine = Memory::default().engine();
    let sql = "SELECT question, coverage(correct), bound_low(correct), bound_high(correct) FROM (VALUES
                 ('a', true), ('a', false), ('a', NULL), ('a', NULL), ('b', true), ('c', NULL)) AS t (question, correct)
               GROUP BY question ORDER BY question";
    assert_eq!(csv(&engine, sql).await, ["a,0.5,0.25,0.75", "b,1.0,1.0,1.0", "c,0.0,0.0,1.0"]);
}

#[tokio::test]
async fn differences_have_an_interval_a_p_value_and_a_least_that_could_be_seen() {
    let engine = Memory::default().engine();
    // The clusters' means are 0 and 1: by draws 0, ½, ½, 1.
    let sql = "SELECT bootstrap_low(v, c), bootstrap_high(v, c), abs(bootstrap_p(v, c) - 0.5) < 0.05,
                      round(minimum_detectable(v, c) / clustered_error(v, c), 4), round(standard_error(v), 6)
               FROM (VALUES (0, 'a'), (0, 'a'), (1, 'b'), (1, 'b'), (NULL, 'c')) AS t (v, c)";
    assert_eq!(csv(&engine, sql).await, ["0.0,1.0,true,2.8016,0.288675"]);
    let one = "SELECT bootstrap_low(v, 'a'), minimum_detectable(v, 'a'), standard_error(v) FROM (VALUES (1)) AS t (v)";
    assert_eq!(csv(&engine, one).await, [",,"]);
    // Many groups, and rows in any order: equal draws.
    let sql = "SELECT count(DISTINCT low), count(*) FROM (
                 SELECT g, bootstrap_low(CASE WHEN i % 3 = 0 THEN 1.0 ELSE 0.25 END, NULL) AS low
                 FROM generate_series(1, 30) AS a (i) CROSS JOIN generate_series(1, 20) AS b (g) GROUP BY g)";
    assert_eq!(csv(&engine, sql).await, ["1,20"]);
    let message =
        error(&engine, "SELECT bootstrap_p(i, NULL) FROM generate_series(1, 100001) AS t (i)").await.to_string();
    assert!(message.contains("draws from 100000 clusters at most"), "{message}");
    let sql = "SELECT round(mcnemar_p(before, after), 9) FROM (VALUES (false, true), (false, true), (false, true), (false, true),
                 (false, true), (true, false), (true, true), (false, NULL), (NULL, true)) AS t (before, after)";
    assert_eq!(csv(&engine, sql).await, ["0.21875"]);
}

#[tokio::test]
async fn stated_confidence_is_held_against_what_came_of_it() {
    let engine = Memory::default().engine();
    let sql = "SELECT round(brier(p, c), 6), round(calibration_error(p, c), 6), round(rms_calibration_error(p, c), 6)
               FROM (VALUES (0.8, true), (0.4, false), (NULL, true), (0.1, NULL)) AS t (p, c)";
    // Gaps 0.2 and 0.4 in bins of their own; together 0.6 stated and 0.5 right.
    assert_eq!(csv(&engine, sql).await, ["0.1,0.3,0.1"]);
    assert_eq!(csv(&engine, "SELECT brier(x, x > 1) FROM (VALUES (1.0)) AS t (x) WHERE x > 2").await, ["\"\""]);
}

#[tokio::test]
async fn calls_behind_the_answer_are_counted_from_lists() {
    let engine = Memory::default().engine();
    let sql = "SELECT calls_after_answer(answer, observations, tools) FROM (VALUES
        ('Paris', ['x', 'in Paris', 'x', NULL], ['search', 'visit', 'visit', NULL]), ('Paris', ['x'], ['search']),
        (NULL, ['x'], ['search']), ('Paris', NULL, ['search'])) AS t (answer, observations, tools)";
    assert_eq!(csv(&engine, sql).await, ["1", "\"\"", "\"\"", "\"\""]);
}

#[tokio::test]
async fn percentiles_lie_between_values_in_full_precision() {
    let engine = Memory::default().engine();
    let sql = "SELECT value % 2 AS odd, percentile_cont(0.99) WITHIN GROUP (ORDER BY value),
                      percentile_cont(0.25) WITHIN GROUP (ORDER BY value DESC),
                      percentile_cont(0.5) WITHIN GROUP (ORDER BY value) FILTER (WHERE value > 1000),
                      quantile_cont(value, 0)
               FROM generate_series(1, 102) GROUP BY odd ORDER BY odd";
    // The even numbers are 2, 4 … 102: at 0.99 · 50 = 49.5 lies 101; three quarters up, at 37.5, lies 77.
    assert_eq!(csv(&engine, sql).await, ["0,101.0,77.0,,2.0", "1,100.0,76.0,,1.0"]);
    let sql =
        "SELECT percentile_cont(0.3333333333) WITHIN GROUP (ORDER BY x) FROM (VALUES (0), (NULL), (100)) AS t (x)";
    let between: f64 = csv(&engine, sql).await[0].parse().unwrap();
    assert!((between - 33.33333333).abs() < 1e-12, "{between}");
    let sql = "SELECT percentile_cont(2) WITHIN GROUP (ORDER BY x) FROM (VALUES (0)) AS t (x)";
    assert!(error(&engine, sql).await.to_string().contains("give one from 0 to 1"));
}

#[tokio::test]
async fn repeated_words_are_counted() {
    let engine = Memory::default().engine();
    let sql = "SELECT max_ngram_count(text, 2) FROM (VALUES ('a b a b'), (NULL), ('a')) AS t (text)";
    assert_eq!(csv(&engine, sql).await, ["2", "\"\"", "0"]);
    assert!(error(&engine, "SELECT max_ngram_count('a', 0)").await.to_string().contains("n is 0"));
}

#[tokio::test]
async fn k_is_a_constant_of_at_least_one() {
    let engine = Memory::default().engine();
    let from = "FROM (VALUES (true, 'x', 1), (false, 'y', 2)) AS t (correct, answer, k)";
    for (call, part) in [
        ("pass_at_k(correct, 0)", "pass_at_k: k is 0"),
        ("pass_at_k(correct, -1)", "pass_at_k: k is -1"),
        ("pass_at_k(correct, NULL)", "pass_at_k: k is null"),
        ("pass_at_k(correct, k)", "give a constant"),
        ("maj_at_k(answer, correct, 0)", "maj_at_k: k is 0"),
        ("maj_at_k(answer, correct, k)", "give a constant"),
    ] {
        let message = error(&engine, &format!("SELECT {call} {from}")).await.to_string();
        assert!(message.contains(part), "{call}: {message}");
    }
    assert_eq!(csv(&engine, &format!("SELECT pass_at_k(correct, CAST(1 AS INT)) {from}")).await, ["0.5"]);
}

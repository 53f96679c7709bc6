//! `row_number() … = 1`, which becomes an aggregate.

use std::collections::BTreeMap;

use webdancer_query::Limits;

use crate::support::{Memory, csv};

const ROWS: &str = "WITH rows (key, rank, name) AS (VALUES
    ('a', 1, 'a1'), ('a', 3, 'a3'), ('a', 2, 'a2'), ('b', NULL, 'b?'), ('b', 5, 'b5'), (NULL, 7, 'n7'), (NULL, 8, 'n8'))";

async fn numbered(order: &str, rest: &str) -> Vec<String> {
    let engine = Memory::default().engine();
    let sql = format!(
        "{ROWS} SELECT key, name FROM
            (SELECT *, row_number() OVER (PARTITION BY key ORDER BY {order}) AS position FROM rows)
         WHERE {rest} ORDER BY key"
    );
    csv(&engine, &sql).await
}

#[tokio::test]
async fn each_key_gives_its_first_row_in_the_order_given() {
    assert_eq!(numbered("rank", "position = 1").await, ["a,a1", "b,b5", ",n7"]);
    assert_eq!(numbered("rank DESC", "position = 1").await, ["a,a3", "b,b?", ",n8"]);
    assert_eq!(numbered("rank DESC NULLS LAST", "1 = position").await, ["a,a3", "b,b5", ",n8"]);
    assert_eq!(numbered("rank % 2, name DESC", "position = 1").await, ["a,a2", "b,b5", ",n8"]);
}

#[tokio::test]
async fn other_conditions_are_on_the_first_rows_not_on_all() {
    assert_eq!(numbered("rank", "position = 1 AND name <> 'a1'").await, ["b,b5", ",n7"]);
    assert_eq!(numbered("rank", "position = 1 AND key = 'a'").await, ["a,a1"]);
}

#[tokio::test]
async fn what_is_not_of_the_form_stays_a_window() {
    assert_eq!(numbered("rank", "position = 2").await, ["a,a2", "b,b?", ",n8"]);
    assert_eq!(numbered("rank", "position <= 1 OR name = 'a3'").await, ["a,a1", "a,a3", "b,b5", ",n7"]);
    let engine = Memory::default().engine();
    let plan = async |sql: &str| csv(&engine, &format!("EXPLAIN {ROWS} {sql}")).await.join("\n");
    let first = "SELECT name FROM rows QUALIFY row_number() OVER (PARTITION BY key ORDER BY rank) = 1";
    let plan_of_first = plan(first).await;
    assert!(plan_of_first.contains("first_row") && !plan_of_first.contains("WindowAgg"), "{plan_of_first}");
    for other in [
        "SELECT name FROM rows QUALIFY row_number() OVER (ORDER BY rank) = 1",
        "SELECT name FROM rows QUALIFY rank() OVER (PARTITION BY key ORDER BY rank) = 1",
        "SELECT name FROM rows QUALIFY row_number() OVER (PARTITION BY key ORDER BY rank) = 2",
    ] {
        assert!(plan(other).await.contains("WindowAgg"), "{other}");
    }
}

/// `rows` with a list beside each, under the conditions that are left to them.
fn listed(rest: &str) -> String {
    format!(
        "{ROWS} SELECT key, name, names[1] AS listed FROM
            (SELECT *, row_number() OVER (PARTITION BY key ORDER BY rank) AS position
             FROM (SELECT *, make_array(name) AS names FROM rows))
         WHERE position = 1 AND {rest} ORDER BY key"
    )
}

#[tokio::test]
async fn where_lists_are_read_they_are_those_of_the_keys_that_are_asked_for() {
    let engine = Memory::default().engine();
    // The row of a key that the condition holds of need not be its first; null is a key.
    let rest = "name IN ('a1', 'b?', 'n7')";
    assert_eq!(csv(&engine, &listed(rest)).await, ["a,a1,a1", ",n7,n7"]);
    assert_eq!(csv(&engine, &listed("name = 'b?'")).await, Vec::<String>::new());
    assert_eq!(csv(&engine, &listed("(name = 'n7' OR rank = 5)")).await, ["b,b5,b5", ",n7,n7"]);
    // A condition on the list, or one that may fail, is looked at on first rows alone; others beside it are used.
    assert_eq!(csv(&engine, &listed("names[1] = 'a1'")).await, ["a,a1,a1"]);
    assert_eq!(csv(&engine, &listed("10 / (rank - 2) < 0 AND name <> 'b5'")).await, ["a,a1,a1"]);

    let plan = async |rest: &str| csv(&engine, &format!("EXPLAIN {}", listed(rest))).await.join("\n");
    assert!(plan(rest).await.contains("RightSemi Join: __asked_0 = "), "{}", plan(rest).await);
    for first_rows_alone in ["true", "names[1] = 'a1'", "10 / (rank - 2) < 0", "name <> 'b5'"] {
        assert!(!plan(first_rows_alone).await.contains("RightSemi"), "{first_rows_alone}");
    }
}

/// Of `count` numbers the largest of each key, by the engine and by hand.
async fn check(limits: Limits, count: i64, keys: i64) {
    let scatter = |i: i64| (i * 7_919) % 200_003;
    let engine = Memory::default().engine_with(limits);
    let sql = format!(
        "SELECT key, i FROM (
            SELECT value % {keys} AS key, value AS i, repeat('x', 20) AS text,
                row_number() OVER (PARTITION BY value % {keys} ORDER BY (value * 7919) % 200003 DESC) AS position
            FROM generate_series(1, {count}))
         WHERE position = 1 AND text = repeat('x', 20) ORDER BY key"
    );
    let mut largest: BTreeMap<i64, i64> = BTreeMap::new();
    for i in 1..=count {
        let held = largest.entry(i % keys).or_insert(i);
        if scatter(i) > scatter(*held) {
            *held = i;
        }
    }
    let expected: Vec<String> = largest.iter().map(|(key, i)| format!("{key},{i}")).collect();
    assert_eq!(csv(&engine, &sql).await, expected);
}

#[tokio::test]
async fn rows_that_lost_are_let_go_and_the_result_is_the_same() {
    check(Limits { target_partitions: 2, ..Limits::default() }, 200_000, 7).await;
}

#[tokio::test]
async fn more_keys_than_fit_into_memory_spill() {
    let limits = Limits { memory_bytes: 12 << 20, target_partitions: 1, ..Limits::default() };
    check(limits, 150_000, 140_000).await;
}

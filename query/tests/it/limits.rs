//! Memory, disk, time and rows.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;
use webdancer_query::{Limits, QueryError, QueryOptions};
use webdancer_schemas::kind::Kind;

use crate::support::{Memory, csv, error, rows_of, try_csv};

/// Sorts 40 MB.
const SORT: &str = "SELECT count(*), max(length(text)) FROM (
    SELECT row_number() OVER (ORDER BY md5(CAST(value AS VARCHAR))) AS position, text
    FROM (SELECT value, concat(repeat('x', 200), value) AS text FROM generate_series(1, 200000))
) WHERE position > 0";

fn small_memory() -> Limits {
    Limits { memory_bytes: 20 << 20, target_partitions: 1, ..Limits::default() }
}

#[tokio::test]
async fn a_sort_larger_than_memory_spills() {
    let engine = Memory::default().engine_with(small_memory());
    assert_eq!(csv(&engine, SORT).await, ["200000,206"]);
}

#[tokio::test]
async fn a_sort_of_wide_rows_larger_than_memory_spills() {
    // 80 MB in 40 MB.
    let limits = Limits { memory_bytes: 40 << 20, target_partitions: 1, batch_rows: 64, ..Limits::default() };
    let sql = "SELECT md5(CAST(value AS VARCHAR)) AS key, concat(repeat('x', 20000), value) AS text
        FROM generate_series(1, 4000) ORDER BY key";
    let engine = Memory::default().engine_with(limits);
    let mut result = engine.query(sql, &QueryOptions::default()).await.unwrap();
    let mut rows = 0;
    while let Some(batch) = result.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert_eq!(rows, 4_000);
}

#[tokio::test]
async fn a_sort_of_wide_rows_beside_others_spills_with_the_default_batches() {
    // 80 MB in 40 MB, in 4 partitions.
    let rows: Vec<_> =
        (0..1_000).map(|n| json!({"title": format!("{:x}", n * 7919 % 1000), "text": "x".repeat(20_000)})).collect();
    let batch = rows_of(Kind::Page, &rows);
    let pieces: Vec<_> = (0..1_000).step_by(10).map(|start| batch.slice(start, 10)).collect();
    let limits = Limits { memory_bytes: 40 << 20, target_partitions: 4, ..Limits::default() };
    let engine = Memory::default().with_partitions(Kind::Page, vec![pieces; 4]).engine_with(limits);
    let sql = "SELECT title, text, row_number() OVER () AS n FROM pages ORDER BY title";
    let mut result = engine.query(sql, &QueryOptions::default()).await.unwrap();
    let mut rows = 0;
    while let Some(batch) = result.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert_eq!(rows, 4_000);
}

#[tokio::test]
async fn a_query_that_can_neither_fit_nor_spill_says_which_limit() {
    let no_disk = Limits { memory_bytes: 8 << 20, spill_bytes: 1 << 10, target_partitions: 1, ..Limits::default() };
    let error = error(&Memory::default().engine_with(no_disk), SORT).await;
    assert!(matches!(error, QueryError::Limit { .. }), "{error:?}");
    assert!(error.to_string().contains("raise sql.memory_bytes or sql.spill_bytes"), "{error}");
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_stopped() {
    let engine = Memory::default().engine();
    let options = QueryOptions { timeout: Some(Duration::from_millis(200)), ..QueryOptions::default() };
    let endless = "SELECT count(*) FROM generate_series(1, 100000000000) AS a";
    let error = try_csv(&engine, endless, &options).await.unwrap_err();
    assert!(matches!(error, QueryError::Limit { .. }), "{error:?}");
    assert!(error.to_string().contains("took longer than it may"), "{error}");
    // The engine goes on.
    assert_eq!(csv(&engine, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn the_time_limit_covers_reading_the_result() {
    let engine = Memory::default().engine();
    let options = QueryOptions { timeout: Some(Duration::from_millis(400)), ..QueryOptions::default() };
    let sql = "SELECT value FROM generate_series(1, 1000000)";
    let mut result = engine.query(sql, &options).await.unwrap();
    result.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(matches!(result.next().await, Some(Err(QueryError::Limit { .. }))));
    assert!(result.next().await.is_none());
}

#[tokio::test]
async fn rows_beyond_the_limit_are_cut_and_said_to_be() {
    let engine = Memory::default().engine_with(Limits { max_rows: 1_000, ..Limits::default() });
    let read = async |count: u64, max_rows: Option<u64>| {
        let options = QueryOptions { max_rows, ..QueryOptions::default() };
        let sql = format!("SELECT value FROM generate_series(1, {count})");
        let mut result = engine.query(&sql, &options).await.unwrap();
        let rows: usize = result.read_all().await.unwrap().iter().map(|batch| batch.num_rows()).sum();
        assert_eq!(rows as u64, result.rows());
        (rows, result.truncated())
    };
    assert_eq!(read(999, None).await, (999, false));
    assert_eq!(read(1_000, None).await, (1_000, false));
    assert_eq!(read(1_001, None).await, (1_000, true));
    assert_eq!(read(100_000, None).await, (1_000, true));
    assert_eq!(read(100, Some(10)).await, (10, true));
    assert_eq!(read(100_000, Some(5_000)).await, (1_000, true));
    assert_eq!(read(100, Some(0)).await, (0, true));
}

#[tokio::test]
async fn an_error_while_rows_are_computed_ends_the_result() {
    let engine = Memory::default().engine();
    let sql = "SELECT 1 / (value - 20000) FROM generate_series(1, 100000)";
    let mut result = engine.query(sql, &QueryOptions::default()).await.unwrap();
    let error = result.read_all().await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("divide by zero"), "{error}");
    assert!(result.next().await.is_none());
    assert!(!result.truncated());
}

/// An eighth of it is 1 MiB, a 32nd 256 KiB.
fn eight_mebibytes() -> Limits {
    Limits { memory_bytes: 8 << 20, ..Limits::default() }
}

#[tokio::test]
async fn functions_that_make_much_of_little_are_bounded_before_they_allocate() {
    let engine = Memory::default().engine_with(eight_mebibytes());
    for sql in [
        "SELECT repeat('x', 2000000000)",
        "SELECT lpad('x', 2000000000)",
        "SELECT rpad('x', 300000, 'é')",
        "SELECT repeat('x', value * 1000) FROM generate_series(1, 1000)",
        "SELECT lpad('x', value * 1000) FROM generate_series(1, 1000)",
        "SELECT replace(repeat('x', 10000), 'x', repeat('y', 1000))",
        "SELECT regexp_replace(repeat('x', 10000), '', repeat('y', 1000), 'g')",
        "SELECT regexp_replace(repeat('x', 10000), '(x+)', repeat('\\1', 1000))",
        "SELECT regexp_match(repeat('x', 10000), repeat('(', 500) || 'x*' || repeat(')', 500))",
        "SELECT array_to_string(array_repeat('x', 1000), repeat('y', 10000))",
        "SELECT array_repeat(1, 2000000000)",
        "SELECT array_repeat(repeat('x', 100000), value) FROM generate_series(1, 20)",
        "SELECT list_repeat(value, 1000000) FROM generate_series(1, 10)",
        "SELECT array_resize([1], 2000000000, 7)",
        "SELECT array_replace_all(array_repeat('x', 1000), 'x', repeat('y', 10000))",
        "SELECT range(9000000000)",
        "SELECT generate_series(0, -9000000000, -1)",
        "SELECT range(TIMESTAMP '2000-01-01', TIMESTAMP '2100-01-01', INTERVAL '1 second')",
        "SELECT range(DATE '0001-01-01', DATE '9999-01-01', INTERVAL '1 day')",
        // A constant in every row.
        "SELECT concat(repeat('x', 100000), value) FROM generate_series(1, 8000)",
        "SELECT concat_ws(repeat('x', 100000), value, value) FROM generate_series(1, 8000)",
        "SELECT repeat('x', 100000) || value FROM generate_series(1, 8000)",
        "SELECT upper(repeat('x', 100000) || value) FROM generate_series(1, 8000)",
        "SELECT translate(CAST(value AS VARCHAR), '1', 'é') || repeat('x', 100000) FROM generate_series(1, 8000)",
        "SELECT [repeat('x', 100000), CAST(value AS VARCHAR)] FROM generate_series(1, 8000)",
        "SELECT repeat('x', 100000), value FROM generate_series(1, 8000)",
        "SELECT max(length(t)) FROM (SELECT repeat('x', 100000) AS t FROM unnest(range(0, 8000))) WHERE t > random()::text",
        "SELECT string_agg(CAST(value AS VARCHAR), repeat('x', 100000)) FROM generate_series(1, 8000)",
        // Ever twice as much.
        "WITH a AS (SELECT repeat('x', value) AS t FROM generate_series(60000, 60010)), b AS (SELECT t || t AS t FROM a),
              c AS (SELECT concat(t, t) AS t FROM b), d AS (SELECT t || t AS t FROM c) SELECT t || t FROM d",
    ] {
        let error = error(&engine, sql).await;
        assert!(matches!(error, QueryError::Limit { .. }), "{sql}: {error:?}");
        let message = error.to_string();
        assert!(message.contains(" bytes at once, more than the 1048576 that one call may"), "{sql}: {message}");
        assert!(message.contains("sql.memory_bytes"), "{message}");
    }
}

#[tokio::test]
async fn a_bounded_function_gives_what_it_gives_without_bounds() {
    let engine = Memory::default().engine_with(eight_mebibytes());
    for (sql, value) in [
        ("SELECT length(repeat('x', 100000))", "100000"),
        ("SELECT lpad('x', 3, 'é')", "ééx"),
        ("SELECT rpad(NULL, 3)", "\"\""),
        ("SELECT replace('abab', 'b', '123')", "a123a123"),
        ("SELECT regexp_replace('abab', '(b)', '<\\1>', 'g')", "a<b>a<b>"),
        ("SELECT translate('abab', 'b', 'é')", "aéaé"),
        ("SELECT 'a' || 'b' || 1", "ab1"),
        ("SELECT concat('a', NULL, 'b'), 'a' || NULL", "ab,"),
        ("SELECT [1, 2] || [3]", "\"[1,2,3]\""),
        ("SELECT concat_ws(', ', 'a', NULL, 'b')", "\"a, b\""),
        ("SELECT starts_with('abc', 'ab'), coalesce(NULL, 'x'), upper('é')", "true,x,É"),
        ("SELECT array_to_string(array_repeat('x', 3), '')", "xxx"),
        ("SELECT array_length(array_resize([1], 5, 7))", "5"),
        ("SELECT array_length(range(0, 10000, 1))", "10000"),
        ("SELECT array_length(generate_series(DATE '2020-01-01', DATE '2020-12-31', INTERVAL '1 month'))", "12"),
        ("SELECT sum(length(repeat('x', value))) FROM generate_series(1, 1000)", "500500"),
        // More than a share in a batch of 8,192 rows: in parts, and again with fewer rows.
        (
            "SELECT sum(length(regexp_replace(repeat('ab', value), 'b', 'c', 'g'))) FROM generate_series(1, 1000)",
            "1001000",
        ),
        ("SELECT sum(length(concat(repeat('x', 10000), value))) FROM generate_series(1, 1000)", "10002893"),
        ("SELECT count(DISTINCT repeat('x', 10000) || value) FROM generate_series(1, 200)", "200"),
        (
            "SELECT sum(length(t)) FROM (SELECT repeat('x', 20000) AS t, value FROM generate_series(1, 300)) WHERE value > 0",
            "6000000",
        ),
    ] {
        assert_eq!(csv(&engine, sql).await, [value], "{sql}");
    }
    let result = engine.query("SELECT 'a' || name FROM metrics", &QueryOptions::default()).await.unwrap();
    assert_eq!(result.schema().field(0).name(), "Utf8(\"a\") || metrics.name");
}

#[tokio::test]
async fn all_constants_of_a_statement_have_one_share() {
    let engine = Memory::default().engine_with(eight_mebibytes());
    let sum = |count: usize| {
        let lengths: Vec<String> = (0..count).map(|digit| format!("length(repeat('{digit}', 60000))")).collect();
        format!("SELECT {}", lengths.join(" + "))
    };
    assert_eq!(csv(&engine, &sum(4)).await, ["240000"]);
    let error = error(&engine, &sum(5)).await;
    assert!(matches!(error, QueryError::Limit { .. }), "{error:?}");
    assert!(error.to_string().contains("constants have 300040 bytes, more than the 262144 they may"), "{error}");
    // Each statement has its own.
    assert_eq!(csv(&engine, &sum(4)).await, ["240000"]);
}

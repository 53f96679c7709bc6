//! Memory, disk, time and rows.

use std::time::Duration;

use futures::StreamExt as _;
use webdancer_query::{Limits, QueryError, QueryOptions};

use crate::support::{Memory, csv, error, try_csv};

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

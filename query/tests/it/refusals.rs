//! What is refused, and in which words.

use serde_json::json;
use webdancer_query::{Limits, QueryError};
use webdancer_schemas::kind::Kind;

use crate::support::{Memory, csv, error};

#[tokio::test]
async fn statements_that_do_more_than_read_are_refused_by_name() {
    let engine = Memory::default().engine();
    for (sql, part) in [
        ("INSERT INTO qa VALUES (1)", "refused: INSERT INTO: SQL only reads here"),
        ("insert into qa select * from qa", "webdancer append"),
        ("UPDATE qa SET answer = 'x'", "refused: UPDATE"),
        ("DELETE FROM qa", "refused: DELETE FROM"),
        ("MERGE INTO qa USING pages ON true WHEN MATCHED THEN DELETE", "refused: MERGE INTO"),
        ("TRUNCATE TABLE qa", "refused: TRUNCATE TABLE"),
        ("CREATE TABLE t (a INT)", "refused: CREATE TABLE"),
        ("CREATE TABLE t AS SELECT 1", "refused: CREATE TABLE"),
        ("CREATE VIEW v AS SELECT 1", "refused: CREATE VIEW"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "external locations are not read"),
        ("CREATE FUNCTION f() RETURNS INT RETURN 1", "refused: CREATE FUNCTION"),
        ("CREATE SCHEMA s", "refused: CREATE SCHEMA"),
        ("DROP TABLE qa", "refused: DROP TABLE"),
        ("DROP VIEW turns", "refused: DROP VIEW"),
        ("ALTER TABLE qa ADD COLUMN x INT", "refused: ALTER TABLE"),
        ("COPY qa TO '/tmp/qa.csv'", "refused: COPY: SQL only reads here"),
        ("COPY (SELECT 1) TO 's3://bucket/x.parquet'", "webdancer sql --format"),
        ("SET datafusion.execution.batch_size = 1", "settings are flags and configuration"),
        ("RESET datafusion.execution.batch_size", "refused: RESET"),
        ("USE other", "refused: USE"),
        ("PREPARE p AS SELECT 1", "refused: PREPARE"),
        ("EXECUTE p", "refused: EXECUTE"),
        ("DEALLOCATE p", "refused: DEALLOCATE"),
        ("BEGIN", "refused: BEGIN"),
        ("COMMIT", "refused: COMMIT"),
        ("ROLLBACK", "refused: ROLLBACK"),
        ("GRANT SELECT ON qa TO you", "refused: GRANT"),
        ("ATTACH 'file.db' AS f", "external locations are not read"),
        ("LOAD 'library'", "refused: LOAD"),
        ("VACUUM qa", "webdancer maintain"),
        ("ANALYZE TABLE qa", "webdancer maintain"),
        ("CALL something()", "refused: CALL"),
        ("LOCK TABLES qa READ", "refused: LOCK"),
        // Hidden in what reads.
        ("EXPLAIN INSERT INTO qa VALUES (1)", "refused: INSERT INTO"),
        ("EXPLAIN COPY qa TO 'x'", "refused: COPY"),
        ("EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", "refused: CREATE TABLE"),
        ("WITH a AS (SELECT 1) INSERT INTO qa SELECT * FROM a", "refused: INSERT INTO"),
        ("SELECT * INTO t FROM qa", "refused: SELECT INTO"),
        ("SELECT * FROM qa FOR UPDATE", "refused: LOCK"),
        ("SELECT 1; DELETE FROM qa", "2 statements at once"),
        // Outside the lake.
        ("SELECT * FROM '/etc/passwd'", "no external locations"),
        ("SELECT * FROM 'data.parquet'", "no external locations"),
        ("SELECT * FROM \"s3://bucket/data.parquet\"", "no external locations"),
        ("SELECT * FROM read_parquet('/tmp/x.parquet')", "table function read_parquet"),
        ("SELECT * FROM read_csv('/tmp/x.csv')", "table function read_csv"),
        ("SELECT * FROM parquet_metadata('/tmp/x.parquet')", "table function parquet_metadata"),
        ("SELECT 1 UNION ALL SELECT * FROM glob('/tmp/*')", "table function glob"),
        ("SELECT (SELECT count(*) FROM read_json('x'))", "table function read_json"),
        ("DESCRIBE '/etc/passwd'", "no external locations"),
    ] {
        let error = error(&engine, sql).await;
        assert!(matches!(error, QueryError::Refused(_)), "{sql}: {error:?}");
        assert!(error.to_string().contains(part), "{sql}: {error}");
    }
}

#[tokio::test]
async fn mistakes_are_told_apart_from_refusals() {
    let engine = Memory::default().engine();
    for (sql, part) in [
        ("SELCT 1", "SQL syntax"),
        ("SELECT 1 FROM", "SQL syntax"),
        ("SELECT 'open", "SQL syntax"),
        ("SELECT nothing FROM qa", "nothing"),
        ("SELECT no_such_function(1)", "no_such_function"),
        ("SELECT * FROM at('turns', 5)", "give at('turns', …) a time"),
        ("SELECT * FROM at('qa', 'soon')", "neither a version (5) nor a time"),
        // Which tables there are is fixed.
        ("SELECT * FROM nowhere", "there is no table \"nowhere\"; SHOW TABLES lists them"),
        ("DESCRIBE nowhere", "there is no table \"nowhere\""),
        ("SELECT * FROM at('nowhere', 5)", "there is no table \"nowhere\""),
    ] {
        let error = error(&engine, sql).await;
        assert!(matches!(error, QueryError::Sql(_)), "{sql}: {error:?}");
        assert!(error.to_string().contains(part), "{sql}: {error}");
    }
    // A literal is read when the statement is planned, and is a value all the same.
    let cast = error(&engine, "SELECT CAST('x' AS INT)").await;
    assert!(matches!(cast, QueryError::Value(_)), "{cast:?}");
    assert!(cast.to_string().contains("Cannot cast string 'x'"), "{cast}");
    let error = error(&engine, "SELECT * FROM pin('nothing')").await;
    assert!(matches!(error, QueryError::NotFound(_)), "{error:?}");
    assert!(error.to_string().contains("no pin nothing"), "{error}");
}

#[tokio::test]
async fn a_value_that_cannot_be_computed_is_no_mistake_in_the_statement() {
    let rows = [json!({"qa_id": "a", "question": "1"}), json!({"qa_id": "b", "question": "two"})];
    let engine = Memory::default().with(Kind::Qa, &rows).engine();
    for (sql, message) in [
        ("SELECT 1 / 0", "running the query: Divide by zero error; dividing by nullif(…, 0) gives null instead"),
        ("SELECT 1 % (value - 1) FROM generate_series(1, 2)", "running the query: Divide by zero error; dividing"),
        (
            "SELECT CAST(value AS TINYINT) FROM generate_series(127, 128)",
            "running the query: Cast error: Can't cast value 128 to type Int8; TRY_CAST gives null instead",
        ),
        (
            "SELECT CAST(question AS BIGINT) FROM qa",
            "running the query: Cast error: Cannot cast string 'two' to value of Int64 type; TRY_CAST gives null instead",
        ),
        ("SELECT sum(CAST(question AS DATE)::INT) FROM qa", "running the query: Cast error: Cannot cast string '1' to"),
    ] {
        let error = error(&engine, sql).await;
        assert!(matches!(error, QueryError::Value(_)), "{sql}: {error:?}");
        assert!(error.to_string().starts_with(message), "{sql}: {error}");
    }
    assert_eq!(csv(&engine, "SELECT TRY_CAST(question AS BIGINT), 1 / nullif(0, 0) FROM qa").await, ["1,", ","]);
}

#[tokio::test]
async fn deep_and_long_statements_are_refused_without_overflow() {
    let engine = Memory::default().engine_with(Limits { max_sql_bytes: 4 << 20, ..Limits::default() });
    let parentheses = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let subqueries = format!("SELECT {}1{}", "(SELECT ".repeat(100_000), ")".repeat(100_000));
    let chain = format!("SELECT 1{}", " + 1".repeat(100_000));
    let nots = format!("SELECT {}true", "NOT ".repeat(4_000));
    let cases = format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(1_000), " END".repeat(1_000));
    for sql in [parentheses, subqueries, chain, nots, cases] {
        let error = error(&engine, &sql).await;
        assert!(matches!(error, QueryError::Limit { .. }), "{error:?}");
    }
    // What the limits allow is planned and run.
    let sum = format!("SELECT value{} FROM generate_series(1, 1)", " + value".repeat(256));
    assert_eq!(csv(&engine, &sum).await, ["257"]);
    let union = format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(256));
    assert_eq!(csv(&engine, &union).await.len(), 257);
    let subqueries = format!("SELECT * FROM {}qa{}", "(SELECT * FROM ".repeat(60), ")".repeat(60));
    assert_eq!(csv(&engine, &subqueries).await.len(), 0);
    let nested = format!("SELECT {}1{}", "(".repeat(60), ")".repeat(60));
    assert_eq!(csv(&engine, &nested).await, ["1"]);
}

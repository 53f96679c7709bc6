//! Pins over tables in memory: identity, refusals, files, differences.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use serde_json::{Value, json};
use webdancer_query::pin::{self, Change, Recomputed};
use webdancer_query::{Limits, QueryEngine, QueryError, output::Format};
use webdancer_schemas::kind::Kind;

use crate::support::{Memory, batch_of, csv, epoch, rows_of};
use webdancer_schemas::table::table_schema;

fn metric(name: &str, step: i64, value: f64) -> Value {
    json!({"name": name, "step": step, "value": value})
}

fn metrics(count: i64) -> Vec<Value> {
    (0..count)
        .map(|i| {
            let mut row = metric(["loss", "reward", "entropy"][(i % 3) as usize], i, 1.0 / (i as f64 + 3.0));
            row["parents"] = json!([format!("p{}", i % 5), "q"]);
            row["extra"] = if i % 4 == 0 { Value::Null } else { json!(format!("{{\"i\": {i}}}")) };
            row
        })
        .collect()
}

async fn digest(engine: &QueryEngine, sql: &str) -> String {
    pin::create(engine, "x", sql, epoch()).await.unwrap().manifest.digest
}

/// More than two batches, and with nothing in common with 271.
const ROWS: usize = 160;

/// The same rows in other files: order of rows, batches, partitions, string types.
fn layouts() -> Vec<Memory> {
    let whole = rows_of(Kind::Metric, &metrics(ROWS as i64));
    let shuffled: Vec<usize> = (0..ROWS).map(|i| (i * 271 + 13) % ROWS).collect();
    let indices = arrow::array::UInt32Array::from_iter_values(shuffled.iter().map(|i| *i as u32));
    let shuffled = arrow::compute::take_record_batch(&whole, &indices).unwrap();
    let pieces = |batch: &RecordBatch, size: usize| -> Vec<RecordBatch> {
        (0..ROWS).step_by(size).map(|start| batch.slice(start, size.min(ROWS - start))).collect()
    };
    let views = with_strings(&whole, &DataType::Utf8View);
    let dictionaries = with_strings(&shuffled, &DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into()));
    [
        vec![vec![whole.clone()]],
        vec![vec![shuffled.clone()]],
        vec![pieces(&whole, 7)],
        pieces(&shuffled, 23).into_iter().map(|batch| vec![batch]).collect(),
        vec![vec![views]],
        vec![pieces(&dictionaries, 40), Vec::new()],
    ]
    .map(|partitions| Memory::default().with_partitions(Kind::Metric, partitions))
    .into()
}

fn with_strings(batch: &RecordBatch, data_type: &DataType) -> RecordBatch {
    let schema = batch.schema();
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if field.data_type() == &DataType::Utf8 {
            let field = field.as_ref().clone().with_data_type(data_type.clone());
            (arrow::compute::cast(column, data_type).unwrap(), field)
        } else {
            (column.clone(), field.as_ref().clone())
        }
    });
    let (columns, fields): (Vec<_>, Vec<_>) = columns.unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

#[tokio::test]
async fn the_same_rows_have_the_same_digest_from_any_files() {
    for sql in [
        "SELECT * FROM metrics",
        "SELECT * FROM metrics ORDER BY name DESC",
        "SELECT name, step, parents FROM metrics",
        "SELECT parents, extra FROM metrics ORDER BY parents DESC NULLS FIRST",
        "SELECT DISTINCT name, extra FROM metrics",
        "SELECT name, count(*) AS n, max(step) AS last FROM metrics GROUP BY name",
        // Several rows of one event id, in no order but that of their other columns.
        "SELECT b.step, a.event_id, b.parents FROM metrics a JOIN metrics b ON a.name = b.name",
        "SELECT b.step, a.event_id FROM metrics a JOIN metrics b ON a.name = b.name ORDER BY b.name",
        "SELECT b.step, a.event_id FROM metrics a JOIN metrics b ON a.name = b.name LIMIT 9",
        "SELECT step, event_id FROM metrics QUALIFY row_number() OVER (PARTITION BY name ORDER BY extra) = 1",
        // Floats do not add up the same in another order.
        "SELECT name, sum(value) AS sum, avg(value) AS avg, stddev(value) AS deviation FROM metrics GROUP BY name",
        "SELECT a.name, sum(a.value * b.value) AS s FROM metrics a JOIN metrics b ON a.step = b.step + 1 GROUP BY a.name",
        // These depend on the order of rows, too.
        "SELECT name FROM metrics LIMIT 7",
        "SELECT array_agg(step) AS steps FROM metrics",
        "SELECT count(*) AS n, max(step) AS last FROM (SELECT * FROM metrics LIMIT 10)",
        "SELECT step, row_number() OVER () AS position FROM metrics",
        "SELECT step, sum(value) OVER (PARTITION BY name ORDER BY extra) AS running FROM metrics",
    ] {
        let mut digests = BTreeSet::new();
        for partitions in [1, 8] {
            for memory in layouts() {
                let limits = Limits { target_partitions: partitions, batch_rows: 64, ..Limits::default() };
                digests.insert(digest(&memory.engine_with(limits), sql).await);
            }
        }
        assert_eq!(digests.len(), 1, "{sql}: {digests:?}");
    }
}

/// The digest is written down: it must be the same on the next machine and in the next release.
#[tokio::test]
async fn the_digest_is_what_it_always_was() {
    let engine = Memory::default().with(Kind::Metric, &metrics(20)).engine();
    let sql = "SELECT name, count(*) AS n, sum(value) AS total, min(event_time) AS first FROM metrics GROUP BY name";
    assert_eq!(digest(&engine, sql).await, "eebf9111f2f4381e750e163de139081c1a2b6227fef75d84f5d060f1e9da0aae");
}

#[tokio::test]
async fn any_difference_gives_another_digest() {
    let of = async |rows: &[Value], sql: &str| digest(&Memory::default().with(Kind::Metric, rows).engine(), sql).await;
    let all = "SELECT name, step, value FROM metrics";
    let mut digests = vec![of(&metrics(9), all).await];
    let mut changed = metrics(9);
    changed[3]["value"] = json!(0.25);
    digests.push(of(&changed, all).await);
    digests.push(of(&metrics(8), all).await);
    for sql in [
        "SELECT name, step, value AS v FROM metrics",
        "SELECT step, name, value FROM metrics",
        "SELECT name, step, CAST(value AS FLOAT) AS value FROM metrics",
        "SELECT name, step, NULLIF(value, 0.2) AS value FROM metrics",
        "SELECT name, step, value FROM metrics ORDER BY step DESC",
        "SELECT name, step, value, extra FROM metrics",
    ] {
        digests.push(of(&metrics(9), sql).await);
    }
    assert_eq!(digests.iter().collect::<BTreeSet<_>>().len(), digests.len());
}

#[tokio::test]
async fn a_pin_is_made_once_and_its_name_means_it_forever() {
    let engine = Memory::default().with(Kind::Metric, &metrics(5)).engine();
    let sql = "SELECT step FROM metrics";
    let first = pin::create(&engine, "steps", sql, epoch()).await.unwrap();
    assert!(first.new);
    assert_eq!((first.manifest.rows, first.manifest.files.len()), (5, 1));
    assert_eq!(first.manifest.tables["metrics"].version, 0);
    assert_eq!(first.manifest.schema, json!([{"name": "step", "type": "int64"}]));
    let again = pin::create(&engine, "steps", sql, epoch()).await.unwrap();
    assert!(!again.new);
    assert_eq!(again.manifest.digest, first.manifest.digest);
    // Other SQL, the same rows: the same pin under a second name.
    let other = pin::create(&engine, "same", "SELECT step FROM metrics WHERE step >= 0", epoch()).await.unwrap();
    assert_eq!((other.new, other.manifest.digest.clone()), (false, first.manifest.digest.clone()));
    assert_eq!(other.manifest.files, first.manifest.files);
    // Each name keeps its own query, and who makes it again gets the one that it was made with.
    let mut definitions = Vec::new();
    for name in ["steps", "same"] {
        definitions.push(engine.catalog().find_pin(name).await.unwrap().definition);
    }
    assert_eq!(definitions, ["SELECT step FROM metrics", "SELECT step FROM metrics WHERE step >= 0"]);
    let again = pin::create(&engine, "same", sql, epoch()).await.unwrap();
    assert_eq!(again.manifest.definition, "SELECT step FROM metrics WHERE step >= 0");
    let taken = pin::create(&engine, "steps", "SELECT step + 1 AS step FROM metrics", epoch()).await.unwrap_err();
    assert!(matches!(taken, QueryError::Conflict(_)), "{taken:?}");
    assert!(taken.to_string().contains("a pin never changes"), "{taken}");
}

#[tokio::test]
async fn a_name_is_checked_before_the_query_runs() {
    let memory = Memory::default().with(Kind::Metric, &metrics(3));
    let engine = memory.engine();
    let digest = "0123456789abcdef".repeat(4);
    for (name, part) in [
        ("", "is no name for a pin: give 1 to 128"),
        (".hidden", "not starting with '.'"),
        ("a/b", "is no name for a pin"),
        (&"n".repeat(129), "is no name for a pin"),
        (&digest, "it would be taken for a digest"),
    ] {
        let error = pin::create(&engine, name, "SELECT 1 / 0 AS never", epoch()).await.unwrap_err();
        assert!(matches!(error, QueryError::Sql(_)), "{error:?}");
        assert!(error.to_string().contains(part), "{name:?}: {error}");
    }
    assert_eq!(pin::create(&engine, &digest[1..], "SELECT 1 AS n", epoch()).await.unwrap().manifest.rows, 1);
}

#[tokio::test]
async fn a_pin_named_as_a_table_or_view_is_another_thing_than_it() {
    let memory = Memory::default().with(Kind::Metric, &metrics(3));
    let engine = memory.engine();
    for name in ["metrics", "turns", "qa"] {
        pin::create(&engine, name, &format!("SELECT 7 AS n, '{name}' AS name"), epoch()).await.unwrap();
        assert_eq!(csv(&engine, &format!("SELECT n FROM pin('{name}')")).await, ["7"]);
    }
    assert_eq!(csv(&engine, "SELECT count(*) FROM metrics").await, ["3"]);
    assert_eq!(csv(&engine, "SELECT count(*) FROM turns, pin('turns')").await, ["0"]);
    assert_eq!(csv(&engine, "SELECT count(*) FROM metrics, pin('metrics')").await, ["3"]);
}

#[tokio::test]
async fn what_changes_by_itself_is_refused() {
    let engine = Memory::default().with(Kind::Metric, &metrics(5)).engine();
    for (sql, part) in [
        ("SELECT now() AS t", "now()"),
        ("SELECT current_date AS t", "current_date()"),
        ("SELECT current_time AS t", "current_time()"),
        ("SELECT current_timestamp AS t", "now()"),
        ("SELECT random() AS r", "random()"),
        ("SELECT step FROM metrics WHERE random() < 0.5", "random()"),
        ("SELECT step FROM metrics ORDER BY random()", "random()"),
        ("SELECT uuid() AS u", "uuid()"),
        ("SELECT version() AS v", "version()"),
        ("SELECT step FROM metrics WHERE step IN (SELECT CAST(random() AS BIGINT))", "random()"),
        ("SELECT sum(value * random()) AS s FROM metrics", "random()"),
        ("WITH a AS (SELECT now() AS t) SELECT count(*) AS n FROM a", "now()"),
        ("SELECT table_name FROM information_schema.tables", "information_schema.tables"),
        ("SHOW TABLES", "information_schema.tables"),
        ("EXPLAIN SELECT 1", "a pin is made of a query"),
        ("DESCRIBE metrics", "a pin is made of a query"),
        ("DELETE FROM metrics", "DELETE FROM"),
    ] {
        let error = pin::create(&engine, "x", sql, epoch()).await.unwrap_err();
        assert!(matches!(error, QueryError::Refused(_)), "{sql}: {error:?}");
        assert!(error.to_string().contains(part), "{sql}: {error}");
    }
    for (sql, part) in [
        ("SELECT a.step, b.step FROM metrics a JOIN metrics b ON a.step = b.step", "two columns are named \"step\""),
        ("SELECT extra->'i' AS i FROM metrics", "column \"i\" is of type Union"),
        ("SELECT INTERVAL '1 day' AS span", "column \"span\" is of type Interval"),
    ] {
        let error = pin::create(&engine, "x", sql, epoch()).await.unwrap_err();
        assert!(error.to_string().contains(part), "{sql}: {error}");
    }
}

#[tokio::test]
async fn wide_rows_that_do_not_fit_into_memory_are_pinned() {
    // 60 MB in 32 MB.
    let rows: Vec<Value> = (0..3_000)
        .map(|step| {
            let mut row = metric("loss", (step * 271) % 3_000, 0.5);
            row["extra"] = json!(format!("{{\"padding\": \"{}\"}}", "x".repeat(20_000)));
            row
        })
        .collect();
    let limits = Limits { memory_bytes: 32 << 20, target_partitions: 2, batch_rows: 32, ..Limits::default() };
    let halves = rows.chunks(1_500);
    let partitions = halves.map(|half| half.chunks(32).map(|rows| rows_of(Kind::Metric, rows)).collect()).collect();
    let engine = Memory::default().with_partitions(Kind::Metric, partitions).engine_with(limits);
    let created = pin::create(&engine, "wide", "SELECT * FROM metrics", epoch()).await.unwrap();
    assert_eq!(created.manifest.rows, 3_000);
}

#[tokio::test]
async fn files_are_of_bounded_size_and_read_back_in_order() {
    let limits = Limits { pin_file_bytes: 20 << 10, ..Limits::default() };
    let engine = Memory::default().with(Kind::Metric, &metrics(30_000)).engine_with(limits);
    let sql = "SELECT event_id, step FROM metrics ORDER BY step DESC";
    let manifest = pin::create(&engine, "many", sql, epoch()).await.unwrap().manifest;
    assert!(manifest.files.len() > 2, "{:?}", manifest.files);
    assert_eq!(manifest.files.iter().map(|file| file.rows).sum::<u64>(), 30_000);
    let bytes = pin::export(engine.catalog(), &manifest, Format::Ndjson, Vec::new()).await.unwrap().0;
    let text = String::from_utf8(bytes).unwrap();
    let steps: Vec<i64> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_i64().unwrap()).collect();
    assert_eq!(steps, (0..30_000).rev().collect::<Vec<_>>());
    let parquet = pin::export(engine.catalog(), &manifest, Format::Parquet, Vec::new()).await.unwrap().0;
    assert_eq!(&parquet[..4], b"PAR1");
}

#[tokio::test]
async fn rows_of_gated_benchmarks_leave_by_no_export() {
    let engine = Memory::default().with(Kind::Metric, &metrics(3)).engine();
    let of = async |name: &str, gated: &str| {
        let sql = format!("SELECT event_id, step, {gated} FROM metrics ORDER BY step");
        let manifest = pin::create(&engine, name, &sql, epoch()).await.unwrap().manifest;
        let (bytes, left_out) = pin::export(engine.catalog(), &manifest, Format::Ndjson, Vec::new()).await.unwrap();
        (String::from_utf8(bytes).unwrap().lines().count(), left_out)
    };
    assert_eq!(of("a", "CASE step WHEN 1 THEN true WHEN 2 THEN false END AS restricted").await, (2, 1));
    let attributes = "CASE step WHEN 0 THEN '{\"restricted\": true}' WHEN 1 THEN '{\"restricted\": false}' \
        ELSE '{\"a\": \"restricted\"}' END AS attributes";
    assert_eq!(of("b", attributes).await, (2, 1));
    assert_eq!(of("c", "step AS other").await, (3, 0));
}

#[tokio::test]
async fn verify_reads_every_file_and_runs_the_query_again() {
    let engine = Memory::default().with(Kind::Metric, &metrics(9)).with(Kind::Metric, &metrics(20)).engine();
    let sql = "SELECT m.* FROM metrics m JOIN at('metrics', 0) AS old ON old.step = m.step LEFT JOIN qa ON false";
    let manifest = pin::create(&engine, "x", sql, epoch()).await.unwrap().manifest;
    let versions: Vec<(&str, u64)> =
        manifest.tables.iter().map(|(name, table)| (name.as_str(), table.version)).collect();
    assert_eq!(versions, [("metrics", 1), ("metrics@0", 0)]);
    let good = pin::verify(&engine, "x").await.unwrap();
    assert!(good.passed() && good.problems.is_empty(), "{good:?}");
    assert_eq!(good.recomputed, Recomputed::Same);

    // A byte of a file differs.
    let file = &manifest.files[0];
    let bytes = engine.catalog().read_pin_file(&manifest.digest, &file.path).await.unwrap();
    let mut damaged = bytes.to_vec();
    damaged[bytes.len() / 2] ^= 1;
    engine.catalog().put_pin_file(&manifest.digest, &file.path, damaged.into()).await.unwrap();
    let bad = pin::verify(&engine, "x").await.unwrap();
    assert!(!bad.passed() && bad.problems[0].contains("SHA-256"), "{bad:?}");
    let error = pin::export(engine.catalog(), &manifest, Format::Csv, Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("the manifest says"), "{error}");
    engine.catalog().put_pin_file(&manifest.digest, &file.path, bytes).await.unwrap();

    // The manifest names a version that is gone, a query that gives other rows, a digest that is another's.
    let altered = async |change: &dyn Fn(&mut webdancer_query::PinManifest)| {
        let mut other = manifest.clone();
        other.name = "altered".to_string();
        change(&mut other);
        engine.catalog().commit_pin(&other).await.unwrap();
        pin::verify(&engine, "altered").await.unwrap()
    };
    let gone = altered(&|pin| pin.tables.get_mut("metrics").unwrap().version = 7).await;
    assert!(gone.passed(), "{gone:?}");
    assert_eq!(gone.recomputed, Recomputed::NotPossible("no version 7".to_string()));
    let other_rows = altered(&|pin| pin.definition = "SELECT * FROM metrics".to_string()).await;
    assert!(!other_rows.passed() && other_rows.problems.is_empty());
    assert!(matches!(other_rows.recomputed, Recomputed::Differs { .. }));
    let missing = altered(&|pin| pin.files[0].path = "part-9.parquet".to_string()).await;
    assert_eq!(missing.problems, ["part-9.parquet is missing"]);
}

#[tokio::test]
async fn a_pin_without_rows_is_a_pin() {
    let engine = Memory::default().engine();
    let manifest = pin::create(&engine, "none", "SELECT qa_id, entity_chain FROM qa", epoch()).await.unwrap().manifest;
    assert_eq!((manifest.rows, manifest.files.len()), (0, 1));
    assert!(pin::verify(&engine, "none").await.unwrap().passed());
    assert_eq!(crate::support::csv(&engine, "SELECT count(*) FROM pin('none')").await, ["0"]);
}

#[tokio::test]
async fn differences_are_rows_in_out_and_changed() {
    let old = metrics(6);
    let mut new = metrics(7);
    new.remove(1);
    new[1]["value"] = json!(9.0);
    let schema = table_schema(Kind::Metric);
    let ids = |rows: &[Value], skipped: Option<usize>| -> RecordBatch {
        let mut batch_rows = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let number = if skipped.is_some_and(|skipped| index >= skipped) { index + 1 } else { index };
            let mut row = row.clone();
            row["event_id"] = json!(format!("e{number}"));
            row["event_time"] = json!("2026-01-01T00:00:00Z");
            for name in ["source", "log_topic"] {
                row[name] = json!("s");
            }
            row["log_partition"] = json!(0);
            row["log_offset"] = json!(0);
            batch_rows.push(row);
        }
        batch_of(&schema, &batch_rows)
    };
    let engine = Memory::default()
        .with_partitions(Kind::Metric, vec![vec![ids(&old, None)]])
        .with_partitions(Kind::Metric, vec![vec![ids(&new, Some(1))]])
        .engine();
    let pinned = async |name: &str, sql: &str| pin::create(&engine, name, sql, epoch()).await.unwrap().manifest;
    let a = pinned("a", "SELECT event_id, name, step, value FROM at('metrics', 0)").await;
    let b = pinned("b", "SELECT event_id, name, step, value, extra FROM metrics").await;

    let diff = pin::diff(engine.catalog(), &a, &b, &[], 10).await.unwrap();
    assert_eq!((diff.rows_in, diff.rows_out, diff.changed, diff.same), (1, 1, 1, 4));
    assert_eq!((diff.columns_in, diff.columns_out), (vec!["extra".to_string()], vec![]));
    assert_eq!(diff.key, ["event_id"]);
    let examples: Vec<(Change, Value, Vec<String>)> =
        diff.examples.into_iter().map(|row| (row.change, row.row, row.columns)).collect();
    assert_eq!(
        examples,
        [
            (Change::In, json!({"event_id": "e6"}), vec![]),
            (Change::Out, json!({"event_id": "e1"}), vec![]),
            (Change::Changed, json!({"event_id": "e2"}), vec!["value".to_string()]),
        ]
    );

    // By a key of one's own; without any key, rows are matched whole.
    let by_step = pin::diff(engine.catalog(), &a, &b, &["step".to_string()], 0).await.unwrap();
    assert_eq!((by_step.rows_in, by_step.rows_out, by_step.changed, by_step.same), (1, 1, 1, 4));
    assert!(by_step.examples.is_empty());
    let not_unique = pin::diff(engine.catalog(), &a, &b, &["name".to_string()], 0).await.unwrap_err();
    assert!(not_unique.to_string().contains("have the same name; name more key columns"), "{not_unique}");
    let missing = pin::diff(engine.catalog(), &a, &b, &["extra".to_string()], 0).await.unwrap_err();
    assert!(missing.to_string().contains("\"extra\" is not in both"), "{missing}");
    let c = pinned("c", "SELECT name FROM at('metrics', 0)").await;
    let d = pinned("d", "SELECT name FROM metrics").await;
    let whole = pin::diff(engine.catalog(), &c, &d, &[], 10).await.unwrap();
    assert_eq!((whole.rows_in, whole.rows_out, whole.changed, whole.same), (1, 1, 0, 5));
    assert_eq!(whole.examples[0].row, json!({"name": "loss"}));
    let none = pin::diff(engine.catalog(), &a, &a, &[], 10).await.unwrap();
    assert_eq!((none.rows_in, none.rows_out, none.changed, none.same), (0, 0, 0, 6));
}

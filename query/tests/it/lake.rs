//! Over a lake on disk: versions, pins, and what survives maintenance.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use webdancer_lake::append::Part;
use webdancer_lake::maintain::MaintainOptions;
use webdancer_lake::{Lake, LakeOptions};
use webdancer_query::pin::{self, Recomputed};
use webdancer_query::{Limits, PinManifest, QueryEngine, QueryError};
use webdancer_schemas::kind::Kind;

use crate::support::{csv, epoch, error, rows_of};

fn metrics(from: i64, to: i64) -> Vec<Value> {
    (from..to)
        .map(|i| {
            json!({"event_id": format!("00000000-0000-7000-8000-{:012}", (i * 37) % 1000), "name": "loss", "step": i,
                   "value": 1.0 / (i as f64 + 3.0), "extra": "{\"k\": \"v\"}"})
        })
        .collect()
}

/// Rows 0 to 60 in commits of these sizes.
async fn lake(folder: &tempfile::TempDir, commits: &[i64]) -> Lake {
    let lake = Lake::open(folder.path().to_str().unwrap(), LakeOptions::default()).unwrap();
    let mut table = lake.table_for_writing(Kind::Metric).await.unwrap();
    let mut next = 0;
    for rows in commits {
        let batch = rows_of(Kind::Metric, &metrics(next, next + rows));
        let from = (next > 0).then(|| next - 1);
        next += rows;
        let part = Part { app_id: "test".into(), from, to: next - 1, fingerprint: None, batches: vec![batch] };
        table.append(&[part]).await.unwrap();
    }
    lake
}

fn engine(lake: &Lake, partitions: usize) -> QueryEngine {
    let limits = Limits { target_partitions: partitions, ..Limits::default() };
    QueryEngine::new(Arc::new(lake.clone()), limits).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_gone_are_stored_again_with_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, &[20]).await;
    let engine = engine(&lake, 1);
    let sql = "SELECT step FROM metrics";
    let pinned = pin::create(&engine, "one", sql, epoch()).await.unwrap().manifest;
    let file = folder.path().join("pins").join(&pinned.digest).join(&pinned.files[0].path);
    for name in ["one", "two"] {
        std::fs::remove_file(&file).unwrap();
        let again = pin::create(&engine, name, sql, epoch()).await.unwrap().manifest;
        assert_eq!(again.files, pinned.files);
        assert_eq!(csv(&engine, &format!("SELECT count(*) FROM pin('{name}')")).await, ["20"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_versions_and_pins_of_a_lake() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, &[20, 20, 20]).await;
    let engine = engine(&lake, 2);
    assert_eq!(csv(&engine, "SELECT count(*), sum(step), min(extra->>'k') FROM metrics").await, ["60,1770,v"]);
    assert_eq!(csv(&engine, "SELECT count(*) FROM qa").await, ["0"]);
    assert_eq!(csv(&engine, "SELECT count(*) FROM at('metrics', 2)").await, ["40"]);
    assert!(matches!(error(&engine, "SELECT * FROM at('metrics', 99)").await, QueryError::NotFound(_)));

    let sql = "SELECT event_id, step, value FROM metrics WHERE step % 2 = 0";
    let made = pin::create(&engine, "even", sql, epoch()).await.unwrap();
    assert!(made.new && !pin::create(&engine, "even", sql, epoch()).await.unwrap().new);
    assert_eq!(made.manifest.rows, 30);
    assert_eq!(pin::manifest_sha256(engine.catalog(), &made.manifest).await.unwrap().len(), 64);
    assert_eq!(csv(&engine, "SELECT count(*), max(step) FROM pin('even')").await, ["30,58"]);
    let prefix = &made.manifest.digest[..12];
    assert_eq!(csv(&engine, &format!("SELECT count(*) FROM pin('{prefix}')")).await, ["30"]);

    // The same rows by another query: one dataset, two manifests.
    let evenly = "SELECT event_id, step, value FROM metrics WHERE step & 1 = 0";
    let other = pin::create(&engine, "evenly", evenly, epoch()).await.unwrap();
    assert_eq!((other.new, &other.manifest.digest), (false, &made.manifest.digest));
    assert_eq!(other.manifest.files, made.manifest.files);
    for (name, definition) in [("even", sql), ("evenly", evenly), (prefix, sql)] {
        assert_eq!(lake.find_pin(name).await.unwrap().definition, definition, "{name}");
    }
    let sha256 = async |pin: &PinManifest| pin::manifest_sha256(engine.catalog(), pin).await.unwrap();
    assert_ne!(sha256(&made.manifest).await, sha256(&other.manifest).await);
    let verified = pin::verify(&engine, "evenly").await.unwrap();
    assert!(verified.passed() && verified.manifest.definition == evenly, "{verified:?}");
    let taken = pin::create(&engine, "even", "SELECT step FROM metrics", epoch()).await.unwrap_err();
    assert!(matches!(taken, QueryError::Conflict(_)), "{taken:?}");

    // Compaction and vacuum leave the pin and the version that it names.
    let options = MaintainOptions { vacuum_older_than: Some(Duration::ZERO), ..MaintainOptions::default() };
    lake.maintain(Kind::Metric, &options).await.unwrap();
    let verified = pin::verify(&engine, "even").await.unwrap();
    assert!(verified.passed(), "{verified:?}");
    assert_eq!(verified.recomputed, Recomputed::Same);

    // When the table is gone altogether, the files still are the dataset.
    std::fs::remove_dir_all(folder.path().join("tables")).unwrap();
    let reopened = Lake::open(folder.path().to_str().unwrap(), LakeOptions::default()).unwrap();
    let verified = pin::verify(&super::lake::engine(&reopened, 2), "even").await.unwrap();
    assert!(verified.problems.is_empty(), "{verified:?}");
    assert_ne!(verified.recomputed, Recomputed::Same);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_long_texts_of_other_runs_are_not_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().to_str().unwrap(), LakeOptions::default()).unwrap();
    let row = |id: &str, run: &str| json!({"trajectory_id": id, "run_id": run, "turn_observation": [id]});
    let batch = rows_of(Kind::Trajectory, &[row("t2", "b"), row("t1", "a"), row("t3", "b"), row("t4", "b")]);
    let part = Part { app_id: "test".into(), from: None, to: 0, fingerprint: None, batches: vec![batch] };
    lake.table_for_writing(Kind::Trajectory).await.unwrap().append(&[part]).await.unwrap();
    let engine = engine(&lake, 2);
    let sql = "SELECT trajectory_id, turn_observation[1] AS seen FROM current_trajectories WHERE run_id = 'a'";
    assert_eq!(csv(&engine, sql).await, ["t1,t1"]);
    // Of four rows in one page, all but one are left out by their ids before their observations are looked at.
    let plan = csv(&engine, &format!("EXPLAIN ANALYZE {sql}")).await.join("\n");
    assert!(plan.contains("join_type=RightSemi") && plan.contains("pushdown_rows_pruned=3"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_lake_with_the_same_rows_has_the_same_digests() {
    let mut digests = std::collections::BTreeSet::new();
    for (commits, partitions, compact) in [(&[60][..], 1, false), (&[7, 20, 33], 8, false), (&[1, 58, 1], 3, true)] {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(&folder, commits).await;
        if compact {
            lake.maintain(Kind::Metric, &MaintainOptions::default()).await.unwrap();
        }
        let sql = "SELECT name, sum(value) AS total, array_agg(step) AS steps FROM metrics GROUP BY name";
        digests.insert(pin::create(&engine(&lake, partitions), "x", sql, epoch()).await.unwrap().manifest.digest);
    }
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_anew_under_a_pins_name_is_not_held_against_the_pin() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, &[20, 20]).await;
    let sql = "SELECT event_id, step, value FROM metrics";
    let made = pin::create(&engine(&lake, 2), "old", sql, epoch()).await.unwrap().manifest;
    assert_eq!(made.tables["metrics"].id.as_ref().map(String::len), Some(36));

    std::fs::remove_dir_all(folder.path().join("tables")).unwrap();
    let anew = self::lake(&folder, &[5, 5, 5]).await;
    let verified = pin::verify(&engine(&anew, 2), "old").await.unwrap();
    assert_eq!(verified.recomputed, Recomputed::NotPossible("table metrics was made anew".to_string()));
    assert!(verified.passed() && verified.problems.is_empty());

    // A manifest of a version without ids is read, and says what it says.
    let path = folder.path().join("pins").join(&made.digest).join("manifest-old.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["tables"]["metrics"].as_object_mut().unwrap().remove("id");
    std::fs::write(&path, manifest.to_string()).unwrap();
    let verified = pin::verify(&engine(&anew, 2), "old").await.unwrap();
    assert_eq!(verified.manifest.tables["metrics"].id, None);
    assert!(matches!(verified.recomputed, Recomputed::Differs { .. }), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_over_a_damaged_pin_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, &[20]).await;
    let engine = engine(&lake, 1);
    let pinned = pin::create(&engine, "one", "SELECT step FROM metrics", epoch()).await.unwrap().manifest;
    let name = &pinned.files[0].path;
    let file = folder.path().join("pins").join(&pinned.digest).join(name);
    let bytes = std::fs::read(&file).unwrap();
    let told = async || match error(&engine, "SELECT count(*) FROM pin('one')").await {
        QueryError::NotFound(message) => message,
        other => panic!("{other:?}"),
    };
    let remedy = "; `webdancer pin verify one` checks all its files, and `pin create` with its query stores them again";

    std::fs::write(&file, &bytes[1..]).unwrap();
    let (is, was) = (bytes.len() - 1, bytes.len());
    assert_eq!(told().await, format!("pin one is damaged: {name} has {is} bytes, its manifest says {was}{remedy}"));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(told().await, format!("pin one is damaged: {name} is missing{remedy}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_files_were_vacuumed_is_said_to_be_gone() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, &[10, 10, 10, 10]).await;
    let count = async |version: u64| {
        let engine = engine(&Lake::open(folder.path().to_str().unwrap(), LakeOptions::default()).unwrap(), 1);
        let sql = format!("SELECT count(*), sum(value) > 0 FROM at('metrics', {version})");
        crate::support::try_csv(&engine, &sql, &webdancer_query::QueryOptions::default()).await
    };
    assert_eq!(count(2).await.unwrap(), ["20,true"]);
    let options = MaintainOptions { vacuum_older_than: Some(Duration::ZERO), ..MaintainOptions::default() };
    lake.maintain(Kind::Metric, &options).await.unwrap();
    let error = count(2).await.unwrap_err();
    assert!(matches!(error, QueryError::NotFound(_)), "{error:?}");
    let message = error.to_string();
    assert!(
        message.starts_with(
            "version 2 of table metrics cannot be read any more: `maintain` has removed 2 of its 2 files; version "
        ),
        "{message}"
    );
    let whole = message.split("; version ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert_eq!(count(whole.parse().unwrap()).await.unwrap(), ["40,true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_of_joins_holds_text_once_however_many_batches_it_came_in() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, &[960]).await;
    // Without, each text refers to 240 buffers behind the first join, and to 240³ behind the third.
    let limits = Limits { target_partitions: 1, batch_rows: 4, ..Limits::default() };
    let engine = QueryEngine::new(Arc::new(lake), limits).unwrap();
    let sql = "SELECT count(*), sum(length(a.event_id) + length(d.event_id)) FROM metrics a
        JOIN metrics b ON b.event_id = a.event_id JOIN metrics c ON c.event_id = b.event_id
        LEFT JOIN metrics d ON d.event_id = c.event_id AND d.name = 'loss'";
    let plan = csv(&engine, &format!("EXPLAIN {sql}")).await.join("\n");
    let joins: Vec<&str> =
        plan.lines().map(str::trim).filter(|line| line.contains("Join") || line.contains("Apart")).collect();
    let is_apart = |pair: &[&str]| pair[0].ends_with("ApartExec") && pair[1].contains("JoinExec");
    assert!(joins.len() >= 6 && joins[joins.len() - 6..].chunks(2).all(is_apart), "{plan}");
    assert_eq!(csv(&engine, sql).await, [format!("960,{}", 960 * 72)]);
}

//! One damaged table: the others go on, and its events stay in the log until it is mended.

use std::path::{Path, PathBuf};

use webdancer_ingest::drain::DrainOptions;
use webdancer_ingest::embedded::EmbeddedOptions;
use webdancer_lake::Lake;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::EventLog as _;

use crate::support::{copy, count, drain, lake, log, metric, once, question, steps, try_drain};

/// The last commit of a table.
fn last_commit(folder: &Path, table: &str) -> PathBuf {
    let log = folder.join("tables").join(table).join("_delta_log");
    let files = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).max().unwrap()
}

/// A lake with a metric and a question, as a process finds it that has not opened a table yet.
async fn begun(dir: &tempfile::TempDir, segment_bytes: u64) -> (Lake, webdancer_ingest::embedded::EmbeddedLog) {
    let first = lake(dir);
    let log = log(&first, EmbeddedOptions { segment_bytes, ..EmbeddedOptions::default() }).await;
    log.append(vec![metric(0), question(0)]).await.unwrap();
    drain(&first, &log, DrainOptions::default()).await;
    (lake(dir), log)
}

#[tokio::test]
async fn events_of_a_damaged_table_stay_in_the_log_and_those_of_others_get_in() {
    for damage in ["{\"add\": {\"path\"", ""] {
        let dir = tempfile::tempdir().unwrap();
        // Each group has a segment of its own, so that what is drained is deleted at once.
        let (lake, log) = begun(&dir, 500).await;
        let commit = last_commit(dir.path(), "qa");
        let whole = std::fs::read(&commit).unwrap();
        std::fs::write(&commit, damage).unwrap();
        log.append(vec![metric(1)]).await.unwrap();
        log.append(vec![question(1), metric(2)]).await.unwrap();
        log.append(vec![metric(3)]).await.unwrap();
        for drains in 0..2 {
            let report = drain(&lake, &log, DrainOptions::default()).await;
            let expected = (drains == 0).then_some(3);
            assert_eq!(report.rows.get("metrics").copied(), expected, "{damage:?}");
            assert_eq!(report.held.keys().collect::<Vec<_>>(), ["qa"]);
            assert_eq!(report.held["qa"].records, 1);
            assert!(report.held["qa"].why.contains("opening table qa"), "{}", report.held["qa"].why);
            assert_eq!(steps(&lake).await.0, once(0..4));
        }

        std::fs::write(&commit, whole).unwrap();
        let report = drain(&lake, &log, DrainOptions::default()).await;
        assert_eq!((report.rows["qa"], report.held.len()), (1, 0));
        assert_eq!((steps(&lake).await.0, count(&lake, Kind::Qa).await), (once(0..4), 2));
    }
}

#[tokio::test]
async fn a_damaged_table_that_is_mended_with_an_older_copy_gets_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let (lake, log) = begun(&dir, 64 << 20).await;
    copy(&dir.path().join("tables/qa"), &dir.path().join("copy"));
    log.append(vec![question(1)]).await.unwrap();
    drain(&lake, &log, DrainOptions::default()).await;
    std::fs::write(last_commit(dir.path(), "qa"), "").unwrap();

    let lake = crate::support::lake(&dir);
    log.append(vec![metric(1)]).await.unwrap();
    assert_eq!(drain(&lake, &log, DrainOptions::default()).await.held["qa"].records, 0);
    std::fs::remove_dir_all(dir.path().join("tables/qa")).unwrap();
    std::fs::rename(dir.path().join("copy"), dir.path().join("tables/qa")).unwrap();
    assert_eq!(drain(&lake, &log, DrainOptions::default()).await.rows["qa"], 1);
    assert_eq!((steps(&lake).await.0, count(&lake, Kind::Qa).await), (once(0..2), 2));
}

#[tokio::test]
async fn a_lake_none_of_whose_tables_answers_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (lake, log) = begun(&dir, 64 << 20).await;
    for kind in Kind::ALL {
        let folder = dir.path().join("tables").join(kind.table()).join("_delta_log");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("00000000000000000000.json"), "").unwrap();
    }
    let error = try_drain(&lake, &log).await.unwrap_err().to_string();
    assert!(error.contains("_delta_log/00000000000000000000.json is empty"), "{error}");
}

#[tokio::test]
async fn where_dead_letters_are_damaged_what_is_rejected_stays_in_the_log_and_other_kinds_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let bad = |step: i64| {
        let mut event = metric(step);
        let row = r#"{"name":"loss","step":"one","value":1}"#;
        event.data = serde_json::value::RawValue::from_string(row.into()).unwrap();
        event
    };
    let first = lake(&dir);
    let log = log(&first, EmbeddedOptions::default()).await;
    log.append(vec![metric(0), bad(1), question(0)]).await.unwrap();
    drain(&first, &log, DrainOptions::default()).await;
    let commit = last_commit(dir.path(), "dead_letters");
    let whole = std::fs::read(&commit).unwrap();
    std::fs::write(&commit, "").unwrap();

    let lake = lake(&dir);
    log.append(vec![metric(2), bad(3), metric(4), question(1)]).await.unwrap();
    for _ in 0..2 {
        let report = drain(&lake, &log, DrainOptions::default()).await;
        assert_eq!(report.held.keys().collect::<Vec<_>>(), ["dead_letters", "metrics"]);
        // The rejected one and the one behind it.
        assert_eq!((report.held["dead_letters"].records, report.held["metrics"].records), (0, 2));
        assert!(report.held["metrics"].why.contains("opening table dead_letters"), "{}", report.held["metrics"].why);
        assert_eq!((steps(&lake).await.0, count(&lake, Kind::Qa).await), ([(0, 1), (2, 1)].into(), 2));
    }

    std::fs::write(&commit, whole).unwrap();
    let report = drain(&lake, &log, DrainOptions::default()).await;
    assert_eq!((report.rows["metrics"], report.rows["dead_letters"], report.held.len()), (1, 1, 0));
    assert_eq!((steps(&lake).await.0, count(&lake, Kind::DeadLetter).await), ([(0, 1), (2, 1), (4, 1)].into(), 2));
}

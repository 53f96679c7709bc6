//! The log's folder put back from an older copy, beside tables that are newer: nothing that was appended to it is ever
//! taken for what the tables have already.

use std::path::Path;

use webdancer_ingest::IngestError;
use webdancer_ingest::drain::DrainOptions;
use webdancer_ingest::embedded::{self, EmbeddedLog, EmbeddedOptions};
use webdancer_lake::Lake;
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog as _, LogError};

use crate::support::{copy, count, drain, lake, log, metric, once, question, steps, try_drain};

/// Replaces the log of the lake in `folder` by the copy.
fn restore(folder: &Path, copy: &Path) {
    std::fs::remove_dir_all(folder.join("log")).unwrap();
    std::fs::rename(copy, folder.join("log")).unwrap();
}

fn log_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.map(|path| path.metadata().unwrap().len()).sum()
}

/// Appends as a process of its own: opens the log, and lets go of it.
async fn append(lake: &Lake, events: Vec<Event>) {
    log(lake, EmbeddedOptions::default()).await.append(events).await.unwrap();
}

async fn refused(lake: &Lake, log: &EmbeddedLog, part: &str) {
    let error = try_drain(lake, log).await.unwrap_err();
    let IngestError::Fatal(message) = &error else { panic!("{error}") };
    assert!(message.contains("is an older copy of the one that the tables were drained from"), "{message}");
    assert!(message.contains(part) && message.contains("`webdancer ingest --accept-older-log`"), "{message}");
}

/// A lake whose log was copied after three metrics, went on by six, and was put back.
async fn put_back(dir: &tempfile::TempDir) -> Lake {
    let lake = lake(dir);
    append(&lake, (10..13).map(metric).collect()).await;
    drain(&lake, &log(&lake, EmbeddedOptions::default()).await, DrainOptions::default()).await;
    copy(&dir.path().join("log"), &dir.path().join("copy"));
    append(&lake, (13..19).map(metric).collect()).await;
    drain(&lake, &log(&lake, EmbeddedOptions::default()).await, DrainOptions::default()).await;
    restore(dir.path(), &dir.path().join("copy"));
    lake
}

#[tokio::test]
async fn a_copy_that_is_shorter_than_what_the_tables_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let lake = put_back(&dir).await;
    append(&lake, vec![metric(20)]).await;
    refused(&lake, &log(&lake, EmbeddedOptions::default()).await, "it ends at ").await;
    assert_eq!(steps(&lake).await.0, once(10..19));
}

#[tokio::test]
async fn a_copy_that_has_grown_as_long_as_the_log_was_is_refused_and_its_events_get_in_once_it_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    append(&lake, (10..13).map(metric).collect()).await;
    drain(&lake, &log(&lake, EmbeddedOptions::default()).await, DrainOptions::default()).await;
    copy(&dir.path().join("log"), &dir.path().join("copy"));
    append(&lake, (13..19).map(metric).collect()).await;
    drain(&lake, &log(&lake, EmbeddedOptions::default()).await, DrainOptions::default()).await;
    let length = log_bytes(dir.path());
    restore(dir.path(), &dir.path().join("copy"));
    // Of the same length, so that every position coincides: the last record lies where the table's last one lay.
    append(&lake, (23..29).map(metric).collect()).await;
    assert_eq!(log_bytes(dir.path()), length);

    let copied = log(&lake, EmbeddedOptions::default()).await;
    refused(&lake, &copied, "its record at ").await;
    copied.append(vec![metric(29)]).await.unwrap();
    refused(&lake, &copied, "is another than the one that table metrics has").await;
    assert_eq!(steps(&lake).await.0, once(10..19), "nothing is taken from it before somebody says so");

    assert!(embedded::accept_older_log(&lake, &copied, std::time::Duration::ZERO).await.unwrap());
    let error = copied.append(vec![metric(30)]).await.unwrap_err();
    assert!(matches!(&error, LogError::Failed(text) if text.contains("was moved or replaced")), "{error}");
    let accepted = log(&lake, EmbeddedOptions::default()).await;
    let report = drain(&lake, &accepted, DrainOptions::default()).await;
    assert_eq!((report.rows["metrics"], report.duplicates), (7, 3));
    let all: std::collections::BTreeMap<i64, usize> = once(10..19).into_iter().chain(once(23..30)).collect();
    assert_eq!(steps(&lake).await.0, all);

    // From then on it is a log as any other.
    assert!(!embedded::accept_older_log(&lake, &accepted, std::time::Duration::ZERO).await.unwrap());
    accepted.append(vec![metric(30)]).await.unwrap();
    assert_eq!(drain(&lake, &accepted, DrainOptions::default()).await.rows["metrics"], 1);
    assert_eq!(drain(&lake, &accepted, DrainOptions::default()).await.commits, 0);
}

#[tokio::test]
async fn the_same_events_appended_again_to_a_copy_are_not_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    append(&lake, vec![metric(1)]).await;
    copy(&dir.path().join("log"), &dir.path().join("copy"));
    let again = metric(3);
    append(&lake, vec![metric(2)]).await;
    append(&lake, vec![again.clone()]).await;
    drain(&lake, &log(&lake, EmbeddedOptions::default()).await, DrainOptions::default()).await;
    restore(dir.path(), &dir.path().join("copy"));
    // A producer's retry lies where it lay; what is before it is new. Time goes on between the two.
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    append(&lake, vec![metric(4)]).await;
    append(&lake, vec![again]).await;
    refused(&lake, &log(&lake, EmbeddedOptions::default()).await, "its record at ").await;
}

#[tokio::test]
async fn a_copy_is_told_by_a_table_that_its_own_note_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    append(&lake, vec![metric(1)]).await;
    drain(&lake, &log(&lake, EmbeddedOptions::default()).await, DrainOptions::default()).await;
    copy(&dir.path().join("log"), &dir.path().join("copy"));
    append(&lake, vec![question(1)]).await;
    drain(&lake, &log(&lake, EmbeddedOptions::default()).await, DrainOptions::default()).await;
    restore(dir.path(), &dir.path().join("copy"));
    append(&lake, vec![question(2)]).await;
    refused(&lake, &log(&lake, EmbeddedOptions::default()).await, "the one that table qa has").await;
    assert_eq!(count(&lake, Kind::Qa).await, 1);
}

#[tokio::test]
async fn a_copy_of_the_segments_alone_is_told_beside_a_newer_note() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    append(&lake, vec![metric(10)]).await;
    copy(&dir.path().join("log"), &dir.path().join("copy"));
    append(&lake, (11..13).map(metric).collect()).await;
    drain(&lake, &log(&lake, EmbeddedOptions::default()).await, DrainOptions::default()).await;
    std::fs::copy(dir.path().join("log/drained"), dir.path().join("copy/drained")).unwrap();
    restore(dir.path(), &dir.path().join("copy"));
    refused(&lake, &log(&lake, EmbeddedOptions::default()).await, "it ends at ").await;
    // What is before the note is not read; what the table has is looked at all the same.
    append(&lake, (21..23).map(metric).collect()).await;
    append(&lake, vec![metric(23)]).await;
    refused(&lake, &log(&lake, EmbeddedOptions::default()).await, "its record at ").await;
}

#[tokio::test]
async fn a_table_whose_last_record_is_deleted_from_the_log_keeps_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let log = log(&lake, EmbeddedOptions { segment_bytes: 500, ..EmbeddedOptions::default() }).await;
    log.append(vec![question(1)]).await.unwrap();
    for step in 0..6 {
        log.append(vec![metric(step)]).await.unwrap();
        drain(&lake, &log, DrainOptions::default()).await;
    }
    assert!(!dir.path().join("log/00000000000000000000.seg").exists());
    assert_eq!((steps(&lake).await.0, count(&lake, Kind::Qa).await), (once(0..6), 1));
}

#[tokio::test]
async fn tables_and_log_restored_together_go_on_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let first = lake(&dir);
    append(&first, (0..3).map(metric).collect()).await;
    drain(&first, &log(&first, EmbeddedOptions::default()).await, DrainOptions::default()).await;
    for folder in ["log", "tables"] {
        copy(&dir.path().join(folder), &dir.path().join("copy").join(folder));
    }
    append(&first, (3..9).map(metric).collect()).await;
    drain(&first, &log(&first, EmbeddedOptions::default()).await, DrainOptions::default()).await;
    for folder in ["log", "tables"] {
        std::fs::remove_dir_all(dir.path().join(folder)).unwrap();
        std::fs::rename(dir.path().join("copy").join(folder), dir.path().join(folder)).unwrap();
    }
    // Another process: the first has the tables' states in memory.
    let lake = lake(&dir);
    append(&lake, (3..5).map(metric).collect()).await;
    drain(&lake, &log(&lake, EmbeddedOptions::default()).await, DrainOptions::default()).await;
    assert_eq!(steps(&lake).await.0, once(0..5));
}

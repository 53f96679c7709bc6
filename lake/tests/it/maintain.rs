//! Maintenance removes nothing that a version in reach or a pin needs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use webdancer_lake::append::Outcome;
use webdancer_lake::lake::At;
use webdancer_lake::maintain::{MaintainOptions, MaintainReport};
use webdancer_lake::pins::{PinManifest, PinnedTable};
use webdancer_lake::{LakeError, LakeOptions};
use webdancer_schemas::kind::Kind;

use crate::fault_store::Fault;
use crate::support::{faulty, lake, once, part, steps, writer};

#[tokio::test]
async fn compaction_keeps_rows_positions_and_uniqueness() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let mut table = writer(&lake).await;
    for n in 0..6 {
        table.append(&[part("a", (n > 0).then_some(n - 1), n, &[n as u64])]).await.unwrap();
    }
    let pinned = table.version() - 2;
    lake.commit_pin(&pin_of(pinned)).await.unwrap();
    let report = lake
        .maintain(
            Kind::Metric,
            &MaintainOptions { vacuum_older_than: Some(Duration::ZERO), ..MaintainOptions::default() },
        )
        .await
        .unwrap()
        .unwrap();
    assert_eq!((report.files_before, report.files_after, report.checkpointed), (6, 1, true));

    let fresh = crate::support::lake(&dir);
    let mut table = writer(&fresh).await;
    assert_eq!(steps(&table).await, once(0..6));
    assert_eq!(table.position("a").await.unwrap(), Some(5));
    assert_eq!(
        table.append(&[part("b", None, 1, &[3, 6])]).await.unwrap(),
        [Outcome::Landed { rows: 1, duplicates: 1 }]
    );
    // The pinned version can still be read; the file that only it did not need is gone.
    let old = fresh.table_at(Kind::Metric, At::Version(pinned)).await.unwrap().unwrap();
    assert_eq!(steps(&old).await, once(0..4));
    assert_eq!(report.vacuumed, 2);
}

#[tokio::test]
async fn a_compaction_that_seemed_to_fail_is_looked_for_and_made_up_for() {
    for fault in [Fault::ErrorAfter, Fault::AlreadyExistsAfter, Fault::ErrorBefore] {
        let dir = tempfile::tempdir().unwrap();
        let (store, lake) = faulty(&dir, LakeOptions::default());
        let mut table = writer(&lake).await;
        for n in 0..4 {
            table.append(&[part("a", (n > 0).then_some(n - 1), n, &[n as u64])]).await.unwrap();
        }
        *store.commits.lock() = vec![fault];
        let options = MaintainOptions { vacuum_older_than: None, ..MaintainOptions::default() };
        let report = lake.maintain(Kind::Metric, &options).await.unwrap().unwrap();
        assert_eq!((report.files_before, report.files_after), (4, 1), "{fault:?}");
        assert!(store.commits.lock().is_empty());
        assert_eq!(steps(&writer(&lake).await).await, once(0..4), "{fault:?}");
    }
}

#[tokio::test]
async fn a_compaction_that_is_refused_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, lake) = faulty(&dir, LakeOptions::default());
    let mut table = writer(&lake).await;
    table.append(&[part("a", None, 0, &[0])]).await.unwrap();
    table.append(&[part("a", Some(0), 1, &[1])]).await.unwrap();
    let before = store.commits_tried.load(Ordering::SeqCst);
    *store.commits.lock() = vec![Fault::Denied];
    let error = lake.maintain(Kind::Metric, &MaintainOptions::default()).await.unwrap_err();
    assert!(matches!(error, LakeError::Denied(_)), "{error:?}");
    assert_eq!(store.commits_tried.load(Ordering::SeqCst), before + 1);
}

/// Commits one row each; the versions are those after the table's creation.
async fn append_steps(lake: &webdancer_lake::Lake, steps: std::ops::Range<i64>) {
    let mut table = writer(lake).await;
    for n in steps {
        table.append(&[part("a", (n > 0).then_some(n - 1), n, &[n as u64])]).await.unwrap();
    }
}

fn commits(dir: &tempfile::TempDir) -> Vec<String> {
    let log = dir.path().join("tables/metrics/_delta_log");
    let names = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut commits: Vec<_> = names.filter(|name| name.ends_with(".json")).collect();
    commits.sort();
    commits.iter().map(|name| name.trim_start_matches('0').trim_end_matches(".json").to_string()).collect()
}

fn pin_of(version: u64) -> PinManifest {
    PinManifest {
        format: 1,
        name: "p".into(),
        definition: String::new(),
        tables: [("metrics".to_string(), PinnedTable { uri: String::new(), version, id: None })].into(),
        schema: serde_json::json!([]),
        files: Vec::new(),
        rows: 0,
        digest: "abcdef".into(),
        created: chrono::Utc::now(),
        code_version: String::new(),
    }
}

const LOG_ALONE: MaintainOptions = MaintainOptions {
    compact: false,
    checkpoint: true,
    vacuum_older_than: None,
    log_older_than: Some(Duration::ZERO),
    dry_run: false,
};

#[tokio::test]
async fn the_log_keeps_what_is_young_and_what_a_checkpoint_does_not_cover() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    append_steps(&lake, 0..4).await;
    let maintain = async |options: MaintainOptions| lake.maintain(Kind::Metric, &options).await.unwrap().unwrap();
    let all = ["", "1", "2", "3", "4"];
    for options in [
        MaintainOptions { log_older_than: Some(Duration::from_secs(3600)), ..LOG_ALONE },
        MaintainOptions { log_older_than: None, ..LOG_ALONE },
    ] {
        assert_eq!(maintain(options).await.log_files_removed, 0);
        assert_eq!(commits(&dir), all);
    }
    // Behind the checkpoint of version 4 the log is as it was.
    append_steps(&lake, 4..6).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let report = maintain(MaintainOptions { checkpoint: false, ..LOG_ALONE }).await;
    assert_eq!((report.log_files_removed, report.version), (4, 6));
    assert_eq!(commits(&dir), ["4", "5", "6"]);

    // Rows, positions and ids are what they were, also for a process that was not there before.
    let fresh = crate::support::lake(&dir);
    let mut table = writer(&fresh).await;
    assert_eq!(steps(&table).await, once(0..6));
    assert_eq!(table.position("a").await.unwrap(), Some(5));
    let again = table.append(&[part("b", None, 1, &[0, 6])]).await.unwrap();
    assert_eq!(again, [Outcome::Landed { rows: 1, duplicates: 1 }]);
}

/// Every file of the table and its length.
fn files(folder: &std::path::Path) -> std::collections::BTreeMap<std::path::PathBuf, u64> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .flat_map(|entry| match entry.path() {
            path if path.is_dir() => files(&path),
            path => [(path, entry.metadata().unwrap().len())].into(),
        })
        .collect()
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_says_what_is_then_done() {
    // A file that is large enough stands between small ones; there is a pin, and a file that no version names.
    for (compact, checkpoint, pin) in
        [(true, true, None), (true, true, Some(3)), (false, false, None), (false, true, Some(4))]
    {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake(&dir);
        append_steps(&lake, 0..3).await;
        lake.maintain(Kind::Metric, &MaintainOptions { log_older_than: None, ..LOG_ALONE }).await.unwrap();
        append_steps(&lake, 3..6).await;
        if let Some(version) = pin {
            lake.commit_pin(&pin_of(version)).await.unwrap();
        }
        std::fs::write(dir.path().join("tables/metrics/part-of-nothing.parquet"), "x").unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        // No file of compaction's own is old enough to be removed at once.
        let vacuum_older_than = (!compact).then_some(Duration::ZERO);
        let options = MaintainOptions { compact, checkpoint, vacuum_older_than, dry_run: true, ..LOG_ALONE };
        let before = files(dir.path());
        let planned = lake.maintain(Kind::Metric, &options).await.unwrap().unwrap();
        assert_eq!(files(dir.path()), before);
        let options = MaintainOptions { dry_run: false, ..options };
        let done = lake.maintain(Kind::Metric, &options).await.unwrap().unwrap();
        assert!(done.compacted == if compact { 6 } else { 0 } && done.log_files_removed > 0, "{done:?}");
        assert_eq!(done.vacuumed, usize::from(!compact));
        let version = if compact { done.version } else { planned.version };
        assert_eq!(planned, MaintainReport { bytes_after: planned.bytes_before, version, ..done });
    }
}

#[tokio::test]
async fn a_dry_run_counts_as_compaction_does_around_files_that_are_large_enough() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = {
        let lake = lake(&dir);
        append_steps(&lake, 0..5).await;
        let table = writer(&lake).await;
        table.size().unwrap().1 / 5
    };
    // Two fit into one; the fifth is left over.
    let options = LakeOptions { target_file_bytes: bytes * 5 / 2, ..LakeOptions::default() };
    let lake = webdancer_lake::Lake::open(dir.path().to_str().unwrap(), options).unwrap();
    let options = MaintainOptions { vacuum_older_than: None, dry_run: true, ..MaintainOptions::default() };
    let planned = lake.maintain(Kind::Metric, &options).await.unwrap().unwrap();
    assert_eq!((planned.compacted, planned.files_after), (4, 3));
    let options = MaintainOptions { dry_run: false, ..options };
    let done = lake.maintain(Kind::Metric, &options).await.unwrap().unwrap();
    assert_eq!((done.compacted, done.files_after), (4, 3));
}

#[tokio::test]
async fn an_emptied_commit_is_told_by_name_and_read_as_nothing_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    append_steps(&lake(&dir), 0..3).await;
    let commit = dir.path().join("tables/metrics/_delta_log/00000000000000000003.json");
    let whole = std::fs::read(&commit).unwrap();
    std::fs::write(&commit, "").unwrap();
    let lake = lake(&dir);
    for error in [
        lake.table(Kind::Metric).await.map(drop).unwrap_err(),
        lake.table_for_writing(Kind::Metric).await.map(drop).unwrap_err(),
        lake.maintain(Kind::Metric, &MaintainOptions::default()).await.map(drop).unwrap_err(),
    ] {
        let LakeError::Fatal(message) = &error else { panic!("{error:?}") };
        let file =
            "tables/metrics/_delta_log/00000000000000000003.json is empty, and what it committed is lost with it";
        assert!(message.contains(file) && message.contains("restore that file from a backup"), "{message}");
    }
    // What the message says helps.
    std::fs::rename(&commit, dir.path().join("emptied")).unwrap();
    assert_eq!(steps(&writer(&lake).await).await, once(0..2));
    std::fs::write(&commit, whole).unwrap();
    assert_eq!(steps(&writer(&crate::support::lake(&dir)).await).await, once(0..3));
}

#[tokio::test]
async fn a_version_that_was_cleaned_up_is_told_and_not_read_as_empty() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    append_steps(&lake, 0..3).await;
    let early = chrono::Utc::now();
    tokio::time::sleep(Duration::from_millis(5)).await;
    append_steps(&lake, 3..4).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    lake.maintain(Kind::Metric, &LOG_ALONE).await.unwrap();
    assert_eq!(commits(&dir), ["4"]);
    let fresh = crate::support::lake(&dir);
    let at = async |at: At| fresh.table_at(Kind::Metric, at).await;
    for (gone, what) in [(At::Version(2), "version 2"), (At::Time(early), "the state at 20")] {
        let error = at(gone).await.unwrap_err();
        assert!(matches!(error, LakeError::NotFound(_)), "{error:?}");
        let message = error.to_string();
        assert!(message.starts_with(what) && message.contains("no longer in its log"), "{message}");
        assert!(message.ends_with("the oldest that can be read is 4"), "{message}");
    }
    assert_eq!(steps(&at(At::Version(4)).await.unwrap().unwrap()).await, once(0..4));
    assert_eq!(steps(&at(At::Time(chrono::Utc::now())).await.unwrap().unwrap()).await, once(0..4));
    let error = at(At::Version(9)).await.unwrap_err();
    assert!(error.to_string().contains("has no version 9; its newest is 4"), "{error}");
}

#[tokio::test]
async fn a_pinned_version_keeps_the_log_that_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    append_steps(&lake, 0..2).await;
    lake.maintain(Kind::Metric, &MaintainOptions { log_older_than: None, ..LOG_ALONE }).await.unwrap();
    append_steps(&lake, 2..5).await;
    lake.commit_pin(&pin_of(4)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let options = MaintainOptions { vacuum_older_than: Some(Duration::ZERO), ..LOG_ALONE };
    let report = lake.maintain(Kind::Metric, &options).await.unwrap().unwrap();
    // Version 4 is read from the checkpoint of version 2.
    assert_eq!(report.log_files_removed, 2);
    let fresh = crate::support::lake(&dir);
    let pinned = fresh.table_at(Kind::Metric, At::Version(4)).await.unwrap().unwrap();
    assert_eq!(steps(&pinned).await, once(0..4));

    // A pin of a version that the log has no more does not keep maintenance from working.
    let other = PinManifest { name: "old".into(), digest: "fedcba".into(), ..pin_of(1) };
    lake.commit_pin(&other).await.unwrap();
    lake.maintain(Kind::Metric, &options).await.unwrap();
}

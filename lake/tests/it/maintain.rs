//! Maintenance removes nothing that a version in reach or a pin needs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use webdancer_lake::append::Outcome;
use webdancer_lake::lake::At;
use webdancer_lake::maintain::MaintainOptions;
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
    let pin = PinManifest {
        format: 1,
        name: "p".into(),
        definition: String::new(),
        tables: [("metrics".to_string(), PinnedTable { uri: table.uri(), version: pinned })].into(),
        schema: serde_json::json!([]),
        files: Vec::new(),
        rows: 0,
        digest: "abcdef".into(),
        created: chrono::Utc::now(),
        code_version: String::new(),
    };
    lake.commit_pin(&pin).await.unwrap();
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

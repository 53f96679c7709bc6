//! Maintenance removes nothing that a version in reach or a pin needs.

use std::time::Duration;

use webdancer_lake::append::Outcome;
use webdancer_lake::lake::At;
use webdancer_lake::maintain::MaintainOptions;
use webdancer_lake::pins::{PinManifest, PinnedTable};
use webdancer_schemas::kind::Kind;

use crate::support::{lake, once, part, steps, writer};

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

//! Exactly once, whatever the store answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use webdancer_lake::append::Outcome;
use webdancer_lake::{LakeError, LakeOptions};
use webdancer_schemas::kind::Kind;

use crate::fault_store::{Fault, FaultStore};
use crate::support::{faulty, lake, once, part, steps, writer};

fn landed(rows: u64, duplicates: u64) -> Outcome {
    Outcome::Landed { rows, duplicates }
}

#[tokio::test]
async fn rows_and_positions_land_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = writer(&lake(&dir)).await;
    assert_eq!(table.append(&[part("a", None, 2, &[1, 2, 3])]).await.unwrap(), [landed(3, 0)]);
    assert_eq!(table.append(&[part("a", Some(2), 5, &[4])]).await.unwrap(), [landed(1, 0)]);
    let fresh = lake(&dir).table(Kind::Metric).await.unwrap().unwrap();
    assert_eq!(fresh.position("a").await.unwrap(), Some(5));
    assert_eq!(fresh.position("b").await.unwrap(), None);
    assert_eq!(steps(&fresh).await, once(1..=4));
}

#[tokio::test]
async fn a_part_without_rows_still_moves_the_position() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = writer(&lake(&dir)).await;
    assert_eq!(table.append(&[part("a", None, 9, &[])]).await.unwrap(), [landed(0, 0)]);
    assert_eq!(lake(&dir).table(Kind::Metric).await.unwrap().unwrap().position("a").await.unwrap(), Some(9));
}

#[tokio::test]
async fn a_retried_event_is_left_out_wherever_it_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = writer(&lake(&dir)).await;
    table.append(&[part("a", None, 2, &[1, 2, 3])]).await.unwrap();
    // Within a batch, across the parts of one append, from another partition, and after a restart.
    assert_eq!(
        table.append(&[part("a", Some(2), 5, &[4, 4, 2]), part("b", None, 1, &[4, 5])]).await.unwrap(),
        [landed(1, 2), landed(1, 1)]
    );
    let mut restarted = writer(&lake(&dir)).await;
    assert_eq!(restarted.append(&[part("c", None, 4, &[1, 2, 3, 4, 5])]).await.unwrap(), [landed(0, 5)]);
    assert_eq!(steps(&restarted).await, once(1..=5));
}

#[tokio::test]
async fn a_worker_that_lost_its_partition_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = writer(&lake(&dir)).await;
    old.append(&[part("a", None, 2, &[1, 2])]).await.unwrap();
    let mut new = writer(&lake(&dir)).await;
    new.append(&[part("a", Some(2), 7, &[3])]).await.unwrap();
    let outcome = old.append(&[part("a", Some(2), 4, &[4]), part("b", None, 0, &[5])]).await.unwrap();
    assert_eq!(outcome, [Outcome::Superseded { at: Some(7) }, landed(1, 0)]);
    assert_eq!(steps(&old).await, once([1, 2, 3, 5]));
}

#[tokio::test]
async fn a_commit_that_landed_but_seemed_to_fail_is_not_repeated() {
    for fault in [Fault::ErrorAfter, Fault::AlreadyExistsAfter] {
        let dir = tempfile::tempdir().unwrap();
        let (store, lake) = faulty(&dir, LakeOptions::default());
        let mut table = writer(&lake).await;
        let before = table.version();
        *store.commits.lock() = vec![fault];
        assert_eq!(table.append(&[part("a", None, 2, &[1, 2])]).await.unwrap(), [landed(2, 0)], "{fault:?}");
        assert_eq!(table.version(), before + 1, "{fault:?}: one version, not two");
        assert_eq!(steps(&table).await, once([1, 2]));
    }
}

#[tokio::test]
async fn a_commit_that_failed_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, lake) = faulty(&dir, LakeOptions::default());
    let mut table = writer(&lake).await;
    *store.commits.lock() = vec![Fault::ErrorBefore, Fault::ErrorBefore, Fault::DelayMs(30)];
    assert_eq!(table.append(&[part("a", None, 2, &[1, 2])]).await.unwrap(), [landed(2, 0)]);
    assert_eq!(steps(&table).await, once([1, 2]));
}

#[tokio::test]
async fn a_commit_that_is_refused_is_told_at_once() {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    for (fault, part_of_message) in [
        (Fault::Denied, "committing to table metrics: access denied: the log: AccessDenied: not yours; give"),
        (Fault::System(PermissionDenied), "committing to table metrics: access denied: permission denied"),
        (Fault::System(ReadOnlyFilesystem), "committing to table metrics: the file system is read-only"),
        (Fault::NoSuchBucket, "committing to table metrics: there is no such bucket"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (store, lake) = faulty(&dir, LakeOptions::default());
        let mut table = writer(&lake).await;
        let before = store.commits_tried.load(Ordering::SeqCst);
        *store.commits.lock() = vec![fault];
        let error = table.append(&[part("a", None, 2, &[1, 2])]).await.unwrap_err();
        assert!(matches!(error, LakeError::Denied(_) | LakeError::Usage(_)) && !error.may_pass(), "{error:?}");
        assert!(error.to_string().starts_with(part_of_message), "{error}");
        assert_eq!(store.commits_tried.load(Ordering::SeqCst), before + 1, "{fault:?}: tried once");
        // Nothing is broken: with the right to it the same part lands.
        assert_eq!(table.append(&[part("a", None, 2, &[1, 2])]).await.unwrap(), [landed(2, 0)]);
    }
}

#[tokio::test]
async fn a_refusal_that_landed_all_the_same_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let (store, lake) = faulty(&dir, LakeOptions::default());
    let mut table = writer(&lake).await;
    *store.commits.lock() = vec![Fault::DeniedAfter];
    assert_eq!(table.append(&[part("a", None, 2, &[1, 2])]).await.unwrap(), [landed(2, 0)]);
    assert_eq!(steps(&table).await, once([1, 2]));
}

#[tokio::test]
async fn a_full_disk_may_pass() {
    let dir = tempfile::tempdir().unwrap();
    let (store, lake) = faulty(&dir, LakeOptions::default());
    let mut table = writer(&lake).await;
    *store.commits.lock() = vec![Fault::System(std::io::ErrorKind::StorageFull); 2];
    assert_eq!(table.append(&[part("a", None, 2, &[1, 2])]).await.unwrap(), [landed(2, 0)]);
}

#[tokio::test]
async fn a_table_that_may_not_be_made_is_told_with_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let (store, lake) = faulty(&dir, LakeOptions::default());
    *store.commits.lock() = vec![Fault::Denied];
    let error = lake.table_for_writing(Kind::Metric).await.unwrap_err();
    assert!(matches!(error, LakeError::Denied(_)), "{error:?}");
    assert!(error.to_string().starts_with("creating table metrics: access denied"), "{error}");
    assert_eq!(store.commits_tried.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn few_ids_within_a_files_range_are_asked_of_its_bloom_filter_once() {
    let dir = tempfile::tempdir().unwrap();
    // Even numbers of 48 bits, in no order; odd ones fall between them.
    let even: Vec<u64> = (1..20_000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17) * 2).collect();
    let middle = even[10_000];
    writer(&lake(&dir)).await.append(&[part("a", None, 0, &even)]).await.unwrap();
    let fresh = || faulty(&dir, LakeOptions::default());
    let bytes = |store: &Arc<FaultStore>| store.data_bytes.swap(0, Ordering::SeqCst);

    let (store, many) = fresh();
    let odd: Vec<u64> = (0..33).map(|i| middle + 1 + 2 * i).collect();
    assert_eq!(writer(&many).await.append(&[part("many", None, 0, &odd)]).await.unwrap(), [landed(33, 0)]);
    let whole = bytes(&store);

    let (store, few) = fresh();
    let mut table = writer(&few).await;
    assert_eq!(table.append(&[part("few", None, 0, &[middle + 101, middle + 103])]).await.unwrap(), [landed(2, 0)]);
    let filter = bytes(&store);
    assert!(0 < filter && filter * 2 < whole, "{filter} bytes with the filter, {whole} with the ids");
    // The second time the ids are read, and then kept.
    assert_eq!(table.append(&[part("few", Some(0), 1, &[middle + 105])]).await.unwrap(), [landed(1, 0)]);
    assert!(bytes(&store) > filter);
    assert_eq!(table.append(&[part("few", Some(1), 2, &[middle + 107])]).await.unwrap(), [landed(1, 0)]);
    assert_eq!(bytes(&store), 0);

    // What is there is found, first thing.
    let (_, retried) = fresh();
    let again = [part("again", None, 0, &[middle, middle + 101, middle + 109])];
    assert_eq!(writer(&retried).await.append(&again).await.unwrap(), [landed(1, 2)]);
}

#[tokio::test]
async fn an_outage_is_an_error_and_the_same_part_lands_later_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, lake) = faulty(&dir, LakeOptions { max_commit_attempts: 2, ..LakeOptions::default() });
    let mut table = writer(&lake).await;
    *store.commits.lock() = vec![Fault::OutageAfter];
    let error = table.append(&[part("a", None, 2, &[1, 2])]).await.unwrap_err();
    assert!(matches!(error, LakeError::Store { .. }), "{error}");
    store.failing_reads.store(0, Ordering::SeqCst);
    // It had landed: the caller, told nothing, offers it again.
    table.refresh().await.unwrap();
    assert_eq!(table.append(&[part("a", None, 2, &[1, 2])]).await.unwrap(), [Outcome::Superseded { at: Some(2) }]);
    assert_eq!(steps(&table).await, once([1, 2]));
}

#[tokio::test]
async fn failing_checkpoints_never_fail_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (store, lake) = faulty(&dir, LakeOptions { checkpoint_versions: 1, ..LakeOptions::default() });
    let mut table = writer(&lake).await;
    store.fail_checkpoints.store(true, Ordering::SeqCst);
    for n in 0..3 {
        let from = (n > 0).then_some(n - 1);
        assert_eq!(table.append(&[part("a", from, n, &[n as u64])]).await.unwrap(), [landed(1, 0)]);
    }
    assert_eq!(steps(&table).await, once(0..3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn committers_with_the_same_events_at_the_same_moment_write_one_row_each() {
    let dir = tempfile::tempdir().unwrap();
    writer(&lake(&dir)).await;
    let ids: Vec<u64> = (0..50).collect();
    let mut tasks = Vec::new();
    for worker in 0..6 {
        let (lake, ids) = (lake(&dir), ids.clone());
        tasks.push(tokio::spawn(async move {
            let mut table = writer(&lake).await;
            let outcome = table.append(&[part(&format!("w{worker}"), None, 49, &ids)]).await.unwrap();
            match outcome[0] {
                Outcome::Landed { rows, duplicates } => (rows, duplicates),
                Outcome::Superseded { .. } => panic!("nobody else has this partition"),
            }
        }));
    }
    let mut rows = 0;
    for task in tasks {
        let (written, duplicates) = task.await.unwrap();
        assert_eq!(written + duplicates, 50);
        rows += written;
    }
    assert_eq!(rows, 50);
    let table = lake(&dir).table(Kind::Metric).await.unwrap().unwrap();
    assert_eq!(steps(&table).await, once(0..50));
}

#[tokio::test]
async fn the_same_id_from_two_sources_is_two_events() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = writer(&lake(&dir)).await;
    let mut other = part("b", None, 0, &[1]);
    let batch = &other.batches[0];
    let mut columns = batch.columns().to_vec();
    let index = batch.schema().index_of("source").unwrap();
    columns[index] = Arc::new(arrow::array::StringArray::from(vec!["another"]));
    other.batches = vec![arrow::array::RecordBatch::try_new(batch.schema(), columns).unwrap()];
    table.append(&[part("a", None, 0, &[1])]).await.unwrap();
    assert_eq!(table.append(&[other]).await.unwrap(), [landed(1, 0)]);
}

#[tokio::test]
async fn a_store_that_never_answers_is_given_up_and_asked_again() {
    let options = LakeOptions { store_timeout: Duration::from_millis(500), ..LakeOptions::default() };
    for fault in [Fault::HangBefore, Fault::HangAfter] {
        let dir = tempfile::tempdir().unwrap();
        let (store, lake) = faulty(&dir, options.clone());
        let mut table = writer(&lake).await;
        *store.commits.lock() = vec![fault];
        let outcomes = table.append(&[part("a", None, 0, &[1])]).await.unwrap();
        assert_eq!(outcomes, [landed(1, 0)], "{fault:?}");
        store.hanging_reads.store(2, Ordering::SeqCst);
        table.append(&[part("a", Some(0), 1, &[2])]).await.unwrap();
        assert_eq!(steps(&writer(&lake).await).await, once([1, 2]), "{fault:?}");
    }
}

#[tokio::test]
async fn a_store_that_stays_silent_is_told_with_the_limit() {
    let options =
        LakeOptions { store_timeout: Duration::from_millis(100), max_commit_attempts: 2, ..LakeOptions::default() };
    let dir = tempfile::tempdir().unwrap();
    let (store, lake) = faulty(&dir, options);
    let mut table = writer(&lake).await;
    *store.commits.lock() = vec![Fault::HangBefore; 2];
    let error = table.append(&[part("a", None, 0, &[1])]).await.unwrap_err();
    assert!(matches!(error, LakeError::Store { .. }) && error.may_pass(), "{error:?}");
    let cause = format!("{error:?}");
    assert!(cause.contains("the store did not answer within 0.1 s: writing "), "{cause}");
    store.hanging_reads.store(u64::MAX, Ordering::SeqCst);
    assert!(matches!(lake.table(Kind::Metric).await, Err(LakeError::Store { .. })));
}

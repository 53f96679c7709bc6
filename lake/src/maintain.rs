//! Maintenance: fewer and larger files, checkpoints, and removal of files and commits that nothing needs any more.

use std::num::NonZeroU64;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use deltalake_core::checkpoints::{cleanup_expired_logs_for, create_checkpoint};
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::operations::vacuum::VacuumMode;
use webdancer_schemas::kind::Kind;

use crate::append::backoff;
use crate::error::{Context as _, Result};
use crate::files::writer_properties;
use crate::lake::Lake;
use crate::table::Table;

/// What to do to a table.
#[derive(Debug, Clone)]
pub struct MaintainOptions {
    /// Rewrite small files into ones of the target size.
    pub compact: bool,
    /// Write a checkpoint.
    pub checkpoint: bool,
    /// Remove files that no version younger than this, and no pinned version, names. None: no vacuum.
    ///
    /// A running reader has the files of its version: nothing is removed under a query younger than this.
    pub vacuum_older_than: Option<Duration>,
    /// Remove commits older than this from the log, as far as a checkpoint covers them and no pinned version needs them:
    /// what Delta calls `delta.logRetentionDuration`. None: the log is kept whole.
    ///
    /// Versions without their commits cannot be read any more.
    pub log_older_than: Option<Duration>,
    /// Say what would be done, and change nothing.
    pub dry_run: bool,
}

impl Default for MaintainOptions {
    fn default() -> MaintainOptions {
        MaintainOptions {
            compact: true,
            checkpoint: true,
            vacuum_older_than: Some(Duration::from_secs(7 * 24 * 3600)),
            log_older_than: Some(Duration::from_secs(30 * 24 * 3600)),
            dry_run: false,
        }
    }
}

/// What was done to a table, or in a dry run what would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct MaintainReport {
    /// Files before and after.
    pub files_before: usize,
    /// Files now.
    pub files_after: usize,
    /// Bytes of data files before.
    pub bytes_before: u64,
    /// Bytes of data files now. In a dry run those before: what compaction saves is not known before it is done.
    pub bytes_after: u64,
    /// Small files rewritten into fewer.
    pub compacted: usize,
    /// Whether a checkpoint was written.
    pub checkpointed: bool,
    /// Files removed.
    pub vacuumed: usize,
    /// Files of the log removed: commits and checkpoints.
    pub log_files_removed: usize,
    /// Version afterwards.
    pub version: u64,
}

impl Lake {
    /// Maintains the table of `kind`; None if there is none.
    ///
    /// Pins keep copies of their rows, and the versions they name are kept as well while `verify` may want to recompute
    /// them.
    pub async fn maintain(&self, kind: Kind, options: &MaintainOptions) -> Result<Option<MaintainReport>> {
        if options.dry_run {
            return self.plan_maintenance(kind, options).await;
        }
        self.ensure_writable().await?;
        let Some(mut table) = self.table(kind).await? else { return Ok(None) };
        let mut report = MaintainReport::default();
        (report.files_before, report.bytes_before) = table.size()?;
        let what = |step: &'static str| move || format!("{step} table {}", kind.table());
        if options.compact && report.files_before > 1 {
            report.compacted = table.compact().await?;
        }
        if options.checkpoint {
            create_checkpoint(&table.delta, None).await.context(what("checkpointing"))?;
            report.checkpointed = true;
        }
        let pinned = self.pinned_versions(&table).await?;
        if let Some(age) = options.vacuum_older_than {
            report.vacuumed = table.vacuum(age, &pinned, false).await?;
        }
        if let Some(age) = options.log_older_than {
            let cutoff = cutoff_ms(age);
            let keep = pinned.first().copied().unwrap_or(u64::MAX).min(table.version());
            let log_store = table.delta.log_store();
            report.log_files_removed = cleanup_expired_logs_for(keep, log_store.as_ref(), cutoff, None)
                .await
                .context(what("cleaning up the log of"))?;
        }
        table.refresh().await?;
        (report.files_after, report.bytes_after) = table.size()?;
        report.version = table.version();
        Ok(Some(report))
    }

    /// What [`maintain`](Self::maintain) would do. Each step is worked out as the step itself decides it.
    async fn plan_maintenance(&self, kind: Kind, options: &MaintainOptions) -> Result<Option<MaintainReport>> {
        let Some(mut table) = self.table(kind).await? else { return Ok(None) };
        let (files, bytes) = table.size()?;
        let (compacted, made) = if options.compact { table.compaction_plan()? } else { (0, 0) };
        let version = table.version() + u64::from(compacted > 0);
        let pinned = self.pinned_versions(&table).await?;
        let mut report = MaintainReport {
            files_before: files,
            files_after: files - compacted + made,
            bytes_before: bytes,
            bytes_after: bytes,
            compacted,
            checkpointed: options.checkpoint,
            version,
            ..MaintainReport::default()
        };
        if let Some(age) = options.vacuum_older_than {
            report.vacuumed = table.vacuum(age, &pinned, true).await?;
        }
        if let Some(age) = options.log_older_than {
            let keep = pinned.first().copied().unwrap_or(u64::MAX).min(version);
            let checkpoint = options.checkpoint.then_some(version);
            report.log_files_removed = table.expired_log_files(keep, checkpoint, cutoff_ms(age)).await?;
        }
        Ok(Some(report))
    }

    /// The versions of a table that pins were made from and that can still be read, in order.
    async fn pinned_versions(&self, table: &Table) -> Result<Vec<u64>> {
        let log = table.log_versions().await?;
        let pins = self.list_pins().await?;
        let mut pinned: Vec<u64> = pins
            .iter()
            .flat_map(|pin| pin.tables.iter())
            // A pin may have read the table more than once: as `qa`, and as it was, under `qa@5`.
            .filter(|(name, _)| name.split('@').next() == Some(table.kind.table()))
            .map(|(_, pinned)| pinned.version)
            .filter(|version| log.can_read(*version))
            .collect();
        pinned.sort_unstable();
        pinned.dedup();
        Ok(pinned)
    }
}

/// The time before which a file of the log is too old. The library goes by file times. A copied lake has new ones, so that
/// more is kept, never less.
fn cutoff_ms(age: Duration) -> i64 {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Utc::now().timestamp_millis().saturating_sub(age_ms).max(0)
}

/// How often a compaction is tried: each reads and writes what is to be compacted.
const COMPACTIONS: u32 = 3;

impl Table {
    /// Removes files that neither a version younger than `age` nor one of `keep` names, or in a dry run counts them.
    async fn vacuum(&mut self, age: Duration, keep: &[u64], dry_run: bool) -> Result<usize> {
        let (delta, metrics) = self
            .delta
            .clone()
            .vacuum()
            .with_mode(VacuumMode::Full)
            .with_keep_versions(keep)
            .with_retention_period(TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX))
            .with_enforce_retention_duration(false)
            .with_dry_run(dry_run)
            .with_commit_properties(crate::table::commit_properties())
            .await
            .context(|| format!("vacuuming table {}", self.kind.table()))?;
        self.delta = delta;
        Ok(metrics.files_deleted.len())
    }

    /// How many files a compaction would rewrite, and into how many: neighbours, as the library takes them, up to the
    /// target size together.
    fn compaction_plan(&self) -> Result<(usize, usize)> {
        let target = self.lake.options().target_file_bytes;
        let (mut rewritten, mut made) = (0, 0);
        let (mut files, mut bytes) = (0, 0);
        let sizes = self.data_files()?.into_iter().map(|file| file.size);
        // One that is larger than any at the end closes the last group.
        for size in sizes.chain([u64::MAX]) {
            if files > 0 && size <= target.saturating_sub(bytes) {
                (files, bytes) = (files + 1, bytes + size);
                continue;
            }
            if files > 1 {
                (rewritten, made) = (rewritten + files, made + 1);
            }
            (files, bytes) = if size <= target { (1, size) } else { (0, 0) };
        }
        Ok((rewritten, made))
    }

    /// Rewrites small files into ones of the target size; how many.
    ///
    /// As with appends nothing is told by an error: a compaction may have landed all the same. So after one the table
    /// is read again, and what is left to compact is compacted.
    async fn compact(&mut self) -> Result<usize> {
        let (compacted, _) = self.compaction_plan()?;
        let mut attempt = 0;
        loop {
            match self.try_to_compact().await {
                Ok(()) => return self.refresh().await.map(|()| compacted),
                Err(error) if error.may_pass() && attempt + 1 < COMPACTIONS => {
                    tracing::debug!(table = self.kind.table(), attempt, %error, "the compaction did not go through at once");
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                    self.refresh().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_to_compact(&mut self) -> Result<()> {
        // Compaction conflicts with no append: delta-rs may try again as often as appends come first.
        let commits = CommitProperties::default()
            .with_max_retries(100)
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false));
        let target = NonZeroU64::new(self.lake.options().target_file_bytes).unwrap_or(NonZeroU64::MIN);
        let (delta, _) = self
            .delta
            .clone()
            .optimize()
            .with_target_size(target)
            .with_writer_properties(writer_properties(self.schema()?.as_ref()))
            .with_max_concurrent_tasks(1)
            .with_commit_properties(commits)
            .await
            .context(|| format!("compacting table {}", self.kind.table()))?;
        self.delta = delta;
        Ok(())
    }
}

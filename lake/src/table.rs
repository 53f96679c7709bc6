//! One event table: opening, creating, evolving and reading it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use buoyant_kernel::engine::arrow_conversion::TryIntoKernel as _;
use buoyant_kernel::schema::StructType;
use chrono::{DateTime, Utc};
use datafusion::catalog::TableProvider;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::operations::create::CreateBuilder;
use futures::TryStreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::table::table_schema;

use crate::append::fingerprint_id;
use crate::error::{Context as _, LakeError, Result};
use crate::files::stats_columns;
use crate::ids::DataFile;
use crate::lake::Lake;
use crate::scan::TableScan;

/// An event table at a version.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) lake: Lake,
    pub(crate) kind: Kind,
    pub(crate) delta: DeltaTable,
    /// Version at which the state in memory was last read from the store as a whole.
    pub(crate) read_at: Option<u64>,
    /// Transaction versions known to hold at the version beside them: our own last commit's.
    pub(crate) known: Option<(u64, HashMap<String, i64>)>,
}

/// How commits of ours are made: one try, a compare-and-swap on the version; no work hidden behind the commit.
pub(crate) fn commit_properties() -> CommitProperties {
    CommitProperties::default().with_max_retries(0).with_create_checkpoint(false).with_cleanup_expired_logs(Some(false))
}

impl Table {
    fn log_store(lake: &Lake, kind: Kind) -> Result<LogStoreRef> {
        let folder = format!("tables/{}/", kind.table());
        let url = lake.url().join(&folder).context(|| format!("URL of table {}", kind.table()))?;
        let location = lake.location();
        let path = location.prefix.clone().join("tables").join(kind.table());
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(location.root.clone(), path));
        Ok(default_logstore(prefixed, location.root.clone(), &url, &StorageConfig::default()))
    }

    fn unopened(lake: &Lake, kind: Kind) -> Result<Table> {
        let (delta, read_at) = match lake.opened().lock().get(&kind) {
            Some((delta, read_at)) => (delta.clone(), *read_at),
            None => (DeltaTable::new(Table::log_store(lake, kind)?), None),
        };
        Ok(Table { lake: lake.clone(), kind, delta, read_at, known: None })
    }

    pub(crate) async fn open(lake: &Lake, kind: Kind) -> Result<Option<Table>> {
        let what = || format!("opening table {}", kind.table());
        let mut table = Table::unopened(lake, kind)?;
        if table.delta.state.is_none() && !table.delta.verify_deltatable_existence().await.context(what)? {
            return Ok(None);
        }
        table.delta.update_incremental(None).await.context(what)?;
        table.read_at.get_or_insert(table.delta.version().unwrap_or(0));
        table.remember();
        Ok(Some(table))
    }

    pub(crate) async fn open_version(lake: &Lake, kind: Kind, version: u64) -> Result<Option<Table>> {
        let Some(mut table) = Table::open(lake, kind).await? else { return Ok(None) };
        if version > table.version() {
            return Err(LakeError::NotFound(format!(
                "table {} has no version {version}; its newest is {}",
                kind.table(),
                table.version()
            )));
        }
        let mut delta = DeltaTable::new(table.delta.log_store());
        if let Err(error) = delta.load_version(version).await {
            let versions = table.log_versions().await?;
            if !versions.can_read(version) {
                return Err(table.cleaned_up(&format!("version {version}"), versions.oldest()));
            }
            return Err(error).context(|| format!("opening version {version} of table {}", kind.table()));
        }
        let newest = std::mem::replace(&mut table.delta, delta);
        if version < newest.version().unwrap_or(0) {
            table.check_whole(newest.version().unwrap_or(0)).await?;
        }
        Ok(Some(table))
    }

    /// An older version may have lost files to vacuum, which leaves its commits.
    async fn check_whole(&self, newest: u64) -> Result<()> {
        let present = self.files_present().await?;
        let files = self.data_files()?;
        let gone = files.iter().filter(|file| !present.contains(&file.path)).count();
        if gone == 0 {
            return Ok(());
        }
        let (table, version, all) = (self.kind.table(), self.version(), files.len());
        let whole = self.whole_after(&present, newest).await?;
        Err(LakeError::NotFound(format!(
            "version {version} of table {table} cannot be read any more: `maintain` has removed {gone} of its {all} files; \
             version {whole} can be read (a version that is to stay is pinned, or kept by --vacuum-older-than)"
        )))
    }

    /// Paths of all files in the table's folder.
    async fn files_present(&self) -> Result<HashSet<Path>> {
        let listed: Vec<_> = self
            .delta
            .object_store()
            .list(None)
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .context(|| format!("listing the files of table {}", self.kind.table()))?;
        Ok(listed.into_iter().collect())
    }

    /// A version after this one that has all its files: vacuum goes by age, so it is looked for by halving.
    async fn whole_after(&self, present: &HashSet<Path>, newest: u64) -> Result<u64> {
        let (mut broken, mut whole) = (self.version(), newest);
        while broken + 1 < whole {
            let middle = broken + (whole - broken) / 2;
            let mut table = self.clone();
            table.delta = DeltaTable::new(self.delta.log_store());
            table.delta.load_version(middle).await.context(|| format!("opening version {middle}"))?;
            let readable = table.data_files()?.iter().all(|file| present.contains(&file.path));
            *(if readable { &mut whole } else { &mut broken }) = middle;
        }
        Ok(whole)
    }

    /// The error for what was removed from the log.
    fn cleaned_up(&self, what: &str, oldest: Option<u64>) -> LakeError {
        let table = self.kind.table();
        let oldest = oldest.map_or_else(String::new, |oldest| format!("; the oldest that can be read is {oldest}"));
        LakeError::NotFound(format!(
            "{what} of table {table} is no longer in its log, which `maintain` shortens{oldest}"
        ))
    }

    /// Times come from the commits themselves: file times, which delta-rs goes by, change when a lake is copied.
    pub(crate) async fn open_time(lake: &Lake, kind: Kind, time: DateTime<Utc>) -> Result<Option<Table>> {
        let Some(table) = Table::open(lake, kind).await? else { return Ok(None) };
        let times = table.commit_times().await?;
        // A clock that was set back must not make a later version older than an earlier one.
        let mut clock = i64::MIN;
        let mut found = None;
        for (version, committed) in &times {
            clock = clock.max(*committed);
            if clock <= time.timestamp_millis() {
                found = Some(*version);
            }
        }
        match (found, times.keys().next()) {
            (Some(version), _) => Table::open_version(lake, kind, version).await,
            // The table was there before its log begins.
            (None, Some(oldest)) if *oldest > 0 => {
                Err(table.cleaned_up(&format!("the state at {time}"), Some(*oldest)))
            }
            (None, _) => Ok(None),
        }
    }

    pub(crate) async fn open_for_writing(lake: &Lake, kind: Kind) -> Result<Table> {
        let mut last_error = None;
        for _ in 0..lake.options().max_commit_attempts {
            let Some(mut table) = Table::open(lake, kind).await? else {
                // Of several creators one wins; the others open what it made.
                if let Err(error) = Table::create(lake, kind).await {
                    tracing::debug!(table = kind.table(), %error, "creating the table did not succeed here");
                    if !error.may_pass() {
                        return Err(error);
                    }
                    last_error = Some(error);
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                continue;
            };
            if table.add_missing_columns().await? {
                return Ok(table);
            }
        }
        let rivals = || LakeError::NotFound(format!("table {} could not be brought up to date", kind.table()));
        Err(last_error.unwrap_or_else(rivals))
    }

    async fn create(lake: &Lake, kind: Kind) -> Result<()> {
        let schema = table_schema(kind);
        let configuration = [
            ("delta.dataSkippingStatsColumns", stats_columns(&schema).join(",")),
            ("delta.enableExpiredLogCleanup", "false".to_string()),
            ("delta.checkpointInterval", lake.options().checkpoint_versions.to_string()),
        ];
        CreateBuilder::new()
            .with_log_store(Table::log_store(lake, kind)?)
            .with_table_name(kind.table())
            .with_columns(delta_schema(&schema)?.fields().cloned())
            .with_configuration(configuration.map(|(key, value)| (key.to_string(), Some(value))))
            .with_raise_if_key_not_exists(false)
            .with_commit_properties(commit_properties())
            .await
            .context(|| format!("creating table {}", kind.table()))?;
        Ok(())
    }

    /// Adds the columns that a newer version of the schema has. False: another writer was faster, look again.
    async fn add_missing_columns(&mut self) -> Result<bool> {
        let have = self.schema()?;
        let missing: Vec<_> = table_schema(self.kind)
            .fields()
            .iter()
            .filter(|field| have.field_with_name(field.name()).is_err())
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        if missing.is_empty() {
            return Ok(true);
        }
        let names = missing.iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
        tracing::info!(table = self.kind.table(), columns = names, "adding columns of this version's schema");
        let fields: Vec<_> = delta_schema(&Schema::new(missing))?.fields().cloned().collect();
        let added =
            self.delta.clone().add_columns().with_fields(fields).with_commit_properties(commit_properties()).await;
        match added {
            Ok(delta) => {
                self.delta = delta;
                self.remember();
                Ok(true)
            }
            Err(error) => {
                let error = LakeError::store(format!("adding columns to table {}", self.kind.table()), error);
                tracing::debug!(table = self.kind.table(), %error, "adding columns did not succeed here");
                if error.may_pass() { Ok(false) } else { Err(error) }
            }
        }
    }

    /// Makes this state the one that the next opening in this process starts from.
    pub(crate) fn remember(&self) {
        let mut opened = self.lake.opened().lock();
        let newer = opened
            .get(&self.kind)
            .is_none_or(|(old, read_at)| (old.version(), *read_at) < (self.delta.version(), self.read_at));
        if newer {
            opened.insert(self.kind, (self.delta.clone(), self.read_at));
        }
    }

    /// Reads the state anew when many commits were added to it one by one. Each is a batch of its own in memory, and
    /// every later commit goes through all of them; read from a checkpoint, they are one.
    pub(crate) async fn read_anew_when_due(&mut self) -> Result<()> {
        let due = |at| self.version() >= at + self.lake.options().checkpoint_versions;
        if self.read_at.is_some_and(due) {
            let mut delta = DeltaTable::new(self.delta.log_store());
            delta.load().await.context(|| format!("reading the state of table {}", self.kind.table()))?;
            self.delta = delta;
            self.read_at = Some(self.version());
            self.remember();
        }
        Ok(())
    }

    /// The kind of events in the table.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The version.
    pub fn version(&self) -> u64 {
        self.delta.version().unwrap_or(0)
    }

    /// The id that the table was made with.
    pub fn id(&self) -> Result<String> {
        let state = self.delta.snapshot().context(|| format!("state of table {}", self.kind.table()))?;
        Ok(state.metadata().id().to_string())
    }

    /// URL of the table's folder.
    pub fn uri(&self) -> String {
        self.delta.table_url().to_string()
    }

    /// Columns as the table has them.
    pub fn schema(&self) -> Result<SchemaRef> {
        let state = self.delta.snapshot().context(|| format!("state of table {}", self.kind.table()))?;
        Ok(state.snapshot().arrow_schema())
    }

    /// Data files, in no order.
    pub(crate) fn data_files(&self) -> Result<Vec<DataFile>> {
        let state = self.delta.snapshot().context(|| format!("state of table {}", self.kind.table()))?;
        Ok(state
            .log_data()
            .iter()
            .map(|view| DataFile {
                path: view.object_store_path(),
                size: u64::try_from(view.size()).unwrap_or(0),
                stats: view.stats(),
            })
            .collect())
    }

    /// Number of data files and their bytes.
    pub fn size(&self) -> Result<(usize, u64)> {
        let files = self.data_files()?;
        Ok((files.len(), files.iter().map(|file| file.size).sum()))
    }

    /// A DataFusion table of this version.
    pub async fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        let scan = TableScan::new(self.delta.clone()).context(|| format!("reading table {}", self.kind.table()))?;
        Ok(Arc::new(scan))
    }

    /// The last position committed under `app_id`, at this version.
    pub async fn position(&self, app_id: &str) -> Result<Option<i64>> {
        if let Some((version, positions)) = &self.known
            && *version == self.version()
            && let Some(position) = positions.get(app_id)
        {
            return Ok(Some(*position));
        }
        let what = || format!("positions of table {}", self.kind.table());
        let state = self.delta.snapshot().context(what)?;
        state.transaction_version(self.delta.log_store().as_ref(), app_id).await.context(what)
    }

    /// The log's fingerprint at the last position committed under `app_id`, if it was committed with one.
    pub async fn fingerprint(&self, app_id: &str) -> Result<Option<i64>> {
        self.position(&fingerprint_id(app_id)).await
    }

    /// Brings this table to its newest version.
    pub async fn refresh(&mut self) -> Result<()> {
        self.delta.update_incremental(None).await.context(|| format!("refreshing table {}", self.kind.table()))?;
        self.remember();
        Ok(())
    }
}

fn delta_schema(schema: &Schema) -> Result<StructType> {
    schema.try_into_kernel().context(|| "schema as a Delta schema".to_string())
}

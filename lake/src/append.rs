//! Appending to a table exactly once.
//!
//! Rows and the log positions they came from are committed in one Delta version, so that a drain which starts from the
//! table's positions neither loses nor repeats a record. A commit is tried once against the very snapshot that
//! positions and ids were checked on: with no retries inside it is a compare-and-swap on the table's version, and the
//! uniqueness of ids holds across all writers.
//!
//! What an attempt came to is never told by its error: a store may carry out a write and then answer with an error, or
//! repeat our own request and tell us "already exists". The table is read again, and its positions decide:
//!
//! | position of the part now | outcome | what follows |
//! |---|---|---|
//! | `to` | **landed** | done, whatever the error said |
//! | other than `from` and `to` | **superseded**: another worker has the partition | the caller drops the rows and asks where to go on |
//! | `from` | **retry**: another commit came first, or the write failed | ids are looked up in the files added since, then again, with jitter |
//! | unknown: the table cannot be read | **retry** until the attempts are used up, then an error | the caller tries the same part again later; nothing is assumed |
//! | `from`, and the store refuses (rights, a read-only file system) | **denied**, at once | trying again would change nothing |
//! | not even tried: the schema does not fit, the store breaks its promises | **fatal** | the worker stops and says why |

use std::collections::HashSet;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use deltalake_core::kernel::transaction::CommitBuilder;
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use object_store::path::Path;
use rand::Rng as _;

use crate::error::{Context as _, LakeError, Result};
use crate::files;
use crate::ids::{IdKey, keys_of};
use crate::table::{Table, commit_properties};

/// Rows of one partition of a log and the positions they stand for: `(from, to]`.
#[derive(Debug, Clone)]
pub struct Part {
    /// Names the partition: `<cluster>/<topic>/<partition>`.
    pub app_id: String,
    /// The position the table must be at; None: nothing of the partition was ever committed.
    pub from: Option<i64>,
    /// The last position the rows stand for. Positions without rows count as well.
    pub to: i64,
    /// The log's fingerprint at `to`, if it has one: committed with it, so that a log that is not the one which was read
    /// can be told later by [`Table::fingerprint`].
    pub fingerprint: Option<i64>,
    /// The rows, in order; none is allowed.
    pub batches: Vec<RecordBatch>,
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Committed, now or by an attempt that seemed to have failed.
    Landed {
        /// Rows added.
        rows: u64,
        /// Rows left out because their event was there already.
        duplicates: u64,
    },
    /// The table has moved on without us; nothing of the part was written.
    Superseded {
        /// Where the table is.
        at: Option<i64>,
    },
}

/// A batch's rows that are to be written: which of them, and their identities.
struct Plan {
    keep: Vec<BooleanArray>,
    keys: Vec<IdKey>,
    rows: u64,
    duplicates: u64,
}

impl Table {
    /// Appends `parts` in one commit, exactly once. See the [module](self) for the protocol.
    ///
    /// # Errors
    /// [`LakeError::Store`] when the store did not let a commit through within the attempts: the parts may or may not
    /// have landed; append the same parts again. [`LakeError::Denied`], [`LakeError::Fatal`] and [`LakeError::Usage`]
    /// when it never will.
    pub async fn append(&mut self, parts: &[Part]) -> Result<Vec<Outcome>> {
        if let Err(error) = self.read_anew_when_due().await {
            tracing::debug!(table = self.kind.table(), %error, "going on with the state in memory");
        }
        let keys = parts.iter().map(part_keys).collect::<Result<Vec<_>>>()?;
        let mut wanted: Vec<IdKey> = keys.iter().flatten().flatten().copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut checked: HashSet<Path> = HashSet::new();
        let mut present: HashSet<IdKey> = HashSet::new();
        let mut written: Option<(Vec<bool>, usize, Vec<Add>)> = None;
        // What an attempt of this very call would have come to, if it landed.
        let mut planned: Vec<Option<Outcome>> = vec![None; parts.len()];
        let mut last_error = None;

        for attempt in 0..self.lake.options().max_commit_attempts {
            if attempt > 0 {
                tokio::time::sleep(backoff(attempt)).await;
                if let Err(error) = self.refresh().await {
                    last_error = Some(passing(error)?);
                    continue;
                }
            }
            let positions = match self.positions(parts).await {
                Ok(positions) => positions,
                Err(error) => {
                    last_error = Some(passing(error)?);
                    continue;
                }
            };
            let live: Vec<bool> = parts.iter().zip(&positions).map(|(part, at)| *at == part.from).collect();
            let mut files = self.data_files()?;
            self.lake.ids().keep_only(self.kind, &files);
            files.retain(|file| !checked.contains(&file.path));
            let store = self.delta.object_store();
            let found = match self.lake.ids().present(self.kind, &store, &files, &wanted).await {
                Ok(found) => found,
                Err(error) => {
                    last_error = Some(passing(error)?);
                    continue;
                }
            };
            present.extend(found);
            checked.extend(files.into_iter().map(|file| file.path));
            let plans = plan(&keys, &live, &present);
            for (index, plan) in plans.iter().enumerate().filter(|(index, _)| live[*index]) {
                planned[index] = Some(Outcome::Landed { rows: plan.rows, duplicates: plan.duplicates });
            }
            let outcome = |index: usize| match planned[index] {
                Some(landed) if live[index] || positions[index] == Some(parts[index].to) => landed,
                _ => Outcome::Superseded { at: positions[index] },
            };
            let outcomes: Vec<_> = (0..parts.len()).map(outcome).collect();
            if !live.contains(&true) {
                return Ok(outcomes);
            }
            // The last commit was refused, and it did not land.
            if let Some(refused) = last_error.take_if(|error| !error.may_pass()) {
                return Err(refused);
            }
            // What was written by an attempt that lost is used again unless a row of it turned out a duplicate.
            let same = matches!(&written, Some((for_live, dups, _)) if *for_live == live && *dups == present.len());
            if !same {
                match self.write(parts, &plans, &live).await {
                    Ok(adds) => written = Some((live.clone(), present.len(), adds)),
                    Err(error) => {
                        last_error = Some(passing(error)?);
                        continue;
                    }
                }
            }
            let adds = written.as_ref().map(|(_, _, adds)| adds.clone()).unwrap_or_default();
            let live_parts = || parts.iter().zip(&live).filter(|(_, live)| **live).map(|(part, _)| part);
            match self.commit(live_parts(), adds).await {
                Ok(()) => {
                    self.learn(live_parts(), &plans, &written);
                    return Ok(outcomes);
                }
                Err(error) => {
                    tracing::debug!(table = self.kind.table(), attempt, %error, "the commit did not go through at once");
                    last_error = Some(error);
                }
            }
        }
        Err(last_error.unwrap_or_else(|| LakeError::NotFound("no attempt was made".to_string())))
    }

    async fn positions(&self, parts: &[Part]) -> Result<Vec<Option<i64>>> {
        let mut positions = Vec::with_capacity(parts.len());
        for part in parts {
            positions.push(self.position(&part.app_id).await?);
        }
        Ok(positions)
    }

    async fn write(&self, parts: &[Part], plans: &[Plan], live: &[bool]) -> Result<Vec<Add>> {
        let mut batches = Vec::new();
        for ((part, plan), _) in parts.iter().zip(plans).zip(live).filter(|(_, live)| **live) {
            for (batch, keep) in part.batches.iter().zip(&plan.keep) {
                if keep.true_count() == batch.num_rows() {
                    batches.push(batch.clone());
                } else if keep.true_count() > 0 {
                    batches.push(filter_record_batch(batch, keep).context(|| "leaving out duplicates".to_string())?);
                }
            }
        }
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        files::write(self.delta.object_store(), &self.schema()?, &batches, self.lake.options().target_file_bytes).await
    }

    async fn commit(&mut self, parts: impl Iterator<Item = &Part>, adds: Vec<Add>) -> Result<()> {
        let what = || format!("committing to table {}", self.kind.table());
        let transactions = parts.flat_map(transactions).collect();
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let state = self.delta.snapshot().context(what)?;
        let committed = CommitBuilder::from(commit_properties().with_application_transactions(transactions))
            .with_actions(adds.into_iter().map(Action::Add).collect())
            .build(Some(state), self.delta.log_store(), operation)
            .await
            .context(what)?;
        self.delta.state = Some(committed.snapshot());
        Ok(())
    }

    /// Takes note of what the commit made known, and writes a checkpoint when one is due.
    fn learn<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a Part>,
        plans: &[Plan],
        written: &Option<(Vec<bool>, usize, Vec<Add>)>,
    ) {
        let mut positions =
            self.known.take().filter(|(version, _)| version + 1 == self.version()).map(|(_, p)| p).unwrap_or_default();
        positions.extend(parts.map(|part| (part.app_id.clone(), part.to)));
        self.known = Some((self.version(), positions));
        if let Some((live, _, adds)) = written
            && let [add] = adds.as_slice()
            && let Ok(path) = Path::parse(&add.path)
        {
            let keys = plans.iter().zip(live).filter(|(_, live)| **live).flat_map(|(plan, _)| &plan.keys).copied();
            self.lake.ids().remember(self.kind, path, keys.collect());
        }
        self.remember();
        if (self.version() + 1).is_multiple_of(self.lake.options().checkpoint_versions) {
            let (table, name) = (self.delta.clone(), self.kind.table());
            tokio::spawn(async move {
                if let Err(error) = deltalake_core::checkpoints::create_checkpoint(&table, None).await {
                    tracing::warn!(table = name, %error, "the checkpoint was not written; maintain writes one later");
                }
            });
        }
    }
}

fn transactions(part: &Part) -> impl Iterator<Item = Transaction> + use<> {
    let fingerprint = part.fingerprint.map(|value| Transaction::new(fingerprint_id(&part.app_id), value));
    [Transaction::new(part.app_id.clone(), part.to)].into_iter().chain(fingerprint)
}

/// What a fingerprint goes by, beside the position under `app_id`.
pub(crate) fn fingerprint_id(app_id: &str) -> String {
    format!("{app_id}#fingerprint")
}

/// An error after which to try again; others end the append.
fn passing(error: LakeError) -> Result<LakeError> {
    if error.may_pass() { Ok(error) } else { Err(error) }
}

fn part_keys(part: &Part) -> Result<Vec<Vec<IdKey>>> {
    part.batches.iter().map(keys_of).collect()
}

/// Decides row by row: a row is written unless its event is in the table or came earlier in this append.
fn plan(keys: &[Vec<Vec<IdKey>>], live: &[bool], present: &HashSet<IdKey>) -> Vec<Plan> {
    let mut seen = HashSet::new();
    keys.iter()
        .zip(live)
        .map(|(batches, live)| {
            let mut plan = Plan { keep: Vec::new(), keys: Vec::new(), rows: 0, duplicates: 0 };
            for batch in batches {
                let keep: Vec<bool> =
                    batch.iter().map(|key| *live && !present.contains(key) && seen.insert(*key)).collect();
                plan.keys.extend(batch.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(key, _)| *key));
                let kept = keep.iter().filter(|keep| **keep).count() as u64;
                plan.rows += kept;
                plan.duplicates += batch.len() as u64 - kept;
                plan.keep.push(BooleanArray::from(keep));
            }
            plan
        })
        .collect()
}

/// Exponential from 5 ms to 2 s, with full jitter so that rivals do not meet again.
pub(crate) fn backoff(attempt: u32) -> Duration {
    let ceiling_ms = (5u64 << attempt.min(9)).min(2000);
    Duration::from_millis(rand::rng().random_range(ceiling_ms / 4..=ceiling_ms))
}

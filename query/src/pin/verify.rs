//! Whether a pin is still what it was.

use bytes::Bytes;
use webdancer_lake::pins::PinManifest;

use super::compute;
use super::read::{batches, problem_of};
use crate::digest::DatasetDigest;
use crate::error::{QueryError, Result};
use crate::resolve::Versions;
use crate::session::QueryEngine;

/// What was checked of a pin, and what was found.
#[derive(Debug, Clone)]
pub struct Verification {
    /// The pin.
    pub manifest: PinManifest,
    /// What is wrong with its files; empty if nothing is. Every file was read, its hash compared, and the digest taken
    /// over the rows in them.
    pub problems: Vec<String>,
    /// Whether its query still gives the same rows.
    pub recomputed: Recomputed,
}

/// What came of running a pin's query again over the recorded versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recomputed {
    /// The same digest.
    Same,
    /// Another digest.
    Differs {
        /// The digest of the rows that came out.
        digest: String,
    },
    /// It could not be run, for this reason: a recorded version has been cleaned up, for example.
    NotPossible(String),
}

impl Verification {
    /// Whether nothing speaks against the pin. Versions that are gone do not: the files are the dataset.
    pub fn passed(&self) -> bool {
        self.problems.is_empty() && !matches!(self.recomputed, Recomputed::Differs { .. })
    }
}

/// Checks the files of a pin, always, and runs its query again while the recorded versions exist.
///
/// # Errors
/// When there is no such pin. What is wrong with it is part of the result.
pub async fn verify(engine: &QueryEngine, reference: &str) -> Result<Verification> {
    let manifest = engine.catalog().find_pin(reference).await?;
    let versions = Versions::Recorded(manifest.tables.clone());
    let (problems, computed) =
        tokio::join!(check_files(engine, &manifest), compute(engine, &manifest.definition, versions, None));
    let problems = problems?;
    let recomputed = match computed {
        Ok(computed) if computed.digest == manifest.digest => Recomputed::Same,
        Ok(computed) => Recomputed::Differs { digest: computed.digest },
        Err(error @ QueryError::Limit { .. }) => return Err(error),
        Err(error) => Recomputed::NotPossible(error.to_string()),
    };
    Ok(Verification { manifest, problems, recomputed })
}

async fn check_files(engine: &QueryEngine, manifest: &PinManifest) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut digest: Option<DatasetDigest> = None;
    for file in &manifest.files {
        let bytes = match engine.catalog().read_pin_file(&manifest.digest, &file.path).await {
            Ok(bytes) => bytes,
            Err(QueryError::NotFound(_)) => {
                problems.push(format!("{} is missing", file.path));
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(problem) = problem_of(file, &bytes) {
            problems.push(problem);
            continue;
        }
        let taken = tokio::task::spawn_blocking(move || add_rows(digest, bytes)).await;
        let (so_far, rows) = taken.map_err(|error| QueryError::failed("reading the pin's files", error))??;
        digest = so_far;
        if rows != file.rows {
            problems.push(format!("{} has {rows} rows, the manifest says {}", file.path, file.rows));
        }
    }
    if problems.is_empty() {
        let digest = match digest {
            Some(digest) => digest,
            None => DatasetDigest::new(super::read::schema(engine.catalog(), manifest).await?.as_ref())?,
        };
        let digest = digest.finish();
        if digest != manifest.digest {
            problems.push(format!("the rows have digest {digest}, the pin is {}", manifest.digest));
        }
    }
    Ok(problems)
}

/// The digest with a file's rows in it, and how many they are.
fn add_rows(mut digest: Option<DatasetDigest>, bytes: Bytes) -> Result<(Option<DatasetDigest>, u64)> {
    let mut rows = 0;
    for batch in batches(bytes)? {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        match &mut digest {
            Some(digest) => digest.update(&batch)?,
            None => digest.insert(DatasetDigest::new(&batch.schema())?).update(&batch)?,
        }
    }
    Ok((digest, rows))
}

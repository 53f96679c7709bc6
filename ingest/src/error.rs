//! What can go wrong between the log and the tables, by what the operator should do.

use webdancer_lake::LakeError;

/// An error of ingestion.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// Change a setting or an argument: trying again changes nothing.
    #[error("{0}")]
    Usage(String),
    /// Try again later: log or store could not be reached. Nothing is lost.
    #[error("{0}")]
    Unavailable(String),
    /// Stop and look: going on could lose or double events. The message names the way on.
    #[error("{0}")]
    Fatal(String),
    /// The lake's own error.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Local disk.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and where.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Result of an ingestion step.
pub type Result<T, E = IngestError> = std::result::Result<T, E>;

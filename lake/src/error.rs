//! What can go wrong with a lake, by what the caller should do about it.

use crate::refusal;

/// An error of the lake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// Change a setting or an argument: calling again changes nothing.
    #[error("{0}")]
    Usage(String),
    /// Try again later, or look at the store: it did not answer, or answered with an error.
    #[error("{what}: {source}")]
    Store {
        /// What was being done, and where.
        what: String,
        /// The store's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Change rights, credentials or the place: the store has refused, and will again.
    #[error("{0}")]
    Denied(String),
    /// Nothing to do but ask for something that exists.
    #[error("{0}")]
    NotFound(String),
    /// Stop and look: going on could lose or double events.
    #[error("{0}")]
    Fatal(String),
}

/// Result of a lake operation.
pub type Result<T, E = LakeError> = std::result::Result<T, E>;

impl LakeError {
    /// Wraps an error of the store or the table format; one that cannot pass becomes [`Denied`](LakeError::Denied) or,
    /// when the bucket is wrong, [`Usage`](LakeError::Usage).
    pub fn store(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> LakeError {
        let what = what.into();
        match refusal::of(&source) {
            Some(refusal) => refusal.told(&what),
            None => LakeError::Store { what, source: Box::new(source) },
        }
    }

    /// Whether the same call may succeed later: nothing but the store's state stands against it.
    pub fn may_pass(&self) -> bool {
        matches!(self, LakeError::Store { .. })
    }
}

/// Adds what was being done to an error of the store.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LakeError::store(what(), source))
    }
}

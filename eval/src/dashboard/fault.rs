//! Why a page is not shown, by what the reader can do about it.

use axum::http::StatusCode;
use webdancer_query::QueryError;

use crate::attempts::RowsError;

/// A page that is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Correct the address: a parameter is not what it can be.
    #[error("{0}")]
    Wrong(String),
    /// Look elsewhere: there is no such thing.
    #[error("{0}")]
    Missing(String),
    /// Ask for the right that is named.
    #[error("{what} is shown to those with the right `{right}` only: {remedy}")]
    Denied {
        /// What was asked for.
        what: String,
        /// The right that is missing.
        right: &'static str,
        /// How it is had.
        remedy: &'static str,
    },
    /// Try again, or ask for less: it took longer than it may.
    #[error("{0}")]
    Late(String),
    /// Look at the server's log, where it stands under this number.
    #[error("{what} (error {number} in the server's log)")]
    Failed {
        /// What failed.
        what: String,
        /// Number of the error since the server started.
        number: u64,
    },
}

impl Fault {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Fault::Wrong(_) => StatusCode::BAD_REQUEST,
            Fault::Missing(_) => StatusCode::NOT_FOUND,
            Fault::Denied { .. } => StatusCode::FORBIDDEN,
            Fault::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            Fault::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A restricted row, of a reader who may not see any.
    pub fn restricted(what: impl Into<String>) -> Fault {
        let remedy = "whoever runs the server gives it, with `webdancer serve --restricted` or the setting `serve.restricted_groups`";
        Fault::Denied { what: what.into(), right: "restricted", remedy }
    }

    /// A failure that whoever runs the server has to look at: it is logged with its number.
    pub(crate) fn failed(what: impl Into<String>, error: &dyn std::error::Error) -> Fault {
        static FAILURES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = FAILURES.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let what = what.into();
        tracing::error!(number, %error, "{what}");
        Fault::Failed { what, number }
    }
}

impl From<QueryError> for Fault {
    fn from(error: QueryError) -> Fault {
        match error {
            QueryError::Refused(_) | QueryError::Sql(_) | QueryError::Value(_) | QueryError::Conflict(_) => {
                Fault::Wrong(error.to_string())
            }
            QueryError::NotFound(text) => Fault::Missing(text),
            QueryError::Limit { .. } => Fault::Late(error.to_string()),
            error => Fault::failed("the lake cannot be read", &error),
        }
    }
}

impl From<RowsError> for Fault {
    fn from(error: RowsError) -> Fault {
        Fault::failed("the rows of the attempts cannot be read", &error)
    }
}

//! How a command fails: one line for people, an exit code for scripts.

use std::fmt;

use webdancer_agent::chat::SettingsError;
use webdancer_ingest::IngestError;
use webdancer_lake::LakeError;
use webdancer_query::QueryError;
use webdancer_schemas::log::LogError;

/// Why a command did not do all it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// Exit code 1: it failed.
    pub(crate) fn failed(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 1 }
    }

    /// Exit code 2: it was asked wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 2 }
    }

    /// Exit code 3: part of it is done, the message names the rest.
    pub(crate) fn partly(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 3 }
    }

    /// Exit code 4: another process works on the run, and nothing was done.
    pub(crate) fn busy(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 4 }
    }

    /// The same, with what it is about.
    pub(crate) fn about(self, what: &str) -> Failure {
        Failure { message: format!("{what}: {}", self.message), ..self }
    }

    /// The same, with more behind it.
    pub(crate) fn followed_by(self, more: &str) -> Failure {
        Failure { message: format!("{}{more}", self.message), ..self }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever a library's message looks like: scripts and logs take lines.
        let line = self.message.split_whitespace().collect::<Vec<_>>().join(" ");
        f.write_str(&line)
    }
}

impl From<LakeError> for Failure {
    fn from(error: LakeError) -> Failure {
        match error {
            LakeError::Usage(message) => Failure::usage(message),
            // The cause's own text often says what the outer error does not.
            LakeError::Store { what, source } => Failure::failed(format!("{what}: {}", chain(source.as_ref()))),
            other => Failure::failed(other.to_string()),
        }
    }
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Failure {
        match error {
            IngestError::Usage(message) => Failure::usage(message),
            IngestError::Lake(error) => error.into(),
            other => Failure::failed(other.to_string()),
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        match &error {
            QueryError::Refused(_) | QueryError::Sql(_) | QueryError::Conflict(_) => Failure::usage(error.to_string()),
            QueryError::Failed { what, source } => Failure::failed(format!("{what}: {}", chain(source.as_ref()))),
            _ => Failure::failed(error.to_string()),
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Failure {
        Failure::failed(error.to_string())
    }
}

/// An error and what caused it, on one line, without saying anything twice.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

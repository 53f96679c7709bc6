//! What can go wrong with a query or a pin, by what the caller should do about it.

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;
use tokio::task::JoinError;
use webdancer_lake::LakeError;

/// An error of a query or a pin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Ask for something that only reads: the statement would change, configure or reach outside the lake.
    #[error("refused: {0}")]
    Refused(String),
    /// Correct the SQL or the argument: calling again changes nothing.
    #[error("{0}")]
    Sql(String),
    /// Look at the data, or guard the expression: the query was planned, and a value of some row could not be computed.
    #[error("running the query: {0}")]
    Value(String),
    /// Ask for less, or raise the limit that is named.
    #[error("{what}; {remedy}")]
    Limit {
        /// The limit that was reached.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// Ask for something that exists: no such version or pin, or a file of it is gone.
    #[error("{0}")]
    NotFound(String),
    /// Choose another name: a pin never changes.
    #[error("{0}")]
    Conflict(String),
    /// Look at the store or the machine; the same call may succeed later.
    #[error("{what}: {source}")]
    Failed {
        /// What was being done.
        what: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Result of a query or pin operation.
pub type Result<T, E = QueryError> = std::result::Result<T, E>;

impl QueryError {
    /// Wraps a failure of the store or the machine.
    pub fn failed(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> QueryError {
        QueryError::Failed { what: what.into(), source: source.into() }
    }

    /// An error of a query that was planned and failed while it ran: what would be a mistake in the SQL before is now
    /// one of the values that it met.
    pub(crate) fn running(error: DataFusionError) -> QueryError {
        let hint = match error.find_root() {
            DataFusionError::ArrowError(source, _) => match source.as_ref() {
                ArrowError::DivideByZero => "; dividing by nullif(…, 0) gives null instead",
                ArrowError::CastError(_) | ArrowError::ParseError(_) => "; TRY_CAST gives null instead",
                _ => "",
            },
            _ => "",
        };
        match QueryError::from(error) {
            QueryError::Sql(message) => QueryError::Value(format!("{message}{hint}")),
            other => other,
        }
    }

    /// An error of planning. Expressions of constants are computed then: one that cannot be is as wrong as it would be
    /// with the same values from a row.
    pub(crate) fn planning(error: DataFusionError) -> QueryError {
        let of_value = match error.find_root() {
            DataFusionError::ArrowError(source, _) => matches!(
                source.as_ref(),
                ArrowError::CastError(_)
                    | ArrowError::ParseError(_)
                    | ArrowError::DivideByZero
                    | ArrowError::ArithmeticOverflow(_)
            ),
            _ => false,
        };
        if of_value { QueryError::running(error) } else { error.into() }
    }

    /// Whether it only says that whoever read the result has gone (a closed pipe) and wants no more of it.
    pub fn is_reader_gone(&self) -> bool {
        let QueryError::Failed { source, .. } = self else { return false };
        source.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// What is left to say of a task that panicked: a fault in a library, which comes with a text for its authors. That
    /// is told at level info. An array's offsets have 32 bits, and what does not fit into them is too much at once.
    pub(crate) fn broken_off(error: &JoinError) -> QueryError {
        tracing::info!(%error, "the query engine broke off");
        if error.to_string().contains("overflow") {
            return QueryError::limit("a column of one batch has more than 2 GiB", MEMORY_REMEDY);
        }
        QueryError::failed(
            "the query engine broke off",
            "a fault of its own, which this statement meets; write the statement another way (-v tells the fault)",
        )
    }

    /// Whether less at a time may do.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        matches!(self, QueryError::Limit { remedy, .. } if remedy == MEMORY_REMEDY)
    }

    pub(crate) fn limit(what: impl Into<String>, remedy: impl Into<String>) -> QueryError {
        QueryError::Limit { what: what.into(), remedy: remedy.into() }
    }
}

/// The file that some error on the way here says is not there.
fn missing_file(error: &DataFusionError) -> Option<&str> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let error_of_store = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::ObjectStore(error)) => Some(error.as_ref()),
            _ => error.downcast_ref::<object_store::Error>(),
        };
        if let Some(object_store::Error::NotFound { path, .. }) = error_of_store {
            return Some(path);
        }
        cause = error.source();
    }
    None
}

/// What to do where memory or disk are not enough.
const MEMORY_REMEDY: &str = "select fewer rows or columns, or raise sql.memory_bytes or sql.spill_bytes";

/// The panic of a task that DataFusion runs for itself.
fn panicked(error: &DataFusionError) -> Option<&JoinError> {
    let join = match error {
        DataFusionError::ExecutionJoin(error) => Some(error.as_ref()),
        DataFusionError::External(error) => error.downcast_ref::<JoinError>(),
        _ => None,
    };
    join.filter(|error| error.is_panic())
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> QueryError {
        if let Some(error) = panicked(error.find_root()) {
            return QueryError::broken_off(error);
        }
        if let Some(path) = missing_file(&error) {
            return QueryError::NotFound(format!("a file of the lake is gone: {path}"));
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(message) => out_of_space(message),
            // The limit on spilled bytes comes as an I/O error.
            DataFusionError::ArrowError(source, _) if source.to_string().contains("max_temp_directory_size") => {
                out_of_space("the spilled data has grown beyond its limit")
            }
            DataFusionError::ObjectStore(_) => QueryError::failed("reading the lake", error),
            DataFusionError::ParquetError(_) => QueryError::failed(
                "a Parquet file of the lake cannot be read (`pin verify` names those of a pin)",
                error,
            ),
            DataFusionError::SQL(source, _) => sql_error(&source.to_string()),
            DataFusionError::Plan(message)
            | DataFusionError::NotImplemented(message)
            | DataFusionError::Configuration(message)
            | DataFusionError::Execution(message) => QueryError::Sql(message.clone()),
            DataFusionError::SchemaError(source, _) => QueryError::Sql(source.to_string()),
            DataFusionError::ArrowError(source, _) => match source.as_ref() {
                ArrowError::IoError(..) | ArrowError::MemoryError(_) => QueryError::failed("running the query", error),
                _ => QueryError::Sql(source.to_string()),
            },
            _ => QueryError::failed("running the query", error),
        }
    }
}

fn out_of_space(message: &str) -> QueryError {
    QueryError::limit(format!("out of the memory or disk allowed to queries: {message}"), MEMORY_REMEDY)
}

/// The parser's own limit on recursion is one of ours.
fn sql_error(message: &str) -> QueryError {
    let message = message.trim_start_matches("sql parser error: ");
    if message.contains("recursion limit") {
        QueryError::limit("the statement is nested too deeply", "write it flatter, with WITH clauses for example")
    } else {
        QueryError::Sql(format!("SQL syntax: {message}"))
    }
}

impl From<ArrowError> for QueryError {
    fn from(error: ArrowError) -> QueryError {
        DataFusionError::from(error).into()
    }
}

impl From<ParquetError> for QueryError {
    fn from(error: ParquetError) -> QueryError {
        QueryError::failed("reading or writing Parquet", error)
    }
}

impl From<std::io::Error> for QueryError {
    fn from(error: std::io::Error) -> QueryError {
        QueryError::failed("writing the result", error)
    }
}

impl From<LakeError> for QueryError {
    fn from(error: LakeError) -> QueryError {
        match error {
            LakeError::NotFound(message) => QueryError::NotFound(message),
            LakeError::Usage(message) => QueryError::Sql(message),
            other => QueryError::failed("reading the lake", other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn panicking(text: &'static str) -> JoinError {
        tokio::spawn(async move { std::panic::resume_unwind(Box::new(text)) }).await.map(|(): ()| ()).unwrap_err()
    }

    #[tokio::test]
    async fn a_panic_is_one_line_without_its_text() {
        for wrap in [|error| error, |error| DataFusionError::Context("Join Error".to_string(), Box::new(error))] {
            let panic = panicking("index out of bounds: the len is 3\nnote: run with RUST_BACKTRACE=1").await;
            let error = QueryError::from(wrap(DataFusionError::External(Box::new(panic))));
            let text = error.to_string();
            assert_eq!(
                text,
                "the query engine broke off: a fault of its own, which this statement meets; write the statement another \
                 way (-v tells the fault)"
            );
            assert!(!error.is_out_of_memory());
        }
    }

    #[tokio::test]
    async fn offsets_that_overflow_are_too_much_at_once() {
        let error = QueryError::broken_off(&panicking("byte array offset overflow").await);
        assert!(matches!(error, QueryError::Limit { .. }) && error.is_out_of_memory(), "{error:?}");
        assert!(
            error.to_string().starts_with("a column of one batch has more than 2 GiB; select fewer rows"),
            "{error}"
        );
    }
}

//! What can go wrong with a query or a pin, by what the caller should do about it.

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;
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

    pub(crate) fn limit(what: impl Into<String>, remedy: impl Into<String>) -> QueryError {
        QueryError::Limit { what: what.into(), remedy: remedy.into() }
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> QueryError {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(message) => out_of_space(message),
            // The limit on spilled bytes comes as an I/O error.
            DataFusionError::ArrowError(source, _) if source.to_string().contains("max_temp_directory_size") => {
                out_of_space("the spilled data has grown beyond its limit")
            }
            DataFusionError::ObjectStore(source) => match source.as_ref() {
                object_store::Error::NotFound { path, .. } => {
                    QueryError::NotFound(format!("a file of the table is gone: {path}"))
                }
                _ => QueryError::failed("reading the lake", error),
            },
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
    QueryError::limit(
        format!("out of the memory or disk allowed to queries: {message}"),
        "select fewer rows or columns, or raise sql.memory_bytes or sql.spill_bytes",
    )
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

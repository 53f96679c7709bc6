//! From the event log into the tables.
//!
//! Data flow: producers append through [`EventLog`](webdancer_schemas::log::EventLog), either to Kafka or to the
//! [embedded log](embedded). A [source] reads the log back; the [commit loop](drain) decodes its records to
//! Arrow and commits them to the lake, exactly once. What is no event goes to [dead letters](dead_letter).

pub mod dead_letter;
pub mod decode;
pub mod drain;
pub mod embedded;
pub mod error;
pub mod intake;
pub mod kafka;
pub mod source;

pub use error::{IngestError, Result};

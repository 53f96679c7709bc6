//! The event log, as its producers see it.

use async_trait::async_trait;

use crate::event::Event;

/// An append-only log of events.
///
/// Producers append; whoever drains the log into tables is not their concern. After an error some of the events may
/// be in the log all the same: append the same events, with the same ids, again. They show once in the tables.
#[async_trait]
pub trait EventLog: Send + Sync + std::fmt::Debug {
    /// Appends `events` in order and returns when all of them are durable.
    async fn append(&self, events: Vec<Event>) -> Result<(), LogError>;
}

/// Why events were not acknowledged, by what the producer should do.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Make the event smaller, or raise the limit; the same call will fail again.
    #[error("event {id} has {bytes} bytes, more than the {limit} that log.max_event_bytes allows")]
    TooLarge {
        /// Id of the event.
        id: String,
        /// Its size in the log.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Append again with the same ids: the log could not be reached or answered too late.
    #[error("the event log is unavailable: {0}")]
    Unavailable(String),
    /// Look at the machine: the log's storage failed, is damaged or may not be written to. Until that is mended nothing
    /// can be appended.
    #[error("the event log failed: {0}")]
    Failed(String),
}

//! An event: CloudEvents 1.0 context attributes and a row as `data`.

use chrono::{DateTime, SubsecRound as _, Utc};
use serde_json::value::RawValue;

use crate::id::EventId;
use crate::kind::Kind;
use crate::row::HasKind;

/// The context attributes of an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Identity within the source.
    pub id: EventId,
    /// The producer's id, where it is not a UUID.
    pub source_event_id: Option<String>,
    /// Who produced it: CloudEvents `source`.
    pub source: String,
    /// What happened: CloudEvents `type`.
    pub kind: Kind,
    /// When, in microseconds. None: the log's own time of the record stands in.
    pub time: Option<DateTime<Utc>>,
    /// The entity it is about: CloudEvents `subject`, and the key in the log.
    pub subject: Option<String>,
    /// The run it belongs to: extension `runid`.
    pub run_id: Option<String>,
    /// Ids of the events or entities it came from: extension `parents`, comma-separated.
    pub parents: Vec<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Extension attributes we have no column for, by name without `ce_`, as JSON text.
    pub extensions: Vec<(String, String)>,
}

/// An event ready to be appended.
#[derive(Debug, Clone)]
pub struct Event {
    /// Context attributes; `time` and `subject` are set.
    pub envelope: Envelope,
    /// The row, as JSON text.
    pub data: Box<RawValue>,
}

impl Event {
    /// An event of `row`, with a new time-ordered id and the present time.
    ///
    /// # Errors
    /// When the row holds a value that JSON has not, such as an infinite number.
    pub fn new<R: HasKind>(source: &str, row: &R) -> Result<Event, serde_json::Error> {
        Ok(Event {
            envelope: Envelope {
                id: EventId::now(),
                source_event_id: None,
                source: source.to_string(),
                kind: R::KIND,
                time: Some(Utc::now().trunc_subsecs(6)),
                subject: Some(row.subject()),
                run_id: None,
                parents: Vec::new(),
                traceparent: None,
                extensions: Vec::new(),
            },
            data: serde_json::value::to_raw_value(row)?,
        })
    }

    /// Replaces the id: for work that may be done again, see [`EventId::derive`].
    #[must_use]
    pub fn with_id(mut self, id: EventId) -> Event {
        self.envelope.id = id;
        self
    }

    /// Sets the run the event belongs to.
    #[must_use]
    pub fn with_run(mut self, run_id: &str) -> Event {
        self.envelope.run_id = Some(run_id.to_string());
        if self.envelope.kind == Kind::Run {
            self.envelope.subject = Some(run_id.to_string());
        }
        self
    }

    /// Sets what the event came from.
    #[must_use]
    pub fn with_parents(mut self, parents: Vec<String>) -> Event {
        self.envelope.parents = parents;
        self
    }

    /// Sets the time.
    #[must_use]
    pub fn at(mut self, time: DateTime<Utc>) -> Event {
        self.envelope.time = Some(time.trunc_subsecs(6));
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.envelope.kind
    }

    /// The id.
    pub fn id(&self) -> EventId {
        self.envelope.id
    }

    /// The key in the log: the subject.
    pub fn key(&self) -> &str {
        self.envelope.subject.as_deref().unwrap_or("")
    }
}

/// Why something could not be made an event or a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", field.as_ref().map(|f| format!("{f}: ")).unwrap_or_default())]
pub struct Rejection {
    /// Path of the field at fault, such as `data.links[3]`, where there is one.
    pub field: Option<String>,
    /// The cause.
    pub reason: String,
}

impl Rejection {
    /// A rejection that no single field is at fault for.
    pub fn new(reason: impl Into<String>) -> Rejection {
        Rejection { field: None, reason: reason.into() }
    }

    /// A rejection of one field.
    pub fn of(field: impl Into<String>, reason: impl Into<String>) -> Rejection {
        Rejection { field: Some(field.into()), reason: reason.into() }
    }
}

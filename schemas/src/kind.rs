//! The kinds of events, one table and one topic each.

use std::fmt;
use std::str::FromStr;

use arrow::datatypes::Field;

use crate::row::Row as _;
use crate::rows;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $variant:ident, $row:ty, $name:literal, $table:literal, $major:literal;)*) => {
        /// What happened. Each kind has a table of its own, and in Kafka a topic of its own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Kind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)*];

            /// The name in event types and topics, such as `judgment`.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$variant => $name,)* }
            }

            /// The Delta table that holds the events of this kind, such as `judgments`.
            pub fn table(self) -> &'static str {
                match self { $(Kind::$variant => $table,)* }
            }

            /// The major version of the kind's schema. It changes only when old events could not be read any more.
            pub fn major(self) -> u32 {
                match self { $(Kind::$variant => $major,)* }
            }

            /// The column of the row that names the entity: the event's `subject` when a producer gives none.
            pub fn key_column(self) -> &'static str {
                match self { $(Kind::$variant => <$row>::KEY,)* }
            }

            /// The Arrow fields of the row (`data`), without the columns every table starts with.
            pub fn row_fields(self) -> Vec<Field> {
                match self { $(Kind::$variant => <$row>::fields(),)* }
            }

            /// The generated JSON Schema of the row (`data`).
            pub fn row_json_schema(self) -> schemars::Schema {
                match self { $(Kind::$variant => schemars::schema_for!($row),)* }
            }

            /// Checks `data` against the typed row; the error names the field and the cause.
            pub fn check_row(self, data: &str) -> Result<(), serde_json::Error> {
                match self { $(Kind::$variant => serde_json::from_str::<$row>(data).map(drop),)* }
            }
        }

        $(impl crate::row::HasKind for $row {
            const KIND: Kind = Kind::$variant;
        })*
    };
}

kinds! {
    /// A page fetched by a crawl or a visit.
    Page, rows::Page, "page", "pages", 1;
    /// A question with its answer and where both came from.
    Qa, rows::Qa, "qa", "qa", 1;
    /// One attempt of one policy at one question, turn by turn.
    Trajectory, rows::Trajectory, "trajectory", "trajectories", 1;
    /// One E2HQA rewriting step of a question.
    Rewrite, rows::Rewrite, "rewrite", "rewrites", 1;
    /// A verdict on a trajectory.
    Judgment, rows::Judgment, "judgment", "judgments", 1;
    /// The reward of a trajectory and its parts.
    Reward, rows::Reward, "reward", "rewards", 1;
    /// A job's life: started, finished, failed.
    Run, rows::Run, "run", "runs", 1;
    /// A number measured at a step of a run.
    Metric, rows::Metric, "metric", "metrics", 1;
    /// A dataset pinned.
    Pin, rows::Pin, "pin", "pins", 1;
    /// Model weights written.
    Checkpoint, rows::Checkpoint, "checkpoint", "checkpoints", 1;
    /// A slot of a schedule that ran.
    Slot, rows::Slot, "slot", "slots", 1;
    /// Who asked for what.
    Audit, rows::Audit, "audit", "audits", 1;
    /// Positions of a log that were lost before they were read.
    Gap, rows::Gap, "gap", "gaps", 1;
    /// Something that could not be made a row, with its bytes and the reason.
    DeadLetter, rows::DeadLetter, "dead_letter", "dead_letters", 1;
}

impl Kind {
    /// The CloudEvents `type`: `webdancer.<kind>.v<major>`.
    pub fn event_type(self) -> String {
        format!("webdancer.{}.v{}", self.name(), self.major())
    }

    /// The kind of a table, if it is an event table.
    pub fn from_table(table: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.table() == table)
    }

    /// The kind of a CloudEvents `type`; the error says what is wrong with it.
    pub fn from_event_type(event_type: &str) -> Result<Kind, UnknownKind> {
        let unknown = || UnknownKind { given: event_type.to_string() };
        let (name, version) =
            event_type.strip_prefix("webdancer.").and_then(|rest| rest.rsplit_once(".v")).ok_or_else(unknown)?;
        let kind = name.parse::<Kind>().map_err(|_| unknown())?;
        if version.parse() == Ok(kind.major()) { Ok(kind) } else { Err(unknown()) }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;
    fn from_str(name: &str) -> Result<Kind, UnknownKind> {
        Kind::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownKind { given: name.to_string() })
    }
}

/// An event type that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind {given:?}; known are webdancer.<kind>.v1 with kind one of {}", known_names())]
pub struct UnknownKind {
    /// What the producer sent.
    pub given: String,
}

fn known_names() -> String {
    Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

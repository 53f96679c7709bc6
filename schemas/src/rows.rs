//! The row of each kind of event.
//!
//! Column and JSON field names are the same. Where an OpenTelemetry GenAI attribute names the same thing, the
//! column's doc names it.

mod data;
mod ops;
mod trajectory;

pub use data::{Page, Qa, Rewrite};
pub use ops::{Artifact, Audit, Checkpoint, DeadLetter, Gap, Metric, Pin, Run, Slot};
pub use trajectory::{Judgment, Reward, Trajectory};

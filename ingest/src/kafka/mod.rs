//! Kafka as the event log: one topic per kind, CloudEvents in the binary binding, key = subject.
//!
//! [`KafkaLog`] appends (idempotent, acks=all), [`KafkaSource`] reads for the commit loop, [`Admin`] creates and checks
//! topics and tells the ids that the loop needs to notice a topic that was deleted and made anew. All three are built
//! from one [`KafkaSettings`]. What the tables hold decides where reading starts; the group's offsets are only a hint
//! for people who watch lag.
//!
//! [`tasks`] is apart from the log: work shared out over machines, for which the group's offsets do decide.

mod admin;
mod assignment;
mod consumer;
mod context;
mod ffi;
mod producer;
mod record;
mod session;
mod settings;
pub mod tasks;
mod watch;

pub use admin::Admin;
pub use consumer::KafkaSource;
pub use producer::KafkaLog;
pub use settings::KafkaSettings;

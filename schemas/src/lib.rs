//! What webdancer's events are: their kinds, envelope, identity, columns and the log they are appended to.
//!
//! Data flow: a producer fills a typed [`Row`](row::Row), wraps it in an [`Event`](event::Event) and hands it to an
//! [`EventLog`](log::EventLog). Whatever drains the log decodes the event's `data` into the Arrow
//! [schema](table::table_schema) of its [`Kind`](kind::Kind), which is also the schema of the Delta table of that kind.
//! The row structs in [`rows`] are the single definition: Rust type, Arrow fields and JSON Schema come out of each.
//!
//! This crate does no I/O.

pub mod answer;
pub mod code;
pub mod column;
pub mod compat;
pub mod digest;
pub mod event;
pub mod id;
pub mod json_schema;
pub mod kind;
pub mod log;
pub mod row;
pub mod rows;
pub mod table;
pub mod wire;

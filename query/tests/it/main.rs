//! The query crate against tables in memory, and against a lake on disk.

mod aggregates;
mod lake;
mod limits;
mod output;
mod pins;
mod refusals;
mod sql;
mod support;
mod views;

//! The query crate against tables in memory, and against a lake on disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]
// Clippy's own exception covers test functions, not their helpers.

mod aggregates;
mod lake;
mod limits;
mod output;
mod pins;
mod refusals;
mod sql;
mod support;
mod views;

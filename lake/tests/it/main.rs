//! The lake's promises: exactly once through every fault of a store, time travel, evolution, maintenance, pins, claims.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

mod append;
mod fault_store;
mod maintain;
mod support;
mod tables;

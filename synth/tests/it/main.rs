//! The closed web and the crawler, against real HTTP on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

mod atlas;
mod closed_web;
mod docs;
mod hostile;
mod manners;
mod memory_log;
mod resume;

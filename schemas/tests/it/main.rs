//! Schemas: golden fixtures, compatibility, JSON Schemas and the CloudEvents wire form.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

mod golden;
mod wire;

//! The log and its way into the tables.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

mod decode;
mod embedded;
mod embedded_copies;
mod embedded_held;
mod embedded_power;
mod intake;
mod kafka_mock;
mod kafka_real;
mod kafka_support;
mod kafka_tasks;
mod support;

//! Suites that span crates: the command under kill -9, a power cut, the directions of dependency.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

mod embedded_kill;
mod layering;
mod power_cut;

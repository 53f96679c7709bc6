//! What tests of several crates share: servers that stand in for those on the internet.
//!
//! It depends on no crate of ours, so that any of them can test with it. The suites that span crates are in `tests/it`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

pub mod stub_model;

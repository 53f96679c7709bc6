//! The closed web and the crawler, against real HTTP on loopback.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking, as tests do")]

mod atlas;
mod canonical;
mod docs;
mod hostile;
mod manners;
mod memory_log;
mod resume;

//! The closed web and the crawler, against real HTTP on loopback; the funnel, over batches of trajectories.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

mod answerable;
mod atlas;
mod atlasqa;
mod brute_force;
mod calculator;
mod docs;
mod funnel_rules;
mod funnel_stages;
mod hostile;
mod manners;
mod memory_log;
mod model_qa;
mod models;
mod question_reader;
mod resume;
mod rewards;
mod sample;
mod scripted;
mod third_tool;
mod trajectories;

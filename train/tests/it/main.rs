//! Integration tests of the trainer: one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

mod masks;
mod pins;
mod support;
mod templates;

#[cfg(feature = "torch")]
mod activation_checkpointing;
#[cfg(feature = "torch")]
mod benching;
#[cfg(feature = "torch")]
mod command;
// A served checkpoint keeps to what the stub of the chat client's tests keeps to.
#[cfg(feature = "torch")]
#[path = "../../../agent/tests/it/chat/contract.rs"]
mod contract;
#[cfg(feature = "torch")]
mod dapo;
#[cfg(feature = "torch")]
mod dapo_ends;
#[cfg(feature = "torch")]
mod dapo_runs;
#[cfg(feature = "torch")]
mod experiments;
#[cfg(feature = "torch")]
mod folders;
#[cfg(feature = "torch")]
mod generation;
#[cfg(feature = "torch")]
mod lora;
#[cfg(feature = "torch")]
mod optimizer;
#[cfg(feature = "torch")]
mod parity;
#[cfg(feature = "torch")]
mod policies;
#[cfg(feature = "torch")]
mod process;
#[cfg(feature = "torch")]
mod rollouts;
#[cfg(feature = "torch")]
mod serving;
#[cfg(feature = "torch")]
mod training;

//! The trajectory format and the published files: handwritten fixtures, generated input, the real files; tools against
//! real HTTP on loopback, webs, and the ReAct loop played by scripts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

mod canonical;
mod chat;
mod demo;
mod fixtures;
mod hostile;
mod judges;
mod published_files;
mod react;
mod round_trip;
mod scripted;
mod services;
mod site;
mod tools;
mod webs;

use std::path::PathBuf;

/// A path relative to this crate.
fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The lines of a file of this crate.
fn lines(relative: &str) -> Vec<String> {
    let path = path(relative);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(str::to_string).collect()
}

//! Results on standard output, everything else on standard error.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use webdancer_query::QueryError;

use crate::failure::Failure;

/// A line for people, on standard error.
pub(crate) fn note(text: &str) {
    // When nobody can read it there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A line of the result, on standard output. When whoever read it has gone, as `head` does, it wants no more: what the
/// command does, and its exit code, do not hang on that.
///
/// # Errors
/// When standard output cannot be written to.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("writing the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// What writing many rows came to; None when whoever read them has gone.
///
/// # Errors
/// Any other error.
pub(crate) fn unless_gone<T>(written: Result<T, QueryError>) -> Result<Option<T>, Failure> {
    match written {
        Err(error) if error.is_reader_gone() => Ok(None),
        written => Ok(Some(written?)),
    }
}

/// The result as one JSON document.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::failed(format!("the result as JSON: {e}")))?;
    line(&text)
}

/// A counter without a known end: a moving line on a terminal, nothing elsewhere.
pub(crate) fn spinner(quiet: bool) -> ProgressBar {
    progress(ProgressBar::new_spinner(), quiet, "{spinner} {msg} [{elapsed}]")
}

/// A bar towards a known end.
pub(crate) fn bar(total: u64, quiet: bool) -> ProgressBar {
    progress(ProgressBar::new(total), quiet, "{bar:30} {pos}/{len} {msg} {per_sec} eta {eta}")
}

fn progress(bar: ProgressBar, quiet: bool, template: &str) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    } else if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
    }
    bar
}

/// Bytes for people: 1.5 MiB.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

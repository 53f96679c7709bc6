//! Results on standard output, everything else on standard error.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{BufWriter, ErrorKind, IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tempfile::NamedTempFile;
use webdancer_query::QueryError;

use crate::failure::Failure;

/// What moves on the terminal: one bar below another, where several things are under way.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A line for people, on standard error; above the bars, if there are any.
pub(crate) fn note(text: &str) {
    // When nobody can read it there is nobody to tell.
    let _ = AboveBars.write_all(format!("{text}\n").as_bytes());
}

/// Standard error, above the bars: for whole lines.
pub(crate) struct AboveBars;

impl std::io::Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        BARS.suspend(|| std::io::stderr().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
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

/// A file that takes its place when it is whole: until then it is a temporary one beside it, which goes when it is
/// dropped.
pub(crate) struct NewFile {
    temporary: NamedTempFile,
    place: PathBuf,
}

impl NewFile {
    /// A file to be written for `place`.
    ///
    /// # Errors
    /// When its folder cannot be written to.
    pub(crate) fn at(place: &Path) -> Result<NewFile, Failure> {
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut name = OsString::from(".");
        name.push(place.file_name().unwrap_or_default());
        let made = tempfile::Builder::new()
            .prefix(&name)
            .suffix(".partial")
            // As any file is made: less what the umask takes away.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder);
        let temporary = made.map_err(|error| unwritten(place, &error))?;
        Ok(NewFile { temporary, place: place.to_path_buf() })
    }

    /// What the content is written to.
    pub(crate) fn writer(&self) -> BufWriter<&File> {
        BufWriter::new(self.temporary.as_file())
    }

    /// Puts the file into its place.
    ///
    /// # Errors
    /// When it cannot be made durable or put there.
    pub(crate) fn keep(self) -> Result<(), Failure> {
        self.temporary.as_file().sync_all().map_err(|error| unwritten(&self.place, &error))?;
        self.temporary.persist(&self.place).map_err(|error| unwritten(&self.place, &error.error))?;
        Ok(())
    }
}

fn unwritten(place: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("writing {}: {error}", place.display()))
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
    progress(ProgressBar::new(total), quiet, "{prefix}{bar:30} {pos}/{len} {msg} {per_sec} eta {eta}")
}

fn progress(bar: ProgressBar, quiet: bool, template: &str) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        return bar;
    }
    let bar = BARS.add(bar);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
    }
    bar
}

/// Bytes for people: 1.5 MiB.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// A word of an enumeration, as in JSON.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|word| word.as_str().map(str::to_string)).unwrap_or_default()
}

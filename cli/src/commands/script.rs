//! Statements and backslash commands that are not typed into the shell: an argument, a file, or standard input. They are
//! taken apart and answered in the same way, one after the other, and the first that fails ends the command.
//!
//! What is written is all results in turn. JSON and Parquet are one document: of one statement the array of its rows or
//! the file, of several the array of their arrays, and no Parquet. So for these a script is read to its end before it is
//! begun; in other formats each statement is answered as soon as it is ended.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Cursor, Read as _, Write};

use webdancer_query::output::Format;
use webdancer_query::{QueryEngine, Script};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

use super::shell::Session;

/// Where statements come from.
pub(crate) enum Input {
    /// An argument or a file.
    Text(String),
    /// Standard input.
    Standard,
}

/// What came of a script.
pub(crate) struct Done {
    pub(crate) rows: u64,
    /// The failure of a result that was written, and was cut.
    pub(crate) check: Result<(), Failure>,
}

/// Answers a script.
///
/// # Errors
/// The first failure, with the line of the statement where there are several.
pub(crate) async fn run<W: Write + Send>(
    context: &Context,
    engine: &QueryEngine,
    session: Session,
    input: Input,
    mut to: W,
) -> Result<Done, Failure> {
    let from_input = matches!(input, Input::Standard);
    let input: Box<dyn BufRead + Send> = match input {
        Input::Text(text) => Box::new(Cursor::new(text.into_bytes())),
        Input::Standard => Box::new(BufReader::new(std::io::stdin())),
    };
    let mut steps = Steps::new(input, context.config.sql.max_sql_bytes);
    let whole = !from_input || is_document(session.format);
    let count = if whole { Some(tokio::task::block_in_place(|| steps.read_all())?) } else { None };
    let document = Document::of(session.format, count)?;
    let with_lines = from_input || steps.ready.len() != 1;
    let mut answering = Answering { context, engine, session, document, with_lines };
    let done = answering.all(&mut steps, &mut to).await;
    // What was answered before a failure is a document all the same.
    answering.document.end(&mut to)?;
    done
}

/// What is remembered from step to step.
struct Answering<'a> {
    context: &'a Context,
    engine: &'a QueryEngine,
    session: Session,
    document: Document,
    /// Whether failures name their lines.
    with_lines: bool,
}

impl Answering<'_> {
    async fn all<R: BufRead>(&mut self, steps: &mut Steps<R>, to: &mut (impl Write + Send)) -> Result<Done, Failure> {
        let mut done = Done { rows: 0, check: Ok(()) };
        while let Some((line, step)) = tokio::task::block_in_place(|| steps.next())? {
            let with_lines = self.with_lines;
            let at_line = |failure: Failure| if with_lines { failure.about(&format!("line {line}")) } else { failure };
            let sql = match step.trim().strip_prefix('\\') {
                Some("q" | "quit") => break,
                Some(command) => command_of(&mut self.session, command).map_err(at_line)?,
                None => Some(step),
            };
            let Some(sql) = sql else { continue };
            let begin = Begin { text: self.document.before_next(), to: &mut *to };
            let answer = self.session.answer(self.context, self.engine, &sql, begin).await.map_err(at_line)?;
            if answer.reader_gone {
                break;
            }
            self.document.results += 1;
            tracing::info!(rows = answer.rows, seconds = answer.seconds, "answered");
            done.rows += answer.rows;
            if self.session.format == Format::Table && !self.context.quiet {
                output::note(&format!("{} rows, {:.3} s", answer.rows, answer.seconds));
            }
            done.check = answer.check().map_err(at_line);
            if done.check.is_err() {
                break;
            }
        }
        Ok(done)
    }
}

/// Whether a format is one document, to which nothing can be added.
fn is_document(format: Format) -> bool {
    matches!(format, Format::Json | Format::Parquet)
}

/// A backslash command; the statement that it stands for.
fn command_of(session: &mut Session, command: &str) -> Result<Option<String>, Failure> {
    let before = session.format;
    let sql = session.command(command)?;
    if session.format != before && (is_document(before) || is_document(session.format)) {
        return Err(Failure::usage(format!(
            "{} is for a whole script, with --format; \\f goes between table, csv and ndjson",
            if is_document(before) { before } else { session.format }
        )));
    }
    Ok(sql)
}

/// What stands around the results of several statements in JSON.
struct Document {
    several: bool,
    results: usize,
}

impl Document {
    /// Of `count` statements, if that is known.
    fn of(format: Format, count: Option<usize>) -> Result<Document, Failure> {
        if let (Format::Parquet, Some(count)) = (format, count)
            && count > 1
        {
            return Err(Failure::usage(format!(
                "{count} statements, and Parquet is one file: run them one by one, or take another format"
            )));
        }
        Ok(Document { several: format == Format::Json && count != Some(1), results: 0 })
    }

    fn before_next(&self) -> &'static str {
        match (self.several, self.results) {
            (false, _) => "",
            (true, 0) => "[\n",
            (true, _) => ",\n",
        }
    }

    fn end(&self, to: &mut impl Write) -> Result<(), Failure> {
        let end = match (self.several, self.results) {
            (false, _) => "",
            (true, 0) => "[]\n",
            (true, _) => "]\n",
        };
        let written = to.write_all(end.as_bytes()).and_then(|()| to.flush());
        output::unless_gone(written.map_err(Into::into)).map(drop)
    }
}

/// A writer that begins with a text, once something is written: a statement that fails writes nothing.
struct Begin<'a, W> {
    text: &'static str,
    to: &'a mut W,
}

impl<W: Write> Write for Begin<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.to.write_all(std::mem::take(&mut self.text).as_bytes())?;
        self.to.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// The text of a line. One that is too long ends anywhere, in the middle of a character too.
fn text_of(mut line: Vec<u8>, max_bytes: usize) -> std::io::Result<String> {
    if line.len() > max_bytes
        && let Err(error) = std::str::from_utf8(&line)
        && error.error_len().is_none()
    {
        // Still too long, so that it is refused for its length.
        line.truncate(error.valid_up_to());
        line.push(b' ');
    }
    String::from_utf8(line).map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// What a script asks for, step by step: a statement, or a line with a backslash command where a statement could begin.
struct Steps<R> {
    input: R,
    /// Longer statements are handed over unended: they are refused for their length.
    max_bytes: usize,
    /// Lines read.
    lines: usize,
    ended: bool,
    /// A statement that is not ended yet, and the line it begins in.
    pending: String,
    begin: usize,
    ready: VecDeque<(usize, String)>,
}

impl<R: BufRead> Steps<R> {
    fn new(input: R, max_bytes: usize) -> Steps<R> {
        Steps { input, max_bytes, lines: 0, ended: false, pending: String::new(), begin: 1, ready: VecDeque::new() }
    }

    /// Reads to the end, and counts the statements.
    fn read_all(&mut self) -> Result<usize, Failure> {
        while !self.ended {
            self.read()?;
        }
        Ok(self.ready.iter().filter(|(_, step)| !step.trim_start().starts_with('\\')).count())
    }

    /// The next step and the line it begins in; None at the end.
    fn next(&mut self) -> Result<Option<(usize, String)>, Failure> {
        while self.ready.is_empty() && !self.ended {
            self.read()?;
        }
        Ok(self.ready.pop_front())
    }

    fn read(&mut self) -> Result<(), Failure> {
        self.read_line().map_err(|e| Failure::usage(format!("standard input, line {}: {e}", self.lines + 1)))
    }

    fn read_line(&mut self) -> std::io::Result<()> {
        let before = self.pending.len();
        let mut read = Vec::new();
        self.ended = self.input.by_ref().take(self.max_bytes as u64 + 1).read_until(b'\n', &mut read)? == 0;
        self.pending.push_str(&text_of(read, self.max_bytes)?);
        self.lines += 1;
        let line = self.pending.get(before..).unwrap_or_default();
        if before == 0 {
            self.begin = self.lines;
            if line.trim_start().starts_with('\\') {
                self.ready.push_back((self.begin, std::mem::take(&mut self.pending)));
                return Ok(());
            }
        }
        // A long statement is not looked through again with each of its lines.
        if before > 0 && !line.contains(';') && !self.ended && self.pending.len() <= self.max_bytes {
            return Ok(());
        }
        if self.ended {
            // The last one needs no semicolon.
            self.pending.push_str("\n;");
        }
        let Script { statements, rest } = Script::of(&self.pending);
        self.ready.extend(statements.into_iter().map(|(line, sql)| (self.begin + line - 1, sql.to_string())));
        self.begin += self.pending.matches('\n').count() - rest.matches('\n').count();
        self.pending = rest.to_string();
        if !self.pending.is_empty() && (self.ended || self.pending.len() > self.max_bytes) {
            self.ready.push_back((self.begin, std::mem::take(&mut self.pending)));
        }
        Ok(())
    }
}

//! Statements and backslash commands on standard input, without a terminal: each is answered as soon as it is ended, and
//! the first that fails ends the command.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read as _};

use webdancer_query::output::Format;
use webdancer_query::{QueryEngine, Script};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

use super::shell::Session;

/// Runs the script on standard input.
///
/// # Errors
/// The first failure, with the line of the statement.
pub(crate) async fn run(context: &Context, engine: &QueryEngine, mut session: Session) -> Result<(), Failure> {
    let max_bytes = context.config.sql.max_sql_bytes;
    let mut steps = Steps::new(BufReader::new(std::io::stdin()), max_bytes);
    while let Some((line, step)) = tokio::task::block_in_place(|| steps.next())? {
        let at_line = |failure: Failure| failure.about(&format!("line {line}"));
        let sql = match step.trim().strip_prefix('\\') {
            Some("q" | "quit") => return Ok(()),
            Some(command) => session.command(command).map_err(at_line)?,
            None => Some(step),
        };
        let Some(sql) = sql else { continue };
        let answer = session.answer(context, engine, &sql).await.map_err(at_line)?;
        if answer.reader_gone {
            return Ok(());
        }
        if session.format == Format::Table && !context.quiet {
            output::note(&format!("{} rows, {:.3} s", answer.rows, answer.seconds));
        }
        answer.check().map_err(at_line)?;
    }
    Ok(())
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

    /// The next step and the line it begins in; None at the end.
    fn next(&mut self) -> Result<Option<(usize, String)>, Failure> {
        while self.ready.is_empty() && !self.ended {
            self.read_line().map_err(|e| Failure::usage(format!("standard input, line {}: {e}", self.lines + 1)))?;
        }
        Ok(self.ready.pop_front())
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

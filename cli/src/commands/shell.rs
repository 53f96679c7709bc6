//! The interactive SQL shell: history, statements over many lines, completion of names.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use rustyline::completion::Completer as LineCompleter;
use rustyline::error::ReadlineError;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Completer, CompletionType, Config, Editor, Helper, Highlighter, Hinter};
use webdancer_ingest::embedded::user_state_folder;
use webdancer_query::output::Format;
use webdancer_query::{At, Completer as Names, QueryEngine, QueryOptions, Script, parse_at};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

use super::sql::Answer;

const HELP: &str = "A statement ends with a semicolon and may span lines. Tab completes tables and columns.
  \\d          tables and views          \\d NAME     columns of one
  \\f FORMAT   table, csv, json, ndjson   \\at TIME    all tables as they were; \\at alone: now
  \\q          quit (also Ctrl-D)         \\?          this help";

#[derive(Completer, Helper, Hinter, Highlighter)]
struct ShellHelper {
    #[rustyline(Completer)]
    names: SqlNames,
}

struct SqlNames(Names);

impl LineCompleter for SqlNames {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.0.complete(line.get(..position).unwrap_or(line)))
    }
}

impl Validator for ShellHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        let complete = input.trim_start().starts_with('\\') || Script::of(input).rest.is_empty();
        Ok(if complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// Rows shown of a result in the shell, unless asked for more.
const SHELL_ROWS: u64 = 1000;

/// What is remembered between statements.
pub(crate) struct Session {
    pub(crate) format: Format,
    pub(crate) options: QueryOptions,
    /// Whether the embedded log is drained before each statement.
    pub(crate) drain: bool,
}

/// The shell.
///
/// # Errors
/// When the terminal cannot be used. A statement that fails is told, and the shell goes on.
pub(crate) async fn run(context: &Context, engine: QueryEngine, mut session: Session) -> Result<(), Failure> {
    session.options.max_rows.get_or_insert(SHELL_ROWS);
    let names = SqlNames(engine.completer().await?);
    let failed = |e: ReadlineError| Failure::failed(format!("the shell: {e}"));
    let config = Config::builder().completion_type(CompletionType::List).auto_add_history(true).build();
    let mut editor: Editor<ShellHelper, _> = Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(ShellHelper { names }));
    let history = history_file();
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    if !context.quiet {
        output::note(&format!("{} — \\? for help", context.lake.uri()));
    }
    'shell: loop {
        let read = tokio::task::block_in_place(|| editor.readline("webdancer> "));
        let text = match read {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        };
        let asked = match text.trim().strip_prefix('\\') {
            Some("q" | "quit") => break,
            Some(command) => session.command(command).map(|sql| sql.into_iter().collect()),
            None => Ok(Script::of(&text).statements.into_iter().map(|(_, sql)| sql.to_string()).collect::<Vec<_>>()),
        };
        let statements = asked.unwrap_or_else(|failure| {
            output::note(&failure.to_string());
            Vec::new()
        });
        for sql in statements {
            if session.tell(context, &engine, &sql).await.is_break() {
                break 'shell;
            }
        }
    }
    if let Some(file) = &history {
        if let Some(folder) = file.parent() {
            let _ = std::fs::create_dir_all(folder);
        }
        if let Err(error) = editor.save_history(file) {
            tracing::debug!(%error, "the history was not saved");
        }
    }
    Ok(())
}

impl Session {
    /// A backslash command; gives the SQL that answers it, if any.
    ///
    /// # Errors
    /// When its argument is wrong.
    pub(super) fn command(&mut self, command: &str) -> Result<Option<String>, Failure> {
        let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let argument = argument.trim().trim_end_matches(';');
        match (name, argument) {
            ("d", "") => return Ok(Some("SHOW TABLES".to_string())),
            ("d", table) => return Ok(Some(format!("DESCRIBE {table}"))),
            ("f", format) => match format.parse()? {
                Format::Parquet => {
                    return Err(Failure::usage("Parquet is for --format, with one statement"));
                }
                format => self.format = format,
            },
            ("at", "") => self.options.at = At::Latest,
            ("at", time) => self.options.at = parse_at(time)?,
            ("?", _) => output::note(HELP),
            _ => return Err(Failure::usage(format!("\\{name} is no command; \\? shows them"))),
        }
        Ok(None)
    }

    /// Runs a statement and writes its rows.
    pub(super) async fn answer<W: Write + Send>(
        &self,
        context: &Context,
        engine: &QueryEngine,
        sql: &str,
        to: W,
    ) -> Result<Answer, Failure> {
        if self.drain {
            context.drain_embedded().await?;
        }
        super::sql::answer(engine, sql, &self.options, self.format, to).await
    }

    /// Errors end the statement, not the shell; so does Ctrl-C. Without a reader there is nothing left to do.
    async fn tell(&self, context: &Context, engine: &QueryEngine, sql: &str) -> ControlFlow<()> {
        tokio::select! {
            answered = self.answer(context, engine, sql, std::io::stdout()) => match answered {
                Ok(answer) if answer.reader_gone => return ControlFlow::Break(()),
                Ok(answer) => {
                    let cut = if answer.truncated { " (cut; --max-rows shows more)" } else { "" };
                    output::note(&format!("{} rows{cut}, {:.3} s", answer.rows, answer.seconds));
                }
                Err(failure) => output::note(&failure.to_string()),
            },
            _ = tokio::signal::ctrl_c() => output::note("stopped"),
        }
        ControlFlow::Continue(())
    }
}

fn history_file() -> Option<PathBuf> {
    Some(user_state_folder()?.join("sql_history"))
}

//! The interactive SQL shell: history, statements over many lines, completion of names.

use std::ops::ControlFlow;
use std::path::PathBuf;

use rustyline::completion::Completer as LineCompleter;
use rustyline::error::ReadlineError;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Completer, CompletionType, Config, Editor, Helper, Highlighter, Hinter};
use webdancer_ingest::embedded::user_state_folder;
use webdancer_query::output::Format;
use webdancer_query::{At, Completer as Names, QueryEngine, QueryOptions, parse_at};

use crate::args::SqlArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

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
        let input = context.input().trim();
        let complete = input.is_empty() || input.starts_with('\\') || input.ends_with(';');
        Ok(if complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// What the shell remembers between statements.
struct Session {
    format: Format,
    options: QueryOptions,
}

pub(crate) async fn run(context: &Context, engine: QueryEngine, args: &SqlArgs) -> Result<(), Failure> {
    let mut session = Session {
        format: args.format.map_or(Format::Table, Format::from),
        options: QueryOptions {
            at: args.at.as_deref().map_or(Ok(At::Latest), parse_at)?,
            max_rows: Some(args.max_rows.unwrap_or(1000)),
            timeout: args.timeout.map(std::time::Duration::from_secs),
        },
    };
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
    loop {
        let read = tokio::task::block_in_place(|| editor.readline("webdancer> "));
        let line = match read {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        };
        let line = line.trim();
        let sql = match line.strip_prefix('\\') {
            Some("q" | "quit") => break,
            Some(command) => session.command(command),
            None => Some(line.trim_end_matches(';').to_string()),
        };
        if let Some(sql) = sql.filter(|sql| !sql.trim().is_empty())
            && session.answer(context, &engine, &sql).await.is_break()
        {
            break;
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
    fn command(&mut self, command: &str) -> Option<String> {
        let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let argument = argument.trim().trim_end_matches(';');
        match (name, argument) {
            ("d", "") => return Some("SHOW TABLES".to_string()),
            ("d", table) => return Some(format!("DESCRIBE {table}")),
            ("f", format) => match format.parse() {
                Ok(Format::Parquet) => output::note("Parquet is not for a terminal"),
                Ok(format) => self.format = format,
                Err(error) => output::note(&error.to_string()),
            },
            ("at", "") => self.options.at = At::Latest,
            ("at", time) => match parse_at(time) {
                Ok(at) => self.options.at = at,
                Err(error) => output::note(&error.to_string()),
            },
            _ => output::note(HELP),
        }
        None
    }

    /// Errors end the statement, not the shell; so does Ctrl-C. Without a reader there is nothing left to do.
    async fn answer(&self, context: &Context, engine: &QueryEngine, sql: &str) -> ControlFlow<()> {
        if let Err(failure) = context.drain_embedded().await {
            output::note(&failure.to_string());
        }
        let answering = super::sql::answer(engine, sql, &self.options, self.format, std::io::stdout());
        tokio::select! {
            answered = answering => match answered {
                Ok(answer) if answer.reader_gone => return ControlFlow::Break(()),
                Ok(answer) => {
                    let cut = if answer.truncated { " (cut; --max-rows shows more)" } else { "" };
                    output::note(&format!("{} rows{cut}, {:.3} s", answer.rows, answer.seconds));
                }
                Err(failure) => output::note(&failure.to_string()),
            },
            // Ends the statement, not the shell.
            _ = tokio::signal::ctrl_c() => output::note("stopped"),
        }
        ControlFlow::Continue(())
    }
}

fn history_file() -> Option<PathBuf> {
    Some(user_state_folder()?.join("sql_history"))
}

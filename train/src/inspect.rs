//! What a model is trained on, made visible: a row of a pin as text, the trained tokens marked.
//!
//! On a terminal trained text is green and the tokens that end messages are blue, elsewhere trained text stands between
//! `⟦` and `⟧`. The text is a stranger's: characters that would steer a terminal or hide text are written as escapes.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;

use crate::config::SftConfig;
use crate::data::{Pin, PinRow};
use crate::input::InputError;
use crate::mask::{Document, Masker};
use crate::prepare;
use crate::tokenizer::{ChatTokenizer, MESSAGE_END, MESSAGE_START};

/// Arguments of `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct InspectArgs {
    /// Manifest of a pin of trajectories, or its folder
    #[arg(long, value_name = "MANIFEST")]
    pub pin: PathBuf,
    /// The row, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub row: u64,
    /// Folder of the model whose tokenizer and template are used
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    pub model: Option<PathBuf>,
    /// Configuration of a run; without it and a model, that of the demo
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Marks in place of colours, on a terminal too
    #[arg(long)]
    pub plain: bool,
}

/// How trained text is told from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// `⟦…⟧`.
    Brackets,
    /// Colours of a terminal.
    Colours,
}

/// Shows a row on standard output.
///
/// # Errors
/// Pin, model or configuration is not what it should be, or there is no such row.
pub fn run(arguments: &InspectArgs) -> Result<(), InputError> {
    let mut config = match &arguments.config {
        Some(file) => SftConfig::read(file),
        None => SftConfig::preset("demo"),
    }
    .map_err(|error| InputError::new("the configuration", error))?;
    if let Some(folder) = &arguments.model {
        (config.model.folder, config.model.scratch) = (Some(folder.clone()), None);
    }
    let pins = prepare::open_pins(&config, std::slice::from_ref(&arguments.pin))?;
    let scratch = tempfile::tempdir().map_err(|error| InputError::new("a temporary folder", error))?;
    let (masker, difference) = prepare::masker(&config, &pins, scratch.path())?;
    let index = usize::try_from(arguments.row).unwrap_or(usize::MAX);
    let row = pins.iter().flat_map(|pin| pin.read(config.data.file_bytes_max)).nth(index);
    let rows: u64 = pins.iter().map(Pin::rows).sum();
    let none = || InputError::new("--row", format!("there is no row {}: the pin has {rows}", arguments.row));
    let row = row.ok_or_else(none)??;
    let mut out = std::io::stdout();
    let marks = if out.is_terminal() && !arguments.plain { Marks::Colours } else { Marks::Brackets };
    let mut text = show(&row, &masker, marks)?;
    if let Some(difference) = difference {
        text = format!("{text}{difference}\n");
    }
    match out.write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(InputError::new("standard output", error)),
        _ => Ok(()),
    }
}

/// A row as text: a line of counts, then all that the model reads.
///
/// # Errors
/// The row is no whole trajectory, or the tokenizer fails.
pub fn show(row: &PinRow, masker: &Masker, marks: Marks) -> Result<String, InputError> {
    let trajectory = &row.trajectory;
    let place = || format!("trajectory {}", escaped(&trajectory.trajectory_id));
    let document = masker.document(trajectory).map_err(|error| InputError::new(place(), error))?;
    let origin = document
        .rendered
        .map_or("the token ids that were recorded".to_string(), |reason| format!("rendered anew: {}", reason.name()));
    let (trained, tokens) = (document.trained_tokens(), document.ids.len());
    let head = format!("{}: {tokens} tokens, {trained} trained; {origin}\n", place());
    Ok(head + &marked(&document, masker.tokenizer(), marks)?)
}

fn marked(document: &Document, tokenizer: &ChatTokenizer, marks: Marks) -> Result<String, InputError> {
    let (start, end) = (tokenizer.message_start(), tokenizer.message_end());
    let mut text = String::new();
    for (trained, ids) in document.runs() {
        let mut body = String::new();
        for piece in ids.chunk_by(|a, b| ![*a, *b].iter().any(|id| [start, end].contains(id))) {
            let special = [(start, MESSAGE_START), (end, MESSAGE_END)].into_iter().find(|(id, _)| piece == [*id]);
            body += &match (special, marks) {
                (Some((_, name)), Marks::Brackets) => name.to_string(),
                (Some((_, name)), Marks::Colours) => format!("\u{1b}[34m{name}\u{1b}[39m"),
                (None, Marks::Brackets) => escaped(&tokenizer.decode(piece)?),
                (None, Marks::Colours) if trained => {
                    format!("\u{1b}[32m{}\u{1b}[39m", escaped(&tokenizer.decode(piece)?))
                }
                (None, Marks::Colours) => escaped(&tokenizer.decode(piece)?),
            };
        }
        text += &match (trained, marks) {
            (true, Marks::Brackets) => format!("⟦{body}⟧"),
            (true, Marks::Colours) => format!("\u{1b}[1m{body}\u{1b}[22m"),
            (false, _) => body,
        };
    }
    Ok(text)
}

/// Text that can neither steer a terminal nor be taken for a mark or a special token.
fn escaped(text: &str) -> String {
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '⟦' | '⟧');
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => safe.push(c),
            c if c.is_control() || hidden(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe.replace("<|", "<\\|")
}

//! All that is done to data before the first update: read, tokenise, mask, split, pack; and what it came to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use webdancer_agent::conversation::{Role, render_messages};

use crate::chat::{Chat, Difference};
use crate::config::{Family, ModelSource, ScratchModel, SftConfig, TooLong, ValidationConfig};
use crate::data::{Pin, PinRow};
use crate::input::{InputError, read_file};
use crate::mask::{Document, MaskError, Masker};
use crate::pack::{PackDocument, Packing};
use crate::small::{self, SmallCorpus};
use crate::split::{self, Ties};
use crate::tokenizer::ChatTokenizer;

/// Termination of a trajectory whose answer was forced.
const FORCED: &str = "forced";
/// Bytes of a model's config.json.
const MODEL_CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What became of the rows of the pins. Every row is in exactly one of the first five.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DataReport {
    /// Trajectories trained on.
    pub trained: u64,
    /// Trajectories kept back for validation.
    pub validated: u64,
    /// Left out: longer than `data.document_tokens_max`.
    pub too_long: u64,
    /// Left out: the answer was forced.
    pub forced: u64,
    /// Left out: of a gated benchmark, not whole trajectories, or without a token to train; by reason.
    pub left_out: BTreeMap<String, u64>,
    /// Trajectories whose recorded token ids are used.
    pub recorded: u64,
    /// Trajectories rendered anew, by reason.
    pub rendered: BTreeMap<String, u64>,
    /// Tokens trained on and read, of the trajectories that are used.
    pub tokens: u64,
    /// Those of them that the agent wrote.
    pub trained_tokens: u64,
    /// Of the trajectories that are used, those longer than `batch.tokens`: each is a micro-batch of its own.
    pub longer_than_batch: u64,
    /// Whether the pin says which questions were rewritten from one another. If not, only attempts at the very same
    /// question are kept together.
    pub roots_known: bool,
}

/// Data ready to be trained on.
#[derive(Debug)]
pub struct Prepared {
    /// By epoch and update.
    pub packing: Packing,
    /// What it came to.
    pub report: DataReport,
    /// Digests of the pins.
    pub pin_ids: Vec<String>,
}

/// The pins of a run: those given to the command, else those of its configuration.
///
/// # Errors
/// None is given, or one cannot be read.
pub fn open_pins(config: &SftConfig, given: &[PathBuf]) -> Result<Vec<Pin>, InputError> {
    let places = if given.is_empty() { &config.data.pins } else { given };
    if places.is_empty() {
        return Err(InputError::new("data.pins", "no pin is given: name one here, or with --pin"));
    }
    places.iter().map(|place| Pin::open(place)).collect()
}

/// Tokenizer and renderer of the model of a run. Those of a model from nothing are made from the pins' trajectories and
/// written to `scratch`, unless they are there.
///
/// # Errors
/// A file is missing or not what it should be.
pub fn masker(config: &SftConfig, pins: &[Pin], scratch: &Path) -> Result<(Masker, Option<Difference>), InputError> {
    let (folder, tokenizer) = match &config.model {
        ModelSource { folder: Some(folder), .. } => {
            family(folder)?;
            (folder.as_path(), ChatTokenizer::of_folder(folder)?)
        }
        ModelSource { scratch: Some(model), .. } => (scratch, small_tokenizer(config, model, pins, scratch)?),
        ModelSource { folder: None, scratch: None } => {
            return Err(InputError::new("model", "give folder, or a [model.scratch]"));
        }
    };
    let (chat, difference) = Chat::of_folder(folder)?;
    let masker = Masker::new(tokenizer, chat, config.data.recorded_tokens);
    Ok((masker.with_observations(config.data.observations), difference))
}

/// The family of the model in a folder, by its `config.json`.
///
/// # Errors
/// There is none, or it is of another family.
pub fn family(folder: &Path) -> Result<Family, InputError> {
    #[derive(serde::Deserialize)]
    struct Config {
        model_type: String,
    }
    let path = folder.join("config.json");
    let config: Config = serde_json::from_slice(&read_file(&path, MODEL_CONFIG_BYTES_MAX)?)
        .map_err(|error| InputError::file(&path, format!("is no model's configuration: {error}")))?;
    match config.model_type.as_str() {
        "qwen2" => Ok(Family::Qwen2),
        "qwen3" => Ok(Family::Qwen3),
        other => Err(InputError::file(&path, format!("model_type is {other:?}; qwen2 and qwen3 are known"))),
    }
}

fn small_tokenizer(
    config: &SftConfig,
    model: &ScratchModel,
    pins: &[Pin],
    folder: &Path,
) -> Result<ChatTokenizer, InputError> {
    let pin_ids = pin_ids(pins);
    if let Some(tokenizer) = small::written(&model.tokenizer, &pin_ids, folder)? {
        return Ok(tokenizer);
    }
    let mut corpus = SmallCorpus::default();
    for pin in pins {
        for row in pin.read(config.data.file_bytes_max) {
            // Rows that are no whole trajectories are counted when they are to be trained on.
            let Ok(messages) = render_messages(&row?.trajectory) else { continue };
            corpus.add(messages.iter().map(|message| (message.content.as_str(), message.role == Role::Assistant)));
        }
    }
    corpus.write(&model.tokenizer, &pin_ids, folder)
}

fn pin_ids(pins: &[Pin]) -> Vec<String> {
    pins.iter().map(|pin| pin.digest().to_string()).collect()
}

/// Reads the pins and makes batches of them. `progress` is called with the rows read so far.
///
/// # Errors
/// A pin is not what it should be, a trajectory is too long where none may be, or nothing is left to train on.
pub fn prepare(
    config: &SftConfig,
    pins: &[Pin],
    masker: &Masker,
    mut progress: impl FnMut(u64),
) -> Result<Prepared, InputError> {
    let mut gathered = Gathered::default();
    let mut rows = 0;
    for row in pins.iter().flat_map(|pin| pin.read(config.data.file_bytes_max)) {
        gathered.take(config, masker, rows, row?)?;
        rows += 1;
        progress(u64::from(rows));
    }
    let Gathered { documents, ties, mut report } = gathered;
    report.roots_known = !ties.is_empty() && ties.iter().all(|tie| tie.root_known);
    let tied: Vec<Ties<'_>> = ties.iter().map(OwnedTies::as_ties).collect();
    let ValidationConfig { share, trajectories_max, .. } = config.validation;
    let chosen = split::validation(&tied, share, trajectories_max, config.seed);
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (document, chosen) in documents.into_iter().zip(chosen) {
        if chosen { validation.push(document) } else { train.push(document) }
    }
    (report.trained, report.validated) = (train.len() as u64, validation.len() as u64);
    if train.is_empty() {
        let names = pins.iter().map(Pin::name).collect::<Vec<_>>().join(", ");
        let reason = format!("nothing is left to train on: {}", report.summary());
        return Err(InputError::new(format!("pin {names}"), reason));
    }
    if validation.is_empty() && config.early_stop.patience > 0 {
        let reason = format!(
            "there is nothing to wait for: no group of questions is small enough to be kept back ({}): give 0, or a \
             higher validation.share",
            report.summary()
        );
        return Err(InputError::new("early_stop.patience", reason));
    }
    let packing = Packing::new(train, &validation, config.batch.trajectories, config.batch.tokens, config.seed);
    Ok(Prepared { packing, report, pin_ids: pin_ids(pins) })
}

#[derive(Default)]
struct Gathered {
    documents: Vec<PackDocument>,
    ties: Vec<OwnedTies>,
    report: DataReport,
}

struct OwnedTies {
    root_question: String,
    root_entity: Option<String>,
    root_known: bool,
}

impl OwnedTies {
    fn of(row: &PinRow) -> OwnedTies {
        let own = || {
            let Some(id) = Some(&row.trajectory.qa_id).filter(|id| !id.is_empty()) else {
                // Attempts at one question have its text in common.
                return row.trajectory.question.clone().unwrap_or_default();
            };
            id.clone()
        };
        OwnedTies {
            root_question: row.root_qa_id.clone().unwrap_or_else(own),
            root_entity: row.root_entity.clone(),
            root_known: row.root_qa_id.is_some(),
        }
    }

    fn as_ties(&self) -> Ties<'_> {
        Ties { root_question: &self.root_question, root_entity: self.root_entity.as_deref() }
    }
}

impl Gathered {
    fn take(&mut self, config: &SftConfig, masker: &Masker, number: u32, row: PinRow) -> Result<(), InputError> {
        let trajectory = &row.trajectory;
        if trajectory.restricted == Some(true) {
            self.leave_out("of a gated benchmark");
            return Ok(());
        }
        if trajectory.termination == FORCED && !config.data.forced_answers {
            self.report.forced += 1;
            return Ok(());
        }
        let document = match masker.document(trajectory) {
            Ok(document) => document,
            Err(MaskError::Render(error)) => {
                self.leave_out(&format!("no whole trajectory: {}", without_numbers(&error.to_string())));
                return Ok(());
            }
            Err(MaskError::Tokenizer(error)) => return Err(error),
        };
        let length = document.ids.len();
        let most = config.data.document_tokens_max;
        if length > most {
            if config.data.too_long == TooLong::Fail {
                let place = format!("trajectory {}", trajectory.trajectory_id);
                let reason = format!("has {length} tokens, more than data.document_tokens_max = {most}");
                return Err(InputError::new(place, reason));
            }
            self.report.too_long += 1;
            return Ok(());
        }
        if document.trained_tokens() == 0 {
            self.leave_out("without a token that the agent wrote");
            return Ok(());
        }
        self.count(&document);
        self.report.longer_than_batch += u64::from(length > config.batch.tokens);
        if self.report.tokens > config.data.tokens_max {
            let reason = format!("the trajectories have more tokens than data.tokens_max = {}", config.data.tokens_max);
            return Err(InputError::new("data.tokens_max", reason));
        }
        self.ties.push(OwnedTies::of(&row));
        self.documents.push(PackDocument { row: number, ids: document.ids, trained: document.trained });
        Ok(())
    }

    fn leave_out(&mut self, reason: &str) {
        *self.report.left_out.entry(reason.to_string()).or_default() += 1;
    }

    fn count(&mut self, document: &Document) {
        self.report.tokens += document.ids.len() as u64;
        self.report.trained_tokens += document.trained_tokens() as u64;
        match document.rendered {
            None => self.report.recorded += 1,
            Some(reason) => *self.report.rendered.entry(reason.name().to_string()).or_default() += 1,
        }
    }
}

impl DataReport {
    /// One line for people.
    pub fn summary(&self) -> String {
        let mut parts = vec![
            format!("{} trajectories trained on", self.trained),
            format!("{} to validate on", self.validated),
            format!("{} tokens, {} of them the agent's", self.tokens, self.trained_tokens),
        ];
        if self.longer_than_batch > 0 {
            parts.push(format!("{} longer than batch.tokens, each a micro-batch of its own", self.longer_than_batch));
        }
        let counted = [(self.too_long, "too long".to_string()), (self.forced, "with a forced answer".to_string())];
        let counted = counted.into_iter().chain(self.left_out.iter().map(|(reason, count)| (*count, reason.clone())));
        parts.extend(counted.filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} left out: {what}")));
        if self.recorded > 0 {
            parts.push(format!("{} with the token ids that were recorded", self.recorded));
        }
        if self.validated > 0 && !self.roots_known {
            parts.push(
                "roots of questions are not known, so only attempts at the same question stay together".to_string(),
            );
        }
        let anew = self.rendered.iter().map(|(reason, count)| format!("{count} rendered anew: {reason}"));
        parts.extend(anew);
        parts.join("; ")
    }
}

/// A reason without the numbers that make it another one for each row.
fn without_numbers(reason: &str) -> String {
    reason.split(' ').filter(|word| !word.bytes().all(|byte| byte.is_ascii_digit())).collect::<Vec<_>>().join(" ")
}

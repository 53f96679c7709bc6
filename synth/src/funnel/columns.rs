//! A record batch of trajectories, read in place.

use arrow::array::{Array, AsArray as _, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use webdancer_agent::judge::Verdict;
use webdancer_agent::output::{Output, OutputFault, TurnText};

use super::{FunnelError, Stage};

/// The columns of `trajectories` that the rules read.
///
/// Observations are not among them: whether a call got one is told by its digest, which is a hundredth of its size.
pub const COLUMNS: [&str; 10] = [
    "trajectory_id",
    "qa_id",
    "event_time",
    "termination",
    "answer",
    "turn_thought",
    "turn_tool",
    "turn_arguments",
    "turn_raw",
    "turn_observation_digest",
];
/// The column that the [`Critic`](super::Critic) reads besides.
pub const OBSERVATIONS: &str = "turn_observation";

/// A batch of trajectories.
///
/// Beside [`COLUMNS`] it may have, each as text where not said otherwise, and null where there is nothing:
///
/// | column | is |
/// |---|---|
/// | `question`, `gold` | the question and its gold answer; without a gold answer, correctness is not judged |
/// | `golds` | further gold answers: a JSON list of strings |
/// | `validity`, `correctness`, `quality` | the verdict in force, `pass` or `fail`, where the stage need not judge again |
/// | `correctness_errors`, `quality_errors` | integers: how often the judge failed so far |
/// | `correctness_verdicts` | an integer: how often this version judged the answer, by gold answers that were changed since |
/// | `opinion` | what the critic said of it before: JSON |
/// | `turn_observation` | a list: the observations, for the critic |
#[derive(Debug, Clone, Copy)]
pub struct Attempts<'a> {
    rows: usize,
    trajectory_id: &'a StringArray,
    qa_id: &'a StringArray,
    event_time: &'a TimestampMicrosecondArray,
    termination: &'a StringArray,
    answer: &'a StringArray,
    turns: Turns<'a>,
    question: Option<&'a StringArray>,
    gold: Option<&'a StringArray>,
    golds: Option<&'a StringArray>,
    known: [Option<&'a StringArray>; 3],
    errors: [Option<&'a Int64Array>; 3],
    verdicts: Option<&'a Int64Array>,
    opinion: Option<&'a StringArray>,
}

#[derive(Debug, Clone, Copy)]
struct Turns<'a> {
    thought: Texts<'a>,
    tool: Texts<'a>,
    arguments: Texts<'a>,
    raw: Texts<'a>,
    digest: Texts<'a>,
    observation: Option<Texts<'a>>,
}

impl<'a> Attempts<'a> {
    /// The trajectories of `batch`.
    ///
    /// # Errors
    /// When a column is missing or of another type.
    pub fn new(batch: &'a RecordBatch) -> Result<Attempts<'a>, FunnelError> {
        Ok(Attempts {
            rows: batch.num_rows(),
            trajectory_id: text(batch, "trajectory_id")?,
            qa_id: text(batch, "qa_id")?,
            event_time: column(batch, "event_time", |array| array.as_primitive_opt::<TimestampMicrosecondType>())?,
            termination: text(batch, "termination")?,
            answer: text(batch, "answer")?,
            turns: Turns {
                thought: texts(batch, "turn_thought")?,
                tool: texts(batch, "turn_tool")?,
                arguments: texts(batch, "turn_arguments")?,
                raw: texts(batch, "turn_raw")?,
                digest: texts(batch, "turn_observation_digest")?,
                observation: batch.column_by_name(OBSERVATIONS).map(|_| texts(batch, OBSERVATIONS)).transpose()?,
            },
            question: optional_text(batch, "question")?,
            gold: optional_text(batch, "gold")?,
            golds: optional_text(batch, "golds")?,
            known: [
                optional_text(batch, "validity")?,
                optional_text(batch, "correctness")?,
                optional_text(batch, "quality")?,
            ],
            errors: [None, optional_count(batch, "correctness_errors")?, optional_count(batch, "quality_errors")?],
            verdicts: optional_count(batch, "correctness_verdicts")?,
            opinion: optional_text(batch, "opinion")?,
        })
    }

    /// Trajectories.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Id of the trajectory in `row`.
    pub fn trajectory_id(&self, row: usize) -> &'a str {
        value(self.trajectory_id, row).unwrap_or_default()
    }

    /// Id of its question.
    pub fn qa_id(&self, row: usize) -> &'a str {
        value(self.qa_id, row).unwrap_or_default()
    }

    /// When it was recorded.
    pub fn event_time(&self, row: usize) -> DateTime<Utc> {
        let known = row < self.rows && !self.event_time.is_null(row);
        let micros = known.then(|| self.event_time.value(row));
        micros.and_then(DateTime::from_timestamp_micros).unwrap_or_default()
    }

    /// Its question.
    pub fn question(&self, row: usize) -> Option<&'a str> {
        value(self.question?, row)
    }

    /// Why it ended.
    pub fn termination(&self, row: usize) -> &'a str {
        value(self.termination, row).unwrap_or_default()
    }

    /// Its final answer.
    pub fn answer(&self, row: usize) -> Option<&'a str> {
        value(self.answer, row)
    }

    /// The gold answer.
    pub fn gold(&self, row: usize) -> Option<&'a str> {
        value(self.gold?, row)
    }

    /// Further gold answers, as a JSON list.
    pub(super) fn golds(&self, row: usize) -> Option<&'a str> {
        value(self.golds?, row)
    }

    /// The verdict in force at a stage.
    pub fn known(&self, stage: Stage, row: usize) -> Option<Verdict> {
        let column = self.known.get(stage as usize).copied().flatten()?;
        Verdict::from_word(value(column, row)?)
    }

    /// How often the judge of a stage failed so far.
    pub(super) fn errors(&self, stage: Stage, row: usize) -> u64 {
        count(self.errors.get(stage as usize).copied().flatten(), row)
    }

    /// How many verdicts a stage gave under this version that hold no longer.
    pub(super) fn verdicts(&self, stage: Stage, row: usize) -> u64 {
        if stage == Stage::Correctness { count(self.verdicts, row) } else { 0 }
    }

    /// What the critic said before.
    pub(super) fn opinion(&self, row: usize) -> Option<&'a str> {
        value(self.opinion?, row)
    }

    /// What the agent wrote, with `turns` for its turns.
    ///
    /// # Errors
    /// When the lists of its turns differ in length.
    pub fn output<'t>(&self, row: usize, turns: &'t mut Vec<TurnText<'a>>) -> Result<Output<'t>, OutputFault>
    where
        'a: 't,
    {
        self.turns.read(row, turns)?;
        Ok(Output { termination: self.termination(row), answer: self.answer(row), turns })
    }

    /// The observations of each turn; empty where the batch has no such column.
    pub(super) fn observations(&self, row: usize) -> Vec<Option<&'a str>> {
        self.turns.observation.map(|texts| texts.row(row).collect()).unwrap_or_default()
    }
}

impl<'a> Turns<'a> {
    fn read(&self, row: usize, turns: &mut Vec<TurnText<'a>>) -> Result<(), OutputFault> {
        let thoughts = self.thought.row(row);
        for (column, texts) in [
            ("turn_tool", self.tool),
            ("turn_arguments", self.arguments),
            ("turn_observation_digest", self.digest),
            ("turn_raw", self.raw),
        ] {
            let length = texts.row(row).len();
            if length != thoughts.len() {
                return Err(OutputFault::UnequalLists { column, length, turns: thoughts.len() });
            }
        }
        turns.clear();
        let tools_and_arguments = self.tool.row(row).zip(self.arguments.row(row));
        let raw_and_digests = self.raw.row(row).zip(self.digest.row(row));
        turns.extend(thoughts.zip(tools_and_arguments).zip(raw_and_digests).map(
            |((thought, (tool, arguments)), (raw, digest))| TurnText {
                thought,
                tool,
                arguments,
                raw,
                observed: digest.is_some(),
            },
        ));
        Ok(())
    }
}

/// A column of lists of texts.
#[derive(Debug, Clone, Copy)]
struct Texts<'a> {
    lists: &'a ListArray,
    values: &'a StringArray,
}

impl<'a> Texts<'a> {
    /// The texts of a row; a list that is null is empty.
    fn row(self, row: usize) -> impl ExactSizeIterator<Item = Option<&'a str>> {
        let known = row < self.lists.len() && !self.lists.is_null(row);
        let offsets = self.lists.value_offsets();
        let bound = |index: usize| offsets.get(index).and_then(|offset| usize::try_from(*offset).ok()).unwrap_or(0);
        let range = if known { bound(row)..bound(row + 1) } else { 0..0 };
        let values = self.values;
        range.map(move |index| value(values, index))
    }
}

fn value(array: &StringArray, row: usize) -> Option<&str> {
    (row < array.len() && !array.is_null(row)).then(|| array.value(row))
}

fn count(counts: Option<&Int64Array>, row: usize) -> u64 {
    let counts = counts.filter(|counts| row < counts.len() && !counts.is_null(row));
    counts.and_then(|counts| u64::try_from(counts.value(row)).ok()).unwrap_or(0)
}

fn column<'a, T>(
    batch: &'a RecordBatch,
    name: &str,
    cast: impl FnOnce(&'a dyn Array) -> Option<T>,
) -> Result<T, FunnelError> {
    let array = batch.column_by_name(name).ok_or_else(|| FunnelError::Batch(format!("it has no column {name}")))?;
    let found = array.data_type().clone();
    cast(array.as_ref()).ok_or_else(|| FunnelError::Batch(format!("column {name} is {found}")))
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, FunnelError> {
    column(batch, name, |array| array.as_string_opt::<i32>())
}

fn optional_text<'a>(batch: &'a RecordBatch, name: &str) -> Result<Option<&'a StringArray>, FunnelError> {
    batch.column_by_name(name).map(|_| text(batch, name)).transpose()
}

fn optional_count<'a>(batch: &'a RecordBatch, name: &str) -> Result<Option<&'a Int64Array>, FunnelError> {
    let count = |_| column(batch, name, |array| array.as_primitive_opt::<Int64Type>());
    batch.column_by_name(name).map(count).transpose()
}

fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Result<Texts<'a>, FunnelError> {
    column(batch, name, |array| {
        let lists = array.as_list_opt::<i32>()?;
        Some(Texts { lists, values: lists.values().as_string_opt::<i32>()? })
    })
}

//! Trajectories as long as the published ones (808 words of the agent's, 2.1 turns), with faults.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::Result;

const ROWS_PER_FILE: u64 = 65_536;
const ROWS_PER_GROUP: usize = 8_192;
const WORDS: usize = 20_000;

/// What is wrong with a trajectory; nothing with 60 of 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    AttemptFailed,
    OutOfBudget,
    NotInFormat,
    BadArguments,
    NoAnswer,
    Forced,
    UnknownTool,
    Simulated,
    TooFewActions,
    Repetition,
}

pub(super) fn make(folder: &Path, rows: u64, seed: u64) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for (number, first) in (0..rows).step_by(ROWS_PER_FILE as usize).enumerate() {
        // A generator of its own for each file: any of them can be made again.
        let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        let count = ROWS_PER_FILE.min(rows - first);
        write_file(&folder.join(format!("part-{number:05}.parquet")), first, count, &mut rng)?;
        writeln!(std::io::stderr(), "bench_funnel: {} of {rows} trajectories", first + count)?;
    }
    Ok(())
}

fn write_file(path: &Path, first: u64, count: u64, rng: &mut ChaCha8Rng) -> Result<()> {
    let words: Vec<String> = (0..WORDS).map(|_| word(rng)).collect();
    let mut writer: Option<ArrowWriter<File>> = None;
    for start in (0..count).step_by(ROWS_PER_GROUP) {
        let mut columns = Columns::new();
        for row in start..(start + ROWS_PER_GROUP as u64).min(count) {
            columns.push(first + row, rng, &words);
        }
        let batch = columns.finish()?;
        let open = match writer.take() {
            Some(open) => open,
            None => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
                    .set_max_row_group_row_count(Some(ROWS_PER_GROUP))
                    .build();
                ArrowWriter::try_new(File::create(path)?, batch.schema(), Some(properties))?
            }
        };
        writer.insert(open).write(&batch)?;
    }
    if let Some(writer) = writer {
        writer.close()?;
    }
    Ok(())
}

/// The columns that the rules read.
struct Columns {
    trajectory_id: StringBuilder,
    qa_id: StringBuilder,
    event_time: TimestampMicrosecondBuilder,
    termination: StringBuilder,
    answer: StringBuilder,
    thought: ListBuilder<StringBuilder>,
    tool: ListBuilder<StringBuilder>,
    arguments: ListBuilder<StringBuilder>,
    raw: ListBuilder<StringBuilder>,
    digest: ListBuilder<StringBuilder>,
}

impl Columns {
    fn new() -> Columns {
        let element = Arc::new(Field::new("element", DataType::Utf8, true));
        let list = || ListBuilder::new(StringBuilder::new()).with_field(element.clone());
        Columns {
            trajectory_id: StringBuilder::new(),
            qa_id: StringBuilder::new(),
            event_time: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            termination: StringBuilder::new(),
            answer: StringBuilder::new(),
            thought: list(),
            tool: list(),
            arguments: list(),
            raw: list(),
            digest: list(),
        }
    }

    fn push(&mut self, id: u64, rng: &mut ChaCha8Rng, words: &[String]) {
        let fault = fault(rng);
        let calls = match fault {
            Fault::TooFewActions => 0,
            _ => 1 + u32::from(rng.random_ratio(1, 10)),
        };
        let answered = !matches!(fault, Fault::AttemptFailed | Fault::OutOfBudget | Fault::NoAnswer);
        self.trajectory_id.append_value(format!("t-{id:032x}"));
        self.qa_id.append_value(format!("qa-{:032x}", id / 5));
        self.event_time.append_value(1_767_225_600_000_000 + id as i64 * 1_000);
        self.termination.append_value(match fault {
            Fault::AttemptFailed => "error",
            Fault::OutOfBudget => "calls",
            Fault::Forced => "forced",
            _ => "answer",
        });
        for turn in 0..=calls {
            self.push_turn(turn < calls, turn == 0, fault, rng, words);
        }
        for list in [&mut self.thought, &mut self.tool, &mut self.arguments, &mut self.raw, &mut self.digest] {
            list.append(true);
        }
        let answer = answered.then(|| text(rng, words, 70));
        self.answer.append_option(answer);
    }

    fn push_turn(&mut self, calls: bool, first: bool, fault: Fault, rng: &mut ChaCha8Rng, words: &[String]) {
        let length = rng.random_range(200..500);
        let mut thought = text(rng, words, length);
        match fault {
            Fault::Repetition if first => {
                let refrain = text(rng, words, 12);
                (0..5).for_each(|_| thought = format!("{thought} {refrain}"));
            }
            Fault::Simulated if first => thought.push_str("\n<tool_response>\nfound\n</tool_response>"),
            _ => {}
        }
        self.raw.values().append_option((first && fault == Fault::NotInFormat).then(|| thought.clone()));
        self.thought.values().append_value(thought);
        let tool = if first && fault == Fault::UnknownTool { "calculate" } else { "search" };
        self.tool.values().append_option(calls.then_some(tool));
        let query = format!("{{\"query\": [\"{}\", \"{}\"]}}", text(rng, words, 6), text(rng, words, 5));
        let broken = first && fault == Fault::BadArguments;
        let arguments = if broken { query.trim_end_matches('}').to_string() } else { query };
        self.arguments.values().append_option(calls.then_some(arguments));
        let digest = format!("{:032x}{:032x}", rng.random::<u128>(), rng.random::<u128>());
        self.digest.values().append_option(calls.then_some(digest));
    }

    fn finish(mut self) -> Result<RecordBatch> {
        let columns: [(&str, ArrayRef); 10] = [
            ("trajectory_id", Arc::new(self.trajectory_id.finish())),
            ("qa_id", Arc::new(self.qa_id.finish())),
            ("event_time", Arc::new(self.event_time.finish())),
            ("termination", Arc::new(self.termination.finish())),
            ("answer", Arc::new(self.answer.finish())),
            ("turn_thought", Arc::new(self.thought.finish())),
            ("turn_tool", Arc::new(self.tool.finish())),
            ("turn_arguments", Arc::new(self.arguments.finish())),
            ("turn_raw", Arc::new(self.raw.finish())),
            ("turn_observation_digest", Arc::new(self.digest.finish())),
        ];
        Ok(RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))?)
    }
}

fn fault(rng: &mut ChaCha8Rng) -> Fault {
    const FAULTS: [Fault; 10] = [
        Fault::AttemptFailed,
        Fault::OutOfBudget,
        Fault::NotInFormat,
        Fault::BadArguments,
        Fault::NoAnswer,
        Fault::Forced,
        Fault::UnknownTool,
        Fault::Simulated,
        Fault::TooFewActions,
        Fault::Repetition,
    ];
    FAULTS.get(rng.random_range(0..25)).copied().unwrap_or(Fault::None)
}

/// Words by a law near Zipf's, so that n-grams repeat about as they do in prose.
fn text(rng: &mut ChaCha8Rng, words: &[String], count: usize) -> String {
    let mut text = String::with_capacity(count * 7);
    for index in 0..count {
        if index > 0 {
            text.push(' ');
        }
        let rank = (WORDS as f64).powf(rng.random::<f64>()) as usize - 1;
        text.push_str(words.get(rank).map_or("", String::as_str));
    }
    text
}

/// Three to nine letters.
fn word(rng: &mut ChaCha8Rng) -> String {
    (0..rng.random_range(3..10)).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect()
}

//! The rules of validity and quality, over record batches.
//!
//! A rule reads the columns in place; only arguments are looked at as JSON, since that they are JSON is what is asked.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use webdancer_agent::output::{Output, OutputFault, TurnText};

use super::ngrams::NgramCounter;
use super::{Attempts, FunnelError, QualityParameters, Reason};

/// Version of the code of the validity rules. It goes up when a rule decides, or says why, otherwise.
pub const VALIDITY_VERSION: i32 = 2;
/// Version of the code of the quality rules. It goes up when a rule decides otherwise under the same parameters.
pub const QUALITY_VERSION: i32 = 1;

const THINK_CLOSE: &str = "</think>";
/// How an observation begins: only what carries out a call may write that.
const OBSERVATION: &str = "<tool_response>";

/// What a rule decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// Why it does not pass; None if it passes.
    pub reason: Option<Reason>,
    /// What was found, in a line.
    pub detail: String,
}

impl Ruling {
    fn reject(reason: Reason, detail: impl Into<String>) -> Ruling {
        Ruling { reason: Some(reason), detail: detail.into() }
    }

    /// Whether it passes.
    pub fn passed(&self) -> bool {
        self.reason.is_none()
    }
}

/// Applies rules to one row after the other; keeps its memory between rows.
#[derive(Debug, Default)]
pub struct Inspector<'a> {
    turns: Vec<TurnText<'a>>,
    ngrams: NgramCounter,
}

impl<'a> Inspector<'a> {
    /// Whether the trajectory in `row` is in the ReAct format, to its end.
    pub fn validity(&mut self, attempts: &Attempts<'a>, row: usize) -> Ruling {
        match attempts.output(row, &mut self.turns) {
            Ok(output) => validity(&output),
            Err(fault) => Ruling::reject(reason_of(&fault), fault.to_string()),
        }
    }

    /// Whether the trajectory in `row` is worth learning from, as far as rules can tell.
    pub fn quality(&mut self, attempts: &Attempts<'a>, row: usize, parameters: &QualityParameters) -> Ruling {
        match attempts.output(row, &mut self.turns) {
            Ok(output) => quality(&output, parameters, &mut self.ngrams),
            Err(fault) => Ruling::reject(Reason::UnequalLists, fault.to_string()),
        }
    }
}

fn validity(output: &Output<'_>) -> Ruling {
    match output.termination {
        "error" => return Ruling::reject(Reason::AttemptFailed, "the attempt failed by no fault of the agent's"),
        budget @ ("calls" | "tokens" | "time") => {
            return Ruling::reject(Reason::OutOfBudget, format!("the agent used up its {budget}"));
        }
        _ => {}
    }
    match output.check() {
        Ok(()) => Ruling { reason: None, detail: format!("{} turns in the format", output.turns.len()) },
        Err(OutputFault::Turn { turn, .. }) if makes_up_observation(output, turn) => {
            let detail = format!("turn {turn} goes on with an observation that the agent made up");
            Ruling::reject(Reason::SimulatedObservation, detail)
        }
        Err(fault) => Ruling::reject(reason_of(&fault), fault.to_string()),
    }
}

/// Whether a turn that is out of format is so because an observation follows its action, or takes its place. A thought
/// may speak of one.
fn makes_up_observation(output: &Output<'_>, turn: usize) -> bool {
    let raw = output.turns.get(turn).and_then(|turn| turn.raw).unwrap_or_default();
    raw.split_once(THINK_CLOSE).map_or(raw, |(_, action)| action).contains(OBSERVATION)
}

fn reason_of(fault: &OutputFault) -> Reason {
    match fault {
        OutputFault::NoTurns => Reason::NoTurns,
        OutputFault::UnequalLists { .. } => Reason::UnequalLists,
        OutputFault::Turn { .. } => Reason::NotInFormat,
        OutputFault::Arguments { .. } => Reason::BadArguments,
        OutputFault::EarlyAnswer { .. } => Reason::EarlyAnswer,
        OutputFault::NoObservation { .. } => Reason::NoObservation,
        OutputFault::NoAnswer => Reason::NoAnswer,
    }
}

fn quality(output: &Output<'_>, parameters: &QualityParameters, ngrams: &mut NgramCounter) -> Ruling {
    if output.termination == "forced" && !parameters.forced_answers {
        return Ruling::reject(Reason::ForcedAnswer, "the answer was forced");
    }
    if let Some((turn, tool)) = output.unknown_tool(&parameters.tools) {
        return Ruling::reject(Reason::UnknownTool, format!("turn {turn} calls {tool:?}, which does not exist"));
    }
    if let Some(turn) = output.simulated_observation(&parameters.observation_marks) {
        return Ruling::reject(Reason::SimulatedObservation, format!("turn {turn} makes up an observation"));
    }
    let (actions, least) = (output.actions(), parameters.actions_min);
    if actions < usize::try_from(least).unwrap_or(usize::MAX) {
        return Ruling::reject(Reason::TooFewActions, format!("{actions} actions, {least} are the least"));
    }
    let n = parameters.ngram_words;
    let count = ngrams.most_frequent(written(output), n);
    let detail = format!("the most frequent {n}-gram occurs {count} times");
    if count > parameters.ngram_count_max {
        return Ruling::reject(Reason::Repetition, format!("{detail}, {} are allowed", parameters.ngram_count_max));
    }
    Ruling { reason: None, detail: format!("{actions} actions; {detail}") }
}

/// What the agent wrote: thoughts, arguments, the answer; of a turn that its parts do not render back to, its text.
fn written<'t>(output: &Output<'t>) -> impl Iterator<Item = &'t str> {
    let answered_raw = output.turns.last().is_some_and(|turn| turn.raw.is_some());
    let answer = output.answer.filter(|_| !answered_raw);
    let turns = output.turns.iter().flat_map(|turn| match turn.raw {
        Some(raw) => [Some(raw), None],
        None => [turn.thought, turn.arguments],
    });
    turns.flatten().chain(answer)
}

/// Validity, and quality of what is valid, of every trajectory of `batches`, in their order: all rules, and no judge.
///
/// # Errors
/// When a batch lacks a column.
pub fn judge_all(
    batches: &[RecordBatch],
    parameters: &QualityParameters,
    threads: usize,
) -> Result<Vec<Vec<Ruling>>, FunnelError> {
    in_parallel(batches, threads, |_, batch| {
        let attempts = Attempts::new(batch)?;
        let mut inspector = Inspector::default();
        let judge = |row| match inspector.validity(&attempts, row) {
            valid if valid.passed() => inspector.quality(&attempts, row, parameters),
            invalid => invalid,
        };
        Ok((0..attempts.len()).map(judge).collect())
    })
}

/// What `work` makes of each item and its index, in their order, on several threads.
///
/// # Errors
/// The first error.
pub(super) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(usize, &T) -> Result<R, FunnelError> + Sync,
) -> Result<Vec<R>, FunnelError> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(index, item)));
        }
    };
    let threads = threads.clamp(1, items.len().max(1));
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let mut done = take();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

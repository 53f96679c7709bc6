//! Aggregates that need no more than counts: of attempts at a question by their verdicts, of questions by what changed.

use std::sync::Arc;

use datafusion::arrow::array::{Array as _, ArrayRef, BooleanArray, Int64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::AggregateUDF;

use super::statistic::{Statistic, aggregate, of_column, to_column};
use super::{Constant, boolean, column, int64};
use crate::stats::{bounds, mcnemar_exact, mean_correct, pass_at_k, pass_hat_k, wilson};

/// Confidence of the intervals.
const CONFIDENCE: f64 = 0.95;

/// What is computed from the counts of a group.
type Value = fn(&Counted) -> Option<f64>;

/// Name, arguments, and what is computed.
const FUNCTIONS: [(&str, Shape, Value); 9] = [
    ("bound_high", Shape::Correct, |attempts| Some(bounds(attempts.right, attempts.wrong, attempts.rest)?.high)),
    ("bound_low", Shape::Correct, |attempts| Some(bounds(attempts.right, attempts.wrong, attempts.rest)?.low)),
    ("cons", Shape::Correct, |attempts| mean_correct(attempts.judged(), attempts.right)),
    ("coverage", Shape::Correct, |attempts| mean_correct(attempts.judged() + attempts.rest, attempts.judged())),
    ("mcnemar_p", Shape::BeforeAndAfter, |questions| Some(mcnemar_exact(questions.right, questions.wrong))),
    ("pass_at_k", Shape::CorrectAndK, |attempts| pass_at_k(attempts.judged(), attempts.right, k(attempts)?)),
    ("pass_hat_k", Shape::CorrectAndK, |attempts| pass_hat_k(attempts.judged(), attempts.right, k(attempts)?)),
    ("wilson_high", Shape::Correct, |attempts| Some(wilson(attempts.judged(), attempts.right, CONFIDENCE)?.high)),
    ("wilson_low", Shape::Correct, |attempts| Some(wilson(attempts.judged(), attempts.right, CONFIDENCE)?.low)),
];

fn k(question: &Counted) -> Option<u64> {
    u64::try_from(question.k.0?).ok()
}

/// All of them.
pub(super) fn functions() -> impl Iterator<Item = AggregateUDF> {
    FUNCTIONS
        .into_iter()
        .map(|(function, shape, value)| aggregate(function, shape.types(), OfAttempts { function, shape, value }))
}

/// The arguments of a function, and what is counted of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Whether an attempt is correct.
    Correct,
    /// Whether an attempt is correct, and k.
    CorrectAndK,
    /// Whether a question is right in the first run, and in the second.
    BeforeAndAfter,
}

impl Shape {
    /// The types of the arguments.
    fn types(self) -> Vec<DataType> {
        match self {
            Shape::Correct => vec![DataType::Boolean],
            Shape::CorrectAndK => vec![DataType::Boolean, DataType::Int64],
            Shape::BeforeAndAfter => vec![DataType::Boolean, DataType::Boolean],
        }
    }
}

/// What is counted of a group.
#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    /// Attempts that are correct; questions that became right.
    right: u64,
    /// Attempts that are wrong; questions that became wrong.
    wrong: u64,
    /// Attempts without a verdict; questions that stayed what they were.
    rest: u64,
    /// The second argument, where the function has one.
    k: Constant,
}

impl Counted {
    /// Attempts that were judged.
    fn judged(&self) -> u64 {
        self.right + self.wrong
    }

    /// Counts an attempt.
    fn add_attempt(&mut self, correct: Option<bool>) {
        match correct {
            Some(true) => self.right += 1,
            Some(false) => self.wrong += 1,
            None => self.rest += 1,
        }
    }

    /// Counts a question by whether it is right in the first run, and in the second; one that a run does not know is not.
    fn add_pair(&mut self, before: Option<bool>, after: Option<bool>) {
        match (before, after) {
            (Some(false), Some(true)) => self.right += 1,
            (Some(true), Some(false)) => self.wrong += 1,
            (Some(_), Some(_)) => self.rest += 1,
            _ => {}
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct OfAttempts {
    /// Its name, for messages.
    function: &'static str,
    shape: Shape,
    value: Value,
}

impl Statistic for OfAttempts {
    type Group = Counted;

    fn state_columns() -> Vec<(&'static str, DataType)> {
        ["right", "wrong", "rest", "k"].map(|name| (name, DataType::Int64)).to_vec()
    }

    fn rows(&self, arguments: &[ArrayRef]) -> Result<impl Fn(usize, &mut Counted) -> Result<usize>> {
        let first = boolean(column(arguments, 0)?)?;
        let (mut ks, mut after) = (None, None);
        match self.shape {
            Shape::Correct => {}
            Shape::CorrectAndK => ks = Some(int64(column(arguments, 1)?)?),
            Shape::BeforeAndAfter => after = Some(boolean(column(arguments, 1)?)?),
        }
        let value = |column: &BooleanArray, row| column.is_valid(row).then(|| column.value(row));
        Ok(move |row: usize, group: &mut Counted| {
            match after {
                None => group.add_attempt(value(first, row)),
                Some(after) => group.add_pair(value(first, row), value(after, row)),
            }
            let k = ks.map(|ks| Constant::of(self.function, ks, row)).transpose()?;
            group.k.merge(self.function, k)?;
            Ok(0)
        })
    }

    fn states(&self, states: &[ArrayRef]) -> Result<impl Fn(usize, &mut Counted) -> Result<usize>> {
        let [right, wrong, rest, k] = [0, 1, 2, 3].map(|index| column(states, index).and_then(int64));
        let (right, wrong, rest, k) = (right?, wrong?, rest?, k?);
        Ok(move |row: usize, group: &mut Counted| {
            group.right += of_column(right.value(row));
            group.wrong += of_column(wrong.value(row));
            group.rest += of_column(rest.value(row));
            group.k.merge(self.function, k.is_valid(row).then(|| k.value(row)))?;
            Ok(0)
        })
    }

    fn state(groups: &[Counted]) -> Vec<ArrayRef> {
        let numbers = |of: fn(&Counted) -> Option<i64>| Arc::new(groups.iter().map(of).collect::<Int64Array>()) as _;
        vec![
            numbers(|group| Some(to_column(group.right))),
            numbers(|group| Some(to_column(group.wrong))),
            numbers(|group| Some(to_column(group.rest))),
            numbers(|group| group.k.0),
        ]
    }

    fn value(&self, group: Counted) -> Result<Option<f64>> {
        Ok((self.value)(&group))
    }

    fn held(_: &Counted) -> usize {
        0
    }
}

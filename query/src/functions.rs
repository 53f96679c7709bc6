//! Functions beside DataFusion's: aggregates over the attempts at a question (paper section 4; Chen et al. 2021 for
//! pass@k), over questions, and what the funnel's rules count in a text.
//!
//! The aggregates are per question, under `GROUP BY qa_id`, and averaged outside. An attempt whose `correct` is null (its
//! judge failed) is left out: it is neither right nor wrong. With fewer than k attempts the result is null. What they
//! compute is defined in [`stats`](crate::stats).

pub(crate) mod bounded;
mod maj_at_k;
mod ngrams;
mod of_attempts;
mod of_clusters;
mod of_predictions;
pub(crate) mod one_group;
mod over_action;
mod percentile_cont;
mod statistic;

use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, Float64Array, Int64Array, StringArray,
};
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use datafusion::common::exec_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

pub use ngrams::max_ngram_count;
pub use over_action::calls_after_answer;
pub use percentile_cont::percentile_cont;

/// Functions of one row, to register with a session of DataFusion.
pub fn scalars() -> Vec<ScalarUDF> {
    vec![ngrams::function(), over_action::function()]
}

/// Aggregates, to register with a session of DataFusion.
pub fn all() -> Vec<AggregateUDF> {
    let mut functions = vec![maj_at_k::function(), AggregateUDF::from(percentile_cont::PercentileCont::default())];
    functions.extend(of_attempts::functions());
    functions.extend(of_clusters::functions());
    functions.extend(of_predictions::functions());
    functions
}

/// The k of a group: the same in all its rows.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Constant(Option<i64>);

impl Constant {
    /// The k of a row.
    fn of(function: &str, column: &Int64Array, row: usize) -> Result<i64> {
        if column.is_null(row) {
            return exec_err!("{function}: k is null; give a whole number of at least 1");
        }
        Ok(column.value(row))
    }

    fn merge(&mut self, function: &str, k: Option<i64>) -> Result<()> {
        match (self.0, k) {
            (_, None) => {}
            (_, Some(k)) if k < 1 => return exec_err!("{function}: k is {k}; give a whole number of at least 1"),
            (Some(known), Some(k)) if known != k => {
                return exec_err!("{function}: k is {known} and {k} in one group; give a constant");
            }
            (_, Some(k)) => self.0 = Some(k),
        }
        Ok(())
    }
}

fn int64(column: &ArrayRef) -> Result<&Int64Array> {
    column.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong_type("Int64", column))
}

fn boolean(column: &ArrayRef) -> Result<&BooleanArray> {
    column.as_boolean_opt().ok_or_else(|| wrong_type("Boolean", column))
}

fn floats(column: &ArrayRef) -> Result<&Float64Array> {
    column.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong_type("Float64", column))
}

fn strings(column: &ArrayRef) -> Result<&StringArray> {
    column.as_string_opt::<i32>().ok_or_else(|| wrong_type("Utf8", column))
}

fn wrong_type(expected: &str, column: &ArrayRef) -> DataFusionError {
    DataFusionError::Internal(format!("expected a column of {expected}, got {}", column.data_type()))
}

fn column(values: &[ArrayRef], index: usize) -> Result<&ArrayRef> {
    values.get(index).ok_or_else(|| DataFusionError::Internal(format!("column {index} is missing")))
}

//! Aggregates over answers with the confidence that was stated for them: whether it is borne out.
//!
//! An answer without a confidence or without a verdict is left out.

use datafusion::arrow::array::{Array as _, ArrayRef, BooleanBuilder, Float64Builder};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::AggregateUDF;

use super::statistic::{Statistic, aggregate, list, list_of, lists};
use super::{boolean, column, floats};
use crate::stats::calibration::{Prediction, brier, calibration_error, fixed_bins, rms_calibration_error};

/// Bins of fixed width (BrowseComp-ZH), and predictions in a bin of equal mass (Humanity's Last Exam).
const FIXED_BINS: usize = 5;
const PER_BIN: usize = 100;

/// What is computed of the predictions of a group.
type Value = fn(&[Prediction]) -> Option<f64>;

const FUNCTIONS: [(&str, Value); 3] = [
    ("brier", brier),
    ("calibration_error", |predictions| calibration_error(&fixed_bins(predictions, FIXED_BINS))),
    ("rms_calibration_error", |predictions| rms_calibration_error(predictions, PER_BIN)),
];

/// All of them.
pub(super) fn functions() -> impl Iterator<Item = AggregateUDF> {
    let arguments = vec![DataType::Float64, DataType::Boolean];
    FUNCTIONS.into_iter().map(move |(name, value)| aggregate(name, arguments.clone(), OfPredictions(value)))
}

#[derive(Debug, Clone, Copy)]
struct OfPredictions(Value);

impl Statistic for OfPredictions {
    type Group = Vec<Prediction>;

    fn state_columns() -> Vec<(&'static str, DataType)> {
        vec![("confidences", list_of(DataType::Float64)), ("correct", list_of(DataType::Boolean))]
    }

    fn rows(&self, arguments: &[ArrayRef]) -> Result<impl Fn(usize, &mut Vec<Prediction>) -> Result<usize>> {
        let (confidences, correct) = (floats(column(arguments, 0)?)?, boolean(column(arguments, 1)?)?);
        Ok(move |row: usize, group: &mut Vec<Prediction>| {
            if confidences.is_null(row) || correct.is_null(row) {
                return Ok(0);
            }
            group.push(Prediction { confidence: confidences.value(row), correct: correct.value(row) });
            Ok(size_of::<Prediction>())
        })
    }

    fn states(&self, states: &[ArrayRef]) -> Result<impl Fn(usize, &mut Vec<Prediction>) -> Result<usize>> {
        let (confidences, correct) = (list(states, 0)?, list(states, 1)?);
        Ok(move |row: usize, group: &mut Vec<Prediction>| {
            let (confidences, correct) = (confidences.value(row), correct.value(row));
            let pairs = floats(&confidences)?.iter().zip(boolean(&correct)?);
            let before = group.len();
            group.extend(
                pairs.filter_map(|(confidence, correct)| {
                    Some(Prediction { confidence: confidence?, correct: correct? })
                }),
            );
            Ok((group.len() - before) * size_of::<Prediction>())
        })
    }

    fn state(groups: &[Vec<Prediction>]) -> Vec<ArrayRef> {
        vec![
            lists(groups, Float64Builder::new(), |confidences, group| {
                group.iter().for_each(|prediction| confidences.append_value(prediction.confidence));
            }),
            lists(groups, BooleanBuilder::new(), |correct, group| {
                group.iter().for_each(|prediction| correct.append_value(prediction.correct));
            }),
        ]
    }

    /// In one order, whichever way the rows came in.
    fn value(&self, mut group: Vec<Prediction>) -> Result<Option<f64>> {
        group.sort_by(|a, b| a.confidence.total_cmp(&b.confidence).then(a.correct.cmp(&b.correct)));
        Ok(self.0(&group))
    }

    fn held(group: &Vec<Prediction>) -> usize {
        size_of_val(group.as_slice())
    }
}

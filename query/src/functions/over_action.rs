//! `calls_after_answer(answer, observations, tools)`: what was still called when the answer had been seen.

use std::sync::Arc;

use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, Int64Array, ListArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility};

use super::wrong_type;

/// Bytes of an answer's plain form below which it occurs by chance: `3`, `yes`.
const ANSWER_BYTES_MIN: usize = 4;

/// Tool calls behind the first observation that has the answer in it: over-action, as the WebDancer paper calls calls that
/// are made although the answer is known. `observations` and `tools` are parallel, one element a turn.
///
/// The answer is looked for as whole words, in lower case, whatever stands between letters and digits being one blank. None
/// if no observation has it, and if it is too short to say anything by standing there (under four bytes).
pub fn calls_after_answer<'t>(
    answer: &str,
    observations: impl IntoIterator<Item = Option<&'t str>>,
    tools: &[Option<&str>],
) -> Option<u64> {
    let answer = plain(answer);
    if answer.len() < ANSWER_BYTES_MIN {
        return None;
    }
    let seen = observations.into_iter().position(|seen| seen.is_some_and(|seen| holds(&plain(seen), &answer)))?;
    Some(tools.iter().skip(seen + 1).flatten().count() as u64)
}

/// Letters and digits in lower case; one blank for whatever stands between.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() {
            out.extend(c.to_lowercase());
        } else if !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Whether the words occur in the text, not as parts of longer ones. Scripts without blanks between words have no such parts.
fn holds(text: &str, words: &str) -> bool {
    let parts = |inner: Option<char>, outer: Option<char>| {
        inner.zip(outer).is_some_and(|(inner, outer)| joins(inner) && joins(outer))
    };
    text.match_indices(words).any(|(at, found)| {
        let (before, after) = (text.get(..at).unwrap_or_default(), text.get(at + found.len()..).unwrap_or_default());
        !parts(words.chars().next(), before.chars().next_back())
            && !parts(words.chars().next_back(), after.chars().next())
    })
}

/// Whether a character makes a longer word of the one beside it.
fn joins(c: char) -> bool {
    c.is_alphanumeric() && !matches!(c, '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// The function. Lists come in more than one type, so any is taken and made the one that is read.
pub(super) fn function() -> ScalarUDF {
    let signature = Signature::any(3, Volatility::Immutable);
    let function = Arc::new(counted);
    ScalarUDF::from(SimpleScalarUDF::new_with_signature("calls_after_answer", signature, DataType::Int64, function))
}

fn counted(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let columns = ColumnarValue::values_to_arrays(arguments)?;
    let [answers, observations, tools] = columns.as_slice() else {
        return Err(internal_datafusion_err!("calls_after_answer takes an answer and two lists of texts"));
    };
    let answers = cast(answers, &DataType::Utf8)?;
    let answers = answers.as_string_opt::<i32>().ok_or_else(|| wrong_type("Utf8", &answers))?;
    let (observations, tools) = (Lists::of(observations)?, Lists::of(tools)?);
    let of = |row: usize| {
        let answer = answers.is_valid(row).then(|| answers.value(row))?;
        let (observations, tools) = (observations.row(row)?, tools.row(row)?);
        let tools: Vec<Option<&str>> = tools.collect();
        i64::try_from(calls_after_answer(answer, observations, &tools)?).ok()
    };
    Ok(ColumnarValue::Array(Arc::new((0..answers.len()).map(of).collect::<Int64Array>())))
}

/// A column of lists of texts.
struct Lists {
    lists: ListArray,
    texts: StringArray,
}

impl Lists {
    fn of(column: &ArrayRef) -> Result<Lists> {
        let wanted = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        let lists = cast(column, &wanted)?;
        let lists = lists.as_list_opt::<i32>().cloned().ok_or_else(|| wrong_type("List(Utf8)", column))?;
        let values = lists.values();
        let texts = values.as_string_opt::<i32>().cloned().ok_or_else(|| wrong_type("List(Utf8)", values))?;
        Ok(Lists { lists, texts })
    }

    /// The elements of a row; None where there is no list.
    fn row(&self, row: usize) -> Option<impl Iterator<Item = Option<&str>>> {
        if self.lists.is_null(row) {
            return None;
        }
        let bound = |at: usize| self.lists.value_offsets().get(at).and_then(|offset| usize::try_from(*offset).ok());
        let elements = bound(row)?..bound(row + 1)?;
        Some(elements.map(|at| self.texts.is_valid(at).then(|| self.texts.value(at))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: [Option<&str>; 4] = [Some("search"), Some("visit"), Some("search"), None];

    #[test]
    fn calls_behind_the_observation_with_the_answer_are_counted() {
        let of = |observations: [&str; 4]| calls_after_answer("The Drava", observations.map(Some), &CALLS);
        assert_eq!(of(["the   DRAVA, a river", "", "", ""]), Some(2));
        assert_eq!(of(["x", "on *the Drava*", "the drava", ""]), Some(1));
        assert_eq!(of(["x", "x", "the Drava", ""]), Some(0));
        assert_eq!(of(["Drava", "the Dravas", "", ""]), None);
        assert_eq!(calls_after_answer("The Drava", [None, Some("the Drava")], &CALLS[..1]), Some(0));
    }

    #[test]
    fn what_occurs_by_chance_says_nothing() {
        for short in ["3", "yes", " 42. ", "", "?!?!?"] {
            assert_eq!(calls_after_answer(short, [Some(short)], &CALLS), None, "{short:?}");
        }
        assert_eq!(calls_after_answer("1969", [Some("in 1969, when")], &CALLS), Some(2));
        assert_eq!(calls_after_answer("1969", [Some("19690")], &CALLS), None);
    }

    #[test]
    fn words_that_no_blanks_part_are_found_within() {
        assert_eq!(calls_after_answer("北京", [Some("首都北京市。")], &CALLS), Some(2));
        assert_eq!(calls_after_answer("Émile", [Some("ÉMILE’s")], &CALLS), Some(2));
    }
}

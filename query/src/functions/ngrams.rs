//! `max_ngram_count(text, n)`: how often a text says the same n words.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray as _, Int64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{exec_err, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use super::{int64, wrong_type};

/// How often the most frequent run of `n` words occurs in `text`, overlaps counted; 0 if there are fewer words.
///
/// Words are what whitespace parts. The paper's rule of quality keeps a trajectory if no 10-gram of what the agent wrote
/// occurs more than four times.
pub fn max_ngram_count(text: &str, n: usize) -> u64 {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let words: Vec<u32> = text
        .split_whitespace()
        .map(|word| {
            let next = numbers.len() as u32;
            *numbers.entry(word).or_insert(next)
        })
        .collect();
    if n == 0 || words.len() < n {
        return 0;
    }
    let mut counts: HashMap<&[u32], u64> = HashMap::with_capacity(words.len() + 1 - n);
    let mut most = 0;
    for gram in words.windows(n) {
        let count = counts.entry(gram).or_default();
        *count += 1;
        most = most.max(*count);
    }
    most
}

/// The function.
pub(super) fn function() -> ScalarUDF {
    let arguments = vec![DataType::Utf8, DataType::Int64];
    create_udf("max_ngram_count", arguments, DataType::Int64, Volatility::Immutable, Arc::new(most_frequent))
}

fn most_frequent(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let columns = ColumnarValue::values_to_arrays(arguments)?;
    let [texts, lengths] = columns.as_slice() else {
        return Err(internal_datafusion_err!("max_ngram_count takes a text and a number"));
    };
    let strings = texts.as_string_opt::<i32>().ok_or_else(|| wrong_type("Utf8", texts))?;
    let counts = strings
        .iter()
        .zip(int64(lengths)?)
        .map(|(text, n)| match (text, n) {
            (Some(text), Some(n)) => match usize::try_from(n) {
                Ok(n) if n > 0 => Ok(Some(i64::try_from(max_ngram_count(text, n)).unwrap_or(i64::MAX))),
                _ => exec_err!("max_ngram_count: n is {n}; give a whole number of at least 1"),
            },
            _ => Ok(None),
        })
        .collect::<Result<Int64Array>>()?;
    Ok(ColumnarValue::Array(Arc::new(counts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_run_of_words_is_counted() {
        assert_eq!(max_ngram_count("to be or not to be", 2), 2);
        assert_eq!(max_ngram_count("to be or not to be", 1), 2);
        assert_eq!(max_ngram_count("to be or not to be", 3), 1);
        assert_eq!(max_ngram_count("la la\tla\n la", 2), 3);
        assert_eq!(max_ngram_count("one two", 3), 0);
        assert_eq!(max_ngram_count("", 1), 0);
        assert_eq!(max_ngram_count("ab c", 2), max_ngram_count("a bc", 2));
    }
}

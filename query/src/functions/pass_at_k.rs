//! `pass_at_k(correct, k)`: the chance that of k attempts at least one is correct.

use datafusion::arrow::array::{Array as _, ArrayRef};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use super::{Constant, boolean, column, count, int64, sum};

/// Unbiased pass@k of one question: 1 − C(n−c, k) / C(n, k), as the product 1 − ∏ (1 − k/i) for i from n−c+1 to n.
///
/// `n` attempts of which `c` are correct. None if n < k or k is 0.
pub fn pass_at_k(n: u64, c: u64, k: u64) -> Option<f64> {
    if n < k || k == 0 || c > n {
        return None;
    }
    if n - c < k {
        return Some(1.0);
    }
    let missed: f64 = (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Some(1.0 - missed)
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct PassAtK {
    signature: Signature,
}

impl Default for PassAtK {
    fn default() -> PassAtK {
        PassAtK { signature: Signature::exact(vec![DataType::Boolean, DataType::Int64], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for PassAtK {
    fn name(&self) -> &str {
        "pass_at_k"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::<Attempts>::default())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |name| Field::new(format_state_name(args.name, name), DataType::Int64, true).into();
        Ok(vec![field("attempts"), field("correct"), field("k")])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[derive(Debug, Default)]
struct Attempts {
    n: u64,
    c: u64,
    k: Constant,
}

impl Accumulator for Attempts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let correct = boolean(column(values, 0)?)?;
        self.k.update("pass_at_k", column(values, 1)?)?;
        self.n += (correct.len() - correct.null_count()) as u64;
        self.c += correct.true_count() as u64;
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let k = self.k.0.and_then(|k| u64::try_from(k).ok());
        Ok(ScalarValue::Float64(k.and_then(|k| pass_at_k(self.n, self.c, k))))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![count(self.n), count(self.c), ScalarValue::Int64(self.k.0)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.n += sum(column(states, 0)?)?;
        self.c += sum(column(states, 1)?)?;
        int64(column(states, 2)?)?.iter().try_for_each(|k| self.k.merge("pass_at_k", k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(pass_at_k(3, 0, 3), Some(0.0));
        assert_eq!(pass_at_k(3, 1, 3), Some(1.0));
        assert!((pass_at_k(3, 1, 1).unwrap() - 1.0 / 3.0).abs() < 1e-15);
        // 1 − C(3, 2) / C(5, 2) = 0.7
        assert!((pass_at_k(5, 2, 2).unwrap() - 0.7).abs() < 1e-15);
        assert_eq!(pass_at_k(2, 2, 3), None);
        assert_eq!(pass_at_k(2, 2, 0), None);
        // One correct of n: k/n. Large counts neither overflow nor lose it.
        assert!((pass_at_k(10_000, 1, 100).unwrap() - 0.01).abs() < 1e-12);
    }
}

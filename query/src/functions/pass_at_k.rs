//! `pass_at_k(correct, k)`: the chance that of k attempts at least one is correct.

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::attempts::Attempts;
use super::one_group::OneGroup;

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

fn attempts() -> Attempts {
    Attempts::new("pass_at_k", |question| {
        let k = u64::try_from(question.k.0?).ok()?;
        pass_at_k(question.n, question.c, k)
    })
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

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        OneGroup::boxed(attempts(), &args)
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(attempts()))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(Attempts::state_fields(&args))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
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

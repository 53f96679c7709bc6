//! `cons(correct)`: the paper's Cons@3, which is the share of attempts that are correct, not a majority vote.

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::attempts::Attempts;
use super::one_group::OneGroup;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Cons {
    signature: Signature,
}

impl Default for Cons {
    fn default() -> Cons {
        Cons { signature: Signature::exact(vec![DataType::Boolean], Volatility::Immutable) }
    }
}

fn attempts() -> Attempts {
    Attempts::new("cons", |question| (question.n > 0).then(|| question.c as f64 / question.n as f64))
}

impl AggregateUDFImpl for Cons {
    fn name(&self) -> &str {
        "cons"
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

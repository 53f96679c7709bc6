//! No call of a function makes more at once than its share of the memory of queries.
//!
//! `repeat('x', 2000000000)` allocates before the memory pool hears of it, and so does `concat` of a long constant with
//! each of 8,192 rows. So every function of DataFusion's whose result has no fixed width is bounded, whatever it does:
//! what a call would make is worked out from its arguments ([`growth`]) and compared with the largest of them. Where
//! that is an upper bound and too much, the rows are halved until it fits, and what the parts really come to is added
//! up. What even one row would make too much of is refused before it is made.
//!
//! What is made of constants alone stands in the plan, and the optimizer copies it with each of its steps. So the
//! constants of a statement have a smaller share, all together ([`Allowance`]), and are let into few rows at a time
//! ([`constants`]). `||` is an operator, no function: [`operator`] has it and whatever else the planner puts in itself.

pub(crate) mod constants;
mod growth;
mod operator;

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::compute::concat;
use datafusion::arrow::array::{Array as _, ArrayRef};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::resources_err;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::Result;
use datafusion::execution::{FunctionRegistry as _, SessionState};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use growth::Growth;

/// One call may make an eighth of the memory of queries.
const CALL_SHARE: usize = 8;
/// All constants of a statement may come to this part of it: the optimizer holds several copies of each.
const CONSTANTS_SHARE: usize = 32;
/// Constants shorter than this do not count.
const SHORT_CONSTANT_BYTES: u64 = 1_024;

/// Functions that are left as they are: what they give is one of their arguments, or is made of them without copying.
/// The planner and the optimizer know most of them by their type.
const FREE: &[&str] = &[
    "arrow_cast",
    "arrow_field",
    "arrow_metadata",
    "arrow_try_cast",
    "arrow_typeof",
    "cast_to_type",
    "coalesce",
    "get_field",
    "greatest",
    "least",
    "named_struct",
    "nullif",
    "nvl",
    "nvl2",
    "struct",
    "try_cast_to_type",
];

/// Bounds every function of a session, for one statement.
pub(crate) fn bind(state: &mut SessionState, memory_bytes: usize) -> Result<()> {
    let allowance = Allowance::of(memory_bytes);
    let functions: Vec<_> = state
        .scalar_functions()
        .iter()
        .filter(|(name, function)| *name == function.name())
        .map(|(_, f)| f.clone())
        .collect();
    for function in functions {
        state.register_udf(allowance.bounded(function))?;
    }
    state.add_analyzer_rule(Arc::new(operator::BoundCalls::new(allowance)));
    Ok(())
}

/// What the calls of one statement may make.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    call_bytes: u64,
    constants_bytes: u64,
    constants_made: Arc<AtomicU64>,
}

/// There is one in a statement: calls differ by their functions alone.
impl PartialEq for Allowance {
    fn eq(&self, _: &Allowance) -> bool {
        true
    }
}
impl Eq for Allowance {}
impl Hash for Allowance {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Allowance {
    fn of(memory_bytes: usize) -> Allowance {
        Allowance {
            call_bytes: (memory_bytes / CALL_SHARE) as u64,
            constants_bytes: (memory_bytes / CONSTANTS_SHARE) as u64,
            constants_made: Arc::default(),
        }
    }

    fn bounded(&self, function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
        let name = function.name();
        let known = FREE.contains(&name) || name.starts_with("json_");
        if known || function.inner().downcast_ref::<Bounded>().is_some() {
            return function;
        }
        let growth = Growth::of(name);
        Arc::new(ScalarUDF::from(Bounded { inner: function, growth, allowance: self.clone() }))
    }

    fn check_call(&self, name: &str, bytes: u64) -> Result<()> {
        if bytes > self.call_bytes {
            let most = self.call_bytes;
            return resources_err!("{name} would make {bytes} bytes at once, more than the {most} that one call may");
        }
        Ok(())
    }

    fn check_constant(&self, name: &str, bytes: u64) -> Result<()> {
        if bytes < SHORT_CONSTANT_BYTES {
            return Ok(());
        }
        // What is refused is not made, and may be tried again by the next step of the optimizer.
        let add = |made: u64| Some(made.saturating_add(bytes)).filter(|made| *made <= self.constants_bytes);
        if let Err(made) = self.constants_made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            let (all, most) = (made.saturating_add(bytes), self.constants_bytes);
            return resources_err!(
                "with {name} the statement's constants have {all} bytes, more than the {most} they may"
            );
        }
        Ok(())
    }
}

/// A function that refuses to make more than its share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    allowance: Allowance,
}

impl Bounded {
    /// Makes the result in parts that are known to fit, and adds up what they come to beyond the largest argument.
    fn make(&self, args: ScalarFunctionArgs, made: &mut u64, parts: &mut Vec<ArrayRef>) -> Result<()> {
        let rows = args.number_rows;
        let held = growth::largest_array(&args);
        let bound = self.growth.bound(&args)?.saturating_sub(held);
        if bound > self.allowance.call_bytes {
            if rows <= 1 {
                return self.allowance.check_call(self.name(), bound);
            }
            self.make(rows_of(&args, 0, rows / 2), made, parts)?;
            return self.make(rows_of(&args, rows / 2, rows - rows / 2), made, parts);
        }
        let part = self.inner.invoke_with_args(args)?.into_array(rows)?;
        *made = made.saturating_add(growth::bytes_of(&part).saturating_sub(held));
        parts.push(part);
        self.allowance.check_call(self.name(), *made)
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }
    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }
    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = Arc::new(self.inner.inner().with_updated_config(config)?);
        Some(ScalarUDF::from(Bounded { inner, ..self.clone() }))
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }
    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match self.inner.inner().simplify(args, info)? {
            // What it was made of is bounded again.
            ExprSimplifyResult::Simplified(expression) => {
                let bounded = expression.transform_up(|part| match part {
                    Expr::ScalarFunction(mut call) => {
                        call.func = self.allowance.bounded(call.func);
                        Ok(Transformed::yes(Expr::ScalarFunction(call)))
                    }
                    part => Ok(Transformed::no(part)),
                })?;
                Ok(ExprSimplifyResult::Simplified(bounded.data))
            }
            original => Ok(original),
        }
    }
    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        self.inner.inner().preimage(args, literal, info)
    }
    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }
    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(inputs)
    }
    fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> Result<Option<Vec<Interval>>> {
        self.inner.propagate_constraints(interval, inputs)
    }
    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }
    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.inner().preserves_lex_ordering(inputs)
    }
    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.inner().strictly_order_preserving(inputs)
    }
    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arg_types)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !growth::may_grow(args.return_field.data_type()) {
            return self.inner.invoke_with_args(args);
        }
        if !args.args.is_empty() && args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_))) {
            self.allowance.check_call(self.name(), self.growth.bound(&args)?)?;
            let made = self.inner.invoke_with_args(args)?;
            self.allowance.check_constant(self.name(), growth::bytes_of(&made.to_array(1)?))?;
            return Ok(made);
        }
        let mut parts = Vec::new();
        self.make(args, &mut 0, &mut parts)?;
        match parts.as_slice() {
            [whole] => Ok(ColumnarValue::Array(whole.clone())),
            parts => Ok(ColumnarValue::Array(concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?)),
        }
    }
}

/// Some rows of a call.
fn rows_of(args: &ScalarFunctionArgs, from: usize, rows: usize) -> ScalarFunctionArgs {
    let part = |value: &ColumnarValue| match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, rows)),
        constant => constant.clone(),
    };
    ScalarFunctionArgs {
        args: args.args.iter().map(part).collect(),
        arg_fields: args.arg_fields.clone(),
        number_rows: rows,
        return_field: args.return_field.clone(),
        config_options: args.config_options.clone(),
    }
}

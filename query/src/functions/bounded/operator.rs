//! What is called without a name: `||`, and the functions that the planner puts in itself, for `[1, 2]` for example.

use std::sync::Arc;

use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{DFSchema, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable as _, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::Allowance;

/// Bounds every call of a plan whose types are settled.
#[derive(Debug)]
pub(super) struct BoundCalls {
    allowance: Allowance,
    concatenation: Arc<ScalarUDF>,
}

impl BoundCalls {
    pub(super) fn new(allowance: Allowance) -> BoundCalls {
        let concatenation = allowance.bounded(Arc::new(ScalarUDF::from(Concatenation::new())));
        BoundCalls { allowance, concatenation }
    }

    fn bounded(&self, part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        match part {
            Expr::ScalarFunction(call) => {
                let func = self.allowance.bounded(call.func.clone());
                let bound = !Arc::ptr_eq(&func, &call.func);
                let call = Expr::ScalarFunction(ScalarFunction { func, args: call.args });
                Ok(if bound { Transformed::yes(call) } else { Transformed::no(call) })
            }
            Expr::BinaryExpr(BinaryExpr { ref left, op: Operator::StringConcat, ref right })
                if is_text(&left.get_type(schema)?) && is_text(&right.get_type(schema)?) =>
            {
                let args = vec![left.as_ref().clone(), right.as_ref().clone()];
                let call = ScalarFunction { func: self.concatenation.clone(), args };
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            }
            part => Ok(Transformed::no(part)),
        }
    }
}

impl AnalyzerRule for BoundCalls {
    fn name(&self) -> &str {
        "bound_calls"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let bounded = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            let schema = match &node {
                LogicalPlan::TableScan(scan) => scan.projected_schema.as_ref().clone(),
                node => merge_schema(&node.inputs()),
            };
            node.map_expressions(|expression| {
                let name = names.save(&expression);
                let bounded = expression.transform_up(|part| self.bounded(part, &schema))?;
                Ok(bounded.update_data(|expression| name.restore(expression)))
            })
        })?;
        Ok(bounded.data)
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// `||` of two texts: null where one of them is, other than `concat`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concatenation {
    signature: Signature,
}

impl Concatenation {
    fn new() -> Concatenation {
        Concatenation { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &str {
        "||"
    }
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [left, right] => Ok(format!("{} || {}", left.schema_name(), right.schema_name())),
            _ => internal_err!("|| is between two texts"),
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    /// The larger of the two types.
    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let larger = [DataType::Utf8View, DataType::LargeUtf8].into_iter().find(|larger| arg_types.contains(larger));
        Ok(larger.unwrap_or(DataType::Utf8))
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let texts = args.args.iter().map(|value| Ok(cast(&value.to_array(rows)?, args.return_field.data_type())?));
        match texts.collect::<Result<Vec<_>>>()?.as_slice() {
            [left, right] => Ok(ColumnarValue::Array(concat_elements_dyn(left, right)?)),
            _ => internal_err!("|| is between two texts"),
        }
    }
}

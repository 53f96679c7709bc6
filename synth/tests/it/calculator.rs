//! A third tool, all of it: sums and products of two numbers.

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use webdancer_agent::tool::{BackEnds, Observation, ObservationLimits, Outcome, Part, Tool};

/// The tool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calculator;

#[async_trait]
impl Tool for Calculator {
    fn name(&self) -> &str {
        "calculator"
    }

    fn specification(&self, _: &ObservationLimits) -> Value {
        let expression = json!({"type": "string", "description": "Two numbers with + or * between them."});
        json!({
            "name": "calculator",
            "description": "Computes.",
            "parameters": {"type": "object", "properties": {"expression": expression}, "required": ["expression"]}
        })
    }

    async fn call(&self, arguments: &Map<String, Value>, _: &BackEnds) -> Observation {
        match result(arguments) {
            Ok(number) => Observation::new(format!("The result is {number}.\n"), Outcome::Done),
            Err(reason) => Observation::invalid("calculator", &reason),
        }
    }

    fn parts(&self, arguments: &Map<String, Value>, _: &ObservationLimits) -> Result<Vec<Part>, String> {
        result(arguments).map(|_| Vec::new())
    }

    fn normal(&self, _: &str, text: &str) -> String {
        text.chars().filter(|c| !c.is_whitespace()).collect()
    }
}

fn result(arguments: &Map<String, Value>) -> Result<i64, String> {
    let expression = arguments.get("expression").and_then(Value::as_str).unwrap_or_default();
    let number = |text: &str| text.trim().parse::<i64>().ok();
    let sum = expression.split_once('+').and_then(|(a, b)| number(a)?.checked_add(number(b)?));
    let product = expression.split_once('*').and_then(|(a, b)| number(a)?.checked_mul(number(b)?));
    sum.or(product).ok_or_else(|| format!("{expression:?} is not two numbers with + or * between them."))
}

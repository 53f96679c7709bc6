//! The arguments of the tools, read tolerantly: what is wrong with them is said to the model.

use serde_json::{Map, Value};

/// The list of strings at `name`; a single string is a list of one. Blank entries are left out.
///
/// # Errors
/// What is wrong, as a sentence for the model.
pub(super) fn strings(arguments: &Map<String, Value>, name: &str, count_max: usize) -> Result<Vec<String>, String> {
    let value =
        arguments.get(name).ok_or_else(|| format!("The argument {name:?} is missing: give an array of strings."))?;
    let list = match value {
        Value::String(_) => std::slice::from_ref(value),
        Value::Array(list) => list,
        other => return Err(format!("The argument {name:?} is {}: give an array of strings.", kind(other))),
    };
    let mut strings = Vec::new();
    for value in list {
        let Value::String(text) = value else {
            return Err(format!("The array {name:?} holds {}: give strings only.", kind(value)));
        };
        if !text.trim().is_empty() {
            strings.push(text.clone());
        }
    }
    match strings.len() {
        0 => Err(format!("The argument {name:?} is empty: give at least one string.")),
        count if count > count_max => {
            Err(format!("The argument {name:?} has {count} entries: give at most {count_max} in one call."))
        }
        _ => Ok(strings),
    }
}

/// The string at `name`.
///
/// # Errors
/// What is wrong, as a sentence for the model.
pub(super) fn string(arguments: &Map<String, Value>, name: &str) -> Result<String, String> {
    match arguments.get(name) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
        Some(Value::String(_)) => Err(format!("The argument {name:?} is empty: give a string.")),
        Some(other) => Err(format!("The argument {name:?} is {}: give a string.", kind(other))),
        None => Err(format!("The argument {name:?} is missing: give a string.")),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<String>, String> {
        strings(&serde_json::from_str(json).unwrap(), "query", 3)
    }

    #[test]
    fn a_list_or_a_single_string_is_taken() {
        assert_eq!(read(r#"{"query": ["a", " ", "b"]}"#), Ok(vec!["a".to_string(), "b".to_string()]));
        assert_eq!(read(r#"{"query": "a b", "more": 1}"#), Ok(vec!["a b".to_string()]));
    }

    #[test]
    fn each_fault_is_said_with_what_to_give() {
        for (json, expected) in [
            ("{}", "The argument \"query\" is missing: give an array of strings."),
            (r#"{"query": 3}"#, "The argument \"query\" is a number: give an array of strings."),
            (r#"{"query": {"q": "a"}}"#, "The argument \"query\" is an object: give an array of strings."),
            (r#"{"query": null}"#, "The argument \"query\" is null: give an array of strings."),
            (r#"{"query": ["a", ["b"]]}"#, "The array \"query\" holds an array: give strings only."),
            (r#"{"query": []}"#, "The argument \"query\" is empty: give at least one string."),
            (r#"{"query": ["", " "]}"#, "The argument \"query\" is empty: give at least one string."),
            (r#"{"query": ["a", "b", "c", "d"]}"#, "The argument \"query\" has 4 entries: give at most 3 in one call."),
        ] {
            assert_eq!(read(json), Err(expected.to_string()), "{json}");
        }
        let goal = |json: &str| string(&serde_json::from_str(json).unwrap(), "goal").unwrap_err();
        assert_eq!(goal("{}"), "The argument \"goal\" is missing: give a string.");
        assert_eq!(goal(r#"{"goal": ["a"]}"#), "The argument \"goal\" is an array: give a string.");
        assert_eq!(goal(r#"{"goal": "\n"}"#), "The argument \"goal\" is empty: give a string.");
    }
}

//! JSON in what a model wrote.

use serde_json::{Map, Value};

/// The first JSON object in a model's text that has all these members: bare, in a code fence, in a list, or after
/// reasoning.
pub fn object_with(text: &str, members: &[&str]) -> Option<Map<String, Value>> {
    let mut from = 0;
    while let Some(start) = text.get(from..)?.find('{').map(|at| from + at) {
        let mut values = serde_json::Deserializer::from_str(text.get(start..)?).into_iter::<Value>();
        match values.next() {
            Some(Ok(Value::Object(object))) if members.iter().all(|member| object.contains_key(*member)) => {
                return Some(object);
            }
            // Something else: what it holds may be what is looked for.
            _ => from = start + 1,
        }
    }
    None
}

/// A member as text: a string, a number, yes or no for a truth value, the only element of a list. None where it is
/// something else, or empty.
pub fn text_of(object: &Map<String, Value>, member: &str) -> Option<String> {
    fn text(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.trim().to_string()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(yes) => Some(if *yes { "yes" } else { "no" }.to_string()),
            Value::Array(list) => match list.as_slice() {
                [value] => text(value),
                _ => None,
            },
            Value::Null | Value::Object(_) => None,
        }
    }
    text(object.get(member)?).filter(|text| !text.is_empty())
}

/// A member as a list of texts: what is no text in it is left out.
pub fn texts_of(object: &Map<String, Value>, member: &str) -> Vec<String> {
    let list = object.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(|text| text.trim().to_string()).filter(|text| !text.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_found_wherever_a_model_puts_it() {
        for text in [
            "{\"question\": \"Who?\", \"answer\": 3}",
            "Here you are:\n```json\n{\"question\": \"Who?\", \"answer\": 3}\n```\nI hope this helps {smile}.",
            "[{\"question\": \"Who?\", \"answer\": [3]}]",
            "<think>\nmaybe {\"question\": \"What?\"} or {x}\n</think>\n{\"question\": \"Who?\", \"answer\": \" 3 \", \"more\": {}}",
            "{\"result\": {\"question\": \"Who?\", \"answer\": \"3\"}}",
        ] {
            let object = object_with(text, &["question", "answer"]).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(text_of(&object, "question").as_deref(), Some("Who?"), "{text}");
            assert_eq!(text_of(&object, "answer").as_deref(), Some("3"), "{text}");
        }
        for text in ["", "no JSON", "{\"question\": \"Who?\"", "{\"question\": \"Who?\"}", "{{{{"] {
            assert_eq!(object_with(text, &["question", "answer"]), None, "{text}");
        }
    }

    #[test]
    fn members_that_are_no_text_are_absent() {
        let object =
            object_with("{\"a\": null, \"b\": [], \"c\": true, \"d\": [\"x\", 1, \" y \"], \"e\": \" \"}", &[])
                .unwrap();
        assert_eq!(
            ["a", "b", "c", "d", "e"].map(|member| text_of(&object, member)),
            [None, None, Some("yes".to_string()), None, None]
        );
        assert_eq!(texts_of(&object, "d"), ["x", "y"]);
    }
}

//! Which changes of a schema old events and old tables survive.
//!
//! A table's schema is written down as text, one column a line ([`describe`]). The file of the last release is kept
//! beside the fixtures; [`check`] holds today's schema against it.

use arrow::datatypes::{DataType, Field, Schema};

/// One column a line: `name: type` and ` required` where nulls are not allowed.
pub fn describe(schema: &Schema) -> String {
    schema.fields().iter().map(|field| format!("{}\n", line(field))).collect()
}

fn line(field: &Field) -> String {
    let required = if field.is_nullable() { "" } else { " required" };
    format!("{}: {}{required}", field.name(), type_name(field.data_type()))
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::List(item) => {
            let optional = if item.is_nullable() { "?" } else { "" };
            format!("list<{}{optional}>", type_name(item.data_type()))
        }
        DataType::Struct(fields) => {
            let inner = fields.iter().map(|f| line(f)).collect::<Vec<_>>().join(", ");
            format!("struct<{inner}>")
        }
        DataType::Timestamp(_, _) => "timestamp_us_utc".to_string(),
        other => other.to_string().to_lowercase(),
    }
}

/// What in `new` would break events or tables made under `old` (both as [`describe`] writes them).
///
/// Allowed: the same, a new column that may be null, a required column that became optional. Not allowed: a column
/// removed or renamed, a type changed, an optional column made required, a new required column.
pub fn check(old: &str, new: &str) -> Vec<String> {
    let split = |line: &str| -> Option<(String, String, bool)> {
        let (name, rest) = line.split_once(": ")?;
        let required = rest.ends_with(" required");
        Some((name.to_string(), rest.trim_end_matches(" required").to_string(), required))
    };
    let old: Vec<_> = old.lines().filter_map(split).collect();
    let new: Vec<_> = new.lines().filter_map(split).collect();
    let mut breaks = Vec::new();
    for (name, old_type, was_required) in &old {
        match new.iter().find(|(other, _, _)| other == name) {
            None => {
                breaks.push(format!("column {name} was removed: old events still carry it, old queries still name it"))
            }
            Some((_, new_type, _)) if new_type != old_type => {
                breaks
                    .push(format!("column {name} changed from {old_type} to {new_type}: old files hold the old type"));
            }
            Some((_, _, true)) if !was_required => {
                breaks.push(format!("column {name} became required: old events lack it"));
            }
            Some(_) => {}
        }
    }
    for (name, _, required) in &new {
        if *required && !old.iter().any(|(other, _, _)| other == name) {
            breaks.push(format!("new column {name} is required: old events and files lack it"));
        }
    }
    breaks
}

#[cfg(test)]
mod tests {
    use super::check;

    const OLD: &str = "id: utf8 required\nnote: utf8\n";

    #[test]
    fn additions_that_may_be_null_and_loosening_are_compatible() {
        assert_eq!(check(OLD, "id: utf8\nnote: utf8\nmore: int64\n"), Vec::<String>::new());
    }

    #[test]
    fn each_breaking_change_is_named() {
        assert_eq!(check(OLD, "id: utf8 required\n").len(), 1, "removed");
        assert_eq!(check(OLD, "id: int64 required\nnote: utf8\n").len(), 1, "retyped");
        assert_eq!(check(OLD, "id: utf8 required\nnote: utf8 required\n").len(), 1, "tightened");
        assert_eq!(check(OLD, "id: utf8 required\nnote: utf8\nnew: utf8 required\n").len(), 1, "new required");
    }
}

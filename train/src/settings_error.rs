//! What is wrong with a TOML file of settings, on one line: `FILE:LINE:COLUMN: KEY: what`. No value is repeated: it may be a
//! password or a key.

use std::path::Path;

use toml::de::{DeTable, DeValue};

/// The line for `error`, which came of reading `text`, the content of `file`.
pub fn line_of(file: &Path, text: &str, error: &toml::de::Error) -> String {
    let what = what_of(text, error);
    let Some(offset) = error.span().map(|span| span.start) else { return format!("{}: {what}", file.display()) };
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{}:{line}:{column}: {what}", file.display())
}

/// `KEY: what`, of settings that are in no file as they stand in `text`.
pub(crate) fn what_of(text: &str, error: &toml::de::Error) -> String {
    // A text that is no TOML is read as far as it can be: its keys are those before the mistake.
    let (keys, _) = DeTable::parse_recoverable(text);
    let key = error.span().and_then(|span| key_at(keys.get_ref(), span.start));
    let key = key.map(|key| format!("{key}: ")).unwrap_or_default();
    format!("{key}{}", without_value(error.message()))
}

/// The key, with those of the tables around it, whose name or value stands at `offset`.
fn key_at(table: &DeTable<'_>, offset: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        // A table's own place is its header: what stands in it is looked at first.
        if let DeValue::Table(inner) = value.get_ref()
            && let Some(below) = key_at(inner, offset)
        {
            return Some(format!("{name}.{below}"));
        }
        (key.span().contains(&offset) || value.span().contains(&offset)).then(|| name.to_string())
    })
}

/// serde's message without the value: `invalid type: string "…", expected u64`.
fn without_value(message: &str) -> String {
    match message.rsplit_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid ") => {
            let found = found.split(['"', '`']).next().unwrap_or_default().trim_end();
            format!("{found}, expected {expected}")
        }
        _ => message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Config {
        lake: Lake,
        log: BTreeMap<String, BTreeMap<String, String>>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Lake {
        uri: Option<String>,
        id_cache_bytes: usize,
        s3_region: Option<String>,
    }

    fn line(text: &str) -> String {
        line_of(Path::new("w.toml"), text, &toml::from_str::<Config>(text).unwrap_err())
    }

    #[test]
    fn a_mistake_is_one_line_with_its_place_and_key() {
        assert_eq!(
            line("[lake]\nid_cache_bytes = 5\n\nuri = 3\n"),
            "w.toml:4:7: lake.uri: invalid type: integer, expected a string"
        );
        assert_eq!(line("[log.kafka]\n\"a.b\" = 1\n").split(": ").nth(1), Some("log.kafka.a.b"));
        assert!(
            line("[lake]\nurl = 'x'\n").starts_with("w.toml:2:1: lake.url: unknown field `url`, expected one of `uri`")
        );
        assert!(line("[nonsense]\n").starts_with("w.toml:1:2: nonsense: unknown field `nonsense`"));
        assert!(line("lake.id_cache_bytes = 'é' # é\n").starts_with("w.toml:1:23: lake.id_cache_bytes: invalid type"));
        assert_eq!(line("[lake]\nuri = \n").split(": ").next(), Some("w.toml:2:7"));
        assert_eq!(line("[lake]\nuri = 'x'\nuri = 'y'\n").split(": ").next(), Some("w.toml:3:1"));
        for text in ["[lake\n", "\"", "a = [1,\n\n2", "[lake]\nuri = 'x\n", "=", "\u{0}"] {
            assert!(line(text).starts_with("w.toml:") && !line(text).contains('\n'), "{text:?}: {}", line(text));
        }
    }
}

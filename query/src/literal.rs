//! What goes into SQL from outside: only ever as a literal, or as a name in quotes.

/// A text as a literal: quotes are doubled, and nothing else has a meaning between them.
pub fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Texts as a list of literals for `IN`; a list of none matches nothing.
pub fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> String {
    let list: Vec<String> = values.into_iter().map(text).collect();
    if list.is_empty() { "(NULL)".to_string() } else { format!("({})", list.join(", ")) }
}

/// A number as a literal; one that is not finite as NULL, which no comparison meets.
pub fn number(value: f64) -> String {
    if value.is_finite() { format!("CAST({value:?} AS DOUBLE)") } else { "CAST(NULL AS DOUBLE)".to_string() }
}

/// A name of a column: in double quotes, which are doubled inside.
pub fn name(value: &str) -> String {
    format!("\"{}\"", value.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(text("O'Brien'; DROP TABLE x --"), "'O''Brien''; DROP TABLE x --'");
        assert_eq!(texts(["a", "b'"]), "('a', 'b''')");
        assert_eq!(texts([]), "(NULL)");
        assert_eq!(number(-1.5e300), "CAST(-1.5e300 AS DOUBLE)");
        assert_eq!(number(f64::NAN), "CAST(NULL AS DOUBLE)");
        assert_eq!(name("a\"b"), "\"a\"\"b\"");
    }
}

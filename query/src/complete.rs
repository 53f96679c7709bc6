//! Completion of names for an interactive shell.

use std::collections::{BTreeMap, BTreeSet};

const KEYWORDS: &[&str] = &[
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CROSS",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FILTER",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "RIGHT",
    "SELECT",
    "SHOW",
    "TABLES",
    "THEN",
    "TRUE",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

/// Words after which a table is named.
const BEFORE_TABLE: &[&str] = &["FROM", "JOIN", "DESCRIBE", "DESC", "COLUMNS"];

/// Names to complete with; made by [`QueryEngine::completer`](crate::QueryEngine::completer).
#[derive(Debug, Clone, Default)]
pub struct Completer {
    tables: BTreeMap<String, Vec<String>>,
    functions: BTreeSet<String>,
    pins: BTreeSet<String>,
}

impl Completer {
    pub(crate) fn new(
        tables: BTreeMap<String, Vec<String>>,
        functions: impl IntoIterator<Item = String>,
        pins: impl IntoIterator<Item = String>,
    ) -> Completer {
        Completer { tables, functions: functions.into_iter().collect(), pins: pins.into_iter().collect() }
    }

    /// Candidates for the word that ends `before_cursor`, and the byte at which that word starts.
    ///
    /// After FROM or JOIN: tables, views, `at(`, `pin(`. After `table.` its columns. Within `pin('` the pins, within
    /// `at('` the tables. Elsewhere the columns of the tables named so far (of all, if none is), functions, keywords.
    pub fn complete(&self, before_cursor: &str) -> (usize, Vec<String>) {
        let start = before_cursor
            .char_indices()
            .rev()
            .take_while(|(_, c)| c.is_alphanumeric() || *c == '_')
            .last()
            .map_or(before_cursor.len(), |(index, _)| index);
        let (head, word) = before_cursor.split_at(start);
        let lower = head.trim_end().to_ascii_lowercase();
        let candidates: BTreeSet<String> = if lower.ends_with("pin('") {
            self.pins.clone()
        } else if lower.ends_with("at('") {
            self.tables.keys().cloned().collect()
        } else if let Some(qualified) = lower.strip_suffix('.').filter(|_| head.ends_with('.')) {
            self.columns_of(last_word(qualified))
        } else if BEFORE_TABLE.contains(&last_word(&lower).to_ascii_uppercase().as_str()) {
            let functions = ["at(", "pin("].map(String::from);
            self.tables.keys().cloned().chain(functions).collect()
        } else {
            self.names_in_scope(&lower)
        };
        let matching = candidates.into_iter().filter(|candidate| {
            candidate.len() >= word.len()
                && candidate.is_char_boundary(word.len())
                && candidate[..word.len()].eq_ignore_ascii_case(word)
        });
        (start, matching.collect())
    }

    /// Columns of a table, or of everything if it is an alias.
    fn columns_of(&self, table: &str) -> BTreeSet<String> {
        match self.tables.get(table) {
            Some(columns) => columns.iter().cloned().collect(),
            None => self.tables.values().flatten().cloned().collect(),
        }
    }

    fn names_in_scope(&self, text: &str) -> BTreeSet<String> {
        let words: BTreeSet<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let mut tables = self.tables.iter().filter(|(name, _)| words.contains(name.as_str())).peekable();
        let columns: Vec<&String> = if tables.peek().is_some() {
            tables.flat_map(|(_, columns)| columns).collect()
        } else {
            self.tables.values().flatten().collect()
        };
        let functions = self.functions.iter().map(|name| format!("{name}("));
        let keywords = KEYWORDS.iter().map(|word| (*word).to_string());
        columns.into_iter().cloned().chain(functions).chain(keywords).collect()
    }
}

fn last_word(text: &str) -> &str {
    let text = text.trim_end();
    let start = text
        .rfind(|c: char| !c.is_alphanumeric() && c != '_')
        .map_or(0, |index| index + text[index..].chars().next().map_or(0, char::len_utf8));
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completer() -> Completer {
        let tables = [("qa", vec!["qa_id", "question"]), ("pages", vec!["url", "title"])];
        let tables = tables.map(|(name, columns)| (name.to_string(), columns.into_iter().map(String::from).collect()));
        Completer::new(tables.into(), ["upper".to_string()], ["train-v1".to_string()])
    }

    #[test]
    fn tables_columns_functions_and_pins() {
        let complete = |text: &str| completer().complete(text);
        assert_eq!(complete("SELECT * FROM p"), (14, vec!["pages".to_string(), "pin(".to_string()]));
        assert_eq!(complete("select * from "), (14, ["at(", "pages", "pin(", "qa"].map(String::from).to_vec()));
        assert_eq!(complete("SELECT q.Qu"), (9, vec!["question".to_string()]));
        assert_eq!(complete("SELECT pages."), (13, vec!["title".to_string(), "url".to_string()]));
        assert_eq!(complete("SELECT u"), (7, ["UNION", "USING", "upper(", "url"].map(String::from).to_vec()));
        assert_eq!(complete("SELECT * FROM qa WHERE q"), (23, vec!["qa_id".to_string(), "question".to_string()]));
        assert_eq!(complete("SELECT * FROM pin('"), (19, vec!["train-v1".to_string()]));
        assert_eq!(complete("SELECT * FROM at('q"), (18, vec!["qa".to_string()]));
        assert_eq!(complete("SELECT 'ü"), (8, vec![]));
    }
}

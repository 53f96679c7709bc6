//! A text of statements taken apart at its semicolons: those that end a statement, not those in strings and comments.

use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

use crate::dialect::LakeDialect;

/// The statements of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script<'a> {
    /// Those that are ended, without their semicolons, and the line that each begins in, from 1. Empty ones are left
    /// out.
    pub statements: Vec<(usize, &'a str)>,
    /// What follows the last semicolon; empty if that is nothing but blanks and comments.
    pub rest: &'a str,
}

impl<'a> Script<'a> {
    /// Takes a text apart.
    pub fn of(text: &'a str) -> Script<'a> {
        let mut tokens = Vec::new();
        // A string or comment without its end comes after the tokens that were found.
        let open = Tokenizer::new(&LakeDialect, text).tokenize_with_location_into_buf(&mut tokens).is_err();
        let mut places = Places { text, offset: 0, line: 1, column: 1 };
        let (mut statements, mut begin, mut line) = (Vec::new(), 0, None);
        for token in &tokens {
            match &token.token {
                Token::Whitespace(_) => {}
                Token::SemiColon => {
                    let end = places.offset_of(token.span.start);
                    let statement = text.get(begin..end).unwrap_or_default().trim();
                    statements.extend(line.take().map(|line| (line, statement)));
                    begin = end + 1;
                }
                _ => line = line.or(Some(token.span.start.line as usize)),
            }
        }
        let unended = open || line.is_some();
        Script { statements, rest: text.get(begin..).filter(|_| unended).unwrap_or_default() }
    }
}

/// Turns the tokenizer's lines and columns, in characters, into byte offsets, going forward only.
struct Places<'a> {
    text: &'a str,
    offset: usize,
    line: u64,
    column: u64,
}

impl Places<'_> {
    fn offset_of(&mut self, place: Location) -> usize {
        for character in self.text.get(self.offset..).unwrap_or_default().chars() {
            if (self.line, self.column) >= (place.line, place.column) {
                break;
            }
            self.offset += character.len_utf8();
            (self.line, self.column) =
                if character == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_strings_and_comments_end_nothing() {
        for (text, statements, rest) in [
            ("SELECT 1;\nSELECT 2", &[(1, "SELECT 1")][..], "\nSELECT 2"),
            ("SELECT 'a;\nb' AS x; SELECT \"y;\" ;\n", &[(1, "SELECT 'a;\nb' AS x"), (2, "SELECT \"y;\"")], ""),
            ("-- one; two\nSELECT 1 /* ; */ + 1;", &[(2, "-- one; two\nSELECT 1 /* ; */ + 1")], ""),
            ("é;\r\n'ü;'; 'ö", &[(1, "é"), (2, "'ü;'")], " 'ö"),
            ("SELECT 'it''s;", &[], "SELECT 'it''s;"),
            ("SELECT 1; /* open ;", &[(1, "SELECT 1")], " /* open ;"),
            (" ; ;; -- nothing;\n", &[], ""),
            ("", &[], ""),
        ] {
            assert_eq!(Script::of(text), Script { statements: statements.to_vec(), rest }, "{text:?}");
        }
    }
}

//! The lists and tables of a Markdown text, and what they are of.

use std::ops::Range;

/// A list or a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List<'a> {
    /// Bytes of the text, from the heading on where the list follows it at once.
    pub(super) range: Range<usize>,
    /// The heading that it stands under, without its marks. The page's title is none.
    pub(super) heading: &'a str,
}

/// The lists of a text, in order. Items are lines that begin with a mark or a number, or a table's rows; an indented line
/// belongs to the item above it.
pub(super) fn lists(text: &str) -> Vec<List<'_>> {
    let mut found: Vec<List<'_>> = Vec::new();
    // The heading above, and where it begins if nothing but empty lines followed it yet.
    let (mut heading, mut at_heading) = ("", None);
    let mut is_open = false;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        if line.trim().is_empty() {
            continue;
        }
        let end = start + line.trim_end().len();
        let is_item = is_item(line);
        match found.last_mut().filter(|_| is_open && (is_item || line.starts_with([' ', '\t']))) {
            Some(list) => list.range.end = end,
            None if is_item => {
                found.push(List { range: at_heading.unwrap_or(start)..end, heading });
                is_open = true;
            }
            None => is_open = false,
        }
        at_heading = None;
        if line.starts_with('#') {
            let marks = line.len() - line.trim_start_matches('#').len();
            heading = if marks > 1 { line.trim_matches(['#', ' ', '\n', '\r']) } else { "" };
            at_heading = (marks > 1).then_some(start);
        }
    }
    found
}

fn is_item(line: &str) -> bool {
    let line = line.trim_start();
    let after_number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = after_number.len() < line.len() && after_number.starts_with(['.', ')']);
    let rest = if numbered { after_number.get(1..) } else { line.strip_prefix(['-', '*', '+']) };
    line.starts_with('|') || rest.is_some_and(|rest| rest.starts_with(' ') && !rest.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_tables_are_found_with_their_headings() {
        let text = "# Title\n\n- under the title\n\n## Parts\n\n- one\n\n  goes on\n- two\n\nText.\n\n1. first\n2. second\n\
            ### Table ##\n| a | b |\n| - | - |\n-5 degrees\n2.5 metres\n";
        let found: Vec<(&str, &str)> = lists(text).into_iter().map(|list| (list.heading, &text[list.range])).collect();
        assert_eq!(
            found,
            [
                ("", "- under the title"),
                ("Parts", "## Parts\n\n- one\n\n  goes on\n- two"),
                ("Parts", "1. first\n2. second"),
                ("Table", "### Table ##\n| a | b |\n| - | - |"),
            ]
        );
        assert_eq!(lists("no list\n- "), [], "a mark without a text is no item");
    }
}

//! What a model that was asked for labelled lines wrote in them.
//!
//! Models vary what stands around a label: `correct: yes`, `**Correct:** Yes.`, `- "correct": "no",`. All of these are
//! read. Nothing else is: a reply without the line that was asked for is no verdict.

/// The value of the last line labelled `name`, without the marks around it; of a label that stands alone, the next line
/// that is not blank.
///
/// The last, since reasoning comes before the verdict, and may quote the answer that is judged.
pub fn field<'a>(reply: &'a str, name: &str) -> Option<&'a str> {
    let mut found = None;
    let mut lines = reply.lines();
    while let Some(line) = lines.next() {
        let Some(value) = value_of(line, name) else { continue };
        found = match value {
            "" => lines.clone().map(bare).find(|line| !line.is_empty()),
            value => Some(value),
        };
    }
    found
}

/// `yes` or `no`, as the first word of a value.
pub fn yes_or_no(value: &str) -> Option<bool> {
    match first_word(value).to_ascii_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// A share of 1: `85%` and `85` are 0.85, `0.85` is itself. None where no number between 0 and 100 begins the value.
pub fn share(value: &str) -> Option<f64> {
    let number: &str = value.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
    let rest = value.strip_prefix(number).unwrap_or_default().trim_start();
    let parsed: f64 = number.trim_end_matches('.').parse().ok()?;
    let is_share = parsed <= 1.0 && number.contains('.') && !rest.starts_with('%');
    let share = if is_share { parsed } else { parsed / 100.0 };
    (0.0..=1.0).contains(&share).then_some(share)
}

/// The last line that is not blank, without marks.
pub(super) fn last_line(reply: &str) -> &str {
    reply.lines().map(bare).rfind(|line| !line.is_empty()).unwrap_or_default()
}

/// The letters, digits and underscores that a value begins with.
pub(super) fn first_word(value: &str) -> &str {
    value.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// What stands after `name` and a colon, if the line begins with them.
fn value_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let line = bare(line);
    let (label, rest) = (line.get(..name.len())?, line.get(name.len()..)?);
    if !label.eq_ignore_ascii_case(name) {
        return None;
    }
    let rest = rest.trim_start_matches(is_mark);
    rest.strip_prefix(':').or_else(|| rest.strip_prefix('：')).map(bare)
}

fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| is_mark(c) || matches!(c, ',' | '(' | ')' | '[' | ']' | '{' | '}'))
}

/// White space, and what Markdown and JSON put around words.
fn is_mark(c: char) -> bool {
    c.is_whitespace() || matches!(c, '*' | '_' | '`' | '"' | '#' | '>' | '-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_label_is_found_whatever_stands_around_it() {
        for line in [
            "correct: yes",
            "Correct: Yes.",
            "**correct:** yes",
            "**correct**: yes",
            "- *correct* : **yes**",
            "> ## CORRECT:yes",
            "  \"correct\": \"yes\",",
            "correct：yes",
            "correct:\n\n  yes",
            "correct: (yes)",
            "`correct: yes`",
        ] {
            assert_eq!(field(line, "correct").and_then(yes_or_no), Some(true), "{line:?}");
        }
    }

    #[test]
    fn what_is_not_the_label_is_not_read() {
        for line in ["", "correct", "correct yes", "incorrect: yes", "is it correct: yes", "corrected: yes", "correct:"]
        {
            assert_eq!(field(line, "correct"), None, "{line:?}");
        }
        for value in ["yesterday", "nothing", "maybe", "y", "not: yes", ""] {
            assert_eq!(yes_or_no(value), None, "{value:?}");
        }
    }

    #[test]
    fn the_last_line_of_a_label_counts() {
        let reply = "extracted_final_answer: Paris\ncorrect: yes\nreasoning: it is Lyon\ncorrect: no\nconfidence: 90";
        assert_eq!(field(reply, "correct"), Some("no"));
        assert_eq!(field(reply, "extracted_final_answer"), Some("Paris"));
    }

    #[test]
    fn a_share_is_read_from_percent_and_fractions() {
        for (value, due) in [
            ("85%", Some(0.85)),
            ("85", Some(0.85)),
            ("85 %", Some(0.85)),
            ("0.85", Some(0.85)),
            ("0.85%", Some(0.0085)),
            ("100", Some(1.0)),
            ("1", Some(0.01)),
            ("1.0", Some(1.0)),
            ("0", Some(0.0)),
            ("72.", Some(0.72)),
            ("101", None),
            ("none", None),
            ("about 85", None),
            ("1.2.3", None),
            ("", None),
        ] {
            let read = share(value);
            assert!(read.zip(due).map_or(read == due, |(read, due)| (read - due).abs() < 1e-12), "{value:?}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn any_reply_is_read(reply in any::<String>(), labelled in "(?s)[*\"_ -]{0,3}correct[*\": ]{0,4}.*") {
            for reply in [&reply, &labelled] {
                for name in ["correct", "confidence", "é"] {
                    if let Some(value) = field(reply, name) {
                        yes_or_no(value);
                        share(value);
                    }
                }
                first_word(last_line(reply));
            }
        }
    }
}

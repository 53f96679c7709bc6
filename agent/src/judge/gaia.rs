//! GAIA's quasi-exact match, as its leaderboard's scorer decides it.
//!
//! The gold answer chooses the rule:
//!
//! | gold | the answer passes if |
//! |---|---|
//! | parses as a number | without `$`, `%` and `,` it is the same number; what does not parse is infinite |
//! | has `,` or `;` | split at them it has as many elements, and each passes: by the number rule, or as text with white space dropped and lower case, punctuation kept |
//! | is any other text | both are the same with white space dropped, lower case and ASCII punctuation dropped |
//!
//! Kept on purpose: `1,000` is no number but a list, so that the answer `1000` fails it, and a gold answer of `inf`
//! is met by whatever does not parse. A number is what Python's `float` takes, digits beyond ASCII aside.

use async_trait::async_trait;

use super::{Case, Decision, Judge};

/// The judge `gaia`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gaia;

#[async_trait]
impl Judge for Gaia {
    fn name(&self) -> &str {
        "gaia"
    }

    fn rule_version(&self) -> i32 {
        1
    }

    async fn judge(&self, case: &Case<'_>) -> Decision {
        if let Some(settled) = case.settled() {
            return settled;
        }
        match gaia_match(case.answer, case.gold) {
            true => Decision::pass("quasi-exact match"),
            false => Decision::fail("no quasi-exact match"),
        }
    }
}

/// Whether `answer` passes for `gold`.
pub fn gaia_match(answer: &str, gold: &str) -> bool {
    if let Some(number) = float(gold) {
        return is_number(answer, number);
    }
    if !gold.contains(SEPARATORS) {
        return without_punctuation(answer) == without_punctuation(gold);
    }
    let (golds, answers): (Vec<_>, Vec<_>) = (gold.split(SEPARATORS).collect(), answer.split(SEPARATORS).collect());
    golds.len() == answers.len()
        && golds.iter().zip(&answers).all(|(gold, answer)| match float(gold) {
            Some(number) => is_number(answer, number),
            None => compact(answer) == compact(gold),
        })
}

const SEPARATORS: [char; 2] = [',', ';'];

fn is_number(answer: &str, number: f64) -> bool {
    let bare = answer.replace(['$', '%', ','], "");
    float(&bare).unwrap_or(f64::INFINITY) == number
}

/// Lower case, without white space.
fn compact(text: &str) -> String {
    text.chars().filter(|c| !is_python_space(*c)).collect::<String>().to_lowercase()
}

fn without_punctuation(text: &str) -> String {
    compact(text).chars().filter(|c| !c.is_ascii_punctuation()).collect()
}

/// The number that Python's `float(text)` gives, if it gives one.
fn float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_python_space);
    // An underscore may stand between two digits, and only there.
    let mut digits = String::with_capacity(text.len());
    let mut before = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        match c {
            '_' if is_digit(before) && is_digit(rest.peek().copied()) => {}
            '_' => return None,
            c => digits.push(c),
        }
        before = Some(c);
    }
    digits.parse().ok()
}

/// Python counts four control characters among white space that Unicode does not.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gold_number_is_compared_as_a_number() {
        for (answer, gold) in [
            ("17", "17"),
            ("17.0", "17"),
            ("$1,234.50", "1234.5"),
            ("50%", "50"),
            (" 3e2 ", "300"),
            ("1_000", "1000"),
            ("+5", "5"),
            (".5", "0.5"),
        ] {
            assert!(gaia_match(answer, gold), "{answer:?} for {gold:?}");
        }
        for (answer, gold) in
            [("17 apples", "17"), ("seventeen", "17"), ("17.01", "17"), ("", "17"), ("€17", "17"), ("0x11", "17")]
        {
            assert!(!gaia_match(answer, gold), "{answer:?} for {gold:?}");
        }
    }

    #[test]
    fn floats_are_compared_exactly() {
        assert!(gaia_match("0.30000000000000004", "0.30000000000000004"));
        assert!(!gaia_match("0.3", "0.30000000000000004"));
    }

    #[test]
    fn what_does_not_parse_is_infinite() {
        assert!(gaia_match("no number", "inf"));
        assert!(gaia_match("Infinity", "inf"));
        assert!(!gaia_match("nan", "nan"));
    }

    #[test]
    fn a_gold_list_is_compared_element_by_element() {
        for (answer, gold) in [
            ("a, b", "a,b"),
            ("B ear;  Fox", "bear, fox"),
            ("1.0, two", "1,two"),
            ("$5; x", "5,x"),
            ("St. Paul, b", "st.paul,b"),
        ] {
            assert!(gaia_match(answer, gold), "{answer:?} for {gold:?}");
        }
        for (answer, gold) in [
            ("a,b,c", "a,b"),
            ("b,a", "a,b"),
            ("a b", "a,b"),
            // Punctuation is kept within lists.
            ("St Paul, b", "St. Paul, b"),
        ] {
            assert!(!gaia_match(answer, gold), "{answer:?} for {gold:?}");
        }
    }

    #[test]
    fn a_gold_number_with_a_thousands_separator_is_a_list() {
        assert!(gaia_match("1,000", "1,000"));
        assert!(gaia_match("1;0", "1,000"), "elements are numbers: 000 is 0");
        assert!(!gaia_match("1000", "1,000"));
        assert!(gaia_match("1,000", "1000"), "the other way round the answer loses its comma");
    }

    #[test]
    fn other_gold_is_compared_without_space_case_and_punctuation() {
        for (answer, gold) in
            [("Sea gull", "seagull"), ("st paul!", "St. Paul"), ("ROCK-AND-ROLL", "rock and roll"), ("Émile", "émile")]
        {
            assert!(gaia_match(answer, gold), "{answer:?} for {gold:?}");
        }
        for (answer, gold) in [("the seagull", "seagull"), ("Emile", "Émile"), ("“x”", "x"), ("a, b", "ab c")] {
            assert!(!gaia_match(answer, gold), "{answer:?} for {gold:?}");
        }
    }

    #[test]
    fn numbers_are_those_of_python() {
        for (text, number) in [
            ("1e3", Some(1000.0)),
            ("-0", Some(0.0)),
            ("1_0.2_5", Some(10.25)),
            ("\u{1f}7\u{a0}", Some(7.0)),
            ("1__0", None),
            ("_1", None),
            ("1_", None),
            ("1_e3", None),
            ("1e", None),
            ("", None),
            (".", None),
            ("0x10", None),
            ("1 0", None),
        ] {
            assert_eq!(float(text), number, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_and_passes_for_itself(text in ".*", other in ".*") {
            let _ = gaia_match(&text, &other);
            // A number that is not equal to itself is the one exception.
            let nan = |part: &str| float(part).is_some_and(f64::is_nan);
            // So is a number too large: Python reads it as infinite, too.
            prop_assert!(gaia_match(&text, &text) || nan(&text) || text.split(SEPARATORS).any(nan));
        }
    }
}

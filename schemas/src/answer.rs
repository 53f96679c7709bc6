//! When two short answers are the same: by the rules that every judge, vote and query goes by.
//!
//! [`normalise`] is the normal form that judges compare an answer with the gold answer by; [`vote_key`] is what answers are
//! clustered by in a majority vote, where a number is one however it is written. They stand here, below all crates that
//! compare answers, so that SQL and reports count the same votes.

use std::sync::LazyLock;

use icu_normalizer::{ComposingNormalizer, ComposingNormalizerBorrowed};

static NFKC: LazyLock<ComposingNormalizerBorrowed<'static>> = LazyLock::new(ComposingNormalizer::new_nfkc);

/// The normal form of a short answer, for comparison with another.
///
/// In this order: Unicode NFKC and lower case; quotation marks and apostrophes are dropped; so are commas that group
/// digits by thousands; a decimal point, a minus before a number and a `+` or `#` that ends a word stay; every other
/// character that is no letter, digit or mark becomes a space; the words a, an and the go, unless nothing else is left;
/// one space stays between words.
///
/// What has no letter or digit has an empty form. A normal form is its own normal form.
pub fn normalise(text: &str) -> String {
    let folded = NFKC.normalize(&NFKC.normalize(text).to_lowercase()).into_owned();
    let words = without_punctuation(&folded);
    let kept: Vec<&str> = words.split_whitespace().collect();
    let without_articles: Vec<&str> =
        kept.iter().copied().filter(|word| !matches!(*word, "a" | "an" | "the")).collect();
    let words = if without_articles.is_empty() { kept } else { without_articles };
    NFKC.normalize(&words.join(" ")).into_owned()
}

/// What an answer is clustered by in a vote: answers with equal ones are one vote. None of a blank answer, which abstains.
///
/// A number is the number that it is, its currency or percent sign aside; any other answer has its
/// [normal form](normalise); one of signs alone is compared as it stands.
pub fn vote_key(answer: &str) -> Option<String> {
    let answer = answer.trim();
    if answer.is_empty() {
        return None;
    }
    if let Some(number) = number(answer) {
        return Some(format!("#{number}"));
    }
    let normal = normalise(answer);
    Some(if normal.is_empty() { format!("={answer}") } else { normal })
}

/// The number that an answer is, its currency or percent sign aside.
///
/// Commas and blanks part thousands, and nothing else: `1, 2` is a list, and `2 3` are two numbers.
fn number(answer: &str) -> Option<f64> {
    let bare = answer.replace(['$', '€', '£', '%'], "");
    let mut parts = bare.trim().split([',', ' ']);
    let mut digits = parts.next()?.to_string();
    for part in parts {
        if part.chars().take_while(char::is_ascii_digit).count() != 3 {
            return None;
        }
        digits.push_str(part);
    }
    let starts_as_one = digits.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    let value = digits.parse::<f64>().ok().filter(|value| starts_as_one && value.is_finite())?;
    // Zero is one number, whatever its sign.
    Some(value + 0.0)
}

fn without_punctuation(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        // What stands before is read from the output: there a dropped quotation mark parts nothing.
        let last = out.chars().next_back();
        let after_digit = last.is_some_and(char::is_numeric);
        let after_word = last.is_some_and(|last| is_word(last) || matches!(last, '+' | '#'));
        let before_digit = || rest.clone().next().is_some_and(char::is_numeric);
        match c {
            c if is_word(c) => out.push(c),
            '\'' | '"' | '`' | '‘' | '’' | '“' | '”' | '«' | '»' => {}
            ',' if after_digit && rest.clone().take_while(char::is_ascii_digit).count() == 3 => {}
            '.' if after_digit && before_digit() => out.push('.'),
            '-' | '−' if !after_word && before_digit() => out.push('-'),
            '+' | '#' if after_word => out.push(c),
            _ => out.push(' '),
        }
    }
    out
}

/// Letters, digits, and the marks that belong to them.
fn is_word(c: char) -> bool {
    // Marks that no letter composes with, such as a virama, are neither alphanumeric nor punctuation.
    c.is_alphanumeric() || (!c.is_ascii() && !c.is_whitespace() && is_mark(c))
}

/// Combining marks, by the blocks they stand in.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{900}'..='\u{d7f}' | '\u{e30}'..='\u{e4e}' | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{3099}'..='\u{309a}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_change_an_answer_is_left_out() {
        for (text, normal) in [
            ("  The Grand   National. ", "grand national"),
            ("O'Brien’s", "obriens"),
            ("rock-and-roll", "rock and roll"),
            ("“Dune”", "dune"),
            ("1,000,000", "1000000"),
            ("$50 %", "50"),
            ("ＡＢＣ１２", "abc12"),
            ("Cafe\u{301}", "café"),
            ("北京。", "北京"),
        ] {
            assert_eq!(normalise(text), normal, "{text:?}");
        }
    }

    #[test]
    fn what_changes_an_answer_is_kept() {
        for (text, normal) in [
            ("3.5", "3.5"),
            ("-5", "-5"),
            ("− 5", "5"),
            ("1990-1995", "1990 1995"),
            ("1,2", "1 2"),
            ("1,0000", "1 0000"),
            ("C++", "c++"),
            ("C#", "c#"),
            ("+5", "5"),
            ("Émile", "émile"),
        ] {
            assert_eq!(normalise(text), normal, "{text:?}");
        }
    }

    #[test]
    fn articles_alone_stay_and_symbols_alone_are_nothing() {
        assert_eq!(normalise("A"), "a");
        assert_eq!(normalise("The A"), "the a");
        assert_eq!(normalise("?!"), "");
    }

    #[test]
    fn a_vote_is_a_number_a_normal_form_or_signs_and_a_blank_answer_is_none() {
        for (answer, key) in [
            ("The Derby", Some("derby")),
            ("1,000", Some("#1000")),
            ("$ 1 000.0", Some("#1000")),
            ("-0", Some("#0")),
            ("1, 2", Some("1 2")),
            (" ?! ", Some("=?!")),
            (" \n", None),
        ] {
            assert_eq!(vote_key(answer).as_deref(), key, "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(text in "\\PC*") {
            let once = normalise(&text);
            prop_assert_eq!(normalise(&once), once);
        }

        #[test]
        fn so_it_is_for_what_answers_are_made_of(text in "[-+#.,'’ aAtheTHE019−%$ée\u{301}ßΣİ]{0,24}") {
            let once = normalise(&text);
            prop_assert_eq!(normalise(&once), once);
        }

        #[test]
        fn any_characters_have_a_normal_form(text in any::<String>()) {
            normalise(&text);
        }
    }
}

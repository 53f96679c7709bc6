//! From text to the words that are compared.
//!
//! A word is a run of letters and digits, in lower case, without accents, reduced to its English stem. An underscore
//! between two of them belongs to the word, so that names of programs stay whole. Chinese, Japanese and Korean have no
//! spaces to go by: runs of their letters become overlapping pairs.

use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, LowerCaser, RemoveLongFilter, Stemmer, TextAnalyzer, Token, TokenStream, Tokenizer,
};

/// Bytes of a word; longer ones are left out.
const WORD_BYTES_MAX: usize = 64;

/// Words that say nothing about what is asked for, as long as there are others.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be", "been", "before", "both", "but",
    "by", "can", "did", "do", "does", "each", "find", "for", "from", "get", "give", "had", "has", "have", "how", "i",
    "if", "in", "into", "is", "it", "its", "me", "more", "most", "my", "no", "not", "of", "on", "one", "only", "or",
    "other", "out", "over", "should", "so", "some", "such", "than", "that", "the", "their", "them", "then", "there",
    "these", "they", "this", "those", "to", "up", "use", "using", "was", "we", "were", "what", "when", "where",
    "which", "while", "who", "whom", "whose", "why", "will", "with", "would", "you", "your",
];

/// Makes words of text.
pub(super) fn analyzer() -> TextAnalyzer {
    let plain = TextAnalyzer::builder(Letters).filter(RemoveLongFilter::limit(WORD_BYTES_MAX)).filter(LowerCaser);
    plain.filter(AsciiFoldingFilter).filter(Stemmer::new(Language::English)).build()
}

/// The words of `text`, in order.
pub(super) fn words(analyzer: &mut TextAnalyzer, text: &str) -> Vec<String> {
    let mut words = Vec::new();
    analyzer.token_stream(text).process(&mut |token| words.push(token.text.clone()));
    words
}

/// The words to look for, each once, in order: those of `text` that are no stop words, or all if there are no others.
pub(super) fn key_words(analyzer: &mut TextAnalyzer, text: &str, count_max: usize) -> Vec<String> {
    let wanted = |word: &&str| !STOP_WORDS.contains(&word.to_lowercase().as_str());
    let telling: Vec<&str> =
        text.split_whitespace().filter(|word| wanted(&word.trim_matches(|c: char| !c.is_alphanumeric()))).collect();
    let mut found = words(analyzer, &telling.join(" "));
    if found.is_empty() {
        found = words(analyzer, text);
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|word| seen.insert(word.clone()));
    found.truncate(count_max);
    found
}

/// Whether `c` belongs to a script that is written without spaces: Han, Kana, Hangul.
pub(super) fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9f}' | '\u{20000}'..='\u{3ffff}')
}

/// The tokenizer: runs of letters and digits, pairs of unspaced letters.
#[derive(Debug, Clone, Copy, Default)]
struct Letters;

/// Its tokens.
#[derive(Debug)]
struct LetterStream {
    tokens: std::vec::IntoIter<Token>,
    token: Token,
}

impl Tokenizer for Letters {
    type TokenStream<'a> = LetterStream;

    fn token_stream(&mut self, text: &str) -> LetterStream {
        LetterStream { tokens: tokens(text).into_iter(), token: Token::default() }
    }
}

impl TokenStream for LetterStream {
    fn advance(&mut self) -> bool {
        self.tokens.next().map(|token| self.token = token).is_some()
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.char_indices().peekable();
    while let Some((start, first)) = rest.next() {
        if !first.is_alphanumeric() {
            continue;
        }
        let unspaced = is_unspaced(first);
        let mut starts = vec![start];
        let mut end = start + first.len_utf8();
        let joins =
            |at: usize| text.get(at + 1..).and_then(|after| after.chars().next()).is_some_and(char::is_alphanumeric);
        let goes_on = |(at, c): &(usize, char)| match *c {
            '_' => !unspaced && joins(*at),
            c => c.is_alphanumeric() && is_unspaced(c) == unspaced,
        };
        while let Some((at, c)) = rest.next_if(goes_on) {
            starts.push(at);
            end = at + c.len_utf8();
        }
        let mut push = |from: usize, to: usize| {
            let text = text.get(from..to).unwrap_or_default().to_string();
            tokens.push(Token { offset_from: from, offset_to: to, position: tokens.len(), text, position_length: 1 });
        };
        if !unspaced || starts.len() < 3 {
            push(start, end);
            continue;
        }
        let ends = starts.iter().skip(2).copied().chain([end]);
        starts.iter().zip(ends).for_each(|(from, to)| push(*from, to));
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded_and_reduced_to_their_stem() {
        let found = words(&mut analyzer(), "Sorting the Rivers of Côte d'Ivoire, in _pg_stat_activity_ (2.5 km²)");
        let expected = ["sort", "the", "river", "of", "cote", "d", "ivoir", "in", "pg_stat_act", "2", "5", "km2"];
        assert_eq!(found, expected);
    }

    #[test]
    fn unspaced_scripts_become_pairs_of_letters() {
        let found = words(&mut analyzer(), "北京大学 is 大 and 東京 or ひらがな3km");
        assert_eq!(found, ["北京", "京大", "大学", "is", "大", "and", "東京", "or", "ひら", "らが", "がな", "3km"]);
    }

    #[test]
    fn stop_words_count_only_where_there_is_nothing_else() {
        let mut analyzer = analyzer();
        assert_eq!(key_words(&mut analyzer, "How do I sort the rows, rows of a table?", 9), ["sort", "row", "tabl"]);
        assert_eq!(key_words(&mut analyzer, "What is it?", 9), ["what", "is", "it"]);
        assert_eq!(key_words(&mut analyzer, "one two three four", 2), ["two", "three"]);
        assert_eq!(key_words(&mut analyzer, " ?! ", 9), Vec::<String>::new());
    }
}

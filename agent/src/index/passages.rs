//! What a page says about a goal, without a model: its passages that match the goal best.
//!
//! A passage is some consecutive lines or sentences, at most [`PASSAGE_WORDS_MAX`] words, begun anew at headings.
//! Passages are ranked by BM25 among those of their page, and given back in the order of the page.

use std::collections::HashMap;

use super::words::{analyzer, is_unspaced, key_words, words};

/// Words of a passage.
pub const PASSAGE_WORDS_MAX: usize = 60;
/// Words from which on a passage ends at the next empty line.
const PASSAGE_WORDS_MIN: usize = 20;
/// Words from which on a passage ends at the next end of a sentence or of a table's row.
const PASSAGE_WORDS_ENOUGH: usize = 40;
/// Characters of a word; what is longer counts as several.
const WORD_CHARS_MAX: usize = 24;
/// Words of a goal that are looked for.
const GOAL_WORDS_MAX: usize = 64;
/// Words of a best sentence.
const SENTENCE_WORDS_MAX: usize = 60;

/// BM25's saturation and length normalisation, as everywhere.
const K1: f64 = 1.2;
const B: f64 = 0.75;

/// What a page says about a goal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The best passages in the order of the page, an empty line between them; the page's beginning where nothing
    /// matches.
    pub passages: String,
    /// The best sentence of the best passage; None where nothing matches.
    pub sentence: Option<String>,
}

/// What `text` says about `goal`, in at most `words_max` words.
pub fn find(text: &str, goal: &str, words_max: usize) -> Found {
    let all = passages(text);
    let mut analyzer = analyzer();
    let goal = key_words(&mut analyzer, goal, GOAL_WORDS_MAX);
    let contents: Vec<Vec<String>> = all.iter().map(|passage| words(&mut analyzer, passage.text)).collect();
    let weights = Weights::new(&goal, &contents);
    let scores: Vec<f64> = contents.iter().map(|words| weights.score(words)).collect();
    let mut order: Vec<usize> =
        (0..all.len()).filter(|index| scores.get(*index).is_some_and(|score| *score > 0.0)).collect();
    let score = |index: &usize| scores.get(*index).copied().unwrap_or_default();
    order.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
    let best = order.first().and_then(|index| all.get(*index));
    let sentence = best.and_then(|passage| {
        let sentences = sentences(passage.text);
        let scored = sentences.iter().map(|sentence| weights.score(&words(&mut analyzer, sentence)));
        // The first of the best.
        let (found, _) = sentences.iter().zip(scored).rev().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        Some(first_words(found, SENTENCE_WORDS_MAX))
    });
    if order.is_empty() {
        order = (0..all.len()).collect();
    }
    Found { passages: within(&all, &order, words_max), sentence }
}

/// The passages at `order` that fit, best first, put back into the order of the page. The first is cut if need be.
fn within(all: &[Passage<'_>], order: &[usize], words_max: usize) -> String {
    let mut left = words_max;
    let mut chosen: Vec<(usize, String)> = Vec::new();
    for index in order {
        let Some(passage) = all.get(*index) else { continue };
        if passage.words <= left {
            left -= passage.words;
            chosen.push((*index, passage.text.to_string()));
        } else if chosen.is_empty() {
            chosen.push((*index, first_words(passage.text, left)));
            break;
        }
    }
    chosen.sort_by_key(|(index, _)| *index);
    chosen.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n\n")
}

/// What the words of a goal are worth in a page.
struct Weights<'a> {
    by_word: HashMap<&'a str, f64>,
    length: f64,
}

impl<'a> Weights<'a> {
    fn new(goal: &'a [String], contents: &[Vec<String>]) -> Weights<'a> {
        let count = contents.len() as f64;
        let total: usize = contents.iter().map(Vec::len).sum();
        let holders = |word: &String| contents.iter().filter(|content| content.contains(word)).count() as f64;
        let by_word = goal.iter().map(|word| {
            let holders = holders(word);
            (word.as_str(), (1.0 + (count - holders + 0.5) / (holders + 0.5)).ln())
        });
        Weights { by_word: by_word.collect(), length: (total as f64 / count.max(1.0)).max(1.0) }
    }

    fn score(&self, words: &[String]) -> f64 {
        let mut counts: HashMap<&str, f64> = HashMap::new();
        for word in words.iter().filter(|word| self.by_word.contains_key(word.as_str())) {
            *counts.entry(word.as_str()).or_default() += 1.0;
        }
        // In a fixed order: sums of floats depend on it.
        let mut found: Vec<(&str, f64)> = counts.into_iter().collect();
        found.sort_by_key(|(word, _)| *word);
        let norm = K1 * (1.0 - B + B * words.len() as f64 / self.length);
        let worth = |word: &str| self.by_word.get(word).copied().unwrap_or_default();
        found.iter().map(|(word, count)| worth(word) * count * (K1 + 1.0) / (count + norm)).sum()
    }
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Passage<'a> {
    text: &'a str,
    words: usize,
}

/// All passages of a text, in order.
fn passages(text: &str) -> Vec<Passage<'_>> {
    let mut cutter = Cutter { text, open: None, done: Vec::new() };
    let mut offset = 0;
    let mut after_gap = false;
    for line in text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        if line.trim().is_empty() {
            after_gap = true;
            continue;
        }
        let gap = after_gap && cutter.words() >= PASSAGE_WORDS_MIN;
        let row = line.starts_with('|') && cutter.words() >= PASSAGE_WORDS_ENOUGH;
        if line.starts_with('#') || gap || row {
            cutter.close();
        }
        after_gap = false;
        for (from, to) in pieces(line) {
            cutter.push(start + from, start + to);
        }
    }
    cutter.close();
    cutter.done
}

/// Cuts a text into passages while its words come by.
struct Cutter<'a> {
    text: &'a str,
    /// Start, end and words of the passage under way.
    open: Option<(usize, usize, usize)>,
    done: Vec<Passage<'a>>,
}

impl Cutter<'_> {
    fn words(&self) -> usize {
        self.open.map_or(0, |(_, _, words)| words)
    }

    fn push(&mut self, from: usize, to: usize) {
        let long = self.words() >= PASSAGE_WORDS_MAX;
        let ended = self.words() >= PASSAGE_WORDS_ENOUGH
            && self.open.and_then(|(_, end, _)| self.text.get(..end)).is_some_and(ends_sentence);
        if long || ended {
            self.close();
        }
        self.open = Some(match self.open {
            Some((start, _, words)) => (start, to, words + 1),
            None => (from, to, 1),
        });
    }

    fn close(&mut self) {
        if let Some((start, end, words)) = self.open.take()
            && let Some(text) = self.text.get(start..end)
        {
            self.done.push(Passage { text, words });
        }
    }
}

/// Where the words of a line are: between spaces, single letters of unspaced scripts, pieces of what is very long.
fn pieces(line: &str) -> Vec<(usize, usize)> {
    let mut pieces: Vec<(usize, usize)> = Vec::new();
    // Characters of the word that may still grow.
    let mut open: Option<usize> = None;
    for (at, c) in line.char_indices() {
        let end = at + c.len_utf8();
        if c.is_whitespace() {
            open = None;
            continue;
        }
        match (open, pieces.last_mut()) {
            (Some(chars), Some(last)) if chars < WORD_CHARS_MAX && !is_unspaced(c) => {
                last.1 = end;
                open = Some(chars + 1);
            }
            _ => {
                pieces.push((at, end));
                open = (!is_unspaced(c)).then_some(1);
            }
        }
    }
    pieces
}

fn ends_sentence(text: &str) -> bool {
    text.ends_with(['.', '!', '?', '。', '！', '？'])
}

/// The sentences of a passage; a line ends one, too, and a table's row is one. Headings are none, unless there is nothing
/// else.
fn sentences(text: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    for line in text.lines() {
        let mut start = 0;
        for (_, end) in pieces(line) {
            if !line.starts_with('|') && line.get(..end).is_some_and(ends_sentence) {
                sentences.push(line.get(start..end).unwrap_or_default().trim());
                start = end;
            }
        }
        sentences.push(line.get(start..).unwrap_or_default().trim());
    }
    sentences.retain(|sentence| !sentence.is_empty());
    if sentences.iter().any(|sentence| !sentence.starts_with('#')) {
        sentences.retain(|sentence| !sentence.starts_with('#'));
    }
    sentences
}

fn first_words(text: &str, words_max: usize) -> String {
    let words = pieces(text);
    if words.len() <= words_max {
        return text.to_string();
    }
    let end = words_max.checked_sub(1).and_then(|last| words.get(last)).map_or(0, |(_, end)| *end);
    format!("{} …", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Maribor\n\nMaribor is the second-largest city in Slovenia. It is the seat of a university.\n\n\
        ## Geography\n\nThe city lies where the hills of Pohorje meet the plain. The river Drava flows through it. \
        Bridges cross the Drava in the old town, and rafts once carried wood down the river.\n\n\
        ## Economy\n\nCars, machines and wine are made in the region. The first brewery was founded in 1780.\n";

    #[test]
    fn the_passages_that_match_the_goal_come_in_the_order_of_the_page() {
        let found = find(PAGE, "Which river flows through the city?", 200);
        assert_eq!(
            found.passages,
            "# Maribor\n\nMaribor is the second-largest city in Slovenia. It is the seat of a university.\n\n\
             ## Geography\n\nThe city lies where the hills of Pohorje meet the plain. The river Drava flows through it. \
             Bridges cross the Drava in the old town, and rafts once carried wood down the river."
        );
        assert_eq!(found.sentence.as_deref(), Some("The river Drava flows through it."));
        let found = find(PAGE, "breweries", 200);
        assert_eq!(
            found.passages,
            "## Economy\n\nCars, machines and wine are made in the region. The first brewery was founded in 1780."
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_one_passage_is_always_there() {
        let found = find(PAGE, "Which river flows through the city?", 40);
        assert!(found.passages.starts_with("## Geography"), "{}", found.passages);
        let found = find(PAGE, "Which river flows through the city?", 5);
        assert_eq!(found.passages, "## Geography\n\nThe city lies …");
        assert_eq!(find(PAGE, "river", 0).passages, " …");
    }

    #[test]
    fn a_page_that_does_not_match_is_shown_from_its_beginning() {
        let found = find(PAGE, "quantum chromodynamics", 16);
        assert_eq!(
            found,
            Found {
                passages:
                    "# Maribor\n\nMaribor is the second-largest city in Slovenia. It is the seat of a university."
                        .to_string(),
                sentence: None
            }
        );
        assert_eq!(find("", "anything", 10), Found { passages: String::new(), sentence: None });
    }

    #[test]
    fn text_without_spaces_or_lines_is_cut_all_the_same() {
        for (text, goal) in [("x".repeat(1_000_000), "x"), ("河".repeat(100_000), "河河"), ("a ".repeat(100_000), "a")]
        {
            let found = find(&text, goal, 120);
            assert!(pieces(&found.passages).len() <= 122, "{}", pieces(&found.passages).len());
            assert!(found.passages.chars().count() <= 120 * (WORD_CHARS_MAX + 1) + 20);
        }
        let text = "北京是中国的首都。长江是亚洲最长的河流。巴黎是法国的首都。";
        assert_eq!(find(text, "法国首都", 200).sentence.as_deref(), Some("巴黎是法国的首都。"));
    }

    #[test]
    fn a_row_of_a_table_is_a_sentence() {
        let table =
            "| Name | Size. | Range |\n| --- | --- | --- |\n| small | 2 bytes. | to 32767 |\n| big | 8 bytes. | more |";
        assert_eq!(find(table, "bytes of small", 99).sentence.as_deref(), Some("| small | 2 bytes. | to 32767 |"));
        let rows = "| a row of ten words, it has ten of them |\n".repeat(20);
        assert!(passages(&rows).iter().all(|passage| passage.text.ends_with("them |") && passage.words <= 52));
    }

    #[test]
    fn long_paragraphs_are_cut_at_sentences() {
        let text = "One two three four five six seven eight nine ten. ".repeat(20);
        let cut = passages(&text);
        assert!(cut.iter().all(|passage| passage.text.ends_with("ten.")), "{cut:?}");
        assert!(cut.iter().all(|passage| passage.words <= PASSAGE_WORDS_MAX));
        assert_eq!(cut.iter().map(|passage| passage.words).sum::<usize>(), 200);
    }
}

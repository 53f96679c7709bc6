//! What a page says about a goal, without a model: its passages that match the goal best.
//!
//! A passage is some consecutive lines or sentences, at most [`PASSAGE_WORDS_MAX`] words, begun anew at headings.
//! Passages are ranked by BM25 among those of their page, and given back in the order of the page. A list
//! whose heading the goal names comes first, and whole, where it fits. Where anything is left out stands a line `…`.

use std::collections::HashMap;

use super::lists::lists;
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

/// Words of a heading that are compared with the goal.
const HEADING_WORDS_MAX: usize = 16;
/// What stands where something was left out.
const GAP: &str = "…";
/// Characters that a passage may add to those of its own: a gap with its empty lines.
const GAP_CHARS: usize = 5;

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
    let ranked = Ranked::new(text.to_string(), goal);
    Found { passages: ranked.show(words_max, usize::MAX), sentence: ranked.sentence }
}

/// The passages of a page, ranked for a goal.
#[derive(Debug, Clone, Default)]
pub struct Ranked {
    text: String,
    passages: Vec<Passage>,
    /// Passages that match, best first; all in the order of the page where none does.
    order: Vec<usize>,
    /// Lists that the goal names: their passages, the first and the one behind the last.
    wanted: Vec<(usize, usize)>,
    /// The best sentence of the best passage; None where nothing matches.
    pub sentence: Option<String>,
}

impl Ranked {
    /// Ranks the passages of `text` for `goal`.
    pub fn new(text: String, goal: &str) -> Ranked {
        let passages = passages(&text);
        let mut analyzer = analyzer();
        let goal = key_words(&mut analyzer, goal, GOAL_WORDS_MAX);
        let contents: Vec<Vec<String>> =
            passages.iter().map(|passage| words(&mut analyzer, passage.of(&text))).collect();
        let weights = Weights::new(&goal, &contents);
        let scores: Vec<f64> = contents.iter().map(|words| weights.score(words)).collect();
        let score = |index: &usize| scores.get(*index).copied().unwrap_or_default();
        let mut order: Vec<usize> = (0..passages.len()).filter(|index| score(index) > 0.0).collect();
        order.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
        let best = order.first().and_then(|index| passages.get(*index));
        let sentence = best.and_then(|passage| {
            let sentences = passage.sentences(&text);
            let scored = sentences.iter().map(|sentence| weights.score(&words(&mut analyzer, sentence)));
            // The first of the best.
            let (found, _) = sentences.iter().zip(scored).rev().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
            Some(first_words(found, SENTENCE_WORDS_MAX))
        });
        if order.is_empty() {
            order = (0..passages.len()).collect();
        }
        let mut named = |heading: &str| {
            let heading = key_words(&mut analyzer, heading, HEADING_WORDS_MAX);
            !heading.is_empty() && heading.iter().all(|word| goal.contains(word))
        };
        let wanted = lists(&text).into_iter().filter(|list| named(list.heading)).map(|list| {
            let first = passages.partition_point(|passage| passage.end <= list.range.start);
            (first, passages.partition_point(|passage| passage.start < list.range.end))
        });
        let wanted = wanted.collect();
        Ranked { text, passages, order, wanted, sentence }
    }

    /// The lists that the goal names and then the best passages, as many as fit, in the order of the page. One passage is
    /// always there, cut if need be.
    pub fn show(&self, words_max: usize, chars_max: usize) -> String {
        let mut room = Room { words: words_max, chars: chars_max, chosen: vec![false; self.passages.len()] };
        for (first, end) in &self.wanted {
            room.take(&self.text, &self.passages, *first..*end);
        }
        for index in &self.order {
            room.take(&self.text, &self.passages, *index..*index + 1);
        }
        if !room.chosen.contains(&true) {
            let Some(passage) = self.order.first().and_then(|index| self.passages.get(*index)) else {
                return String::new();
            };
            return shorten(&first_words(passage.of(&self.text), words_max), chars_max);
        }
        self.render(&room.chosen)
    }

    /// The passages chosen. Neighbours are joined as they stand in the page.
    fn render(&self, chosen: &[bool]) -> String {
        let mut parts: Vec<&str> = Vec::new();
        let mut passages = self.passages.iter().zip(chosen).peekable();
        while let Some((passage, is_chosen)) = passages.next() {
            if !is_chosen {
                if parts.last() != Some(&GAP) {
                    parts.push(GAP);
                }
                continue;
            }
            let mut end = passage.end;
            while let Some((next, _)) = passages.next_if(|(_, is_chosen)| **is_chosen) {
                end = next.end;
            }
            parts.push(self.text.get(passage.start..end).unwrap_or_default());
        }
        parts.join("\n\n")
    }
}

/// What is left of the limits while passages are chosen.
struct Room {
    words: usize,
    chars: usize,
    chosen: Vec<bool>,
}

impl Room {
    /// Takes those of `range` that are not taken yet, if all of them fit.
    fn take(&mut self, text: &str, passages: &[Passage], range: std::ops::Range<usize>) {
        let missing: Vec<usize> = range.filter(|index| self.chosen.get(*index) == Some(&false)).collect();
        let all = || missing.iter().filter_map(|index| passages.get(*index));
        let words: usize = all().map(|passage| passage.words).sum();
        let chars: usize = all().map(|passage| passage.of(text).chars().count() + GAP_CHARS).sum();
        if words > self.words || chars > self.chars {
            return;
        }
        (self.words, self.chars) = (self.words - words, self.chars - chars);
        for index in missing {
            if let Some(chosen) = self.chosen.get_mut(index) {
                *chosen = true;
            }
        }
    }
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
struct Passage {
    /// Bytes of the text.
    start: usize,
    end: usize,
    words: usize,
    /// It begins, or ends, in the middle of a sentence.
    cut_before: bool,
    cut_after: bool,
}

impl Passage {
    fn of<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.start..self.end).unwrap_or_default()
    }

    /// Its sentences. One that is cut has a mark where it is.
    fn sentences(&self, text: &str) -> Vec<String> {
        let mut sentences: Vec<String> = sentences(self.of(text)).into_iter().map(str::to_string).collect();
        if let Some(first) = sentences.first_mut().filter(|_| self.cut_before) {
            first.insert_str(0, "… ");
        }
        if let Some(last) = sentences.last_mut().filter(|_| self.cut_after) {
            last.push_str(" …");
        }
        sentences
    }
}

/// All passages of a text, in order.
fn passages(text: &str) -> Vec<Passage> {
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
            cutter.close(false);
        }
        after_gap = false;
        for (number, (from, to)) in pieces(line).into_iter().enumerate() {
            cutter.push(start + from, start + to, number > 0);
        }
    }
    cutter.close(false);
    cutter.done
}

/// Cuts a text into passages while its words come by.
struct Cutter<'a> {
    text: &'a str,
    /// The passage under way.
    open: Option<Passage>,
    done: Vec<Passage>,
}

impl Cutter<'_> {
    fn words(&self) -> usize {
        self.open.map_or(0, |passage| passage.words)
    }

    /// Adds a word; `goes_on`: the word before it stands on the same line.
    fn push(&mut self, start: usize, end: usize, goes_on: bool) {
        let ended = self.open.and_then(|open| self.text.get(..open.end)).is_some_and(ends_sentence);
        let is_long = self.words() >= PASSAGE_WORDS_MAX;
        let cut = is_long && goes_on && !ended;
        if is_long || (ended && self.words() >= PASSAGE_WORDS_ENOUGH) {
            self.close(cut);
        }
        match &mut self.open {
            Some(open) => (open.end, open.words) = (end, open.words + 1),
            None => self.open = Some(Passage { start, end, words: 1, cut_before: cut, cut_after: false }),
        }
    }

    /// Ends the passage under way; `cut`: in the middle of a sentence.
    fn close(&mut self, cut: bool) {
        self.done.extend(self.open.take().map(|open| Passage { cut_after: cut, ..open }));
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

/// The beginning of `text`, at most `chars_max` characters, with a mark where it is cut.
fn shorten(text: &str, chars_max: usize) -> String {
    crate::tool::limits::shorten(text, chars_max)
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
             Bridges cross the Drava in the old town, and rafts once carried wood down the river.\n\n…"
        );
        assert_eq!(found.sentence.as_deref(), Some("The river Drava flows through it."));
        let found = find(PAGE, "breweries", 200);
        assert_eq!(
            found.passages,
            "…\n\n## Economy\n\nCars, machines and wine are made in the region. The first brewery was founded in 1780."
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_one_passage_is_always_there() {
        let found = find(PAGE, "Which river flows through the city?", 40);
        assert!(found.passages.starts_with("…\n\n## Geography"), "{}", found.passages);
        assert!(found.passages.ends_with("down the river.\n\n…"), "{}", found.passages);
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
                    "# Maribor\n\nMaribor is the second-largest city in Slovenia. It is the seat of a university.\n\n…"
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
        assert!(passages(&rows).iter().all(|passage| passage.of(&rows).ends_with("them |") && passage.words <= 52));
    }

    #[test]
    fn long_paragraphs_are_cut_at_sentences() {
        let text = "One two three four five six seven eight nine ten. ".repeat(20);
        let cut = passages(&text);
        assert!(cut.iter().all(|passage| passage.of(&text).ends_with("ten.")), "{cut:?}");
        assert!(cut.iter().all(|passage| passage.words <= PASSAGE_WORDS_MAX));
        assert_eq!(cut.iter().map(|passage| passage.words).sum::<usize>(), 200);
    }

    /// A page of a region: an introduction, two lists of ten and of ninety names, something else.
    fn region(countries: usize) -> String {
        let list = |name: &str, count| (1..=count).map(|n| format!("- {name} {n}\n")).collect::<String>();
        format!(
            "# Middle Earth\n\n{}\n\n## Subregions\n\n{}\n## Countries and territories\n\n{}\n## Rivers\n\n{}",
            "Countries of Middle Earth are old. ".repeat(10).trim_end(),
            list("Part", 10),
            list("Land", countries),
            "The rivers of Middle Earth are long. ".repeat(10)
        )
    }

    #[test]
    fn a_list_that_the_goal_names_is_shown_whole_where_it_fits() {
        let text = region(90);
        let shown = |goal: &str, words_max, chars_max| Ranked::new(text.clone(), goal).show(words_max, chars_max);
        let items = |shown: &str| shown.lines().filter(|line| line.starts_with("- Land ")).count();
        let goal = "number of countries and territories of Middle Earth";
        for (words_max, chars_max) in [(280, usize::MAX), (1_000, 1_100)] {
            let found = shown(goal, words_max, chars_max);
            assert_eq!(items(&found), 90, "{words_max} {found}");
            assert!(
                found.contains("- Land 20\n- Land 21\n"),
                "neighbouring passages are joined as in the page: {found}"
            );
            assert!(found.chars().count() <= chars_max);
        }
        // Where it does not, a mark says that there is more.
        let found = shown(goal, 200, usize::MAX);
        assert!((1..90).contains(&items(&found)), "{found}");
        assert!(found.lines().any(|line| line == "…"), "{found}");
        // One that is not asked for takes no room.
        assert_eq!(items(&shown("rivers", 300, usize::MAX)), 0);
    }

    #[test]
    fn every_cut_is_marked() {
        let text = region(90);
        for (goal, words_max) in
            [("rivers", 80), ("Land 45", 60), ("old countries", 90), ("Part 3 Land 88", 130), ("", 60)]
        {
            let found = find(&text, goal, words_max).passages;
            // What stands between marks is in the page, and where the page goes on there is a mark.
            let parts: Vec<&str> = found.split(GAP).map(|part| part.trim_matches('\n')).collect();
            assert!(parts.iter().all(|part| text.contains(part)), "{goal}: {found}");
            assert_eq!(found.starts_with(GAP), !text.starts_with(parts[0]) || parts[0].is_empty(), "{goal}: {found}");
            assert!(found.len() < text.len() && found.contains(GAP), "{goal}: {found}");
        }
        assert_eq!(find(PAGE, "river city economy Maribor", 500).passages, PAGE.trim_end(), "nothing is left out");
    }

    #[test]
    fn a_sentence_that_is_cut_says_so() {
        let sentence = format!("The lands are {}and more", "some great land and ".repeat(40));
        let found = find(&format!("# Lands\n\n{sentence}."), "lands", 500);
        assert!(found.sentence.as_ref().is_some_and(|sentence| sentence.ends_with(" …")), "{found:?}");
        let found = find(&format!("# Lands\n\n{sentence}, Gondor."), "Gondor", 500);
        assert!(found.sentence.as_ref().is_some_and(|sentence| sentence.starts_with("… ")), "{found:?}");
        assert!(found.passages.starts_with("…\n\n") && found.passages.ends_with("and more, Gondor."), "{found:?}");
        // Of two neighbours nothing is lost between them.
        let found = find(&format!("# Lands\n\n{sentence}, Gondor."), "great lands of Gondor", 500);
        assert!(found.passages.starts_with("# Lands") && !found.passages.contains(GAP), "{found:?}");
        assert_eq!(found.passages.matches("some great land and").count(), 40);
    }
}

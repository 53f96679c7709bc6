//! How often the most frequent n-gram of a text occurs.
//!
//! Words and n-grams are compared by 64-bit hashes. That two of the thousands in a text collide by chance is one in
//! 10^12, and would make one count too high.

use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::fast::FixedState;

/// Multiplier of the rolling hash: odd, and without pattern.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
/// Grams beyond this are sorted rather than put in a table: a table for a text of many megabytes would be huge.
const TABLE_GRAMS_MAX: usize = 1 << 16;

/// Counts n-grams; keeps its memory from one text to the next.
#[derive(Debug, Default)]
pub(super) struct NgramCounter {
    words: Vec<u64>,
    grams: Vec<u64>,
    /// Open addressing. A slot belongs to the present text if its epoch does.
    slots: Vec<Slot>,
    epoch: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    gram: u64,
    epoch: u32,
    count: u32,
}

impl NgramCounter {
    /// How often the most frequent `n`-gram occurs in `segments`; 0 where none is as long as n words. No n-gram spans
    /// two segments.
    pub(super) fn most_frequent<'a>(&mut self, segments: impl IntoIterator<Item = &'a str>, n: usize) -> u32 {
        self.grams.clear();
        for segment in segments {
            self.words.clear();
            push_words(&mut self.words, segment);
            push_grams(&mut self.grams, &self.words, n);
        }
        if self.grams.len() <= TABLE_GRAMS_MAX { self.by_table() } else { self.by_sorting() }
    }

    fn by_table(&mut self) -> u32 {
        let size = (self.grams.len() * 2).next_power_of_two();
        if self.slots.len() < size || self.epoch == u32::MAX {
            self.slots = vec![Slot::default(); size.max(self.slots.len())];
            self.epoch = 0;
        }
        self.epoch += 1;
        // A table that a longer text left is used in part, so that it stays near the processor.
        let mask = size - 1;
        let mut most = 0;
        for &gram in &self.grams {
            let mut at = (gram.wrapping_mul(BASE) >> 32) as usize & mask;
            // At most half of the slots are taken: there is always a free one.
            while let Some(slot) = self.slots.get_mut(at) {
                if slot.epoch != self.epoch {
                    *slot = Slot { gram, epoch: self.epoch, count: 0 };
                }
                if slot.gram == gram {
                    slot.count += 1;
                    most = most.max(slot.count);
                    break;
                }
                at = (at + 1) & mask;
            }
        }
        most
    }

    fn by_sorting(&mut self) -> u32 {
        self.grams.sort_unstable();
        let most = self.grams.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap_or(0);
        // Texts as long as this one are rare: their memory is not kept.
        (self.grams, self.words) = (Vec::new(), Vec::new());
        u32::try_from(most).unwrap_or(u32::MAX)
    }
}

fn push_words(words: &mut Vec<u64>, text: &str) {
    let hash = |word: &str| {
        let mut hasher = FixedState::with_seed(0).build_hasher();
        hasher.write(word.as_bytes());
        hasher.finish()
    };
    for word in text.split_whitespace() {
        if word.is_ascii() {
            words.push(hash(word));
            continue;
        }
        for part in word.split_inclusive(is_unspaced) {
            // The part ends with the character that it was split at, if there is one.
            match part.char_indices().next_back().filter(|(_, last)| is_unspaced(*last)) {
                None => words.push(hash(part)),
                Some((start, _)) => {
                    let (before, last) = part.split_at(start);
                    if !before.is_empty() {
                        words.push(hash(before));
                    }
                    words.push(hash(last));
                }
            }
        }
    }
}

fn push_grams(grams: &mut Vec<u64>, words: &[u64], n: usize) {
    if n == 0 || words.len() < n {
        return;
    }
    // The hash of words w1…wn is the sum of wi·BASE^(n−i): what leaves at the front has the highest power.
    let highest = (1..n).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut rolling = 0u64;
    let leaving = std::iter::repeat_n(&0, n).chain(words);
    for (index, (enters, leaves)) in words.iter().zip(leaving).enumerate() {
        rolling = rolling.wrapping_sub(leaves.wrapping_mul(highest)).wrapping_mul(BASE).wrapping_add(*enters);
        if index + 1 >= n {
            grams.push(rolling);
        }
    }
}

/// Scripts that are written without spaces: Han, kana, Thai, Lao, Burmese, Khmer, and their punctuation.
pub(crate) fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn most(segments: &[&str], n: usize) -> u32 {
        NgramCounter::default().most_frequent(segments.iter().copied(), n)
    }

    #[test]
    fn words_are_parted_by_white_space_and_compared_as_written() {
        assert_eq!(most(&["a b\tc\n a  b c"], 2), 2);
        assert_eq!(most(&["a b A b"], 2), 1);
        assert_eq!(most(&["a, b a b"], 2), 1);
    }

    #[test]
    fn a_text_shorter_than_an_n_gram_has_none_and_segments_do_not_join() {
        assert_eq!(most(&[], 10), 0);
        assert_eq!(most(&["a b c"], 4), 0);
        assert_eq!(most(&["a b", "c", "a b", "c"], 2), 2);
        assert_eq!(most(&["a b", "c", "a b", "c"], 3), 0);
    }

    #[test]
    fn in_scripts_without_spaces_every_character_is_a_word() {
        assert_eq!(most(&["北京是首都北京是"], 3), 2);
        assert_eq!(most(&["the北京the北京"], 2), 2);
        assert_eq!(most(&["서울은 수도 서울은 수도"], 2), 2, "Korean has spaces");
        assert_eq!(most(&["кот пес кот пес"], 2), 2);
    }

    #[test]
    fn overlapping_occurrences_count() {
        assert_eq!(most(&["a a a a a"], 2), 4);
        assert_eq!(most(&["x ".repeat(200_000).as_str()], 10), 199_991, "by sorting");
        assert_eq!(most(&["x ".repeat(2_000).as_str()], 10), 1_991);
    }

    #[test]
    fn a_counter_forgets_the_last_text() {
        let mut counter = NgramCounter::default();
        assert_eq!(counter.most_frequent(["a b a b"], 2), 2);
        assert_eq!(counter.most_frequent(["a b"], 2), 1);
        counter.epoch = u32::MAX;
        assert_eq!(counter.most_frequent(["a b c a b"], 2), 2);
        assert_eq!(counter.most_frequent(["a b"], 2), 1);
    }

    proptest! {
        #[test]
        fn it_agrees_with_counting_slices(text in "[ab北 é]{0,60}", more in "[ab ]{0,30}", n in 1usize..5) {
            let mut counts: HashMap<Vec<String>, u32> = HashMap::new();
            for segment in [&text, &more] {
                let spaced: String = segment.chars().flat_map(|c| if c == '北' { vec![' ', c, ' '] } else { vec![c] }).collect();
                let words: Vec<String> = spaced.split(' ').filter(|word| !word.is_empty()).map(str::to_string).collect();
                words.windows(n).for_each(|gram| *counts.entry(gram.to_vec()).or_default() += 1);
            }
            let mut counter = NgramCounter::default();
            let due = counts.values().max().copied().unwrap_or(0);
            prop_assert_eq!(counter.most_frequent([text.as_str(), more.as_str()], n), due);
            prop_assert_eq!(counter.by_sorting(), due);
        }
    }
}

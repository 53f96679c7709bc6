//! Text that compresses and repeats about as real text does: words by Zipf's law, stock phrases, sentences.

use rand::{Rng as _, RngCore};

const WORDS: usize = 20_000;
const PHRASES: usize = 8_000;
/// One word in so many is the first of a stock phrase.
const PHRASE_EVERY: u32 = 9;

/// Where words come from.
pub(crate) struct Vocabulary {
    words: Vec<String>,
    phrases: Vec<String>,
    /// Word numbers by cumulative probability, so that a random index is a random word.
    by_frequency: Vec<u16>,
    phrases_by_frequency: Vec<u16>,
}

impl Vocabulary {
    /// A vocabulary made from random numbers.
    pub(crate) fn new(rng: &mut impl RngCore) -> Vocabulary {
        let words: Vec<String> = (0..WORDS).map(|rank| word(rng, rank)).collect();
        let mut vocabulary =
            Vocabulary { words, phrases: Vec::new(), by_frequency: zipf(WORDS), phrases_by_frequency: zipf(PHRASES) };
        vocabulary.phrases = (0..PHRASES)
            .map(|_| {
                let length = rng.random_range(3..=6);
                (0..length).map(|_| vocabulary.word(rng)).collect::<Vec<_>>().join(" ")
            })
            .collect();
        vocabulary
    }

    /// A random word.
    pub(crate) fn word(&self, rng: &mut impl RngCore) -> &str {
        pick(&self.words, &self.by_frequency, rng)
    }

    /// `words` random words.
    pub(crate) fn words(&self, rng: &mut impl RngCore, words: usize) -> String {
        (0..words).map(|_| self.word(rng)).collect::<Vec<_>>().join(" ")
    }

    /// Sentences of at least `bytes` bytes.
    pub(crate) fn sentences(&self, rng: &mut impl RngCore, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 80);
        let mut start = true;
        while text.len() < bytes {
            let words_left: u32 = rng.random_range(6..18);
            for _ in 0..words_left {
                if !text.is_empty() {
                    text.push(' ');
                }
                let at = text.len();
                if rng.next_u32().is_multiple_of(PHRASE_EVERY) {
                    text.push_str(pick(&self.phrases, &self.phrases_by_frequency, rng));
                } else {
                    text.push_str(self.word(rng));
                }
                if std::mem::take(&mut start) {
                    // Words are ASCII.
                    if let Some(first) = text.get_mut(at..at + 1) {
                        first.make_ascii_uppercase();
                    }
                }
            }
            text.push('.');
            start = true;
        }
        text
    }
}

fn pick<'a>(of: &'a [String], by_frequency: &[u16], rng: &mut impl RngCore) -> &'a str {
    let drawn = rng.next_u32() as usize % by_frequency.len();
    &of[usize::from(by_frequency[drawn])]
}

/// 2^17 ranks, each as often as Zipf's law (exponent 1) says.
fn zipf(ranks: usize) -> Vec<u16> {
    let total: f64 = (1..=ranks).map(|rank| 1.0 / rank as f64).sum();
    let size = 1 << 17;
    let mut table = Vec::with_capacity(size);
    let mut cumulative = 0.0;
    for rank in 1..=ranks {
        cumulative += 1.0 / rank as f64 / total;
        let upto = (cumulative * size as f64).round() as usize;
        table.resize(upto.max(table.len()), (rank - 1) as u16);
    }
    table
}

/// Frequent words are short.
fn word(rng: &mut impl RngCore, rank: usize) -> String {
    const ONSETS: &[&str] =
        &["b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "ch", "pl", ""];
    const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ea", "ou", "y"];
    const CODAS: &[&str] = &["", "", "n", "r", "s", "t", "l", "nd", "ng"];
    let syllables = 1 + (rank > 40) as usize + (rank > 1_500 && rng.random_bool(0.6)) as usize;
    let mut part = |of: &[&str]| of[rng.random_range(0..of.len())].to_string();
    (0..syllables).map(|_| [part(ONSETS), part(VOWELS), part(CODAS)].concat()).collect()
}

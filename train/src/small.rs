//! Tokenizers for models that begin with random weights: fixed pieces, or bytes.
//!
//! What such a model must learn is to find a name in a page and copy it. So names are cut in one way wherever they stand:
//! a space is a token of its own, and letters come in pieces of a few from the left (of two: `Ar ge nt in a`). What is
//! said in every trajectory is one token each: the tags of the format, the punctuation of calls, frequent words. Whatever
//! is rare is left to its bytes, since a token that is never trained is never learnt.
//!
//! The result is a Hugging Face folder like any other: `tokenizer.json`, and `tokenizer_config.json` with a template of
//! the bare ChatML frame.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::config::{SmallTokenizerConfig, SmallTokenizerKind};
use crate::input::{InputError, read_file, write_whole};
use crate::tokenizer::{ChatTokenizer, MESSAGE_END, MESSAGE_START, TOKENIZER_FILE};

/// The file beside a small tokenizer that says what it was made of.
const SOURCE_FILE: &str = "source.json";
/// Bytes of it.
const SOURCE_BYTES_MAX: u64 = 1 << 20;
/// The end of a text, for engines that want such a token; never trained.
const TEXT_END: &str = "<|endoftext|>";
/// Tags of the format.
const TAGS: [&str; 8] = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<answer>",
    "</answer>",
    "<tool_response>",
    "</tool_response>",
];
/// What stands between names and values in the JSON of a call.
const PUNCTUATION: [&str; 14] = [
    "{\"name\": \"",
    "\", \"arguments\": {\"",
    "\": [\"",
    "\":[\"",
    "\", \"",
    "\",\"",
    "\"]}}",
    "\"], \"",
    "\"],\"",
    "\": \"",
    "\":\"",
    "\"}}",
    "://",
    "](",
];
/// The frame of ChatML.
const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + \
    '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// What a small tokenizer is made from: text of the data, counted.
#[derive(Debug, Clone, Default)]
pub struct SmallCorpus {
    documents: usize,
    /// Trajectories with the word in them; with the space before it, where one is.
    words: BTreeMap<String, usize>,
    /// Times that the agent wrote the word; with the space before it, where one is.
    by_agent: BTreeMap<String, usize>,
}

impl SmallCorpus {
    /// Counts a trajectory: its messages, and of each whether the agent wrote it.
    pub fn add<'a>(&mut self, messages: impl IntoIterator<Item = (&'a str, bool)>) {
        self.documents += 1;
        let mut words = BTreeSet::new();
        for (text, by_agent) in messages {
            let mut before = None;
            for run in text.split_inclusive(|c: char| !c.is_alphabetic()) {
                let word = run.trim_end_matches(|c: char| !c.is_alphabetic());
                if word.chars().count() > 1 {
                    let space = if before == Some(' ') { " " } else { "" };
                    let word = format!("{space}{word}");
                    if by_agent {
                        *self.by_agent.entry(word.clone()).or_default() += 1;
                    }
                    words.insert(word);
                }
                before = run.chars().next_back();
            }
        }
        for word in words {
            *self.words.entry(word).or_default() += 1;
        }
    }

    /// Times that the agent wrote each piece, of words that are no tokens themselves.
    fn pieces(&self, words: &[String], piece_letters: usize) -> BTreeMap<String, usize> {
        let mut pieces = BTreeMap::new();
        for (word, count) in self.by_agent.iter().filter(|(word, _)| !words.contains(word)) {
            let letters: Vec<char> = word.trim_start().chars().collect();
            for piece in letters.chunks(piece_letters.max(1)).filter(|piece| piece.len() > 1) {
                *pieces.entry(piece.iter().collect()).or_default() += count;
            }
        }
        pieces
    }

    /// The tokenizer of what was counted, as the content of a `tokenizer.json`.
    pub fn tokenizer_json(&self, config: &SmallTokenizerConfig) -> Value {
        let (words, pieces) = match config.kind {
            SmallTokenizerKind::Bytes => (Vec::new(), Vec::new()),
            SmallTokenizerKind::Pieces => {
                let share = (self.documents as f64 * config.word_share_min).ceil() as usize;
                let words = most_frequent(&self.words, share.max(1), config.words_max);
                let pieces = most_frequent(
                    &self.pieces(&words, config.piece_letters),
                    config.piece_count_min,
                    config.pieces_max,
                );
                (words, pieces)
            }
        };
        let mut vocabulary: Vec<String> = (0..=u8::MAX).map(|byte| byte_char(byte).to_string()).collect();
        let known: BTreeSet<String> = vocabulary.iter().cloned().collect();
        let further: BTreeSet<String> = words.iter().chain(&pieces).map(|text| in_byte_chars(text)).collect();
        vocabulary.extend(further.difference(&known).cloned());
        let length = vocabulary.len();
        let ids: serde_json::Map<String, Value> =
            vocabulary.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
        let special = [TEXT_END, MESSAGE_START, MESSAGE_END].map(|token| (token, true));
        let fixed = TAGS.iter().chain(&PUNCTUATION).map(|token| (*token, false));
        let added: Vec<Value> = special
            .into_iter()
            .chain(fixed)
            .enumerate()
            .map(|(at, (content, special))| {
                json!({
                    "id": length + at, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": special,
                })
            })
            .collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern(&words, config)}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            ]},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            // All bytes are in the vocabulary, so the longest piece that fits is always found, and none is unknown.
            "model": {"type": "WordPiece", "unk_token": TEXT_END, "continuing_subword_prefix": "",
                "max_input_chars_per_word": 4096, "vocab": ids},
        })
    }

    /// Writes the tokenizer of what was counted into a model's folder, and reads it back. `pin_ids`: the pins that it was
    /// counted in.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write(
        &self,
        config: &SmallTokenizerConfig,
        pin_ids: &[String],
        folder: &Path,
    ) -> Result<ChatTokenizer, InputError> {
        let settings = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": MESSAGE_END,
            "pad_token": TEXT_END,
            "clean_up_tokenization_spaces": false,
            "chat_template": TEMPLATE,
        });
        std::fs::create_dir_all(folder).map_err(|error| InputError::file(folder, error))?;
        // The tokenizer last: where it is, the others are.
        for (name, content) in [
            (SOURCE_FILE, source(config, pin_ids)),
            ("tokenizer_config.json", settings),
            (TOKENIZER_FILE, self.tokenizer_json(config)),
        ] {
            write_whole(&folder.join(name), &as_file(&content))?;
        }
        ChatTokenizer::of_folder(folder)
    }
}

/// The small tokenizer that was written to a folder before; None where there is none.
///
/// # Errors
/// It was made of other pins or by other settings, or is broken.
pub fn written(
    config: &SmallTokenizerConfig,
    pin_ids: &[String],
    folder: &Path,
) -> Result<Option<ChatTokenizer>, InputError> {
    if !folder.join(TOKENIZER_FILE).exists() {
        return Ok(None);
    }
    let path = folder.join(SOURCE_FILE);
    let found = if path.exists() { read_file(&path, SOURCE_BYTES_MAX)? } else { Vec::new() };
    if found != as_file(&source(config, pin_ids)) {
        let reason = "holds the tokenizer of another pin or other settings: choose an empty output folder";
        return Err(InputError::file(folder, reason));
    }
    ChatTokenizer::of_folder(folder).map(Some)
}

fn as_file(content: &Value) -> Vec<u8> {
    format!("{content:#}\n").into_bytes()
}

/// What a small tokenizer is made of.
fn source(config: &SmallTokenizerConfig, pin_ids: &[String]) -> Value {
    json!({"pins": pin_ids, "settings": config})
}

/// How text is cut before tokens are looked up.
fn pattern(words: &[String], config: &SmallTokenizerConfig) -> String {
    if config.kind == SmallTokenizerKind::Bytes {
        return "(?s:.)".to_string();
    }
    let alternatives = |spaced: bool| -> Option<String> {
        let mut of_kind: Vec<&str> =
            words.iter().filter(|word| word.starts_with(' ') == spaced).map(String::as_str).collect();
        // The longest first: not every engine comes back to try the next.
        of_kind.sort_by_key(|word| (std::cmp::Reverse(word.len()), *word));
        let before = if spaced { "" } else { r"(?<!\p{L})" };
        (!of_kind.is_empty()).then(|| format!(r"{before}(?:{})(?!\p{{L}})|", of_kind.join("|")))
    };
    let words: String = [true, false].into_iter().filter_map(alternatives).collect();
    format!(r"{words}\p{{L}}{{1,{}}}|\p{{N}}|\s|[^\s\p{{L}}\p{{N}}]", config.piece_letters)
}

/// At most `most` of what was counted `count_min` times or more: the most frequent, and of those equally frequent the
/// first in the order of text.
fn most_frequent(counts: &BTreeMap<String, usize>, count_min: usize, most: usize) -> Vec<String> {
    let mut frequent: Vec<(&String, usize)> =
        counts.iter().map(|(text, &count)| (text, count)).filter(|(_, count)| *count >= count_min).collect();
    frequent.sort_by_key(|(text, count)| (std::cmp::Reverse(*count), *text));
    frequent.into_iter().take(most).map(|(text, _)| text.clone()).collect()
}

/// The character that stands for a byte in byte-level vocabularies (GPT-2's table).
fn byte_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let place = (0..byte).filter(|&lower| !printable(lower)).count();
    u32::try_from(place).ok().and_then(|place| char::from_u32(256 + place)).unwrap_or(' ')
}

fn in_byte_chars(text: &str) -> String {
    text.bytes().map(byte_char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> SmallCorpus {
        let mut corpus = SmallCorpus::default();
        for name in ["Argentina", "Argovia", "Arglan"] {
            corpus.add([
                ("What is the capital of it?", false),
                (format!("The capital of {name} is {name}").as_str(), true),
            ]);
        }
        corpus
    }

    fn tokenizer(kind: SmallTokenizerKind) -> ChatTokenizer {
        let config = SmallTokenizerConfig {
            kind,
            word_share_min: 0.9,
            piece_letters: 3,
            piece_count_min: 4,
            ..SmallTokenizerConfig::default()
        };
        ChatTokenizer::from_json("small", corpus().tokenizer_json(&config).to_string().as_bytes()).unwrap()
    }

    fn pieces(kind: SmallTokenizerKind, text: &str) -> Vec<String> {
        let tokenizer = tokenizer(kind);
        let ids = tokenizer.encode(text).unwrap();
        ids.into_iter().map(|id| tokenizer.inner().id_to_token(id).unwrap().replace('Ġ', "_")).collect()
    }

    #[test]
    fn frequent_words_are_whole_and_names_come_in_threes_and_rare_pieces_in_bytes() {
        assert_eq!(
            pieces(SmallTokenizerKind::Pieces, "The capital of Argyle"),
            ["The", "_capital", "_of", "_", "Arg", "y", "l", "e"]
        );
        // A word is one only by itself.
        assert_eq!(pieces(SmallTokenizerKind::Pieces, "capitals")[0], "c");
    }

    #[test]
    fn a_name_is_cut_alike_wherever_it_stands() {
        let name = pieces(SmallTokenizerKind::Pieces, "Argentina");
        for around in [("is ", " in"), ("[\"", "\"]"), ("\n", "."), ("(", ")")] {
            let all = pieces(SmallTokenizerKind::Pieces, &format!("{}Argentina{}", around.0, around.1));
            assert!(all.windows(name.len()).any(|window| window == name), "{all:?}");
        }
    }

    #[test]
    fn the_format_is_a_token_each() {
        let call =
            "<think>\n</think>\n<tool_call>\n{\"name\": \"s\", \"arguments\": {\"q\": [\"a\", \"b\"]}}\n</tool_call>";
        let all = pieces(SmallTokenizerKind::Pieces, call);
        for token in [
            "<think>",
            "</think>",
            "<tool_call>",
            "{\"name\": \"",
            "\", \"arguments\": {\"",
            "\": [\"",
            "\", \"",
            "\"]}}",
            "</tool_call>",
        ] {
            assert!(all.iter().any(|piece| piece == token), "{token}: {all:?}");
        }
    }

    #[test]
    fn any_text_comes_back_and_special_tokens_in_it_are_text() {
        for kind in [SmallTokenizerKind::Pieces, SmallTokenizerKind::Bytes] {
            let tokenizer = tokenizer(kind);
            for text in [
                "",
                "  \n\t\u{0}",
                "naïve Zürich 東京 🦀",
                "<|im_end|>\n<|im_start|>assistant",
                "a<think>b",
                "ﬁ e\u{301}",
            ] {
                let ids = tokenizer.encode(text).unwrap();
                assert_eq!(tokenizer.decode(&ids).unwrap(), text);
                assert!(!ids.contains(&tokenizer.message_end()) && !ids.contains(&tokenizer.message_start()));
            }
        }
        assert_eq!(pieces(SmallTokenizerKind::Bytes, "ab é").len(), 5);
    }

    #[test]
    fn its_folder_is_read_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let (config, pins) = (SmallTokenizerConfig::default(), ["p1".to_string()]);
        assert_eq!(
            super::written(&config, &pins, folder.path()).unwrap().map(|found| found.digest().to_string()),
            None
        );
        let written = corpus().write(&config, &pins, folder.path()).unwrap();
        let again = super::written(&config, &pins, folder.path()).unwrap().unwrap();
        assert_eq!(again.digest(), written.digest());
        assert_eq!(ChatTokenizer::of_folder(folder.path()).unwrap().digest(), written.digest());
        let (chat, difference) = crate::chat::Chat::of_folder(folder.path()).unwrap();
        assert_eq!((chat, difference), (crate::chat::Chat::default(), None));
    }
    #[test]
    fn what_is_left_of_another_pin_or_half_written_is_not_taken_for_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (config, ours) = (SmallTokenizerConfig::default(), ["p1".to_string()]);
        corpus().write(&config, &ours, folder.path()).unwrap();
        let place = folder.path().display();
        let refusal =
            format!("{place}: holds the tokenizer of another pin or other settings: choose an empty output folder");
        let bytes = SmallTokenizerConfig { kind: SmallTokenizerKind::Bytes, ..config.clone() };
        for (config, pins) in [(&config, ["p2".to_string()]), (&bytes, ours.clone())] {
            assert_eq!(super::written(config, &pins, folder.path()).unwrap_err().to_string(), refusal);
        }
        std::fs::remove_file(folder.path().join(SOURCE_FILE)).unwrap();
        assert_eq!(super::written(&config, &ours, folder.path()).unwrap_err().to_string(), refusal);
        // A process that died before the tokenizer was whole has left none: it is made anew.
        std::fs::remove_file(folder.path().join(TOKENIZER_FILE)).unwrap();
        std::fs::write(folder.path().join(".tmp123"), "{").unwrap();
        assert_eq!(
            super::written(&config, &ours, folder.path()).unwrap().map(|found| found.digest().to_string()),
            None
        );
        corpus().write(&config, &ours, folder.path()).unwrap();
        assert!(super::written(&config, &ours, folder.path()).unwrap().is_some());
    }
}

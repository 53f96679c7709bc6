//! Tokenizers and trajectories to test with. Nothing here is anybody's but ours.

use std::path::Path;
use std::sync::LazyLock;

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};
use webdancer_agent::conversation::{Message, Role, parse_messages};
use webdancer_schemas::rows::Trajectory;
use webdancer_train::config::{SmallTokenizerConfig, SmallTokenizerKind};
use webdancer_train::small::SmallCorpus;
use webdancer_train::tokenizer::ChatTokenizer;

/// How tokenizers of this family cut text before they merge: marks take line breaks with them, spaces go with words.
const CUT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The conversations of the files that the project ships.
pub(crate) static CONVERSATIONS: LazyLock<Vec<Vec<Message>>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let files = ["agent/tests/fixtures/trajectories.jsonl", "deploy/demo/demo_trajectories.jsonl"];
    files.iter().flat_map(|file| conversations(&std::fs::read_to_string(root.join(file)).unwrap())).collect()
});

/// The conversations in a file of the published format.
pub(crate) fn conversations(text: &str) -> Vec<Vec<Message>> {
    let messages = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        serde_json::from_value(line["messages"].clone()).unwrap()
    };
    text.lines().map(messages).collect()
}

/// A byte-level BPE tokenizer with the special tokens of Qwen, its merges learnt from `texts`.
pub(crate) fn bpe<'a>(texts: impl Iterator<Item = &'a str> + Send) -> ChatTokenizer {
    let base = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": CUT}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        ]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    });
    let mut tokenizer = Tokenizer::from_bytes(base.to_string()).unwrap();
    let alphabet = ByteLevel::alphabet().into_iter().collect();
    let trainer = BpeTrainer::builder().vocab_size(1_500).show_progress(false).initial_alphabet(alphabet).build();
    tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), texts).unwrap();
    tokenizer
        .add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(|t| AddedToken::from(t, true)))
        .unwrap();
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"].map(|t| AddedToken::from(t, false))).unwrap();
    ChatTokenizer::from_json("bpe", tokenizer.to_string(false).unwrap().as_bytes()).unwrap()
}

/// A tokenizer of the small kind, made from what the project ships.
pub(crate) fn small(kind: SmallTokenizerKind) -> ChatTokenizer {
    let mut corpus = SmallCorpus::default();
    for messages in CONVERSATIONS.iter() {
        corpus.add(messages.iter().map(|message| (message.content.as_str(), message.role == Role::Assistant)));
    }
    let config = SmallTokenizerConfig { kind, piece_count_min: 2, ..SmallTokenizerConfig::default() };
    ChatTokenizer::from_json("small", corpus.tokenizer_json(&config).to_string().as_bytes()).unwrap()
}

/// Tokenizers that cut text in very different ways.
pub(crate) static TOKENIZERS: LazyLock<[ChatTokenizer; 3]> = LazyLock::new(|| {
    let texts = CONVERSATIONS.iter().flatten().map(|message| message.content.as_str()).collect::<Vec<_>>();
    [bpe(texts.into_iter()), small(SmallTokenizerKind::Pieces), small(SmallTokenizerKind::Bytes)]
});

pub(crate) fn message(role: Role, content: &str) -> Message {
    Message { role, content: content.to_string() }
}

pub(crate) fn row(messages: &[Message]) -> Trajectory {
    Trajectory { trajectory_id: "t".to_string(), qa_id: "q".to_string(), ..parse_messages(messages).unwrap() }
}

/// A conversation of one call and an answer.
pub(crate) fn conversation(question: &str, observation: &str, answer: &str) -> Vec<Message> {
    vec![
        message(Role::System, "Look it up.\nCurrent date: 2026-01-02"),
        message(Role::User, &format!("User: {question}")),
        message(
            Role::Assistant,
            "<think>\nI search.\n</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"a\"]}}\n</tool_call>",
        ),
        message(Role::User, &format!("<tool_response>\n{observation}\n</tool_response>")),
        message(Role::Assistant, &format!("<think>\nThat is it.\n</think>\n<answer>\n{answer}\n</answer>")),
    ]
}

//! Seeded mutations of good and bad input. `WEBDANCER_FUZZ_CASES` sets how many, `WEBDANCER_FUZZ_SEED` which; `make fuzz`
//! runs a million, optimised. A binary of its own, so that it builds nothing else.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on fails")]

use std::path::PathBuf;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use webdancer_agent::fuzzing::fuzz_one;
use webdancer_agent::published::messages_of_line;

const CASES: u64 = 10_000;
/// Inputs grow by insertion and splicing; beyond this they are cut.
const BYTES_MAX: usize = 16_384;

/// What the formats are made of.
const TOKENS: [&str; 24] = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<answer>",
    "</answer>",
    "<tool_response>\n",
    "\n</tool_response>",
    "\n",
    "\\n",
    "\\ud800",
    "\\u0000",
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "User: ",
    "\"role\": \"user\"",
    "1e999",
    "\u{202e}é",
];

/// The lines of a file, by its path relative to this crate.
fn lines(relative: &str) -> Vec<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(str::to_string).collect()
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

/// The fixtures: whole lines, and the messages in them.
fn corpus() -> Vec<Vec<u8>> {
    let mut corpus = Vec::new();
    for line in lines("tests/fixtures/trajectories.jsonl") {
        let messages = messages_of_line(line.as_bytes()).unwrap();
        corpus.extend(messages.into_iter().map(|message| message.content.into_bytes()));
        corpus.push(line.into_bytes());
    }
    for line in lines("tests/fixtures/malformed.jsonl") {
        let case: serde_json::Value = serde_json::from_str(&line).unwrap();
        corpus.push(case["row"].as_str().unwrap().as_bytes().to_vec());
    }
    corpus.extend(lines("../deploy/demo/demo_qa.jsonl").into_iter().map(String::into_bytes));
    corpus
}

/// A range of `bytes`, at most `longest` long.
fn range(rng: &mut ChaCha8Rng, bytes: &[u8], longest: usize) -> std::ops::Range<usize> {
    let start = rng.random_range(0..=bytes.len());
    start..rng.random_range(start..=bytes.len().min(start + longest))
}

fn mutate(rng: &mut ChaCha8Rng, corpus: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let place = range(rng, bytes, 64);
    match rng.random_range(0..7) {
        0 => drop(bytes.drain(place)),
        1 => bytes.truncate(place.start),
        2 => drop(bytes.splice(place, TOKENS[rng.random_range(0..TOKENS.len())].bytes())),
        3 => {
            let token = TOKENS[rng.random_range(0..TOKENS.len())].repeat(rng.random_range(1..200));
            bytes.splice(place.start..place.start, token.bytes());
        }
        4 => {
            let other = &corpus[rng.random_range(0..corpus.len())];
            let piece = range(rng, other, 512);
            bytes.splice(place, other[piece].iter().copied());
        }
        5 => {
            let piece = bytes[place.clone()].to_vec();
            bytes.splice(place.end..place.end, piece);
        }
        _ => {
            for byte in &mut bytes[place] {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
}

#[test]
fn the_corpus_itself_keeps_every_promise() {
    corpus().iter().for_each(|bytes| fuzz_one(bytes));
}

#[test]
fn mutations_of_the_corpus_keep_every_promise() {
    let (cases, seed) = (from_environment("WEBDANCER_FUZZ_CASES", CASES), from_environment("WEBDANCER_FUZZ_SEED", 7));
    let corpus = corpus();
    for case in 0..cases {
        // A generator per case: a failure names the case, and that case runs alone.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(case);
        let mut bytes = corpus[rng.random_range(0..corpus.len())].clone();
        for _ in 0..rng.random_range(1..6) {
            mutate(&mut rng, &corpus, &mut bytes);
        }
        if let Err(panic) = std::panic::catch_unwind(|| fuzz_one(&bytes)) {
            eprintln!("seed {seed}, case {case}: {:?}", String::from_utf8_lossy(&bytes));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn megabytes_of_one_token_are_read_once() {
    for token in TOKENS {
        fuzz_one(token.repeat((2 << 20) / token.len()).as_bytes());
        let inside = format!("<think>\n{}\n</think>\n<answer>\nx\n</answer>", token.repeat((1 << 20) / token.len()));
        fuzz_one(inside.as_bytes());
    }
}

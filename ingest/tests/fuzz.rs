//! Mutated events through envelope parser and decoder: 10,000 by default, `make fuzz` a million, optimised.
//!
//! `tests/corpus` holds the seeds: events of every shape, and inputs that once broke something. A binary of its own, so
//! that `make fuzz` builds nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use webdancer_ingest::decode::{Decoder, Position};
use webdancer_ingest::source::TopicPartition;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::wire::parse_structured;

/// Tokens that decide how JSON and events are read.
const TOKENS: &[&str] = &[
    "null",
    "true",
    "-1",
    "1e999",
    "99999999999999999999",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"data\":",
    "\"id\":",
    "\"type\":\"webdancer.qa.v1\"",
    "\u{0}",
    "\u{feff}",
    "é",
    "{}",
    "[[[[[[[[",
    "\"specversion\":\"1.0\",",
];

fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds = Vec::new();
    for folder in [root.join("../schemas/golden/v1"), root.join("tests/corpus")] {
        let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let events = paths.iter().filter(|path| path.extension().is_some_and(|ext| ext == "json"));
        seeds.extend(events.map(|path| std::fs::read(path).unwrap()));
    }
    assert!(seeds.len() >= Kind::ALL.len());
    seeds
}

fn mutate(random: &mut ChaCha8Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..3) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..40)).min(bytes.len());
        match random.random_range(0..6) {
            0 => bytes[at] = random.random(),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.truncate(at),
            3 => {
                let token = TOKENS[random.random_range(0..TOKENS.len())].bytes();
                drop(bytes.splice(at..at, token));
            }
            4 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            _ => {
                let other = &seeds[random.random_range(0..seeds.len())];
                let from = random.random_range(0..other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

#[test]
fn mutated_events_are_survived_and_harm_no_neighbour() {
    let cases: u64 = std::env::var("WEBDANCER_FUZZ_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let seed = std::env::var("WEBDANCER_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let seeds = seeds();
    let partition = TopicPartition { topic: Arc::from("fuzz"), partition: 0 };
    let mut decoders: Vec<Decoder> = Kind::ALL.iter().map(|kind| Decoder::new(*kind)).collect();
    let mut accepted = vec![0usize; decoders.len()];
    let (mut parsed, mut rejected) = (0u64, 0u64);
    for case in 0..cases {
        let bytes = mutate(&mut random, &seeds);
        let position = Position { partition: &partition, offset: case as i64, timestamp_ms: 0 };
        let Ok((envelope, data)) = parse_structured(&bytes) else { continue };
        parsed += 1;
        let index = Kind::ALL.iter().position(|kind| *kind == envelope.kind).unwrap();
        match decoders[index].push(&envelope, data.get().as_bytes(), position) {
            Ok(()) => {
                accepted[index] += 1;
                // What the decoder takes, the typed row takes.
                assert!(envelope.kind.check_row(data.get()).is_ok(), "seed {seed}, case {case}: {data}");
            }
            Err(rejection) => {
                rejected += 1;
                assert!(rejection.field.is_some_and(|field| field.starts_with("data")), "seed {seed}, case {case}");
            }
        }
        if case % 5_000 == 4_999 || case + 1 == cases {
            for (decoder, accepted) in decoders.iter_mut().zip(&mut accepted) {
                assert_eq!(decoder.finish().unwrap().num_rows(), std::mem::take(accepted), "seed {seed}, case {case}");
            }
        }
    }
    assert!(
        parsed > cases / 50 && rejected > cases / 200,
        "the mutations are too wild: {parsed} parsed, {rejected} rejected"
    );
}

//! Events of a given size whose text compresses as real text does.

use std::error::Error;
use std::io::{BufWriter, Write};

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;

/// Bytes of text that slices are taken from: far more than a compressor looks back.
const POOL_BYTES: usize = 32 << 20;
const WORDS: usize = 20_000;

/// A kind of event in the size that the benchmark wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// About 1 KB.
    Judgment,
    /// About 20 KB, eight turns.
    Trajectory,
    /// About 100 bytes.
    Metric,
}

impl Shape {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Shape::Judgment => Kind::Judgment,
            Shape::Trajectory => Kind::Trajectory,
            Shape::Metric => Kind::Metric,
        }
    }
}

pub(crate) fn write(shape: Shape, count: u64, seed: u64, rows_only: bool) -> Result<(), Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let text = Text::new(&mut rng);
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    for number in 0..count {
        let data = row(shape, number, &text, &mut rng);
        if rows_only {
            writeln!(out, "{data}")?;
            continue;
        }
        let id = id(shape.kind(), seed, number);
        writeln!(
            out,
            "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"bench\",\"type\":\"{}\",\
             \"time\":\"2026-01-01T00:00:00Z\",\"subject\":\"s-{number}\",\"runid\":\"run-1\",\"data\":{data}}}",
            shape.kind().event_type()
        )?;
    }
    out.flush()?;
    Ok(())
}

/// Ordered by time as those of a producer are: twenty a millisecond.
pub(crate) fn id(kind: Kind, seed: u64, number: u64) -> EventId {
    let time = DateTime::<Utc>::UNIX_EPOCH + chrono::Duration::milliseconds(1_767_225_600_000 + (number / 20) as i64);
    EventId::derive(time, &format!("bench-{seed}"), kind, "event", number)
}

fn row(shape: Shape, number: u64, text: &Text, rng: &mut ChaCha8Rng) -> String {
    match shape {
        Shape::Judgment => format!(
            "{{\"trajectory_id\":\"t-{number}\",\"stage\":\"correctness\",\"verdict\":\"{}\",\"score\":{},\
             \"judge\":\"judge-1\",\"criteria\":{{\"threshold\":{}}},\"rationale\":\"{}\",\"rule_version\":1}}",
            if rng.random_bool(0.6) { "pass" } else { "fail" },
            rng.random_range(0..1000) as f64 / 1000.0,
            rng.random_range(0..10),
            text.slice(rng, 640),
        ),
        Shape::Metric => format!(
            "{{\"name\":\"loss\",\"step\":{number},\"value\":{}}}",
            f64::from(rng.random_range(0..1_000_000)) / 1e6
        ),
        Shape::Trajectory => trajectory(number, text, rng),
    }
}

fn trajectory(number: u64, text: &Text, rng: &mut ChaCha8Rng) -> String {
    const TURNS: usize = 8;
    let list = |each: &mut dyn FnMut(usize) -> String| (0..TURNS).map(each).collect::<Vec<_>>().join(",");
    let thoughts = list(&mut |_| format!("\"{}\"", text.slice(rng, 400)));
    let tools = list(&mut |turn| if turn + 1 == TURNS { "null".into() } else { "\"search\"".into() });
    let arguments = list(&mut |turn| {
        if turn + 1 == TURNS {
            "null".into()
        } else {
            format!("\"{{\\\"query\\\": [\\\"{}\\\"]}}\"", text.slice(rng, 60))
        }
    });
    let observations =
        list(&mut |turn| if turn + 1 == TURNS { "null".into() } else { format!("\"{}\"", text.slice(rng, 2_100)) });
    let digests =
        list(&mut |turn| if turn + 1 == TURNS { "null".into() } else { format!("\"{:064x}\"", rng.random::<u128>()) });
    let raw = ["null"; TURNS].join(",");
    format!(
        "{{\"trajectory_id\":\"t-{number}\",\"qa_id\":\"q-{}\",\"policy_model\":\"model-1\",\"attempt\":{},\
         \"question\":\"{}\",\"answer\":\"{}\",\"termination\":\"answer\",\"n_turns\":{TURNS},\"n_tool_calls\":{},\
         \"turn_thought\":[{thoughts}],\"turn_tool\":[{tools}],\"turn_arguments\":[{arguments}],\
         \"turn_observation\":[{observations}],\"turn_observation_digest\":[{digests}],\"turn_raw\":[{raw}]}}",
        number / 5,
        number % 5,
        text.slice(rng, 120),
        text.slice(rng, 20),
        TURNS - 1,
    )
}

/// Words by Zipf's law.
struct Text {
    pool: String,
}

impl Text {
    fn new(rng: &mut ChaCha8Rng) -> Text {
        let words: Vec<String> = (0..WORDS)
            .map(|_| (0..rng.random_range(2..10)).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect())
            .collect();
        let mut pool = String::with_capacity(POOL_BYTES + 16);
        while pool.len() < POOL_BYTES {
            // Uniform in the logarithm of the rank: frequency is inverse to rank.
            let rank = (WORDS as f64).powf(rng.random::<f64>()) as usize - 1;
            pool.push_str(&words[rank.min(WORDS - 1)]);
            pool.push(' ');
        }
        Text { pool }
    }

    fn slice(&self, rng: &mut ChaCha8Rng, bytes: usize) -> &str {
        let from = rng.random_range(0..POOL_BYTES - bytes);
        &self.pool[from..from + bytes]
    }
}

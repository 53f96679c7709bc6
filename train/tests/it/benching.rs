//! What the benchmarks time is the work that they say.

use clap::Parser as _;
use serde_json::Value;
use webdancer_train::bench::{self, BenchArgs};

use crate::parity::folder;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    bench: BenchArgs,
}

fn bench(arguments: &str) -> Result<Value, String> {
    let line = format!("bench {arguments} --device cpu --model {}", folder("qwen3").display());
    let line = Line::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
    let told = bench::run(&line.bench).map_err(|error| error.to_string())?;
    Ok(serde_json::from_str(&told).unwrap())
}

fn rows(arguments: &str) -> Vec<Value> {
    let told = bench(arguments).unwrap();
    assert!(told["matmul_flops"].as_f64().unwrap() > 0.0);
    let rows = told["rows"].as_array().unwrap().clone();
    for row in &rows {
        assert!(
            row["tokens_per_second"].as_f64().unwrap() > 0.0 && row["peak_memory"].as_f64().unwrap() > 0.0,
            "{row}"
        );
    }
    rows
}

#[test]
fn updates_are_timed_for_each_of_the_sizes() {
    for kind in ["", " --draw", " --lora --activation-checkpointing"] {
        let rows = rows(&format!("sft --sizes 2x8x1,3x16x2{kind}"));
        let sizes: Vec<&str> = rows.iter().map(|row| row["sizes"].as_str().unwrap()).collect();
        assert_eq!(sizes, ["2x8x1", "3x16x2"]);
        // About ln 48 at first.
        assert!(rows.iter().all(|row| (0.5..6.0).contains(&row["check"].as_f64().unwrap())), "{rows:?}");
    }
}

#[test]
fn prompts_are_gone_on_with_by_as_many_tokens_as_were_asked_for() {
    let told = rows("generate --sizes 3x8x4").remove(0);
    let ids: Vec<Vec<i64>> = serde_json::from_value(told["check"].clone()).unwrap();
    assert_eq!(ids.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4]);
}

#[test]
fn turns_of_rollouts_are_of_different_lengths() {
    // 4 + 5, 7 + 8 and 5 + 6 tokens.
    assert_eq!(rows("rollout --sizes 3x8x8x2x2")[0]["check"], 35);
}

#[test]
fn sizes_that_are_none_are_named() {
    assert!(bench("sft --sizes 2x0x1").unwrap_err().contains("must be counts with an x between them"));
    assert_eq!(bench("sft --sizes 2x8").unwrap_err(), "--sizes: 2x8 has not 3 counts");
    // The model has 128 positions.
    assert!(bench("generate --sizes 1x128x1").unwrap_err().starts_with("--sizes: the prompt has 128 tokens"));
}

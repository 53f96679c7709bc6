//! Times fine-tuning and generation of a model on a processor, for the side-by-side benchmark of the trainer.
//!
//! `bench_train sft|generate FOLDER DOCUMENTS LENGTH STEPS`: the model of a Hugging Face folder; documents of so many
//! tokens, the second half of each trained; prompts of so many tokens and as many steps of writing. Prints one JSON object.
//! `sft-checkpointing` runs layers again on the way back; `sft-lora` trains adapters.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tch::{Device, Kind};
use webdancer_train::batch::{PackedBatch, Update};
use webdancer_train::config::{Aggregation, LoraConfig, OptimizerConfig};
use webdancer_train::generate::{Engine, EngineConfig, Request, SamplingConfig};
use webdancer_train::loss::{self, Targets};
use webdancer_train::model::Qwen;
use webdancer_train::optim::AdamW;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, folder, documents, length, steps] = &arguments[..] else {
        return Err("see the head of this file".into());
    };
    let model = Qwen::read(Path::new(folder), Kind::Float, Device::Cpu)?;
    let (documents, length, steps): (i64, i64, usize) = (documents.parse()?, length.parse()?, steps.parse()?);
    let vocabulary = model.config().vocab_size;
    let ids = |document: i64| (0..length).map(|at| (document * 7919 + at * 31) % vocabulary).collect::<Vec<i64>>();
    let all: Vec<Vec<i64>> = (0..documents).map(ids).collect();
    let (tokens, seconds, check) = match what.as_str() {
        "sft" => sft(&model, &all, steps)?,
        "sft-checkpointing" => sft(&model.with_activation_checkpointing(true), &all, steps)?,
        "sft-lora" => sft(&model.with_adapters(&LoraConfig::default(), 0)?, &all, steps)?,
        _ => generate(model, &all, steps)?,
    };
    let rate = tokens as f64 / seconds;
    writeln!(std::io::stdout(), r#"{{"tokens_per_second": {rate:.1}, "check": {check}}}"#)?;
    Ok(())
}

/// Tokens, seconds, and the loss of the last step.
fn sft(model: &Qwen, documents: &[Vec<i64>], steps: usize) -> Result<(usize, f64, String), Box<dyn Error>> {
    let mut batch = PackedBatch::default();
    for (row, ids) in documents.iter().enumerate() {
        batch.push(row as u32, ids, &(0..ids.len()).map(|at| at >= ids.len() / 2).collect::<Vec<_>>());
    }
    let update = Update { batches: vec![batch] };
    let mut optimizer =
        AdamW::new(&OptimizerConfig { weight_decay: 0.1, ..OptimizerConfig::default() }, model.trained())?;
    let mut loss = f64::NAN;
    let mut begun = Instant::now();
    for step in 0..steps + 2 {
        if step == 2 {
            begun = Instant::now();
        }
        let weights = update.weights(Aggregation::TokenMean);
        let targets = Targets::new(&update.batches[0], &weights[0]);
        loss = loss::backward(model, &update.batches[0], &targets, optimizer.gradient()).double_value(&[]);
        let _ = optimizer.step(model.trained(), 1e-3)?;
    }
    Ok((steps * update.batches[0].tokens(), begun.elapsed().as_secs_f64(), loss.to_string()))
}

/// Tokens written, seconds, and their ids by prompt.
fn generate(model: Qwen, prompts: &[Vec<i64>], steps: usize) -> Result<(usize, f64, String), Box<dyn Error>> {
    // Every round reads its prompts: nothing of the warm-up is kept.
    let config = EngineConfig { prefix_bytes_max: 0, ..EngineConfig::default() };
    let mut engine = Engine::new(config, model, Arc::new(|_: &[i64]| String::new()));
    let sampling = SamplingConfig { temperature: 0.0, ..SamplingConfig::default() };
    // Requests are numbered as they are submitted.
    let mut written: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    let mut begun = Instant::now();
    for warm in [true, false] {
        begun = Instant::now();
        written.clear();
        for prompt in prompts {
            let max_tokens = if warm { 3 } else { steps };
            engine.submit(Request { prompt: prompt.clone(), max_tokens, sampling, ..Request::default() })?;
        }
        while !engine.idle() {
            for token in engine.step()? {
                written.entry(token.request.0).or_default().push(token.id);
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let ids: Vec<&Vec<i64>> = written.values().collect();
    Ok((ids.iter().map(|ids| ids.len()).sum(), seconds, format!("{ids:?}")))
}

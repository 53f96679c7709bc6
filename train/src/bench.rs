//! Times a model by itself, training or writing, for the benchmarks that run it beside other programs.
//!
//! A part of the program, so that a machine needs nothing else: `webdancer-train bench`. What is read has no pin and no
//! tokenizer: ids are made up, the same ones by whoever is compared with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::batch::{PackedBatch, Update};
use crate::config::{Aggregation, Device, Dtype, LoraConfig, OptimizerConfig};
use crate::device;
use crate::error::{TrainError, guard};
use crate::generate::{Engine, EngineConfig, Request, RequestId, SamplingConfig};
use crate::loss::{self, Targets};
use crate::model::{ModelConfig, Parameters, Qwen};
use crate::optim::AdamW;

/// Updates that nothing is told of: memory is taken and kernels are chosen in them.
const WARM_UP_STEPS: i64 = 2;
/// Tokens that a prompt is gone on with for the same reason.
const WARM_UP_TOKENS: i64 = 3;

/// Arguments of `bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// What is timed
    #[arg(value_enum)]
    pub work: Work,
    /// Sizes of the work, one after the other. sft: DOCUMENTSxTOKENSxSTEPS; generate: PROMPTSxTOKENSxWRITTEN; rollout:
    /// ROLLOUTSxPROMPTxWRITTENxTURNSxOBSERVATION
    #[arg(long, value_name = "AxBxC", required = true, value_delimiter = ',', value_parser = Sizes::parse)]
    pub sizes: Vec<Sizes>,
    /// Folder of the model
    #[arg(long, value_name = "FOLDER")]
    pub model: PathBuf,
    /// Draw the weights: the folder's config.json is enough
    #[arg(long)]
    pub draw: bool,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_parser = |name: &str| Device::try_from(name.to_string()))]
    pub device: Device,
    /// Train adapters, and not the weights
    #[arg(long)]
    pub lora: bool,
    /// Run layers again on the way back
    #[arg(long)]
    pub activation_checkpointing: bool,
    /// Write in steps of fixed shapes, which a GPU records as CUDA graphs
    #[arg(long)]
    pub cuda_graphs: bool,
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// An update over all documents a step, the second half of each trained
    Sft,
    /// Greedy tokens behind prompts of one length
    Generate,
    /// Rollouts of one question: turns that are sampled, each of another length, and observations between them
    Rollout,
}

/// Sizes of a piece of work, `8x1024x10`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes(Vec<i64>);

impl Sizes {
    fn parse(text: &str) -> Result<Self, String> {
        let sizes = text.split('x').map(|size| size.parse::<i64>().ok().filter(|size| (1..1 << 24).contains(size)));
        sizes.collect::<Option<_>>().map(Self).ok_or_else(|| "must be counts with an x between them".to_string())
    }

    fn of<const N: usize>(&self) -> Result<[i64; N], TrainError> {
        self.0.clone().try_into().map_err(|_| TrainError::Usage(format!("--sizes: {self} has not {N} counts")))
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.iter().map(i64::to_string).collect::<Vec<_>>().join("x"))
    }
}

/// What came of a piece of work.
struct Timed {
    tokens: i64,
    seconds: f64,
    /// What must be the same for whoever does the same work.
    check: Value,
}

/// Does the work at some sizes, and times it.
type Timing = Box<dyn FnMut(&Sizes) -> Result<Timed, TrainError>>;

/// Does the work, and gives a line of JSON: `matmul_flops`, what a large matrix product comes to here, and `rows`, one for
/// each of the sizes. A row has `tokens_per_second`, `check` (the last loss; the ids written; the tokens written) and
/// `peak_memory` in bytes, or an `error`.
///
/// # Errors
///
/// There is no such model or device, or the sizes are not those of the work. What fails while it is timed is told in its
/// row.
pub fn run(arguments: &BenchArgs) -> Result<String, TrainError> {
    let device = device::device(arguments.device)?;
    let kind = device::kind(Dtype::Auto, device);
    let matmul_flops = guard(|| Ok(device::matmul_flops(kind, device)))?;
    let mut model = match arguments.draw {
        true => drawn(&arguments.model, kind, device)?,
        false => Qwen::read(&arguments.model, kind, device)?,
    };
    if arguments.lora {
        model = model.with_adapters(&LoraConfig::default(), 0)?;
    }
    let model = model.with_activation_checkpointing(arguments.activation_checkpointing);
    let (cuda_graphs, own) = (arguments.cuda_graphs, EngineConfig::default());
    let mut timed: Timing = match arguments.work {
        Work::Sft => Box::new(move |sizes: &Sizes| sft(&model, sizes.of()?)),
        Work::Generate => {
            // The other side keeps nothing between calls.
            let mut engine = engine(model, EngineConfig { prefix_bytes_max: 0, cuda_graphs, ..own })?;
            Box::new(move |sizes: &Sizes| generate(&mut engine, sizes.of()?))
        }
        Work::Rollout => {
            let mut engine = engine(model, EngineConfig { cuda_graphs, ..own })?;
            Box::new(move |sizes: &Sizes| rollout(&mut engine, sizes.of()?))
        }
    };
    let mut rows = Vec::new();
    for sizes in &arguments.sizes {
        // Its peak is counted from here.
        device::memory(device)?;
        rows.push(match guard(|| timed(sizes)) {
            Ok(Timed { tokens, seconds, check }) => {
                let rate = tokens as f64 / seconds;
                let peak = device::memory(device)?.first().map(|(_, bytes, _)| *bytes);
                json!({"sizes": sizes.to_string(), "tokens_per_second": rate, "check": check, "peak_memory": peak})
            }
            Err(error @ TrainError::Usage(_)) => return Err(error),
            Err(error) => json!({"sizes": sizes.to_string(), "error": error.to_string()}),
        });
    }
    Ok(json!({"matmul_flops": matmul_flops, "rows": rows}).to_string())
}

/// A model of the folder's shape with weights drawn where it computes: billions would take the host minutes.
fn drawn(folder: &Path, kind: Kind, device: tch::Device) -> Result<Qwen, TrainError> {
    let config = ModelConfig::read(folder)?;
    let parameters = Parameters::zeros(&config, kind, device)?;
    guard(|| {
        tch::no_grad(|| {
            for (name, mut place) in parameters.pieces(parameters.flat()) {
                if place.dim() == 2 {
                    let _ = place.normal_(0.0, config.initializer_range);
                } else if name.ends_with("norm.weight") {
                    let _ = place.fill_(1.0);
                }
            }
        });
        Ok(())
    })?;
    Qwen::new(config, parameters)
}

/// On a GPU what is asked for is timed or refused, and not something else.
fn engine(model: Qwen, config: EngineConfig) -> Result<Engine, TrainError> {
    let on_gpu = model.head().device().is_cuda();
    let engine = Engine::new(config, model, Arc::new(|_: &[i64]| String::new()));
    match engine.unrecorded().filter(|_| on_gpu) {
        Some(reason) => Err(TrainError::Usage(reason.to_string())),
        None => Ok(engine),
    }
}

/// Ids of a document, which the other side makes up alike.
fn made_up(number: i64, length: i64, vocabulary: i64) -> Vec<i64> {
    (0..length).map(|at| (number * 7919 + at * 31) % vocabulary).collect()
}

fn sft(model: &Qwen, [documents, length, steps]: [i64; 3]) -> Result<Timed, TrainError> {
    let mut batch = PackedBatch::default();
    for document in 0..documents {
        let ids = made_up(document, length, model.config().vocab_size);
        batch.push(document as u32, &ids, &(0..length).map(|at| at >= length / 2).collect::<Vec<_>>());
    }
    let update = Update { batches: vec![batch] };
    let batch = &update.batches[0];
    let mut optimizer =
        AdamW::new(&OptimizerConfig { weight_decay: 0.1, ..OptimizerConfig::default() }, model.trained())?;
    // Reading a weight waits for the last update.
    let wait = || model.trained().flat().narrow(0, 0, 1).double_value(&[0]);
    let mut last = Tensor::zeros([], (Kind::Float, model.head().device()));
    let mut begun = Instant::now();
    for step in 0..steps + WARM_UP_STEPS {
        if step == WARM_UP_STEPS {
            let _ = wait();
            begun = Instant::now();
        }
        let weights = update.weights(Aggregation::TokenMean);
        last = loss::backward(model, batch, &Targets::new(batch, &weights[0]), optimizer.gradient());
        let _ = optimizer.step(model.trained(), 1e-3)?;
    }
    let _ = wait();
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Timed { tokens: steps * documents * length, seconds, check: json!(last.double_value(&[])) })
}

fn generate(engine: &mut Engine, [prompts, length, new]: [i64; 3]) -> Result<Timed, TrainError> {
    let vocabulary = engine.model().config().vocab_size;
    let sampling = SamplingConfig { temperature: 0.0, ..SamplingConfig::default() };
    // Requests are numbered as they are submitted.
    let mut written: BTreeMap<RequestId, Vec<i64>> = BTreeMap::new();
    let mut begun = Instant::now();
    for max_tokens in [WARM_UP_TOKENS, new] {
        begun = Instant::now();
        written.clear();
        for prompt in 0..prompts {
            submit(engine, made_up(prompt, length, vocabulary), max_tokens, sampling)?;
        }
        while !engine.idle() {
            for token in engine.step()? {
                written.entry(token.request).or_default().push(token.id);
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let ids: Vec<Vec<i64>> = written.into_values().collect();
    Ok(Timed { tokens: ids.iter().map(|ids| ids.len() as i64).sum(), seconds, check: json!(ids) })
}

/// A rollout under way.
struct Rollout {
    number: i64,
    turn: i64,
    /// All that its next turn reads.
    ids: Vec<i64>,
}

fn rollout(engine: &mut Engine, sizes: [i64; 5]) -> Result<Timed, TrainError> {
    let [rollouts, prompt, written, turns, observation] = sizes;
    let vocabulary = engine.model().config().vocab_size;
    let (mut tokens, mut begun) = (0, Instant::now());
    // Questions of their own, so that nothing of the first is kept for the second.
    for (question, turns) in [(0, 1), (1, turns)] {
        (tokens, begun) = (0, Instant::now());
        let mut ready: Vec<Rollout> = (0..rollouts)
            .map(|number| Rollout { number, turn: 0, ids: made_up(question, prompt, vocabulary) })
            .collect();
        let mut writing: BTreeMap<RequestId, Rollout> = BTreeMap::new();
        while !ready.is_empty() || !writing.is_empty() {
            for rollout in ready.drain(..) {
                let Rollout { number, turn, .. } = rollout;
                let sampling = SamplingConfig { seed: (number * turns + turn) as u64, ..SamplingConfig::default() };
                let request = submit(engine, rollout.ids.clone(), written_in_turn(written, number, turn), sampling)?;
                writing.insert(request, rollout);
            }
            for token in engine.step()? {
                tokens += 1;
                let Some(rollout) = writing.get_mut(&token.request) else { continue };
                rollout.ids.push(token.id);
                if token.finish.is_none() {
                    continue;
                }
                rollout.turn += 1;
                let told = made_up(rollout.number * turns + rollout.turn, observation, vocabulary);
                rollout.ids.extend(told);
                ready.extend(writing.remove(&token.request).filter(|rollout| rollout.turn < turns));
            }
        }
    }
    Ok(Timed { tokens, seconds: begun.elapsed().as_secs_f64(), check: json!(tokens) })
}

/// Tokens of a turn: half of `most` to all of it, in no order.
fn written_in_turn(most: i64, rollout: i64, turn: i64) -> i64 {
    (most * (4 + (3 * rollout + turn) % 5) / 8).max(1)
}

fn submit(
    engine: &mut Engine,
    prompt: Vec<i64>,
    max_tokens: i64,
    sampling: SamplingConfig,
) -> Result<RequestId, TrainError> {
    let request = Request { prompt, max_tokens: max_tokens as usize, sampling, ..Request::default() };
    engine.submit(request).map_err(|refusal| TrainError::Usage(format!("--sizes: {refusal}")))
}

//! The trainer: a process that reads a pin and writes events and checkpoints, and serves what came of it.

use std::io::{Write as _, stderr, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use webdancer_train::bench::{self, BenchArgs};
use webdancer_train::config::{Device, Dtype};
use webdancer_train::contract::{DapoJob, EvaluateJob, INTERRUPTED, Job};
use webdancer_train::error::TrainError;
use webdancer_train::experiment::{self, ExperimentArgs};
use webdancer_train::generate::{Engine, EngineConfig};
use webdancer_train::inspect::{self, InspectArgs};
use webdancer_train::model::Qwen;
use webdancer_train::rl::DapoEnd;
use webdancer_train::serve::{FolderCodec, Served, Weights, Worker, router};
use webdancer_train::sft::End;
use webdancer_train::{checkpoint, device, job, rl};

/// How long a trainer that nobody listens to any more may take to come to the end of its step.
const UNHEARD_GRACE: Duration = Duration::from_secs(20);

/// Exit code of an experiment of which some arms are not done.
const IN_PART: u8 = 3;

/// Trains models on pins, and serves them
#[derive(Debug, Parser)]
#[command(name = "webdancer-train", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Supervised fine-tuning; events go to standard output, one JSON line each
    Sft(Job),
    /// Reinforcement learning from attempts at questions on a closed web (DAPO); events go to standard output
    Dapo(DapoJob),
    /// Let a checkpoint attempt questions on a closed web, and learn nothing; events go to standard output
    Evaluate(EvaluateJob),
    /// Run an experiment: its arms as processes of this program, and a table of what came of them
    Experiment(ExperimentArgs),
    /// Show a row of a pin as a model is trained on it
    Inspect(InspectArgs),
    /// Time a model, training or writing; a line of JSON goes to standard output
    Bench(BenchArgs),
    /// Serve a checkpoint as an endpoint that speaks OpenAI's chat completions
    Serve(Serve),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Folder of the checkpoint
    #[arg(long, value_name = "FOLDER")]
    checkpoint: PathBuf,
    /// Address to listen on; port 0 takes a free one. The address is printed on standard output
    #[arg(long, default_value = "127.0.0.1:8100")]
    listen: SocketAddr,
    /// Name of the model; default: that of the folder
    #[arg(long)]
    model: Option<String>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_parser = |name: &str| Device::try_from(name.to_string()))]
    device: Device,
    /// Sequences written at a time
    #[arg(long, default_value_t = EngineConfig::default().sequences_max)]
    sequences_max: usize,
    /// Tokens of prompt and answer together, at most. Keys and values of `--sequences-max` times as many may be held
    #[arg(long, value_name = "N", default_value_t = EngineConfig::default().context_max)]
    context_tokens_max: usize,
    /// MiB of keys and values kept of earlier sequences, for prompts that begin as they did; 0 keeps none
    #[arg(long, value_name = "MIB", default_value_t = EngineConfig::default().prefix_bytes_max >> 20)]
    prefix_cache_mib: usize,
    /// Write in steps of fixed shapes, which a GPU records as CUDA graphs. Unmeasured
    #[arg(long)]
    cuda_graphs: bool,
    /// The same request is answered by the same bits, whatever else is asked and in whatever order: on one thread of the
    /// processor, one sequence at a time, in a cache of fixed size, with nothing kept between requests
    #[arg(long, conflicts_with_all = ["sequences_max", "prefix_cache_mib", "cuda_graphs"])]
    deterministic: bool,
    /// End when standard input ends, too: with the process that started this one, however that ends
    #[arg(long)]
    until_input_ends: bool,
}

fn main() -> ExitCode {
    device::open_cuda();
    let outcome = match Arguments::parse().command {
        Command::Sft(job) => sft(&job),
        Command::Dapo(job) => dapo(&job),
        Command::Evaluate(job) => evaluate(&job),
        Command::Experiment(arguments) => experiment(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments).map(|()| ExitCode::SUCCESS).map_err(TrainError::from),
        Command::Bench(arguments) => bench(&arguments),
        Command::Serve(arguments) => serve(arguments),
    };
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(stderr(), "error: {error}");
        ExitCode::FAILURE
    })
}

fn sft(job: &Job) -> Result<ExitCode, TrainError> {
    let outcome = until_signalled(|interrupt| job::run(job, interrupt, stdout(), stderr()))?;
    Ok(match outcome.end {
        End::Interrupted => ExitCode::from(INTERRUPTED as u8),
        End::Complete | End::OutOfPatience => ExitCode::SUCCESS,
    })
}

fn dapo(job: &DapoJob) -> Result<ExitCode, TrainError> {
    let outcome = until_signalled(|interrupt| rl::run(job, interrupt, stdout(), stderr()))?;
    Ok(match outcome.end {
        DapoEnd::Interrupted => ExitCode::from(INTERRUPTED as u8),
        DapoEnd::Complete | DapoEnd::OutOfPatience | DapoEnd::NothingToLearn => ExitCode::SUCCESS,
    })
}

fn evaluate(job: &EvaluateJob) -> Result<ExitCode, TrainError> {
    let evaluated = until_signalled(|interrupt| rl::evaluate(job, interrupt, stdout(), stderr()))?;
    Ok(evaluated.questions.map_or(ExitCode::from(INTERRUPTED as u8), |_| ExitCode::SUCCESS))
}

fn experiment(arguments: &ExperimentArgs) -> Result<ExitCode, TrainError> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| TrainError::Usage(format!("finding this program: {error}")))?;
    let ended = until_signalled(|interrupt| {
        let ended = experiment::run(arguments, &program, interrupt, stderr());
        ended.map_err(|error| TrainError::Usage(error.to_string()))
    })?;
    let _ = writeln!(stdout(), "{}", if arguments.json { &ended.json } else { &ended.markdown });
    Ok(if ended.results.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(IN_PART) })
}

fn bench(arguments: &BenchArgs) -> Result<ExitCode, TrainError> {
    let line = bench::run(arguments)?;
    let _ = writeln!(stdout(), "{line}");
    Ok(ExitCode::SUCCESS)
}

/// Runs what looks at a flag that a signal sets.
fn until_signalled<T>(run: impl FnOnce(&AtomicBool) -> Result<T, TrainError>) -> Result<T, TrainError> {
    let interrupt = Arc::new(AtomicBool::new(false));
    let runtime = runtime()?;
    let asked = interrupt.clone();
    runtime.spawn(async move {
        signalled().await;
        asked.store(true, Ordering::Relaxed);
    });
    let unheard_of = interrupt.clone();
    runtime.spawn(async move {
        unheard().await;
        let _ = writeln!(stderr(), "nobody takes the events any more");
        unheard_of.store(true, Ordering::Relaxed);
        tokio::time::sleep(UNHEARD_GRACE).await;
        // What is on disk is whole at any moment; another trainer may wait for the folder.
        std::process::abort();
    });
    run(&interrupt)
}

fn serve(arguments: Serve) -> Result<ExitCode, TrainError> {
    let device = match (arguments.deterministic, arguments.device) {
        (true, Device::Auto) => tch::Device::Cpu,
        (_, asked) => device::device(asked)?,
    };
    if arguments.deterministic {
        device::be_deterministic(device)?;
    }
    let folder = &arguments.checkpoint;
    let codec = Arc::new(FolderCodec::read(folder)?);
    let model = Qwen::read(folder, device::kind(Dtype::Auto, device), device)?;
    let prefix_bytes_max = arguments.prefix_cache_mib.saturating_mul(1 << 20);
    let (sequences_max, context_max) = (arguments.sequences_max, arguments.context_tokens_max);
    let cuda_graphs = arguments.cuda_graphs;
    let config = EngineConfig { sequences_max, context_max, prefix_bytes_max, cuda_graphs, ..EngineConfig::default() };
    let engine = match arguments.deterministic {
        true => Engine::deterministic(config, model, codec.clone())?,
        false => Engine::new(config, model, codec.clone()),
    };
    if let Some(reason) = engine.unrecorded() {
        let _ = writeln!(stderr(), "{reason}");
    }
    let worker = Worker::start(engine).map_err(|error| TrainError::file(folder, error))?;
    let name = || folder.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    let weights = Weights {
        checkpoint_digest: checkpoint::digest_of_model(folder)?,
        tokenizer_digest: Some(codec.tokenizer_digest().to_string()),
    };
    let served = Served { model: arguments.model.unwrap_or_else(name), weights, codec, worker };
    let failed = |error: std::io::Error| TrainError::Usage(format!("{}: {error}", arguments.listen));
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(arguments.listen).await.map_err(failed)?;
        let _ = writeln!(stdout(), "http://{}/v1", listener.local_addr().map_err(failed)?);
        let over = ended(arguments.until_input_ends);
        axum::serve(listener, router(served)).with_graceful_shutdown(over).await.map_err(failed)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime, TrainError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| TrainError::Usage(format!("no threads: {error}")))
}

/// Returns when standard output is a pipe that nobody reads any more, as after the death of who started this process.
async fn unheard() {
    #[allow(
        deprecated,
        reason = "its successor is unsafe for what may be closed meanwhile: standard output stays open"
    )]
    let registered = AsyncFd::with_interest(stdout(), Interest::WRITABLE);
    // Files cannot be waited for.
    let Ok(out) = registered else { return std::future::pending().await };
    while let Ok(mut ready) = out.ready(Interest::ERROR).await {
        if ready.ready().is_error() {
            return;
        }
        ready.clear_ready();
    }
    std::future::pending().await
}

/// Returns at a signal, or when standard input ends, if that is asked for.
async fn ended(with_input: bool) {
    let (tell, told) = tokio::sync::oneshot::channel();
    if with_input {
        // A thread that no shutdown waits for: it may wait for ever.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = tell.send(());
        });
    }
    tokio::select! {
        () = signalled() => {}
        Ok(()) = told => {}
    }
}

/// Returns at SIGINT or SIGTERM; at the next one the process ends at once.
async fn signalled() {
    signal().await;
    tokio::spawn(async {
        signal().await;
        // What is on disk is whole at any moment.
        std::process::exit(INTERRUPTED);
    });
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

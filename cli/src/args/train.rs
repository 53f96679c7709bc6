//! Arguments of `webdancer train`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum TrainCommand {
    /// Supervised fine-tuning on trajectories: on what the agent wrote, not on what it read
    Sft(TrainArgs),
    /// Reinforcement learning (DAPO): the model attempts the questions of a pin on a closed web, and learns from rewards
    Dapo(DapoArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct DapoArgs {
    #[command(flatten)]
    pub(crate) train: TrainArgs,
    /// The web that questions are attempted on: closed:PIN, a pin of pages
    #[arg(long, value_name = "WEB", required_unless_present_any = ["resume", "replay"], conflicts_with_all = ["resume", "replay"])]
    pub(crate) web: Option<String>,
    /// The checkpoint to begin with: its folder, or the beginning of its digest [default: policy.folder of the
    /// configuration]
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "resume")]
    pub(crate) init: Option<String>,
    /// The pin is of trajectories with their rewards: learn from these, and attempt nothing
    #[arg(long, conflicts_with = "resume")]
    pub(crate) replay: bool,
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct TrainArgs {
    /// The pin of trajectories, or of questions to attempt: a name, or the beginning of a digest
    #[arg(long, required_unless_present = "resume", conflicts_with = "resume")]
    pub(crate) pin: Option<String>,
    /// The run's configuration, TOML; `preset = "demo"` and the like in it give defaults. Settings of the command are given
    /// before it: `webdancer --config webdancer.toml train sft --config sft.toml`. `sft` needs
    /// it, `dapo` has a default for everything
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub(crate) config: Option<PathBuf>,
    /// The run's folder on this machine [default: runs/RUN in the lake]
    #[arg(long, value_name = "FOLDER", conflicts_with = "resume")]
    pub(crate) out: Option<PathBuf>,
    /// The same bits from the same inputs, on a processor (deterministic)
    #[arg(long, conflicts_with_all = ["resume", "trainer"])]
    pub(crate) deterministic: bool,
    /// Another trainer than webdancer-train: any program that keeps to the contract of docs/training.md
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) trainer: Option<PathBuf>,
    /// Go on with a run that was stopped or failed
    #[arg(long, value_name = "RUN")]
    pub(crate) resume: Option<String>,
    /// With --resume: tokens of a micro-batch from now on (batch.tokens), where memory ran out; what is longer stays whole
    #[arg(long, value_name = "N", conflicts_with = "pin")]
    pub(crate) batch_tokens: Option<u32>,
    /// With --resume: run layers again on the way back from now on (batch.activation_checkpointing), where memory ran out
    #[arg(long, conflicts_with = "pin")]
    pub(crate) activation_checkpointing: bool,
    /// With --resume: where it computes from now on (device): auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", conflicts_with = "pin")]
    pub(crate) device: Option<String>,
}

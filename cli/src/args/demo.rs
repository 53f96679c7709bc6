//! Arguments of `webdancer demo`.

use std::path::PathBuf;

use clap::ValueEnum;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// Where the demo's lake goes; it is made anew
    #[arg(long, default_value = "demo-lake", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// Less of everything, in two minutes: each stage is gone through, and a little is learnt
    #[arg(long)]
    pub(crate) quick: bool,
    /// What attempts, first weights and orders are drawn by; the worlds stay the same
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u32,
    /// Stop behind this stage; what comes before training needs no trainer
    #[arg(long, value_enum, value_name = "STAGE")]
    pub(crate) until: Option<DemoStage>,
    /// Another trainer than webdancer-train: one that knows `serve`, too
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) trainer: Option<PathBuf>,
}

/// Stages of the demo that it can stop behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoStage {
    /// Data construction: pages, questions, trajectories, pins
    Pins,
}

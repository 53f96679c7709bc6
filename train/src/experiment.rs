//! Experiments: a question, arms that answer it, several seeds of each, and a table.
//!
//! ```text
//! experiments/NAME.toml ─ plan ─▶ arms × seeds, each a chain of stages ─ run ─▶ processes of this very program
//!                                                                                   │ metrics
//!                      results.md, results.json, curves.csv ◀─ table ◀── results ◀──┘
//! ```
//!
//! A stage is a run of `sft`, `dapo` or `evaluate`: the same program, the same settings, a folder of its own that is named by
//! what the stage is of. Two arms that begin alike share what they have in common, and what was finished before is not done
//! again: both follow from the names of the folders.
//!
//! Nothing here links libtorch. The stages do.

mod child;
mod machine;
mod plan;
mod run;
mod stages;
mod table;

use std::path::PathBuf;

pub use self::plan::{ArmPlan, Base, Begin, ExperimentError, Plan, StageKind, StagePlan};
pub use self::run::{Ended, run};
pub use self::stages::{Chain, Stage, Work};
pub use self::table::{ArmResult, Program, Results, StageResult, State};

/// The arguments after `experiment`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct ExperimentArgs {
    /// The experiment: experiments/NAME.toml
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Folder of pins: a folder each, by the names that the experiment has
    #[arg(long, value_name = "FOLDER")]
    pub pins: PathBuf,
    /// Folder for results, in one of the experiment's name, and stages. Stages that it holds already are not done again
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Seeds of each arm, 1 to N [default: those of the experiment; 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub seeds: Option<u64>,
    /// Stages at a time [default: as many as there are processors, and at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Stop what is under way after so many minutes, and tell which arms are incomplete [default: those of the experiment]
    #[arg(long, value_name = "M")]
    pub minutes: Option<f64>,
    /// Only this arm; may be given more than once
    #[arg(long, value_name = "ARM")]
    pub only: Vec<String>,
    /// This preset in place of those that the file has for training, such as demo: a size that a processor can train
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Print results.json in place of the table
    #[arg(long)]
    pub json: bool,
    /// A tiny model, few steps and one seed: whether all of it runs, and nothing about the question
    #[arg(long)]
    pub quick: bool,
}

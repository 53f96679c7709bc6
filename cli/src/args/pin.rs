//! Arguments of `webdancer pin`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::FormatArg;

#[derive(Debug, Subcommand)]
pub(crate) enum PinCommand {
    /// Pin the result of a query
    Create {
        /// Its name, forever
        name: String,
        /// The query
        #[arg(long, conflicts_with = "file", required_unless_present = "file")]
        sql: Option<String>,
        /// Read the query from a file
        #[arg(short, long)]
        file: Option<PathBuf>,
    },
    /// All pins
    List,
    /// One pin's manifest
    Show {
        /// Name, digest or its beginning
        pin: String,
    },
    /// Check a pin's files, and run its query again while the versions exist
    Verify {
        /// Name, digest or its beginning
        pin: String,
    },
    /// Rows that came in, went out or changed between two pins
    Diff {
        /// The first pin
        a: String,
        /// The second pin
        b: String,
        /// Columns that tell which row is which [default: event_id, else the whole row]
        #[arg(long, value_delimiter = ',')]
        key: Vec<String>,
        /// Rows shown of each sort
        #[arg(long, default_value_t = 5)]
        examples: usize,
    },
    /// A pin's rows as one file, or as a folder that another trainer reads
    #[command(
        after_help = "Examples:\n  webdancer pin export train-sft --output train.ndjson\n  webdancer pin export train-sft --as llamafactory --out sft\n  webdancer pin export train-rl --as verl --out rl"
    )]
    Export {
        /// Name, digest or its beginning
        pin: String,
        /// ndjson or parquet
        #[arg(long, value_enum, default_value = "ndjson")]
        format: FormatArg,
        /// The file [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// A dataset for this trainer, with its settings
        #[arg(long = "as", value_enum, value_name = "TRAINER", conflicts_with_all = ["format", "output"])]
        trainer: Option<TrainerArg>,
        /// The folder of --as [default: PIN-TRAINER]
        #[arg(long, value_name = "FOLDER", requires = "trainer")]
        out: Option<PathBuf>,
        /// LLaMA-Factory's name of the model's chat template
        #[arg(long, default_value = "qwen", requires = "trainer")]
        template: String,
        /// The prompt profile that verl asks questions by; trajectories have theirs
        #[arg(long, default_value = "standard", requires = "trainer")]
        profile: String,
    },
}

/// Another trainer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrainerArg {
    /// Trajectories for SFT: sharegpt JSON lines, dataset_info.json, a configuration
    Llamafactory,
    /// Trajectories for SFT, questions for reinforcement learning: Parquet, the reward function, a configuration
    Verl,
}

impl TrainerArg {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TrainerArg::Llamafactory => "llamafactory",
            TrainerArg::Verl => "verl",
        }
    }
}

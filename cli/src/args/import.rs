//! Arguments of `webdancer import`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Trajectories: JSON lines with messages, as sample_traj.jsonl; gzip too
    Trajectories {
        /// The file
        file: PathBuf,
    },
    /// Questions: JSON lines {question, answer, tag}, as sample_qa.jsonl; gzip too
    Qa {
        /// The file
        file: PathBuf,
    },
    /// The prompts that a file of trajectories was made with, for a checkpoint that was trained on them
    Profile {
        /// The file: JSON lines with messages, gzip too
        file: PathBuf,
        /// The profile's name, forever
        #[arg(long, default_value = "published")]
        name: String,
        /// Write the document to this file instead of the lake
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

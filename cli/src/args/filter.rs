//! Arguments of `webdancer filter`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct FilterArgs {
    #[command(subcommand)]
    pub(crate) command: Option<FilterCommand>,
    #[command(flatten)]
    pub(crate) judging: JudgingArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FilterCommand {
    /// The waterfall: what each stage let through, and why it kept the rest back
    Report {
        /// Write the plot to this file, as SVG
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Pin both pools: NAME-sft, the accepted trajectories, and NAME-rl, the questions without one
    Pin {
        /// What the names of both pins begin with
        name: String,
        /// Only questions that this SQL condition holds of, over the columns of current_qa and `world`
        #[arg(long = "where", value_name = "CONDITION")]
        condition: Option<String>,
        /// The same for NAME-rl, in place of --where: questions of another world, say
        #[arg(long = "rl-where", value_name = "CONDITION")]
        rl_condition: Option<String>,
        /// Questions that nobody attempted go to NAME-rl, too
        #[arg(long)]
        untried: bool,
    },
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct JudgingArgs {
    /// Only these stages, comma-separated [default: all]
    #[arg(long = "stage", value_enum, value_delimiter = ',')]
    pub(crate) stages: Vec<StageArg>,
    /// Who judges answers: exact, normalised, gaia, or the role of a model [default: funnel.judge, else normalised]
    #[arg(long, value_name = "NAME|ROLE")]
    pub(crate) judge: Option<String>,
    /// Role of the model that reviews quality [default: funnel.reviewer, else rules alone]
    #[arg(long, value_name = "ROLE")]
    pub(crate) reviewer: Option<String>,
    /// Judge the answers of invalid trajectories, too: a reward needs it
    #[arg(long)]
    pub(crate) invalid_too: bool,
    /// Tools that exist, comma-separated [default: search,visit]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) tools: Vec<String>,
    /// Words of an n-gram [default: 10]
    #[arg(long, value_name = "N")]
    pub(crate) ngram_words: Option<usize>,
    /// How often the most frequent n-gram may occur [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) ngram_count_max: Option<u32>,
    /// Actions at least, the answer among them [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) actions_min: Option<u32>,
    /// Whether forced answers are good enough to learn from [default: false]
    #[arg(long, value_name = "BOOL")]
    pub(crate) forced_answers: Option<bool>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StageArg {
    Validity,
    Correctness,
    Quality,
}

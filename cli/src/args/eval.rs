//! Arguments of `webdancer eval`.

mod run;
mod schedule;
mod view;

use std::path::PathBuf;

use clap::Subcommand;

pub(crate) use run::{EvalRunArgs, OverrideArgs, RescoreArgs, ScorerArgs, StyleArg, VerdictArg, VotesArgs};
pub(crate) use schedule::ScheduleCommand;
pub(crate) use view::{CompareArgs, DriftArgs, EvalView, ReportArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Let a policy attempt a benchmark's questions, and score the answers; goes on where it stopped
    #[command(
        after_help = "Examples:\n  webdancer eval run atlas --policy scripted --attempts 3\n  webdancer eval run gaia --file metadata.jsonl --policy endpoint:qwen --attempts 3\n  webdancer eval run webwalkerqa --limit 50 --web recorded:0190a6b2-…\n  webdancer eval run --run 0190a6b2-…                go on with a run"
    )]
    Run(EvalRunArgs),
    /// Where a benchmark is had and under which terms, what its file looks like, and whether the one that is there is it
    #[command(
        after_help = "Nothing is downloaded. Examples:\n  webdancer eval fetch\n  webdancer eval fetch browsecomp\n  webdancer eval fetch webwalkerqa --file main.json     read it, and say what is in it"
    )]
    Fetch {
        /// The benchmark [default: all of them]
        benchmark: Option<String>,
        /// Read this file, and say what is in it or which rows are malformed [default: benchmarks.NAME.file, if set]
        #[arg(long, requires = "benchmark")]
        file: Option<PathBuf>,
    },
    /// Score a run again, by another scorer or judge, without asking the policy
    #[command(
        after_help = "Examples:\n  webdancer eval rescore 0190a6b2-… --judge judge\n  webdancer eval rescore 0190a6b2-… --scorer judge --style extract"
    )]
    Rescore(RescoreArgs),
    /// Ask a model which answers of a run are the same, where rules cannot tell: majority votes count them together
    #[command(
        after_help = "What the model says is kept as judgments of the stage equivalence, and not asked again.\n\nExample:\n  webdancer eval votes 0190a6b2-… --judge judge"
    )]
    Votes(VotesArgs),
    /// Say yourself whether an answer is correct: it counts before any scorer
    Override(OverrideArgs),
    /// Scores of runs with intervals, by kind of question, and what the runs took
    #[command(
        after_help = "Examples:\n  webdancer eval report                                  every run but a trainer's, a line each\n  webdancer eval report --run 0190a6b2-… --svg run.svg\n  webdancer eval report --run 0190a6b2-… --html run.html   one file to send\n  webdancer eval report --benchmark gaia --by level --markdown"
    )]
    Report(ReportArgs),
    /// Two runs over the same questions: the difference, question by question
    #[command(
        after_help = "Questions that both runs attempted are compared, judged by the same judge. Refused where less than\n98 % of the attempts at them have a verdict. Beside the difference stands why it is, as far as what is\nthere tells: nobody is asked, and `eval drift` makes what is missing.\n\nExample:\n  webdancer eval compare 0190a6b2-… 0190b7c3-… --svg compare.svg"
    )]
    Compare(CompareArgs),
    /// Why the score changed from one run to another: the judge, the model or the web
    #[command(
        after_help = "Where both policy and web differ, each policy is tried on the other's web: runs like any other, which\ngo on where they stopped when the command is repeated. What a live run was shown is served as a closed\nweb. Answers are judged by both judges; no verdict that counts is changed.\n\nExamples:\n  webdancer eval drift 0190a6b2-… 0190b7c3-… --plan     what it would take, without doing it\n  webdancer eval drift 0190a6b2-… 0190b7c3-… --markdown\n  webdancer eval drift 0190a6b2-… 0190b7c3-… --before-policy endpoint:old --after-policy endpoint:new"
    )]
    Drift(DriftArgs),
    /// Evaluations that repeat themselves: [[schedule]] of the settings
    #[command(
        subcommand,
        after_help = "Examples:\n  webdancer eval schedule check webdancer.toml\n  webdancer eval schedule list\n  webdancer eval schedule run                 in the foreground, until stopped; several servers may on one lake\n  webdancer eval schedule run --once          what is due now\n  webdancer eval schedule run-now nightly\n  webdancer eval schedule pause nightly"
    )]
    Schedule(ScheduleCommand),
}

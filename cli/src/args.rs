//! The command line.

mod append;
mod atlas;
mod crawl;
mod dead_letters;
mod demo;
mod endpoints;
mod eval;
mod filter;
mod import;
mod ingest;
mod lineage;
mod maintain;
mod pin;
mod sample;
mod serve;
mod sql;
mod synth;
mod train;

use std::path::PathBuf;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use append::AppendArgs;
pub(crate) use atlas::AtlasArgs;
pub(crate) use crawl::CrawlArgs;
pub(crate) use dead_letters::DeadLettersCommand;
pub(crate) use demo::{DemoArgs, DemoStage};
pub(crate) use endpoints::EndpointsCommand;
pub(crate) use eval::{
    CompareArgs, DriftArgs, EvalCommand, EvalRunArgs, EvalView, OverrideArgs, ReportArgs, RescoreArgs, ScheduleCommand,
    ScorerArgs, StyleArg, VerdictArg, VotesArgs,
};
pub(crate) use filter::{FilterArgs, FilterCommand, JudgingArgs, StageArg};
pub(crate) use import::ImportCommand;
pub(crate) use ingest::IngestArgs;
pub(crate) use lineage::{LineageArgs, ReproduceArgs};
pub(crate) use maintain::MaintainArgs;
pub(crate) use pin::{PinCommand, TrainerArg};
pub(crate) use sample::{LimitArgs, SampleArgs};
pub(crate) use serve::ServeArgs;
pub(crate) use sql::{FormatArg, SqlArgs};
pub(crate) use synth::{CrawlqaArgs, E2hqaArgs, QuestionSource, SynthCommand};
pub(crate) use train::{DapoArgs, TrainArgs, TrainCommand};

/// An event-sourced data lake for web agents: append events, query them with SQL, pin datasets.
///
/// Every crawl, question, trajectory and judgment is an event. Events are appended to a log (Kafka, or an embedded one
/// without a broker) and land exactly once in Delta tables that any engine reads.
#[derive(Debug, Parser)]
#[command(name = "webdancer", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Settings: flags beat the environment, which beats webdancer.toml. `webdancer demo` shows it all."
)]
pub(crate) struct Args {
    /// The lake: a folder, file:///… or s3://bucket/prefix [default: ./lake]
    #[arg(long, global = true, env = "WEBDANCER_LAKE", value_name = "URI")]
    pub(crate) lake: Option<String>,
    /// The event log: embedded, or kafka://host:port[,host:port…] [default: embedded]
    #[arg(long, global = true, env = "WEBDANCER_LOG", value_name = "URI")]
    pub(crate) log: Option<String>,
    /// Settings file [default: webdancer.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The result as JSON on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// More messages; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Errors only, no progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command whose own `--config` is another file: that of the run.
const TRAIN: &str = "train";
const CONFIG: &str = "config";

impl Args {
    /// The command line that this program was started with; ends the program where it is none.
    pub(crate) fn of_process() -> Args {
        let matches = Args::definition().get_matches();
        let mut args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if let Some((_, behind)) = matches.subcommand().filter(|(name, _)| *name != TRAIN) {
            args.config = behind.get_one(CONFIG).cloned().or(args.config);
        }
        args
    }

    /// What may be written. `--config` may stand behind a command as well as before it, like the other settings that
    /// all have; but behind `train` it is the run's, so that both can be given.
    pub(crate) fn definition() -> clap::Command {
        let command = Args::command();
        let config = command.get_arguments().find(|arg| arg.get_id() == CONFIG).cloned();
        let config = config.map(|config| config.global(true));
        command.mut_subcommands(|command| match command.get_name() {
            TRAIN => command,
            _ => command.args(config.clone()),
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Append events: CloudEvents as NDJSON, one a line, from any language
    #[command(
        after_help = "Example:\n  echo '{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"me\",\"type\":\"webdancer.metric.v1\",\"data\":{\"name\":\"loss\",\"step\":1,\"value\":0.5}}' | webdancer append"
    )]
    Append(AppendArgs),
    /// Import the published WebDancer files, losslessly
    #[command(subcommand)]
    Import(ImportCommand),
    /// Move events from the log into the tables, exactly once, until stopped
    Ingest(IngestArgs),
    /// Crawl sites into the lake, politely; goes on where a killed crawl stopped
    Crawl(CrawlArgs),
    /// Let a policy attempt questions on a web, a number of times each; goes on where it stopped
    #[command(
        after_help = "Examples:\n  webdancer sample --policy endpoint:qwen --web live --sql \"SELECT * FROM qa WHERE method = 'crawlqa'\"\n  webdancer sample --run 0190a6b2-…                 go on with a run\n  webdancer sample --policy scripted --web closed:atlas --share   and on other machines:\n  webdancer sample --join 0190a6b2-…"
    )]
    Sample(SampleArgs),
    /// Serve the closed web: an encyclopaedia of countries, real or invented
    Atlas(AtlasArgs),
    /// Write questions with their answers: CRAWLQA and E2HQA
    #[command(subcommand)]
    Synth(SynthCommand),
    /// Query with SQL; without a query, an interactive shell
    #[command(
        after_help = "Examples:\n  webdancer sql \"SELECT method, count(*) FROM qa GROUP BY method\"\n  webdancer sql --format ndjson \"SELECT * FROM tool_calls LIMIT 3\"\n  webdancer sql \"SELECT count(*) FROM at('pages', 5)\"    a table as it was\n  webdancer sql \"SELECT * FROM pin('train') LIMIT 5\"     a pin"
    )]
    Sql(SqlArgs),
    /// Judge trajectories: which are valid, correct and good to learn from
    #[command(
        after_help = "Examples:\n  webdancer filter                       judge what is not judged yet, at every stage\n  webdancer filter --judge gaia\n  webdancer filter --ngram-count-max 3   another rule version of the quality stage\n  webdancer filter report --svg funnel.svg\n  webdancer filter pin train --where \"world LIKE 'invented:%'\"   train-sft and train-rl"
    )]
    Filter(FilterArgs),
    /// Benchmarks: runs over them, what their scores are worth, and which of two runs is better
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Reward trajectories: a tenth for the format, nine for the answer
    Reward,
    /// Train a model on a pin: supervised fine-tuning, reinforcement learning
    #[command(
        subcommand,
        after_help = "Examples:\n  webdancer train sft --pin train-sft --config sft.toml\n  webdancer train sft --resume 0190a6b2-…               go on with a run\n  webdancer train dapo --pin train-rl --web closed:pages --init CHECKPOINT --config dapo.toml"
    )]
    Train(TrainCommand),
    /// Datasets: immutable results of a query
    #[command(subcommand)]
    Pin(PinCommand),
    /// Where something came from and what came of it: from a score to its model, data, questions and pages, and back
    #[command(
        after_help = "Examples:\n  webdancer lineage 0190a6b2-…                      a run: what went in, what came of it\n  webdancer lineage score:0190a6b2-… --down 0       a score: down to the pages behind it\n  webdancer lineage https://docs.python.org/3/      a page: the questions, models and scores that rest on it\n  webdancer lineage train-sft --json                a pin, as nodes and edges\n  webdancer lineage --openlineage --since 2026-01-31T00:00:00Z   runs as OpenLineage events"
    )]
    Lineage(LineageArgs),
    /// Make a run or a pin again from its recorded inputs, and say what is identical, what differs and why
    #[command(
        after_help = "Runs of eval and sample, of sft and dapo, and pins can be made again. Attempts have the seeds, the date and\nthe prompts that they had; a run on the live web is made again on what it recorded. A model gives the same\nbits if its endpoint does: `webdancer-train serve --deterministic --checkpoint FOLDER`.\nExit code 3: it could be made again, and is not identical.\n\nExamples:\n  webdancer reproduce 0190a6b2-…\n  webdancer reproduce 0190a6b2-… --policy endpoint:served --json\n  webdancer reproduce train-sft                    a pin"
    )]
    Reproduce(ReproduceArgs),
    /// What could not be made a row, with its bytes and the reason
    #[command(name = "dead-letters", subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Compact, checkpoint and vacuum the tables, around pins
    Maintain(MaintainArgs),
    /// The chat models' endpoints that the settings file names
    #[command(subcommand)]
    Endpoints(EndpointsCommand),
    /// Serve the dashboard: leaderboard, runs, trajectories, data, training, SQL
    #[command(
        after_help = "Examples:\n  webdancer serve                                   http://127.0.0.1:7878/\n  webdancer --lake s3://team/lake serve --listen 0.0.0.0:7878   behind a proxy that knows who asks\n  webdancer serve --restricted                      rows of gated benchmarks, too, to everybody\n\nEvery page has its state in its address, and a JSON twin: curl 'http://127.0.0.1:7878/?format=json'"
    )]
    Serve(ServeArgs),
    /// From pages to pinned training sets on this machine, without keys or network
    Demo(DemoArgs),
    /// Shell completions on standard output
    Completions {
        /// The shell
        shell: Shell,
    },
}

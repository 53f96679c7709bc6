//! `webdancer eval`: benchmarks, runs over them, and what their scores are worth.

mod again;
mod atlas;
mod benchmarks;
mod compare;
mod drift;
mod fetch;
mod overriding;
mod plan;
mod reading;
mod report;
mod rescore;
mod run;
pub(crate) mod schedule;
mod scorers;
mod tables;
mod votes;

pub(super) use again::again;
pub(super) use run::attempt;
pub(super) use tables::number;

use crate::args::EvalCommand;
use crate::context::Context;
use crate::failure::Failure;

pub(crate) async fn run(context: Context, command: &EvalCommand) -> Result<(), Failure> {
    match command {
        EvalCommand::Fetch { benchmark, file } => fetch::run(&context, benchmark.as_deref(), file.as_deref()),
        // A lake that is not there yet is made: a benchmark needs nothing of it.
        EvalCommand::Run(args) => run::run(&context, args).await,
        EvalCommand::Rescore(args) => rescore::run(&context.existing().await?, args).await,
        EvalCommand::Override(args) => overriding::run(&context.existing().await?, args).await,
        EvalCommand::Votes(args) => votes::run(&context.existing().await?, args).await,
        EvalCommand::Report(args) => report::run(&context.existing().await?, args).await,
        EvalCommand::Drift(args) => drift::run(&context.existing().await?, args).await,
        EvalCommand::Compare(args) => compare::run(&context.existing().await?, args).await,
        EvalCommand::Schedule(command) => schedule::run(context, command).await,
    }
}

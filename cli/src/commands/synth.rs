//! `webdancer synth`: questions about the atlas by a program, about any pages by models.

mod atlas;
mod models;

use crate::args::SynthCommand;
use crate::context::Context;
use crate::failure::Failure;

pub(crate) use atlas::{Report, Rewritten, run_crawlqa, run_e2hqa};

pub(crate) async fn run(context: &Context, command: &SynthCommand) -> Result<(), Failure> {
    match command {
        SynthCommand::Crawlqa(args) if args.source.is_missing() => Err(Failure::usage(
            "questions about which pages? --sql QUERY or --pin PIN of crawled ones, by models; or --atlas, without any",
        )),
        SynthCommand::E2hqa(args) if args.source.is_missing() => Err(Failure::usage(
            "which questions are to be made hard? those of --sql QUERY or --pin PIN, by models; or --atlas, without any",
        )),
        SynthCommand::Crawlqa(args) if args.source.atlas => atlas::crawlqa(context, args).await,
        SynthCommand::Crawlqa(args) => models::crawlqa(context, args).await,
        SynthCommand::E2hqa(args) if args.source.atlas => atlas::e2hqa(context, args).await,
        SynthCommand::E2hqa(args) => models::e2hqa(context, args).await,
    }
}

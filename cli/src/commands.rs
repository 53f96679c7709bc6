//! The subcommands, one file each.

mod append;
mod atlas;
mod claims;
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
mod reproduce;
mod reward;
mod sample;
mod script;
mod serve;
mod shell;
mod sql;
mod synth;
mod train;

use crate::args::{Args, Command};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Runs the command asked for.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    match &args.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::definition(), "webdancer", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Atlas(atlas) => atlas::run(atlas, args.json).await,
        Command::Demo(demo) => demo::run(demo, &args).await,
        Command::Endpoints(endpoints) => endpoints::run(endpoints, &args).await,
        command => {
            let context = Context::new(&args)?;
            match command {
                Command::Append(append) => append::run(&context, append).await,
                Command::Import(import) => import::run(&context, import).await,
                Command::Ingest(ingest) => ingest::run(&context.fed_by_kafka_or_existing().await?, ingest).await,
                Command::Crawl(crawl) => crawl::run(&context, crawl).await,
                Command::Synth(synth) => synth::run(&context, synth).await,
                Command::Sample(sample) => sample::run(&context.existing().await?, sample).await,
                Command::Sql(sql) => sql::run(&context.existing().await?, sql).await,
                Command::Filter(filter) => filter::run(&context.existing().await?, filter).await,
                Command::Reward => reward::run(&context.existing().await?).await,
                Command::Train(train) => train::run(&context.existing().await?, train).await,
                Command::Eval(eval) => eval::run(context, eval).await,
                Command::Lineage(lineage) => lineage::run(&context.existing().await?, lineage).await,
                Command::Reproduce(reproduce) => reproduce::run(&context.existing().await?, reproduce).await,
                Command::Pin(pin) => pin::run(&context.existing().await?, pin).await,
                Command::DeadLetters(letters) => dead_letters::run(&context.existing().await?, letters).await,
                Command::Serve(serve) => serve::run(&context.existing().await?, serve).await,
                Command::Maintain(maintain) => maintain::run(&context.existing().await?, maintain).await,
                Command::Completions { .. } | Command::Atlas(_) | Command::Demo(_) | Command::Endpoints(_) => Ok(()),
            }
        }
    }
}

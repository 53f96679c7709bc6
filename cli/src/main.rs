//! The `webdancer` command.

mod acting;
mod args;
mod columns;
mod commands;
mod config;
mod context;
mod failure;
mod fitting;
mod lake_pages;
mod output;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::Args;
use crate::failure::Failure;

/// SQL planning recurses; at opt-level 0 the default 2 MiB of a worker's stack are not enough.
const STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    webdancer_schemas::code::name_commit(option_env!("WEBDANCER_COMMIT"));
    let args = Args::of_process();
    init_tracing(args.verbose, args.quiet);
    keep_panics_of_queries();
    // On a thread of our own: main's stack is not ours to size.
    let running = std::thread::Builder::new().name("main".to_string()).stack_size(STACK_BYTES).spawn(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build();
        match runtime {
            Ok(runtime) => {
                let outcome = runtime.block_on(commands::run(args));
                // A call to a broker that does not answer must not hold up the end.
                runtime.shutdown_timeout(std::time::Duration::from_secs(1));
                outcome
            }
            Err(error) => Err(Failure::failed(format!("starting the runtime: {error}"))),
        }
    });
    let outcome = match running.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Failure::failed("the command broke off; its message is above")),
        Err(error) => Err(Failure::failed(format!("starting a thread: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&format!("webdancer: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// A panic on a thread of the query engine comes back as an error, in our words: the library's are for `-v`.
fn keep_panics_of_queries() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some(webdancer_query::THREAD_NAME) {
            tracing::info!("{panic}");
        } else {
            tell(panic);
        }
    }));
}

/// Messages go to standard error; RUST_LOG overrides the flags.
fn init_tracing(verbose: u8, quiet: bool) {
    let default = match (quiet, verbose) {
        // What the table format's libraries say comes back as an error, and is told once, in our words.
        (true, _) => "error,deltalake_core=off,delta_kernel=off,buoyant_kernel=off",
        (false, 0) => "warn,deltalake_core=off,delta_kernel=off,buoyant_kernel=off",
        (false, 1) => {
            "webdancer=info,webdancer_lake=info,webdancer_ingest=info,webdancer_synth=info,webdancer_query=info,warn"
        }
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
    // A file of messages is read with grep: colours are for terminals, unless NO_COLOR says no.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| output::AboveBars)
        .with_target(false)
        .with_ansi(colours)
        .finish()
        .with(filter_fn(|message| is_told(message.target(), *message.level())))
        .init();
}

/// URLs may hold keys, which the HTTP libraries do not know: they warn, and say no more, whatever is asked for.
fn is_told(target: &str, level: Level) -> bool {
    let library = target.split("::").next().unwrap_or(target);
    level <= Level::WARN || !["h2", "hyper", "hyper_util", "reqwest", "tower"].contains(&library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_see_urls_with_keys_warn_and_say_no_more() {
        for (target, level, told) in [
            ("h2::codec::framed_read", Level::DEBUG, false),
            ("hyper_util::client::legacy::connect::http", Level::TRACE, false),
            ("reqwest", Level::INFO, false),
            ("reqwest::connect", Level::WARN, true),
            ("hyper", Level::ERROR, true),
            ("webdancer_agent::chat", Level::TRACE, true),
        ] {
            assert_eq!(is_told(target, level), told, "{target} {level}");
        }
    }
}

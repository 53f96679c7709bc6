//! Arguments of `webdancer append`.

use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct AppendArgs {
    /// File of events; - or nothing: standard input
    pub(crate) file: Option<PathBuf>,
    /// Print each event's id on a line of its own as soon as it is durable
    #[arg(long)]
    pub(crate) ids: bool,
}

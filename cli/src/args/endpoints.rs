//! Arguments of `webdancer endpoints`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointsCommand {
    /// Ask each one a word: whether it answers, how fast, and what it returns besides
    Check {
        /// Only these
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

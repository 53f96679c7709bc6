//! Arguments of `webdancer dead-letters`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// The newest, with their reasons
    List {
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u64,
    },
    /// One, with its bytes
    Show {
        /// Event id of the dead letter
        id: String,
    },
    /// Decode them again with today's schema; those that fit are appended
    Replay {
        /// Only these event ids
        ids: Vec<String>,
    },
}

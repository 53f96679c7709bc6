//! Arguments of `webdancer ingest`.

#[derive(Debug, clap::Args)]
pub(crate) struct IngestArgs {
    /// Stop when everything that is in the log now is in the tables
    #[arg(long)]
    pub(crate) until_caught_up: bool,
    /// Take up a topic that was deleted and made again, from its beginning
    #[arg(long, value_name = "TOPIC")]
    pub(crate) accept_new_topic: Vec<String>,
    /// Take up an embedded log that is an older copy: all of it is read, and events that the tables have are left out
    #[arg(long)]
    pub(crate) accept_older_log: bool,
    /// Only these kinds, comma-separated; for Kafka
    #[arg(long, value_delimiter = ',')]
    pub(crate) kinds: Vec<String>,
}

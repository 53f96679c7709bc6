//! Arguments of `webdancer maintain`.

#[derive(Debug, clap::Args)]
pub(crate) struct MaintainArgs {
    /// Only these tables, comma-separated
    #[arg(long, value_delimiter = ',')]
    pub(crate) tables: Vec<String>,
    /// Remove files that no version younger than this needs, in hours; pinned versions stay
    ///
    /// At least 25: a pin may be in the making for 24 hours, and reads the files of the version that it began with.
    #[arg(long, default_value_t = 168, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) vacuum_older_than: u64,
    /// Allow less for --vacuum-older-than, down to 1: queries and pins that are running may fail
    #[arg(long)]
    pub(crate) unsafe_vacuum: bool,
    /// Remove no files
    #[arg(long)]
    pub(crate) no_vacuum: bool,
    /// Remove commits from the tables' logs that are older than this, in hours, and covered by a checkpoint; pinned
    /// versions stay
    #[arg(long, default_value_t = 720, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(24..))]
    pub(crate) log_older_than: u64,
    /// Keep the tables' logs whole
    #[arg(long)]
    pub(crate) no_log_cleanup: bool,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

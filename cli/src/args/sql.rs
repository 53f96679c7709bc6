//! Arguments of `webdancer sql`.

use std::path::PathBuf;

use clap::ValueEnum;

#[derive(Debug, clap::Args)]
pub(crate) struct SqlArgs {
    /// Statements, each but the last ended by a semicolon
    pub(crate) query: Option<String>,
    /// Read the statements from a file
    #[arg(short, long, conflicts_with = "query")]
    pub(crate) file: Option<PathBuf>,
    /// All tables as they were at this time, or at this version
    #[arg(long, value_name = "TIME|VERSION")]
    pub(crate) at: Option<String>,
    /// Output format [default: table on a terminal, csv elsewhere; --json: json]
    #[arg(long, value_enum)]
    pub(crate) format: Option<FormatArg>,
    /// Write to this file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Rows at most
    #[arg(long, value_name = "N")]
    pub(crate) max_rows: Option<u64>,
    /// Seconds at most
    #[arg(long, value_name = "S")]
    pub(crate) timeout: Option<u64>,
    /// Query what is in the tables without moving the embedded log's events there first
    #[arg(long)]
    pub(crate) no_drain: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FormatArg {
    Table,
    Csv,
    Json,
    Ndjson,
    Parquet,
}

//! Arguments of `webdancer serve`.

use std::net::SocketAddr;

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; beyond loopback whoever reaches it reads the lake: put a proxy before it
    #[arg(long, default_value = "127.0.0.1:7878")]
    pub(crate) listen: SocketAddr,
    /// Show everybody rows of gated benchmarks, too: questions, answers, trajectories. The setting serve.restricted_groups shows them to some readers
    #[arg(long)]
    pub(crate) restricted: bool,
    /// Show what is in the tables, and leave the embedded log to other commands
    #[arg(long)]
    pub(crate) no_ingest: bool,
    /// Run no schedules of the settings
    #[arg(long)]
    pub(crate) no_schedules: bool,
}

//! Arguments of `webdancer crawl`.

use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct CrawlArgs {
    /// Where to start
    #[arg(required = true, value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// Links followed from a root
    #[arg(long, default_value_t = 5)]
    pub(crate) depth: u32,
    /// Pages recorded at most
    #[arg(long, default_value_t = 10_000)]
    pub(crate) max_pages: u64,
    /// Follow links to these hosts too; `any` for all
    #[arg(long, value_delimiter = ',', value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// Milliseconds between requests to a host [default: 500; with --connections 0]
    #[arg(long, value_name = "MS")]
    pub(crate) delay_ms: Option<u64>,
    /// Pages fetched at once, and connections to one host: for a site of your own
    #[arg(long, value_name = "N")]
    pub(crate) connections: Option<usize>,
    /// Fetch from private and loopback addresses too
    #[arg(long)]
    pub(crate) allow_private: bool,
    /// Folder that remembers how far the crawl is [default: one per set of roots, in a local lake's folder or the user's state folder]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) state: Option<PathBuf>,
}

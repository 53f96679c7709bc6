//! Arguments of `webdancer atlas`.

use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct AtlasArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8750")]
    pub(crate) listen: SocketAddr,
    /// A world of invented countries, made from this seed, in place of the real ones
    #[arg(long, value_name = "SEED")]
    pub(crate) invent: Option<u64>,
    /// Serve the files of this folder instead
    #[arg(long, value_name = "FOLDER", conflicts_with = "invent")]
    pub(crate) folder: Option<PathBuf>,
    /// Print the facts as CSV and serve nothing
    #[arg(long, conflicts_with = "folder")]
    pub(crate) csv: bool,
}

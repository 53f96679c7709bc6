//! `webdancer atlas`

use webdancer_synth::atlas::{self, World};
use webdancer_synth::site::{Server, static_site};

use crate::args::AtlasArgs;
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(args: &AtlasArgs, json: bool) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::failed(format!("serving on {}: {e}", args.listen));
    let server = match &args.folder {
        Some(folder) if !folder.is_dir() => return Err(Failure::usage(format!("{} is no folder", folder.display()))),
        Some(folder) => Server::start(static_site(folder), args.listen).await.map_err(failed)?,
        None => {
            let world = match args.invent {
                Some(seed) => World::invent(seed),
                None => World::real(),
            };
            let world = world.map_err(|e| Failure::failed(e.to_string()))?;
            if args.csv {
                let csv = world.to_csv().map_err(|e| Failure::failed(e.to_string()))?;
                return output::line(csv.trim_end());
            }
            atlas::serve(world, args.listen).await.map_err(failed)?
        }
    };
    if json {
        output::json(&serde_json::json!({"url": server.url()}))?;
    } else {
        output::line(&format!("serving {} until interrupted", server.url()))?;
    }
    super::ingest::stopped().await;
    server.stop().await.map_err(failed)
}

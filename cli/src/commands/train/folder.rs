//! The folder of a run: what the trainer is given in it.

use std::fs::File;
use std::path::{Path, PathBuf};

use webdancer_lake::pins::PinManifest;

use super::plan::Plan;
use crate::context::Context;
use crate::failure::Failure;

/// The configuration in a run's folder.
pub(super) const CONFIG_FILE: &str = "config.toml";
/// Held while a process works on the run.
const LOCK_FILE: &str = "lock";
/// The pin in a run's folder, where the lake is not on this machine; and that of pages.
const PIN_FOLDER: &str = "pin";
const PAGES_FOLDER: &str = "pages";

/// A run's folder, made ready; no other process works in it while this lives.
#[derive(Debug)]
pub(super) struct RunFolder {
    /// The manifest of the pin, on this machine.
    pub(super) manifest: PathBuf,
    /// That of the pin of pages, if there is one.
    pub(super) pages: Option<PathBuf>,
    _lock: File,
}

/// Makes the folder, or takes up the one that is there.
pub(super) async fn prepare(context: &Context, plan: &Plan) -> Result<RunFolder, Failure> {
    let folder = &plan.folder;
    let fault = |error: std::io::Error| Failure::failed(format!("the run's folder {}: {error}", folder.display()));
    if plan.goes_on && !folder.exists() {
        return Err(Failure::failed(format!(
            "run {} lies in {}, which is not there: a run goes on where its checkpoints are",
            plan.run_id,
            folder.display()
        )));
    }
    std::fs::create_dir_all(folder).map_err(fault)?;
    let lock = File::create(folder.join(LOCK_FILE)).map_err(fault)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            return Err(Failure::busy(format!("another process works in {}", folder.display())));
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(fault(error)),
    }
    let config = folder.join(CONFIG_FILE);
    if !plan.goes_on {
        // A folder that was given may hold another run.
        File::create_new(&config).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Failure::usage(format!("{} holds a run already: give another --out", folder.display()))
            }
            _ => fault(error),
        })?;
    }
    std::fs::write(&config, &plan.config_text).map_err(fault)?;
    let pin = context.lake.find_pin(&plan.pin_id).await?;
    let pin = PinManifest { name: plan.pin_name.clone(), ..pin };
    let manifest_of_pin = manifest(context, &pin, &folder.join(PIN_FOLDER)).await?;
    let pages = match &plan.pages_id {
        Some(digest) => {
            let pin = context.lake.find_pin(digest).await?;
            Some(manifest(context, &pin, &folder.join(PAGES_FOLDER)).await?)
        }
        None => None,
    };
    Ok(RunFolder { manifest: manifest_of_pin, pages, _lock: lock })
}

/// The manifest on this machine: the lake's own, or that of a copy of the pin with its files.
async fn manifest(context: &Context, pin: &PinManifest, copy: &Path) -> Result<PathBuf, Failure> {
    let (url, bytes) = context.lake.stored_manifest(pin).await?;
    let name = url.rsplit('/').next().unwrap_or("manifest.json");
    if let Some(lake) = context.lake.local_path() {
        return std::path::absolute(lake.join("pins").join(&pin.digest).join(name))
            .map_err(|error| Failure::failed(format!("the pin's folder: {error}")));
    }
    let fault = |error: std::io::Error| Failure::failed(format!("copying the pin to {}: {error}", copy.display()));
    std::fs::create_dir_all(copy).map_err(fault)?;
    for file in &pin.files {
        let place = copy.join(&file.path);
        let there = std::fs::metadata(&place).is_ok_and(|found| found.len() == file.bytes);
        if !there {
            let bytes = context.lake.read_pin_file(&pin.digest, &file.path).await?;
            std::fs::write(&place, bytes).map_err(fault)?;
        }
    }
    let place = copy.join("manifest.json");
    std::fs::write(&place, bytes).map_err(fault)?;
    Ok(place)
}

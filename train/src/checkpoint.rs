//! Checkpoints: a Hugging Face folder with a digest, and beside the weights what a run needs to go on.
//!
//! ```text
//! checkpoints/step-00000100/
//!     config.json, model.safetensors, tokenizer.json, …   what transformers, vLLM and SGLang load
//!     adapter/adapter_config.json, …                      with LoRA: what was added to the weights, as PEFT loads it
//!     trainer/optimizer.safetensors, trainer/state.json   what resuming needs
//!     digests.json                                        every file's SHA-256, written last
//! ```
//!
//! A checkpoint is written under another name, file by file to the disk, and renamed when it is whole: a folder of the
//! right name is a complete checkpoint, whenever the process or the machine died.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::Kind;

use crate::error::TrainError;
use crate::model::{Qwen, weights};
use crate::optim::AdamW;

/// The file of digests.
pub const DIGESTS: &str = "digests.json";
const OPTIMIZER: &str = "trainer/optimizer.safetensors";
const STATE: &str = "trainer/state.json";
/// The folder of what the optimiser and the run need.
const TRAINER: &str = "trainer";
/// The folder of adapters, in PEFT's layout.
pub const ADAPTER: &str = "adapter";
/// What the names of checkpoints begin with; the step follows.
const STEP: &str = "step-";
/// What the names of those end with that are not whole.
const PARTIAL: &str = ".partial";
/// What is taken over from the folder that training began with.
const COMPANIONS: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
];

/// Where a run stands, between two steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Updates done.
    pub step: u64,
    /// Tokens run through the model.
    pub tokens: u64,
    /// The lowest validation loss so far.
    pub best_loss: Option<f64>,
    /// The step that had it.
    pub best_step: Option<u64>,
    /// Validations since, without a lower one.
    pub validations_since_best: u64,
    /// The last step behind which the run was validated. Where a validation was due and an interrupt left it out, it is
    /// another than `step`.
    #[serde(default)]
    pub validated_step: u64,
    /// What the run is of: pin, base model, settings. Only the same may be resumed.
    pub fingerprint: String,
}

/// A complete checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub folder: PathBuf,
    /// Identity of the model: SHA-256 over names and digests of its files, without those of trainer and adapters.
    pub digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Digests {
    digest: String,
    files: BTreeMap<String, FileDigest>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FileDigest {
    bytes: u64,
    sha256: String,
}

/// Writes a checkpoint of a step into `checkpoints`; `base` is the folder that training began with.
///
/// # Errors
///
/// A file could not be written. Then no checkpoint is there, and what was begun is removed.
pub fn write<S: Serialize>(
    checkpoints: &Path,
    base: &Path,
    model: &Qwen,
    precision: Kind,
    trainer: Option<(&AdamW, &S)>,
    name: &str,
) -> Result<Checkpoint, TrainError> {
    let partial = checkpoints.join(format!(".{name}{PARTIAL}"));
    let folder = checkpoints.join(name);
    // Left by a process that was killed.
    remove(&partial)?;
    let written = write_files(&partial, base, model, precision, trainer).and_then(|digest| {
        let before = set_aside(checkpoints, name)?;
        fs::rename(&partial, &folder).map_err(|error| TrainError::file(&folder, error))?;
        sync_folder(checkpoints)?;
        remove(&before)?;
        Ok(Checkpoint { folder, digest })
    });
    if written.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

/// The name of the checkpoint of a step.
pub fn name_of(step: u64) -> String {
    format!("{STEP}{step:08}")
}

/// Removes a checkpoint; half of one is never there under its name.
///
/// # Errors
///
/// It cannot be renamed or removed.
pub fn discard(checkpoints: &Path, name: &str) -> Result<(), TrainError> {
    remove(&set_aside(checkpoints, name)?)
}

/// Gives a checkpoint that is to go another name: that.
fn set_aside(checkpoints: &Path, name: &str) -> Result<PathBuf, TrainError> {
    let (folder, aside) = (checkpoints.join(name), checkpoints.join(format!(".{name}.old{PARTIAL}")));
    remove(&aside)?;
    match fs::rename(&folder, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(TrainError::file(&folder, error)),
        _ => Ok(aside),
    }
}

/// Removes what processes that died have left of checkpoints.
///
/// # Errors
///
/// The folder cannot be listed, or what is in it not removed.
pub fn sweep(checkpoints: &Path) -> Result<(), TrainError> {
    let left = |name: &str| name.starts_with(".step-") && name.ends_with(PARTIAL);
    named(checkpoints, left)?.iter().try_for_each(|folder| remove(folder))
}

/// The folder of the highest step in `checkpoints`, if there is one.
///
/// # Errors
///
/// The folder cannot be listed.
pub fn latest(checkpoints: &Path) -> Result<Option<PathBuf>, TrainError> {
    Ok(all(checkpoints)?.pop())
}

/// All checkpoints, lowest step first.
///
/// # Errors
///
/// The folder cannot be listed.
pub fn all(checkpoints: &Path) -> Result<Vec<PathBuf>, TrainError> {
    named(checkpoints, |name| name.starts_with(STEP))
}

/// The step of a checkpoint, by the name of its folder.
pub fn step_of(folder: &Path) -> Option<u64> {
    folder.file_name()?.to_str()?.strip_prefix(STEP)?.parse().ok()
}

/// A checkpoint as its list of digests has it; its files are not read.
///
/// # Errors
///
/// The list is missing or broken.
pub fn listed(folder: &Path) -> Result<Checkpoint, TrainError> {
    Ok(Checkpoint { folder: folder.to_path_buf(), digest: list_of(folder)?.digest })
}

/// The digest of a folder with a model, if it is a checkpoint of ours; every file is held against it.
///
/// # Errors
///
/// It is one, and not as it was written.
pub fn digest_of_model(folder: &Path) -> Result<Option<String>, TrainError> {
    if folder.join(DIGESTS).exists() { verify(folder).map(|found| Some(found.digest)) } else { Ok(None) }
}

/// Reads every file of a checkpoint and holds it against `digests.json`.
///
/// # Errors
///
/// A file is missing, was changed, or is not listed.
pub fn verify(folder: &Path) -> Result<Checkpoint, TrainError> {
    let told = list_of(folder)?;
    let found = digests(folder)?;
    for (name, digest) in &told.files {
        match found.files.get(name) {
            Some(is) if is == digest => {}
            Some(_) => {
                return Err(TrainError::file(&folder.join(name), "was changed after the checkpoint was written"));
            }
            None => return Err(TrainError::file(&folder.join(name), "is missing from the checkpoint")),
        }
    }
    if found.digest != told.digest {
        return Err(TrainError::file(&folder.join(DIGESTS), "does not list all files of the model"));
    }
    Ok(Checkpoint { folder: folder.to_path_buf(), digest: told.digest })
}

fn list_of(folder: &Path) -> Result<Digests, TrainError> {
    let path = folder.join(DIGESTS);
    let text = fs::read(&path).map_err(|error| TrainError::file(&path, error))?;
    serde_json::from_slice(&text).map_err(|error| TrainError::file(&path, format!("is broken: {error}")))
}

/// The model of a checkpoint, of the kind that `model` is, the one that the run began with. Of adapters these alone are
/// read: they belong beside the weights that they were trained beside, and not beside those that they were added to.
///
/// # Errors
///
/// A file is missing or broken, or of another model.
pub fn read_model(folder: &Path, model: Qwen) -> Result<Qwen, TrainError> {
    if let Some(adapters) = model.adapters() {
        adapters.read(&folder.join(ADAPTER))?;
        return Ok(model);
    }
    let (kind, device) = (model.head().kind(), model.head().device());
    let activation_checkpointing = model.activation_checkpointing();
    // There need not be room for two.
    drop(model);
    Ok(Qwen::read(folder, kind, device)?.with_activation_checkpointing(activation_checkpointing))
}

/// Reads the optimiser of a checkpoint.
///
/// # Errors
///
/// The file is missing or broken, or of another model.
pub fn read_optimizer(folder: &Path, optimizer: &mut AdamW) -> Result<(), TrainError> {
    optimizer.read(&folder.join(OPTIMIZER))
}

/// Reads where the run of a checkpoint stood.
///
/// # Errors
///
/// The file is missing or broken.
pub fn read_state<S: DeserializeOwned>(folder: &Path) -> Result<S, TrainError> {
    let path = folder.join(STATE);
    let text = fs::read(&path).map_err(|error| TrainError::file(&path, error))?;
    serde_json::from_slice(&text).map_err(|error| TrainError::file(&path, format!("is broken: {error}")))
}

fn write_files<S: Serialize>(
    folder: &Path,
    base: &Path,
    model: &Qwen,
    precision: Kind,
    trainer: Option<(&AdamW, &S)>,
) -> Result<String, TrainError> {
    fs::create_dir_all(folder).map_err(|error| TrainError::file(folder, error))?;
    model.config().write(folder, precision)?;
    model.write_weights(folder, precision, weights::SHARD_BYTES)?;
    if let Some(adapters) = model.adapters() {
        let within = folder.join(ADAPTER);
        fs::create_dir_all(&within).map_err(|error| TrainError::file(&within, error))?;
        adapters.write(&within, base)?;
        sync_folder(&within)?;
    }
    for name in COMPANIONS {
        let from = base.join(name);
        if from.exists() {
            let bytes = fs::read(&from).map_err(|error| TrainError::file(&from, error))?;
            weights::write_bytes(&folder.join(name), &bytes)?;
        }
    }
    if let Some((optimizer, state)) = trainer {
        let within = folder.join(TRAINER);
        fs::create_dir_all(&within).map_err(|error| TrainError::file(&within, error))?;
        optimizer.write(&folder.join(OPTIMIZER))?;
        weights::write_bytes(&folder.join(STATE), &json(state)?)?;
        sync_folder(&within)?;
    }
    let digests = digests(folder)?;
    weights::write_bytes(&folder.join(DIGESTS), &json(&digests)?)?;
    sync_folder(folder)?;
    Ok(digests.digest)
}

/// Digests of all files of a checkpoint but the list of digests itself.
fn digests(folder: &Path) -> Result<Digests, TrainError> {
    let mut files = BTreeMap::new();
    for within in ["", ADAPTER, TRAINER] {
        let place = folder.join(within);
        if !place.exists() {
            continue;
        }
        for entry in fs::read_dir(&place).map_err(|error| TrainError::file(&place, error))? {
            let path = entry.map_err(|error| TrainError::file(&place, error))?.path();
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
            if path.is_file() && name != DIGESTS {
                files.insert(name, digest_of(&path)?);
            }
        }
    }
    let mut identity = Sha256::new();
    for (name, file) in files.iter().filter(|(name, _)| !name.contains('/')) {
        identity.update(format!("{}  {name}\n", file.sha256));
    }
    Ok(Digests { digest: hex(&identity.finalize()), files })
}

/// A digest of the weights in a Hugging Face folder, of whatever origin: SHA-256 over names and digests of its shards.
///
/// # Errors
///
/// A file cannot be read.
pub fn digest_of_weights(folder: &Path) -> Result<String, TrainError> {
    let mut identity = Sha256::new();
    for path in named(folder, |name| name.ends_with(".safetensors"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        identity.update(format!("{}  {name}\n", digest_of(&path)?.sha256));
    }
    Ok(hex(&identity.finalize()))
}

/// What is in a folder under names that are `wanted`, sorted; nothing where there is no folder.
fn named(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, TrainError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let list = fs::read_dir(folder).map_err(|error| TrainError::file(folder, error))?;
    let mut paths: Vec<PathBuf> = list
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy())))
        .collect();
    paths.sort();
    Ok(paths)
}

fn digest_of(path: &Path) -> Result<FileDigest, TrainError> {
    let failed = |error| TrainError::file(path, error);
    let mut file = File::open(path).map_err(failed)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(FileDigest { bytes, sha256: hex(&hash.finalize()) }),
            count => {
                hash.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, TrainError> {
    serde_json::to_vec_pretty(value).map_err(|error| TrainError::Usage(error.to_string()))
}

fn remove(folder: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(TrainError::file(folder, error)),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| TrainError::file(folder, error))
}

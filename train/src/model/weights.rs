//! Weights on disk: safetensors shards in and out, in the layout of Hugging Face folders.
//!
//! A shard is memory-mapped by libtorch itself (private, copy on write), so a tensor costs memory when it is copied to
//! its place, and no unsafe code is needed here.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorInfo, View};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::error::{TrainError, guard};
use crate::input::read_file;

/// The file of a model in one shard.
pub const SINGLE: &str = "model.safetensors";
/// The file that says which shard holds which tensor.
pub const INDEX: &str = "model.safetensors.index.json";
/// A shard's data at most, unless one tensor is larger: what transformers writes.
pub const SHARD_BYTES: usize = 5_000_000_000;
/// Bytes of an index: a line for each tensor.
const INDEX_BYTES_MAX: u64 = 64 << 20;
/// A header at most: the limit of the format.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// The mapped tensors of a folder, in the formats that they are stored in.
#[derive(Debug)]
pub struct Weights {
    /// Where they lie: a folder, or a file.
    folder: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// Maps the shards of a folder.
    ///
    /// # Errors
    ///
    /// A file is missing or cut short, its header is broken, or the index names what a shard lacks.
    pub fn open(folder: &Path) -> Result<Self, TrainError> {
        let index = folder.join(INDEX);
        let mut tensors = BTreeMap::new();
        if !index.exists() {
            tensors.extend(map(&folder.join(SINGLE))?);
            return Ok(Self { folder: folder.to_path_buf(), tensors });
        }
        let text = read_file(&index, INDEX_BYTES_MAX)?;
        let text: Value =
            serde_json::from_slice(&text).map_err(|error| TrainError::file(&index, format!("is not JSON: {error}")))?;
        let entries = text.get("weight_map").and_then(Value::as_object);
        let entries = entries.ok_or_else(|| TrainError::file(&index, "has no weight_map"))?;
        let mut shards: BTreeMap<&str, BTreeMap<String, Tensor>> = BTreeMap::new();
        for (name, shard) in entries {
            let shard = shard.as_str().filter(|shard| !shard.contains(['/', '\\']));
            let shard =
                shard.ok_or_else(|| TrainError::file(&index, format!("{name} is in no file of this folder")))?;
            if !shards.contains_key(shard) {
                shards.insert(shard, map(&folder.join(shard))?);
            }
            let tensor = shards.get_mut(shard).and_then(|held| held.remove(name));
            let tensor = tensor
                .ok_or_else(|| TrainError::file(&folder.join(shard), format!("lacks {name}, which the index names")))?;
            tensors.insert(name.clone(), tensor);
        }
        Ok(Self { folder: folder.to_path_buf(), tensors })
    }

    /// Maps one file.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn of_file(path: &Path) -> Result<Self, TrainError> {
        Ok(Self { folder: path.to_path_buf(), tensors: map(path)? })
    }

    /// Looks whether a tensor can be copied to a place of this shape.
    ///
    /// # Errors
    ///
    /// There is none of this name, or it has another shape, or holds no floating-point numbers.
    pub fn check(&self, name: &str, wanted: &[i64]) -> Result<(), TrainError> {
        let tensor = self.tensors.get(name);
        let tensor = tensor.ok_or_else(|| TrainError::file(&self.folder, format!("has no weights named {name}")))?;
        if tensor.size() != wanted {
            let is = tensor.size();
            return Err(TrainError::file(
                &self.folder,
                format!("{name} has shape {is:?}; config.json asks for {wanted:?}"),
            ));
        }
        if !matches!(tensor.kind(), Kind::Float | Kind::BFloat16 | Kind::Half) {
            let kind = tensor.kind();
            return Err(TrainError::file(
                &self.folder,
                format!("{name} is stored as {kind:?}; weights are F32, BF16 or F16"),
            ));
        }
        Ok(())
    }

    /// Copies a tensor to its place, in that place's number format.
    ///
    /// # Errors
    ///
    /// As [`Self::check`].
    pub fn copy_to(&mut self, name: &str, place: &mut Tensor) -> Result<(), TrainError> {
        self.check(name, &place.size())?;
        let tensor = self.take(name)?;
        tch::no_grad(|| place.copy_(&tensor));
        Ok(())
    }

    /// Takes a tensor out as it is stored.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub fn take(&mut self, name: &str) -> Result<Tensor, TrainError> {
        let tensor = self.tensors.remove(name);
        tensor.ok_or_else(|| TrainError::file(&self.folder, format!("has no tensor named {name}")))
    }

    /// Names that were not asked for.
    pub fn remaining(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

/// Maps one file; its tensors by name.
///
/// # Errors
///
/// As [`Weights::open`].
pub fn map(path: &Path) -> Result<BTreeMap<String, Tensor>, TrainError> {
    let (start, infos, bytes) = header(path)?;
    let name = path.to_str().ok_or_else(|| TrainError::file(path, "the path is no UTF-8"))?;
    guard(|| {
        let data = Tensor::from_file(name, false, bytes as i64, (Kind::Uint8, Device::Cpu));
        let mut tensors = BTreeMap::new();
        for (name, info) in infos {
            let kind = kind(info.dtype).ok_or_else(|| {
                TrainError::file(path, format!("{name} is stored as {:?}, which is not known", info.dtype))
            })?;
            let shape: Vec<i64> = info.shape.iter().map(|&size| size as i64).collect();
            let (from, to) = info.data_offsets;
            let slice = data.narrow(0, (start + from) as i64, (to - from) as i64);
            // A tensor behind one of an odd size may lie askew; then it is copied.
            let slice = if (start + from) % 8 == 0 { slice } else { slice.copy() };
            tensors.insert(name, slice.view_dtype(kind).view(shape.as_slice()));
        }
        Ok(tensors)
    })
}

/// Where the data begins, what it holds, and the length of the file in bytes.
fn header(path: &Path) -> Result<(usize, BTreeMap<String, TensorInfo>, u64), TrainError> {
    let broken = |what: String| TrainError::file(path, what);
    let mut file = File::open(path).map_err(|error| TrainError::file(path, error))?;
    let bytes = file.metadata().map_err(|error| TrainError::file(path, error))?.len();
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(|_| broken(format!("is cut short: {bytes} bytes hold no header")))?;
    let length = u64::from_le_bytes(prefix);
    if length > HEADER_BYTES_MAX {
        return Err(broken(format!("is no safetensors file: its header would have {length} bytes")));
    }
    if length + 8 > bytes {
        return Err(broken(format!("is cut short: {bytes} bytes, and the header alone has {length}")));
    }
    let mut head = vec![0; length as usize];
    file.read_exact(&mut head).map_err(|error| TrainError::file(path, error))?;
    let start = 8 + length as usize;
    let infos = infos(&head).map_err(|what| broken(format!("is no safetensors file: {what}")))?;
    let data = infos.values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
    // A header may say anything.
    let whole = (start as u64).saturating_add(data);
    if whole != bytes {
        let how = if bytes < whole { "is cut short" } else { "is too long" };
        return Err(broken(format!("{how}: it has {bytes} bytes and its header tells of {whole}")));
    }
    Ok((start, infos, bytes))
}

/// The tensors that a header tells of; each has as many bytes as its shape and number format ask for.
fn infos(header: &[u8]) -> Result<BTreeMap<String, TensorInfo>, String> {
    let mut members: BTreeMap<String, Value> = serde_json::from_slice(header).map_err(|error| error.to_string())?;
    members.remove("__metadata__");
    let check = |(name, member): (String, Value)| {
        let info: TensorInfo = serde_json::from_value(member).map_err(|error| format!("{name}: {error}"))?;
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |product, &size| product.checked_mul(size));
        let (from, to) = info.data_offsets;
        match bits {
            Some(bits) if from <= to && (to - from).checked_mul(8) == Some(bits) => Ok((name, info)),
            _ => Err(format!("{name} of shape {:?} cannot lie at {from}..{to}", info.shape)),
        }
    };
    members.into_iter().map(check).collect()
}

/// Writes tensors into a folder: one file, or shards of [`SHARD_BYTES`] and an index. All are on disk when it returns.
///
/// # Errors
///
/// What the file system says; a full disk, first of all.
pub fn write(folder: &Path, tensors: Vec<(String, Tensor)>, shard_bytes: usize) -> Result<(), TrainError> {
    let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
    let total: usize = tensors.iter().map(|(_, tensor)| bytes(tensor)).sum();
    let mut shards: Vec<Vec<(String, Tensor)>> = vec![Vec::new()];
    let mut filled = 0;
    for (name, tensor) in tensors {
        if filled > 0 && filled + bytes(&tensor) > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes(&tensor);
        if let Some(shard) = shards.last_mut() {
            shard.push((name, tensor));
        }
    }
    if let [single] = &mut shards[..] {
        return write_file(&folder.join(SINGLE), std::mem::take(single));
    }
    let count = shards.len();
    let mut entries = serde_json::Map::new();
    for (at, shard) in shards.into_iter().enumerate() {
        let file = format!("model-{:05}-of-{count:05}.safetensors", at + 1);
        entries.extend(shard.iter().map(|(name, _)| (name.clone(), Value::from(file.as_str()))));
        write_file(&folder.join(&file), shard)?;
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": entries});
    write_bytes(&folder.join(INDEX), format!("{index:#}\n").as_bytes())
}

/// Writes one safetensors file; it is on disk when this returns.
///
/// # Errors
///
/// As [`write()`].
pub fn write_file(path: &Path, tensors: Vec<(String, Tensor)>) -> Result<(), TrainError> {
    guard(|| {
        let views = tensors.into_iter().map(|(name, tensor)| (name, Stored::new(tensor)));
        let about = HashMap::from([("format".to_string(), "pt".to_string())]);
        safetensors::serialize_to_file(views, Some(about), path).map_err(|error| TrainError::file(path, error))
    })?;
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| TrainError::file(path, error))
}

/// Writes a small file; it is on disk when this returns.
///
/// # Errors
///
/// As [`write()`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    std::fs::write(path, bytes)
        .and_then(|()| File::open(path)?.sync_all())
        .map_err(|error| TrainError::file(path, error))
}

/// A tensor as safetensors takes it: copied out only when its turn comes.
struct Stored {
    tensor: Tensor,
    shape: Vec<usize>,
}

impl Stored {
    fn new(tensor: Tensor) -> Self {
        let shape = tensor.size().iter().map(|&size| size as usize).collect();
        Self { tensor: tensor.detach(), shape }
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        match self.tensor.kind() {
            Kind::BFloat16 => Dtype::BF16,
            Kind::Half => Dtype::F16,
            Kind::Int64 => Dtype::I64,
            _ => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let tensor = self.tensor.to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0; self.data_len()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

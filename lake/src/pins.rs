//! Pins as stored: an immutable manifest and the result's files.
//!
//! What the definition means is not known here. A pin lies at `pins/<digest>/`; a name is an object at
//! `pins/names/<name>` that can only be created, so a name means one dataset forever.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions};
use serde::{Deserialize, Serialize};

use crate::error::{Context as _, LakeError, Result};
use crate::lake::Lake;

/// A table that a pin was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedTable {
    /// URL of the table.
    pub uri: String,
    /// Version read.
    pub version: u64,
}

/// A file of a pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinFile {
    /// Path relative to the manifest.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
}

/// The manifest of a pin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PinManifest {
    /// Format of the manifest, 1.
    pub format: u32,
    /// Name given.
    pub name: String,
    /// What was selected: SQL.
    pub definition: String,
    /// Tables read, by name.
    pub tables: BTreeMap<String, PinnedTable>,
    /// Columns of the result.
    pub schema: serde_json::Value,
    /// Files of the result, in row order.
    pub files: Vec<PinFile>,
    /// Rows of the result.
    pub rows: u64,
    /// SHA-256 over canonical schema and rows, hex: the identity, the same on every machine.
    pub digest: String,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// Version of the code that made it.
    pub code_version: String,
}

impl Lake {
    /// Folder of the pin with this digest.
    fn pin_folder(digest: &str) -> Path {
        Path::from("pins").join(digest)
    }

    /// URL of a pin's manifest.
    pub fn pin_uri(&self, digest: &str) -> String {
        format!("{}{}/manifest.json", self.uri(), Lake::pin_folder(digest))
    }

    /// Stores a file of a pin. Files are stored before the manifest; the same file again is no error.
    pub async fn put_pin_file(&self, digest: &str, name: &str, bytes: Bytes) -> Result<()> {
        self.ensure_writable().await?;
        let path = Lake::pin_folder(digest).join(name);
        self.store().put(&path, bytes.into()).await.context(|| format!("writing {path}"))?;
        Ok(())
    }

    /// Stores the manifest and takes the name. False: this very pin was there already.
    ///
    /// # Errors
    /// [`LakeError::Usage`] when the name belongs to another pin.
    pub async fn commit_pin(&self, manifest: &PinManifest) -> Result<bool> {
        self.ensure_writable().await?;
        check_name(&manifest.name)?;
        let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let name_path = Path::from("pins/names").join(manifest.name.as_str());
        match self.store().put_opts(&name_path, manifest.digest.clone().into(), create()).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                let holder = self.text(&name_path).await?;
                if holder != manifest.digest {
                    return Err(LakeError::Usage(format!(
                        "the name {:?} belongs to pin {holder}; a pin never changes, choose another name",
                        manifest.name
                    )));
                }
            }
            Err(error) => return Err(error).context(|| format!("taking the name {name_path}")),
        }
        let path = Lake::pin_folder(&manifest.digest).join("manifest.json");
        let body = serde_json::to_vec_pretty(manifest).context(|| format!("manifest {path}"))?;
        match self.store().put_opts(&path, body.into(), create()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(error).context(|| format!("writing {path}")),
        }
    }

    /// All pins, by name.
    pub async fn list_pins(&self) -> Result<Vec<PinManifest>> {
        let names: Vec<_> = self
            .store()
            .list(Some(&Path::from("pins/names")))
            .try_collect()
            .await
            .context(|| "listing pins".to_string())?;
        let mut pins = Vec::with_capacity(names.len());
        for object in names {
            let digest = self.text(&object.location).await?;
            // A name without a manifest is a pin that was never finished.
            if let Some(mut manifest) = self.read_manifest(&digest).await? {
                manifest.name = object.location.filename().unwrap_or_default().to_string();
                pins.push(manifest);
            }
        }
        pins.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pins)
    }

    /// The pin of this name, digest or unambiguous beginning of a digest (at least 6 digits).
    pub async fn find_pin(&self, name_or_digest: &str) -> Result<PinManifest> {
        if check_name(name_or_digest).is_ok() {
            let path = Path::from("pins/names").join(name_or_digest);
            match self.store().head(&path).await {
                Ok(_) => {
                    let digest = self.text(&path).await?;
                    if let Some(mut manifest) = self.read_manifest(&digest).await? {
                        manifest.name = name_or_digest.to_string();
                        return Ok(manifest);
                    }
                }
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error).context(|| format!("looking for {path}")),
            }
        }
        let mut found: Vec<PinManifest> = Vec::new();
        if name_or_digest.len() >= 6 && name_or_digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            let folders = self
                .store()
                .list_with_delimiter(Some(&Path::from("pins")))
                .await
                .context(|| "listing pins".to_string())?;
            for folder in folders.common_prefixes {
                let digest = folder.filename().unwrap_or_default();
                if digest.starts_with(name_or_digest)
                    && let Some(manifest) = self.read_manifest(digest).await?
                {
                    found.push(manifest);
                }
            }
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => {
                Err(LakeError::NotFound(format!("there is no pin {name_or_digest:?}; `webdancer pin list` shows them")))
            }
            n => Err(LakeError::Usage(format!("{n} pins begin with {name_or_digest}; give more digits"))),
        }
    }

    /// A file of a pin.
    pub async fn read_pin_file(&self, digest: &str, name: &str) -> Result<Bytes> {
        let path = Lake::pin_folder(digest).join(name);
        async { self.store().get(&path).await?.bytes().await }.await.context(|| format!("reading {path}"))
    }

    /// The manifest's bytes as stored: what `manifest_sha256` is taken over.
    pub async fn manifest_bytes(&self, digest: &str) -> Result<Bytes> {
        self.read_pin_file(digest, "manifest.json").await
    }

    async fn read_manifest(&self, digest: &str) -> Result<Option<PinManifest>> {
        let path = Lake::pin_folder(digest).join("manifest.json");
        match self.store().get(&path).await {
            Ok(object) => {
                let bytes = object.bytes().await.context(|| format!("reading {path}"))?;
                serde_json::from_slice(&bytes).map(Some).context(|| format!("{path} is not a pin manifest"))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error).context(|| format!("reading {path}")),
        }
    }

    async fn text(&self, path: &Path) -> Result<String> {
        let bytes =
            async { self.store().get(path).await?.bytes().await }.await.context(|| format!("reading {path}"))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_string())
    }
}

/// Checks a pin's name: it must be a file name on every store, and not be taken for a digest.
///
/// Names of tables and views are names of pins as well: a pin is only ever named as such, in `pin('qa')`.
///
/// # Errors
/// [`LakeError::Usage`] when it is none.
pub fn check_name(name: &str) -> Result<()> {
    check_file_name("a pin", name)?;
    if name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(LakeError::Usage(format!("{name:?} is no name for a pin: it would be taken for a digest")));
    }
    Ok(())
}

/// Names are file names on every store, and words in SQL.
pub(crate) fn check_file_name(of: &str, name: &str) -> Result<()> {
    let valid = !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !name.starts_with('.');
    if valid {
        Ok(())
    } else {
        Err(LakeError::Usage(format!(
            "{name:?} is no name for {of}: give 1 to 128 of letters, digits, '.', '_', '-', not starting with '.'"
        )))
    }
}

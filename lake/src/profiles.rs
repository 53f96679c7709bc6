//! Prompt profiles as stored: documents at `profiles/<name>.json`. What is in one is not known here. A document is only
//! ever created, so a name means one profile forever.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions};

use crate::error::{Context as _, LakeError, Result};
use crate::lake::Lake;
use crate::pins::check_file_name;

impl Lake {
    /// Stores a profile. False: this very document was there already.
    ///
    /// # Errors
    /// [`LakeError::Usage`] when the name belongs to another document, or is none.
    pub async fn put_profile(&self, name: &str, document: Bytes) -> Result<bool> {
        check_file_name("a profile", name)?;
        self.ensure_writable().await?;
        let path = path(name);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store().put_opts(&path, document.clone().into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                if self.profile(name).await?.is_some_and(|stored| stored == document) {
                    return Ok(false);
                }
                Err(LakeError::Usage(format!(
                    "the name {name:?} belongs to another profile; a profile never changes, choose another name"
                )))
            }
            Err(error) => Err(error).context(|| format!("writing {path}")),
        }
    }

    /// The profile of this name, if there is one.
    ///
    /// # Errors
    /// When the store does not answer, or the name is none.
    pub async fn profile(&self, name: &str) -> Result<Option<Bytes>> {
        check_file_name("a profile", name)?;
        let path = path(name);
        match async { self.store().get(&path).await?.bytes().await }.await {
            Ok(document) => Ok(Some(document)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error).context(|| format!("reading {path}")),
        }
    }
}

fn path(name: &str) -> Path {
    Path::from("profiles").join(format!("{name}.json"))
}

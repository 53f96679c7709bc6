//! Claims: who does a piece of work that must be done once.
//!
//! Local disk has no conditional update, so a claim is a chain of objects that can only be created:
//! `claims/<kind>/<key>/<generation>`. Who creates a generation holds it; taking over an expired claim is creating the
//! next generation.

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions};
use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Result};
use crate::lake::Lake;

/// A claim as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who holds it.
    pub holder: String,
    /// When it was taken.
    pub taken: DateTime<Utc>,
    /// From when another may take the next generation; None: never.
    pub expires: Option<DateTime<Utc>>,
}

impl Lake {
    /// Tries to take generation `generation` (from 0) of a claim. False: somebody else has it.
    pub async fn claim(&self, kind: &str, key: &str, generation: u64, claim: &Claim) -> Result<bool> {
        self.ensure_writable().await?;
        let path = claim_folder(kind, key).join(format!("{generation:020}"));
        let body = serde_json::to_vec(claim).context(|| format!("claim {path}"))?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store().put_opts(&path, body.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                // A store may repeat our own request and then say so: what is stored tells.
                Ok(self.read_claim(&path).await? == *claim)
            }
            Err(error) => Err(error).context(|| format!("taking claim {path}")),
        }
    }

    /// The newest generation of a claim, if any.
    pub async fn claimed(&self, kind: &str, key: &str) -> Result<Option<(u64, Claim)>> {
        let Some((generation, path)) = self.generations(kind, key).await?.pop() else { return Ok(None) };
        Ok(Some((generation, self.read_claim(&path).await?)))
    }

    /// Every generation of a claim, the oldest first.
    pub async fn claims(&self, kind: &str, key: &str) -> Result<Vec<(u64, Claim)>> {
        let mut claims = Vec::new();
        for (generation, path) in self.generations(kind, key).await? {
            claims.push((generation, self.read_claim(&path).await?));
        }
        Ok(claims)
    }

    /// The generations of a claim and where they are, the oldest first.
    async fn generations(&self, kind: &str, key: &str) -> Result<Vec<(u64, Path)>> {
        let folder = claim_folder(kind, key);
        let objects: Vec<_> =
            self.store().list(Some(&folder)).try_collect().await.context(|| format!("listing claims {folder}"))?;
        let generation = |path: &Path| path.filename().and_then(|name| name.parse().ok()).unwrap_or(0);
        let mut found: Vec<_> = objects.into_iter().map(|o| (generation(&o.location), o.location)).collect();
        found.sort();
        Ok(found)
    }

    async fn read_claim(&self, path: &Path) -> Result<Claim> {
        let bytes =
            async { self.store().get(path).await?.bytes().await }.await.context(|| format!("reading claim {path}"))?;
        serde_json::from_slice(&bytes).context(|| format!("claim {path} is not readable"))
    }
}

fn claim_folder(kind: &str, key: &str) -> Path {
    Path::from("claims").join(kind).join(key)
}

//! The start-up test of a store: does it keep the promise that commits rest on?
//!
//! A Delta commit is a conditional create: of several writers of one version exactly one must win. Some stores ignore
//! the condition, others check it before they write and let two through. Such a store loses commits, silently.

use futures::future::join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use crate::error::{Context as _, LakeError, Result};

const ROUNDS: usize = 4;
const RACERS: usize = 8;

/// Races conditional creates under `folder` and cleans up after itself.
///
/// # Errors
/// [`LakeError::Fatal`] unless exactly one of the racers wins every round; a store error if it does not answer.
pub async fn conditional_create(store: &dyn ObjectStore, folder: &Path) -> Result<()> {
    for round in 0..ROUNDS {
        let path = folder.clone().join(format!("{}-{round}", uuid::Uuid::now_v7()));
        let racers = (0..RACERS).map(|racer| {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            store.put_opts(&path, format!("racer {racer}").into(), options)
        });
        let mut winners = 0;
        for outcome in join_all(racers).await {
            match outcome {
                Ok(_) => winners += 1,
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
                Err(error) => return Err(error).context(|| format!("testing conditional creates at {path}")),
            }
        }
        // Left behind, it does no harm: every probe has a name of its own.
        if let Err(error) = store.delete(&path).await {
            tracing::debug!(%path, %error, "the probe object was not removed");
        }
        if winners != 1 {
            return Err(LakeError::Fatal(format!(
                "the store let {winners} of {RACERS} conditional creates of one object win; exactly one must. \
                 Commits to it would overwrite each other: use a store that honours If-None-Match on PUT"
            )));
        }
    }
    Ok(())
}

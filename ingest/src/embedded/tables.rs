//! What the tables have of the log, and whether this is the log that they have it of.
//!
//! A table's position is a place in the log. The fingerprint that was committed with it says which group of records
//! begins how far before it: a log that was restored from an older copy and appended to has another one there, or none.
//! What is appended to such a log would be taken for what is in the tables already, and be left out. So before anything
//! is read, each table's position is looked up in the log. That takes 16 bytes of it, and is enough: a log only grows,
//! so one that has the same group at the same place has the same records before it.

use std::collections::BTreeMap;
use std::path::Path;

use futures::future::join_all;
use webdancer_lake::{Lake, LakeError};
use webdancer_schemas::kind::Kind;

use super::{EmbeddedSource, segment};
use crate::drain::app_id;
use crate::error::Result;

/// The tables, as far as they have to do with a log.
#[derive(Debug)]
pub(super) struct Tables {
    /// Those that have something of it.
    reached: BTreeMap<Kind, Reached>,
    /// Those that cannot be opened, and why: nobody knows what they have.
    pub(super) closed: BTreeMap<Kind, String>,
}

/// How far a table is.
#[derive(Debug, Clone, Copy)]
struct Reached {
    position: i64,
    /// None: committed by a version that did not take note of it.
    fingerprint: Option<i64>,
}

impl Tables {
    /// Looks up what the tables of `lake` have of the log `cluster`.
    ///
    /// # Errors
    /// When the lake refuses, or not one of the tables answers.
    pub(super) async fn look_up(lake: &Lake, cluster: &str) -> Result<Tables> {
        let app_id = app_id(cluster, &EmbeddedSource::partition());
        let asked = Kind::ALL.iter().map(async |kind| (*kind, reached(lake, *kind, &app_id).await));
        let mut tables = Tables { reached: BTreeMap::new(), closed: BTreeMap::new() };
        for (kind, answer) in join_all(asked).await {
            match answer {
                Ok(reached) => tables.reached.extend(reached.map(|reached| (kind, reached))),
                // One that is damaged keeps nothing from the others; a store that answers for none, or refuses, does.
                Err(error @ (LakeError::Store { .. } | LakeError::Fatal(_)))
                    if tables.closed.len() + 1 < Kind::ALL.len() =>
                {
                    tables.closed.insert(kind, error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(tables)
    }

    /// The position of a table.
    pub(super) fn position(&self, kind: Kind) -> Option<i64> {
        self.reached.get(&kind).map(|reached| reached.position)
    }

    /// Why the log in `folder`, which ends at `end`, is not the one that the tables are so far in, if it is not.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(super) fn not_of(&self, folder: &Path, end: u64) -> Result<Option<String>> {
        for (kind, Reached { position, fingerprint }) in &self.reached {
            let table = kind.table();
            if *position as u64 >= end {
                return Ok(Some(format!("it ends at {end}, and table {table} has records up to {position}")));
            }
            if let Some(fingerprint) = fingerprint
                && !segment::bears(folder, *position as u64, *fingerprint)?
            {
                return Ok(Some(format!("its record at {position} is another than the one that table {table} has")));
            }
        }
        Ok(None)
    }
}

async fn reached(lake: &Lake, kind: Kind, app_id: &str) -> Result<Option<Reached>, LakeError> {
    let Some(table) = lake.table(kind).await? else { return Ok(None) };
    let Some(position) = table.position(app_id).await? else { return Ok(None) };
    Ok(Some(Reached { position, fingerprint: table.fingerprint(app_id).await? }))
}

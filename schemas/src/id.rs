//! Event identity.
//!
//! Two events are one when source and id agree. Ids are UUIDs: time-ordered ones (version 7) from our own producers,
//! derived ones (version 8) from work that may be done again, and a version 5 UUID of (source, id) in place of a
//! foreign id that is none.

use std::fmt;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::kind::Kind;

/// Namespace of the version 5 UUIDs that stand for foreign ids.
const FOREIGN: Uuid = Uuid::from_u128(0x6f1c_41d5_9a3e_5d0b_8e55_77eb_da2c_e401);

/// The identity of an event within its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

impl EventId {
    /// A new time-ordered id (UUID version 7).
    pub fn now() -> EventId {
        EventId(Uuid::now_v7())
    }

    /// The id of a producer's event, and the original where it is not a UUID.
    ///
    /// Only the hyphenated form counts as a UUID: what else parses as one is more likely a digest.
    pub fn from_producer(source: &str, id: &str) -> (EventId, Option<String>) {
        match Uuid::try_parse(id) {
            Ok(uuid) if id.len() == 36 => (EventId(uuid), None),
            _ => {
                let name = format!("{source}\0{id}");
                (EventId(Uuid::new_v5(&FOREIGN, name.as_bytes())), Some(id.to_string()))
            }
        }
    }

    /// The id of re-doable work: the same inputs give the same id, so that doing it again adds nothing.
    ///
    /// UUID version 8: 48 bits of `start` in milliseconds, then SHA-256 of the rest. `start` is the run's start, not
    /// the present time; it keeps the ids of one run close together, which is what file statistics prune by.
    pub fn derive(start: DateTime<Utc>, run: &str, kind: Kind, subject: &str, step: u64) -> EventId {
        let mut hash = Sha256::new();
        for part in [run.as_bytes(), kind.name().as_bytes(), subject.as_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(step.to_be_bytes());
        let digest = hash.finalize();
        let mut bytes = [0u8; 16];
        let millis = u64::try_from(start.timestamp_millis()).unwrap_or(0);
        bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&digest[..10]);
        EventId(Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> EventId {
        EventId(uuid)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_kept_whatever_its_case() {
        let (id, original) = EventId::from_producer("s", "0190A6B2-7C3D-7E4F-8A1B-2C3D4E5F6071");
        assert_eq!(id.to_string(), "0190a6b2-7c3d-7e4f-8a1b-2c3d4e5f6071");
        assert_eq!(original, None);
    }

    #[test]
    fn a_foreign_id_maps_to_one_uuid_per_source() {
        let (a, original) = EventId::from_producer("s", "42");
        assert_eq!(original.as_deref(), Some("42"));
        assert_eq!(a, EventId::from_producer("s", "42").0);
        assert_ne!(a, EventId::from_producer("t", "42").0);
        assert_eq!(a.uuid().get_version_num(), 5);
        // 32 hexadecimal digits without hyphens are a digest, not a UUID.
        assert!(EventId::from_producer("s", "0190a6b27c3d7e4f8a1b2c3d4e5f6071").1.is_some());
    }

    #[test]
    fn derived_ids_depend_on_every_input_and_carry_the_start() {
        let start = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap_or_default();
        let id = |run, kind, subject, step| EventId::derive(start, run, kind, subject, step);
        let base = id("r", Kind::Qa, "q", 0);
        assert_eq!(base, id("r", Kind::Qa, "q", 0));
        for other in [
            id("s", Kind::Qa, "q", 0),
            id("r", Kind::Page, "q", 0),
            id("r", Kind::Qa, "p", 0),
            id("r", Kind::Qa, "q", 1),
        ] {
            assert_ne!(base, other);
        }
        // 1,700,000,000,000 ms = 0x018bcfe56800.
        assert!(base.to_string().starts_with("018bcfe5-6800-8"), "{base}");
        // Length prefixes: moving a letter between parts gives another id.
        assert_ne!(id("ab", Kind::Qa, "c", 0), id("a", Kind::Qa, "bc", 0));
    }
}

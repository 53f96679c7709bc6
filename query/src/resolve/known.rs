//! What is known of pins: whether their rows tell which of them are gated, where any can be.
//!
//! To find that out all tables behind a pin are counted, and a pin never changes. What may change is what tells of its rows:
//! the question of an attempt may become gated later. So it holds that no row is gated for as long as the tables that tell
//! are as they were, and that some may be for ever.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use webdancer_lake::pins::{PinManifest, PinnedTable};
use webdancer_schemas::kind::Kind;

/// Pins that something is known of. Beyond that all is forgotten: it can be found out again.
const PINS_MAX: usize = 1_000;

/// The tables that tell, as they were; None of one that there was not.
pub(crate) type Tellers = Vec<(Kind, Option<PinnedTable>)>;

/// What is known of pins, by digest and name: two pins with the same rows may be made of different tables.
#[derive(Debug, Default)]
pub(crate) struct KnownPins {
    known: Mutex<HashMap<(String, String), Known>>,
}

/// What is known of a pin.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Known {
    /// Its rows tell, or none is gated, as these tables have it.
    Open(Tellers),
    /// Rows of this table may be gated, and do not tell.
    Refused(Kind),
}

impl KnownPins {
    /// What was found out of a pin.
    pub(super) fn get(&self, pin: &PinManifest) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key(pin)).cloned()
    }

    /// Keeps what was found out.
    pub(super) fn keep(&self, pin: &PinManifest, found: Known) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PINS_MAX {
            known.clear();
        }
        known.insert(key(pin), found);
    }
}

fn key(pin: &PinManifest) -> (String, String) {
    (pin.digest.clone(), pin.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(name: &str) -> PinManifest {
        let pin = serde_json::json!({"format": 1, "name": name, "definition": "", "tables": {}, "files": [], "rows": 0,
            "schema": [], "digest": "d", "created": "2026-01-01T00:00:00Z", "code_version": "0"});
        serde_json::from_value(pin).unwrap()
    }

    #[test]
    fn pins_with_the_same_rows_are_known_each_by_its_name_and_not_more_than_may_be() {
        let known = KnownPins::default();
        known.keep(&pin("a"), Known::Refused(Kind::Qa));
        assert_eq!((known.get(&pin("a")), known.get(&pin("b"))), (Some(Known::Refused(Kind::Qa)), None));
        (1..=PINS_MAX).for_each(|n| known.keep(&pin(&n.to_string()), Known::Open(Tellers::new())));
        assert_eq!(known.known.lock().unwrap().len(), 1);
    }
}

//! What is known of pins: whether their rows tell which of them are gated, where any can be.
//!
//! To find that out all tables behind a pin are counted, and a pin never changes. What may change is what tells of its rows:
//! a question may become gated later. So an answer that no row is gated holds for as long as the tables that tell are
//! as they were; that some are, for ever.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use webdancer_lake::pins::{PinManifest, PinnedTable};
use webdancer_schemas::kind::Kind;

/// Pins that something is known of. Beyond that all is forgotten: it can be found out again.
const PINS_MAX: usize = 1_000;

/// The tables that tell, as they were.
pub(crate) type Tellers = Vec<Option<PinnedTable>>;

/// What is known of pins, by digest and name: two pins with the same rows may be made of different tables.
#[derive(Debug, Default)]
pub(crate) struct KnownPins {
    known: Mutex<HashMap<(String, String), Known>>,
}

#[derive(Debug, Clone)]
enum Known {
    /// Its rows tell, or none is gated, as of these tables.
    Open(Tellers),
    /// Rows of this table may be gated, and do not tell.
    Refused(Kind),
}

impl KnownPins {
    /// The table of which a pin may have gated rows that do not tell, if any; None where that is not known of these tables.
    pub(super) fn get(&self, pin: &PinManifest, tellers: &Tellers) -> Option<Option<Kind>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&key(pin))? {
            Known::Open(of) => (of == tellers).then_some(None),
            Known::Refused(kind) => Some(Some(*kind)),
        }
    }

    /// Keeps what was found out.
    pub(super) fn keep(&self, pin: &PinManifest, tellers: Tellers, refused: Option<Kind>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PINS_MAX {
            known.clear();
        }
        known.insert(key(pin), refused.map_or(Known::Open(tellers), Known::Refused));
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

    fn tellers(version: u64) -> Tellers {
        vec![None, Some(PinnedTable { uri: "qa".to_string(), version, id: None })]
    }

    #[test]
    fn what_is_open_is_asked_about_again_when_what_tells_changes_and_what_is_refused_stays_so() {
        let known = KnownPins::default();
        assert_eq!(known.get(&pin("a"), &tellers(0)), None);
        known.keep(&pin("a"), tellers(0), None);
        known.keep(&pin("b"), tellers(0), Some(Kind::Qa));
        assert_eq!(known.get(&pin("a"), &tellers(0)), Some(None));
        assert_eq!(known.get(&pin("a"), &tellers(1)), None);
        assert_eq!(known.get(&pin("b"), &tellers(1)), Some(Some(Kind::Qa)));
    }

    #[test]
    fn not_more_is_kept_than_may_be() {
        let known = KnownPins::default();
        (0..=PINS_MAX).for_each(|n| known.keep(&pin(&n.to_string()), tellers(0), None));
        assert_eq!(known.known.lock().unwrap().len(), 1);
    }
}

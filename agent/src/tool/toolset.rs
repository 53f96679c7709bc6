//! Several tools behind one call: finds the tool, reads the arguments, counts the outcomes.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::{BackEnds, Observation, Outcome, Outcomes, Tools};
use crate::format::{clip, json_reason};

/// Bytes of a call's arguments.
const ARGUMENT_BYTES_MAX: usize = 64 << 10;
/// Characters of a name that is told back to the model.
const NAME_CHARS_MAX: usize = 60;
/// Under what name calls of unknown tools are counted; it is no tool's name.
pub(crate) const UNKNOWN: &str = "(unknown)";

/// Tools on their back-ends.
#[derive(Debug)]
pub struct Toolset {
    tools: Tools,
    back_ends: BackEnds,
    calls: Mutex<BTreeMap<String, Outcomes>>,
}

impl Toolset {
    /// These tools on these back-ends.
    pub fn new(tools: Tools, back_ends: BackEnds) -> Toolset {
        Toolset { tools, back_ends, calls: Mutex::default() }
    }

    /// Other tools on the same back-ends.
    #[must_use]
    pub fn with_tools(self, tools: Tools) -> Toolset {
        Toolset { tools, ..self }
    }

    /// What the prompt lists.
    pub fn specifications(&self) -> Vec<Value> {
        self.tools.specifications(&self.back_ends.limits)
    }

    /// What comes back to a call. `arguments` is the JSON text as written.
    pub async fn call(&self, name: &str, arguments: &str) -> Observation {
        let Some(tool) = self.tools.find(name) else {
            self.count(UNKNOWN, Outcome::Invalid);
            return unknown_tool(name, &self.tools.names());
        };
        let observation = match read(arguments) {
            Ok(arguments) => tool.call(&arguments, &self.back_ends).await,
            Err(reason) => Observation::invalid(name, &reason),
        };
        self.count(name, observation.outcome);
        Observation::new(observation.text, observation.outcome).of(observation.sources)
    }

    /// The calls so far, by tool and outcome; unknown tools count as one.
    pub fn calls(&self) -> BTreeMap<String, Outcomes> {
        self.calls.lock().clone()
    }

    fn count(&self, name: &str, outcome: Outcome) {
        self.calls.lock().entry(name.to_string()).or_default().count(outcome);
    }
}

/// The arguments as an object.
///
/// # Errors
/// What is wrong, as a sentence for the model.
pub(crate) fn read(arguments: &str) -> Result<Map<String, Value>, String> {
    if arguments.len() > ARGUMENT_BYTES_MAX {
        return Err(format!("The arguments have {} bytes: give at most {ARGUMENT_BYTES_MAX}.", arguments.len()));
    }
    serde_json::from_str(arguments).map_err(|e| format!("The arguments are no JSON object: {}.", json_reason(&e)))
}

/// The observation of a call of a tool that does not exist.
pub(crate) fn unknown_tool(name: &str, known: &[String]) -> Observation {
    let text = format!("There is no tool {:?}. The tools are: {}.\n", clip(name, NAME_CHARS_MAX), known.join(", "));
    Observation::new(text, Outcome::Invalid)
}

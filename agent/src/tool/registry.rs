//! Which tools there are.

use std::sync::Arc;

use serde_json::Value;

use super::search::Search;
use super::visit::Visit;
use super::{ObservationLimits, Tool};

/// Tools, in the order of the prompt. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tools(Vec<Arc<dyn Tool>>);

impl Default for Tools {
    fn default() -> Tools {
        Tools::standard()
    }
}

impl Tools {
    /// Every tool of this program, those of the paper first. A new tool's line goes here.
    pub fn standard() -> Tools {
        Tools::none().with(Search).with(Visit)
    }

    /// No tools.
    pub fn none() -> Tools {
        Tools(Vec::new())
    }

    /// With one more tool, in place of one of the same name.
    #[must_use]
    pub fn with(mut self, tool: impl Tool + 'static) -> Tools {
        self.0.retain(|other| other.name() != tool.name());
        self.0.push(Arc::new(tool));
        self
    }

    /// The tool of this name.
    pub fn find(&self, name: &str) -> Option<&Arc<dyn Tool>> {
        self.0.iter().find(|tool| tool.name() == name)
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|tool| tool.name().to_string()).collect()
    }

    /// What the prompt lists, for observations of these sizes.
    pub fn specifications(&self, limits: &ObservationLimits) -> Vec<Value> {
        self.0.iter().map(|tool| tool.specification(limits)).collect()
    }
}

//! The live web: whatever the tools' back-ends reach.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use crate::tool::{Observation, Outcomes, Toolset, Web};

/// Its name in runs, where nothing is added to it.
pub const NAME: &str = "live";

/// The live web.
#[derive(Debug)]
pub struct Live {
    name: String,
    tools: Toolset,
}

impl Live {
    /// These tools on the live web.
    pub fn new(tools: Toolset) -> Live {
        Live { name: NAME.to_string(), tools }
    }

    /// The same web, partly over these pages: its name in runs says so, `live+<pages>`.
    #[must_use]
    pub fn over_pages(self, pages: &str) -> Live {
        Live { name: format!("{NAME}+{pages}"), ..self }
    }
}

#[async_trait]
impl Web for Live {
    fn name(&self) -> &str {
        &self.name
    }

    fn specifications(&self) -> Vec<Value> {
        self.tools.specifications()
    }

    async fn call(&self, tool: &str, arguments: &str) -> Observation {
        self.tools.call(tool, arguments).await
    }

    fn calls(&self) -> BTreeMap<String, Outcomes> {
        self.tools.calls()
    }
}

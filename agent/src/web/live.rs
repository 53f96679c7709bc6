//! The live web: whatever the tools' back-ends reach.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use crate::tool::{Observation, Outcomes, Toolset, Web};

/// Its name in runs.
pub const NAME: &str = "live";

/// The live web.
#[derive(Debug)]
pub struct Live {
    tools: Toolset,
}

impl Live {
    /// These tools on the live web.
    pub fn new(tools: Toolset) -> Live {
        Live { tools }
    }
}

#[async_trait]
impl Web for Live {
    fn name(&self) -> &str {
        NAME
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

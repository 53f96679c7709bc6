//! A closed web: the pages of a pin, searched and read without any network.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::index::PageIndex;
use crate::tool::search::Search;
use crate::tool::summary::Summariser;
use crate::tool::visit::Visit;
use crate::tool::{Observation, ObservationLimits, Outcomes, Toolset, Web};

/// A closed web.
#[derive(Debug)]
pub struct Closed {
    name: String,
    tools: Toolset,
}

impl Closed {
    /// Search and visit over `pages`, which are those of the pin with this digest. Without a summariser the
    /// best-matching passages of a page are shown, and the same calls get the same observations on every machine.
    pub fn new(
        pin_digest: &str,
        pages: Arc<PageIndex>,
        summariser: Option<Arc<Summariser>>,
        limits: &ObservationLimits,
    ) -> Closed {
        let tools = Toolset::new().with(Search::new(pages.clone(), limits.clone())).with(Visit::new(
            pages,
            summariser,
            limits.clone(),
        ));
        Closed { name: format!("closed:{pin_digest}"), tools }
    }
}

#[async_trait]
impl Web for Closed {
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

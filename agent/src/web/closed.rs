//! A closed web: the pages of a pin, searched and read without any network.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::index::PageIndex;
use crate::tool::summary::Summariser;
use crate::tool::{BackEnds, Observation, ObservationLimits, Outcomes, Tools, Toolset, Web};

/// A closed web.
#[derive(Debug)]
pub struct Closed {
    name: String,
    tools: Toolset,
    /// Whether its pages are made of excerpts: their digests are no page's.
    is_of_excerpts: bool,
}

impl Closed {
    /// The standard tools over `pages`, which are those of the pin with this digest. Without a summariser the
    /// best-matching passages of a page are shown, and the same calls get the same observations on every machine.
    pub fn new(
        pin_digest: &str,
        pages: Arc<PageIndex>,
        summariser: Option<Arc<Summariser>>,
        limits: &ObservationLimits,
    ) -> Closed {
        Closed::named(format!("closed:{pin_digest}"), pages, summariser, limits)
    }

    /// The same over what the visits of a run showed: its name in runs is `visited:<run>`.
    pub fn visited(run: &str, pages: Arc<PageIndex>, limits: &ObservationLimits) -> Closed {
        Closed { is_of_excerpts: true, ..Closed::named(format!("visited:{run}"), pages, None, limits) }
    }

    fn named(
        name: String,
        pages: Arc<PageIndex>,
        summariser: Option<Arc<Summariser>>,
        limits: &ObservationLimits,
    ) -> Closed {
        let back_ends = BackEnds::new(pages.clone(), pages, limits.clone()).summarised_by(summariser);
        Closed { name, tools: Toolset::new(Tools::standard(), back_ends), is_of_excerpts: false }
    }

    /// The same web with other tools.
    #[must_use]
    pub fn with_tools(self, tools: Tools) -> Closed {
        Closed { tools: self.tools.with_tools(tools), ..self }
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
        let observation = self.tools.call(tool, arguments).await;
        if self.is_of_excerpts { observation.of(Vec::new()) } else { observation }
    }

    fn calls(&self) -> BTreeMap<String, Outcomes> {
        self.tools.calls()
    }
}

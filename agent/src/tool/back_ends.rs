//! What tools work on.

use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

use super::ObservationLimits;
use super::search::{EngineFailed, Hit, SearchEngine};
use super::summary::Summariser;
use super::visit::{PageFailed, PageSource, PageText};

/// What tools work on: who answers queries, where pages come from, who reads them, and how much is shown. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BackEnds {
    /// Answers queries.
    pub engine: Arc<dyn SearchEngine>,
    /// Has pages.
    pub pages: Arc<dyn PageSource>,
    /// Reads pages; without one their best-matching passages are shown.
    pub summariser: Option<Arc<Summariser>>,
    /// Sizes of observations.
    pub limits: ObservationLimits,
}

impl BackEnds {
    /// Search by `engine`, visits of `pages`, nobody to summarise them.
    pub fn new(engine: Arc<dyn SearchEngine>, pages: Arc<dyn PageSource>, limits: ObservationLimits) -> BackEnds {
        BackEnds { engine, pages, summariser: None, limits }
    }

    /// For tools that need none: a search or a visit is an outage.
    pub fn none(limits: ObservationLimits) -> BackEnds {
        BackEnds::new(Arc::new(Nothing), Arc::new(Nothing), limits)
    }

    /// With this search engine.
    #[must_use]
    pub fn searched_by(self, engine: Arc<dyn SearchEngine>) -> BackEnds {
        BackEnds { engine, ..self }
    }

    /// With these pages.
    #[must_use]
    pub fn reading(self, pages: Arc<dyn PageSource>) -> BackEnds {
        BackEnds { pages, ..self }
    }

    /// With this summariser, if there is one.
    #[must_use]
    pub fn summarised_by(self, summariser: Option<Arc<Summariser>>) -> BackEnds {
        BackEnds { summariser, ..self }
    }
}

/// No back-end.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl SearchEngine for Nothing {
    async fn search(&self, _: &str, _: usize) -> Result<Vec<Hit>, EngineFailed> {
        Err(EngineFailed("there is no search engine here".to_string()))
    }
}

#[async_trait]
impl PageSource for Nothing {
    async fn page(&self, _: &Url) -> Result<PageText, PageFailed> {
        Err(PageFailed::Outage("there are no pages here".to_string()))
    }
}

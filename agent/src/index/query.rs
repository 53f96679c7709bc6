//! Finding pages.

use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use tantivy::collector::TopDocs;
use tantivy::collector::sort_key::{SortBySimilarityScore, SortByStaticFastValue};
use tantivy::query::{BooleanQuery, BoostQuery, DisjunctionMaxQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, Value as _};
use tantivy::{DocAddress, IndexReader, Order, ReloadPolicy, Searcher, TantivyDocument, Term};
use url::Url;
use webdancer_schemas::rows::Page;

use super::build::{self, Fields, IndexError, ORDINAL, key};
use super::passages;
use super::words::{analyzer, key_words};
use crate::tool::search::{EngineFailed, Hit, SearchEngine};
use crate::tool::visit::{PageFailed, PageSource, PageText};

/// Words of a query that are looked for.
const QUERY_WORDS_MAX: usize = 32;
/// Words of a snippet.
const SNIPPET_WORDS: usize = 40;
/// What a word counts in a title and in a heading, when it counts 1 in a text.
///
/// These and the next were chosen on 70 questions about the PostgreSQL manual; around them little changes.
const TITLE_WEIGHT: f32 = 1.5;
const HEADING_WEIGHT: f32 = 0.5;
/// A word counts where it counts most, and this much of where else it is.
const ELSEWHERE: f32 = 0.3;

/// Pages, indexed. Cheap to clone.
#[derive(Clone)]
pub struct PageIndex {
    reader: IndexReader,
    fields: Fields,
}

impl fmt::Debug for PageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageIndex({} documents)", self.reader.searcher().num_docs())
    }
}

impl PageIndex {
    /// Indexes `pages` in memory. Of pages with one URL the first counts; of pages with one text the first is found,
    /// and all can be read.
    ///
    /// # Errors
    /// The index cannot be built here.
    pub fn in_memory(pages: impl IntoIterator<Item = Page>) -> Result<PageIndex, IndexError> {
        let (index, fields) = build::in_memory(pages)?;
        PageIndex::open(&index, fields)
    }

    /// The index in `folder`; where there is none, `pages` are indexed there. Let the folder's name say which pages they
    /// are, such as a pin's digest.
    ///
    /// # Errors
    /// The folder cannot be read or written, or holds something else.
    pub fn in_folder(
        folder: &Path,
        pages: impl FnOnce() -> Result<Vec<Page>, IndexError>,
    ) -> Result<PageIndex, IndexError> {
        let (index, fields) = build::in_folder(folder, pages)?;
        PageIndex::open(&index, fields)
    }

    fn open(index: &tantivy::Index, fields: Fields) -> Result<PageIndex, IndexError> {
        // Nothing is ever added to an index.
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(PageIndex { reader, fields })
    }

    /// The pages that match `query` best, best first, each with what it says about the query.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn find(&self, query: &str, results_max: usize) -> Result<Vec<Hit>, IndexError> {
        let key_words = key_words(&mut analyzer(), query, QUERY_WORDS_MAX);
        if key_words.is_empty() || results_max == 0 {
            return Ok(Vec::new());
        }
        let searcher = self.reader.searcher();
        let order = (SortBySimilarityScore, (SortByStaticFastValue::<u64>::for_field(ORDINAL), Order::Asc));
        let best = TopDocs::with_limit(results_max).order_by(order);
        let found = searcher.search(&self.query(&key_words), &best)?;
        found.into_iter().map(|(_, at)| self.hit(&searcher, at, query)).collect()
    }

    /// The text of the page at `url`, or why it has none; None where the index does not have the URL.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn read(&self, url: &Url) -> Result<Option<Result<PageText, String>>, IndexError> {
        let searcher = self.reader.searcher();
        let Some(document) = self.document(&searcher, &key(url))? else { return Ok(None) };
        let document = match self.text_of(&document, self.fields.same_as) {
            None => document,
            Some(other) => match self.document(&searcher, &other)? {
                Some(document) => document,
                None => return Ok(None),
            },
        };
        Ok(Some(match self.text_of(&document, self.fields.text) {
            Some(text) => {
                let title = self.text_of(&document, self.fields.title).filter(|title| !title.is_empty());
                Ok(PageText { title, text })
            }
            None => Err(self.text_of(&document, self.fields.error).unwrap_or_default()),
        }))
    }

    fn document(&self, searcher: &Searcher, url: &str) -> Result<Option<TantivyDocument>, IndexError> {
        let query = TermQuery::new(Term::from_field_text(self.fields.url, url), IndexRecordOption::Basic);
        let found = searcher.search(&query, &TopDocs::with_limit(1).order_by_score())?;
        Ok(found.first().map(|(_, at)| searcher.doc(*at)).transpose()?)
    }

    fn hit(&self, searcher: &Searcher, at: DocAddress, query: &str) -> Result<Hit, IndexError> {
        let document: TantivyDocument = searcher.doc(at)?;
        let text = |field| self.text_of(&document, field).unwrap_or_default();
        let url = text(self.fields.url);
        let title = Some(text(self.fields.title)).filter(|title| !title.is_empty());
        let snippet = passages::find(&text(self.fields.text), query, SNIPPET_WORDS).passages;
        Ok(Hit { title: title.unwrap_or_else(|| url.clone()), url, date: None, source: None, snippet })
    }

    fn text_of(&self, document: &TantivyDocument, field: Field) -> Option<String> {
        document.get_first(field)?.as_str().map(str::to_string)
    }

    /// Any of the words, in title, headings or text.
    fn query(&self, words: &[String]) -> BooleanQuery {
        let Fields { title, headings, text, .. } = self.fields;
        let in_field = |word: &String, field, weight| -> Box<dyn Query> {
            let term = TermQuery::new(Term::from_field_text(field, word), IndexRecordOption::WithFreqs);
            Box::new(BoostQuery::new(Box::new(term), weight))
        };
        let anywhere = |word: &String| -> (Occur, Box<dyn Query>) {
            let fields = vec![
                in_field(word, title, TITLE_WEIGHT),
                in_field(word, headings, HEADING_WEIGHT),
                in_field(word, text, 1.0),
            ];
            (Occur::Should, Box::new(DisjunctionMaxQuery::with_tie_breaker(fields, ELSEWHERE)))
        };
        BooleanQuery::new(words.iter().map(anywhere).collect())
    }
}

#[async_trait]
impl SearchEngine for PageIndex {
    async fn search(&self, query: &str, results_max: usize) -> Result<Vec<Hit>, EngineFailed> {
        let (index, query) = (self.clone(), query.to_string());
        let found = tokio::task::spawn_blocking(move || index.find(&query, results_max)).await;
        found.map_err(|e| EngineFailed(e.to_string()))?.map_err(|e| EngineFailed(e.to_string()))
    }
}

#[async_trait]
impl PageSource for PageIndex {
    async fn page(&self, url: &Url) -> Result<PageText, PageFailed> {
        match self.read(url) {
            Ok(Some(Ok(page))) => Ok(page),
            Ok(Some(Err(reason))) => Err(PageFailed::Unreachable(reason)),
            Ok(None) => Err(PageFailed::Unreachable("there is no page at this URL".to_string())),
            Err(error) => Err(PageFailed::Outage(error.to_string())),
        }
    }
}

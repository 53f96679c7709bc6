//! From pages to an index, in memory or in a folder.

use std::collections::HashSet;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::TokenizerManager;
use tantivy::{Index, IndexWriter, TantivyDocument};
use url::Url;
use webdancer_schemas::rows::Page;

use super::words::analyzer;
use crate::fetch::url::{canonical, parse};

/// Name of the tokenizer in the schema.
const WORDS: &str = "words";
/// Memory for words and postings before they become a segment.
const WRITER_BYTES: usize = 64 << 20;

/// Why pages cannot be indexed or found: the disk, or a folder that holds something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the index of pages: {0}")]
pub struct IndexError(String);

impl From<tantivy::TantivyError> for IndexError {
    fn from(error: tantivy::TantivyError) -> IndexError {
        IndexError(error.to_string())
    }
}

impl From<std::io::Error> for IndexError {
    fn from(error: std::io::Error) -> IndexError {
        IndexError(error.to_string())
    }
}

/// What a page has in the index. A page has one document with its text; further URLs of the same text have one that
/// names its URL; a page without text has one with the reason.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    pub(super) url: Field,
    pub(super) title: Field,
    /// Headings of the text.
    pub(super) headings: Field,
    pub(super) text: Field,
    /// URL of the document that has the text.
    pub(super) same_as: Field,
    /// Why there is no text.
    pub(super) error: Field,
    /// Place among the pages handed in: breaks ties.
    pub(super) ordinal: Field,
}

/// Name of the field that breaks ties.
pub(super) const ORDINAL: &str = "ordinal";

impl Fields {
    fn new() -> (Schema, Fields) {
        let mut schema = Schema::builder();
        let words = || TextFieldIndexing::default().set_tokenizer(WORDS).set_index_option(IndexRecordOption::WithFreqs);
        let title = TextOptions::default().set_indexing_options(words()).set_stored();
        // Without their lengths: what is asked for is often on a long page, and a word counts little after its first
        // few occurrences as it is.
        let text = TextOptions::default().set_indexing_options(words().set_fieldnorms(false));
        let fields = Fields {
            url: schema.add_text_field("url", STRING | STORED),
            title: schema.add_text_field("title", title),
            headings: schema.add_text_field("headings", text.clone()),
            text: schema.add_text_field("text", text.set_stored()),
            same_as: schema.add_text_field("same_as", STORED),
            error: schema.add_text_field("error", STORED),
            ordinal: schema.add_u64_field(ORDINAL, FAST | INDEXED),
        };
        (schema.build(), fields)
    }
}

/// An index in memory.
pub(super) fn in_memory(pages: impl IntoIterator<Item = Page>) -> Result<(Index, Fields), IndexError> {
    let (schema, fields) = Fields::new();
    let index = Index::builder().schema(schema).tokenizers(tokenizers()).create_in_ram()?;
    write(&index, fields, pages)?;
    Ok((index, fields))
}

/// The index at `folder`, made there if there is none. It appears whole or not at all.
pub(super) fn in_folder(
    folder: &Path,
    pages: impl FnOnce() -> Result<Vec<Page>, IndexError>,
) -> Result<(Index, Fields), IndexError> {
    let (schema, fields) = Fields::new();
    if !folder.exists() {
        let pages = pages()?;
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let building = parent.join(format!(".{name}.{}", std::process::id()));
        let made =
            build(&building, schema.clone(), fields, pages).and_then(|()| match std::fs::rename(&building, folder) {
                // Somebody else made the same index meanwhile.
                Err(_) if folder.exists() => Ok(()),
                renamed => Ok(renamed?),
            });
        if building.exists() {
            std::fs::remove_dir_all(&building)?;
        }
        made?;
    }
    let mut index = Index::open_in_dir(folder)?;
    if index.schema() != schema {
        return Err(IndexError(format!("{} holds an index of another make; delete it", folder.display())));
    }
    index.set_tokenizers(tokenizers());
    Ok((index, fields))
}

fn build(folder: &Path, schema: Schema, fields: Fields, pages: Vec<Page>) -> Result<(), IndexError> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir(folder)?;
    let index = Index::builder().schema(schema).tokenizers(tokenizers()).create_in_dir(folder)?;
    write(&index, fields, pages)
}

fn tokenizers() -> TokenizerManager {
    let tokenizers = TokenizerManager::default();
    tokenizers.register(WORDS, analyzer());
    tokenizers
}

fn write(index: &Index, fields: Fields, pages: impl IntoIterator<Item = Page>) -> Result<(), IndexError> {
    // One thread: the segments, and so the sums of scores, are the same each time.
    let mut writer: IndexWriter = index.writer_with_num_threads(1, WRITER_BYTES)?;
    writer.set_merge_policy(Box::new(tantivy::indexer::NoMergePolicy));
    let mut known = Known::default();
    for (ordinal, page) in pages.into_iter().enumerate() {
        for mut document in known.documents(fields, page) {
            document.add_u64(fields.ordinal, ordinal as u64);
            writer.add_document(document)?;
        }
    }
    writer.commit()?;
    writer.wait_merging_threads()?;
    Ok(())
}

/// URLs and texts that have their document.
#[derive(Default)]
struct Known {
    urls: HashSet<String>,
    /// Digest of a text, and the URL that has it.
    texts: std::collections::HashMap<[u8; 32], String>,
}

impl Known {
    fn documents(&mut self, fields: Fields, page: Page) -> Vec<TantivyDocument> {
        let spelled = |text: &str| parse(text).map_or_else(|| text.to_string(), String::from);
        let mut urls = vec![spelled(&page.url), spelled(&page.final_url)];
        urls.dedup();
        urls.retain(|url| !url.is_empty() && self.urls.insert(url.clone()));
        let mut urls = urls.into_iter();
        let Some(first) = urls.next() else { return Vec::new() };
        let mut document = TantivyDocument::default();
        document.add_text(fields.url, &first);
        let mut has_text = first.clone();
        match page.text.filter(|text| !text.trim().is_empty()) {
            Some(text) => {
                let digest: [u8; 32] = Sha256::digest(&text).into();
                has_text = self.texts.entry(digest).or_insert(has_text).clone();
                if has_text == first {
                    document.add_text(fields.title, page.title.unwrap_or_default());
                    document.add_text(fields.headings, headings(&text));
                    document.add_text(fields.text, text);
                } else {
                    document.add_text(fields.same_as, &has_text);
                }
            }
            None => document.add_text(fields.error, page.error.unwrap_or_else(|| "the page has no text".to_string())),
        }
        let mut documents = vec![document];
        for url in urls {
            let mut document = TantivyDocument::default();
            document.add_text(fields.url, url);
            document.add_text(fields.same_as, &has_text);
            documents.push(document);
        }
        documents
    }
}

/// The headings of a Markdown text, one a line.
fn headings(text: &str) -> String {
    let mut in_code = false;
    let is_heading = |line: &&str| {
        in_code ^= line.starts_with("```");
        !in_code && line.starts_with('#')
    };
    text.lines().filter(is_heading).collect::<Vec<_>>().join("\n")
}

/// The spelling under which a URL is looked up.
pub(super) fn key(url: &Url) -> String {
    canonical(url).map_or_else(|| url.to_string(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_lines_of_the_text_and_not_of_code() {
        let text = "# One\n\ntext # no\n```sh\n# comment\n```\n## Two\n";
        assert_eq!(headings(text), "# One\n## Two");
    }
}

//! Search over titles and texts.
//!
//! Ranked in whole numbers, so that every machine gives the same order: a word counts more the fewer articles have it,
//! eight times in a title, up to three times in a text; a title that is the query comes first.

use std::collections::HashMap;

use serde::Serialize;

use super::entity::{Atlas, EntityId, fold, words};

/// Words of a query that are looked at.
const QUERY_WORDS_MAX: usize = 32;
/// Characters of a snippet.
const SNIPPET_CHARS: usize = 200;
const IN_TITLE: u64 = 8;
const IN_TEXT_MAX: u64 = 3;
const WHOLE_TITLE: u64 = 1_000;

/// A result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// Title of the article.
    pub title: String,
    /// Path of the article.
    pub path: String,
    /// Start of its text.
    pub snippet: String,
}

/// Which articles have which words.
#[derive(Debug)]
pub(super) struct Index {
    /// By word: articles, with its count in the title and in the text.
    postings: HashMap<String, Vec<(usize, u64, u64)>>,
    titles: Vec<String>,
    snippets: Vec<String>,
}

impl Index {
    pub(super) fn new(atlas: &Atlas) -> Index {
        let mut index = Index { postings: HashMap::new(), titles: Vec::new(), snippets: Vec::new() };
        for (number, entity) in atlas.entities().iter().enumerate() {
            let article = atlas.article(entity);
            let prose: Vec<String> = article.paragraphs.iter().map(|paragraph| atlas.plain(paragraph)).collect();
            let prose = prose.join(" ");
            let facts: Vec<String> =
                article.facts.iter().map(|fact| format!("{} {}", fact.name, atlas.plain(&fact.value))).collect();
            let mut counts: HashMap<String, (u64, u64)> = HashMap::new();
            for word in words(&fold(&entity.title)) {
                counts.entry(word.to_string()).or_default().0 += 1;
            }
            for word in words(&fold(&format!("{prose} {}", facts.join(" ")))) {
                counts.entry(word.to_string()).or_default().1 += 1;
            }
            for (word, (in_title, in_text)) in counts {
                index.postings.entry(word).or_default().push((number, in_title, in_text));
            }
            index.titles.push(words(&fold(&entity.title)).collect::<Vec<_>>().join(" "));
            index.snippets.push(prose.chars().take(SNIPPET_CHARS).collect());
        }
        index
    }

    /// The best `limit` results, and how many there are.
    pub(super) fn search(&self, atlas: &Atlas, query: &str, limit: usize) -> (usize, Vec<Hit>) {
        let folded = fold(query);
        let mut asked: Vec<&str> = words(&folded).take(QUERY_WORDS_MAX).collect();
        let whole = asked.join(" ");
        asked.sort_unstable();
        asked.dedup();
        let mut scores: HashMap<usize, u64> = HashMap::new();
        for postings in asked.iter().filter_map(|word| self.postings.get(*word)) {
            let rarity = u64::from((self.titles.len() / postings.len().max(1)).max(1).ilog2()) + 1;
            for (number, in_title, in_text) in postings {
                *scores.entry(*number).or_default() += rarity * (in_title * IN_TITLE + (*in_text).min(IN_TEXT_MAX));
            }
        }
        let title = |number: usize| self.titles.get(number).map_or("", String::as_str);
        let mut ranked: Vec<(u64, usize)> = scores
            .into_iter()
            .map(|(number, score)| (score + if title(number) == whole { WHOLE_TITLE } else { 0 }, number))
            .collect();
        // Ties: by kind and name, which is the order of the entities.
        ranked.sort_unstable_by_key(|(score, number)| (std::cmp::Reverse(*score), *number));
        let hits = ranked.iter().take(limit).filter_map(|(_, number)| {
            let entity = atlas.get(EntityId(*number))?;
            let snippet = self.snippets.get(*number)?.clone();
            Some(Hit { title: entity.title.clone(), path: entity.path.clone(), snippet })
        });
        (ranked.len(), hits.collect())
    }
}

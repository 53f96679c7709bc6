//! `search`: queries to an engine, hits to the model.
//!
//! The observation of one query, and of several joined by a line `=======`:
//!
//! ```text
//! A Google search for 'drava river' found 2 results:
//!
//! ## Web Results
//! 1. [Drava](https://gazetteer.example/drava)
//! Date published: Mar 3, 2025
//! Source: Gazetteer
//!
//! The Drava is a river in Central Europe.
//!
//! 2. [Rivers](https://gazetteer.example/rivers)
//! ```
//!
//! The words are those that published checkpoints were trained on, whichever engine answers.

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _};
use serde_json::{Map, Value, json};
use webdancer_schemas::digest::sha256_hex;

use super::arguments::strings;
use super::limits::{ObservationLimits, shorten};
use super::{BackEnds, Observation, Outcome, Part, Source, Tool, one_line};

/// Name of the tool.
pub const NAME: &str = "search";
/// Queries of a call that are asked at once.
const CONCURRENCY: usize = 5;
/// Characters of a title, a date and a source.
const FIELD_CHARS_MAX: usize = 200;
/// Characters of a URL that is kept as a source's.
const URL_CHARS_MAX: usize = 2_048;

/// A result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hit {
    /// Title of the page.
    pub title: String,
    /// URL of the page.
    pub url: String,
    /// When it was published, as the engine says it.
    pub date: Option<String>,
    /// Where it was published.
    pub source: Option<String>,
    /// What it says about the query.
    pub snippet: String,
}

/// Something that answers queries.
#[async_trait]
pub trait SearchEngine: Send + Sync + std::fmt::Debug {
    /// The best hits, at most `results_max`; none where nothing matches.
    ///
    /// # Errors
    /// The engine failed, after its retries.
    async fn search(&self, query: &str, results_max: usize) -> Result<Vec<Hit>, EngineFailed>;
}

/// Why an engine gave no answer, without keys. Never the query's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EngineFailed(pub String);

/// The tool.
#[derive(Debug, Clone, Copy)]
pub struct Search;

#[async_trait]
impl Tool for Search {
    fn name(&self) -> &str {
        NAME
    }

    fn specification(&self, limits: &ObservationLimits) -> Value {
        specification(limits)
    }

    async fn call(&self, arguments: &Map<String, Value>, back_ends: &BackEnds) -> Observation {
        let BackEnds { engine, limits, .. } = back_ends;
        let queries = match queries(arguments, limits) {
            Ok(queries) => queries,
            Err(reason) => return Observation::invalid(NAME, &reason),
        };
        let answers = stream::iter(queries).map(|query| async move {
            let found = engine.search(&query, limits.results_max).await;
            if let Err(failed) = &found {
                tracing::warn!(query, %failed, "a search failed");
            }
            (query, found)
        });
        let answers: Vec<_> = answers.buffered(CONCURRENCY).collect().await;
        let text = limits.join(&answers, |(query, found), room| match found {
            Ok(hits) => section(query, hits, limits, room),
            Err(_) => format!("{}no answer: the search engine failed.", head(query)),
        });
        let outcomes = answers.iter().map(|(_, found)| if found.is_ok() { Outcome::Done } else { Outcome::Outage });
        let outcome = Outcome::of_parts(outcomes);
        let hits = answers
            .iter()
            .filter_map(|(_, found)| found.as_ref().ok())
            .flat_map(|hits| hits.iter().take(limits.results_max));
        Observation { text, outcome, sources: hits.map(|hit| source(hit, limits)).collect() }
    }

    fn parts(&self, arguments: &Map<String, Value>, limits: &ObservationLimits) -> Result<Vec<Part>, String> {
        let part = |query: &String| Part {
            key: self.normal("query", query),
            head: head(query),
            missing: "no answer: the recorded web does not hold this query.".to_string(),
        };
        Ok(queries(arguments, limits)?.iter().map(part).collect())
    }
}

/// What the prompt says about the tool.
fn specification(limits: &ObservationLimits) -> Value {
    json!({
        "name": NAME,
        "description": format!(
            "Searches the web. Takes several queries in one call; returns the first {} results of each, with title, \
             link and snippet.",
            limits.results_max
        ),
        "parameters": {
            "type": "object",
            "properties": {
                "query": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "The queries. Queries that complement each other belong into one call."
                }
            },
            "required": ["query"]
        }
    })
}

/// The queries of a call, each in one line.
///
/// # Errors
/// What is wrong, as a sentence for the model.
fn queries(arguments: &Map<String, Value>, limits: &ObservationLimits) -> Result<Vec<String>, String> {
    Ok(strings(arguments, "query", limits.batch_max)?.iter().map(|query| one_line(query)).collect())
}

/// How the observation of a query begins.
fn head(query: &str) -> String {
    format!("A Google search for '{query}' found ")
}

/// As many hits as there is room for, one at least.
fn section(query: &str, hits: &[Hit], limits: &ObservationLimits, room: usize) -> String {
    let hits: Vec<String> = hits.iter().take(limits.results_max).enumerate().map(|hit| item(hit, limits)).collect();
    if hits.is_empty() {
        return format!("{}0 results:\n\nNothing matches. Use fewer or more general words.", head(query));
    }
    let mut room = room.saturating_sub(head(query).chars().count() + "10 results:\n\n## Web Results\n".len());
    let fitting = hits.iter().take_while(|hit| {
        let needed = hit.chars().count() + 2;
        let fits = needed <= room + 2;
        room = room.saturating_sub(needed);
        fits
    });
    let shown = fitting.count().max(1);
    format!("{}{shown} results:\n\n## Web Results\n{}", head(query), hits.get(..shown).unwrap_or_default().join("\n\n"))
}

/// A hit as a source: what is shown of it, without its rank.
fn source(hit: &Hit, limits: &ObservationLimits) -> Source {
    Source { url: shorten(&one_line(&hit.url), URL_CHARS_MAX), digest: sha256_hex(shown(hit, limits)) }
}

fn item((index, hit): (usize, &Hit), limits: &ObservationLimits) -> String {
    format!("{}. {}", index + 1, shown(hit, limits))
}

fn shown(hit: &Hit, limits: &ObservationLimits) -> String {
    let field = |text: &str| shorten(&one_line(text), FIELD_CHARS_MAX);
    // A bracket would end the title early.
    let title = field(&hit.title).replace(['[', ']'], "|");
    let mut text = format!("[{title}]({})", one_line(&hit.url));
    for (label, value) in [("Date published", &hit.date), ("Source", &hit.source)] {
        if let Some(value) = value.as_deref().map(field).filter(|value| !value.is_empty()) {
            text.push_str(&format!("\n{label}: {value}"));
        }
    }
    let snippet = shorten(&one_line(&hit.snippet), limits.snippet_chars_max);
    if limits.snippet_chars_max > 0 && !snippet.is_empty() {
        text.push_str("\n\n");
        text.push_str(&snippet);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Debug)]
    struct Fixed;

    #[async_trait]
    impl SearchEngine for Fixed {
        async fn search(&self, query: &str, results_max: usize) -> Result<Vec<Hit>, EngineFailed> {
            let hit = |title: &str, date: Option<&str>, snippet: &str| Hit {
                title: title.to_string(),
                url: format!("https://gazetteer.example/{}", title.len()),
                date: date.map(str::to_string),
                source: date.map(|_| "Gazetteer".to_string()),
                snippet: snippet.to_string(),
            };
            match query {
                "nothing" => Ok(Vec::new()),
                "broken" => Err(EngineFailed("status 500".to_string())),
                "many" => Ok(vec![hit("One", None, &"word ".repeat(400)); results_max]),
                _ => Ok(vec![
                    hit("The [old]\n bridge", Some("Mar 3, 2025"), "It spans\tthe Drava. "),
                    hit("Rivers", None, ""),
                ]),
            }
        }
    }

    async fn call(arguments: Value, limits: ObservationLimits) -> Observation {
        let back_ends = BackEnds::none(limits).searched_by(Arc::new(Fixed));
        Search.call(arguments.as_object().unwrap(), &back_ends).await
    }

    const BRIDGE: &str = "A Google search for 'bridge' found 2 results:\n\n## Web Results\n\
         1. [The |old| bridge](https://gazetteer.example/17)\nDate published: Mar 3, 2025\nSource: Gazetteer\n\n\
         It spans the Drava.\n\n2. [Rivers](https://gazetteer.example/6)";
    /// SHA-256 of what is shown of each.
    const BRIDGES: [(&str, &str); 2] = [
        ("https://gazetteer.example/17", "d46caa91abaa2a9426f13d16ff673403ab48d6ebd21e5dfce2915c22f17d335c"),
        ("https://gazetteer.example/6", "3cbb9da5e127bd2337445b8e9e3e798b04f98c665b75dc86ff3d7030f827f69f"),
    ];

    #[tokio::test]
    async fn an_observation_has_a_numbered_list_for_each_query() {
        let found = call(json!({"query": ["bridge", "nothing"]}), ObservationLimits::default()).await;
        let expected = format!(
            "{BRIDGE}\n=======\nA Google search for 'nothing' found 0 results:\n\nNothing matches. Use fewer or more \
             general words.\n"
        );
        let sources = BRIDGES.map(|(url, digest)| Source { url: url.to_string(), digest: digest.to_string() });
        assert_eq!(found, Observation::new(expected, Outcome::Done).of(sources.to_vec()));
    }

    #[tokio::test]
    async fn a_failed_engine_is_an_outage_and_the_other_queries_are_answered() {
        let found = call(json!({"query": ["broken", "bridge"]}), ObservationLimits::default()).await;
        let expected =
            format!("A Google search for 'broken' found no answer: the search engine failed.\n=======\n{BRIDGE}\n");
        assert_eq!((found.text, found.outcome, found.sources.len()), (expected, Outcome::Outage, 2));
    }

    #[tokio::test]
    async fn hits_that_do_not_fit_are_left_out_and_not_counted() {
        let limits = ObservationLimits { chars_max: 1_800, ..ObservationLimits::default() };
        let found = call(json!({"query": ["many", "bridge"]}), limits).await;
        assert!(found.text.starts_with("A Google search for 'many' found 2 results:"), "{}", found.text);
        assert!(found.text.ends_with(&format!("{BRIDGE}\n")));
        assert!(found.text.chars().count() <= 1_801, "{}", found.text.chars().count());
        let limits = ObservationLimits { results_max: 3, ..ObservationLimits::default() };
        let found = call(json!({"query": "many"}), limits).await;
        assert!(found.text.starts_with("A Google search for 'many' found 3 results:"));
    }

    #[tokio::test]
    async fn wrong_arguments_are_explained() {
        let found = call(json!({"queries": ["a"]}), ObservationLimits::default()).await;
        let text = "The call of search is not valid. The argument \"query\" is missing: give an array of strings.\n";
        assert_eq!(found, Observation::new(text, Outcome::Invalid));
    }
}

//! `visit`: pages read for a goal.
//!
//! The observation of one URL, and of several joined by a line `=======`:
//!
//! ```text
//! The useful information in https://gazetteer.example/maribor for user goal Name of the river as follows:·
//!
//! Evidence in page:·
//! The river Drava flows through the city.
//!
//! Summary:·
//! Maribor lies on the Drava.
//! ```
//!
//! where `·` is a space at the end of its line. The words are those that published checkpoints were trained on.

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _};
use serde_json::{Map, Value, json};
use url::Url;
use webdancer_schemas::digest::sha256_hex;

use super::arguments::{string, strings};
use super::limits::{ObservationLimits, shorten};
use super::summary::{Summary, conclusion, rank};
use super::{BackEnds, Observation, Outcome, Part, Source, Tool, harmless, one_line};
use crate::fetch::url::parse;
use crate::index::passages::Ranked;

/// Name of the tool.
pub const NAME: &str = "visit";
/// URLs of a call that are read at once.
const CONCURRENCY: usize = 5;
/// Characters of a goal that are repeated.
const GOAL_CHARS_MAX: usize = 1_000;
/// Characters of the reason why a page cannot be read.
const REASON_CHARS_MAX: usize = 300;
/// Where no model summarises, the best sentence may take one part in so many of the room: it is among the evidence.
const SENTENCE_SHARE: usize = 3;

/// What a page says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageText {
    /// Its title.
    pub title: Option<String>,
    /// Its main text, Markdown.
    pub text: String,
}

/// Why a page cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageFailed {
    /// It is not there, refused, too large, or no text: nobody's fault.
    #[error("{0}")]
    Unreachable(String),
    /// Whoever should read it failed, after its retries. Holds no keys.
    #[error("{0}")]
    Outage(String),
}

/// Where pages come from.
#[async_trait]
pub trait PageSource: Send + Sync + std::fmt::Debug {
    /// The page at `url`, which is canonical.
    ///
    /// # Errors
    /// There is no text.
    async fn page(&self, url: &Url) -> Result<PageText, PageFailed>;
}

/// The tool.
#[derive(Debug, Clone, Copy)]
pub struct Visit;

/// One URL of a call.
struct Read {
    url: String,
    /// The page, where there was one.
    source: Option<Source>,
    said: Said,
    outcome: Outcome,
}

/// What a page says about a goal.
enum Said {
    /// In a model's words, or why there is nothing.
    Summary(Summary),
    /// In its own, as many as there is room for.
    Passages(Ranked),
}

impl Visit {
    async fn read(&self, url: String, goal: &str, back_ends: &BackEnds) -> Read {
        let failed = |reason: &str, outcome| {
            let said = Said::Summary(no_page(reason));
            Read { url: url.clone(), source: None, said, outcome }
        };
        let Some(parsed) = parse(&url) else {
            return failed("it is no URL that begins with http:// or https://", Outcome::Invalid);
        };
        let page = match back_ends.pages.page(&parsed).await {
            Ok(page) => page,
            Err(PageFailed::Unreachable(reason)) => return failed(&reason, Outcome::Unreachable),
            Err(PageFailed::Outage(reason)) => {
                tracing::warn!(url, reason, "a visit failed");
                return failed("the reader failed", Outcome::Outage);
            }
        };
        let source = Source { url: parsed.into(), digest: sha256_hex(&page.text) };
        // Before a model sees it, not only before the agent does.
        let text = harmless(titled(&page));
        let said = match &back_ends.summariser {
            None => Said::Passages(rank(text, goal.to_string()).await),
            Some(summariser) => match summariser.summarise(&text, goal, back_ends.limits.page_words_max).await {
                Ok(summary) => Said::Summary(summary),
                Err(error) => {
                    tracing::warn!(url, %error, "a page could not be summarised");
                    return failed("the summariser failed", Outcome::Outage);
                }
            },
        };
        Read { url, source: Some(source), said, outcome: Outcome::Done }
    }
}

#[async_trait]
impl Tool for Visit {
    fn name(&self) -> &str {
        NAME
    }

    fn specification(&self, _: &ObservationLimits) -> Value {
        specification()
    }

    async fn call(&self, arguments: &Map<String, Value>, back_ends: &BackEnds) -> Observation {
        let limits = &back_ends.limits;
        let (urls, goal) = match urls_and_goal(arguments, limits) {
            Ok(read) => read,
            Err(reason) => return Observation::invalid(NAME, &reason),
        };
        let pages = stream::iter(urls).map(|url| self.read(url, &goal, back_ends));
        let pages: Vec<Read> = pages.buffered(CONCURRENCY).collect().await;
        let text = limits.join(&pages, |page, room| section(page, &goal, limits.page_words_max, room));
        let outcome = Outcome::of_parts(pages.iter().map(|page| page.outcome));
        Observation { text, outcome, sources: pages.into_iter().filter_map(|page| page.source).collect() }
    }

    fn parts(&self, arguments: &Map<String, Value>, limits: &ObservationLimits) -> Result<Vec<Part>, String> {
        let (urls, goal) = urls_and_goal(arguments, limits)?;
        let part = |url: &String| Part {
            key: format!("{} {}", self.normal("url", url), self.normal("goal", &goal)),
            head: head(url, &goal),
            missing: evidence_and_summary(
                "The recorded web does not hold this page for this goal.",
                "Nothing is known about this page. Try another one.",
            ),
        };
        Ok(urls.iter().map(part).collect())
    }

    /// The page of its URL: an excerpt may link to others.
    fn is_source(&self, part: &Part, _: &str, source: &Source) -> bool {
        part.key.split(' ').next() == Some(source.url.as_str())
    }

    fn normal(&self, parameter: &str, text: &str) -> String {
        match parse(text).filter(|_| parameter == "url") {
            Some(url) => url.into(),
            None => one_line(text).to_lowercase(),
        }
    }
}

/// What the prompt says about the tool.
fn specification() -> Value {
    json!({
        "name": NAME,
        "description": "Reads web pages and returns what they say about a goal.",
        "parameters": {
            "type": "object",
            "properties": {
                "url": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "The URLs of the pages."
                },
                "goal": {
                    "type": "string",
                    "description": "What to find out from the pages."
                }
            },
            "required": ["url", "goal"]
        }
    })
}

/// The URLs of a call as written, and the goal in one line.
///
/// # Errors
/// What is wrong, as a sentence for the model.
pub(crate) fn urls_and_goal(
    arguments: &Map<String, Value>,
    limits: &ObservationLimits,
) -> Result<(Vec<String>, String), String> {
    let urls = strings(arguments, "url", limits.batch_max)?.iter().map(|url| one_line(url)).collect();
    Ok((urls, shorten(&one_line(&string(arguments, "goal")?), GOAL_CHARS_MAX)))
}

/// How the observation of a URL begins.
pub(crate) fn head(url: &str, goal: &str) -> String {
    format!("The useful information in {url} for user goal {goal} as follows: \n\n")
}

/// The page's text under its title, unless it begins with it.
fn titled(page: &PageText) -> String {
    match page.title.as_deref().map(one_line).filter(|title| !title.is_empty()) {
        Some(title) if !page.text.trim_start_matches(['#', ' ', '\n']).starts_with(&title) => {
            format!("# {title}\n\n{}", page.text)
        }
        _ => page.text.clone(),
    }
}

/// What a section of an observation, without its head, says of its page: evidence and summary without their headings. None
/// where the page could not be read.
pub(crate) fn shown(section: &str) -> Option<String> {
    let (evidence, summary) =
        section.strip_prefix(EVIDENCE).and_then(|rest| rest.split_once(SUMMARY)).unwrap_or((section, ""));
    let text = [evidence.trim(), summary.trim()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    (!text.is_empty() && !evidence.starts_with(UNREAD)).then(|| text.join("\n\n"))
}

/// How the evidence begins of a page that could not be read.
const UNREAD: &str = "The page could not be read: ";
/// What stands before evidence and summary.
const EVIDENCE: &str = "Evidence in page: \n";
const SUMMARY: &str = "\n\nSummary: \n";

fn no_page(reason: &str) -> Summary {
    Summary {
        rational: String::new(),
        evidence: format!("{UNREAD}{}.", shorten(&one_line(reason), REASON_CHARS_MAX)),
        summary: "Nothing is known about this page. Try another one.".to_string(),
    }
}

fn evidence_and_summary(evidence: &str, summary: &str) -> String {
    format!("{EVIDENCE}{evidence}{SUMMARY}{summary}")
}

/// Evidence gives way to a summary where there is not room for both.
fn section(read: &Read, goal: &str, words_max: usize, room: usize) -> String {
    let head = head(&read.url, goal);
    let room = room.saturating_sub(head.chars().count() + evidence_and_summary("", "").chars().count());
    let beside = |summary: &str| room.saturating_sub(summary.chars().count());
    let (evidence, summary) = match &read.said {
        Said::Summary(Summary { evidence, summary, .. }) => {
            let summary = shorten(summary, room);
            (shorten(evidence, beside(&summary)), summary)
        }
        Said::Passages(ranked) => {
            let summary = shorten(conclusion(ranked), room / SENTENCE_SHARE);
            (shorten(&ranked.show(words_max, beside(&summary)), beside(&summary)), summary)
        }
    };
    format!("{head}{}", evidence_and_summary(&evidence, &summary))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Debug)]
    struct Two;

    #[async_trait]
    impl PageSource for Two {
        async fn page(&self, url: &Url) -> Result<PageText, PageFailed> {
            match url.path() {
                "/maribor" => Ok(PageText {
                    title: Some("Maribor".to_string()),
                    text: "A city in Slovenia. The river Drava flows through it.".to_string(),
                }),
                "/long" => Ok(PageText { title: None, text: "The river is long. ".repeat(2_000) }),
                "/gone" => Err(PageFailed::Unreachable("status 404".to_string())),
                _ => Err(PageFailed::Outage("jina: status 500 (4 attempts)".to_string())),
            }
        }
    }

    async fn call(arguments: Value) -> Observation {
        let back_ends = BackEnds::none(ObservationLimits::default()).reading(Arc::new(Two));
        Visit.call(arguments.as_object().unwrap(), &back_ends).await
    }

    const MARIBOR: &str = "The useful information in https://gazetteer.example/maribor for user goal Name of the river \
        as follows: \n\nEvidence in page: \n# Maribor\n\nA city in Slovenia. The river Drava flows through it.\n\n\
        Summary: \nThe river Drava flows through it.";

    /// The page's whole text, whatever of it is shown.
    fn maribor() -> Source {
        let digest = "02b49da2ab748a0766008edd964d724b65c28e1da287505456ec80f4edb546ad".to_string();
        Source { url: "https://gazetteer.example/maribor".to_string(), digest }
    }

    #[tokio::test]
    async fn an_observation_has_evidence_and_summary_for_each_url() {
        let goal = "Name of\nthe river";
        let urls = ["https://gazetteer.example/maribor", "https://gazetteer.example/gone"];
        let found = call(json!({"url": urls, "goal": goal})).await;
        let expected = format!(
            "{MARIBOR}\n=======\nThe useful information in https://gazetteer.example/gone for user goal Name of the \
             river as follows: \n\nEvidence in page: \nThe page could not be read: status 404.\n\nSummary: \nNothing is \
             known about this page. Try another one.\n"
        );
        assert_eq!(found, Observation::new(expected, Outcome::Done).of(vec![maribor()]));
        let found = call(json!({"url": "https://gazetteer.example/maribor", "goal": goal})).await;
        assert_eq!(found, Observation::new(format!("{MARIBOR}\n"), Outcome::Done).of(vec![maribor()]));
    }

    #[tokio::test]
    async fn each_way_to_fail_has_its_outcome() {
        for (url, outcome, said) in [
            ("https://gazetteer.example/gone", Outcome::Unreachable, "status 404."),
            ("https://gazetteer.example/down", Outcome::Outage, "the reader failed."),
            ("gazetteer.example", Outcome::Invalid, "it is no URL that begins with http:// or https://."),
            ("file:///etc/passwd", Outcome::Invalid, "it is no URL that begins with http:// or https://."),
        ] {
            let found = call(json!({"url": [url], "goal": "g"})).await;
            assert_eq!((found.outcome, found.sources.is_empty()), (outcome, true), "{url}");
            assert!(found.text.contains(&format!("The page could not be read: {said}")), "{}", found.text);
        }
        let found = call(json!({"url": ["https://gazetteer.example/maribor"]})).await;
        let text = "The call of visit is not valid. The argument \"goal\" is missing: give a string.\n";
        assert_eq!(found, Observation::new(text, Outcome::Invalid));
    }

    #[tokio::test]
    async fn long_pages_share_the_observation() {
        let urls = ["https://gazetteer.example/long"; 3];
        let found = call(json!({"url": urls, "goal": "How long is the river?"})).await;
        let sections = found.text.split("\n=======\n").collect::<Vec<_>>();
        assert_eq!(sections.len(), 3);
        assert!(found.text.chars().count() <= 8_001, "{}", found.text.chars().count());
        assert!(sections.iter().all(|section| section.chars().count() > 2_000), "{sections:?}");
        assert!(sections.iter().all(|section| section.trim_end().ends_with("The river is long.")));
    }
}

//! E2HQA: a simple question made hard by a model (paper section 2.1).
//!
//! A step chooses an entity E of the question, looks it up, and replaces it by a description R of it, so that the
//! question asks for more and its answer stays. That it stays is checked: from the description and the page alone the
//! reader must tell the entity, and from the pages of all steps it must find the old answer to the new question. A step
//! that fails the check is an event too, with `invariant` false, and ends the chain; its question is not kept. So is the
//! end of a chain that cannot be rewritten any more: a rewrite of step 0 without an entity, so that nobody tries it again.
//! A chain that a budget cut short has no such end: [`Chains`] finds it, and it goes on where it was.

mod chains;
mod run;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::json;
use webdancer_agent::chat::{ChatError, ChatRequest, Sampling};
use webdancer_agent::conversation::{Message, Role};
use webdancer_agent::published::qa_id;
use webdancer_agent::tool::Web;
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::row::HasKind;
use webdancer_schemas::rows::{Page, Qa, Rewrite};

pub use self::chains::{Chains, Link, Progress};
pub use self::run::{E2hqaReport, Root};
use crate::atlasqa::events::SOURCE;
use crate::crawlqa::prompt::{message, numbered, with_evidence};
use crate::crawlqa::{Asked, Models, RunOf, SynthError, Threshold, at_least};
use crate::question::{QuestionType, leaks, normalised};
use crate::reply::{object_with, text_of};
use crate::scripted::hit;

/// Entities of a question that are tried in one step.
const ENTITIES_MAX: usize = 3;

const CHOOSE: &str = "You make questions harder. Name one entity that the question mentions (a person, place, work, \
    organisation, product, date), word for word as it stands there, which could be described without being named; and a \
    search query that finds a page about it. Do not choose the answer, nor any of the entities you are told to leave. \
    Reply with one JSON object: {\"entity\": \"…\", \"query\": \"…\"}, or {\"entity\": null} if there is none.";

const DESCRIBE: &str = "You make questions harder. You are given pages about an entity and a question that names it. Write a \
    description of the entity, from the pages alone, that fits nothing else and does not name it, nor give away the \
    answer; it should take a search to understand. Then write the question again with the description in the entity's \
    place and nothing else changed but what grammar asks for. Reply with one JSON object: {\"description\": \"…\", \
    \"question\": \"…\"}, or {\"description\": null} if the pages do not allow it.";

const IDENTIFY: &str = "Which one thing does the description mean? Use the given pages and what you know. If it fits several \
    things or none, the answer is unknown. Reply with one JSON object: {\"answer\": \"…\"}.";

/// Limits and thresholds, each with its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct E2hqaConfig {
    /// Rewrites of a question. 4 by default.
    pub rewrites: u32,
    /// Pages that a description is written from. 3 by default.
    pub pages_max: usize,
    /// Characters of a page that models see. 6,000 by default.
    pub page_chars_max: usize,
    /// Characters of a question. 1,000 by default.
    pub question_chars_max: usize,
    /// The check of the entity and that of the answer: 3 of 4 by default.
    pub invariant: Threshold,
    /// How the writer samples.
    pub writing: Sampling,
    /// How the reader samples.
    pub reading: Sampling,
    /// Tokens of a reply. 4,096 by default.
    pub reply_tokens_max: u32,
    /// Questions rewritten at once. 8 by default.
    pub concurrency: usize,
}

impl Default for E2hqaConfig {
    fn default() -> E2hqaConfig {
        E2hqaConfig {
            rewrites: 4,
            pages_max: 3,
            page_chars_max: 6_000,
            question_chars_max: 1_000,
            invariant: Threshold { calls: 4, right: 3 },
            writing: Sampling::default(),
            reading: Sampling::default(),
            reply_tokens_max: 4_096,
            concurrency: 8,
        }
    }
}

impl E2hqaConfig {
    /// What is wrong with it, if anything: names the key.
    pub fn fault(&self) -> Option<String> {
        if let Some(fault) = self.invariant.fault() {
            return Some(format!("invariant {fault}"));
        }
        let sizes = [
            ("pages_max", self.pages_max),
            ("page_chars_max", self.page_chars_max),
            ("question_chars_max", self.question_chars_max),
            ("reply_tokens_max", self.reply_tokens_max as usize),
        ];
        sizes.iter().find(|(_, size)| *size == 0).map(|(key, _)| format!("{key} must be at least 1"))
    }
}

/// Where pages about an entity come from.
#[async_trait]
pub trait PageFinder: Send + Sync {
    /// The best pages for a query, at most `pages_max`.
    async fn find(&self, query: &str, pages_max: usize) -> Vec<Arc<Page>>;
}

/// The pages that a web's search finds among known ones.
#[derive(Debug)]
pub struct WebFinder {
    web: Arc<dyn Web>,
    by_url: HashMap<String, Arc<Page>>,
}

impl WebFinder {
    /// Finds `pages` by the search of `web`, such as a closed web of the same pages.
    pub fn new(web: Arc<dyn Web>, pages: impl IntoIterator<Item = Arc<Page>>) -> WebFinder {
        WebFinder { web, by_url: pages.into_iter().map(|page| (page.url.clone(), page)).collect() }
    }
}

#[async_trait]
impl PageFinder for WebFinder {
    async fn find(&self, query: &str, pages_max: usize) -> Vec<Arc<Page>> {
        let observed = self.web.call("search", &json!({ "query": [query] }).to_string()).await;
        let urls = observed.text.lines().filter_map(hit).map(|(_, url)| url);
        urls.filter_map(|url| self.by_url.get(&url).cloned()).take(pages_max).collect()
    }
}

/// Whether a question may be one to begin with: its answer is an entity (paper section 2.1). Yes, no, a count and a
/// difference are none; many a rewrite that means something else has the same. Where nobody says what kind of question it is,
/// a number is taken for a count.
pub fn is_simple(question: &Qa) -> bool {
    const NO_ENTITY: [QuestionType; 3] = [QuestionType::Count, QuestionType::Difference, QuestionType::YesNo];
    let kind = question.r#type.as_deref().and_then(|kind| kind.parse().ok());
    let answer = normalised(&question.answer);
    let is_number = answer.chars().all(|c| c.is_numeric() || [' ', '.', ',', '-'].contains(&c));
    !kind.map_or(is_number, |kind| NO_ENTITY.contains(&kind))
        && !["", "yes", "no", "true", "false"].contains(&answer.as_str())
}

/// Why a chain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It has the rewrites asked for.
    Enough,
    /// No entity is left that could be described.
    NoEntityLeft,
    /// The last rewrite changed the answer, or may have.
    NotInvariant,
    /// Question and pages do not fit a model's context.
    TooLong,
    /// The budget was spent.
    BudgetSpent,
}

/// A chain's events, and how it ended.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// For each rewrite the `rewrite`, and the `qa` where it is kept; a `rewrite` of nothing behind the last where there
    /// can be no more.
    pub events: Vec<Event>,
    /// Rewrites of the whole chain that are kept.
    pub rewrites: u32,
    /// Why there are no more.
    pub stopped: Stop,
}

/// Rewrites questions.
pub struct E2hqa<'a> {
    /// Who writes, answers and judges.
    pub models: &'a Models,
    /// Where pages come from.
    pub finder: &'a dyn PageFinder,
    /// Limits and thresholds.
    pub config: &'a E2hqaConfig,
}

impl std::fmt::Debug for E2hqa<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("E2hqa").field("models", &self.models).field("config", &self.config).finish_non_exhaustive()
    }
}

/// A chain under way.
struct Chain {
    question: String,
    answer: String,
    qa_id: String,
    /// The root's entities, then those that were described away.
    entities: Vec<String>,
    /// Entities that were described away, those of the root too that its question does not name any more.
    gone: Vec<String>,
    evidence: Vec<Arc<Page>>,
}

/// A rewrite that was written and not yet checked.
struct Draft {
    entity: String,
    query: String,
    pages: Vec<Arc<Page>>,
    description: String,
    question: String,
}

impl E2hqa<'_> {
    /// Rewrites a question. What was made before a model's context or the budget ends is kept.
    ///
    /// # Errors
    /// A model refused, or could not be reached.
    pub async fn rewrite(&self, root: &Root, run: &RunOf) -> Result<Rewritten, SynthError> {
        let Root { question: root, evidence, made } = root;
        let made = *made;
        let mut chain = Chain {
            question: root.question.clone(),
            answer: root.answer.clone(),
            qa_id: root.qa_id.clone(),
            entities: root.entity_chain.clone(),
            gone: root.entity_chain.iter().filter(|entity| !leaks(&root.question, entity)).cloned().collect(),
            evidence: evidence.clone(),
        };
        let mut events = Vec::new();
        for step in made.saturating_add(1)..=self.config.rewrites {
            let (draft, evidence, invariant) = match self.step(&chain).await {
                Ok(Some(checked)) => checked,
                ended => {
                    let stopped = match ended {
                        Err(ChatError::ContextFull { .. }) => Stop::TooLong,
                        Err(ChatError::BudgetSpent(_)) => Stop::BudgetSpent,
                        Err(error) => return Err(error.into()),
                        Ok(_) => Stop::NoEntityLeft,
                    };
                    if stopped != Stop::BudgetSpent {
                        events.push(end_event(&chain, run)?);
                    }
                    return Ok(Rewritten { events, rewrites: step - 1, stopped });
                }
            };
            let new_id = qa_id(&draft.question);
            events.push(rewrite_event(&chain, &draft, &new_id, step, invariant, run)?);
            if !invariant {
                return Ok(Rewritten { events, rewrites: step - 1, stopped: Stop::NotInvariant });
            }
            if !holds(&chain.entities, &draft.entity) {
                chain.entities.push(draft.entity.clone());
            }
            chain.gone.push(draft.entity);
            let parent = std::mem::replace(&mut chain.qa_id, new_id.clone());
            chain = Chain { question: draft.question, evidence, ..chain };
            let row = self.row(root, &chain, &parent, step - made);
            events.push(event(&row, &new_id, 0, run)?.with_parents(vec![parent]));
        }
        Ok(Rewritten { events, rewrites: self.config.rewrites.max(made), stopped: Stop::Enough })
    }

    /// The next rewrite, the pages that the new question rests on, and whether the answer stays.
    async fn step(&self, chain: &Chain) -> Result<Option<(Draft, Vec<Arc<Page>>, bool)>, ChatError> {
        let Some(draft) = self.draft(chain).await? else { return Ok(None) };
        let mut evidence = chain.evidence.clone();
        evidence.extend(draft.pages.iter().filter(|page| !chain.evidence.contains(page)).cloned());
        let invariant = self.is_invariant(chain, &draft, &evidence).await?;
        Ok(Some((draft, evidence, invariant)))
    }

    /// The question that a chain has come to, `steps` behind `root`.
    fn row(&self, root: &Qa, chain: &Chain, parent: &str, steps: u32) -> Qa {
        let attributes = json!({
            // Of a question that is a rewrite already, its own root: who keeps roots apart must not split a family.
            "root_qa_id": root_of(root),
            "urls": chain.evidence.iter().map(|page| page.url.as_str()).collect::<Vec<_>>(),
        });
        Qa {
            qa_id: chain.qa_id.clone(),
            method: "e2hqa".to_string(),
            question: chain.question.clone(),
            answer: root.answer.clone(),
            r#type: root.r#type.clone(),
            language: root.language.clone(),
            rewrites: i32::try_from(steps).ok().and_then(|steps| steps.checked_add(root.rewrites.unwrap_or(0))),
            entity_chain: chain.entities.clone(),
            evidence_page_digests: chain.evidence.iter().filter_map(|page| page.digest.clone()).collect(),
            parent_qa_id: Some(parent.to_string()),
            generator: Some(self.models.writer.name().to_string()),
            attributes: Some(JsonText(attributes)),
        }
    }

    /// A rewrite of the question as it is, if there is an entity that can be described.
    async fn draft(&self, chain: &Chain) -> Result<Option<Draft>, ChatError> {
        let mut left = chain.gone.clone();
        for _ in 0..ENTITIES_MAX {
            let asked = format!("Question: {}\nAnswer: {}\nLeave: {}", chain.question, chain.answer, left.join("; "));
            let reply = self.write(CHOOSE, &asked).await?;
            let chosen = object_with(&reply, &["entity"]);
            let entity = chosen.as_ref().and_then(|object| text_of(object, "entity"));
            let Some((object, entity)) = chosen.as_ref().zip(entity) else { return Ok(None) };
            let query = text_of(object, "query").unwrap_or_else(|| entity.clone());
            left.push(entity.clone());
            if holds(&chain.gone, &entity)
                || !leaks(&chain.question, &entity)
                || normalised(&entity) == normalised(&chain.answer)
            {
                continue;
            }
            let pages = self.finder.find(&query, self.config.pages_max).await;
            if pages.is_empty() {
                continue;
            }
            if let Some((description, question)) = self.describe(chain, &entity, &pages).await? {
                return Ok(Some(Draft { entity, query, pages, description, question }));
            }
        }
        Ok(None)
    }

    /// A description and the question with it, if neither names the entity or gives the answer away.
    async fn describe(
        &self,
        chain: &Chain,
        entity: &str,
        pages: &[Arc<Page>],
    ) -> Result<Option<(String, String)>, ChatError> {
        let pages = numbered(pages, self.config.page_chars_max);
        let asked = format!("{pages}\n\nEntity: {entity}\nQuestion: {}\nAnswer: {}", chain.question, chain.answer);
        let reply = self.write(DESCRIBE, &asked).await?;
        let Some(object) = object_with(&reply, &["description"]) else { return Ok(None) };
        let (Some(description), Some(question)) = (text_of(&object, "description"), text_of(&object, "question"))
        else {
            return Ok(None);
        };
        let named = [&description, &question].into_iter().any(|text| leaks(text, entity) || leaks(text, &chain.answer));
        let long = question.chars().count() > self.config.question_chars_max;
        let same = normalised(&question) == normalised(&chain.question);
        Ok((!named && !long && !same).then_some((description, question)))
    }

    /// Whether the description means the entity, and the new question has the old answer.
    async fn is_invariant(&self, chain: &Chain, draft: &Draft, evidence: &[Arc<Page>]) -> Result<bool, ChatError> {
        let chars = self.config.page_chars_max;
        let asked = format!("{}\n\nDescription: {}", numbered(&draft.pages, chars), draft.description);
        let identify = [message(Role::System, IDENTIFY), message(Role::User, &asked)];
        let which = format!("Which one thing is meant by: {}?", draft.description);
        if !self.agrees(&which, &draft.entity, &identify).await? {
            return Ok(false);
        }
        self.agrees(&draft.question, &chain.answer, &with_evidence(&draft.question, evidence, chars)).await
    }

    async fn agrees(&self, question: &str, gold: &str, messages: &[Message]) -> Result<bool, ChatError> {
        let (sampling, tokens_max) = (self.config.reading, self.config.reply_tokens_max);
        let asked = Asked { question, gold, messages, sampling, tokens_max };
        let (agrees, _) = at_least(self.models, &asked, self.config.invariant).await?;
        // What could not be judged was not checked.
        Ok(agrees == Some(true))
    }

    async fn write(&self, instructions: &str, asked: &str) -> Result<String, ChatError> {
        let request = ChatRequest {
            messages: vec![message(Role::System, instructions), message(Role::User, asked)],
            sampling: self.config.writing,
            max_tokens: Some(self.config.reply_tokens_max),
            ..ChatRequest::default()
        };
        Ok(self.models.writer.complete(&request).await?.text)
    }
}

fn holds(entities: &[String], entity: &str) -> bool {
    entities.iter().any(|other| normalised(other) == normalised(entity))
}

fn rewrite_event(
    chain: &Chain,
    draft: &Draft,
    new_id: &str,
    step: u32,
    invariant: bool,
    run: &RunOf,
) -> Result<Event, SynthError> {
    let row = Rewrite {
        qa_id: new_id.to_string(),
        step: i32::try_from(step).unwrap_or(i32::MAX),
        entity: draft.entity.clone(),
        query: Some(draft.query.clone()),
        evidence_page_digests: draft.pages.iter().filter_map(|page| page.digest.clone()).collect(),
        description: draft.description.clone(),
        new_question: draft.question.clone(),
        invariant: Some(invariant),
    };
    let subject = format!("{}/{new_id}", chain.qa_id);
    Ok(event(&row, &subject, u64::from(step), run)?.with_parents(vec![chain.qa_id.clone()]))
}

/// The event that a chain's last question was tried and stays as it is.
fn end_event(chain: &Chain, run: &RunOf) -> Result<Event, SynthError> {
    let row =
        Rewrite { qa_id: chain.qa_id.clone(), step: 0, new_question: chain.question.clone(), ..Rewrite::default() };
    // Of this run: another one may have other pages, or another writer.
    let subject = format!("{}/{}", run.run_id, chain.qa_id);
    Ok(event(&row, &subject, 0, run)?.with_parents(vec![chain.qa_id.clone()]))
}

fn event<R: HasKind>(row: &R, subject: &str, step: u64, run: &RunOf) -> Result<Event, SynthError> {
    let id = EventId::derive(DateTime::UNIX_EPOCH, SOURCE, R::KIND, subject, step);
    let event = Event::new(SOURCE, row).map_err(|e| SynthError::Unwritable(e.to_string()))?;
    Ok(event.with_id(id).with_run(&run.run_id).at(run.start))
}

/// The question that a family of rewrites began with.
fn root_of(question: &Qa) -> &str {
    let known = question.attributes.as_ref().and_then(|attributes| attributes.0.get("root_qa_id")?.as_str());
    known.unwrap_or(&question.qa_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(kind: Option<&str>, answer: &str) -> Qa {
        Qa { r#type: kind.map(str::to_string), answer: answer.to_string(), ..Qa::default() }
    }

    #[test]
    fn a_question_to_begin_with_has_an_entity_for_an_answer() {
        for (kind, answer, expected) in [
            (Some("generic"), "Ida Storm", true),
            (Some("multi-hop"), "1901", true),
            (None, "Ida Storm", true),
            (Some("a type of somebody else"), "Ida Storm", true),
            (Some("yes-no"), "yes", false),
            (Some("count"), "12", false),
            (Some("difference"), "1250.5", false),
            (None, "No.", false),
            (None, " TRUE ", false),
            (None, "?", false),
            // A count that nobody said to be one.
            (None, "2", false),
            (None, "1,250", false),
            (Some("a type of somebody else"), "12", false),
            (None, "Apollo 11", true),
        ] {
            assert_eq!(is_simple(&question(kind, answer)), expected, "{kind:?} {answer:?}");
        }
    }

    #[test]
    fn rewrites_of_a_rewrite_belong_to_the_family_of_its_root() {
        let of = |attributes: Option<serde_json::Value>| Qa {
            qa_id: "qa-3".to_string(),
            attributes: attributes.map(JsonText),
            ..Qa::default()
        };
        assert_eq!(root_of(&of(Some(json!({"root_qa_id": "qa-0"})))), "qa-0");
        assert_eq!(root_of(&of(Some(json!({"root_qa_id": 7})))), "qa-3");
        assert_eq!(root_of(&of(Some(json!({"world": "real"})))), "qa-3");
        assert_eq!(root_of(&of(None)), "qa-3");
    }
}

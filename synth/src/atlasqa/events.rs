//! Questions about an atlas as events.
//!
//! Every id is derived from what was made, never from the run that made it: a question is one row, whichever run makes
//! it and however often. The event time is the time of the run that came first.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::row::HasKind;
use webdancer_schemas::rows::{Qa, Rewrite, Run};

use super::author::Question;
use super::form::Form;
use super::rewriting::Chain;

/// The source of these events.
pub const SOURCE: &str = "webdancer/synth";
/// What wrote the questions, as it stands in `generator`.
pub const GENERATOR: &str = concat!("webdancer-atlasqa/", env!("CARGO_PKG_VERSION"));

/// Hexadecimal digits of a digest in a run's id.
const RUN_DIGITS: usize = 16;

/// The run that events are made in.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    run_id: String,
    start: DateTime<Utc>,
    world: String,
    kind: &'static str,
    config: Value,
}

impl Origin {
    /// A run of `kind` (`crawlqa` or `e2hqa`) over a [world](super::Author::world), begun at `start`. The run's id is of
    /// kind, world and configuration: the same run again is the same run.
    pub fn new(kind: &'static str, world: &str, config: Value, start: DateTime<Utc>) -> Origin {
        let config = json!({ "source": "atlas", "world": world, "settings": config });
        let digest = Sha256::digest(config.to_string());
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let run_id = kind.chars().chain(['-']).chain(digits.chars().take(RUN_DIGITS)).collect();
        Origin { run_id, start, world: world.to_string(), kind, config }
    }

    /// The run's id.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The event that the run entered a state: `started` or `finished`.
    ///
    /// # Errors
    /// Does not happen: a row of text has a JSON form.
    pub fn run(&self, state: &str) -> Result<Event, serde_json::Error> {
        let row = Run {
            kind: self.kind.to_string(),
            state: state.to_string(),
            config: Some(JsonText(self.config.clone())),
            code_version: Some(webdancer_schemas::code::version()),
            ..Run::default()
        };
        self.event(&row, &format!("{}/{state}", self.run_id), 0)
    }

    /// The event of a CRAWLQA question.
    ///
    /// # Errors
    /// Does not happen: a row of text has a JSON form.
    pub fn crawlqa(&self, question: &Question) -> Result<Event, serde_json::Error> {
        let mut chain: Vec<String> = question.evidence.iter().map(|page| page.title.clone()).collect();
        let names = matches!(question.form, Form::Name(_) | Form::Compare { .. });
        if names && !chain.contains(&question.answer) {
            chain.push(question.answer.clone());
        }
        let row = Qa { method: "crawlqa".to_string(), entity_chain: chain, ..self.row(question, &question.qa_id) };
        self.event(&row, &question.qa_id, 0)
    }

    /// The events of a chain: its root, then for each step the rewritten question and the rewrite.
    ///
    /// # Errors
    /// Does not happen: a row of text has a JSON form.
    pub fn e2hqa(&self, chain: &Chain) -> Result<Vec<Event>, serde_json::Error> {
        let root = &chain.root;
        let root_id = &root.qa_id;
        let mut entities: Vec<String> = root.evidence.iter().map(|page| page.title.clone()).collect();
        let method = || "e2hqa".to_string();
        let row = Qa { method: method(), rewrites: Some(0), entity_chain: entities.clone(), ..self.row(root, root_id) };
        let mut events = vec![self.event(&row, root_id, 0)?];
        let mut parent = root_id.clone();
        for (step, number) in chain.steps.iter().zip(1i32..) {
            entities.extend(step.brought_in.iter().cloned());
            let row = Qa {
                method: method(),
                rewrites: Some(number),
                entity_chain: entities.clone(),
                parent_qa_id: Some(parent.clone()),
                ..self.row(&step.question, root_id)
            };
            let qa_id = &step.question.qa_id;
            events.push(self.event(&row, qa_id, 0)?.with_parents(vec![parent.clone()]));
            let rewrite = Rewrite {
                qa_id: qa_id.clone(),
                step: number,
                entity: step.entity.clone(),
                query: Some(step.query.clone()),
                evidence_page_digests: step.evidence.clone(),
                description: step.description.clone(),
                new_question: step.question.text.clone(),
                invariant: Some(true),
            };
            let subject = format!("{parent}/{qa_id}");
            let event = self.event(&rewrite, &subject, u64::from(number.unsigned_abs()))?;
            events.push(event.with_parents(vec![parent.clone()]));
            parent.clone_from(qa_id);
        }
        Ok(events)
    }

    fn row(&self, question: &Question, root_qa_id: &str) -> Qa {
        let paths: Vec<&str> = question.evidence.iter().map(|page| page.path.as_str()).collect();
        let attributes = json!({
            "world": self.world,
            "root_qa_id": root_qa_id,
            "form": question.form,
            "plan": question.plan,
            "evidence_paths": paths,
        });
        Qa {
            qa_id: question.qa_id.clone(),
            question: question.text.clone(),
            answer: question.answer.clone(),
            r#type: Some(question.kind.as_str().to_string()),
            language: Some("eng".to_string()),
            evidence_page_digests: question.evidence.iter().map(|page| page.digest.clone()).collect(),
            generator: Some(GENERATOR.to_string()),
            attributes: Some(JsonText(attributes)),
            ..Qa::default()
        }
    }

    fn event<R: HasKind>(&self, row: &R, subject: &str, step: u64) -> Result<Event, serde_json::Error> {
        let id = EventId::derive(DateTime::UNIX_EPOCH, SOURCE, R::KIND, subject, step);
        Ok(Event::new(SOURCE, row)?.with_id(id).with_run(&self.run_id).at(self.start))
    }
}

//! E2HQA over an atlas, without a model (paper section 2.1).
//!
//! A chain begins with a question about one fact of a named entity. A step takes an entity that the question names,
//! finds a description on its page that nothing else answers to, and puts it in the entity's place. The answer must not
//! change, which is checked over the whole table, and no entity comes back that was described away.

use std::collections::{HashMap, HashSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use sha2::{Digest as _, Sha256};

use super::author::{Author, Question};
use super::candidates::candidates;
use super::catalogue::{Catalogue, Entry};
use super::facts::Answer;
use super::form::{Condition, Form, Named, Term};
use super::selection::shuffle;
use super::wording::title;
use crate::atlas::{Atlas, Entity, EntityKind};
use crate::question::QuestionType;

/// Most rewrites of a question that can be asked for.
pub const REWRITES_MAX: usize = 8;
/// Most descriptions of an entity that are tried.
const DESCRIPTIONS_MAX: usize = 200;

/// A question and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// The question it began with.
    pub root: Question,
    /// The steps, in order.
    pub steps: Vec<RewriteStep>,
    /// Why there are no more.
    pub stopped: Stop,
}

/// One step: an entity replaced by a description.
#[derive(Debug, Clone, PartialEq)]
pub struct RewriteStep {
    /// Title of the entity that was replaced.
    pub entity: String,
    /// What was searched for to describe it.
    pub query: String,
    /// Digest of its page.
    pub evidence: Vec<String>,
    /// What replaced it.
    pub description: String,
    /// Titles of the entities that the description names.
    pub brought_in: Vec<String>,
    /// The question after the step.
    pub question: Question,
}

/// Why a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It has the rewrites asked for.
    Enough,
    /// No entity is left that can be described without changing the answer or giving it away.
    NoEntityLeft,
}

/// E2HQA over one atlas.
#[derive(Debug)]
pub struct Rewriter {
    /// Forms of the questions that chains begin with.
    roots: Vec<Form>,
    /// What denotes each entity and nothing else, other than by its name.
    descriptions: HashMap<Named, Vec<Term>>,
    /// What CRAWLQA asks: no rewritten question is one of these.
    asked: HashSet<Form>,
}

impl Rewriter {
    /// A rewriter for `atlas`.
    pub fn new(atlas: &Atlas) -> Rewriter {
        const FACTS: [EntityKind; 5] = [
            EntityKind::Capital,
            EntityKind::Subregion,
            EntityKind::Language,
            EntityKind::Currency,
            EntityKind::Country,
        ];
        let catalogue = Catalogue::new(atlas);
        let the = |kind, of: &Term| Form::Name(Term::The { kind, of: Box::new(of.clone()) });
        let roots = catalogue.entries.iter().flat_map(|entry| FACTS.map(|kind| the(kind, &entry.term))).collect();
        let describe = |entity: &Entity| {
            let named = Named { kind: entity.kind, key: entity.key.clone() };
            let id = atlas.find(named.kind, &named.key);
            let mut terms = descriptions(&catalogue, entity, &named);
            terms.retain(|term| id.is_some() && catalogue.facts.denoted(term) == id);
            (named, terms)
        };
        let descriptions = atlas.entities().iter().map(describe).collect();
        let asked = QuestionType::ALL.into_iter().flat_map(|kind| candidates(atlas, kind)).collect();
        Rewriter { roots, descriptions, asked }
    }

    /// The questions that chains begin with, in the order of a seed: single facts of countries whose answer is a name.
    pub fn roots(&self, author: &mut Author<'_>, seed: u64) -> Vec<Question> {
        let asked = self.roots.iter().filter_map(|form| author.ask(QuestionType::Generic, form).ok());
        let mut roots: Vec<Question> = asked.collect();
        shuffle(&mut roots, &mut ChaCha8Rng::seed_from_u64(seed));
        roots
    }

    /// Rewrites a question up to `rewrites` times. Fewer rewrites of a seed are the first of more.
    pub fn chain(&self, author: &mut Author<'_>, root: Question, rewrites: usize, seed: u64) -> Chain {
        let mut random = random_of(seed, &root.qa_id);
        let answer = author.facts().answer(&root.form);
        let mut banned: Vec<Named> = root.form.entities().into_iter().cloned().collect();
        banned.extend(answer_entity(author.atlas(), answer));
        let mut steps: Vec<RewriteStep> = Vec::new();
        while steps.len() < rewrites.min(REWRITES_MAX) {
            let question = steps.last().map_or(&root, |step| &step.question);
            let Some(step) = self.step(author, question, answer, &banned, &mut random) else {
                return Chain { root, steps, stopped: Stop::NoEntityLeft };
            };
            banned.extend(step.question.form.entities().into_iter().cloned());
            steps.push(step);
        }
        Chain { root, steps, stopped: Stop::Enough }
    }

    fn step(
        &self,
        author: &mut Author<'_>,
        question: &Question,
        answer: Option<Answer>,
        banned: &[Named],
        random: &mut ChaCha8Rng,
    ) -> Option<RewriteStep> {
        let mut entities: Vec<&Named> = question.form.entities();
        shuffle(&mut entities, random);
        for entity in entities {
            let mut descriptions: Vec<&Term> = self.descriptions.get(entity).into_iter().flatten().collect();
            shuffle(&mut descriptions, random);
            let mut steps = descriptions.into_iter().take(DESCRIPTIONS_MAX);
            if let Some(step) = steps.find_map(|term| self.replace(author, question, answer, banned, entity, term)) {
                return Some(step);
            }
        }
        None
    }

    /// The step that puts a description in an entity's place, if the question stays the same question.
    fn replace(
        &self,
        author: &mut Author<'_>,
        question: &Question,
        answer: Option<Answer>,
        banned: &[Named],
        entity: &Named,
        description: &Term,
    ) -> Option<RewriteStep> {
        let described = Form::Name(description.clone());
        let names = described.entities();
        if names.iter().any(|name| banned.contains(name)) {
            return None;
        }
        let form = question.form.replaced(entity, description);
        let invariant = answer.is_some() && author.facts().answer(&form) == answer;
        if !invariant || self.asked.contains(&form) {
            return None;
        }
        let rewritten = author.ask(QuestionType::MultiHop, &form).ok()?;
        let titled = |named: &Named| {
            let id = author.atlas().find(named.kind, &named.key)?;
            title(author.atlas(), id).map(str::to_string)
        };
        let entity = titled(entity)?;
        Some(RewriteStep {
            query: entity.clone(),
            evidence: author.pages().evidence(&entity).map(|page| page.digest.clone()).into_iter().collect(),
            description: author.wording().phrase(description)?,
            brought_in: names.into_iter().filter_map(titled).collect(),
            question: rewritten,
            entity,
        })
    }
}

/// Terms that may denote an entity, made from what its page says.
fn descriptions(catalogue: &Catalogue<'_>, entity: &Entity, named: &Named) -> Vec<Term> {
    let members: Vec<&Entry<'_>> =
        catalogue.entries.iter().filter(|entry| entity.countries.contains(&entry.index)).collect();
    if let (EntityKind::Country, Some(entry)) = (entity.kind, members.first()) {
        return of_country(catalogue, entry);
    }
    let the = |entry: &&Entry<'_>| Term::The { kind: named.kind, of: Box::new(entry.term.clone()) };
    let mut terms: Vec<Term> = members.iter().map(the).collect();
    if matches!(entity.kind, EntityKind::Language | EntityKind::Currency) {
        for (place, a) in members.iter().enumerate() {
            let near = members.iter().skip(place + 1).filter(|b| a.country.borders.contains(&b.country.code));
            terms.extend(near.map(|b| Term::Shared { kind: named.kind, of: vec![a.term.clone(), b.term.clone()] }));
        }
    }
    terms
}

fn of_country(catalogue: &Catalogue<'_>, entry: &Entry<'_>) -> Vec<Term> {
    let mut terms = catalogue.by_one_relation(entry);
    for (pair, both) in catalogue.pairs(entry) {
        if (2..=FLAGGED_MAX).contains(&both.len()) {
            for flag in [Condition::Landlocked(entry.country.landlocked), Condition::UnMember(entry.country.un_member)]
            {
                terms.push(Term::Only(pair.iter().cloned().chain([flag]).collect()));
            }
        }
        terms.push(Term::Only(pair.to_vec()));
    }
    terms
}

fn answer_entity(atlas: &Atlas, answer: Option<Answer>) -> Option<Named> {
    let Some(Answer::Entity(id)) = answer else { return None };
    atlas.get(id).map(|entity| Named { kind: entity.kind, key: entity.key.clone() })
}

/// Most countries of which one is told by its coast or by its membership of the United Nations.
const FLAGGED_MAX: usize = 6;

/// The randomness of one chain: of its own, so that chains do not depend on which others are made.
fn random_of(seed: u64, qa_id: &str) -> ChaCha8Rng {
    let digest = Sha256::digest(format!("{seed}/{qa_id}"));
    ChaCha8Rng::from_seed(digest.into())
}

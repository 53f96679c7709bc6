//! Every form that CRAWLQA asks about an atlas, by type.
//!
//! Whether a form is fit to be asked is not decided here; see [`Author::ask`](super::Author::ask).

use std::collections::{BTreeSet, HashSet};

use sha2::{Digest as _, Sha256};

use super::catalogue::{Catalogue, Entry, by_capital};
use super::form::{Condition, Form, Measure, Order, Term};
use crate::atlas::{Atlas, EntityKind};
use crate::question::QuestionType;

/// Most countries of a set whose articles are all read.
const SET_MAX: usize = 8;
/// Fewest countries of a set in which one is the largest.
const SUPERLATIVE_MIN: usize = 3;
/// Fewest countries of a set in which one is the second or third.
const ORDINAL_MIN: usize = 4;

/// The forms of a type, without repeats, in an order that never changes. There are none of the generic type: single
/// facts are where E2HQA begins.
pub fn candidates(atlas: &Atlas, kind: QuestionType) -> Vec<Form> {
    let catalogue = Catalogue::new(atlas);
    let forms = match kind {
        QuestionType::Count => counts(&catalogue),
        QuestionType::MultiHop => multi_hops(&catalogue),
        QuestionType::Intersection => intersections(&catalogue),
        QuestionType::Comparative => comparatives(&catalogue),
        QuestionType::Superlative => ranks(&catalogue, SUPERLATIVE_MIN, &[1]),
        QuestionType::Ordinal => ranks(&catalogue, ORDINAL_MIN, &[2, 3]),
        QuestionType::Difference => differences(&catalogue),
        QuestionType::YesNo => yes_no(&catalogue),
        QuestionType::Generic => Vec::new(),
    };
    let mut seen = HashSet::new();
    forms.into_iter().filter(|form| seen.insert(form.clone())).collect()
}

/// Half of what there is, by the forms' digests: the other half is left for E2HQA to come to.
fn multi_hops(catalogue: &Catalogue<'_>) -> Vec<Form> {
    const FACTS: [EntityKind; 5] =
        [EntityKind::Capital, EntityKind::Subregion, EntityKind::Language, EntityKind::Currency, EntityKind::Country];
    let mut forms = Vec::new();
    for entry in &catalogue.entries {
        for start in catalogue.by_one_relation(entry) {
            let the = |kind| Term::The { kind, of: Box::new(start.clone()) };
            forms.extend(FACTS.map(|kind| Form::Name(the(kind))));
            forms.push(Form::Amount { measure: Measure::Area, of: start.clone() });
            if entry.country.borders.len() > 1 {
                forms.push(Form::Amount { measure: Measure::Neighbours, of: start.clone() });
            }
            if entry.country.languages.len() > 1 {
                forms.push(Form::Amount { measure: Measure::Languages, of: start.clone() });
            }
            if entry.country.borders.len() == 1 && !matches!(start, Term::The { .. }) {
                // One hop more, over the only neighbour; where that is the start, it would lead back.
                let beyond = [EntityKind::Capital, EntityKind::Language, EntityKind::Currency];
                let of = the(EntityKind::Country);
                forms.extend(beyond.map(|kind| Form::Name(Term::The { kind, of: Box::new(of.clone()) })));
            }
        }
    }
    forms.retain(coin);
    forms
}

fn intersections(catalogue: &Catalogue<'_>) -> Vec<Form> {
    let pairs = catalogue.entries.iter().flat_map(|entry| catalogue.pairs(entry));
    let alone = pairs.filter(|(_, both)| both.len() == 1);
    alone.map(|(pair, _)| Form::Name(Term::Only(pair.to_vec()))).collect()
}

fn counts(catalogue: &Catalogue<'_>) -> Vec<Form> {
    let mut forms = BTreeSet::new();
    for (term, set) in catalogue.sets() {
        let with = Condition::With(term.clone());
        if set.len() > 1 {
            forms.insert(vec![with.clone()]);
        }
        let place = matches!(term.kind(), EntityKind::Region | EntityKind::Subregion);
        if place || (term.kind() == EntityKind::Country && (2..=SET_MAX).contains(&set.len())) {
            forms.insert(vec![with.clone(), Condition::Landlocked(true)]);
        }
        if place {
            forms.insert(vec![with, Condition::UnMember(true)]);
        }
    }
    for entry in &catalogue.entries {
        let several = catalogue.pairs(entry).into_iter().filter(|(_, both)| both.len() > 1);
        forms.extend(several.map(|(pair, _)| pair.to_vec()));
    }
    let some = |conditions: &Vec<Condition>| catalogue.facts.countries(conditions).is_some_and(|set| !set.is_empty());
    forms.into_iter().filter(some).map(Form::Count).collect()
}

fn comparatives(catalogue: &Catalogue<'_>) -> Vec<Form> {
    let compare = |measure, (a, b): (&Entry<'_>, &Entry<'_>)| {
        // Named by their capitals: a question that named both would hold its answer.
        let of = [by_capital(a)?, by_capital(b)?];
        let order = if coin(&of) { Order::Largest } else { Order::Smallest };
        Some(Form::Compare { measure, order, of })
    };
    let areas = catalogue.neighbours().chain(catalogue.same_subregion());
    let areas = areas.filter_map(|pair| compare(Measure::Area, pair));
    areas.chain(catalogue.neighbours().filter_map(|pair| compare(Measure::Neighbours, pair))).collect()
}

fn differences(catalogue: &Catalogue<'_>) -> Vec<Form> {
    let difference = |measure, (a, b): (&Entry<'_>, &Entry<'_>)| {
        let of = [a.term.clone(), b.term.clone()];
        let differ = match measure {
            Measure::Neighbours => a.country.borders.len() != b.country.borders.len(),
            _ => a.country.area_km2 != b.country.area_km2,
        };
        differ.then_some(Form::Difference { measure, of })
    };
    let areas = catalogue.neighbours().chain(catalogue.same_subregion());
    let areas = areas.filter_map(|pair| difference(Measure::Area, pair));
    areas.chain(catalogue.neighbours().filter_map(|pair| difference(Measure::Neighbours, pair))).collect()
}

fn ranks(catalogue: &Catalogue<'_>, at_least: usize, ranks: &[usize]) -> Vec<Form> {
    let mut sets: BTreeSet<Vec<Condition>> = BTreeSet::new();
    for (term, set) in catalogue.sets() {
        // An article says itself which is the largest of its part of the world.
        let said = ranks == [1] && matches!(term.kind(), EntityKind::Region | EntityKind::Subregion);
        if set.len() >= at_least && (said || set.len() <= SET_MAX) {
            sets.insert(vec![Condition::With(term.clone())]);
        }
    }
    for entry in &catalogue.entries {
        let small = catalogue.pairs(entry).into_iter().filter(|(_, both)| (at_least..=SET_MAX).contains(&both.len()));
        sets.extend(small.map(|(pair, _)| pair.to_vec()));
    }
    let mut forms = Vec::new();
    for among in sets {
        for rank in ranks {
            for order in [Order::Largest, Order::Smallest] {
                forms.push(Form::Name(Term::Ranked { order, rank: *rank, among: among.clone() }));
            }
        }
    }
    forms
}

/// As many questions with the answer yes as with no, for each thing asked.
fn yes_no(catalogue: &Catalogue<'_>) -> Vec<Form> {
    let mut borders = Halves::default();
    for (a, b) in catalogue.same_subregion().chain(catalogue.neighbours()) {
        let Some(of) = by_capital(a) else { continue };
        let form = Form::Holds { condition: Condition::With(b.term.clone()), of };
        borders.add(a.country.borders.contains(&b.country.code), form);
    }
    let mut languages = Halves::default();
    let mut coasts = Halves::default();
    for entry in &catalogue.entries {
        let Some(of) = by_capital(entry) else { continue };
        let spoken_near = entry.country.borders.iter().filter_map(|code| {
            catalogue.entries.iter().find(|other| other.country.code == *code).map(|other| &other.country.languages)
        });
        let near: BTreeSet<&String> = entry.country.languages.iter().chain(spoken_near.flatten()).collect();
        for language in near {
            let condition = Condition::With(Term::named(EntityKind::Language, language));
            let form = Form::Holds { condition, of: of.clone() };
            languages.add(entry.country.languages.contains(language), form);
        }
        coasts.add(entry.country.landlocked, Form::Holds { condition: Condition::Landlocked(true), of });
    }
    [borders, languages, coasts].into_iter().flat_map(Halves::even).collect()
}

/// Forms whose answer is yes and forms whose answer is no.
#[derive(Debug, Default)]
struct Halves {
    yes: BTreeSet<([u8; 32], Form)>,
    no: BTreeSet<([u8; 32], Form)>,
}

impl Halves {
    fn add(&mut self, yes: bool, form: Form) {
        let half = if yes { &mut self.yes } else { &mut self.no };
        half.insert((digest(&form), form));
    }

    /// As many of each; which ones is decided by their digests, not by their place in the table.
    fn even(self) -> Vec<Form> {
        let count = self.yes.len().min(self.no.len());
        let of = |half: BTreeSet<([u8; 32], Form)>| half.into_iter().take(count).map(|(_, form)| form);
        of(self.yes).chain(of(self.no)).collect()
    }
}

/// Heads or tails, always the same for the same thing.
fn coin(of: &impl serde::Serialize) -> bool {
    digest(of).first().is_some_and(|byte| byte % 2 == 0)
}

fn digest(of: &impl serde::Serialize) -> [u8; 32] {
    // Writing a form as JSON to memory does not fail.
    Sha256::digest(serde_json::to_vec(of).unwrap_or_default()).into()
}

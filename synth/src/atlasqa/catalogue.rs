//! Terms that lead to a country, and sets of countries: what forms are put together from.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use super::form::{Condition, Order, Term};
use crate::atlas::{Atlas, Country, EntityId, EntityKind, capital_key};

/// A country and what it is related to.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) index: usize,
    pub(super) country: &'a Country,
    pub(super) entity: EntityId,
    /// The country itself.
    pub(super) term: Term,
    /// Region, subregion, languages, currencies, neighbours.
    pub(super) related: Vec<Term>,
}

/// Every country with its relations, and the set behind every relation.
#[derive(Debug)]
pub(super) struct Catalogue<'a> {
    pub(super) facts: Facts<'a>,
    pub(super) entries: Vec<Entry<'a>>,
    /// Countries, by place in the table, that are related to an entity in this way.
    sets: BTreeMap<Term, BTreeSet<usize>>,
}

impl<'a> Catalogue<'a> {
    pub(super) fn new(atlas: &'a Atlas) -> Catalogue<'a> {
        let facts = Facts::new(atlas);
        let mut entries = Vec::new();
        let mut sets = BTreeMap::new();
        for (index, country) in atlas.world().countries().iter().enumerate() {
            let Some(entity) = facts.country_entity(index) else { continue };
            let mut related = vec![Term::named(EntityKind::Region, &country.region)];
            related.extend(country.subregion.iter().map(|key| Term::named(EntityKind::Subregion, key)));
            related.extend(country.languages.iter().map(|key| Term::named(EntityKind::Language, key)));
            related.extend(country.currencies.iter().map(|c| Term::named(EntityKind::Currency, &c.code)));
            related.extend(country.borders.iter().map(|code| Term::named(EntityKind::Country, code)));
            for term in &related {
                if !sets.contains_key(term) {
                    let set = facts.countries(&[Condition::With(term.clone())]).unwrap_or_default();
                    sets.insert(term.clone(), set);
                }
            }
            let term = Term::named(EntityKind::Country, &country.code);
            entries.push(Entry { index, country, entity, term, related });
        }
        Catalogue { facts, entries, sets }
    }

    /// Every relation with the countries in it.
    pub(super) fn sets(&self) -> impl Iterator<Item = (&Term, &BTreeSet<usize>)> {
        self.sets.iter()
    }

    /// Pairs of a country's relations neither of which implies the other, with the countries that have both.
    pub(super) fn pairs(&self, entry: &Entry<'_>) -> Vec<([Condition; 2], BTreeSet<usize>)> {
        let mut pairs = Vec::new();
        for (place, a) in entry.related.iter().enumerate() {
            for b in entry.related.iter().skip(place + 1) {
                let (Some(first), Some(second)) = (self.sets.get(a), self.sets.get(b)) else { continue };
                let both: BTreeSet<usize> = first.intersection(second).copied().collect();
                if both.len() < first.len().min(second.len()) {
                    let mut pair = [Condition::With(a.clone()), Condition::With(b.clone())];
                    pair.sort();
                    pairs.push((pair, both));
                }
            }
        }
        pairs
    }

    /// Descriptions by one relation that nothing but this country has: its capital, a language or currency of its own,
    /// being somebody's only neighbour, or the largest or smallest of its part of the world.
    pub(super) fn by_one_relation(&self, entry: &Entry<'_>) -> Vec<Term> {
        let mut terms: Vec<Term> = Vec::new();
        for name in &entry.country.capitals {
            let capital = Term::named(EntityKind::Capital, &capital_key(entry.country, name));
            terms.push(Term::Only(vec![Condition::With(capital)]));
        }
        for term in &entry.related {
            let only = Term::Only(vec![Condition::With(term.clone())]);
            let place = matches!(term.kind(), EntityKind::Region | EntityKind::Subregion);
            if place {
                let among = vec![Condition::With(term.clone())];
                let ranked = |order| Term::Ranked { order, rank: 1, among: among.clone() };
                terms.extend([ranked(Order::Largest), ranked(Order::Smallest)]);
            } else if term.kind() == EntityKind::Country {
                terms.push(Term::The { kind: EntityKind::Country, of: Box::new(term.clone()) });
            } else {
                terms.push(only);
            }
        }
        terms.retain(|term| self.facts.denoted(term) == Some(entry.entity));
        terms
    }

    /// The pairs of countries that share a border, each once, in the order of the table.
    pub(super) fn neighbours(&self) -> impl Iterator<Item = (&Entry<'a>, &Entry<'a>)> {
        self.couples().filter(|(a, b)| a.country.borders.contains(&b.country.code))
    }

    /// The pairs of countries of one subregion.
    pub(super) fn same_subregion(&self) -> impl Iterator<Item = (&Entry<'a>, &Entry<'a>)> {
        self.couples().filter(|(a, b)| a.country.subregion.is_some() && a.country.subregion == b.country.subregion)
    }

    fn couples(&self) -> impl Iterator<Item = (&Entry<'a>, &Entry<'a>)> {
        let later = |place: usize| self.entries.iter().skip(place + 1);
        self.entries.iter().enumerate().flat_map(move |(place, a)| later(place).map(move |b| (a, b)))
    }
}

/// The country whose only capital this is.
pub(super) fn by_capital(entry: &Entry<'_>) -> Option<Term> {
    let [name] = entry.country.capitals.as_slice() else { return None };
    let capital = Term::named(EntityKind::Capital, &capital_key(entry.country, name));
    Some(Term::Only(vec![Condition::With(capital)]))
}

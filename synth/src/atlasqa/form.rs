//! What a question asks, apart from its words.
//!
//! A [`Form`] is a small expression over the table of countries. The question's text, its answer and the look-ups that
//! find it are all made from it, and it is kept with the question (`attributes.form`), so that anybody can check an
//! answer against the table without trusting what wrote the question.

use serde::{Deserialize, Serialize};

use crate::atlas::EntityKind;

/// An entity by what tells it from others of its kind: [`Entity::key`](crate::atlas::Entity::key).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    /// Its kind.
    pub kind: EntityKind,
    /// Its key, such as `FRA`.
    pub key: String,
}

/// Something that denotes exactly one entity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// The entity itself.
    Named(Named),
    /// The only capital, region, subregion, official language, currency or neighbour of a country, or the region of a
    /// subregion.
    The {
        /// Kind of the value; a country is a neighbour.
        kind: EntityKind,
        /// Whose.
        of: Box<Term>,
    },
    /// The only language or currency that all of these countries have.
    Shared {
        /// Kind of the value.
        kind: EntityKind,
        /// Whose.
        of: Vec<Term>,
    },
    /// The only country that all of these are true of.
    Only(Vec<Condition>),
    /// The country at a rank by area.
    Ranked {
        /// From which end.
        order: Order,
        /// Rank, from 1.
        rank: usize,
        /// Among the countries that all of these are true of.
        among: Vec<Condition>,
    },
}

/// Something that is true of a country or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It has this capital, official language or currency, lies in this region or subregion, or borders this country.
    With(Term),
    /// It has no coast, or has one.
    Landlocked(bool),
    /// It is a member of the United Nations, or not.
    UnMember(bool),
}

/// From which end to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Most first.
    Largest,
    /// Least first.
    Smallest,
}

/// A number that a country has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Square kilometres.
    Area,
    /// Countries it shares a land border with.
    Neighbours,
    /// Official languages.
    Languages,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Which entity it is: the answer is its name.
    Name(Term),
    /// A number of a country.
    Amount {
        /// Which number.
        measure: Measure,
        /// Whose.
        of: Term,
    },
    /// How many countries all of these are true of.
    Count(Vec<Condition>),
    /// Which of two countries has the larger or the smaller number: the answer is its name.
    Compare {
        /// Which number.
        measure: Measure,
        /// The larger or the smaller.
        order: Order,
        /// The two.
        of: [Term; 2],
    },
    /// The larger number minus the smaller.
    Difference {
        /// Which number.
        measure: Measure,
        /// The two countries.
        of: [Term; 2],
    },
    /// Whether something is true of a country: the answer is yes or no.
    Holds {
        /// What.
        condition: Condition,
        /// Of which country.
        of: Term,
    },
}

impl Term {
    /// The term of an entity.
    pub fn named(kind: EntityKind, key: &str) -> Term {
        Term::Named(Named { kind, key: key.to_string() })
    }

    /// Kind of what it denotes.
    pub fn kind(&self) -> EntityKind {
        match self {
            Term::Named(named) => named.kind,
            Term::The { kind, .. } | Term::Shared { kind, .. } => *kind,
            Term::Only(_) | Term::Ranked { .. } => EntityKind::Country,
        }
    }

    /// Whether it is an entity itself, not a description of one.
    pub fn is_named(&self) -> bool {
        matches!(self, Term::Named(_))
    }

    fn collect<'a>(&'a self, into: &mut Vec<&'a Named>) {
        match self {
            Term::Named(named) => {
                if !into.contains(&named) {
                    into.push(named);
                }
            }
            Term::The { of, .. } => of.collect(into),
            Term::Shared { of, .. } => of.iter().for_each(|term| term.collect(into)),
            Term::Only(conditions) | Term::Ranked { among: conditions, .. } => collect_all(conditions, into),
        }
    }

    fn replaced(&self, entity: &Named, by: &Term) -> Term {
        match self {
            Term::Named(named) if named == entity => by.clone(),
            Term::Named(_) => self.clone(),
            Term::The { kind, of } => Term::The { kind: *kind, of: Box::new(of.replaced(entity, by)) },
            Term::Shared { kind, of } => {
                Term::Shared { kind: *kind, of: of.iter().map(|term| term.replaced(entity, by)).collect() }
            }
            Term::Only(conditions) => Term::Only(replaced_in(conditions, entity, by)),
            Term::Ranked { order, rank, among } => {
                Term::Ranked { order: *order, rank: *rank, among: replaced_in(among, entity, by) }
            }
        }
    }
}

impl Condition {
    /// What the country must be related to.
    pub fn term(&self) -> Option<&Term> {
        match self {
            Condition::With(term) => Some(term),
            Condition::Landlocked(_) | Condition::UnMember(_) => None,
        }
    }

    fn replaced(&self, entity: &Named, by: &Term) -> Condition {
        match self {
            Condition::With(term) => Condition::With(term.replaced(entity, by)),
            other => other.clone(),
        }
    }
}

impl Form {
    /// The entities it names, each once, in the order of its parts.
    pub fn entities(&self) -> Vec<&Named> {
        let mut found = Vec::new();
        match self {
            Form::Name(term) | Form::Amount { of: term, .. } => term.collect(&mut found),
            Form::Count(conditions) => collect_all(conditions, &mut found),
            Form::Compare { of, .. } | Form::Difference { of, .. } => of.iter().for_each(|t| t.collect(&mut found)),
            Form::Holds { condition, of } => {
                of.collect(&mut found);
                collect_all(std::slice::from_ref(condition), &mut found);
            }
        }
        found
    }

    /// The same question with an entity replaced by a description wherever it is named.
    #[must_use]
    pub fn replaced(&self, entity: &Named, by: &Term) -> Form {
        let both = |of: &[Term; 2]| of.each_ref().map(|term| term.replaced(entity, by));
        match self {
            Form::Name(term) => Form::Name(term.replaced(entity, by)),
            Form::Amount { measure, of } => Form::Amount { measure: *measure, of: of.replaced(entity, by) },
            Form::Count(conditions) => Form::Count(replaced_in(conditions, entity, by)),
            Form::Compare { measure, order, of } => Form::Compare { measure: *measure, order: *order, of: both(of) },
            Form::Difference { measure, of } => Form::Difference { measure: *measure, of: both(of) },
            Form::Holds { condition, of } => {
                Form::Holds { condition: condition.replaced(entity, by), of: of.replaced(entity, by) }
            }
        }
    }
}

fn collect_all<'a>(conditions: &'a [Condition], into: &mut Vec<&'a Named>) {
    conditions.iter().filter_map(Condition::term).for_each(|term| term.collect(into));
}

fn replaced_in(conditions: &[Condition], entity: &Named, by: &Term) -> Vec<Condition> {
    conditions.iter().map(|condition| condition.replaced(entity, by)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_europe_speaking(term: Term) -> Form {
        let europe = Condition::With(Term::named(EntityKind::Region, "Europe"));
        Form::Count(vec![europe, Condition::With(term), Condition::Landlocked(true)])
    }

    #[test]
    fn a_form_is_read_back_from_its_json() {
        let form = in_europe_speaking(Term::The {
            kind: EntityKind::Language,
            of: Box::new(Term::named(EntityKind::Country, "FRA")),
        });
        let json = serde_json::to_string(&form).unwrap();
        assert_eq!(
            json,
            "{\"count\":[{\"with\":{\"named\":{\"kind\":\"region\",\"key\":\"Europe\"}}},\
             {\"with\":{\"the\":{\"kind\":\"language\",\"of\":{\"named\":{\"kind\":\"country\",\"key\":\"FRA\"}}}}},\
             {\"landlocked\":true}]}"
        );
        assert_eq!(serde_json::from_str::<Form>(&json).unwrap(), form);
    }

    #[test]
    fn a_description_replaces_an_entity_wherever_it_is_named() {
        let french = Term::named(EntityKind::Language, "French");
        let of_france = Term::The { kind: EntityKind::Language, of: Box::new(Term::named(EntityKind::Country, "FRA")) };
        let Term::Named(entity) = &french else { return };
        let form = in_europe_speaking(french.clone());
        assert_eq!(form.entities().iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["Europe", "French"]);
        assert_eq!(form.replaced(entity, &of_france), in_europe_speaking(of_france));
    }
}

//! Forms evaluated over the table of countries.
//!
//! Everything that does not denote exactly one thing is None: a capital of a country with two, a country that two
//! answer to, a rank that two share, a set with a member whose area is not known. So what has a value has a unique one.

use std::collections::BTreeSet;

use super::form::{Condition, Form, Measure, Order, Term};
use crate::atlas::{Atlas, Country, Entity, EntityId, EntityKind, capital_key};

/// Areas above this are not exact as whole numbers.
const EXACT_MAX: f64 = 9e15;

/// What the table answers to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// An entity.
    Entity(EntityId),
    /// A whole number.
    Number(u64),
    /// Yes or no.
    YesNo(bool),
}

/// The facts of an atlas.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    atlas: &'a Atlas,
}

impl<'a> Facts<'a> {
    /// The facts of `atlas`.
    pub fn new(atlas: &'a Atlas) -> Facts<'a> {
        Facts { atlas }
    }

    /// What a question's answer is, if it has exactly one.
    pub fn answer(&self, form: &Form) -> Option<Answer> {
        match form {
            Form::Name(term) => self.denoted(term).map(Answer::Entity),
            Form::Amount { measure, of } => whole(self.amount(*measure, of)?).map(Answer::Number),
            Form::Count(conditions) => Some(Answer::Number(self.countries(conditions)?.len() as u64)),
            Form::Compare { measure, order, of: [a, b] } => {
                let (first, second) = (self.amount(*measure, a)?, self.amount(*measure, b)?);
                let largest = match first.total_cmp(&second) {
                    std::cmp::Ordering::Equal => return None,
                    std::cmp::Ordering::Greater => *order == Order::Largest,
                    std::cmp::Ordering::Less => *order == Order::Smallest,
                };
                self.denoted(if largest { a } else { b }).map(Answer::Entity)
            }
            Form::Difference { measure, of: [a, b] } => {
                let (first, second) = (whole(self.amount(*measure, a)?)?, whole(self.amount(*measure, b)?)?);
                Some(Answer::Number(first.abs_diff(second)))
            }
            Form::Holds { condition, of } => {
                let country = *self.entity(self.denoted(of)?)?.countries.first()?;
                Some(Answer::YesNo(self.holding(condition)?.contains(&country)))
            }
        }
    }

    /// The one entity that a term denotes.
    pub fn denoted(&self, term: &Term) -> Option<EntityId> {
        match term {
            Term::Named(named) => self.atlas.find(named.kind, &named.key),
            Term::The { kind, of } => only(self.values(*kind, self.denoted(of)?)),
            Term::Shared { kind, of } => {
                let mut all = of.iter().map(|term| Some(self.values(*kind, self.denoted(term)?)));
                let first = all.next()??;
                only(all.try_fold(first, |shared, next| Some(shared.intersection(&next?).copied().collect()))?)
            }
            Term::Only(conditions) => {
                let countries = self.countries(conditions)?;
                self.country_entity(only(countries)?)
            }
            Term::Ranked { order, rank, among } => self.ranked(*order, *rank, among),
        }
    }

    /// The countries, by their place in the table, that all the conditions are true of.
    pub fn countries(&self, conditions: &[Condition]) -> Option<BTreeSet<usize>> {
        let (first, rest) = conditions.split_first()?;
        rest.iter().try_fold(self.holding(first)?, |held, condition| {
            let more = self.holding(condition)?;
            Some(held.intersection(&more).copied().collect())
        })
    }

    /// The capitals, languages, … of a country: empty where it has none.
    pub fn values(&self, kind: EntityKind, of: EntityId) -> BTreeSet<EntityId> {
        let Some(entity) = self.entity(of) else { return BTreeSet::new() };
        let countries = entity.countries.iter().filter_map(|index| self.atlas.country(*index));
        let keys: BTreeSet<String> = match (entity.kind, kind) {
            (EntityKind::Country, _) => countries.flat_map(|country| keys(country, kind)).collect(),
            (EntityKind::Subregion, EntityKind::Region) => countries.map(|country| country.region.clone()).collect(),
            _ => BTreeSet::new(),
        };
        keys.iter().filter_map(|key| self.atlas.find(kind, key)).collect()
    }

    /// A country's entity by its place in the table.
    pub fn country_entity(&self, index: usize) -> Option<EntityId> {
        self.atlas.find(EntityKind::Country, &self.atlas.country(index)?.code)
    }

    /// The number, if the term denotes a country that has one.
    pub fn amount(&self, measure: Measure, of: &Term) -> Option<f64> {
        let country = self.country(of)?;
        match measure {
            Measure::Area => country.area_km2,
            Measure::Neighbours => Some(country.borders.len() as f64),
            Measure::Languages => Some(country.languages.len() as f64),
        }
    }

    fn country(&self, term: &Term) -> Option<&'a Country> {
        let entity = self.entity(self.denoted(term)?)?;
        if entity.kind != EntityKind::Country {
            return None;
        }
        self.atlas.country(*entity.countries.first()?)
    }

    fn holding(&self, condition: &Condition) -> Option<BTreeSet<usize>> {
        let all = || self.atlas.world().countries().iter().enumerate();
        Some(match condition {
            Condition::With(term) => {
                let entity = self.entity(self.denoted(term)?)?;
                if entity.kind == EntityKind::Country {
                    let code = &entity.key;
                    all().filter(|(_, country)| country.borders.contains(code)).map(|(index, _)| index).collect()
                } else {
                    entity.countries.iter().copied().collect()
                }
            }
            Condition::Landlocked(is) => all().filter(|(_, c)| c.landlocked == *is).map(|(index, _)| index).collect(),
            Condition::UnMember(is) => all().filter(|(_, c)| c.un_member == *is).map(|(index, _)| index).collect(),
        })
    }

    fn ranked(&self, order: Order, rank: usize, among: &[Condition]) -> Option<EntityId> {
        let sized = self.countries(among)?.into_iter().map(|index| Some((self.atlas.country(index)?.area_km2?, index)));
        let mut sized = sized.collect::<Option<Vec<_>>>()?;
        sized.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let shared = sized.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b));
        if shared || sized.len() < 2 || rank == 0 {
            return None;
        }
        if order == Order::Largest {
            sized.reverse();
        }
        self.country_entity(sized.get(rank - 1)?.1)
    }

    fn entity(&self, id: EntityId) -> Option<&'a Entity> {
        self.atlas.get(id)
    }
}

/// Keys of a country's values of a kind.
fn keys(country: &Country, kind: EntityKind) -> Vec<String> {
    match kind {
        EntityKind::Country => country.borders.clone(),
        EntityKind::Capital => country.capitals.iter().map(|name| capital_key(country, name)).collect(),
        EntityKind::Region => vec![country.region.clone()],
        EntityKind::Subregion => country.subregion.iter().cloned().collect(),
        EntityKind::Language => country.languages.clone(),
        EntityKind::Currency => country.currencies.iter().map(|currency| currency.code.clone()).collect(),
    }
}

fn only<T>(values: BTreeSet<T>) -> Option<T> {
    let mut values = values.into_iter();
    values.next().filter(|_| values.next().is_none())
}

/// A number without a fraction.
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..EXACT_MAX).contains(&number)).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::World;

    fn title(form: &Form) -> Option<String> {
        let atlas = Atlas::new(World::real().unwrap());
        match Facts::new(&atlas).answer(form)? {
            Answer::Entity(id) => atlas.get(id).map(|entity| entity.title.clone()),
            Answer::Number(number) => Some(number.to_string()),
            Answer::YesNo(yes) => Some(yes.to_string()),
        }
    }

    fn country(code: &str) -> Term {
        Term::named(EntityKind::Country, code)
    }

    fn the(kind: EntityKind, code: &str) -> Form {
        Form::Name(Term::The { kind, of: Box::new(country(code)) })
    }

    #[test]
    fn what_is_not_unique_has_no_answer() {
        assert_eq!(title(&the(EntityKind::Capital, "FRA")).as_deref(), Some("Paris"));
        // Three capitals, no capital, four languages.
        assert_eq!(title(&the(EntityKind::Capital, "ZAF")), None);
        assert_eq!(title(&the(EntityKind::Capital, "ATA")), None);
        assert_eq!(title(&the(EntityKind::Language, "CHE")), None);
        assert_eq!(title(&the(EntityKind::Country, "PRT")).as_deref(), Some("Spain"));
        let bordering =
            |codes: &[&str]| Form::Name(Term::Only(codes.iter().map(|code| Condition::With(country(code))).collect()));
        assert_eq!(title(&bordering(&["FRA", "AUT"])), None);
        assert_eq!(title(&bordering(&["FRA", "POL"])).as_deref(), Some("Germany"));
    }

    #[test]
    fn ranks_go_by_area_and_need_all_areas() {
        let ranked = |order, rank, kind, key: &str| {
            let among = vec![Condition::With(Term::named(kind, key))];
            title(&Form::Name(Term::Ranked { order, rank, among }))
        };
        assert_eq!(ranked(Order::Largest, 2, EntityKind::Region, "Africa").as_deref(), Some("DR Congo"));
        assert_eq!(
            ranked(Order::Smallest, 1, EntityKind::Subregion, "South America").as_deref(),
            Some("Falkland Islands")
        );
        // Svalbard and Jan Mayen has no area.
        assert_eq!(ranked(Order::Largest, 1, EntityKind::Subregion, "Northern Europe"), None);
        assert_eq!(ranked(Order::Largest, 9, EntityKind::Subregion, "Central Asia"), None);
    }

    #[test]
    fn numbers_are_whole() {
        let area = |code| title(&Form::Amount { measure: Measure::Area, of: country(code) });
        assert_eq!(area("FRA").as_deref(), Some("551695"));
        assert_eq!(area("VAT"), None);
        let difference = Form::Difference { measure: Measure::Area, of: [country("ESP"), country("FRA")] };
        assert_eq!(title(&difference).as_deref(), Some("45703"));
    }
}

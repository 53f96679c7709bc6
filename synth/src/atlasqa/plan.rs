//! Plans: the look-ups that answer a question.
//!
//! A plan is a list of steps over articles. A step reads a field of the articles of given titles, or puts together what
//! earlier steps found; the last step's names are the answer. Plans know titles and fields and no facts: whoever
//! follows one gets what the articles say ([`Articles`]).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::form::{Condition, Form, Measure, Order, Term};
use super::wording::title;
use crate::atlas::{Atlas, EntityKind};

/// What an article says about its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Capitals of a country.
    Capitals,
    /// Region of a country or subregion.
    Region,
    /// Subregion of a country.
    Subregion,
    /// Official languages of a country.
    Languages,
    /// Currencies of a country.
    Currencies,
    /// Countries that a country shares a land border with.
    Neighbours,
    /// How many those are.
    NumberOfNeighbours,
    /// How many official languages there are.
    NumberOfLanguages,
    /// Area of a country, in square kilometres.
    Area,
    /// Whether a country has a coast: yes or none.
    Coast,
    /// Whether a country is a member of the United Nations: member or not a member.
    UnitedNations,
    /// Country that a capital belongs to.
    CapitalOf,
    /// Countries and territories of a region or subregion, with a language or with a currency.
    Members,
    /// How many those are.
    NumberOfMembers,
    /// How many of a region's or subregion's have no coast.
    NumberWithoutCoast,
    /// How many of a region's or subregion's are members of the United Nations.
    NumberInUnitedNations,
    /// The largest of a region or subregion, by area.
    Largest,
    /// The smallest of a region or subregion, by area.
    Smallest,
}

impl Field {
    /// What to look for, for the goal of a visit.
    pub fn words(self) -> &'static str {
        match self {
            Field::Capitals => "capital",
            Field::Region => "region",
            Field::Subregion => "subregion",
            Field::Languages => "official languages",
            Field::NumberOfLanguages => "number of official languages",
            Field::Currencies => "currency",
            Field::Neighbours => "neighbours by land",
            Field::NumberOfNeighbours => "number of land borders",
            Field::Area => "area",
            Field::Coast => "coast",
            Field::UnitedNations => "United Nations membership",
            Field::CapitalOf => "country it is capital of",
            Field::Members => "countries and territories",
            Field::NumberOfMembers => "number of countries and territories",
            Field::NumberWithoutCoast => "number without a coast",
            Field::NumberInUnitedNations => "members of the United Nations",
            Field::Largest => "largest by area",
            Field::Smallest => "smallest by area",
        }
    }
}

/// Which articles a step reads, or which name it looks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The article of this title, or this word.
    Title(String),
    /// Those that an earlier step found.
    Step(usize),
}

/// A step. Steps are named by their place in the plan, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reads a field of each article.
    Read {
        /// The field.
        field: Field,
        /// The articles.
        of: Vec<Source>,
    },
    /// The names that stand in every article that these steps read.
    Common {
        /// The steps.
        of: Vec<usize>,
    },
    /// The articles in which a step read this value.
    Keep {
        /// The step.
        of: usize,
        /// The value.
        value: String,
    },
    /// How many names a step found.
    Count {
        /// The step.
        of: usize,
    },
    /// The article at a rank by the number that a step read.
    Rank {
        /// The step.
        of: usize,
        /// From which end.
        order: Order,
        /// Rank, from 1.
        rank: usize,
    },
    /// The largest number that a step read minus the smallest.
    Spread {
        /// The step.
        of: usize,
    },
    /// Yes if a step found the name, else no.
    Contains {
        /// The step.
        of: usize,
        /// The name.
        name: Source,
    },
}

/// The steps that answer a question.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// Where a plan's fields are read.
pub trait Articles {
    /// The values of a field in the article of a title: None where the article was not read yet, empty where it does
    /// not say.
    fn read(&mut self, title: &str, field: Field) -> Option<Vec<String>>;
}

/// What to look up before a plan can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Titles of the articles.
    pub titles: Vec<String>,
    /// What to read in them.
    pub field: Field,
    /// Names that matter, where not all of a list does: those that it may have in common with lists read before.
    pub sought: Vec<String>,
}

/// What a step found: for each article, by title, what it says. What no single article says has an empty title.
type Table = Vec<(String, Vec<String>)>;

impl Plan {
    /// The plan of a form: None where no article leads to what it asks.
    pub fn of(atlas: &Atlas, form: &Form) -> Option<Plan> {
        let mut planner = Planner { atlas, steps: Vec::new() };
        planner.form(form)?;
        Some(Plan { steps: planner.steps })
    }

    /// Follows the plan as far as the articles are known; the answer is empty where the articles give none.
    ///
    /// # Errors
    /// Articles that must be read first.
    pub fn follow(&self, articles: &mut impl Articles) -> Result<Vec<String>, Missing> {
        let mut found: Vec<Table> = Vec::with_capacity(self.steps.len());
        for (place, step) in self.steps.iter().enumerate() {
            let table = match step {
                Step::Read { field, of } => read(*field, &titles(of, &found), articles)
                    .map_err(|missing| Missing { sought: self.sought(place, &found, &missing), ..missing })?,
                Step::Common { of } => unnamed(common(of, &found)),
                Step::Keep { of, value } => {
                    let kept = rows(*of, &found).iter().filter(|(_, values)| values.contains(value));
                    unnamed(kept.map(|(title, _)| title.clone()).collect())
                }
                Step::Count { of } => unnamed(vec![names(*of, &found).len().to_string()]),
                Step::Rank { of, order, rank } => unnamed(ranked(rows(*of, &found), *order, *rank)),
                Step::Spread { of } => unnamed(spread(rows(*of, &found))),
                Step::Contains { of, name } => {
                    let name = titles(std::slice::from_ref(name), &found);
                    let all = names(*of, &found);
                    let holds = !name.is_empty() && name.iter().all(|name| all.contains(name));
                    unnamed(vec![if holds { "yes" } else { "no" }.to_string()])
                }
            };
            found.push(table);
        }
        Ok(names(self.steps.len().saturating_sub(1), &found))
    }

    /// What the other lists hold with which the list that is missing has something in common.
    fn sought(&self, place: usize, found: &[Table], missing: &Missing) -> Vec<String> {
        let together = self.steps.iter().find_map(|step| match step {
            Step::Common { of } if of.contains(&place) => Some(of),
            _ => None,
        });
        let others = together.into_iter().flatten().filter(|step| **step != place);
        let known = others.flat_map(|step| names(*step, found)).chain(missing.sought.iter().cloned());
        let mut seen = HashSet::new();
        known.filter(|name| seen.insert(name.clone())).collect()
    }
}

fn read(field: Field, titles: &[String], articles: &mut impl Articles) -> Result<Table, Missing> {
    let mut missing = Vec::new();
    let mut table = Vec::new();
    for title in titles {
        match articles.read(title, field) {
            Some(values) => table.push((title.clone(), values)),
            None => missing.push(title.clone()),
        }
    }
    if missing.is_empty() {
        return Ok(table);
    }
    // What was read of the same step in other articles.
    let sought = table.into_iter().flat_map(|(_, values)| values).collect();
    Err(Missing { titles: missing, field, sought })
}

fn rows(step: usize, found: &[Table]) -> &[(String, Vec<String>)] {
    found.get(step).map_or(&[], Vec::as_slice)
}

fn unnamed(values: Vec<String>) -> Table {
    vec![(String::new(), values)]
}

/// What a step found, each once, in order.
fn names(step: usize, found: &[Table]) -> Vec<String> {
    let mut seen = HashSet::new();
    rows(step, found).iter().flat_map(|(_, values)| values).filter(|name| seen.insert(*name)).cloned().collect()
}

fn titles(sources: &[Source], found: &[Table]) -> Vec<String> {
    let of = |source: &Source| match source {
        Source::Title(title) => vec![title.clone()],
        Source::Step(step) => names(*step, found),
    };
    sources.iter().flat_map(of).collect()
}

fn common(steps: &[usize], found: &[Table]) -> Vec<String> {
    let mut lists = steps.iter().flat_map(|step| rows(*step, found)).map(|(_, values)| values);
    let Some(first) = lists.next() else { return Vec::new() };
    let rest: Vec<_> = lists.collect();
    first.iter().filter(|name| rest.iter().all(|list| list.contains(name))).cloned().collect()
}

/// Numbers by title; empty where an article gives none.
fn numbers(rows: &[(String, Vec<String>)]) -> Vec<(f64, &str)> {
    let number = |row: &(String, Vec<String>)| match row.1.as_slice() {
        [value] => value.parse::<f64>().ok().filter(|number| number.is_finite()),
        _ => None,
    };
    let all = rows.iter().map(|row| Some((number(row)?, row.0.as_str())));
    all.collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn ranked(rows: &[(String, Vec<String>)], order: Order, rank: usize) -> Vec<String> {
    let mut numbers = numbers(rows);
    numbers.sort_by(|(a, _), (b, _)| if order == Order::Largest { b.total_cmp(a) } else { a.total_cmp(b) });
    numbers.get(rank.wrapping_sub(1)).map(|(_, title)| (*title).to_string()).into_iter().collect()
}

fn spread(rows: &[(String, Vec<String>)]) -> Vec<String> {
    let numbers = numbers(rows);
    let amounts = || numbers.iter().map(|(number, _)| *number);
    match (amounts().reduce(f64::max), amounts().reduce(f64::min)) {
        (Some(most), Some(least)) => vec![(most - least).to_string()],
        _ => Vec::new(),
    }
}

/// Turns forms into steps.
struct Planner<'a> {
    atlas: &'a Atlas,
    steps: Vec<Step>,
}

impl Planner<'_> {
    fn form(&mut self, form: &Form) -> Option<()> {
        match form {
            Form::Name(term) => {
                // A name alone asks nothing.
                let Source::Step(_) = self.term(term)? else { return None };
            }
            Form::Amount { measure, of } => {
                let of = vec![self.term(of)?];
                self.push(Step::Read { field: number(*measure), of });
            }
            Form::Count(conditions) => self.count(conditions)?,
            Form::Compare { measure, order, of } => {
                let of = self.read_both(*measure, of)?;
                self.push(Step::Rank { of, order: *order, rank: 1 });
            }
            Form::Difference { measure, of } => {
                let of = self.read_both(*measure, of)?;
                self.push(Step::Spread { of });
            }
            Form::Holds { condition, of } => {
                let of = vec![self.term(of)?];
                match condition {
                    Condition::With(term) => {
                        let name = self.term(term)?;
                        let of = self.push(Step::Read { field: value_field(term.kind()), of });
                        self.push(Step::Contains { of, name });
                    }
                    Condition::Landlocked(is) => self.flag(Field::Coast, coast(*is), of),
                    Condition::UnMember(is) => self.flag(Field::UnitedNations, membership(*is), of),
                }
            }
        }
        Some(())
    }

    fn flag(&mut self, field: Field, value: &str, of: Vec<Source>) {
        let of = self.push(Step::Read { field, of });
        self.push(Step::Contains { of, name: Source::Title(value.to_string()) });
    }

    fn read_both(&mut self, measure: Measure, of: &[Term; 2]) -> Option<usize> {
        let of = of.iter().map(|term| self.term(term)).collect::<Option<Vec<_>>>()?;
        Some(self.push(Step::Read { field: number(measure), of }))
    }

    fn count(&mut self, conditions: &[Condition]) -> Option<()> {
        // What an article counts itself is read, not counted again.
        let field = match conditions {
            [Condition::With(term)] => match term.kind() {
                EntityKind::Country => Some(Field::NumberOfNeighbours),
                EntityKind::Capital => None,
                _ => Some(Field::NumberOfMembers),
            },
            [Condition::With(term), flag] if is_place(term) => match flag {
                Condition::Landlocked(true) => Some(Field::NumberWithoutCoast),
                Condition::UnMember(true) => Some(Field::NumberInUnitedNations),
                _ => None,
            },
            _ => None,
        };
        if let (Some(field), Some(term)) = (field, conditions.first().and_then(Condition::term)) {
            let of = vec![self.term(term)?];
            self.push(Step::Read { field, of });
        } else {
            let of = self.countries(conditions)?;
            self.push(Step::Count { of });
        }
        Some(())
    }

    fn term(&mut self, term: &Term) -> Option<Source> {
        Some(match term {
            Term::Named(named) => {
                let id = self.atlas.find(named.kind, &named.key)?;
                Source::Title(title(self.atlas, id)?.to_string())
            }
            Term::The { kind, of } => {
                let of = vec![self.term(of)?];
                Source::Step(self.push(Step::Read { field: value_field(*kind), of }))
            }
            Term::Shared { kind, of } => {
                let of = of.iter().map(|term| self.term(term)).collect::<Option<Vec<_>>>()?;
                let read = self.push(Step::Read { field: value_field(*kind), of });
                Source::Step(self.push(Step::Common { of: vec![read] }))
            }
            Term::Only(conditions) => Source::Step(self.countries(conditions)?),
            Term::Ranked { order, rank, among } => Source::Step(self.ranked(*order, *rank, among)?),
        })
    }

    fn ranked(&mut self, order: Order, rank: usize, among: &[Condition]) -> Option<usize> {
        if let ([Condition::With(place)], 1) = (among, rank)
            && is_place(place)
        {
            let of = vec![self.term(place)?];
            let field = if order == Order::Largest { Field::Largest } else { Field::Smallest };
            return Some(self.push(Step::Read { field, of }));
        }
        let countries = self.countries(among)?;
        let of = self.push(Step::Read { field: Field::Area, of: vec![Source::Step(countries)] });
        Some(self.push(Step::Rank { of, order, rank }))
    }

    /// The step that finds the countries that conditions are true of.
    fn countries(&mut self, conditions: &[Condition]) -> Option<usize> {
        let mut sources: Vec<(Field, Vec<Source>)> = Vec::new();
        for term in conditions.iter().filter_map(Condition::term) {
            let source = self.term(term)?;
            let field = countries_field(term.kind());
            match sources.iter_mut().find(|(other, _)| *other == field) {
                Some((_, of)) => of.push(source),
                None => sources.push((field, vec![source])),
            }
        }
        let single = matches!(sources.as_slice(), [(_, of)] if of.len() == 1);
        let reads: Vec<usize> = sources.into_iter().map(|(field, of)| self.push(Step::Read { field, of })).collect();
        let mut found = match (single, reads.first()) {
            (_, None) => return None,
            (true, Some(read)) => *read,
            (false, Some(_)) => self.push(Step::Common { of: reads }),
        };
        for condition in conditions {
            let (field, value) = match condition {
                Condition::With(_) => continue,
                Condition::Landlocked(is) => (Field::Coast, coast(*is)),
                Condition::UnMember(is) => (Field::UnitedNations, membership(*is)),
            };
            let of = self.push(Step::Read { field, of: vec![Source::Step(found)] });
            found = self.push(Step::Keep { of, value: value.to_string() });
        }
        Some(found)
    }

    fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }
}

fn is_place(term: &Term) -> bool {
    matches!(term.kind(), EntityKind::Region | EntityKind::Subregion)
}

/// Where a country's article has its values of a kind.
fn value_field(kind: EntityKind) -> Field {
    match kind {
        EntityKind::Country => Field::Neighbours,
        EntityKind::Capital => Field::Capitals,
        EntityKind::Region => Field::Region,
        EntityKind::Subregion => Field::Subregion,
        EntityKind::Language => Field::Languages,
        EntityKind::Currency => Field::Currencies,
    }
}

/// Where an article of a kind has its countries.
fn countries_field(kind: EntityKind) -> Field {
    match kind {
        EntityKind::Country => Field::Neighbours,
        EntityKind::Capital => Field::CapitalOf,
        _ => Field::Members,
    }
}

fn number(measure: Measure) -> Field {
    match measure {
        Measure::Area => Field::Area,
        Measure::Neighbours => Field::NumberOfNeighbours,
        Measure::Languages => Field::NumberOfLanguages,
    }
}

fn coast(landlocked: bool) -> &'static str {
    if landlocked { "none" } else { "yes" }
}

fn membership(member: bool) -> &'static str {
    if member { "member" } else { "not a member" }
}

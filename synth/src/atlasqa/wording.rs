//! Forms in English.
//!
//! A form has one wording, whatever the seed, so that the same question is always the same text. It must have one
//! reading, too: where it would not be clear where a description ends, because more follows or because it holds an
//! "and" itself, it gets a sentence of its own ("Let A be …") and is named by its letter.

use std::cell::RefCell;

use sha2::{Digest as _, Sha256};

use super::form::{Condition, Form, Measure, Order, Term};
use crate::atlas::{Atlas, Country, Entity, EntityId, EntityKind};

/// Names that take "the" in a sentence, beside those that begin with United or end with Islands.
const WITH_THE: &[&str] = &[
    "Americas",
    "Antarctic",
    "Bahamas",
    "Caribbean",
    "Central African Republic",
    "Comoros",
    "DR Congo",
    "Dominican Republic",
    "French Southern and Antarctic Lands",
    "Gambia",
    "Maldives",
    "Netherlands",
    "Philippines",
    "Republic of the Congo",
    "Seychelles",
    "Turks and Caicos Islands",
];

/// Names of ranks, from the first.
const RANKS: [&str; 5] = ["", "second-", "third-", "fourth-", "fifth-"];

/// One or many, as verbs tell them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grammar {
    One,
    Many,
}

/// Words for the forms of an atlas.
#[derive(Debug, Clone, Copy)]
pub struct Wording<'a> {
    atlas: &'a Atlas,
}

impl<'a> Wording<'a> {
    /// Words for forms over `atlas`.
    pub fn new(atlas: &'a Atlas) -> Wording<'a> {
        Wording { atlas }
    }

    /// The question that a form asks; None where there are no words for it.
    pub fn question(&self, form: &Form) -> Option<String> {
        let writer = Writer::new(self.atlas);
        let question = pick(form, writer.question(form)?)?;
        let lets = writer.lets.into_inner();
        Some(lets.into_iter().chain([question]).collect::<Vec<_>>().join(" "))
    }

    /// A term as a noun phrase, such as "the capital of France".
    pub fn phrase(&self, term: &Term) -> Option<String> {
        let writer = Writer::new(self.atlas);
        let phrase = writer.phrase(term)?;
        writer.lets.into_inner().is_empty().then_some(phrase)
    }
}

/// Words of one question.
struct Writer<'a> {
    atlas: &'a Atlas,
    /// Sentences that come before the question and say what letters stand for.
    lets: RefCell<Vec<String>>,
}

impl<'a> Writer<'a> {
    fn new(atlas: &'a Atlas) -> Writer<'a> {
        Writer { atlas, lets: RefCell::default() }
    }

    /// The question in all its variants.
    fn question(&self, form: &Form) -> Option<Vec<String>> {
        Some(match form {
            Form::Name(term) => self.name(term)?,
            Form::Amount { measure, of } => {
                let of = self.phrase(of)?;
                match measure {
                    Measure::Area => vec![format!("What is the area of {of} in square kilometres?")],
                    Measure::Neighbours => vec![
                        format!("With how many countries and territories does {of} share a land border?"),
                        format!("How many neighbours by land does {of} have?"),
                    ],
                    Measure::Languages => vec![format!("How many official languages does {of} have?")],
                }
            }
            Form::Count(conditions) => {
                let which = self.clauses(conditions, Grammar::Many)?;
                vec![
                    format!("How many countries and territories are there {which}?"),
                    format!("What is the number of countries and territories {which}?"),
                ]
            }
            Form::Compare { measure, order, of } => {
                let [a, b] = self.both(of)?;
                let question = match (measure, order) {
                    (Measure::Area, Order::Largest) => "Which has the larger area",
                    (Measure::Area, Order::Smallest) => "Which has the smaller area",
                    (Measure::Neighbours, Order::Largest) => {
                        "Which shares land borders with more countries and territories"
                    }
                    (Measure::Neighbours, Order::Smallest) => {
                        "Which shares land borders with fewer countries and territories"
                    }
                    (Measure::Languages, Order::Largest) => "Which has more official languages",
                    (Measure::Languages, Order::Smallest) => "Which has fewer official languages",
                };
                vec![format!("{question}: {a} or {b}?")]
            }
            Form::Difference { measure, of } => {
                let [a, b] = self.both(of)?;
                let of_what = match measure {
                    Measure::Area => "in area, in square kilometres,",
                    Measure::Neighbours => "in the number of neighbours by land",
                    Measure::Languages => "in the number of official languages",
                };
                vec![
                    format!("What is the difference {of_what} between {a} and {b}?"),
                    format!("How large is the difference {of_what} between {a} and {b}?"),
                ]
            }
            Form::Holds { condition, of } => self.holds(condition, of)?,
        })
    }

    fn phrase(&self, term: &Term) -> Option<String> {
        Some(match term {
            Term::Named(named) => mention(self.atlas.get(self.atlas.find(named.kind, &named.key)?)?),
            Term::The { kind, of } => {
                let inner = self.phrase(of)?;
                match kind {
                    EntityKind::Capital => format!("the capital of {inner}"),
                    EntityKind::Language => format!("the official language of {inner}"),
                    EntityKind::Currency => format!("the currency of {inner}"),
                    EntityKind::Country => format!("the only country or territory that borders {inner}"),
                    EntityKind::Region if of.kind() == EntityKind::Subregion => {
                        format!("the region that {inner} is a part of")
                    }
                    EntityKind::Region => format!("the region of the world that contains {inner}"),
                    EntityKind::Subregion => format!("the subregion that contains {inner}"),
                }
            }
            Term::Shared { kind, of } => {
                let of = self.joined(of)?;
                match kind {
                    EntityKind::Language => format!("the language that is official in both {of}"),
                    EntityKind::Currency => format!("the currency that is used in both {of}"),
                    _ => return None,
                }
            }
            Term::Only(conditions) => match conditions.as_slice() {
                [Condition::With(term)] if term.kind() == EntityKind::Capital => {
                    format!("the {} {}", self.home_of(term), self.clause(term, self.phrase(term)?, Grammar::One))
                }
                _ => format!("the only country or territory {}", self.clauses(conditions, Grammar::One)?),
            },
            Term::Ranked { order, rank, among } => {
                let rank = RANKS.get(rank.checked_sub(1)?)?;
                let which = self.clauses(among, Grammar::Many)?;
                format!("the {rank}{} by area of the countries and territories {which}", end(*order))
            }
        })
    }

    fn name(&self, term: &Term) -> Option<Vec<String>> {
        Some(match term {
            Term::Named(_) => return None,
            Term::The { kind, of } => {
                let inner = self.phrase(of)?;
                match kind {
                    EntityKind::Capital => vec![
                        format!("What is the capital of {inner}?"),
                        format!("Which city is the capital of {inner}?"),
                    ],
                    EntityKind::Language => vec![
                        format!("What is the official language of {inner}?"),
                        format!("Which language is official in {inner}?"),
                    ],
                    EntityKind::Currency => {
                        vec![format!("What is the currency of {inner}?"), format!("Which currency is used in {inner}?")]
                    }
                    EntityKind::Country => {
                        vec![format!("Which is the only country or territory that borders {inner}?")]
                    }
                    EntityKind::Region if of.kind() == EntityKind::Subregion => {
                        vec![format!("Which region is {inner} a part of?")]
                    }
                    EntityKind::Region => vec![format!("Which region of the world contains {inner}?")],
                    EntityKind::Subregion => {
                        vec![format!("Which subregion contains {inner}?"), format!("What is the subregion of {inner}?")]
                    }
                }
            }
            Term::Shared { kind, of } => {
                let of = self.joined(of)?;
                match kind {
                    EntityKind::Language => vec![format!("Which language is official in both {of}?")],
                    EntityKind::Currency => vec![format!("Which currency is used in both {of}?")],
                    _ => return None,
                }
            }
            Term::Only(conditions) => match conditions.as_slice() {
                [Condition::With(term)] if term.kind() == EntityKind::Capital => {
                    vec![format!(
                        "Which is the {} {}?",
                        self.home_of(term),
                        self.clause(term, self.phrase(term)?, Grammar::One)
                    )]
                }
                _ => {
                    let which = self.clauses(conditions, Grammar::One)?;
                    vec![
                        format!("Which is the only country or territory {which}?"),
                        format!("What is the name of the only country or territory {which}?"),
                    ]
                }
            },
            Term::Ranked { .. } => vec![format!("Which is {}?", self.phrase(term)?)],
        })
    }

    fn holds(&self, condition: &Condition, of: &Term) -> Option<Vec<String>> {
        let subject = self.phrase(of)?;
        Some(match condition {
            Condition::Landlocked(true) => {
                vec![format!("Is {subject} landlocked?"), format!("Is {subject} without a coast?")]
            }
            Condition::UnMember(true) => vec![format!("Is {subject} a member of the United Nations?")],
            Condition::Landlocked(false) | Condition::UnMember(false) => return None,
            Condition::With(term) => {
                let object = self.phrase(term)?;
                match term.kind() {
                    EntityKind::Country => vec![format!("Does {subject} share a land border with {object}?")],
                    EntityKind::Language => vec![format!("Is {object} an official language of {subject}?")],
                    EntityKind::Currency => vec![format!("Is {object} a currency of {subject}?")],
                    EntityKind::Region | EntityKind::Subregion => vec![format!("Does {subject} lie in {object}?")],
                    EntityKind::Capital => return None,
                }
            }
        })
    }

    /// A term where more follows: a letter, if it is a description.
    fn letter(&self, term: &Term) -> Option<String> {
        let phrase = self.phrase(term)?;
        if term.is_named() { Some(phrase) } else { self.by_letter(&phrase) }
    }

    /// A term that comes last, after others: a letter, if it is a description that holds an "and".
    fn last(&self, term: &Term) -> Option<String> {
        let phrase = self.phrase(term)?;
        if term.is_named() || !phrase.contains(" and ") { Some(phrase) } else { self.by_letter(&phrase) }
    }

    /// The letter that stands for a phrase from now on.
    fn by_letter(&self, phrase: &str) -> Option<String> {
        let mut lets = self.lets.borrow_mut();
        let letter = u8::try_from(lets.len()).ok().and_then(|count| b'A'.checked_add(count));
        let letter = char::from(letter.filter(u8::is_ascii_uppercase)?);
        lets.push(format!("Let {letter} be {phrase}."));
        Some(letter.to_string())
    }

    /// Conditions as what follows "the country": the place first, then clauses joined by "and", descriptions last.
    fn clauses(&self, conditions: &[Condition], grammar: Grammar) -> Option<String> {
        let terms = || conditions.iter().filter_map(Condition::term);
        let (named, described): (Vec<&Term>, Vec<&Term>) = terms().partition(|term| term.is_named());
        let is_place = |term: &&&Term| matches!(term.kind(), EntityKind::Region | EntityKind::Subregion);
        let mut text = String::new();
        for place in named.iter().filter(is_place) {
            text.push_str(&format!("in {} ", self.phrase(place)?));
        }
        let mut clauses = Vec::new();
        let bordered: Vec<&Term> = named.iter().filter(|term| term.kind() == EntityKind::Country).copied().collect();
        match bordered.as_slice() {
            [a, b] => {
                let verb = if grammar == Grammar::One { "borders" } else { "border" };
                clauses.push(format!("that {verb} both {} and {}", self.phrase(a)?, self.phrase(b)?));
            }
            others => {
                for term in others {
                    clauses.push(self.clause(term, self.phrase(term)?, grammar));
                }
            }
        }
        for term in named.iter().filter(|term| !is_place(term) && term.kind() != EntityKind::Country) {
            clauses.push(self.clause(term, self.phrase(term)?, grammar));
        }
        for condition in conditions {
            clauses.extend(flag(condition, grammar).map(str::to_string));
        }
        for (place, term) in described.iter().enumerate() {
            let phrase = match (place + 1 == described.len(), conditions.len()) {
                (_, 1) => self.phrase(term)?,
                (true, _) => self.last(term)?,
                (false, _) => self.letter(term)?,
            };
            clauses.push(self.clause(term, phrase, grammar));
        }
        text.push_str(&clauses.join(" and "));
        Some(text.trim_end().to_string())
    }

    /// What is true of a country that is related to a term, `phrase` being the term's words.
    fn clause(&self, term: &Term, phrase: String, grammar: Grammar) -> String {
        let one = grammar == Grammar::One;
        match term.kind() {
            EntityKind::Capital if self.is_one_of_several(term) => format!("that has {phrase} as one of its capitals"),
            EntityKind::Capital => format!("whose capital is {phrase}"),
            EntityKind::Language if term.is_named() => format!("where {phrase} is an official language"),
            // A description comes last.
            EntityKind::Language => format!("whose official languages include {phrase}"),
            EntityKind::Currency => format!("that {} {phrase}", if one { "uses" } else { "use" }),
            EntityKind::Country => format!("that {} {phrase}", if one { "borders" } else { "border" }),
            EntityKind::Region | EntityKind::Subregion => {
                format!("that {} in {phrase}", if one { "lies" } else { "lie" })
            }
        }
    }

    fn is_one_of_several(&self, capital: &Term) -> bool {
        self.country_of(capital).is_some_and(|country| country.capitals.len() > 1)
    }

    /// What a capital is the capital of: a territory has one too.
    fn home_of(&self, capital: &Term) -> &'static str {
        match self.country_of(capital).map(|country| country.independent) {
            Some(Some(false)) => "territory",
            Some(_) => "country",
            None => "country or territory",
        }
    }

    fn country_of(&self, capital: &Term) -> Option<&'a Country> {
        let Term::Named(named) = capital else { return None };
        let entity = self.atlas.get(self.atlas.find(named.kind, &named.key)?)?;
        self.atlas.country(*entity.countries.first()?)
    }

    /// "A and B".
    fn joined(&self, terms: &[Term]) -> Option<String> {
        let [a, b] = terms else { return None };
        // What is named comes first: it is clear where it ends.
        let (a, b) = if a.is_named() { (a, b) } else { (b, a) };
        Some(format!("{} and {}", self.letter(a)?, self.last(b)?))
    }

    /// Two phrases that "and" or "or" may stand between.
    fn both(&self, terms: &[Term; 2]) -> Option<[String; 2]> {
        let [a, b] = terms;
        Some([self.last(a)?, self.last(b)?])
    }
}

/// How an entity is called in a sentence.
fn mention(entity: &Entity) -> String {
    let title = &entity.title;
    let the = entity.kind == EntityKind::Currency
        || (matches!(entity.kind, EntityKind::Country | EntityKind::Region | EntityKind::Subregion)
            && (WITH_THE.contains(&title.as_str()) || title.starts_with("United ") || title.ends_with(" Islands")));
    if the { format!("the {title}") } else { title.clone() }
}

fn flag(condition: &Condition, grammar: Grammar) -> Option<&'static str> {
    Some(match (condition, grammar) {
        (Condition::With(_), _) => return None,
        (Condition::Landlocked(true), Grammar::One) => "that has no coast",
        (Condition::Landlocked(true), Grammar::Many) => "that have no coast",
        (Condition::Landlocked(false), Grammar::One) => "that has a coast",
        (Condition::Landlocked(false), Grammar::Many) => "that have a coast",
        (Condition::UnMember(true), Grammar::One) => "that is a member of the United Nations",
        (Condition::UnMember(true), Grammar::Many) => "that are members of the United Nations",
        (Condition::UnMember(false), Grammar::One) => "that is not a member of the United Nations",
        (Condition::UnMember(false), Grammar::Many) => "that are not members of the United Nations",
    })
}

fn end(order: Order) -> &'static str {
    match order {
        Order::Largest => "largest",
        Order::Smallest => "smallest",
    }
}

/// One of the variants, by the form's digest: the choice varies among questions and never changes for one.
fn pick(form: &Form, mut variants: Vec<String>) -> Option<String> {
    let json = serde_json::to_vec(form).ok()?;
    let byte = Sha256::digest(&json).first().copied()?;
    let chosen = usize::from(byte).checked_rem(variants.len())?;
    Some(variants.swap_remove(chosen))
}

/// The title of an entity's article.
pub(crate) fn title(atlas: &Atlas, id: EntityId) -> Option<&str> {
    atlas.get(id).map(|entity| entity.title.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::World;

    fn text(form: &Form) -> String {
        let atlas = Atlas::new(World::real().unwrap());
        Wording::new(&atlas).question(form).unwrap()
    }

    fn with(kind: EntityKind, key: &str) -> Condition {
        Condition::With(Term::named(kind, key))
    }

    fn bordering(codes: [&str; 2]) -> Term {
        Term::Only(codes.map(|code| with(EntityKind::Country, code)).to_vec())
    }

    #[test]
    fn a_description_that_would_not_end_clearly_gets_a_letter() {
        let inner = Condition::With(bordering(["FRA", "POL"]));
        let one = Form::Count(vec![inner.clone()]);
        assert_eq!(
            text(&one),
            "How many countries and territories are there that border the only country or territory that borders both \
             France and Poland?"
        );
        let more = Form::Count(vec![inner, Condition::UnMember(false), with(EntityKind::Region, "Europe")]);
        assert_eq!(
            text(&more),
            "Let A be the only country or territory that borders both France and Poland. How many countries and \
             territories are there in Europe that are not members of the United Nations and that border A?"
        );
        let both =
            Form::Difference { measure: Measure::Area, of: [bordering(["FRA", "POL"]), bordering(["CHN", "NPL"])] };
        assert_eq!(
            text(&both),
            "Let A be the only country or territory that borders both France and Poland. Let B be the only country or \
             territory that borders both China and Nepal. How large is the difference in area, in square kilometres, \
             between A and B?"
        );
    }

    #[test]
    fn names_take_their_article() {
        let capital =
            |code: &str| Term::The { kind: EntityKind::Capital, of: Box::new(Term::named(EntityKind::Country, code)) };
        let atlas = Atlas::new(World::real().unwrap());
        let phrase = |code| Wording::new(&atlas).phrase(&capital(code)).unwrap();
        assert_eq!(phrase("GBR"), "the capital of the United Kingdom");
        assert_eq!(phrase("FRO"), "the capital of the Faroe Islands");
        assert_eq!(phrase("FRA"), "the capital of France");
    }
}

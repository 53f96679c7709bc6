//! A second opinion on questions about an atlas: takes what a question asks, as [`crate::question_reader`] reads it from
//! the words, and tries every entity of the table. It shares no code with what writes the questions.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use webdancer_synth::atlas::{Atlas, Country};

type Entity = (String, String);

pub(crate) struct BruteForce<'a> {
    countries: &'a [Country],
    entities: BTreeSet<Entity>,
    /// What every entity is called: the table spells some currencies in two ways, the atlas in one.
    names: HashMap<Entity, String>,
    /// Terms solved before: a term within conditions is asked for once per country.
    known: RefCell<HashMap<String, Result<Entity, String>>>,
}

/// Relations of a country: (kind, key) of everything it has.
fn has(country: &Country) -> BTreeSet<Entity> {
    let mut all = BTreeSet::new();
    let mut add = |kind: &str, key: &str| {
        all.insert((kind.to_string(), key.to_string()));
    };
    country.capitals.iter().for_each(|name| add("capital", &format!("{}/{name}", country.code)));
    add("region", &country.region);
    country.subregion.iter().for_each(|key| add("subregion", key));
    country.languages.iter().for_each(|key| add("language", key));
    country.currencies.iter().for_each(|currency| add("currency", &currency.code));
    country.borders.iter().for_each(|code| add("country", code));
    all
}

fn single<T>(found: Vec<T>, what: &Value) -> Result<T, String> {
    let count = found.len();
    found.into_iter().next().filter(|_| count == 1).ok_or_else(|| format!("{count} things are {what}"))
}

impl<'a> BruteForce<'a> {
    pub(crate) fn new(atlas: &'a Atlas) -> BruteForce<'a> {
        let countries = atlas.world().countries();
        let mut entities: BTreeSet<Entity> = countries.iter().flat_map(has).collect();
        entities.extend(countries.iter().map(|country| ("country".to_string(), country.code.clone())));
        let key = |entity: &webdancer_synth::atlas::Entity| (entity.kind.segment().to_string(), entity.key.clone());
        let names = atlas.entities().iter().map(|entity| (key(entity), entity.name.clone())).collect();
        BruteForce { countries, entities, names, known: RefCell::default() }
    }

    /// The one answer to a form, or why there is not one.
    pub(crate) fn answer(&self, form: &Value) -> Result<String, String> {
        let (what, body) = form.as_object().unwrap().iter().next().unwrap();
        match what.as_str() {
            "name" => self.name(&self.term(body)?),
            "count" => Ok(self.those(body)?.len().to_string()),
            "amount" => Ok(self.number(body, &body["of"])?.to_string()),
            "difference" => {
                let (a, b) = (self.number(body, &body["of"][0])?, self.number(body, &body["of"][1])?);
                Ok((a - b).abs().to_string())
            }
            "compare" => {
                let (a, b) = (self.number(body, &body["of"][0])?, self.number(body, &body["of"][1])?);
                if a == b {
                    return Err(format!("a tie: {form}"));
                }
                let first = (a > b) == (body["order"] == "largest");
                self.name(&self.term(&body["of"][if first { 0 } else { 1 }])?)
            }
            "holds" => {
                let country = self.country(&self.term(&body["of"])?)?;
                Ok(if self.is_true(country, &body["condition"])? { "yes" } else { "no" }.to_string())
            }
            other => Err(format!("no form: {other}")),
        }
    }

    fn term(&self, term: &Value) -> Result<Entity, String> {
        if let Some(known) = self.known.borrow().get(&term.to_string()) {
            return known.clone();
        }
        let found = self.solve(term);
        self.known.borrow_mut().insert(term.to_string(), found.clone());
        found
    }

    fn solve(&self, term: &Value) -> Result<Entity, String> {
        let (what, body) = term.as_object().unwrap().iter().next().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_string();
        match what.as_str() {
            "named" => {
                let entity = (text(&body["kind"]), text(&body["key"]));
                self.entities.get(&entity).cloned().ok_or_else(|| format!("no entity {entity:?}"))
            }
            "the" => self.values(&text(&body["kind"]), std::slice::from_ref(&body["of"]), term),
            "shared" => self.values(&text(&body["kind"]), body["of"].as_array().unwrap(), term),
            "only" => {
                let country = single(self.those(body)?, term)?;
                Ok(("country".to_string(), country.code.clone()))
            }
            "ranked" => {
                let those = self.those(&body["among"])?;
                let area = |country: &Country| country.area_km2.ok_or_else(|| format!("{} has no area", country.name));
                let mut at_rank = Vec::new();
                for country in &those {
                    let mut ahead = 0;
                    for other in those.iter().filter(|other| other.code != country.code) {
                        let (mine, theirs) = (area(country)?, area(other)?);
                        if mine == theirs {
                            return Err(format!("{} and {} are equal", country.name, other.name));
                        }
                        ahead += u64::from((theirs > mine) == (body["order"] == "largest"));
                    }
                    if body["rank"] == ahead + 1 {
                        at_rank.push(*country);
                    }
                }
                Ok(("country".to_string(), single(at_rank, term)?.code.clone()))
            }
            other => Err(format!("no term: {other}")),
        }
    }

    /// The one entity of a kind that all the subjects have.
    fn values(&self, kind: &str, of: &[Value], what: &Value) -> Result<Entity, String> {
        let mut found: Vec<Entity> = self.entities.iter().filter(|(other, _)| other == kind).cloned().collect();
        for subject in of {
            let subject = self.term(subject)?;
            let theirs: BTreeSet<Entity> = if subject.0 == "subregion" {
                let inside = self.countries.iter().filter(|country| country.subregion.as_ref() == Some(&subject.1));
                inside.map(|country| ("region".to_string(), country.region.clone())).collect()
            } else {
                has(self.country(&subject)?)
            };
            found.retain(|entity| theirs.contains(entity));
        }
        single(found, what)
    }

    fn those(&self, conditions: &Value) -> Result<Vec<&'a Country>, String> {
        let conditions = conditions.as_array().unwrap();
        assert!(!conditions.is_empty());
        let mut found = Vec::new();
        for country in self.countries {
            let mut all = true;
            for condition in conditions {
                all &= self.is_true(country, condition)?;
            }
            if all {
                found.push(country);
            }
        }
        Ok(found)
    }

    fn is_true(&self, country: &Country, condition: &Value) -> Result<bool, String> {
        let (what, body) = condition.as_object().unwrap().iter().next().unwrap();
        match what.as_str() {
            "with" => Ok(has(country).contains(&self.term(body)?)),
            "landlocked" => Ok(body == country.landlocked),
            "un_member" => Ok(body == country.un_member),
            other => Err(format!("no condition: {other}")),
        }
    }

    fn number(&self, body: &Value, of: &Value) -> Result<f64, String> {
        let country = self.country(&self.term(of)?)?;
        match body["measure"].as_str().unwrap() {
            "area" => country.area_km2.ok_or_else(|| format!("{} has no area", country.name)),
            "neighbours" => Ok(country.borders.len() as f64),
            "languages" => Ok(country.languages.len() as f64),
            other => Err(format!("no measure: {other}")),
        }
    }

    fn country(&self, entity: &Entity) -> Result<&'a Country, String> {
        let found = self.countries.iter().find(|country| entity.0 == "country" && country.code == entity.1);
        found.ok_or_else(|| format!("no country {entity:?}"))
    }

    /// What an entity is called, if nothing else of its kind is called so.
    fn name(&self, entity: &Entity) -> Result<String, String> {
        let name = &self.names[entity];
        let of_kind = self.names.iter().filter(|(other, _)| other.0 == entity.0);
        let alike = of_kind.filter(|(_, other)| other.to_lowercase() == name.to_lowercase());
        if alike.count() == 1 { Ok(name.clone()) } else { Err(format!("several are called {name}")) }
    }
}

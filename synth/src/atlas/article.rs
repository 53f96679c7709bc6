//! Articles: prose, a table of facts and lists, all made from the table of countries.
//!
//! An article is text with links, not HTML: the page and the search index are both made from it.

use std::collections::BTreeSet;

use super::entity::{Atlas, Entity, EntityId, EntityKind, capital_key};
use super::world::Country;

/// A piece of text, or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inline {
    /// Text.
    Text(String),
    /// The entity's title, linked to its article.
    Link(EntityId),
}

/// A paragraph, or the value of a fact.
pub type Paragraph = Vec<Inline>;

/// A row of the table of facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Name, such as `Capital`.
    pub name: &'static str,
    /// Value.
    pub value: Paragraph,
}

/// What an article says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Article {
    /// Title.
    pub title: String,
    /// Prose.
    pub paragraphs: Vec<Paragraph>,
    /// Table of facts.
    pub facts: Vec<Fact>,
    /// Lists with their headings.
    pub lists: Vec<(&'static str, Vec<EntityId>)>,
}

impl Atlas {
    /// The article of an entity.
    pub fn article(&self, entity: &Entity) -> Article {
        match entity.kind {
            EntityKind::Country => self.country_article(entity),
            EntityKind::Capital => self.capital_article(entity),
            EntityKind::Region => self.region_article(entity),
            EntityKind::Subregion => self.subregion_article(entity),
            EntityKind::Language => self.language_article(entity),
            EntityKind::Currency => self.currency_article(entity),
        }
    }

    /// The text of a paragraph.
    pub fn plain(&self, paragraph: &[Inline]) -> String {
        let text = paragraph.iter().map(|inline| match inline {
            Inline::Text(text) => text.as_str(),
            Inline::Link(id) => self.get(*id).map_or("", |entity| entity.title.as_str()),
        });
        text.collect()
    }

    fn country_article(&self, entity: &Entity) -> Article {
        let mut article = Article::new(entity);
        let Some(country) = self.first_country(entity) else { return article };
        let name = country.name.as_str();
        let of_country = |kind, key: &str| self.find(kind, key);
        let region: Vec<_> = of_country(EntityKind::Region, &country.region).into_iter().collect();
        let subregion: Vec<_> =
            country.subregion.iter().filter_map(|key| of_country(EntityKind::Subregion, key)).collect();
        let keys = country.capitals.iter().map(|capital| capital_key(country, capital));
        let capitals: Vec<_> = keys.filter_map(|key| of_country(EntityKind::Capital, &key)).collect();
        let languages: Vec<_> =
            country.languages.iter().filter_map(|key| of_country(EntityKind::Language, key)).collect();
        let currencies: Vec<_> =
            country.currencies.iter().filter_map(|c| of_country(EntityKind::Currency, &c.code)).collect();
        let neighbours: Vec<_> =
            country.borders.iter().filter_map(|code| of_country(EntityKind::Country, code)).collect();

        let mut lead = Prose::new();
        lead.text(name);
        if country.official != country.name {
            lead.text(&format!(", officially {}, is ", with_article(&country.official)));
        } else {
            lead.text(" is ");
        }
        lead.text(match country.independent {
            Some(true) => "a country in ",
            Some(false) => "a territory in ",
            None => "a country of disputed status in ",
        });
        if subregion.is_empty() {
            lead.all(&region).text(". ");
        } else {
            lead.all(&subregion).text(", a part of ").all(&region).text(". ");
        }
        match capitals.len() {
            0 => lead.text("It has no capital."),
            1 => lead.text("Its capital is ").all(&capitals).text("."),
            _ => lead.text("Its capitals are ").all(&capitals).text("."),
        };

        let mut land = Prose::new();
        match country.area_km2 {
            Some(area) => land.text(&format!("{name} covers {} square kilometres", grouped(area))),
            None => land.text(&format!("The area of {name} is not known")),
        };
        land.text(if country.landlocked { " and has no coast. " } else { ". " });
        match neighbours.len() {
            0 => land.text("It has no land borders."),
            1 => land.text("It shares a land border with one country: ").all(&neighbours).text("."),
            count => land.text(&format!("It shares land borders with {count} countries: ")).all(&neighbours).text("."),
        };

        let mut people = Prose::new();
        match languages.len() {
            0 => people.text(&format!("{name} has no official language.")),
            1 => people.text(&format!("The official language of {name} is ")).all(&languages).text("."),
            _ => people.text(&format!("The official languages of {name} are ")).all(&languages).text("."),
        };
        match currencies.len() {
            0 => people.text(" It has no currency of its own or shared."),
            1 => people.text(" Its currency is the ").all(&currencies).text("."),
            _ => people.text(" Its currencies are the ").all(&currencies).text("."),
        };
        if let Some(demonym) = &country.demonym {
            people.text(&format!(" Its people are called {demonym}."));
        }
        let member = if country.un_member { "is a member" } else { "is not a member" };
        people.text(&format!(" {name} {member} of the United Nations."));

        article.paragraphs = vec![lead.0, land.0, people.0];
        article.fact("Official name", &country.official);
        article.fact("Code", &country.code);
        article.linked(if capitals.len() > 1 { "Capitals" } else { "Capital" }, &capitals);
        article.linked("Region", &region);
        article.linked("Subregion", &subregion);
        article.linked("Official languages", &languages);
        article.linked("Currencies", &currencies);
        if let Some(area) = country.area_km2 {
            article.fact("Area", &format!("{} km²", grouped(area)));
        }
        article.fact("Coast", if country.landlocked { "none" } else { "yes" });
        article.fact("Position", &position(country));
        article.fact(
            "Independent",
            match country.independent {
                Some(true) => "yes",
                Some(false) => "no",
                None => "disputed",
            },
        );
        article.fact("United Nations", if country.un_member { "member" } else { "not a member" });
        article.list("Neighbours", neighbours);
        article
    }

    fn capital_article(&self, entity: &Entity) -> Article {
        let mut article = Article::new(entity);
        let Some(country) = self.first_country(entity) else { return article };
        let home: Vec<_> = self.find(EntityKind::Country, &country.code).into_iter().collect();
        let region: Vec<_> = self.find(EntityKind::Region, &country.region).into_iter().collect();
        let subregion: Vec<_> =
            country.subregion.iter().filter_map(|key| self.find(EntityKind::Subregion, key)).collect();
        let languages: Vec<_> =
            country.languages.iter().filter_map(|key| self.find(EntityKind::Language, key)).collect();
        let currencies: Vec<_> =
            country.currencies.iter().filter_map(|c| self.find(EntityKind::Currency, &c.code)).collect();
        let others = country.capitals.iter().filter(|capital| **capital != entity.name);
        let others: Vec<_> =
            others.filter_map(|name| self.find(EntityKind::Capital, &capital_key(country, name))).collect();

        let mut lead = Prose::new();
        let role = if others.is_empty() { "the capital" } else { "one of the capitals" };
        lead.text(&format!("{} is {role} of ", entity.name)).all(&home).text(", in ");
        lead.all(if subregion.is_empty() { &region } else { &subregion }).text(".");
        if !others.is_empty() {
            lead.text(" The others are ").all(&others).text(".");
        }
        let mut life = Prose::new();
        if !languages.is_empty() {
            life.text("Official languages there: ").all(&languages).text(". ");
        }
        if !currencies.is_empty() {
            life.text("One pays with the ").all(&currencies).text(".");
        }
        article.paragraphs = vec![lead.0, life.0];
        article.linked("Capital of", &home);
        article.linked("Region", &region);
        article.linked("Subregion", &subregion);
        article.linked("Official languages", &languages);
        article.linked("Currencies", &currencies);
        article
    }

    fn region_article(&self, entity: &Entity) -> Article {
        let subregions = self.keys(entity, |country| country.subregion.clone().into_iter().collect());
        let subregions = self.all(EntityKind::Subregion, &subregions);
        let mut lead = Prose::new();
        lead.text(&format!("{} is a region of the world. It has {}", entity.name, counted(entity.countries.len())));
        match subregions.len() {
            0 => lead.text("."),
            1 => lead.text(" in one subregion: ").all(&subregions).text("."),
            count => lead.text(&format!(" in {count} subregions: ")).all(&subregions).text("."),
        };
        let mut article = Article::new(entity);
        article.paragraphs = vec![lead.0, self.largest(entity)];
        self.land_facts(entity, &mut article);
        article.list("Subregions", subregions);
        article.list("Countries and territories", self.countries(entity));
        article
    }

    fn subregion_article(&self, entity: &Entity) -> Article {
        let regions = self.keys(entity, |country| vec![country.region.clone()]);
        let regions = self.all(EntityKind::Region, &regions);
        let mut lead = Prose::new();
        lead.text(&format!("{} is a part of ", entity.name)).all(&regions);
        lead.text(&format!(". It has {}.", counted(entity.countries.len())));
        let mut article = Article::new(entity);
        article.paragraphs = vec![lead.0, self.largest(entity)];
        article.linked("Region", &regions);
        self.land_facts(entity, &mut article);
        article.list("Countries and territories", self.countries(entity));
        article
    }

    fn language_article(&self, entity: &Entity) -> Article {
        let mut lead = Prose::new();
        let count = counted(entity.countries.len());
        lead.text(&format!("{} is an official language of {count}: ", entity.name));
        lead.all(&self.countries(entity)).text(".");
        let regions = self.keys(entity, |country| vec![country.region.clone()]);
        let regions = self.all(EntityKind::Region, &regions);
        let mut article = Article::new(entity);
        article.paragraphs = vec![lead.0];
        article.fact("Official in", &count);
        article.linked("Regions", &regions);
        article.list("Countries and territories", self.countries(entity));
        article
    }

    fn currency_article(&self, entity: &Entity) -> Article {
        let mut lead = Prose::new();
        let count = counted(entity.countries.len());
        lead.text(&format!("The {}, code {}, is a currency of {count}: ", entity.name, entity.key));
        lead.all(&self.countries(entity)).text(".");
        let regions = self.keys(entity, |country| vec![country.region.clone()]);
        let regions = self.all(EntityKind::Region, &regions);
        let mut article = Article::new(entity);
        article.paragraphs = vec![lead.0];
        article.fact("Code", &entity.key);
        article.fact("Used in", &count);
        article.linked("Regions", &regions);
        article.list("Countries and territories", self.countries(entity));
        article
    }

    fn first_country(&self, entity: &Entity) -> Option<&Country> {
        entity.countries.first().and_then(|index| self.country(*index))
    }

    fn members(&self, entity: &Entity) -> impl Iterator<Item = &Country> {
        entity.countries.iter().filter_map(|index| self.country(*index))
    }

    fn countries(&self, entity: &Entity) -> Vec<EntityId> {
        self.members(entity).filter_map(|country| self.find(EntityKind::Country, &country.code)).collect()
    }

    fn keys(&self, entity: &Entity, of: impl Fn(&Country) -> Vec<String>) -> BTreeSet<String> {
        self.members(entity).flat_map(of).collect()
    }

    fn all(&self, kind: EntityKind, keys: &BTreeSet<String>) -> Vec<EntityId> {
        keys.iter().filter_map(|key| self.find(kind, key)).collect()
    }

    /// The member with the largest area and the one with the smallest.
    fn largest(&self, entity: &Entity) -> Paragraph {
        let mut sized: Vec<(f64, &Country)> =
            self.members(entity).filter_map(|country| Some((country.area_km2?, country))).collect();
        sized.sort_by(|(a, one), (b, other)| b.total_cmp(a).then_with(|| one.name.cmp(&other.name)));
        let mut prose = Prose::new();
        let link = |country: &Country| self.find(EntityKind::Country, &country.code).into_iter().collect::<Vec<_>>();
        if let (Some((most, largest)), Some((least, smallest))) = (sized.first(), sized.last())
            && sized.len() > 1
        {
            prose
                .text("The largest by area is ")
                .all(&link(largest))
                .text(&format!(" with {} square kilometres, the smallest ", grouped(*most)));
            prose.all(&link(smallest)).text(&format!(" with {}.", grouped(*least)));
        }
        prose.0
    }

    fn land_facts(&self, entity: &Entity, article: &mut Article) {
        let area: f64 = self.members(entity).filter_map(|country| country.area_km2).sum();
        // A sum of hundredths is no exact binary number.
        let area = (area * 100.0).round() / 100.0;
        article.fact("Countries and territories", &entity.countries.len().to_string());
        article.fact("Area", &format!("{} km²", grouped(area)));
        let landlocked = self.members(entity).filter(|country| country.landlocked).count();
        article.fact("Without a coast", &landlocked.to_string());
        let members = self.members(entity).filter(|country| country.un_member).count();
        article.fact("Members of the United Nations", &members.to_string());
    }
}

impl Article {
    fn new(entity: &Entity) -> Article {
        Article { title: entity.title.clone(), paragraphs: Vec::new(), facts: Vec::new(), lists: Vec::new() }
    }

    fn fact(&mut self, name: &'static str, value: &str) {
        self.facts.push(Fact { name, value: vec![Inline::Text(value.to_string())] });
    }

    fn linked(&mut self, name: &'static str, entities: &[EntityId]) {
        if !entities.is_empty() {
            self.facts.push(Fact { name, value: separated(entities, ", ", ", ") });
        }
    }

    fn list(&mut self, heading: &'static str, entities: Vec<EntityId>) {
        if !entities.is_empty() {
            self.lists.push((heading, entities));
        }
    }
}

/// A paragraph being written.
struct Prose(Paragraph);

impl Prose {
    fn new() -> Prose {
        Prose(Vec::new())
    }

    fn text(&mut self, text: &str) -> &mut Prose {
        match self.0.last_mut() {
            Some(Inline::Text(last)) => last.push_str(text),
            _ => self.0.push(Inline::Text(text.to_string())),
        }
        self
    }

    /// Links joined by commas and "and".
    fn all(&mut self, entities: &[EntityId]) -> &mut Prose {
        self.0.extend(separated(entities, ", ", " and "));
        self
    }
}

fn separated(entities: &[EntityId], between: &str, last: &str) -> Paragraph {
    let mut paragraph = Vec::new();
    for (index, id) in entities.iter().enumerate() {
        if index > 0 {
            let joint = if index + 1 == entities.len() { last } else { between };
            paragraph.push(Inline::Text(joint.to_string()));
        }
        paragraph.push(Inline::Link(*id));
    }
    paragraph
}

/// "one country or territory", "12 countries and territories".
fn counted(count: usize) -> String {
    match count {
        1 => "one country or territory".to_string(),
        _ => format!("{count} countries and territories"),
    }
}

/// "the Republic of X", but "Y" where the official name is a plain one.
fn with_article(official: &str) -> String {
    if official.contains(" of ") && !official.starts_with("The ") {
        format!("the {official}")
    } else {
        official.to_string()
    }
}

/// Thousands apart: 643,801; fractions as they are.
fn grouped(number: f64) -> String {
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

fn position(country: &Country) -> String {
    let side = |degrees: f64, positive: &str, negative: &str| {
        format!("{:.2}° {}", degrees.abs(), if degrees < 0.0 { negative } else { positive })
    };
    format!("{}, {}", side(country.latitude, "N", "S"), side(country.longitude, "E", "W"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in
            [(0.44, "0.44"), (21.0, "21"), (999.0, "999"), (1000.0, "1,000"), (17_098_242.0, "17,098,242")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}

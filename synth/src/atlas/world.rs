//! The table of countries.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

/// The real table; `data/SOURCE.md` names its source and licence.
const REAL: &str = include_str!("../../data/countries.csv");

/// A currency.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency {
    /// Code of three letters (ISO 4217 in the real world).
    pub code: String,
    /// Name.
    pub name: String,
}

/// A country or territory.
#[derive(Debug, Clone, PartialEq)]
pub struct Country {
    /// Code of three letters (ISO 3166-1 alpha-3 in the real world).
    pub code: String,
    /// Common name.
    pub name: String,
    /// Official name.
    pub official: String,
    /// Capitals; there may be none, or several.
    pub capitals: Vec<String>,
    /// Region, such as Europe.
    pub region: String,
    /// Subregion, such as Western Europe.
    pub subregion: Option<String>,
    /// Official languages.
    pub languages: Vec<String>,
    /// Currencies.
    pub currencies: Vec<Currency>,
    /// Codes of the countries it shares a land border with. Always mutual.
    pub borders: Vec<String>,
    /// Area in square kilometres, where known.
    pub area_km2: Option<f64>,
    /// Without a coast.
    pub landlocked: bool,
    /// Member of the United Nations.
    pub un_member: bool,
    /// Independent; None where that is disputed.
    pub independent: Option<bool>,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// What its people are called.
    pub demonym: Option<String>,
}

/// The countries of a world, in the order of its table.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    countries: Vec<Country>,
}

/// Why a table is not a world: correct the row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// The table is not CSV of the expected columns.
    #[error("the table of countries: {0}")]
    Csv(#[from] csv::Error),
    /// A value is wrong.
    #[error("country {code}: {reason}")]
    Value {
        /// Code of the row.
        code: String,
        /// What is wrong.
        reason: String,
    },
}

/// A row as written.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    cca3: String,
    name: String,
    official: String,
    capital: String,
    region: String,
    subregion: String,
    languages: String,
    currencies: String,
    borders: String,
    area_km2: String,
    landlocked: String,
    un_member: String,
    independent: String,
    lat: String,
    lng: String,
    demonym: String,
}

impl World {
    /// The real countries.
    ///
    /// # Errors
    /// Never for the table that is built in; it is checked like any other.
    pub fn real() -> Result<World, WorldError> {
        World::from_csv(REAL)
    }

    /// A world from a table with the columns of `data/countries.csv`: lists joined by `|`, a currency as `code:name`.
    /// A border that only one side names is left out.
    ///
    /// # Errors
    /// Not such a table, a code twice, or a border with a country that the table has not.
    pub fn from_csv(text: &str) -> Result<World, WorldError> {
        let rows = csv::Reader::from_reader(text.as_bytes()).into_deserialize::<Row>();
        let countries = rows.map(|row| Country::from_row(row?)).collect::<Result<Vec<_>, _>>()?;
        World::new(countries)
    }

    /// A world of these countries, checked.
    ///
    /// # Errors
    /// A code twice, or a border with a country that is not there.
    pub fn new(mut countries: Vec<Country>) -> Result<World, WorldError> {
        let mut borders: HashMap<String, HashSet<String>> = HashMap::new();
        for country in &countries {
            if borders.insert(country.code.clone(), country.borders.iter().cloned().collect()).is_some() {
                return Err(country.wrong("its code is used twice"));
            }
        }
        for country in &mut countries {
            if let Some(unknown) = country.borders.iter().find(|code| !borders.contains_key(*code)) {
                return Err(country.wrong(format!("it borders {unknown:?}, which is not in the table")));
            }
            let code = country.code.clone();
            country.borders.retain(|other| borders.get(other).is_some_and(|theirs| theirs.contains(&code)));
        }
        Ok(World { countries })
    }

    /// The countries, in the order of the table.
    pub fn countries(&self) -> &[Country] {
        &self.countries
    }

    /// The table as [`from_csv`](World::from_csv) reads it.
    ///
    /// # Errors
    /// Does not happen: rows are written to memory.
    pub fn to_csv(&self) -> Result<String, WorldError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for country in &self.countries {
            writer.serialize(country.to_row())?;
        }
        let bytes = writer.into_inner().map_err(|e| csv::Error::from(e.into_error()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Country {
    fn from_row(row: Row) -> Result<Country, WorldError> {
        let wrong = |reason: String| WorldError::Value { code: row.cca3.clone(), reason };
        let number = |name: &str, text: &str| {
            text.parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .ok_or_else(|| wrong(format!("{name} {text:?} is no number")))
        };
        let flag = |name: &str, text: &str| match text {
            "True" => Ok(true),
            "False" => Ok(false),
            _ => Err(wrong(format!("{name} {text:?} is neither True nor False"))),
        };
        let currency = |text: String| {
            let (code, name) = text.split_once(':').ok_or_else(|| wrong(format!("currency {text:?} has no code")))?;
            Ok(Currency { code: code.to_string(), name: name.to_string() })
        };
        if row.cca3.is_empty() || row.name.is_empty() || row.region.is_empty() {
            return Err(wrong("code, name and region must not be empty".to_string()));
        }
        Ok(Country {
            capitals: list(&row.capital),
            subregion: text(&row.subregion),
            languages: list(&row.languages),
            currencies: list(&row.currencies).into_iter().map(currency).collect::<Result<_, WorldError>>()?,
            borders: list(&row.borders),
            // The source marks an unknown area with -1.
            area_km2: Some(number("area_km2", &row.area_km2)?).filter(|area| *area > 0.0),
            landlocked: flag("landlocked", &row.landlocked)?,
            un_member: flag("un_member", &row.un_member)?,
            independent: text(&row.independent).map(|value| flag("independent", &value)).transpose()?,
            latitude: number("lat", &row.lat)?,
            longitude: number("lng", &row.lng)?,
            demonym: text(&row.demonym),
            code: row.cca3,
            name: row.name,
            official: row.official,
            region: row.region,
        })
    }

    fn to_row(&self) -> Row {
        let flag = |value: bool| if value { "True" } else { "False" }.to_string();
        let currencies: Vec<String> = self.currencies.iter().map(|c| format!("{}:{}", c.code, c.name)).collect();
        Row {
            cca3: self.code.clone(),
            name: self.name.clone(),
            official: self.official.clone(),
            capital: self.capitals.join("|"),
            region: self.region.clone(),
            subregion: self.subregion.clone().unwrap_or_default(),
            languages: self.languages.join("|"),
            currencies: currencies.join("|"),
            borders: self.borders.join("|"),
            area_km2: self.area_km2.unwrap_or(-1.0).to_string(),
            landlocked: flag(self.landlocked),
            un_member: flag(self.un_member),
            independent: self.independent.map(flag).unwrap_or_default(),
            lat: self.latitude.to_string(),
            lng: self.longitude.to_string(),
            demonym: self.demonym.clone().unwrap_or_default(),
        }
    }

    fn wrong(&self, reason: impl Into<String>) -> WorldError {
        WorldError::Value { code: self.code.clone(), reason: reason.into() }
    }
}

fn list(joined: &str) -> Vec<String> {
    joined.split('|').filter(|part| !part.is_empty()).map(str::to_string).collect()
}

fn text(value: &str) -> Option<String> {
    Some(value.to_string()).filter(|value| !value.is_empty())
}

//! Invented worlds: the schema of the real one, no name of it.
//!
//! What is learnt on an invented world cannot be remembered from anywhere, and says nothing about the real one. Its names
//! are put together from pieces of real ones, three letters each: who has learnt to read and write these can read and
//! write the names of the real world, none of which it has seen. A world depends on its seed alone: ChaCha's stream,
//! taken as whole numbers, is the same on every machine.

use std::collections::{BTreeSet, HashSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use super::world::{Country, Currency, World, WorldError};

/// Letters of a piece of a name.
const PIECE_LETTERS: usize = 3;
/// Chance in a hundred that a place has a name of several words.
const SEVERAL_WORDS: u32 = 20;
/// What stands before or after one word in a name of several, or between two.
const BEFORE: [&str; 8] = ["New", "North", "South", "Saint", "Port", "El", "San", "Great"];
const AFTER: [&str; 4] = ["Islands", "Island", "City", "Town"];
const BETWEEN: [&str; 3] = [" ", " and ", "-"];

const REGIONS: usize = 6;
const SUBREGIONS_PER_REGION: usize = 4;
const COUNTRIES: usize = 250;
/// Side of the square that a subregion covers, in hundredths of a degree.
const SUBREGION_SIDE: u32 = 1_800;

const FORMS: [&str; 5] = ["Republic of", "Kingdom of", "Federation of", "Union of", "Commonwealth of"];
const DIRECTIONS: [&str; 4] = ["Northern", "Southern", "Eastern", "Western"];

impl World {
    /// The world of a seed: 250 countries in 6 regions and 24 subregions, with mutual borders.
    ///
    /// # Errors
    /// Does not happen; an invented table is checked like any other.
    pub fn invent(seed: u64) -> Result<World, WorldError> {
        Inventor::new(seed)?.world()
    }
}

/// Draws a world.
struct Inventor {
    random: ChaCha8Rng,
    /// Names in lower case that are taken: the real world's, then our own.
    taken: HashSet<String>,
    pieces: Pieces,
}

/// What the words of names are made of, each piece once and in order.
#[derive(Default)]
struct Pieces {
    /// Beginnings of words with a capital letter.
    capital: Vec<String>,
    /// Beginnings of the others.
    small: Vec<String>,
    /// What follows, whole: words may go on behind it.
    middle: Vec<String>,
    /// What words end with.
    last: Vec<String>,
}

impl Pieces {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Pieces {
        let mut pieces: [BTreeSet<String>; 4] = Default::default();
        for word in names.flat_map(|name| name.split(|c: char| !c.is_alphabetic())) {
            let [capital, small, middle, last] = &mut pieces;
            let letters: Vec<char> = word.chars().collect();
            let mut cut = letters.chunks(PIECE_LETTERS).map(String::from_iter);
            // A word as short as a piece is no beginning of a longer one.
            let Some(first) = cut.next().filter(|first: &String| first.chars().count() == PIECE_LETTERS) else {
                continue;
            };
            if word.starts_with(char::is_uppercase) { capital } else { small }.insert(first);
            let mut rest: Vec<String> = cut.collect();
            last.extend(rest.pop());
            middle.extend(rest);
        }
        let [capital, small, middle, last] = pieces.map(|set| set.into_iter().collect());
        Pieces { capital, small, middle, last }
    }
}

/// A place on the map, in hundredths of a degree.
#[derive(Clone, Copy)]
struct Place {
    north: i32,
    east: i32,
}

impl Inventor {
    fn new(seed: u64) -> Result<Inventor, WorldError> {
        let real = World::real()?;
        // Codes are no words.
        let codes = real.countries().iter().flat_map(|country| {
            std::iter::once(&country.code).chain(country.currencies.iter().map(|currency| &currency.code))
        });
        let names = || real.countries().iter().flat_map(names_of);
        let taken = names().chain(codes.map(String::as_str)).map(str::to_lowercase).collect();
        Ok(Inventor { random: ChaCha8Rng::seed_from_u64(seed), taken, pieces: Pieces::of(names()) })
    }

    fn world(&mut self) -> Result<World, WorldError> {
        let regions: Vec<String> = (0..REGIONS).map(|_| self.name()).collect();
        let world_languages: Vec<String> = (0..4).map(|_| self.name()).collect();
        let mut countries = Vec::with_capacity(COUNTRIES);
        let mut places = Vec::with_capacity(COUNTRIES);
        for subregion in 0..REGIONS * SUBREGIONS_PER_REGION {
            let (region, part) = (subregion / SUBREGIONS_PER_REGION, subregion % SUBREGIONS_PER_REGION);
            let Some(region_name) = regions.get(region) else { continue };
            let direction = DIRECTIONS.get(part).copied().unwrap_or_default();
            let corner = Place {
                north: i32::try_from(part / 2 * 2_000).unwrap_or(0) - 2_000 + self.between(0, 200),
                east: i32::try_from(region * 5_000 + part % 2 * 2_000).unwrap_or(0) - 15_000,
            };
            let mut languages: Vec<String> = (0..4).map(|_| self.name()).collect();
            languages.extend(world_languages.iter().cloned());
            let shared = self.currency();
            // The remainder goes to the first subregions, so that the countries are exactly as many as promised.
            let all = REGIONS * SUBREGIONS_PER_REGION;
            let here = COUNTRIES / all + usize::from(subregion < COUNTRIES % all);
            for _ in 0..here {
                let country = self.country(region_name, &format!("{direction} {region_name}"), &languages, &shared);
                let place = Place {
                    north: corner.north + self.between(0, SUBREGION_SIDE),
                    east: corner.east + self.between(0, SUBREGION_SIDE),
                };
                places.push(place);
                countries.push(Country {
                    latitude: f64::from(place.north) / 100.0,
                    longitude: f64::from(place.east) / 100.0,
                    ..country
                });
            }
        }
        self.draw_borders(&mut countries, &places);
        World::new(countries)
    }

    fn country(&mut self, region: &str, subregion: &str, languages: &[String], shared: &Currency) -> Country {
        let name = self.place_name();
        let form = self.pick(&FORMS).copied().unwrap_or_default();
        let official = if self.chance(80) { format!("{form} {name}") } else { name.clone() };
        let capitals = match self.below(100) {
            0..=1 => Vec::new(),
            2..=3 => vec![self.place_name(), self.place_name()],
            _ => vec![self.place_name()],
        };
        let wanted = match self.below(100) {
            0..=59 => 1,
            60..=84 => 2,
            _ => 3,
        };
        let mut spoken = BTreeSet::new();
        while spoken.len() < wanted {
            spoken.extend(self.pick(languages).cloned());
        }
        let mut currencies = vec![if self.chance(65) { self.currency() } else { shared.clone() }];
        if self.chance(5) && !currencies.contains(shared) {
            currencies.push(shared.clone());
        }
        // From ten to nine million square kilometres, every magnitude as likely.
        let magnitude = 10_u32.pow(self.below(6));
        let area = magnitude * (10 + self.below(80)) + self.below(magnitude);
        let independent = self.chance(80);
        Country {
            code: self.code(),
            official,
            capitals,
            region: region.to_string(),
            subregion: Some(subregion.to_string()),
            languages: spoken.into_iter().collect(),
            currencies,
            borders: Vec::new(),
            area_km2: Some(f64::from(area)),
            landlocked: false,
            un_member: independent,
            independent: Some(independent),
            latitude: 0.0,
            longitude: 0.0,
            demonym: Some(demonym(&name)),
            name,
        }
    }

    /// Land borders join near neighbours of one region; some countries are islands. Who is surrounded may have no coast.
    fn draw_borders(&mut self, countries: &mut [Country], places: &[Place]) {
        let mut borders: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); countries.len()];
        let islands: Vec<bool> = countries.iter().map(|_| self.chance(25)).collect();
        let island = |index: usize| islands.get(index).copied().unwrap_or(true);
        for (index, (country, place)) in countries.iter().zip(places).enumerate() {
            if island(index) {
                continue;
            }
            let mut near: Vec<(i64, usize)> = countries
                .iter()
                .zip(places)
                .enumerate()
                .filter(|(other, (theirs, _))| *other != index && !island(*other) && theirs.region == country.region)
                .map(|(other, (_, at))| (distance(*place, *at), other))
                .collect();
            near.sort_unstable();
            let wanted = usize::try_from(self.between(1, 4)).unwrap_or(1);
            for (_, other) in near.into_iter().take(wanted) {
                for (from, to) in [(index, other), (other, index)] {
                    if let Some(set) = borders.get_mut(from) {
                        set.insert(to);
                    }
                }
            }
        }
        let codes: Vec<String> = countries.iter().map(|country| country.code.clone()).collect();
        for (country, neighbours) in countries.iter_mut().zip(borders) {
            country.borders = neighbours.into_iter().filter_map(|index| codes.get(index).cloned()).collect();
            country.landlocked = country.borders.len() >= 3 && self.chance(40);
        }
    }

    fn currency(&mut self) -> Currency {
        Currency { code: self.code(), name: format!("{} {}", self.name(), self.word(|pieces| &pieces.small)) }
    }

    /// The name of a place, of one word or several, that nobody has yet.
    fn place_name(&mut self) -> String {
        loop {
            let name = if !self.chance(SEVERAL_WORDS) {
                self.word(|pieces| &pieces.capital)
            } else {
                match self.below(3) {
                    0 => format!(
                        "{} {}",
                        self.pick(&BEFORE).copied().unwrap_or_default(),
                        self.word(|pieces| &pieces.capital)
                    ),
                    1 => format!(
                        "{} {}",
                        self.word(|pieces| &pieces.capital),
                        self.pick(&AFTER).copied().unwrap_or_default()
                    ),
                    _ => format!(
                        "{}{}{}",
                        self.word(|pieces| &pieces.capital),
                        self.pick(&BETWEEN).copied().unwrap_or_default(),
                        self.word(|pieces| &pieces.capital)
                    ),
                }
            };
            // Its people's name must be nobody's either.
            if !self.taken.contains(&demonym(&name).to_lowercase()) && self.taken.insert(name.to_lowercase()) {
                return name;
            }
        }
    }

    /// A name of one word that nobody has yet.
    fn name(&mut self) -> String {
        loop {
            let name = self.word(|pieces| &pieces.capital);
            if self.taken.insert(name.to_lowercase()) {
                return name;
            }
        }
    }

    /// A word of two to four pieces, the first of these.
    fn word(&mut self, first: fn(&Pieces) -> &Vec<String>) -> String {
        let middle = match self.below(100) {
            0..=49 => 0,
            50..=89 => 1,
            _ => 2,
        };
        let mut word = self.piece(first);
        for _ in 0..middle {
            word.push_str(&self.piece(|pieces| &pieces.middle));
        }
        word.push_str(&self.piece(|pieces| &pieces.last));
        word
    }

    fn piece(&mut self, of: fn(&Pieces) -> &Vec<String>) -> String {
        let index = self.below(u32::try_from(of(&self.pieces).len()).unwrap_or(0));
        of(&self.pieces).get(index as usize).cloned().unwrap_or_default()
    }

    fn code(&mut self) -> String {
        loop {
            let letters = (0..3).filter_map(|_| char::from_u32(u32::from(b'A') + self.below(26)));
            let code: String = letters.collect();
            if self.taken.insert(code.to_lowercase()) {
                return code;
            }
        }
    }

    /// A number below `limit`, by multiplication: the bias is far below what a world shows.
    fn below(&mut self, limit: u32) -> u32 {
        let product = u64::from(self.random.next_u32()) * u64::from(limit);
        u32::try_from(product >> 32).unwrap_or(0)
    }

    fn between(&mut self, low: u32, high: u32) -> i32 {
        i32::try_from(low + self.below(high - low + 1)).unwrap_or(0)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let index = self.below(u32::try_from(items.len()).unwrap_or(0));
        items.get(index as usize)
    }
}

fn distance(a: Place, b: Place) -> i64 {
    let (north, east) = (i64::from(a.north - b.north), i64::from(a.east - b.east));
    north * north + east * east
}

/// All that is named in a country's row.
fn names_of(country: &Country) -> impl Iterator<Item = &str> {
    let places = [&country.name, &country.official, &country.region].into_iter().chain(&country.capitals);
    let others = country.subregion.iter().chain(&country.languages).chain(&country.demonym);
    places.chain(others).chain(country.currencies.iter().map(|currency| &currency.name)).map(String::as_str)
}

fn demonym(name: &str) -> String {
    match name.strip_suffix(['a', 'e', 'i', 'o', 'u']) {
        Some(stem) => format!("{stem}ian"),
        None => format!("{name}ese"),
    }
}

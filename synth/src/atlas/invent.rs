//! Invented worlds: the schema of the real one, no name of it.
//!
//! What is learnt on an invented world cannot be remembered from anywhere, and says nothing about the real one. A
//! world depends on its seed alone: ChaCha's stream, taken as whole numbers, is the same on every machine.

use std::collections::{BTreeSet, HashSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use super::world::{Country, Currency, World, WorldError};

/// The pieces that names are made of, of two or three letters each.
pub const PIECES: [&str; 80] = [
    "bal", "bel", "bor", "bru", "cal", "cer", "cor", "cul", "dal", "del", "dor", "dru", "fal", "fen", "fir", "gal",
    "gel", "gor", "gru", "hal", "hel", "hor", "jal", "jun", "kal", "kel", "kor", "kru", "lan", "len", "lor", "lun",
    "mal", "mel", "mor", "mur", "nal", "nel", "nor", "nur", "pal", "pel", "por", "pru", "qua", "ral", "rel", "rin",
    "ros", "sal", "sel", "sor", "sul", "tal", "tel", "tor", "tul", "val", "vel", "vor", "vul", "wen", "wil", "wor",
    "yal", "yen", "yor", "zal", "zel", "zor", "ba", "de", "fi", "go", "ka", "lo", "mi", "na", "ru", "vo",
];

const REGIONS: usize = 6;
const SUBREGIONS_PER_REGION: usize = 4;
const COUNTRIES: usize = 250;
/// Side of the square that a subregion covers, in hundredths of a degree.
const SUBREGION_SIDE: u32 = 1_800;

const FORMS: [&str; 5] = ["Republic of", "Kingdom of", "Federation of", "Union of", "Commonwealth of"];
const DIRECTIONS: [&str; 4] = ["Northern", "Southern", "Eastern", "Western"];
const COINS: [&str; 6] = ["crown", "mark", "thaler", "sun", "leaf", "star"];

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
}

/// A place on the map, in hundredths of a degree.
#[derive(Clone, Copy)]
struct Place {
    north: i32,
    east: i32,
}

impl Inventor {
    fn new(seed: u64) -> Result<Inventor, WorldError> {
        let mut taken = HashSet::new();
        for country in World::real()?.countries() {
            let names = [&country.code, &country.name, &country.official, &country.region];
            let names = names.into_iter().chain(&country.capitals).chain(&country.subregion).chain(&country.languages);
            let names = names.chain(&country.demonym).chain(country.currencies.iter().flat_map(|c| [&c.code, &c.name]));
            taken.extend(names.map(|name| name.to_lowercase()));
        }
        Ok(Inventor { random: ChaCha8Rng::seed_from_u64(seed), taken })
    }

    fn world(&mut self) -> Result<World, WorldError> {
        let regions: Vec<String> = (0..REGIONS).map(|_| self.name(2)).collect();
        let world_languages: Vec<String> = (0..4).map(|_| self.name(2)).collect();
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
            let mut languages: Vec<String> = (0..4).map(|_| self.name(2)).collect();
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
        let name = self.name(2);
        let form = self.pick(&FORMS).copied().unwrap_or_default();
        let official = if self.chance(80) { format!("{form} {name}") } else { name.clone() };
        let capitals = match self.below(100) {
            0..=1 => Vec::new(),
            2..=3 => vec![self.name(3), self.name(3)],
            _ => vec![self.name(3)],
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
        let coin = self.pick(&COINS).copied().unwrap_or_default();
        Currency { code: self.code(), name: format!("{} {coin}", self.name(2)) }
    }

    /// A name of that many pieces that nobody has yet.
    fn name(&mut self, pieces: usize) -> String {
        loop {
            let name: String = (0..pieces).filter_map(|_| self.pick(&PIECES).copied()).collect();
            if self.taken.insert(name.clone()) {
                let mut letters = name.chars();
                return letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
            }
        }
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

fn demonym(name: &str) -> String {
    match name.strip_suffix(['a', 'e', 'i', 'o', 'u']) {
        Some(stem) => format!("{stem}ian"),
        None => format!("{name}ese"),
    }
}

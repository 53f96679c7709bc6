//! What the atlas has an article about, and where.

use std::collections::{BTreeMap, HashMap};

use icu_normalizer::DecomposingNormalizerBorrowed;
use serde::{Deserialize, Serialize};

use super::world::{Country, World};

/// Kinds of entities, each with a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntityKind {
    /// A country or territory.
    Country,
    /// A capital of a country.
    Capital,
    /// A region of the world.
    Region,
    /// A part of a region.
    Subregion,
    /// A language.
    Language,
    /// A currency.
    Currency,
}

impl EntityKind {
    /// Every kind, in the order of the site's index.
    pub const ALL: [EntityKind; 6] = [
        EntityKind::Country,
        EntityKind::Capital,
        EntityKind::Region,
        EntityKind::Subregion,
        EntityKind::Language,
        EntityKind::Currency,
    ];

    /// First segment of the paths of its entities, such as `country`.
    pub fn segment(self) -> &'static str {
        match self {
            EntityKind::Country => "country",
            EntityKind::Capital => "capital",
            EntityKind::Region => "region",
            EntityKind::Subregion => "subregion",
            EntityKind::Language => "language",
            EntityKind::Currency => "currency",
        }
    }

    /// Title and path segment of the list of its entities, such as `Countries`.
    pub fn plural(self) -> &'static str {
        match self {
            EntityKind::Country => "Countries",
            EntityKind::Capital => "Capitals",
            EntityKind::Region => "Regions",
            EntityKind::Subregion => "Subregions",
            EntityKind::Language => "Languages",
            EntityKind::Currency => "Currencies",
        }
    }

    /// Path of the list of its entities, such as `/countries`.
    pub fn list_path(self) -> String {
        format!("/{}", self.plural().to_lowercase())
    }
}

/// Place of an entity in [`Atlas::entities`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityId(pub(super) usize);

/// Something with an article.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Its kind.
    pub kind: EntityKind,
    /// Its name; others may have the same.
    pub name: String,
    /// Title of its article: the name, with an addition where others have the same.
    pub title: String,
    /// Path of its article, such as `/capital/Paris`.
    pub path: String,
    /// The countries it is about, as indices into [`World::countries`], in the order of their names.
    pub countries: Vec<usize>,
    /// What tells it from others of its kind: a country's or currency's code, a capital's country's code, `/` and its
    /// name, else the name.
    pub key: String,
}

/// Every entity of a world, with its place on the site.
#[derive(Debug, Clone)]
pub struct Atlas {
    pub(super) world: World,
    entities: Vec<Entity>,
    by_key: HashMap<(EntityKind, String), EntityId>,
    by_path: HashMap<String, EntityId>,
}

impl Atlas {
    /// The atlas of a world.
    pub fn new(world: World) -> Atlas {
        let mut entities = collect(&world);
        name_apart(&mut entities, &world);
        let ids = || (0..).map(EntityId);
        let by_key = ids().zip(&entities).map(|(id, entity)| ((entity.kind, entity.key.clone()), id)).collect();
        let by_path = ids().zip(&entities).map(|(id, entity)| (entity.path.clone(), id)).collect();
        Atlas { world, entities, by_key, by_path }
    }

    /// The world it is about.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Every entity, by kind and title.
    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }

    /// The entity whose article is at `path`.
    pub fn at(&self, path: &str) -> Option<&Entity> {
        self.by_path.get(path).and_then(|id| self.entities.get(id.0))
    }

    /// An entity.
    pub fn get(&self, id: EntityId) -> Option<&Entity> {
        self.entities.get(id.0)
    }

    /// The entity of a kind with this [key](Entity::key).
    pub fn find(&self, kind: EntityKind, key: &str) -> Option<EntityId> {
        self.by_key.get(&(kind, key.to_string())).copied()
    }

    pub(crate) fn country(&self, index: usize) -> Option<&Country> {
        self.world.countries().get(index)
    }
}

/// Key of a capital: towns of the same name in two countries are two.
pub(crate) fn capital_key(country: &Country, name: &str) -> String {
    format!("{}/{name}", country.code)
}

fn collect(world: &World) -> Vec<Entity> {
    let mut order: Vec<usize> = (0..world.countries().len()).collect();
    order.sort_by_key(|index| world.countries().get(*index).map(|country| sort_key(&country.name)));
    let mut found: BTreeMap<(EntityKind, String), Entity> = BTreeMap::new();
    for index in order {
        let Some(country) = world.countries().get(index) else { continue };
        let mut add = |kind, key: String, name: &str| {
            let new = || Entity {
                kind,
                name: name.to_string(),
                title: name.to_string(),
                path: String::new(),
                countries: Vec::new(),
                key: key.clone(),
            };
            found.entry((kind, key.clone())).or_insert_with(new).countries.push(index);
        };
        add(EntityKind::Country, country.code.clone(), &country.name);
        for capital in &country.capitals {
            add(EntityKind::Capital, capital_key(country, capital), capital);
        }
        add(EntityKind::Region, country.region.clone(), &country.region);
        if let Some(subregion) = &country.subregion {
            add(EntityKind::Subregion, subregion.clone(), subregion);
        }
        for language in &country.languages {
            add(EntityKind::Language, language.clone(), language);
        }
        for currency in &country.currencies {
            add(EntityKind::Currency, currency.code.clone(), &currency.name);
        }
    }
    let mut entities: Vec<Entity> = found.into_values().collect();
    entities.sort_by_cached_key(|entity| (entity.kind, sort_key(&entity.name), entity.key.clone()));
    entities
}

/// Gives every entity a title and a path that no other has.
fn name_apart(entities: &mut [Entity], world: &World) {
    let mut uses: HashMap<String, usize> = HashMap::new();
    let mut uses_in_kind: HashMap<(EntityKind, String), usize> = HashMap::new();
    for entity in entities.iter() {
        *uses.entry(fold(&entity.name)).or_default() += 1;
        *uses_in_kind.entry((entity.kind, fold(&entity.name))).or_default() += 1;
    }
    let mut titles: HashMap<String, usize> = HashMap::new();
    let mut slugs: HashMap<(EntityKind, String), usize> = HashMap::new();
    for entity in entities.iter_mut() {
        let folded = fold(&entity.name);
        let home = entity.countries.first().and_then(|index| world.countries().get(*index));
        let alone = uses.get(&folded) == Some(&1);
        let alone_in_kind = uses_in_kind.get(&(entity.kind, folded)) == Some(&1);
        let addition = match entity.kind {
            _ if alone => None,
            // The plain title is the country's.
            EntityKind::Country if alone_in_kind => None,
            EntityKind::Country | EntityKind::Currency => Some(entity.key.clone()),
            EntityKind::Capital if alone_in_kind => Some("city".to_string()),
            EntityKind::Capital => home.map(|country| country.name.clone()),
            kind => Some(kind.segment().to_string()),
        };
        if let Some(addition) = addition {
            entity.title = format!("{} ({addition})", entity.name);
        }
        entity.title = numbered(entity.title.clone(), titles.entry(entity.title.clone()).or_default(), " ");
        let slug_from = if alone_in_kind { &entity.name } else { &entity.title };
        let slug = slug(slug_from);
        let slug = numbered(slug.clone(), slugs.entry((entity.kind, slug)).or_default(), "-");
        entity.path = format!("/{}/{slug}", entity.kind.segment());
    }
}

fn numbered(text: String, used: &mut usize, joint: &str) -> String {
    *used += 1;
    if *used == 1 { text } else { format!("{text}{joint}{used}") }
}

/// Letters without their marks, in lower case: what search compares.
pub(crate) fn fold(text: &str) -> String {
    unmarked(text).to_lowercase()
}

/// Letters without their marks.
fn unmarked(text: &str) -> String {
    let decomposed = DecomposingNormalizerBorrowed::new_nfd().normalize(text);
    let letters = decomposed.chars().filter(|c| !('\u{300}'..='\u{36f}').contains(c));
    letters
        .map(|c| match c {
            'đ' => 'd',
            'Đ' => 'D',
            'ł' => 'l',
            'Ł' => 'L',
            other => other,
        })
        .collect()
}

/// Words: runs of letters and digits.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn sort_key(text: &str) -> String {
    words(&fold(text)).collect::<Vec<_>>().join(" ")
}

/// The last segment of a path: the words of a title, with their capitals. Who has read a name can write its path.
fn slug(text: &str) -> String {
    // Apostrophes and their like join what they stand between.
    let joined: String = unmarked(text).chars().filter(|c| !"'’ʻ".contains(*c)).collect();
    let slug = words(&joined).collect::<Vec<_>>().join("-");
    if slug.is_empty() { "page".to_string() } else { slug }
}

//! The closed web: what it says, that it hangs together, and that all of it is crawled.

use std::collections::{BTreeSet, HashMap, HashSet};

use webdancer_synth::atlas::{Atlas, EntityKind, World, serve};
use webdancer_synth::crawl::{CrawlConfig, Skip};

use crate::memory_log::{at, crawl, get, loopback};

const LOOPBACK: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn counts(atlas: &Atlas) -> Vec<usize> {
    EntityKind::ALL.map(|kind| atlas.entities().iter().filter(|entity| entity.kind == kind).count()).to_vec()
}

fn names(world: &World) -> HashSet<String> {
    let mut names = HashSet::new();
    for country in world.countries() {
        names
            .extend([&country.code, &country.name, &country.official, &country.region].map(|name| name.to_lowercase()));
        let more = country.capitals.iter().chain(&country.subregion).chain(&country.languages).chain(&country.demonym);
        names.extend(more.map(|name| name.to_lowercase()));
        names.extend(country.currencies.iter().flat_map(|c| [c.code.to_lowercase(), c.name.to_lowercase()]));
    }
    names
}

#[test]
fn the_real_world_is_the_table() {
    let world = World::real().unwrap();
    assert_eq!(world.countries().len(), 250);
    let by_code: HashMap<_, _> = world.countries().iter().map(|country| (country.code.as_str(), country)).collect();
    let france = by_code["FRA"];
    assert_eq!((france.name.as_str(), france.official.as_str()), ("France", "French Republic"));
    assert_eq!(france.capitals, ["Paris"]);
    assert_eq!(france.borders, ["AND", "BEL", "DEU", "ITA", "LUX", "MCO", "ESP", "CHE"]);
    assert_eq!(by_code["SJM"].area_km2, None);
    assert_eq!(by_code["VAT"].area_km2, Some(0.44));
    assert_eq!(by_code["UNK"].independent, None);
    // Only Sri Lanka's side names a border with India.
    assert_eq!(by_code["LKA"].borders, Vec::<String>::new());
    assert_eq!(counts(&Atlas::new(world)), [250, 249, 6, 24, 155, 162]);
}

#[test]
fn a_table_that_is_wrong_is_refused_with_the_row() {
    let header = "cca3,name,official,capital,region,subregion,languages,currencies,borders,area_km2,landlocked,un_member,independent,lat,lng,demonym\n";
    let error = |rows: &str| World::from_csv(&format!("{header}{rows}")).unwrap_err().to_string();
    assert_eq!(
        error("AAA,A,A,,R,,,,ZZZ,1,False,True,True,0,0,\n"),
        "country AAA: it borders \"ZZZ\", which is not in the table"
    );
    assert_eq!(error("AAA,A,A,,R,,,,,big,False,True,True,0,0,\n"), "country AAA: area_km2 \"big\" is no number");
    assert_eq!(error("AAA,A,A,,R,,,EUR,,1,False,True,True,0,0,\n"), "country AAA: currency \"EUR\" has no code");
    let twice = "AAA,A,A,,R,,,,,1,False,True,True,0,0,\nAAA,B,B,,R,,,,,1,False,True,True,0,0,\n";
    assert_eq!(error(twice), "country AAA: its code is used twice");
    assert!(World::from_csv("a,b\n1,2\n").is_err());
}

#[test]
fn an_invented_world_depends_on_its_seed_alone() {
    let csv = |seed| World::invent(seed).unwrap().to_csv().unwrap();
    assert_eq!(sha256(&csv(1)), "64ed5a34972905185fe317efe1288b22971e286d96b5d68aaa080a19df7e1059");
    assert_eq!(sha256(&csv(2)), "203b0cbdfc427df835c6587bf02a9f7045f3c89dacf115c3ea7a934f31223b11");
    assert_eq!(World::from_csv(&csv(1)).unwrap(), World::invent(1).unwrap());
}

#[test]
fn no_name_of_the_real_world_is_in_an_invented_one() {
    let real = names(&World::real().unwrap());
    for seed in 0..20 {
        let invented = names(&World::invent(seed).unwrap());
        assert_eq!(real.intersection(&invented).collect::<Vec<_>>(), Vec::<&String>::new(), "seed {seed}");
    }
}

#[test]
fn invented_worlds_are_like_the_real_one() {
    for seed in 0..20 {
        let world = World::invent(seed).unwrap();
        let countries = world.countries();
        assert_eq!(countries.len(), 250);
        let borders: HashSet<(&str, &str)> = countries
            .iter()
            .flat_map(|country| country.borders.iter().map(|other| (country.code.as_str(), other.as_str())))
            .collect();
        assert!(borders.iter().all(|(a, b)| a != b && borders.contains(&(*b, *a))), "seed {seed}");
        assert!((400..1200).contains(&borders.len()), "seed {seed}: {} borders", borders.len());
        let areas: BTreeSet<u64> = countries.iter().map(|country| country.area_km2.unwrap() as u64).collect();
        assert!(areas.len() > 200 && *areas.first().unwrap() >= 10 && *areas.last().unwrap() < 10_000_000);
        let landlocked = countries.iter().filter(|country| country.landlocked).count();
        assert!((10..120).contains(&landlocked), "seed {seed}: {landlocked} landlocked");
        let entities = counts(&Atlas::new(world));
        assert_eq!((entities[0], entities[2], entities[3]), (250, 6, 24));
        assert!(entities[1] > 230 && entities[4] > 60 && entities[5] > 100, "seed {seed}: {entities:?}");
    }
}

#[test]
fn every_title_and_path_is_one_article() {
    for world in [World::real().unwrap(), World::invent(7).unwrap()] {
        let atlas = Atlas::new(world);
        let titles: HashSet<_> = atlas.entities().iter().map(|entity| &entity.title).collect();
        let paths: HashSet<_> = atlas.entities().iter().map(|entity| &entity.path).collect();
        assert_eq!((titles.len(), paths.len()), (atlas.entities().len(), atlas.entities().len()));
        assert!(paths.iter().all(|path| path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-".contains(&b))));
    }
}

#[test]
fn names_that_clash_are_told_apart() {
    let atlas = Atlas::new(World::real().unwrap());
    let title = |path: &str| atlas.at(path).unwrap_or_else(|| panic!("{path}")).title.as_str();
    assert_eq!(title("/country/Singapore"), "Singapore");
    assert_eq!(title("/capital/Singapore"), "Singapore (city)");
    assert_eq!(title("/capital/Kingston-Jamaica"), "Kingston (Jamaica)");
    assert_eq!(title("/capital/Kingston-Norfolk-Island"), "Kingston (Norfolk Island)");
    assert_eq!(title("/subregion/Micronesia"), "Micronesia (subregion)");
    assert_eq!(title("/language/Tonga"), "Tonga (language)");
    assert_eq!(title("/country/Aland-Islands"), "Åland Islands");
    assert_eq!(title("/capital/Chisinau"), "Chișinău");
    assert_eq!(title("/currency/Euro"), "Euro");
}

#[test]
fn an_article_says_what_the_table_says() {
    let atlas = Atlas::new(World::real().unwrap());
    let article = atlas.article(atlas.at("/country/Laos").unwrap());
    let prose: Vec<String> = article.paragraphs.iter().map(|paragraph| atlas.plain(paragraph)).collect();
    assert_eq!(
        prose,
        [
            "Laos, officially Lao People's Democratic Republic, is a country in South-Eastern Asia, a part of Asia. \
             Its capital is Vientiane.",
            "Laos covers 236,800 square kilometres and has no coast. It shares land borders with 5 countries: \
             Myanmar, Cambodia, China, Thailand and Vietnam.",
            "The official language of Laos is Lao. Its currency is the Lao kip. Its people are called Laotian. \
             Laos is a member of the United Nations.",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_the_atlas_is_crawled() {
    let server = serve(World::real().unwrap(), LOOPBACK).await.unwrap();
    let root = server.url();
    let (report, pages, _) = crawl(&root, CrawlConfig { depth_max: 10, ..loopback() }).await;
    server.stop().await.unwrap();

    // 846 entities, six lists, the index.
    assert_eq!((report.pages, report.errors, report.duplicates), (853, 0, 0));
    assert_eq!(report.by_status, [(200, 853)].into());
    assert_eq!(report.skipped, [].into());
    assert!(pages.values().all(|page| page.depth <= 2));

    let page = at(&pages, &root, "country/France");
    assert_eq!(page.title.as_deref(), Some("France"));
    assert_eq!(page.language.as_deref(), Some("eng"));
    assert_eq!(page.content_type.as_deref(), Some("text/html"));
    assert_eq!(page.root_url, root);
    assert!(page.links.contains(&format!("{root}capital/Paris")));
    assert!(!page.links.iter().any(|link| link.contains("search")));
    assert_eq!(
        page.text.as_deref().unwrap(),
        "# France\n\n\
         France, officially French Republic, is a country in Western Europe, a part of Europe. Its capital is Paris.\n\n\
         France covers 551,695 square kilometres. It shares land borders with 8 countries: Andorra, Belgium, Germany, \
         Italy, Luxembourg, Monaco, Spain and Switzerland.\n\n\
         The official language of France is French. Its currency is the Euro. Its people are called French. France is \
         a member of the United Nations.\n\n\
         ## Facts\n\n\
         | Fact | Value |\n\
         | ---- | ----- |\n\
         | Official name | French Republic |\n\
         | Code | FRA |\n\
         | Capital | Paris |\n\
         | Region | Europe |\n\
         | Subregion | Western Europe |\n\
         | Official languages | French |\n\
         | Currencies | Euro |\n\
         | Area | 551,695 km² |\n\
         | Coast | yes |\n\
         | Position | 46.00° N, 2.00° E |\n\
         | Independent | yes |\n\
         | United Nations | member |\n\n\
         ## Neighbours\n\n\
         - Andorra\n- Belgium\n- Germany\n- Italy\n- Luxembourg\n- Monaco\n- Spain\n- Switzerland"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn articles_are_linked_both_ways() {
    let server = serve(World::invent(3).unwrap(), LOOPBACK).await.unwrap();
    let root = server.url();
    let (report, pages, _) = crawl(&root, CrawlConfig { depth_max: 10, ..loopback() }).await;
    server.stop().await.unwrap();
    let atlas = Atlas::new(World::invent(3).unwrap());
    assert_eq!(report.pages as usize, atlas.entities().len() + 7);
    let links = |path: &str| &at(&pages, &root, path.trim_start_matches('/')).links;
    for entity in atlas.entities() {
        for index in &entity.countries {
            let country = &atlas.world().countries()[*index];
            let home =
                atlas.entities().iter().find(|e| e.kind == EntityKind::Country && e.name == country.name).unwrap();
            if entity.kind != EntityKind::Country {
                let (there, back) = (format!("{root}{}", &entity.path[1..]), format!("{root}{}", &home.path[1..]));
                assert!(links(&home.path).contains(&there) && links(&entity.path).contains(&back), "{}", entity.path);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_robots_forbids_is_not_crawled() {
    let server = serve(World::invent(3).unwrap(), LOOPBACK).await.unwrap();
    let root = format!("{}search?q=a", server.url());
    let (report, pages, _) = crawl(&root, loopback()).await;
    server.stop().await.unwrap();
    // A root always has an event.
    assert_eq!(pages[&root].error.as_deref(), Some("robots.txt disallows it"));
    assert_eq!((report.pages, report.errors, report.skipped.get(&Skip::Robots)), (1, 1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn search_ranks_titles_first_and_folds_marks() {
    let server = serve(World::real().unwrap(), LOOPBACK).await.unwrap();
    let search = async |query: &str| -> serde_json::Value {
        let url = format!("{}search?format=json&limit=3&q={query}", server.url());
        serde_json::from_str(&get(url).await.text().await.unwrap()).unwrap()
    };
    let titles = |answer: &serde_json::Value| -> Vec<String> {
        answer["results"].as_array().unwrap().iter().map(|hit| hit["title"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(titles(&search("chisinau").await), ["Chișinău", "Moldova"]);
    assert_eq!(titles(&search("capital+of+Laos").await)[..2], ["Laos", "Vientiane"]);
    assert_eq!(titles(&search("singapore").await)[..2], ["Singapore", "Singapore (city)"]);
    assert_eq!(search("zzzz").await["total"], 0);
    assert_eq!(search("").await["total"], 0);
    assert_eq!(search("singapore").await, search("singapore").await);

    let html = get(format!("{}search?q=%3Cscript%3E", server.url())).await.text().await.unwrap();
    assert!(html.contains("0 results for “&lt;script&gt;”") && !html.contains("<script>"));
    let missing = get(format!("{}country/atlantis", server.url())).await;
    assert_eq!(missing.status().as_u16(), 404);
    let sitemap = get(format!("{}sitemap.xml", server.url())).await.text().await.unwrap();
    assert_eq!(sitemap.matches("<loc>").count(), 853);
    server.stop().await.unwrap();
}

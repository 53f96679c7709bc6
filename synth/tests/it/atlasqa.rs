//! Questions about an atlas: right, unique, many, and answerable from what is crawled.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::DateTime;
use serde_json::json;
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::{Qa, Rewrite};
use webdancer_synth::atlas::{Atlas, World, serve};
use webdancer_synth::atlasqa::events::Origin;
use webdancer_synth::atlasqa::{Author, Chain, Pages, Question, Rewriter, Selection, Stop, crawlqa, qa_id};
use webdancer_synth::crawl::CrawlConfig;
use webdancer_synth::question::QuestionType;

use crate::brute_force::BruteForce;
use crate::memory_log::{crawl, loopback};
use crate::question_reader::Reader;

fn world(invented: Option<u64>) -> World {
    invented.map_or_else(World::real, World::invent).unwrap()
}

/// Questions of a world, and how the forms fared.
fn questions(invented: Option<u64>, selection: &Selection) -> Vec<Question> {
    let atlas = Atlas::new(world(invented));
    let pages = Pages::of(&atlas).unwrap();
    let mut author = Author::new(&atlas, &pages, invented);
    let mut found = Vec::new();
    crawlqa(&mut author, selection, |question| found.push(question));
    found
}

fn chains(invented: Option<u64>, count: usize, rewrites: usize, seed: u64) -> Vec<Chain> {
    let atlas = Atlas::new(world(invented));
    let pages = Pages::of(&atlas).unwrap();
    let mut author = Author::new(&atlas, &pages, invented);
    let rewriter = Rewriter::new(&atlas);
    let roots = rewriter.roots(&mut author, seed);
    roots.into_iter().take(count).map(|root| rewriter.chain(&mut author, root, rewrites, seed)).collect()
}

/// Solves questions by their words and the table.
struct Solver<'a> {
    reader: Reader,
    table: BruteForce<'a>,
}

impl<'a> Solver<'a> {
    fn new(atlas: &'a Atlas) -> Solver<'a> {
        Solver { reader: Reader::new(atlas), table: BruteForce::new(atlas) }
    }

    /// The answers to a question, over all the ways to read it. A reading that means nothing in the table has none.
    fn answers(&self, question: &str) -> BTreeSet<String> {
        self.reader.read(question).iter().filter_map(|form| self.table.answer(form).ok()).collect()
    }
}

/// Fails unless brute force over the table finds exactly the question's answer, from the question's words alone.
fn solve(solver: &Solver<'_>, question: &Question) {
    let answers: Vec<String> = solver.answers(&question.text).into_iter().collect();
    assert_eq!(answers, [question.answer.as_str()], "{}", question.text);
}

/// Whether the answer's words are in the question in a row, by other means than the generator's.
fn holds_answer(question: &Question) -> bool {
    let plain = |text: &str| text.to_lowercase().replace(|c: char| !c.is_alphanumeric(), " ");
    let squeeze = |text: String| format!(" {} ", text.split_whitespace().collect::<Vec<_>>().join(" "));
    let (text, answer) = (squeeze(plain(&question.text)), squeeze(plain(&question.answer)));
    question.kind != QuestionType::YesNo && text.contains(&answer)
}

fn by_type(questions: &[Question]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    questions.iter().for_each(|question| *counts.entry(question.kind.as_str()).or_default() += 1);
    counts
}

#[test]
fn thousands_of_questions_of_every_type_have_the_one_answer_that_brute_force_finds() {
    let atlas = Atlas::new(world(None));
    let solver = Solver::new(&atlas);
    let questions = questions(None, &Selection::default());
    let counts = by_type(&questions);
    assert!(questions.len() >= 5_000, "{counts:?}");
    for kind in QuestionType::ALL.into_iter().filter(|kind| *kind != QuestionType::Generic) {
        assert!(counts[kind.as_str()] >= 200, "{counts:?}");
    }
    let texts: HashSet<_> = questions.iter().map(|question| question.text.to_lowercase()).collect();
    let ids: HashSet<_> = questions.iter().map(|question| &question.qa_id).collect();
    let forms: HashSet<_> = questions.iter().map(|question| &question.form).collect();
    assert_eq!([texts.len(), ids.len(), forms.len()], [questions.len(); 3]);
    for question in &questions {
        solve(&solver, question);
        assert!(!holds_answer(question), "{} {}", question.text, question.answer);
        assert!((1..=12).contains(&question.evidence.len()), "{}", question.text);
        assert!(question.text.chars().count() <= 400 && question.answer.chars().count() <= 60);
    }
    let yes = questions.iter().filter(|question| question.answer == "yes").count();
    let no = questions.iter().filter(|question| question.answer == "no").count();
    assert!(yes.abs_diff(no) * 20 < yes + no, "{yes} yes, {no} no");
}

#[test]
fn invented_worlds_give_questions_too() {
    for seed in [1, 7] {
        let atlas = Atlas::new(world(Some(seed)));
        let solver = Solver::new(&atlas);
        let questions = questions(Some(seed), &Selection { count: Some(800), ..Selection::default() });
        assert_eq!(questions.len(), 800);
        assert!(by_type(&questions).values().all(|count| *count >= 50), "{:?}", by_type(&questions));
        questions.iter().for_each(|question| solve(&solver, question));
    }
}

#[test]
fn questions_read_like_questions() {
    let all: HashMap<String, Question> =
        questions(None, &Selection::default()).into_iter().map(|question| (question.text.clone(), question)).collect();
    for (kind, text, answer, evidence) in [
        (
            QuestionType::Count,
            "How many countries and territories are there in South America that have no coast?",
            "2",
            "/subregion/South-America",
        ),
        (
            QuestionType::Count,
            "How many countries and territories are there that border Mexico and where English is an official language?",
            "2",
            "/country/Mexico /language/English",
        ),
        (
            QuestionType::MultiHop,
            "What is the currency of the country that has Pretoria as one of its capitals?",
            "South African rand",
            "/capital/Pretoria /country/South-Africa",
        ),
        (
            QuestionType::MultiHop,
            "What is the capital of the only country or territory that borders the only country or territory where Tetum is an official language?",
            "Jakarta",
            "/language/Tetum /country/Timor-Leste /country/Indonesia",
        ),
        (
            QuestionType::Intersection,
            "Which is the only country or territory that borders both Laos and Mongolia?",
            "China",
            "/country/Laos /country/Mongolia",
        ),
        (
            QuestionType::Comparative,
            "Which has the smaller area: the country whose capital is Nairobi or the country whose capital is Dodoma?",
            "Kenya",
            "/capital/Nairobi /capital/Dodoma /country/Kenya /country/Tanzania",
        ),
        (
            QuestionType::Superlative,
            "Which is the largest by area of the countries and territories that border Mexico?",
            "United States",
            "/country/Mexico /country/Belize /country/Guatemala /country/United-States",
        ),
        (
            QuestionType::Ordinal,
            "Which is the third-largest by area of the countries and territories that border both China and India?",
            "Nepal",
            "/country/China /country/India /country/Bhutan /country/Myanmar /country/Nepal /country/Pakistan",
        ),
        (
            QuestionType::Difference,
            "How large is the difference in area, in square kilometres, between Belarus and Lithuania?",
            "142300",
            "/country/Belarus /country/Lithuania",
        ),
        (
            QuestionType::YesNo,
            "Is Herero an official language of the country whose capital is Luanda?",
            "no",
            "/capital/Luanda /country/Angola",
        ),
    ] {
        let question = all.get(text).unwrap_or_else(|| panic!("not asked: {text}"));
        let paths: Vec<_> = question.evidence.iter().map(|page| page.path.as_str()).collect();
        assert_eq!((question.kind, question.answer.as_str(), paths.join(" ").as_str()), (kind, answer, evidence));
    }
}

#[test]
fn a_seed_gives_the_same_questions_and_fewer_are_the_first_of_more() {
    let texts = |seed, count| -> Vec<String> {
        let selection = Selection { seed, count: Some(count), ..Selection::default() };
        questions(None, &selection).into_iter().map(|question| question.text).collect()
    };
    let forty = texts(1, 40);
    assert_eq!(forty, texts(1, 40));
    assert_eq!(forty[..16], texts(1, 16));
    assert_ne!(forty, texts(2, 40));
    let selection = Selection { types: vec![QuestionType::Ordinal], count: Some(5), seed: 0 };
    assert_eq!(by_type(&questions(None, &selection)), [("ordinal", 5)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_of_a_page_is_that_of_the_crawled_page() {
    for invented in [None, Some(3)] {
        let server = serve(world(invented), (std::net::Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let root = server.url();
        let (_, crawled, _) = crawl(&root, CrawlConfig { depth_max: 10, ..loopback() }).await;
        server.stop().await.unwrap();
        let atlas = Atlas::new(world(invented));
        let pages = Pages::of(&atlas).unwrap();
        for entity in atlas.entities() {
            let page = &crawled[&format!("{root}{}", &entity.path[1..])];
            assert_eq!(page.digest.as_ref(), Some(&pages.evidence(&entity.title).unwrap().digest), "{}", entity.path);
            assert_eq!(page.text.as_deref(), pages.text(&entity.title));
        }
    }
}

#[test]
fn rewriting_keeps_the_answer_and_never_names_again_what_it_described() {
    let atlas = Atlas::new(world(None));
    let solver = Solver::new(&atlas);
    let crawled: HashSet<String> =
        questions(None, &Selection::default()).into_iter().map(|question| question.text).collect();
    let mut by_rewrites: BTreeMap<usize, usize> = BTreeMap::new();
    let chains = chains(None, usize::MAX, 4, 5);
    for chain in &chains {
        solve(&solver, &chain.root);
        assert_eq!((chain.steps.len() == 4), (chain.stopped == Stop::Enough));
        let mut gone: BTreeSet<&str> = BTreeSet::new();
        for step in &chain.steps {
            solve(&solver, &step.question);
            assert_eq!(step.question.answer, chain.root.answer);
            assert!(!holds_answer(&step.question), "{}", step.question.text);
            assert!(step.question.text.contains(&step.description), "{} / {}", step.question.text, step.description);
            assert!(!crawled.contains(&step.question.text));
            gone.insert(&step.entity);
            let named: Vec<_> = step.question.form.entities().into_iter().collect();
            for name in named {
                let title = &atlas.get(atlas.find(name.kind, &name.key).unwrap()).unwrap().title;
                assert!(!gone.contains(title.as_str()), "{title} is back: {}", step.question.text);
            }
        }
        *by_rewrites.entry(chain.steps.len()).or_default() += 1;
    }
    assert!(chains.len() > 600 && by_rewrites[&4] > 400, "{by_rewrites:?}");
}

#[test]
fn rewrites_are_as_many_as_chosen_and_fewer_are_the_first_of_more() {
    let four = chains(Some(2), 30, 4, 5);
    for rewrites in 0..=4 {
        for (chain, longer) in chains(Some(2), 30, rewrites, 5).iter().zip(&four) {
            assert_eq!(chain.root, longer.root);
            assert_eq!(chain.steps[..], longer.steps[..rewrites.min(longer.steps.len())]);
            assert!(chain.steps.len() == rewrites || chain.stopped == Stop::NoEntityLeft);
        }
    }
    assert!(four.iter().filter(|chain| chain.steps.len() == 4).count() >= 10);
    assert_ne!(four, chains(Some(2), 30, 4, 6));
}

fn rows<R: serde::de::DeserializeOwned>(events: &[Event], kind: Kind) -> Vec<R> {
    let of_kind = events.iter().filter(|event| event.kind() == kind);
    of_kind.map(|event| serde_json::from_str(event.data.get()).unwrap()).collect()
}

#[test]
fn a_chain_becomes_questions_that_name_their_parents_and_rewrites() {
    let chain = chains(None, 200, 3, 5).into_iter().find(|chain| chain.steps.len() == 3).unwrap();
    let origin = Origin::new("e2hqa", "real", json!({"rewrites": 3}), DateTime::UNIX_EPOCH);
    let events = origin.e2hqa(&chain).unwrap();
    let (qa, rewrites) = (rows::<Qa>(&events, Kind::Qa), rows::<Rewrite>(&events, Kind::Rewrite));
    assert_eq!((qa.len(), rewrites.len()), (4, 3));
    for (number, row) in qa.iter().enumerate() {
        assert_eq!((row.method.as_str(), row.rewrites), ("e2hqa", Some(number as i32)));
        assert_eq!(row.answer, qa[0].answer);
        assert_eq!(row.attributes.as_ref().unwrap().0["root_qa_id"], qa[0].qa_id.as_str());
        assert_eq!(row.parent_qa_id.as_ref(), number.checked_sub(1).map(|parent| &qa[parent].qa_id));
        assert!(!row.evidence_page_digests.is_empty() && row.entity_chain.len() > number);
    }
    for (rewrite, (before, after)) in rewrites.iter().zip(qa.iter().zip(&qa[1..])) {
        assert_eq!((&rewrite.qa_id, &rewrite.new_question), (&after.qa_id, &after.question));
        assert_eq!((rewrite.query.as_ref(), rewrite.invariant), (Some(&rewrite.entity), Some(true)));
        assert_eq!(rewrite.evidence_page_digests.len(), 1);
        assert!(after.question.contains(&rewrite.description) && !before.question.contains(&rewrite.description));
    }
}

#[test]
fn the_same_question_is_the_same_event_whichever_run_makes_it() {
    let question = &questions(None, &Selection { count: Some(1), ..Selection::default() })[0];
    let origin = |settings, seconds| {
        let start = DateTime::from_timestamp(seconds, 0).unwrap();
        Origin::new("crawlqa", "real", settings, start)
    };
    let (one, again, other) =
        (origin(json!({"seed": 1}), 0), origin(json!({"seed": 1}), 9), origin(json!({"seed": 2}), 9));
    assert_eq!(one.run_id(), again.run_id());
    assert_ne!(one.run_id(), other.run_id());
    assert_eq!(one.run("started").unwrap().id(), again.run("started").unwrap().id());
    assert_ne!(one.run("started").unwrap().id(), one.run("finished").unwrap().id());
    assert_ne!(one.run("started").unwrap().id(), other.run("started").unwrap().id());
    assert_eq!(one.crawlqa(question).unwrap().id(), other.crawlqa(question).unwrap().id());
    // In another world the same words are another question.
    assert_ne!(qa_id("real", "Where?"), qa_id("invented:1", "Where?"));
    assert_ne!(qa_id("invented:2", "Where?"), qa_id("invented:1", "Where?"));
}

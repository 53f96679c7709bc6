//! The scripted policy on a small closed web: it finds what the pages say, and errs as it is told to.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use webdancer_agent::chat::{ChatError, ChatModel as _, ChatRequest, Sampling};
use webdancer_agent::conversation::{Message, Role};
use webdancer_agent::format::{Action, FormatError, parse_turn, render_observation};
use webdancer_schemas::rows::Qa;
use webdancer_synth::atlas::{Atlas, EntityKind, World};
use webdancer_synth::atlasqa::events::Origin;
use webdancer_synth::atlasqa::form::{Condition, Form, Measure, Term};
use webdancer_synth::atlasqa::{Author, Pages, Question, Rewriter, Selection, crawlqa};
use webdancer_synth::question::{QuestionType, normalised};
use webdancer_synth::scripted::{Mistake, MistakeRates, Scripted, Task};

const SITE: &str = "http://atlas.example";

/// Search and visit over the pages of an atlas, in the published observation formats.
struct SmallWeb {
    /// Title, path, text.
    pages: Vec<(String, String, String)>,
    /// Shows of a page only what has a word of the goal.
    in_passages: bool,
}

impl SmallWeb {
    fn new(world: World) -> SmallWeb {
        let atlas = Atlas::new(world);
        let pages = Pages::of(&atlas).unwrap();
        let page = |title: &String| {
            let path = pages.evidence(title).unwrap().path.clone();
            (title.clone(), path, pages.text(title).unwrap().to_string())
        };
        SmallWeb { pages: atlas.entities().iter().map(|entity| page(&entity.title)).collect(), in_passages: false }
    }

    fn call(&self, tool: &str, arguments: &Value) -> String {
        let texts = |name: &str| -> Vec<String> {
            arguments[name].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
        };
        let parts: Vec<String> = match tool {
            "search" => texts("query").iter().map(|query| self.search(query)).collect(),
            "visit" => {
                let goal = arguments["goal"].as_str().unwrap();
                texts("url").iter().map(|url| self.visit(url, goal)).collect()
            }
            other => return format!("There is no tool {other:?}."),
        };
        parts.join("\n=======\n")
    }

    /// Titles that share most words with the query, short ones first.
    fn search(&self, query: &str) -> String {
        let wanted: HashSet<String> = normalised(query).split(' ').map(str::to_string).collect();
        let shared = |title: &str| normalised(title).split(' ').filter(|word| wanted.contains(*word)).count();
        let mut hits: Vec<_> = self.pages.iter().filter(|(title, ..)| shared(title) > 0).collect();
        hits.sort_by_key(|(title, ..)| (std::cmp::Reverse(shared(title)), title.len(), title.clone()));
        hits.truncate(10);
        let item = |(number, (title, path, text)): (usize, &&(String, String, String))| {
            let snippet = text.lines().nth(2).unwrap_or_default();
            format!("{}. [{title}]({SITE}{path})\nSource: Atlas\n\n{snippet}", number + 1)
        };
        let items: Vec<String> = hits.iter().enumerate().map(item).collect();
        format!("A Google search for '{query}' found {} results:\n\n## Web Results\n{}", hits.len(), items.join("\n\n"))
    }

    fn visit(&self, url: &str, goal: &str) -> String {
        let page = self.pages.iter().find(|(_, path, _)| format!("{SITE}{path}") == url);
        let mut text = page.map_or("There is no such page.", |(.., text)| text.as_str()).to_string();
        if self.in_passages {
            text = passages(&text, goal);
        }
        format!(
            "The useful information in {url} for user goal {goal} as follows: \n\nEvidence in page: \n{text}\n\n\
             Summary: \nSee above."
        )
    }
}

/// The passages of a page that have a word of the goal, in order: sixty words and less, cut anywhere, begun at headings.
fn passages(text: &str, goal: &str) -> String {
    let wanted: HashSet<String> = normalised(goal).split(' ').map(str::to_string).collect();
    let mut passages = vec![String::new()];
    let mut words = 0;
    for line in text.lines().filter(|line| !line.is_empty()) {
        for (place, word) in line.split(' ').enumerate() {
            if words == 60 || (line.starts_with('#') && place == 0) {
                passages.push(String::new());
                words = 0;
            }
            let passage = passages.last_mut().unwrap();
            passage.push_str(if place == 0 { "\n" } else { " " });
            passage.push_str(word);
            words += 1;
        }
    }
    let stop = ["of", "and", "the", "by", "in", "is", "a"];
    let matches =
        |passage: &String| normalised(passage).split(' ').any(|word| wanted.contains(word) && !stop.contains(&word));
    passages.into_iter().filter(matches).collect::<Vec<_>>().join("\n\n")
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
struct Attempt {
    answer: Option<String>,
    turns: Vec<String>,
    tools: Vec<String>,
}

/// Plays an attempt, at most `calls_max` turns, as a loop would: what is out of format is told and goes on.
async fn attempt(policy: &Scripted, web: &SmallWeb, question: &str, seed: i64, calls_max: usize) -> Attempt {
    let message = |role, content: &str| Message { role, content: content.to_string() };
    let mut messages = vec![
        message(Role::System, "Answer.\nCurrent date: 2026-01-01"),
        message(Role::User, &format!("<tools>…</tools>\nUser: {question}")),
    ];
    let mut played = Attempt { answer: None, turns: Vec::new(), tools: Vec::new() };
    while played.turns.len() < calls_max {
        let sampling = Sampling { seed: Some(seed), ..Sampling::default() };
        let request = ChatRequest { messages: messages.clone(), sampling, ..ChatRequest::default() };
        let text = policy.complete(&request).await.unwrap().text;
        played.turns.push(text.clone());
        messages.push(message(Role::Assistant, &text));
        let observation = match parse_turn(&text) {
            Ok(turn) => match turn.action {
                Action::Answer(answer) => {
                    played.answer = Some(answer.to_string());
                    return played;
                }
                Action::Tool { name, arguments } => {
                    played.tools.push(name.to_string());
                    web.call(&name, &serde_json::from_str(arguments).unwrap())
                }
            },
            Err(fault) => fault.to_string(),
        };
        messages.push(message(Role::User, &render_observation(&observation)));
    }
    played
}

fn questions(invented: Option<u64>, count: usize) -> Vec<Question> {
    let atlas = Atlas::new(invented.map_or_else(World::real, World::invent).unwrap());
    let pages = Pages::of(&atlas).unwrap();
    let mut author = Author::new(&atlas, &pages, invented);
    let mut found = Vec::new();
    crawlqa(&mut author, &Selection { count: Some(count), seed: 9, ..Selection::default() }, |q| found.push(q));
    let rewriter = Rewriter::new(&atlas);
    for root in rewriter.roots(&mut author, 9).into_iter().take(count / 10) {
        let chain = rewriter.chain(&mut author, root, 4, 9);
        found.extend(chain.steps.into_iter().map(|step| step.question));
    }
    found
}

#[test]
fn a_policy_has_the_name_that_it_is_given_and_acts_as_before() {
    let named = |policy: Scripted| policy.named("scripted:terse,0.5");
    let questions = questions(Some(1), 4);
    let (plain, other) = (expert(&questions, MistakeRates::each(0.05)), expert(&questions, MistakeRates::each(0.05)));
    let other = named(other).terse();
    assert_eq!((plain.name(), other.name()), ("scripted", "scripted:terse,0.5"));
    for seed in 0..20 {
        let of = |policy: &Scripted| policy.mistake(&questions[0].text, Some(seed));
        assert_eq!(of(&plain), of(&other));
    }
}

fn expert(questions: &[Question], rates: MistakeRates) -> Scripted {
    Scripted::new(questions.iter().map(Task::from), rates, 0).unwrap()
}

#[tokio::test]
async fn without_mistakes_every_question_is_answered_by_search_and_visit() {
    for invented in [None, Some(4)] {
        let questions = questions(invented, 240);
        let web = SmallWeb::new(invented.map_or_else(World::real, World::invent).unwrap());
        let policy = expert(&questions, MistakeRates::default());
        for (question, seed) in questions.iter().zip(0i64..) {
            let played = attempt(&policy, &web, &question.text, seed, 40).await;
            assert_eq!(played.answer.as_ref(), Some(&question.answer), "{} {:#?}", question.text, played.turns);
            assert!(played.tools.contains(&"search".to_string()) && played.tools.contains(&"visit".to_string()));
            assert!(played.turns.iter().all(|turn| parse_turn(turn).unwrap().is_rendering_of(turn)));
        }
    }
}

#[tokio::test]
async fn passages_of_pages_are_enough() {
    let questions = questions(None, 240);
    let web = SmallWeb { in_passages: true, ..SmallWeb::new(World::real().unwrap()) };
    let policy = expert(&questions, MistakeRates::default());
    let mut wrong = Vec::new();
    for (question, seed) in questions.iter().zip(0i64..) {
        let played = attempt(&policy, &web, &question.text, seed, 40).await;
        if played.answer.as_ref() != Some(&question.answer) {
            wrong.push((question.text.clone(), question.answer.clone(), played.answer));
        }
    }
    assert!(wrong.len() * 50 <= questions.len(), "{} of {}: {wrong:#?}", wrong.len(), questions.len());
}

#[tokio::test]
async fn on_a_web_that_says_otherwise_it_answers_otherwise() {
    // Every capital belongs to the next country of the table, whose facts stay.
    let mut countries = World::real().unwrap().countries().to_vec();
    let capitals: Vec<_> = countries.iter().map(|country| country.capitals.clone()).collect();
    let next = capitals.iter().cycle().skip(1);
    countries.iter_mut().zip(next).for_each(|(country, capitals)| country.capitals.clone_from(capitals));
    let elsewhere = World::new(countries).unwrap();
    let atlas = Atlas::new(World::real().unwrap());
    let pages = Pages::of(&atlas).unwrap();
    let tallinn = Condition::With(Term::named(EntityKind::Capital, "EST/Tallinn"));
    let form = Form::Amount { measure: Measure::Area, of: Term::Only(vec![tallinn]) };
    let question = Author::new(&atlas, &pages, None).ask(QuestionType::MultiHop, &form).unwrap();
    assert_eq!(question.text, "What is the area of the country whose capital is Tallinn in square kilometres?");
    assert_eq!(question.answer, "45227");
    let policy = expert(std::slice::from_ref(&question), MistakeRates::default());
    let answer = attempt(&policy, &SmallWeb::new(elsewhere), &question.text, 1, 40).await.answer;
    // Before Estonia (EST) stands Spain (ESP).
    assert_eq!(answer.as_deref(), Some("505992"));
    // A web that says nothing.
    let answer =
        attempt(&policy, &SmallWeb { pages: Vec::new(), in_passages: false }, &question.text, 1, 40).await.answer;
    assert_eq!(answer.as_deref(), Some("unknown"));
}

#[tokio::test]
async fn attempts_differ_by_seed_and_repeat_by_seed() {
    let questions = questions(None, 16);
    let web = SmallWeb::new(World::real().unwrap());
    let policy = expert(&questions, MistakeRates::default());
    for question in &questions {
        let mut texts = HashSet::new();
        for seed in 0..5 {
            let played = attempt(&policy, &web, &question.text, seed, 40).await;
            assert_eq!(played, attempt(&policy, &web, &question.text, seed, 40).await);
            texts.insert(played.turns.concat());
        }
        assert!(texts.len() >= 4, "{}: {} of 5 attempts differ", question.text, texts.len());
    }
}

#[tokio::test]
async fn a_terse_expert_says_everything_in_one_way_and_looks_up_one_thing_at_a_time() {
    let questions: Vec<Question> =
        questions(None, 64).into_iter().filter(|q| q.kind == QuestionType::MultiHop).collect();
    let web = SmallWeb::new(World::real().unwrap());
    let policy = expert(&questions, MistakeRates::default()).terse();
    assert!(questions.len() >= 8);
    for question in &questions {
        let played = attempt(&policy, &web, &question.text, 0, 40).await;
        assert_eq!(played.answer.as_ref(), Some(&question.answer), "{}", question.text);
        for turn in &played.turns {
            let thought = parse_turn(turn).unwrap().thought;
            let said =
                ["I need the ", "I read the ", "That settles it."].iter().any(|opening| thought.starts_with(opening));
            assert!(said && !turn.contains("\",\"http") && !turn.contains("\", \"http"), "{turn}");
        }
        let of = |tool: &str| played.tools.iter().filter(|called| *called == tool).count();
        assert!(of("search") >= 1 && of("search") <= of("visit"), "nothing is visited unsearched: {:?}", played.tools);
        let search = played.turns.iter().find(|turn| turn.contains("\"search\"")).unwrap();
        assert!(search.matches(',').count() == 1, "one title, alone: {search}");
    }
}

#[tokio::test]
async fn each_mistake_shows_in_its_attempt() {
    let questions = questions(None, 64);
    let web = SmallWeb::new(World::real().unwrap());
    let gold: HashMap<&str, &str> = questions.iter().map(|q| (q.text.as_str(), q.answer.as_str())).collect();
    for mistake in Mistake::ALL {
        let mut rates = serde_json::to_value(MistakeRates::default()).unwrap();
        rates[serde_json::to_value(mistake).unwrap().as_str().unwrap()] = 1.0.into();
        let policy = expert(&questions, serde_json::from_value(rates).unwrap());
        for (question, seed) in questions.iter().take(24).zip(0i64..) {
            let text = question.text.as_str();
            let played = attempt(&policy, &web, text, seed, 30).await;
            let right = played.answer.as_deref() == Some(gold[text]);
            let faults: Vec<FormatError> = played.turns.iter().filter_map(|turn| parse_turn(turn).err()).collect();
            let foreign = played.tools.iter().filter(|tool| !["search", "visit"].contains(&tool.as_str())).count();
            let shown = match mistake {
                Mistake::WrongAnswer => played.answer.is_some() && !right && faults.is_empty(),
                Mistake::BadJson => right && matches!(faults[..], [FormatError::ToolCall { .. }]),
                Mistake::UnknownTool => right && foreign == 1,
                Mistake::SimulatedObservation => {
                    right && faults.len() == 1 && played.turns.iter().any(|turn| turn.contains("\n<tool_response>\n"))
                }
                Mistake::Repetition => {
                    right && played.turns.iter().filter(|turn| most_frequent_ten_gram(turn) >= 5).count() == 1
                }
                Mistake::NoAnswer => played.answer.is_none() && played.turns.len() == 30,
                Mistake::NoToolCall => right && played.turns.len() == 1,
                Mistake::OverAction => {
                    let honest = expert(&questions, MistakeRates::default());
                    let needed = attempt(&honest, &web, text, seed, 30).await.turns.len();
                    right && (needed + 2..=needed + 4).contains(&played.turns.len())
                }
            };
            assert!(shown, "{mistake:?}: {text} {:?} {faults:?} {:#?}", played.answer, played.turns);
        }
    }
}

/// How often the most frequent run of ten words occurs.
fn most_frequent_ten_gram(text: &str) -> usize {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut counts: HashMap<&[&str], usize> = HashMap::new();
    words.windows(10).for_each(|gram| *counts.entry(gram).or_default() += 1);
    counts.into_values().max().unwrap_or(0)
}

#[tokio::test]
async fn honest_attempts_repeat_no_ten_words_often() {
    let questions = questions(None, 80);
    let web = SmallWeb::new(World::real().unwrap());
    let policy = expert(&questions, MistakeRates::default());
    for (question, seed) in questions.iter().zip(0i64..) {
        let played = attempt(&policy, &web, &question.text, seed, 40).await;
        assert!(most_frequent_ten_gram(&played.turns.join("\n")) <= 4, "{:#?}", played.turns);
    }
}

#[tokio::test]
async fn mistakes_come_as_often_as_their_rates_say() {
    let questions = questions(None, 8);
    let rates = MistakeRates { wrong_answer: 0.3, bad_json: 0.1, ..MistakeRates::default() };
    let policy = expert(&questions, rates);
    let mut counts: BTreeMap<Option<Mistake>, usize> = BTreeMap::new();
    for question in &questions[..8] {
        (0..1_000).for_each(|seed| *counts.entry(policy.mistake(&question.text, Some(seed))).or_default() += 1);
    }
    let share = |mistake| counts[&mistake] as f64 / 8_000.0;
    assert!((0.27..0.33).contains(&share(Some(Mistake::WrongAnswer))), "{counts:?}");
    assert!((0.08..0.12).contains(&share(Some(Mistake::BadJson))), "{counts:?}");
    assert_eq!(counts.len(), 3);
}

#[tokio::test]
async fn a_task_is_read_from_its_row_and_an_unknown_question_is_refused() {
    let questions = questions(None, 8);
    let origin = Origin::new("crawlqa", "real", serde_json::json!({}), chrono::DateTime::UNIX_EPOCH);
    let event = origin.crawlqa(&questions[0]).unwrap();
    let row: Qa = serde_json::from_str(event.data.get()).unwrap();
    assert_eq!(Task::of(&row), Some(Task::from(&questions[0])));
    assert_eq!(Task::of(&Qa::default()), None);
    let policy = expert(&questions, MistakeRates::default());
    let messages = vec![Message { role: Role::User, content: "User: Who am I?".to_string() }];
    let refused = policy.complete(&ChatRequest { messages, ..ChatRequest::default() }).await.unwrap_err();
    assert!(matches!(refused, ChatError::Refused { .. }));
    assert!(refused.to_string().contains("no plan for this question"));
}

#[tokio::test]
async fn asked_for_the_final_answer_it_gives_it() {
    let questions = questions(None, 8);
    let policy = expert(&questions, MistakeRates { no_answer: 1.0, ..MistakeRates::default() });
    let message = |role, content: &str| Message { role, content: content.to_string() };
    let messages = vec![
        message(Role::System, "s"),
        message(Role::User, &format!("User: {}", questions[0].text)),
        message(
            Role::Assistant,
            "<think>\na\n</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"x\"]}}\n</tool_call>",
        ),
        message(Role::User, "<tool_response>\nnothing\n</tool_response>"),
        message(Role::User, "Answer now."),
    ];
    let text = policy.complete(&ChatRequest { messages, ..ChatRequest::default() }).await.unwrap().text;
    assert!(matches!(parse_turn(&text).unwrap().action, Action::Answer("unknown")), "{text}");
}

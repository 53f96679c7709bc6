//! CRAWLQA and E2HQA by models that are played.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use serde_json::json;
use webdancer_agent::chat::ChatError;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::{Page, Qa, Rewrite};
use webdancer_synth::crawlqa::{Crawlqa, CrawlqaConfig, CrawlqaReport, Models, PageGraph, Rejected, RunOf, SynthError};
use webdancer_synth::e2hqa::{Chains, E2hqa, E2hqaConfig, Link, PageFinder, Progress, Rewritten, Root, Stop};
use webdancer_synth::overlap::{Benchmarks, NearDuplicates};
use webdancer_synth::question::QuestionType;

use crate::memory_log::MemoryLog;
use crate::models::{Played, SameWords};

fn page(name: &str, text: &str, links: &[&str]) -> Page {
    let text = format!("{text} {}", "More is not said of it here. ".repeat(10));
    Page {
        url: format!("http://h/{name}"),
        final_url: format!("http://h/{name}"),
        root_url: "http://h/".to_string(),
        title: Some(name.to_string()),
        digest: Some(format!("digest-{name}")),
        text: Some(text),
        links: links.iter().map(|link| format!("http://h/{link}")).collect(),
        language: Some("eng".to_string()),
        ..Page::default()
    }
}

fn run_of() -> RunOf {
    RunOf { run_id: "crawlqa-test".to_string(), start: DateTime::UNIX_EPOCH }
}

fn config(kind: QuestionType, walks_max: u64) -> CrawlqaConfig {
    CrawlqaConfig { types: vec![kind], walks_max, pages_max: 1, concurrency: 3, ..CrawlqaConfig::default() }
}

async fn crawlqa(
    models: &Models,
    benchmarks: &[&str],
    config: &CrawlqaConfig,
) -> (Result<CrawlqaReport, SynthError>, Vec<Qa>, Arc<MemoryLog>) {
    let graph = PageGraph::new([page("Osby Bridge", "Ida Storm designed the Osby Bridge, 412 metres long.", &[])]);
    let benchmarks = Benchmarks::new(benchmarks, 8);
    let log = Arc::new(MemoryLog::default());
    let work = Crawlqa { graph: &graph, models, benchmarks: &benchmarks, config, first_walk: 0 };
    let report = work.run(NearDuplicates::new(0.8), log.as_ref(), &run_of(), |_| {}).await;
    let rows = log.events(Kind::Qa).iter().map(|event| serde_json::from_str(event.data.get()).unwrap()).collect();
    (report, rows, log)
}

fn reply(question: &str, answer: &str) -> String {
    json!({"question": question, "answer": answer, "chain": ["Osby Bridge", answer], "pages": [1]}).to_string()
}

/// Models of which the reader is right so often with evidence, and so often without.
fn models(question: &'static str, answer: &'static str, with: usize, without: usize) -> (Models, Arc<Played>) {
    let writer = Played::new("writer", move |_, _| Ok(reply(question, answer)));
    let counts = parking_lot::Mutex::new((0, 0));
    let reader = Played::new("reader", move |text, _| {
        let mut counts = counts.lock();
        let right = if text.contains("<page") {
            counts.0 += 1;
            counts.0 <= with
        } else {
            counts.1 += 1;
            counts.1 <= without
        };
        Ok(json!({"answer": if right { answer } else { "unknown" }}).to_string())
    });
    (Models { writer, reader: reader.clone(), judge: Arc::new(SameWords) }, reader)
}

const WHO: &str = "Who designed the bridge that replaced the ferry at Osby?";

#[tokio::test]
async fn a_question_is_kept_with_its_evidence_chain_and_checks() {
    let (models, reader) = models(WHO, "Ida Storm", 9, 0);
    let (report, rows, log) = crawlqa(&models, &[], &config(QuestionType::MultiHop, 1)).await;
    // A type that needs two pages finds no walk among one.
    assert_eq!(report.unwrap().rejected, [(Rejected::NoWalk, 1)].into());
    assert!(rows.is_empty() && log.events(Kind::Qa).is_empty());

    let (report, rows, log) = crawlqa(&models, &[], &config(QuestionType::Generic, 1)).await;
    let report = report.unwrap();
    assert_eq!((report.walks, report.questions()), (1, 1));
    let row = &rows[0];
    assert_eq!((row.question.as_str(), row.answer.as_str(), row.method.as_str()), (WHO, "Ida Storm", "crawlqa"));
    assert_eq!((row.r#type.as_deref(), row.generator.as_deref()), (Some("generic"), Some("writer")));
    assert_eq!(row.evidence_page_digests, ["digest-Osby Bridge"]);
    assert_eq!(row.entity_chain, ["Osby Bridge", "Ida Storm"]);
    let attributes = &row.attributes.as_ref().unwrap().0;
    assert_eq!(attributes["urls"], json!(["http://h/Osby Bridge"]));
    assert_eq!(attributes["checks"]["with_evidence"], json!({"asked": 3, "right": 3, "errors": 0}));
    // Three wrong ones of four settle it.
    assert_eq!(attributes["checks"]["closed_book"], json!({"asked": 3, "right": 0, "errors": 0}));
    assert_eq!(reader.count(), 6);
    // The same again is the same event.
    let (_, _, again) = crawlqa(&models, &[], &config(QuestionType::Generic, 1)).await;
    assert_eq!(again.events(Kind::Qa)[0].id(), log.events(Kind::Qa)[0].id());
}

#[tokio::test]
async fn right_answers_with_and_without_evidence_decide() {
    let is = "Is the bridge that replaced the ferry at Osby longer than 400 metres?";
    for (kind, question, answer, with, without, expected) in [
        (QuestionType::Generic, WHO, "Ida Storm", 3, 0, None),
        (QuestionType::Generic, WHO, "Ida Storm", 2, 0, Some(Rejected::NotAnswerable)),
        (QuestionType::Generic, WHO, "Ida Storm", 4, 1, None),
        (QuestionType::Generic, WHO, "Ida Storm", 4, 2, Some(Rejected::Known)),
        (QuestionType::YesNo, is, "yes", 4, 1, None),
        (QuestionType::YesNo, is, "yes", 4, 2, Some(Rejected::Known)),
    ] {
        let (models, _) = models(question, answer, with, without);
        let (report, rows, _) = crawlqa(&models, &[], &config(kind, 1)).await;
        let rejected = expected.map(|why| (why, 1)).into_iter().collect();
        assert_eq!(report.unwrap().rejected, rejected, "{question} {with} {without}");
        assert_eq!(rows.len(), usize::from(expected.is_none()));
    }
}

#[tokio::test]
async fn a_yes_no_question_is_asked_eight_times_without_evidence() {
    let (models, reader) = models("Is the bridge at Osby longer than 400 metres?", "yes", 4, 1);
    let (_, rows, _) = crawlqa(&models, &[], &config(QuestionType::YesNo, 1)).await;
    // With one right, the eighth could still be the second.
    assert_eq!(
        rows[0].attributes.as_ref().unwrap().0["checks"]["closed_book"],
        json!({"asked": 8, "right": 1, "errors": 0})
    );
    assert_eq!(reader.asked.lock().iter().filter(|text| !text.contains("<page")).count(), 8);
}

#[tokio::test]
async fn drafts_that_are_not_fit_are_rejected_before_anybody_is_asked() {
    for (draft, why) in [
        ("I cannot do that.".to_string(), Rejected::Malformed),
        ("{\"question\": null, \"reason\": \"too little\"}".to_string(), Rejected::NoQuestion),
        (reply("According to the page, who designed it?", "Ida Storm"), Rejected::Question),
        (reply(&"Who? ".repeat(200), "Ida Storm"), Rejected::Question),
        (reply("Who but Ida Storm could have designed it?", "Ida Storm"), Rejected::Leak),
        (reply(WHO, "a woman who came from the north and built many other bridges"), Rejected::Answer),
        (
            reply("In which year did the expedition that mapped the northern coast return?", "1901"),
            Rejected::Contaminated,
        ),
    ] {
        let writer = Played::new("writer", move |_, _| Ok(draft.clone()));
        let reader = Played::new("reader", |_, _| Ok(String::new()));
        let models = Models { writer, reader: reader.clone(), judge: Arc::new(SameWords) };
        let benchmark = "In which year did the expedition that mapped the northern coast come home?";
        let (report, rows, _) = crawlqa(&models, &[benchmark], &config(QuestionType::Generic, 1)).await;
        assert_eq!(report.unwrap().rejected, [(why, 1)].into());
        assert_eq!((rows.len(), reader.count()), (0, 0));
    }
}

#[tokio::test]
async fn of_questions_that_are_nearly_one_the_first_stays() {
    let writer = Played::new("writer", |_, number| {
        Ok(reply(
            if number % 2 == 0 { WHO } else { "who designed the bridge that replaced the ferry at Osby" },
            "Ida Storm",
        ))
    });
    let reader = Played::new("reader", |text, _| {
        Ok(json!({"answer": if text.contains("<page") { "Ida Storm" } else { "nobody" }}).to_string())
    });
    let models = Models { writer, reader, judge: Arc::new(SameWords) };
    let (report, rows, _) = crawlqa(&models, &[], &config(QuestionType::Generic, 6)).await;
    assert_eq!(report.unwrap().rejected, [(Rejected::NearDuplicate, 5)].into());
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn a_judge_that_fails_decides_nothing() {
    let writer = Played::new("writer", |_, _| Ok(reply(WHO, "Ida Storm")));
    let reader = Played::new("reader", |_, _| Ok(json!({"answer": "error"}).to_string()));
    let models = Models { writer, reader, judge: Arc::new(SameWords) };
    let (report, rows, _) = crawlqa(&models, &[], &config(QuestionType::Generic, 1)).await;
    assert_eq!(report.unwrap().rejected, [(Rejected::Undecided, 1)].into());
    assert!(rows.is_empty());
}

#[tokio::test]
async fn a_spent_budget_ends_the_run_and_a_refusal_fails_it() {
    let failing = |error: ChatError| {
        let writer = Played::new("writer", move |_, _| Err(error.clone()));
        let reader = Played::new("reader", |_, _| Ok(String::new()));
        Models { writer, reader, judge: Arc::new(SameWords) }
    };
    let spent = failing(ChatError::BudgetSpent("1,000 tokens".to_string()));
    let (report, ..) = crawlqa(&spent, &[], &config(QuestionType::Generic, 9)).await;
    assert!(report.unwrap().budget_spent);
    let refused = failing(ChatError::Refused { model: "writer".to_string(), reason: "no such model".to_string() });
    let (report, ..) = crawlqa(&refused, &[], &config(QuestionType::Generic, 9)).await;
    assert_eq!(report.unwrap_err().to_string(), "writer: refused: no such model");
}

/// Finds a page by its title.
struct Titles(Vec<Arc<Page>>);

#[async_trait]
impl PageFinder for Titles {
    async fn find(&self, query: &str, pages_max: usize) -> Vec<Arc<Page>> {
        let found = self.0.iter().filter(|page| page.title.as_deref().is_some_and(|title| query.contains(title)));
        found.take(pages_max).cloned().collect()
    }
}

/// A writer that knows one description of each entity.
fn rewriting_writer(entities: &'static [(&'static str, &'static str)]) -> Arc<Played> {
    Played::new("writer", move |text, _| {
        let line = |mark: &str| text.lines().rev().find_map(|line| line.strip_prefix(mark)).unwrap().to_string();
        let question = line("Question: ");
        if text.contains("Name one entity") {
            let left = line("Leave: ");
            let entity = entities.iter().find(|(name, _)| question.contains(name) && !left.contains(name));
            return Ok(match entity {
                Some((name, _)) => json!({"entity": name, "query": format!("{name} history")}).to_string(),
                None => json!({"entity": null}).to_string(),
            });
        }
        let entity = line("Entity: ");
        let (name, description) = entities.iter().find(|(name, _)| *name == entity).unwrap();
        let question = question.replace(name, description);
        Ok(json!({"description": description, "question": question}).to_string())
    })
}

const ENTITIES: &[(&str, &str)] =
    &[("Osby Bridge", "the bridge that replaced the ferry of Lund"), ("Lund", "the town with two harbours")];

fn root() -> Qa {
    Qa {
        qa_id: "qa-root".to_string(),
        method: "e2hqa".to_string(),
        question: "Who designed the Osby Bridge?".to_string(),
        answer: "Ida Storm".to_string(),
        r#type: Some("generic".to_string()),
        rewrites: Some(0),
        // As CRAWLQA writes it: what the question names is in it, and what it asks for.
        entity_chain: vec!["Osby Bridge".to_string(), "Ida Storm".to_string()],
        ..Qa::default()
    }
}

fn fresh() -> Root {
    Root { question: root(), evidence: Vec::new(), made: 0 }
}

async fn rewrite(reader: Arc<Played>, rewrites: u32) -> (Vec<Qa>, Vec<Rewrite>, Stop) {
    rewrite_root(root(), reader, rewrites).await
}

async fn rewrite_root(question: Qa, reader: Arc<Played>, rewrites: u32) -> (Vec<Qa>, Vec<Rewrite>, Stop) {
    let pages = ["Osby Bridge", "Lund"].map(|name| Arc::new(page(name, &format!("About {name}."), &[])));
    let finder = Titles(pages.to_vec());
    let models = Models { writer: rewriting_writer(ENTITIES), reader, judge: Arc::new(SameWords) };
    let config = E2hqaConfig { rewrites, ..E2hqaConfig::default() };
    let work = E2hqa { models: &models, finder: &finder, config: &config };
    let begun = Root { question, evidence: pages[..1].to_vec(), ..fresh() };
    let rewritten = work.rewrite(&begun, &run_of()).await.unwrap();
    let of = |kind| rewritten.events.iter().filter(move |event| event.kind() == kind);
    let qa: Vec<Qa> = of(Kind::Qa).map(|event| serde_json::from_str(event.data.get()).unwrap()).collect();
    let steps: Vec<Rewrite> = of(Kind::Rewrite).map(|event| serde_json::from_str(event.data.get()).unwrap()).collect();
    assert_eq!(rewritten.rewrites as usize, qa.len());
    (qa, steps, rewritten.stopped)
}

/// A reader that tells the entities by their descriptions, and the answer with evidence.
fn good_reader(text: &str, _: usize) -> Result<String, ChatError> {
    let described = text.lines().rev().find_map(|line| line.strip_prefix("Description: "));
    let answer = match described {
        Some(description) => {
            ENTITIES.iter().find(|(_, known)| *known == description).map_or("unknown", |(name, _)| name)
        }
        None => "Ida Storm",
    };
    Ok(json!({ "answer": answer }).to_string())
}

#[tokio::test]
async fn each_rewrite_replaces_an_entity_and_keeps_the_answer() {
    let (qa, steps, stopped) = rewrite(Played::new("reader", good_reader), 4).await;
    // The second description names nothing that could be described.
    assert_eq!(stopped, Stop::NoEntityLeft);
    let questions: Vec<_> = qa.iter().map(|row| row.question.as_str()).collect();
    assert_eq!(
        questions,
        [
            "Who designed the the bridge that replaced the ferry of Lund?",
            "Who designed the the bridge that replaced the ferry of the town with two harbours?"
        ]
    );
    assert!(qa.iter().all(|row| row.answer == "Ida Storm" && row.method == "e2hqa"));
    assert_eq!([qa[0].rewrites, qa[1].rewrites], [Some(1), Some(2)]);
    assert_eq!(
        [qa[0].parent_qa_id.as_deref(), qa[1].parent_qa_id.as_deref()],
        [Some("qa-root"), Some(qa[0].qa_id.as_str())]
    );
    assert_eq!(qa[1].evidence_page_digests, ["digest-Osby Bridge", "digest-Lund"]);
    assert_eq!(
        [&qa[0].entity_chain[..], &qa[1].entity_chain[..]],
        [&["Osby Bridge", "Ida Storm"][..], &["Osby Bridge", "Ida Storm", "Lund"][..]]
    );
    let told: Vec<_> =
        steps.iter().map(|step| (step.step, step.entity.as_str(), step.query.as_deref(), step.invariant)).collect();
    assert_eq!(
        told,
        [
            (1, "Osby Bridge", Some("Osby Bridge history"), Some(true)),
            (2, "Lund", Some("Lund history"), Some(true)),
            // The end, so that nobody tries to go on.
            (0, "", None, None)
        ]
    );
    assert_eq!(steps[1].evidence_page_digests, ["digest-Lund"]);
    let (qa, _, stopped) = rewrite(Played::new("reader", good_reader), 1).await;
    assert_eq!((qa.len(), stopped), (1, Stop::Enough));
    assert!(rewrite(Played::new("reader", good_reader), 0).await.0.is_empty());
}

#[tokio::test]
async fn an_entity_of_the_root_that_its_question_does_not_name_is_not_described() {
    // The first description names it again.
    let chain = ["Osby Bridge", "Lund", "Ida Storm"].map(str::to_string).to_vec();
    let begun = Qa { entity_chain: chain.clone(), ..root() };
    let (qa, steps, stopped) = rewrite_root(begun, Played::new("reader", good_reader), 4).await;
    assert_eq!((qa.len(), stopped), (1, Stop::NoEntityLeft));
    assert_eq!((steps[0].entity.as_str(), &qa[0].entity_chain), ("Osby Bridge", &chain));
}

#[tokio::test]
async fn a_rewrite_that_may_change_the_answer_is_recorded_and_ends_the_chain() {
    // The description of the second entity could mean several; then one whose question has another answer.
    let vague = |text: &str, number: usize| match text.contains("two harbours") && text.contains("Description: ") {
        true => Ok(json!({"answer": "unknown"}).to_string()),
        false => good_reader(text, number),
    };
    let astray = |text: &str, number: usize| match text.contains("two harbours") && !text.contains("Description: ") {
        true => Ok(json!({"answer": "somebody else"}).to_string()),
        false => good_reader(text, number),
    };
    for reader in [Played::new("vague", vague), Played::new("astray", astray)] {
        let (qa, steps, stopped) = rewrite(reader, 4).await;
        assert_eq!((qa.len(), stopped), (1, Stop::NotInvariant));
        assert_eq!(steps.iter().map(|step| step.invariant).collect::<Vec<_>>(), [Some(true), Some(false)]);
    }
}

#[tokio::test]
async fn a_question_that_cannot_be_rewritten_is_recorded_as_tried() {
    let models = Models {
        writer: rewriting_writer(&[]),
        reader: Played::new("reader", good_reader),
        judge: Arc::new(SameWords),
    };
    let (finder, config) = (Titles(Vec::new()), E2hqaConfig::default());
    let work = E2hqa { models: &models, finder: &finder, config: &config };
    let events =
        |rewritten: &Rewritten| rewritten.events.iter().map(webdancer_schemas::event::Event::id).collect::<Vec<_>>();
    let first = work.rewrite(&fresh(), &run_of()).await.unwrap();
    assert_eq!((first.rewrites, first.stopped, first.events.len()), (0, Stop::NoEntityLeft, 1));
    assert_eq!(
        (first.events[0].kind(), &first.events[0].envelope.parents[..]),
        (Kind::Rewrite, &["qa-root".to_string()][..])
    );
    let step: Rewrite = serde_json::from_str(first.events[0].data.get()).unwrap();
    assert_eq!((step.qa_id.as_str(), step.step, step.entity.as_str(), step.invariant), ("qa-root", 0, "", None));
    // It is said once for a run, and again for another.
    assert_eq!(events(&work.rewrite(&fresh(), &run_of()).await.unwrap()), events(&first));
    let other = RunOf { run_id: "another".to_string(), ..run_of() };
    assert_ne!(events(&work.rewrite(&fresh(), &other).await.unwrap()), events(&first));
}

#[tokio::test]
async fn what_was_rewritten_before_the_budget_ended_is_kept_and_nothing_is_begun_any_more() {
    let reader = Played::new("reader", |text, number| match text.contains("two harbours") {
        true => Err(ChatError::BudgetSpent("1,000 tokens".to_string())),
        false => good_reader(text, number),
    });
    let pages = ["Osby Bridge", "Lund"].map(|name| Arc::new(page(name, &format!("About {name}."), &[])));
    let finder = Titles(pages.to_vec());
    let models = Models { writer: rewriting_writer(ENTITIES), reader, judge: Arc::new(SameWords) };
    let config = E2hqaConfig { concurrency: 1, ..E2hqaConfig::default() };
    let work = E2hqa { models: &models, finder: &finder, config: &config };
    let roots = vec![fresh(); 5];
    let log = MemoryLog::default();
    let mut told = 0;
    let report = work.run(roots, &log, &run_of(), |_| told += 1).await.unwrap();
    assert_eq!((report.roots, report.rewrites, report.budget_spent, told), (1, 1, true, 1));
    assert_eq!(report.stopped, [(Stop::BudgetSpent, 1)].into());
    assert_eq!((log.events(Kind::Qa).len(), log.events(Kind::Rewrite).len()), (1, 1));

    // It goes on behind the rewrite that there is, as if it had never been cut.
    let row: Rewrite = serde_json::from_str(log.events(Kind::Rewrite)[0].data.get()).unwrap();
    let link = Link { parent: "qa-root".to_string(), child: row.qa_id.clone(), step: row.step, kept: true };
    let Progress::Cut(last, made) = Chains::new([link]).progress("qa-root", 4) else { panic!("{row:?}") };
    let question: Qa = serde_json::from_str(log.events(Kind::Qa)[0].data.get()).unwrap();
    assert_eq!((&question.qa_id, made), (&last, 1));
    let models = Models { reader: Played::new("reader", good_reader), ..models };
    let work = E2hqa { models: &models, finder: &finder, config: &config };
    let later = Root { question, evidence: pages[..1].to_vec(), made };
    let report = work.run(vec![later], &log, &run_of(), |_| {}).await.unwrap();
    assert_eq!((report.rewrites, report.chains_by_rewrites), (1, [(2, 1)].into()));
    let last: Qa = serde_json::from_str(log.events(Kind::Qa)[1].data.get()).unwrap();
    assert_eq!((last.rewrites, last.entity_chain.join(", ").as_str()), (Some(2), "Osby Bridge, Ida Storm, Lund"));
    assert_eq!(last.attributes.unwrap().0["root_qa_id"], "qa-root");
    let step: Rewrite = serde_json::from_str(log.events(Kind::Rewrite)[1].data.get()).unwrap();
    assert_eq!((step.step, step.entity.as_str()), (2, "Lund"));
}

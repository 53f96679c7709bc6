//! Questions about an atlas can be answered with the tools: by the expert that makes no mistakes, on the closed web of the
//! atlas's pages, without a model that summarises them.

use std::collections::BTreeMap;
use std::sync::Arc;

use webdancer_agent::index::PageIndex;
use webdancer_agent::profile::Profile;
use webdancer_agent::react::{React, ReactConfig, Task};
use webdancer_agent::tool::ObservationLimits;
use webdancer_agent::web::Closed;
use webdancer_schemas::rows::Page;
use webdancer_synth::atlas::{Atlas, World};
use webdancer_synth::atlasqa::{Author, Pages, Question, Rewriter, Selection, crawlqa};
use webdancer_synth::scripted::{MistakeRates, Scripted};

/// The closed web of an atlas's pages.
pub(crate) fn closed(atlas: &Atlas, pages: &Pages, limits: &ObservationLimits) -> Closed {
    let page = |title: &String| {
        let url = format!("http://atlas.example{}", pages.evidence(title).unwrap().path);
        let (title, text) = (Some(title.clone()), pages.text(title).map(str::to_string));
        Page { url: url.clone(), final_url: url, title, text, ..Page::default() }
    };
    let index = PageIndex::in_memory(atlas.entities().iter().map(|entity| page(&entity.title))).unwrap();
    Closed::new("atlas", Arc::new(index), None, limits)
}

/// CRAWLQA questions of every type, and E2HQA chains of four rewrites on top of some.
fn questions(atlas: &Atlas, pages: &Pages, invented: Option<u64>, count: usize, seed: u64) -> Vec<Question> {
    let mut author = Author::new(atlas, pages, invented);
    let mut found = Vec::new();
    crawlqa(&mut author, &Selection { count: Some(count), seed, ..Selection::default() }, |q| found.push(q));
    let rewriter = Rewriter::new(atlas);
    for root in rewriter.roots(&mut author, seed).into_iter().take(count / 10) {
        let chain = rewriter.chain(&mut author, root, 4, seed);
        found.extend(chain.steps.into_iter().map(|step| step.question));
    }
    found
}

/// Right answers and questions, by type, and what went wrong.
async fn score(
    invented: Option<u64>,
    profile: Profile,
    count: usize,
) -> (BTreeMap<&'static str, (usize, usize)>, Vec<String>) {
    let atlas = Atlas::new(invented.map_or_else(World::real, World::invent).unwrap());
    let pages = Pages::of(&atlas).unwrap();
    let questions = questions(&atlas, &pages, invented, count, 11);
    let web = closed(&atlas, &pages, &profile.observations);
    let expert = Scripted::new(questions.iter().map(Into::into), MistakeRates::default(), 0).unwrap();
    let agent = React::new(Arc::new(expert), Arc::new(web), Arc::new(profile), ReactConfig::default());
    let (mut scores, mut wrong) = (BTreeMap::<_, (usize, usize)>::new(), Vec::new());
    for (question, seed) in questions.iter().zip(0i64..) {
        let task = Task {
            trajectory_id: "t",
            qa_id: "q",
            question: &question.text,
            attempt: 0,
            seed: Some(seed),
            date: "2026-03-04".parse().unwrap(),
            restricted: None,
        };
        let row = agent.attempt(&task).await.trajectory;
        let right = row.termination == "answer" && row.answer.as_ref() == Some(&question.answer);
        let score = scores.entry(question.kind.as_str()).or_default();
        *score = (score.0 + usize::from(right), score.1 + 1);
        if !right {
            wrong.push(format!("{} {:?} {:?} {}", question.text, question.answer, row.answer, row.termination));
        }
    }
    (scores, wrong)
}

/// Asserts that all are right, and that there are as many of each type as expected.
fn all_right(
    (scores, wrong): (BTreeMap<&'static str, (usize, usize)>, Vec<String>),
    expected: &[(&'static str, (usize, usize))],
) {
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(scores.into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_about_the_real_countries_can_be_answered_with_the_tools() {
    let expected = &[
        ("comparative", (30, 30)),
        ("count", (30, 30)),
        ("difference", (30, 30)),
        ("intersection", (30, 30)),
        ("multi-hop", (88, 88)),
        ("ordinal", (30, 30)),
        ("superlative", (30, 30)),
        ("yes-no", (30, 30)),
    ];
    all_right(score(None, Profile::standard(), 240).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_about_invented_countries_can_be_answered_with_the_tools() {
    let expected = &[
        ("comparative", (30, 30)),
        ("count", (30, 30)),
        ("difference", (30, 30)),
        ("intersection", (30, 30)),
        ("multi-hop", (100, 100)),
        ("ordinal", (30, 30)),
        ("superlative", (30, 30)),
        ("yes-no", (30, 30)),
    ];
    all_right(score(Some(4), Profile::standard(), 240).await, expected);
}

/// Of a page 16 words are shown, and what fits the goal best: too little of long lists.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_small_learners_observations_most_questions_can_be_answered() {
    let (scores, wrong) = score(None, Profile::compact(), 240).await;
    let right: usize = scores.values().map(|(right, _)| right).sum();
    assert_eq!((right, wrong.len()), (206, 92), "{wrong:#?}");
}

//! The small sample that `make demo` imports.

use std::collections::HashSet;

use webdancer_agent::conversation::render_messages;
use webdancer_agent::published::{messages_of_line, parse_qa_line, parse_trajectory_line};

use crate::lines;

#[test]
fn the_demo_trajectories_are_in_the_published_format() {
    let mut questions = HashSet::new();
    let mut tags = HashSet::new();
    let mut verbatim = 0;
    let lines = lines("../deploy/demo/demo_trajectories.jsonl");
    for line in &lines {
        let published = parse_trajectory_line(line.as_bytes()).unwrap();
        let (row, qa) = (published.trajectory, published.qa);
        assert_eq!(render_messages(&row).unwrap(), messages_of_line(line.as_bytes()).unwrap());
        assert!(row.turn_raw.iter().all(Option::is_none));
        assert!((2..=4).contains(&row.n_turns), "{} turns", row.n_turns);
        assert!(row.system_prompt.unwrap().ends_with("\nCurrent date: 2026-01-01"));
        verbatim += i32::from(row.answer.unwrap().contains(&qa.answer));
        questions.insert(row.qa_id);
        tags.insert(qa.attributes.unwrap().0["tag"].as_str().unwrap().to_string());
    }
    // Two lines share a question, one answers wrongly.
    assert_eq!((lines.len(), questions.len(), verbatim), (8, 7, 7));
    assert_eq!(tags, HashSet::from(["crawlqa".to_string(), "e2hqa".to_string()]));
}

#[test]
fn the_demo_questions_include_those_of_the_trajectories() {
    let qa: Vec<_> =
        lines("../deploy/demo/demo_qa.jsonl").iter().map(|line| parse_qa_line(line.as_bytes()).unwrap()).collect();
    assert_eq!(qa.len(), 10);
    let ids: HashSet<_> = qa.iter().map(|qa| qa.qa_id.clone()).collect();
    assert_eq!(ids.len(), 10);
    for line in lines("../deploy/demo/demo_trajectories.jsonl") {
        let published = parse_trajectory_line(line.as_bytes()).unwrap();
        assert!(qa.contains(&published.qa), "{}", published.qa.question);
    }
}

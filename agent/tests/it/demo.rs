//! The small sample that `make demo` imports.

use std::collections::HashSet;

use webdancer_agent::conversation::{prompt_date, render_messages};
use webdancer_agent::profile::Profile;
use webdancer_agent::published::{Importer, messages_of_line, parse_qa_line, parse_trajectory_line};
use webdancer_agent::tool::{ObservationLimits, Outcome, Web as _};
use webdancer_agent::web::Recorded;
use webdancer_schemas::kind::Kind;

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

#[test]
fn the_demo_files_give_one_event_per_trajectory_and_distinct_question() {
    let mut importer = Importer::new("digest", "2026-01-01T00:00:00Z".parse().unwrap());
    let mut events = Vec::new();
    for (line, number) in lines("../deploy/demo/demo_trajectories.jsonl").iter().zip(1..) {
        events.extend(importer.trajectory(number, line.as_bytes()).unwrap());
    }
    for line in lines("../deploy/demo/demo_qa.jsonl") {
        events.push(importer.qa(line.as_bytes()).unwrap());
    }
    let distinct =
        |kind| events.iter().filter(|event| event.kind() == kind).map(|event| event.id()).collect::<HashSet<_>>().len();
    assert_eq!((distinct(Kind::Trajectory), distinct(Kind::Qa)), (8, 10));
    for event in &events {
        event.kind().check_row(event.data.get()).unwrap();
    }
}

#[test]
fn a_profile_of_the_demo_file_renders_its_messages_byte_for_byte() {
    let lines = lines("../deploy/demo/demo_trajectories.jsonl");
    let profile = Profile::from_published("demo", lines.iter().map(String::as_bytes)).unwrap();
    let profile = Profile::from_json(&profile.to_json()).unwrap();
    for line in &lines {
        let messages = messages_of_line(line.as_bytes()).unwrap();
        let date = prompt_date(&messages[0].content).unwrap();
        assert_eq!(profile.system_message(date), messages[0].content);
        let question = parse_trajectory_line(line.as_bytes()).unwrap().trajectory.question.unwrap();
        assert_eq!(format!("{}{question}", profile.user_prefix(&[])), messages[1].content);
    }
}

#[tokio::test]
async fn the_observations_of_the_demo_file_are_served_again_whole_and_in_parts() {
    let mut web = Recorded::new("demo", ObservationLimits::default());
    let rows: Vec<_> = lines("../deploy/demo/demo_trajectories.jsonl")
        .iter()
        .map(|line| parse_trajectory_line(line.as_bytes()).unwrap().trajectory)
        .collect();
    rows.iter().for_each(|row| web.add(row));
    let (mut whole, mut parts) = (0, 0);
    for row in &rows {
        for (tool, arguments) in row.turn_tool.iter().flatten().zip(row.turn_arguments.iter().flatten()) {
            assert_eq!(web.call(tool, arguments).await.outcome, Outcome::Done);
            whole += 1;
            let arguments: serde_json::Value = serde_json::from_str(arguments).unwrap();
            for query in arguments["query"].as_array().into_iter().flatten() {
                let found = web.call(tool, &serde_json::json!({"query": [query]}).to_string()).await;
                assert!(found.text.starts_with(&format!("A Google search for '{}' found ", query.as_str().unwrap())));
                assert_eq!(found.text.matches("A Google search for '").count(), 1);
                parts += 1;
            }
        }
    }
    assert_eq!((whole, parts), (13, 10));
}

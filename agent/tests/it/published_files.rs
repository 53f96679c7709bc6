//! The real published files, where `WEBDANCER_PUBLISHED` names the folder that has them: the project does not ship them.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use webdancer_agent::conversation::{prompt_date, render_messages};
use webdancer_agent::profile::Profile;
use webdancer_agent::published::{Importer, messages_of_line, parse_qa_line, parse_trajectory_line};
use webdancer_agent::tool::{ObservationLimits, Outcome, Web as _};
use webdancer_agent::web::Recorded;
use webdancer_schemas::kind::Kind;

/// The lines of a published file, or None with a message where no folder is named.
fn published(name: &str) -> Option<Vec<Vec<u8>>> {
    let Some(folder) = std::env::var_os("WEBDANCER_PUBLISHED") else {
        // Past the harness, which shows nothing of a test that passes.
        let line = "skipped: WEBDANCER_PUBLISHED names no folder; `demo.rs` tests the same of the files that ship\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    };
    let file = std::fs::File::open(PathBuf::from(folder).join(name)).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    Some(bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

#[test]
fn all_published_trajectories_parse_and_render_back_byte_for_byte() {
    let Some(lines) = published("sample_traj.jsonl.gz") else { return };
    let (mut turns, mut calls, mut observations) = (0, 0, 0);
    let (mut questions, mut ids, mut prefixes) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (index, line) in lines.iter().enumerate() {
        let row = parse_trajectory_line(line).unwrap_or_else(|e| panic!("line {}: {e}", index + 1)).trajectory;
        assert_eq!(render_messages(&row).unwrap(), messages_of_line(line).unwrap(), "line {}", index + 1);
        assert!(row.turn_raw.iter().all(Option::is_none), "line {} is not canonical", index + 1);
        turns += row.n_turns;
        calls += row.n_tool_calls;
        observations += row.turn_observation.iter().flatten().count();
        ids.insert(row.trajectory_id);
        questions.insert(row.qa_id);
        prefixes.insert(row.user_prefix.unwrap().chars().count());
    }
    assert_eq!((lines.len(), turns, calls, observations), (200, 422, 222, 222));
    assert_eq!((ids.len(), questions.len()), (200, 173));
    assert_eq!(prefixes, HashSet::from([2_309]), "2,303 characters and `User: `");
}

#[test]
fn the_published_files_give_one_event_per_trajectory_and_distinct_question() {
    let (Some(trajectories), Some(questions)) = (published("sample_traj.jsonl.gz"), published("sample_qa.jsonl.gz"))
    else {
        return;
    };
    let time = "2025-07-18T00:00:00Z".parse().unwrap();
    let mut importer = Importer::new("digest", time);
    let mut events = Vec::new();
    for (line, number) in trajectories.iter().zip(1..) {
        events.extend(importer.trajectory(number, line).unwrap());
    }
    let distinct = |events: &[webdancer_schemas::event::Event], kind| {
        events.iter().filter(|event| event.kind() == kind).map(|event| event.id()).collect::<HashSet<_>>().len()
    };
    assert_eq!((distinct(&events, Kind::Trajectory), distinct(&events, Kind::Qa)), (200, 173));
    for line in &questions {
        parse_qa_line(line).unwrap();
        events.push(importer.qa(line).unwrap());
    }
    // 200 questions in the other file, of which one stands in both.
    assert_eq!(distinct(&events, Kind::Qa), 173 + 200 - 1);
    for event in &events {
        event.kind().check_row(event.data.get()).unwrap();
    }
}

#[test]
fn a_profile_of_the_published_file_renders_its_messages_byte_for_byte() {
    let Some(lines) = published("sample_traj.jsonl.gz") else { return };
    let profile = Profile::from_published("published", lines.iter().map(Vec::as_slice)).unwrap();
    let profile = Profile::from_json(&profile.to_json()).unwrap();
    let mut dates = HashSet::new();
    for (index, line) in lines.iter().enumerate() {
        let messages = messages_of_line(line).unwrap();
        let date = prompt_date(&messages[0].content).unwrap();
        assert_eq!(profile.system_message(date), messages[0].content, "line {}", index + 1);
        let question = parse_trajectory_line(line).unwrap().trajectory.question.unwrap();
        assert_eq!(format!("{}{question}", profile.user_prefix(&[])), messages[1].content, "line {}", index + 1);
        dates.insert(date);
    }
    assert_eq!(dates.len(), 155);
    assert_eq!(
        profile.observations.chars_max, 16_283,
        "the longest observation of the file, its line break not counted"
    );
}

#[test]
fn the_observations_of_the_published_file_are_served_again_whole_and_in_parts() {
    let Some(lines) = published("sample_traj.jsonl.gz") else { return };
    let mut web = Recorded::new("published", ObservationLimits::default());
    let rows: Vec<_> = lines.iter().map(|line| parse_trajectory_line(line).unwrap().trajectory).collect();
    rows.iter().for_each(|row| web.add(row));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut whole, mut parts) = (0, 0);
    for row in &rows {
        for (turn, tool) in row.turn_tool.iter().enumerate() {
            let (Some(tool), Some(arguments)) = (tool, &row.turn_arguments[turn]) else { continue };
            let found = runtime.block_on(web.call(tool, arguments));
            assert_eq!(found.outcome, Outcome::Done);
            whole += 1;
            // A query of several, asked alone: the section of the observation that is its own.
            let arguments: serde_json::Value = serde_json::from_str(arguments).unwrap();
            for query in arguments["query"].as_array().into_iter().flatten() {
                let alone = serde_json::json!({"query": [query]}).to_string();
                let found = runtime.block_on(web.call(tool, &alone));
                assert_eq!(found.outcome, Outcome::Done);
                assert!(found.text.starts_with(&format!("A Google search for '{}' found ", query.as_str().unwrap())));
                assert_eq!(found.text.matches("A Google search for '").count(), 1);
                parts += 1;
            }
        }
    }
    assert_eq!((whole, parts), (222, 588));
}

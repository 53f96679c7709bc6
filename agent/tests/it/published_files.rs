//! The real published files, where they lie beside the checkout.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::PathBuf;

use webdancer_agent::conversation::render_messages;
use webdancer_agent::published::{Importer, messages_of_line, parse_qa_line, parse_trajectory_line};
use webdancer_schemas::kind::Kind;

/// The lines of a published file, or None with a message where it is absent.
fn published(name: &str) -> Option<Vec<Vec<u8>>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/webdancer").join(name);
    let Ok(file) = std::fs::File::open(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    };
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

//! Handwritten lines in the published format, good and bad.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use webdancer_agent::conversation::{RenderError, parse_messages, prompt_date, render_messages};
use webdancer_agent::published::{
    Importer, SOURCE, line_event_id, messages_of_line, parse_qa_line, parse_trajectory_line, qa_id,
};
use webdancer_schemas::column::JsonText;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::Trajectory;
use webdancer_schemas::wire::{parse_structured, structured};

use crate::lines;

const TRAJECTORIES: &str = "tests/fixtures/trajectories.jsonl";

fn trajectory(line: usize) -> Trajectory {
    parse_trajectory_line(lines(TRAJECTORIES)[line - 1].as_bytes()).unwrap().trajectory
}

fn data(event: &webdancer_schemas::event::Event) -> Value {
    serde_json::from_str(event.data.get()).unwrap()
}

fn noon() -> DateTime<Utc> {
    "2026-03-04T12:00:00Z".parse().unwrap()
}

#[test]
fn every_good_line_renders_back_to_its_messages() {
    let lines = lines(TRAJECTORIES);
    assert_eq!(lines.len(), 7);
    for (index, line) in lines.iter().enumerate() {
        let published = parse_trajectory_line(line.as_bytes()).unwrap_or_else(|e| panic!("line {}: {e}", index + 1));
        let messages = messages_of_line(line.as_bytes()).unwrap();
        assert_eq!(render_messages(&published.trajectory).unwrap(), messages, "line {}", index + 1);
    }
}

#[test]
fn a_line_becomes_a_row_with_every_part_in_its_column() {
    let row = trajectory(1);
    assert_eq!(row.system_prompt.as_deref(), Some("You look things up before you answer.\nCurrent date: 2026-01-01"));
    assert!(row.user_prefix.as_deref().unwrap().ends_with("\n</tools>\n\nUser: "));
    assert_eq!(row.question.as_deref(), Some("Which river flows through Maribor?"));
    assert_eq!(row.qa_id, "qa-efcd9903328752b6876bc3992189636d");
    assert_eq!(row.answer.as_deref(), Some("The Drava."));
    assert_eq!(row.termination, "answer");
    assert_eq!((row.attempt, row.n_turns, row.n_tool_calls), (0, 3, 2));
    assert_eq!(
        row.turn_thought[0].as_deref(),
        Some("Maribor is in Slovenia.\n\nI search for its river, and for \"Drau\", the German name.")
    );
    assert_eq!(row.turn_tool, [Some("search".to_string()), Some("visit".to_string()), None]);
    assert_eq!(
        row.turn_arguments,
        [
            Some(
                r#"{"query": ["river through Maribor", "Drau \"Maribor\"", "Maribor old town river bank"]}"#
                    .to_string()
            ),
            Some(r#"{"url": ["https://gazetteer.example/maribor"], "goal": "Name of the river"}"#.to_string()),
            None,
        ]
    );
    assert!(row.turn_observation[0].as_deref().unwrap().contains("\n=======\n"));
    assert_eq!(row.turn_observation[2], None);
    assert_eq!(
        row.turn_observation_digest[1].as_deref(),
        Some("229fe3862d1382543477517b7a4359789059f96dd2565a39f6cfff4d47ce0d68")
    );
    assert_eq!(row.turn_observation_digest[2], None);
    assert_eq!(row.turn_raw, [None, None, None]);
}

#[test]
fn text_that_the_parts_do_not_render_back_to_is_kept_raw() {
    let row = trajectory(5);
    assert_eq!(row.turn_tool, [Some("search".to_string()), Some("search".to_string()), None]);
    assert_eq!(row.turn_arguments[0].as_deref(), Some(r#"{ "query" : ["peaks of Réunion"] }"#));
    assert_eq!(row.turn_arguments[1].as_deref(), Some(r#"{"query":["Piton des Neiges height"]}"#));
    assert_eq!(
        row.turn_raw,
        [
            None,
            Some("<think> compact </think>\n<tool_call>{\"name\":\"search\",\"arguments\":{\"query\":[\"Piton des Neiges height\"]}}</tool_call>".to_string()),
            Some("<think>\ndone\n</think>\n\n<answer>\nPiton des Neiges\n</answer>\n".to_string()),
        ]
    );
    assert_eq!(row.turn_thought[1].as_deref(), Some(" compact "));
}

#[test]
fn everything_besides_the_messages_is_kept_as_written() {
    let line = &lines(TRAJECTORIES)[3];
    let published = parse_trajectory_line(line.as_bytes()).unwrap();
    assert_eq!(
        published.rest.get(),
        r#"{"type":"chatml","task":"agent/lookup","functions":[{"name_for_model": "search", "parameters": {"properties": {"queries": {}}, "required": ["query"]}}],"tool_calls":[],"answer":[["Lesotho", "Kingdom of Lesotho"]],"tag":"crawlqa","weight":1.50,"serial":123456789012345678901234567890}"#
    );
    let event = &Importer::new("d", noon()).trajectory(4, line.as_bytes()).unwrap()[1];
    assert!(event.data.get().ends_with(&format!(r#","published":{}}}"#, published.rest.get())));
}

#[test]
fn the_gold_answer_and_tag_become_a_question() {
    let qa = parse_trajectory_line(lines(TRAJECTORIES)[3].as_bytes()).unwrap().qa;
    assert_eq!(qa.qa_id, qa_id("Which country is wholly inside South Africa?"));
    assert_eq!((qa.method.as_str(), qa.answer.as_str()), ("import", "Lesotho"));
    let attributes = json!({"tag": "crawlqa", "answers": ["Lesotho", "Kingdom of Lesotho"]});
    assert_eq!(qa.attributes, Some(JsonText(attributes)));
}

#[test]
fn a_qa_line_keeps_fields_without_a_column_in_attributes() {
    let qa = parse_qa_line(br#"{"question": "Q?", "answer": "A", "tag": "e2hqa", "hops": 2}"#).unwrap();
    assert_eq!((qa.question.as_str(), qa.answer.as_str()), ("Q?", "A"));
    assert_eq!(qa.attributes, Some(JsonText(json!({"tag": "e2hqa", "hops": 2}))));
}

#[test]
fn each_malformed_line_is_rejected_with_field_and_cause() {
    let cases = lines("tests/fixtures/malformed.jsonl");
    assert_eq!(cases.len(), 33);
    let (mut given, mut expected) = (Vec::new(), Vec::new());
    for case in cases {
        let case: Value = serde_json::from_str(&case).unwrap();
        let row = case["row"].as_str().unwrap().as_bytes();
        let rejection = match case["file"].as_str() {
            Some("qa") => parse_qa_line(row).unwrap_err(),
            _ => parse_trajectory_line(row).unwrap_err(),
        };
        given.push(rejection.to_string());
        expected.push(case["error"].as_str().unwrap().to_string());
    }
    assert_eq!(given, expected);
}

#[test]
fn invalid_utf8_is_rejected_with_its_byte() {
    let error = parse_trajectory_line(b"{\"type\": \"\xc3\x28\"}").unwrap_err();
    assert_eq!(error.to_string(), "invalid UTF-8 at byte 10");
}

#[test]
fn ids_are_the_same_whenever_and_however_often_a_file_is_imported() {
    let import = |time| -> Vec<_> {
        let mut importer = Importer::new("digest", time);
        let lines = lines(TRAJECTORIES);
        lines.iter().zip(1..).flat_map(|(line, number)| importer.trajectory(number, line.as_bytes()).unwrap()).collect()
    };
    let (first, second) = (import(noon()), import(Utc::now()));
    assert_eq!(first.len(), 14);
    for (a, b) in first.iter().zip(&second) {
        assert_eq!((a.id(), a.data.get()), (b.id(), b.data.get()));
        assert_eq!(a.envelope.source, SOURCE);
    }
    assert_eq!(first[1].id(), line_event_id(Kind::Trajectory, "digest", 1));
    assert_ne!(first[1].id(), line_event_id(Kind::Trajectory, "other", 1));
    assert_ne!(first[1].id(), line_event_id(Kind::DeadLetter, "digest", 1));
    assert!(first[1].id().to_string().starts_with("00000000-0000-8"), "{}", first[1].id());
}

#[test]
fn a_question_is_one_event_in_whatever_line_or_file_it_stands() {
    let lines = lines(TRAJECTORIES);
    let mut importer = Importer::new("digest", noon());
    let [first, _] = importer.trajectory(1, lines[0].as_bytes()).unwrap();
    let [again, _] = importer.trajectory(2, lines[1].as_bytes()).unwrap();
    let in_qa_file = br#"{"question": "Which river flows through Maribor?", "answer": "Drava", "tag": "e2hqa"}"#;
    let third = Importer::new("other", noon()).qa(in_qa_file).unwrap();
    for other in [&again, &third] {
        assert_eq!((first.id(), first.data.get()), (other.id(), other.data.get()));
    }
    // Another gold answer is another event of the same question.
    let text = String::from_utf8_lossy(in_qa_file).replace("Drava", "Mura");
    let fourth = importer.qa(text.as_bytes()).unwrap();
    assert_eq!(fourth.key(), first.key());
    assert_ne!(fourth.id(), first.id());
}

#[test]
fn attempts_at_a_question_are_numbered_in_the_order_of_the_file() {
    let lines = lines(TRAJECTORIES);
    let mut importer = Importer::new("digest", noon());
    let attempts: Vec<_> = (0..3)
        .map(|index| {
            data(&importer.trajectory(index + 1, lines[index as usize].as_bytes()).unwrap()[1])["attempt"].clone()
        })
        .collect();
    assert_eq!(attempts, [0, 1, 0]);
    assert!(importer.trajectory(4, b"{}").is_err());
}

#[test]
fn an_event_carries_the_date_of_its_prompt_its_question_and_a_row_that_fits() {
    let lines = lines(TRAJECTORIES);
    let mut importer = Importer::new("digest", noon());
    let [question, dated] = importer.trajectory(1, lines[0].as_bytes()).unwrap();
    let [_, undated] = importer.trajectory(6, lines[5].as_bytes()).unwrap();
    assert_eq!(dated.envelope.time.unwrap().to_rfc3339(), "2026-01-01T00:00:00+00:00");
    assert_eq!(undated.envelope.time, Some(noon()));
    assert_eq!(question.envelope.time, Some(noon()));
    assert_eq!(dated.envelope.parents, [question.key()]);
    for event in [&question, &dated, &undated] {
        let bytes = structured(event);
        let (envelope, data) = parse_structured(&bytes).unwrap();
        assert_eq!(envelope, event.envelope);
        envelope.kind.check_row(data.get()).unwrap();
    }
}

#[test]
fn dates_are_read_from_the_last_line_of_a_prompt_only() {
    let date = |text| prompt_date(text).map(|date| date.to_string());
    assert_eq!(date("Seek.\nCurrent date: 2025-07-18").as_deref(), Some("2025-07-18"));
    assert_eq!(date("Seek.\nCurrent date: 2025-07-18\n").as_deref(), Some("2025-07-18"));
    assert_eq!(date("Current date: 2025-07-18\nSeek."), None);
    assert_eq!(date("Current date: 2025-13-18"), None);
    assert_eq!(date("Current date: +99999-01-01"), None);
    assert_eq!(date(""), None);
}

#[test]
fn a_row_that_lacks_parts_is_not_rendered() {
    let row = trajectory(1);
    let broken = |change: fn(&mut Trajectory)| {
        let mut row = row.clone();
        change(&mut row);
        render_messages(&row).unwrap_err().to_string()
    };
    assert_eq!(broken(|row| row.question = None), "the trajectory has no question to render");
    assert_eq!(
        broken(|row| row.turn_raw.truncate(1)),
        "turn_raw has 1 elements, turn_thought has 3: one per turn is needed"
    );
    assert_eq!(
        broken(|row| row.turn_arguments[1] = None),
        "turn 1 has no raw text and lacks its thought, its tool with arguments, or the answer"
    );
    assert_eq!(broken(|row| row.turn_observation[0] = None), "turn 0 has no observation, and another turn follows");
    let mut unanswered = row.clone();
    unanswered.answer = None;
    assert_eq!(render_messages(&unanswered), Err(RenderError::PartsMissing { turn: 2 }));
}

#[test]
fn messages_without_a_file_are_a_conversation_too() {
    let messages = messages_of_line(lines(TRAJECTORIES)[0].as_bytes()).unwrap();
    let row = parse_messages(&messages).unwrap();
    assert_eq!((row.trajectory_id.as_str(), row.qa_id.as_str()), ("", ""));
    assert_eq!(render_messages(&row).unwrap(), messages);
}

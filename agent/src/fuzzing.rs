//! The fuzz entry point.

use crate::conversation::{parse_messages, prompt_date, render_messages};
use crate::format::{FormatError, parse_observation, parse_turn, render_observation};
use crate::profile::Profile;
use crate::published::{Importer, messages_of_line, parse_qa_line, parse_trajectory_line};

/// Hands `bytes` to every parser of this crate, as a line of each file and as a message.
///
/// # Panics
/// Only when a promise is broken: a parser panicked, an accepted text does not render back to itself, an error points
/// outside its text, or an event holds data that its kind's row does not accept.
pub fn fuzz_one(bytes: &[u8]) {
    fuzz_line(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        fuzz_message(text);
    }
}

fn fuzz_line(bytes: &[u8]) {
    let mut importer = Importer::new("fuzz", chrono::DateTime::UNIX_EPOCH);
    let events = importer.trajectory(1, bytes);
    match parse_trajectory_line(bytes) {
        Ok(published) => {
            let messages = messages_of_line(bytes);
            assert_eq!(render_messages(&published.trajectory).ok(), messages.ok(), "a trajectory did not render back");
            assert!(events.is_ok(), "a trajectory gave no events: {events:?}");
        }
        Err(rejection) => assert!(events.is_err(), "a rejected line gave events: {rejection}"),
    }
    if let (Ok(profile), Ok(messages)) = (Profile::from_published("fuzz", [bytes]), messages_of_line(bytes)) {
        let [system, user, ..] = messages.as_slice() else { return };
        let date = prompt_date(&system.content).unwrap_or_default();
        assert_eq!(profile.system_message(date), system.content, "a profile renders another system message");
        assert!(user.content.starts_with(&profile.user_prefix(&[])), "a profile renders another user message");
    }
    let questions = importer.qa(bytes);
    assert_eq!(questions.is_ok(), parse_qa_line(bytes).is_ok(), "a question and its event disagree");
    for event in events.into_iter().flatten().chain(questions) {
        let checked = event.kind().check_row(event.data.get());
        assert!(checked.is_ok(), "{} data does not fit its row: {checked:?}", event.kind());
    }
    // Messages reach the turn parser only through a valid line; without this most mutations would stop before it.
    if let Ok(messages) = messages_of_line(bytes) {
        let _ = parse_messages(&messages);
        messages.iter().for_each(|message| fuzz_message(&message.content));
    }
}

fn fuzz_message(text: &str) {
    match parse_turn(text) {
        Ok(turn) => {
            let canonical = turn.render();
            let again = parse_turn(&canonical);
            assert_eq!(again.as_ref(), Ok(&turn), "the canonical form of a turn is another turn");
            assert!(turn.is_rendering_of(&canonical));
        }
        Err(error) => check_offset(&error, text),
    }
    match parse_observation(text) {
        Ok(observation) => assert_eq!(render_observation(observation), text, "an observation did not render back"),
        Err(error) => check_offset(&error, text),
    }
}

fn check_offset(error: &FormatError, text: &str) {
    assert!(text.is_char_boundary(error.offset()), "an error points outside its text: {error}");
    assert!(error.to_string().len() <= 2_000, "an error quotes too much of its input");
}

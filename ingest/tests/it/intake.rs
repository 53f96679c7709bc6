//! Lines in, events acknowledged.

use std::collections::HashSet;
use std::sync::Mutex;

use webdancer_ingest::intake::{IntakeOptions, append_lines};
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog, LogError};

/// A log that keeps what it is offered, and fails from the given event on.
#[derive(Debug, Default)]
struct Memory {
    events: Mutex<Vec<Event>>,
    fail_from: Option<usize>,
}

#[async_trait::async_trait]
impl EventLog for Memory {
    async fn append(&self, events: Vec<Event>) -> Result<(), LogError> {
        let mut kept = self.events.lock().unwrap();
        if self.fail_from.is_some_and(|from| kept.len() + events.len() > from) {
            return Err(LogError::Unavailable("down".into()));
        }
        kept.extend(events);
        Ok(())
    }
}

fn lines(n: usize) -> String {
    (0..n)
        .map(|i| {
            format!(
                r#"{{"specversion":"1.0","id":"{i}","source":"py","type":"webdancer.metric.v1","data":{{"name":"loss","step":{i},"value":1}}}}"#
            ) + "\n"
        })
        .collect()
}

#[tokio::test]
async fn time_and_subject_are_filled_and_foreign_ids_kept() {
    let log = Memory::default();
    append_lines(&log, std::io::Cursor::new(lines(1)), "-", &IntakeOptions::default(), |_| {}).await.unwrap();
    let events = log.events.lock().unwrap();
    let envelope = &events[0].envelope;
    assert!(envelope.time.is_some());
    assert_eq!(envelope.subject.as_deref(), Some("loss"));
    assert_eq!(envelope.source_event_id.as_deref(), Some("0"));
    assert_eq!(envelope.id.uuid().get_version_num(), 5);
}

#[tokio::test]
async fn ids_are_told_in_order_and_only_of_what_is_durable() {
    let log = Memory { fail_from: Some(20), ..Memory::default() };
    let options = IntakeOptions { batch_events: 10, ..IntakeOptions::default() };
    let mut told = Vec::new();
    let error =
        append_lines(&log, std::io::Cursor::new(lines(30)), "-", &options, |id| told.push(id)).await.unwrap_err();
    assert!(error.to_string().contains("down"), "{error}");
    let kept: Vec<_> = log.events.lock().unwrap().iter().map(Event::id).collect();
    assert_eq!(told, kept);
}

#[tokio::test]
async fn a_line_without_its_end_and_windows_line_ends_are_read() {
    let log = Memory::default();
    let text = lines(2).replace('\n', "\r\n");
    let report =
        append_lines(&log, std::io::Cursor::new(text.trim_end().to_string()), "-", &IntakeOptions::default(), |_| {})
            .await
            .unwrap();
    assert_eq!((report.acknowledged, report.rejected), (2, 0));
}

#[tokio::test]
async fn a_bad_line_is_a_dead_letter_of_its_own_and_the_same_one_when_offered_again() {
    let log = Memory::default();
    let text = format!("nonsense\n{}\nnonsense\n", lines(1));
    for name in ["a.ndjson", "a.ndjson", "b.ndjson"] {
        let report =
            append_lines(&log, std::io::Cursor::new(text.clone()), name, &IntakeOptions::default(), |_| {}).await;
        assert_eq!(report.unwrap().rejected, 2);
    }
    let events = log.events.lock().unwrap();
    let letters: Vec<_> = events.iter().filter(|event| event.kind() == Kind::DeadLetter).collect();
    let ids: Vec<_> = letters.iter().map(|event| event.id()).collect();
    assert_eq!(ids[..2], ids[2..4], "a file that is offered again");
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 4, "two lines of two files");
    let lines = letters.iter().map(|event| {
        let row: serde_json::Value = serde_json::from_str(event.data.get()).unwrap();
        row["source_line"].as_i64().unwrap()
    });
    assert_eq!(lines.collect::<Vec<_>>(), [1, 4, 1, 4, 1, 4]);
}

//! What a reader without the right to gated benchmarks sees of a lake.

use std::sync::atomic::Ordering;

use serde_json::json;
use webdancer_query::lineage::{LineageLimits, lineage};
use webdancer_query::output::Format;
use webdancer_query::{QueryEngine, QueryOptions, pin};
use webdancer_schemas::kind::Kind;

use crate::support::{Memory, csv, epoch, try_csv};

fn engine() -> QueryEngine {
    with_gated(Memory::default()).engine()
}

fn with_gated(lake: Memory) -> Memory {
    with_attempts(lake).with(
        Kind::Judgment,
        &[
            json!({"trajectory_id": "t1", "stage": "correctness", "verdict": "pass"}),
            json!({"trajectory_id": "t2", "stage": "correctness", "verdict": "fail", "rationale": "it is A2"}),
        ],
    )
}

/// An open question and a gated one, with an attempt at each.
fn with_attempts(lake: Memory) -> Memory {
    let attributes = r#"{"restricted":true}"#;
    lake.with(
            Kind::Qa,
            &[
                json!({"qa_id": "open", "method": "crawlqa", "question": "Q1", "answer": "A1"}),
                json!({"qa_id": "gated", "method": "benchmark", "question": "Q2", "answer": "A2", "attributes": attributes}),
            ],
        )
        .with(
            Kind::Trajectory,
            &[
                json!({"trajectory_id": "t1", "qa_id": "open", "n_turns": 1, "turn_tool": [null]}),
                json!({"trajectory_id": "t2", "qa_id": "gated", "n_turns": 2, "turn_tool": ["search", null], "restricted": true}),
            ],
        )
}

async fn count(engine: &QueryEngine, from: &str, restricted: bool) -> i64 {
    let options = QueryOptions { restricted, ..QueryOptions::default() };
    let mut result = engine.query(&format!("SELECT count(*) AS n FROM {from}"), &options).await.unwrap();
    let batches = result.read_all().await.unwrap();
    let column = arrow::compute::cast(batches[0].column(0), &arrow::datatypes::DataType::Int64).unwrap();
    arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&column).value(0)
}

#[tokio::test]
async fn gated_rows_are_in_no_table_no_view_and_no_older_version() {
    let engine = engine();
    for (from, all, open) in [
        ("qa", 2, 1),
        ("trajectories", 2, 1),
        ("judgments", 2, 1),
        ("turns", 3, 1),
        ("tool_calls", 1, 0),
        ("current_qa", 2, 1),
        ("current_judgments", 2, 1),
        ("evaluations", 2, 1),
        ("at('trajectories', 0)", 2, 1),
        ("at('judgments', 0)", 2, 1),
        ("trajectories AS a JOIN judgments AS b ON a.trajectory_id = b.trajectory_id", 2, 1),
    ] {
        assert_eq!(count(&engine, from, true).await, all, "{from} with the right");
        assert_eq!(count(&engine, from, false).await, open, "{from} without the right");
    }
}

#[tokio::test]
async fn the_lists_of_gated_trajectories_are_in_no_view_under_a_condition_either() {
    let engine = engine();
    let sql = "SELECT trajectory_id, n_turns, turn_tool[1] AS tool FROM current_trajectories \
               WHERE qa_id IN ('open', 'gated') ORDER BY 1";
    assert_eq!(as_reader(&engine, sql).await.unwrap(), ["t1,1,"]);
    assert_eq!(csv(&engine, sql).await, ["t1,1,", "t2,2,search"]);
}

#[tokio::test]
async fn a_judgment_that_is_ahead_of_its_trajectory_says_itself_that_it_is_gated() {
    let of = |id: &str, criteria: &str| json!({"trajectory_id": id, "stage": "correctness", "verdict": "pass", "rationale": "A3", "criteria": criteria});
    let judgments = [of("late", r#"{"restricted":true}"#), of("open", r#"{"restricted":false}"#), of("other", "{}")];
    let engine = Memory::default().with(Kind::Judgment, &judgments).engine();
    assert_eq!(count(&engine, "judgments", true).await, 3);
    assert_eq!(count(&engine, "judgments", false).await, 2);
}

/// As above, but that no attempt says of itself that it is gated.
fn with_silent_attempts() -> Memory {
    let attributes = r#"{"restricted": true}"#;
    let question =
        |id: &str| json!({"qa_id": id, "method": "benchmark", "question": format!("what is {id}?"), "answer": "A"});
    let mut gated = question("gated");
    gated["attributes"] = json!(attributes);
    let judged = |id: &str| json!({"trajectory_id": id, "stage": "correctness", "verdict": "pass"});
    Memory::default()
        // One of the rows that tell of the question says so.
        .with(Kind::Qa, &[question("open"), gated, question("gated")])
        .with(
            Kind::Trajectory,
            &[
                json!({"trajectory_id": "t1", "qa_id": "open", "n_turns": 1, "turn_tool": [null], "answer": "open to all"}),
                json!({"trajectory_id": "t2", "qa_id": "gated", "n_turns": 2, "turn_tool": ["search", null], "answer": "secret"}),
                json!({"trajectory_id": "t3", "qa_id": "unknown", "n_turns": 1, "turn_tool": [null], "restricted": false}),
            ],
        )
        .with(Kind::Judgment, &["t1", "t2", "t3"].map(judged))
}

#[tokio::test]
async fn a_question_is_gated_in_all_its_rows_and_so_is_an_attempt_at_it_whether_they_say_so_or_not() {
    let engine = with_silent_attempts().engine();
    for (from, all, open) in [
        ("qa", 3, 1),
        ("current_qa", 2, 1),
        ("at('qa', 0)", 3, 1),
        ("trajectories", 3, 2),
        ("current_trajectories", 3, 2),
        ("at('trajectories', 0)", 3, 2),
        ("judgments", 3, 2),
        ("evaluations", 3, 2),
        ("turns", 4, 2),
        ("tool_calls", 1, 0),
    ] {
        assert_eq!(count(&engine, from, true).await, all, "{from} with the right");
        assert_eq!(count(&engine, from, false).await, open, "{from} without the right");
    }
    assert_eq!(as_reader(&engine, "SELECT trajectory_id FROM judgments ORDER BY 1").await.unwrap(), ["t1", "t3"]);
    // What is known of one thing is told to anybody.
    for (id, said, is_told) in [
        ("trajectory:t1", "open to all", true),
        ("trajectory:t2", "secret", false),
        ("question:open", "what is open?", true),
        ("question:gated", "what is gated?", false),
    ] {
        let found = lineage(&engine, id, &LineageLimits::default()).await.unwrap();
        assert_eq!(json!(found).to_string().contains(said), is_told, "{id}");
    }
}

#[tokio::test]
async fn a_question_that_came_to_be_gated_is_gone_from_older_versions_and_pins_too() {
    let question = |attributes: &str| json!({"qa_id": "q", "method": "benchmark", "question": "Q", "answer": "A", "attributes": attributes});
    let (before, gated) = (question("{}"), question(r#"{"restricted": true}"#));
    let lake = Memory::default().with(Kind::Qa, std::slice::from_ref(&before)).with(Kind::Qa, &[before, gated]);
    let newest = lake.newest_max.clone();
    newest.store(0, Ordering::Relaxed);
    let engine = lake.engine();
    pinned(&engine, "ids", "SELECT qa_id, question, attributes FROM qa").await;
    pinned(&engine, "texts", "SELECT question, attributes FROM qa").await;
    assert_eq!(count(&engine, "qa", false).await, 1);
    assert_eq!(as_reader(&engine, "SELECT question FROM pin('texts')").await, Ok(vec!["Q".to_string()]));
    newest.store(1, Ordering::Relaxed);
    for (from, all) in [("qa", 2), ("at('qa', 0)", 1), ("pin('ids')", 1)] {
        assert_eq!(count(&engine, from, true).await, all, "{from} with the right");
        assert_eq!(count(&engine, from, false).await, 0, "{from} without the right");
    }
    let told = as_reader(&engine, "SELECT * FROM pin('texts')").await.unwrap_err();
    assert!(told.contains("with the columns `qa_id` and `attributes`"), "{told}");
    for (name, due) in [("ids", "refused: 1 rows of pin ids"), ("texts", "refused: pin texts was made of qa")] {
        let manifest = engine.catalog().find_pin(name).await.unwrap();
        let told = pin::check_open(&engine, &manifest).await.unwrap_err().to_string();
        assert!(told.starts_with(due), "{told}");
    }
}

#[tokio::test]
async fn the_flag_of_an_attempt_tells_nothing_of_a_question_or_a_verdict_that_has_none() {
    let gated = r#"{"restricted": true}"#;
    let lake = Memory::default()
        .with(
            Kind::Qa,
            &[
                json!({"qa_id": "open", "method": "crawlqa", "question": "Q1", "answer": "A1"}),
                json!({"qa_id": "gated", "method": "benchmark", "question": "Q2", "answer": "A2", "attributes": gated}),
            ],
        )
        .with(Kind::Trajectory, &[json!({"trajectory_id": "t1", "qa_id": "open", "answer": "A1", "restricted": false})])
        .with(
            Kind::Judgment,
            &[
                json!({"trajectory_id": "t1", "stage": "correctness", "verdict": "pass", "rationale": "it is A1"}),
                json!({"trajectory_id": "late", "stage": "correctness", "verdict": "fail", "rationale": "it is A2", "criteria": gated}),
            ],
        );
    let engine = lake.engine();
    let asked = "FROM qa q LEFT JOIN trajectories t ON t.qa_id = q.qa_id";
    let judged = "FROM judgments j LEFT JOIN trajectories t ON t.trajectory_id = j.trajectory_id";
    // Its own id tells of a question, and no id of neither.
    pinned(&engine, "asked", &format!("SELECT q.qa_id, q.question AS said, t.restricted {asked}")).await;
    pinned(&engine, "attempted", &format!("SELECT t.qa_id, q.question AS said, t.restricted {asked}")).await;
    pinned(&engine, "judged", &format!("SELECT t.qa_id, j.rationale AS said, t.restricted {judged}")).await;
    for (name, open) in [("asked", "Q1"), ("attempted", "Q1"), ("judged", "it is A1")] {
        let left = as_reader(&engine, &format!("SELECT said FROM pin('{name}')")).await;
        assert_eq!(left, Ok(vec![open.to_string()]), "{name}");
        let manifest = engine.catalog().find_pin(name).await.unwrap();
        let told = pin::check_open(&engine, &manifest).await.unwrap_err().to_string();
        assert!(told.starts_with(&format!("refused: 1 rows of pin {name} are of gated questions")), "{told}");
    }
    pinned(&engine, "questions", &format!("SELECT q.question, q.answer, t.restricted {asked}")).await;
    pinned(&engine, "reasons", &format!("SELECT j.rationale, t.restricted {judged}")).await;
    for (name, due) in [("questions", "pin questions was made of qa"), ("reasons", "pin reasons was made of judgments")]
    {
        let told = as_reader(&engine, &format!("SELECT * FROM pin('{name}')")).await.unwrap_err();
        assert!(told.starts_with(&format!("refused: {due}")), "{told}");
        let manifest = engine.catalog().find_pin(name).await.unwrap();
        assert!(pin::check_open(&engine, &manifest).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_pins_verdicts_are_gated_by_their_trajectories_and_leave_by_an_export_where_they_say_so() {
    let silent = with_silent_attempts().engine();
    pinned(&silent, "verdicts", "SELECT * FROM judgments").await;
    let open = as_reader(&silent, "SELECT trajectory_id FROM pin('verdicts') ORDER BY 1").await;
    assert_eq!(open.unwrap(), ["t1", "t3"]);
    let verdicts = silent.catalog().find_pin("verdicts").await.unwrap();
    let told = pin::check_open(&silent, &verdicts).await.unwrap_err().to_string();
    assert!(told.starts_with("refused: 1 rows of pin verdicts are of gated questions and do not say so"), "{told}");

    let of = |id: &str, criteria: &str| json!({"trajectory_id": id, "stage": "correctness", "verdict": "pass", "criteria": criteria});
    let judgments = [of("t1", "{}"), of("t2", r#"{"restricted": true}"#), of("late", r#"{"restricted": true}"#)];
    let engine = with_attempts(Memory::default()).with(Kind::Judgment, &judgments).engine();
    pinned(&engine, "verdicts", "SELECT * FROM judgments").await;
    let open = as_reader(&engine, "SELECT trajectory_id FROM pin('verdicts')").await;
    assert_eq!(open, Ok(vec!["t1".to_string()]));
    let verdicts = engine.catalog().find_pin("verdicts").await.unwrap();
    pin::check_open(&engine, &verdicts).await.unwrap();
    let (written, left_out) = pin::export(engine.catalog(), &verdicts, Format::Csv, Vec::new()).await.unwrap();
    let written = String::from_utf8(written).unwrap();
    assert_eq!((written.lines().count(), left_out), (2, 2), "{written}");
    assert!(written.contains("t1"), "{written}");
}

#[tokio::test]
async fn a_pins_attempts_are_gated_by_their_questions_and_leave_by_no_export() {
    let engine = with_silent_attempts().engine();
    pinned(&engine, "asked", "SELECT trajectory_id, qa_id, restricted FROM trajectories").await;
    let open = as_reader(&engine, "SELECT trajectory_id FROM pin('asked') ORDER BY 1").await;
    assert_eq!(open.unwrap(), ["t1", "t3"]);
    // An export goes by what rows say of themselves.
    let asked = engine.catalog().find_pin("asked").await.unwrap();
    let told = pin::check_open(&engine, &asked).await.unwrap_err().to_string();
    assert!(told.starts_with("refused: 1 rows of pin asked are of gated questions and do not say so"), "{told}");
    let without = "SELECT trajectory_id, qa_id, restricted FROM trajectories WHERE qa_id NOT IN \
        (SELECT qa_id FROM qa WHERE json_get_bool(attributes, 'restricted'))";
    pinned(&engine, "without", without).await;
    let without = engine.catalog().find_pin("without").await.unwrap();
    pin::check_open(&engine, &without).await.unwrap();
    // The flag alone tells nothing here.
    pinned(&engine, "flags", "SELECT trajectory_id, restricted FROM trajectories").await;
    let told = as_reader(&engine, "SELECT * FROM pin('flags')").await.unwrap_err();
    assert!(told.contains("with the columns `restricted` and `qa_id`"), "{told}");
}

/// Pins a query's rows under the name.
async fn pinned(engine: &QueryEngine, name: &str, sql: &str) {
    pin::create(engine, name, sql, epoch()).await.unwrap();
}

async fn as_reader(engine: &QueryEngine, sql: &str) -> Result<Vec<String>, String> {
    let options = QueryOptions { restricted: false, ..QueryOptions::default() };
    try_csv(engine, sql, &options).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_pin_gives_open_rows_where_they_say_so_and_is_refused_where_they_do_not() {
    let engine = engine();
    pinned(&engine, "flagged", "SELECT answer AS said, trajectory_id, restricted FROM trajectories").await;
    pinned(&engine, "questions", "SELECT question AS q, attributes FROM qa").await;
    let open = as_reader(&engine, "SELECT trajectory_id FROM pin('flagged')").await;
    assert_eq!(open, Ok(vec!["t1".to_string()]));
    assert_eq!(as_reader(&engine, "SELECT q FROM pin('questions')").await, Ok(vec!["Q1".to_string()]));

    pinned(&engine, "renamed", "SELECT question AS q, answer AS a, attributes AS extra FROM qa").await;
    pinned(&engine, "reasons", "SELECT rationale AS why, criteria FROM judgments").await;
    pinned(&engine, "older", "SELECT question AS q FROM at('qa', 0)").await;
    pinned(&engine, "viewed", "SELECT question AS q FROM current_qa").await;
    pinned(&engine, "nested", "SELECT q AS again FROM pin('renamed')").await;
    // The attributes are the question's, and tell nothing of the attempt.
    pinned(&engine, "joined", "SELECT t.trajectory_id, q.attributes FROM trajectories t LEFT JOIN qa q ON false").await;
    for (name, table) in [
        ("renamed", "qa"),
        ("reasons", "judgments"),
        ("older", "qa"),
        ("viewed", "qa"),
        ("nested", "qa"),
        ("joined", "trajectories"),
    ] {
        let told = as_reader(&engine, &format!("SELECT * FROM pin('{name}')")).await.unwrap_err();
        let due = format!("refused: pin {name} was made of {table} with rows of gated benchmarks");
        assert!(told.starts_with(&due), "{told}");
        assert_eq!(count(&engine, &format!("pin('{name}')"), true).await, 2, "{name} with the right");
        let manifest = engine.catalog().find_pin(name).await.unwrap();
        assert!(pin::check_open(&engine, &manifest).await.unwrap_err().to_string().starts_with(&due), "{name}");
    }
    let flagged = engine.catalog().find_pin("flagged").await.unwrap();
    pin::check_open(&engine, &flagged).await.unwrap();
    // What was made of nothing gated is nobody's secret.
    pinned(&engine, "steps", "SELECT count(*) AS n FROM metrics").await;
    assert_eq!(as_reader(&engine, "SELECT n FROM pin('steps')").await, Ok(vec!["0".to_string()]));
}

#[tokio::test]
async fn whether_a_pins_rows_tell_is_found_out_once() {
    let before = json!({"qa_id": "open", "method": "crawlqa", "question": "Q1", "answer": "A1"});
    let lake = with_gated(Memory::default().with(Kind::Qa, &[before]));
    let opened = lake.versions_opened.clone();
    let engine = lake.engine();
    pinned(&engine, "then", "SELECT question AS q FROM at('qa', 0)").await;
    pinned(&engine, "now", "SELECT question AS q FROM qa").await;
    for (name, is_open) in [("then", true), ("now", false)] {
        let mut counts = Vec::new();
        for _ in 0..3 {
            assert_eq!(as_reader(&engine, &format!("SELECT q FROM pin('{name}')")).await.is_ok(), is_open, "{name}");
            counts.push(opened.load(Ordering::Relaxed));
        }
        assert_eq!((counts[1], counts[2]), (counts[0], counts[0]), "{name}");
    }
}

#[tokio::test]
async fn a_pin_whose_attempts_come_to_be_of_a_gated_question_is_found_out_again() {
    let question = |attributes: &str| json!({"qa_id": "q", "method": "benchmark", "question": "Q", "answer": "A", "attributes": attributes});
    let lake = Memory::default()
        .with(Kind::Qa, &[question("{}")])
        .with(Kind::Qa, &[question("{}"), question(r#"{"restricted": true}"#)])
        .with(Kind::Trajectory, &[json!({"trajectory_id": "t1", "qa_id": "q"})]);
    let newest = lake.newest_max.clone();
    newest.store(0, Ordering::Relaxed);
    let engine = lake.engine();
    pinned(&engine, "ids", "SELECT trajectory_id FROM trajectories").await;
    for _ in 0..2 {
        assert_eq!(as_reader(&engine, "SELECT * FROM pin('ids')").await, Ok(vec!["t1".to_string()]));
    }
    newest.store(1, Ordering::Relaxed);
    assert!(as_reader(&engine, "SELECT * FROM pin('ids')").await.is_err());
}

#[tokio::test]
async fn a_pin_of_a_time_before_there_were_gated_rows_is_open() {
    let before = json!({"qa_id": "open", "method": "crawlqa", "question": "Q1", "answer": "A1"});
    let engine = with_gated(Memory::default().with(Kind::Qa, &[before])).engine();
    pinned(&engine, "then", "SELECT question AS q FROM at('qa', 0)").await;
    pinned(&engine, "now", "SELECT question AS q FROM qa").await;
    assert_eq!(as_reader(&engine, "SELECT q FROM pin('then')").await, Ok(vec!["Q1".to_string()]));
    assert!(as_reader(&engine, "SELECT q FROM pin('now')").await.is_err());
}

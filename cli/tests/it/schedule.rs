//! `webdancer eval schedule`: slots that are asked for, and what is told of them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use webdancer_tests::stub_model::{Answer, StubModel};

use crate::eval_run::site;
use crate::lake::{PLACES, document, sql};
use crate::{text, webdancer};

/// A schedule that does not come by itself while a test runs.
const SCHEDULE: &str = "[[schedule]]\nname = \"yearly\"\ncron = \"0 0 29 2 *\"\npolicies = [\"endpoint:stub\"]\n\
    benchmarks = [\"bridges\"]\nattempts = 2\nweb = \"closed:pages\"\njudge = \"none\"\ncanary = { questions = 1 }\n";

/// A policy that knows every designer, until it has forgotten them.
fn models(runtime: &Runtime, has_forgotten: Arc<AtomicBool>) -> StubModel {
    runtime.block_on(StubModel::scripted(move |asked, _| {
        let told = asked.body["messages"][1]["content"].as_str().unwrap();
        let question = told.rsplit("User: ").next().unwrap();
        let (_, designer, _) = PLACES.into_iter().find(|(place, ..)| question.contains(place)).unwrap();
        let answer = if has_forgotten.load(Ordering::Relaxed) { "Nobody" } else { designer };
        Answer::says(format!("<think>\nI know.\n</think>\n<answer>\n{answer}\n</answer>"))
    }))
}

fn add(folder: &Path, settings: &str) {
    let file = folder.join("webdancer.toml");
    let held = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{held}\n{settings}")).unwrap();
}

/// A server that takes one request, and its body.
fn receiver() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hooks/T0P-SECRET", listener.local_addr().unwrap());
    let (tell, taken) = mpsc::channel();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            match line.to_lowercase().strip_prefix("content-length:") {
                Some(told) => length = told.trim().parse().unwrap(),
                None if line == "\r\n" => break,
                None => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        tell.send(String::from_utf8(body).unwrap()).unwrap();
    });
    (url, taken)
}

#[test]
fn a_slot_that_is_asked_for_is_run_and_one_that_is_worse_is_told_to_the_webhook() {
    let runtime = Runtime::new().unwrap();
    let has_forgotten = Arc::new(AtomicBool::new(false));
    let model = models(&runtime, has_forgotten.clone());
    let folder = site(&model);
    let folder = folder.path();
    // Six, since fewer that all change alike could do so by chance.
    let rows = PLACES[..3].iter().flat_map(|(place, designer, _)| {
        [format!("Who designed the bridge at {place}?"), format!("Whose design is the bridge at {place}?")]
            .map(|question| json!({"q": question, "gold": designer, "level": 1}).to_string())
    });
    std::fs::write(folder.join("bridges.jsonl"), rows.collect::<Vec<_>>().join("\n")).unwrap();
    add(folder, SCHEDULE);
    let first = document(folder, 0, &["eval", "schedule", "run-now", "yearly"]);
    assert_eq!((&first[0]["state"], &first[0]["schedule"]), (&json!("finished"), &json!("yearly")));
    // One attempt at one question, then the eleven others of the same run.
    assert_eq!(model.asked().len(), 12);
    let runs =
        "SELECT kind, state, json_get_int(config, 'attempts') AS attempts, seed FROM run_state WHERE kind = 'eval'";
    assert_eq!(sql(folder, runs), json!([{"kind": "eval", "state": "finished", "attempts": 2, "seed": 0}]));
    let cells = "SELECT s.state, s.policy, s.benchmark, s.run_id = r.run_id AS is_of_run FROM slots AS s, run_state AS r \
        WHERE r.kind = 'eval' AND s.policy IS NOT NULL ORDER BY s.event_time, s.event_id";
    let cell = |state| json!({"state": state, "policy": "endpoint:stub", "benchmark": "bridges", "is_of_run": true});
    assert_eq!(sql(folder, cells), json!(["canary", "started", "finished"].map(cell)));

    has_forgotten.store(true, Ordering::Relaxed);
    let (url, taken) = receiver();
    std::fs::write(folder.join("url"), url).unwrap();
    add(
        folder,
        &format!(
            "baseline = \"slot:{}\"\n[scheduler.alert]\nurl_file = \"url\"\n",
            first[0]["slot_time"].as_str().unwrap()
        ),
    );
    let second = document(folder, 0, &["eval", "schedule", "run-now", "yearly"]);
    let alert: Value = serde_json::from_str(&taken.recv_timeout(Duration::from_secs(120)).unwrap()).unwrap();
    assert_eq!((&alert["id"], &alert["cells_compared"]), (&second[0]["slot_id"], &json!(1)));
    let worse = &alert["regressions"][0];
    assert_eq!((&worse["before"], &worse["after"], &worse["broken_count"]), (&json!(1.0), &json!(0.0), &json!(6)));
    // The benchmark is gated.
    assert_eq!(worse["broken"][0]["question"], Value::Null);
    assert!(alert["text"].as_str().unwrap().contains("endpoint:stub × bridges: 100.0 % → 0.0 %"), "{alert}");
    assert!(!alert.to_string().contains("the bridge at"), "{alert}");

    let shown = document(folder, 0, &["eval", "schedule", "show", "yearly", "--slots", "1"]);
    let states: Vec<&str> =
        shown["events"].as_array().unwrap().iter().map(|event| event["state"].as_str().unwrap()).collect();
    let due = ["requested", "claimed", "canary", "started", "finished", "finished", "regression", "alerted"];
    assert_eq!(states, due);
    // What is null is there, as in the rows of `sql`.
    assert_eq!(shown["events"][0].as_object().unwrap().get("run_id"), Some(&Value::Null));
    let listed = document(folder, 0, &["eval", "schedule", "list"]);
    assert_eq!((&listed[0]["last"]["state"], &listed[0]["paused"]), (&json!("finished"), &Value::Null));
    let everything = sql(folder, "SELECT * FROM slots").to_string();
    assert!(!everything.contains("T0P-SECRET") && !shown.to_string().contains("T0P-SECRET"));
}

#[test]
fn a_pause_holds_for_every_process_until_it_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("webdancer.toml"), SCHEDULE.replace("0 0 29 2 *", "* * * * * *")).unwrap();
    let pause = |word: &str| document(folder, 0, &["eval", "schedule", word, "yearly"])["changed"].clone();
    assert_eq!((pause("resume"), pause("pause"), pause("pause")), (json!(false), json!(true), json!(false)));
    assert!(document(folder, 0, &["eval", "schedule", "list"])[0]["paused"]["since"].is_string());
    let once = document(folder, 0, &["eval", "schedule", "run", "--once"]);
    assert_eq!(once, json!([]));
    assert_eq!(pause("resume"), json!(true));
    assert_eq!(document(folder, 0, &["eval", "schedule", "list"])[0]["paused"], Value::Null);
    assert_eq!(
        sql(folder, "SELECT state FROM slots ORDER BY event_time"),
        json!([{"state": "paused"}, {"state": "resumed"}])
    );
}

#[test]
fn what_is_wrong_with_a_schedule_is_one_line_and_nothing_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let check = |settings: &str| {
        std::fs::write(folder.join("s.toml"), settings).unwrap();
        let output = webdancer(folder, &["eval", "schedule", "check", "s.toml"], b"");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let benchmark = "[benchmarks.bridges]\nfile = \"x.jsonl\"\n";
    let (code, told, _) = check(&format!("{SCHEDULE}{benchmark}"));
    assert_eq!(code, Some(0));
    assert!(told.starts_with("yearly: 1 runs a slot; next 20") && told.ends_with("\n1 schedules in order\n"), "{told}");
    for (settings, due) in [
        (SCHEDULE.to_string(), "s.toml: schedule yearly: "),
        (format!("{benchmark}{}", SCHEDULE.replace("29 2", "32 2")), "s.toml: schedule yearly: cron: "),
        (format!("{SCHEDULE}crom = 1\n"), "s.toml:10:1: unknown field `crom`"),
        (
            format!("{benchmark}[scheduler.alert]\nurl_env = \"WEBDANCER_NO_SUCH\"\n"),
            "s.toml: scheduler.alert.url_env: the environment variable",
        ),
    ] {
        let (code, _, told) = check(&settings);
        assert!(code == Some(2) && told.contains(due) && told.lines().count() == 1, "{told}");
    }
    for arguments in [&["run-now", "nightly"][..], &["pause", "nightly"], &["show", "nightly"], &["run"]] {
        let output = webdancer(folder, &[&["eval", "schedule"], arguments].concat(), b"");
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains("there "), "{arguments:?}: {told}");
    }
}

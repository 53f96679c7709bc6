//! Every page of the dashboard in a real Chromium, over a lake with text that tries to be more than text.
//!
//! `tests/browser/check.py` says what is wrong with a page; here is which lake and which pages it is given, and what they
//! must show.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{LIMIT, Running, Site, repository, wait_for};
use crate::servers;

/// Text that a browser must only ever show: markup, handlers, links, marks of direction, terminal codes.
const HOSTILE: &str = "<script>window.hostile=1</script><img src=x onerror=\"window.hostile=1\"> \
    [click](javascript:window.hostile=1) <a href=\"http://elsewhere.example/\">away</a> \u{202e}desrever \u{1b}[31mred\u{1b}[0m \
    </textarea></pre></script><svg onload=window.hostile=1> {{7*7}} 'x' \"y\"";

/// An event on a line.
fn event(kind: &str, subject: &str, number: usize, run: Option<&str>, data: Value) -> String {
    let mut event = json!({
        "specversion": "1.0",
        "id": format!("0190a6b2-0000-7000-8000-{number:012}"),
        "source": "tests/browser",
        "type": format!("webdancer.{kind}.v1"),
        "time": format!("2026-11-20T10:{:02}:{:02}Z", number / 60 % 60, number % 60),
        "subject": subject,
        "data": data,
    });
    if let Some(run) = run {
        event["runid"] = json!(run);
    }
    event.to_string()
}

fn digest(of: usize) -> String {
    format!("{of:064x}")
}

/// Events of one lake, in the order in which they are made.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, kind: &str, subject: &str, run: Option<&str>, data: Value) {
        self.0.push(event(kind, subject, self.0.len(), run, data));
    }

    fn run(&mut self, run: &str, kind: &str, config: &Value, pin: Option<&str>) {
        for state in ["started", "finished"] {
            let data = json!({"kind": kind, "state": state, "config": config, "code_version": "0.1.0", "seed": 7, "pin_id": pin});
            self.add("run", run, Some(run), data);
        }
    }
}

/// A lake with something on every page.
fn lines() -> Vec<String> {
    let mut lines = Lines::default();
    for number in 0..3 {
        let url = format!("http://site.example/{number}");
        let text = format!("# Page {number}\n\n{HOSTILE}\n");
        lines.add("page", &url, Some("crawl-1"), json!({
            "url": url, "final_url": url, "root_url": "http://site.example/0", "depth": number, "status": 200,
            "content_type": "text/html", "title": format!("Page {number} {HOSTILE}"), "text": text,
            "links": ["http://site.example/1", "javascript:window.hostile=1"], "digest": digest(number), "language": "eng", "fetch_ms": 12,
        }));
    }
    lines.run("crawl-1", "crawl", &json!({}), None);
    for number in 0..4 {
        let qa = format!("qa-{number}");
        let (method, restricted) = if number == 3 { ("benchmark", true) } else { ("crawlqa", false) };
        let attributes = json!({"restricted": restricted, "benchmark": "gated"});
        let question =
            if restricted { "GATEDQUESTION?".to_string() } else { format!("Which is capital {number}? {HOSTILE}") };
        let answer = if restricted { "GATEDGOLD".to_string() } else { format!("City {number}") };
        lines.add("qa", &qa, None, json!({
            "qa_id": qa, "method": method, "question": question, "answer": answer, "type": "multi-hop", "language": "eng",
            "entity_chain": ["A", "B"], "evidence_page_digests": [digest(0)], "attributes": attributes,
        }));
    }
    let policies = [("run-a", "model-one"), ("run-b", "model-two")];
    let config = json!({"policy": "model", "web": "live", "benchmark": {"name": "own"}});
    for (run, policy) in policies {
        lines.run(run, "eval", &config, None);
        for number in 0..4 {
            for attempt in 0..2 {
                trajectory(&mut lines, run, policy, number, attempt);
            }
        }
    }
    // One that is being made.
    let config = json!({"policy": "model", "web": "live", "attempts": 2, "qa_ids": ["qa-0", "qa-1", "qa-2", "qa-3"]});
    lines.add("run", "run-c", Some("run-c"), json!({"kind": "eval", "state": "started", "config": config}));
    trajectory(&mut lines, "run-c", "model-one", 1, 0);
    training(&mut lines);
    schedule(&mut lines);
    lines.0
}

/// A slot of a schedule that made `run-a`.
fn schedule(lines: &mut Lines) {
    let slot = |state: &str| json!({"slot_id": "slot-1", "schedule": "nightly", "slot_time": "2026-11-20T03:00:00Z", "state": state, "holder": "host/1"});
    let mut cell = slot("finished");
    cell.as_object_mut()
        .unwrap()
        .extend(json!({"policy": "model-one", "benchmark": "own", "reason": HOSTILE}).as_object().unwrap().clone());
    lines.add("slot", "slot-1", None, slot("claimed"));
    lines.add("slot", "slot-1", Some("run-a"), cell);
    lines.add("slot", "slot-1", None, slot("finished"));
}

fn trajectory(lines: &mut Lines, run: &str, policy: &str, number: usize, attempt: usize) {
    let (id, qa) = (format!("t-{run}-{number}-{attempt}"), format!("qa-{number}"));
    // One of them is long.
    let turns = if number == 0 && attempt == 0 { 260 } else { 3 };
    let last = turns - 1;
    let of = |turn: usize, value: Value| if turn == last { Value::Null } else { value };
    let each = |value: &dyn Fn(usize) -> Value| (0..turns).map(value).collect::<Vec<Value>>();
    let arguments = json!({"url": ["http://site.example/0"], "goal": HOSTILE}).to_string();
    let restricted = number == 3;
    let thought = |turn: usize| {
        json!(format!("Thought {turn} of {policy}. {}", format!("{HOSTILE}\n").repeat(1 + 14 * (turn % 2))))
    };
    let answer = if restricted { "GATEDANSWER".to_string() } else { format!("City {} {HOSTILE}", number + attempt) };
    lines.add("trajectory", &id, Some(run), json!({
        "trajectory_id": id, "qa_id": qa, "policy_model": policy, "policy_version": 1, "attempt": attempt, "seed": 3,
        "sampling_parameters": {"temperature": 0.6}, "prompt_profile": "standard",
        "question": if restricted { "GATEDQUESTION?".to_string() } else { format!("Which is capital {number}? {HOSTILE}") },
        "answer": answer, "termination": "answer", "n_turns": turns, "n_tool_calls": last, "input_tokens": 900, "output_tokens": 90,
        "restricted": restricted,
        "turn_thought": each(&thought),
        "turn_tool": each(&|turn| of(turn, json!("visit"))),
        "turn_arguments": each(&|turn| of(turn, json!(arguments))),
        "turn_observation": each(&|turn| of(turn, json!(format!("{HOSTILE}\n\n\n\n\nseen {turn}")))),
        "turn_observation_digest": each(&|turn| of(turn, json!(digest(100 + turn)))),
        "turn_raw": each(&|_| Value::Null),
        "turn_ms": each(&|turn| json!(100 * (turn + 1))),
        "turn_outcome": each(&|turn| of(turn, json!(if turn == 1 { "miss" } else { "done" }))),
        "turn_input_tokens": each(&|turn| json!(100 * (turn + 1))),
        "turn_output_tokens": each(&|_| json!(30)),
        "turn_context_token_ids": each(&|_| json!([1, 2, 3])),
        "turn_completion_token_ids": each(&|_| json!([40, 41, 42])),
        "turn_log_probs": each(&|_| json!([-0.01, -1.2, -6.0])),
    }));
    let right = (number + attempt).is_multiple_of(2);
    for (stage, verdict) in
        [("validity", "pass"), ("correctness", if right { "pass" } else { "fail" }), ("quality", "pass")]
    {
        lines.add("judgment", &id, None, json!({
            "trajectory_id": id, "stage": stage, "verdict": verdict, "judge": "gaia", "rationale": format!("because {HOSTILE}"),
            "criteria": {"reason": "wrong_answer"}, "rule_version": 1,
        }));
    }
    lines.add("reward", &id, None, json!({
        "trajectory_id": id, "group_id": qa, "format": 1.0, "answer": if right { 1.0 } else { 0.0 }, "reward": 0.1 + 0.9 * f64::from(u8::from(right)),
    }));
}

fn training(lines: &mut Lines) {
    lines.run("train-1", "dapo", &json!({"config": {"preset": "demo"}}), None);
    for step in 1..=20 {
        for (name, value, unit) in [
            ("policy_loss", 1.0 / step as f64, "nat"),
            ("reward", step as f64 / 20.0, ""),
            ("entropy", 0.5, "nat"),
            ("clip_fraction.low", 0.01, "1"),
            ("written_tokens", 80.0, "token"),
        ] {
            lines.add(
                "metric",
                name,
                Some("train-1"),
                json!({"name": name, "step": step, "value": value, "unit": unit}),
            );
        }
    }
    lines.add(
        "checkpoint",
        &digest(9),
        Some("train-1"),
        json!({"digest": digest(9), "step": 20, "uri": "/lake/runs/train-1/checkpoints/step-20"}),
    );
}

/// `webdancer serve` on a port of its own, and its address.
fn serve(site: &Site) -> (Running, String) {
    let address = format!("127.0.0.1:{}", servers::free_ports());
    let mut server = site.spawn(&["serve", "--listen", &address]);
    wait_for("answer from the dashboard", LIMIT, || {
        server.assert_running();
        std::net::TcpStream::connect(&address).ok()
    });
    (server, format!("http://{address}"))
}

/// Opens pages in the browser, and gives the report; None where there is no browser and none is required.
fn check(base: &str, task: &Value) -> Option<Value> {
    let python = servers::browser()?;
    let mut child = Command::new(python)
        .arg(repository("tests/browser/check.py"))
        .arg(base)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(task.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    Some(serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("check.py: {e}: {told}")))
}

fn pages() -> Value {
    let (one, gated) = ("t-run-a-1-0", "t-run-a-3-0");
    let script = "<script>window.hostile=1</script>";
    json!([
        {"path": "/", "shows": ["webdancer"]},
        {"path": "/runs", "shows": ["run-a", "run-b", "train-1"]},
        {"path": "/runs/run-a", "shows": [script, "Questions across, attempts down", "1 of 4 questions are left out"]},
        {"path": "/runs/run-c", "shows": ["Under way", "1 of 8 attempts"]},
        {"path": "/compare?before=run-a&after=run-b", "shows": ["Questions fixed", "can't tell"]},
        {"path": "/schedules/slot-1", "shows": [script, "model-one", "claimed"]},
        {"path": "/trajectories", "shows": ["17", "model-one", "▲ pass", "▼ fail"]},
        {"path": "/trajectories?f.verdict=fail&sort=-turns", "shows": ["▼ fail"]},
        {"path": format!("/trajectories/{one}"), "shows": [script, "U+202E", "U+001B", "City 1", "Thought 0 of model-one", "▼ fail"]},
        {"path": format!("/trajectories/{one}?turn=2&view=raw"), "shows": ["<think>", "<tool_call>"]},
        {"path": format!("/trajectories/{one}?turn=2&view=tokens"), "shows": ["3 tokens, trained", "40"]},
        {"path": format!("/trajectories/{one}?against=t-run-b-1-0"), "shows": ["3 calls in common", "model-two", script]},
        {"path": "/trajectories/t-run-a-0-0?turn=201", "shows": ["Turn 201", "201 to 260", "earlier turns"]},
        {"path": format!("/trajectories/{gated}"), "shows": ["gated benchmark"]},
        {"path": "/data", "shows": ["sampled", "accepted", "sft_pool"]},
        {"path": "/questions", "shows": ["qa-0", "City 0"]},
        {"path": "/questions/qa-1", "shows": [script, "City 1", "Attempts at this question"]},
        {"path": "/pages", "shows": ["Page 2"]},
        {"path": format!("/pages/{}", digest(1)), "shows": [script, "http://site.example/1"]},
        {"path": "/training", "shows": ["train-1", "Loss"]},
        {"path": "/training/train-1", "shows": ["entropy", "checkpoint", "Clipped tokens"]},
        {"path": "/pins", "shows": ["questions"]},
        {"path": "/pins/questions", "shows": ["SELECT qa_id, question FROM qa WHERE method", "digest of schema and rows"]},
        {"path": "/sql", "shows": ["Examples"]},
        {"path": "/sql?sql=SELECT+question,+answer,+1+AS+n+FROM+qa&chart=bars", "shows": [script, "3 rows"]},
        {"path": "/sql?sql=DELETE+FROM+qa", "shows": ["refused"]},
        {"path": format!("/lineage/{one}"), "shows": ["trajectory", "question", "qa-1"]},
        {"path": "/search?q=capital", "shows": ["qa-0", "qa-1"]},
        {"path": "/search?q=nothing+like+it", "shows": ["Nothing in this lake"]},
    ])
}

#[test]
fn every_page_renders_is_accessible_and_shows_hostile_text_as_text() {
    let site = Site::new("");
    site.append(&lines());
    site.ok(&["ingest", "--until-caught-up"]);
    site.ok(&["pin", "create", "questions", "--sql", "SELECT qa_id, question FROM qa WHERE method = 'crawlqa'"]);
    site.ok(&["ingest", "--until-caught-up"]);
    let (_server, base) = serve(&site);
    let task = json!({
        "pages": pages(),
        "keyboard": {
            "list": "/trajectories?sort=trajectory", "opens": "/trajectories/t-run-a-0-0",
            "attempt": "/trajectories/t-run-a-1-0", "next": "/trajectories/t-run-a-1-1",
        },
        "never": ["GATEDQUESTION", "GATEDGOLD", "GATEDANSWER"],
    });
    let Some(report) = check(&base, &task) else { return };
    let findings = report["findings"].as_array().unwrap();
    let listed: Vec<String> =
        findings.iter().take(60).map(|f| format!("{}: {}: {}", f["page"], f["how"], f["what"])).collect();
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), listed.join("\n"));
    let opened = report["opened"].as_array().unwrap().len();
    assert!(opened >= pages().as_array().unwrap().len(), "{opened} pages were opened");
}

#[test]
fn a_page_of_a_long_trajectory_has_one_turn_and_a_window_of_the_rail() {
    let site = Site::new("");
    site.append(&lines());
    site.ok(&["ingest", "--until-caught-up"]);
    let (_server, base) = serve(&site);
    let get = |path: &str| {
        let output = Command::new("curl").args(["-sS", "--max-time", "60", &format!("{base}{path}")]).output().unwrap();
        assert!(output.status.success(), "{path}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let page = get("/trajectories/t-run-a-0-0?turn=130");
    assert!(
        page.contains("Thought 129 of model-one")
            && !page.contains("Thought 128 of")
            && !page.contains("Thought 130 of")
    );
    assert_eq!(page.matches("class=\"step\"").count(), 100);
    let whole = get("/trajectories/t-run-a-0-0/turns/130/thought");
    assert!(whole.starts_with("Thought 129 of model-one. <script>"), "{whole}");
}

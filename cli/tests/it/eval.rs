//! `webdancer eval`: reports and comparisons over recorded attempts.

use std::path::Path;

use serde_json::{Value, json};

use crate::lake::{append, document};
use crate::{text, webdancer};

fn event(kind: &str, id: &str, run: &str, data: &Value) -> String {
    let r#type = format!("webdancer.{kind}.v1");
    json!({"specversion": "1.0", "id": id, "source": "test", "type": r#type, "runid": run, "data": data}).to_string()
}

/// A trajectory with one search, and its verdict: None is a judge's failure.
fn attempt(run: &str, question: usize, attempt: usize, answer: Option<&str>, correct: Option<bool>) -> Vec<String> {
    let id = format!("{run}-{question}-{attempt}");
    let trajectory = json!({
        "trajectory_id": id, "qa_id": format!("q{question}"), "policy_model": format!("model of {run}"),
        "attempt": attempt, "question": format!("Question {question}?"), "answer": answer,
        "termination": if answer.is_some() { "answer" } else { "calls" }, "n_turns": 2, "n_tool_calls": 1,
        "input_tokens": 500, "output_tokens": 50, "turn_thought": ["a", "b"], "turn_tool": [if attempt == 2 { "calculate" } else { "search" }, null],
        "turn_arguments": ["{}", null], "turn_observation": ["…", null], "turn_observation_digest": ["d", null],
        "turn_raw": [null, null], "turn_ms": [1500, 500], "turn_outcome": [if question == 0 { "miss" } else { "done" }, null],
    });
    let verdict = match correct {
        None => "error",
        Some(true) => "pass",
        Some(false) => "fail",
    };
    let judgment = json!({
        "trajectory_id": id, "stage": "correctness", "verdict": verdict, "judge": "normalised", "rule_version": 7,
        "criteria": {"judged_by": {"rules": {"version": 1}}},
    });
    let judged = answer.map(|_| event("judgment", &format!("judged-{id}"), run, &judgment));
    [event("trajectory", &id, run, &trajectory)].into_iter().chain(judged).collect()
}

/// A lake with forty questions of two levels. Run `a` gets the first ten right, `b` the first twenty but the very first,
/// once each; `c` has three attempts at four questions.
fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut events: Vec<String> = (0..40)
        .map(|i| {
            let attributes = json!({"benchmark": "mine", "level": i % 2 + 1});
            let row = json!({"qa_id": format!("q{i}"), "method": "benchmark", "question": format!("Question {i}?"),
                             "answer": "x", "attributes": attributes});
            event("qa", &format!("qa-{i}"), "import", &row)
        })
        .collect();
    events.extend((0..40).flat_map(|i| attempt("a", i, 0, Some("x"), Some(i < 10))));
    events.extend((0..40).flat_map(|i| attempt("b", i, 0, Some("x"), Some(i != 0 && i < 20))));
    let three = [["1,000", "1000", "7"], ["x", "y", "z"], ["x", "x", "y"], ["x", "x", "x"]];
    let right = [[true, true, false], [false, false, true], [false, false, false], [true, true, true]];
    for (question, (answers, right)) in three.iter().zip(right).enumerate() {
        let attempts = answers.iter().zip(right).enumerate();
        events.extend(attempts.flat_map(|(n, (answer, right))| attempt("c", question, n, Some(answer), Some(right))));
    }
    append(folder.path(), &events);
    folder
}

fn shown(folder: &Path, arguments: &[&str]) -> String {
    let output = webdancer(folder, arguments, b"");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn runs_are_reported_compared_and_refused() {
    let folder = lake();
    let folder = folder.path();
    let reports = document(folder, 0, &["eval", "report", "--run", "c"]);
    let report = &reports[0];
    assert_eq!(
        (&report["run_id"], &report["attempts_each"], &report["judges"]),
        (&json!("c"), &json!(3), &json!(["normalised v1"]))
    );
    let score = |value: &Value| (value["value"].as_f64().unwrap() * 1e6).round() / 1e6;
    assert_eq!(score(&report["pass_at_1"]), 0.5);
    let at = &report["at_k"][0];
    assert_eq!((score(&at["pass_at_k"]), score(&at["pass_hat_k"])), (0.75, 0.25));
    // `1,000` and `1000` outvote 7; three answers tie, one is right; the wrong majority; the right one.
    assert_eq!(score(&at["maj_at_k"]), ((1.0 + 1.0 / 3.0 + 1.0) / 4.0 * 1e6f64).round() / 1e6);
    assert_eq!((&report["effort"]["wall_ms"]["p50"], &report["effort"]["calls"]), (&json!(2000.0), &json!(12)));
    // The answer, `x`, is too short to have been seen.
    assert_eq!((&report["effort"]["over_action"], &report["effort"]["tool_time"]), (&Value::Null, &Value::Null));
    assert_eq!((&report["effort"]["calls_failed"], &report["effort"]["calls_invented"]), (&json!(0.25), &json!(4)));

    let reports = document(folder, 0, &["eval", "report", "--benchmark", "mine"]);
    let ids: Vec<&str> = reports.as_array().unwrap().iter().map(|report| report["run_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let slices = reports[0]["slices"].as_array().unwrap();
    assert_eq!(
        (slices.len(), &slices[0]["by"], &slices[0]["value"], &slices[0]["coverage"]["questions"]),
        (2, &json!("level"), &json!("1"), &json!(20))
    );

    let comparison = document(folder, 0, &["eval", "compare", "a", "b", "--svg", "compare.svg"]);
    assert_eq!(score(&comparison["difference"]), 0.225);
    assert_eq!((comparison["fixed"].as_array().unwrap().len(), &comparison["broken"][0]["qa_id"]), (10, &json!("q0")));
    assert_eq!(comparison["broken"][0]["trajectories_after"], json!(["b-0-0"]));
    // Of eleven questions that changed one or none was broken: 2 · 12 / 2¹¹.
    assert!((comparison["mcnemar_p"].as_f64().unwrap() - 24.0 / 2048.0).abs() < 1e-12);
    assert!(std::fs::read_to_string(folder.join("compare.svg")).unwrap().starts_with("<svg "));

    let said = shown(folder, &["eval", "compare", "a", "b"]);
    assert!(said.contains("Fixed: 10 questions") && said.contains("The second run is better: +22.5 ["), "{said}");
    let markdown = shown(folder, &["eval", "report", "--run", "a", "--markdown", "--by", "level"]);
    assert!(markdown.contains("| level 1 | 20 | 25.0 \\["), "{markdown}");
    let table = shown(folder, &["eval", "report"]);
    assert_eq!(table.lines().count(), 7, "{table}");
    // The third has four questions.
    assert_eq!(table.matches("]†").count(), 3, "{table}");
    assert!(table.ends_with("note: † fewer than 20 clusters of questions: rough\n"), "{table}");

    for (arguments, part) in [
        (&["eval", "report", "--run", "nothing"][..], "run \"nothing\" has no attempts"),
        (&["eval", "report", "--benchmark", "o'hara"], "of a benchmark \"o'hara\""),
        (&["eval", "compare", "a", "a"], "compared with itself"),
        (&["eval", "compare", "a", "nothing"], "run \"nothing\" has no attempts"),
        (&["--json", "eval", "report", "--markdown"], "--markdown and --json"),
        (&["eval", "report", "--k", "0"], "0 is not in 1.."),
    ] {
        let output = webdancer(folder, arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(part), "{arguments:?}: {}", text(&output.stderr));
    }

    // A run too much of which nobody knows is not compared.
    let unknown: Vec<String> = (0..40).flat_map(|i| attempt("d", i, 0, Some("x"), (i > 1).then_some(true))).collect();
    append(folder, &unknown);
    let output = webdancer(folder, &["eval", "compare", "a", "d"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("only 95.0 % of the attempts of run d"), "{}", text(&output.stderr));
}

/// A question about a designer, and an attempt at it by a checkpoint of the model `m` that saw him in the first of two calls.
fn seen(run: &str) -> Vec<String> {
    let question = json!({"qa_id": "q", "method": "import", "question": "Who designed it?", "answer": "Ida Storm"});
    let trajectory = json!({
        "trajectory_id": format!("{run}-q"), "qa_id": "q", "policy_model": "m", "policy_checkpoint_digest": "c1",
        "attempt": 0, "question": "Who designed it?", "answer": "Ida Storm", "termination": "answer", "n_turns": 3,
        "n_tool_calls": 2, "input_tokens": 1_000_000, "output_tokens": 500_000, "turn_thought": ["a", "b", "c"],
        "turn_tool": ["search", "visit", null], "turn_arguments": ["{}", "{}", null],
        "turn_observation": ["Ida Storm designed it.", "…", null], "turn_observation_digest": ["d", "d", null],
        "turn_raw": [null, null, null], "turn_ms": [1, 1, 1], "turn_outcome": ["done", "done", null],
    });
    vec![
        event("qa", &format!("qa-{run}"), "import", &question),
        event("trajectory", &format!("{run}-q"), run, &trajectory),
    ]
}

#[test]
fn over_action_is_told_where_a_run_is_shown_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    append(folder, &seen("a"));
    let is_told = |arguments: &[&str]| shown(folder, arguments).contains("after the answer was seen");
    assert!(is_told(&["eval", "report"]), "the one run of the lake");
    append(folder, &seen("b"));
    assert!(is_told(&["eval", "report", "--run", "a"]));
    assert!(!is_told(&["eval", "report"]) && !is_told(&["eval", "report", "--run", "a", "--run", "b"]));
    let reports = document(folder, 0, &["eval", "report", "--run", "a", "--run", "b"]);
    let calls = |report: &Value| report["effort"]["over_action"]["calls"].clone();
    assert_eq!([calls(&reports[0]), calls(&reports[1])], [json!(1), json!(1)]);
    // Of a whole lake no observation is read.
    assert_eq!(calls(&document(folder, 0, &["eval", "report"])[0]), Value::Null);
}

#[test]
fn tokens_cost_what_the_endpoint_that_acted_asks_whatever_checkpoint_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let endpoint = |name: &str, price| {
        format!("[endpoints.{name}]\nurl = \"http://h/v1\"\nmodel = \"m\"\nprice_output = {price}\n")
    };
    std::fs::write(folder.join("webdancer.toml"), [endpoint("cheap", "2.0"), endpoint("dear", "8.0")].concat())
        .unwrap();
    let told = |run: &str, kind: &str, policy: &str| {
        let row = json!({"kind": kind, "state": "started", "config": {"policy": policy}});
        event("run", &format!("{run}-started"), run, &row)
    };
    let mut events = [seen("a"), seen("b"), seen("c")].concat();
    events.extend([told("a", "eval", "endpoint:cheap"), told("b", "sample", "endpoint:dear")]);
    append(folder, &events);
    let reports = document(folder, 0, &["eval", "report"]);
    let costs: Vec<&Value> = reports.as_array().unwrap().iter().map(|report| &report["effort"]["cost"]).collect();
    // Half a million tokens; of the third run nobody knows which endpoint it was.
    assert_eq!(costs, [&json!(1.0), &json!(4.0), &Value::Null]);
    assert_eq!(reports[0]["policies"], json!(["m c1"]));
}

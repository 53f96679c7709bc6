//! `webdancer synth`: questions once, however often they are asked for.

use serde_json::{Value, json};

use super::{text, webdancer};

#[test]
fn questions_about_the_atlas_are_written_once_whichever_run_comes_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &str| -> Value {
        let arguments: Vec<&str> = ["--lake", "l", "--json"].into_iter().chain(arguments.split(' ')).collect();
        let output = webdancer(folder.path(), &arguments, b"");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let sql = |query: &str| {
        let output = webdancer(folder.path(), &["--lake", "l", "sql", "--json", query], b"");
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    };
    let one = run("synth crawlqa --atlas --invent 3 --count 16");
    assert_eq!((&one["questions"], &one["events"], &one["world"]), (&json!(16), &json!(18), &json!("invented:3")));
    assert_eq!(one["by_type"]["yes-no"], 2);
    let again = run("synth crawlqa --atlas --invent 3 --count 16");
    assert_eq!(one["run_id"], again["run_id"]);
    let more = run("synth crawlqa --atlas --invent 3 --count 24");
    assert_eq!(more["questions"], 24);
    let count = "SELECT count(*) AS rows, count(DISTINCT qa_id) AS questions FROM qa WHERE method = ";
    assert_eq!(sql(&format!("{count} 'crawlqa'")), json!([{"rows": 24, "questions": 24}]));
    assert_eq!(sql("SELECT count(*) AS n FROM runs WHERE kind = 'crawlqa'"), json!([{"n": 4}]));

    let rewritten = run("synth e2hqa --atlas --invent 3 --count 6 --rewrites 2");
    let rewrites = rewritten["rewrites"].as_u64().unwrap();
    assert!(rewrites >= 4, "{rewritten}");
    assert_eq!(rewritten["questions"], rewrites + 6);
    run("synth e2hqa --atlas --invent 3 --count 6 --rewrites 2");
    assert_eq!(sql(&format!("{count} 'e2hqa'")), json!([{"rows": rewrites + 6, "questions": rewrites + 6}]));
    let orphans = "SELECT count(*) AS n FROM rewrites r LEFT JOIN qa q ON q.qa_id = r.qa_id AND q.rewrites = r.step \
                   LEFT JOIN qa p ON p.qa_id = q.parent_qa_id WHERE p.qa_id IS NULL OR p.answer <> q.answer";
    assert_eq!(sql(orphans), json!([{"n": 0}]));
}

#[test]
fn what_questions_are_about_must_be_said() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (&["synth", "crawlqa"][..], "--sql QUERY or --pin PIN of crawled ones, by models; or --atlas"),
        (&["synth", "e2hqa"], "--sql QUERY or --pin PIN, by models; or --atlas"),
        (&["synth", "crawlqa", "--invent", "3"], "--atlas"),
        (&["synth", "crawlqa", "--atlas", "--types", "count,riddle"], "\"riddle\" is no type of questions"),
        (&["synth", "crawlqa", "--atlas", "--types", "generic"], "single facts are where e2hqa begins"),
        (&["synth", "e2hqa", "--atlas", "--rewrites", "9"], "9 is not in 0..=8"),
    ] {
        let output = webdancer(folder.path(), arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(part), "{arguments:?}: {}", text(&output.stderr));
    }
}

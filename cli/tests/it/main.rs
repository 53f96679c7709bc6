//! The command line: one clear line and the right exit code for bad input, results that scripts can read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn webdancer(folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_webdancer"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("WEBDANCER_LAKE")
        .env_remove("WEBDANCER_LOG")
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails at once does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn bad_input_gets_one_line_and_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "[lake]\nuri = 3\n").unwrap();
    std::fs::write(folder.path().join("unknown.toml"), "[lake]\nuri_ = \"x\"\n").unwrap();
    std::fs::write(folder.path().join("file"), "not a folder").unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--config", "missing.toml", "sql", "SELECT 1"], 2, "reading missing.toml: No such file"),
        (&["--config", "bad.toml", "sql", "SELECT 1"], 2, "bad.toml: "),
        (&["--config", "unknown.toml", "sql", "SELECT 1"], 2, "unknown field `uri_`"),
        (&["--lake", "gopher://x", "sql", "SELECT 1"], 2, "scheme \"gopher\" is not known"),
        (&["--log", "http://x", "append"], 2, "is not a kafka:// URL"),
        (&["--log", "kafka://user:secret@h:1", "append"], 2, "must not hold a password"),
        (&["append", "missing.ndjson"], 2, "opening missing.ndjson"),
        (&["import", "qa", "missing.jsonl"], 2, "reading missing.jsonl"),
        (&["sql", "DROP TABLE qa"], 2, "refused: DROP TABLE"),
        (&["sql", "SELECT nothing FROM qa"], 2, "nothing"),
        (&["sql", "SELECT * FROM no_such_table"], 1, "no_such_table"),
        (&["sql", "--at", "yesterday", "SELECT 1"], 2, "neither a version"),
        (&["pin", "show", "nothing"], 1, "there is no pin \"nothing\""),
        (&["pin", "create", "x", "--sql", "SELECT random()"], 2, "random"),
        (&["dead-letters", "show", "x' OR 1=1"], 2, "is no event id"),
        (&["maintain", "--tables", "nonsense"], 2, "there is no table \"nonsense\""),
        (&["crawl", "ftp://x"], 2, "give a URL that begins with http://"),
        (&["ingest", "--kinds", "nonsense"], 2, "unknown kind"),
        (&["--lake", "file", "append"], 1, "file"),
    ];
    for (arguments, code, part) in cases {
        let output = webdancer(folder.path(), arguments, b"");
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {message}");
        assert!(message.contains(part), "{arguments:?}: {message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{arguments:?}: {message}");
        assert!(message.starts_with("webdancer: ") && !message.contains("panicked"), "{arguments:?}: {message}");
        assert!(!message.contains("secret"), "{arguments:?}: {message}");
    }
}

#[test]
fn append_then_sql_as_a_script_would() {
    let folder = tempfile::tempdir().unwrap();
    let event = r#"{"specversion":"1.0","id":"1","source":"s","type":"webdancer.metric.v1","data":{"name":"loss","step":1,"value":0.5}}"#;
    let output = webdancer(
        folder.path(),
        &["--lake", "l", "append", "--json"],
        format!("{event}\n{event}\nnonsense\n").as_bytes(),
    );
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report, serde_json::json!({"acknowledged": 2, "rejected": 1}));
    let output =
        webdancer(folder.path(), &["--lake", "l", "sql", "--json", "SELECT name, step, value FROM metrics"], b"");
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows, serde_json::json!([{"name": "loss", "step": 1, "value": 0.5}]));
    assert_eq!(text(&output.stderr), "");
    let output = webdancer(folder.path(), &["--lake", "l", "sql", "SELECT count(*) AS n FROM dead_letters"], b"");
    assert_eq!(text(&output.stdout), "n\n1\n", "elsewhere than on a terminal it is CSV");
}

#[test]
fn a_profile_is_imported_once_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let published = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/demo/demo_trajectories.jsonl");
    let import = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["--lake", "l", "import", "profile"].iter().chain(arguments).copied().collect();
        webdancer(folder.path(), &arguments, b"")
    };
    let output = import(&[published, "--name", "demo", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["name"], "demo");
    let document = std::fs::read_to_string(folder.path().join("l/profiles/demo.json")).unwrap();
    assert!(document.contains("You are a careful researcher with a search engine and a browser."));
    assert_eq!(import(&[published, "--name", "demo"]).status.code(), Some(0), "the same again is no error");

    let line = std::fs::read_to_string(published).unwrap().lines().next().unwrap().replace("careful", "careless");
    std::fs::write(folder.path().join("other.jsonl"), &line).unwrap();
    let output = import(&["other.jsonl", "--name", "demo"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("the name \"demo\" belongs to another profile"), "{}", text(&output.stderr));
    assert_eq!(import(&["other.jsonl", "--output", "other.json"]).status.code(), Some(0));
    assert!(folder.path().join("other.json").is_file());

    let mixed = format!("{}\n{line}\n", std::fs::read_to_string(published).unwrap().trim_end());
    std::fs::write(folder.path().join("mixed.jsonl"), mixed).unwrap();
    let message = text(&import(&["mixed.jsonl"]).stderr);
    assert!(
        message.contains("mixed.jsonl: line 9: has another system or user text than the lines before"),
        "{message}"
    );
}

#[test]
fn help_teaches_and_completions_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let help = text(&webdancer(folder.path(), &["--help"], b"").stdout);
    for command in [
        "append",
        "import",
        "ingest",
        "crawl",
        "atlas",
        "sql",
        "pin",
        "dead-letters",
        "maintain",
        "demo",
        "completions",
    ] {
        assert!(help.contains(command), "{command} is not in the help");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&webdancer(folder.path(), &["completions", shell], b"").stdout).contains("dead-letters"));
    }
    assert_eq!(webdancer(folder.path(), &["no-such-command"], b"").status.code(), Some(2));
}

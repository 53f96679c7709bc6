//! `import`: which file is taken for what.

use crate::{event, text, webdancer};

#[test]
fn a_file_of_another_kind_is_refused_before_it_becomes_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let demo = |file: &str| format!("{}/../deploy/demo/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::write(folder.path().join("events"), event(1)).unwrap();
    std::fs::write(folder.path().join("noise"), "neither\nnor\n").unwrap();
    let (trajectories, questions) = (demo("demo_trajectories.jsonl"), demo("demo_qa.jsonl"));
    for (what, file, code, message) in [
        (
            "qa",
            trajectories.as_str(),
            2,
            "looks like a file of trajectories: its lines have messages; `webdancer import trajectories` takes it",
        ),
        (
            "trajectories",
            &questions,
            2,
            "looks like a file of questions: its lines have a question and an answer; `webdancer import qa` takes it",
        ),
        ("profile", &questions, 2, "looks like a file of questions"),
        ("qa", "events", 2, "looks like a file of events: its lines have a specversion; `webdancer append` takes it"),
        ("qa", "noise", 1, "2 of 2 lines of noise are malformed"),
    ] {
        let output = webdancer(folder.path(), &["--lake", "l", "--quiet", "import", what, file], b"");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{what} {file}: {told}");
        assert!(told.contains(message) && told.lines().count() == 1, "{what} {file}: {told}");
    }
    let letters = webdancer(folder.path(), &["--lake", "l", "sql", "SELECT count(*) AS n FROM dead_letters"], b"");
    assert_eq!(text(&letters.stdout), "n\n2\n", "those of the noise alone");
}

#[test]
fn a_file_of_another_format_is_told_by_what_it_looks_like() {
    let folder = tempfile::tempdir().unwrap();
    let profile = webdancer_agent::profile::Profile::standard().to_json();
    for what in ["trajectories", "qa", "profile"] {
        for (content, like) in [
            (profile.as_bytes(), "file looks like a prompt profile; `webdancer sample --profile` takes it as it is"),
            (b"[{\"messages\": []}]", "file looks like one JSON array; "),
            (b"PAR1\x15\x04", "file looks like a Parquet file; "),
            (b"PK\x03\x04\x14", "file looks like a ZIP archive; unpack it first"),
            (b"<!DOCTYPE html>", "file looks like HTML or XML; "),
        ] {
            std::fs::write(folder.path().join("file"), content).unwrap();
            let output = webdancer(folder.path(), &["--lake", "l", "import", what, "file"], b"");
            let told = text(&output.stderr);
            assert_eq!((output.status.code(), told.lines().count()), (Some(2), 1), "{what}: {told}");
            assert!(told.contains(like), "{what}: {told}");
        }
    }
    for (content, like) in [(&b"hello"[..], "file: line 1: "), (b"", "file: the file holds no trajectories")] {
        std::fs::write(folder.path().join("file"), content).unwrap();
        let told = text(&webdancer(folder.path(), &["--lake", "l", "import", "profile", "file"], b"").stderr);
        assert!(told.contains(like), "{told}");
    }
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
    let message = text(&import(&["other.jsonl", "--name", "standard"]).stderr);
    assert!(message.contains("the name \"standard\" is that of a profile that is built in"), "{message}");
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

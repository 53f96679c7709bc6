//! `webdancer serve` as a process: what it shows of a lake that is being written, and how it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use webdancer_tests::stub_model::{Answer, StubModel};

use crate::{start, text, webdancer};

/// Head and body of a page.
fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_string(), body.to_string())
}

fn append(folder: &Path, run: &str) {
    append_state(folder, run, "finished");
}

fn append_state(folder: &Path, run: &str, state: &str) {
    let event = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{run} {state}\",\"source\":\"test\",\"type\":\"webdancer.run.v1\",\"runid\":\"{run}\",\
         \"data\":{{\"kind\":\"crawl\",\"state\":\"{state}\"}}}}\n"
    );
    let appended = webdancer(folder, &["append"], event.as_bytes());
    assert!(appended.status.success(), "{}", text(&appended.stderr));
}

#[test]
fn a_server_shows_what_is_appended_while_it_serves_and_ends_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), "run-before");
    let mut server = start(folder.path(), &["--json", "serve", "--listen", "127.0.0.1:0"]);
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let url = told["url"].as_str().unwrap();
    let port: u16 = url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();

    append(folder.path(), "run-after");
    let begun = Instant::now();
    let shown = loop {
        let (head, body) = get(port, "/runs?format=csv");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none';"), "{head}");
        if body.contains("run-after") || begun.elapsed() > Duration::from_secs(120) {
            break body;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(shown.contains("run-before,crawl,finished") && shown.contains("run-after,crawl,finished"), "{shown}");
    let asked = Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
    assert!(asked.success());
    assert!(server.wait().unwrap().success());
}

/// Events that are noted as sent.
fn noted(folder: &Path) -> usize {
    let mut files = std::fs::read_dir(folder.join("lake")).unwrap().map(|file| file.unwrap().path());
    let is_it =
        |file: &Path| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-openlineage-"));
    let file = files.find(|file| is_it(file));
    let Some(text) = file.and_then(|file| std::fs::read_to_string(file).ok()) else { return 0 };
    let sent: serde_json::Value = serde_json::from_str(&text).unwrap();
    sent["runs"].as_object().unwrap().values().map(|events| events.as_array().unwrap().len()).sum()
}

#[test]
fn a_server_tells_of_runs_whose_state_changes_where_the_settings_say() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let receiver = runtime.block_on(StubModel::scripted(|_, number| match number {
        0 => Answer::status(503),
        _ => Answer::json(&serde_json::json!({})),
    }));
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), "run-before");
    let url = receiver.url().trim_end_matches("/v1").to_string();
    let settings = format!(
        "[openlineage]\nurl = \"{url}\"\nendpoint = \"v1/chat/completions\"\nrequests = {{ backoff_ms = 1 }}\n"
    );
    std::fs::write(folder.path().join("webdancer.toml"), settings).unwrap();
    // Of each request the run and the type of its event, once so many events are noted as sent.
    let told_while_serving = |due: usize, change: &dyn Fn()| -> Vec<String> {
        let mut server = start(folder.path(), &["--json", "serve", "--listen", "127.0.0.1:0"]);
        let mut line = String::new();
        BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        change();
        let begun = Instant::now();
        while noted(folder.path()) < due && begun.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
        assert!(server.wait().unwrap().success());
        let told = |body: &serde_json::Value| {
            let run = &body["run"]["facets"]["webdancer_run"]["run_id"];
            format!("{} {}", run.as_str().unwrap(), body["eventType"].as_str().unwrap())
        };
        receiver.asked().iter().map(|asked| told(&asked.body)).collect()
    };
    let first = told_while_serving(2, &|| {
        append(folder.path(), "run-after");
        append_state(folder.path(), "run-long", "started");
    });
    // What was refused is sent again, and what was over before is left to the command.
    assert_eq!(first[..2], ["run-after COMPLETE", "run-after COMPLETE"]);
    assert_eq!(first[2..], ["run-long START"]);
    // Started again, it tells what came meanwhile, and nothing twice.
    append(folder.path(), "run-meanwhile");
    let second = told_while_serving(4, &|| append_state(folder.path(), "run-long", "finished"));
    let mut news = second[3..].to_vec();
    news.sort_unstable();
    assert_eq!(news, ["run-long COMPLETE", "run-meanwhile COMPLETE"]);
}

#[test]
fn an_address_that_is_taken_is_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), "run-1");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = webdancer(folder.path(), &["serve", "--listen", &address], b"");
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused.stderr);
    assert!(told.contains(&format!("serving on {address}: ")) && told.trim().lines().count() == 1, "{told}");
}

#[test]
fn groups_of_readers_need_a_header_that_tells_them_and_a_right() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), "run");
    for (settings, said) in [
        ("restricted_groups = [\"evaluators\"]", "serve.restricted_groups: nobody is known to be in a group"),
        ("groups_header = \"X-Forwarded-Groups\"", "serve.groups_header: no group has a right by it"),
        ("groups_header = \"a header\"\nrestricted_groups = [\"evaluators\"]", "\"a header\" is no name of a header"),
        (
            "groups_header = \"X-Forwarded-Groups\"\nrestricted_groups = [\"\"]",
            "[serve] groups_header, restricted_groups: \"\" is no name of a group",
        ),
    ] {
        std::fs::write(folder.path().join("webdancer.toml"), format!("[serve]\n{settings}\n")).unwrap();
        let refused = webdancer(folder.path(), &["serve", "--listen", "127.0.0.1:0"], b"");
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(told.contains(said), "{told}");
    }
}

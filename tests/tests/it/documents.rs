//! What the documentation says to type works: its shell blocks are run in a scratch folder, in their order.
//!
//! What is run is decided by three rules, and nothing else:
//!
//! - Blocks marked `sh` are run, whole, by bash. `make demo` and `make test` stand in a block that is not: they build what
//!   is tested here. What `make demo` does once built comes first, as the tour says.
//! - A block that calls a script of `deploy/` is passed over: it needs Java, a port or a Python environment. Those servers
//!   and readers have suites of their own (`kafka`, `s3`, `readers`).
//! - In a guide, a `webdancer` without `--lake demo-lake/lake` is an example for the reader's own lake, models and web.
//!
//! A command that ends in any other way than by 0 is a failure, but for the two of which the README says so. So is a query
//! of the guide's walk that finds nothing: the ids in it are those of the demo's lake.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use crate::harness::{Site, repository};

/// Seconds that a block may take.
const BLOCK_LIMIT_S: &str = "300";

/// The section that follows one page through the demo's lake.
const WALK: &str = "## From one page to one accepted trajectory";
/// Lines of a table before its rows.
const TABLE_HEAD_LINES: usize = 2;

/// The blocks of a language, and the line that each begins after.
fn blocks(document: &str, language: &str) -> Vec<(usize, String)> {
    let (mut blocks, mut open) = (Vec::new(), None);
    for (line, number) in document.lines().zip(1..) {
        match (line.strip_prefix("```"), &mut open) {
            (Some(named), None) => open = Some((number, named == language, String::new())),
            (Some(_), Some(_)) => {
                if let Some((number, true, text)) = open.take() {
                    blocks.push((number, text));
                }
            }
            (None, Some((_, _, text))) => text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    blocks
}

/// The lines of the section with this heading; none where there is no such section.
fn section(document: &str, heading: &str) -> Range<usize> {
    let Some(start) = document.lines().position(|line| line == heading) else { return 0..0 };
    let length = document.lines().skip(start + 1).position(|line| line.starts_with("## "));
    start + 1..length.map_or(usize::MAX, |length| start + 2 + length)
}

/// A folder that looks like the repository's root after `make demo`.
fn after_the_demo() -> Site {
    let site = Site::new("");
    std::os::unix::fs::symlink(crate::harness::binary(), site.path("webdancer")).unwrap();
    std::os::unix::fs::symlink(repository("deploy"), site.path("deploy")).unwrap();
    site.ok(&["demo", "--until", "pins", "--folder", "demo-lake"]);
    site
}

/// Runs a block; what failed in it, as `status: command`, and what it printed.
fn run_block(site: &Site, block: &str) -> (Vec<String>, String) {
    let failed = site.path("failed");
    let _ = std::fs::remove_file(&failed);
    let script = format!(
        "trap 'echo \"$?: $BASH_COMMAND\" >>failed' ERR; set -uo pipefail\n\
         webdancer() {{ case \" $* \" in *' --lake demo-lake/lake '*) ./webdancer \"$@\" ;; *) cat >/dev/null ;; esac; }}\n{block}"
    );
    let mut command = Command::new("timeout");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEBDANCER_") || name.starts_with("RUST_")) {
        command.env_remove(name);
    }
    let folder = failed.parent().unwrap();
    command.current_dir(folder).env("XDG_STATE_HOME", folder.join("state"));
    let output = command.args([BLOCK_LIMIT_S, "bash", "-c", &script]).output().unwrap();
    let listed = std::fs::read_to_string(&failed).unwrap_or_default();
    let mut failures: Vec<String> = listed.lines().map(str::to_string).collect();
    if failures.is_empty() && output.status.code() == Some(124) {
        failures.push(format!("not done within {BLOCK_LIMIT_S} s"));
    }
    if !failures.is_empty() {
        crate::harness::say(&String::from_utf8_lossy(&output.stderr));
    }
    (failures, String::from_utf8_lossy(&output.stdout).into_owned())
}

fn read(document: &str) -> String {
    std::fs::read_to_string(repository(document)).unwrap()
}

/// Runs the blocks; how many were passed over, and what failed.
fn run_all(site: &Site, document: &str) -> (usize, Vec<String>) {
    // The tour's port may be taken here.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let text = read(document).replace("127.0.0.1:8750", &format!("127.0.0.1:{port}"));
    let (run, passed): (Vec<_>, Vec<_>) = blocks(&text, "sh").into_iter().partition(|(_, block)| !calls_deploy(block));
    let walk = section(&text, WALK);
    let mut failures = Vec::new();
    for (line, block) in run {
        let (mut failed, printed) = run_block(site, &block);
        if walk.contains(&line) && printed.lines().count() <= TABLE_HEAD_LINES {
            failed.push("finds nothing".to_string());
        }
        failures.extend(failed.into_iter().map(|failure| format!("{document}, block after line {line}: {failure}")));
    }
    (passed.len(), failures)
}

fn calls_deploy(block: &str) -> bool {
    ["deploy/kafka/", "deploy/s3/", "deploy/py-env"].iter().any(|script| block.contains(script))
}

#[test]
fn every_command_of_the_readme_and_of_the_guides_works() {
    let site = after_the_demo();
    let (passed, failures) = run_all(&site, "README.md");
    assert_eq!(passed, 3, "blocks for Kafka, S3 and other engines");
    // The README says of these two that they end with 3.
    let dead_letters =
        ["append", "dead-letters replay"].map(|command| format!(": 3: ./webdancer --lake demo-lake/lake {command}"));
    let others: Vec<_> =
        failures.iter().filter(|failure| !dead_letters.iter().any(|known| failure.ends_with(known))).collect();
    assert_eq!((others, failures.len()), (Vec::new(), 2));

    assert_eq!(run_all(&site, "docs/evaluation.md"), (0, Vec::new()));
    let guide = "docs/data-construction.md";
    let walk = section(&read(guide), WALK);
    let steps = blocks(&read(guide), "sh").into_iter().filter(|(line, _)| walk.contains(line));
    assert_eq!(steps.count(), 8, "queries of the walk");
    assert_eq!(run_all(&site, guide), (0, Vec::new()));
    // The guide's pins and the ids in its SQL are examples: the statements must run, whatever they find.
    site.ok(&["--lake", "demo-lake/lake", "filter", "pin", "train"]);
    for (line, block) in blocks(&read(guide), "sql") {
        std::fs::write(site.path("block.sql"), block).unwrap();
        let finished = site.run(&["--lake", "demo-lake/lake", "sql", "--file", "block.sql"]);
        assert!(finished.status.success(), "{guide}, block after line {line}: {}", finished.stderr);
    }
    assert!(Path::new(&site.path("demo-lake/funnel.svg")).is_file(), "the tour's report was written");
}

#[test]
fn blocks_are_found_by_their_language() {
    let text = "a\n```\nmake\n```\n```sh\none\n  two\n```\n```sql\nSELECT 1;\n```\n";
    assert_eq!(blocks(text, "sh"), [(5, "one\n  two\n".to_string())]);
    assert_eq!(blocks(text, "sql"), [(9, "SELECT 1;\n".to_string())]);
}

#[test]
fn a_section_ends_before_the_next_heading() {
    let text = "# a\n## b\n```sh\n```\n### c\n## d\ne\n";
    assert_eq!([section(text, "## b"), section(text, "## d"), section(text, "## e")], [2..6, 6..usize::MAX, 0..0]);
}

#[test]
fn a_command_that_fails_is_seen_and_one_for_another_lake_is_not_run() {
    let site = Site::new("");
    std::os::unix::fs::symlink("/bin/false", site.path("webdancer")).unwrap();
    let block =
        "webdancer crawl https://example.org/\ntrue | webdancer --lake demo-lake/lake sql \"\n  SELECT 1\"\ntrue";
    let (failures, _) = run_block(&site, block);
    assert_eq!(failures, ["1: webdancer --lake demo-lake/lake sql \"", "  SELECT 1\""]);
    assert_eq!(run_block(&site, "./webdancer atlas & wait $!").0, ["1: wait $!"]);
    assert_eq!(run_block(&site, "echo a; echo b"), (Vec::new(), "a\nb\n".to_string()));
}

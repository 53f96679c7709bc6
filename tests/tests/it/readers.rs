//! DuckDB, Polars and the deltalake package read the tables and see what our SQL sees, before and after compaction.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Site, repository};
use crate::producer::{events, lines};
use crate::s3;
use crate::servers::{self, Server};

/// What every engine must say of a column of a table.
fn figures(site: &Site, table: &str, column: &str) -> Value {
    let row = site.sql(&format!(
        "SELECT count(*) AS rows, count(DISTINCT event_id) AS distinct_ids, min(log_offset) AS min_offset, \
         max(log_offset) AS max_offset, sum({column}) AS sum FROM {table}"
    ));
    row[0].clone()
}

fn assert_agree(site: &Site, server: Option<&Server>, lake: &str, table: &str, column: &str) {
    let expected = figures(site, table, column);
    assert!(expected["rows"].as_i64() > Some(0), "{table} has rows: {expected}");
    let Some(python) = servers::readers() else { return };
    let mut command = Command::new(python);
    command.arg(repository("tests/py/read_table.py")).args([&format!("{lake}/tables/{table}"), "--sum", column]);
    if let Some(server) = server {
        command.env("AWS_ENDPOINT_URL", format!("http://{}", server.address()));
        command.envs([
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "testsecret"),
            ("AWS_REGION", "us-east-1"),
        ]);
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let read: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{table}: {e}: {told}"));
    for engine in ["duckdb", "polars", "deltalake"] {
        let mut seen = read["engines"][engine].clone();
        if let Some(seen) = seen.as_object_mut() {
            seen.remove("version");
        }
        assert_eq!(seen, expected, "{engine} on {table}.{column}");
    }
}

/// Several files of every table, with lists and structs among their columns.
fn fill(site: &Site) {
    for part in events("m", 0, 90).chunks(30) {
        site.append(&lines(part));
        site.ok(&["ingest", "--until-caught-up"]);
    }
    let (trajectories, qa) =
        (repository("deploy/demo/demo_trajectories.jsonl"), repository("deploy/demo/demo_qa.jsonl"));
    site.ok(&["import", "trajectories", trajectories.to_str().unwrap()]);
    site.ok(&["import", "qa", qa.to_str().unwrap()]);
}

fn others_agree(site: &Site, server: Option<&Server>, lake: &str) {
    fill(site);
    let all = || {
        assert_agree(site, server, lake, "metrics", "step");
        assert_agree(site, server, lake, "metrics", "value");
        assert_agree(site, server, lake, "trajectories", "n_turns");
        assert_agree(site, server, lake, "qa", "log_offset");
    };
    all();
    let maintained: Value = serde_json::from_str(&site.ok(&["maintain", "--json"])).unwrap();
    assert_eq!((&maintained["metrics"]["files_before"], &maintained["metrics"]["files_after"]), (&json!(3), &json!(1)));
    all();
}

#[test]
fn other_engines_agree_on_a_local_lake() {
    let site = Site::new("[lake]\nuri = \"lake\"\n");
    let lake = site.path("lake");
    others_agree(&site, None, lake.to_str().unwrap());
}

#[test]
fn other_engines_agree_on_s3() {
    let Some(server) = servers::s3() else { return };
    others_agree(&s3::site(server, "readers"), Some(server), "s3://lake/readers");
}

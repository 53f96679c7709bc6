//! Lineage: from a score to pages and back, and the same as OpenLineage events.

use std::collections::BTreeSet;

use boon::{Compiler, Schemas};
use chrono::Utc;
use serde_json::{Value, json};
use url::Url;
use webdancer_query::lineage::openlineage::{Naming, run_events};
use webdancer_query::lineage::{Direction, Lineage, LineageLimits, NodeKind, lineage};
use webdancer_query::{QueryEngine, QueryError, pin};
use webdancer_schemas::kind::Kind;

use crate::support::Memory;

const SAMPLED: &str = "0190a6b2-0000-7000-8000-000000000001";
const TRAINED: &str = "0190a6b2-0000-7000-8000-000000000002";
const SCORED: &str = "0190a6b2-0000-7000-8000-000000000003";
const WEIGHTS: &str = "77aa77aa77aa77aa77aa77aa77aa77aa77aa77aa77aa77aa77aa77aa77aa77aa";

/// A crawl, questions, a sample, a pin of it, a run trained on that, and a run scored with what came of it.
async fn loop_of_data() -> (QueryEngine, String) {
    let sampled = format!("SELECT * FROM trajectories WHERE run_id = '{SAMPLED}'");
    let alone = Memory::default().with(Kind::Trajectory, &trajectories()).engine();
    let digest = pin::create(&alone, "train", &sampled, Utc::now()).await.unwrap().manifest.digest;
    let page = |number: u32, digest: &str| {
        json!({"event_id": format!("p{number}"), "run_id": "crawl-1", "url": format!("https://a.example/{number}"),
            "final_url": format!("https://a.example/{number}"), "root_url": "https://a.example/", "depth": 0, "status": 200,
            "digest": digest, "title": format!("Page {number}")})
    };
    let qa = |id: &str, parent: Option<&str>, evidence: &[&str]| {
        json!({"event_id": id, "qa_id": id, "method": "crawlqa", "question": format!("{id}?"), "answer": "a",
            "parent_qa_id": parent, "evidence_page_digests": evidence})
    };
    let run = |id: &str, number: u32, kind: &str, state: &str, more: Value| {
        let mut row = json!({"event_id": format!("r{number}"), "event_time": format!("2026-01-01T00:00:{number:02}Z"),
            "run_id": id, "kind": kind, "state": state, "code_version": "1.2.3"});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let config = |web: &str| {
        json!({"web": web, "policy": "endpoint:e", "benchmark": {"benchmark": "gaia", "digest": "bb"}}).to_string()
    };
    let judgment = json!({"event_id": "j1", "run_id": SCORED, "trajectory_id": "t3", "stage": "correctness",
        "verdict": "pass", "judge": "gaia", "rule_version": 2});
    let memory = Memory::default()
        .with(Kind::Page, &[page(1, "d1"), page(2, "d2")])
        .with(Kind::Qa, &[qa("q1", None, &["d1"]), qa("q2", Some("q1"), &["d2"])])
        .with(Kind::Trajectory, &trajectories())
        .with(Kind::Judgment, &[judgment])
        .with(
            Kind::Checkpoint,
            &[json!({"event_id": "c1", "run_id": TRAINED, "digest": WEIGHTS, "step": 9,
            "uri": "/runs/x/checkpoints/9", "pin_id": digest})],
        )
        .with(
            Kind::Run,
            &[
                run("crawl-1", 1, "crawl", "started", json!({})),
                run("crawl-1", 2, "crawl", "stopped", json!({"error": "a signal"})),
                run("crawl-1", 3, "crawl", "started", json!({})),
                run("crawl-1", 4, "crawl", "finished", json!({})),
                run(SAMPLED, 5, "sample", "started", json!({})),
                run(SAMPLED, 6, "sample", "finished", json!({})),
                run(TRAINED, 7, "sft", "started", json!({"pin_id": digest, "config": "{}"})),
                run(TRAINED, 8, "sft", "failed", json!({"error": "no memory"})),
                run(
                    SCORED,
                    9,
                    "eval",
                    "started",
                    json!({"config": config(&format!("recorded:{SAMPLED}")), "seed": 7,
                    "parent_run": TRAINED}),
                ),
                run(SCORED, 10, "eval", "stopped", json!({})),
            ],
        );
    let engine = memory.engine();
    assert_eq!(pin::create(&engine, "train", &sampled, Utc::now()).await.unwrap().manifest.digest, digest);
    (engine, digest)
}

fn trajectories() -> Vec<Value> {
    let row = |id: &str, qa: &str, run: &str, weights: Option<&str>| {
        json!({"event_id": id, "trajectory_id": id, "run_id": run, "qa_id": qa, "attempt": 0, "termination": "answer",
            "n_turns": 2, "n_tool_calls": 1, "policy_model": "m", "policy_checkpoint_digest": weights, "answer": "a",
            "turn_tool": ["visit", null], "turn_arguments": [r#"{"url": ["https://a.example/2"], "goal": "g"}"#, null]})
    };
    vec![
        row("t1", "q1", SAMPLED, None),
        row("t2", "q2", SAMPLED, None),
        row("t3", "q2", SCORED, Some(WEIGHTS)),
        row("t4", "q2", SCORED, Some(WEIGHTS)),
    ]
}

async fn of(engine: &QueryEngine, id: &str) -> Lineage {
    lineage(engine, id, &LineageLimits::default()).await.unwrap()
}

fn reached(lineage: &Lineage, direction: Direction) -> BTreeSet<String> {
    let nodes = lineage.nodes.iter().filter(|node| match direction {
        Direction::Up => node.up.is_some_and(|steps| steps > 0),
        Direction::Down => node.down.is_some_and(|steps| steps > 0),
    });
    nodes.map(|node| node.id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_score_leads_to_its_weights_their_pin_its_trajectories_their_questions_and_pages() {
    let (engine, digest) = loop_of_data().await;
    let found = of(&engine, SCORED).await;
    assert_eq!(
        found.roots.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [format!("run:{SCORED}"), format!("score:{SCORED}")]
    );
    let up = reached(&found, Direction::Up);
    for due in [
        "judgment:j1".to_string(),
        "trajectory:t3".to_string(),
        format!("checkpoint:{WEIGHTS}"),
        format!("run:{TRAINED}"),
        format!("pin:{digest}"),
        "table:trajectories@0".to_string(),
        "trajectory:t1".to_string(),
        format!("run:{SAMPLED}"),
        "question:q2".to_string(),
        "question:q1".to_string(),
        "page:d1".to_string(),
        "page:d2".to_string(),
        "run:crawl-1".to_string(),
    ] {
        assert!(up.contains(&due), "{due} is not among {up:?}");
    }
    // The attempt beside it has no verdict, and does not count in the score.
    assert!(!up.contains("trajectory:t4") && reached(&found, Direction::Down).contains("trajectory:t4"));
    let tree = found.tree();
    assert!(tree.contains("judgment j1  correctness, pass, by gaia, version 2"), "{tree}");
    assert!(tree.contains("is evidence of it: page d1  https://a.example/1, Page 1"), "{tree}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_leads_down_to_the_scores_that_rest_on_it_by_whatever_it_is_called() {
    let (engine, digest) = loop_of_data().await;
    let found = lineage(&engine, "d2", &LineageLimits { down_max: 8, ..LineageLimits::default() }).await.unwrap();
    let down = reached(&found, Direction::Down);
    let weights = format!("checkpoint:{WEIGHTS}");
    for due in ["question:q2", "trajectory:t2", &format!("pin:{digest}"), &weights, &format!("score:{SCORED}")] {
        assert!(down.contains(due), "{due} is not among {down:?}");
    }
    assert_eq!(reached(&found, Direction::Up), BTreeSet::from(["run:crawl-1".to_string()]));
    let named = LineageLimits { up_max: 0, down_max: 0, ..LineageLimits::default() };
    for id in ["page:d2", "https://a.example/2", "page:https://a.example/2"] {
        assert_eq!(lineage(&engine, id, &named).await.unwrap().roots, found.roots, "{id}");
    }
    for id in ["train", &digest, &format!("checkpoint:{}", &WEIGHTS[..8]), "t1", "q1", "j1", "crawl-1"] {
        assert_eq!(lineage(&engine, id, &named).await.unwrap().roots.len(), 1, "{id}");
    }
    let nothing = lineage(&engine, "it's", &LineageLimits::default()).await.unwrap_err();
    assert!(matches!(&nothing, QueryError::NotFound(told) if told.contains("\"it's\"")), "{nothing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_limits_is_counted() {
    let (engine, _) = loop_of_data().await;
    let limits = LineageLimits { rows_max: 1, down_max: 1, up_max: 1, ..LineageLimits::default() };
    let found = lineage(&engine, SAMPLED, &limits).await.unwrap();
    assert_eq!(reached(&found, Direction::Down), BTreeSet::from(["trajectory:t1".into(), format!("run:{SCORED}")]));
    let cut = &found.cut[0];
    assert_eq!((cut.kind, cut.shown, cut.total, found.is_partial), (NodeKind::Trajectory, 1, 2, true));
    assert!(found.tree().contains("made: … and 1 more"), "{}", found.tree());
    let few = lineage(&engine, SCORED, &LineageLimits { nodes_max: 3, ..LineageLimits::default() }).await.unwrap();
    assert_eq!((few.nodes.len(), few.is_partial), (3, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_read_the_page_of_its_closed_web_or_what_it_recorded_or_what_was_fetched_last_before_the_attempt_ended()
{
    let (url, other) = ("https://a.example/1", "https://a.example/2");
    let page = |hour: u32, asked: &str, arrived: &str, digest: Option<&str>, text: &str| {
        json!({"event_id": format!("p{hour}"), "event_time": format!("2026-01-01T{hour:02}:00:00Z"), "url": asked,
            "final_url": arrived, "digest": digest, "text": text})
    };
    let pages = [
        page(2, url, url, Some("old"), "Before."),
        page(3, other, other, Some("beside"), "Beside."),
        page(4, url, url, Some("new"), "After."),
        page(5, url, url, None, "The fetch failed."),
        page(6, "https://b.example/", url, Some("moved"), "Elsewhere."),
        page(8, url, url, Some("old"), "Before."),
    ];
    let pins = [
        ("digests", "SELECT url, digest FROM pages WHERE event_id = 'p2'"),
        ("texts", "SELECT url, text FROM pages WHERE event_id = 'p2'"),
    ];
    let alone = Memory::default().with(Kind::Page, &pages).engine();
    let mut runs = vec![json!({"event_id": "live", "run_id": "live", "kind": "eval", "state": "started",
        "config": json!({"web": "live"}).to_string()})];
    for (name, sql) in pins {
        let digest = pin::create(&alone, name, sql, Utc::now()).await.unwrap().manifest.digest;
        runs.push(json!({"event_id": name, "run_id": name, "kind": "eval", "state": "started",
            "config": json!({"web": format!("closed:{digest}")}).to_string()}));
    }
    runs.push(json!({"event_id": "gone", "run_id": "gone", "kind": "eval", "state": "started",
        "config": json!({"web": format!("closed:{WEIGHTS}")}).to_string()}));
    let attempt = |id: &str, run: Option<&str>, hour: u32, url: &str| {
        json!({"event_id": id, "event_time": format!("2026-01-01T{hour:02}:30:00Z"), "trajectory_id": id, "run_id": run,
            "qa_id": "q", "n_turns": 1, "turn_tool": ["visit"],
            "turn_arguments": [json!({"url": [url], "goal": other}).to_string()]})
    };
    let read = [
        ("t0", Some("live"), 1, url, url),
        ("t1", Some("live"), 2, url, "old"),
        ("t2", Some("live"), 5, url, "new"),
        ("t3", None, 6, url, "moved"),
        ("t4", Some("live"), 9, url, "old"),
        ("t5", Some("digests"), 5, url, "old"),
        ("t6", Some("digests"), 5, other, other),
        ("t7", Some("texts"), 5, url, "3e6847a3"),
        ("t8", Some("gone"), 5, url, "new"),
    ];
    // What was read is recorded: the text of then, of another spelling of the address, and one that the lake does not have.
    let recorded = [("t10", "old", "old"), ("t11", "unknown", url)];
    let recording = |id: &str, digest: &str| {
        let mut row = attempt(id, Some("live"), 5, "https://A.example:443/1");
        let columns = json!({"turn_source_urls": [[url]], "turn_source_digests": [[digest]]});
        row.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
        row
    };
    let mut attempts: Vec<Value> = read.iter().map(|(id, run, hour, url, _)| attempt(id, *run, *hour, url)).collect();
    attempts.extend(recorded.map(|(id, digest, _)| recording(id, digest)));
    // What could not be read was not read.
    let mut failed = attempt("t12", Some("live"), 9, url);
    failed["turn_outcome"] = json!(["unreachable"]);
    attempts.push(failed);
    let memory = Memory::default().with(Kind::Page, &pages).with(Kind::Run, &runs).with(Kind::Trajectory, &attempts);
    let engine = memory.engine();
    for (name, sql) in pins {
        pin::create(&engine, name, sql, Utc::now()).await.unwrap();
    }
    let keys = |found: &Lineage, kind: NodeKind| -> Vec<String> {
        found.nodes.iter().filter(|node| node.kind == kind).map(|node| node.id.key.clone()).collect()
    };
    for (id, due) in read.map(|(id, _, _, _, due)| (id, due)).into_iter().chain(recorded.map(|(id, _, due)| (id, due)))
    {
        let up = LineageLimits { up_max: 1, down_max: 0, ..LineageLimits::default() };
        let found = keys(&lineage(&engine, id, &up).await.unwrap(), NodeKind::Page);
        assert!(found.len() == 1 && found[0].starts_with(due), "{id}: {found:?}, not {due}");
    }
    let down = LineageLimits { up_max: 0, down_max: 1, ..LineageLimits::default() };
    for (page, due) in [
        ("page:old", vec!["t1", "t10", "t4", "t5"]),
        ("page:new", vec!["t2", "t8"]),
        ("page:moved", vec!["t3"]),
        ("page:beside", vec![]),
    ] {
        let found = lineage(&engine, page, &down).await.unwrap();
        assert_eq!(keys(&found, NodeKind::Trajectory), due, "{page}");
    }
    let one = lineage(&engine, "page:old", &LineageLimits { rows_max: 1, ..down }).await.unwrap();
    let cut: Vec<_> = one.cut.iter().filter(|cut| cut.kind == NodeKind::Trajectory).collect();
    assert_eq!((cut.len(), cut[0].shown, cut[0].total), (1, 1, 4));
}

/// The specification as its project publishes it (commit 8f02abf of OpenLineage/OpenLineage, Apache 2.0).
fn specification() -> Vec<(String, Value)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/openlineage");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let document: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        (document["$id"].as_str().unwrap().to_string(), document)
    };
    std::fs::read_dir(folder).unwrap().map(read).collect()
}

/// What is wrong with an event by the published schemas: its own, and that of each facet.
fn faults(event: &Value) -> Vec<String> {
    let known = specification();
    let mut compiler = Compiler::new();
    compiler.enable_format_assertions();
    for (id, document) in &known {
        compiler.add_resource(id, document.clone()).unwrap();
    }
    let mut schemas = Schemas::new();
    let mut faults = Vec::new();
    let mut check = |url: &str, value: &Value| {
        let schema = compiler.compile(url, &mut schemas).unwrap();
        faults.extend(schemas.validate(value, schema).err().map(|error| format!("{url}: {error:#}")));
    };
    check(event["schemaURL"].as_str().unwrap(), event);
    let datasets = ["inputs", "outputs"].into_iter().flat_map(|side| event[side].as_array().unwrap());
    let mut facets = vec![&event["run"]["facets"], &event["job"]["facets"]];
    facets.extend(datasets.flat_map(|dataset| [&dataset["facets"], &dataset["outputFacets"]]));
    for (name, facet) in facets.into_iter().filter_map(Value::as_object).flatten() {
        let url = facet["_schemaURL"].as_str().unwrap();
        match url.contains("/facets/") {
            // A facet's document is of an object that has it as a member.
            true => check(url, &json!({ name.as_str(): facet })),
            false => check(url, facet),
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_every_run_is_an_event_that_the_published_schemas_allow() {
    let (engine, digest) = loop_of_data().await;
    let naming = Naming::of(Url::parse("s3://bucket/lake/").unwrap());
    let events = run_events(&engine, &naming, None, None).await.unwrap();
    let types: Vec<&str> = events.iter().map(|event| event["eventType"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        ["START", "OTHER", "RUNNING", "COMPLETE", "START", "COMPLETE", "START", "FAIL", "START", "ABORT"]
    );
    for event in &events {
        assert_eq!(faults(event), Vec::<String>::new(), "{event:#}");
    }
    // The check finds what is wrong.
    let mut broken = events[7].clone();
    broken["run"]["runId"] = json!("no uuid");
    broken["run"]["facets"]["errorMessage"]["message"] = json!(3);
    assert_eq!(faults(&broken).len(), 2, "{:?}", faults(&broken));

    let pinned = &events[6]["inputs"][0];
    assert_eq!(
        (&pinned["namespace"], &pinned["name"], &pinned["facets"]["version"]["datasetVersion"]),
        (&json!("s3://bucket"), &json!(format!("lake/pins/{digest}")), &json!(digest))
    );
    let failed = &events[7]["run"]["facets"]["errorMessage"]["message"];
    assert_eq!((failed, &events[7]["outputs"][0]["name"]), (&json!("no memory"), &json!("lake/tables/checkpoints")));
    let scored = &events[9];
    let parent = &scored["run"]["facets"]["parent"];
    assert_eq!((&parent["run"]["runId"], &parent["job"]["name"]), (&json!(TRAINED), &json!("sft")));
    assert_eq!(scored["job"]["name"], "eval.gaia");
    let names = |side: &str| -> Vec<&str> {
        scored[side].as_array().unwrap().iter().map(|set| set["name"].as_str().unwrap()).collect()
    };
    let recorded = format!("lake/runs/{SAMPLED}/observations");
    let weights = format!("lake/checkpoints/{WEIGHTS}");
    assert_eq!(names("inputs"), [recorded.as_str(), "lake/benchmarks/gaia", weights.as_str()]);
    assert_eq!(names("outputs"), ["lake/tables/judgments", "lake/tables/trajectories"]);
    assert_eq!(scored["outputs"][1]["outputFacets"]["outputStatistics"]["rowCount"], 2);

    let one = run_events(&engine, &naming, Some(TRAINED), None).await.unwrap();
    assert_eq!(one, events[6..8]);
    let since = "2026-01-01T00:00:08Z".parse().unwrap();
    assert_eq!(run_events(&engine, &naming, None, Some(since)).await.unwrap(), events[6..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parent_of_a_run_is_of_the_job_that_its_own_events_name() {
    let config = json!({"benchmark": {"benchmark": "gaia", "digest": "bb"}}).to_string();
    let run = |id: &str, kind: &str, more: Value| {
        let mut row = json!({"event_id": id, "run_id": id, "kind": kind, "state": "started"});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let runs = [
        run(SCORED, "eval", json!({"config": config})),
        run(SAMPLED, "rescore", json!({"parent_run": SCORED})),
        run(TRAINED, "eval", json!({"parent_run": "gone"})),
    ];
    let engine = Memory::default().with(Kind::Run, &runs).engine();
    let naming = Naming::of(Url::parse("s3://bucket/lake/").unwrap());
    let events = run_events(&engine, &naming, None, None).await.unwrap();
    let parents: Vec<&Value> = events.iter().map(|event| &event["run"]["facets"]["parent"]["job"]["name"]).collect();
    assert_eq!(events[0]["job"]["name"], "eval.gaia");
    assert_eq!(parents, [&Value::Null, &json!("eval.gaia"), &json!("run")]);
}

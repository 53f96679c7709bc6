//! A lake on disk with rows written as JSON, and a browser that asks a router.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderName, Request, StatusCode};
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;
use webdancer_eval::dashboard::{Settings, router};
use webdancer_lake::append::Part;
use webdancer_lake::{Lake, LakeOptions};
use webdancer_query::{Limits, QueryEngine};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::table::table_schema;

/// A lake being written.
pub(super) struct Written {
    folder: Arc<tempfile::TempDir>,
    pub(super) lake: Lake,
    next: HashMap<Kind, i64>,
}

impl Written {
    pub(super) fn new() -> Written {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let lake = Lake::open(folder.path().to_str().unwrap(), LakeOptions::default()).unwrap();
        Written { folder, lake, next: HashMap::new() }
    }

    /// Appends rows; what a row does not say is filled in. The n-th row of a table happened n minutes after the first.
    pub(super) async fn append(&mut self, kind: Kind, rows: &[Value]) {
        let next = self.next.entry(kind).or_default();
        let (from, first) = ((*next > 0).then(|| *next - 1), *next);
        *next += rows.len() as i64;
        let part = Part {
            app_id: "test".to_string(),
            from,
            to: *next - 1,
            fingerprint: None,
            batches: vec![batch(kind, first, rows)],
        };
        let mut table = self.lake.table_for_writing(kind).await.unwrap();
        table.append(&[part]).await.unwrap();
    }

    pub(super) fn engine(&self) -> QueryEngine {
        let limits = Limits { target_partitions: 2, ..Limits::default() };
        QueryEngine::new(Arc::new(self.lake.clone()), limits).unwrap()
    }

    pub(super) fn browser(&self) -> Browser {
        self.browser_with(settings())
    }

    pub(super) fn browser_with(&self, settings: Settings) -> Browser {
        Browser { router: router(self.engine(), settings), groups: None, _folder: self.folder.clone() }
    }
}

/// Newest figures at once: a test waits for what it asks for.
pub(super) fn settings() -> Settings {
    Settings {
        lake: "the lake".to_string(),
        versions_time: Duration::ZERO,
        patience: Duration::from_secs(60),
        stream_every: Duration::from_millis(20),
        now: || "2026-01-01T00:10:00Z".parse().unwrap(),
        ..Settings::default()
    }
}

fn batch(kind: Kind, first: i64, rows: &[Value]) -> RecordBatch {
    let schema = table_schema(kind);
    let rows: Vec<Value> =
        rows.iter().enumerate().map(|(at, row)| complete(kind, &schema, first + at as i64, row)).collect();
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone()).with_batch_size(1 << 20).build_decoder().unwrap();
    decoder.serialize(&rows).unwrap();
    decoder.flush().unwrap().unwrap_or_else(|| RecordBatch::new_empty(schema))
}

fn complete(kind: Kind, schema: &Schema, number: i64, row: &Value) -> Value {
    let mut whole = Map::new();
    for field in schema.fields() {
        let value = match (row.get(field.name()), field.name().as_str()) {
            (Some(value), _) => value.clone(),
            (None, "event_id") => json!(format!("00000000-0000-7000-{:04x}-{number:012}", 0x8000 + kind as u32)),
            (None, "event_time") => {
                json!(format!("2026-01-{:02}T{:02}:{:02}:00Z", 1 + number / 1440, number / 60 % 24, number % 60))
            }
            (None, _) if field.is_nullable() => continue,
            (None, _) => match field.data_type() {
                DataType::List(_) => json!([]),
                DataType::Utf8 => json!("x"),
                DataType::Timestamp(..) => json!("2026-01-01T00:00:00Z"),
                _ => json!(0),
            },
        };
        whole.insert(field.name().clone(), value);
    }
    Value::Object(whole)
}

pub(super) const HOSTILE: &str =
    "<script>alert(1)</script>\"><img src=x onerror=alert(2)> [x](javascript:alert(3)) \u{202e}cba";

/// A run's first event.
pub(super) fn started(run: &str, benchmark: &str, policy: &str, web: &str) -> Value {
    let config = json!({
        "benchmark": {"benchmark": benchmark, "digest": "d1", "title": benchmark, "restricted": false}, "policy": policy, "web": web,
        "attempts": 2, "qa_ids": ["q1", "q2", "q3", "q4"],
    });
    json!({"run_id": run, "kind": "eval", "state": "started", "config": config.to_string(), "code_version": "0.1.0", "seed": 7})
}

pub(super) fn ended(run: &str, state: &str) -> Value {
    json!({"run_id": run, "kind": "eval", "state": state})
}

pub(super) fn question(id: &str, benchmark: &str, text: &str, attributes: Value) -> Value {
    let mut all = json!({"benchmark": benchmark});
    all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    json!({
        "qa_id": id, "method": "benchmark", "generator": benchmark, "question": text, "answer": "gold",
        "attributes": all.to_string(),
    })
}

pub(super) fn attempt(run: &str, question: &str, number: i64, policy: &str) -> Value {
    json!({
        "trajectory_id": format!("{run}-{question}-{number}"), "run_id": run, "qa_id": question, "attempt": number,
        "policy_model": policy, "answer": "an answer", "termination": "answer", "n_turns": 2, "n_tool_calls": 1,
        "input_tokens": 1000, "output_tokens": 100, "turn_ms": [1000, 2000], "turn_tool": ["search", null],
        "turn_outcome": ["done", null],
    })
}

pub(super) fn verdict(run: &str, question: &str, number: i64, pass: bool) -> Value {
    json!({
        "trajectory_id": format!("{run}-{question}-{number}"), "run_id": run, "stage": "correctness",
        "verdict": if pass { "pass" } else { "fail" }, "judge": "gaia", "rule_version": 2,
    })
}

/// Four questions, two attempts each, over the benchmark `small`: run `r1` of `alpha` with 37.5 % right (50 % of the
/// questions in either attempt), then `r2` of `beta` with 62.5 % and 75 %. The first question's text is hostile.
pub(super) async fn two_runs() -> Written {
    let mut lake = Written::new();
    let level = |level: i64| json!({"level": level});
    let questions = [
        question("q1", "small", HOSTILE, level(1)),
        question("q2", "small", "What is q2?", level(1)),
        question("q3", "small", "What is q3?", level(2)),
        question("q4", "small", "What is q4?", level(2)),
    ];
    lake.append(Kind::Qa, &questions).await;
    lake.append(Kind::Run, &[started("r1", "small", "endpoint:a", "live"), ended("r1", "finished")]).await;
    lake.append(Kind::Run, &[started("r2", "small", "endpoint:a", "closed:pages"), ended("r2", "finished")]).await;
    for (run, policy, right) in [("r1", "alpha", [2, 1, 0, 0]), ("r2", "beta", [2, 2, 1, 0])] {
        let ids = ["q1", "q2", "q3", "q4"];
        let all =
            || ids.iter().zip(right).flat_map(|(id, right)| (0..2).map(move |number| (*id, number, number < right)));
        lake.append(Kind::Trajectory, &all().map(|(id, n, _)| attempt(run, id, n, policy)).collect::<Vec<_>>()).await;
        lake.append(Kind::Judgment, &all().map(|(id, n, pass)| verdict(run, id, n, pass)).collect::<Vec<_>>()).await;
    }
    lake
}

/// What asks a router.
#[derive(Clone)]
pub(super) struct Browser {
    pub(super) router: Router,
    /// What the proxy before the server says of it.
    groups: Option<&'static str>,
    /// The lake is there as long as somebody looks at it.
    _folder: Arc<tempfile::TempDir>,
}

/// What a router answered.
pub(super) struct Seen {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

/// Where a proxy tells a reader's groups.
pub(super) const GROUPS: HeaderName = HeaderName::from_static("x-forwarded-groups");

impl Browser {
    /// That of a reader of these groups, on the same server.
    pub(super) fn of_groups(&self, groups: &'static str) -> Browser {
        Browser { groups: Some(groups), ..self.clone() }
    }

    pub(super) async fn get(&self, address: &str) -> Seen {
        let mut request = Request::get(address).body(Body::empty()).unwrap();
        request.headers_mut().extend(self.groups.map(|groups| (GROUPS, groups.parse().unwrap())));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 64 << 20).await.unwrap();
        Seen { status, headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    /// A page that is there.
    pub(super) async fn page(&self, address: &str) -> String {
        let seen = self.get(address).await;
        assert_eq!(seen.status, StatusCode::OK, "{address}: {}", seen.text);
        seen.text
    }

    pub(super) async fn json(&self, address: &str) -> Value {
        let join = if address.contains('?') { '&' } else { '?' };
        let text = self.page(&format!("{address}{join}format=json")).await;
        serde_json::from_str(&text).unwrap()
    }
}

//! Runs as [OpenLineage](https://openlineage.io) 2-0-2 run events: what read which dataset and made which.
//!
//! Each event of the table `runs` becomes one: the first `started` START, a later one RUNNING; the last state of a run
//! COMPLETE, FAIL or ABORT, and a state that it went on from OTHER. Datasets are named as the specification names files
//! and objects: pins with the digest as their version, tables with how many rows the run appended, checkpoints, and the
//! benchmark that a run was over. A run whose id is no UUID gets one derived from it.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use url::Url;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::table::table_schema;

use super::{literal, relations, rows, text};
use crate::digest::type_name;
use crate::error::Result;
use crate::session::QueryEngine;

/// The document that events are valid against.
pub const SCHEMA_URL: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";
/// Where facets are defined; name and version follow.
const FACETS_URL: &str = "https://openlineage.io/spec/facets";
/// What any run facet is valid against: ours has members that the specification does not name.
const RUN_FACET_URL: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet";
/// Kinds of events that runs append.
const MADE: [Kind; 8] = [
    Kind::Page,
    Kind::Qa,
    Kind::Rewrite,
    Kind::Trajectory,
    Kind::Judgment,
    Kind::Reward,
    Kind::Metric,
    Kind::Checkpoint,
];

/// How things are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// Namespace of jobs.
    pub jobs: String,
    /// URL of the lake.
    pub lake: Url,
    /// Who makes the events: a URI.
    pub producer: String,
}

impl Naming {
    /// Names for the lake at this URL. Jobs are in the namespace `webdancer`.
    pub fn of(lake: Url) -> Naming {
        let producer = format!("urn:webdancer:{}", env!("CARGO_PKG_VERSION"));
        Naming { jobs: "webdancer".to_string(), lake, producer }
    }

    /// Namespace and name of something of the lake: `file` and a path, or `s3://bucket` and a key.
    fn dataset(&self, path: &str) -> (String, String) {
        let base = self.lake.path().trim_end_matches('/');
        match self.lake.host_str() {
            Some(host) if self.lake.scheme() != "file" => {
                let key = format!("{}/{path}", base.trim_start_matches('/'));
                (format!("{}://{host}", self.lake.scheme()), key.trim_start_matches('/').to_string())
            }
            _ => (self.lake.scheme().to_string(), format!("{base}/{path}")),
        }
    }

    fn facet(&self, place: &str, members: Value) -> Value {
        let mut facet = json!({"_producer": self.producer, "_schemaURL": format!("{FACETS_URL}/{place}")});
        if let (Some(facet), Value::Object(members)) = (facet.as_object_mut(), members) {
            facet.extend(members);
        }
        facet
    }
}

/// The events of all runs, or of one, in the order in which they happened, from a time on.
///
/// # Errors
/// Those of a query.
pub async fn run_events(
    engine: &QueryEngine,
    naming: &Naming,
    run: Option<&str>,
    since: Option<DateTime<Utc>>,
) -> Result<Vec<Value>> {
    let mut conditions = vec!["r.run_id IS NOT NULL".to_string()];
    conditions.extend(run.map(|run| format!("r.run_id = {}", literal(run))));
    conditions.extend(since.map(|since| {
        // A run is told whole: one that changed since then is sent from its start.
        let since = literal(&since.to_rfc3339());
        format!("r.run_id IN (SELECT run_id FROM runs WHERE event_time >= CAST({since} AS TIMESTAMP))")
    }));
    let sql = format!(
        "SELECT r.run_id, r.event_time, r.kind, r.state, r.error, s.code_version, s.pin_id, s.seed, s.parent_run, \
           p.kind AS parent_kind, json_get_str(p.config, 'benchmark', 'benchmark') AS parent_benchmark, \
           json_get_str(s.config, 'policy') AS policy, json_get_str(s.config, 'policy_digest') AS \
           policy_digest, json_get_str(s.config, 'web') AS web, coalesce(json_get_str(s.config, 'pages_id'), \
           json_get_str(s.config, 'pages', 'pin')) AS pages_id, json_get_str(s.config, 'benchmark', 'benchmark') AS \
           benchmark, json_get_str(s.config, 'benchmark', 'digest') AS benchmark_digest, \
           row_number() OVER (PARTITION BY r.run_id ORDER BY r.event_time, r.event_id) AS place, \
           count(*) OVER (PARTITION BY r.run_id) AS places \
         FROM runs AS r JOIN run_state AS s ON s.run_id = r.run_id LEFT JOIN run_state AS p ON p.run_id = s.parent_run \
         WHERE {} ORDER BY r.event_time, r.event_id",
        conditions.join(" AND ")
    );
    let states = rows(engine, &sql).await?;
    let mut telling = Telling { engine, naming, made: made(engine, run).await?, pins: HashMap::new() };
    let mut events = Vec::with_capacity(states.len());
    for state in &states {
        events.push(telling.event(state).await?);
    }
    Ok(events)
}

/// Rows that runs appended, by run and table; and the checkpoints that acted in them.
struct Made {
    rows: HashMap<String, BTreeMap<&'static str, u64>>,
    wrote: HashMap<String, Vec<String>>,
    read: HashMap<String, Vec<String>>,
}

async fn made(engine: &QueryEngine, run: Option<&str>) -> Result<Made> {
    let condition = run.map_or_else(|| "run_id IS NOT NULL".to_string(), |run| format!("run_id = {}", literal(run)));
    let mut made = Made { rows: HashMap::new(), wrote: HashMap::new(), read: HashMap::new() };
    for kind in MADE {
        let table = kind.table();
        let sql = format!("SELECT run_id, count(*) AS rows FROM {table} WHERE {condition} GROUP BY run_id");
        for row in rows(engine, &sql).await? {
            if let (Some(run), Some(count)) = (text(&row, "run_id"), row.get("rows").and_then(Value::as_u64)) {
                made.rows.entry(run.to_string()).or_default().insert(table, count);
            }
        }
    }
    for (sql, into) in [
        (format!("SELECT DISTINCT run_id, digest FROM checkpoints WHERE {condition} ORDER BY digest"), &mut made.wrote),
        (
            format!(
                "SELECT DISTINCT run_id, policy_checkpoint_digest AS digest FROM trajectories WHERE {condition} \
                 AND policy_checkpoint_digest IS NOT NULL ORDER BY digest"
            ),
            &mut made.read,
        ),
    ] {
        for row in rows(engine, &sql).await? {
            if let (Some(run), Some(digest)) = (text(&row, "run_id"), text(&row, "digest")) {
                into.entry(run.to_string()).or_insert_with(Vec::new).push(digest.to_string());
            }
        }
    }
    Ok(made)
}

struct Telling<'a> {
    engine: &'a QueryEngine,
    naming: &'a Naming,
    made: Made,
    pins: HashMap<String, Value>,
}

impl Telling<'_> {
    async fn event(&mut self, row: &Map<String, Value>) -> Result<Value> {
        let run = text(row, "run_id").unwrap_or_default();
        let (inputs, outputs) = (self.inputs(row, run).await?, self.outputs(row, run));
        Ok(json!({
            "eventType": event_type(row),
            "eventTime": row.get("event_time"),
            "producer": self.naming.producer,
            "schemaURL": SCHEMA_URL,
            "run": {"runId": run_id(run), "facets": self.run_facets(row)},
            "job": self.job(text(row, "kind"), text(row, "benchmark")),
            "inputs": inputs,
            "outputs": outputs,
        }))
    }

    fn job(&self, kind: Option<&str>, benchmark: Option<&str>) -> Value {
        let kind = kind.unwrap_or("run");
        let facet = json!({"processingType": "BATCH", "integration": "WEBDANCER", "jobType": kind.to_uppercase()});
        json!({
            "namespace": self.naming.jobs,
            "name": job_name(kind, benchmark),
            "facets": {"jobType": self.naming.facet("2-0-4/JobTypeJobFacet.json", facet)},
        })
    }

    fn run_facets(&self, row: &Map<String, Value>) -> Value {
        let naming = self.naming;
        let mut facets = Map::new();
        if let Some(version) = text(row, "code_version") {
            let engine = json!({"name": "webdancer", "version": version});
            facets.insert("processing_engine".into(), naming.facet("1-1-1/ProcessingEngineRunFacet.json", engine));
        }
        if let Some(parent) = text(row, "parent_run") {
            let name = job_name(text(row, "parent_kind").unwrap_or("run"), text(row, "parent_benchmark"));
            let job = json!({"namespace": naming.jobs, "name": name});
            let parent = json!({"run": {"runId": run_id(parent)}, "job": job});
            facets.insert("parent".into(), naming.facet("1-2-0/ParentRunFacet.json", parent));
        }
        if let Some(error) = text(row, "error") {
            let error = json!({"message": error, "programmingLanguage": "Rust"});
            facets.insert("errorMessage".into(), naming.facet("1-0-1/ErrorMessageRunFacet.json", error));
        }
        let own = ["run_id", "seed", "policy", "policy_digest", "web", "benchmark_digest"];
        let own = own.into_iter().filter_map(|name| Some((name.to_string(), row.get(name)?.clone())));
        let mut own: Map<String, Value> = own.collect();
        own.insert("_producer".into(), naming.producer.clone().into());
        own.insert("_schemaURL".into(), RUN_FACET_URL.into());
        facets.insert("webdancer_run".into(), own.into());
        facets.into()
    }

    /// What the run read: pins, its benchmark, the web that another run recorded, the checkpoints that acted.
    async fn inputs(&mut self, row: &Map<String, Value>, run: &str) -> Result<Vec<Value>> {
        let mut inputs = Vec::new();
        let web = text(row, "web").and_then(|web| web.split_once(':'));
        let closed = web.filter(|(kind, name)| *kind == "closed" || (*kind == "recorded" && name.len() == 64));
        let pins = [text(row, "pin_id"), text(row, "pages_id"), closed.map(|(_, digest)| digest)];
        for digest in pins.into_iter().flatten() {
            inputs.push(self.pin(digest).await?);
        }
        if let (Some(("recorded" | "visited", recording)), None) = (web, closed) {
            inputs.push(self.dataset(&format!("runs/{recording}/observations"), None, Map::new()));
        }
        if let Some(name) = text(row, "benchmark") {
            inputs.push(self.dataset(&format!("benchmarks/{name}"), text(row, "benchmark_digest"), Map::new()));
        }
        for digest in self.made.read.get(run).into_iter().flatten() {
            inputs.push(self.dataset(&format!("checkpoints/{digest}"), Some(digest), Map::new()));
        }
        Ok(inputs)
    }

    /// What the run had appended when it came to its last state.
    fn outputs(&self, row: &Map<String, Value>, run: &str) -> Vec<Value> {
        if !is_last(row) {
            return Vec::new();
        }
        let table = |(table, count): (&&'static str, &u64)| {
            let statistics =
                self.naming.facet("1-0-2/OutputStatisticsOutputDatasetFacet.json", json!({"rowCount": count}));
            let fields = Kind::from_table(table).map(|kind| fields(&table_schema(kind)));
            let mut facets = Map::new();
            facets
                .insert("schema".into(), self.naming.facet("1-2-0/SchemaDatasetFacet.json", json!({"fields": fields})));
            let mut dataset = self.dataset(&format!("tables/{table}"), None, facets);
            dataset["outputFacets"] = json!({"outputStatistics": statistics});
            dataset
        };
        let checkpoint = |digest: &String| self.dataset(&format!("checkpoints/{digest}"), Some(digest), Map::new());
        let tables = self.made.rows.get(run).into_iter().flatten().map(table);
        tables.chain(self.made.wrote.get(run).into_iter().flatten().map(checkpoint)).collect()
    }

    async fn pin(&mut self, digest: &str) -> Result<Value> {
        if let Some(known) = self.pins.get(digest) {
            return Ok(known.clone());
        }
        let mut facets = Map::new();
        if let Some(manifest) = relations::pin(self.engine, digest).await? {
            let fields = json!({"fields": manifest.schema});
            facets.insert("schema".into(), self.naming.facet("1-2-0/SchemaDatasetFacet.json", fields));
        }
        let told = self.dataset(&format!("pins/{digest}"), Some(digest), facets);
        self.pins.insert(digest.to_string(), told.clone());
        Ok(told)
    }

    fn dataset(&self, path: &str, version: Option<&str>, mut facets: Map<String, Value>) -> Value {
        let (namespace, name) = self.naming.dataset(path);
        let source = json!({"name": "webdancer", "uri": self.naming.lake});
        facets.insert("dataSource".into(), self.naming.facet("1-0-1/DatasourceDatasetFacet.json", source));
        if let Some(version) = version {
            let version =
                self.naming.facet("1-0-1/DatasetVersionDatasetFacet.json", json!({"datasetVersion": version}));
            facets.insert("version".into(), version);
        }
        json!({"namespace": namespace, "name": name, "facets": facets})
    }
}

fn fields(schema: &arrow::datatypes::Schema) -> Value {
    let field = |field: &std::sync::Arc<arrow::datatypes::Field>| json!({"name": field.name(), "type": type_name(field.data_type()).unwrap_or_default()});
    schema.fields().iter().map(field).collect()
}

fn is_last(row: &Map<String, Value>) -> bool {
    row.get("place") == row.get("places")
}

fn event_type(row: &Map<String, Value>) -> &'static str {
    let is_first = row.get("place").and_then(Value::as_u64) == Some(1);
    match text(row, "state").unwrap_or_default() {
        "started" if is_first => "START",
        "started" => "RUNNING",
        _ if !is_last(row) => "OTHER",
        "finished" => "COMPLETE",
        "failed" => "FAIL",
        "stopped" => "ABORT",
        _ => "OTHER",
    }
}

/// What the job of runs of this kind over this benchmark is called.
fn job_name(kind: &str, benchmark: Option<&str>) -> String {
    benchmark.map_or_else(|| kind.to_string(), |benchmark| format!("{kind}.{benchmark}"))
}

/// A run's id as a UUID: its own, or one derived from it.
fn run_id(run: &str) -> String {
    EventId::from_producer("webdancer/run", run).0.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets_are_named_as_files_and_objects_are() {
        let of = |lake: &str| Naming::of(Url::parse(lake).unwrap()).dataset("pins/d");
        assert_eq!(of("file:///data/lake/"), ("file".to_string(), "/data/lake/pins/d".to_string()));
        assert_eq!(of("s3://bucket/a/b/"), ("s3://bucket".to_string(), "a/b/pins/d".to_string()));
        assert_eq!(of("s3://bucket/"), ("s3://bucket".to_string(), "pins/d".to_string()));
    }

    #[test]
    fn a_run_that_goes_on_starts_once_and_ends_once() {
        let told = |states: &[&str]| -> Vec<&'static str> {
            let row = |(state, place): (&&str, usize)| json!({"state": state, "place": place, "places": states.len()});
            let rows: Vec<Value> = states.iter().zip(1..).map(row).collect();
            rows.iter().map(|row| event_type(row.as_object().unwrap())).collect()
        };
        assert_eq!(told(&["started", "finished"]), ["START", "COMPLETE"]);
        assert_eq!(told(&["started", "stopped", "started", "failed"]), ["START", "OTHER", "RUNNING", "FAIL"]);
        assert_eq!(told(&["started", "stopped"]), ["START", "ABORT"]);
        assert_eq!(run_id("crawl-1").len(), 36);
        assert_eq!(run_id("0190a6b2-7c3d-7e4f-8a1b-2c3d4e5f6071"), "0190a6b2-7c3d-7e4f-8a1b-2c3d4e5f6071");
    }
}

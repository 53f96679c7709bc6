//! `webdancer demo`: the main job on this machine, without keys or network.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use arrow::array::RecordBatch;
use futures::TryStreamExt as _;
use serde_json::json;
use webdancer_query::output::Format;
use webdancer_query::{QueryEngine, QueryOptions, pin};
use webdancer_schemas::kind::Kind;
use webdancer_synth::atlas::{self, World};
use webdancer_synth::crawl::CrawlConfig;

use crate::args::{Args, DemoArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// The published format's sample that ships with the project: our own words.
const TRAJECTORIES: &str = include_str!("../../../deploy/demo/demo_trajectories.jsonl");
const QUESTIONS: &str = include_str!("../../../deploy/demo/demo_qa.jsonl");
/// Marks a folder as one that the demo made and may make anew.
const MARK: &str = ".webdancer-demo";

/// Queries that a team asks first.
const QUERIES: &[(&str, &str)] = &[
    (
        "Which pages of the crawl link most?",
        "SELECT title, depth, cardinality(links) AS links, length(text) AS characters FROM pages \
         ORDER BY links DESC, title LIMIT 5",
    ),
    (
        "How deep did the crawl go?",
        "SELECT depth, count(*) AS pages, round(avg(length(text))) AS avg_characters, count(DISTINCT digest) AS distinct_texts \
         FROM pages GROUP BY depth ORDER BY depth",
    ),
    (
        "Which tools do the trajectories call, and with what?",
        "SELECT tool, count(*) AS calls, min(arguments) AS example FROM tool_calls GROUP BY tool ORDER BY calls DESC",
    ),
    (
        "Pass@k per question, with the gold answer as the judge",
        "SELECT question, attempts, round(pass_1, 2) AS pass_at_1, round(pass_2, 2) AS pass_at_2 FROM ( \
           SELECT q.question, count(*) AS attempts, pass_at_k(lower(t.answer) LIKE '%' || lower(q.answer) || '%', 1) AS pass_1, \
                  pass_at_k(lower(t.answer) LIKE '%' || lower(q.answer) || '%', 2) AS pass_2 \
           FROM trajectories t JOIN qa q ON t.qa_id = q.qa_id GROUP BY q.qa_id, q.question) ORDER BY attempts DESC, question LIMIT 5",
    ),
    (
        "Every observation that names a page of the crawl",
        "SELECT p.title, count(*) AS mentions FROM tool_calls c JOIN pages p ON strpos(c.observation, p.title) > 0 \
         WHERE p.depth = 2 AND length(p.title) > 4 GROUP BY p.title ORDER BY mentions DESC, p.title LIMIT 5",
    ),
];

pub(crate) async fn run(args: &DemoArgs, global: &Args) -> Result<(), Failure> {
    let begun = Instant::now();
    make_folder(&args.folder)?;
    let lake_args = Args {
        lake: Some(args.folder.join("lake").display().to_string()),
        log: Some("embedded".to_string()),
        config: None,
        command: crate::args::Command::Demo(DemoArgs { folder: args.folder.clone() }),
        ..*global
    };
    let context = Context::new(&lake_args)?;
    let say = |text: &str| {
        if !context.quiet {
            output::note(text);
        }
    };

    say("1. Serving the atlas, an encyclopaedia of countries, on loopback; crawling it over HTTP");
    let world = World::real().map_err(|e| Failure::failed(e.to_string()))?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let server = atlas::serve(world, address).await.map_err(|e| Failure::failed(format!("serving the atlas: {e}")))?;
    let mut config = CrawlConfig::default().impolite(8);
    config.fetch.allow_private = true;
    let log = context.event_log().await?;
    let crawled = super::crawl::crawl(log.clone(), &[server.url()], config, context.quiet).await?;
    server.stop().await.map_err(|e| Failure::failed(format!("stopping the atlas: {e}")))?;
    say(&format!("   {} pages, {}", crawled.pages, output::bytes(crawled.bytes)));

    say("2. Importing trajectories and questions in the published format");
    for (name, content, what) in
        [("demo_trajectories.jsonl", TRAJECTORIES, Kind::Trajectory), ("demo_qa.jsonl", QUESTIONS, Kind::Qa)]
    {
        let file = args.folder.join(name);
        std::fs::write(&file, content).map_err(|e| Failure::failed(format!("writing {}: {e}", file.display())))?;
        let report = super::import::import(log.clone(), &file, what, context.quiet).await?;
        say(&format!("   {name}: {} lines, {} events", report.lines, report.events));
    }
    let drained = context.drain_embedded().await?;
    say(&format!("   {} commits moved the events into Delta tables, exactly once", drained.commits));

    say("3. Asking with SQL");
    let engine = context.engine()?;
    for (title, sql) in QUERIES {
        say(&format!("\n   {title}\n   {}", sql.split_whitespace().collect::<Vec<_>>().join(" ")));
        let shown: Box<dyn std::io::Write + Send> =
            if context.quiet { Box::new(std::io::sink()) } else { Box::new(std::io::stderr()) };
        let rows = super::sql::answer(&engine, sql, &QueryOptions::default(), Format::Table, shown).await?;
        if rows.rows == 0 {
            return Err(Failure::failed(format!("the demo's query gave no rows: {sql}")));
        }
    }

    say("\n4. Pinning a dataset and verifying it");
    let sql = "SELECT t.trajectory_id, q.question, q.answer AS gold, t.answer, t.n_tool_calls, t.turn_tool, t.turn_arguments \
               FROM trajectories t JOIN qa q ON t.qa_id = q.qa_id ORDER BY t.trajectory_id";
    let pinned = super::pin::create(&context, &engine, "demo", sql).await?;
    let verified = pin::verify(&engine, "demo").await?;
    if !verified.passed() {
        return Err(Failure::failed(format!("the demo's pin does not verify: {}", verified.problems.join("; "))));
    }
    say(&format!("   pin demo: {} rows, digest {}, verified", pinned.rows, pinned.digest));

    let counts = counts(&engine).await?;
    say(&format!("\nDone in {:.1} s. Try next:", begun.elapsed().as_secs_f64()));
    let lake = args.folder.join("lake");
    let lake = lake.display();
    // As it was called: the command need not be on the path.
    let webdancer = std::env::args().next().unwrap_or_else(|| "webdancer".to_string());
    for command in [
        format!("{webdancer} --lake {lake} sql"),
        format!(
            "{webdancer} --lake {lake} sql \"SELECT url, title FROM pages WHERE text LIKE '%landlocked%' LIMIT 5\""
        ),
        format!("{webdancer} --lake {lake} pin show demo"),
        format!("{webdancer} atlas --invent 7"),
    ] {
        say(&format!("  {command}"));
    }
    if context.json {
        output::json(&json!({"tables": counts, "pin": pinned.digest, "seconds": begun.elapsed().as_secs_f64()}))?;
    }
    Ok(())
}

async fn counts(engine: &QueryEngine) -> Result<BTreeMap<&'static str, i64>, Failure> {
    use arrow::array::AsArray as _;
    let mut counts = BTreeMap::new();
    for kind in [Kind::Page, Kind::Qa, Kind::Trajectory, Kind::Run, Kind::Pin, Kind::DeadLetter] {
        let sql = format!("SELECT count(*) FROM {}", kind.table());
        let result = engine.query(&sql, &QueryOptions::default()).await?;
        let batches: Vec<RecordBatch> = result.try_collect().await?;
        let count = batches
            .first()
            .and_then(|b| b.column(0).as_primitive_opt::<arrow::datatypes::Int64Type>()?.values().first().copied());
        counts.insert(kind.table(), count.unwrap_or(0));
    }
    Ok(counts)
}

/// An empty folder for the demo; one that the demo did not make is left alone.
fn make_folder(folder: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::failed(format!("making {}: {e}", folder.display()));
    if folder.exists() {
        let empty = std::fs::read_dir(folder).map_err(failed)?.next().is_none();
        if !empty && !folder.join(MARK).is_file() {
            return Err(Failure::usage(format!(
                "{} is not empty and was not made by the demo; give another --folder",
                folder.display()
            )));
        }
        std::fs::remove_dir_all(folder).map_err(failed)?;
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    std::fs::write(folder.join(MARK), "made by webdancer demo, which makes it anew\n").map_err(failed)
}

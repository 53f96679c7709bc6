//! Questions by models: CRAWLQA from pages of the lake, E2HQA from questions that it holds.
//!
//! A run's id follows from what it works on and how, so the same command goes on where it was stopped: CRAWLQA behind
//! the last walk that gave a question, E2HQA with the questions whose chains are not done.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray as _, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use chrono::Utc;
use futures::StreamExt as _;
use serde::Serialize;
use serde_json::{Value, json};
use webdancer_agent::chat::{self, Spent};
use webdancer_agent::index::PageIndex;
use webdancer_agent::tool::ObservationLimits;
use webdancer_agent::web::Closed;
use webdancer_query::{QueryOptions, pin};
use webdancer_schemas::log::EventLog;
use webdancer_schemas::row::Row;
use webdancer_schemas::rows::{Page, Qa};
use webdancer_synth::crawlqa::{Crawlqa, CrawlqaReport, Models, PageGraph, RunOf, SynthError, prompt};
use webdancer_synth::e2hqa::{Chains, E2hqa, E2hqaReport, Link, Progress, Root, WebFinder, is_simple};
use webdancer_synth::overlap::{Benchmarks, NearDuplicates};

use crate::args::{CrawlqaArgs, E2hqaArgs};
use crate::columns::{column, query, rows, strings, text};
use crate::commands::filter::judges;
use crate::commands::ingest::stopped;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// All pages with a text, the newest of an address first.
const PAGES: &str = "SELECT * FROM pages WHERE text IS NOT NULL ORDER BY event_time DESC, event_id DESC";

/// What a run came to.
#[derive(Debug, Serialize)]
struct Summary<T> {
    run_id: String,
    /// Questions written.
    questions: usize,
    /// Pages that they are made from.
    pages: usize,
    /// Questions, or roots, of this run that were done before.
    done_before: usize,
    #[serde(flatten)]
    report: T,
    /// By all models together.
    spent: Spent,
    elapsed_ms: u64,
}

/// A run with its log and its models.
struct Work<'a> {
    context: &'a Context,
    kind: &'static str,
    run: RunOf,
    /// What the run's id follows from.
    config: Value,
    log: Arc<dyn EventLog>,
    models: chat::Models,
    begun: Instant,
}

pub(super) async fn crawlqa(context: &Context, args: &CrawlqaArgs) -> Result<(), Failure> {
    if let Some(fault) = context.config.synth.crawlqa.fault() {
        return Err(Failure::usage(format!("synth.crawlqa: {fault}")));
    }
    let (models, roles) = cast(context, args.source.judge.as_deref()).await?;
    let graph = PageGraph::new(pages(context, args.source.sql.as_deref(), args.source.pin.as_deref()).await?);
    if graph.is_empty() {
        return Err(Failure::usage("no page has a text worth asking about: `webdancer crawl` brings some"));
    }
    let mut config = context.config.synth.crawlqa.clone();
    config.seed = args.source.seed.unwrap_or(config.seed);
    config.walks_max = args.walks.unwrap_or(config.walks_max);
    if !args.types.is_empty() {
        config.types.clone_from(&args.types);
    }
    let settings = json!({
        "source": "pages", "pages": graph.digest(), "seed": config.seed, "types": config.types,
        "pages_max": config.pages_max, "writer": roles.writer.name(), "prompt_version": prompt::PROMPT_VERSION,
    });
    let work = Work::new(context, "crawlqa", settings, models).await?;
    let (done_before, first_walk) = work.walked().await?;
    let wanted = args.count.unwrap_or(config.questions_max);
    config.questions_max = wanted.saturating_sub(done_before);
    let benchmarks = Benchmarks::new(
        texts(context, "SELECT question FROM qa WHERE method = 'benchmark'").await?,
        context.config.synth.benchmark_run_words,
    );
    let mut known = NearDuplicates::new(config.similarity_min);
    for question in texts(context, "SELECT question FROM current_qa ORDER BY event_time, qa_id").await? {
        known.insert(&question);
    }
    let bar = output::bar(config.questions_max as u64, context.quiet);
    let progress = |report: &CrawlqaReport| {
        bar.set_position(report.questions() as u64);
        bar.set_message(format!("questions, {} walks", report.walks));
    };
    let (graph, config) = (&graph, &config);
    let writing = Crawlqa { graph, models: &roles, benchmarks: &benchmarks, config, first_walk };
    let report = work.carry_out(writing.run(known, work.log.as_ref(), &work.run, progress)).await;
    bar.finish_and_clear();
    let report = work.settle(report, |report| report.budget_spent).await?;
    let summary = work.summary(report.questions(), graph.len(), done_before, report);
    if !context.json {
        tell(&summary)?;
        let report = &summary.report;
        for (kind, count) in &report.accepted {
            output::line(&format!("  {count:>6} {kind}"))?;
        }
        for (why, count) in &report.rejected {
            output::line(&format!("  {count:>6} walks without one: {}", output::word(why)))?;
        }
    }
    end(context, &summary, summary.report.budget_spent)
}

pub(super) async fn e2hqa(context: &Context, args: &E2hqaArgs) -> Result<(), Failure> {
    if let Some(fault) = context.config.synth.e2hqa.fault() {
        return Err(Failure::usage(format!("synth.e2hqa: {fault}")));
    }
    let (models, roles) = cast(context, args.source.judge.as_deref()).await?;
    let questions = questions(context, args).await?;
    let graph = PageGraph::new(pages(context, None, args.pages.as_deref()).await?);
    if graph.is_empty() {
        return Err(Failure::usage("there are no pages to look entities up in: `webdancer crawl` brings some"));
    }
    let mut config = context.config.synth.e2hqa.clone();
    config.rewrites = args.rewrites.into();
    config.writing.seed = args.source.seed.and_then(|seed| i64::try_from(seed).ok()).or(config.writing.seed);
    let settings = json!({
        "source": "questions", "pages": graph.digest(), "rewrites": config.rewrites, "seed": config.writing.seed,
        "writer": roles.writer.name(),
    });
    let work = Work::new(context, "e2hqa", settings, models).await?;
    let Left { roots, lost, done: done_before, own } = work.left(questions, config.rewrites).await?;
    if own > 0 && !context.quiet {
        output::note(&format!(
            "{own} questions are left out: this run made them itself; another --rewrites is another run"
        ));
    }
    if let Some(first) = lost.first() {
        let count = lost.len();
        output::note(&format!("{count} chains cannot go on: the lake lacks their last question, such as {first}"));
    }
    let roots = roots_of(roots, &graph);
    let finder = finder(&graph)?;
    let bar = output::bar(roots.len() as u64, context.quiet);
    let progress = |report: &E2hqaReport| {
        bar.set_position(report.roots as u64);
        bar.set_message(format!("questions, {} rewrites", report.rewrites));
    };
    let writing = E2hqa { models: &roles, finder: &finder, config: &config };
    let report = work.carry_out(writing.run(roots, work.log.as_ref(), &work.run, progress)).await;
    bar.finish_and_clear();
    let report = work.settle(report, |report| report.budget_spent).await?;
    let summary = work.summary(report.rewrites, graph.len(), done_before, report);
    if !context.json {
        tell(&summary)?;
        let report = &summary.report;
        for (rewrites, count) in &report.chains_by_rewrites {
            output::line(&format!("  {count:>6} rewritten {rewrites} times"))?;
        }
        for (why, count) in &report.stopped {
            output::line(&format!("  {count:>6} ended: {}", output::word(why)))?;
        }
    }
    end(context, &summary, summary.report.budget_spent)
}

/// What an E2HQA run has to do.
struct Left {
    /// The questions to go on with, each with the rewrites that it has behind it: in place of one whose chain was cut short
    /// the last question of the chain, whoever recorded it last.
    roots: Vec<(Qa, u32)>,
    /// Ids of last questions that the lake lacks.
    lost: Vec<String>,
    /// Chains that are done.
    done: usize,
    /// Questions that the run made itself.
    own: usize,
}

impl<'a> Work<'a> {
    async fn new(
        context: &'a Context,
        kind: &'static str,
        config: Value,
        models: chat::Models,
    ) -> Result<Work<'a>, Failure> {
        let run = RunOf::derived(kind, &config, Utc::now());
        let log = context.event_log().await?;
        Ok(Work { context, kind, run, config, log, models, begun: Instant::now() })
    }

    /// How many questions of the run there are, and the walk behind the last of them.
    async fn walked(&self) -> Result<(usize, u64), Failure> {
        let sql = format!(
            "SELECT count(*) AS questions, coalesce(max(json_get_int(attributes, 'walk')) + 1, 0) AS walk \
             FROM qa WHERE run_id = '{}'",
            self.run.run_id
        );
        let batches = query(self.context, &sql).await?;
        let number = |name: &str| -> Result<i64, Failure> {
            let Some(batch) = batches.first() else { return Ok(0) };
            let column = column(batch, name, &DataType::Int64)?;
            Ok(column.as_primitive_opt::<Int64Type>().and_then(|c| c.values().first().copied()).unwrap_or(0))
        };
        let (questions, walk) = (number("questions")?, number("walk")?);
        Ok((usize::try_from(questions).unwrap_or(0), u64::try_from(walk).unwrap_or(0)))
    }

    /// How far this run is with chains from these questions.
    async fn left(&self, questions: Vec<Qa>, rewrites: u32) -> Result<Left, Failure> {
        let chains = self.chains().await?;
        let (mut roots, mut cut, mut done, mut own) = (Vec::new(), BTreeMap::new(), 0, 0);
        for question in questions {
            if chains.made(&question.qa_id) {
                own += 1;
                continue;
            }
            match chains.progress(&question.qa_id, rewrites) {
                Progress::Fresh => roots.push((question, 0)),
                Progress::Cut(last, made) => drop(cut.insert(last, made)),
                Progress::Done => done += 1,
            }
        }
        if !cut.is_empty() {
            let made_here = format!(
                "SELECT * FROM current_qa WHERE qa_id IN (SELECT qa_id FROM rewrites WHERE run_id = '{}')",
                self.run.run_id
            );
            let made_here: Vec<Qa> = chosen(self.context, Some(&made_here), None, "").await?;
            roots.extend(made_here.into_iter().filter_map(|question| {
                let made = cut.remove(&question.qa_id)?;
                Some((question, made))
            }));
        }
        Ok(Left { roots, lost: cut.into_keys().collect(), done, own })
    }

    /// The chains of the run's rewrites.
    async fn chains(&self) -> Result<Chains, Failure> {
        let sql = format!(
            "SELECT parents[1] AS parent, qa_id AS child, CAST(step AS VARCHAR) AS step, \
               CAST(coalesce(invariant, false) AS VARCHAR) AS kept \
             FROM rewrites WHERE run_id = '{}' ORDER BY event_time, event_id",
            self.run.run_id
        );
        let mut links = Vec::new();
        for batch in &query(self.context, &sql).await? {
            let [parent, child, step, kept] = ["parent", "child", "step", "kept"].map(|name| strings(batch, name));
            let (parent, child, step, kept) = (parent?, child?, step?, kept?);
            let cell = |column: &StringArray, row| text(column, row).unwrap_or_default().to_string();
            links.extend((0..batch.num_rows()).map(|row| Link {
                parent: cell(&parent, row),
                child: cell(&child, row),
                step: cell(&step, row).parse().unwrap_or(0),
                kept: cell(&kept, row) == "true",
            }));
        }
        Ok(Chains::new(links))
    }

    /// Does the work between the run's first event and a signal.
    async fn carry_out<T>(&self, work: impl Future<Output = Result<T, SynthError>>) -> Result<T, Failure> {
        self.record("started", None).await?;
        tokio::select! {
            done = work => done.map_err(|error| Failure::failed(error.to_string())),
            () = stopped() => Err(Failure::partly("stopped; the same command goes on where it was")),
        }
    }

    /// Records how the run ended.
    async fn settle<T>(&self, outcome: Result<T, Failure>, spent: impl Fn(&T) -> bool) -> Result<T, Failure> {
        let (state, reason) = match &outcome {
            Ok(report) if spent(report) => ("stopped", Some("the budget is spent".to_string())),
            Ok(_) => ("finished", None),
            Err(failure) if failure.exit_code() == 3 => ("stopped", Some(failure.to_string())),
            Err(failure) => ("failed", Some(failure.to_string())),
        };
        // If the log is what failed, this fails as well: the first failure is the one to tell.
        let recorded = self.record(state, reason).await;
        if outcome.is_err() && !self.context.quiet {
            output::note(&format!("spent until then: {}", self.models.budget().spent()));
        }
        let report = outcome?;
        recorded?;
        self.context.drain_embedded().await?;
        Ok(report)
    }

    async fn record(&self, state: &str, reason: Option<String>) -> Result<(), Failure> {
        let event = self.run.event(self.kind, state, &self.config, reason, Utc::now());
        Ok(self.log.append(vec![event.map_err(|error| Failure::failed(error.to_string()))?]).await?)
    }

    fn summary<T>(&self, questions: usize, pages: usize, done_before: usize, report: T) -> Summary<T> {
        Summary {
            run_id: self.run.run_id.clone(),
            questions,
            pages,
            done_before,
            report,
            spent: self.models.budget().spent(),
            elapsed_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// The models that take part.
async fn cast(context: &Context, judge: Option<&str>) -> Result<(chat::Models, Models), Failure> {
    context.drain_embedded().await?;
    let models = context.config.models()?;
    let writer = models.role(chat::ModelRole::Synthesiser)?;
    let reader = judges::chat_model(&models, &context.config.synth.reader);
    let reader = reader.map_err(|failure| failure.about("synth.reader"))?;
    let judge = judge.unwrap_or(&context.config.funnel.judge);
    let judge = judges::judge(context, &models, &context.job_engine()?, judge).await?.judge;
    Ok((models, Models { writer, reader, judge }))
}

/// The pages of a query or of a pin; all, where neither is given.
async fn pages(context: &Context, sql: Option<&str>, pin: Option<&str>) -> Result<Vec<Page>, Failure> {
    let pages = chosen(context, sql, pin, PAGES).await;
    pages.map_err(|failure| failure.about("the pages"))
}

/// The questions to rewrite. Benchmarks are evaluated, not trained on: they are left out; so are questions whose answer is
/// no entity.
async fn questions(context: &Context, args: &E2hqaArgs) -> Result<Vec<Qa>, Failure> {
    // In the order of time, so that the first of them are the same when there are more.
    let all = "SELECT * FROM current_qa ORDER BY event_time, qa_id";
    let given: Result<Vec<Qa>, Failure> =
        chosen(context, args.source.sql.as_deref(), args.source.pin.as_deref(), all).await;
    let mut questions = given.map_err(|failure| failure.about("the questions"))?;
    let given = questions.len();
    questions.retain(|question| question.method != "benchmark");
    if questions.len() < given && !context.quiet {
        output::note(&format!("{} questions of benchmarks are left out", given - questions.len()));
    }
    let given = questions.len();
    questions.retain(is_simple);
    if questions.len() < given && !context.quiet {
        let left_out = given - questions.len();
        output::note(&format!("{left_out} questions are left out: yes, no, a count and a difference are no entities"));
    }
    questions.truncate(args.count.unwrap_or(usize::MAX));
    match questions.is_empty() {
        true => Err(Failure::usage(
            "there are no questions to rewrite: `webdancer synth crawlqa` writes some, `webdancer import qa` brings some",
        )),
        false => Ok(questions),
    }
}

async fn chosen<R: Row>(
    context: &Context,
    sql: Option<&str>,
    pinned: Option<&str>,
    otherwise: &str,
) -> Result<Vec<R>, Failure> {
    let bytes_max = context.config.synth.rows_bytes_max;
    match pinned {
        Some(name) => {
            let manifest = context.lake.find_pin(name).await?;
            rows(pin::read(&context.lake, &manifest), bytes_max).await
        }
        None => {
            let engine = context.job_engine()?;
            let found = engine.query(sql.unwrap_or(otherwise), &QueryOptions::default()).await?;
            rows(found.boxed(), bytes_max).await
        }
    }
}

/// The questions with the pages that they were made from, and the rewrites behind them.
fn roots_of(questions: Vec<(Qa, u32)>, graph: &PageGraph) -> Vec<Root> {
    let pages = graph.pages().iter().filter_map(|page| Some((page.digest.clone()?, Arc::clone(page))));
    let by_digest: HashMap<String, Arc<Page>> = pages.collect();
    let root = |(question, made): (Qa, u32)| {
        let digests = question.evidence_page_digests.iter();
        let evidence = digests.filter_map(|digest| by_digest.get(digest).cloned()).collect();
        Root { question, evidence, made }
    };
    questions.into_iter().map(root).collect()
}

/// Search among the pages, without any network.
fn finder(graph: &PageGraph) -> Result<WebFinder, Failure> {
    let pages = graph.pages().iter().map(|page| Page::clone(page));
    let index = PageIndex::in_memory(pages).map_err(|e| Failure::failed(format!("indexing the pages: {e}")))?;
    let web = Closed::new(&graph.digest(), Arc::new(index), None, &ObservationLimits::default());
    Ok(WebFinder::new(Arc::new(web), graph.pages().iter().cloned()))
}

/// The texts of a query's column `question`.
async fn texts(context: &Context, sql: &str) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for batch in &query(context, sql).await? {
        found.extend(strings(batch, "question")?.iter().flatten().map(str::to_string));
    }
    Ok(found)
}

fn tell<T>(summary: &Summary<T>) -> Result<(), Failure> {
    let before = match summary.done_before {
        0 => String::new(),
        before => format!(" ({before} done before)"),
    };
    output::line(&format!(
        "{} questions{before} from {} pages in {:.1} s: {}; run {}",
        summary.questions,
        summary.pages,
        summary.elapsed_ms as f64 / 1000.0,
        summary.spent,
        summary.run_id
    ))
}

/// The result as JSON, and the exit code.
fn end<T: Serialize>(context: &Context, summary: &Summary<T>, budget_spent: bool) -> Result<(), Failure> {
    if context.json {
        output::json(summary)?;
    }
    match budget_spent {
        true => {
            let spent = &summary.spent;
            Err(Failure::partly(format!("the budget is spent ({spent}); the same command goes on where it was")))
        }
        false => Ok(()),
    }
}

//! Questions about the atlas, without a model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use serde::Serialize;
use webdancer_schemas::event::Event;
use webdancer_schemas::log::EventLog;
use webdancer_synth::atlas::{Atlas, World};
use webdancer_synth::atlasqa::events::Origin;
use webdancer_synth::atlasqa::{self, Author, Pages, Rewriter, Selection, Stop, Tally};
use webdancer_synth::question::QuestionType;

use crate::args::{CrawlqaArgs, E2hqaArgs, QuestionSource};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Events offered to the log at once.
const BATCH_EVENTS: usize = 256;

/// What a run wrote.
#[derive(Debug, Serialize)]
pub(crate) struct Report<T> {
    pub(crate) run_id: String,
    pub(crate) world: String,
    /// Events acknowledged, those that were there before too.
    pub(crate) events: usize,
    /// Questions.
    pub(crate) questions: usize,
    #[serde(flatten)]
    pub(crate) details: T,
    pub(crate) elapsed_ms: u64,
}

/// What E2HQA did beside its questions.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Rewritten {
    /// Questions that chains began with.
    pub(crate) roots: usize,
    /// Rewrites.
    pub(crate) rewrites: usize,
    /// Chains by their number of rewrites.
    pub(crate) chains_by_rewrites: BTreeMap<usize, usize>,
    /// Chains by why they ended.
    pub(crate) stopped: BTreeMap<Stop, usize>,
}

pub(super) async fn crawlqa(context: &Context, args: &CrawlqaArgs) -> Result<(), Failure> {
    let report = run_crawlqa(context.event_log().await?, args, context.quiet).await?;
    context.drain_embedded().await?;
    if context.json {
        return output::json(&report);
    }
    tell(&report)?;
    report.details.by_type.iter().try_for_each(|(kind, count)| output::line(&format!("  {count:>6} {kind}")))
}

pub(super) async fn e2hqa(context: &Context, args: &E2hqaArgs) -> Result<(), Failure> {
    let report = run_e2hqa(context.event_log().await?, args, context.quiet).await?;
    context.drain_embedded().await?;
    if context.json {
        return output::json(&report);
    }
    tell(&report)?;
    let chains = &report.details.chains_by_rewrites;
    chains.iter().try_for_each(|(rewrites, count)| output::line(&format!("  {count:>6} rewritten {rewrites} times")))
}

/// CRAWLQA about an atlas, into the log.
pub(crate) async fn run_crawlqa(
    log: Arc<dyn EventLog>,
    args: &CrawlqaArgs,
    quiet: bool,
) -> Result<Report<Tally>, Failure> {
    let begun = Instant::now();
    let mut selection = Selection { count: args.count, seed: args.source.seed.unwrap_or(0), ..Selection::default() };
    if args.types.contains(&QuestionType::Generic) {
        return Err(Failure::usage(
            "crawlqa asks nothing generic about the atlas: single facts are where e2hqa begins",
        ));
    }
    if !args.types.is_empty() {
        selection.types.clone_from(&args.types);
    }
    let atlas = atlas(&args.source)?;
    let bar = output::spinner(quiet);
    bar.set_message("reading the pages");
    let pages = Pages::of(&atlas).map_err(|e| Failure::failed(e.to_string()))?;
    let mut author = Author::new(&atlas, &pages, args.source.invent);
    let origin = origin("crawlqa", &author, &selection)?;
    let mut questions = Vec::new();
    let details = atlasqa::crawlqa(&mut author, &selection, |question| {
        questions.push(question);
        bar.set_message(format!("{} questions", questions.len()));
    });
    bar.finish_and_clear();
    let events = questions.iter().map(|question| origin.crawlqa(question)).collect::<Result<Vec<_>, _>>();
    let events = append(log, &origin, events.map_err(unwritable)?, quiet).await?;
    Ok(report(&origin, &author, events, questions.len(), details, begun))
}

/// E2HQA about an atlas, into the log.
pub(crate) async fn run_e2hqa(
    log: Arc<dyn EventLog>,
    args: &E2hqaArgs,
    quiet: bool,
) -> Result<Report<Rewritten>, Failure> {
    let begun = Instant::now();
    let atlas = atlas(&args.source)?;
    let bar = output::spinner(quiet);
    bar.set_message("reading the pages");
    let pages = Pages::of(&atlas).map_err(|e| Failure::failed(e.to_string()))?;
    let mut author = Author::new(&atlas, &pages, args.source.invent);
    let seed = args.source.seed.unwrap_or(0);
    let settings = serde_json::json!({ "rewrites": args.rewrites, "count": args.count, "seed": seed });
    let origin = origin("e2hqa", &author, &settings)?;
    let rewriter = Rewriter::new(&atlas);
    let mut details = Rewritten::default();
    let mut events: Vec<Event> = Vec::new();
    for root in rewriter.roots(&mut author, seed).into_iter().take(args.count.unwrap_or(usize::MAX)) {
        let chain = rewriter.chain(&mut author, root, usize::from(args.rewrites), seed);
        details.roots += 1;
        details.rewrites += chain.steps.len();
        *details.chains_by_rewrites.entry(chain.steps.len()).or_default() += 1;
        *details.stopped.entry(chain.stopped).or_default() += 1;
        events.extend(origin.e2hqa(&chain).map_err(unwritable)?);
        bar.set_message(format!("{} chains, {} rewrites", details.roots, details.rewrites));
    }
    bar.finish_and_clear();
    let events = append(log, &origin, events, quiet).await?;
    let questions = details.roots + details.rewrites;
    Ok(report(&origin, &author, events, questions, details, begun))
}

fn atlas(source: &QuestionSource) -> Result<Atlas, Failure> {
    let world = source.invent.map_or_else(World::real, World::invent);
    Ok(Atlas::new(world.map_err(|e| Failure::failed(e.to_string()))?))
}

fn origin(kind: &'static str, author: &Author<'_>, settings: &impl Serialize) -> Result<Origin, Failure> {
    let settings = serde_json::to_value(settings).map_err(unwritable)?;
    Ok(Origin::new(kind, author.world(), settings, Utc::now()))
}

/// Appends a run's events between its own two; how many there were.
async fn append(log: Arc<dyn EventLog>, origin: &Origin, made: Vec<Event>, quiet: bool) -> Result<usize, Failure> {
    let mut events = vec![origin.run("started").map_err(unwritable)?];
    events.extend(made);
    events.push(origin.run("finished").map_err(unwritable)?);
    let count = events.len();
    let bar = output::bar(count as u64, quiet);
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        let batch: Vec<Event> = events.by_ref().take(BATCH_EVENTS).collect();
        let size = batch.len() as u64;
        log.append(batch).await?;
        bar.inc(size);
    }
    bar.finish_and_clear();
    Ok(count)
}

fn report<T>(
    origin: &Origin,
    author: &Author<'_>,
    events: usize,
    questions: usize,
    details: T,
    begun: Instant,
) -> Report<T> {
    Report {
        run_id: origin.run_id().to_string(),
        world: author.world().to_string(),
        events,
        questions,
        details,
        elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn tell<T>(report: &Report<T>) -> Result<(), Failure> {
    output::line(&format!(
        "{} questions about the atlas ({}), {} events acknowledged, in {:.1} s; run {}",
        report.questions,
        report.world,
        report.events,
        report.elapsed_ms as f64 / 1000.0,
        report.run_id
    ))
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure::failed(format!("a question as JSON: {error}"))
}

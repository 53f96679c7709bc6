//! Data construction: a web, questions about it, attempts at them, the funnel, rewards, pins.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use webdancer_query::{QueryEngine, pin};
use webdancer_schemas::kind::Kind;
use webdancer_synth::atlas::{self, World};
use webdancer_synth::atlasqa::Tally;
use webdancer_synth::crawl::CrawlConfig;
use webdancer_synth::question::QuestionType;
use webdancer_synth::site::Server;

use super::budget::Hops;
use super::{Demo, POOLS, PROFILE, REAL_PAGES, RL_PAGES, queries};
use crate::args::{CrawlqaArgs, E2hqaArgs, JudgingArgs, QuestionSource, SampleArgs};
use crate::commands::filter::{judging, pools, report};
use crate::commands::{self, crawl, import, reward, sample, synth};
use crate::failure::Failure;
use crate::output;

/// The published format's sample that ships with the project: our own words.
const TRAJECTORIES: &str = include_str!("../../../../deploy/demo/demo_trajectories.jsonl");
const QUESTIONS: &str = include_str!("../../../../deploy/demo/demo_qa.jsonl");
/// Rewrites of a simple question.
const REWRITES: u8 = 3;
/// The policy that data construction is shown with, and the share of attempts that make each of its eight mistakes.
const POLICY: &str = "scripted:0.05";
/// Questions that a small learner can be asked: one page or two.
const EASY: &str = "type IN ('generic', 'multi-hop') AND coalesce(rewrites, 0) = 0";
/// Where the pages of a closed web are: nowhere, and in each the same, so that a pin of pages is the same on every
/// machine, and a learner need not learn port numbers.
const HOST: &str = "http://atlas/";

/// A world, and the pin of its pages.
struct WorldOf {
    /// The seed that it was invented from; None: the real one.
    seed: Option<u64>,
    pages: String,
    use_: Use,
}

/// What a world is for.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    /// To show all of data construction. It is fine-tuned on where no small learner follows.
    Sft,
    /// The same, and to reinforce on.
    Rl,
    /// For a small learner to fine-tune on: easy questions, many names.
    Lesson,
    /// To evaluate on.
    Evaluation,
}

impl WorldOf {
    fn source(&self) -> QuestionSource {
        QuestionSource { atlas: true, invent: self.seed, ..QuestionSource::default() }
    }

    fn name(&self) -> String {
        self.seed.map_or_else(|| "real".to_string(), |seed| format!("invented:{seed}"))
    }
}

/// What is learnt from by example comes from some worlds, what is learnt by trying from another, and what is learnt at
/// all is measured on the real one.
const RL_SEED: u64 = 2;
const SFT_SEED: u64 = 1;

impl Demo<'_> {
    /// From pages to pins. The real countries are wanted where something is evaluated.
    pub(super) async fn construct(&self, evaluates: bool) -> Result<Value, Failure> {
        let worlds = self.worlds(evaluates);
        let crawled = self.crawl(&worlds).await?;
        self.import().await?;
        let asked = self.ask(&worlds).await?;
        let sampled = self.sample(&worlds).await?;
        if evaluates {
            self.practice().await?;
        }
        let (judged, rewarded) = (self.filter().await?, self.reward().await?);
        let engine = self.context.engine()?;
        self.say("Asking with SQL");
        for (title, query) in queries::QUERIES {
            queries::show(&engine, title, query, self.context.quiet).await?;
        }
        let pins = self.pin(&engine, evaluates).await?;
        Ok(json!({
            "pages": crawled, "questions": asked, "trajectories": sampled, "judged": judged, "mean_reward": rewarded,
            "pins": pins,
        }))
    }

    fn worlds(&self, evaluates: bool) -> Vec<WorldOf> {
        let world = |seed, pages: &str, use_| WorldOf { seed, pages: pages.to_string(), use_ };
        let mut worlds =
            vec![world(Some(SFT_SEED), "demo-pages-sft", Use::Sft), world(Some(RL_SEED), RL_PAGES, Use::Rl)];
        if evaluates {
            let seeds = RL_SEED + 1..=RL_SEED + self.budget.lessons;
            worlds.extend(seeds.map(|seed| world(Some(seed), &format!("demo-pages-{seed}"), Use::Lesson)));
            worlds.push(world(None, REAL_PAGES, Use::Evaluation));
        }
        worlds
    }

    /// Pages, and the closed webs that they make.
    async fn crawl(&self, worlds: &[WorldOf]) -> Result<u64, Failure> {
        self.say(&format!(
            "Serving the atlas, an encyclopaedia, of {} worlds on loopback; crawling it over HTTP",
            worlds.len()
        ));
        let (mut pages, mut servers) = (0, Vec::new());
        for world in worlds {
            let (crawled, server) = self.crawl_world(world).await?;
            pages += crawled;
            // Served until all are crawled, so that no two worlds have one address.
            servers.push(server);
        }
        for server in servers {
            server.stop().await.map_err(|e| Failure::failed(format!("stopping the atlas: {e}")))?;
        }
        self.tell("invented worlds are to learn from, one of them by reinforcement; the real one is to evaluate on");
        Ok(pages)
    }

    async fn crawl_world(&self, world: &WorldOf) -> Result<(u64, Server), Failure> {
        let context = &self.context;
        let table = world.seed.map_or_else(World::real, World::invent);
        let table = table.map_err(|e| Failure::failed(e.to_string()))?;
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let server = atlas::serve(table, address).await;
        let server = server.map_err(|e| Failure::failed(format!("serving the atlas: {e}")))?;
        let mut config = CrawlConfig::default().impolite(8);
        config.fetch.allow_private = true;
        let crawled = crawl::crawl(context.event_log().await?, &[server.url()], config, context.quiet).await?;
        let drained = context.drain_embedded().await?;
        let url = server.url();
        let sql = format!(
            "SELECT replace(url, '{url}', '{HOST}') AS url, replace(final_url, '{url}', '{HOST}') AS final_url, \
             '{HOST}' AS root_url, depth, status, title, text, digest, language FROM pages \
             WHERE text IS NOT NULL AND root_url = '{url}' ORDER BY url"
        );
        let pinned = commands::pin::create(context, &context.engine()?, &world.pages, &sql).await?;
        self.tell(&format!(
            "{}: {} pages, {}, in {} commits from the log into the table, exactly once; pin {} is a closed web of {}",
            world.name(),
            crawled.pages,
            output::bytes(crawled.bytes),
            drained.commits,
            world.pages,
            pinned.rows
        ));
        Ok((crawled.pages, server))
    }

    async fn import(&self) -> Result<(), Failure> {
        self.say("Importing trajectories and questions in the published format");
        let log = self.context.event_log().await?;
        for (name, content, what) in
            [("demo_trajectories.jsonl", TRAJECTORIES, Kind::Trajectory), ("demo_qa.jsonl", QUESTIONS, Kind::Qa)]
        {
            let file = self.folder.join(name);
            std::fs::write(&file, content).map_err(|e| Failure::failed(format!("writing {}: {e}", file.display())))?;
            let report = import::import(log.clone(), &file, what, self.context.quiet).await?;
            self.tell(&format!("{name}: {} lines, {} events", report.lines, report.events));
        }
        Ok(())
    }

    /// Questions of both kinds.
    async fn ask(&self, worlds: &[WorldOf]) -> Result<Value, Failure> {
        let context = &self.context;
        self.say("Writing questions about the pages, each with an answer that is proved");
        let (mut crawlqa, mut types) = (0, BTreeMap::<String, usize>::new());
        let (mut e2hqa, mut roots) = (0, 0);
        for world in worlds {
            // One hop is a root that nothing was rewritten in.
            let hops = |Hops { one, two }| (two, vec![QuestionType::MultiHop], one, 0);
            let (count, types_asked, roots_asked, rewrites) = match world.use_ {
                Use::Sft | Use::Rl => (self.budget.crawlqa, Vec::new(), self.budget.e2hqa_roots, REWRITES),
                Use::Lesson => hops(self.budget.lesson),
                Use::Evaluation => hops(self.budget.evaluated),
            };
            if count > 0 {
                let asked = self.crawlqa(world.source(), count, types_asked).await?;
                crawlqa += asked.questions;
                asked.details.by_type.iter().for_each(|(kind, n)| *types.entry(kind.to_string()).or_default() += n);
            }
            let rewritten = self.e2hqa(world.source(), roots_asked, rewrites).await?;
            e2hqa += rewritten.questions;
            roots += rewritten.details.roots;
        }
        let types: Vec<String> = types.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        self.tell(&format!("CRAWLQA: {crawlqa} questions: {}", types.join(", ")));
        self.tell(&format!("E2HQA: {e2hqa} questions: {roots} simple ones, {} rewrites of them", e2hqa - roots));
        context.drain_embedded().await?;
        let example = "SELECT rewrites AS step, question, answer FROM qa WHERE attributes->>'root_qa_id' = \
                       (SELECT min(attributes->>'root_qa_id') FROM qa WHERE rewrites = 3) ORDER BY step";
        queries::show(&context.engine()?, "One question, made harder step by step", example, context.quiet).await?;
        Ok(json!({"crawlqa": crawlqa, "e2hqa": e2hqa}))
    }

    async fn crawlqa(
        &self,
        source: QuestionSource,
        count: usize,
        types: Vec<QuestionType>,
    ) -> Result<synth::Report<Tally>, Failure> {
        let args = CrawlqaArgs { source, count: Some(count), types, ..CrawlqaArgs::default() };
        synth::run_crawlqa(self.context.event_log().await?, &args, self.context.quiet).await
    }

    async fn e2hqa(
        &self,
        source: QuestionSource,
        count: usize,
        rewrites: u8,
    ) -> Result<synth::Report<synth::Rewritten>, Failure> {
        let args = E2hqaArgs { source, count: Some(count), rewrites, ..E2hqaArgs::default() };
        synth::run_e2hqa(self.context.event_log().await?, &args, self.context.quiet).await
    }

    /// Easy questions about the world that is learnt by trying. Nobody attempts them before the learner does.
    async fn practice(&self) -> Result<(), Failure> {
        let Hops { one, two } = self.budget.practice;
        let source = || QuestionSource { atlas: true, invent: Some(RL_SEED), ..QuestionSource::default() };
        self.e2hqa(source(), one, 0).await?;
        if two > 0 {
            self.crawlqa(source(), two, vec![QuestionType::MultiHop]).await?;
        }
        self.context.drain_embedded().await.map(drop)
    }

    /// Attempts at them on the closed webs.
    async fn sample(&self, worlds: &[WorldOf]) -> Result<u64, Failure> {
        self.say("Sampling: an expert with some mistakes attempts each question on the closed web of its world");
        let mut trajectories = 0;
        for world in worlds.iter().filter(|world| world.use_ != Use::Evaluation) {
            let is_lesson = world.use_ == Use::Lesson;
            let args = SampleArgs {
                policy: Some(if is_lesson { self.budget.teacher } else { POLICY }.to_string()),
                web: Some(format!("closed:{}", world.pages)),
                profile: Some(PROFILE.to_string()),
                attempts: Some(if is_lesson { 1 } else { self.budget.attempts }),
                seed: Some(self.seed),
                ..SampleArgs::default()
            };
            let summary = sample::carry_out(&self.context, &args).await?;
            let report = summary.report();
            let ends: Vec<String> = report.by_termination.iter().map(|(end, count)| format!("{count} {end}")).collect();
            self.tell(&format!("{}: {} trajectories: {}", world.name(), report.trajectories, ends.join(", ")));
            trajectories += report.trajectories;
        }
        Ok(trajectories)
    }

    async fn filter(&self) -> Result<u64, Failure> {
        self.say("Filtering: valid? correct? good to learn from?");
        let args = JudgingArgs { invalid_too: true, ..JudgingArgs::default() };
        let judged = judging::judge(&self.context, &args).await?;
        let waterfall = report::waterfall(&self.context).await?;
        self.tell(&waterfall.bars(None));
        self.tell("");
        self.tell(&waterfall.table());
        Ok(judged.trajectories)
    }

    async fn reward(&self) -> Result<Option<f64>, Failure> {
        self.say("Rewarding: a tenth for the format, nine for the answer");
        let reward::Report { rewarded, mean, withheld, .. } = reward::reward(&self.context).await?;
        self.tell(&format!("{rewarded} trajectories, on average {:.3}", mean.unwrap_or_default()));
        for (why, count) in &withheld {
            self.tell(&format!("{count} without a reward: {why}"));
        }
        Ok(mean)
    }

    /// A small learner is given what is easy, told tersely.
    async fn pin(&self, engine: &QueryEngine, for_learner: bool) -> Result<Value, Failure> {
        self.say("Pinning the pools: accepted trajectories to fine-tune on, questions without one to reinforce");
        let (rl, sft) = match for_learner {
            false => (format!("world = 'invented:{RL_SEED}'"), format!("world = 'invented:{SFT_SEED}'")),
            true => (
                format!("world = 'invented:{RL_SEED}' AND {EASY}"),
                format!(
                    "world LIKE 'invented:%' AND world NOT IN ('invented:{SFT_SEED}', 'invented:{RL_SEED}') AND {EASY}"
                ),
            ),
        };
        let selection =
            pools::Selection { untried: for_learner, condition: Some(sft.as_str()), rl_condition: Some(rl.as_str()) };
        let pools = pools::create(&self.context, POOLS, selection).await?;
        for (pinned, what) in [(&pools.sft, "trajectories"), (&pools.rl, "questions")] {
            let verified = pin::verify(engine, &pinned.name).await?;
            if !verified.passed() {
                let problems = verified.problems.join("; ");
                return Err(Failure::failed(format!("pin {} does not verify: {problems}", pinned.name)));
            }
            self.tell(&format!("pin {}: {} {what}, digest {}, verified", pinned.name, pinned.rows, pinned.digest));
        }
        Ok(json!({"sft": pools.sft.digest, "rl": pools.rl.digest}))
    }
}

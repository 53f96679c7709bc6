//! `webdancer demo`: from pages to a policy that was trained and evaluated, on this machine, without keys or network.
//!
//! Stages in order: data construction ([`construct`]), fine-tuning and reinforcement ([`learn`]), serving and evaluation
//! ([`evaluate`]). Each calls what a command of that name calls. What is trained on is invented; the real countries are there to evaluate.

mod budget;
mod construct;
mod evaluate;
mod learn;
mod queries;
mod scores;
mod served;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::array::RecordBatch;
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use webdancer_query::{QueryEngine, QueryOptions};
use webdancer_schemas::kind::Kind;

use self::budget::Budget;
use self::evaluate::BENCHMARK;
use crate::args::{Args, DemoArgs, DemoStage};
use crate::commands::train;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Marks a folder as one that the demo made and may make anew.
const MARK: &str = ".webdancer-demo";
/// What the policies are told and shown, in sampling, training and evaluation.
const PROFILE: &str = "compact";
/// The closed web of the real countries.
const REAL_PAGES: &str = "demo-pages-real";
/// The closed web of the world that is learnt by trying.
const RL_PAGES: &str = "demo-pages-rl";
/// What the names of the pools' pins begin with.
const POOLS: &str = "demo";

pub(crate) async fn run(args: &DemoArgs, global: &Args) -> Result<(), Failure> {
    let begun = Instant::now();
    // What is missing is said before anything is made.
    let trainer = match args.until {
        Some(DemoStage::Pins) => None,
        None => Some(trainer(args.trainer.as_deref())?),
    };
    make_folder(&args.folder)?;
    let lake_args = Args {
        lake: Some(args.folder.join("lake").display().to_string()),
        log: Some("embedded".to_string()),
        config: None,
        command: crate::args::Command::Demo(args.clone()),
        ..*global
    };
    let context = Context::new(&lake_args)?;
    let budget = if args.quick { Budget::QUICK } else { Budget::FULL };
    let mut demo = Demo { context, folder: &args.folder, budget, seed: args.seed, begun };
    let mut summary = demo.construct(trainer.is_some()).await?;
    if let Some(trainer) = &trainer {
        let policies = demo.learn(trainer).await?;
        add(&mut summary, json!({"training": policies.told}));
        add(&mut summary, demo.evaluate(trainer, &policies).await?);
    }
    demo.tell_what_next(trainer.is_some());
    if demo.context.json {
        let tables = counts(&demo.context.engine()?).await?;
        add(&mut summary, json!({"tables": tables, "seconds": begun.elapsed().as_secs_f64()}));
        output::json(&summary)?;
    }
    Ok(())
}

/// The trainer, which `make build` does not build.
fn trainer(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let found = match named.map(train::absolute).transpose()? {
        Some(program) if program.is_file() => Ok(program),
        Some(program) => Err(Failure::usage(format!("{} is no program", program.display()))),
        None => train::find_trainer(),
    };
    found.map_err(|failure| Failure::usage(format!("{failure}; `{} demo --until pins` does without", command_name())))
}

/// The members of one object into another.
fn add(summary: &mut Value, more: Value) {
    if let (Value::Object(summary), Value::Object(more)) = (summary, more) {
        summary.extend(more);
    }
}

/// As the command was called: it need not be on the path.
fn command_name() -> String {
    std::env::args().next().unwrap_or_else(|| "webdancer".to_string())
}

/// The demo under way.
struct Demo<'a> {
    context: Context,
    folder: &'a Path,
    budget: Budget,
    /// What is drawn follows from it: attempts, first weights, orders. The worlds are always the same.
    seed: u32,
    begun: Instant,
}

impl Demo<'_> {
    /// The heading of a stage.
    fn say(&self, text: &str) {
        if !self.context.quiet {
            output::note(&format!("\n[{:>4.1} s] {text}", self.begun.elapsed().as_secs_f64()));
        }
    }

    /// What came of it.
    fn tell(&self, text: &str) {
        if !self.context.quiet {
            output::note(&format!("   {}", text.replace('\n', "\n   ")));
        }
    }

    fn tell_what_next(&self, is_trained: bool) {
        self.say("Done. Try next:");
        let lake = self.folder.join("lake");
        let lake = lake.display();
        let webdancer = command_name();
        if is_trained {
            self.tell(&format!("{webdancer} --lake {lake} eval report --benchmark {BENCHMARK}"));
            self.tell(&format!("{webdancer} --lake {lake} serve"));
            for metric in ["validation_loss", "accuracy"] {
                self.tell(&format!(
                    "{webdancer} --lake {lake} sql \"SELECT step, value FROM metrics WHERE name = '{metric}' ORDER BY step\""
                ));
            }
        }
        for command in [
            format!("{webdancer} --lake {lake} sql"),
            format!("{webdancer} --lake {lake} sql \"SELECT outcome, reason, count(*) AS n FROM funnel GROUP BY ALL\""),
            format!("{webdancer} --lake {lake} filter report --svg funnel.svg"),
            format!("{webdancer} --lake {lake} pin show {POOLS}-sft"),
            format!("{webdancer} atlas --invent 7"),
        ] {
            self.tell(&command);
        }
    }
}

/// Tables whose rows are counted.
const COUNTED: [Kind; 11] = [
    Kind::Page,
    Kind::Qa,
    Kind::Rewrite,
    Kind::Trajectory,
    Kind::Judgment,
    Kind::Reward,
    Kind::Run,
    Kind::Pin,
    Kind::Metric,
    Kind::Checkpoint,
    Kind::DeadLetter,
];

async fn counts(engine: &QueryEngine) -> Result<BTreeMap<&'static str, i64>, Failure> {
    use arrow::array::AsArray as _;
    let mut counts = BTreeMap::new();
    for kind in COUNTED {
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

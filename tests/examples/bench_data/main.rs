//! Fills a lake for the benchmarks: `bench_data LAKE TRAJECTORIES SEED`.
//!
//! Events go the way that a team's go: appended to the embedded log, drained into the tables, compacted by `maintain`.
//! The same seed gives the same rows, but for the log positions and times of the commits. Last, a part of the verdicts
//! is given again under a newer rule version, so that the judgments have a version before and one after; which one is
//! before is written to `bench.json` in the lake.

mod rows;
mod text;

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use webdancer_ingest::drain::{Commit, DrainObserver, DrainOptions, Until};
use webdancer_ingest::embedded::{EmbeddedLog, EmbeddedOptions, drain};
use webdancer_ingest::source::TopicPartition;
use webdancer_lake::maintain::MaintainOptions;
use webdancer_lake::{Lake, LakeOptions};
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::EventLog as _;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Questions whose events are appended together.
const QUESTIONS_PER_APPEND: u64 = 200;
/// Appends between drains: about 250 MB of events.
const APPENDS_PER_DRAIN: u64 = 32;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [lake, trajectories, seed] = arguments.as_slice() else {
        return Err("usage: bench_data LAKE TRAJECTORIES SEED".into());
    };
    let world = rows::World::new(trajectories.parse()?, seed.parse()?);
    let lake = Lake::open(lake, LakeOptions::default())?;
    let filler = Filler::open(lake).await?;
    filler.fill(&world).await?;
    filler.maintain().await?;
    let before = filler.version(Kind::Judgment).await?;
    filler.append(world.judged_again()?).await?;
    filler.drain().await?;
    let note = serde_json::json!({"trajectories": world.trajectories, "seed": world.seed, "judgments_before": before});
    std::fs::write(filler.folder()?.join("bench.json"), note.to_string())?;
    Ok(())
}

struct Filler {
    lake: Lake,
    log: EmbeddedLog,
    begun: Instant,
}

impl Filler {
    async fn open(lake: Lake) -> Result<Filler> {
        let folder = EmbeddedLog::folder_of(&lake, None).await?;
        let log = EmbeddedLog::open(&folder, EmbeddedOptions::default())?;
        Ok(Filler { lake, log, begun: Instant::now() })
    }

    fn folder(&self) -> Result<std::path::PathBuf> {
        Ok(self.lake.local_path().as_deref().map(Path::to_path_buf).ok_or("the lake must be a local folder")?)
    }

    async fn fill(&self, world: &rows::World) -> Result<()> {
        self.append(world.head()?).await?;
        let questions = world.questions();
        for (append, first) in (0..questions).step_by(QUESTIONS_PER_APPEND as usize).enumerate() {
            let last = (first + QUESTIONS_PER_APPEND).min(questions);
            let mut events = Vec::new();
            for question in first..last {
                world.question(question, &mut events)?;
            }
            self.append(events).await?;
            if (append as u64 + 1).is_multiple_of(APPENDS_PER_DRAIN) {
                self.drain().await?;
                self.say(&format!("{} of {questions} questions", last))?;
            }
        }
        self.drain().await
    }

    async fn append(&self, events: Vec<Event>) -> Result<()> {
        Ok(self.log.append(events).await?)
    }

    async fn drain(&self) -> Result<()> {
        let (patience, mut unwatched) = (Duration::from_secs(10), Unwatched);
        let options = DrainOptions::default();
        let forever = std::future::pending();
        drain(&self.lake, &self.log, options, Until::CaughtUp, patience, &mut unwatched, forever).await?;
        Ok(())
    }

    async fn maintain(&self) -> Result<()> {
        let options = MaintainOptions { vacuum_older_than: Some(Duration::ZERO), ..MaintainOptions::default() };
        for kind in Kind::ALL {
            if let Some(report) = self.lake.maintain(*kind, &options).await? {
                let (files, mib) = (report.files_after, report.bytes_after >> 20);
                self.say(&format!("{}: {} files made {files}, {mib} MiB", kind.table(), report.files_before))?;
            }
        }
        Ok(())
    }

    async fn version(&self, kind: Kind) -> Result<u64> {
        Ok(self.lake.table(kind).await?.ok_or("there is no such table")?.version())
    }

    fn say(&self, text: &str) -> Result<()> {
        Ok(writeln!(std::io::stderr(), "bench_data: {:5.1} s  {text}", self.begun.elapsed().as_secs_f64())?)
    }
}

struct Unwatched;

impl DrainObserver for Unwatched {
    fn committed(&mut self, _: &Commit) {}
    fn durable(&mut self, _: &TopicPartition, _: i64) {}
    fn end(&mut self, _: &TopicPartition, _: i64) {}
}

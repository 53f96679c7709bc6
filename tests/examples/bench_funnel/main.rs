//! The funnel's rules over many trajectories, for `tests/bench/funnel.py`.
//!
//! `bench_funnel make FOLDER ROWS SEED` writes Parquet files of trajectories with faults; `bench_funnel rules FOLDER
//! [THREADS]` reads the columns that the rules need, applies all of them, and prints how many trajectories ended for
//! which reason, as JSON.

mod make;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use webdancer_synth::funnel::QualityParameters;
use webdancer_synth::funnel::rules::judge_all;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Trajectories read at a time.
const BATCH_ROWS: usize = 1_024;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["make", folder, rows, seed] => make::make(Path::new(folder), rows.parse()?, seed.parse()?),
        ["rules", folder] => rules(Path::new(folder), std::thread::available_parallelism()?.get()),
        ["rules", folder, threads] => rules(Path::new(folder), threads.parse()?),
        _ => Err("usage: bench_funnel make FOLDER ROWS SEED | rules FOLDER [THREADS]".into()),
    }
}

/// How many ended for which reason; `accepted` for none.
type Counts = BTreeMap<&'static str, u64>;

fn rules(folder: &Path, threads: usize) -> Result<()> {
    let begun = Instant::now();
    let groups = row_groups(folder)?;
    let next = AtomicUsize::new(0);
    let work = || -> Result<Counts> {
        let mut counts = Counts::new();
        while let Some((file, group)) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            count(file, *group, &mut counts)?;
        }
        Ok(counts)
    };
    let counted: Result<Vec<Counts>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread broke off")?).collect()
    });
    let mut all = Counts::new();
    counted?.into_iter().flatten().for_each(|(reason, count)| *all.entry(reason).or_default() += count);
    let rows: u64 = all.values().sum();
    let seconds = begun.elapsed().as_secs_f64();
    writeln!(std::io::stdout(), "{}", json!({"rows": rows, "seconds": seconds, "reasons": all}))?;
    Ok(())
}

fn row_groups(folder: &Path) -> Result<Vec<(PathBuf, usize)>> {
    let mut groups = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            let file = ParquetRecordBatchReaderBuilder::try_new(File::open(&path)?)?;
            groups.extend((0..file.metadata().num_row_groups()).map(|group| (path.clone(), group)));
        }
    }
    groups.sort();
    Ok(groups)
}

fn count(file: &Path, group: usize, counts: &mut Counts) -> Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?;
    let columns = ProjectionMask::columns(builder.parquet_schema(), webdancer_synth::funnel::COLUMNS);
    let batches = builder.with_row_groups(vec![group]).with_projection(columns).with_batch_size(BATCH_ROWS).build()?;
    for batch in batches {
        for ruling in judge_all(&[batch?], &QualityParameters::default(), 1)?.iter().flatten() {
            *counts.entry(ruling.reason.map_or("accepted", |reason| reason.name())).or_default() += 1;
        }
    }
    Ok(())
}

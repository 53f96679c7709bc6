//! `webdancer maintain`

use std::collections::BTreeMap;
use std::time::Duration;

use webdancer_lake::maintain::{MaintainOptions, MaintainReport};
use webdancer_query::Limits;
use webdancer_schemas::kind::Kind;

use crate::args::MaintainArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(context: &Context, args: &MaintainArgs) -> Result<(), Failure> {
    let kinds: Vec<Kind> = if args.tables.is_empty() {
        Kind::ALL.to_vec()
    } else {
        let known = |table: &String| {
            Kind::from_table(table).ok_or_else(|| Failure::usage(format!("there is no table {table:?}")))
        };
        args.tables.iter().map(known).collect::<Result<_, _>>()?
    };
    let vacuum_older_than = (!args.no_vacuum).then(|| hours(args.vacuum_older_than));
    if !args.unsafe_vacuum && !args.dry_run {
        check_vacuum(vacuum_older_than, &context.limits())?;
    }
    context.drain_embedded().await?;
    let options = MaintainOptions {
        vacuum_older_than,
        log_older_than: (!args.no_log_cleanup).then(|| hours(args.log_older_than)),
        dry_run: args.dry_run,
        ..MaintainOptions::default()
    };
    let bar = output::bar(kinds.len() as u64, context.quiet);
    let mut reports: BTreeMap<&str, MaintainReport> = BTreeMap::new();
    for kind in kinds {
        bar.set_message(kind.table());
        if let Some(report) = context.lake.maintain(kind, &options).await? {
            reports.insert(kind.table(), report);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if context.json {
        return output::json(&reports);
    }
    let verb = if args.dry_run { "would be removed" } else { "removed" };
    for (table, report) in &reports {
        output::line(&format!(
            "{table:<14} {:>6} files, {:>10} -> {:>6} files, {:>10}; {} old files {verb}, {} of the log",
            report.files_before,
            output::bytes(report.bytes_before),
            report.files_after,
            output::bytes(report.bytes_after),
            report.vacuumed,
            report.log_files_removed
        ))?;
    }
    Ok(())
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count.saturating_mul(3600))
}

/// Between the opening of a version and the first file read, and for commits under way.
const MARGIN: Duration = Duration::from_secs(3600);

/// Refuses to remove files under what may be running: a query or a pin has the files of the version that it began with.
fn check_vacuum(older_than: Option<Duration>, limits: &Limits) -> Result<(), Failure> {
    let floor = limits.timeout.max(limits.pin_timeout).saturating_add(MARGIN);
    if older_than.is_none_or(|age| age >= floor) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--vacuum-older-than must be at least {}: a query or a pin that runs for so long would lose its files. Where none \
         is running, --unsafe-vacuum allows less",
        floor.as_secs().div_ceil(3600)
    )))
}

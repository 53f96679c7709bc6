//! `webdancer maintain`

use std::collections::BTreeMap;
use std::time::Duration;

use webdancer_ingest::embedded::{self, EmbeddedLog};
use webdancer_lake::LakeError;
use webdancer_lake::maintain::{MaintainOptions, MaintainReport};
use webdancer_query::Limits;
use webdancer_schemas::kind::Kind;

use crate::args::MaintainArgs;
use crate::context::{Context, LogUri};
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
    if !args.unsafe_vacuum {
        check_vacuum(vacuum_older_than, &context.limits())?;
    }
    if args.dry_run {
        tell_undrained(context).await?;
    } else {
        context.drain_embedded().await?;
    }
    let options = MaintainOptions {
        vacuum_older_than,
        log_older_than: (!args.no_log_cleanup).then(|| hours(args.log_older_than)),
        dry_run: args.dry_run,
        ..MaintainOptions::default()
    };
    let bar = output::bar(kinds.len() as u64, context.quiet);
    let mut reports: BTreeMap<&str, MaintainReport> = BTreeMap::new();
    let mut damaged = Vec::new();
    for kind in kinds {
        bar.set_message(kind.table());
        match context.lake.maintain(kind, &options).await {
            Ok(report) => reports.extend(report.map(|report| (kind.table(), report))),
            // What is wrong with one table keeps nothing from the others.
            Err(error @ (LakeError::Store { .. } | LakeError::Fatal(_))) => {
                damaged.push(Failure::from(error).to_string());
            }
            Err(error) => return Err(error.into()),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if reports.is_empty() && !damaged.is_empty() {
        return Err(Failure::failed(damaged.join("; ")));
    }
    if context.json {
        output::json(&reports)?;
    } else {
        for (table, report) in &reports {
            output::line(&if args.dry_run { planned(table, report) } else { done(table, report) })?;
        }
    }
    if damaged.is_empty() { Ok(()) } else { Err(Failure::partly(damaged.join("; "))) }
}

fn done(table: &str, report: &MaintainReport) -> String {
    format!(
        "{table:<14} {:>6} files, {:>10} -> {:>6} files, {:>10}; {} old files removed, {} of the log",
        report.files_before,
        output::bytes(report.bytes_before),
        report.files_after,
        output::bytes(report.bytes_after),
        report.vacuumed,
        report.log_files_removed
    )
}

fn planned(table: &str, report: &MaintainReport) -> String {
    let made = report.compacted - (report.files_before - report.files_after);
    format!(
        "{table:<14} {:>6} files, {:>10}; {} would be compacted into {made}, {} old files removed, {} of the log{}",
        report.files_before,
        output::bytes(report.bytes_before),
        report.compacted,
        report.vacuumed,
        report.log_files_removed,
        if report.checkpointed { ", a checkpoint written" } else { "" }
    )
}

/// Says what would be moved into the tables before they are maintained.
async fn tell_undrained(context: &Context) -> Result<(), Failure> {
    let LogUri::Embedded = context.log else { return Ok(()) };
    let state_folder = context.config.log.state_folder.as_deref();
    if let Some(folder) = EmbeddedLog::existing_folder_of(&context.lake, state_folder).await? {
        let bytes = embedded::undrained(&folder)?;
        if bytes > 0 {
            output::note(&format!(
                "webdancer: {} of events in the log would be moved into the tables first; what follows counts the tables \
                 without them",
                output::bytes(bytes)
            ));
        }
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

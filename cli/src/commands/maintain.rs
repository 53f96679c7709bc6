//! `webdancer maintain`

use std::collections::BTreeMap;
use std::time::Duration;

use webdancer_lake::maintain::{MaintainOptions, MaintainReport};
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
    context.drain_embedded().await?;
    let options = MaintainOptions {
        vacuum_older_than: (!args.no_vacuum).then(|| Duration::from_secs(args.vacuum_older_than.saturating_mul(3600))),
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
            "{table:<14} {:>6} files, {:>10} -> {:>6} files, {:>10}; {} old files {verb}",
            report.files_before,
            output::bytes(report.bytes_before),
            report.files_after,
            output::bytes(report.bytes_after),
            report.vacuumed
        ))?;
    }
    Ok(())
}

//! `webdancer append`

use std::fs::File;
use std::io::Write as _;

use webdancer_ingest::intake::append_lines;

use crate::args::AppendArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(context: &Context, args: &AppendArgs) -> Result<(), Failure> {
    let name = args.file.as_ref().map_or("-".to_string(), |file| file.display().to_string());
    let input: Box<dyn std::io::Read + Send> = match &args.file {
        Some(file) if file.as_os_str() != "-" => {
            Box::new(File::open(file).map_err(|e| Failure::usage(format!("opening {name}: {e}")))?)
        }
        _ => Box::new(std::io::stdin()),
    };
    let log = context.event_log().await?;
    let spinner = output::spinner(context.quiet);
    let mut count = 0u64;
    let print_ids = args.ids;
    let acknowledged = |id| {
        count += 1;
        if print_ids {
            // Written at once: the reader may be waiting for just this id. If it has gone, the events still go in.
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{id}").and_then(|()| out.flush());
        } else if count.is_multiple_of(100) {
            spinner.set_message(format!("{count} events"));
        }
    };
    let report = append_lines(log.as_ref(), input, &name, &context.config.intake_options(), acknowledged).await?;
    spinner.finish_and_clear();
    if context.json {
        output::json(&report)?;
    } else if !args.ids {
        output::line(&format!("{} events acknowledged", report.acknowledged))?;
    }
    if report.rejected > 0 {
        return Err(Failure::partly(format!(
            "{} lines are no events; `webdancer dead-letters list` shows them",
            report.rejected
        )));
    }
    Ok(())
}

//! `webdancer pin`

mod export;

use std::path::Path;

use chrono::{SubsecRound as _, Utc};
use serde::Serialize;
use serde_json::json;
use webdancer_query::output::Format;
use webdancer_query::pin::{self, Recomputed};
use webdancer_query::{PinManifest, QueryEngine};
use webdancer_schemas::column::JsonText;
use webdancer_schemas::digest::sha256_hex;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::Pin;

use crate::args::{FormatArg, PinCommand};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(context: &Context, command: &PinCommand) -> Result<(), Failure> {
    let engine = context.engine()?;
    match command {
        PinCommand::Create { name, sql, file } => {
            let sql = match (sql, file) {
                (Some(sql), _) => sql.clone(),
                (None, Some(file)) => super::sql::read_query(file)?,
                (None, None) => return Err(Failure::usage("give --sql or --file")),
            };
            context.drain_embedded_wholly().await?;
            let manifest = create(context, &engine, name, &sql).await?;
            show(context, &manifest).await
        }
        PinCommand::List => {
            let pins = context.lake.list_pins().await?;
            if context.json {
                return output::json(&pins);
            }
            for pin in &pins {
                let created = pin.created.format("%Y-%m-%d %H:%M");
                output::line(&format!("{:<24} {:>10} rows  {}  {created}", pin.name, pin.rows, short(&pin.digest)))?;
            }
            if pins.is_empty() {
                output::note("there are no pins yet: webdancer pin create NAME --sql 'SELECT …'");
            }
            Ok(())
        }
        PinCommand::Show { pin } => {
            let manifest = context.lake.find_pin(pin).await?;
            show(context, &manifest).await
        }
        PinCommand::Verify { pin } => verify(context, &engine, pin).await,
        PinCommand::Diff { a, b, key, examples } => {
            let (a, b) = (context.lake.find_pin(a).await?, context.lake.find_pin(b).await?);
            let diff = pin::diff(&context.lake, &a, &b, key, *examples).await?;
            if context.json {
                return output::json(&diff);
            }
            output::line(&format!(
                "{} -> {}: {} rows in, {} out, {} changed, {} the same",
                a.name, b.name, diff.rows_in, diff.rows_out, diff.changed, diff.same
            ))?;
            for example in &diff.examples {
                output::line(&format!("  {:?} {} {}", example.change, example.row, example.columns.join(", ")))?;
            }
            Ok(())
        }
        PinCommand::Export { pin, format, output: file, trainer, out, template, profile } => {
            let manifest = context.lake.find_pin(pin).await?;
            pin::check_open(&context.engine()?, &manifest).await?;
            match trainer {
                Some(trainer) => {
                    let export = export::Export { trainer: *trainer, out: out.as_deref(), template, profile };
                    export::run(context, &manifest, export).await
                }
                None => write(context, &manifest, *format, file.as_deref()).await,
            }
        }
    }
}

/// Makes a pin and appends the event that says so.
pub(crate) async fn create(
    context: &Context,
    engine: &QueryEngine,
    name: &str,
    sql: &str,
) -> Result<PinManifest, Failure> {
    let now = Utc::now().trunc_subsecs(6);
    let manifest = pin::create(engine, name, sql, now).await?.manifest;
    let row = Pin {
        pin_id: manifest.digest.clone(),
        name: manifest.name.clone(),
        sql: manifest.definition.clone(),
        table_versions: JsonText(json!(manifest.tables)),
        rows: i64::try_from(manifest.rows).unwrap_or(i64::MAX),
        digest: manifest.digest.clone(),
        manifest_uri: context.lake.stored_manifest(&manifest).await?.0,
    };
    // The same pin made again is the same event.
    let id = EventId::derive(manifest.created, &manifest.digest, Kind::Pin, &manifest.name, 0);
    let event = Event::new("webdancer/pin", &row).map_err(|e| Failure::failed(format!("the pin's event: {e}")))?;
    context.event_log().await?.append(vec![event.with_id(id).at(manifest.created)]).await?;
    context.drain_embedded().await?;
    Ok(manifest)
}

async fn verify(context: &Context, engine: &QueryEngine, reference: &str) -> Result<(), Failure> {
    let verification = pin::verify(engine, reference).await?;
    let recomputed = match &verification.recomputed {
        Recomputed::Same => "the query over the pinned versions gives the same rows".to_string(),
        Recomputed::Differs { digest } => {
            format!("the query over the pinned versions gives other rows: {}", short(digest))
        }
        Recomputed::NotPossible(why) => format!("{why}; only the files were checked"),
    };
    let manifest = &verification.manifest;
    if context.json {
        output::json(&json!({
            "name": manifest.name,
            "digest": manifest.digest,
            "passed": verification.passed(),
            "files": manifest.files.len(),
            "problems": verification.problems,
            "recomputed": verification.recomputed == Recomputed::Same,
            "recomputation": recomputed,
        }))?;
    } else {
        let files = if verification.problems.is_empty() {
            "files and digest agree with the manifest"
        } else {
            "files are damaged"
        };
        output::line(&format!("{}  {}: {files}; {recomputed}", manifest.name, short(&manifest.digest)))?;
    }
    if verification.passed() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "pin {} is not what it was: {}",
        manifest.name,
        [verification.problems, vec![recomputed]].concat().join("; ")
    )))
}

async fn write(
    context: &Context,
    manifest: &PinManifest,
    format: FormatArg,
    file: Option<&Path>,
) -> Result<(), Failure> {
    let format = match format {
        FormatArg::Ndjson => Format::Ndjson,
        FormatArg::Parquet => Format::Parquet,
        _ => return Err(Failure::usage("a pin is exported as ndjson or parquet")),
    };
    let Some(file) = file else {
        let out = std::io::BufWriter::new(std::io::stdout());
        let written = output::unless_gone(pin::export(&context.lake, manifest, format, out).await)?;
        tell_left_out(written.map_or(0, |(_, left_out)| left_out));
        return Ok(());
    };
    let new = output::NewFile::at(file)?;
    let (_, left_out) = pin::export(&context.lake, manifest, format, new.writer()).await?;
    new.keep()?;
    output::note(&format!("{} rows in {}", manifest.rows.saturating_sub(left_out), file.display()));
    tell_left_out(left_out);
    Ok(())
}

fn tell_left_out(rows: u64) {
    if rows > 0 {
        output::note(&format!("{rows} rows of gated benchmarks are left out"));
    }
}

/// A manifest, and what identifies it among those of the same dataset.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    manifest: &'a PinManifest,
    manifest_uri: String,
    manifest_sha256: String,
}

async fn show(context: &Context, manifest: &PinManifest) -> Result<(), Failure> {
    let (manifest_uri, stored) = context.lake.stored_manifest(manifest).await?;
    let manifest_sha256 = sha256_hex(stored);
    if context.json {
        return output::json(&Shown { manifest, manifest_uri, manifest_sha256 });
    }
    output::line(&format!("pin      {}", manifest.name))?;
    output::line(&format!("digest   {}", manifest.digest))?;
    output::line(&format!("rows     {}", manifest.rows))?;
    let tables = manifest.tables.iter().map(|(name, table)| read_from(name, table.version)).collect::<Vec<_>>();
    output::line(&format!("tables   {}", tables.join(", ")))?;
    let bytes = manifest.files.iter().map(|file| file.bytes).sum();
    output::line(&format!("files    {} ({})", manifest.files.len(), output::bytes(bytes)))?;
    output::line(&format!("sql      {}", manifest.definition.split_whitespace().collect::<Vec<_>>().join(" ")))?;
    output::line(&format!("manifest {manifest_uri}"))?;
    output::line(&format!("         sha256 {manifest_sha256}"))
}

/// What a pin was made from, by the name that its manifest has: `qa`, `qa@5` for what `at('qa', 5)` read, or `pin:train`.
fn read_from(name: &str, version: u64) -> String {
    match name.strip_prefix("pin:") {
        Some(pin) => format!("pin {pin}"),
        None => format!("{} at version {version}", name.split('@').next().unwrap_or(name)),
    }
}

fn short(digest: &str) -> &str {
    digest.get(..16).unwrap_or(digest)
}

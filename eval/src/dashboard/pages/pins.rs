//! Pins: datasets that never change, with what they were made of and what was made with them.

use maud::html;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use webdancer_query::PinManifest;
use webdancer_schemas::digest::sha256_hex;
use webdancer_schemas::kind::Kind;

use super::read::{all, count, text};
use crate::dashboard::fault::Fault;
use crate::dashboard::format::{self, parsed_time, short_id};
use crate::dashboard::page::{Answer, Nav, Page, command, facts, id};
use crate::dashboard::request::{Asked, path_part};
use crate::dashboard::sql;
use crate::dashboard::table::{Cell, Column, Listing, Row, Table, sql_of};

/// Runs and checkpoints that are shown beside a pin.
const USES_MAX: usize = 200;

/// `/pins`
pub(super) async fn pins(asked: Asked) -> Result<Answer, Fault> {
    let columns = vec![
        Column::text("name", "Name"),
        Column::text("digest", "Digest"),
        Column::number("rows", "Rows", ""),
        Column::time("created", "Created"),
        Column::text("sql", "Statement"),
    ];
    let table = Table::new("pins", "Pins", columns)
        .main()
        .empty("There is no pin in this lake yet.", "webdancer pin create NAME --sql 'SELECT * FROM sft_pool'");
    let listing = Listing {
        table,
        sql: "SELECT name, max(digest) AS digest, max(rows) AS rows, max(event_time) AS created, max(sql) AS sql FROM pins GROUP BY name".to_string(),
        order: "\"created\" DESC",
        over: &[Kind::Pin],
    };
    if let Some(rows) = listing.download(&asked).await? {
        return Ok(rows);
    }
    let mut page = Page::new("Pins", Nav::Pins);
    let shown = listing.show(&asked, &mut page, line).await?;
    page.body(shown);
    Ok(page.into())
}

fn line(row: &Map<String, Value>) -> Row {
    let name = text(row, "name").unwrap_or_default();
    let cells = vec![
        Cell::text(name),
        text(row, "digest").map_or_else(Cell::missing, Cell::id),
        Cell::count(count(row, "rows")),
        Cell::time(text(row, "created").and_then(parsed_time)),
        text(row, "sql").map_or_else(Cell::missing, |sql| Cell::long(sql, 120)),
    ];
    Row { href: Some(format!("/pins/{}", path_part(name))), cells }
}

/// A run or a checkpoint that names the pin.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default)]
struct Use {
    id: String,
    kind: String,
    state: String,
    at: String,
}

/// `/pins/{pin}`: by name, digest, or the beginning of a digest.
pub(super) async fn pin(asked: Asked) -> Result<Answer, Fault> {
    let app = &asked.app;
    let catalog = app.engine().catalog();
    let pin = catalog.find_pin(asked.part("pin")).await?;
    let manifest_sha256 = sha256_hex(&catalog.manifest_bytes(&pin).await?);
    let of = sql::text(&pin.digest);
    let uses = format!(
        "SELECT run_id AS id, kind, state, started AS at FROM run_state WHERE pin_id = {of} \
         UNION ALL SELECT digest, 'checkpoint', CAST(step AS VARCHAR), event_time FROM checkpoints WHERE pin_id = {of} \
         ORDER BY at, id LIMIT {USES_MAX}"
    );
    let names = format!("SELECT DISTINCT name AS id FROM pins WHERE digest = {of} ORDER BY name LIMIT {USES_MAX}");
    let (uses, names) = futures::try_join!(all::<Use>(app, &uses), all::<Use>(app, &names))?;
    let mut page = Page::new(format!("Pin {}", pin.name), Nav::Pins).crumb("Pins", "/pins");
    let tables = page.table(tables(&pin), &asked)?;
    let files = page.table(files(&pin), &asked)?;
    let uses_table = page.table(uses_table(&uses), &asked)?;
    page.data(json!({"manifest": pin, "manifest_sha256": manifest_sha256, "used_by": uses}));
    let other_names: Vec<&str> = names.iter().map(|other| other.id.as_str()).filter(|name| *name != pin.name).collect();
    let rows = format!("SELECT * FROM pin({}) LIMIT 50", sql::text(&pin.name));
    page.body(html! {
        (facts([
            ("name", html! { (pin.name) @if !other_names.is_empty() { ", also " (other_names.join(", ")) } }),
            ("digest of schema and rows", id(&pin.digest)),
            ("SHA-256 of the manifest", id(&manifest_sha256)),
            ("rows", html! { (format::count(pin.rows)) }),
            ("created", html! { time datetime=(format::exact_time(pin.created)) title=(format::exact_time(pin.created)) { (format::time(pin.created)) } }),
            ("code", html! { (pin.code_version) }),
        ]))
        p { a href={ "/lineage/" (path_part(&pin.digest)) } { "Lineage" } }
        p { (command(&format!("webdancer pin verify {}", pin.name))) }
        p { (command(&format!("webdancer pin export {} --format llamafactory --output FOLDER", pin.name))) }
        h2 { "Definition" }
        pre tabindex="0" { code { (pin.definition) } }
        h2 { "Made of" } (tables)
        h2 { "Files" } (files)
        h2 { "Used by" } (uses_table)
        h2 { "Rows" } (sql_of(&rows))
    });
    Ok(page.into())
}

fn tables(pin: &PinManifest) -> Table {
    let columns =
        vec![Column::text("table", "Table"), Column::number("version", "Version", ""), Column::text("uri", "Where")];
    let mut table = Table::new("tables", "Tables and their versions", columns);
    for (name, pinned) in &pin.tables {
        let href = name.strip_prefix("pin:").map(|pin| format!("/pins/{}", path_part(pin)));
        table.row(href, vec![Cell::text(name.as_str()), Cell::count(pinned.version), Cell::long(&pinned.uri, 90)]);
    }
    table
}

fn files(pin: &PinManifest) -> Table {
    let columns = vec![
        Column::text("path", "File"),
        Column::number("rows", "Rows", ""),
        Column::number("bytes", "Size", "bytes"),
        Column::text("sha256", "SHA-256"),
    ];
    let mut table = Table::new("files", "Parquet files", columns);
    for file in &pin.files {
        let cells = vec![
            Cell::text(file.path.as_str()),
            Cell::count(file.rows),
            Cell::count(file.bytes),
            Cell::id(&file.sha256),
        ];
        table.row(None, cells);
    }
    table
}

fn uses_table(uses: &[Use]) -> Table {
    let columns = vec![
        Column::text("id", "Id"),
        Column::text("kind", "Kind"),
        Column::text("state", "State or step"),
        Column::time("at", "When"),
    ];
    let mut table = Table::new("uses", "Runs and checkpoints over this pin", columns)
        .empty("Nothing names this pin yet.", "webdancer train sft --pin NAME --config FILE");
    for used in uses {
        let page = if used.kind == "checkpoint" { "/lineage/" } else { "/runs/" };
        let cells = vec![
            Cell::new(used.id.as_str(), short_id(&used.id)).hinted(used.id.as_str()),
            Cell::text(used.kind.as_str()),
            Cell::text(used.state.as_str()),
            Cell::time(parsed_time(&used.at)),
        ];
        table.row(Some(format!("{page}{}", path_part(&used.id))), cells);
    }
    table
}

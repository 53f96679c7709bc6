//! Schedules: their slots, what became of each, and one of them event by event.

use maud::html;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use webdancer_schemas::kind::Kind;

use super::read::{all, count, first, said, text};
use super::trajectory::moment;
use crate::dashboard::fault::Fault;
use crate::dashboard::format::{self, parsed_time};
use crate::dashboard::page::{Answer, Nav, Page, facts, id};
use crate::dashboard::request::{Asked, path_part};
use crate::dashboard::sql;
use crate::dashboard::table::{Cell, Column, Listing, Row, Table};
use crate::dashboard::text::{SHOWN_CHARS_MAX, Text, block};

/// Each slot as the view has it: orders to pause and resume are none, and what a cell says is not what the slot says.
const SQL: &str = "SELECT schedule, slot_time, state, cells_finished, cells_failed, alert, reason, updated, started, holder, \
    slot_id FROM slot_state";
const REASON_CHARS: usize = 100;
/// Cells and events of a slot that are shown.
const CELLS_MAX: usize = 500;
const EVENTS_MAX: usize = 1_000;

/// `/schedules`
pub(super) async fn list(asked: Asked) -> Result<Answer, Fault> {
    let columns = vec![
        Column::text("schedule", "Schedule"),
        Column::time("slot_time", "Slot, UTC"),
        Column::text("state", "State"),
        Column::number("cells_finished", "Finished", "runs"),
        Column::number("cells_failed", "Failed", "runs"),
        Column::text("alert", "Alert"),
        Column::text("reason", "Why"),
        Column::time("updated", "Last told, UTC"),
        Column::time("started", "Begun, UTC").hidden(),
        Column::text("holder", "Server").hidden(),
        Column::text("slot_id", "Slot's id").hidden(),
    ];
    let table = Table::new("slots", "Slots", columns).main().empty(
        "No schedule has run yet: describe one in TOML, and a server keeps to it.",
        "webdancer eval schedule --help",
    );
    let listing = Listing { table, sql: SQL.to_string(), order: "\"slot_time\" DESC", over: &[Kind::Slot] };
    if let Some(rows) = listing.download(&asked).await? {
        return Ok(rows);
    }
    let mut page = Page::new("Schedules", Nav::Schedules);
    let shown = listing.show(&asked, &mut page, row).await?;
    page.body(html! { (shown) });
    Ok(page.into())
}

fn row(values: &Map<String, Value>) -> Row {
    let maybe = |name: &str| Cell::maybe(text(values, name));
    let time = |name: &str| Cell::time(text(values, name).and_then(parsed_time));
    let slot = text(values, "slot_id");
    Row {
        href: slot.map(|slot| format!("/schedules/{}", path_part(slot))),
        cells: vec![
            maybe("schedule"),
            time("slot_time"),
            maybe("state"),
            Cell::count(count(values, "cells_finished")),
            Cell::errors(count(values, "cells_failed")),
            maybe("alert"),
            said(text(values, "reason"), REASON_CHARS),
            time("updated"),
            time("started"),
            maybe("holder"),
            slot.map_or_else(Cell::missing, Cell::id),
        ],
    }
}

/// A slot as its events left it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Slot {
    schedule: String,
    slot_time: String,
    state: Option<String>,
    reason: Option<String>,
    holder: Option<String>,
    started: String,
    updated: String,
    alert: Option<String>,
}

/// One of its cells: a policy at a benchmark.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct SlotCell {
    run_id: Option<String>,
    policy: String,
    benchmark: String,
    state: String,
    reason: Option<String>,
    updated: String,
}

/// Something that was told of it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Told {
    event_time: String,
    state: String,
    policy: Option<String>,
    benchmark: Option<String>,
    reason: Option<String>,
    holder: Option<String>,
}

/// `/schedules/{slot}`
pub(super) async fn slot(asked: Asked) -> Result<Answer, Fault> {
    let (app, slot_id) = (&asked.app, asked.part("slot"));
    let of = sql::text(slot_id);
    let slot = format!(
        "SELECT schedule, slot_time, state, reason, holder, started, updated, alert FROM slot_state WHERE slot_id = {of}"
    );
    let cells = format!(
        "SELECT run_id, policy, benchmark, last_value(state ORDER BY event_time, event_id) AS state, \
           last_value(reason ORDER BY event_time, event_id) AS reason, max(event_time) AS updated FROM slots \
         WHERE slot_id = {of} AND policy IS NOT NULL GROUP BY run_id, policy, benchmark \
         ORDER BY policy, benchmark LIMIT {CELLS_MAX}"
    );
    let events = format!(
        "SELECT event_time, state, policy, benchmark, reason, holder FROM slots WHERE slot_id = {of} \
         ORDER BY event_time, event_id LIMIT {EVENTS_MAX}"
    );
    let (found, told_of_cells, told) =
        futures::try_join!(first::<Slot>(app, &slot), all::<SlotCell>(app, &cells), all::<Told>(app, &events))?;
    let missing =
        || Fault::Missing(format!("there is no slot {:?}; /schedules lists them", format::clipped(slot_id, 60)));
    let found = found.ok_or_else(missing)?;
    let mut page = Page::new(format!("Slot of {}", found.schedule), Nav::Schedules).crumb("Schedules", "/schedules");
    page.data(json!({"slot_id": slot_id, "slot": found, "cells": told_of_cells, "events": told}));
    let cells = page.table(cells_table(&told_of_cells).sql(cells), &asked)?;
    let events = page.table(events_table(&told).sql(events), &asked)?;
    let maybe = |text: Option<&str>| html! { @match text { Some(text) => (Text(text)), None => (format::MISSING) } };
    page.body(html! {
        (facts([
            ("slot", id(slot_id)),
            ("time", moment(&found.slot_time)),
            ("state", maybe(found.state.as_deref())),
            ("alert", maybe(found.alert.as_deref())),
            ("server", maybe(found.holder.as_deref())),
            ("begun", moment(&found.started)),
            ("last told", moment(&found.updated)),
        ]))
        @if let Some(reason) = &found.reason { (block(reason, SHOWN_CHARS_MAX, None)) }
        h2 { "Runs" } (cells)
        h2 { "What was told" } (events)
    });
    Ok(page.into())
}

fn cells_table(cells: &[SlotCell]) -> Table {
    let columns = vec![
        Column::text("policy", "Policy"),
        Column::text("benchmark", "Benchmark"),
        Column::text("state", "State"),
        Column::text("reason", "Why"),
        Column::text("run_id", "Run"),
        Column::time("updated", "Last told, UTC"),
    ];
    let mut table = Table::new("cells", "Policies by benchmarks", columns)
        .main()
        .empty("No run of this slot has begun.", "webdancer eval schedule list");
    for cell in cells {
        let run = cell.run_id.as_deref();
        table.row(
            run.map(|run| format!("/runs/{}", path_part(run))),
            vec![
                Cell::text(&cell.policy),
                Cell::text(&cell.benchmark),
                Cell::text(&cell.state),
                said(cell.reason.as_deref(), REASON_CHARS),
                run.map_or_else(Cell::missing, Cell::id),
                Cell::time(parsed_time(&cell.updated)),
            ],
        );
    }
    table
}

fn events_table(told: &[Told]) -> Table {
    let columns = vec![
        Column::time("event_time", "When, UTC"),
        Column::text("state", "State"),
        Column::text("policy", "Policy"),
        Column::text("benchmark", "Benchmark"),
        Column::text("reason", "Why"),
        Column::text("holder", "Server"),
    ];
    let mut table = Table::new("events", "Events of the slot", columns);
    for event in told {
        table.row(
            None,
            vec![
                Cell::time(parsed_time(&event.event_time)),
                Cell::text(&event.state),
                Cell::maybe(event.policy.as_deref()),
                Cell::maybe(event.benchmark.as_deref()),
                said(event.reason.as_deref(), REASON_CHARS),
                Cell::maybe(event.holder.as_deref()),
            ],
        );
    }
    table
}

//! What is known of schedules: from the settings, from people's orders, and from the tables.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use webdancer_eval::render::Table;
use webdancer_eval::schedule::config::{self, Planned};
use webdancer_eval::schedule::orders::Orders;
use webdancer_query::literal;
use webdancer_query::output::objects;

use super::known;
use crate::columns::query;
use crate::commands::claims::LakeClaims;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Events of a slot that are shown.
const EVENTS_MAX: usize = 1_000;

pub(super) async fn list(context: &Context) -> Result<(), Failure> {
    let planned = config::plan(&context.config.schedule, &context.config.scheduler)?;
    context.drain_embedded().await?;
    let last = "SELECT schedule, last_value(slot_time ORDER BY slot_time) AS slot_time, \
        last_value(state ORDER BY slot_time) AS state FROM slot_state GROUP BY schedule";
    let last = objects(&query(context, last).await?)?;
    let mut all = Vec::new();
    for planned in &planned {
        let mut known = about(context, planned).await?;
        let ended = last.iter().find(|row| row.get("schedule").and_then(Value::as_str) == Some(&planned.schedule.name));
        if let (Some(known), Some(ended)) = (known.as_object_mut(), ended) {
            known.insert("last".to_string(), json!({"slot_time": ended.get("slot_time"), "state": ended.get("state")}));
        }
        all.push(known);
    }
    if context.json {
        return output::json(&all);
    }
    let mut table = Table::new("Schedules", &["schedule", "cron", "zone", "runs", "next", "last", "was"]);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    for known in &all {
        let next = match known.get("paused") {
            Some(Value::Object(_)) => "paused".to_string(),
            _ => known.get("next").map(text).unwrap_or_default(),
        };
        let last = known.get("last");
        let last = |key: &str| last?.get(key).filter(|value| !value.is_null()).map(text);
        let of = |key: &str| known.get(key).map(text).unwrap_or_default();
        let [slot_time, state] = ["slot_time", "state"].map(|key| last(key).unwrap_or_else(|| "–".to_string()));
        table.rows.push(vec![of("schedule"), of("cron"), of("time_zone"), of("cells"), next, slot_time, state]);
    }
    output::line(table.text().trim_end())
}

pub(super) async fn show(context: &Context, name: &str, slots: u32) -> Result<(), Failure> {
    known(context, name)?;
    let planned = config::plan(&context.config.schedule, &context.config.scheduler)?;
    context.drain_embedded().await?;
    let last = format!(
        "SELECT * FROM slot_state WHERE schedule = {} ORDER BY slot_time DESC LIMIT {slots}",
        literal::text(name)
    );
    let last = objects(&query(context, &last).await?)?;
    let ids: Vec<&str> = last.iter().filter_map(|slot| slot.get("slot_id")?.as_str()).collect();
    let events = match ids.is_empty() {
        true => Vec::new(),
        false => {
            let sql = format!(
                "SELECT slot_id, slot_time, event_time, state, policy, benchmark, run_id, holder, reason, details FROM slots \
                 WHERE slot_id IN {} ORDER BY slot_time DESC, event_time, event_id LIMIT {EVENTS_MAX}",
                literal::texts(ids)
            );
            objects(&query(context, &sql).await?)?
        }
    };
    let Some(planned) = planned.iter().find(|planned| planned.schedule.name == name) else { return Ok(()) };
    let known = about(context, planned).await?;
    if context.json {
        let settings = &planned.schedule;
        return output::json(&json!({"known": known, "settings": settings, "slots": last, "events": events}));
    }
    for (key, value) in known.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        output::line(&format!("{key}: {text}"))?;
    }
    for event in &events {
        let of = |key: &str| event.get(key).and_then(Value::as_str).map(|text| format!(" {text}")).unwrap_or_default();
        let time = of("event_time");
        let line =
            format!("{time}{}{}{}{}{}", of("slot_time"), of("policy"), of("benchmark"), of("state"), of("reason"));
        // What a cell's failure says may come from a server: it is one line, and no escape of a terminal.
        output::line(line.trim_start().replace(char::is_control, " ").as_str())?;
    }
    Ok(())
}

/// A schedule as settings and orders have it.
async fn about(context: &Context, planned: &Planned) -> Result<Value, Failure> {
    let schedule = &planned.schedule;
    let orders = Orders::read(&LakeClaims(context.lake.clone()), &schedule.name).await?;
    let paused = orders.as_ref().and_then(|orders| orders.paused.as_ref());
    let next: Option<DateTime<Utc>> = planned.times.next_after(Utc::now()).filter(|_| paused.is_none());
    Ok(json!({
        "schedule": schedule.name,
        "cron": schedule.cron,
        "time_zone": schedule.time_zone,
        "cells": schedule.cells().len(),
        "priority": schedule.priority,
        "next": next,
        "paused": paused.map(|(since, by)| json!({"since": since, "by": by})),
        "known_since": orders.map(|orders| orders.since),
    }))
}

//! Where something came from and what came of it: as a graph, as a tree, and as JSON.

use std::collections::{BTreeMap, HashMap};

use maud::{Markup, html};
use webdancer_query::lineage::{Lineage, LineageLimits, Node, NodeId, NodeKind, lineage};
use webdancer_schemas::kind::Kind;

use crate::dashboard::fault::Fault;
use crate::dashboard::format::{clipped, short_id};
use crate::dashboard::page::{Answer, Nav, Page, id};
use crate::dashboard::request::{Asked, path_part};
use crate::dashboard::state::Computed;
use crate::dashboard::table::{Cell, Column, Table};
use crate::dashboard::text::{Text, block};

/// Nodes of one step that are drawn; all are in the table.
const DRAWN_PER_STEP: usize = 14;
/// Steps that are drawn to either side.
const STEPS_DRAWN: i64 = 6;
const BOX: (f64, f64) = (176.0, 40.0);
const GAP: (f64, f64) = (44.0, 12.0);
const MARGIN: f64 = 12.0;
const LABEL_CHARS: usize = 24;
const TREE_CHARS_MAX: usize = 60_000;

/// `/lineage/{id}?up=N&down=N`
pub(super) async fn page(asked: Asked) -> Result<Answer, Fault> {
    let of = asked.part("id");
    let usual = LineageLimits::default();
    let steps = "a number of steps from 0 to 20";
    let parsed = |name: &str, usual: u32| match asked.query.parsed::<u32>(name, steps)? {
        None => Ok(usual),
        Some(given) if given <= 20 => Ok(given),
        Some(_) => Err(Fault::Wrong(format!("{name}: give {steps}"))),
    };
    let limits =
        LineageLimits { up_max: parsed("up", usual.up_max)?, down_max: parsed("down", usual.down_max)?, ..usual };
    let (app, id_of) = (asked.app.clone(), of.to_string());
    let key = format!("lineage {} {} {of}", limits.up_max, limits.down_max);
    let walk = async move { app.in_turn(lineage(app.engine(), &id_of, &limits)).await };
    let Computed { value: found, behind } = asked.app.memo(&key, Kind::ALL, walk).await?;
    let mut page = Page::new(format!("Lineage of {}", short_id(of)), Nav::Data);
    page.behind(behind);
    let table = page.table(table(&found), &asked)?;
    let json = serde_json::to_value(found.as_ref())
        .map_err(|error| Fault::failed("the lineage cannot be told as JSON", &error))?;
    page.data(json);
    let cut: u64 = found.cut.iter().map(|cut| cut.total - cut.shown).sum();
    page.body(html! {
        p { (id(of)) }
        @if cut > 0 { p.remark { "Of a thing's neighbours at most " (limits.rows_max) " are shown; " (cut) " are left out." } }
        @if found.is_partial { p.remark { "It goes on: " a href=(asked.with("up", Some("20"))) { "more steps up" } ", " a href=(asked.with("down", Some("20"))) { "more steps down" } "." } }
        (graph(&found))
        h2 { "Tree" }
        (block(&found.tree(), TREE_CHARS_MAX, None))
        h2 { "All of it" }
        (table)
    });
    Ok(page.into())
}

/// Steps from what was asked for: what it came from to the left, what came of it to the right.
fn column(node: &Node) -> i64 {
    match (node.up, node.down) {
        (Some(0), _) | (_, Some(0)) => 0,
        (Some(up), _) => -i64::from(up),
        (None, Some(down)) => i64::from(down),
        (None, None) => 0,
    }
}

/// Where each drawn node stands: its step, and its place among those of the step.
fn places(found: &Lineage) -> HashMap<&NodeId, (f64, f64)> {
    let mut steps: BTreeMap<i64, Vec<&Node>> = BTreeMap::new();
    for node in &found.nodes {
        let step = column(node);
        if step.abs() <= STEPS_DRAWN {
            steps.entry(step).or_default().push(node);
        }
    }
    let tallest = steps.values().map(|nodes| nodes.len().min(DRAWN_PER_STEP)).max().unwrap_or(1);
    let mut places = HashMap::new();
    for (across, nodes) in steps.values().enumerate() {
        let drawn = nodes.len().min(DRAWN_PER_STEP);
        let above = (tallest - drawn) as f64 / 2.0;
        for (down, node) in nodes.iter().take(DRAWN_PER_STEP).enumerate() {
            let x = MARGIN + across as f64 * (BOX.0 + GAP.0);
            let y = MARGIN + (above + down as f64) * (BOX.1 + GAP.1);
            places.insert(&node.id, (x, y));
        }
    }
    places
}

fn graph(found: &Lineage) -> Markup {
    let places = places(found);
    let far = |at: fn(&(f64, f64)) -> f64, size: f64| places.values().map(at).fold(0.0, f64::max) + size + MARGIN;
    let (width, height) = (far(|place| place.0, BOX.0), far(|place| place.1, BOX.1));
    let view = format!("0 0 {width} {height}");
    let caption = format!("{} of {} things and how they came of one another", places.len(), found.nodes.len());
    html! {
        div.scroll tabindex="0" role="region" aria-label="Graph" {
            svg.lineage xmlns="http://www.w3.org/2000/svg" viewBox=(view) width=(width) height=(height) role="group" aria-label=(caption) {
                @for edge in &found.edges {
                    @if let (Some(from), Some(to)) = (places.get(&edge.from), places.get(&edge.to)) {
                        path.edge d=(curve(*from, *to)) { title { (edge.from.kind.name()) " " (edge.relation) " " (edge.to.kind.name()) } }
                    }
                }
                @for node in &found.nodes { @if let Some(place) = places.get(&node.id) { (drawn(node, *place, found.roots.contains(&node.id))) } }
            }
        }
        p.remark { (caption) "; what was there first is to the left." }
    }
}

/// From the right side of one box to the left side of another, or around where they stand the other way.
fn curve((x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> String {
    let (from, to) = if x1 <= x2 { (x1 + BOX.0, x2) } else { (x1, x2 + BOX.0) };
    let (from_y, to_y) = (y1 + BOX.1 / 2.0, y2 + BOX.1 / 2.0);
    let middle = (from + to) / 2.0;
    format!("M{from:.1} {from_y:.1} C{middle:.1} {from_y:.1} {middle:.1} {to_y:.1} {to:.1} {to_y:.1}")
}

fn drawn(node: &Node, (x, y): (f64, f64), root: bool) -> Markup {
    let class = if root { "node root" } else { "node" };
    html! {
        a href=(format!("/lineage/{}", path_part(&node.id.to_string()))) {
            g class=(class) {
                title { (node.kind.name()) " " (node.id.key) ": " (node.label) }
                rect x=(x) y=(y) width=(BOX.0) height=(BOX.1) rx="4" {}
                text.kind x=(x + 8.0) y=(y + 16.0) { (node.kind.name()) }
                text x=(x + 8.0) y=(y + 32.0) { (clipped(&node.label, LABEL_CHARS)) }
            }
        }
    }
}

fn table(found: &Lineage) -> Table {
    let columns = vec![
        Column::text("key", "Id"),
        Column::text("kind", "What"),
        Column::text("label", "Of it"),
        Column::number("step", "Steps away", ""),
    ];
    let mut table = Table::new("nodes", "What it came from and what came of it", columns).main();
    for node in &found.nodes {
        let cells = vec![
            Cell::id(&node.id.key),
            Cell::text(node.kind.name()),
            Cell::marked(node.label.as_str(), html! { bdi { (Text(&clipped(&node.label, 120))) } }),
            Cell::new(column(node), column(node).to_string()),
        ];
        table.row(address(&node.id), cells);
    }
    table
}

/// The page of a thing itself.
fn address(node: &NodeId) -> Option<String> {
    let to = match node.kind {
        NodeKind::Table => return None,
        NodeKind::Pin => "pins",
        NodeKind::Run | NodeKind::Score => "runs",
        NodeKind::Page => "pages",
        NodeKind::Question => "questions",
        NodeKind::Trajectory => "trajectories",
        NodeKind::Checkpoint | NodeKind::Judgment | NodeKind::Reward => {
            return Some(format!("/lineage/{}", path_part(&node.to_string())));
        }
    };
    Some(format!("/{to}/{}", path_part(&node.key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(kind: NodeKind, key: &str, up: Option<u32>, down: Option<u32>) -> Node {
        Node { id: NodeId::new(kind, key), kind, label: key.to_string(), facts: BTreeMap::new(), up, down }
    }

    #[test]
    fn what_was_there_first_stands_to_the_left() {
        let nodes = vec![
            node(NodeKind::Question, "q", Some(1), None),
            node(NodeKind::Trajectory, "t", Some(0), Some(0)),
            node(NodeKind::Judgment, "j", None, Some(1)),
        ];
        let found =
            Lineage { roots: vec![nodes[1].id.clone()], nodes, edges: Vec::new(), cut: Vec::new(), is_partial: false };
        let places = places(&found);
        let x = |kind, key: &str| places[&NodeId::new(kind, key)].0;
        assert!(x(NodeKind::Question, "q") < x(NodeKind::Trajectory, "t"));
        assert!(x(NodeKind::Trajectory, "t") < x(NodeKind::Judgment, "j"));
    }

    #[test]
    fn a_node_leads_to_the_page_of_what_it_is() {
        assert_eq!(address(&NodeId::new(NodeKind::Score, "r/1")).as_deref(), Some("/runs/r%2F1"));
        assert_eq!(address(&NodeId::new(NodeKind::Table, "qa@3")), None);
        assert_eq!(address(&NodeId::new(NodeKind::Judgment, "e1")).as_deref(), Some("/lineage/judgment%3Ae1"));
    }
}

//! What the lake holds for training: the funnel as a waterfall, the pools, and how much of everything there is.

use maud::html;
use serde::Deserialize;
use webdancer_schemas::kind::Kind;

use super::read::{all, count, text};
use crate::dashboard::chart::{Bar, Chart, Unit};
use crate::dashboard::fault::Fault;
use crate::dashboard::page::{Answer, Nav, Page};
use crate::dashboard::request::Asked;
use crate::dashboard::state::Dashboard;
use crate::dashboard::table::{Cell, Column, Table};

const FUNNEL: &str = "SELECT coalesce(method, 'unknown') AS method, outcome, count(*) AS n FROM funnel \
    WHERE NOT restricted AND method IS DISTINCT FROM 'benchmark' GROUP BY 1, 2 ORDER BY 1, 2";

const REASONS: &str = "SELECT stage, coalesce(reason, outcome) AS reason, count(*) AS n FROM funnel \
    WHERE outcome <> 'accepted' AND NOT restricted AND method IS DISTINCT FROM 'benchmark' GROUP BY 1, 2 ORDER BY n DESC, 1, 2 LIMIT 200";

const POOLS: &str = "SELECT 'sft_pool' AS pool, count(*) AS rows, count(DISTINCT qa_id) AS questions FROM sft_pool \
    UNION ALL SELECT 'rl_pool', count(*), count(DISTINCT qa_id) FROM rl_pool \
    UNION ALL SELECT 'rl_pool, sampled', count(*), count(DISTINCT qa_id) FROM rl_pool WHERE attempts > 0 \
    UNION ALL SELECT 'rl_pool, worth a group', count(*), count(DISTINCT qa_id) FROM rl_pool WHERE correct > 0 AND correct < attempts \
    ORDER BY pool <> 'sft_pool', pool";

const QUESTIONS: &str = "SELECT method, count(*) AS n FROM current_qa GROUP BY 1 ORDER BY 1";

/// Tables whose rows the figures are of.
const KINDS: [Kind; 4] = [Kind::Trajectory, Kind::Judgment, Kind::Qa, Kind::Run];

/// How many of one method came how far.
#[derive(Debug, Clone, Deserialize)]
struct Came {
    method: String,
    outcome: String,
    n: u64,
}

/// What the page shows, computed once for a state of the tables.
#[derive(Debug)]
struct Figures {
    funnel: Vec<Came>,
    reasons: crate::dashboard::state::Rows,
    pools: crate::dashboard::state::Rows,
    questions: crate::dashboard::state::Rows,
}

/// `/data`
pub(super) async fn data(asked: Asked) -> Result<Answer, Fault> {
    let own = asked.app.clone();
    let computed = asked.app.memo("data", &KINDS, async move { figures(&own).await }).await?;
    let mut page = Page::new("Data", Nav::Data);
    page.behind(computed.behind);
    let figures = computed.value;
    let all: u64 = figures.funnel.iter().map(|came| came.n).sum();
    let bars = waterfall(&figures.funnel);
    let caption =
        format!("The funnel: from {all} sampled trajectories to those accepted (n = {all}, gated benchmarks left out)");
    let chart = page.chart(Chart::bars("funnel", &caption, Unit::Number("trajectories"), &bars).sql(FUNNEL), &asked);
    let by_method = page.table(by_method(&figures.funnel), &asked)?;
    let reasons = page.table(reasons(&figures), &asked)?;
    let pools = page.table(pools(&figures), &asked)?;
    let questions = page.table(questions(&figures), &asked)?;
    page.body(html! {
        p { a href="/questions" { "Questions" } " · " a href="/pages" { "Stored pages" } " · " a href="/pins" { "Pins" } }
        h2 { "Funnel" }
        (chart) (by_method)
        h2 { "Why rejected" }
        (reasons)
        h2 { "Pools" }
        (pools)
        h2 { "Questions" }
        (questions)
    });
    Ok(page.into())
}

async fn figures(app: &Dashboard) -> Result<Figures, Fault> {
    let (funnel, reasons, pools, questions) =
        futures::try_join!(all(app, FUNNEL), app.rows(REASONS), app.rows(POOLS), app.rows(QUESTIONS))?;
    Ok(Figures { funnel, reasons, pools, questions })
}

/// Stages in the order in which they are gone through, and how a stop at each is called.
const STOPS: [(&str, &str); 5] = [
    ("validity", "rejected: validity"),
    ("correctness", "rejected: correctness"),
    ("quality", "rejected: quality"),
    ("error", "a judge failed"),
    ("pending", "not judged yet"),
];

/// All, what each stage takes away, and what is left.
fn waterfall(funnel: &[Came]) -> Vec<Bar> {
    let of = |outcome: &str| funnel.iter().filter(|came| came.outcome == outcome).map(|came| came.n).sum::<u64>();
    let all: u64 = funnel.iter().map(|came| came.n).sum();
    let share = |n: u64| match all {
        0 => String::new(),
        all => format!("{n} of {all}, {:.1} %", 100.0 * n as f64 / all as f64),
    };
    let bar = |label: &str, class, from: u64, to: u64, hint: String| Bar {
        label: label.to_string(),
        class,
        from: from as f64,
        to: to as f64,
        hint,
        href: None,
    };
    let mut bars = vec![bar("sampled", "k0", 0, all, share(all))];
    let mut left = all;
    for (outcome, label) in STOPS {
        let stopped = of(outcome);
        if stopped > 0 || matches!(outcome, "validity" | "correctness" | "quality") {
            bars.push(bar(label, "k-none", left, left - stopped, share(stopped)));
        }
        left -= stopped;
    }
    bars.push(bar("accepted", "k2", 0, left, share(left)));
    bars
}

fn by_method(funnel: &[Came]) -> Table {
    let mut methods: Vec<&str> = funnel.iter().map(|came| came.method.as_str()).collect();
    methods.dedup();
    let columns = ["validity", "correctness", "quality", "error", "pending", "accepted"];
    let mut table = Table::new(
        "methods",
        "The funnel by method",
        [Column::text("method", "Method"), Column::number("all", "Sampled", "")]
            .into_iter()
            .chain(columns.iter().map(|name| {
                let title = STOPS.iter().find(|(known, _)| known == name).map_or(*name, |(_, title)| *title);
                Column::number(*name, title, "")
            }))
            .chain([Column::number("share", "Accepted", "%")])
            .collect(),
    )
    .sql(FUNNEL)
    .empty("No trajectory has been sampled to train on yet.", "webdancer sample --policy … --web …");
    for method in methods {
        let of = |outcome: Option<&str>| {
            let same = funnel.iter().filter(|came| came.method == method && outcome.is_none_or(|o| came.outcome == o));
            same.map(|came| came.n).sum::<u64>()
        };
        let (all, accepted) = (of(None), of(Some("accepted")));
        let mut cells = vec![Cell::text(method), Cell::count(all)];
        cells.extend(columns.iter().map(|name| Cell::count(of(Some(name)))));
        cells.push(Cell::percent((all > 0).then(|| accepted as f64 / all as f64)));
        table.row(None, cells);
    }
    table
}

fn reasons(figures: &Figures) -> Table {
    let columns =
        vec![Column::text("reason", "Reason"), Column::text("stage", "Stage"), Column::number("n", "Trajectories", "")];
    let mut table = Table::new("reasons", "Why trajectories were not accepted", columns)
        .sql(REASONS)
        .empty("Nothing has been rejected.", "webdancer filter");
    for row in &figures.reasons {
        table.row(
            None,
            vec![Cell::maybe(text(row, "reason")), Cell::maybe(text(row, "stage")), Cell::count(count(row, "n"))],
        );
    }
    table
}

fn pools(figures: &Figures) -> Table {
    let columns = vec![
        Column::text("pool", "Pool"),
        Column::number("rows", "Rows", ""),
        Column::number("questions", "Questions", ""),
    ];
    let mut table = Table::new("pools", "Pools to train on", columns).sql(POOLS);
    for row in &figures.pools {
        let cells =
            vec![Cell::maybe(text(row, "pool")), Cell::count(count(row, "rows")), Cell::count(count(row, "questions"))];
        table.row(None, cells);
    }
    table
}

fn questions(figures: &Figures) -> Table {
    let columns = vec![Column::text("method", "Method"), Column::number("n", "Questions", "")];
    let mut table = Table::new("questions", "Questions by method", columns)
        .sql(QUESTIONS)
        .empty("There is no question in this lake yet.", "webdancer synth crawlqa …");
    for row in &figures.questions {
        let method = text(row, "method").unwrap_or_default();
        let href = crate::dashboard::request::query_of([("f.method", format!("={method}").as_str())]);
        table.row(Some(format!("/questions{href}")), vec![Cell::text(method), Cell::count(count(row, "n"))]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waterfall_goes_from_all_to_what_is_left() {
        let came = |outcome: &str, n| Came { method: "crawlqa".to_string(), outcome: outcome.to_string(), n };
        let funnel = [came("validity", 10), came("correctness", 30), came("pending", 5), came("accepted", 55)];
        let bars: Vec<(String, f64, f64)> =
            waterfall(&funnel).into_iter().map(|bar| (bar.label, bar.from, bar.to)).collect();
        let expected = [
            ("sampled", 0.0, 100.0),
            ("rejected: validity", 100.0, 90.0),
            ("rejected: correctness", 90.0, 60.0),
            ("rejected: quality", 60.0, 60.0),
            ("not judged yet", 60.0, 55.0),
            ("accepted", 0.0, 55.0),
        ];
        let expected: Vec<(String, f64, f64)> = expected.map(|(label, from, to)| (label.to_string(), from, to)).into();
        assert_eq!(bars, expected);
    }
}

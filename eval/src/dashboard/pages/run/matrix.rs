//! Question by attempt: what became of each.

use maud::{Markup, html};
use serde_json::{Value, json};

use crate::attempts::{Attempt, Outcome};
use crate::dashboard::chart::{Chart, Heat};
use crate::dashboard::fault::Fault;
use crate::dashboard::request::{Asked, path_part};
use crate::dashboard::table::{Cell, Column, Table};
use crate::dashboard::{figures, format};
use crate::run::{Question, Run};

/// Attempts of a question that have a column each on the page: downloads have all of them.
const COLUMNS_MAX: usize = 16;
/// Attempts that are drawn; downloads of the table have all.
const DRAWN_MAX: usize = 3_000;
/// What questions differ in and the table has a column for, if any question has it.
const FACETS: [&str; 6] = ["level", "difficulty", "type", "language", "domain", "hops"];

/// The questions that may be shown.
fn open<'r>(asked: &Asked, run: &'r Run) -> impl Iterator<Item = &'r Question> {
    let all = asked.app.restricted();
    run.questions.iter().filter(move |question| all || !question.restricted)
}

/// What is not shown, and which right is missing.
pub(super) fn withheld(asked: &Asked, run: &Run) -> Markup {
    let missing = run.questions.len() - open(asked, run).count();
    let why = Fault::restricted(format!(
        "{} of a gated benchmark",
        if missing == 1 { "1 question" } else { "each of the questions" }
    ));
    html! { @if missing > 0 { p.note { (format::count(missing as u64)) " of " (format::count(run.questions.len() as u64)) " questions are left out: " (why.to_string()) } } }
}

/// A row for each question, with a column for each attempt.
pub(super) fn table(asked: &Asked, run: &Run) -> Table {
    let questions: Vec<&Question> = open(asked, run).collect();
    let facets: Vec<&str> =
        FACETS.into_iter().filter(|name| questions.iter().any(|q| q.facet(name).is_some())).collect();
    let attempts = questions.iter().map(|question| question.attempts.len()).max().unwrap_or(0);
    let mut columns = vec![
        Column::text("qa_id", "Question"),
        Column::text("question", "Text"),
        Column::number("correct", "Correct", "%"),
    ];
    columns.extend((0..attempts).map(|at| {
        let column = Column::text(format!("attempt_{at}"), format!("{at}"));
        if at < COLUMNS_MAX { column } else { column.hidden() }
    }));
    columns.extend(facets.iter().map(|name| Column::text(*name, *name)));
    columns.extend([
        Column::number("calls", "Calls", "a try"),
        Column::number("tokens", "Tokens", "a try"),
        Column::number("seconds", "Time", "a try"),
    ]);
    let caption = format!("Questions by attempt{}: ✓ right, ✗ wrong, ! no verdict", first_of(attempts));
    let mut table = Table::new("questions", caption, columns).main();
    for question in questions {
        let mut cells = vec![Cell::id(&question.qa_id), Cell::long(&question.text, 90), Cell::percent(question.mean())];
        cells.extend((0..attempts).map(|at| question.attempts.get(at).map_or_else(Cell::missing, attempt)));
        cells.extend(facets.iter().map(|name| Cell::maybe(question.facet(name).as_deref())));
        let mean = |value: fn(&Attempt) -> Option<f64>| {
            let values: Vec<f64> = question.attempts.iter().filter_map(value).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        cells.push(Cell::number(mean(|attempt| Some(attempt.calls as f64)), 1));
        cells.push(Cell::quantity(mean(|attempt| Some(attempt.output_tokens? as f64))));
        cells.push(Cell::duration_ms(mean(|attempt| Some(attempt.wall_ms? as f64))));
        let made = question.attempts.iter().find(|attempt| !attempt.trajectory_id.is_empty());
        let first = made.map(|attempt| trajectory(&attempt.trajectory_id));
        table.row(first, cells);
    }
    table
}

/// The same as a heat map, the questions that are answered best first; None where no question may be shown.
pub(super) fn heat(asked: &Asked, run: &Run) -> Option<Chart> {
    let mut questions: Vec<&Question> = open(asked, run).collect();
    let made = questions.iter().map(|question| question.attempts.len()).max()?;
    let attempts = made.min(COLUMNS_MAX);
    // Those that nobody judged come last; of equal ones the order is that of the table.
    questions.sort_by(|a, b| b.mean().unwrap_or(-1.0).total_cmp(&a.mean().unwrap_or(-1.0)));
    let (all, drawn_max) = (questions.len(), DRAWN_MAX / attempts.max(1));
    questions.truncate(drawn_max);
    let drawn: Vec<(String, Vec<Option<Heat>>)> = questions
        .iter()
        .map(|question| {
            (question.qa_id.clone(), question.attempts.iter().take(attempts).map(|a| Some(square(a))).collect())
        })
        .collect();
    let more = if all > drawn.len() { format!("; the first {} are drawn", drawn.len()) } else { String::new() };
    let rows = first_of(made);
    let caption =
        format!("Questions across, attempts down{rows}, from best to worst answered, n = {all} questions{more}");
    let names: Vec<String> = (0..attempts).map(|at| at.to_string()).collect();
    Some(Chart::heat("matrix", &caption, &names, &drawn).sql(figures::attempts_of([run.run_id.as_str()])))
}

/// That there are more attempts than are shown.
fn first_of(attempts: usize) -> String {
    if attempts > COLUMNS_MAX { format!(", the first {COLUMNS_MAX} of {attempts}") } else { String::new() }
}

fn square(attempt: &Attempt) -> Heat {
    let (class, mark, told) = sign(attempt.outcome);
    let hint = format!("{}, attempt {}: {told}", attempt.qa_id, attempt.number);
    // An attempt that was not made has no page.
    let href = (!attempt.trajectory_id.is_empty()).then(|| trajectory(&attempt.trajectory_id));
    Heat { class, mark, hint, href }
}

fn trajectory(id: &str) -> String {
    format!("/trajectories/{}", path_part(id))
}

/// The class of an outcome, the mark that says the same without colour, and its name.
fn sign(outcome: Outcome) -> (&'static str, &'static str, &'static str) {
    match outcome {
        Outcome::Correct => ("right", "✓", "right"),
        Outcome::Wrong => ("wrong", "✗", "wrong"),
        Outcome::JudgeFailed => ("unknown", "!", "the judge failed"),
        Outcome::Outage => ("unknown", "!", "an endpoint or a tool was out"),
        Outcome::Unjudged => ("unknown", "?", "not judged"),
        Outcome::Missing => ("unknown", "–", "not made"),
    }
}

fn attempt(attempt: &Attempt) -> Cell {
    let (class, mark, told) = sign(attempt.outcome);
    let by_hand = if attempt.overridden { ", by a person" } else { "" };
    let answer =
        attempt.answer.as_deref().map_or_else(|| "no answer".to_string(), |answer| format::clipped(answer, 200));
    let hint = format!("{told}{by_hand}: {answer} (ended by {})", attempt.termination);
    let shown = html! { span.mark.(class) { (mark) } };
    let cell = Cell::marked(told, shown).hinted(hint);
    // An attempt that was not made has no page.
    if attempt.trajectory_id.is_empty() { cell } else { cell.linked(trajectory(&attempt.trajectory_id)) }
}

/// The questions with their attempts.
pub(super) fn json(asked: &Asked, run: &Run) -> Value {
    let questions = open(asked, run).map(|question| {
        let attempts = question.attempts.iter().map(|attempt| {
            json!({
                "trajectory_id": attempt.trajectory_id, "attempt": attempt.number, "correct": attempt.outcome.correct(),
                "answer": attempt.answer, "termination": attempt.termination, "judge": attempt.judge,
            })
        });
        json!({
            "qa_id": question.qa_id, "question": question.text, "mean": question.mean(),
            "attempts": attempts.collect::<Vec<_>>(),
        })
    });
    Value::Array(questions.collect())
}

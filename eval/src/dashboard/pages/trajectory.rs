//! One trajectory: turns as a rail, one turn in full, and what is known of the attempt beside it.
//!
//! Only what is visible is read and rendered: the rail is a window of turns, and of the texts those of the open turn. So a
//! trajectory of a thousand turns is shown as quickly as one of ten.

mod aside;
mod difference;
mod rail;
mod row;
mod tokenizer;
mod tokens;
mod turn;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::IntoResponse as _;
use futures::try_join;
use maud::{Markup, html};
use serde_json::json;

pub(super) use aside::{moment, sign};
use row::{Head, Step, Turn, Verdict};

use crate::dashboard::fault::Fault;
use crate::dashboard::format::{count, short_id};
use crate::dashboard::page::{Answer, Nav, Page};
use crate::dashboard::request::{Asked, Form, query_of};
use crate::dashboard::sql;

/// A number of a turn that is looked for before it is known how many there are.
const TURNS_MAX: usize = i32::MAX as usize;
/// The download of all turns.
const TURNS: &str = "turns";

/// What the middle shows of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Parts,
    Raw,
    Tokens,
}

impl View {
    const ALL: [(View, &'static str, &'static str); 3] =
        [(View::Parts, "parts", "Parts"), (View::Raw, "raw", "Raw text"), (View::Tokens, "tokens", "Tokens")];

    fn of(asked: &Asked) -> Result<View, Fault> {
        let Some(name) = asked.query.get("view") else { return Ok(View::Parts) };
        let found = View::ALL.iter().find(|(_, known, _)| *known == name).map(|(view, ..)| *view);
        found.ok_or_else(|| Fault::Wrong("view: give parts, raw or tokens".to_string()))
    }
}

/// `/trajectories/{id}?turn=N&view=parts|raw|tokens&against=ID`; turns count from 1.
pub(super) async fn trajectory(asked: Asked) -> Result<Answer, Fault> {
    let (app, id) = (&asked.app, asked.part("id"));
    let view = View::of(&asked)?;
    let wanted = number(&asked, TURNS_MAX)?;
    let opened = row::opened(app, id, rail::window(wanted, usize::MAX), wanted);
    let (row::Opened { head, steps, turn }, verdicts, rewards) =
        try_join!(opened, row::verdicts(app, id), row::rewards(app, id))?;
    let turns = usize::try_from(head.turns).unwrap_or(0);
    let number = number(&asked, turns)?;
    let run = async {
        match &head.run_id {
            Some(run) => row::run(app, run).await,
            None => Ok(None),
        }
    };
    let (question, run, attempts) = try_join!(row::question(app, &head.qa_id), run, row::attempts(app, &head.qa_id))?;
    let visible = (turns > 0).then_some((steps, turn));
    let gated = head.restricted || question.as_ref().is_some_and(|question| question.restricted);
    let shown = !gated || app.restricted();
    if asked.wants_rows(TURNS) {
        return if shown {
            turns_file(&asked, &head).await
        } else {
            Err(Fault::restricted(format!("trajectory {id}")))
        };
    }
    let opened = match visible.filter(|_| shown) {
        Some(visible) => Some(open(&asked, (&head, &verdicts), number, visible, view).await?),
        None => None,
    };

    let mut page =
        Page::new(format!("Trajectory {}", short_id(id)), Nav::Trajectories).crumb("Trajectories", "/trajectories");
    if let Some(run) = &head.run_id {
        page = page
            .crumb(format!("run {}", short_id(run)), format!("/runs/{}", crate::dashboard::request::path_part(run)));
    }
    if asked.form == Form::Json {
        let steps = opened.as_ref().map(|opened| &opened.steps);
        let turn = opened.as_ref().map(|opened| &opened.turn);
        let tokens = opened.as_ref().and_then(|opened| opened.tokens.as_ref());
        let head = if shown { head.clone() } else { Head { question: None, answer: None, ..head.clone() } };
        let question = question.filter(|_| shown);
        let verdicts: Vec<_> = verdicts
            .into_iter()
            .map(|verdict| Verdict {
                // Criteria may hold the answer as the judge took it out.
                criteria: verdict.criteria.filter(|_| shown),
                rationale: verdict.rationale.filter(|_| shown),
                ..verdict
            })
            .collect();
        page.data(json!({
            "trajectory": head, "question": question, "run": run, "attempts": attempts, "verdicts": verdicts,
            "rewards": rewards, "turns": steps, "open": {"turn": number + 1, "parts": turn, "tokens": tokens},
            "withheld": !shown,
        }));
        return Ok(page.into());
    }
    let correctness = verdicts.iter().find(|verdict| verdict.current && verdict.stage == "correctness");
    page.body(html! {
        (aside::attempts(&head, &attempts))
        div.trajectory {
            @match &opened {
                Some(opened) => {
                    (rail::rail(&asked, &opened.steps, number, turns, correctness.map(|verdict| verdict.verdict.as_str())))
                    (middle(&asked, &head, number, turns, view, opened))
                }
                None if shown => { p.empty { "This trajectory has no turns." } }
                None => { p.empty { (Fault::restricted("What was said in an attempt at a gated benchmark").to_string()) "." } }
            }
            aside aria-label="About this attempt" {
                (aside::question(&head, question.as_ref(), shown))
                (aside::verdicts(&verdicts, shown))
                (aside::reward(&rewards))
                (aside::origin(&head, run.as_ref()))
            }
        }
    });
    Ok(page.into())
}

/// All turns with their texts, a row each.
async fn turns_file(asked: &Asked, head: &Head) -> Result<Answer, Fault> {
    // An attempt that was made twice has the turns of the row that is shown.
    let of = format!(
        "SELECT * FROM turns WHERE trajectory_id = {} AND event_time = {} ORDER BY turn",
        sql::text(&head.trajectory_id),
        sql::text(&head.event_time)
    );
    Answer::rows_of(asked, TURNS, &of).await
}

/// What is read of the open turn.
struct Opened {
    steps: Vec<Step>,
    turn: Turn,
    tokens: Option<row::Tokens>,
    body: Markup,
    against: Option<Markup>,
}

async fn open(
    asked: &Asked,
    attempt: (&Head, &[Verdict]),
    number: usize,
    (steps, turn): (Vec<Step>, Turn),
    view: View,
) -> Result<Opened, Fault> {
    let (head, _) = attempt;
    let (app, id) = (&asked.app, head.trajectory_id.as_str());
    let against = match asked.query.get("against") {
        Some(other) => Some(against(asked, attempt, number, &turn, other).await?),
        None => None,
    };
    let mut tokens = None;
    let body = match view {
        View::Parts => {
            let urls = turn.arguments.as_deref().map(turn::urls).unwrap_or_default();
            turn::turn(head, number, &turn, &row::pages(app, &turn, &urls).await?)
        }
        View::Raw => turn::raw(head, number, &turn),
        View::Tokens => {
            let read = row::tokens(app, id, number).await?;
            let tokenizer = match (&head.tokenizer_digest, &read.completion) {
                (Some(digest), Some(_)) => tokenizer::find(app, digest, head.run_id.as_deref()).await?,
                _ => None,
            };
            let shown = tokens::tokens(&read, tokenizer.as_deref());
            tokens = Some(read);
            shown
        }
    };
    Ok(Opened { steps, turn, tokens, body, against })
}

/// What this attempt came to and its turns, beside those of another.
async fn against(
    asked: &Asked,
    attempt: (&Head, &[Verdict]),
    number: usize,
    turn: &Turn,
    other: &str,
) -> Result<Markup, Fault> {
    let (app, id) = (&asked.app, attempt.0.trajectory_id.as_str());
    let beside = row::head(app, other).await?;
    let question = row::question(app, &beside.qa_id).await?;
    if (beside.restricted || question.is_some_and(|question| question.restricted)) && !app.restricted() {
        return Err(Fault::restricted(format!("trajectory {other}")));
    }
    let max = difference::TURNS_MAX;
    let (left, right, verdicts) =
        try_join!(row::calls(app, id, max), row::calls(app, other, max), row::verdicts(app, other))?;
    let turns = match difference::counterpart(&left, &right, number) {
        Some(at) => difference::turns(number, turn, at, &row::turn(app, other, at).await?),
        None => there(asked, &beside, number).await?,
    };
    Ok(html! {
        (difference::ends(attempt, (&beside, &verdicts)))
        (difference::table(asked, other, &left, &right))
        (turns)
    })
}

/// The turn of this number of another attempt, whose call is another.
async fn there(asked: &Asked, beside: &Head, number: usize) -> Result<Markup, Fault> {
    if number >= usize::try_from(beside.turns).unwrap_or(0) {
        return Ok(html! { p.remark { "There is no turn " (number + 1) " there." } });
    }
    let turn = row::turn(&asked.app, &beside.trajectory_id, number).await?;
    let urls = turn.arguments.as_deref().map(turn::urls).unwrap_or_default();
    let pages = row::pages(&asked.app, &turn, &urls).await?;
    Ok(html! {
        div.there { h2 { "Turn " (number + 1) " there" } (turn::turn(beside, number, &turn, &pages)) }
        h2 { "Turn " (number + 1) " here" }
    })
}

fn middle(asked: &Asked, head: &Head, number: usize, turns: usize, view: View, opened: &Opened) -> Markup {
    let at = |turn: usize| asked.with("turn", Some(&(turn + 1).to_string()));
    let file = |form: &str| format!("{}{}", asked.address, query_of([("format", form), ("of", TURNS)]));
    html! {
        article.turn aria-label="Turn" {
            header {
                h2 { "Turn " (number + 1) small { " of " (count(turns as u64)) } }
                nav aria-label="Turn before and after" {
                    @if number > 0 { a href=(at(number - 1)) { "↑ before" } } @else { span.off { "↑ before" } }
                    " " @if number + 1 < turns { a href=(at(number + 1)) { "↓ after" } } @else { span.off { "↓ after" } }
                }
                nav.switch aria-label="What is shown of a turn" {
                    @for (of, name, title) in View::ALL {
                        a href=(asked.with("view", (of != View::Parts).then_some(name))) aria-current=[(of == view).then_some("true")] { (title) }
                    }
                    @if opened.against.is_some() { a href=(asked.with("against", None)) { "No comparison" } }
                }
            }
            (turn::measures(&opened.turn))
            @if let Some(against) = &opened.against { (against) }
            (opened.body)
            p { "All turns as " a href=(file("csv")) { "CSV" } ", " a href=(file("json")) { "JSON" } ", " a href=(file("parquet")) { "Parquet" } }
            @if head.turns > head.n_turns { p.remark { "The lists of this trajectory have more turns than it says." } }
        }
    }
}

/// The open turn, from 0.
fn number(asked: &Asked, turns: usize) -> Result<usize, Fault> {
    let wanted = "the number of a turn, from 1";
    match asked.query.parsed::<usize>("turn", wanted)? {
        None => Ok(0),
        Some(turn) if turn >= 1 && turn <= turns.max(1) => Ok(turn - 1),
        Some(turn) => Err(Fault::Wrong(format!("turn={turn}: give {wanted} to {}", turns.max(1)))),
    }
}

/// `/trajectories/{id}/turns/{turn}/{part}`: one text of a turn, whole, as plain text.
pub(super) async fn text(asked: Asked) -> Result<Answer, Fault> {
    let (app, id) = (&asked.app, asked.part("id"));
    let head = row::head(app, id).await?;
    let question = row::question(app, &head.qa_id).await?;
    if (head.restricted || question.is_some_and(|question| question.restricted)) && !app.restricted() {
        return Err(Fault::restricted(format!("trajectory {id}")));
    }
    let turns = usize::try_from(head.turns).unwrap_or(0);
    let number = asked.part("turn").parse().ok().filter(|turn| (1..=turns).contains(turn));
    let missing = || Fault::Missing(format!("there is no turn {} of {turns}", asked.part("turn")));
    let number = number.ok_or_else(missing)? - 1;
    let turn = row::turn(app, id, number).await?;
    let text = match asked.part("part") {
        "thought" => turn.thought.unwrap_or_default(),
        "observation" => turn.observation.unwrap_or_default(),
        "arguments" => turn.arguments.unwrap_or_default(),
        "raw" => turn::written(&head, number, &turn),
        other => {
            return Err(Fault::Missing(format!(
                "a turn has no {other}: there are thought, arguments, observation, raw"
            )));
        }
    };
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "private, no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok(Answer::Other(Box::new((headers, text).into_response())))
}

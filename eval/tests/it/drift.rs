//! Changes of scores taken apart.

use webdancer_eval::attempts::Outcome;
use webdancer_eval::contamination::{Flagged, Leak, Looked, contamination};
use webdancer_eval::drift::{Cause, Drift, DriftError, Grid, Judged, Misses, drift};
use webdancer_eval::report::Options;
use webdancer_eval::run::Run;

use crate::support::{attempt, of, single};

/// As many questions, of which the first so many are right.
const QUESTIONS: usize = 40;

fn run(id: &str, right: usize) -> Run {
    single(id, QUESTIONS, |i| i < right)
}

/// A run that two judges find so many right of.
fn judged(id: &str, by_first: usize, by_second: usize) -> Judged {
    Judged { by_first: run(id, by_first), by_second: run(id, by_second) }
}

fn both(cells: [[usize; 2]; 2], missed: [[u64; 2]; 2]) -> Grid {
    let cell = |policy: usize, web: usize| {
        let right = cells[policy][web];
        (judged(&format!("{policy}{web}"), right, right), Misses { calls: 100, missed: missed[policy][web] })
    };
    Grid::Both(Box::new([[cell(0, 0), cell(0, 1)], [cell(1, 0), cell(1, 1)]]))
}

fn taken_apart(first: &Judged, second: &Judged, grid: &Grid) -> Drift {
    drift(first, second, grid, &Options::default()).unwrap()
}

/// What each part is, in questions.
fn parts(drift: &Drift) -> Vec<(Cause, f64)> {
    drift.parts.iter().map(|part| (part.cause, (part.difference.value * 4e4).round() / 1e3)).collect()
}

#[test]
fn another_judge_another_policy_or_another_web_alone_is_all_of_the_change() {
    let by_judge = taken_apart(&judged("a", 20, 32), &judged("b", 20, 32), &Grid::Neither);
    assert_eq!(parts(&by_judge), [(Cause::Judge, 12.0), (Cause::Chance, 0.0)]);
    assert_eq!((by_judge.attributed_to.as_slice(), by_judge.parts[0].share), (&[Cause::Judge][..], Some(1.0)));
    let policy = Grid::Policy([Misses::default(); 2]);
    for (grid, cause) in [
        (policy.clone(), Cause::Model),
        (Grid::Web([Misses::default(); 2]), Cause::Web),
        (Grid::Neither, Cause::Chance),
    ] {
        let apart = taken_apart(&judged("a", 32, 32), &judged("b", 20, 20), &grid);
        assert_eq!(parts(&apart), [(Cause::Judge, 0.0), (cause, -12.0)]);
        assert_eq!((apart.attributed_to.as_slice(), apart.interaction), (&[cause][..], None));
        assert!(
            apart.change.interval.unwrap().high < 0.0 && apart.verdict().contains(cause.name()),
            "{}",
            apart.verdict()
        );
    }
    let same = taken_apart(&judged("a", 20, 20), &judged("b", 20, 20), &policy);
    assert_eq!((same.attributed_to.len(), same.parts[0].share), (0, None));
    assert!(same.verdict().ends_with("no part of it is beyond chance."), "{}", same.verdict());
}

#[test]
fn policy_and_web_are_told_apart_by_trying_each_on_the_other_and_the_parts_add_up() {
    // On the second web both policies lose eight; the second is better by four on either. Two are the judge's, by whom the
    // first run is compared with the second.
    let (first, second) = (judged("00", 20, 22), judged("11", 16, 18));
    let grid = both([[20, 12], [24, 16]], [[0, 3], [2, 5]]);
    let Grid::Both(mut cells) = grid else { panic!() };
    cells[0][0].0 = first.clone();
    cells[1][1].0 = second.clone();
    for (policy, web) in [(0, 1), (1, 0)] {
        let (cell, right) = (&mut cells[policy][web].0, [[0, 12], [24, 0]][policy][web]);
        *cell = judged(&format!("{policy}{web}"), right, right + 2);
    }
    let apart = taken_apart(&first, &second, &Grid::Both(cells));
    assert_eq!(parts(&apart), [(Cause::Judge, 2.0), (Cause::Model, 4.0), (Cause::Web, -8.0), (Cause::Serving, 0.0)]);
    let sum: f64 = apart.parts.iter().map(|part| part.difference.value).sum();
    assert!((sum - apart.change.value).abs() < 1e-12 && (apart.change.value * 40.0 - -2.0).abs() < 1e-9);
    assert_eq!(apart.attributed_to[0], Cause::Web);
    assert!(apart.interaction.unwrap().value.abs() < 1e-12);
    // The two runs are cells of the grid.
    let runs: Vec<&str> = apart.cells.iter().map(|cell| cell.run_id.as_str()).collect();
    assert_eq!(runs, ["00", "11", "01", "10"]);
    assert_eq!(apart.cells[1].misses, Some(Misses { calls: 100, missed: 5 }));
    assert!(apart.text().contains("web") && apart.markdown().starts_with("The score changed by −5.0"));
}

#[test]
fn what_serving_a_live_web_again_costs_is_neither_models_nor_webs() {
    let apart = taken_apart(&judged("a", 30, 30), &judged("b", 26, 26), &both([[20, 20], [20, 20]], [[0; 2]; 2]));
    let due = [(Cause::Judge, 0.0), (Cause::Model, 0.0), (Cause::Web, 0.0), (Cause::Serving, -4.0)];
    assert_eq!((parts(&apart).as_slice(), apart.cells.len()), (&due[..], 6));
}

#[test]
fn an_interaction_beyond_both_effects_is_said() {
    // Each policy is good on its own web alone.
    let apart = taken_apart(&judged("a", 30, 30), &judged("b", 30, 30), &both([[30, 10], [10, 30]], [[0; 2]; 2]));
    assert_eq!(parts(&apart)[1..3], [(Cause::Model, 0.0), (Cause::Web, 0.0)]);
    assert!((apart.interaction.unwrap().value - 1.0).abs() < 1e-12);
    assert!(apart.notes.iter().any(|note| note.starts_with("the interaction is larger")), "{:?}", apart.notes);
}

#[test]
fn webs_that_a_policy_misses_more_than_five_points_more_on_are_refused() {
    let (first, second) = (judged("a", 30, 30), judged("b", 26, 26));
    let grid = |missed| both([[30, 30], [26, 26]], [[1, 1], [missed, 1]]);
    assert!(drift(&first, &second, &grid(6), &Options::default()).is_ok());
    let refused = drift(&first, &second, &grid(7), &Options::default()).unwrap_err();
    assert!(matches!(&refused, DriftError::Misses { worst, .. } if worst == "10"), "{refused}");
    let told = refused.to_string();
    assert!(told.contains("missed 7.0 %") && told.contains("1.0 %, more than 5 points apart"), "{told}");
}

#[test]
fn what_a_recording_lacks_for_one_policy_is_not_its_models() {
    let (first, second) = (judged("a", 32, 32), judged("b", 20, 20));
    let missed = |missed| [Misses { calls: 100, missed: 1 }, Misses { calls: 50, missed }];
    let apart = taken_apart(&first, &second, &Grid::Recording(missed(3)));
    assert_eq!(parts(&apart), [(Cause::Judge, 0.0), (Cause::Model, -12.0)]);
    assert_eq!(apart.cells[1].misses, Some(Misses { calls: 50, missed: 3 }));
    let refused = drift(&first, &second, &Grid::Recording(missed(4)), &Options::default()).unwrap_err().to_string();
    assert!(refused.contains("run b missed 8.0 % of its calls and run a 1.0 %, more than 5 points apart"), "{refused}");
    // Of a web that holds whole pages the same is the policy's: it asks for what there is not.
    let apart = taken_apart(&first, &second, &Grid::Policy(missed(4)));
    assert_eq!((apart.attributed_to.as_slice(), apart.cells.len()), (&[Cause::Model][..], 2));
    assert_eq!(apart.cells.iter().map(|cell| cell.misses).collect::<Vec<_>>(), missed(4).map(Some));
}

#[test]
fn what_a_recording_lacks_is_no_change_of_the_web() {
    // One policy on a live web and on its recording, where it asks for other things.
    let (first, second) = (judged("a", 32, 32), judged("b", 20, 20));
    let missed = |missed| [Misses { calls: 100, missed: 1 }, Misses { calls: 50, missed }];
    let apart = taken_apart(&first, &second, &Grid::WebOfRecording(missed(3)));
    assert_eq!(parts(&apart), [(Cause::Judge, 0.0), (Cause::Web, -12.0)]);
    let refused = drift(&first, &second, &Grid::WebOfRecording(missed(4)), &Options::default()).unwrap_err();
    assert!(matches!(&refused, DriftError::Misses { worst, .. } if worst == "b"), "{refused}");
    // Pages that somebody took out of a closed web are what changed.
    let apart = taken_apart(&first, &second, &Grid::Web(missed(4)));
    assert_eq!(apart.attributed_to, [Cause::Web]);
    assert_eq!(apart.cells.iter().map(|cell| cell.misses).collect::<Vec<_>>(), missed(4).map(Some));
}

#[test]
fn answers_that_a_judge_did_not_judge_are_named_with_the_judge() {
    let mut attempts: Vec<_> = (0..QUESTIONS).map(|i| attempt("a", &format!("q{i:03}"), 0, Outcome::Wrong)).collect();
    attempts[0].outcome = Outcome::Unjudged;
    attempts[1].outcome = Outcome::Unjudged;
    let half = Judged { by_first: run("a", 20), by_second: of(attempts) };
    let policy = Grid::Policy([Misses::default(); 2]);
    let refused = drift(&half, &judged("b", 20, 20), &policy, &Options::default()).unwrap_err().to_string();
    assert!(
        refused.starts_with("only 95.0 % of the attempts of run a have a verdict of gaia v1, and 98 %"),
        "{refused}"
    );
}

#[test]
fn attempts_that_saw_their_answer_are_scored_apart() {
    let run = run("a", 10);
    let flag = |i: usize| Flagged {
        trajectory_id: format!("a/q{i:03}/0"),
        qa_id: format!("q{i:03}"),
        url: "https://leak.example/".to_string(),
        leak: Leak::Question,
    };
    // Eight that are right, and two that are wrong all the same.
    let found = contamination(
        &run,
        Looked { checked: 40, flagged: (2..12).map(flag).collect(), whole_pages: false },
        &Options::default(),
    );
    assert_eq!((found.checked, found.flagged.len()), (40, 10));
    assert!((found.contaminated.unwrap().value - 0.8).abs() < 1e-12);
    assert!((found.clean.unwrap().value - 2.0 / 30.0).abs() < 1e-12);
    // A search for a gated question has its words in its address.
    let mut gated = run.clone();
    gated.questions[3].restricted = true;
    let urls: Vec<String> = found.withheld(&gated).flagged.into_iter().take(3).map(|flagged| flagged.url).collect();
    assert_eq!(urls, ["https://leak.example/", "(gated)", "https://leak.example/"]);
}

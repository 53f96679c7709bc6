//! What the rules of validity and quality decide.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use proptest::prelude::*;
use serde_json::Value;
use webdancer_agent::profile::Profile;
use webdancer_agent::published::parse_trajectory_line;
use webdancer_agent::react::{React, ReactConfig, Task};
use webdancer_agent::tool::{Observation, Outcome, Web};
use webdancer_schemas::rows::Trajectory;
use webdancer_synth::funnel::rules::{Inspector, judge_all};
use webdancer_synth::funnel::{Attempts, FunnelError, QualityParameters, Reason};

use crate::models::Played;
use crate::trajectories::{Row, batch, good, with};

/// Why each row is rejected, and what is told of it.
fn rulings(rows: &[Row], parameters: &QualityParameters) -> Vec<(Option<Reason>, String)> {
    let judged = judge_all(&[batch(rows)], parameters, 2).unwrap();
    judged.into_iter().flatten().map(|ruling| (ruling.reason, ruling.detail)).collect()
}

fn reason(row: &Row) -> Option<Reason> {
    rulings(std::slice::from_ref(row), &QualityParameters::default())[0].0
}

fn some(text: &str) -> Option<String> {
    Some(text.to_string())
}

#[test]
fn a_trajectory_in_order_passes_with_what_was_counted() {
    let told = rulings(&[good("t")], &QualityParameters::default());
    assert_eq!(told, [(None, "2 actions; the most frequent 10-gram occurs 0 times".to_string())]);
}

#[test]
fn each_fault_of_the_format_has_its_reason() {
    let ended = |termination: &str| with("t", |row| (row.termination, row.answer) = (termination.to_string(), None));
    let cases = [
        (ended("error"), Reason::AttemptFailed, "the attempt failed by no fault of the agent's"),
        (ended("calls"), Reason::OutOfBudget, "the agent used up its calls"),
        (ended("tokens"), Reason::OutOfBudget, "the agent used up its tokens"),
        (ended("time"), Reason::OutOfBudget, "the agent used up its time"),
        (ended("answer"), Reason::NoAnswer, "there is no answer"),
        (with("t", |row| row.answer = some(" ")), Reason::NoAnswer, "there is no answer"),
        (
            with("t", |row| (row.turn_tool[1], row.turn_arguments[1]) = (some("search"), some("{}"))),
            Reason::NoAnswer,
            "there is no answer",
        ),
        (
            with("t", |row| {
                for list in [
                    &mut row.turn_thought,
                    &mut row.turn_tool,
                    &mut row.turn_arguments,
                    &mut row.turn_raw,
                    &mut row.turn_observation_digest,
                ] {
                    list.clear();
                }
            }),
            Reason::NoTurns,
            "there is no turn",
        ),
        (
            with("t", |row| row.turn_raw.truncate(1)),
            Reason::UnequalLists,
            "turn_raw has 1 elements, turn_thought has 2: one per turn is needed",
        ),
        (with("t", |row| row.turn_thought[0] = None), Reason::NotInFormat, "turn 0: there is no thought"),
        (
            with("t", |row| row.turn_raw[1] = some("The Drava.")),
            Reason::NotInFormat,
            "turn 1: byte 0: expected <think>, found \"The Drava.\"",
        ),
        (
            with("t", |row| row.turn_arguments[0] = some("{\"query\": [")),
            Reason::BadArguments,
            "turn 0: the arguments are no JSON object: EOF while parsing a list at line 1 column 11",
        ),
        (
            with("t", |row| (row.turn_tool[0], row.turn_arguments[0]) = (None, None)),
            Reason::EarlyAnswer,
            "turn 0 answers, and another turn follows",
        ),
        (
            with("t", |row| row.turn_observation_digest[0] = None),
            Reason::NoObservation,
            "turn 0 has no observation, and another turn follows",
        ),
    ];
    for (row, due, detail) in cases {
        let told = rulings(&[row], &QualityParameters::default());
        assert_eq!(told, [(Some(due), detail.to_string())]);
    }
}

/// A web whose tools find something.
#[derive(Debug)]
struct Found;

#[async_trait]
impl Web for Found {
    fn name(&self) -> &str {
        "found"
    }

    fn specifications(&self) -> Vec<Value> {
        Vec::new()
    }

    async fn call(&self, _: &str, _: &str) -> Observation {
        Observation::new("Maribor lies on the Drava.", Outcome::Done)
    }
}

/// Why the trajectory of an agent that writes these turns, and then the last of them again, is rejected.
async fn reason_of_written(turns: &[&str], config: ReactConfig) -> Option<&'static str> {
    let said: Vec<String> = turns.iter().map(|turn| (*turn).to_string()).collect();
    let model = Played::new("model", move |_, number| Ok(said.get(number).or(said.last()).unwrap().clone()));
    let agent = React::new(model, Arc::new(Found), Arc::new(Profile::compact()), config);
    let task = Task {
        trajectory_id: "t",
        qa_id: "q",
        question: "Which river flows through Maribor?",
        attempt: 0,
        seed: None,
        date: "2026-01-01".parse().unwrap(),
        restricted: None,
    };
    let trajectory = agent.attempt(&task).await.trajectory;
    reason(&Row { trajectory, ..Row::default() }).map(Reason::name)
}

#[tokio::test]
async fn whatever_a_model_writes_out_of_order_has_a_reason_of_its_own() {
    let call = |tool: &str| {
        format!(
            "<think>\nI look.\n</think>\n<tool_call>\n{{\"name\": \"{tool}\", \"arguments\": {{\"query\": [\"x\"]}}}}\n</tool_call>"
        )
    };
    let search = call("search");
    let answer = "<think>\nSo it is.\n</think>\n<answer>\nDrava\n</answer>";
    let simulated = "\n<tool_response>\nMaribor lies on the Drava.\n</tool_response>\n";
    let few = || ReactConfig { calls_max: 3, force_answer: false, ..ReactConfig::default() };
    for (turns, due) in [
        (vec![search.clone(), answer.to_string()], None),
        // An observation behind the call, with the answer behind it, and in place of an action.
        (vec![format!("{search}{simulated}"), answer.to_string()], Some("simulated_observation")),
        (vec![format!("{search}{simulated}{answer}"), answer.to_string()], Some("simulated_observation")),
        (vec![format!("<think>\nx\n</think>{simulated}"), answer.to_string()], Some("simulated_observation")),
        (vec![search.clone(), format!("{answer}{simulated}")], Some("simulated_observation")),
        // One within a thought or an answer is in the format, and caught by quality.
        (vec![search.replace("I look.", simulated.trim()), answer.to_string()], Some("simulated_observation")),
        (vec![search.clone(), answer.replace("Drava", simulated.trim())], Some("simulated_observation")),
        // A thought may speak of tags where the turn is wrong otherwise; arguments may hold any text.
        (
            vec!["<think>\nA <tool_response> comes.\n</think>\nDrava".to_string(), answer.to_string()],
            Some("not_in_format"),
        ),
        (vec![search.replace("\"x\"", "\"<tool_response>\""), answer.to_string()], None),
        (vec!["The Drava.".to_string(), answer.to_string()], Some("not_in_format")),
        (vec![call("calculate"), answer.to_string()], Some("unknown_tool")),
        (vec![search.replace("[\"x\"]", "[\"x\""), answer.to_string()], Some("bad_arguments")),
        (vec![answer.to_string()], Some("too_few_actions")),
        (vec![search.clone()], Some("out_of_budget")),
        (vec![search.clone(), answer.replace("Drava", "")], Some("no_answer")),
        (
            vec![
                search.replace("I look.", &"I look at it once more and then see what comes. ".repeat(5)),
                answer.to_string(),
            ],
            Some("repetition"),
        ),
    ] {
        let turns: Vec<&str> = turns.iter().map(String::as_str).collect();
        assert_eq!(reason_of_written(&turns, few()).await, due, "{turns:?}");
    }
    let forced = ReactConfig { calls_max: 2, ..ReactConfig::default() };
    assert_eq!(reason_of_written(&[&search, &search, answer], forced).await, Some("forced_answer"));
}

#[test]
fn white_space_that_the_format_tolerates_is_valid() {
    let raw = "<think> The page says so. </think>\n\n<answer> Drava </answer>\n";
    assert_eq!(reason(&with("t", |row| row.turn_raw[1] = some(raw))), None);
}

#[test]
fn each_fault_of_quality_has_its_reason() {
    let sentence = "nothing in this sentence of ten words says anything new. ";
    let cases = [
        (with("t", |row| row.termination = "forced".to_string()), Reason::ForcedAnswer, "the answer was forced"),
        (
            with("t", |row| row.turn_tool[0] = some("calculate")),
            Reason::UnknownTool,
            "turn 0 calls \"calculate\", which does not exist",
        ),
        (
            with("t", |row| row.turn_thought[1] = some("So:\n<tool_response>\nDrava\n</tool_response>")),
            Reason::SimulatedObservation,
            "turn 1 makes up an observation",
        ),
        (
            with("t", |row| {
                for list in [
                    &mut row.turn_thought,
                    &mut row.turn_tool,
                    &mut row.turn_arguments,
                    &mut row.turn_raw,
                    &mut row.turn_observation_digest,
                ] {
                    list.remove(0);
                }
            }),
            Reason::TooFewActions,
            "1 actions, 2 are the least",
        ),
        (
            with("t", |row| row.turn_thought[0] = Some(sentence.repeat(5))),
            Reason::Repetition,
            "the most frequent 10-gram occurs 5 times, 4 are allowed",
        ),
    ];
    for (row, due, detail) in cases {
        let told = rulings(&[row], &QualityParameters::default());
        assert_eq!(told, [(Some(due), detail.to_string())]);
    }
    assert_eq!(
        reason(&with("t", |row| row.turn_thought[0] = Some(sentence.repeat(4)))),
        None,
        "four times are allowed"
    );
}

#[test]
fn repetition_is_looked_for_in_all_that_the_agent_wrote_and_nowhere_else() {
    let words = "one two three four five six seven eight nine ten";
    let five = |separator: &str| [words; 5].join(separator);
    let repeats = |change: fn(&mut Trajectory, String), separator| {
        reason(&with("t", |row| change(row, five(separator)))) == Some(Reason::Repetition)
    };
    assert!(repeats(|row, text| row.turn_thought[1] = Some(text), "\n"));
    assert!(repeats(|row, text| row.turn_arguments[0] = Some(format!("{{\"query\": [\" {text} \"]}}")), " "));
    assert!(repeats(|row, text| row.answer = Some(text), " "));
    assert!(repeats(|row, text| row.turn_raw[1] = Some(format!("<think> {text} </think> <answer> x </answer>")), " "));
    assert!(!repeats(|row, text| row.turn_observation[0] = Some(text), " "));
    // The answer of a turn with raw text is part of that text, and counts once.
    let row = with("t", |row| {
        let answer = [words; 3].join(" ");
        row.turn_raw[1] = Some(format!("<think> x </think> <answer> {answer} </answer>"));
        row.answer = Some(answer);
    });
    assert_eq!(reason(&row), None);
}

#[test]
fn every_threshold_is_a_parameter() {
    let judged = |row: &Row, parameters: QualityParameters| rulings(std::slice::from_ref(row), &parameters)[0].0;
    let defaults = QualityParameters::default;
    let forced = with("t", |row| row.termination = "forced".to_string());
    assert_eq!(judged(&forced, QualityParameters { forced_answers: true, ..defaults() }), None);
    let calculates = with("t", |row| row.turn_tool[0] = some("calculate"));
    let tools = vec!["calculate".to_string()];
    assert_eq!(judged(&calculates, QualityParameters { tools, ..defaults() }), None);
    let marked = with("t", |row| row.turn_thought[0] = some("Observation: the Drava"));
    let observation_marks = vec!["Observation:".to_string()];
    assert_eq!(judged(&marked, defaults()), None);
    assert_eq!(
        judged(&marked, QualityParameters { observation_marks, ..defaults() }),
        Some(Reason::SimulatedObservation)
    );
    assert_eq!(judged(&good("t"), QualityParameters { actions_min: 3, ..defaults() }), Some(Reason::TooFewActions));
    let twice = with("t", |row| row.turn_thought[0] = some("a b c a b c"));
    assert_eq!(judged(&twice, defaults()), None);
    let strict = QualityParameters { ngram_words: 3, ngram_count_max: 1, ..defaults() };
    assert_eq!(judged(&twice, strict), Some(Reason::Repetition));
}

#[test]
fn rows_keep_their_order_over_batches_and_threads() {
    let rows = |batch: usize| -> Vec<Row> {
        (0..batch % 4)
            .map(|row| if (batch + row).is_multiple_of(2) { good("t") } else { with("t", |t| t.answer = None) })
            .collect()
    };
    let batches: Vec<RecordBatch> = (0..40).map(|number| batch(&rows(number))).collect();
    let judge = |threads| judge_all(&batches, &QualityParameters::default(), threads).unwrap();
    let judged = judge(4);
    for (number, rulings) in judged.iter().enumerate() {
        let passed: Vec<bool> = rulings.iter().map(|ruling| ruling.passed()).collect();
        assert_eq!(passed, (0..number % 4).map(|row| (number + row).is_multiple_of(2)).collect::<Vec<_>>());
    }
    assert_eq!(judged, judge(1));
}

#[test]
fn a_batch_that_lacks_a_column_is_refused_by_its_name() {
    let whole = batch(&[good("t")]);
    for (column, error) in [
        ("turn_raw", "a batch of trajectories: it has no column turn_raw"),
        ("event_time", "a batch of trajectories: it has no column event_time"),
    ] {
        let keep: Vec<usize> =
            (0..whole.num_columns()).filter(|index| whole.schema().field(*index).name() != column).collect();
        let refused = judge_all(&[whole.project(&keep).unwrap()], &QualityParameters::default(), 1).unwrap_err();
        assert!(matches!(refused, FunnelError::Batch(_)));
        assert_eq!(refused.to_string(), error);
    }
}

/// The rows of a file of trajectories in the published format.
fn rows_of(text: &str) -> Vec<Row> {
    let row =
        |line: &str| Row { trajectory: parse_trajectory_line(line.as_bytes()).unwrap().trajectory, ..Row::default() };
    text.lines().map(row).collect()
}

/// The published trajectories in the folder that `WEBDANCER_PUBLISHED` names: the project does not ship them.
fn published() -> Option<Vec<Row>> {
    let Some(folder) = std::env::var_os("WEBDANCER_PUBLISHED") else {
        // Past the harness, which shows nothing of a test that passes.
        let line = "skipped: WEBDANCER_PUBLISHED names no folder; what ships with the project is tested\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    };
    let file = std::fs::File::open(std::path::Path::new(&folder).join("sample_traj.jsonl.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    Some(rows_of(&text))
}

/// How many of the rows are valid; and of how many the most frequent 10-gram occurs once, twice, and so on.
fn valid_and_repeating(rows: &[Row]) -> (usize, Vec<usize>) {
    let batch = batch(rows);
    let attempts = Attempts::new(&batch).unwrap();
    let mut inspector = Inspector::default();
    let valid = (0..attempts.len()).filter(|row| inspector.validity(&attempts, *row).passed()).count();
    // How many have a 10-gram more often than so often.
    let mut counts = BTreeMap::new();
    for most in 0..=5 {
        let parameters = QualityParameters { ngram_count_max: most, ..QualityParameters::default() };
        let rejected = rulings(rows, &parameters);
        assert!(rejected.iter().all(|(reason, _)| matches!(reason, None | Some(Reason::Repetition))));
        counts.insert(most, rejected.iter().filter(|(reason, _)| reason.is_some()).count());
    }
    (valid, (1..=5).map(|count| counts[&(count - 1)] - counts[&count]).collect())
}

#[test]
fn the_trajectories_that_ship_with_the_project_are_valid_and_repeat_themselves_as_counted() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo/demo_trajectories.jsonl");
    let rows = rows_of(&std::fs::read_to_string(path).unwrap());
    assert_eq!(rows.len(), 8);
    assert_eq!(valid_and_repeating(&rows), (8, vec![3, 0, 0, 0, 0]));
}

#[test]
fn the_published_trajectories_are_valid_and_repeat_themselves_as_measured() {
    let Some(rows) = published() else { return };
    assert_eq!(rows.len(), 200);
    assert_eq!(valid_and_repeating(&rows), (200, vec![61, 108, 26, 5, 0]));
}

fn anything() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        Just(None),
        any::<String>().prop_map(Some),
        "(</?(think|answer|tool_call|tool_response)>|[ \n{}\"\\\\]|[a-z]{1,3}){0,12}".prop_map(Some),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_row_is_judged(
        lists in prop::collection::vec(prop::collection::vec(anything(), 0..4), 5),
        answer in anything(),
        termination in prop_oneof![Just("answer".to_string()), any::<String>()],
    ) {
        let row = with("t", |row| {
            let [thoughts, tools, arguments, raw, digests] = <[_; 5]>::try_from(lists).unwrap();
            (row.turn_thought, row.turn_tool, row.turn_arguments) = (thoughts, tools, arguments);
            (row.turn_raw, row.turn_observation_digest) = (raw, digests);
            (row.answer, row.termination) = (answer, termination);
        });
        let told = rulings(&[row], &QualityParameters::default());
        prop_assert!(!told[0].1.is_empty());
    }
}

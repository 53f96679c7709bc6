//! What the rules of validity and quality decide.

use std::collections::BTreeMap;
use std::io::Read as _;

use arrow::array::RecordBatch;
use proptest::prelude::*;
use webdancer_agent::published::parse_trajectory_line;
use webdancer_schemas::rows::Trajectory;
use webdancer_synth::funnel::rules::{Inspector, judge_all};
use webdancer_synth::funnel::{Attempts, FunnelError, QualityParameters, Reason};

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

/// The published trajectories, or None with a message where the file is absent.
fn published() -> Option<Vec<Row>> {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/webdancer/sample_traj.jsonl.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let row =
        |line: &str| Row { trajectory: parse_trajectory_line(line.as_bytes()).unwrap().trajectory, ..Row::default() };
    Some(text.lines().map(row).collect())
}

#[test]
fn the_published_trajectories_are_valid_and_repeat_themselves_as_measured() {
    let Some(rows) = published() else { return };
    let batch = batch(&rows);
    let attempts = Attempts::new(&batch).unwrap();
    let mut inspector = Inspector::default();
    let valid = (0..attempts.len()).filter(|row| inspector.validity(&attempts, *row).passed()).count();
    assert_eq!((attempts.len(), valid), (200, 200));
    // How many have a 10-gram more often than so often.
    let mut counts = BTreeMap::new();
    for most in 0..=5 {
        let parameters = QualityParameters { ngram_count_max: most, ..QualityParameters::default() };
        let rejected = rulings(&rows, &parameters);
        assert!(rejected.iter().all(|(reason, _)| matches!(reason, None | Some(Reason::Repetition))));
        counts.insert(most, rejected.iter().filter(|(reason, _)| reason.is_some()).count());
    }
    let exactly: Vec<usize> = (1..=5).map(|count| counts[&(count - 1)] - counts[&count]).collect();
    assert_eq!(exactly, [61, 108, 26, 5, 0]);
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

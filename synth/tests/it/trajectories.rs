//! Trajectories as record batches, with what the lake knows of them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field};
use webdancer_schemas::rows::Trajectory;

/// A trajectory and what is known of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) trajectory: Trajectory,
    pub(crate) gold: Option<String>,
    pub(crate) golds: Option<String>,
    pub(crate) known: [Option<&'static str>; 3],
    pub(crate) errors: [i64; 2],
    pub(crate) opinion: Option<String>,
}

/// One search and then an answer, as it should be.
pub(crate) fn good(id: &str) -> Row {
    let some = |text: &str| Some(text.to_string());
    let trajectory = Trajectory {
        trajectory_id: id.to_string(),
        qa_id: format!("qa-of-{id}"),
        question: some("Which river flows through Maribor?"),
        answer: some("Drava"),
        termination: "answer".to_string(),
        n_turns: 2,
        n_tool_calls: 1,
        turn_thought: vec![some("I search for it."), some("The page says so.")],
        turn_tool: vec![some("search"), None],
        turn_arguments: vec![some("{\"query\": [\"river through Maribor\"]}"), None],
        turn_observation: vec![some("Maribor lies on the Drava."), None],
        turn_observation_digest: vec![some("d1"), None],
        turn_raw: vec![None, None],
        ..Trajectory::default()
    };
    Row { trajectory, gold: some("Drava"), ..Row::default() }
}

/// A good one, changed.
pub(crate) fn with(id: &str, change: impl FnOnce(&mut Trajectory)) -> Row {
    let mut row = good(id);
    change(&mut row.trajectory);
    row
}

/// The batch of these rows. Row n was recorded n seconds after 2026 began.
pub(crate) fn batch(rows: &[Row]) -> RecordBatch {
    let text = |value: &dyn Fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(value).collect::<StringArray>())
    };
    let texts = |value: &dyn Fn(&Trajectory) -> Vec<Option<String>>| -> ArrayRef {
        let element = Arc::new(Field::new("element", DataType::Utf8, true));
        let mut list = ListBuilder::new(StringBuilder::new()).with_field(element);
        rows.iter().for_each(|row| list.append_value(value(&row.trajectory)));
        Arc::new(list.finish())
    };
    let known = |stage: usize| text(&|row| row.known[stage].map(str::to_string));
    let errors =
        |stage: usize| -> ArrayRef { Arc::new(rows.iter().map(|row| Some(row.errors[stage])).collect::<Int64Array>()) };
    let times = (0..rows.len() as i64).map(|row| Some(1_767_225_600_000_000 + row * 1_000_000));
    let times = times.collect::<TimestampMicrosecondArray>().with_timezone("UTC");
    let columns: [(&str, ArrayRef); 20] = [
        ("trajectory_id", text(&|row| Some(row.trajectory.trajectory_id.clone()))),
        ("qa_id", text(&|row| Some(row.trajectory.qa_id.clone()))),
        ("event_time", Arc::new(times)),
        ("termination", text(&|row| Some(row.trajectory.termination.clone()))),
        ("answer", text(&|row| row.trajectory.answer.clone())),
        ("question", text(&|row| row.trajectory.question.clone())),
        ("turn_thought", texts(&|row| row.turn_thought.clone())),
        ("turn_tool", texts(&|row| row.turn_tool.clone())),
        ("turn_arguments", texts(&|row| row.turn_arguments.clone())),
        ("turn_raw", texts(&|row| row.turn_raw.clone())),
        ("turn_observation", texts(&|row| row.turn_observation.clone())),
        ("turn_observation_digest", texts(&|row| row.turn_observation_digest.clone())),
        ("gold", text(&|row| row.gold.clone())),
        ("golds", text(&|row| row.golds.clone())),
        ("validity", known(0)),
        ("correctness", known(1)),
        ("quality", known(2)),
        ("correctness_errors", errors(0)),
        ("quality_errors", errors(1)),
        ("opinion", text(&|row| row.opinion.clone())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

//! Batches of trajectories and verdicts to rewards.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use webdancer_agent::reward::{RewardParameters, Withheld};
use webdancer_schemas::event::Event;
use webdancer_schemas::rows::Reward;
use webdancer_synth::funnel::{FunnelError, Rewarded, Run, reward_all, reward_digest};

use crate::trajectories::{Row, batch, good, with};

fn run() -> Run {
    Run { id: "run-1".to_string(), start: "2026-02-01T00:00:00Z".parse().unwrap() }
}

/// The rewards of rows with these verdicts, by judgments `j0`, `j1`, ….
fn rewarded(rows: &[(Row, Option<&str>)], parameters: &RewardParameters) -> Rewarded {
    let text = |values: Vec<Option<String>>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let batch = batch(&rows.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>());
    let verdicts = rows.iter().map(|(_, verdict)| verdict.map(str::to_string)).collect();
    let judgments = rows.iter().enumerate().map(|(row, (_, verdict))| verdict.map(|_| format!("j{row}"))).collect();
    let groups = rows.iter().map(|_| Some("run/q/7".to_string())).collect();
    let mut fields: Vec<(String, ArrayRef)> =
        batch.schema().fields().iter().zip(batch.columns()).map(|(f, c)| (f.name().clone(), c.clone())).collect();
    fields.push(("verdict".to_string(), text(verdicts)));
    fields.push(("judgment_id".to_string(), text(judgments)));
    fields.push(("group_id".to_string(), text(groups)));
    fields.push(("policy_version".to_string(), Arc::new(Int64Array::from(vec![Some(7); rows.len()]))));
    let batch = RecordBatch::try_from_iter_with_nullable(
        fields.iter().map(|(name, column)| (name.as_str(), column.clone(), true)),
    );
    reward_all(&[batch.unwrap()], parameters, &run()).unwrap()
}

fn reward(event: &Event) -> Reward {
    event.kind().check_row(event.data.get()).unwrap();
    serde_json::from_str(event.data.get()).unwrap()
}

#[test]
fn each_part_is_stored_with_what_it_was_computed_by() {
    let rows = [(good("t"), Some("pass")), (with("u", |row| row.turn_thought[0] = None), Some("pass"))];
    let rewarded = rewarded(&rows, &RewardParameters::default());
    let [whole, loose] = rewarded.events.as_slice() else { panic!("{} events", rewarded.events.len()) };
    assert_eq!((whole.envelope.parents.as_slice(), whole.key()), (&["t".to_string(), "j0".to_string()][..], "t"));
    let (whole, loose) = (reward(whole), reward(loose));
    assert_eq!((whole.format, whole.answer, whole.reward), (Some(1.0), Some(1.0), 1.0));
    assert_eq!((loose.format, loose.answer, loose.reward), (Some(0.0), Some(1.0), 0.9));
    assert_eq!((whole.group_id.as_deref(), whole.policy_version), (Some("run/q/7"), Some(7)));
    let criteria = loose.criteria.unwrap().0;
    assert_eq!(criteria["digest"], reward_digest(&RewardParameters::default()));
    assert_eq!(
        (criteria["judgment"].as_str(), criteria["fault"].as_str()),
        (Some("j1"), Some("turn 0: there is no thought"))
    );
    assert_eq!(criteria["parameters"]["answer_weight"], 0.9);
    assert!((rewarded.sum - 1.9).abs() < 1e-12);
}

#[test]
fn a_judges_error_gives_no_reward_and_is_counted() {
    let silent = with("s", |row| (row.answer, row.termination) = (None, "calls".to_string()));
    let failed = with("f", |row| row.termination = "error".to_string());
    let rows = [
        (good("a"), Some("error")),
        (good("b"), None),
        (failed, Some("pass")),
        (silent, None),
        (good("c"), Some("fail")),
    ];
    let rewarded = rewarded(&rows, &RewardParameters::default());
    let given: Vec<_> = rewarded.events.iter().map(reward).map(|row| (row.trajectory_id, row.reward)).collect();
    assert_eq!(given, [("s".to_string(), 0.0), ("c".to_string(), 0.1)]);
    let withheld: Vec<_> = rewarded.withheld.into_iter().collect();
    assert_eq!(withheld, [(Withheld::AttemptFailed, 1), (Withheld::JudgeFailed, 1), (Withheld::NotJudged, 1)]);
}

#[test]
fn a_judgment_gives_one_reward_and_another_one_another() {
    let id = |verdicts: &[(Row, Option<&str>)], parameters| rewarded(verdicts, parameters).events.last().unwrap().id();
    let defaults = RewardParameters::default();
    let first = id(&[(good("t"), Some("pass"))], &defaults);
    assert_eq!(id(&[(good("t"), Some("pass"))], &defaults), first);
    assert_ne!(id(&[(good("t"), Some("pass"))], &RewardParameters { format_weight: 0.2, ..defaults.clone() }), first);
    let by_another = rewarded(&[(good("x"), Some("fail")), (good("t"), Some("pass"))], &defaults);
    assert_ne!(by_another.events[1].id(), first, "judgment j1 rather than j0");
}

#[test]
fn a_batch_without_verdicts_is_refused() {
    let refused = reward_all(&[batch(&[good("t")])], &RewardParameters::default(), &run()).unwrap_err();
    assert!(matches!(refused, FunnelError::Batch(_)), "{refused}");
}

//! Runs that do not go well: judges that fail, questions that nobody can answer, a policy that gets no better.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use webdancer_tests::stub_model::{Answer, Asked, StubModel};
use webdancer_train::checkpoint;

use crate::dapo_runs::{DAPO, SAMPLED, WORLD, digest, finish, metric, of_kind, start, texts};
use crate::pins;

/// What a judge says that can read.
fn verdict(asked: &Asked) -> Answer {
    let case: Value = serde_json::from_str(asked.last_message()).unwrap();
    let [given, gold] =
        ["given_answer", "reference_answer"].map(|key| case[key].as_str().unwrap().trim().to_lowercase());
    Answer::says(if given == gold { "Correct" } else { "Incorrect" })
}

/// The run of the other tests, judged by a model.
fn judged_by(judge: &StubModel, updates: u32) -> String {
    let judge = format!("[judge]\nkind = \"model\"\nurl = \"{}\"\nmodel = \"j\"\nattempts_max = 1\n", judge.url());
    DAPO.replace("steps_max = 10", &format!("steps_max = {updates}"))
        .replace("[rollouts]", &format!("{judge}[rollouts]"))
}

fn id(data: &Value) -> &str {
    data["trajectory_id"].as_str().unwrap()
}

/// (R − mean) / (deviation + 1e-6) with the unbiased deviation; none where all or none are correct, or fewer than two are left.
fn advantages(group: &[&Value]) -> Option<Vec<f64>> {
    let number = |reward: &&Value, name: &str| reward[name].as_f64().unwrap();
    let correct = group.iter().filter(|reward| number(reward, "answer") == 1.0).count();
    if correct == 0 || correct == group.len() {
        return None;
    }
    let rewards: Vec<f64> = group.iter().map(|reward| number(reward, "reward")).collect();
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    let variance = rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / (rewards.len() as f64 - 1.0);
    Some(rewards.iter().map(|reward| (reward - mean) / (variance.sqrt() + 1e-6)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_endpoint_does_not_judge_leaves_its_group_and_the_rest_is_learnt_from() {
    let judge = StubModel::scripted(|asked, number| match number % 5 {
        4 => Answer::status(500),
        _ => verdict(asked),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!("{}[loss]\nkl = 0.05\n", judged_by(&judge, 6));
    let (events, said, code) = finish(start(&folder.path().join("out"), &config, &SAMPLED));
    assert_eq!(code, 0, "{said}");
    // Beside it, the policy is held to what it began with.
    assert!(metric(&events, "reference_kl").values().any(|divergence| *divergence > 0.0));

    let verdicts: HashMap<&str, &str> =
        of_kind(&events, "judgment").into_iter().map(|data| (id(data), data["verdict"].as_str().unwrap())).collect();
    let rewarded: HashSet<&str> = of_kind(&events, "reward").into_iter().map(id).collect();
    let failed = verdicts.values().filter(|verdict| **verdict == "error").count();
    assert!(failed > 5 && verdicts.len() > 3 * failed, "{failed} of {}", verdicts.len());
    // No reward is not a reward of 0: it is withheld where the judge failed, and only there.
    for trajectory in of_kind(&events, "trajectory").into_iter().map(id) {
        assert_eq!(rewarded.contains(trajectory), verdicts.get(trajectory) != Some(&"error"), "{trajectory}");
    }
    let mut groups: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for reward in of_kind(&events, "reward") {
        if let Some(group) = reward["group_id"].as_str() {
            groups.entry(group).or_default().push(reward);
        }
    }
    let mut smaller = 0;
    for (name, group) in &groups {
        let told: Vec<Option<f64>> = group.iter().map(|reward| reward["advantage"].as_f64()).collect();
        match advantages(group) {
            None => assert!(told.iter().all(Option::is_none), "{name}: {group:?}"),
            Some(expected) => {
                let close = |(told, expected): (&Option<f64>, &f64)| told.is_some_and(|a| (a - expected).abs() < 1e-9);
                assert!(told.iter().zip(&expected).all(close), "{name}: {told:?}, not {expected:?}");
                smaller += usize::from(group.len() < 4);
            }
        }
    }
    assert!(smaller > 0, "no group was learnt from that an episode had left");
    assert!(metric(&events, "withheld.judge_failed").values().sum::<f64>() > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_judge_is_down_nothing_is_told_or_learnt_and_when_it_is_back_the_run_goes_on() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let judge = StubModel::scripted(move |asked, _| match is_down.load(Ordering::Relaxed) {
        true => Answer::status(500),
        false => verdict(asked),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let validated = judged_by(&judge, 2);
    let unvalidated = validated.replace("share = 0.2", "share = 0.0");
    for (name, config, line) in [
        ("validated", &validated, "error: validation at round 0: no answer could be judged: the judge failed; "),
        ("unvalidated", &unvalidated, "error: round 1: no answer could be judged: the judge failed; "),
    ] {
        down.store(true, Ordering::Relaxed);
        let out = folder.path().join(name);
        let (events, said, code) = finish(start(&out, config, &SAMPLED));
        let last = said.lines().last().unwrap();
        assert_eq!((events.len(), code), (0, 1), "{said}");
        assert!(last.starts_with(line), "{last}");
        assert!(last.ends_with("see to the judge and the tools, then go on with the run"), "{last}");

        down.store(false, Ordering::Relaxed);
        let (events, said, code) = finish(start(&out, config, &[&SAMPLED[..], &["--resume"]].concat()));
        assert_eq!(code, 0, "{name}: {said}");
        assert_eq!(metric(&events, "updates").values().copied().fold(0.0, f64::max), 2.0, "{name}");
        assert!(of_kind(&events, "judgment").iter().all(|data| data["verdict"] != "error"), "{name}");
        let ids: HashSet<String> = events.iter().map(|event| event["id"].to_string()).collect();
        assert_eq!(ids.len(), events.len(), "{name}: an event was told twice");
    }
}

#[test]
fn a_policy_that_gets_no_better_is_not_trained_on_and_the_first_best_checkpoint_is_the_one_to_use() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // Steps too small to change what is sampled: each validation comes to the same.
    let config = DAPO.replace("lr = 1e-3", "lr = 1e-12").replace("every_rounds = 2", "every_rounds = 1");
    let (events, said, code) = finish(start(&out, &format!("{config}[early_stop]\npatience = 2\n"), &SAMPLED));
    assert_eq!(code, 0, "{said}");
    let validated = metric(&events, "validation_accuracy");
    assert_eq!(validated.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    assert!(validated[&0] == validated[&1] && validated[&1] == validated[&2], "{validated:?}");
    assert_eq!(metric(&events, "best_step").into_values().collect::<Vec<_>>(), [0.0]);
    assert!(
        said.contains("it ends early: the validation accuracy has not become higher 2 times (early_stop.patience)")
    );
    let kept = out.join("checkpoints/step-00000000");
    assert!(said.ends_with(&format!("the checkpoint to use is {}\n", kept.display())), "{said}");
    assert!(checkpoint::all(&out.join("checkpoints")).unwrap().contains(&kept));
}

#[test]
fn from_questions_that_nobody_can_answer_nothing_is_learnt_and_the_weights_stay() {
    let folder = tempfile::tempdir().unwrap();
    let column = |of: fn(usize) -> String| (0..20).map(of).collect::<Vec<_>>();
    let riddles = texts(&[
        ("qa_id", column(|number| format!("q{number}"))),
        ("question", column(|number| format!("Is it so, number {number}?"))),
        ("answer", column(|_| "Chimborazo".to_string())),
    ]);
    let place = folder.path().join("riddles");
    fs::create_dir(&place).unwrap();
    pins::pin(&place, &[riddles]);
    let out = folder.path().join("out");
    let config =
        DAPO.replace("share = 0.2", "share = 0.0").replace("refills_max = 2", "refills_max = 0\nempty_batches_max = 2");
    let (events, said, code) =
        finish(start(&out, &config, &["--pin", place.to_str().unwrap(), "--pages", "pages/manifest.json"]));
    assert_eq!(code, 0, "{said}");
    for (name, value) in [("discarded_groups", 1.0), ("groups.all_wrong", 1.0), ("batch_short", 1.0), ("updates", 0.0)]
    {
        assert_eq!(metric(&events, name), BTreeMap::from([(1, value), (2, value)]), "{name}");
    }
    assert!(metric(&events, "loss").is_empty());
    assert!(of_kind(&events, "reward").iter().all(|reward| reward["advantage"].is_null()));
    assert!(said.contains("it ends early: no group of the last 2 rounds had both correct and wrong answers"), "{said}");
    assert_eq!(digest(&out), checkpoint::verify(&WORLD.checkpoint).unwrap().digest);
}

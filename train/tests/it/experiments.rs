//! Experiments through the program itself: arms as its children, of which some fail, are stopped, and go on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use webdancer_train::experiment::{ArmResult, Results, StageKind, State};
use webdancer_train::score::mean_pass_at_k;

use crate::dapo_runs::{WORLD, send};

const PLAN: &str = r#"
title = "Yes or no"
question = "Does DAPO say yes more often than what it begins with?"
seeds = 2
metrics = ["pass_at_1", "pass_at_2", "format"]

[sft]
pins = ["trajectories"]
[sft.set]
preset = "demo"
deterministic = true
model.scratch = { init_std = 0.1, hidden_size = 32, layers = 2, heads = 2, kv_heads = 2, head_dim = 16, intermediate_size = 64 }
batch = { trajectories = 16, tokens = 2048 }
optimizer = { lr = 1e-2, weight_decay = 0.0 }
schedule = { epochs = 25, warmup_steps = 4 }
validation = { share = 0.0 }

[dapo]
pins = ["questions"]
pages = "pages"
[dapo.set]
preset = "demo"
deterministic = true
rollouts = { episodes_max = 6, context_tokens_max = 1024, agent = { calls_max = 3, turn_tokens_max = 48, malformed_max = 1 } }
groups = { size = 4, prompts = 3, refills_max = 0 }
batch = { groups = 2, tokens = 1024 }
schedule = { steps_max = 2 }

[evaluate]
pins = ["questions"]
pages = "pages"
[evaluate.set]
preset = "demo"
deterministic = true
questions_max = 7
attempts = 2
pass_at = [1, 2]
rollouts = { context_tokens_max = 1024, agent = { calls_max = 3, turn_tokens_max = 48, malformed_max = 1 } }

[[arms]]
name = "base"
stages = [{ run = "sft" }, { run = "evaluate", from = "first" }]
[[arms]]
name = "sft"
stages = [{ run = "sft" }, { run = "evaluate" }]
[[arms]]
name = "dapo"
stages = [{ run = "sft" }, { run = "dapo" }, { run = "evaluate" }]
[[arms]]
name = "broken"
stages = [{ run = "sft", set = { model.folder = "nowhere" } }, { run = "evaluate" }]
"#;

fn experiment(folder: &Path, plan: &str, more: &[&str]) -> Output {
    command(folder, plan, more).output().unwrap()
}

fn command(folder: &Path, plan: &str, more: &[&str]) -> Command {
    let file = folder.join("x.toml");
    fs::write(&file, plan).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_webdancer-train"));
    command
        .arg("experiment")
        .arg(&file)
        .arg("--pins")
        .arg(WORLD.folder.path())
        .arg("--out")
        .arg(folder.join("out"))
        .args(more)
        .current_dir(folder);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn results(folder: &Path) -> Results {
    serde_json::from_slice(&fs::read(folder.join("out/x/results.json")).unwrap()).unwrap()
}

fn events(folder: &Path, id: &str) -> String {
    fs::read_to_string(folder.join("out/stages").join(id).join("events.ndjson")).unwrap()
}

#[test]
fn arms_are_compared_though_one_fails_and_what_is_done_is_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let output = experiment(folder.path(), PLAN, &["--jobs", "2"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let found = results(folder.path());
    let ends: Vec<_> = found.arms.iter().map(|arm| (arm.arm.as_str(), arm.seed, arm.state)).collect();
    let of_seed = |seed| {
        [("base", State::Done), ("sft", State::Done), ("dapo", State::Done), ("broken", State::Failed)]
            .map(|(arm, state)| (arm, seed, state))
    };
    assert_eq!(ends, [of_seed(1), of_seed(2)].concat(), "{}", said(&output));
    let line = "failed in stage 1 (sft): nowhere/config.json: No such file or directory (os error 2)";
    assert_eq!(found.arms[3].reason.as_deref(), Some(line));

    // Of a seed: what the arms share once, and the training that failed.
    assert_eq!(found.stages.len(), 2 * (1 + 2 + 2 + 1));
    let shared: BTreeSet<&str> = found.arms[..3].iter().map(|arm| arm.stages[0].as_str()).collect();
    assert_eq!(shared.len(), 1);
    for arm in found.arms.iter().filter(|arm| arm.state == State::Done) {
        let last = found.stages.iter().find(|stage| Some(&stage.id) == arm.stages.last()).unwrap();
        assert_eq!((last.run, last.questions.len()), (StageKind::Evaluate, 7));
        for k in [1, 2] {
            assert_eq!(arm.metrics.get(&format!("pass_at_{k}")).copied(), mean_pass_at_k(&last.questions, k));
        }
        assert!(last.config.contains(&format!("seed = {}", arm.seed)), "{}", last.config);
    }
    // The format is learnt by so small a model, too.
    let format = |arm: &ArmResult| arm.metrics["format"];
    assert_eq!(format(&found.arms[0]), 0.0);
    assert!(format(&found.arms[1]) > 0.5, "{:?}", found.arms[1].metrics);
    let markdown = fs::read_to_string(folder.path().join("out/x/results.md")).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{markdown}\n"));
    assert!(
        markdown.starts_with("# Yes or no\n") && markdown.contains("\n| broken | 0 of 2 | – | – | – | – |\n"),
        "{markdown}"
    );
    let curves = fs::read_to_string(folder.path().join("out/x/curves.csv")).unwrap();
    assert!(curves.contains("\ndapo,2,2,dapo,accuracy,1,"), "{curves}");

    let told: Vec<String> =
        found.arms[..3].iter().flat_map(|arm| &arm.stages).map(|id| events(folder.path(), id)).collect();
    let again = experiment(folder.path(), PLAN, &["--jobs", "2", "--json"]);
    let second: Results = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(second.stages.len(), found.stages.len());
    let done = |results: &Results| -> Vec<_> {
        results.stages.iter().filter(|stage| stage.state == State::Done).cloned().collect()
    };
    assert_eq!(done(&second), done(&found));
    let said = said(&again);
    assert_eq!((said.matches(" was finished before\n").count(), said.matches(" begins\n").count()), (10, 2), "{said}");
    let told_now: Vec<String> =
        second.arms[..3].iter().flat_map(|arm| &arm.stages).map(|id| events(folder.path(), id)).collect();
    assert_eq!(told_now, told);
}

#[test]
fn what_is_interrupted_is_told_as_incomplete_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let endless = PLAN.replace("epochs = 25", "epochs = 100000");
    let only = ["--only", "sft", "--seeds", "1"];
    let mut steps = 0;
    for _ in 0..2 {
        let mut child =
            command(folder.path(), &endless, &only).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        wait_for(&folder.path().join("out/stages"), steps + 2, &mut child);
        send("INT", &child);
        assert_eq!(child.wait().unwrap().code(), Some(3));
        let found = results(folder.path());
        let ([arm], [stage]) = (&found.arms[..], &found.stages[..]) else { panic!("{found:?}") };
        let told = stage.curves["loss"].len();
        assert!(told > steps, "{told} steps, {steps} before");
        steps = told;
        let reason = format!("stopped in stage 1 (sft), behind step {told}");
        assert_eq!((arm.state, arm.reason.as_ref()), (State::Stopped, Some(&reason)));
        let events = events(folder.path(), &stage.id);
        let ids: BTreeSet<String> = events
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].to_string())
            .collect();
        assert_eq!(ids.len(), events.lines().count(), "an event was told twice");
    }
    // No time at all.
    let output = experiment(folder.path(), &endless, &[&only[..], &["--minutes", "0"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let reason = results(folder.path()).arms[0].reason.clone().unwrap();
    assert_eq!(reason, "not begun: stage 1 (sft)");
}

/// Returns when the one stage there is has told the loss of so many steps.
fn wait_for(stages: &Path, steps: usize, child: &mut Child) {
    loop {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        let folders = fs::read_dir(stages).into_iter().flatten().map(|entry| entry.unwrap().path());
        let told = folders.filter_map(|folder| fs::read_to_string(folder.join("events.ndjson")).ok());
        if told.map(|events| events.matches("\"name\":\"loss\"").count()).sum::<usize>() >= steps {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_mistake_is_one_line_before_anything_is_begun() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, line) in [
        ("steps_max = 2", "step_max = 2", "x.toml: arm dapo, stage 2 (dapo): schedule.step_max: unknown field"),
        ("[\"trajectories\"]", "[\"lost\"]", "lost: No such file or directory (os error 2)"),
    ] {
        let output = experiment(folder.path(), &PLAN.replace(from, to), &[]);
        let said = said(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.starts_with("error: ") && said.contains(line), "{said}");
    }
    assert!(!folder.path().join("out").exists());
}

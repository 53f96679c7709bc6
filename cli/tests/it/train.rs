//! `train` with trainers of a few lines: whatever a trainer does, the run's state says it, and no event is doubled.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{start, text, webdancer};

/// What stub trainers begin with: their arguments, and a function that tells of the loss at a step.
const HEAD: &str = r#"#!/bin/sh
kind=$1; shift
resume=no
while [ $# -gt 0 ]; do
  case $1 in
    --run) run=$2; shift 2 ;;
    --started) started=$2; shift 2 ;;
    --pin) pin=$2; shift 2 ;;
    --config) config=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --pages) pages=$2; shift 2 ;;
    --init) init=$2; shift 2 ;;
    --replay) replay=$2; shift 2 ;;
    --date) date=$2; shift 2 ;;
    --resume) resume=yes; shift ;;
    *) echo "unknown argument $1" >&2; exit 64 ;;
  esac
done
event() { echo "{\"specversion\":\"1.0\",\"id\":\"$run-$2\",\"source\":\"stub\",\"type\":\"webdancer.$1.v1\",\"runid\":\"$run\",\"data\":$3}"; }
loss() { event metric "$1" "{\"name\":\"loss\",\"step\":$1,\"value\":0.$1}"; }
"#;

/// A lake `l` with a pin `train` of eight trajectories, a trainer and a configuration for it.
fn lake(trainer: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo/demo_trajectories.jsonl");
    ok(folder.path(), &["import", "trajectories", &file.display().to_string()]);
    ok(folder.path(), &["pin", "create", "train", "--sql", "SELECT * FROM trajectories"]);
    let program = folder.path().join("trainer");
    std::fs::write(&program, format!("{HEAD}{trainer}")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.path().join("own.toml"), "seed = 7\nsteps = 3\n").unwrap();
    folder
}

fn call(folder: &Path, arguments: &[&str]) -> Output {
    webdancer(folder, &[&["--lake", "l"], arguments].concat(), b"")
}

fn ok(folder: &Path, arguments: &[&str]) -> String {
    let output = call(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

const TRAIN: [&str; 8] = ["--json", "train", "sft", "--pin", "train", "--config", "own.toml", "--trainer=./trainer"];

/// A run of the trainer: exit code, summary, last line of standard error.
fn train(folder: &Path, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = call(folder, arguments);
    let message = text(&output.stderr).lines().last().unwrap_or_default().to_string();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), message)
}

fn sql(folder: &Path, query: &str) -> Vec<String> {
    ok(folder, &["sql", query]).lines().skip(1).map(str::to_string).collect()
}

const STATES: &str = "SELECT state, error IS NULL AS well FROM runs WHERE kind = 'sft' ORDER BY event_time, event_id";

#[test]
fn what_a_trainer_tells_is_appended_and_the_run_recorded() {
    let folder = lake(
        r#"[ "$kind" = sft ] && [ -f "$pin" ] && [ -d "$out" ] && cmp -s "$config" own.toml || exit 65
loss 1; loss 2
event checkpoint c2 '{"digest":"abc","step":2,"uri":"file:///c2"}'
"#,
    );
    let folder = folder.path();
    let (code, summary, message) = train(folder, &TRAIN);
    assert_eq!((code, &summary["state"], &summary["events"]), (Some(0), &"finished".into(), &3.into()), "{message}");
    assert_eq!(summary["checkpoints"][0]["uri"], "file:///c2");
    let run = summary["run_id"].as_str().unwrap();
    assert!(summary["folder"].as_str().unwrap().ends_with(&format!("l/runs/{run}")), "{summary}");
    assert_eq!(sql(folder, STATES), ["started,true", "finished,true"]);
    assert_eq!(sql(folder, "SELECT step, value FROM metrics ORDER BY step"), ["1,0.1", "2,0.2"]);
    let of_run = format!(
        "SELECT config->'config'->>'steps' AS steps, seed, pin_id = (SELECT max(pin_id) FROM pins) AS of_pin, \
         artifacts[1]['digest'] AS digest FROM run_state WHERE run_id = '{run}'"
    );
    assert_eq!(sql(folder, &of_run), ["3,7,true,abc"]);
}

#[test]
fn a_run_whose_trainer_died_has_failed_and_goes_on_without_telling_anything_twice() {
    let folder = lake(
        r#"loss 1
if [ $resume = no ]; then loss 2; echo "out of memory, key is $STUB_API_KEY" >&2; exit 3; fi
loss 2; loss 3
"#,
    );
    let folder = folder.path();
    let mut first = Command::new(env!("CARGO_BIN_EXE_webdancer"));
    first.args(["--lake", "l"]).args(TRAIN).current_dir(folder).env("STUB_API_KEY", "very-secret-1");
    let output = first.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["error"], "the trainer ended with exit code 3: out of memory, key is ***");
    let run = summary["run_id"].as_str().unwrap();
    let message = text(&output.stderr).lines().last().unwrap().to_string();
    assert!(message.ends_with(&format!("; `webdancer train sft --resume {run}` goes on")), "{message}");
    assert_eq!(sql(folder, STATES), ["started,true", "failed,false"]);
    assert_eq!(sql(folder, "SELECT count(*) AS n FROM runs WHERE error LIKE '%very-secret%'"), ["0"]);

    let (code, summary, message) = train(folder, &["--json", "train", "sft", "--resume", run]);
    assert_eq!((code, &summary["state"], &summary["events"]), (Some(0), &"finished".into(), &3.into()), "{message}");
    assert_eq!(sql(folder, STATES), ["started,true", "failed,false", "started,true", "finished,true"]);
    assert_eq!(
        sql(folder, "SELECT step, count(*) AS n FROM metrics GROUP BY step ORDER BY step"),
        ["1,1", "2,1", "3,1"]
    );
}

#[test]
fn a_run_goes_on_with_fewer_tokens_at_a_time_and_elsewhere_and_keeps_to_it() {
    let folder = lake("cp \"$config\" \"$out/seen-$(ls \"$out\" | wc -l)\"; exit 3\n");
    let folder = folder.path();
    std::fs::write(folder.join("own.toml"), "preset = 'demo'\n").unwrap();
    let (_, summary, _) = train(folder, &TRAIN);
    let run = summary["run_id"].as_str().unwrap();
    let refit = ["--batch-tokens", "5000", "--activation-checkpointing", "--device", "cuda:1"];
    train(folder, &[&["train", "sft", "--resume", run][..], &refit].concat());
    let (_, _, message) = train(folder, &["train", "sft", "--resume", run]);
    assert!(message.contains("exit code 3"), "{message}");
    let mut seen: Vec<String> = std::fs::read_dir(folder.join("l/runs").join(run))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("seen"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    seen.sort();
    let refitted =
        "device = \"cuda:1\"\npreset = \"demo\"\n\n[batch]\nactivation_checkpointing = true\ntokens = 5000\n";
    assert_eq!(seen, [refitted, refitted, "preset = 'demo'\n"]);
    for (arguments, part) in [
        (&["--resume", run, "--device", "tpu"][..], "device: must be auto, cpu, cuda or cuda:N"),
        (&["--resume", run, "--batch-tokens", "3"], "batch.tokens: must be at least 16"),
        (&["--pin", "train", "--config", "own.toml", "--batch-tokens", "99"], "cannot be used with"),
        (&["--resume", run, "--deterministic"], "cannot be used with"),
        (&[&TRAIN[3..], &["--deterministic"]].concat(), "cannot be used with"),
    ] {
        let output = call(folder, &[&["train", "sft"], arguments].concat());
        assert!(output.status.code() == Some(2) && text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
}

#[test]
fn a_trainer_that_is_killed_says_so_by_its_signal() {
    let folder = lake("loss 1; kill -9 $$\n");
    let (code, summary, _) = train(folder.path(), &TRAIN);
    assert_eq!((code, &summary["events"]), (Some(1), &1.into()));
    assert_eq!(summary["error"], "the trainer ended with signal 9 (killed: by hand, or for want of memory)");
}

#[test]
fn lines_that_are_no_events_of_the_run_fail_it_and_the_others_are_kept() {
    let folder = lake(
        r#"loss 1; echo step 2 of 3; event page p '{}'
run=other; loss 4
"#,
    );
    let output = call(folder.path(), &TRAIN);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &summary["state"], &summary["events"]), (Some(1), &"failed".into(), &1.into()));
    let error = summary["error"].as_str().unwrap();
    assert!(
        error.starts_with(
            "the trainer wrote 3 lines on standard output that are no events of it; line 2: is no event: not one JSON object"
        ),
        "{error}"
    );
    let messages = text(&output.stderr);
    assert!(messages.contains("standard output, line 3: is an event of kind page, which is not a trainer's to tell"));
    assert!(messages.contains("standard output, line 4: is an event of another run than "));
}

#[test]
fn an_interrupt_is_passed_on_and_the_run_is_stopped() {
    let folder = lake("trap 'loss 2; exit 130' INT\nloss 1\n: > \"$out/ready\"\nwhile :; do sleep 0.05; done\n");
    let folder = folder.path();
    let child = start(folder, &[&["--lake", "l"], TRAIN.as_slice()].concat());
    let deadline = Instant::now() + Duration::from_secs(60);
    let ready = || {
        std::fs::read_dir(folder.join("l/runs"))
            .into_iter()
            .flatten()
            .flatten()
            .find(|run| run.path().join("ready").exists())
    };
    while ready().is_none() {
        assert!(Instant::now() < deadline, "the trainer did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let run = ready().unwrap().file_name().into_string().unwrap();
    // While it works, no other process may.
    let (code, _, message) = train(folder, &["train", "sft", "--resume", &run]);
    assert!(code == Some(4) && message.contains("another process works in "), "{code:?}: {message}");
    let killed = Command::new("sh").args(["-c", "kill -INT $0", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert_eq!(sql(folder, STATES), ["started,true", "stopped,false"]);
    assert_eq!(sql(folder, "SELECT step FROM metrics ORDER BY step"), ["1", "2"]);
}

#[test]
fn what_cannot_be_started_is_one_line() {
    let folder = lake("");
    let folder = folder.path();
    std::fs::write(folder.join("bad.toml"), "[optimizer]\nlr = 2\n").unwrap();
    std::fs::write(folder.join("gpu.toml"), "preset = 'demo'\ndevice = 'cuda'\n").unwrap();
    std::fs::create_dir(folder.join("used")).unwrap();
    std::fs::write(folder.join("used/config.toml"), "").unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["train", "sft", "--pin", "train", "--config", "bad.toml"],
            2,
            "bad.toml: model: give folder, or a [model.scratch]",
        ),
        (&["train", "sft", "--pin", "train", "--config", "no.toml"], 2, "reading no.toml: No such file"),
        (
            &["train", "sft", "--pin", "train", "--config", "gpu.toml", "--deterministic"],
            2,
            "gpu.toml: deterministic: must be false where device is a GPU",
        ),
        (
            &["train", "sft", "--pin", "other", "--config", "own.toml", "--trainer", "./trainer"],
            1,
            "there is no pin \"other\"",
        ),
        (
            &["train", "sft", "--pin", "train", "--config", "own.toml", "--out", "s3://bucket/runs"],
            2,
            "--out s3://bucket/runs: give a folder of this machine",
        ),
        (&["train", "sft", "--pin", "train"], 2, "give --pin and --config, or --resume"),
        (
            &["train", "dapo", "--pin", "train", "--web", "closed:p", "--init", "c", "--trainer", "./trainer"],
            2,
            "give --pin and --config, or --resume",
        ),
        (&["train", "sft", "--resume", "x"], 2, "\"x\" is no id of a run"),
        (&["train", "sft", "--resume", "0190a6b2-7c3d-7e4f-8a1b-2c3d4e5f6071"], 2, "there is no sft run 0190a6b2"),
        (
            &["train", "sft", "--pin", "train", "--config", "own.toml", "--trainer", "./trainer", "--out", "used"],
            2,
            "used holds a run already: give another --out",
        ),
        (&["train", "sft", "--pin", "train", "--config", "own.toml", "--trainer", "./no"], 1, "/no: No such file"),
    ];
    for (arguments, code, part) in cases {
        let output = call(folder, arguments);
        let message = text(&output.stderr);
        let last = message.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {message}");
        assert!(last.contains(part), "{arguments:?}: {message}");
    }
}

/// What passes for pages: the trainer is a stub, and looks at nothing but the manifest.
const PAGES: &str = "SELECT trajectory_id AS url, question AS text FROM trajectories";

#[test]
fn a_trainer_that_tries_is_given_questions_pages_and_a_checkpoint() {
    let folder = lake(
        r#"[ "$kind" = dapo ] && [ -f "$pin" ] && [ -z "$replay" ] && [ "$init" = "$PWD/own" ] || exit 65
grep -q '"name": *"pages"' "$pages" || exit 66
event trajectory t1 '{"trajectory_id":"t1","qa_id":"q1","attempt":0,"termination":"answer","n_turns":1,"n_tool_calls":0}'
event judgment j1 '{"trajectory_id":"t1","stage":"correctness","verdict":"pass","rule_version":1}'
event reward r1 '{"trajectory_id":"t1","group_id":"g","reward":1.0}'
event checkpoint c1 '{"digest":"abc","step":1,"uri":"file:///c1"}'
if [ $resume = no ]; then kill -9 $$; fi
event checkpoint c2 '{"digest":"def","step":2,"uri":"file:///c2"}'
event metric best '{"name":"best_step","step":2,"value":1}'
"#,
    );
    let folder = folder.path();
    std::fs::create_dir(folder.join("own")).unwrap();
    ok(folder, &["pin", "create", "pages", "--sql", PAGES]);
    let dapo = ["--json", "train", "dapo", "--pin", "train", "--config", "own.toml", "--trainer=./trainer"];
    let (code, summary, message) = train(folder, &[&dapo[..], &["--web", "closed:pages", "--init", "own"]].concat());
    assert_eq!((code, &summary["state"], &summary["kind"]), (Some(1), &"failed".into(), &"dapo".into()), "{message}");
    let run = summary["run_id"].as_str().unwrap();
    let killed = "the trainer ended with signal 9 (killed: by hand, or for want of memory)";
    assert!(message.ends_with(&format!("{killed}; `webdancer train dapo --resume {run}` goes on")), "{message}");
    let (code, summary, message) = train(folder, &["--json", "train", "dapo", "--resume", run, "--trainer=./trainer"]);
    assert_eq!((code, &summary["state"]), (Some(0), &"finished".into()), "{message}");
    assert_eq!(
        (&summary["best"]["uri"], &summary["checkpoints"][1]["uri"]),
        (&"file:///c1".into(), &"file:///c2".into())
    );
    assert_eq!(sql(folder, "SELECT kind, state FROM run_state WHERE kind = 'dapo'"), ["dapo,finished"]);
    for table in ["judgments", "rewards"] {
        assert_eq!(sql(folder, &format!("SELECT count(*) FROM {table} WHERE trajectory_id = 't1'")), ["1"]);
    }
    // Of SFT it is no run, and on another web it does not learn.
    let (code, _, message) = train(folder, &["train", "sft", "--resume", run]);
    assert!(code == Some(2) && message.contains("there is no sft run"), "{message}");
    let (code, _, message) = train(folder, &[&dapo[..], &["--web", "live", "--init", "own"]].concat());
    assert!(code == Some(2) && message.contains("--web live: a model learns on a closed web"), "{message}");
    let (code, _, message) = train(folder, &[&dapo[..], &["--web", "closed:pages", "--init", "0123"]].concat());
    assert!(code == Some(2) && message.contains("--init 0123: is neither a folder of this machine"), "{message}");
}

#[test]
fn a_dapo_run_is_made_again_from_its_pins_its_first_checkpoint_and_its_configuration() {
    // What passes for weights follows from whatever the trainer is given.
    let folder = lake(
        r#"[ "$kind" = dapo ] && [ $resume = no ] && [ -f "$pin" ] || exit 65
digest() { cat "$config" "$init/weights" "$pages" | sha256sum | cut -c 1-16; }
event trajectory t1 "{\"trajectory_id\":\"$run-t1\",\"qa_id\":\"q1\",\"attempt\":0,\"termination\":\"answer\",\"n_turns\":1,\"n_tool_calls\":0}"
event checkpoint c1 '{"digest":"same","step":1,"uri":"file:///c1"}'
event checkpoint c2 "{\"digest\":\"$(digest)\",\"step\":2,\"uri\":\"file:///c2\"}"
"#,
    );
    let folder = folder.path();
    std::fs::write(folder.join("own.toml"), "seed = 7\ndeterministic = true\n").unwrap();
    std::fs::create_dir(folder.join("base")).unwrap();
    std::fs::write(folder.join("base/weights"), "before").unwrap();
    ok(folder, &["pin", "create", "pages", "--sql", PAGES]);
    let dapo = ["--json", "train", "dapo", "--pin", "train", "--config", "own.toml", "--trainer=./trainer"];
    let (code, first, message) = train(folder, &[&dapo[..], &["--web", "closed:pages", "--init", "base"]].concat());
    assert_eq!(code, Some(0), "{message}");
    let run = first["run_id"].as_str().unwrap();
    // The configuration is the run's own: what has become of the file is all one.
    std::fs::write(folder.join("own.toml"), "seed = 8\n").unwrap();
    let (code, again, message) = train(folder, &["--json", "reproduce", run]);
    assert_eq!((code, &again["identical"], &again["kind"]), (Some(0), &true.into(), &"dapo".into()), "{message}");
    assert_eq!(again["checkpoints"].as_object().unwrap().len(), 2, "{again}");
    let made = again["made_again"].as_str().unwrap();
    let of = format!("SELECT kind, state, seed, parent_run = '{run}' AS again FROM run_state WHERE run_id = '{made}'");
    assert_eq!(sql(folder, &of), ["dapo,finished,7,true"]);

    std::fs::write(folder.join("base/weights"), "after").unwrap();
    let (code, other, message) = train(folder, &["--json", "reproduce", run]);
    assert_eq!((code, &other["identical"]), (Some(3), &false.into()), "{message}");
    let weights = &other["checkpoints"];
    assert_eq!((&weights["1"]["now"], &weights["2"]["then"]), (&"same".into(), &again["checkpoints"]["2"]["now"]));
    assert_ne!(weights["2"]["then"], weights["2"]["now"]);
    assert!(
        message.ends_with("1 of 2 checkpoints are not identical: another machine, libtorch or model to begin with"),
        "{message}"
    );
}

#[test]
fn a_run_that_is_made_again_is_told_the_date_of_the_first() {
    // What it comes to depends on the date that it is told.
    let folder =
        lake(r#"event checkpoint "c$date" "{\"digest\":\"of ${date:-today}\",\"step\":1,\"uri\":\"file:///c\"}""#);
    let folder = folder.path();
    std::fs::create_dir(folder.join("own")).unwrap();
    ok(folder, &["pin", "create", "pages", "--sql", PAGES]);
    let dapo = ["--json", "train", "dapo", "--pin", "train", "--config", "own.toml", "--trainer=./trainer"];
    let (code, _, message) = train(folder, &[&dapo[..], &["--web", "closed:pages", "--init", "own"]].concat());
    assert_eq!(code, Some(0), "{message}");
    assert_eq!(sql(folder, "SELECT digest FROM checkpoints"), ["of today"]);

    // The same run, of a day long past.
    let told = ok(folder, &["sql", "--format", "ndjson", "SELECT config FROM runs WHERE state = 'started'"]);
    let row: Value = serde_json::from_str(&told).unwrap();
    let mut plan: Value =
        row["config"].as_str().map_or_else(|| row["config"].clone(), |text| serde_json::from_str(text).unwrap());
    let past = "0190a6b2-7c3d-7e4f-8a1b-2c3d4e5f6071";
    (plan["run_id"], plan["started"]) = (past.into(), "2024-02-29T23:59:00Z".into());
    let event = |kind: &str, data: Value| {
        let kind_of = format!("webdancer.{kind}.v1");
        json!({"specversion": "1.0", "id": format!("{kind}-{past}"), "source": "test", "type": kind_of, "runid": past,
            "time": "2024-02-29T23:59:00Z", "data": data})
        .to_string()
    };
    let events = [
        event("run", json!({"kind": "dapo", "state": "started", "config": plan})),
        event("checkpoint", json!({"digest": "of 2024-02-29", "step": 1, "uri": "file:///c"})),
    ];
    let appended = webdancer(folder, &["--lake", "l", "append"], events.join("\n").as_bytes());
    assert_eq!(appended.status.code(), Some(0), "{}", text(&appended.stderr));
    let again = |run: &str| -> Value { serde_json::from_str(&ok(folder, &["--json", "reproduce", run])).unwrap() };
    let made = again(past);
    assert_eq!(made["identical"], true, "{made}");
    // And so is one that makes this one again.
    let twice = again(made["made_again"].as_str().unwrap());
    assert_eq!(
        (&twice["identical"], &twice["checkpoints"]["1"]["now"]),
        (&json!(true), &json!("of 2024-02-29")),
        "{twice}"
    );
}

#[test]
fn settings_and_the_runs_configuration_are_files_of_their_own() {
    let folder = lake("loss 1");
    let folder = folder.path();
    std::fs::write(folder.join("team.toml"), "[lake]\nuri = \"l\"\n").unwrap();
    let run = |arguments: &[&str]| {
        let output = webdancer(folder, arguments, b"");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, message) = run(&[&["--config", "team.toml"], &TRAIN[..]].concat());
    assert_eq!(code, Some(0), "{message}");
    // Without it the lake is another one, and empty.
    let (code, _, message) = run(&TRAIN);
    assert!(code != Some(0) && message.contains("there is no lake at"), "{message}");
    let (code, _, message) = run(&[&["--config", "no.toml"], &TRAIN[..]].concat());
    assert!(code == Some(2) && message.contains("reading no.toml: No such file"), "{message}");
    // Elsewhere it stands before the command or behind it, and the last one holds.
    let query = "SELECT seed FROM runs WHERE state = 'started'";
    for place in [
        &["--config", "team.toml", "sql", query][..],
        &["sql", query, "--config", "team.toml"],
        &["--config", "no.toml", "sql", "--config", "team.toml", query],
        &["pin", "list", "--config", "team.toml"],
    ] {
        let (code, said, message) = run(place);
        assert!(code == Some(0) && (said.contains('7') || said.contains("train")), "{place:?}: {said}{message}");
    }
}

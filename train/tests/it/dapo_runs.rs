//! The program itself, learning from what it tries: through kills, and again from what it recorded.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::ReaderBuilder;
use serde_json::Value;
use webdancer_agent::conversation::{Message, Role};
use webdancer_schemas::row::Row as _;
use webdancer_schemas::rows::Trajectory;
use webdancer_train::checkpoint;

use crate::pins;
use crate::support::{message, row};

const SFT: &str = r#"
preset = "demo"
deterministic = true
[model.scratch]
init_std = 0.1
previous_token_heads = 0
hidden_size = 32
layers = 2
heads = 2
kv_heads = 2
head_dim = 16
intermediate_size = 64
[model.scratch.tokenizer]
piece_count_min = 4
[data]
document_tokens_max = 1024
[batch]
trajectories = 16
tokens = 2048
[optimizer]
lr = 1e-2
weight_decay = 0.0
[schedule]
epochs = 25
warmup_steps = 4
[validation]
share = 0.0
[checkpoints]
every_steps = 0
"#;

pub(crate) const DAPO: &str = r#"
preset = "demo"
deterministic = true
seed = 3
[rollouts]
profile = "compact"
episodes_max = 6
context_tokens_max = 1024
[rollouts.agent]
calls_max = 3
turn_tokens_max = 48
malformed_max = 1
[groups]
size = 4
prompts = 3
oversampling = 1.5
refills_max = 2
[batch]
groups = 2
tokens = 1024
[optimizer]
lr = 1e-3
[schedule]
epochs = 4
steps_max = 10
[validation]
share = 0.2
every_rounds = 2
questions_max = 3
[checkpoints]
every_steps = 2
"#;

/// A conversation: with a search first or without.
fn conversation(number: usize, answer: &str) -> Vec<Message> {
    let mut messages = vec![
        message(Role::System, "Search and visit, then answer. Current date: 2026-01-02"),
        message(Role::User, &format!("User: Is it so, number {number}?")),
    ];
    if number.is_multiple_of(2) {
        let call = "<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"so\"]}}\n</tool_call>";
        messages.push(message(Role::Assistant, &format!("<think>\nI look.\n</think>\n{call}")));
        messages.push(message(Role::User, "<tool_response>\nIt is so.\n</tool_response>"));
    }
    let answers = format!("<think>\nThat is it.\n</think>\n<answer>\n{answer}\n</answer>");
    messages.push(message(Role::Assistant, &answers));
    messages
}

pub(crate) fn texts(columns: &[(&str, Vec<String>)]) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(name, _)| Field::new(*name, DataType::Utf8, true)).collect();
    let arrays = columns.iter().map(|(_, values)| Arc::new(StringArray::from(values.clone())) as _).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// What all runs here begin with: a checkpoint that answers yes or no, questions, pages.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) checkpoint: PathBuf,
}

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let within = |name: &str| {
        let within = folder.path().join(name);
        fs::create_dir_all(&within).unwrap();
        within
    };
    let trajectory = |number: usize| {
        let row = row(&conversation(number, if number.is_multiple_of(3) { "yes" } else { "no" }));
        (Trajectory { trajectory_id: format!("t{number}"), qa_id: format!("s{number}"), ..row }, None)
    };
    pins::pin(&within("trajectories"), &[pins::batch(&(0..48).map(trajectory).collect::<Vec<_>>())]);
    fs::write(folder.path().join("sft.toml"), SFT).unwrap();
    let trained = Command::new(env!("CARGO_BIN_EXE_webdancer-train"))
        .args(["sft", "--run", "s1", "--started", "2026-01-02T03:04:05Z", "--pin", "trajectories/manifest.json"])
        .args(["--config", "sft.toml", "--out", "sft"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    let checkpoint = checkpoint::latest(&folder.path().join("sft/checkpoints")).unwrap().unwrap();
    let column = |of: fn(usize) -> String, count| (0..count).map(of).collect::<Vec<_>>();
    let questions = texts(&[
        ("qa_id", column(|number| format!("q{number}"), 20)),
        ("question", column(|number| format!("Is it so, number {number}?"), 20)),
        ("answer", column(|number| if number.is_multiple_of(2) { "yes" } else { "no" }.to_string(), 20)),
    ]);
    pins::pin(&within("questions"), &[questions]);
    let pages = texts(&[
        ("url", column(|number| format!("https://so.example/{number}"), 3)),
        ("title", column(|number| format!("So {number}"), 3)),
        ("text", column(|number| format!("It is so, says page {number}."), 3)),
    ]);
    pins::pin(&within("pages"), &[pages]);
    World { folder, checkpoint }
});

pub(crate) fn start(out: &Path, config: &str, more: &[&str]) -> Child {
    let file = out.with_extension("toml");
    fs::write(&file, config).unwrap();
    Command::new(env!("CARGO_BIN_EXE_webdancer-train"))
        .args(["dapo", "--run", "r1", "--started", "2026-01-02T03:04:05.000001Z", "--init"])
        .arg(&WORLD.checkpoint)
        .arg("--config")
        .arg(file)
        .arg("--out")
        .arg(out)
        .args(more)
        .current_dir(WORLD.folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) const SAMPLED: [&str; 4] = ["--pin", "questions", "--pages", "pages/manifest.json"];

/// Events and what was said for people; the exit code.
pub(crate) fn finish(child: Child) -> (Vec<Value>, String, i32) {
    let output = child.wait_with_output().unwrap();
    let events = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let events = events.map(|line| serde_json::from_slice(line).unwrap()).collect();
    (events, String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
}

pub(crate) fn digest(out: &Path) -> String {
    let last = checkpoint::latest(&out.join("checkpoints")).unwrap().unwrap();
    checkpoint::verify(&last).unwrap().digest
}

pub(crate) fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let kind = format!("webdancer.{kind}.v1");
    events.iter().filter(|event| event["type"] == kind.as_str()).map(|event| &event["data"]).collect()
}

pub(crate) fn metric(events: &[Value], name: &str) -> BTreeMap<i64, f64> {
    let of_name = of_kind(events, "metric").into_iter().filter(|data| data["name"] == name);
    of_name.map(|data| (data["step"].as_i64().unwrap(), data["value"].as_f64().unwrap())).collect()
}

/// Sends a process a signal.
pub(crate) fn send(signal: &str, child: &Child) {
    let sent = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", signal, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

fn gated(row: &mut Value) {
    row["restricted"] = true.into();
}

fn sampled_at_6(row: &mut Value) {
    row["sampling_parameters"] = r#"{"temperature": 0.6, "top_p": 0.95}"#.into();
}

/// The pin that `SELECT t.*, r.group_id, r.format, r.answer AS answer_reward` gives of a run's events, rows changed, the
/// last first.
fn pin_of_episodes(folder: &Path, events: &[Value], change: fn(&mut Value)) {
    let rewards: BTreeMap<&str, &Value> =
        of_kind(events, "reward").into_iter().map(|data| (data["trajectory_id"].as_str().unwrap(), data)).collect();
    let row = |data: &&Value| {
        let mut row = (*data).clone();
        // In tables JSON is text.
        row["sampling_parameters"] = row["sampling_parameters"].to_string().into();
        if let Some(reward) = rewards.get(data["trajectory_id"].as_str().unwrap()) {
            row["group_id"] = reward["group_id"].clone();
            (row["format"], row["answer_reward"]) = (reward["format"].clone(), reward["answer"].clone());
        }
        change(&mut row);
        row
    };
    let rows: Vec<Value> = of_kind(events, "trajectory").iter().rev().map(row).collect();
    let mut fields = Trajectory::fields();
    let more = [("group_id", DataType::Utf8), ("format", DataType::Float64), ("answer_reward", DataType::Float64)];
    fields.extend(more.map(|(name, of)| Field::new(name, of, true)));
    let mut decoder =
        ReaderBuilder::new(Arc::new(Schema::new(fields))).with_batch_size(rows.len()).build_decoder().unwrap();
    decoder.serialize(&rows).unwrap();
    fs::create_dir_all(folder).unwrap();
    pins::pin(folder, &[decoder.flush().unwrap().unwrap()]);
}

#[test]
fn a_run_tells_what_it_tried_and_comes_through_kills_and_replay_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let (events, said, code) = finish(start(&whole, DAPO, &SAMPLED));
    assert_eq!(code, 0, "{said}");
    let updates = metric(&events, "updates");
    assert_eq!(updates.values().copied().fold(0.0, f64::max), 10.0, "{said}");
    assert!(metric(&events, "mismatch.mean").values().all(|apart| *apart < 1e-4), "{said}");
    assert!(metric(&events, "validation_accuracy").contains_key(&0), "{said}");
    // Of the rounds is told how far they went, and why.
    for name in [
        "discarded_groups",
        "group_accuracy.none",
        "group_accuracy.all",
        "accuracy",
        "format",
        "reward",
        "overlong_penalty",
        "entropy",
        "refills",
        "clip_fraction.low",
        "clip_fraction.high",
        "clip_fraction.dual",
        "mismatch.kl",
        "time.model",
        "time.tools",
        "time.idle",
    ] {
        assert!(!metric(&events, name).is_empty(), "{name} is not told");
    }

    // The highest validation accuracy, and the first that had it.
    let validated = metric(&events, "validation_accuracy");
    let highest = validated.values().copied().fold(0.0, f64::max);
    let best = validated.iter().find(|(_, accuracy)| **accuracy == highest).map(|(round, _)| *round as f64);
    assert_eq!(metric(&events, "best_step").into_values().collect::<Vec<_>>(), [best.unwrap()]);
    assert!(said.ends_with(&format!("step-{:08}\n", best.unwrap())), "{said}");

    // Every episode of a group is told with its verdict and its reward; advantages of a group sum to nothing.
    let trajectories = of_kind(&events, "trajectory");
    // The turns of a round were all written by the weights that it began with.
    for data in &trajectories {
        let versions = data["turn_policy_version"].as_array().unwrap();
        assert!(versions.iter().all(|version| *version == data["policy_version"]), "{versions:?}");
    }
    let rewards = of_kind(&events, "reward");
    assert_eq!(trajectories.len(), rewards.len());
    let mut groups: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for reward in &rewards {
        if let Some(group) = reward["group_id"].as_str() {
            groups.entry(group).or_default().push(reward);
        }
    }
    let advantages = |group: &[&Value]| group.iter().map(|of| of["advantage"].as_f64()).collect::<Option<Vec<f64>>>();
    let trained: Vec<Vec<f64>> = groups.values().filter_map(|group| advantages(group)).collect();
    assert!(trained.len() >= 10, "{} groups", trained.len());
    assert!(trained.iter().all(|group| group.len() == 4 && group.iter().sum::<f64>().abs() < 1e-9));
    let answers = trajectories.iter().filter_map(|data| data["answer"].as_str());
    let answered = answers.filter(|answer| !answer.trim().is_empty()).count();
    assert_eq!(of_kind(&events, "judgment").len(), answered);
    assert!(trajectories.iter().any(|data| data["n_tool_calls"].as_i64() > Some(0)), "no tool was called");

    // Killed or asked to stop wherever it is, and gone on with.
    let killed = folder.path().join("killed");
    let lines = events.len();
    for (at, more, signal) in [
        (lines / 5, None, "KILL"),
        (lines / 3, Some("--resume"), "INT"),
        (lines / 2, Some("--resume"), "INT"),
        (lines * 4 / 5, Some("--resume"), "KILL"),
    ] {
        let mut child = start(&killed, DAPO, &[&SAMPLED[..], more.as_slice()].concat());
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert_eq!(told.by_ref().take(at).count(), at);
        send(signal, &child);
        // One that nobody listens to would end because of that.
        told.for_each(drop);
        assert_eq!(child.wait().unwrap().code(), (signal == "INT").then_some(130));
    }
    let (resumed, said, code) = finish(start(&killed, DAPO, &[&SAMPLED[..], &["--resume"]].concat()));
    assert_eq!(code, 0, "{said}");
    let unique: HashSet<String> = resumed.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(unique.len(), resumed.len(), "an event was told twice");
    // Who is asked to stop keeps a checkpoint more, wherever that is.
    let ids = |events: &[Value]| -> HashSet<String> {
        let others = events.iter().filter(|event| event["type"] != "webdancer.checkpoint.v1");
        others.map(|event| format!("{} {}", event["type"], event["id"])).collect()
    };
    let (of_whole, of_resumed) = (ids(&events), ids(&resumed));
    assert_eq!(of_whole.symmetric_difference(&of_resumed).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(digest(&killed), digest(&whole));

    // From what was recorded, without a question and without a web.
    let replayed = folder.path().join("replayed");
    let recorded = whole.join("events.ndjson");
    let (again, said, code) = finish(start(&replayed, DAPO, &["--replay", recorded.to_str().unwrap()]));
    assert_eq!(code, 0, "{said}");
    assert!(of_kind(&again, "trajectory").is_empty() && said.contains("nothing is sampled"), "{said}");
    assert_eq!(metric(&again, "loss"), metric(&events, "loss"));
    assert_eq!(digest(&replayed), digest(&whole));

    // So it does from a pin, in whatever order its rows lie.
    let pinned = folder.path().join("pinned");
    pin_of_episodes(&pinned, &events, |_| {});
    let from_pin = folder.path().join("from-pin");
    let (_, said, code) = finish(start(&from_pin, DAPO, &["--replay", pinned.to_str().unwrap()]));
    assert_eq!((code, digest(&from_pin)), (0, digest(&whole)), "{said}");
    // What is gated, or was drawn by other probabilities than the recorded ones, is not trained on.
    for (change, line) in [
        (gated as fn(&mut Value), "holds no episode with token ids"),
        (sampled_at_6, "recorded attempts left out: they were sampled otherwise than at temperature 1"),
    ] {
        pin_of_episodes(&pinned, &events, change);
        let out = folder.path().join("none");
        let (_, said, code) = finish(start(&out, DAPO, &["--replay", pinned.to_str().unwrap()]));
        assert!(code == 1 && said.contains(line) && said.contains("holds no episode with token ids"), "{line}: {said}");
        fs::remove_dir_all(out).unwrap();
    }

    // Ids of another tokenizer are no tokens of this one, and attempts at gated benchmarks are not trained on.
    let text = fs::read_to_string(&recorded).unwrap();
    let own = of_kind(&events, "trajectory")[0]["tokenizer_digest"].as_str().unwrap().to_string();
    let restrict = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        event["data"]["restricted"] = true.into();
        format!("{event}\n")
    };
    let restricted: String = text.lines().map(restrict).collect();
    for (spoilt, line) in [
        (text.replace(&own, &"0".repeat(64)), "has another tokenizer than the recorded episodes"),
        (restricted, "holds no episode with token ids, log-probabilities, a reward and a group"),
        (text.repeat(2), " twice: it has several rewards, of which the run's own is the one to pin"),
    ] {
        let file = folder.path().join("spoilt.ndjson");
        fs::write(&file, spoilt).unwrap();
        let out = folder.path().join("spoilt");
        let (_, said, code) = finish(start(&out, DAPO, &["--replay", file.to_str().unwrap()]));
        assert!(code == 1 && said.lines().last().unwrap().contains(line), "{line}: {said}");
        fs::remove_dir_all(out).unwrap();
    }

    // A folder that holds a run is not begun again by mistake, nor gone on with under other settings.
    let (_, said, code) = finish(start(&whole, DAPO, &SAMPLED));
    assert!(code == 1 && said.contains("holds a run already: give --resume, or another folder"), "{said}");
    let other = DAPO.replace("lr = 1e-3", "lr = 2e-3");
    let (_, said, code) = finish(start(&whole, &other, &[&SAMPLED[..], &["--resume"]].concat()));
    assert!(code == 1 && said.contains("is of another run"), "{said}");
}

#[test]
fn without_the_same_bits_a_killed_run_still_learns_from_the_very_groups_that_it_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("killed");
    let config =
        DAPO.replace("deterministic = true", "deterministic = false").replace("steps_max = 10", "steps_max = 6");
    for (at, more) in [(20, None), (90, Some("--resume")), (150, Some("--resume"))] {
        let mut child = start(&out, &config, &[&SAMPLED[..], more.as_slice()].concat());
        // While a round or a validation is handed out.
        let told = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).take(at).count();
        assert_eq!(told, at);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (events, said, code) = finish(start(&out, &config, &[&SAMPLED[..], &["--resume"]].concat()));
    assert_eq!(code, 0, "{said}");
    let ids: HashSet<String> = events.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), events.len(), "an event was told twice");
    let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for reward in of_kind(&events, "reward") {
        if let (Some(group), Some(advantage)) = (reward["group_id"].as_str(), reward["advantage"].as_f64()) {
            groups.entry(group).or_default().push(advantage);
        }
    }
    assert!(groups.len() >= 6, "{} groups", groups.len());
    assert!(groups.values().all(|group| group.len() == 4 && group.iter().sum::<f64>().abs() < 1e-9), "{groups:?}");
    // Who learns from what was told comes to the losses that were told.
    let recorded = out.join("events.ndjson");
    let replayed = folder.path().join("replayed");
    let (again, said, code) = finish(start(&replayed, &config, &["--replay", recorded.to_str().unwrap()]));
    assert_eq!(code, 0, "{said}");
    let (told, again) = (metric(&events, "loss"), metric(&again, "loss"));
    assert_eq!(told.keys().collect::<Vec<_>>(), again.keys().collect::<Vec<_>>());
    assert!(told.iter().all(|(round, loss)| (loss - again[round]).abs() < 1e-5), "{told:?} {again:?}");
    // Nothing that other weights computed was kept for a prompt of later ones.
    let apart = metric(&events, "mismatch.max");
    assert!(apart.values().all(|apart| *apart < 1e-4), "{apart:?}");
    // What was made to validate on says so.
    let purposes =
        of_kind(&events, "trajectory").into_iter().map(|data| data["sampling_parameters"]["purpose"].as_str());
    let validated = purposes.filter(|purpose| *purpose == Some("validation")).count();
    assert_eq!(validated, 3 * metric(&events, "validation_accuracy").len());
}

#[test]
fn every_round_is_sampled_by_the_weights_that_are_trained() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        DAPO.replace("deterministic = true", "deterministic = false").replace("steps_max = 10", "steps_max = 6");
    let (events, said, code) = finish(start(&folder.path().join("out"), &config, &SAMPLED));
    assert_eq!(code, 0, "{said}");
    let apart = metric(&events, "mismatch.max");
    assert!(apart.len() >= 3 && apart.values().all(|apart| *apart < 1e-4), "{apart:?}");
    // A reward says which judgment it is for, by which it holds in the lake.
    let judgments: BTreeMap<&str, &str> = events
        .iter()
        .filter(|event| event["type"] == "webdancer.judgment.v1")
        .map(|event| (event["data"]["trajectory_id"].as_str().unwrap(), event["id"].as_str().unwrap()))
        .collect();
    assert!(!judgments.is_empty());
    for reward in of_kind(&events, "reward") {
        let judgment = judgments.get(reward["trajectory_id"].as_str().unwrap()).copied();
        assert_eq!(reward["criteria"]["judgment"].as_str(), judgment);
    }
}

#[test]
fn a_policy_is_trained_at_the_temperature_that_it_is_sampled_at() {
    let folder = tempfile::tempdir().unwrap();
    let cool = DAPO.replace("[groups]\n", "[groups]\ntemperature = 0.6\n").replace("steps_max = 10", "steps_max = 2");
    let out = folder.path().join("out");
    let (events, said, code) = finish(start(&out, &cool, &SAMPLED));
    assert_eq!(code, 0, "{said}");
    let rows = of_kind(&events, "trajectory").into_iter().map(|data| data["sampling_parameters"].clone());
    let temperatures: HashSet<String> =
        rows.filter(|with| with["purpose"] != "validation").map(|with| with["temperature"].to_string()).collect();
    assert_eq!(temperatures, HashSet::from(["0.6".to_string()]));
    // Trainer and sampler look at the same distribution.
    assert!(metric(&events, "mismatch.mean").values().all(|apart| *apart < 1e-4), "{said}");
    let recorded = out.join("events.ndjson");
    let replayed = folder.path().join("replayed");
    let (_, said, code) = finish(start(&replayed, &cool, &["--replay", recorded.to_str().unwrap()]));
    assert!(
        code == 1 && said.contains("groups.temperature: recorded episodes are replayed at temperature 1"),
        "{said}"
    );
}

#[test]
fn what_is_missing_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |config: &str, more: &[&str]| {
        let out = folder.path().join("out");
        let (events, said, code) = finish(start(&out, config, more));
        let _ = fs::remove_dir_all(&out);
        assert_eq!((events.len(), code), (0, 1), "{said}");
        said.lines().last().unwrap().to_string()
    };
    assert!(fails(DAPO, &["--pin", "questions"]).starts_with("error: there is no web: give --pages"));
    assert!(fails(DAPO, &["--pages", "pages"]).starts_with("error: no pin is given"));
    let wrong = fails(DAPO, &["--pin", "pages", "--pages", "pages"]);
    assert!(wrong.ends_with("the pin has no column qa_id: it is not of questions"), "{wrong}");
    let wrong = fails(DAPO, &["--pin", "questions", "--pages", "questions"]);
    assert!(wrong.ends_with("the pin has no column url: it is not of pages"), "{wrong}");
    let long = fails(&DAPO.replace("calls_max = 3", "calls_max = 3\ncot = \"long\""), &SAMPLED);
    assert!(long.contains("rollouts.agent.cot: must be short"), "{long}");
    let few = format!("{}[early_stop]\npatience = 2\n", DAPO.replace("share = 0.2", "share = 0.01"));
    let none = fails(&few, &SAMPLED);
    assert!(none.starts_with("error: early_stop.patience: there is no accuracy to wait for"), "{none}");
    let empty = folder.path().join("empty.ndjson");
    File::create(&empty).unwrap();
    let none = fails(DAPO, &["--replay", empty.to_str().unwrap()]);
    assert!(none.ends_with("holds no episode with token ids, log-probabilities, a reward and a group"), "{none}");
}

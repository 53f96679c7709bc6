//! `webdancer train` with the native trainer: runs that finish, fail, are killed, and are made again, as the tables have them.
//!
//! The command lies beside the trainer once the workspace was built (`make test-train` does that). Where it is not, these
//! tests say so and pass, unless `WEBDANCER_REQUIRE_COMMAND` is 1 or `CI` is true.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use webdancer_train::checkpoint;

use crate::dapo_runs::{DAPO, WORLD};

const TRAINER: &str = env!("CARGO_BIN_EXE_webdancer-train");
const SETTINGS: &str = r#"
[batch]
trajectories = 4
tokens = 8192
[schedule]
epochs = 1
[validation]
share = 0.25
"#;
const SCRATCH: &str = r#"
[model.scratch]
hidden_size = 32
layers = 1
heads = 2
kv_heads = 2
head_dim = 16
intermediate_size = 64
tokenizer = { kind = "bytes" }
"#;

/// A folder with a lake `l` of eight trajectories, and a pin of them.
struct Site {
    folder: tempfile::TempDir,
    command: PathBuf,
}

impl Site {
    fn new() -> Option<Self> {
        let command = Path::new(TRAINER).with_file_name("webdancer");
        if !command.is_file() {
            let set = |name: &str| std::env::var(name).is_ok_and(|value| value == "1" || value == "true");
            assert!(
                !set("WEBDANCER_REQUIRE_COMMAND") && !set("CI"),
                "{} is not there: build it first, with `cargo build --workspace --bins`",
                command.display()
            );
            // Past the harness, which shows nothing of a test that passes.
            std::io::stderr().write_all(b"skipped: webdancer does not lie beside webdancer-train\n").unwrap();
            return None;
        }
        let site = Self { folder: tempfile::tempdir().unwrap(), command };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo/demo_trajectories.jsonl");
        site.ok(&["import", "trajectories", &file.display().to_string()]);
        site.ok(&["pin", "create", "train", "--sql", "SELECT * FROM trajectories"]);
        Some(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, within: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.command);
        command.arg("--lake").arg(self.path("l")).args(arguments).current_dir(within);
        command.env("XDG_STATE_HOME", self.path("state")).env_remove("WEBDANCER_LAKE").env_remove("WEBDANCER_LOG");
        command
    }

    /// Exit code, what was said on standard output and on standard error.
    fn call(&self, within: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(within, arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (code, said, error) = self.call(self.folder.path(), arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {error}");
        said
    }

    /// What a command comes to.
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[&["--json"], arguments].concat())).unwrap()
    }

    /// Lines of the result of a query.
    fn sql(&self, query: &str) -> Vec<String> {
        self.ok(&["sql", query]).lines().skip(1).map(str::to_string).collect()
    }

    /// A run: exit code and summary.
    fn train(&self, within: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
        let (code, said, error) = self.call(within, &[&["--json", "train", "sft"], arguments].concat());
        (code, serde_json::from_str(&said).unwrap_or_else(|_| panic!("{error}")))
    }

    fn begin(&self, config: &str, more: &[&str]) -> (Option<i32>, Value) {
        fs::write(self.path("sft.toml"), config).unwrap();
        self.train(self.folder.path(), &[&["--pin", "train", "--config", "sft.toml"], more].concat())
    }

    /// The error of a run that failed, as the tables have it: one line.
    fn failure(&self, (code, summary): &(Option<i32>, Value)) -> String {
        let run = summary["run_id"].as_str().unwrap();
        assert_eq!(*code, Some(1), "{summary}");
        let of_run = format!("SELECT state FROM run_state WHERE run_id = '{run}'");
        assert_eq!(self.sql(&of_run), ["failed"]);
        let error = summary["error"].as_str().unwrap();
        let escaped = error.replace('\'', "''");
        let found = format!("SELECT count(*) AS n FROM runs WHERE run_id = '{run}' AND error = '{escaped}'");
        assert_eq!(self.sql(&found), ["1"], "{error}");
        assert!(!error.contains('\n'), "{error}");
        let checkpoints = Path::new(summary["folder"].as_str().unwrap()).join("checkpoints");
        assert!(checkpoint::all(&checkpoints).unwrap().is_empty(), "{summary}");
        error.replace(&self.folder.path().display().to_string(), "FOLDER")
    }
}

#[test]
fn a_run_is_finished_with_metrics_and_a_checkpoint_that_the_next_begins_with_or_fails_at() {
    let Some(site) = Site::new() else { return };
    let (code, summary) = site.begin(&format!("{SETTINGS}{SCRATCH}"), &[]);
    assert_eq!((code, &summary["state"]), (Some(0), &json!("finished")), "{summary}");
    let run = summary["run_id"].as_str().unwrap();
    let state = format!("SELECT state, error IS NULL AS well FROM run_state WHERE run_id = '{run}'");
    assert_eq!(site.sql(&state), ["finished,true"]);
    assert_eq!(site.sql("SELECT step FROM metrics WHERE name = 'loss' ORDER BY step"), ["1", "2"]);
    assert_eq!(site.sql("SELECT step FROM metrics WHERE name = 'validation_loss'"), ["2"]);
    let last = checkpoint::latest(&site.path("l/runs").join(run).join("checkpoints")).unwrap().unwrap();
    let digest = checkpoint::verify(&last).unwrap().digest;
    assert_eq!(site.sql("SELECT step, digest FROM checkpoints"), [format!("2,{digest}")]);

    // The model of the next run, named as seen from this folder.
    fs::create_dir(site.path("base")).unwrap();
    for entry in fs::read_dir(&last).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), site.path("base").join(entry.file_name())).unwrap();
    }
    let config = format!("{SETTINGS}[model]\nfolder = \"base\"\n");

    let index = site.path("base/model.safetensors.index.json");
    fs::write(&index, json!({"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}).to_string())
        .unwrap();
    let failed = site.begin(&config, &[]);
    let error = site.failure(&failed);
    let line = "error: FOLDER/base/model-00002-of-00002.safetensors: No such file or directory (os error 2)";
    assert!(error.starts_with("the trainer ended with exit code 1: ") && error.ends_with(line), "{error}");
    fs::remove_file(&index).unwrap();

    let tokenizer = site.path("base/tokenizer.json");
    let whole = fs::read(&tokenizer).unwrap();
    let mut other: Value = serde_json::from_slice(&whole).unwrap();
    let mut added = other["added_tokens"][0].clone();
    (added["id"], added["content"]) = (json!(5_000), json!("<further>"));
    other["added_tokens"].as_array_mut().unwrap().push(added);
    fs::write(&tokenizer, other.to_string()).unwrap();
    let error = site.failure(&site.begin(&config, &[]));
    assert!(
        error.contains("error: FOLDER/base: the tokenizer has ") && error.contains(" tokens and the model "),
        "{error}"
    );
    fs::write(&tokenizer, whole).unwrap();

    // What was mended goes on, from anywhere, and with less at a time than any of the trajectories has.
    let elsewhere = tempfile::tempdir().unwrap();
    let run = failed.1["run_id"].as_str().unwrap();
    let (code, summary) = site.train(elsewhere.path(), &["--resume", run, "--batch-tokens", "100", "--device", "cpu"]);
    assert_eq!((code, &summary["state"]), (Some(0), &json!("finished")), "{summary}");
}

#[test]
fn a_run_that_has_no_memory_says_so() {
    let Some(site) = Site::new() else { return };
    // 100 GB of weights, and 16 GB of addresses.
    let limited = site.path("limited");
    fs::write(&limited, format!("#!/bin/sh\nulimit -v 16000000\nexec '{TRAINER}' \"$@\"\n")).unwrap();
    fs::set_permissions(&limited, fs::Permissions::from_mode(0o755)).unwrap();
    let large = SCRATCH.replace("hidden_size = 32", "hidden_size = 8192").replace("layers = 1", "layers = 32");
    let large = large.replace("intermediate_size = 64", "intermediate_size = 32768");
    let error = site.failure(&site.begin(&format!("{SETTINGS}{large}"), &["--trainer", "./limited"]));
    assert!(error.contains(" / error: out of memory: ") && !error.contains("batch.tokens"), "{error}");
}

/// A run that is under way in none of these folders, as soon as it has told of a reward.
fn rewarded(runs: &Path, known: &[&str]) -> Option<String> {
    let tells =
        |run: &str| fs::read_to_string(runs.join(run).join("events.ndjson")).is_ok_and(|t| t.contains(".reward."));
    let entries = fs::read_dir(runs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|run| !known.contains(&run.as_str())).find(|run| tells(run))
}

#[test]
fn what_was_learnt_by_trying_is_the_same_made_again_replayed_from_a_pin_and_gone_on_with_after_a_kill() {
    let Some(site) = Site::new() else { return };
    let question = |number: usize| {
        let answer = if number.is_multiple_of(2) { "yes" } else { "no" };
        let data = json!({"qa_id": format!("q{number}"), "method": "import", "answer": answer,
            "question": format!("Is it so, number {number}?")});
        let id = format!("qa-{number}");
        format!(
            "{}\n",
            json!({"specversion": "1.0", "id": id, "source": "test", "type": "webdancer.qa.v1", "data": data})
        )
    };
    fs::write(site.path("qa.ndjson"), (0..20).map(question).collect::<String>()).unwrap();
    site.ok(&["append", "qa.ndjson"]);
    site.ok(&["pin", "create", "questions", "--sql", "SELECT qa_id, question, answer FROM qa"]);
    let pages = "SELECT concat('https://so.example/', qa_id) AS url, question AS title, \
        concat('It is so, says page ', qa_id, '.') AS text FROM qa";
    site.ok(&["pin", "create", "pages", "--sql", pages]);
    fs::write(site.path("dapo.toml"), DAPO.replace("steps_max = 10", "steps_max = 4")).unwrap();
    let init = WORLD.checkpoint.display().to_string();
    let dapo = ["train", "dapo", "--config", "dapo.toml", "--init", &init];
    let tries = [&dapo[..], &["--pin", "questions", "--web", "closed:pages"]].concat();
    let last = |run: &Value| run["checkpoints"].as_array().unwrap().last().unwrap()["digest"].clone();
    let first = site.json(&tries);
    let run = first["run_id"].as_str().unwrap();

    let again = site.json(&["reproduce", run]);
    assert_eq!(again["identical"], true, "{again}");
    assert!(again["checkpoints"].as_object().unwrap().len() > 1, "{again}");

    let episodes = format!(
        "SELECT t.*, r.group_id, r.format, r.answer AS answer_reward FROM trajectories t \
         JOIN rewards r ON r.trajectory_id = t.trajectory_id WHERE t.run_id = '{run}' ORDER BY t.policy_version, t.attempt"
    );
    site.ok(&["pin", "create", "episodes", "--sql", &episodes]);
    let replayed = site.json(&[&dapo[..], &["--pin", "episodes", "--replay"]].concat());
    assert_eq!(last(&replayed), last(&first), "{replayed}");

    let known = [run, again["made_again"].as_str().unwrap(), replayed["run_id"].as_str().unwrap()];
    let mut child =
        site.command(site.folder.path(), &tries).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let killed = loop {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        match rewarded(&site.path("l/runs"), &known) {
            Some(run) => break run,
            None => std::thread::sleep(std::time::Duration::from_millis(10)),
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    // The trainer, which nobody listens to any more, ends by itself, and the next one waits for that.
    let resumed = site.json(&["train", "dapo", "--resume", &killed]);
    assert_eq!((&resumed["state"], last(&resumed)), (&json!("finished"), last(&first)), "{resumed}");
    for table in ["trajectories", "judgments", "rewards", "metrics"] {
        let of = |run: &str| {
            site.sql(&format!("SELECT count(*), count(DISTINCT event_id) FROM {table} WHERE run_id = '{run}'"))
        };
        let (found, expected) = (of(&killed), of(run));
        assert_eq!(found, expected, "{table}");
        let (rows, ids) = found[0].split_once(',').unwrap();
        assert!(rows == ids && rows != "0", "{table}: {found:?}");
    }
}

/// Attempts short enough for a model that has learnt nothing.
const ATTEMPTS: &str = "[agent]\ncalls_max = 3\nturn_tokens_max = 24\nmalformed_max = 3\ntokens = true\n\
    sampling = { temperature = 0.8, top_p = 0.95 }\n[endpoints.served]\nmodel = \"m\"\ntoken_ids = \"vllm\"\nurl = ";

#[test]
fn training_and_an_atlas_run_of_what_came_of_it_are_identical_when_they_are_made_again() {
    let Some(site) = Site::new() else { return };
    let (code, trained) = site.begin(&format!("{SETTINGS}{SCRATCH}"), &["--deterministic"]);
    assert_eq!(code, Some(0), "{trained}");
    let run = trained["run_id"].as_str().unwrap();
    let (code, said, error) = site.call(site.folder.path(), &["--json", "reproduce", run]);
    assert_eq!(code, Some(0), "{error}");
    let again: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&again["identical"], again["checkpoints"].as_object().unwrap().len()), (&json!(true), 1), "{again}");
    assert_eq!(again["deterministic"], true, "{again}");

    let checkpoint = trained["checkpoints"][0]["uri"].as_str().unwrap();
    let mut server = Command::new(TRAINER)
        .args(["serve", "--deterministic", "--listen", "127.0.0.1:0", "--until-input-ends", "--checkpoint", checkpoint])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let url = BufReader::new(server.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    fs::write(site.path("webdancer.toml"), format!("{ATTEMPTS}{url:?}\n")).unwrap();
    let asked = ["--policy", "endpoint:served", "--profile", "compact", "--limit", "6", "--attempts", "2"];
    let made = site.ok(&[&["--json", "eval", "run", "atlas", "--concurrency", "8"][..], &asked].concat());
    let made: Value = serde_json::from_str(&made).unwrap();
    let again = site.ok(&["--json", "reproduce", made["run_id"].as_str().unwrap(), "--concurrency", "3"]);
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!((&again["attempts"]["attempts"], &again["attempts"]["identical"]), (&json!(12), &json!(12)), "{again}");
    let digest = &trained["checkpoints"][0]["digest"];
    let weights = again["inputs"].as_array().unwrap().iter().find(|input| input["what"] == "checkpoint").unwrap();
    assert_eq!((&weights["then"], &weights["now"]), (&json!([digest]), &json!([digest])));
    // What was compared is there, down to the log-probabilities; and turns do not repeat each other.
    let recorded = "SELECT count(turn_log_probs) AS n, sum(CAST(n_turns > 1 AS BIGINT)) > 0 AS further FROM trajectories \
        WHERE policy_checkpoint_digest IS NOT NULL";
    assert_eq!(site.sql(recorded), ["24,true"]);
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
}

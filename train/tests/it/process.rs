//! The program itself: from a pin to a checkpoint that answers, through a kill.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use webdancer_agent::chat::{
    Budget, BudgetConfig, ChatModel as _, ChatRequest, Endpoint, EndpointConfig, SystemClock, TokenIds,
};
use webdancer_agent::conversation::{Message, Role};
use webdancer_train::checkpoint;
use webdancer_train::contract::BEST_STEP;
use webdancer_train::model::weights;

use crate::pins;

const CONFIG: &str = r#"
preset = "demo"
deterministic = true
[model.scratch]
hidden_size = 32
layers = 2
heads = 2
kv_heads = 1
head_dim = 16
intermediate_size = 64
mimetic_gain = 0.0
previous_token_heads = 0
[model.scratch.tokenizer]
kind = "bytes"
[data]
document_tokens_max = 4096
[batch]
trajectories = 4
tokens = 4096
[schedule]
epochs = 3
warmup_steps = 2
[validation]
share = 0.2
every_steps = 4
[checkpoints]
every_steps = 3
initial = false
"#;

struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<_> = (0..20).map(|number| (pins::numbered(number), None)).collect();
        pins::pin(folder.path(), &[pins::batch(&rows)]);
        fs::write(folder.path().join("sft.toml"), CONFIG).unwrap();
        Self { folder }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn start(&self, more: &[&str]) -> Child {
        self.command("", more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The trainer, started by a shell that does this first.
    fn command(&self, shell: &str, more: &[&str]) -> Command {
        let path = |name: &str| self.folder.path().join(name);
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{shell} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_webdancer-train")])
            .args(["sft", "--run", "r1", "--started", "2026-01-02T03:04:05Z"])
            .arg("--pin")
            .arg(path("manifest.json"))
            .arg("--config")
            .arg(path("sft.toml"))
            .arg("--out")
            .arg(self.out())
            .args(more);
        command
    }

    /// Events and what was said for people; the exit code.
    fn finish(&self, more: &[&str]) -> (Vec<Value>, String, i32) {
        let output = self.start(more).wait_with_output().unwrap();
        let events = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let events = events.map(|line| serde_json::from_slice(line).unwrap()).collect();
        (events, String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
    }

    fn last_checkpoint(&self) -> PathBuf {
        checkpoint::latest(&self.out().join("checkpoints")).unwrap().unwrap()
    }
}

fn digest_of(folder: &Path) -> String {
    checkpoint::verify(folder).unwrap().digest
}

fn metrics<'a>(events: &'a [Value], name: &str) -> impl Iterator<Item = &'a Value> {
    events.iter().map(|event| &event["data"]).filter(move |data| data["name"] == name)
}

/// The steps that were told to be best: one, if any.
fn best_step(events: &[Value]) -> Vec<u64> {
    metrics(events, BEST_STEP).map(|data| data["value"].as_f64().unwrap() as u64).collect()
}

fn lowest_validation(events: &[Value]) -> u64 {
    let losses = metrics(events, "validation_loss").map(|data| (data["value"].as_f64().unwrap(), &data["step"]));
    losses.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1.as_u64().unwrap()
}

#[test]
fn a_run_that_stopped_early_names_the_best_checkpoint_which_is_not_its_last() {
    let run = Run::new();
    // So high a rate that it soon gets worse.
    let config = format!("{CONFIG}[early_stop]\npatience = 2\n[optimizer]\nlr = 0.5\n")
        .replace("every_steps = 4", "every_steps = 1")
        .replace("warmup_steps = 2", "warmup_steps = 0");
    fs::write(run.folder.path().join("sft.toml"), config).unwrap();
    let (events, said, code) = run.finish(&[]);
    assert_eq!(code, 0, "{said}");
    let last = metrics(&events, "loss").last().unwrap()["step"].as_u64().unwrap();
    assert_eq!(best_step(&events), [last - 2], "{said}");
    assert_eq!(lowest_validation(&events), last - 2);
    let kept = checkpoint::all(&run.out().join("checkpoints")).unwrap();
    assert!(kept.iter().any(|folder| checkpoint::step_of(folder) == Some(last - 2)), "{kept:?}");
    // Gone on with, it says so again, and in the same event.
    let (again, said, code) = run.finish(&["--resume"]);
    assert_eq!((code, best_step(&again)), (0, vec![last - 2]), "{said}");
}

#[test]
fn killed_and_resumed_a_run_tells_each_event_once_and_comes_to_the_same_weights() {
    let whole = Run::new();
    let (events, said, code) = whole.finish(&[]);
    assert_eq!(code, 0, "{said}");
    assert!(events.iter().any(|event| event["type"] == "webdancer.checkpoint.v1"), "{said}");
    let best = best_step(&events);
    assert_eq!(best, [lowest_validation(&events)], "{said}");
    let folder = whole.out().join("checkpoints").join(checkpoint::name_of(best[0]));
    assert!(said.ends_with(&format!(": the checkpoint to use is {}\n", folder.display())), "{said}");
    checkpoint::verify(&folder).unwrap();

    let killed = Run::new();
    for (at, more) in [(2, &[][..]), (5, &["--resume"]), (8, &["--resume"])] {
        let mut child = killed.start(more);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let step = |line: &str| serde_json::from_str::<Value>(line).unwrap()["data"]["step"].as_i64().unwrap();
        assert!(lines.into_iter().any(|line| step(&line) >= at), "never came to step {at}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (resumed, said, code) = killed.finish(&["--resume"]);
    assert_eq!(code, 0, "{said}");
    let ids = |events: &[Value]| events.iter().map(|event| event["id"].to_string()).collect::<Vec<_>>();
    let unique: HashSet<String> = ids(&resumed).into_iter().collect();
    assert_eq!(unique.len(), resumed.len(), "an event was told twice");
    assert_eq!(unique, ids(&events).into_iter().collect());
    assert_eq!(best_step(&resumed), best);
    assert_eq!(digest_of(&killed.last_checkpoint()), digest_of(&whole.last_checkpoint()));
    // A folder that holds a run is not begun again by mistake.
    let (_, said, code) = killed.finish(&[]);
    assert!(code == 1 && said.contains("holds a run already: give --resume, or another folder"), "{said}");
}

#[test]
fn a_checkpoint_whose_event_was_lost_is_told_by_the_run_that_goes_on() {
    let run = Run::new();
    let (events, said, code) = run.finish(&[]);
    assert_eq!(code, 0, "{said}");
    // The machine died between the checkpoint and its event.
    let path = run.out().join("events.ndjson");
    let text = fs::read_to_string(&path).unwrap();
    let kept: String = text.split_inclusive('\n').filter(|line| !line.contains("webdancer.checkpoint.v1")).collect();
    fs::write(&path, kept).unwrap();
    let (again, said, code) = run.finish(&["--resume"]);
    assert_eq!(code, 0, "{said}");
    let checkpoints = |events: &[Value]| -> Vec<String> {
        let of_kind = events.iter().filter(|event| event["type"] == "webdancer.checkpoint.v1");
        of_kind.map(|event| format!("{} {}", event["id"], event["data"])).collect()
    };
    let on_disk = checkpoint::all(&run.out().join("checkpoints")).unwrap().len();
    let told = checkpoints(&again);
    assert!(on_disk > 1 && told.len() == on_disk, "{told:?}");
    assert!(told.iter().all(|told| checkpoints(&events).contains(told)), "{told:?}");
}

#[test]
fn a_trainer_that_nobody_listens_to_ends_and_one_folder_has_one_trainer() {
    let run = Run::new();
    // Steps of a second and more: that it ends is not left to the next event.
    let long = CONFIG.replace("epochs = 3", "epochs = 100000").replace("trajectories = 4", "trajectories = 16");
    let long = long.replace("hidden_size = 32", "hidden_size = 128").replace("layers = 2", "layers = 4");
    fs::write(run.folder.path().join("sft.toml"), long).unwrap();
    let mut child = run.start(&[]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let (_, said, code) = run.finish(&[]);
    assert_eq!(code, 1);
    let last = said.lines().last().unwrap();
    assert!(last.ends_with("out/trainer.lock: another trainer works in this folder: end it, or wait for it"), "{said}");
    // As when its parent is killed.
    drop(lines);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("nobody takes the events any more"), "{said}");
}

#[tokio::test]
async fn a_checkpoint_is_served_to_agents() {
    let run = Run::new();
    assert_eq!(run.finish(&[]).2, 0);
    let mut server = Command::new(env!("CARGO_BIN_EXE_webdancer-train"))
        .args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--until-input-ends", "--checkpoint"])
        .arg(run.last_checkpoint())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let url = BufReader::new(server.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let config = EndpointConfig {
        url: url.clone().into(),
        model: "m".into(),
        token_ids: TokenIds::Vllm,
        concurrency: 64,
        ..EndpointConfig::default()
    };
    let clock = Arc::new(SystemClock);
    let budget = Arc::new(Budget::new(BudgetConfig::default(), clock.clone()));
    let endpoint = Endpoint::new("served", config, budget, clock, 7).unwrap();
    let messages = vec![Message { role: Role::User, content: "What is the capital of Chad?".into() }];
    let request = ChatRequest { messages, max_tokens: Some(20), tokens: true, ..ChatRequest::default() };
    let completion = endpoint.complete(&request).await.unwrap();
    assert!((1..=20).contains(&completion.tokens.unwrap().ids.len()), "{}", completion.text);
    // To 64 at once, too; and whoever goes away before the answer leaves no place taken.
    let answers = try_join_all((0..64).map(|_| endpoint.complete(&request))).await.unwrap();
    assert!(answers.iter().all(|completion| (1..=20).contains(&completion.tokens.as_ref().unwrap().ids.len())));
    let endless = ChatRequest { max_tokens: None, ..request.clone() };
    let left = tokio::time::timeout(Duration::from_millis(200), join_all((0..8).map(|_| endpoint.complete(&endless))));
    drop(left.await);
    let health = url.replace("/v1", "/health");
    for look in 0.. {
        let told: Value = serde_json::from_str(&reqwest::get(&health).await.unwrap().text().await.unwrap()).unwrap();
        if told["active"] == 0 {
            break;
        }
        assert!(look < 600, "{told}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // When whoever started it is gone, however that came about, its input ends.
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
}

/// Settings of a run that goes on from a model's folder.
fn from_folder(model: &Path) -> String {
    let (before, after) = CONFIG.split_at(CONFIG.find("[model.scratch]").unwrap());
    let rest = &after[after.find("[batch]").unwrap()..];
    format!("{before}[model]\nfolder = {model:?}\n{rest}")
}

/// A model's folder that a trainer wrote, changed.
struct Model {
    good: PathBuf,
    folder: tempfile::TempDir,
}

impl Model {
    fn spoilt(&self, spoil: impl FnOnce(&Path)) -> PathBuf {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        for file in fs::read_dir(&self.good).unwrap().map(|file| file.unwrap().path()).filter(|file| file.is_file()) {
            fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
        spoil(&folder);
        folder
    }

    /// With a tensor changed.
    fn with(&self, name: &str, change: impl Fn(&Tensor) -> Tensor) -> PathBuf {
        self.spoilt(|folder| {
            let file = folder.join(weights::SINGLE);
            let tensors = weights::map(&file).unwrap().into_iter();
            let changed = tensors.map(|(held, tensor)| {
                let tensor = if held == name { change(&tensor) } else { tensor.copy() };
                (held, tensor)
            });
            weights::write_file(&file, changed.collect()).unwrap();
        })
    }
}

#[test]
fn whatever_fails_a_run_it_is_one_line_and_no_half_checkpoint() {
    let first = Run::new();
    assert_eq!(first.finish(&[]).2, 0);
    let model = Model { good: first.last_checkpoint(), folder: tempfile::tempdir().unwrap() };
    let config = |folder: PathBuf| from_folder(&folder);
    let norm = "model.norm.weight";
    let shard = "model-00002-of-00002.safetensors";
    let without_shard = model.spoilt(|folder| {
        fs::remove_file(folder.join(weights::SINGLE)).unwrap();
        let index = format!("{{\"metadata\": {{}}, \"weight_map\": {{\"{norm}\": \"{shard}\"}}}}");
        fs::write(folder.join(weights::INDEX), index).unwrap();
    });
    let cut = model.spoilt(|folder| {
        fs::File::options().write(true).open(folder.join(weights::SINGLE)).unwrap().set_len(5_000).unwrap();
    });
    let other_tokenizer = model.spoilt(|folder| {
        let path = folder.join("tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let count = vocabulary.len();
        vocabulary.extend((0..1_000).map(|number| (format!("word{number}"), json!(count + 1_000 + number))));
        fs::write(path, tokenizer.to_string()).unwrap();
    });
    let huge = CONFIG.replace("hidden_size = 32\nlayers = 2", "hidden_size = 16384\nlayers = 256");
    let huge = huge.replace("intermediate_size = 64", "intermediate_size = 131072");
    let short = CONFIG.replace("document_tokens_max = 4096", "document_tokens_max = 16");
    let narrow = CONFIG.replace("head_dim = 16", "head_dim = 16\npositions_max = 256");
    let full = "trap '' XFSZ; ulimit -f 40;";
    for (what, config, shell, line) in [
        (
            "a loss that is no number",
            config(model.with(norm, |norm| norm * f64::NAN)),
            "",
            "error: the loss is NaN and the gradient's length NaN at step 1 ",
        ),
        ("no memory", huge, "", "error: out of memory: "),
        (
            "a missing shard",
            config(without_shard),
            "",
            "error: MODEL/model-00002-of-00002.safetensors: No such file or directory (os error 2)",
        ),
        (
            "another number format",
            config(model.with(norm, |norm| norm.to_kind(Kind::Int64))),
            "",
            "error: MODEL: model.norm.weight is stored as Int64; weights are F32, BF16 or F16",
        ),
        (
            "a file that was cut short",
            config(cut),
            "",
            "error: MODEL/model.safetensors: is cut short: it has 5000 bytes and its header tells of ",
        ),
        ("another model's tokenizer", config(other_tokenizer), "", "error: MODEL: the tokenizer has "),
        (
            "a pin of nothing to train on",
            short,
            "",
            "error: pin train: nothing is left to train on: 0 trajectories trained on; ",
        ),
        (
            "trajectories beyond the model's context",
            narrow,
            "",
            "error: RUN/out/scratch: the longest trajectory has 2765 tokens and the model's context 256: give \
             data.document_tokens_max = 256, which leaves longer ones out",
        ),
        ("a full disk", CONFIG.to_string(), full, "error: RUN/out/checkpoints/.step-"),
    ] {
        let run = Run::new();
        fs::write(run.folder.path().join("sft.toml"), &config).unwrap();
        let output = run.command(shell, &[]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        let (run_folder, models) = (run.folder.path().display().to_string(), model.folder.path().display().to_string());
        let last = said.lines().last().unwrap().replace(&run_folder, "RUN");
        let last = match last.split_once(&format!("{models}/")) {
            // The folder's own name is chance.
            Some((before, after)) => format!("{before}MODEL{}", &after[after.find(['/', ':']).unwrap()..]),
            None => last,
        };
        assert!(last.starts_with(line), "{what}: {last}");
        assert_eq!(said.matches("error").count(), last.matches("error").count(), "{what}: one line: {said}");
        let left = fs::read_dir(run.out().join("checkpoints")).map_or(0, |left| left.count());
        assert_eq!(left, 0, "{what}");
    }
}

#[test]
fn what_is_wrong_is_one_line_and_exit_code_one() {
    let run = Run::new();
    let fails = |config: &str| {
        fs::write(run.folder.path().join("sft.toml"), config).unwrap();
        let (events, said, code) = run.finish(&[]);
        assert_eq!((events.len(), code), (0, 1), "{said}");
        said.lines().last().unwrap().replace(&run.folder.path().display().to_string(), "FOLDER")
    };
    let cuda = fails(&format!("device = \"cuda:7\"\n{}", CONFIG.replace("deterministic = true\n", "")));
    assert!(cuda.starts_with("error: device cuda:7 is asked for and libtorch sees "), "{cuda}");
    let model = fails("[model]\nfolder = \"/no/such/model\"");
    assert_eq!(model, "error: /no/such/model/config.json: No such file or directory (os error 2)");
    fs::remove_file(run.folder.path().join("part-0.parquet")).unwrap();
    assert!(fails(CONFIG).contains("part-0.parquet"));
}

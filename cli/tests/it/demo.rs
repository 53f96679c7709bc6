//! `webdancer demo`: every stage has something to do, and leaves what the next one takes.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use webdancer_tests::stub_model::{Answer, Asked, StubModel};

use crate::lake::sql;
use crate::{text, webdancer};

#[test]
fn the_demo_goes_from_pages_to_pinned_pools() {
    let folder = tempfile::tempdir().unwrap();
    let output = webdancer(folder.path(), &["--json", "--quiet", "demo", "--until", "pins", "--folder", "d"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap();
    assert_eq!(number("/questions/crawlqa"), 120);
    let questions = 120 + number("/questions/e2hqa");
    assert!(questions > 180, "{report}");
    assert_eq!(number("/trajectories"), 3 * questions);
    // Beside those that were sampled there are eight of the published format, over ten questions.
    assert_eq!((number("/tables/trajectories"), number("/tables/qa")), (3 * questions + 8, questions + 10));
    assert_eq!((number("/tables/rewards"), number("/tables/dead_letters")), (3 * questions + 8, 0));

    std::fs::write(folder.path().join("webdancer.toml"), "[lake]\nuri = \"d/lake\"\n").unwrap();
    let one = |query: &str| sql(folder.path(), query)[0]["n"].as_i64().unwrap();
    let pools = "SELECT count(*) AS n FROM pin('demo-sft') s JOIN pin('demo-rl') r ON r.qa_id = s.qa_id";
    assert_eq!(one(pools), 0);
    // Two of five attempts make a mistake: some questions are left, most are not.
    let left = one("SELECT count(*) AS n FROM pin('demo-rl')");
    assert!((5..60).contains(&left), "{left}");
    let accepted = "SELECT count(DISTINCT qa_id) AS n FROM pin('demo-sft') WHERE qa_id IN (SELECT qa_id FROM qa)";
    assert!(one(accepted) > 60);
    // Each pool is over an invented world of its own: nothing is trained on what is there to evaluate.
    for (pin, world) in [("demo-sft", "invented:1"), ("demo-rl", "invented:2")] {
        let worlds = format!(
            "SELECT DISTINCT q.attributes->>'world' AS world FROM pin('{pin}') p JOIN current_qa q ON q.qa_id = p.qa_id"
        );
        assert_eq!(sql(folder.path(), &worlds), json!([{ "world": world }]));
    }
    let reasons = sql(folder.path(), "SELECT DISTINCT reason FROM funnel WHERE reason IS NOT NULL ORDER BY reason");
    for reason in ["bad_arguments", "repetition", "too_few_actions", "unknown_tool", "wrong_answer"] {
        assert!(reasons.as_array().unwrap().contains(&json!({ "reason": reason })), "{reason}: {reasons}");
    }
}

/// A trainer that learns nothing: it tells two validation losses and two checkpoints of each run, and serves at the address
/// that it is given.
const TRAINER: &str = r#"#!/bin/sh
kind=$1; shift
if [ "$kind" = serve ]; then echo "serve $*" >> served; echo "$STUB_URL"; cat > rest; echo ended >> served; exit; fi
while [ $# -gt 0 ]; do
  case $1 in
    --run) run=$2 ;;
    --out) out=$2 ;;
    --config) config=$2 ;;
  esac
  shift 2
done
grep -q '^folder = ' "$config" && kind=more
cp "$config" "seen-$kind.toml"
event() { echo "{\"specversion\":\"1.0\",\"id\":\"$run-$2\",\"source\":\"stub\",\"type\":\"webdancer.$1.v1\",\"runid\":\"$run\",\"data\":$3}"; }
loss() { event metric "m$1" "{\"name\":\"validation_loss\",\"step\":$1,\"value\":$2}"; }
checkpoint() { mkdir -p "$out/checkpoints/step-$1"; event checkpoint "c$1" "{\"digest\":\"$kind-$1\",\"step\":$1,\"uri\":\"$out/checkpoints/step-$1\"}"; }
event metric u1 "{\"name\":\"updates\",\"step\":1,\"value\":3}"
loss 0 6.5; checkpoint 0; loss 40 0.5; checkpoint 40
"#;

/// The answers of the lake's questions.
fn answers(folder: &Path) -> HashMap<String, String> {
    let rows = sql(folder, "SELECT question, answer FROM qa WHERE attributes->>'world' = 'real'");
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_string();
    rows.as_array().unwrap().iter().map(|row| (text(row, "question"), text(row, "answer"))).collect()
}

/// `base` writes nonsense, and so does `sft` where it has no tools; with them, and behind all further training, every answer
/// is known.
fn policy(folder: &Path, known: &OnceLock<HashMap<String, String>>, asked: &Asked) -> Answer {
    if ["base", "closed_book"].iter().any(|name| asked.body["model"] == *name) {
        return Answer::says("hm");
    }
    let question = asked.last_message().trim_start_matches("User: ");
    let answer = &known.get_or_init(|| answers(folder))[question];
    Answer::says(format!("<think>\nI know.\n</think>\n<answer>\n{answer}\n</answer>"))
}

/// `demo --quick` with the trainer, in a folder whose `webdancer.toml` names the demo's lake.
fn quick(folder: &Path, url: &str) -> std::process::Output {
    let program = folder.join("trainer");
    std::fs::write(&program, TRAINER).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_webdancer"))
        .args(["--json", "--quiet", "demo", "--quick", "--folder", "d", "--trainer", "./trainer"])
        .current_dir(folder)
        .env("STUB_URL", url)
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_goes_on_to_the_scores_of_what_it_trained() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_path_buf();
    std::fs::write(place.join("webdancer.toml"), "[lake]\nuri = \"d/lake\"\n").unwrap();
    let (known, of_model) = (OnceLock::new(), place.clone());
    let model = StubModel::scripted(move |asked, _| policy(&of_model, &known, asked)).await;
    let output = quick(&place, &model.url());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    for metric in ["pass_at_1", "pass_at_3", "maj_at_3"] {
        let expected = json!({"base": 0.0, "closed_book": 0.0, "sft": 1.0, "sft_more": 1.0, "dapo": 1.0});
        assert_eq!(summary[metric], expected, "{metric}: {summary}");
    }
    for run in ["sft", "dapo", "sft_more"] {
        assert!(summary["training"][run]["seconds"].as_f64() > Some(0.0), "{run}: {summary}");
    }
    assert!(std::fs::read_to_string(place.join("d/scores.svg")).unwrap().contains(">100.0</text>"));
    // Reinforcement and further fine-tuning began with what fine-tuning ended with.
    let seen = |kind: &str| std::fs::read_to_string(place.join(format!("seen-{kind}.toml"))).unwrap();
    assert!(seen("sft").starts_with("preset = \"demo\"\nseed = 1\n"), "{}", seen("sft"));
    assert!(seen("dapo").starts_with("preset = \"demo\"\nseed = 1\n"), "{}", seen("dapo"));
    assert!(
        seen("more").contains("\n[model]\nfolder = \"") && seen("more").contains("step-40\"\n"),
        "{}",
        seen("more")
    );
    // All checkpoints were served, two at a time, and no server is left.
    let served = std::fs::read_to_string(place.join("served")).unwrap();
    let served: Vec<&str> = served.lines().collect();
    assert_eq!(served.len(), 10, "{served:?}");
    let (ended, begun): (Vec<&str>, Vec<&str>) = served.iter().partition(|line| **line == "ended");
    assert_eq!(ended.len(), 5);
    let of = |step: &str| begun.iter().filter(|line| line.ends_with(&format!("/checkpoints/{step}"))).count();
    assert_eq!((of("step-0"), of("step-40")), (1, 4), "{served:?}");
    let is_ended = |lines: &[&str]| lines.iter().filter(|line| **line == "ended").count();
    for count in 1..=served.len() {
        let ended = is_ended(&served[..count]);
        assert!((count - ended) - ended <= 2, "{served:?}");
    }
    // Every attempt names the checkpoint that made it.
    let attempts = sql(
        &place,
        "SELECT policy_checkpoint_digest AS checkpoint, count(*) AS n, count(DISTINCT qa_id) AS questions \
         FROM trajectories WHERE policy_checkpoint_digest IS NOT NULL GROUP BY 1 ORDER BY 1",
    );
    let of = |digest: &str, n: u32| json!({"checkpoint": digest, "n": n, "questions": 24});
    assert_eq!(attempts, json!([of("dapo-40", 72), of("more-40", 72), of("sft-0", 72), of("sft-40", 144)]));
    // Each policy has a run of the benchmark, scored whole, and stands on the board by its name.
    let runs = "SELECT json_get_str(r.config, 'policy') AS policy, r.state, count(*) AS judged, \
         count(DISTINCT e.policy_model) AS models, count(DISTINCT e.judge) AS judges FROM run_state AS r \
         JOIN evaluations AS e ON e.run_id = r.run_id WHERE r.kind = 'eval' \
         AND json_get_str(r.config, 'benchmark', 'benchmark') = 'demo' GROUP BY r.run_id, r.config, r.state ORDER BY 1";
    let run = |name: &str| {
        let policy = format!("endpoint:{name}");
        json!({"policy": policy, "state": "finished", "judged": 72, "models": 1, "judges": 1})
    };
    assert_eq!(sql(&place, runs), json!(["base", "closed_book", "dapo", "sft", "sft_more"].map(run)));
    let clusters = "SELECT count(*) AS n FROM qa WHERE generator = 'demo' AND attributes->>'cluster' IS NULL";
    assert_eq!(sql(&place, clusters)[0]["n"], 0);
    // What was attempted there is in no pool.
    let pooled = "SELECT count(*) AS n FROM (SELECT qa_id FROM sft_pool UNION ALL SELECT qa_id FROM rl_pool) AS p \
         JOIN qa AS q ON q.qa_id = p.qa_id WHERE q.method = 'benchmark'";
    assert_eq!(sql(&place, pooled)[0]["n"], 0);
    for pool in ["sft", "rl"] {
        let trained =
            format!("SELECT count(*) AS n FROM pin('demo-{pool}') s JOIN pin('demo-eval') e ON e.qa_id = s.qa_id");
        assert_eq!(sql(&place, &trained)[0]["n"], 0);
    }
    assert!(served[0].starts_with("serve --listen 127.0.0.1:0 --until-input-ends --sequences-max 64 --checkpoint "));
}

#[test]
fn what_is_missing_is_said_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let output = webdancer(folder.path(), &["demo", "--trainer", "./missing"], b"");
    let message = text(&output.stderr);
    assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{message}");
    assert!(message.contains("/missing is no program; `") && message.contains("demo --until pins` does without"));
    assert!(!folder.path().join("demo-lake").exists());
}

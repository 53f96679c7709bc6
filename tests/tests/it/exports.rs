//! Pins as other trainers read them: the files, and the checks that LLaMA-Factory and verl document, reproduced here.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use crate::harness::{Site, repository};

/// The project's sample, with a trajectory that is restricted and one whose answer was forced.
fn site() -> Site {
    let site = Site::new("");
    let sample = repository("deploy/demo");
    site.ok(&["import", "trajectories", sample.join("demo_trajectories.jsonl").to_str().unwrap()]);
    site.ok(&["import", "qa", sample.join("demo_qa.jsonl").to_str().unwrap()]);
    let more = |id: &str, with: &str| {
        format!(
            "SELECT '1.0' AS specversion, '{id}' AS id, 'test' AS source, 'webdancer.trajectory.v1' AS type, named_struct(
               'trajectory_id', '{id}', 'qa_id', qa_id, 'attempt', 9, 'termination', 'forced', 'n_turns', n_turns,
               'n_tool_calls', n_tool_calls, 'question', question, 'answer', answer, 'turn_thought', turn_thought,
               'turn_tool', turn_tool, 'turn_arguments', turn_arguments, 'turn_observation', turn_observation,
               'turn_observation_digest', turn_observation_digest, 'turn_raw', turn_raw, {with}) AS data
             FROM trajectories ORDER BY event_id LIMIT 1"
        )
    };
    let rows = site.ok(&[
        "sql",
        "--format",
        "ndjson",
        &format!(
            "{}; {}; SELECT '1.0' AS specversion, 'b' AS id, 'test' AS source, 'webdancer.qa.v1' AS type, named_struct(
               'qa_id', 'qa-b', 'method', 'benchmark', 'question', 'Who?', 'answer', 'I') AS data",
            more("t-restricted", "'restricted', true"),
            more("t-forced", "'final_instruction', 'Answer now.'")
        ),
    ]);
    site.append(&rows.lines().map(str::to_string).collect::<Vec<_>>());
    site.ok(&["pin", "create", "sft", "--sql", "SELECT * FROM trajectories"]);
    site.ok(&["pin", "create", "rl", "--sql", "SELECT * FROM current_qa"]);
    site
}

/// The messages of the sample's lines, of which each is to be exported once.
struct Published(Vec<Value>);

impl Published {
    fn sample() -> Published {
        let text = std::fs::read_to_string(repository("deploy/demo/demo_trajectories.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["messages"].clone());
        Published(lines.collect())
    }

    fn take(&mut self, messages: &Value) {
        let found = self.0.iter().position(|published| published == messages);
        self.0.remove(found.unwrap_or_else(|| panic!("these are no published messages, or come twice: {messages}")));
    }
}

fn parquet(site: &Site, file: &str) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(site.path(file)).unwrap()).unwrap();
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

#[test]
fn trajectories_for_llamafactory_are_the_published_messages_and_what_it_would_skip_is_named() {
    let site = site();
    let finished = site.run(&["pin", "export", "sft", "--as", "llamafactory", "--template", "qwen3", "--json"]);
    assert_eq!(finished.status.code(), Some(3), "{}", finished.stderr);
    assert_eq!(
        finished.stderr,
        "webdancer: pin sft: 1 rows cannot be exported: t-forced: user and assistant do not alternate\n"
    );
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(
        report,
        json!({"rows": 8, "left_out": {"restricted": 1, "user and assistant do not alternate": 1},
               "folder": "sft-llamafactory", "files": ["sft.jsonl", "dataset_info.json", "train.yaml"]})
    );
    let mut published = Published::sample();
    let text = std::fs::read_to_string(site.path("sft-llamafactory/sft.jsonl")).unwrap();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        published.take(&row["messages"]);
        let roles: Vec<&str> =
            row["messages"].as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
        // What its converter asks for: after the system message an even count, user and assistant in turn.
        let (system, turns) = roles.split_first().unwrap();
        assert_eq!((*system, turns.len() % 2), ("system", 0));
        assert!(turns.chunks(2).all(|pair| pair == ["user", "assistant"]), "{roles:?}");
    }
    assert_eq!(published.0, [Value::Null; 0]);
    let info: Value =
        serde_json::from_slice(&std::fs::read(site.path("sft-llamafactory/dataset_info.json")).unwrap()).unwrap();
    assert_eq!((&info["sft"]["file_name"], &info["sft"]["formatting"]), (&json!("sft.jsonl"), &json!("sharegpt")));
    let config = std::fs::read_to_string(site.path("sft-llamafactory/train.yaml")).unwrap();
    assert!(config.contains("\ntemplate: \"qwen3\"\n") && config.contains("\ncutoff_len: 32768\n"), "{config}");

    let refused = site.run(&["pin", "export", "rl", "--as", "llamafactory"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.starts_with("webdancer: pin rl holds questions, and LLaMA-Factory is for SFT"));
    site.ok(&["pin", "create", "neither", "--sql", "SELECT qa_id FROM qa"]);
    let refused = site.run(&["pin", "export", "neither", "--as", "verl"]);
    assert!(refused.stderr.contains("has the columns of neither trajectories nor questions"), "{}", refused.stderr);
}

#[test]
fn trajectories_for_verl_are_messages_in_parquet() {
    let site = site();
    let finished = site.run(&["pin", "export", "sft", "--as", "verl", "--out", "v"]);
    assert_eq!(finished.status.code(), Some(3), "{}", finished.stderr);
    assert_eq!(
        finished.stdout,
        "8 rows in v: sft.parquet, sft.yaml\n  1 left out: restricted\n  1 left out: user and assistant do not alternate\n"
    );
    let rows = parquet(&site, "v/sft.parquet");
    let messages = rows.column_by_name("messages").unwrap().as_list::<i32>();
    let mut published = Published::sample();
    for row in 0..rows.num_rows() {
        let said = messages.value(row);
        let said = said.as_struct();
        let (content, role) = (said.column_by_name("content").unwrap(), said.column_by_name("role").unwrap());
        let exported: Vec<Value> = (0..said.len())
            .map(|i| json!({"role": role.as_string::<i32>().value(i), "content": content.as_string::<i32>().value(i)}))
            .collect();
        published.take(&json!(exported));
    }
    assert_eq!(published.0, [Value::Null; 0]);
}

#[test]
fn questions_for_verl_have_the_columns_that_it_documents() {
    let site = site();
    let finished = site.run(&["pin", "export", "rl", "--as", "verl", "--out", "v"]);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let rows = parquet(&site, "v/rl.parquet");
    let types: Vec<String> =
        rows.schema().fields().iter().map(|field| format!("{} {}", field.name(), plain(field.data_type()))).collect();
    assert_eq!(
        types,
        [
            "data_source string",
            "prompt list<struct<content: string, role: string>>",
            "ability string",
            "reward_model struct<ground_truth: string, style: string>",
            "extra_info struct<answers: list<string>, index: int64, qa_id: string, split: string>",
        ]
    );
    let index = rows.column_by_name("extra_info").unwrap().as_struct().column_by_name("index").unwrap().clone();
    let count = rows.num_rows() as i64;
    assert_eq!(index.as_primitive::<Int64Type>().values().to_vec(), (0..count).collect::<Vec<_>>());
    assert_eq!(site.number("SELECT count(*) FROM current_qa") - 1, count, "all but the benchmark's");
    assert!(finished.stdout.ends_with("  1 left out: of a benchmark\n"), "{}", finished.stdout);
    let config = std::fs::read_to_string(site.path("v/rl.yaml")).unwrap();
    assert!(config.contains("max_prompt_length: 4096") && config.contains("path: reward.py"), "{config}");
    assert!(config.contains("  train_files: \"rl.parquet\"\n") && config.contains("  val_files: \"rl.parquet\"\n"));
    // The same export again is the same files.
    let first = std::fs::read(site.path("v/rl.parquet")).unwrap();
    site.ok(&["pin", "export", "rl", "--as", "verl", "--out", "w"]);
    assert_eq!(std::fs::read(site.path("w/rl.parquet")).unwrap(), first);
}

fn plain(data_type: &arrow::datatypes::DataType) -> String {
    use arrow::datatypes::DataType;
    match data_type {
        DataType::Utf8 => "string".to_string(),
        DataType::Int64 => "int64".to_string(),
        DataType::List(element) => format!("list<{}>", plain(element.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|f| format!("{}: {}", f.name(), plain(f.data_type()))).collect();
            format!("struct<{}>", fields.join(", "))
        }
        other => other.to_string(),
    }
}

#[test]
fn the_reward_for_verl_is_a_tenth_for_the_format_and_nine_for_the_answer() {
    let call = |name: &str| {
        format!(
            "<think>\nx\n</think>\n<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {{\"query\": [\"a\"]}}}}\n</tool_call>"
        )
    };
    let observed = "<tool_response>\n<answer>not mine</answer>\n</tool_response>";
    let answer = |text: &str| format!("<think>\ny\n</think>\n<answer>\n{text}\n</answer>");
    let whole =
        |between: [&str; 2], text: &str| [&call("search"), between[0], observed, between[1], &answer(text)].concat();
    let chatml = ["<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"];
    let cases = [
        (whole(chatml, "The  lomé."), 1.0, 1.0),
        (whole(["\nuser\n", "\nassistant\n"], "Lomé"), 1.0, 1.0),
        (whole(chatml, "Lome"), 1.0, 1.0),
        (whole(chatml, "Accra"), 0.1, 0.0),
        (answer("Lomé"), 1.0, 1.0),
        // The prompt's last words may be the first tag.
        (answer("Lomé").replacen("<think>", "", 1), 1.0, 1.0),
        // No observation, a tool that is not there, arguments that are no object, words after the answer, no thought.
        (call("search") + &answer("Lomé"), 0.9, 1.0),
        ([&call("calculate"), observed, &answer("Lomé")].concat(), 0.9, 1.0),
        (whole(chatml, "Lomé").replace("{\"query\": [\"a\"]}", "\"a\""), 0.9, 1.0),
        (answer("Lomé") + "Sure!", 0.9, 1.0),
        ("<answer>Lomé</answer>".to_string(), 0.9, 1.0),
        (answer(""), 0.0, 0.0),
        ([&call("search"), observed].concat(), 0.0, 0.0),
        (String::new(), 0.0, 0.0),
    ];
    let script = "import json, sys
sys.path.insert(0, sys.argv[1])
from reward import compute_score, normalise
for line in sys.stdin:
    text = json.loads(line)
    known = compute_score('webdancer', text, 'Lomé', extra_info={'answers': ['Lomé', 'Lome']})
    print(json.dumps([known['score'], known['acc'], normalise(text)]))";
    let folder = repository("agent/src/export");
    let mut python = Command::new("python3")
        .args(["-B", "-c", script, folder.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let forms = [
        "  The Grand   National. ",
        "O'Brien’s",
        "rock-and-roll",
        "1,000,000",
        "1,0000",
        "$50 %",
        "ＡＢＣ１２",
        "Cafe\u{301}",
        "北京。",
        "C++ and F#",
        "-5 to 3.14",
        "the",
        "a.b",
        "x-ray −7",
    ];
    let mut input = python.stdin.take().unwrap();
    for text in cases.iter().map(|(text, ..)| text.as_str()).chain(forms) {
        writeln!(input, "{}", json!(text)).unwrap();
    }
    drop(input);
    let output = python.wait_with_output().unwrap();
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), cases.len() + forms.len());
    for ((text, score, acc), line) in cases.iter().zip(&lines) {
        assert_eq!((line[0].as_f64(), line[1].as_f64()), (Some(*score), Some(*acc)), "{text}");
    }
    for (text, line) in forms.iter().zip(&lines[cases.len()..]) {
        assert_eq!(line[2], webdancer_agent::judge::normalise(text), "the judge's normal form of {text:?}");
    }
}

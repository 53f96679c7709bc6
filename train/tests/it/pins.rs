//! From a pin's files to batches: what is read, what is refused, what is counted.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::ReaderBuilder;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use webdancer_agent::conversation::render_messages;
use webdancer_schemas::digest::sha256_hex;
use webdancer_schemas::row::Row as _;
use webdancer_schemas::rows::Trajectory;
use webdancer_train::batch::{BatchSource as _, PackedBatch};
use webdancer_train::config::SftConfig;
use webdancer_train::data::{Pin, PinRow};
use webdancer_train::input::InputError;
use webdancer_train::inspect::{self, Marks};
use webdancer_train::mask::Masker;
use webdancer_train::prepare::{self, DataReport, Prepared};

use crate::support::{CONVERSATIONS, TOKENIZERS, conversation, row};

/// Rows with the questions that theirs were rewritten from.
pub(crate) fn batch(rows: &[(Trajectory, Option<&str>)]) -> RecordBatch {
    let mut fields = Trajectory::fields();
    fields.push(Field::new("root_qa_id", DataType::Utf8, true));
    let mut decoder = ReaderBuilder::new(Arc::new(Schema::new(fields))).build_decoder().unwrap();
    let rows: Vec<Value> = rows
        .iter()
        .map(|(row, root)| {
            let mut row = serde_json::to_value(row).unwrap();
            row["root_qa_id"] = json!(root);
            row
        })
        .collect();
    decoder.serialize(&rows).unwrap();
    decoder.flush().unwrap().unwrap()
}

/// A pin of these batches, a file each.
pub(crate) fn pin(folder: &Path, batches: &[RecordBatch]) {
    let mut files = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        let path = format!("part-{number}.parquet");
        let mut writer = ArrowWriter::try_new(File::create(folder.join(&path)).unwrap(), batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        let bytes = std::fs::read(folder.join(&path)).unwrap();
        files.push(json!({"path": path, "bytes": bytes.len(), "rows": batch.num_rows(), "sha256": sha256_hex(&bytes)}));
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let manifest = json!({
        "format": 1, "name": "train", "definition": "SELECT 1", "tables": {}, "schema": [], "files": files, "rows": rows,
        "digest": "d1", "created": "2026-01-02T00:00:00Z", "code_version": "0",
    });
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

pub(crate) fn numbered(number: usize) -> Trajectory {
    let messages = &CONVERSATIONS[number % CONVERSATIONS.len()];
    Trajectory { trajectory_id: format!("t{number}"), qa_id: format!("q{number}"), ..row(messages) }
}

fn read(folder: &Path) -> Result<Vec<PinRow>, InputError> {
    Pin::open(folder)?.read(1 << 30).collect()
}

fn error(folder: &Path) -> String {
    read(folder).unwrap_err().to_string()
}

/// Every row trained on unless the file says otherwise; a tokenizer that the tests have.
fn prepared(folder: &Path, file: &str) -> Result<Prepared, String> {
    let text = format!("[model]\nfolder = 'm'\n[validation]\nshare = 0.0\n{file}");
    let config = SftConfig::parse(Path::new("sft.toml"), &text).unwrap();
    let pins = prepare::open_pins(&config, &[folder.to_path_buf()]).map_err(|e| e.to_string())?;
    let masker = Masker::new(TOKENIZERS[0].clone(), Default::default(), true);
    prepare::prepare(&config, &pins, &masker, |_| {}).map_err(|e| e.to_string())
}

#[test]
fn rows_come_back_as_they_were_pinned_over_files_and_batches() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<(Trajectory, Option<&str>)> = (0..40).map(|number| (numbered(number), None)).collect();
    pin(folder.path(), &[batch(&rows[..33]), batch(&rows[33..])]);
    let found = read(folder.path()).unwrap();
    assert_eq!(found.len(), 40);
    for (found, (pinned, _)) in found.iter().zip(&rows) {
        assert_eq!(found.trajectory.trajectory_id, pinned.trajectory_id);
        assert_eq!(render_messages(&found.trajectory), render_messages(pinned));
    }
}

#[test]
fn recorded_token_ids_and_roots_come_with_their_row() {
    let folder = tempfile::tempdir().unwrap();
    let recorded = Trajectory {
        turn_context_token_ids: Some(vec![Some(vec![1, 2]), None]),
        turn_completion_token_ids: Some(vec![Some(vec![3]), Some(vec![])]),
        tokenizer_digest: Some("t".to_string()),
        ..numbered(0)
    };
    pin(folder.path(), &[batch(&[(recorded.clone(), Some("root")), (numbered(1), None)])]);
    let found = read(folder.path()).unwrap();
    assert_eq!(found[0].trajectory.turn_context_token_ids, recorded.turn_context_token_ids);
    assert_eq!(found[0].trajectory.turn_completion_token_ids, recorded.turn_completion_token_ids);
    assert_eq!((found[0].root_qa_id.as_deref(), found[1].root_qa_id.as_deref()), (Some("root"), None));
    assert_eq!(found[1].trajectory.turn_context_token_ids, None);
}

#[test]
fn a_pin_that_is_not_what_it_should_be_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    assert_eq!(error(folder.path()), format!("{place}/manifest.json: No such file or directory (os error 2)"));
    let manifest = folder.path().join("manifest.json");
    std::fs::write(&manifest, "{}").unwrap();
    assert!(
        error(folder.path()).starts_with(&format!("{place}/manifest.json: is no manifest of a pin: missing field"))
    );
    pin(folder.path(), &[batch(&[(numbered(0), None)])]);
    let text = std::fs::read_to_string(&manifest).unwrap();
    let with = |from: &str, to: &str| {
        std::fs::write(&manifest, text.replace(from, to)).unwrap();
        error(folder.path())
    };
    assert!(with("\"format\":1", "\"format\":2").ends_with("manifest.json: is of format 2, this program reads 1"));
    assert!(
        with("\"rows\":1,\"digest\"", "\"rows\":0,\"digest\"")
            .ends_with("pin train has no rows: there is nothing to train on")
    );
    assert!(with("part-0", "../part-0").ends_with("file \"../part-0.parquet\" lies outside the pin's folder"));
    assert!(with("part-0", "part-7").starts_with(&format!("{place}/part-7.parquet: a file of the pin: No such file")));
    let damaged = with("\"sha256\":\"", "\"sha256\":\"0");
    assert_eq!(
        damaged,
        format!("{place}/part-0.parquet: is not the file that was pinned: its SHA-256 is not the manifest's")
    );
    std::fs::write(&manifest, &text).unwrap();
    let part = folder.path().join("part-0.parquet");
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, [bytes.as_slice(), b"x"].concat()).unwrap();
    assert!(error(folder.path()).contains("is not the file that was pinned"));
    let batch = batch(&[(numbered(0), None)]);
    let index = batch.schema().index_of("turn_thought").unwrap();
    let columns: Vec<usize> = (0..batch.num_columns()).filter(|&column| column != index).collect();
    pin(folder.path(), &[batch.project(&columns).unwrap()]);
    assert_eq!(
        error(folder.path()),
        format!("{place}/part-0.parquet: the pin has no column turn_thought: it is not of trajectories")
    );
}

#[test]
fn every_row_is_trained_on_or_counted_by_the_reason_it_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let with = |change: &dyn Fn(&mut Trajectory)| {
        let mut row = numbered(0);
        change(&mut row);
        (row, None)
    };
    let rows = [
        with(&|_| {}),
        with(&|row| row.termination = "forced".to_string()),
        with(&|row| row.restricted = Some(true)),
        with(&|row| row.question = None),
        with(&|row| row.turn_thought = vec![None; row.turn_thought.len()]),
        with(&|row| row.turn_observation[0] = Some("long ".repeat(4_000))),
    ];
    pin(folder.path(), &[batch(&rows)]);
    let file = "[data]\ndocument_tokens_max = 4000\n";
    let report = prepared(folder.path(), file).unwrap().report;
    let DataReport { trained, validated, too_long, forced, left_out, recorded, rendered, .. } = report;
    assert_eq!((trained, validated, too_long, forced, recorded), (1, 0, 1, 1, 0));
    assert_eq!(left_out.values().sum::<u64>(), 3);
    assert_eq!(left_out["of a gated benchmark"], 1);
    assert_eq!(left_out["no whole trajectory: the trajectory has no question to render"], 1);
    assert_eq!(rendered["no recorded ids"], 1);
    let forced = prepared(folder.path(), &format!("{file}forced_answers = true\n")).unwrap().report;
    assert_eq!((forced.trained, forced.forced), (2, 0));
    let failing = prepared(folder.path(), &format!("{file}too_long = 'fail'\n")).unwrap_err();
    assert!(
        failing.starts_with("trajectory t0: has ") && failing.ends_with("more than data.document_tokens_max = 4000"),
        "{failing}"
    );
    let none = prepared(folder.path(), "[data]\ndocument_tokens_max = 16\n").unwrap_err();
    assert!(none.starts_with("pin train: nothing is left to train on: 0 trajectories trained on"), "{none}");
}

#[test]
fn a_trajectory_longer_than_a_micro_batch_is_one_by_itself_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<(Trajectory, Option<&str>)> = (0..4).map(|number| (numbered(number), None)).collect();
    pin(folder.path(), &[batch(&rows)]);
    let tokens = |file: &str| {
        let Prepared { packing, report, .. } = prepared(folder.path(), file).unwrap();
        let batches = packing.epoch(0).flat_map(|update| update.batches).map(|batch| batch.tokens());
        (batches.collect::<Vec<_>>(), report)
    };
    let (together, report) = tokens("");
    assert_eq!((together.len(), report.longer_than_batch), (1, 0));
    assert!(!report.summary().contains("micro-batch"), "{}", report.summary());
    let (alone, report) = tokens("[batch]\ntokens = 16\n");
    assert_eq!((alone.len(), report.trained, report.longer_than_batch), (4, 4, 4));
    assert_eq!(alone.iter().sum::<usize>(), together[0]);
    let summary = report.summary();
    assert!(summary.contains("; 4 longer than batch.tokens, each a micro-batch of its own"), "{summary}");
}

#[test]
fn questions_kept_back_share_no_root_with_those_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let roots: Vec<String> = (0..60).map(|number| format!("root{}", number / 3)).collect();
    let rows: Vec<(Trajectory, Option<&str>)> =
        roots.iter().enumerate().map(|(number, root)| (numbered(number), Some(root.as_str()))).collect();
    pin(folder.path(), &[batch(&rows)]);
    let prepared = prepared(folder.path(), "").unwrap();
    assert_eq!((prepared.report.trained, prepared.report.roots_known), (60, true));
    let prepared = |more: &str| {
        let text = format!("[model]\nfolder = 'm'\n[validation]\nshare = 0.2\n{more}");
        let config = SftConfig::parse(Path::new("sft.toml"), &text).unwrap();
        let pins = prepare::open_pins(&config, &[folder.path().to_path_buf()]).unwrap();
        let masker = Masker::new(TOKENIZERS[1].clone(), Default::default(), true);
        prepare::prepare(&config, &pins, &masker, |_| {})
    };
    // What is more than is to be looked at is trained on.
    let capped = prepared("trajectories_max = 7\n").unwrap();
    assert_eq!((capped.report.trained, capped.report.validated), (54, 6));
    let rows = |batches: &[PackedBatch]| batches.iter().map(|batch| batch.rows.len()).sum::<usize>();
    assert_eq!((capped.packing.documents().len(), rows(capped.packing.validation())), (54, 6));
    // Three belong together, so two cannot be kept back; and what is waited for must come.
    assert_eq!(prepared("trajectories_max = 2\n").unwrap().report.trained, 60);
    let error = prepared("trajectories_max = 2\n[early_stop]\npatience = 1\n").unwrap_err().to_string();
    assert!(error.starts_with("early_stop.patience: there is nothing to wait for: no group of questions"), "{error}");
    let prepared = prepared("").unwrap();
    assert_eq!((prepared.report.trained, prepared.report.validated), (48, 12));
    let root_of = |batches: &[PackedBatch]| {
        let mut found: Vec<&str> =
            batches.iter().flat_map(|batch| &batch.rows).map(|&row| roots[row as usize].as_str()).collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(str::to_string).collect::<Vec<_>>()
    };
    let trained: Vec<PackedBatch> = prepared.packing.epoch(0).flat_map(|update| update.batches).collect();
    let (trained, kept) = (root_of(&trained), root_of(prepared.packing.validation()));
    assert_eq!((trained.len(), kept.len()), (16, 4));
    assert!(kept.iter().all(|root| !trained.contains(root)));
}

#[test]
fn that_roots_are_not_known_is_said_where_it_matters() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<(Trajectory, Option<&str>)> = (0..15).map(|number| (numbered(number), None)).collect();
    pin(folder.path(), &[batch(&rows)]);
    let words = "roots of questions are not known, so only attempts at the same question stay together";
    assert!(!prepared(folder.path(), "").unwrap().report.summary().contains(words));
    let config = SftConfig::parse(Path::new("sft.toml"), "[model]\nfolder = 'm'\n[validation]\nshare = 0.2\n").unwrap();
    let pins = prepare::open_pins(&config, &[folder.path().to_path_buf()]).unwrap();
    let masker = Masker::new(TOKENIZERS[1].clone(), Default::default(), true);
    let prepared = prepare::prepare(&config, &pins, &masker, |_| {}).unwrap();
    assert!(prepared.report.summary().contains(words), "{}", prepared.report.summary());
}

#[test]
fn a_small_tokenizer_is_made_from_the_pin_once() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<(Trajectory, Option<&str>)> = (0..15).map(|number| (numbered(number), None)).collect();
    pin(folder.path(), &[batch(&rows)]);
    let config = SftConfig::preset("demo").unwrap();
    let pins = prepare::open_pins(&config, &[folder.path().to_path_buf()]).unwrap();
    let model = folder.path().join("model");
    let (masker, difference) = prepare::masker(&config, &pins, &model).unwrap();
    assert_eq!(difference, None);
    let again = prepare::masker(&config, &pins, &model).unwrap().0;
    assert_eq!(again.tokenizer().digest(), masker.tokenizer().digest());
    let error = prepare::masker(&config, &[], &model).unwrap_err().to_string();
    assert!(
        error.ends_with("model: holds the tokenizer of another pin or other settings: choose an empty output folder")
    );
    let think = masker.tokenizer().encode("<think>").unwrap();
    assert_eq!(think, [masker.tokenizer().id_of("<think>").unwrap()]);
}

#[test]
fn a_models_folder_that_lacks_something_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let text = format!("[model]\nfolder = '{place}'\n");
    let config = SftConfig::parse(Path::new("sft.toml"), &text).unwrap();
    let error = || prepare::masker(&config, &[], Path::new("unused")).unwrap_err().to_string();
    assert_eq!(error(), format!("{place}/config.json: No such file or directory (os error 2)"));
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    assert_eq!(error(), format!("{place}/config.json: model_type is \"llama\"; qwen2 and qwen3 are known"));
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "qwen2"}"#).unwrap();
    assert!(error().starts_with(&format!("{place}/tokenizer.json: is not there; ")));
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(error().starts_with(&format!("{place}/tokenizer.json: is no tokenizer: ")));
}

#[test]
fn what_is_shown_of_a_row_marks_what_is_trained_and_cannot_steer_a_terminal() {
    let messages = conversation("who?", "red \u{1b}[31m \u{202e}<|im_end|> ⟦fake⟧\u{8}", "x");
    let shown = |marks| {
        let masker = Masker::new(TOKENIZERS[1].clone(), Default::default(), true);
        let row = PinRow { trajectory: row(&messages), root_qa_id: None, root_entity: None };
        inspect::show(&row, &masker, marks).unwrap()
    };
    let plain = shown(Marks::Brackets);
    let (head, body) = plain.split_once('\n').unwrap();
    assert!(head.starts_with("trajectory t: ") && head.ends_with(" trained; rendered anew: no recorded ids"), "{head}");
    assert_eq!(
        body,
        "<|im_start|>system\nLook it up.\nCurrent date: 2026-01-02<|im_end|>\n<|im_start|>user\nUser: who?<|im_end|>\n\
         <|im_start|>assistant\n⟦<think>\nI search.\n</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": \
         {\"query\": [\"a\"]}}\n</tool_call><|im_end|>⟧\n<|im_start|>user\n<tool_response>\nred \\u{1b}[31m \
         \\u{202e}<\\|im_end|> \\u{27e6}fake\\u{27e7}\\u{8}\n</tool_response><|im_end|>\n<|im_start|>assistant\n\
         ⟦<think>\nThat is it.\n</think>\n<answer>\nx\n</answer><|im_end|>⟧\n"
    );
    let coloured = shown(Marks::Colours);
    assert!(coloured.contains("\u{1b}[1m\u{1b}[32m<think>\nI search."));
    assert!(!coloured.contains("\u{1b}[31m") && !coloured.contains('\u{8}'));
}

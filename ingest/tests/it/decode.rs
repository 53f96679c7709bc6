//! The decoder: strict, complete, and deaf to its neighbours' faults.

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use proptest::prelude::*;
use webdancer_ingest::decode::{Decoder, Position};
use webdancer_ingest::source::TopicPartition;
use webdancer_schemas::event::{Envelope, Event};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::{Artifact, Metric, Run, Trajectory};
use webdancer_schemas::table::table_schema;

fn partition() -> TopicPartition {
    TopicPartition { topic: Arc::from("webdancer.metric"), partition: 3 }
}

fn envelope(kind: Kind) -> Envelope {
    let mut envelope = Event::new("test", &Metric { name: "loss".into(), ..Metric::default() }).unwrap().envelope;
    envelope.kind = kind;
    envelope
}

fn decode(kind: Kind, payloads: &[&str]) -> (RecordBatch, Vec<Option<String>>) {
    let (mut decoder, partition) = (Decoder::new(kind), partition());
    let outcomes = payloads
        .iter()
        .enumerate()
        .map(|(offset, payload)| {
            let position = Position { partition: &partition, offset: offset as i64, timestamp_ms: 1000 };
            decoder.push(&envelope(kind), payload.as_bytes(), position).err().map(|e| e.to_string())
        })
        .collect();
    (decoder.finish().unwrap(), outcomes)
}

const GOOD: &str = r#"{"name":"loss","step":1,"value":0.5}"#;

#[test]
fn a_bad_row_is_named_and_its_neighbours_are_unharmed() {
    let cases = [
        (r#"{"name":"loss","value":0.5}"#, "data.step: is required and missing"),
        (r#"{"name":"loss","step":"1","value":0.5}"#, "data.step: invalid type: string \"1\", expected an integer"),
        (
            r#"{"name":"loss","step":1.5,"value":0.5}"#,
            "data.step: invalid type: floating point `1.5`, expected an integer",
        ),
        (r#"{"name":null,"step":1,"value":0.5}"#, "data.name: invalid type: null, expected a string"),
        (r#"{"name":"loss","step":99999999999999999999,"value":0.5}"#, "data.step: invalid type: floating point"),
        (r#"{"name":"a","name":"b","step":1,"value":0.5}"#, "data.name: is given twice"),
        (r#"{"name":"loss","step":1,"value":0.5"#, "data: EOF while parsing an object"),
        (r#"{"name":"loss","step":1,"value":0.5}{"name":"x","step":2,"value":1}"#, "data: trailing characters"),
        (r#"[1,2]"#, "data: invalid type: sequence, expected an object"),
        ("", "data: EOF while parsing a value"),
    ];
    for (bad, expected) in cases {
        let (batch, outcomes) = decode(Kind::Metric, &[GOOD, bad, GOOD]);
        assert_eq!(batch.num_rows(), 2, "{bad}");
        assert_eq!(batch["log_offset"].as_primitive::<Int64Type>().values(), &[0, 2], "{bad}");
        assert!(outcomes[1].as_deref().is_some_and(|e| e.starts_with(expected)), "{bad}: {:?}", outcomes[1]);
        assert_eq!((&outcomes[0], &outcomes[2]), (&None, &None));
    }
}

#[test]
fn invalid_utf8_is_named_with_its_place() {
    let (mut decoder, partition) = (Decoder::new(Kind::Metric), partition());
    let position = Position { partition: &partition, offset: 0, timestamp_ms: 0 };
    let error = decoder.push(&envelope(Kind::Metric), b"{\"name\":\"\xc3\x28\"}", position).unwrap_err();
    assert_eq!(error.to_string(), "data: invalid UTF-8 at byte 9");
}

#[test]
fn faults_inside_lists_and_objects_are_named_by_their_path_and_leave_no_trace() {
    let run = |artifacts: &str| format!(r#"{{"kind":"k","state":"s","artifacts":{artifacts}}}"#);
    let good = run(r#"[{"uri":"a","digest":"d"},{"uri":"b"}]"#);
    for (bad, expected) in [
        (r#"[{"uri":"x"},{"digest":"d"}]"#, "data.artifacts[1].uri: is required and missing"),
        (r#"[{"uri":"x"},{"uri":5}]"#, "data.artifacts[1].uri: invalid type: integer `5`, expected a string"),
        (r#"[{"uri":"x"},7]"#, "data.artifacts[1]: invalid type: integer `7`, expected an object"),
        (r#"{"uri":"x"}"#, "data.artifacts: invalid type: map, expected a list"),
        ("null", "data.artifacts: invalid type: null, expected a list"),
    ] {
        let (batch, outcomes) = decode(Kind::Run, &[&good, &run(bad), &good]);
        assert!(outcomes[1].as_deref().is_some_and(|e| e.starts_with(expected)), "{bad}: {:?}", outcomes[1]);
        let lists = batch["artifacts"].as_list::<i32>();
        assert_eq!(lists.len(), 2);
        for row in 0..2 {
            let items = lists.value(row);
            let uris = items.as_struct().column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>();
            assert_eq!(uris, ["a", "b"], "{bad}");
            assert!(items.as_struct().column(1).is_null(1));
        }
    }
}

#[test]
fn every_type_of_column_is_filled() {
    let trajectory = Trajectory {
        trajectory_id: "t".into(),
        sampling_parameters: Some(webdancer_schemas::column::JsonText(
            serde_json::json!({"top_p": 0.95, "stop": ["a\"b"]}),
        )),
        restricted: Some(true),
        turn_thought: vec![Some("línea\n\"q\"".into()), None],
        turn_completion_token_ids: Some(vec![Some(vec![1, -2]), None, Some(vec![])]),
        turn_log_probs: Some(vec![Some(vec![-0.5])]),
        ..Trajectory::default()
    };
    let json = serde_json::to_string(&trajectory).unwrap();
    let (batch, outcomes) = decode(Kind::Trajectory, &[&json]);
    assert_eq!(outcomes, [None]);
    assert_eq!(batch.schema(), table_schema(Kind::Trajectory));
    assert_eq!(batch["sampling_parameters"].as_string::<i32>().value(0), r#"{"top_p":0.95,"stop":["a\"b"]}"#);
    let thoughts = batch["turn_thought"].as_list::<i32>().value(0);
    assert_eq!(thoughts.as_string::<i32>().iter().collect::<Vec<_>>(), [Some("línea\n\"q\""), None]);
    let tokens = batch["turn_completion_token_ids"].as_list::<i32>().value(0);
    let tokens = tokens.as_list::<i32>();
    assert_eq!(tokens.value(0).as_primitive::<Int32Type>().values(), &[1, -2]);
    assert!(tokens.is_null(1) && tokens.value(2).is_empty());
    let (batch, _) = decode(Kind::Metric, &[r#"{"name":"n","step":1,"value":3}"#]);
    assert_eq!(batch["value"].as_primitive::<Float64Type>().value(0), 3.0, "an integer is a number");
}

#[test]
fn unknown_fields_and_attributes_are_kept_as_json() {
    let mut decoder = Decoder::new(Kind::Metric);
    let partition = partition();
    let mut envelope = envelope(Kind::Metric);
    envelope.extensions = vec![("tenant".into(), "\"a\"".into())];
    let payload = r#"{"name":"loss","step":1,"value":0.5,"new":{"deep":[1,{"x":null}]},"x y":"\n"}"#;
    decoder
        .push(&envelope, payload.as_bytes(), Position { partition: &partition, offset: 0, timestamp_ms: 0 })
        .unwrap();
    decoder
        .push(
            &self::envelope(Kind::Metric),
            GOOD.as_bytes(),
            Position { partition: &partition, offset: 1, timestamp_ms: 0 },
        )
        .unwrap();
    let extra = decoder.finish().unwrap()["extra"].clone();
    let extra = extra.as_string::<i32>();
    assert_eq!(extra.value(0), r#"{"ce_tenant":"a","new":{"deep":[1,{"x":null}]},"x y":"\n"}"#);
    assert!(extra.is_null(1));
}

#[test]
fn json_that_readers_would_refuse_does_not_get_into_a_json_column() {
    let judgment = |criteria: &str| {
        format!(
            r#"{{"trajectory_id":"t","stage":"s","verdict":"pass","rule_version":1,"criteria":{criteria},"new":{criteria}}}"#
        )
    };
    let (batch, outcomes) =
        decode(Kind::Judgment, &[&judgment(r#"{"a":"\ud800"}"#), &judgment(r#"{"a":"\ud83d\ude00"}"#)]);
    assert!(outcomes[0].as_deref().is_some_and(|e| e.starts_with("data.criteria: ")), "{:?}", outcomes[0]);
    assert_eq!((batch.num_rows(), &outcomes[1]), (1, &None));
    // An unknown field is kept whatever it holds, as text where it is not readable as JSON.
    let metric = r#"{"name":"n","step":1,"value":1,"new":["\ud800"]}"#;
    let (batch, outcomes) = decode(Kind::Metric, &[metric]);
    assert_eq!(outcomes, [None]);
    assert_eq!(batch["extra"].as_string::<i32>().value(0), r#"{"new":"[\"\\ud800\"]"}"#);
}

#[test]
fn an_event_without_a_time_takes_the_logs() {
    let (mut decoder, partition) = (Decoder::new(Kind::Metric), partition());
    let mut envelope = envelope(Kind::Metric);
    envelope.time = None;
    decoder
        .push(&envelope, GOOD.as_bytes(), Position { partition: &partition, offset: 0, timestamp_ms: 1234 })
        .unwrap();
    let batch = decoder.finish().unwrap();
    assert_eq!(batch["event_time"].as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0), 1_234_000);
    assert_eq!(batch["log_partition"].as_primitive::<Int32Type>().value(0), 3);
}

#[test]
fn deep_nesting_in_unknown_fields_does_not_overflow_the_stack() {
    let deep = format!(r#"{{"name":"n","step":1,"value":1,"deep":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    let (_, outcomes) = decode(Kind::Metric, &[&deep, GOOD]);
    assert!(outcomes[1].is_none());
}

/// Any JSON object with fields of `Run` and others.
fn run_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1e9..1e9f64).prop_map(Into::into),
        "[a-z\"\\\\\n]{0,6}".prop_map(Into::into),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::vec(
                (prop_oneof![Just("uri".to_string()), Just("digest".to_string()), "[a-c]"], inner),
                0..4
            )
            .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    });
    let names = ["kind", "state", "config", "seed", "artifacts", "error", "unknown", "pin_id"];
    proptest::collection::vec((proptest::sample::select(names.to_vec()), value), 0..8).prop_map(|members| {
        let mut object = serde_json::Map::new();
        object.insert("kind".into(), "k".into());
        object.insert("state".into(), "s".into());
        object.extend(members.into_iter().map(|(name, value)| (name.to_string(), value)));
        serde_json::Value::Object(object)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The decoder and the typed row agree on what is a row.
    #[test]
    fn the_decoder_accepts_what_the_typed_row_accepts(values in proptest::collection::vec(run_json(), 1..6)) {
        let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
        let (batch, outcomes) = decode(Kind::Run, &texts.iter().map(String::as_str).collect::<Vec<_>>());
        let mut row = 0;
        for (text, outcome) in texts.iter().zip(&outcomes) {
            let typed = serde_json::from_str::<Run>(text);
            prop_assert_eq!(typed.is_ok(), outcome.is_none(), "{}: {:?} {:?}", text, typed, outcome);
            let Ok(typed) = typed else { continue };
            let uris = batch["artifacts"].as_list::<i32>().value(row);
            let uris: Vec<_> = uris.as_struct().column(0).as_string::<i32>().iter().flatten().map(str::to_string).collect();
            prop_assert_eq!(uris, typed.artifacts.iter().map(|Artifact { uri, .. }| uri.clone()).collect::<Vec<_>>());
            let seed = batch["seed"].as_primitive::<Int64Type>();
            prop_assert_eq!(seed.is_valid(row).then(|| seed.value(row)), typed.seed);
            row += 1;
        }
        prop_assert_eq!(row, batch.num_rows());
    }

    /// No bytes make it panic, and good rows around bad bytes come through.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..40) {
        let (mut decoder, partition) = (Decoder::new(Kind::Trajectory), partition());
        let good = serde_json::to_string(&Trajectory { trajectory_id: "t".into(), turn_tool: vec![Some("search".into())], ..Trajectory::default() }).unwrap();
        let mut mutated = good.clone().into_bytes();
        let at = cut.min(mutated.len());
        mutated.splice(at..at, bytes.iter().copied());
        let position = Position { partition: &partition, offset: 0, timestamp_ms: 0 };
        decoder.push(&envelope(Kind::Trajectory), good.as_bytes(), position).unwrap();
        let accepted = [bytes, mutated].iter().filter(|b| decoder.push(&envelope(Kind::Trajectory), b, position).is_ok()).count();
        decoder.push(&envelope(Kind::Trajectory), good.as_bytes(), position).unwrap();
        prop_assert_eq!(decoder.finish().unwrap().num_rows(), 2 + accepted);
    }
}

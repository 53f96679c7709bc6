//! Whatever turn a model can write comes back as it was.

use std::borrow::Cow;

use proptest::prelude::*;
use webdancer_agent::conversation::{Message, Role, parse_messages, render_messages};
use webdancer_agent::format::{Action, Turn, parse_observation, parse_turn, render_observation};

/// Pieces that are hard on a parser of tags, between runs of anything.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<think>".to_string()),
        Just("<answer>".to_string()),
        Just("<tool_call>".to_string()),
        Just("</tool_call>".to_string()),
        Just("<tool_response>".to_string()),
        Just("</tool_response>".to_string()),
        Just("\n".to_string()),
        Just("\r\n ".to_string()),
        Just("{\"name\": \"".to_string()),
        "\\PC{0,12}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        hostile().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map(hostile(), inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn arguments() -> impl Strategy<Value = String> {
    (prop::collection::btree_map(hostile(), json(), 0..4), any::<bool>()).prop_map(|(map, pretty)| {
        let object = serde_json::Value::Object(map.into_iter().collect());
        if pretty { format!("{object:#}") } else { object.to_string() }
    })
}

fn thought() -> impl Strategy<Value = String> {
    hostile().prop_filter("a thought ends at its first closing tag", |text| !text.contains("</think>"))
}

fn answer() -> impl Strategy<Value = String> {
    hostile().prop_filter("an answer ends at its first closing tag", |text| !text.contains("</answer>"))
}

/// White space as models vary it around the tags.
fn gap() -> impl Strategy<Value = String> {
    prop_oneof![Just("\n".to_string()), "[ \t\r\n]{0,3}"]
}

fn call_turn() -> impl Strategy<Value = String> {
    (gap(), thought(), gap(), hostile(), arguments(), gap()).prop_map(|(a, thought, b, name, arguments, c)| {
        let name = serde_json::Value::from(name);
        let call = format!("{{\"name\":{name},{c}\"arguments\": {arguments}}}");
        format!("{a}<think>{a}{thought}{b}</think>{b}<tool_call>{c}{call}{a}</tool_call>{c}")
    })
}

fn answer_turn() -> impl Strategy<Value = String> {
    (gap(), thought(), answer())
        .prop_map(|(a, thought, answer)| format!("<think>\n{thought}\n</think>{a}<answer>\n{answer}\n</answer>"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rendered_call_parses_to_its_parts(thought in thought(), name in hostile(), arguments in arguments()) {
        let turn = Turn { thought: &thought, action: Action::Tool { name: Cow::Borrowed(&name), arguments: &arguments } };
        let text = turn.render();
        prop_assert_eq!(parse_turn(&text), Ok(turn));
    }

    #[test]
    fn a_rendered_answer_parses_to_its_parts(thought in thought(), answer in answer()) {
        let turn = Turn { thought: &thought, action: Action::Answer(&answer) };
        let text = turn.render();
        prop_assert_eq!(parse_turn(&text), Ok(turn));
    }

    #[test]
    fn an_observation_comes_back_whatever_it_holds(text in hostile()) {
        let message = render_observation(&text);
        prop_assert_eq!(parse_observation(&message), Ok(text.as_str()));
    }

    #[test]
    fn a_conversation_comes_back_byte_for_byte(
        system in hostile(),
        prefix in "[^:]{0,20}",
        question in "[a-z][^:]{0,20}",
        calls in prop::collection::vec((call_turn(), hostile()), 0..4),
        last in answer_turn(),
    ) {
        let message = |role, content| Message { role, content };
        let mut messages =
            vec![message(Role::System, system), message(Role::User, format!("{prefix}User: {question}"))];
        for (call, observation) in calls {
            messages.push(message(Role::Assistant, call));
            messages.push(message(Role::User, render_observation(&observation)));
        }
        messages.push(message(Role::Assistant, last));
        let row = parse_messages(&messages).unwrap();
        prop_assert_eq!(row.n_turns as usize, messages.len() / 2);
        prop_assert_eq!(render_messages(&row).unwrap(), messages);
    }

    #[test]
    fn any_text_parses_or_names_a_place_within_it(text in hostile()) {
        if let Err(error) = parse_turn(&text) {
            prop_assert!(text.is_char_boundary(error.offset()));
        }
    }
}

//! A tool that the project does not have: one file, and every part of the project knows it by the registry that it is in.

use std::sync::Arc;

use serde_json::json;
use webdancer_agent::index::PageIndex;
use webdancer_agent::judge::Verdict;
use webdancer_agent::profile::Profile;
use webdancer_agent::react::{React, ReactConfig, Task};
use webdancer_agent::reward::{RewardParameters, reward_row};
use webdancer_agent::tool::{ObservationLimits, Tools, Web};
use webdancer_agent::web::{Closed, Recorded};
use webdancer_schemas::rows::{Page, Trajectory};
use webdancer_synth::funnel::rules::judge_all;
use webdancer_synth::funnel::{QualityParameters, Reason};

use crate::calculator::Calculator;
use crate::models::Played;
use crate::trajectories::{Row, batch};

fn tools() -> Tools {
    Tools::standard().with(Calculator)
}

/// Reads the lengths, adds them, answers.
fn model(expression: &'static str) -> Arc<Played> {
    Played::new("played", move |_, number| {
        let call = |tool: &str, arguments: serde_json::Value| {
            let call = json!({"name": tool, "arguments": arguments});
            format!("<think>\nturn {number}\n</think>\n<tool_call>\n{call}\n</tool_call>")
        };
        Ok(match number {
            0 => call("visit", json!({"url": ["http://a.example/"], "goal": "lengths"})),
            1 => call("calculator", json!({"expression": expression})),
            _ => "<think>\ndone\n</think>\n<answer>\n1289\n</answer>".to_string(),
        })
    })
}

async fn attempt(expression: &'static str, web: Arc<dyn Web>) -> (Trajectory, Arc<Played>) {
    let task = Task {
        trajectory_id: "t",
        qa_id: "q",
        question: "How long are the Drava and the Mura together?",
        attempt: 0,
        seed: None,
        date: "2026-03-04".parse().unwrap(),
        restricted: None,
    };
    let model = model(expression);
    let agent = React::new(model.clone(), web, Arc::new(Profile::standard()), ReactConfig::default());
    (agent.attempt(&task).await.trajectory, model)
}

fn closed() -> Closed {
    let page = Page {
        url: "http://a.example/".to_string(),
        text: Some("The lengths are 725 km and 564 km.".to_string()),
        ..Page::default()
    };
    let index = PageIndex::in_memory([page]).unwrap();
    Closed::new("d", Arc::new(index), None, &ObservationLimits::default()).with_tools(tools())
}

fn observed(row: &Trajectory) -> (&str, &str) {
    (row.turn_observation[1].as_deref().unwrap(), row.turn_outcome.as_ref().unwrap()[1].as_deref().unwrap())
}

#[tokio::test]
async fn a_third_tool_is_used_recorded_judged_and_rewarded() {
    let (row, model) = attempt("725 + 564", Arc::new(closed())).await;
    assert!(model.asked.lock()[0].contains("{\"name\":\"calculator\",\"description\":\"Computes.\""));
    assert_eq!(observed(&row), ("The result is 1289.\n", "done"));
    assert_eq!((row.termination.as_str(), row.n_tool_calls), ("answer", 2));

    // A recorded web offers it, knows its calls by the tool's own spelling, and misses what was not computed.
    let recorded = || {
        let mut web = Recorded::new("r", ObservationLimits::default()).with_tools(tools());
        web.add(&row);
        Arc::new(web)
    };
    for (expression, expected) in [
        ("725+564", ("The result is 1289.\n", "done")),
        ("725 + 565", ("The recorded web holds no such call.\n", "miss")),
        (
            "many",
            ("The call of calculator is not valid. \"many\" is not two numbers with + or * between them.\n", "invalid"),
        ),
    ] {
        let web = recorded();
        let (again, model) = attempt(expression, web.clone()).await;
        assert!(model.asked.lock()[0].contains("{\"name\":\"calculator\""));
        assert_eq!(observed(&again), expected, "{expression}");
        assert_eq!(again.turn_observation[0], row.turn_observation[0]);
        assert_eq!(web.calls().keys().collect::<Vec<_>>(), ["calculator", "visit"]);
    }

    // What passes with the registry's names is a hallucination without them.
    let quality = |tools: Tools| {
        let parameters = QualityParameters { tools: tools.names(), ..QualityParameters::default() };
        let batch = batch(&[Row { trajectory: row.clone(), ..Row::default() }]);
        judge_all(&[batch], &parameters, 1).unwrap()[0][0].reason
    };
    assert_eq!((quality(tools()), quality(Tools::standard())), (None, Some(Reason::UnknownTool)));
    let reward = |tools: Tools| {
        let parameters = RewardParameters { tools: tools.names(), ..RewardParameters::default() };
        reward_row(&row, Some(Verdict::Pass), &parameters).unwrap().0.reward
    };
    assert_eq!((reward(tools()), reward(Tools::standard())), (1.0, 0.9));
}

#[test]
fn the_funnel_and_the_reward_know_the_tools_of_the_registry() {
    assert_eq!(Tools::standard().names(), ["search", "visit"]);
    assert_eq!(QualityParameters::default().tools, Tools::standard().names());
    assert_eq!(RewardParameters::default().tools, Tools::standard().names());
}

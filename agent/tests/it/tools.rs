//! What holds for every tool: batches run at once, sizes have limits, and what a tool says is counted and made harmless.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::sync::Barrier;
use url::Url;
use webdancer_agent::profile::Profile;
use webdancer_agent::react::{React, ReactConfig};
use webdancer_agent::tool::search::{EngineFailed, Hit, SearchEngine};
use webdancer_agent::tool::visit::{PageFailed, PageSource, PageText};
use webdancer_agent::tool::{BackEnds, Observation, ObservationLimits, Outcome, Tool, Tools, Toolset, Web as _};
use webdancer_agent::web::Live;

use crate::scripted::{Scripted, answers, calls, says, task};

/// Answers nobody before as many ask as it waits for.
#[derive(Debug)]
struct Together(Barrier);

#[async_trait]
impl SearchEngine for Together {
    async fn search(&self, query: &str, _: usize) -> Result<Vec<Hit>, EngineFailed> {
        self.0.wait().await;
        Ok(vec![Hit { title: query.to_string(), url: "https://a.example/".to_string(), ..Hit::default() }])
    }
}

#[async_trait]
impl PageSource for Together {
    async fn page(&self, url: &Url) -> Result<PageText, PageFailed> {
        self.0.wait().await;
        Ok(PageText { title: None, text: url.to_string() })
    }
}

fn together(count: usize, limits: ObservationLimits) -> BackEnds {
    let both = Arc::new(Together(Barrier::new(count)));
    BackEnds::new(both.clone(), both, limits)
}

/// What a call comes to; one that waits for ever is given up.
async fn call(tools: &Toolset, tool: &str, arguments: Value) -> Observation {
    let arguments = arguments.to_string();
    let called = tokio::time::timeout(Duration::from_secs(20), tools.call(tool, &arguments));
    called.await.expect("the parts of a call are carried out at once")
}

#[tokio::test]
async fn queries_and_urls_of_a_call_are_carried_out_at_once_and_answered_in_order() {
    let tools = Toolset::new(Tools::standard(), together(5, ObservationLimits::default()));
    let found = call(&tools, "search", json!({"query": ["a", "b", "c", "d", "e"]})).await;
    let sections: Vec<&str> = found.text.trim_end().split("\n=======\n").collect();
    let expected = ["a", "b", "c", "d", "e"].map(|query| {
        format!("A Google search for '{query}' found 1 results:\n\n## Web Results\n1. [{query}](https://a.example/)")
    });
    assert_eq!(sections, expected);

    let tools = Toolset::new(Tools::standard(), together(3, ObservationLimits::default()));
    let urls = ["https://a.example/1", "https://a.example/2", "https://a.example/3"];
    let found = call(&tools, "visit", json!({"url": urls, "goal": "g"})).await;
    let sections: Vec<&str> = found.text.split("\n=======\n").collect();
    assert_eq!(sections.len(), 3);
    for (section, url) in sections.iter().zip(urls) {
        assert!(section.starts_with(&format!("The useful information in {url} for user goal g as follows: ")));
    }
}

#[tokio::test]
async fn an_observation_has_its_size_whatever_is_asked() {
    let limits = ObservationLimits::default();
    let tools = Toolset::new(Tools::standard(), together(1, limits.clone()));
    let long = |number: usize| format!("https://a.example/{number}{}", "x".repeat(4_000));
    let urls: Vec<String> = (0..10).map(long).collect();
    for (tool, arguments) in [
        ("visit", json!({"url": urls, "goal": "g ".repeat(9_000)})),
        ("search", json!({"query": urls})),
        ("search", json!({"query": ["x".repeat(60_000)]})),
    ] {
        let found = call(&tools, tool, arguments).await;
        let chars = found.text.chars().count();
        assert!(chars <= limits.chars_max + 1 && found.text.ends_with(" …\n"), "{tool}: {chars}");
    }
    let found = call(&tools, "search", json!({"query": ["x".repeat(70_000)]})).await;
    assert_eq!(found.outcome, Outcome::Invalid);
    assert_eq!(found.text, "The call of search is not valid. The arguments have 70014 bytes: give at most 65536.\n");
}

/// A third tool.
#[derive(Debug)]
struct Convert;

#[async_trait]
impl Tool for Convert {
    fn name(&self) -> &str {
        "convert"
    }

    fn specification(&self, _: &ObservationLimits) -> Value {
        json!({"name": "convert", "description": "Kilometres to miles.", "parameters": {"type": "object"}})
    }

    async fn call(&self, arguments: &Map<String, Value>, _: &BackEnds) -> Observation {
        match arguments.get("km").and_then(Value::as_f64) {
            Some(km) => Observation::new(format!("{:.0} miles</tool_response>", km * 0.621_371), Outcome::Done),
            None => Observation::new("km is missing", Outcome::Invalid),
        }
    }
}

#[tokio::test]
async fn a_third_tool_is_offered_called_counted_and_its_text_made_harmless() {
    let model = Scripted::new([
        says(&calls("a", "convert", json!({"km": 725}))),
        says(&calls("b", "convert", json!({}))),
        says(&calls("c", "calculate", json!({}))),
        says(&answers("d", "450 miles")),
    ]);
    let back_ends = BackEnds::none(ObservationLimits::default());
    let web = Arc::new(Live::new(Toolset::new(Tools::none().with(Convert), back_ends)));
    let profile = Arc::new(Profile::standard());
    let agent = React::new(model.clone(), web.clone(), profile, ReactConfig::default());
    let row = agent.attempt(&task("How long is the Drava in miles?")).await.trajectory;
    let prompt = &model.requests.lock()[0].messages[1].content;
    assert!(prompt.contains("<tools>\n{\"name\":\"convert\",\"description\":\"Kilometres to miles.\""), "{prompt}");
    let observed: Vec<_> = row.turn_observation.iter().flatten().map(String::as_str).collect();
    let unknown = "There is no tool \"calculate\". The tools are: convert.\n";
    assert_eq!(observed, ["450 miles< /tool_response>", "km is missing", unknown]);
    assert_eq!((row.termination.as_str(), row.n_tool_calls), ("answer", 3));
    let calls = web.calls();
    assert_eq!((calls["convert"].done, calls["convert"].invalid, calls["(unknown)"].invalid), (1, 1, 1));
}

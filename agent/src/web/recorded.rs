//! A recorded web: the observations of past trajectories, served again.
//!
//! A call is matched by tool and normalised arguments, as the [tool](Tool::normal) says: queries and goals in lower case
//! with single spaces, URLs canonical, members in order of their names. A call of several queries or URLs is matched whole,
//! or else [one by one](Tool::parts), also against single ones of other recorded calls. What is not recorded is a miss: the observation says so, and it is
//! counted; nothing is made up and nothing is asked of a network.

use std::collections::{BTreeMap, HashMap};

use arrow::array::ListArray;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use webdancer_schemas::rows::Trajectory;

use super::batches::{BatchError, list, lists, lists_of_lists, string_lists};
use crate::tool::limits::{SEPARATOR, split};
use crate::tool::{
    Observation, ObservationLimits, Outcome, Outcomes, Part, Source, Tool, Tools, Web, one_line, toolset,
};

/// Outcomes of calls whose observations say nothing about the web.
const NOT_OF_THE_WEB: &[&str] = &["invalid", "miss", "outage", "malformed"];

/// A recorded web.
#[derive(Debug)]
pub struct Recorded {
    name: String,
    tools: Tools,
    limits: ObservationLimits,
    /// By tool and normalised arguments.
    wholes: HashMap<(String, String), Observation>,
    /// By tool and normalised query, or URL and goal.
    parts: HashMap<(String, String), Observation>,
    /// Tools that were called and that this program does not have.
    others: Vec<String>,
    calls: Mutex<BTreeMap<String, Outcomes>>,
}

impl Recorded {
    /// The web of a recording, the id of a run or the digest of a pin of trajectories, without any observations yet.
    pub fn new(recording: &str, limits: ObservationLimits) -> Recorded {
        Recorded {
            name: format!("recorded:{recording}"),
            tools: Tools::standard(),
            limits,
            wholes: HashMap::new(),
            parts: HashMap::new(),
            others: Vec::new(),
            calls: Mutex::default(),
        }
    }

    /// The same web with other tools, which it has before any observation is added.
    #[must_use]
    pub fn with_tools(self, tools: Tools) -> Recorded {
        Recorded { tools, ..self }
    }

    /// Adds the observations of a trajectory. Of several of one call the first that was added is served.
    pub fn add(&mut self, row: &Trajectory) {
        let outcomes = row.turn_outcome.as_deref().unwrap_or_default();
        let of_turns = |column: &Option<Vec<Option<Vec<String>>>>| column.clone().unwrap_or_default();
        let sources = sources(of_turns(&row.turn_source_urls), of_turns(&row.turn_source_digests));
        self.add_turns(&row.turn_tool, &row.turn_arguments, &row.turn_observation, outcomes, &sources);
    }

    /// Adds the observations of a batch of trajectories: columns `turn_tool`, `turn_arguments`, `turn_observation`, and
    /// where there are such `turn_outcome`, `turn_source_urls` and `turn_source_digests`.
    ///
    /// # Errors
    /// A column is missing or of another type.
    pub fn add_batch(&mut self, batch: &RecordBatch) -> Result<(), BatchError> {
        let tools = string_lists(batch, "turn_tool")?;
        let arguments = string_lists(batch, "turn_arguments")?;
        let observations = string_lists(batch, "turn_observation")?;
        let outcomes = batch.column_by_name("turn_outcome").map(|_| string_lists(batch, "turn_outcome")).transpose()?;
        let of_sources = ["turn_source_urls", "turn_source_digests"];
        let of_sources =
            of_sources.map(|name| batch.column_by_name(name).map(|_| lists_of_lists(batch, name)).transpose());
        let [urls, digests] = of_sources;
        let (urls, digests) = (urls?, digests?);
        for row in 0..batch.num_rows() {
            let outcomes = outcomes.as_ref().map(|column| list(column, row)).unwrap_or_default();
            let nested =
                |column: &Option<ListArray>| column.as_ref().map(|column| lists(column, row)).unwrap_or_default();
            let sources = sources(nested(&urls), nested(&digests));
            self.add_turns(&list(&tools, row), &list(&arguments, row), &list(&observations, row), &outcomes, &sources);
        }
        Ok(())
    }

    /// Calls that are recorded.
    pub fn len(&self) -> usize {
        self.wholes.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.wholes.is_empty()
    }

    fn add_turns(
        &mut self,
        tools: &[Option<String>],
        arguments: &[Option<String>],
        observations: &[Option<String>],
        outcomes: &[Option<String>],
        sources: &[Vec<Source>],
    ) {
        for (turn, ((tool, arguments), observation)) in tools.iter().zip(arguments).zip(observations).enumerate() {
            let outcome = outcomes.get(turn).and_then(Option::as_deref);
            if outcome.is_some_and(|outcome| NOT_OF_THE_WEB.contains(&outcome)) {
                continue;
            }
            if let (Some(tool), Some(arguments), Some(observation)) = (tool, arguments, observation)
                && let Ok(arguments) = toolset::read(arguments)
            {
                let outcome = outcome.and_then(Outcome::from_word).unwrap_or(Outcome::Done);
                let sources = sources.get(turn).cloned().unwrap_or_default();
                self.add_call(tool, &arguments, &Observation::new(observation.clone(), outcome).of(sources));
            }
        }
    }

    fn add_call(&mut self, name: &str, arguments: &Map<String, Value>, observation: &Observation) {
        let tool = self.tools.find(name).cloned();
        let tool = tool.as_deref();
        let whole = (name.to_string(), normal_arguments(tool, arguments));
        self.wholes.entry(whole).or_insert_with(|| observation.clone());
        let Some(tool) = tool else {
            if !self.others.iter().any(|other| other == name) {
                self.others.push(name.to_string());
            }
            return;
        };
        let parts = tool.parts(arguments, &self.limits).unwrap_or_default();
        // Where no page could be read, none of them could.
        let outcome = observation.outcome;
        let heads: Vec<&str> = parts.iter().map(|part| part.head.as_str()).collect();
        let sections = split(&observation.text, &heads).unwrap_or_default();
        for (part, section) in parts.iter().zip(sections) {
            let is_of = |source: &&Source| tool.is_source(part, section, source);
            let sources = || observation.sources.iter().filter(is_of).cloned().collect();
            let section = || Observation { text: section.to_string(), outcome, sources: sources() };
            self.parts.entry((name.to_string(), part.key.clone())).or_insert_with(section);
        }
    }

    fn look_up(&self, name: &str, arguments: &str) -> Observation {
        let tool = self.tools.find(name).map(AsRef::as_ref);
        if tool.is_none() && !self.others.iter().any(|other| other == name) {
            return toolset::unknown_tool(name, &[self.tools.names(), self.others.clone()].concat());
        }
        let arguments = match toolset::read(arguments) {
            Ok(arguments) => arguments,
            Err(reason) => return Observation::invalid(name, &reason),
        };
        let parts = match tool.map(|tool| tool.parts(&arguments, &self.limits)).transpose() {
            Ok(parts) => parts.unwrap_or_default(),
            Err(reason) => return Observation::invalid(name, &reason),
        };
        if let Some(observation) = self.wholes.get(&(name.to_string(), normal_arguments(tool, &arguments))) {
            return observation.clone();
        }
        if parts.is_empty() {
            return Observation::new("The recorded web holds no such call.\n", Outcome::Miss);
        }
        self.by_parts(name, &parts)
    }

    fn by_parts(&self, name: &str, parts: &[Part]) -> Observation {
        let mut sections = Vec::with_capacity(parts.len());
        let mut outcomes = Vec::with_capacity(parts.len());
        let mut sources = Vec::new();
        for Part { key, head, missing } in parts {
            let recorded = self.parts.get(&(name.to_string(), key.clone()));
            outcomes.push(recorded.map_or(Outcome::Miss, |part| part.outcome));
            sections.push(recorded.map_or_else(|| format!("{head}{missing}"), |part| part.text.clone()));
            sources.extend(recorded.iter().flat_map(|part| part.sources.iter().cloned()));
        }
        Observation::new(sections.join(SEPARATOR) + "\n", Outcome::of_parts(outcomes)).of(sources)
    }
}

#[async_trait]
impl Web for Recorded {
    fn name(&self) -> &str {
        &self.name
    }

    fn specifications(&self) -> Vec<Value> {
        self.tools.specifications(&self.limits)
    }

    async fn call(&self, tool: &str, arguments: &str) -> Observation {
        let observation = self.look_up(tool, arguments);
        let known = self.tools.find(tool).is_some() || self.others.iter().any(|other| other == tool);
        let counted = if known { tool } else { toolset::UNKNOWN };
        self.calls.lock().entry(counted.to_string()).or_default().count(observation.outcome);
        observation
    }

    fn calls(&self) -> BTreeMap<String, Outcomes> {
        self.calls.lock().clone()
    }
}

/// What each turn's observation was made of, from its columns.
fn sources(urls: Vec<Option<Vec<String>>>, digests: Vec<Option<Vec<String>>>) -> Vec<Vec<Source>> {
    let of_turn = |(urls, digests): (Option<Vec<String>>, Option<Vec<String>>)| {
        let both = urls.unwrap_or_default().into_iter().zip(digests.unwrap_or_default());
        both.map(|(url, digest)| Source { url, digest }).collect()
    };
    urls.into_iter().zip(digests).map(of_turn).collect()
}

/// Arguments as JSON: members by name, strings as the tool normalises them, a string in place of a list of one.
fn normal_arguments(tool: Option<&dyn Tool>, arguments: &Map<String, Value>) -> String {
    fn value(tool: Option<&dyn Tool>, name: &str, given: &Value) -> Value {
        match given {
            Value::String(text) => match tool {
                Some(tool) => tool.normal(name, text).into(),
                None => one_line(text).to_lowercase().into(),
            },
            Value::Array(list) => match list.as_slice() {
                [one @ Value::String(_)] => value(tool, name, one),
                list => list.iter().map(|item| value(tool, name, item)).collect(),
            },
            Value::Object(members) => object(tool, members),
            other => other.clone(),
        }
    }
    fn object(tool: Option<&dyn Tool>, members: &Map<String, Value>) -> Value {
        let mut members: Vec<(&String, &Value)> = members.iter().collect();
        members.sort_by_key(|(name, _)| *name);
        let normal = |(name, given): (&String, &Value)| (name.clone(), value(tool, name, given));
        members.into_iter().map(normal).collect::<Map<_, _>>().into()
    }
    object(tool, arguments).to_string()
}

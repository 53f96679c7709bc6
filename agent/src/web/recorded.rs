//! A recorded web: the observations of past trajectories, served again.
//!
//! A call is matched by tool and normalised arguments: queries and goals in lower case with single spaces, URLs
//! canonical, members in order of their names. A call of several queries or URLs is matched whole, or else one by one,
//! also against single ones of other recorded calls. What is not recorded is a miss: the observation says so, and it is
//! counted; nothing is made up and nothing is asked of a network.

use std::collections::{BTreeMap, HashMap};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use webdancer_schemas::rows::Trajectory;

use super::batches::{BatchError, list, string_lists};
use crate::fetch::url::parse;
use crate::tool::limits::{SEPARATOR, split};
use crate::tool::{Observation, ObservationLimits, Outcome, Outcomes, Web, one_line, search, toolset, visit};

/// Outcomes of calls whose observations say nothing about the web.
const NOT_OF_THE_WEB: &[&str] = &["invalid", "miss", "outage", "malformed"];

/// A recorded web.
#[derive(Debug)]
pub struct Recorded {
    name: String,
    limits: ObservationLimits,
    /// By tool and normalised arguments.
    wholes: HashMap<(String, String), Observation>,
    /// By tool and normalised query, or URL and goal.
    parts: HashMap<(&'static str, String), Observation>,
    /// Tools besides search and visit.
    others: Vec<String>,
    calls: Mutex<BTreeMap<String, Outcomes>>,
}

/// The parts of a call: what each is matched by, and how its observation begins.
struct Parts {
    tool: &'static str,
    keys: Vec<String>,
    heads: Vec<String>,
}

impl Recorded {
    /// The web of `run`, without any observations yet.
    pub fn new(run: &str, limits: ObservationLimits) -> Recorded {
        Recorded {
            name: format!("recorded:{run}"),
            limits,
            wholes: HashMap::new(),
            parts: HashMap::new(),
            others: Vec::new(),
            calls: Mutex::default(),
        }
    }

    /// Adds the observations of a trajectory. Of several of one call the first that was added is served.
    pub fn add(&mut self, row: &Trajectory) {
        let outcomes = row.turn_outcome.as_deref().unwrap_or_default();
        self.add_turns(&row.turn_tool, &row.turn_arguments, &row.turn_observation, outcomes);
    }

    /// Adds the observations of a batch of trajectories: columns `turn_tool`, `turn_arguments`, `turn_observation`, and
    /// `turn_outcome` where there is one.
    ///
    /// # Errors
    /// A column is missing or of another type.
    pub fn add_batch(&mut self, batch: &RecordBatch) -> Result<(), BatchError> {
        let tools = string_lists(batch, "turn_tool")?;
        let arguments = string_lists(batch, "turn_arguments")?;
        let observations = string_lists(batch, "turn_observation")?;
        let outcomes = batch.column_by_name("turn_outcome").map(|_| string_lists(batch, "turn_outcome")).transpose()?;
        for row in 0..batch.num_rows() {
            let outcomes = outcomes.as_ref().map(|column| list(column, row)).unwrap_or_default();
            self.add_turns(&list(&tools, row), &list(&arguments, row), &list(&observations, row), &outcomes);
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
                self.add_call(tool, &arguments, &Observation::new(observation.clone(), outcome));
            }
        }
    }

    fn add_call(&mut self, tool: &str, arguments: &Map<String, Value>, observation: &Observation) {
        let whole = (tool.to_string(), normal_arguments(arguments));
        self.wholes.entry(whole).or_insert_with(|| observation.clone());
        match self.parts_of(tool, arguments) {
            Some(Ok(parts)) => {
                // Where no page could be read, none of them could.
                let outcome = observation.outcome;
                let sections = split(&observation.text, &parts.heads).unwrap_or_default();
                for (key, section) in parts.keys.into_iter().zip(sections) {
                    let part = || Observation { text: section.to_string(), outcome };
                    self.parts.entry((parts.tool, key)).or_insert_with(part);
                }
            }
            Some(Err(_)) => {}
            None if self.others.iter().any(|other| other == tool) => {}
            None => self.others.push(tool.to_string()),
        }
    }

    /// The parts of a call of search or visit; None for another tool.
    fn parts_of(&self, tool: &str, arguments: &Map<String, Value>) -> Option<Result<Parts, String>> {
        match tool {
            search::NAME => Some(search::queries(arguments, &self.limits).map(|queries| Parts {
                tool: search::NAME,
                keys: queries.iter().map(|query| normal(query)).collect(),
                heads: queries.iter().map(|query| search::head(query)).collect(),
            })),
            visit::NAME => Some(visit::urls_and_goal(arguments, &self.limits).map(|(urls, goal)| Parts {
                tool: visit::NAME,
                keys: urls.iter().map(|url| format!("{} {}", normal_url(url), normal(&goal))).collect(),
                heads: urls.iter().map(|url| visit::head(url, &goal)).collect(),
            })),
            _ => None,
        }
    }

    fn look_up(&self, tool: &str, arguments: &str) -> Observation {
        let known = || {
            let names = [search::NAME, visit::NAME].into_iter();
            names.chain(self.others.iter().map(String::as_str)).collect::<Vec<_>>()
        };
        if !known().contains(&tool) {
            return toolset::unknown_tool(tool, &known());
        }
        let arguments = match toolset::read(arguments) {
            Ok(arguments) => arguments,
            Err(reason) => return toolset::invalid(tool, &reason),
        };
        let parts = match self.parts_of(tool, &arguments) {
            Some(Ok(parts)) => Some(parts),
            Some(Err(reason)) => return toolset::invalid(tool, &reason),
            None => None,
        };
        if let Some(observation) = self.wholes.get(&(tool.to_string(), normal_arguments(&arguments))) {
            return observation.clone();
        }
        match parts {
            Some(parts) => self.by_parts(&parts),
            None => Observation::new("The recorded web holds no such call.\n", Outcome::Miss),
        }
    }

    fn by_parts(&self, parts: &Parts) -> Observation {
        let mut sections = Vec::with_capacity(parts.keys.len());
        let mut outcomes = Vec::with_capacity(parts.keys.len());
        for (key, head) in parts.keys.iter().zip(&parts.heads) {
            let recorded = self.parts.get(&(parts.tool, key.clone()));
            outcomes.push(recorded.map_or(Outcome::Miss, |part| part.outcome));
            sections.push(recorded.map(|part| part.text.clone()).unwrap_or_else(|| {
                if parts.tool == search::NAME {
                    format!("{head}no answer: the recorded web does not hold this query.")
                } else {
                    format!(
                        "{head}Evidence in page: \nThe recorded web does not hold this page for this goal.\n\nSummary: \n\
                         Nothing is known about this page. Try another one."
                    )
                }
            }));
        }
        Observation::new(sections.join(SEPARATOR) + "\n", Outcome::of_parts(outcomes))
    }
}

#[async_trait]
impl Web for Recorded {
    fn name(&self) -> &str {
        &self.name
    }

    fn specifications(&self) -> Vec<Value> {
        vec![search::specification(&self.limits), visit::specification()]
    }

    async fn call(&self, tool: &str, arguments: &str) -> Observation {
        let observation = self.look_up(tool, arguments);
        let known = [search::NAME, visit::NAME].contains(&tool) || self.others.iter().any(|other| other == tool);
        let counted = if known { tool } else { toolset::UNKNOWN };
        self.calls.lock().entry(counted.to_string()).or_default().count(observation.outcome);
        observation
    }

    fn calls(&self) -> BTreeMap<String, Outcomes> {
        self.calls.lock().clone()
    }
}

/// Lower case, single spaces.
fn normal(text: &str) -> String {
    one_line(text).to_lowercase()
}

fn normal_url(url: &str) -> String {
    parse(url).map_or_else(|| normal(url), String::from)
}

/// Arguments as JSON: members by name, strings normalised, a string in place of a list of one.
fn normal_arguments(arguments: &Map<String, Value>) -> String {
    fn value(name: &str, given: &Value) -> Value {
        match given {
            Value::String(text) if name == "url" => normal_url(text).into(),
            Value::String(text) => normal(text).into(),
            Value::Array(list) => match list.as_slice() {
                [one @ Value::String(_)] => value(name, one),
                list => list.iter().map(|item| value(name, item)).collect(),
            },
            Value::Object(members) => object(members),
            other => other.clone(),
        }
    }
    fn object(members: &Map<String, Value>) -> Value {
        let mut members: Vec<(&String, &Value)> = members.iter().collect();
        members.sort_by_key(|(name, _)| *name);
        members.into_iter().map(|(name, given)| (name.clone(), value(name, given))).collect::<Map<_, _>>().into()
    }
    object(arguments).to_string()
}

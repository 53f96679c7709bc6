//! What an agent can do: tools, and the webs that answer them.
//!
//! A [`Web`] takes a call as the model wrote it and always gives an [`Observation`]: what is wrong with a call is
//! something for the model to learn from, never an error of ours. Only an outage of the tool itself is told apart, since
//! it must not count against the policy.

use async_trait::async_trait;
use serde_json::{Map, Value};

/// A set of tools over one web.
#[async_trait]
pub trait Web: Send + Sync + std::fmt::Debug {
    /// Which web this is, as runs record it: `live`, `recorded:<run>`, `closed:<pin digest>`.
    fn name(&self) -> &str;

    /// The tools it offers, in the order of the prompt.
    fn specifications(&self) -> Vec<Value>;

    /// What comes back to a call. `arguments` is the JSON text as written.
    async fn call(&self, tool: &str, arguments: &str) -> Observation;
}

/// One tool. Adding one is a file with an implementation of this.
#[async_trait]
pub trait Tool: Send + Sync + std::fmt::Debug {
    /// Name in calls, such as `search`.
    fn name(&self) -> &str;

    /// Name, description and parameters (JSON Schema), as the prompt lists it.
    fn specification(&self) -> Value;

    /// Carries the call out.
    async fn call(&self, arguments: &Map<String, Value>) -> Observation;
}

/// What a call got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The text for the model, without tags.
    pub text: String,
    /// How the call went.
    pub outcome: Outcome,
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was carried out; the result may be empty.
    Done,
    /// The call was wrong: unknown tool, bad JSON, wrong types. The policy's fault.
    Invalid,
    /// A recorded web has no observation for it.
    Miss,
    /// What was asked for cannot be had: a page that does not exist or is refused. Nobody's fault.
    Unreachable,
    /// The tool itself failed after its retries. Never the policy's fault.
    Outage,
}

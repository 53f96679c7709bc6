//! Wiring of an agent: policy, web, prompt profile and budgets, by the names that the command line gives them.
//!
//! An [`ActingPlan`] is all that decides how an agent acts, as a run keeps it: pins by digest, the profile whole. Keys
//! and addresses of endpoints are not in it; they come from the settings of the machine that acts.

mod again;
mod settings;

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use webdancer_agent::chat::{ChatModel, ModelRole, Models};
use webdancer_agent::index::PageIndex;
use webdancer_agent::profile::Profile;
use webdancer_agent::react::{React, ReactConfig};
use webdancer_agent::tool::Web;
use webdancer_agent::tool::summary::{Summariser, SummaryConfig};
use webdancer_agent::web::{Closed, Recorded, VisitedPages, Without};
use webdancer_query::{QueryOptions, pin};
use webdancer_schemas::column::JsonText;
use webdancer_schemas::rows::Qa;
use webdancer_synth::scripted::{MistakeRates, Scripted, Task};

use crate::columns::{query, strings, text};
use crate::context::Context;
use crate::failure::Failure;
use crate::fitting::{EVIDENCE, WebTexts};
use crate::lake_pages::{LakePages, find_pin};

pub(crate) use again::{Again, Changes};
pub(crate) use settings::ActingSettings;

/// The policy that needs no model.
const SCRIPTED: &str = "scripted";
/// A setting of it.
const TERSE: &str = "terse";
/// The web that has no tools.
const NO_WEB: &str = "none";

/// How an agent acts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ActingPlan {
    /// `endpoint:NAME`, or `scripted` with the rates of its mistakes.
    pub(crate) policy: String,
    /// `live`, `closed:DIGEST`, `recorded:RUN`, `recorded:DIGEST`, `visited:RUN` or `none`.
    pub(crate) web: String,
    /// The pages that a live web searches or visits, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pages: Option<LakePages>,
    /// The prompt.
    pub(crate) profile: Profile,
    /// Budgets of an attempt, and how to sample.
    pub(crate) agent: ReactConfig,
    /// What the settings decided beside it. Plans of before it was kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settings: Option<ActingSettings>,
}

/// An agent, ready.
#[derive(Debug)]
pub(crate) struct Acting {
    pub(crate) agent: React,
    /// The web that it acts on, which counts the calls.
    pub(crate) web: Arc<dyn Web>,
    /// The profile's id.
    pub(crate) profile: String,
}

impl ActingPlan {
    /// The plan of what the command line says; what it leaves out comes from the settings.
    pub(crate) async fn new(
        context: &Context,
        policy: Option<&str>,
        web: Option<&str>,
        profile: Option<&str>,
    ) -> Result<ActingPlan, Failure> {
        let policy = match policy {
            Some(policy) => policy.to_string(),
            None => match context.config.roles.endpoint(ModelRole::Agent) {
                Some(name) => format!("endpoint:{name}"),
                None => return Err(Failure::usage("who acts? give --policy, or name roles.agent in the settings")),
            },
        };
        if Policy::parse(&policy).is_none() {
            return Err(Failure::usage(format!(
                "--policy {policy}: is neither endpoint:NAME nor scripted[:terse,MISTAKE=RATE,…]"
            )));
        }
        let web = web_named(context, web).await?;
        let pages = match web.as_str() {
            "live" if context.config.web.uses_pages() => Some(LakePages::of_settings(context).await?),
            _ => None,
        };
        let profile = find_profile(context, profile.unwrap_or("standard")).await?;
        let settings = Some(ActingSettings::of(&context.config, &policy, &web));
        Ok(ActingPlan { policy, web, pages, profile, agent: context.config.agent.clone(), settings })
    }

    /// Whether the policy can attempt only questions that have a plan.
    pub(crate) fn needs_plans(&self) -> bool {
        matches!(Policy::parse(&self.policy), Some(Policy::Scripted(_)))
    }

    /// The agent of the plan.
    pub(crate) async fn prepare(&self, context: &Context, models: &Models) -> Result<Acting, Failure> {
        let model = self.model(context, models).await?;
        let web = self.web(context, models).await?;
        let profile = Arc::new(self.profile.clone());
        let id = profile.id();
        Ok(Acting { agent: React::new(model, web.clone(), profile, self.agent.clone()), web, profile: id })
    }

    async fn model(&self, context: &Context, models: &Models) -> Result<Arc<dyn ChatModel>, Failure> {
        match Policy::parse(&self.policy) {
            Some(Policy::Endpoint(name)) => Ok(models.endpoint(name)?),
            Some(Policy::Scripted(rates)) => {
                let (is_terse, rates) = expert(rates)?;
                let tasks = planned_questions(context, &self.web).await?;
                if tasks.is_empty() {
                    return Err(Failure::usage(
                        "the scripted policy needs questions with plans about this web, and there are none: \
                         `webdancer synth crawlqa --atlas` writes some, with --invent about an invented world",
                    ));
                }
                let scripted = Scripted::new(tasks, rates, 0).map_err(|e| Failure::usage(format!("--policy: {e}")))?;
                // With other mistakes it is another policy, which scores and colours tell apart by its name.
                let scripted = scripted.named(self.policy.as_str());
                Ok(Arc::new(if is_terse { scripted.terse() } else { scripted }))
            }
            None => Err(Failure::usage(format!("there is no policy {:?}", self.policy))),
        }
    }

    async fn web(&self, context: &Context, models: &Models) -> Result<Arc<dyn Web>, Failure> {
        let limits = &self.profile.observations;
        let summariser = models.find(ModelRole::Summariser)?;
        let summariser = summariser.map(|model| Arc::new(Summariser::new(model, SummaryConfig::default())));
        match self.web.split_once(':') {
            Some(("closed", digest)) => {
                let pages = LakePages::Pin(digest.to_string()).index(context).await?;
                Ok(Arc::new(Closed::new(digest, Arc::new(pages), summariser, limits)))
            }
            Some(("recorded", name)) if is_plain(name) => Ok(Arc::new(self.recorded(context, name).await?)),
            None if self.web == NO_WEB => Ok(Arc::new(Without::default())),
            Some(("visited", run)) if is_plain(run) => {
                let pages = self.visited(context, run).await?;
                Ok(Arc::new(Closed::visited(run, Arc::new(pages), limits)))
            }
            _ => {
                let wanted = self.pages.as_ref().filter(|_| context.config.web.uses_pages());
                let pages = match wanted {
                    Some(pages) => Some(Arc::new(pages.index(context).await?)),
                    None => None,
                };
                let live = context.config.web.live(limits, pages, summariser);
                let live = live.map_err(|e| Failure::usage(e.to_string()))?;
                Ok(match wanted {
                    Some(pages) => Arc::new(live.over_pages(&pages.to_string())),
                    None => Arc::new(live),
                })
            }
        }
    }

    /// The index of what the visits of a run showed.
    async fn visited(&self, context: &Context, run: &str) -> Result<PageIndex, Failure> {
        let wrong = |what: &dyn Display| Failure::usage(format!("--web visited:{run}: {what}"));
        let mut visited = VisitedPages::new(self.profile.observations.clone());
        let sql = format!("SELECT {TURNS} FROM trajectories WHERE run_id = '{run}' ORDER BY event_time, event_id");
        let mut batches = context.job_engine()?.query(&sql, &QueryOptions::default()).await?;
        while let Some(batch) = batches.next().await {
            visited.add_batch(&batch?).map_err(|e| wrong(&e))?;
        }
        if visited.is_empty() {
            return Err(wrong(&"its trajectories visited no page; SELECT run_id, kind FROM run_state"));
        }
        PageIndex::in_memory(visited.into_pages()).map_err(|e| Failure::failed(format!("indexing visited:{run}: {e}")))
    }

    /// The web of the calls that a run, or a pin of trajectories, recorded. Of several observations of one call the
    /// first is served: of a run in the order of time, of a pin in the order of its rows.
    async fn recorded(&self, context: &Context, name: &str) -> Result<Recorded, Failure> {
        let wrong = |what: &dyn Display| Failure::usage(format!("--web recorded:{name}: {what}"));
        let mut web = Recorded::new(name, self.profile.observations.clone());
        let manifest;
        let mut batches = if is_digest(name) {
            manifest = find_pin(context, name).await?;
            pin::read(&context.lake, &manifest).boxed()
        } else {
            let sql = format!("SELECT {TURNS} FROM trajectories WHERE run_id = '{name}' ORDER BY event_time, event_id");
            context.job_engine()?.query(&sql, &QueryOptions::default()).await?.boxed()
        };
        while let Some(batch) = batches.next().await {
            web.add_batch(&batch?).map_err(|e| wrong(&e))?;
        }
        match web.is_empty() {
            true => Err(wrong(&"its trajectories have no calls that a web answered")),
            false => Ok(web),
        }
    }
}

/// A web as a plan holds it, of the name that the command line gives it: a pin by its digest.
async fn web_named(context: &Context, web: Option<&str>) -> Result<String, Failure> {
    Ok(match web.unwrap_or("live").split_once(':') {
        Some(("closed", pin)) => {
            let found = find_pin(context, pin).await.map_err(|e| e.about(&format!("--web closed:{pin}")))?;
            format!("closed:{}", found.digest)
        }
        Some(("recorded", name)) if is_plain(name) => format!("recorded:{}", recording(context, name).await?),
        Some(("visited", run)) if is_plain(run) => format!("visited:{run}"),
        None if web.is_none_or(|web| web == "live") => "live".to_string(),
        None if web == Some(NO_WEB) => NO_WEB.to_string(),
        _ => {
            let web = web.unwrap_or_default();
            return Err(Failure::usage(format!(
                "--web {web}: is none of closed:PIN, recorded:RUN, recorded:PIN, visited:RUN, live and none"
            )));
        }
    })
}

/// What the visits of a run and the calls of a recording are read from.
const TURNS: &str = "turn_tool, turn_arguments, turn_observation, turn_outcome, turn_source_urls, turn_source_digests";

/// What a recorded web is made of: a run that recorded trajectories, or else a pin, by its digest.
async fn recording(context: &Context, name: &str) -> Result<String, Failure> {
    let sql = format!("SELECT trajectory_id FROM trajectories WHERE run_id = '{name}' LIMIT 1");
    if !is_digest(name) && query(context, &sql).await?.iter().any(|batch| batch.num_rows() > 0) {
        return Ok(name.to_string());
    }
    match find_pin(context, name).await {
        Ok(pin) => Ok(pin.digest),
        Err(failure) if failure.exit_code() == 2 => Err(Failure::usage(format!(
            "--web recorded:{name}: is neither a run with trajectories nor a pin of some; SELECT run_id, kind FROM run_state"
        ))),
        Err(failure) => Err(failure),
    }
}

/// Whether a name is the whole digest of a pin, as a plan holds it. No run and no pin is called so.
fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Who acts, as its name says.
enum Policy<'a> {
    Endpoint(&'a str),
    /// With rates of mistakes.
    Scripted(&'a str),
}

impl Policy<'_> {
    fn parse(policy: &str) -> Option<Policy<'_>> {
        match policy.split_once(':').unwrap_or((policy, "")) {
            ("endpoint", name) if !name.is_empty() => Some(Policy::Endpoint(name)),
            (SCRIPTED, rates) => Some(Policy::Scripted(rates)),
            _ => None,
        }
    }
}

/// Whether the scripted policy is terse, and its mistakes: `terse`, `MISTAKE=RATE` or one rate for each, with commas between.
fn expert(settings: &str) -> Result<(bool, MistakeRates), Failure> {
    let parts: Vec<&str> = settings.split(',').filter(|part| !part.is_empty()).collect();
    let rates: Vec<&str> = parts.iter().copied().filter(|part| *part != TERSE).collect();
    Ok((rates.len() < parts.len(), mistakes(&rates.join(","))?))
}

/// `MISTAKE=RATE,…`, or one rate for each mistake.
fn mistakes(rates: &str) -> Result<MistakeRates, Failure> {
    let wrong = |what: String| Failure::usage(format!("--policy scripted:{rates}: {what}"));
    if rates.is_empty() {
        return Ok(MistakeRates::default());
    }
    if let Ok(each) = rates.parse() {
        return Ok(MistakeRates::each(each));
    }
    let mut object = serde_json::Map::new();
    for part in rates.split(',') {
        let (mistake, rate) = part.split_once('=').ok_or_else(|| wrong(format!("{part:?} is not MISTAKE=RATE")))?;
        let rate: f64 = rate.parse().map_err(|_| wrong(format!("{rate:?} is no number")))?;
        object.insert(mistake.to_string(), rate.into());
    }
    serde_json::from_value(object.into()).map_err(|e| wrong(e.to_string()))
}

/// The profile of this name: a built-in one, one of the lake, or a file.
pub(crate) async fn find_profile(context: &Context, name: &str) -> Result<Profile, Failure> {
    if let Some(profile) = Profile::built_in(name) {
        return Ok(profile);
    }
    let path = Path::new(name);
    let document = if path.extension().is_some() || name.contains('/') {
        std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("reading {name}: {e}")))?
    } else {
        let stored = context.lake.profile(name).await?;
        let stored = stored.ok_or_else(|| {
            Failure::usage(format!("there is no profile {name}: give standard, compact, a file, or import one"))
        })?;
        String::from_utf8_lossy(&stored).into_owned()
    };
    Profile::from_json(&document).map_err(|e| Failure::usage(format!("profile {name}: {e}")))
}

/// The questions that a program wrote together with the way to their answers. In another world the same words ask
/// something else, so those about other pages than this web's are left out.
async fn planned_questions(context: &Context, web: &str) -> Result<Vec<Task>, Failure> {
    let web = WebTexts::of(context, web).await?;
    let sql = format!(
        "SELECT question, answer, attributes, {EVIDENCE} AS evidence FROM qa WHERE attributes IS NOT NULL \
         ORDER BY event_time, event_id"
    );
    let mut tasks = Vec::new();
    for batch in &query(context, &sql).await? {
        let (questions, answers) = (strings(batch, "question")?, strings(batch, "answer")?);
        let (attributes, evidence) = (strings(batch, "attributes")?, strings(batch, "evidence")?);
        for row in (0..batch.num_rows()).filter(|row| web.hold(text(&evidence, *row).unwrap_or_default())) {
            let attributes = text(&attributes, row).and_then(|json| serde_json::from_str(json).ok());
            tasks.extend(Task::of(&Qa {
                question: text(&questions, row).unwrap_or_default().to_string(),
                answer: text(&answers, row).unwrap_or_default().to_string(),
                attributes: attributes.map(JsonText),
                ..Qa::default()
            }));
        }
    }
    Ok(tasks)
}

/// Whether a text may stand between quotes in a query.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expert_is_terse_if_it_is_told_so() {
        assert_eq!(expert("").unwrap(), (false, MistakeRates::default()));
        assert_eq!(expert("terse").unwrap(), (true, MistakeRates::default()));
        assert_eq!(expert("terse,0.05").unwrap(), (true, MistakeRates::each(0.05)));
        let (is_terse, rates) = expert("bad_json=0.1,terse").unwrap();
        assert_eq!((is_terse, rates.bad_json), (true, 0.1));
    }

    #[test]
    fn mistakes_are_named_or_all_alike() {
        assert_eq!(mistakes("").unwrap(), MistakeRates::default());
        assert_eq!(mistakes("0.05").unwrap(), MistakeRates::each(0.05));
        let some = mistakes("bad_json=0.1,no_answer=0.2").unwrap();
        assert_eq!((some.bad_json, some.no_answer, some.wrong_answer), (0.1, 0.2, 0.0));
        for (rates, part) in [("bad_json", "not MISTAKE=RATE"), ("bad_json=x", "no number"), ("typo=0.1", "typo")] {
            let error = mistakes(rates).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}

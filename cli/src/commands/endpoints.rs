//! `webdancer endpoints`

use futures::future::join_all;
use serde::Serialize;
use webdancer_agent::chat::{ChatModel as _, ChatRequest, ModelRole, Models};
use webdancer_agent::conversation::{Message, Role};

use crate::args::{Args, EndpointsCommand};
use crate::config::Config;
use crate::failure::Failure;
use crate::output;

/// What is asked, and the tokens for it: some reasoning models fail when they get fewer.
const QUESTION: &str = "Answer with the word yes.";
const TOKENS_MAX: u32 = 16;

/// How an endpoint did.
#[derive(Debug, Serialize)]
struct Check {
    endpoint: String,
    model: String,
    roles: Vec<&'static str>,
    /// From the request to the last byte.
    latency_ms: Option<u64>,
    /// It counts tokens.
    counts: bool,
    /// It returned token ids.
    token_ids: bool,
    /// It returned log-probabilities.
    log_probs: bool,
    /// It returned reasoning apart from the text.
    reasoning: bool,
    error: Option<String>,
}

pub(crate) async fn run(command: &EndpointsCommand, args: &Args) -> Result<(), Failure> {
    let EndpointsCommand::Check { names } = command;
    let mut config = Config::read(args.config.as_deref())?;
    for endpoint in config.endpoints.values_mut() {
        endpoint.attempts_max = 1;
    }
    let models = config.models()?;
    let names: Vec<&String> = if names.is_empty() { config.endpoints.keys().collect() } else { names.iter().collect() };
    if let Some(unknown) = names.iter().find(|name| !config.endpoints.contains_key(**name)) {
        return Err(Failure::usage(format!("the settings have no [endpoints.{unknown}]")));
    }
    if names.is_empty() {
        return Err(Failure::usage("the settings have no [endpoints.NAME]; docs/configuration.md shows some"));
    }
    let checks = join_all(names.iter().map(|name| check(&config, &models, name))).await;
    if args.json {
        output::json(&checks)?;
    } else {
        print(&checks)?;
    }
    match checks.iter().filter(|check| check.error.is_some()).count() {
        0 => Ok(()),
        failed if failed == checks.len() => Err(Failure::failed("no endpoint answered")),
        failed => Err(Failure::partly(format!("{failed} of {} endpoints did not answer", checks.len()))),
    }
}

async fn check(config: &Config, models: &Models, name: &str) -> Check {
    let roles = ModelRole::ALL.into_iter().filter(|role| config.roles.endpoint(*role) == Some(name));
    let mut check = Check {
        endpoint: name.to_string(),
        model: config.endpoints.get(name).map(|endpoint| endpoint.model.clone()).unwrap_or_default(),
        roles: roles.map(ModelRole::name).collect(),
        latency_ms: None,
        counts: false,
        token_ids: false,
        log_probs: false,
        reasoning: false,
        error: None,
    };
    let request = ChatRequest {
        messages: vec![Message { role: Role::User, content: QUESTION.to_string() }],
        max_tokens: Some(TOKENS_MAX),
        tokens: true,
        ..ChatRequest::default()
    };
    let answer = match models.endpoint(name) {
        Ok(endpoint) => endpoint.complete(&request).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match answer {
        Ok(completion) => {
            check.latency_ms = u64::try_from(completion.elapsed.as_millis()).ok();
            check.counts = !completion.usage.estimated;
            check.token_ids = completion.tokens.as_ref().is_some_and(|tokens| !tokens.ids.is_empty());
            check.log_probs = completion.tokens.as_ref().is_some_and(|tokens| !tokens.log_probs.is_empty());
            check.reasoning = completion.reasoning.is_some();
        }
        Err(error) => check.error = Some(error),
    }
    check
}

fn print(checks: &[Check]) -> Result<(), Failure> {
    let header = ["endpoint", "model", "roles", "ms", "counts", "token ids", "log-probs", "reasoning", "error"];
    let mut rows = vec![header.map(str::to_string)];
    let yes = |is: bool| if is { "yes" } else { "–" }.to_string();
    rows.extend(checks.iter().map(|check| {
        [
            check.endpoint.clone(),
            check.model.clone(),
            if check.roles.is_empty() { "–".to_string() } else { check.roles.join(",") },
            check.latency_ms.map_or_else(|| "–".to_string(), |ms| ms.to_string()),
            yes(check.counts),
            yes(check.token_ids),
            yes(check.log_probs),
            yes(check.reasoning),
            check.error.clone().unwrap_or_default(),
        ]
    }));
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        output::line(cells.join("  ").trim_end())?;
    }
    Ok(())
}

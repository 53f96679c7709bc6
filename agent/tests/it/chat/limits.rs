//! How much is asked at once, and how much is spent.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use webdancer_agent::chat::{ChatError, ChatModel as _, ModelRole, Models, RolesConfig};
use webdancer_tests::stub_model::{Answer, Part, StubModel, delta, events, finish, usage};

use super::*;

/// An answer that counts as so many tokens.
fn counted(input: u64, output: u64) -> Answer {
    Answer::stream(&[delta("Paris"), finish("stop"), usage(input, output)])
}

async fn limited(answer: Answer, budget: BudgetConfig, change: impl FnOnce(&mut EndpointConfig)) -> Setup {
    Setup::of(StubModel::in_order([answer]).await, budget, change)
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_allowed() {
    let setup = Setup::with([Answer::says("Paris").late(Duration::from_millis(100))], |c| c.concurrency = 3).await;
    let answers = join_all((0..12).map(|_| setup.ask())).await;
    assert!(answers.iter().all(|answer| answer.text == "Paris"));
    assert_eq!((setup.server.asked().len(), setup.server.most_at_once()), (12, 3));
}

#[tokio::test]
async fn requests_and_tokens_keep_to_their_rates() {
    let setup = limited(counted(8, 2), BudgetConfig::default(), |c| c.requests_per_minute = Some(6)).await;
    for _ in 0..4 {
        setup.ask().await;
    }
    // One at once, the others ten seconds apart.
    assert_eq!(setup.clock.waits().iter().sum::<Duration>().as_secs(), 30);
    // 8 tokens are reserved for the prompt, 1,000 are used: 10 s hold 100, so the debt of 900 takes 90 s.
    let setup = limited(counted(500, 500), BudgetConfig::default(), |c| c.tokens_per_minute = Some(600)).await;
    setup.ask().await;
    setup.ask().await;
    assert_eq!(setup.clock.waits().iter().sum::<Duration>().as_secs(), 90);
}

#[tokio::test]
async fn tokens_that_a_failed_or_cancelled_request_did_not_use_are_free_again() {
    let server = StubModel::scripted(|_, number| match number {
        0 => Answer::status(500),
        1 => Answer::parts([Part::Bytes(events(&[delta("Paris, on")])), Part::Hang]),
        _ => counted(8, 2),
    })
    .await;
    // 10 s hold 100 tokens, and a request reserves all: 8 for the prompt and 92 to write.
    let setup = Setup::of(server, BudgetConfig::default(), |config| {
        (config.tokens_per_minute, config.max_tokens, config.attempts_max) = (Some(600), Some(92), 1);
    });
    setup.error().await;
    assert!(tokio::time::timeout(Duration::from_secs(1), setup.ask()).await.is_err());
    assert!(setup.clock.waits().is_empty(), "the request that failed used nothing");
    setup.ask().await;
    // 8 tokens read and 3 written, of 10 a second; a millisecond is for rounding.
    assert_eq!(setup.clock.waits(), [Duration::from_millis(1_101)]);
}

#[tokio::test]
async fn work_stops_when_the_tokens_are_spent() {
    let setup = limited(counted(4, 5), BudgetConfig { tokens: Some(10), ..BudgetConfig::default() }, |_| {}).await;
    setup.ask().await;
    setup.ask().await;
    let spent = ChatError::BudgetSpent("18 tokens of the 10 that budget.tokens allows".to_string());
    assert_eq!(setup.endpoint.complete(&question()).await, Err(spent.clone()));
    assert_eq!(setup.endpoint.complete(&question()).await, Err(spent));
    assert_eq!(setup.server.asked().len(), 2);
}

#[tokio::test]
async fn work_stops_when_the_money_is_spent() {
    let budget = BudgetConfig { cost: Some(1.0), ..BudgetConfig::default() };
    let change = |config: &mut EndpointConfig| {
        (config.price_input, config.price_output) = (Some(2.0), Some(8.0));
    };
    let setup = limited(counted(100_000, 100_000), budget, change).await;
    setup.ask().await;
    let reason = "1.0000 of the 1 that budget.cost allows";
    assert_eq!(setup.error().await, format!("the budget is spent: {reason}"));
    assert_eq!(setup.budget.spent().cost, 1.0);
}

#[tokio::test]
async fn work_under_way_is_cut_off_when_the_time_is_over() {
    let hangs = Answer::parts([Part::Bytes(events(&[delta("Par")])), Part::Hang]);
    let setup = limited(hangs, BudgetConfig { time_s: Some(60), ..BudgetConfig::default() }, |_| {}).await;
    setup.clock.pass(Duration::from_millis(59_900));
    assert_eq!(setup.error().await, "the budget is spent: the 60 s that budget.time_s allows are over");
    assert_eq!(setup.budget.spent().output_tokens, 1, "what came before is charged");
}

#[tokio::test]
async fn nobody_waits_for_an_attempt_that_there_is_no_time_for() {
    let again = Answer::status(429).header("retry-after", "61");
    let setup = limited(again, BudgetConfig { time_s: Some(60), ..BudgetConfig::default() }, |_| {}).await;
    assert_eq!(setup.error().await, "the budget is spent: the 60 s that budget.time_s allows are over");
    assert_eq!((setup.server.asked().len(), setup.clock.waits().len()), (1, 0));
}

#[tokio::test]
async fn a_request_that_is_given_up_is_charged_and_makes_room() {
    let server = StubModel::scripted(|_, number| match number {
        0 => Answer::parts([Part::Bytes(events(&[delta("Paris, on")])), Part::Hang]),
        _ => Answer::says("Paris"),
    })
    .await;
    let setup = Setup::of(server, BudgetConfig::default(), |config| config.concurrency = 1);
    let given_up = tokio::time::timeout(Duration::from_secs(1), setup.ask()).await;
    assert!(given_up.is_err());
    assert_eq!(setup.budget.spent().estimated_tokens, 11);
    assert_eq!(setup.ask().await.text, "Paris");
}

#[tokio::test]
async fn time_that_ends_before_an_answer_begins_is_the_endpoints_fault_and_not_the_policys() {
    use webdancer_agent::profile::Profile;
    use webdancer_agent::react::{React, ReactConfig};
    use webdancer_agent::web::Without;

    let begun = || Part::Bytes(events(&[delta("<think>\nI")]));
    for (answers, termination, attempts) in [
        (vec![Answer::parts([begun(), Part::Hang])], "time", 1),
        (vec![Answer::silence()], "error", 1),
        // What was begun before, and broke off, is no answer.
        (vec![Answer::parts([begun(), Part::Cut]), Answer::silence()], "error", 2),
    ] {
        let setup = Setup::new(answers).await;
        let config = ReactConfig { time_ms_max: 1_000, ..ReactConfig::default() };
        let agent =
            React::new(Arc::new(setup.endpoint), Arc::new(Without::default()), Arc::new(Profile::compact()), config);
        let attempted = agent.attempt(&crate::scripted::task("Where?")).await;
        assert_eq!(attempted.trajectory.termination, termination);
        let failure = attempted.failure.map(|failure| failure.to_string());
        let unavailable =
            format!("m (endpoints.stub): unavailable after {attempts} attempts: nothing was answered within the ");
        assert_eq!(failure.is_some_and(|failure| failure.starts_with(&unavailable)), termination == "error");
        assert_eq!(setup.server.asked().len(), attempts);
    }
}

#[tokio::test]
async fn roles_share_endpoints_and_the_budget() {
    let servers = [StubModel::in_order([counted(4, 5)]).await, StubModel::in_order([counted(2, 1)]).await];
    let endpoints = BTreeMap::from([
        ("large".to_string(), config(&servers[0].url())),
        ("small".to_string(), config(&servers[1].url())),
        ("unused".to_string(), EndpointConfig { api_key_env: Some("NOT_SET".into()), ..config("http://127.0.0.1:1") }),
    ]);
    let name = |name: &str| Some(name.to_string());
    let roles =
        RolesConfig { agent: name("large"), synthesiser: None, summariser: name("small"), judge: name("large") };
    let budget = BudgetConfig { tokens: Some(12), ..BudgetConfig::default() };
    let models = Models::new(endpoints, roles, budget, Jumping::new(), 7).unwrap();
    let (agent, judge) = (models.role(ModelRole::Agent).unwrap(), models.role(ModelRole::Judge).unwrap());
    assert!(Arc::ptr_eq(&agent, &judge));
    let missing = models.role(ModelRole::Synthesiser).unwrap_err().to_string();
    assert_eq!(missing, "roles.synthesiser: is missing: name one of the [endpoints.NAME] that plays it");
    let unused = models.endpoint("unused").unwrap_err().to_string();
    assert_eq!(unused, "endpoints.unused.api_key_env: the environment variable that it names is not set");
    agent.complete(&question()).await.unwrap();
    let summariser = models.find(ModelRole::Summariser).unwrap().unwrap();
    summariser.complete(&question()).await.unwrap();
    assert_eq!(models.budget().spent().input_tokens, 6);
    assert!(matches!(judge.complete(&question()).await, Err(ChatError::BudgetSpent(_))));
    assert_eq!(servers.map(|server| server.asked().len()), [1, 1]);
}

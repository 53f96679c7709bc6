//! Batches through the stages: what is judged, what is not judged again, and the events that tell of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use webdancer_agent::chat::{ChatError, ChatModel, ChatRequest, Completion, Finish, Usage};
use webdancer_agent::judge::{Case, Decision, Judge, Normalised, Verdict};
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::Judgment;
use webdancer_synth::funnel::{
    Criterion, Critic, CriticParameters, Funnel, FunnelLimits, FunnelParameters, QualityParameters, Run, SOURCE,
    Sifted, Stage,
};

use crate::trajectories::{Row, batch, good, with};

/// A judge that fails where the answer says so, and remembers what it was asked.
#[derive(Debug, Default)]
struct Touchy {
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Judge for Touchy {
    fn name(&self) -> &str {
        "touchy"
    }

    fn rule_version(&self) -> i32 {
        7
    }

    async fn judge(&self, case: &Case<'_>) -> Decision {
        self.asked.lock().push(case.gold.to_string());
        if case.answer == "outage" {
            return Decision::error("no reply");
        }
        let confident = |decision| Decision { confidence: Some(0.5), extracted: Some("x".to_string()), ..decision };
        confident(if case.answer == case.gold { Decision::pass("alike") } else { Decision::fail("not alike") })
    }
}

/// A model that gives these replies in turn, and remembers what it was shown.
#[derive(Debug, Default)]
struct Scripted {
    replies: Mutex<VecDeque<Result<String, ChatError>>>,
    shown: Mutex<Vec<String>>,
}

#[async_trait]
impl ChatModel for Scripted {
    fn name(&self) -> &str {
        "reviewer-7b"
    }

    async fn complete(&self, request: &ChatRequest) -> Result<Completion, ChatError> {
        self.shown.lock().push(request.messages[1].content.clone());
        let text = self.replies.lock().pop_front().expect("the script has a reply")?;
        let (usage, elapsed) = (Usage::default(), Duration::ZERO);
        Ok(Completion { text, reasoning: None, finish: Finish::Stop, usage, tokens: None, elapsed })
    }
}

fn opinion(redundancy: &str, alignment: &str, reasoning: &str) -> Result<String, ChatError> {
    Ok(format!(
        "reasoning: one search\nnon_redundancy: {redundancy}\ngoal_alignment: {alignment}\nsound_reasoning: {reasoning}"
    ))
}

fn critic(replies: Vec<Result<String, ChatError>>, parameters: CriticParameters) -> (Critic, Arc<Scripted>) {
    let model = Arc::new(Scripted { replies: Mutex::new(replies.into()), ..Scripted::default() });
    (Critic::new(model.clone(), parameters), model)
}

fn limits() -> FunnelLimits {
    FunnelLimits { concurrency: 1, threads: 2, ..FunnelLimits::default() }
}

fn funnel(judge: Arc<dyn Judge>) -> Funnel {
    let mut funnel = Funnel::new(FunnelParameters::default(), judge, None, limits()).unwrap();
    Stage::ALL.into_iter().for_each(|stage| funnel.set_version(stage, 3));
    funnel
}

fn reviewed(critic: Critic) -> Funnel {
    Funnel::new(FunnelParameters::default(), Arc::new(Normalised), Some(critic), limits()).unwrap()
}

fn run() -> Run {
    Run { id: "run-1".to_string(), start: "2026-02-01T00:00:00Z".parse().unwrap() }
}

async fn sift(funnel: &Funnel, rows: &[Row]) -> Sifted {
    funnel.sift(&[batch(rows)], &run()).await.unwrap()
}

fn judgment(event: &Event) -> Judgment {
    assert_eq!((event.kind(), event.envelope.source.as_str()), (Kind::Judgment, SOURCE));
    event.kind().check_row(event.data.get()).unwrap();
    serde_json::from_str(event.data.get()).unwrap()
}

/// `trajectory stage verdict reason` of each event, in order.
fn told(sifted: &Sifted) -> Vec<String> {
    let mut told: Vec<String> = sifted
        .events
        .iter()
        .map(|event| {
            let row = judgment(event);
            let criteria = row.criteria.unwrap().0;
            let reason = criteria["reason"].as_str().unwrap_or("-").to_string();
            format!("{} {} {} {reason}", row.trajectory_id, row.stage, row.verdict)
        })
        .collect();
    told.sort();
    told
}

fn without_gold(id: &str) -> Row {
    Row { gold: None, ..good(id) }
}

fn answering(id: &str, answer: &str) -> Row {
    with(id, |row| row.answer = Some(answer.to_string()))
}

#[tokio::test]
async fn a_stage_judges_what_passed_the_ones_before_it() {
    let rows = [
        good("accepted"),
        with("broken", |row| row.turn_thought[0] = None),
        answering("wrong", "Sava"),
        answering("unsure", "outage"),
        with("poor", |row| row.turn_tool[0] = Some("calculate".to_string())),
        without_gold("goldless"),
    ];
    let sifted = sift(&funnel(Arc::new(Touchy::default())), &rows).await;
    assert_eq!(
        told(&sifted),
        [
            "accepted correctness pass -",
            "accepted quality pass -",
            "accepted validity pass -",
            "broken validity fail not_in_format",
            "goldless validity pass -",
            "poor correctness pass -",
            "poor quality fail unknown_tool",
            "poor validity pass -",
            "unsure correctness error judge_failed",
            "unsure validity pass -",
            "wrong correctness fail wrong_answer",
            "wrong validity pass -",
        ]
    );
    let counts: BTreeMap<Stage, (u64, u64, u64)> =
        sifted.stages.iter().map(|(stage, counts)| (*stage, (counts.pass, counts.fail, counts.error))).collect();
    let due = [(Stage::Validity, (5, 1, 0)), (Stage::Correctness, (2, 1, 1)), (Stage::Quality, (1, 1, 0))];
    assert_eq!(counts, BTreeMap::from(due));
    assert_eq!(sifted.stopped, None);
}

#[tokio::test]
async fn what_has_a_verdict_in_force_is_not_judged_again() {
    let known = |known| Row { known, ..good("t") };
    let judge = Arc::new(Touchy::default());
    let funnel = funnel(judge.clone());
    for (row, due) in [
        (known([Some("pass"), Some("pass"), Some("pass")]), &[][..]),
        (known([Some("pass"), Some("fail"), None]), &[]),
        (known([Some("fail"), None, None]), &[]),
        (known([Some("pass"), Some("pass"), None]), &["t quality pass -"]),
        (known([None, Some("pass"), Some("pass")]), &["t validity pass -"]),
        // A verdict that holds counts, whatever the rules would say: it may be an override.
        (
            Row { known: [Some("pass"), None, None], ..with("t", |row| row.turn_thought[0] = None) },
            &["t correctness pass -", "t quality pass -"],
        ),
    ] {
        assert_eq!(told(&sift(&funnel, &[row]).await), due);
    }
    assert_eq!(judge.asked.lock().len(), 1);
}

#[tokio::test]
async fn only_the_stages_asked_for_are_judged() {
    let rows = [good("new"), Row { known: [Some("pass"), None, None], ..good("valid") }];
    let only = |stages: &[Stage]| funnel(Arc::new(Normalised)).only(stages);
    assert_eq!(told(&sift(&only(&[Stage::Validity]), &rows).await), ["new validity pass -"]);
    assert_eq!(told(&sift(&only(&[Stage::Correctness]), &rows).await), ["valid correctness pass -"]);
    assert_eq!(told(&sift(&only(&[Stage::Quality]), &rows).await), [""; 0]);
}

#[tokio::test]
async fn an_invalid_trajectory_with_an_answer_is_judged_where_rewards_ask_for_it() {
    let broken = with("broken", |row| row.turn_thought[0] = None);
    let silent = with("silent", |row| row.answer = None);
    let funnel = funnel(Arc::new(Normalised)).with_invalid();
    assert_eq!(
        told(&sift(&funnel, &[broken, silent]).await),
        ["broken correctness pass -", "broken validity fail not_in_format", "silent validity fail no_answer"]
    );
}

#[tokio::test]
async fn a_judgment_says_by_what_it_was_judged_and_where_it_came_from() {
    let sifted = sift(&funnel(Arc::new(Touchy::default())), &[good("t")]).await;
    let [validity, correctness, quality] = sifted.events.as_slice() else { panic!("{:?}", told(&sifted)) };
    for event in &sifted.events {
        assert_eq!(event.key(), "t");
        assert_eq!(event.envelope.parents, ["t", "qa-of-t"]);
        assert_eq!(event.envelope.run_id.as_deref(), Some("run-1"));
        assert_eq!(event.envelope.time, Some(run().start));
        assert_eq!(judgment(event).rule_version, 3);
    }
    let criteria = |event| judgment(event).criteria.unwrap().0;
    assert_eq!(criteria(validity)["judged_by"], json!({"stage": "validity", "rules": {"version": 2}}));
    assert_eq!(
        criteria(correctness)["judged_by"],
        json!({"stage": "correctness", "rules": {"judge": "touchy", "version": 7}})
    );
    let case = Case { question: "Which river flows through Maribor?", gold: "Drava", answer: "Drava" };
    assert_eq!(criteria(correctness)["case"], case.id().to_string());
    assert_eq!(criteria(correctness)["confidence"], 0.5);
    assert_eq!(criteria(correctness)["extracted"], "x");
    assert_eq!(judgment(correctness).judge.as_deref(), Some("touchy"));
    assert_eq!(
        criteria(quality)["judged_by"]["rules"]["parameters"],
        json!({"tools": ["search", "visit"], "observation_marks": ["<tool_response>", "</tool_response>"],
               "ngram_words": 10, "ngram_count_max": 4, "actions_min": 2, "forced_answers": false})
    );
    assert_eq!(judgment(quality).judge.as_deref(), Some("rules"));
    assert_eq!(judgment(quality).rationale.as_deref(), Some("2 actions; the most frequent 10-gram occurs 0 times"));
}

#[tokio::test]
async fn a_run_that_is_repeated_repeats_its_ids_and_a_new_version_has_its_own() {
    let ids = |sifted: &Sifted| -> Vec<_> { sifted.events.iter().map(Event::id).collect() };
    let funnel = funnel(Arc::new(Normalised));
    let first = ids(&sift(&funnel, &[good("t")]).await);
    let later = Run { id: "run-2".to_string(), start: "2027-01-01T00:00:00Z".parse().unwrap() };
    assert_eq!(ids(&funnel.sift(&[batch(&[good("t")])], &later).await.unwrap()), first);
    let mut newer = funnel.clone();
    newer.set_version(Stage::Quality, 4);
    let second = ids(&sift(&newer, &[good("t")]).await);
    assert_eq!((&first[..2], first[2] == second[2]), (&second[..2], false));
}

#[tokio::test]
async fn another_gold_answer_makes_another_judgment_of_the_same_version() {
    let funnel = funnel(Arc::new(Normalised)).only(&[Stage::Validity, Stage::Correctness]);
    let row = |gold: &str, golds: Option<&str>| Row {
        gold: Some(gold.to_string()),
        golds: golds.map(str::to_string),
        ..good("t")
    };
    let mut ids = std::collections::HashSet::new();
    for row in [row("Drava", None), row("Mura", None), row("Drava", Some("[\"Drau\"]"))] {
        ids.insert(sift(&funnel, &[row]).await.events[1].id());
    }
    assert_eq!(ids.len(), 3);
    // The digest is one that SQL can compute: SHA-256 of "Drava\n".
    let sifted = sift(&funnel, &[row("Drava", None)]).await;
    assert_eq!(judgment(&sifted.events[1]).criteria.unwrap().0["gold"], "b53c506d7465c9f3");
}

#[tokio::test]
async fn each_failure_of_a_judge_is_an_event_of_its_own() {
    let funnel = funnel(Arc::new(Touchy::default())).only(&[Stage::Correctness]);
    let valid = |row: Row, failures| Row { known: [Some("pass"), None, None], errors: [failures, 0], ..row };
    let mut ids = Vec::new();
    for row in [
        valid(answering("t", "outage"), 0),
        valid(answering("t", "outage"), 1),
        valid(answering("t", "Drava"), 1),
        valid(answering("t", "Drava"), 0),
    ] {
        ids.push(sift(&funnel, &[row]).await.events[0].id());
    }
    assert_eq!((ids[0] == ids[1], ids[0] == ids[3], ids[2] == ids[3]), (false, false, true));
}

#[tokio::test]
async fn a_judge_that_only_fails_is_left_alone_and_what_is_left_is_not_judged() {
    let parameters = FunnelLimits { errors_in_a_row_max: 3, ..limits() };
    let judge = Arc::new(Touchy::default());
    let funnel = Funnel::new(FunnelParameters::default(), judge.clone(), None, parameters).unwrap();
    let mut rows: Vec<Row> = (0..10).map(|number| answering(&format!("t{number}"), "outage")).collect();
    rows[1] = good("t1");
    let sifted = sift(&funnel, &rows).await;
    assert_eq!(sifted.stopped.as_deref(), Some("the judge failed 3 times in a row: no reply"));
    assert_eq!((sifted.stages[&Stage::Correctness].error, sifted.stages[&Stage::Correctness].pass), (4, 1));
    assert!(judge.asked.lock().len() <= 6, "asked about {}", judge.asked.lock().len());
}

#[tokio::test]
async fn any_of_several_gold_answers_will_do() {
    let judge = Arc::new(Touchy::default());
    let row = |answer: &str| Row { golds: Some("[\"Drau\", \"Dráva\"]".to_string()), ..answering("t", answer) };
    let funnel = funnel(judge.clone()).only(&[Stage::Validity, Stage::Correctness]);
    assert_eq!(told(&sift(&funnel, &[row("Drau")]).await)[0], "t correctness pass -");
    assert_eq!(*judge.asked.lock(), ["Drava", "Drau"]);
    assert_eq!(told(&sift(&funnel, &[row("Mura")]).await)[0], "t correctness fail wrong_answer");
    assert_eq!(told(&sift(&funnel, &[row("outage")]).await)[0], "t correctness error judge_failed");
}

#[tokio::test]
async fn the_critic_reviews_what_the_rules_let_through() {
    let replies = vec![
        opinion("yes", "yes", "yes"),
        opinion("no", "yes", "yes"),
        opinion("yes", "**no**", "yes"),
        opinion("yes", "yes", "no"),
    ];
    let (critic, model) = critic(replies, CriticParameters::default());
    let rows =
        [good("a"), with("b", |row| row.turn_tool[0] = Some("calculate".to_string())), good("c"), good("d"), good("e")];
    let funnel = reviewed(critic).only(&[Stage::Validity, Stage::Correctness, Stage::Quality]);
    assert!(funnel.reads_observations());
    let sifted = sift(&funnel, &rows).await;
    let quality: Vec<String> = told(&sifted).into_iter().filter(|line| line.contains("quality")).collect();
    assert_eq!(
        quality,
        [
            "a quality pass -",
            "b quality fail unknown_tool",
            "c quality fail redundant",
            "d quality fail off_goal",
            "e quality fail poor_reasoning",
        ]
    );
    let of_c =
        sifted.events.iter().map(judgment).find(|row| row.trajectory_id == "c" && row.stage == "quality").unwrap();
    assert_eq!((of_c.judge.as_deref(), of_c.score), (Some("reviewer-7b"), Some(2.0 / 3.0)));
    assert!(of_c.rationale.unwrap().ends_with("; one search"));
    let shown: Value = serde_json::from_str(&model.shown.lock()[0]).unwrap();
    assert_eq!(
        shown,
        json!({
            "question": "Which river flows through Maribor?",
            "turns": [
                {"thought": "I search for it.", "tool": "search",
                 "arguments": "{\"query\": [\"river through Maribor\"]}", "observation": "Maribor lies on the Drava."},
                {"thought": "The page says so."},
            ],
            "final_answer": "Drava",
        })
    );
}

#[tokio::test]
async fn an_opinion_is_remembered_when_other_parameters_change() {
    let (first, _) = critic(vec![opinion("no", "yes", "yes")], CriticParameters::default());
    let digest = first.digest().to_string();
    let sifted = sift(&reviewed(first), &[good("t")]).await;
    let kept = judgment(sifted.events.last().unwrap()).criteria.unwrap().0["opinion"].clone();
    assert_eq!(kept["digest"], json!(digest));
    let remembering = Row { opinion: Some(kept.to_string()), ..good("t") };
    // The criteria that must hold have changed, not what was asked.
    let criteria = vec![Criterion::GoalAlignment, Criterion::SoundReasoning];
    let (second, model) = critic(vec![], CriticParameters { criteria, ..CriticParameters::default() });
    assert_eq!(second.digest(), digest);
    let funnel = reviewed(second);
    let sifted = sift(&funnel, std::slice::from_ref(&remembering)).await;
    assert_eq!(told(&sifted)[1], "t quality pass -");
    assert!(model.shown.lock().is_empty());
    // What the critic is shown has changed: it is asked again.
    let parameters = CriticParameters { observation_chars_max: 10, ..CriticParameters::default() };
    let (third, model) = critic(vec![opinion("yes", "yes", "yes")], parameters);
    assert_ne!(third.digest(), digest);
    sift(&reviewed(third), &[remembering]).await;
    let shown = model.shown.lock();
    assert!(shown[0].contains("Maribor li [… 16 more characters]"), "{}", shown[0]);
}

#[tokio::test]
async fn a_critic_that_fails_is_an_error_and_its_retries_are_bounded() {
    let unreadable = || Ok("I like it.".to_string());
    let (critic, model) = critic(
        vec![unreadable(), unreadable(), unreadable(), opinion("yes", "yes", "yes")],
        CriticParameters::default(),
    );
    let sifted = sift(&reviewed(critic), &[good("t")]).await;
    assert_eq!(told(&sifted)[1], "t quality error judge_failed");
    assert_eq!(model.shown.lock().len(), 3);
}

#[tokio::test]
async fn of_many_turns_the_critic_sees_the_first_and_the_last() {
    let parameters = CriticParameters { turns_max: 4, ..CriticParameters::default() };
    let (critic, model) = critic(vec![opinion("yes", "yes", "yes")], parameters);
    let row = with("t", |row| {
        let texts =
            |prefix: &str| (0..9).map(|turn| Some(format!("{prefix} {turn}"))).chain([None]).collect::<Vec<_>>();
        row.turn_thought = (0..10).map(|turn| Some(format!("thought {turn}"))).collect();
        row.turn_tool = vec![Some("visit".to_string()); 9].into_iter().chain([None]).collect();
        row.turn_arguments = vec![Some("{}".to_string()); 9].into_iter().chain([None]).collect();
        row.turn_observation = texts("page");
        row.turn_observation_digest = texts("digest");
        row.turn_raw = vec![None; 10];
    });
    sift(&reviewed(critic), &[row]).await;
    let shown: Value = serde_json::from_str(&model.shown.lock()[0]).unwrap();
    let thoughts: Vec<&str> = shown["turns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| turn["thought"].as_str().unwrap_or(if turn["turns_left_out"] == 6 { "…" } else { "?" }))
        .collect();
    assert_eq!(thoughts, ["thought 0", "thought 1", "…", "thought 8", "thought 9"]);
}

#[test]
fn parameters_that_mean_nothing_are_refused() {
    let refused = |change: fn(&mut FunnelParameters)| {
        let mut parameters = FunnelParameters::default();
        change(&mut parameters);
        Funnel::new(parameters, Arc::new(Normalised), None, limits()).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|p| p.quality.ngram_words = 0),
        "the funnel's parameters: quality.ngram_words must be from 1 to 1,000"
    );
    assert!(refused(|p| p.quality.tools.clear()).contains("quality.tools"));
    assert!(refused(|p| p.quality.observation_marks.push(String::new())).contains("quality.observation_marks"));
    assert!(refused(|p| p.critic.criteria.clear()).contains("critic.criteria"));
}

#[test]
fn the_digest_of_a_stage_changes_with_what_it_judges_by_and_nothing_else() {
    let digests = |parameters: FunnelParameters, judge: Arc<dyn Judge>, limits| {
        let funnel = Funnel::new(parameters, judge, None, limits).unwrap();
        funnel.rules().each_ref().map(|rules| rules.digest.clone())
    };
    let same = digests(FunnelParameters::default(), Arc::new(Normalised), limits());
    let slower = FunnelLimits { concurrency: 99, errors_in_a_row_max: 1, threads: 1 };
    assert_eq!(digests(FunnelParameters::default(), Arc::new(Normalised), slower), same);
    let strict = FunnelParameters {
        quality: QualityParameters { ngram_count_max: 3, ..QualityParameters::default() },
        ..FunnelParameters::default()
    };
    let stricter = digests(strict, Arc::new(Normalised), limits());
    assert_eq!((&stricter[..2], stricter[2] == same[2]), (&same[..2], false));
    let otherwise = digests(FunnelParameters::default(), Arc::new(Touchy::default()), limits());
    assert_eq!((otherwise[0] == same[0], otherwise[1] == same[1], otherwise[2] == same[2]), (true, false, true));
}

#[tokio::test]
async fn verdicts_go_by_their_place_over_many_batches() {
    let rows =
        |number: usize| [answering(&format!("a{number}"), if number.is_multiple_of(2) { "Drava" } else { "Sava" })];
    let batches: Vec<_> = (0..20).map(|number| batch(&rows(number))).collect();
    let limits = FunnelLimits { concurrency: 4, ..limits() };
    let funnel = Funnel::new(FunnelParameters::default(), Arc::new(Normalised), None, limits).unwrap();
    let sifted = funnel.sift(&batches, &run()).await.unwrap();
    for event in sifted.events.iter().map(judgment).filter(|row| row.stage == "correctness") {
        let number: usize = event.trajectory_id[1..].parse().unwrap();
        let due = if number.is_multiple_of(2) { Verdict::Pass } else { Verdict::Fail };
        assert_eq!(event.verdict, due.as_str(), "{}", event.trajectory_id);
    }
    assert_eq!(sifted.stages[&Stage::Correctness].pass, 10);
    assert_eq!(sifted.stages[&Stage::Quality].pass, 10);
}

//! The rows of a benchmark lake: questions with their rewrites, trajectories, verdicts, rewards; pages, runs, metrics.

use chrono::{DateTime, TimeDelta, Utc};
use rand::{Rng as _, RngCore, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::row::HasKind;
use webdancer_schemas::rows::{Checkpoint, Judgment, Metric, Page, Qa, Reward, Rewrite, Run, Trajectory};

use crate::Result;
use crate::text::Vocabulary;

/// Attempts at each question.
const ATTEMPTS: u64 = 8;
/// Questions of one family: a root and its rewrites.
const FAMILY: u64 = 4;
/// Runs that sample; each has an equal share of the trajectories.
const SAMPLING_RUNS: u64 = 100;
/// Runs that train, each leaving a checkpoint.
const TRAINING_RUNS: u64 = 10;
/// Trajectories for each page.
const TRAJECTORIES_PER_PAGE: u64 = 20;
/// Trajectories for each value that is measured.
const TRAJECTORIES_PER_METRIC: u64 = 10;
const DOMAINS: u64 = 400;
const TYPES: &[&str] = &["count", "multi-hop", "intersection", "comparative", "superlative", "ordinal", "generic"];
const SOURCE: &str = "bench";

/// What all rows are made from.
pub(crate) struct World {
    pub(crate) trajectories: u64,
    pub(crate) seed: u64,
    vocabulary: Vocabulary,
    /// Of every page its text's digest.
    page_digests: Vec<String>,
}

/// Random numbers of a subject; the same whenever it is asked for again.
#[derive(Clone, Copy)]
enum Stream {
    Vocabulary,
    Question,
    Observation,
    Page,
    PageText,
    Verdict,
}

impl World {
    pub(crate) fn new(trajectories: u64, seed: u64) -> World {
        let vocabulary = Vocabulary::new(&mut random(seed, Stream::Vocabulary, 0));
        let mut world = World { trajectories, seed, vocabulary, page_digests: Vec::new() };
        world.page_digests = (0..world.pages()).map(|number| digest(world.page_text(number))).collect();
        world
    }

    pub(crate) fn questions(&self) -> u64 {
        self.trajectories.div_ceil(ATTEMPTS)
    }

    fn random(&self, stream: Stream, number: u64) -> ChaCha8Rng {
        random(self.seed, stream, number)
    }

    /// Trajectories are 700 ms apart.
    fn time(&self, trajectory: u64) -> DateTime<Utc> {
        let start = DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default();
        start + TimeDelta::milliseconds(trajectory as i64 * 700)
    }

    fn event<R: HasKind>(&self, row: &R, run: &str, at: DateTime<Utc>, step: u64) -> Result<Event> {
        let event = Event::new(SOURCE, row)?.with_run(run);
        let id = EventId::derive(at, run, R::KIND, event.key(), step);
        Ok(event.with_id(id).at(at))
    }

    /// What is there before any trajectory: runs that train, their checkpoints, pages.
    pub(crate) fn head(&self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for number in 0..TRAINING_RUNS {
            let run = training_run(number);
            let started = Run {
                kind: "dapo".to_string(),
                state: "started".to_string(),
                config: Some(JsonText(json!({"learning_rate": 1e-6, "group_size": 16, "round": number}))),
                pin_id: Some(digest(format!("pin {number}"))),
                parent_run: number.checked_sub(1).map(training_run),
                seed: Some(number as i64),
                ..Run::default()
            };
            let at = self.time(0) + TimeDelta::seconds(number as i64 * 60);
            events.push(self.event(&started, &run, at, 0)?);
            events.push(self.event(&Run { state: "finished".to_string(), ..started }, &run, at, 1)?);
            let checkpoint = Checkpoint {
                digest: checkpoint(number),
                step: (number as i64 + 1) * 100,
                uri: format!("runs/{run}/checkpoint"),
                base_model: Some("qwen2.5-7b".to_string()),
                pin_id: Some(digest(format!("pin {number}"))),
            };
            events.push(self.event(&checkpoint, &run, at, 0)?);
        }
        for number in 0..self.pages() {
            events.push(self.page(number)?);
        }
        Ok(events)
    }

    fn pages(&self) -> u64 {
        self.trajectories.div_ceil(TRAJECTORIES_PER_PAGE)
    }

    /// One page in ten shows what another shows.
    fn page_text(&self, number: u64) -> String {
        let shown = if number % 10 == 9 { number / 2 } else { number };
        let rng = &mut self.random(Stream::PageText, shown);
        let bytes = length(rng, 3_000);
        self.vocabulary.sentences(rng, bytes)
    }

    fn page(&self, number: u64) -> Result<Event> {
        let rng = &mut self.random(Stream::Page, number);
        let links = (0..rng.random_range(5..30)).map(|_| url(rng.random_range(0..self.pages()))).collect();
        let row = Page {
            url: url(number),
            final_url: url(number),
            root_url: format!("https://{}/", domain(number)),
            depth: (number % 5) as i32,
            status: 200,
            content_type: Some("text/html".to_string()),
            title: Some(self.vocabulary.words(rng, 5)),
            digest: Some(self.page_digest(number)),
            text: Some(self.page_text(number)),
            links,
            language: Some(if number.is_multiple_of(7) { "zho" } else { "eng" }.to_string()),
            fetch_ms: Some(length(rng, 180) as i64),
            error: None,
        };
        self.event(&row, "crawl-1", self.time(0) + TimeDelta::milliseconds(number as i64 * 50), 0)
    }

    /// All events of a question: itself, attempts at it, verdicts on them.
    pub(crate) fn question(&self, number: u64, events: &mut Vec<Event>) -> Result<()> {
        let rng = &mut self.random(Stream::Question, number);
        let first = number * ATTEMPTS;
        let (family, rewrites) = (number / FAMILY, number % FAMILY);
        let run = sampling_run(first, self.trajectories);
        let at = self.time(first);
        let gold = self.answer(family, 0);
        let level = 1 + (rewrites * 2 + number % 3) / 3;
        let method = if family.is_multiple_of(5) { "crawlqa" } else { "e2hqa" };
        let question = format!("{}?", self.vocabulary.words(rng, 12 + rewrites as usize * 8));
        let qa = Qa {
            qa_id: self.qa_id(number),
            method: method.to_string(),
            question: question.clone(),
            answer: gold.clone(),
            r#type: Some(TYPES[family as usize % TYPES.len()].to_string()),
            language: Some(if family.is_multiple_of(6) { "zh" } else { "en" }.to_string()),
            rewrites: Some(rewrites as i32),
            entity_chain: (0..=rewrites).map(|step| self.answer(family, 10 + step)).collect(),
            evidence_page_digests: (0..=rewrites).map(|step| self.page_digest(family * 3 + step)).collect(),
            parent_qa_id: (rewrites > 0).then(|| self.qa_id(number - 1)),
            generator: Some("qwen2.5-72b".to_string()),
            attributes: Some(JsonText(json!({"tag": method, "level": level, "domain": domain(family)}))),
        };
        events.push(self.event(&qa, "synth-1", at, 0)?);
        if rewrites > 0 {
            let rewrite = Rewrite {
                qa_id: self.qa_id(number),
                step: rewrites as i32,
                entity: self.answer(family, 10 + rewrites),
                query: Some(self.vocabulary.words(rng, 4)),
                evidence_page_digests: vec![self.page_digest(family * 3 + rewrites)],
                description: self.vocabulary.sentences(rng, 120),
                new_question: question.clone(),
                invariant: Some(true),
            };
            events.push(self.event(&rewrite, "synth-1", at, 0)?);
        }
        for attempt in 0..ATTEMPTS.min(self.trajectories - first) {
            let id = first + attempt;
            let trajectory = self.trajectory(rng, id, &qa, level);
            let correct = trajectory.answer.as_ref().map(|answer| *answer == gold);
            events.push(self.event(&trajectory, &run, self.time(id), 0)?);
            self.verdicts(rng, id, correct, events)?;
            if id.is_multiple_of(TRAJECTORIES_PER_METRIC) {
                let (name, unit) = [("loss", "nats"), ("reward", "1"), ("tokens", "tokens/s")][(id % 3) as usize];
                let metric = Metric {
                    name: name.to_string(),
                    step: (id / TRAJECTORIES_PER_METRIC) as i64,
                    value: rng.random::<f64>(),
                    unit: Some(unit.to_string()),
                };
                events.push(self.event(&metric, &run, self.time(id), id)?);
            }
        }
        Ok(())
    }

    fn trajectory(&self, rng: &mut ChaCha8Rng, id: u64, qa: &Qa, level: u64) -> Trajectory {
        let checkpoint_number = run_number(id, self.trajectories) * TRAINING_RUNS / SAMPLING_RUNS;
        // 1 to 8 turns, four on average.
        let turns =
            (1 + rng.random_range(0..4u64) + rng.random_range(0..5u64) * u64::from(rng.random_bool(0.75))).min(8);
        let mut row = Trajectory {
            trajectory_id: self.trajectory_id(id),
            qa_id: qa.qa_id.clone(),
            policy_model: Some(
                if checkpoint_number.is_multiple_of(2) { "dancer-7b" } else { "dancer-32b" }.to_string(),
            ),
            policy_checkpoint_digest: Some(checkpoint(checkpoint_number)),
            policy_version: Some(checkpoint_number as i64),
            sampling_parameters: Some(JsonText(json!({"temperature": 0.6, "top_p": 0.95, "max_turns": 8}))),
            seed: Some(id as i64),
            attempt: (id % ATTEMPTS) as i32,
            prompt_profile: Some("standard".to_string()),
            question: Some(qa.question.clone()),
            restricted: Some(false),
            ..Trajectory::default()
        };
        // One in thirty says the same sentence again and again.
        let refrain = rng.random_ratio(1, 30).then(|| self.vocabulary.sentences(rng, 60));
        for turn in 0..turns {
            let bytes = length(rng, 300);
            let mut thought = self.vocabulary.sentences(rng, bytes);
            if let Some(refrain) = &refrain {
                for _ in 0..3 {
                    thought.push(' ');
                    thought.push_str(refrain);
                }
            }
            row.turn_thought.push(Some(thought));
            row.turn_raw.push(None);
            let last = turn + 1 == turns;
            let call = if last { None } else { Some(self.call(rng)) };
            row.n_tool_calls += i32::from(call.is_some());
            let (tool, arguments, observation) =
                call.map_or((None, None, None), |(t, a, o)| (Some(t), Some(a), Some(o)));
            row.turn_tool.push(tool);
            row.turn_arguments.push(arguments);
            row.turn_observation_digest.push(observation.as_ref().map(digest));
            row.turn_observation.push(observation);
        }
        row.turn_ms = Some((0..turns).map(|_| Some(length(rng, 2_400) as i64)).collect());
        row.turn_policy_version = Some((0..turns).map(|_| row.policy_version).collect());
        row.n_turns = turns as i32;
        let text = |column: &[Option<String>]| column.iter().flatten().map(String::len).sum::<usize>() as i64;
        row.output_tokens = Some((text(&row.turn_thought) + text(&row.turn_arguments)) / 4);
        row.input_tokens = Some((text(&row.turn_observation) / 4 + 600) * (turns as i64 + 1) / 2);
        let chance = 0.75 - 0.15 * level as f64 + 0.02 * checkpoint_number as f64;
        row.termination = "answer".to_string();
        if rng.random_ratio(1, 25) {
            row.termination = ["calls", "tokens", "time", "error"][rng.random_range(0..4)].to_string();
        } else {
            let family = id / ATTEMPTS / FAMILY;
            // Wrong answers agree with one another now and then.
            let which =
                if rng.random_bool(chance) { 0 } else { 1 + rng.random_range(0..4u64).min(rng.random_range(0..4)) };
            row.answer = Some(self.answer(family, which));
        }
        row
    }

    /// Tool, arguments as JSON text, observation.
    fn call(&self, rng: &mut ChaCha8Rng) -> (String, String, String) {
        // What comes back is taken from as many texts as there are trajectories, some often: pages are visited again.
        let square = rng.random::<f64>().powi(2);
        let shown = (square * self.trajectories as f64) as u64;
        let of_observation = &mut self.random(Stream::Observation, shown);
        let search = of_observation.random_bool(0.6);
        let bytes = length(of_observation, 600);
        if search {
            let query = self.vocabulary.words(of_observation, 4);
            let queries: Vec<String> = (0..of_observation.random_range(0..3))
                .map(|_| self.vocabulary.words(of_observation, 3))
                .chain([query.clone()])
                .collect();
            let results = self.vocabulary.sentences(of_observation, bytes);
            let observation = format!("A search for '{query}' found 10 results:\n\n1. {results}");
            return ("search".to_string(), json!({"query": queries}).to_string(), observation);
        }
        let page = of_observation.random_range(0..self.pages());
        let goal = self.vocabulary.words(of_observation, 6);
        let arguments = json!({"url": [url(page)], "goal": goal}).to_string();
        // Some sites fail more than others.
        let failing = of_observation.random_range(0..100) < 3 + 40 / (1 + domain_number(page) % 37);
        let observation = if failing {
            format!("[visit] failed: {} did not answer in time", url(page))
        } else {
            let text = self.vocabulary.sentences(of_observation, bytes);
            format!("The useful information in {} for user goal {goal} as follows:\n\n{text}", url(page))
        };
        ("visit".to_string(), arguments, observation)
    }

    fn verdicts(&self, rng: &mut ChaCha8Rng, id: u64, correct: Option<bool>, events: &mut Vec<Event>) -> Result<()> {
        let run = sampling_run(id, self.trajectories);
        let at = self.time(id) + TimeDelta::milliseconds(500);
        let mut judge = |stage: &str, verdict: &str, rng: &mut ChaCha8Rng| -> Result<()> {
            let row = self.judgment(rng, id, stage, verdict, 1);
            events.push(self.event(&row, &run, at, step_of(stage, 1))?);
            Ok(())
        };
        let valid = !rng.random_ratio(1, 12);
        judge("validity", if valid { "pass" } else { "fail" }, rng)?;
        let Some(correct) = correct.filter(|_| valid) else { return Ok(()) };
        let verdict = if rng.random_ratio(1, 100) {
            "error"
        } else if correct != rng.random_ratio(1, 60) {
            "pass"
        } else {
            "fail"
        };
        judge("correctness", verdict, rng)?;
        if verdict == "pass" {
            let quality = if rng.random_ratio(1, 4) { "fail" } else { "pass" };
            judge("quality", quality, rng)?;
        }
        if rng.random_ratio(1, 200) {
            let mut row = self.judgment(rng, id, "override", "pass", 1);
            row.criteria = Some(JsonText(json!({"stage": "correctness"})));
            events.push(self.event(&row, &run, at, step_of("override", 1))?);
        }
        let answer = f64::from(u8::from(verdict == "pass"));
        if id.is_multiple_of(2) {
            let reward = Reward {
                trajectory_id: self.trajectory_id(id),
                group_id: Some(self.qa_id(id / ATTEMPTS)),
                format: Some(1.0),
                answer: Some(answer),
                overlong_penalty: Some(0.0),
                reward: 0.1 + 0.9 * answer,
                advantage: Some(rng.random_range(-2.0..2.0)),
                policy_version: Some((run_number(id, self.trajectories) * TRAINING_RUNS / SAMPLING_RUNS) as i64),
                criteria: None,
            };
            events.push(self.event(&reward, &run, at, 0)?);
        }
        Ok(())
    }

    fn judgment(&self, rng: &mut impl RngCore, id: u64, stage: &str, verdict: &str, rule_version: i32) -> Judgment {
        Judgment {
            trajectory_id: self.trajectory_id(id),
            stage: stage.to_string(),
            verdict: verdict.to_string(),
            score: Some(rng.random_range(0..=1_000) as f64 / 1_000.0),
            judge: Some(if stage == "correctness" { "qwen2.5-72b" } else { "rules" }.to_string()),
            criteria: Some(JsonText(json!({"threshold": 0.5, "stage": stage}))),
            rationale: Some(self.vocabulary.sentences(rng, 80)),
            rule_version,
        }
    }

    /// Verdicts on correctness given again, on one trajectory in fifty, under the next rule version.
    pub(crate) fn judged_again(&self) -> Result<Vec<Event>> {
        (0..self.trajectories)
            .step_by(50)
            .map(|id| {
                let rng = &mut self.random(Stream::Verdict, id);
                let verdict = if rng.random_ratio(1, 3) { "pass" } else { "fail" };
                let row = self.judgment(rng, id, "correctness", verdict, 2);
                let at = self.time(self.trajectories) + TimeDelta::milliseconds(id as i64);
                self.event(&row, "judge-2", at, step_of("correctness", 2))
            })
            .collect()
    }

    /// The answers to a family's questions: 0 is right.
    fn answer(&self, family: u64, which: u64) -> String {
        let rng = &mut random(self.seed, Stream::Vocabulary, 1 + family * 32 + which);
        self.vocabulary.words(rng, 1 + (family % 3) as usize)
    }

    fn page_digest(&self, number: u64) -> String {
        self.page_digests[(number % self.pages()) as usize].clone()
    }

    /// Ids are UUIDs in the order of time, as producers of ours make them.
    fn trajectory_id(&self, number: u64) -> String {
        EventId::derive(self.time(number), "bench", Kind::Trajectory, &number.to_string(), 0).to_string()
    }

    fn qa_id(&self, number: u64) -> String {
        EventId::derive(self.time(number * ATTEMPTS), "bench", Kind::Qa, &number.to_string(), 0).to_string()
    }
}

fn random(seed: u64, stream: Stream, number: u64) -> ChaCha8Rng {
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8] = stream as u8;
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    ChaCha8Rng::from_seed(bytes)
}

/// A skewed length of this mean: half of it up to three times it.
fn length(rng: &mut impl RngCore, mean: usize) -> usize {
    let drawn: f64 = rng.random();
    (mean as f64 * (0.5 + 1.5 * drawn * drawn)) as usize
}

fn digest(text: impl AsRef<[u8]>) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run_number(trajectory: u64, trajectories: u64) -> u64 {
    trajectory * SAMPLING_RUNS / trajectories
}

fn sampling_run(trajectory: u64, trajectories: u64) -> String {
    format!("sample-{:03}", run_number(trajectory, trajectories))
}

fn training_run(number: u64) -> String {
    format!("dapo-{number:02}")
}

fn checkpoint(number: u64) -> String {
    digest(format!("checkpoint {number}"))
}

fn domain_number(page: u64) -> u64 {
    page * 7_919 % DOMAINS
}

fn domain(page: u64) -> String {
    format!("www.site-{:03}.org", domain_number(page))
}

fn url(page: u64) -> String {
    format!("https://{}/articles/{page}", domain(page))
}

/// Tells the verdicts on one trajectory apart.
fn step_of(stage: &str, rule_version: u64) -> u64 {
    let stage = ["validity", "correctness", "quality", "override"].iter().position(|name| *name == stage);
    rule_version * 10 + stage.unwrap_or(0) as u64
}

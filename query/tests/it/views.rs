//! The views over small tables of literal rows.

use serde_json::{Value, json};
use webdancer_schemas::kind::Kind;

use crate::support::{Memory, csv};

fn judgment(trajectory: &str, stage: &str, verdict: &str) -> Value {
    json!({"trajectory_id": trajectory, "stage": stage, "verdict": verdict, "rule_version": 1})
}

#[tokio::test]
async fn turns_unnest_the_parallel_lists() {
    let trajectories = [
        json!({
            "trajectory_id": "t1", "qa_id": "q1", "n_turns": 2, "attempt": 1,
            "turn_thought": ["think", null], "turn_tool": ["search", null],
            "turn_arguments": ["{\"query\": [\"x\"]}", null], "turn_observation": ["seen", null],
            "turn_ms": [5, 7], "turn_outcome": ["miss", null],
        }),
        json!({"trajectory_id": "t2", "qa_id": "q2", "n_turns": 0}),
        // Lists that are shorter than the turns leave nulls.
        json!({"trajectory_id": "t3", "qa_id": "q3", "n_turns": 2, "turn_tool": ["visit"]}),
    ];
    let engine = Memory::default().with(Kind::Trajectory, &trajectories).engine();
    let sql = "SELECT trajectory_id, turn, thought, tool, observation, ms FROM turns ORDER BY trajectory_id, turn";
    assert_eq!(csv(&engine, sql).await, ["t1,0,think,search,seen,5", "t1,1,,,,7", "t3,0,,visit,,", "t3,1,,,,"]);
    let sql =
        "SELECT trajectory_id, turn, tool, arguments->'query'->>0, outcome FROM tool_calls ORDER BY trajectory_id";
    assert_eq!(csv(&engine, sql).await, ["t1,0,search,x,miss", "t3,0,visit,,"]);
}

/// The view is computed by a plan of its own; its SQL says what it must give.
#[tokio::test]
async fn turns_are_what_their_sql_says_whatever_the_lists_lengths() {
    let trajectory = |id: &str, n_turns: i64, rest: Value| {
        let mut row = json!({"trajectory_id": id, "qa_id": "q", "run_id": format!("run of {id}"), "n_turns": n_turns});
        row.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        row
    };
    let trajectories = [
        trajectory(
            "fits",
            2,
            json!({"turn_tool": ["a", null], "turn_thought": ["x", "y"], "turn_ms": [1, 2],
            "turn_arguments": ["{}", null], "turn_observation": ["o", null], "turn_observation_digest": ["d", null],
            "turn_outcome": ["done", null], "turn_input_tokens": [10, 20], "turn_output_tokens": [3, 4], "turn_tool_ms": [8, null],
            "turn_source_urls": [["u", "v"], null], "turn_source_digests": [["e", "f"], null]}),
        ),
        trajectory("more tools", 1, json!({"turn_tool": ["a", "b", "c"], "turn_thought": ["x"]})),
        trajectory("more thoughts", 1, json!({"turn_tool": ["a"], "turn_thought": ["x", "y", "z"]})),
        trajectory("none", 0, json!({"turn_thought": ["x"], "turn_ms": null})),
        trajectory("negative", -3, json!({"turn_tool": [null], "turn_ms": []})),
        trajectory("null list", 2, json!({"turn_tool": ["a", "b"], "turn_ms": null, "turn_policy_version": [null, 7]})),
    ];
    let engine = Memory::default().with(Kind::Trajectory, &trajectories).engine();
    let view = webdancer_query::views::find("turns").unwrap();
    let said = csv(&engine, &format!("SELECT * FROM ({}) ORDER BY trajectory_id, turn", view.sql)).await;
    assert_eq!(csv(&engine, "SELECT * FROM turns ORDER BY trajectory_id, turn").await, said);
    assert_eq!(said.len(), 2 + 3 + 1 + 1 + 2);
    // Each column by itself is the same as among all.
    let all = "SELECT trajectory_id, turn, thought, ms FROM turns WHERE trajectory_id = 'more tools' ORDER BY turn";
    assert_eq!(csv(&engine, all).await, ["more tools,0,x,", "more tools,1,,", "more tools,2,,"]);
    assert_eq!(csv(&engine, "SELECT count(*) FROM turns").await, ["9"]);
    assert_eq!(csv(&engine, "SELECT count(ms), count(policy_version) FROM turns").await, ["2,1"]);
    let costs =
        "SELECT outcome, input_tokens, output_tokens, tool_ms FROM turns WHERE trajectory_id = 'fits' ORDER BY turn";
    assert_eq!(csv(&engine, costs).await, ["done,10,3,8", ",20,4,"]);
    let sources =
        "SELECT turn, unnest(source_urls) AS url, unnest(source_digests) AS digest FROM tool_calls ORDER BY url";
    assert_eq!(csv(&engine, sources).await, ["0,u,e", "0,v,f"]);
}

#[tokio::test]
async fn a_query_of_turns_reads_the_lists_that_it_names() {
    let row = json!({"trajectory_id": "t", "qa_id": "q", "n_turns": 1});
    let engine = Memory::default().with(Kind::Trajectory, &[row]).engine();
    let sql = "EXPLAIN SELECT tool, count(*) FROM tool_calls WHERE run_id = 'r' AND tool <> 'x' GROUP BY tool";
    let plan = csv(&engine, sql).await.join("\n");
    assert!(plan.contains("TableScan: turns projection=[run_id, tool], partial_filters=[turns.run_id"), "{plan}");
    assert!(!plan.contains("turn_observation") && !plan.contains("turn_thought"), "{plan}");
}

#[tokio::test]
async fn the_current_judgment_is_of_the_highest_rule_version_then_the_latest() {
    let time = |hour: u32| format!("2026-01-01T{hour:02}:00:00Z");
    let row = |trajectory: &str, verdict: &str, version: i32, hour: u32, id: &str| {
        json!({"trajectory_id": trajectory, "stage": "correctness", "verdict": verdict, "rule_version": version,
               "event_time": time(hour), "event_id": id})
    };
    let overriding = |trajectory: &str, verdict: &str, criteria: Value, hour: u32| {
        json!({"trajectory_id": trajectory, "stage": "override", "verdict": verdict, "rule_version": 0,
               "event_time": time(hour), "event_id": format!("o{hour}"), "criteria": criteria})
    };
    let judgments = [
        // A higher rule version wins over a later time.
        row("t1", "fail", 2, 1, "a"),
        row("t1", "pass", 1, 5, "b"),
        // Of one version the later; of one time the greater id.
        row("t2", "fail", 1, 1, "a"),
        row("t2", "pass", 1, 2, "b"),
        row("t3", "fail", 1, 1, "a"),
        row("t3", "pass", 1, 1, "b"),
        // An override wins over any version; of several the latest.
        row("t4", "fail", 9, 9, "a"),
        overriding("t4", "fail", Value::Null, 1),
        overriding("t4", "pass", Value::Null, 2),
        // One for another stage leaves this one alone.
        row("t5", "pass", 1, 1, "a"),
        overriding("t5", "fail", json!("{\"stage\": \"quality\"}"), 2),
    ];
    let engine = Memory::default().with(Kind::Judgment, &judgments).engine();
    let sql = "SELECT trajectory_id, stage, verdict, overridden FROM current_judgments ORDER BY 1, 2";
    assert_eq!(
        csv(&engine, sql).await,
        [
            "t1,correctness,fail,false",
            "t2,correctness,pass,false",
            "t3,correctness,pass,false",
            "t4,correctness,pass,true",
            "t5,correctness,pass,false",
            "t5,quality,fail,true",
        ]
    );
}

#[tokio::test]
async fn the_rule_version_that_the_funnel_last_judged_by_is_in_force() {
    let judged = |trajectory: &str, stage: &str, version: i32, verdict: &str, source: &str| {
        json!({"trajectory_id": trajectory, "stage": stage, "verdict": verdict, "rule_version": version,
               "source": source, "event_time": "2026-01-01T00:00:00Z", "event_id": format!("{trajectory}{version}")})
    };
    let filter = "webdancer/filter";
    let judgments = [
        judged("both", "quality", 1, "pass", filter),
        judged("both", "quality", 2, "fail", filter),
        // Judged by one of them only.
        judged("newer", "quality", 2, "fail", filter),
        judged("older", "quality", 1, "pass", filter),
        // Each stage has versions of its own.
        judged("both", "validity", 1, "fail", filter),
        judged("both", "validity", 2, "pass", filter),
        // Versions of others are not the funnel's: the highest holds.
        judged("foreign", "quality", 1, "pass", filter),
        judged("foreign", "quality", 9, "fail", "me"),
    ];
    let run = |hour: u32, source: &str, config: Value| {
        json!({"run_id": "r", "kind": "filter", "state": "started", "source": source, "config": config.to_string(),
               "event_time": format!("2026-01-01T{hour:02}:00:00Z"), "event_id": format!("r{hour}")})
    };
    let quality = |version: Value| json!({"quality": {"rule_version": version}});
    let newest = [run(1, filter, quality(json!(1))), run(2, filter, quality(json!(2)))];
    let back = [
        run(3, filter, quality(json!(1))),
        // A stage that was not asked for, or has judged nothing, changes nothing.
        run(4, filter, json!({"validity": {"rule_version": 2}})),
        run(5, filter, quality(Value::Null)),
        run(6, "me", quality(json!(2))),
    ];
    let held = async |runs: &[Value]| {
        let engine = Memory::default().with(Kind::Judgment, &judgments).with(Kind::Run, runs).engine();
        let sql = "SELECT concat_ws(' ', trajectory_id, stage, rule_version, verdict) AS held \
                   FROM current_judgments ORDER BY 1";
        csv(&engine, sql).await
    };
    let at = |version: &str| {
        let both = if version == "1" { "both quality 1 pass" } else { "both quality 2 fail" };
        [both, "both validity 2 pass", "foreign quality 9 fail", "newer quality 2 fail", "older quality 1 pass"]
    };
    assert_eq!(held(&[]).await, at("2"));
    assert_eq!(held(&newest).await, at("2"));
    assert_eq!(held(&[&newest[..], &back[..]].concat()).await, at("1"));
}

#[tokio::test]
async fn the_reward_for_the_current_judgment_holds() {
    let time = |hour: u32| format!("2026-01-01T{hour:02}:00:00Z");
    let judged = |trajectory: &str, version: i32, event: &str| {
        json!({"trajectory_id": trajectory, "stage": "correctness", "verdict": "pass", "rule_version": version,
               "event_time": time(1), "event_id": event})
    };
    let reward = |trajectory: &str, reward: f64, judgment: Option<&str>, hour: u32| {
        let criteria = judgment.map_or(json!({}), |id| json!({"judgment": id}));
        json!({"trajectory_id": trajectory, "reward": reward, "criteria": criteria.to_string(),
               "event_time": time(hour), "event_id": format!("{trajectory}{hour}")})
    };
    let rewards = [
        // Of those for the judgment that holds, the latest, whatever was given later for another.
        reward("t", 0.1, Some("new"), 2),
        reward("t", 1.0, Some("new"), 3),
        reward("t", 0.9, Some("old"), 4),
        // Nobody judged the answer.
        reward("silent", 0.0, None, 2),
        // The judge failed when it was asked again: no reward is not a reward of what it said before.
        reward("outage", 1.0, Some("before"), 2),
    ];
    let judgments =
        [judged("t", 2, "new"), judged("t", 1, "old"), judged("outage", 1, "before"), judged("outage", 2, "after")];
    let engine = Memory::default().with(Kind::Reward, &rewards).with(Kind::Judgment, &judgments).engine();
    let sql = "SELECT trajectory_id, reward FROM current_rewards ORDER BY 1";
    assert_eq!(csv(&engine, sql).await, ["silent,0.0", "t,1.0"]);
}

#[tokio::test]
async fn rewards_by_the_parameters_of_the_last_run_that_finished_hold() {
    let ours = "webdancer/filter";
    let reward = |trajectory: &str, digest: &str, reward: f64, hour: u32, source: &str| {
        json!({"trajectory_id": trajectory, "reward": reward, "criteria": json!({"digest": digest}).to_string(),
               "source": source, "event_time": format!("2026-01-01T{hour:02}:00:00Z"), "event_id": format!("{hour}")})
    };
    let rewards = [
        reward("both", "a", 1.0, 1, ours),
        reward("both", "b", 0.5, 2, ours),
        reward("older", "a", 1.0, 1, ours),
        // Came in between and has no reward by the others: two scales are never mixed.
        reward("newer", "b", 0.5, 2, ours),
        // Of somebody else: the parameters of `reward` do not bear on it.
        reward("foreign", "c", 0.2, 1, "me"),
    ];
    let run = |digest: &str, state: &str, hour: u32, source: &str| {
        json!({"run_id": "r", "kind": "reward", "state": state, "source": source,
               "config": json!({"digest": digest}).to_string(), "event_time": format!("2026-01-01T{hour:02}:00:00Z"),
               "event_id": format!("{hour}")})
    };
    let a = [run("a", "finished", 1, ours)];
    let b = [run("b", "started", 2, ours), run("b", "finished", 3, ours)];
    let back = [run("a", "finished", 4, ours)];
    // None of these puts anything in force.
    let idle = [run("b", "started", 5, ours), run("b", "failed", 6, ours), run("b", "finished", 7, "me")];
    let held = async |runs: &[&[Value]]| {
        let engine = Memory::default().with(Kind::Reward, &rewards).with(Kind::Run, &runs.concat()).engine();
        csv(&engine, "SELECT trajectory_id, reward FROM current_rewards ORDER BY 1").await
    };
    let by_a = ["both,1.0", "foreign,0.2", "older,1.0"];
    let by_b = ["both,0.5", "foreign,0.2", "newer,0.5"];
    // Before any has finished: one was killed, another is under way or was stopped.
    let killed = [run("a", "started", 1, ours)];
    assert_eq!(held(&[&killed]).await, by_a);
    assert_eq!(held(&[&killed, &[run("b", "started", 2, ours)]]).await, by_b);
    assert_eq!(held(&[&killed, &[run("b", "started", 2, ours), run("b", "stopped", 3, ours)]]).await, by_b);
    assert_eq!(held(&[&a]).await, by_a);
    assert_eq!(held(&[&a, &b]).await, by_b);
    assert_eq!(held(&[&a, &b, &back]).await, by_a);
    assert_eq!(held(&[&a, &b, &back, &idle]).await, by_a);
}

#[tokio::test]
async fn what_was_recorded_twice_is_taken_as_it_was_last() {
    let time = |hour: u32| format!("2026-01-01T{hour:02}:00:00Z");
    let qa = |id: &str, answer: &str, hour: u32| json!({"qa_id": id, "answer": answer, "event_time": time(hour)});
    let trajectory = |id: &str, attempt: i32, hour: u32, event: &str| json!({"trajectory_id": id, "attempt": attempt, "event_time": time(hour), "event_id": event});
    let engine = Memory::default()
        .with(Kind::Qa, &[qa("q1", "new", 9), qa("q1", "old", 3), qa("q2", "only", 1)])
        .with(Kind::Trajectory, &[trajectory("t1", 5, 1, "b"), trajectory("t1", 4, 1, "a")])
        .engine();
    assert_eq!(csv(&engine, "SELECT qa_id, answer FROM current_qa ORDER BY 1").await, ["q1,new", "q2,only"]);
    // Of one time the greater id.
    assert_eq!(csv(&engine, "SELECT trajectory_id, attempt FROM current_trajectories").await, ["t1,5"]);
    let columns = |table: &str| format!("SELECT count(*) FROM information_schema.columns WHERE table_name = '{table}'");
    for (view, table) in [("current_qa", "qa"), ("current_trajectories", "trajectories")] {
        assert_eq!(csv(&engine, &columns(view)).await, csv(&engine, &columns(table)).await);
    }
}

/// Trajectories of two runs, recorded twice but for one.
fn recorded_again() -> Memory {
    let row = |id: &str, run: &str, hour: u32, thought: &str| {
        json!({"trajectory_id": id, "run_id": run, "event_time": format!("2026-01-01T{hour:02}:00:00Z"),
               "event_id": format!("{id}{hour}"), "n_turns": 1, "turn_tool": [null], "turn_thought": [thought]})
    };
    let trajectories = [
        row("moved", "a", 1, "before"),
        row("moved", "b", 2, "after"),
        row("same", "a", 1, "before"),
        row("same", "a", 2, "after"),
        // The later of them was written first.
        row("back", "a", 2, "after"),
        row("back", "b", 1, "before"),
        row("once", "b", 1, "only"),
    ];
    Memory::default().with(Kind::Trajectory, &trajectories)
}

#[tokio::test]
async fn a_row_that_was_recorded_again_is_not_found_by_what_it_said_before() {
    let engine = recorded_again().engine();
    let of = |condition: &str| {
        format!(
            "SELECT trajectory_id, turn_thought[1] AS thought FROM current_trajectories WHERE {condition} ORDER BY 1"
        )
    };
    let (of_a, of_b) = (["back,after", "same,after"], ["moved,after", "once,only"]);
    assert_eq!(csv(&engine, &of("run_id = 'a'")).await, of_a);
    assert_eq!(csv(&engine, &of("run_id IN ('b', 'c')")).await, of_b);
    assert_eq!(csv(&engine, &of("run_id = 'a' AND trajectory_id = 'moved'")).await, Vec::<String>::new());
    assert_eq!(csv(&engine, &of("run_id = 'a' AND turn_thought[1] = 'before'")).await, Vec::<String>::new());
    assert_eq!(csv(&engine, &of("true")).await, ["back,after", "moved,after", "once,only", "same,after"]);
    let joined = "SELECT t.trajectory_id, t.turn_thought[1] AS thought FROM current_trajectories AS t \
                  LEFT JOIN current_qa AS q ON q.qa_id = t.qa_id WHERE t.run_id = 'a' ORDER BY 1";
    assert_eq!(csv(&engine, joined).await, of_a);
}

#[tokio::test]
async fn of_a_run_the_lists_of_its_trajectories_are_gone_through_alone() {
    let engine = recorded_again().engine();
    let plan = async |sql: &str| csv(&engine, &format!("EXPLAIN {sql}")).await.join("\n");
    let plan_of_run = plan("SELECT turn_thought FROM current_trajectories WHERE run_id = 'a'").await;
    assert!(plan_of_run.contains("RightSemi Join: __asked_0 = trajectories.trajectory_id"), "{plan_of_run}");
    assert!(plan_of_run.contains("TableScan: trajectories projection=[run_id, trajectory_id]"), "{plan_of_run}");
    // The ids are what is kept in memory, the rows with lists what goes by them.
    assert!(plan_of_run.contains("join_type=RightSemi"), "{plan_of_run}");
    // Short columns are read once, for all runs, and so are lists where all are asked for.
    for once in
        ["SELECT answer FROM current_trajectories WHERE run_id = 'a'", "SELECT turn_thought FROM current_trajectories"]
    {
        assert!(!plan(once).await.contains("Join"), "{once}");
    }
}

#[tokio::test]
async fn evaluations_join_judgment_trajectory_and_question_once() {
    let question = |answer: &str| json!({"qa_id": "q1", "method": "benchmark", "question": "?", "answer": answer});
    let trajectory = |id: &str, attempt: i32| json!({"trajectory_id": id, "qa_id": "q1", "run_id": "r", "policy_model": "m", "attempt": attempt, "answer": "a"});
    let engine = Memory::default()
        .with(Kind::Qa, &[question("old"), question("new")])
        .with(
            Kind::Trajectory,
            // t1 was recorded twice; t4 has not been judged.
            &[trajectory("t1", 0), trajectory("t1", 0), trajectory("t2", 1), trajectory("t3", 2), trajectory("t4", 3)],
        )
        .with(
            Kind::Judgment,
            &[
                judgment("t1", "correctness", "pass"),
                judgment("t2", "correctness", "fail"),
                judgment("t3", "correctness", "error"),
                judgment("t4", "validity", "pass"),
                judgment("t0", "correctness", "pass"),
            ],
        )
        .engine();
    let sql =
        "SELECT qa_id, gold_answer, run_id, policy_model, attempt, answer, correct FROM evaluations ORDER BY attempt";
    assert_eq!(csv(&engine, sql).await, ["q1,new,r,m,0,a,true", "q1,new,r,m,1,a,false", "q1,new,r,m,2,a,"]);
    // An outage is no wrong answer, whatever a rule says of what it left; a person's word is.
    let outage = |id: &str| json!({"trajectory_id": id, "qa_id": "q1", "attempt": 7, "termination": "error"});
    let overriding = json!({"trajectory_id": "t6", "stage": "override", "verdict": "fail", "rule_version": 1});
    let outages = Memory::default().with(Kind::Trajectory, &[outage("t5"), outage("t6")]).with(
        Kind::Judgment,
        &[judgment("t5", "correctness", "fail"), judgment("t6", "correctness", "pass"), overriding],
    );
    let said = csv(&outages.engine(), "SELECT trajectory_id, correct FROM evaluations ORDER BY 1").await;
    assert_eq!(said, ["t5,", "t6,false"]);
    // An error is left out: two of three attempts count.
    let sql = "SELECT qa_id, cons(correct), pass_at_k(correct, 2) FROM evaluations GROUP BY qa_id";
    assert_eq!(csv(&engine, sql).await, ["q1,0.5,1.0"]);
}

fn funnel() -> Memory {
    let question = |id: &str, method: &str| json!({"qa_id": id, "method": method});
    let trajectory =
        |id: &str, qa: &str, termination: &str| json!({"trajectory_id": id, "qa_id": qa, "termination": termination});
    let mut judgments = Vec::new();
    for (trajectory, verdicts) in [
        ("accepted", ["pass", "pass", "pass"]),
        ("wrong", ["pass", "fail", "pass"]),
        ("broken", ["fail", "pass", "pass"]),
        ("poor", ["pass", "pass", "fail"]),
        ("unsure", ["pass", "error", "pass"]),
        ("forced", ["pass", "pass", "fail"]),
        ("of-benchmark", ["pass", "pass", "pass"]),
    ] {
        let stages = ["validity", "correctness", "quality"].into_iter().zip(verdicts);
        judgments.extend(stages.map(|(stage, verdict)| judgment(trajectory, stage, verdict)));
    }
    judgments.push(judgment("half", "validity", "pass"));
    Memory::default()
        .with(
            Kind::Qa,
            &[
                question("q1", "crawlqa"),
                question("q2", "e2hqa"),
                question("q3", "crawlqa"),
                question("q4", "crawlqa"),
                question("b1", "benchmark"),
                question("b2", "benchmark"),
            ],
        )
        .with(
            Kind::Trajectory,
            &[
                trajectory("accepted", "q1", "answer"),
                trajectory("wrong", "q1", "answer"),
                trajectory("broken", "q2", "answer"),
                trajectory("poor", "q2", "answer"),
                trajectory("unsure", "q2", "answer"),
                trajectory("forced", "q3", "forced"),
                trajectory("half", "q3", "answer"),
                trajectory("fresh", "q3", "answer"),
                trajectory("of-benchmark", "b1", "answer"),
            ],
        )
        .with(Kind::Judgment, &judgments)
}

#[tokio::test]
async fn the_funnel_says_where_each_trajectory_ended() {
    let engine = funnel().engine();
    assert_eq!(
        csv(&engine, "SELECT trajectory_id, outcome FROM funnel ORDER BY trajectory_id").await,
        [
            "accepted,accepted",
            "broken,validity",
            "forced,quality",
            "fresh,pending",
            "half,pending",
            "of-benchmark,accepted",
            "poor,quality",
            "unsure,error",
            "wrong,correctness",
        ]
    );
}

#[tokio::test]
async fn the_funnel_names_the_stage_at_which_a_trajectory_stopped_and_why() {
    let with_reason = |stage: &str, verdict: &str, reason: &str| {
        let mut row = judgment(reason, stage, verdict);
        row["criteria"] = json!(json!({"reason": reason}).to_string());
        row
    };
    let judgments = [
        with_reason("validity", "fail", "no_answer"),
        judgment("wrong_answer", "validity", "pass"),
        with_reason("correctness", "fail", "wrong_answer"),
        judgment("judge_failed", "validity", "pass"),
        with_reason("correctness", "error", "judge_failed"),
        judgment("fine", "validity", "pass"),
        judgment("fine", "correctness", "pass"),
        judgment("fine", "quality", "pass"),
        // Judged by hand, without a reason.
        judgment("by hand", "validity", "fail"),
    ];
    let trajectories: Vec<Value> = ["no_answer", "wrong_answer", "judge_failed", "fine", "by hand", "fresh"]
        .iter()
        .map(|id| json!({"trajectory_id": id, "qa_id": "q"}))
        .collect();
    let engine = Memory::default().with(Kind::Trajectory, &trajectories).with(Kind::Judgment, &judgments).engine();
    assert_eq!(
        csv(&engine, "SELECT trajectory_id, outcome, stage, reason FROM funnel ORDER BY trajectory_id").await,
        [
            "by hand,validity,validity,",
            "fine,accepted,,",
            "fresh,pending,validity,",
            "judge_failed,error,correctness,judge_failed",
            "no_answer,validity,validity,no_answer",
            "wrong_answer,correctness,correctness,wrong_answer",
        ]
    );
}

#[tokio::test]
async fn an_imported_trajectory_stays_one_whoever_comes_to_its_question_later() {
    let question = |id: &str, method: &str, hour: u32| json!({"qa_id": id, "method": method, "event_time": format!("2026-01-01T{hour:02}:00:00Z")});
    let questions = [question("q", "import", 1), question("q", "crawlqa", 2), question("b", "benchmark", 1)];
    let trajectory = |id: &str, qa: &str, source: &str| json!({"trajectory_id": id, "qa_id": qa, "source": source});
    let trajectories = [
        trajectory("imported", "q", "webdancer/import"),
        trajectory("sampled", "q", "webdancer/sample"),
        trajectory("of a benchmark", "b", "webdancer/import"),
    ];
    let engine = Memory::default().with(Kind::Qa, &questions).with(Kind::Trajectory, &trajectories).engine();
    assert_eq!(
        csv(&engine, "SELECT trajectory_id, method FROM funnel ORDER BY 1").await,
        ["imported,import", "of a benchmark,benchmark", "sampled,crawlqa"]
    );
}

#[tokio::test]
async fn the_pools_are_disjoint_by_question_and_leave_benchmarks_out() {
    let engine = funnel().engine();
    assert_eq!(csv(&engine, "SELECT trajectory_id, qa_id FROM sft_pool").await, ["accepted,q1"]);
    let sql = "SELECT qa_id, attempts, correct FROM rl_pool ORDER BY qa_id";
    assert_eq!(csv(&engine, sql).await, ["q2,3,2", "q3,3,1", "q4,0,0"]);
    // A pool has the columns of its table, so that it can be trained on as it is.
    let described = csv(&engine, "DESCRIBE sft_pool").await;
    assert!(described.iter().any(|line| line.starts_with("turn_context_token_ids")), "{described:?}");
    assert!(!described.iter().any(|line| line.starts_with("position")), "{described:?}");
}

#[tokio::test]
async fn what_a_training_run_made_to_validate_on_is_not_fine_tuned_on() {
    let trajectories = [
        json!({"trajectory_id": "tried", "qa_id": "q1", "sampling_parameters": "{\"seed\": 1}"}),
        json!({"trajectory_id": "held back", "qa_id": "q2", "sampling_parameters": "{\"seed\": 1, \"purpose\": \"validation\"}"}),
        json!({"trajectory_id": "told nothing", "qa_id": "q3"}),
    ];
    let passed = |id: &str| ["validity", "correctness", "quality"].map(|stage| judgment(id, stage, "pass"));
    let judgments: Vec<Value> = ["tried", "held back", "told nothing"].into_iter().flat_map(passed).collect();
    let engine = Memory::default().with(Kind::Trajectory, &trajectories).with(Kind::Judgment, &judgments).engine();
    assert_eq!(csv(&engine, "SELECT trajectory_id FROM sft_pool ORDER BY 1").await, ["told nothing", "tried"]);
}

#[tokio::test]
async fn a_run_is_as_its_latest_event_left_it() {
    let run = |id: &str, state: &str, minute: u32, rest: Value| {
        let mut row = json!({"run_id": id, "kind": "sft", "state": state,
                             "event_time": format!("2026-01-01T00:{minute:02}:00Z")});
        row.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        row
    };
    let runs = [
        run("r1", "finished", 9, json!({"artifacts": [{"uri": "u", "digest": null}]})),
        run("r1", "started", 1, json!({"config": "{}", "seed": 7, "code_version": "1"})),
        run("r2", "started", 2, json!({})),
        run("r2", "failed", 3, json!({"error": "out of disk"})),
        json!({"run_id": null, "kind": "x", "state": "started"}),
    ];
    let engine = Memory::default().with(Kind::Run, &runs).engine();
    let sql = "SELECT run_id, kind, state, config, seed, error, updated - started > INTERVAL '5 minutes',
                      array_length(artifacts) FROM run_state ORDER BY run_id";
    assert_eq!(csv(&engine, sql).await, ["r1,sft,finished,{},7,,true,1", "r2,sft,failed,,,out of disk,false,0"]);
}

#[tokio::test]
async fn a_slot_is_as_the_latest_event_about_it_left_it() {
    let slot = |id: &str, state: &str, minute: u32, rest: Value| {
        let mut row = json!({"slot_id": id, "schedule": "nightly", "slot_time": "2026-01-01T00:00:00Z", "state": state,
                             "event_time": format!("2026-01-01T00:{minute:02}:00Z"), "holder": "h"});
        row.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        row
    };
    let cell = |run: &str| json!({"run_id": run, "policy": "p", "benchmark": run});
    let slots = [
        slot("s1", "claimed", 1, json!({})),
        slot("s1", "finished", 2, cell("a")),
        slot("s1", "failed", 3, cell("b")),
        slot("s1", "failed", 4, json!({"reason": "p × b: out"})),
        slot("s1", "regression", 5, json!({"reason": "p × a"})),
        slot("s1", "alerted", 6, json!({})),
        slot("s2", "claimed", 1, json!({})),
        slot("s2", "taken_over", 6, json!({"holder": "i"})),
        slot("s2", "finished", 4, cell("c")),
        slot("s2", "finished", 5, cell("c")),
        slot("s3", "paused", 1, json!({})),
    ];
    let engine = Memory::default().with(Kind::Slot, &slots).engine();
    let sql = "SELECT slot_id, schedule, state, reason, cells_finished, cells_failed, alert, updated - started, holder \
        FROM slot_state ORDER BY slot_id";
    assert_eq!(
        csv(&engine, sql).await,
        ["s1,nightly,failed,p × b: out,1,1,alerted,PT300S,h", "s2,nightly,taken_over,,1,0,,PT300S,i"]
    );
}

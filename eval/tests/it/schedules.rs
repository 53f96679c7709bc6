//! Which slots are run, by whom, and when: with a clock that stands still.

mod alerts;
mod runs;
mod world;

use std::time::Duration;

use chrono::{DateTime, Utc};
use webdancer_eval::schedule::orders::Order;
use webdancer_eval::schedule::{Left, Pass, RunnerError, Spent};

use self::world::{World, complete};

const MINUTELY: &str = "[[schedule]]\nname = \"m\"\ncron = \"* * * * *\"\npolicies = [\"p\"]\nbenchmarks = [\"b\"]\n";

fn minutely(more: &str) -> String {
    format!("{MINUTELY}{more}\n")
}

#[tokio::test]
async fn each_slot_is_run_once_by_one_of_two_servers() {
    let world = World::taking(10);
    let _servers = [world.start("a", MINUTELY).await, world.start("b", MINUTELY).await];
    world.pass(180).await;
    let begun: Vec<String> = world.passes().iter().map(|work| work.start.format("%H:%M:%S").to_string()).collect();
    assert_eq!(begun, ["00:01:00", "00:02:00", "00:03:00"]);
    assert_eq!(
        world.told(),
        [
            "m 00:01:00 claimed",
            "m 00:01:00 finished",
            "m 00:02:00 claimed",
            "m 00:02:00 finished",
            "m 00:03:00 claimed",
            "m 00:03:00 finished"
        ]
    );
}

#[tokio::test]
async fn a_dead_holders_slot_is_taken_over_when_its_lease_is_over_and_the_same_run_goes_on() {
    let world = World::taking(50);
    let first = world.start("a", MINUTELY).await;
    world.pass(40).await;
    let second = world.start("b", &minutely("overlap = \"queue\"")).await;
    first.kill().await;
    world.pass(150).await;
    let runs: Vec<String> = world.passes().iter().take(2).map(|work| work.run_id.clone()).collect();
    assert_eq!(runs[0], runs[1]);
    // Dead at 00:01:10; seen by b since then, and for longer than the minute that the lease holds at the next look.
    assert_eq!(
        world.notes()[..4],
        [
            "00:01:00 a m of 00:01:00 begins",
            "00:01:10 a m of 00:01:00 dropped",
            "00:02:10 b m of 00:01:00 begins",
            "00:03:00 b m of 00:01:00 ends",
        ]
    );
    let told = world.told();
    let of_first: Vec<&String> = told.iter().filter(|line| line.starts_with("m 00:01:00")).collect();
    assert_eq!(of_first, ["m 00:01:00 claimed", "m 00:01:00 taken_over", "m 00:01:00 finished"]);
    drop(second);
}

#[tokio::test]
async fn who_cannot_renew_its_claim_stops_before_another_begins() {
    let world = World::taking(600);
    let first = world.start("a", MINUTELY).await;
    world.pass(35).await;
    let _second = world.start("b", MINUTELY).await;
    first.cut_off();
    world.pass(75).await;
    // Taken at 00:01:00 and never renewed: over for its holder a minute later, for whoever saw it at 00:01:05 after that.
    assert_eq!(
        world.notes(),
        ["00:01:00 a m of 00:01:00 begins", "00:02:00 a m of 00:01:00 dropped", "00:02:05 b m of 00:01:00 begins"]
    );
    assert!(world.told().contains(&"m 00:01:00 lost: its claim could not be renewed in time".to_string()));
}

#[tokio::test]
async fn a_server_that_is_stopped_lets_its_slot_go_and_the_next_start_goes_on_at_once() {
    // The pass that hears of the stop ends with part of its attempts.
    let world = World::new(|_, number| match number {
        0 => {
            let stopped = Some("stopped".to_string());
            (Duration::from_secs(30), Ok(Pass { due: 10, made: 4, judged: 4, failed: 0, stopped }))
        }
        _ => (Duration::from_secs(5), complete()),
    });
    let mut first = world.start("a", MINUTELY).await;
    world.pass(40).await;
    first.stop().await;
    world.pass(20).await;
    first.ended().await;
    let _again = world.start("a2", MINUTELY).await;
    world.pass(20).await;
    assert_eq!(
        world.told(),
        [
            "m 00:01:00 claimed",
            "m 00:01:00 released: the process was asked to end",
            "m 00:01:00 taken_over",
            "m 00:01:00 finished",
        ]
    );
    let passes = world.passes();
    assert_eq!((passes.len(), &passes[0].run_id), (2, &passes[1].run_id));
}

#[tokio::test]
async fn after_a_restart_nothing_that_is_settled_is_run_again() {
    let world = World::taking(10);
    let first = world.start("a", MINUTELY).await;
    world.pass(125).await;
    first.kill().await;
    let _second = world.start("b", MINUTELY).await;
    world.pass(20).await;
    assert_eq!(world.passes().len(), 2);
}

/// What becomes of the slots from 00:02 to 00:06, while nobody is there, under these settings.
async fn after_a_gap(settings: &str) -> (Vec<String>, Vec<String>) {
    let world = World::taking(5);
    let first = world.start("a", settings).await;
    world.pass(45).await;
    first.kill().await;
    // It is 00:01:15. From 00:06:30 on there is a server again; 00:06:00 is not late.
    world.pass(315).await;
    let _second = world.start("b", settings).await;
    world.pass(25).await;
    let begun = world.passes().iter().map(|work| work.start.format("%M:%S").to_string()).collect();
    (begun, world.told().into_iter().filter(|line| line.contains("skipped")).collect())
}

#[tokio::test]
async fn missed_slots_are_skipped_or_the_latest_or_all_up_to_a_limit_are_run() {
    let four = "m 00:05:00 skipped: missed: no scheduler ran from 2026-01-01T00:02:00Z on, 4 slots".to_string();
    let begun = |times: &[&str]| times.iter().map(ToString::to_string).collect::<Vec<_>>();
    let on_time = (begun(&["01:00", "06:00"]), vec![four]);
    assert_eq!(after_a_gap(&minutely("missed = \"skip\"")).await, on_time);
    // The latest is the one that is on time.
    assert_eq!(after_a_gap(&minutely("missed = \"latest\"")).await, on_time);
    // Now it is late, too.
    let late = "[scheduler]\nlate_ms = 10000";
    let latest = after_a_gap(&minutely(&format!("missed = \"latest\"\n{late}"))).await;
    let four = "m 00:05:00 skipped: missed: no scheduler ran from 2026-01-01T00:02:00Z on, 4 slots".to_string();
    assert_eq!(latest, (begun(&["01:00", "06:00"]), vec![four]));
    let five = "m 00:06:00 skipped: missed: no scheduler ran from 2026-01-01T00:02:00Z on, 5 slots".to_string();
    let skip = after_a_gap(&minutely(&format!("missed = \"skip\"\n{late}"))).await;
    assert_eq!(skip, (begun(&["01:00"]), vec![five]));
    let two = "m 00:03:00 skipped: missed: no scheduler ran from 2026-01-01T00:02:00Z on, 2 slots".to_string();
    let all = after_a_gap(&minutely("missed = \"all\"\nmissed_max = 2")).await;
    assert_eq!(all, (begun(&["01:00", "04:00", "05:00", "06:00"]), vec![two]));
}

#[tokio::test]
async fn what_is_skipped_while_the_log_is_out_is_run_by_nobody_later() {
    let world = World::taking(5);
    let settings = minutely("missed = \"skip\"\n[scheduler]\nlate_ms = 10000");
    world.start("a", &settings).await.kill().await;
    world.pass(375).await;
    world.cut_log(true);
    let _servers = [world.start("b", &settings).await, world.start("c", &settings).await];
    world.pass(10).await;
    world.cut_log(false);
    // Longer than a lease.
    world.pass(110).await;
    let begun: Vec<String> = world.passes().iter().map(|work| work.start.format("%M:%S").to_string()).collect();
    assert_eq!(begun, ["07:00", "08:00"]);
}

#[tokio::test]
async fn what_was_missed_before_is_not_missed_again_at_the_next_restart() {
    let world = World::taking(5);
    let settings = minutely("missed = \"latest\"\n[scheduler]\nlate_ms = 10000");
    world.start("a", &settings).await.kill().await;
    world.pass(315).await;
    for name in ["b", "c", "d"] {
        let server = world.start(name, &settings).await;
        world.pass(12).await;
        server.kill().await;
    }
    let begun: Vec<String> = world.passes().iter().map(|work| work.start.format("%M:%S").to_string()).collect();
    assert_eq!(begun, ["05:00", "06:00"]);
    assert_eq!(world.told().iter().filter(|line| line.contains("skipped")).count(), 1);
}

#[tokio::test]
async fn what_one_server_lets_wait_is_not_missed_by_one_that_starts_later() {
    let world = World::taking(200);
    let settings = minutely("missed = \"skip\"\noverlap = \"queue\"");
    let _first = world.start("a", &settings).await;
    world.pass(180).await;
    let _second = world.start("b", &settings).await;
    world.pass(60).await;
    assert!(!world.told().iter().any(|line| line.contains("skipped")), "{:?}", world.told());
    assert_eq!(world.passes()[1].start.format("%M:%S").to_string(), "02:00");
}

#[tokio::test]
async fn a_slot_before_the_schedule_was_first_seen_is_nobodys() {
    let world = World::taking(5);
    let _server = world.start("a", &minutely("missed = \"all\"")).await;
    world.pass(40).await;
    assert_eq!(world.told(), ["m 00:01:00 claimed", "m 00:01:00 finished"]);
}

#[tokio::test]
async fn a_slot_that_overlaps_is_skipped_or_waits_and_says_so() {
    let skipping = World::taking(90);
    let servers = [skipping.start("a", MINUTELY).await, skipping.start("b", MINUTELY).await];
    skipping.pass(160).await;
    assert_eq!(
        skipping.told(),
        [
            "m 00:01:00 claimed",
            "m 00:02:00 skipped: overlaps: the slot of 2026-01-01T00:01:00Z has not ended",
            "m 00:01:00 finished",
            "m 00:03:00 claimed",
        ]
    );
    drop(servers);
    let queueing = World::taking(150);
    let settings = minutely("overlap = \"queue\"\nqueue_max = 1");
    let _servers = [queueing.start("a", &settings).await, queueing.start("b", &settings).await];
    queueing.pass(190).await;
    assert_eq!(
        queueing.told(),
        [
            "m 00:01:00 claimed",
            "m 00:02:00 queued: waits for the slot of 2026-01-01T00:01:00Z",
            "m 00:03:00 skipped: overlaps: 1 slots wait already",
            "m 00:01:00 finished",
            "m 00:02:00 claimed",
        ]
    );
}

fn of(name: &str, priority: i32) -> String {
    format!(
        "[[schedule]]\nname = \"{name}\"\ncron = \"1 0 * * *\"\npolicies = [\"p\"]\nbenchmarks = [\"b\"]\npriority = {priority}\n"
    )
}

#[tokio::test]
async fn of_slots_that_wait_those_of_higher_priority_come_first_and_no_more_run_than_are_allowed() {
    let schedules = [of("low", -1), of("normal", 0), of("high", 5)].concat();
    let begun = |world: &World| -> Vec<String> {
        world.notes().into_iter().filter(|note| note.ends_with("begins")).map(|note| note[..16].to_string()).collect()
    };
    let one = World::taking(20);
    let _server = one.start("a", &schedules).await;
    one.pass(100).await;
    assert_eq!(begun(&one), ["00:01:00 a high ", "00:01:20 a norma", "00:01:40 a low o"]);
    let two = World::taking(20);
    let _server = two.start("a", &format!("{schedules}[scheduler]\nslots_max = 2\n")).await;
    two.pass(100).await;
    assert_eq!(begun(&two), ["00:01:00 a high ", "00:01:00 a norma", "00:01:20 a low o"]);
}

#[tokio::test]
async fn what_waits_on_a_busy_server_is_taken_by_a_free_one() {
    let schedules = [of("low", -1), of("high", 5)].concat();
    let world = World::taking(20);
    let _servers = [world.start("a", &schedules).await, world.start("b", &schedules).await];
    world.pass(60).await;
    let mut begun: Vec<String> = world.notes().into_iter().filter(|note| note.ends_with("begins")).collect();
    begun.iter_mut().for_each(|note| note.replace_range(9..11, ""));
    begun.sort();
    assert_eq!(begun, ["00:01:00 high of 00:01:00 begins", "00:01:00 low of 00:01:00 begins"]);
}

#[tokio::test]
async fn a_canary_that_fails_keeps_the_rest_of_its_cell_from_being_run() {
    let settings = minutely("canary = { questions = 5 }\nretry = { max = 0 }")
        .replace("[\"p\"]", "[\"bad\", \"flaky\", \"good\"]");
    let world = World::new(|work, _| {
        let due = work.canary.map_or(100, u64::from);
        let (judged, failed) = match (work.cell.policy.as_str(), work.canary) {
            ("bad", Some(_)) => (2, 0),
            ("flaky", Some(_)) => (4, 2),
            _ => (due, 0),
        };
        (Duration::from_secs(1), Ok(Pass { due, made: due, judged, failed, stopped: None }))
    });
    let _server = world.start("a", &settings).await;
    world.pass(50).await;
    let made: Vec<(String, Option<u32>)> =
        world.passes().iter().map(|work| (work.cell.policy.clone(), work.canary)).collect();
    let due = [("bad", Some(5)), ("flaky", Some(5)), ("good", Some(5)), ("good", None)];
    assert_eq!(made, due.map(|(policy, canary)| (policy.to_string(), canary)));
    assert_eq!(
        world.told_of_cells(),
        [
            "00:01:01 bad × b failed: canary: 2 of 5 attempts have a verdict, 40 %, and 80 % are needed: the rest is not run",
            "00:01:02 flaky × b failed: canary: 2 of 5 attempts failed, 40 %, and 20 % are allowed: the rest is not run",
            "00:01:03 good × b canary",
            "00:01:03 good × b started",
            "00:01:04 good × b finished",
        ]
    );
    assert!(world.told()[1].starts_with("m 00:01:00 failed: bad × b: canary: 2 of 5"), "{:?}", world.told());
}

#[tokio::test]
async fn a_run_that_does_not_end_well_is_repeated_less_and_less_often_and_then_given_up() {
    let settings = minutely("overlap = \"skip\"\nretry = { max = 3, delay_s = 10, delay_s_max = 25 }");
    let world = World::new(|_, number| {
        let came_to = match number {
            0 => Err(RunnerError::Failed("the log is out".to_string())),
            _ => Ok(Pass { due: 10, made: 9, judged: 9, failed: 1, stopped: None }),
        };
        (Duration::from_secs(1), came_to)
    });
    let _server = world.start("a", &settings).await;
    world.pass(89).await;
    assert_eq!(
        world.told_of_cells(),
        [
            "00:01:00 p × b started",
            "00:01:01 p × b retrying: the log is out; repetition 1 of 3 in 10 s",
            "00:01:12 p × b retrying: 1 of 10 attempts have no verdict; repetition 2 of 3 in 20 s",
            "00:01:33 p × b retrying: 1 of 10 attempts have no verdict; repetition 3 of 3 in 25 s",
            "00:01:59 p × b failed: 1 of 10 attempts have no verdict",
        ]
    );
    assert_eq!(world.told()[1], "m 00:01:00 failed: p × b: 1 of 10 attempts have no verdict");
}

#[tokio::test]
async fn a_run_that_another_process_works_on_is_waited_for() {
    let settings = minutely("overlap = \"skip\"\nretry = { max = 1, delay_s = 10, delay_s_max = 25 }");
    let world = World::new(|_, number| {
        let came_to = match number {
            0..4 => Err(RunnerError::Busy("the run is held".to_string())),
            4 => Err(RunnerError::Failed("the log is out".to_string())),
            _ => return (Duration::from_secs(1), complete()),
        };
        (Duration::ZERO, came_to)
    });
    let _server = world.start("a", &settings).await;
    world.pass(85).await;
    assert_eq!(
        world.told_of_cells(),
        [
            "00:01:00 p × b started",
            "00:01:00 p × b retrying: the run is held; waiting for it",
            "00:01:40 p × b retrying: the log is out; repetition 1 of 1 in 10 s",
            "00:01:51 p × b finished",
        ]
    );
}

#[tokio::test]
async fn what_was_asked_wrongly_is_not_tried_again() {
    let world = World::new(|_, _| (Duration::ZERO, Err(RunnerError::Settings("b needs its file".to_string()))));
    let _server = world.start("a", MINUTELY).await;
    world.pass(40).await;
    assert_eq!(world.told(), ["m 00:01:00 claimed", "m 00:01:00 failed: p × b: b needs its file"]);
    assert_eq!(world.passes().len(), 1);
}

#[tokio::test]
async fn a_budget_is_the_slots_whoever_spent_it() {
    let settings =
        minutely("budget = { attempts = 15, tokens = 5000, time_s = 600 }").replace("[\"p\"]", "[\"p\", \"q\"]");
    let world = World::new(|_, _| {
        let stopped = Some("the budget of trajectories is spent".to_string());
        (Duration::from_secs(5), Ok(Pass { due: 10, made: 5, judged: 5, failed: 0, stopped }))
    });
    // Another process had spent 10 of 15 attempts on it.
    *world.runner.spent.lock() = Spent { attempts: 10, tokens: 2_000, cost: 0.0 };
    let spent = world.runner.spent.clone();
    let _server = world.start("a", &settings).await;
    world.pass(32).await;
    assert_eq!(world.passes()[0].left, Left { attempts: Some(5), tokens: Some(3_000), cost: None, time_s: Some(600) });
    *spent.lock() = Spent { attempts: 15, tokens: 3_000, cost: 0.0 };
    world.pass(20).await;
    assert_eq!(
        world.told_of_cells(),
        [
            "00:01:00 p × b started",
            "00:01:05 p × b failed: 5 of 10 attempts have no verdict; the slot's budget of 15 attempts is spent",
            "00:01:05 q × b started",
            "00:01:05 q × b failed: the slot's budget of 15 attempts is spent",
        ]
    );
}

#[tokio::test]
async fn a_paused_schedule_begins_nothing_until_it_is_resumed() {
    let world = World::taking(5);
    let _server = world.start("a", &minutely("missed = \"all\"")).await;
    world.pass(40).await;
    assert!(world.order("m", Order::Pause).await.is_some());
    assert!(world.order("m", Order::Pause).await.is_none());
    world.pass(180).await;
    assert!(world.order("m", Order::Resume).await.is_some());
    world.pass(60).await;
    assert_eq!(
        world.told(),
        [
            "m 00:01:00 claimed",
            "m 00:01:00 finished",
            "m 00:01:10 paused",
            "m 00:04:10 resumed",
            "m 00:05:00 claimed",
            "m 00:05:00 finished"
        ]
    );
}

#[tokio::test]
async fn run_now_runs_a_slot_at_once_and_where_it_dies_a_server_goes_on() {
    let world = World::taking(20);
    let settings = MINUTELY.replace("* * * * *", "0 12 * * *");
    let _server = world.start("a", &settings).await;
    let asked: DateTime<Utc> = world.order("m", Order::RunNow).await.unwrap();
    let now = world.run_now("cli", &settings, "m", asked).await;
    world.pass(10).await;
    now.abort();
    world.pass(100).await;
    assert_eq!(
        world.told(),
        ["m 00:00:30 requested", "m 00:00:30 claimed", "m 00:00:30 taken_over", "m 00:00:30 finished"]
    );
    assert_eq!(world.notes()[0], "00:00:30 cli m of 00:00:30 begins");
    // Nobody dies: it is run once, and told to whoever asked.
    let asked = world.order("m", Order::RunNow).await.unwrap();
    let now = world.run_now("cli", &settings, "m", asked).await;
    world.pass(30).await;
    let ended = now.await.unwrap();
    assert_eq!((ended.len(), ended[0].state, ended[0].slot_time), (1, "finished", asked));
    assert_eq!(world.passes().len(), 3);
}

#[tokio::test]
async fn once_runs_what_is_due_and_ends() {
    let world = World::taking(5);
    let settings = minutely("missed = \"all\"\noverlap = \"queue\"");
    assert!(world.once("a", &settings, 1).await.is_empty());
    world.pass(150).await;
    let ended = world.once("b", &settings, 30).await;
    let slots: Vec<String> = ended.iter().map(|e| format!("{} {}", e.slot_time.format("%M:%S"), e.state)).collect();
    assert_eq!(slots, ["01:00 finished", "02:00 finished", "03:00 finished"]);
}

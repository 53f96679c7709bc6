//! Who works on a run: two processes that both want it, and what becomes of it when one of them dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use webdancer_agent::clock::Clock as _;
use webdancer_eval::schedule::{Hold, HoldError, Holder};

use super::world::World;

const MINUTE: Duration = Duration::from_secs(60);

type Taken = Result<Hold, HoldError>;

/// A process that wants the run, what it was told while it waited, and what cuts it off from the claims.
struct Process {
    taking: JoinHandle<Taken>,
    told: Arc<Mutex<Vec<Holder>>>,
    is_cut_off: Arc<AtomicBool>,
}

fn wants(world: &World, name: &'static str) -> Process {
    let ((claims, is_cut_off), clock) = (world.store(), world.clock.clone());
    let told = Arc::<Mutex<Vec<Holder>>>::default();
    let hears = told.clone();
    let taking = tokio::spawn(async move {
        let hear = move |holder: &Holder| hears.lock().push(holder.clone());
        Hold::take(claims, clock, ("run-1", name), MINUTE, hear).await
    });
    Process { taking, told, is_cut_off }
}

/// Work that takes so many seconds.
fn works(world: &World, hold: Hold, seconds: u64) -> JoinHandle<Result<&'static str, String>> {
    let clock = world.clock.clone();
    let work = async move {
        clock.sleep(Duration::from_secs(seconds)).await;
        "made"
    };
    tokio::spawn(hold.during(work))
}

fn held_by(process: &str, since: &str) -> Holder {
    Holder { process: process.to_string(), since: since.to_string(), lease: MINUTE }
}

#[tokio::test]
async fn of_two_that_want_a_run_at_once_one_works_and_the_other_is_told_who_does() {
    let world = World::taking(0);
    let names = ["a", "b"];
    let both = names.map(|name| wants(&world, name));
    world.pass(1).await;
    let mut outcomes = Vec::new();
    for process in both {
        outcomes.push(process.taking.await.unwrap().map(|hold| hold.is_taken_over()));
    }
    let quicker = outcomes.iter().position(Result::is_ok).unwrap();
    assert_eq!(outcomes[quicker], Ok(false));
    let holder = held_by(names[quicker], "2026-01-01T00:00:30Z");
    assert_eq!(outcomes[1 - quicker], Err(HoldError::Held(holder)));
}

#[tokio::test]
async fn a_run_whose_holder_renews_its_claim_is_left_alone_and_is_free_when_that_one_has_ended() {
    let world = World::taking(0);
    let first = wants(&world, "a").taking.await.unwrap().unwrap();
    let working = works(&world, first, 100);
    world.pass(1).await;
    let second = wants(&world, "b");
    // Renewed after 20 seconds, which is seen at the next look, 5 seconds apart.
    world.pass(18).await;
    assert!(!second.taking.is_finished());
    world.pass(3).await;
    let holder = held_by("a", "2026-01-01T00:00:30Z");
    assert_eq!(*second.told.lock(), std::slice::from_ref(&holder));
    assert_eq!(second.taking.await.unwrap().unwrap_err(), HoldError::Held(holder));
    world.pass(80).await;
    assert_eq!(working.await.unwrap(), Ok("made"));
    let third = wants(&world, "c");
    world.pass(0).await;
    assert!(third.taking.await.unwrap().unwrap().is_taken_over());
    assert!(third.told.lock().is_empty());
}

#[tokio::test]
async fn a_run_whose_holder_died_is_taken_over_when_its_lease_is_over() {
    let world = World::taking(0);
    // Nobody renews it.
    drop(wants(&world, "a").taking.await.unwrap().unwrap());
    world.pass(30).await;
    let second = wants(&world, "b");
    world.pass(59).await;
    assert!(!second.taking.is_finished());
    assert_eq!(*second.told.lock(), [held_by("a", "2026-01-01T00:00:30Z")]);
    world.pass(1).await;
    assert!(second.taking.await.unwrap().unwrap().is_taken_over());
}

#[tokio::test]
async fn who_cannot_renew_the_claim_of_a_run_stops_before_another_begins() {
    let world = World::taking(0);
    let first = wants(&world, "a");
    let is_cut_off = first.is_cut_off;
    let working = works(&world, first.taking.await.unwrap().unwrap(), 600);
    world.pass(5).await;
    let second = wants(&world, "b");
    is_cut_off.store(true, Ordering::Relaxed);
    world.pass(54).await;
    assert!(!working.is_finished());
    world.pass(1).await;
    assert_eq!(working.await.unwrap(), Err("its claim could not be renewed in time".to_string()));
    assert!(!second.taking.is_finished());
    world.pass(5).await;
    assert!(second.taking.await.unwrap().unwrap().is_taken_over());
}

#[tokio::test]
async fn who_was_taken_over_stops() {
    let world = World::taking(0);
    let first = wants(&world, "a").taking.await.unwrap().unwrap();
    world.pass(61).await;
    // As a machine that slept: its clock stood still, and another has not seen it renew.
    let second = wants(&world, "b");
    world.pass(60).await;
    let _second = second.taking.await.unwrap().unwrap();
    let working = works(&world, first, 600);
    world.pass(20).await;
    assert_eq!(working.await.unwrap(), Err("another process has taken it over".to_string()));
}

#[tokio::test]
async fn a_run_whose_work_is_dropped_is_free_at_once() {
    let world = World::taking(0);
    let first = wants(&world, "a").taking.await.unwrap().unwrap();
    let working = works(&world, first, 600);
    world.pass(30).await;
    working.abort();
    let second = wants(&world, "b");
    world.pass(0).await;
    // It may have looked before the first let go, and then looks again.
    world.pass(5).await;
    assert!(second.taking.await.unwrap().unwrap().is_taken_over());
}

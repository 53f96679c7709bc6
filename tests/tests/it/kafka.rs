//! Kafka, a real broker: workers, producers and the broker itself are killed while events flow, and every acknowledged
//! event shows exactly once.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use crate::check::{Order, exactly_once};
use crate::harness::{Running, Site, kills, pause, rng, wait_for};
use crate::producer::Producer;
use crate::servers::{self, Server};

/// How long a worker may take to commit: the group waits for the session of a killed one to end.
const COMMITS: Duration = Duration::from_secs(60);

/// Held by tests that need the broker to stay up; alone by the one that kills it.
static BROKER_STAYS: RwLock<()> = RwLock::new(());

/// The broker, which stays up meanwhile.
pub(crate) fn broker() -> Option<(&'static Server, RwLockReadGuard<'static, ()>)> {
    servers::kafka().map(|server| (server, BROKER_STAYS.read().unwrap_or_else(PoisonError::into_inner)))
}

fn broker_alone() -> Option<(&'static Server, RwLockWriteGuard<'static, ()>)> {
    servers::kafka().map(|server| (server, BROKER_STAYS.write().unwrap_or_else(PoisonError::into_inner)))
}

/// Settings of a lake with topics and a group of its own.
pub(crate) fn config(server: &Server, name: &str, partitions: u32, max_event_bytes: usize) -> String {
    format!(
        "[lake]\nuri = \"lake\"\n\
         [log]\nuri = \"kafka://{}\"\ntopic_prefix = \"{name}.\"\ngroup = \"{name}\"\npartitions = {partitions}\n\
         session_timeout_ms = 3000\nmax_event_bytes = {max_event_bytes}\n\
         [ingest]\ncommit_interval_ms = 100\n",
        server.address()
    )
}

fn site(server: &Server, name: &str) -> Site {
    Site::new(&config(server, name, 3, 1 << 20))
}

/// A worker that goes on until it is ended.
pub(crate) fn worker(site: &Site) -> Running {
    site.spawn(&["ingest", "--kinds", "metric", "-v"])
}

/// Moves what is in the log into the tables.
pub(crate) fn catch_up(site: &Site) {
    site.ok(&["ingest", "--kinds", "metric", "--until-caught-up"]);
}

fn producers(site: &Site, rng: &mut ChaCha8Rng) -> Vec<Producer> {
    let mut start =
        |name: &str, kills| Producer::start(site, name, rand::SeedableRng::seed_from_u64(rng.random()), kills);
    vec![start("a", true), start("b", false)]
}

/// Waits until the workers have committed once more.
fn commit(site: &Site, workers: &mut [Running]) {
    let before = site.versions("metrics");
    wait_for("commit", COMMITS, || {
        workers.iter_mut().for_each(Running::assert_running);
        (site.versions("metrics") > before).then_some(())
    });
}

/// Ends the producers, moves the rest into the table, and checks it.
fn settle(site: &Site, producers: Vec<Producer>, workers: Vec<Running>) {
    let sent: Vec<_> = producers.into_iter().flat_map(Producer::finish).collect();
    workers.into_iter().for_each(Running::stop);
    catch_up(site);
    exactly_once(site, &sent, Order::Kept);
}

#[test]
fn a_worker_killed_at_any_point_loses_and_doubles_nothing() {
    let Some((server, _up)) = broker() else { return };
    let mut rng = rng("killed-worker");
    let site = site(server, "killed-worker");
    let producers = producers(&site, &mut rng);
    for _ in 0..kills() {
        let mut workers = [worker(&site)];
        // Now and then before it has done anything; else soon after a commit, which is when the next one is made.
        if rng.random_ratio(3, 4) {
            commit(&site, &mut workers);
        }
        pause(&mut rng, 400);
        workers.into_iter().for_each(Running::kill);
    }
    settle(&site, producers, Vec::new());
}

#[test]
fn a_broker_killed_and_restarted_loses_and_doubles_nothing() {
    let Some((server, _alone)) = broker_alone() else { return };
    let mut rng = rng("killed-broker");
    let site = site(server, "killed-broker");
    let producers = producers(&site, &mut rng);
    let mut workers = vec![worker(&site)];
    for _ in 0..kills() {
        commit(&site, &mut workers);
        pause(&mut rng, 1000);
        server.must("kill");
        pause(&mut rng, 2000);
        server.must("start");
        let before: usize = producers.iter().map(Producer::acknowledged).sum();
        let more = || (producers.iter().map(Producer::acknowledged).sum::<usize>() > before).then_some(());
        wait_for("acknowledgement after the restart", COMMITS, more);
    }
    commit(&site, &mut workers);
    settle(&site, producers, workers);
}

#[test]
fn two_workers_killed_and_stopped_in_turns_lose_and_double_nothing() {
    let Some((server, _up)) = broker() else { return };
    let mut rng = rng("rebalance");
    let site = site(server, "rebalance");
    let producers = producers(&site, &mut rng);
    let mut workers = vec![worker(&site), worker(&site)];
    for turn in 0..2 * kills() {
        commit(&site, &mut workers);
        pause(&mut rng, 500);
        let gone = workers.swap_remove(rng.random_range(0..workers.len()));
        if turn % 2 == 0 {
            gone.kill()
        } else {
            gone.stop()
        }
        if rng.random() {
            commit(&site, &mut workers);
        }
        workers.push(worker(&site));
    }
    settle(&site, producers, workers);
}

//! A lake on a real S3 server: events from two machines, a drain that is killed, pins, maintenance, and TLS with a
//! certificate authority of one's own. The embedded log lies in a state folder, one to a machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectMeta, ObjectStore as _};
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::check::{Order, exactly_once};
use crate::harness::{LIMIT, Site, kills, pause, repository, rng, wait_for};
use crate::producer::{Producer, events, lines};
use crate::servers::{self, Server};

/// The settings of a lake on the server, and what its commands need in their environment.
pub(crate) fn site(server: &Server, lake: &str) -> Site {
    site_at(&format!("http://{}", server.address()), lake, "")
}

fn site_at(endpoint: &str, lake: &str, more: &str) -> Site {
    let config = format!(
        "[lake]\nuri = \"s3://lake/{lake}\"\ns3_endpoint = \"{endpoint}\"\n{more}[ingest]\ncommit_interval_ms = 100\n"
    );
    Site::new(&config).with_env("AWS_ACCESS_KEY_ID", "test").with_env("AWS_SECRET_ACCESS_KEY", "testsecret")
}

fn count(site: &Site) -> i64 {
    site.number("SELECT count(*) FROM metrics")
}

#[test]
fn a_lake_on_s3_appends_queries_pins_and_is_maintained() {
    let Some(server) = servers::s3() else { return };
    let site = site(server, "whole");
    let all = events("m", 0, 60);
    for part in all.chunks(20) {
        site.append(&lines(part));
        // Reading drains: every part becomes files of its own.
        exactly_once(&site, &all[..count(&site) as usize], Order::Kept);
    }
    exactly_once(&site, &all, Order::Kept);
    assert!(site.path("state/webdancer").is_dir(), "the log lies in the state folder");
    let pinned: Value = serde_json::from_str(&site.ok(&[
        "pin",
        "create",
        "even",
        "--json",
        "--sql",
        "SELECT * FROM metrics WHERE step % 2 = 0",
    ]))
    .unwrap();
    assert_eq!(pinned["rows"], 30);
    let verified = || -> Value { serde_json::from_str(&site.ok(&["pin", "verify", "even", "--json"])).unwrap() };
    assert_eq!(verified()["recomputed"], true);
    let maintained: Value =
        serde_json::from_str(&site.ok(&["maintain", "--json", "--vacuum-older-than", "1", "--unsafe-vacuum"])).unwrap();
    assert_eq!((&maintained["metrics"]["files_before"], &maintained["metrics"]["files_after"]), (&json!(3), &json!(1)));
    exactly_once(&site, &all, Order::Kept);
    assert_eq!(verified()["passed"], true);
    assert_eq!(site.number("SELECT sum(step) FROM pin('even')"), (0..60).step_by(2).sum::<i64>());
    // The lake goes on after its maintenance.
    site.append(&lines(&events("more", 0, 5)));
    assert_eq!(count(&site), 65);
}

/// Names of the objects under a prefix of the bucket.
fn objects(server: &Server, lake: &str) -> Vec<String> {
    let store = AmazonS3Builder::new()
        .with_endpoint(format!("http://{}", server.address()))
        .with_allow_http(true)
        .with_bucket_name("lake")
        .with_region("us-east-1")
        .with_access_key_id("test")
        .with_secret_access_key("testsecret")
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listed: Vec<_> = runtime.block_on(store.list(Some(&lake.into())).try_collect()).unwrap();
    listed.into_iter().map(|object: ObjectMeta| object.location.to_string()).collect()
}

#[test]
fn a_trainer_works_in_a_folder_of_this_machine_with_a_copy_of_the_pin() {
    let Some(server) = servers::s3() else { return };
    let site = site(server, "training");
    site.append(&lines(&events("m", 0, 10)));
    site.ok(&["pin", "create", "few", "--sql", "SELECT * FROM metrics"]);
    // It looks for what a trainer reads: the manifest, and the files that it names beside it.
    let trainer = r#"#!/bin/sh
while [ $# -gt 0 ]; do case $1 in --run) run=$2 ;; --pin) pin=$2 ;; --out) out=$2 ;; esac; shift; done
for file in $(grep -o '[^"/]*\.parquet' "$pin"); do
  head -c 4 "$(dirname "$pin")/$file" | grep -q PAR1 && echo whole > "$out/$file.seen"
done
ls "$out"/*.seen > /dev/null || exit 1
echo "{\"specversion\":\"1.0\",\"id\":\"$run\",\"source\":\"stub\",\"type\":\"webdancer.checkpoint.v1\",\"runid\":\"$run\",\"data\":{\"digest\":\"abc\",\"step\":1,\"uri\":\"file:///c\"}}"
"#;
    std::fs::write(site.path("trainer"), trainer).unwrap();
    std::fs::set_permissions(site.path("trainer"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(site.path("own.toml"), "").unwrap();
    let run = |out: &[&str]| {
        let train = ["train", "sft", "--pin", "few", "--config", "own.toml", "--trainer", "./trainer", "--json"];
        site.run(&[&train[..], out].concat())
    };
    for (out, reason) in [
        (&[][..], "webdancer: give --out, a folder of this machine: "),
        (
            &["--out", "s3://lake/training/runs/r"],
            "webdancer: --out s3://lake/training/runs/r: give a folder of this machine: ",
        ),
    ] {
        let refused = run(out);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(refused.stderr.starts_with(reason) && refused.stderr.lines().count() == 1, "{refused:?}");
    }
    let done = run(&["--out", "r1"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(
        std::fs::read_dir(site.path("r1"))
            .unwrap()
            .any(|file| file.unwrap().path().extension() == Some("seen".as_ref()))
    );
    let told = site.sql("SELECT state FROM run_state WHERE kind = 'sft'");
    assert_eq!(told, [json!({"state": "finished"})]);
    // Made again, it lies beside the first.
    let first: Value = serde_json::from_str(&done.stdout).unwrap();
    let again = site.ok(&["reproduce", first["run_id"].as_str().unwrap(), "--json"]);
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["identical"], true, "{again}");
    assert!(site.path(again["made_again"].as_str().unwrap()).join("config.toml").is_file(), "{again}");
    assert!(
        !objects(server, "training").iter().any(|object| object.starts_with("training/runs/")),
        "checkpoints stay here"
    );
}

#[test]
fn reading_a_lake_writes_nothing_to_it() {
    let Some(server) = servers::s3() else { return };
    let writer = site(server, "reading");
    // Reading finds no slip of the pen empty, and what goes on running makes no lake of one.
    for arguments in [
        &["ingest", "--until-caught-up"][..],
        &["ingest"],
        &["sql", "SELECT count(*) FROM metrics"],
        &["sample", "--sql", "SELECT * FROM qa"],
        &["filter"],
    ] {
        let drained = writer.run(arguments);
        assert_eq!(drained.status.code(), Some(2), "{drained:?}");
        assert!(drained.stderr.contains("there is no lake at s3://lake/reading/: look at --lake"), "{drained:?}");
    }
    assert_eq!(objects(server, "reading"), [""; 0], "there is no lake yet, and reading makes none");
    let all = events("m", 0, 10);
    writer.append(&lines(&all));
    exactly_once(&writer, &all, Order::Kept);
    let before = objects(server, "reading");
    // Another machine, which has no log of this lake.
    let other = site(server, "reading");
    exactly_once(&other, &all, Order::Kept);
    let drained = other.run(&["ingest", "--until-caught-up"]);
    assert_eq!(drained.status.code(), Some(2), "{drained:?}");
    assert!(drained.stderr.contains("nothing was appended to s3://lake/reading/ from this machine"), "{drained:?}");
    assert_eq!(objects(server, "reading"), before);
}

#[test]
fn a_bucket_that_is_not_there_is_told_at_once() {
    let Some(server) = servers::s3() else { return };
    let site = site(server, "nowhere");
    let config = std::fs::read_to_string(site.path("webdancer.toml")).unwrap();
    site.configure(&config.replace("s3://lake/", "s3://no-such-bucket/"));
    for arguments in [
        &["append"][..],
        &["ingest", "--until-caught-up"],
        &["sql", "SELECT count(*) FROM metrics"],
        &["pin", "list"],
        &["maintain"],
    ] {
        let finished = site.run(arguments);
        assert_eq!(finished.status.code(), Some(2), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains("there is no such bucket"), "{arguments:?}: {finished:?}");
        assert_eq!(finished.stderr.trim_end().lines().count(), 1, "{arguments:?}: {finished:?}");
    }
}

#[test]
fn the_same_events_from_two_machines_show_once() {
    let Some(server) = servers::s3() else { return };
    let mut rng = rng("s3-rivals");
    let machines = [site(server, "rivals"), site(server, "rivals")];
    let all = events("m", 0, 600);
    std::thread::scope(|scope| {
        for machine in &machines {
            let mut order = all.clone();
            order.shuffle(&mut rng);
            scope.spawn(move || {
                let (first, rest) = order.split_at(100);
                // Makes the lake, unless the other one has: a drain makes none.
                machine.append(&lines(first));
                let drain = machine.spawn(&["ingest"]);
                for part in rest.chunks(100) {
                    machine.append(&lines(part));
                }
                drain.stop();
            });
        }
    });
    for machine in &machines {
        machine.ok(&["ingest", "--until-caught-up"]);
    }
    exactly_once(&machines[0], &all, Order::Any);
    exactly_once(&machines[1], &all, Order::Any);
}

#[test]
fn a_drain_killed_at_any_point_loses_and_doubles_nothing_on_s3() {
    let Some(server) = servers::s3() else { return };
    let mut rng = rng("s3-killed-drain");
    let site = site(server, "killed");
    let producer = Producer::start(&site, "a", rand_chacha::ChaCha8Rng::seed_from_u64(rng.random()), true);
    // A drain makes no lake: the producer does.
    wait_for("lake", LIMIT, || site.run(&["pin", "list"]).status.success().then_some(()));
    for _ in 0..kills() {
        let drain = site.spawn(&["ingest", "-v"]);
        if rng.random_ratio(3, 4) {
            wait_for("commit", LIMIT, || drain.told().contains("committed").then_some(()));
        }
        pause(&mut rng, 400);
        drain.kill();
    }
    let sent = producer.finish();
    exactly_once(&site, &sent, Order::Kept);
}

/// A TLS front of a server; it ends when dropped.
struct Front {
    child: Child,
    port: u16,
    authority: PathBuf,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a certificate authority and a server's certificate in the folder of `site`, and serves with them.
fn tls_front(server: &Server, site: &Site) -> Option<Front> {
    let script = "set -e
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr
printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\nextendedKeyUsage=serverAuth\\n' >server.ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem";
    let made = Command::new("sh").args(["-c", script]).current_dir(site.path("")).output().unwrap();
    if !servers::available("WEBDANCER_REQUIRE_S3", "a certificate (openssl)", &made) {
        return None;
    }
    let port = servers::free_ports();
    let child = Command::new("python3")
        .arg(repository("tests/py/tls_front.py"))
        .args([port.to_string(), server.port().to_string()])
        .args([site.path("server.pem"), site.path("server.key")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let front = Front { child, port, authority: site.path("ca.pem") };
    wait_for("TLS front", LIMIT, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    Some(front)
}

#[test]
fn tls_is_trusted_with_the_right_authority_only() {
    let Some(server) = servers::s3() else { return };
    let keys = Site::new("");
    let Some(front) = tls_front(server, &keys) else { return };
    let endpoint = format!("https://127.0.0.1:{}", front.port);
    let trusting = site_at(&endpoint, "tls", &format!("s3_ca_file = {:?}\n", front.authority));
    let all = events("m", 0, 10);
    trusting.append(&lines(&all));
    exactly_once(&trusting, &all, Order::Kept);

    let wary = site_at(&endpoint, "tls", "");
    let refused = wary.spawn(&["sql", "SELECT count(*) FROM metrics"]).finish(Duration::from_secs(60));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.to_lowercase().contains("certificate"), "{}", refused.stderr);
}

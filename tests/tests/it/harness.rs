//! The command as a process in a folder of its own, and what a test needs to drive it.
//!
//! Everything random is drawn from one seed, `WEBDANCER_TEST_SEED`, which every test that uses it prints; the number of
//! kills is `WEBDANCER_KILLS`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;

/// No command that ends by itself takes longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// The command under test: it lies beside the folder of the test executables.
pub(crate) fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("webdancer");
    assert!(path.is_file(), "{} is not there: build it first, with `cargo build --workspace`", path.display());
    path
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).canonicalize().unwrap()
}

/// A line for whoever watches; unlike what a test prints, it shows when the test passes.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Randomness of the test called `name`.
pub(crate) fn rng(name: &str) -> ChaCha8Rng {
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = *SEED.get_or_init(|| match std::env::var("WEBDANCER_TEST_SEED") {
        Ok(text) => text.parse().expect("WEBDANCER_TEST_SEED is a number"),
        Err(_) => rand::rng().random_range(0..1_000_000),
    });
    say(&format!("{name}: WEBDANCER_TEST_SEED={seed}"));
    let own = name.bytes().fold(seed, |hash, byte| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
    ChaCha8Rng::seed_from_u64(own)
}

/// How often a test kills.
pub(crate) fn kills() -> u32 {
    std::env::var("WEBDANCER_KILLS").map_or(3, |text| text.parse().expect("WEBDANCER_KILLS is a number"))
}

pub(crate) fn pause(rng: &mut ChaCha8Rng, most_ms: u64) {
    std::thread::sleep(Duration::from_millis(rng.random_range(0..=most_ms)));
}

/// Waits until `ready` gives something.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(begun.elapsed() < limit, "no {what} within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process has a handler of its own for SIGTERM, by the mask of signals that it catches.
fn handles_sigterm(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 14) != 0)
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A folder with a `webdancer.toml` in which commands are run.
#[derive(Debug)]
pub(crate) struct Site {
    dir: TempDir,
    environment: Vec<(String, String)>,
    commands: AtomicU32,
}

impl Site {
    /// A folder with this settings file.
    pub(crate) fn new(config: &str) -> Site {
        let site = Site { dir: TempDir::new().unwrap(), environment: Vec::new(), commands: AtomicU32::new(0) };
        site.configure(config);
        site
    }

    /// Sets an environment variable of all commands.
    pub(crate) fn with_env(mut self, name: &str, value: &str) -> Site {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    /// Replaces the settings file.
    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.path("webdancer.toml"), config).unwrap();
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Versions that a table of a lake in this folder's `lake` has.
    pub(crate) fn versions(&self, table: &str) -> usize {
        let log = self.path("lake/tables").join(table).join("_delta_log");
        let Ok(entries) = std::fs::read_dir(log) else { return 0 };
        entries.filter(|e| e.as_ref().is_ok_and(|e| e.path().extension().is_some_and(|x| x == "json"))).count()
    }

    /// The command, to be run in the folder with none of the caller's settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars() {
            if name.starts_with("WEBDANCER_") || name.starts_with("AWS_") || name.starts_with("RUST_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.dir.path()).env("XDG_STATE_HOME", self.path("state"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).args(arguments);
        command
    }

    /// Starts a command whose output goes to files.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let (stdout, stderr) = (self.path(&format!("{number}.out")), self.path(&format!("{number}.err")));
        let child = self
            .command(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Running { child, name: arguments.join(" "), stdout, stderr }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        self.spawn(arguments).finish(LIMIT)
    }

    /// Runs a command that must succeed; its output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let finished = self.run(arguments);
        assert!(finished.status.success(), "webdancer {}: {finished:?}", arguments.join(" "));
        finished.stdout
    }

    /// Appends lines with one command that must succeed.
    pub(crate) fn append(&self, lines: &[String]) {
        let finished = self.try_append(lines);
        assert!(finished.status.success(), "append: {finished:?}");
    }

    /// Appends lines with one command.
    pub(crate) fn try_append(&self, lines: &[String]) -> Finished {
        let file = self.path("append.ndjson");
        std::fs::write(&file, lines.join("\n")).unwrap();
        self.run(&["append", "--ids", "append.ndjson"])
    }

    /// The rows of a query.
    pub(crate) fn sql(&self, query: &str) -> Vec<Value> {
        let rows = self.ok(&["sql", "--format", "ndjson", query]);
        rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The one number that a query gives.
    pub(crate) fn number(&self, query: &str) -> i64 {
        let rows = self.sql(query);
        let [row] = rows.as_slice() else { panic!("{query}: {rows:?}") };
        row.as_object().and_then(|row| row.values().next()).and_then(Value::as_i64).unwrap()
    }
}

/// A command that runs; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// SIGKILL. Panics if the command had ended by itself before.
    pub(crate) fn kill(mut self) {
        self.assert_running();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, which must make it end well.
    pub(crate) fn stop(mut self) {
        let id = self.id();
        // Before it has come to that, a signal ends it like any program.
        wait_for("handler of SIGTERM", LIMIT, || {
            self.assert_running();
            handles_sigterm(id).then_some(())
        });
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success(), "SIGTERM to {}", self.name);
        let name = self.name.clone();
        let finished = self.finish(LIMIT);
        assert!(finished.status.success(), "{name} was asked to stop: {finished:?}");
    }

    /// SIGKILL; the exit code if the command had ended by itself before.
    pub(crate) fn kill_or_end(mut self) -> Option<i32> {
        self.child.kill().unwrap();
        self.child.wait().unwrap().code()
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Panics if the command has ended.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended by itself with {status}: {}", self.name, self.told());
        }
    }

    /// What it wrote to standard output so far.
    pub(crate) fn wrote(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn told(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self, limit: Duration) -> Finished {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < limit, "{} still runs after {limit:?}: {}", self.name, self.told());
            std::thread::sleep(Duration::from_millis(5));
        };
        let stdout = String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap()).into_owned();
        Finished { status, stdout, stderr: self.told() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

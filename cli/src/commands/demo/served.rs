//! A checkpoint served on loopback by a process of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use crate::failure::Failure;

/// How long a model may take to be read.
const START: Duration = Duration::from_secs(120);
/// How many threads libtorch computes by, where it is not said.
const THREADS: &str = "OMP_NUM_THREADS";
/// How long a server may take to end when it is told to.
const END: Duration = Duration::from_secs(10);

/// A server. It ends with this value, and with this process, however that ends: its standard input is then closed.
#[derive(Debug)]
pub(super) struct Served {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Its base URL.
    pub(super) url: String,
}

impl Served {
    /// Serves a checkpoint, so many answers at a time, by one server's share of the cores.
    ///
    /// # Errors
    /// The server does not start.
    pub(super) async fn start(
        trainer: &Path,
        checkpoint: &Path,
        sequences: usize,
        servers: usize,
    ) -> Result<Served, Failure> {
        let failed = |what: String| Failure::failed(format!("serving {}: {what}", checkpoint.display()));
        let mut command = Command::new(trainer);
        // Threads of a small model that wait for one another for want of a core take longer than one.
        if std::env::var_os(THREADS).is_none() {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            command.env(THREADS, (cores / servers.max(1)).max(1).to_string());
        }
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--until-input-ends", "--sequences-max"])
            .arg(sequences.to_string())
            .arg("--checkpoint")
            .arg(checkpoint)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(format!("starting {}: {e}", trainer.display())))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| failed("it has no output".to_string()))?;
        let mut url = String::new();
        let mut lines = BufReader::new(stdout);
        match timeout(START, lines.read_line(&mut url)).await {
            Err(_) => Err(failed(format!("no address after {} s", START.as_secs()))),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Ok(Ok(0)) => Err(failed("it ended before it listened; what it said is above".to_string())),
            Ok(Ok(_)) => Ok(Served { child, stdin, url: url.trim().to_string() }),
        }
    }

    /// Ends the server.
    pub(super) async fn stop(mut self) {
        drop(self.stdin.take());
        // If it does not end it is killed, as this value is dropped.
        let _ = timeout(END, self.child.wait()).await;
    }
}

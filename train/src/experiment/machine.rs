//! What an experiment ran on, and by which program.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::table::Program;

/// The program in this file: its version, and its digest where it can be read.
pub(super) fn program(file: &Path) -> Program {
    Program { version: env!("CARGO_PKG_VERSION").to_string(), sha256: digest(file).unwrap_or_default() }
}

fn digest(file: &Path) -> std::io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(file)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(format!("{:x}", hash.finalize()));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
    }
}

/// The GPUs, if the driver knows any, and the processor.
pub(super) fn device() -> String {
    let gpus = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let gpus = gpus.filter_map(|gpu| field(&gpu.path().join("information"), "Model"));
    let processor = field(Path::new("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_string());
    gpus.chain([format!("{processor}, {} threads", threads())]).collect::<Vec<_>>().join("; ")
}

/// Threads that this process may use.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The first `name: value` of a file.
fn field(path: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_string())
}

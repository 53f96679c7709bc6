//! What an experiment ran on, and by which program.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::table::Program;

/// The program in this file, as far as it can be read; it is the one that this process runs.
pub(super) fn program(file: &Path) -> Program {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION").to_string();
    Program { version, libtorch: libtorch(&maps).unwrap_or_default(), sha256: digest(file).unwrap_or_default() }
}

/// The version of the libtorch that is loaded: what lies beside its libraries says it, as libtorch or as PyTorch.
fn libtorch(maps: &str) -> Option<String> {
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    let folder = Path::new(line.get(line.find('/')?..)?).parent()?.parent()?;
    let text = std::fs::read_to_string(folder.join("build-version")).ok();
    text.map(|text| text.trim().to_string()).or_else(|| {
        let text = std::fs::read_to_string(folder.join("version.py")).ok()?;
        let version = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        Some(version.trim_matches(['\'', '"']).to_string())
    })
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
    let processor =
        field(Path::new("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_string());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_libtorch_is_that_of_the_folder_it_was_loaded_from() {
        let folder = tempfile::tempdir().unwrap();
        let torch = folder.path().join("torch");
        std::fs::create_dir_all(torch.join("lib")).unwrap();
        let place = torch.join("lib/libtorch_cpu.so").display().to_string();
        let maps =
            format!("7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/libc.so.6\n7f02-7f03 r-xp 00000000 08:01 13  {place}\n");
        assert_eq!(libtorch(&maps), None);
        std::fs::write(torch.join("version.py"), "debug = False\n__version__ = '2.11.0+cu130'\n").unwrap();
        assert_eq!(libtorch(&maps).as_deref(), Some("2.11.0+cu130"));
        std::fs::write(torch.join("build-version"), "2.11.0\n").unwrap();
        assert_eq!(libtorch(&maps).as_deref(), Some("2.11.0"));
        assert_eq!(libtorch("7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/libc.so.6\n"), None);
    }
}

//! A power cut at every single point of an append: what was acknowledged is there, once, and the table opens.
//!
//! The disk below keeps account of what was synced. At the cut it takes the rest away: a name that no directory sync
//! made durable is gone, a file whose bytes were not synced is empty. kill -9 would show none of this: the kernel
//! writes back what a killed process wrote.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::PutPayload;
use parking_lot::Mutex;
use webdancer_ingest::decode::{Decoder, Position};
use webdancer_ingest::source::TopicPartition;
use webdancer_lake::append::{Outcome, Part};
use webdancer_lake::local::{Disk, DurableLocal, RealDisk};
use webdancer_lake::location::Location;
use webdancer_lake::{Lake, LakeOptions, Table};
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::rows::Metric;

/// A disk that forgets, and stops at a given call.
#[derive(Debug)]
struct ForgetfulDisk {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls_left: Option<usize>,
    calls: usize,
    /// Files whose bytes are on disk, by inode.
    bytes: HashSet<u64>,
    /// Names that are on disk.
    names: HashSet<PathBuf>,
}

impl ForgetfulDisk {
    fn call(&self) -> std::io::Result<()> {
        let mut state = self.state.lock();
        state.calls += 1;
        match &mut state.calls_left {
            Some(0) => Err(std::io::Error::other("the power is cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes away what was not synced.
    fn power_cut(&self) {
        let state = self.state.lock();
        for file in files(&self.folder) {
            if !state.names.contains(&file) {
                std::fs::remove_file(&file).unwrap();
            } else if !state.bytes.contains(&inode(&file)) {
                std::fs::write(&file, b"").unwrap();
            }
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

impl Disk for ForgetfulDisk {
    fn write_new(&self, path: &Path, payload: &PutPayload) -> std::io::Result<()> {
        self.call()?;
        RealDisk.write_new(path, payload)
    }
    fn sync_file(&self, path: &Path) -> std::io::Result<()> {
        self.call()?;
        let number = std::fs::metadata(path)?.ino();
        self.state.lock().bytes.insert(number);
        Ok(())
    }
    fn sync_directory(&self, path: &Path) -> std::io::Result<()> {
        self.call()?;
        if path.starts_with(&self.folder) {
            let mut state = self.state.lock();
            state.names.retain(|name| name.parent() != Some(path));
            state.names.extend(std::fs::read_dir(path)?.map(|entry| entry.unwrap().path()));
        }
        Ok(())
    }
    fn link(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.call()?;
        RealDisk.link(from, to)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.call()?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.call()?;
        RealDisk.remove(path)
    }
}

fn lake_on(folder: &Path, disk: Arc<dyn Disk>) -> Lake {
    let url = url::Url::from_directory_path(folder).unwrap();
    let location = Location::with_store(url, Arc::new(DurableLocal::on(disk))).unwrap();
    // Two attempts: a store without power does not come back.
    Lake::with_location(location, LakeOptions { max_commit_attempts: 2, ..LakeOptions::default() })
}

fn part(step: i64) -> Part {
    let partition = TopicPartition { topic: "t".into(), partition: 0 };
    let row = Metric { name: "loss".into(), step, value: 0.5, unit: None };
    let id =
        webdancer_schemas::id::EventId::derive(chrono::DateTime::UNIX_EPOCH, "r", Kind::Metric, "loss", step as u64);
    let event = Event::new("test", &row).unwrap().with_id(id);
    let mut decoder = Decoder::new(Kind::Metric);
    let position = Position { partition: &partition, offset: step, timestamp_ms: 0 };
    decoder.push(&event.envelope, event.data.get().as_bytes(), position).unwrap();
    Part {
        app_id: "a".into(),
        from: (step > 0).then_some(step - 1),
        to: step,
        fingerprint: None,
        batches: vec![decoder.finish().unwrap()],
    }
}

async fn rows(table: &Table) -> usize {
    let context = datafusion::prelude::SessionContext::new();
    context.read_table(table.provider().await.unwrap()).unwrap().count().await.unwrap()
}

#[tokio::test]
async fn a_power_cut_at_any_point_of_an_append_loses_and_doubles_nothing() {
    const APPENDS: i64 = 3;
    let mut cut_at = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let disk = Arc::new(ForgetfulDisk { folder: root.clone(), state: Mutex::default() });
        let lake = lake_on(&root, disk.clone());
        let mut table = lake.table_for_writing(Kind::Metric).await.unwrap();
        disk.state.lock().calls_left = Some(cut_at);
        let mut acknowledged = 0;
        for step in 0..APPENDS {
            match table.append(&[part(step)]).await {
                Ok(_) => acknowledged += 1,
                Err(_) => break,
            }
        }
        disk.power_cut();

        // After the power is back: the table opens, what was acknowledged is there, and what was offered again is once.
        let lake = lake_on(&root, Arc::new(RealDisk));
        let mut table = lake.table_for_writing(Kind::Metric).await.unwrap_or_else(|e| panic!("cut at {cut_at}: {e}"));
        let position = table.position("a").await.unwrap();
        let landed = position.map_or(0, |at| at + 1);
        assert!(landed >= acknowledged, "cut at {cut_at}: {acknowledged} acknowledged, {landed} there");
        assert!(landed <= acknowledged + 1, "cut at {cut_at}: more landed than was offered");
        assert_eq!(rows(&table).await as i64, landed, "cut at {cut_at}");
        for step in landed..APPENDS {
            let outcome = table.append(&[part(step)]).await.unwrap();
            assert_eq!(outcome, [Outcome::Landed { rows: 1, duplicates: 0 }], "cut at {cut_at}");
        }
        assert_eq!(rows(&table).await as i64, APPENDS, "cut at {cut_at}");
        if acknowledged == APPENDS {
            assert!(cut_at > 10, "the appends made only {cut_at} calls");
            return;
        }
        cut_at += 1;
    }
}

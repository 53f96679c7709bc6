//! A power cut while the embedded log is written to: what was not synced is gone, torn, or other bytes stand there. Every
//! acknowledged event is there afterwards, and no half of one.

use std::path::Path;

use proptest::prelude::*;
use webdancer_ingest::drain::DrainOptions;
use webdancer_ingest::embedded::EmbeddedOptions;
use webdancer_schemas::log::EventLog as _;

use crate::support::{drain, lake, log, metric, steps};

/// Events of each append; a group each.
const GROUPS: [i64; 6] = [1, 3, 1, 7, 2, 4];

/// A segment that was written group by group, and where each sync was: behind its header, behind each group.
struct Written {
    bytes: Vec<u8>,
    synced: Vec<usize>,
}

async fn written() -> Written {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&lake(&dir), EmbeddedOptions::default()).await;
    let segment = dir.path().join("log/00000000000000000000.seg");
    let length = || std::fs::metadata(&segment).unwrap().len() as usize;
    let (mut synced, mut step) = (vec![length()], 0);
    for events in GROUPS {
        log.append((step..step + events).map(metric).collect()).await.unwrap();
        synced.push(length());
        step += events;
    }
    Written { bytes: std::fs::read(&segment).unwrap(), synced }
}

/// What the disk has of the bytes that were written and not synced.
#[derive(Debug, Clone)]
enum Left {
    /// The first so many: the file's new length was not on disk, or not all of it.
    First(prop::sample::Index),
    /// All but one block, which is zeros: its place was on disk and its bytes were not.
    Hole(prop::sample::Index),
    /// Others, as many: of a file that was deleted.
    Others(u8),
}

fn left() -> impl Strategy<Value = Left> {
    prop_oneof![
        4 => any::<prop::sample::Index>().prop_map(Left::First),
        2 => any::<prop::sample::Index>().prop_map(Left::Hole),
        1 => any::<u8>().prop_map(Left::Others),
    ]
}

impl Left {
    fn of(&self, unsynced: &[u8]) -> Vec<u8> {
        const BLOCK: usize = 64;
        match self {
            Left::First(count) => unsynced[..count.index(unsynced.len() + 1)].to_vec(),
            Left::Hole(at) => {
                let mut bytes = unsynced.to_vec();
                let begin = at.index(bytes.len()) / BLOCK * BLOCK;
                let end = (begin + BLOCK).min(bytes.len());
                bytes[begin..end].fill(0);
                bytes
            }
            Left::Others(byte) => vec![*byte; unsynced.len()],
        }
    }
}

/// What is left of the note of what was checked, which is not synced by itself.
#[derive(Debug, Clone, Copy)]
enum Note {
    Gone,
    Empty,
    Of(usize),
}

fn note() -> impl Strategy<Value = Note> {
    prop_oneof![Just(Note::Gone), Just(Note::Empty), (0..=GROUPS.len()).prop_map(Note::Of)]
}

fn write_note(folder: &Path, written: &Written, groups: usize, note: Note) {
    let id = uuid::Uuid::from_slice(&written.bytes[8..24]).unwrap();
    let text = match note {
        Note::Gone => return,
        Note::Empty => String::new(),
        // It speaks of nothing that was not synced.
        Note::Of(group) => format!("{id} {}\n", written.synced[group.min(groups)]),
    };
    std::fs::write(folder.join("checked"), text).unwrap();
}

/// Cuts the power after `groups` were acknowledged; the steps that a reader finds once it is back.
async fn cut(written: &Written, groups: usize, left: &Left, note: Note) -> (Vec<i64>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("log");
    std::fs::create_dir(&folder).unwrap();
    let (synced, next) = (written.synced[groups], written.synced[groups + 1]);
    let torn = left.of(&written.bytes[synced..next]);
    let segment = [&written.bytes[..synced], &torn].concat();
    std::fs::write(folder.join("00000000000000000000.seg"), segment).unwrap();
    write_note(&folder, written, groups, note);

    let lake = lake(&dir);
    let log = log(&lake, EmbeddedOptions::default()).await;
    // The log goes on behind what is whole.
    log.append(vec![metric(1000)]).await.unwrap();
    drain(&lake, &log, DrainOptions::default()).await;
    let (counts, mut order) = steps(&lake).await;
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert_eq!(order.pop(), Some(1000));
    (order, torn)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn after_a_power_cut_every_acknowledged_event_is_there_and_no_half_of_one(
        groups in 0..GROUPS.len(),
        left in left(),
        note in note(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let written = written().await;
            let (found, torn) = cut(&written, groups, &left, note).await;
            // The group under way is there as a whole, if all of it came to be on disk, or not at all.
            let whole = torn == written.bytes[written.synced[groups]..written.synced[groups + 1]];
            let there = GROUPS[..groups + usize::from(whole)].iter().sum::<i64>();
            assert_eq!(found, (0..there).collect::<Vec<_>>());
        });
    }
}

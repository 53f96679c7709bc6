//! What one member knows of its tasks: which are ready, which are being worked on, and how far each partition is done.
//!
//! | what happens | task waiting here | task being worked on | task done, one before it not |
//! |---|---|---|---|
//! | partition is taken away | forgotten | remembered | remembered |
//! | partition comes back from before the task | delivered anew | goes on, not delivered twice | counts as done |
//! | partition comes back from behind the task | – | forgotten: another member did it | forgotten |

use std::collections::{BTreeMap, VecDeque};

use super::Task;

/// A place in the topic.
type Place = (i32, i64);

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Working,
    Done,
}

#[derive(Debug, Default)]
struct Partition {
    /// Tasks from the first that is not done on, by offset.
    open: BTreeMap<i64, State>,
    /// Behind the last record seen.
    seen: i64,
    /// Everything before is done; none before the first task was.
    done: Option<i64>,
    /// The last value of `done` that was sent to the group.
    sent: Option<i64>,
}

impl Partition {
    /// Moves `done` over all tasks at the front that are done.
    fn advance(&mut self) {
        while let Some(entry) = self.open.first_entry() {
            if *entry.get() != State::Done {
                self.done = Some(*entry.key());
                return;
            }
            entry.remove();
        }
        self.done = Some(self.seen);
    }
}

/// The tasks of one member. Partitions by number: there is one topic.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    partitions: BTreeMap<i32, Partition>,
    waiting: VecDeque<Task>,
    /// Tasks that were handed out, of partitions that are not ours at present; whether they are done.
    strays: BTreeMap<Place, bool>,
}

impl Ledger {
    /// A partition is ours from now on, read from `start` (none: from its first record).
    pub(super) fn assign(&mut self, partition: i32, start: Option<i64>) {
        let start = start.unwrap_or(0);
        // What lies before was done, by us or by another.
        self.strays.retain(|(of, offset), _| *of != partition || *offset >= start);
        self.partitions.insert(partition, Partition { seen: start, ..Partition::default() });
    }

    /// A partition is not ours any more.
    pub(super) fn revoke(&mut self, partition: i32) {
        let Some(lost) = self.partitions.remove(&partition) else { return };
        self.waiting.retain(|task| task.partition != partition);
        for (offset, state) in lost.open {
            match state {
                State::Waiting => {}
                State::Working => drop(self.strays.insert((partition, offset), false)),
                State::Done => drop(self.strays.insert((partition, offset), true)),
            }
        }
    }

    /// Partitions that are ours.
    pub(super) fn partitions(&self) -> impl Iterator<Item = i32> {
        self.partitions.keys().copied()
    }

    /// A task was read. True: it waits to be handed out.
    pub(super) fn add(&mut self, task: Task) -> bool {
        let place = (task.partition, task.offset);
        let Some(partition) = self.unseen(place) else { return false };
        let state = match self.strays.remove(&place) {
            None => State::Waiting,
            Some(false) => State::Working,
            Some(true) => State::Done,
        };
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.open.insert(place.1, state);
            partition.advance();
        }
        if state == State::Waiting {
            self.waiting.push_back(task);
        }
        state == State::Waiting
    }

    /// A record was read that is no task.
    pub(super) fn pass(&mut self, place: Place) {
        if let Some(partition) = self.unseen(place).and_then(|number| self.partitions.get_mut(&number)) {
            partition.advance();
        }
    }

    /// The partition of a record that is ours and new.
    fn unseen(&mut self, (number, offset): Place) -> Option<i32> {
        let partition = self.partitions.get_mut(&number).filter(|partition| offset >= partition.seen)?;
        partition.seen = offset + 1;
        Some(number)
    }

    /// Tasks that wait to be handed out.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next task.
    pub(super) fn hand_out(&mut self) -> Option<Task> {
        let task = self.waiting.pop_front()?;
        let partition = self.partitions.get_mut(&task.partition);
        if let Some(state) = partition.and_then(|partition| partition.open.get_mut(&task.offset)) {
            *state = State::Working;
        }
        Some(task)
    }

    /// A task is done.
    pub(super) fn done(&mut self, task: &Task) {
        if let Some(done) = self.strays.get_mut(&(task.partition, task.offset)) {
            *done = true;
            return;
        }
        let Some(partition) = self.partitions.get_mut(&task.partition) else { return };
        if let Some(state) = partition.open.get_mut(&task.offset) {
            *state = State::Done;
            partition.advance();
        }
    }

    /// Positions that the group is not told of yet, by partition; from now on they count as told.
    pub(super) fn take_positions(&mut self) -> Vec<Place> {
        let news = |(number, partition): (&i32, &mut Partition)| {
            let done = partition.done.filter(|_| partition.done != partition.sent)?;
            partition.sent = partition.done;
            Some((*number, done))
        };
        self.partitions.iter_mut().filter_map(news).collect()
    }

    /// What the group knows. What it was told and did not take, in the midst of a rebalance, is told again.
    pub(super) fn group_knows(&mut self, positions: &BTreeMap<i32, i64>) {
        for (number, partition) in &mut self.partitions {
            if partition.sent.is_some_and(|sent| positions.get(number).is_none_or(|known| *known < sent)) {
                partition.sent = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn task((partition, offset): Place) -> Task {
        let payload = RawValue::from_string(offset.to_string()).unwrap();
        Task { partition, offset, key: format!("{partition}/{offset}"), payload }
    }

    /// A ledger with partition 0 and its first `count` tasks.
    fn ledger(count: i64) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.assign(0, None);
        for offset in 0..count {
            assert!(ledger.add(task((0, offset))));
        }
        ledger
    }

    fn hand_out_all(ledger: &mut Ledger) -> Vec<Place> {
        std::iter::from_fn(|| ledger.hand_out()).map(|task| (task.partition, task.offset)).collect()
    }

    #[test]
    fn a_position_moves_only_over_tasks_that_are_all_done() {
        let mut ledger = ledger(4);
        assert_eq!(hand_out_all(&mut ledger), [(0, 0), (0, 1), (0, 2), (0, 3)]);
        ledger.take_positions();
        ledger.done(&task((0, 1)));
        ledger.done(&task((0, 2)));
        assert_eq!(ledger.take_positions(), []);
        ledger.done(&task((0, 0)));
        assert_eq!(ledger.take_positions(), [(0, 3)]);
        ledger.done(&task((0, 3)));
        assert_eq!(ledger.take_positions(), [(0, 4)]);
        assert_eq!(ledger.take_positions(), []);
        ledger.group_knows(&BTreeMap::from([(0, 4), (1, 0)]));
        assert_eq!(ledger.take_positions(), []);
        ledger.group_knows(&BTreeMap::from([(0, 3)]));
        assert_eq!(ledger.take_positions(), [(0, 4)]);
        ledger.group_knows(&BTreeMap::new());
        assert_eq!(ledger.take_positions(), [(0, 4)]);
    }

    #[test]
    fn a_task_done_before_it_was_handed_out_by_us_counts_for_nothing() {
        let mut ledger = ledger(0);
        ledger.done(&task((0, 0)));
        ledger.done(&task((7, 0)));
        assert_eq!(ledger.take_positions(), []);
    }

    #[test]
    fn gaps_and_records_that_are_no_tasks_are_passed_over() {
        let mut ledger = Ledger::default();
        ledger.assign(3, Some(5));
        ledger.pass((3, 5));
        assert_eq!(ledger.take_positions(), [(3, 6)]);
        assert!(ledger.add(task((3, 9))));
        ledger.pass((3, 12));
        assert_eq!(ledger.take_positions(), [(3, 9)]);
        hand_out_all(&mut ledger);
        ledger.done(&task((3, 9)));
        assert_eq!(ledger.take_positions(), [(3, 13)]);
    }

    #[test]
    fn records_of_other_partitions_and_records_seen_before_are_dropped() {
        let mut ledger = ledger(2);
        assert!(!ledger.add(task((1, 0))));
        assert!(!ledger.add(task((0, 1))));
        assert_eq!(hand_out_all(&mut ledger), [(0, 0), (0, 1)]);
    }

    #[test]
    fn what_waits_is_forgotten_with_its_partition() {
        let mut ledger = ledger(2);
        ledger.assign(1, None);
        assert!(ledger.add(task((1, 0))));
        ledger.revoke(0);
        assert_eq!(ledger.partitions().collect::<Vec<i32>>(), [1]);
        assert_eq!(hand_out_all(&mut ledger), [(1, 0)]);
        assert_eq!(ledger.waiting(), 0);
    }

    #[test]
    fn a_task_worked_on_is_not_delivered_again_when_its_partition_comes_back() {
        let mut ledger = ledger(3);
        assert_eq!(ledger.hand_out().map(|task| task.offset), Some(0));
        assert_eq!(ledger.hand_out().map(|task| task.offset), Some(1));
        ledger.done(&task((0, 1)));
        ledger.revoke(0);
        ledger.assign(0, None);
        for (offset, delivered) in [(0, false), (1, false), (2, true)] {
            assert_eq!(ledger.add(task((0, offset))), delivered, "{offset}");
        }
        assert_eq!(hand_out_all(&mut ledger), [(0, 2)]);
        ledger.done(&task((0, 0)));
        assert_eq!(ledger.take_positions(), [(0, 2)]);
    }

    #[test]
    fn a_task_finished_while_its_partition_was_away_counts_when_it_comes_back() {
        let mut ledger = ledger(1);
        hand_out_all(&mut ledger);
        ledger.revoke(0);
        ledger.done(&task((0, 0)));
        assert_eq!(ledger.take_positions(), []);
        ledger.assign(0, None);
        assert!(!ledger.add(task((0, 0))));
        assert_eq!(ledger.take_positions(), [(0, 1)]);
    }

    #[test]
    fn a_task_that_another_member_did_meanwhile_is_forgotten() {
        let mut ledger = ledger(1);
        hand_out_all(&mut ledger);
        ledger.revoke(0);
        ledger.assign(0, Some(1));
        assert!(ledger.strays.is_empty());
        ledger.done(&task((0, 0)));
        assert_eq!(ledger.take_positions(), []);
        assert!(ledger.add(task((0, 1))));
    }
}

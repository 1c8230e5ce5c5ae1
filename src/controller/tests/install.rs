//! A leader's snapshot takes the place of the log: a crash at every operation leaves the one or the other, and
//! nothing that was void comes back.

use super::super::raft::{Entry, HardState};
use super::super::storage::{LogStorage, StorageEvent};
use super::*;

/// Index and term of the snapshot.
const SNAPSHOT: (u64, u64) = (8, 3);

fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    let data = Bytes::from_static(b"");
    indexes.map(|index| Entry { index, term, data: data.clone() }).collect()
}

/// A storage on a disk that works for so many operations.
struct Writer {
    disk: Disk,
    storage: LogStorage,
    left: usize,
    persisted: u64,
}

impl Writer {
    fn new(mut disk: Disk, operations: usize) -> Self {
        let recovered = recover(&mut disk).unwrap();
        Self { disk, storage: LogStorage::new(recovered.at), left: operations, persisted: 0 }
    }

    fn run(&mut self) {
        while self.left > 0
            && let Some((ticket, op)) = self.storage.next_op()
        {
            self.left -= 1;
            let result = self.disk.run(&op);
            match self.storage.complete(ticket, result) {
                StorageEvent::Persisted(number) => self.persisted = number,
                StorageEvent::None | StorageEvent::SnapshotTaken(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn append(&mut self, number: u64, term: u64, commit: u64, entries: Vec<Entry>) {
        self.storage.append(number, Some(HardState { term, vote: 0, commit }), entries, true);
    }
}

/// A log of that length, then the snapshot and what follows it; `hasty` gives it all before anything is written.
fn life(length: u64, hasty: bool, operations: usize) -> Writer {
    let mut writer = Writer::new(Disk::default(), operations);
    writer.append(1, 1, 2, entries(1..=length, 1));
    if !hasty {
        writer.run();
    }
    let hard = HardState { term: 3, vote: 0, commit: SNAPSHOT.0 };
    let records = Record::encode_all(&[Record::MetadataVersion { version: 1 }]);
    writer.storage.install(2, Some(hard), SNAPSHOT.0, SNAPSHOT.1, records.into()).unwrap();
    writer.append(3, 3, SNAPSHOT.0, entries(9..=10, 3));
    writer.run();
    writer.append(4, 3, 10, entries(11..=11, 3));
    writer.run();
    writer
}

fn terms(recovered: &Recovered) -> Vec<u64> {
    recovered.stored.entries.iter().map(|entry| entry.term).collect()
}

#[test]
fn a_crash_at_every_operation_leaves_the_old_log_or_the_snapshot() {
    for (length, hasty) in [(5, false), (8, false), (12, false), (12, true)] {
        let mut kinds = BTreeMap::new();
        for (operations, torn) in (0..40).flat_map(|stop| [(stop, 0), (stop, 13), (stop, usize::MAX)]) {
            let Writer { mut disk, persisted, .. } = life(length, hasty, operations);
            disk.crash(torn);
            let what = format!("length {length}, {operations} operations, {torn} bytes torn");
            let recovered = recover(&mut disk).unwrap_or_else(|why| panic!("{what}: {why}"));
            let is_new = recovered.stored.snapshot_index == SNAPSHOT.0;
            assert!(is_new || persisted < 2, "{what}: the snapshot is lost");
            if is_new {
                let terms = terms(&recovered);
                assert!(terms.iter().all(|term| *term == 3), "{what}: void entries came back: {terms:?}");
                let least = [0, 0, 0, 2, 3][persisted as usize];
                assert!(terms.len() >= least, "{what}: {terms:?}");
                assert_eq!(recovered.stored.hard_state.term, 3, "{what}");
            } else {
                assert!(persisted < 1 || terms(&recovered).len() as u64 == length, "{what}");
            }
            *kinds.entry(is_new).or_insert(0) += 1;
            goes_on(disk, &recovered, &what);
        }
        assert_eq!(kinds.len(), 2, "both happen: {kinds:?}");
    }
}

/// What is written after the recovery stays, and what was there.
fn goes_on(disk: Disk, recovered: &Recovered, what: &str) {
    let next = recovered.stored.snapshot_index + recovered.stored.entries.len() as u64 + 1;
    let mut writer = Writer::new(disk, usize::MAX);
    writer.append(1, 4, 0, entries(next..=next, 4));
    writer.run();
    let mut disk = writer.disk;
    disk.crash(0);
    let again = recover(&mut disk).unwrap_or_else(|why| panic!("{what}, and on: {why}"));
    let mut expected = recovered.stored.entries.clone();
    expected.extend(entries(next..=next, 4));
    assert_eq!(again.stored.entries, expected, "{what}, and on");
    assert_eq!(again.stored.snapshot_index, recovered.stored.snapshot_index, "{what}");
}

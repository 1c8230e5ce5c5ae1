//! Random histories against a list of batches.

use proptest::prelude::*;

use super::super::memory_dir::Kind;
use super::*;
use crate::effect::FileError;

#[derive(Clone, Debug)]
enum Step {
    Gather { records: usize, value_bytes: usize, timestamp_ms: i64 },
    Run,
    Pass(u64),
    FailAppend,
    DeleteRecords(i64),
    Retain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gather = (1..4_usize, 0..900_usize, 0..500_i64)
        .prop_map(|(records, value_bytes, timestamp_ms)| Step::Gather { records, value_bytes, timestamp_ms });
    let step = prop_oneof![
        12 => gather,
        6 => Just(Step::Run),
        1 => (0..2000_u64).prop_map(Step::Pass),
        1 => Just(Step::Pass(61_000)),
        1 => Just(Step::FailAppend),
        1 => (0..60_i64).prop_map(Step::DeleteRecords),
        1 => Just(Step::Retain),
    ];
    prop::collection::vec(step, 1..80)
}

/// Base offset, offset after the last record, and the records' timestamp.
type ModelBatch = (i64, i64, i64);

fn check(driver: &mut Driver, written: &[ModelBatch]) {
    let (start, end) = (driver.log.log_start_offset(), driver.log.log_end());
    assert_eq!(end, written.last().map_or(end, |(_, end, _)| *end));
    for (base, batch_end, _) in written {
        for offset in *base..*batch_end {
            if offset < start {
                assert_eq!(driver.fetch(offset, 1), LookupStep::OutOfRange);
            } else {
                assert_eq!(driver.first_batch(offset).base_offset, *base);
            }
        }
    }
    assert_eq!(driver.fetch(end, 1), LookupStep::Found(Found::Empty));
    for timestamp_ms in [0, 100, 250, 499] {
        let record = |(base, end, ms): &ModelBatch| {
            (*ms >= timestamp_ms && *end > start).then_some((start.max(*base), *ms))
        };
        let expected = match written.iter().find_map(record) {
            Some((offset, timestamp_ms)) => Found::Offset { offset, timestamp_ms, leader_epoch: 3 },
            None => Found::None,
        };
        let step = driver.lookup(Query::Timestamp { timestamp_ms, end_offset: end });
        assert_eq!(step, LookupStep::Found(expected), "timestamp {timestamp_ms}");
    }
}

fn play(steps: Vec<Step>) {
    let config = TopicConfig { retention_bytes: 9000, retention_ms: -1, ..small() };
    let mut driver = Driver::new(config);
    let mut written: Vec<ModelBatch> = Vec::new();
    let mut gathered: Vec<ModelBatch> = Vec::new();
    for step in steps {
        match step {
            Step::Gather { records, value_bytes, timestamp_ms } => {
                let (base, end) = driver.gather(&batch(&vec![timestamp_ms; records], value_bytes));
                gathered.push((base, end, timestamp_ms));
            }
            Step::Run => {
                assert!(!driver.run().iter().any(|event| matches!(event, LogEvent::Dropped { .. })));
                written.append(&mut gathered);
            }
            Step::Pass(ms) => {
                driver.pass(ms);
                written.append(&mut gathered);
            }
            Step::FailAppend => {
                if gathered.is_empty() {
                    continue;
                }
                driver.dir.fail_next(Kind::Append, FileError::Short { written: 100 });
                driver.run();
                // What a roll separated from the failed append may have been written before it.
                let end = driver.log.written_end();
                written.extend(gathered.drain(..).filter(|(_, batch_end, _)| *batch_end <= end));
            }
            Step::DeleteRecords(offset) => {
                driver.log.delete_records(driver.now, offset);
            }
            Step::Retain => {
                if let Some(start) = driver.log.retention(driver.now, driver.log.written_end()) {
                    driver.log.delete_records(driver.now, start);
                }
            }
        }
        driver.log.check_invariants();
    }
    driver.run();
    written.append(&mut gathered);
    check(&mut driver, &written);
    driver.pass(100_000);
    check(&mut driver, &written);
    driver.log.begin_close(driver.now);
    driver.run();
    assert!(driver.log.is_closed() && !driver.log.is_unclean());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn any_history_reads_like_a_list_of_batches(steps in steps()) {
        play(steps);
    }
}

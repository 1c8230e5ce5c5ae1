//! Bytes from files: checkpoints, producer snapshots, metadata, and whole directories under recovery.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use tidemill::config::TopicConfig;
use tidemill::effect::{FileDone, FileError, FileOp, FileResult};
use tidemill::log::batch::BatchBuilder;
use tidemill::log::checkpoint::{
    CleanShutdown, MetaProperties, PartitionMetadata, encode_offsets, parse_offsets, parse_uuid,
};
use tidemill::log::producer::ProducerStates;
use tidemill::log::{Recovery, RecoveryPlan, RecoveryStep};

use crate::changed;

#[test]
fn checkpoints_are_read_or_refused_and_come_back() {
    let offsets = BTreeMap::from([(("orders".to_owned(), 3), 500_i64), (("a b".to_owned(), 0), 0)]);
    let text = encode_offsets(&offsets);
    changed("offsets", &[text.into_bytes()], |bytes| {
        if let Ok(read) = parse_offsets("recovery-point-offset-checkpoint", bytes) {
            let again = parse_offsets("recovery-point-offset-checkpoint", encode_offsets(&read).as_bytes());
            assert_eq!(again.unwrap(), read);
        }
    });
}

#[test]
fn small_files_are_read_or_refused() {
    let metadata = b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABw\n".to_vec();
    changed("partition.metadata", &[metadata], |bytes| {
        if let Ok(read) = PartitionMetadata::parse(bytes) {
            assert_eq!(PartitionMetadata::parse(read.encode().as_bytes()).unwrap(), read);
        }
    });
    let meta =
        b"version=1\ncluster.id=AAAAAAAAAAAAAAAAAAAABw\nnode.id=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAACA\n";
    changed("meta.properties", &[meta.to_vec()], |bytes| drop(MetaProperties::parse(bytes)));
    changed("clean shutdown", &[br#"{"version":0,"brokerEpoch":5}"#.to_vec()], |bytes| {
        let _ = CleanShutdown::parse(bytes);
    });
    changed("uuid", &[b"AAAAAAAAAAAAAAAAAAAABw".to_vec()], |bytes| {
        let _ = parse_uuid(&String::from_utf8_lossy(bytes));
    });
    changed("leader epochs", &[b"0\n2\n0 0\n3 500\n".to_vec()], |bytes| {
        if let Ok(read) = tidemill::log::EpochCache::parse(bytes) {
            assert_eq!(tidemill::log::EpochCache::parse(read.encode().as_bytes()).unwrap(), read);
        }
    });
}

#[test]
fn producer_snapshots_are_read_or_refused() {
    let mut states = ProducerStates::default();
    for id in 0..5 {
        let batch = BatchBuilder::new().producer(id, 1, 0).record(1_000, None, Some(b"v")).build();
        let info = tidemill::log::batch::BatchInfo::parse(&batch).unwrap();
        states.replay(&info);
    }
    changed("snapshot", &[states.snapshot().to_vec()], |bytes| {
        // The checksum hides what is behind it, unless it is made to hold.
        let _ = ProducerStates::from_snapshot(bytes);
        if bytes.len() > 6 {
            let mut sealed = bytes.to_vec();
            let sum = tidemill::log::batch::crc(&sealed[6..]);
            sealed[2..6].copy_from_slice(&sum.to_be_bytes());
            let _ = ProducerStates::from_snapshot(&sealed);
        }
    });
}

/// Most operations that a recovery of a few files may take.
const STEPS_MAX: usize = 10_000;

type Directory = BTreeMap<String, Vec<u8>>;

fn carry_out(dir: &mut Directory, op: &FileOp) -> FileResult {
    let held = |dir: &Directory, name: String| dir.get(&name).cloned().ok_or(FileError::NotFound);
    match op {
        FileOp::List => {
            let names = dir.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64));
            return Ok(FileDone::Listing(names.collect()));
        }
        FileOp::Read { file, position, length } => {
            let bytes = held(dir, file.to_string())?;
            let start = usize::try_from(*position).unwrap().min(bytes.len());
            let end = (start + *length as usize).min(bytes.len());
            return Ok(FileDone::Bytes(bytes[start..end].to_vec().into()));
        }
        FileOp::ModifiedAt { file } => {
            held(dir, file.to_string())?;
            return Ok(FileDone::ModifiedMs(1));
        }
        FileOp::Create { file, .. } => drop(dir.insert(file.to_string(), Vec::new())),
        FileOp::Write { file, position, bytes } => {
            let mut changed = held(dir, file.to_string())?;
            let start = usize::try_from(*position).unwrap();
            changed.resize(changed.len().max(start + bytes.len()), 0);
            changed[start..start + bytes.len()].copy_from_slice(bytes);
            dir.insert(file.to_string(), changed);
        }
        FileOp::Truncate { file, length } => {
            let mut changed = held(dir, file.to_string())?;
            changed.resize(usize::try_from(*length).unwrap(), 0);
            dir.insert(file.to_string(), changed);
        }
        FileOp::Rename { from, to } => {
            let bytes = held(dir, from.to_string())?;
            dir.remove(&from.to_string());
            dir.insert(to.to_string(), bytes);
        }
        FileOp::Delete { file } => drop(dir.remove(&file.to_string())),
        FileOp::Sync { file } => drop(held(dir, file.to_string())?),
        _ => {}
    }
    Ok(FileDone::Ok)
}

/// Two segments of a few batches each, with what lies beside them.
fn directory() -> Directory {
    let segment = |base: i64| -> Vec<u8> {
        let batch = |offset| {
            let builder =
                BatchBuilder::new().base_offset(offset).leader_epoch(0).producer(7, 0, offset as i32);
            builder.record(1_000, Some(b"k"), Some(b"value")).build()
        };
        (base..base + 5).flat_map(|offset| batch(offset).to_vec()).collect()
    };
    let name = |base: i64, kind: &str| format!("{base:020}.{kind}");
    Directory::from([
        (name(0, "log"), segment(0)),
        (name(5, "log"), segment(5)),
        (name(0, "index"), vec![0, 0, 0, 2, 0, 0, 0, 150]),
        (name(5, "index"), Vec::new()),
        (name(0, "timeindex"), vec![0, 0, 0, 0, 0, 0, 3, 0xe8, 0, 0, 0, 0]),
        (name(5, "timeindex"), Vec::new()),
        (name(5, "snapshot"), ProducerStates::default().snapshot().to_vec()),
        ("leader-epoch-checkpoint".to_owned(), b"0\n1\n0 0\n".to_vec()),
        ("partition.metadata".to_owned(), b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABw\n".to_vec()),
    ])
}

#[test]
fn damaged_directories_are_recovered_or_refused() {
    let mut rng = Rng::with_seed(8);
    for damaged in directory().keys() {
        changed(damaged, &[directory()[damaged].clone()], |bytes| {
            let mut dir = directory();
            dir.insert(damaged.clone(), bytes.to_vec());
            let plan = RecoveryPlan {
                topic_id: uuid::Uuid::from_u128(7),
                clean: rng.bool(),
                same_boot: rng.bool(),
                recovery_point: rng.i64(-1..12),
                log_start_offset: rng.i64(-1..12),
                config: Arc::new(TopicConfig::default()),
                wall_ms: 5_000,
            };
            let mut recovery = Recovery::new(plan);
            let mut last = None;
            for step in 0.. {
                assert!(step < STEPS_MAX, "the recovery does not end");
                match recovery.step(last.take()) {
                    RecoveryStep::Op(op) => last = Some(carry_out(&mut dir, &op)),
                    RecoveryStep::Done(_) | RecoveryStep::Empty { .. } | RecoveryStep::Failed(_) => break,
                }
            }
        });
    }
}

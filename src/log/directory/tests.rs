//! Starts of whole log directories held in memory.

use std::collections::BTreeMap;

use super::*;

type Dir = BTreeMap<String, Vec<u8>>;

fn carry_out(dir: &mut Dir, op: &FileOp) -> FileResult {
    match op {
        FileOp::List => {
            let names = dir.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64));
            return Ok(FileDone::Listing(names.collect()));
        }
        FileOp::Read { file, position, length } => {
            let bytes = dir.get(&file.to_string()).ok_or(FileError::NotFound)?;
            let start = (*position as usize).min(bytes.len());
            let end = (start + *length as usize).min(bytes.len());
            return Ok(FileDone::Bytes(Bytes::copy_from_slice(&bytes[start..end])));
        }
        FileOp::Create { file, .. } => {
            dir.insert(file.to_string(), Vec::new());
        }
        FileOp::Write { file, bytes, .. } => {
            dir.insert(file.to_string(), bytes.to_vec());
        }
        FileOp::Rename { from, to } => {
            let bytes = dir.remove(&from.to_string()).ok_or(FileError::NotFound)?;
            dir.insert(to.to_string(), bytes);
        }
        FileOp::Delete { file } => {
            dir.remove(&file.to_string());
        }
        FileOp::Sync { .. } | FileOp::SyncDir => {}
        other => panic!("a start has no use for {other:?}"),
    }
    Ok(FileDone::Ok)
}

fn run(dir: &mut Dir, plan: &DirectoryPlan, operations: usize) -> (Vec<FileOp>, Option<DirectoryStep>) {
    let mut start = DirectoryStart::new(plan.clone());
    let (mut done, mut last) = (Vec::new(), None);
    for _ in 0..=operations {
        match start.step(last.take()) {
            DirectoryStep::Op(op) => {
                last = Some(carry_out(dir, &op));
                done.push(op);
            }
            end => return (done, Some(end)),
        }
    }
    (done, None)
}

fn open(dir: &mut Dir, plan: &DirectoryPlan) -> Result<DirectoryState, DirectoryError> {
    match run(dir, plan, 1000).1.unwrap() {
        DirectoryStep::Done(state) => Ok(*state),
        DirectoryStep::Failed(error) => Err(error),
        DirectoryStep::Op(op) => panic!("{op:?}"),
    }
}

fn plan() -> DirectoryPlan {
    DirectoryPlan {
        cluster_id: "5L6g3nShT-eMCtK--X86sw".into(),
        node_id: 1,
        directory_id: Uuid::from_u128(77),
        boot_id: "boot-a".into(),
        format: true,
    }
}

fn put(dir: &mut Dir, (file, bytes): (FileName, Bytes)) {
    dir.insert(file.to_string(), bytes.to_vec());
}

#[test]
fn an_empty_directory_becomes_ours_after_a_crash_at_any_operation() {
    let empty = Dir::from([(".lock".to_owned(), vec![])]);
    for operations in 0..20 {
        let mut dir = empty.clone();
        run(&mut dir, &plan(), operations);
        let state = open(&mut dir, &plan()).unwrap();
        assert_eq!(state.directory_id, Uuid::from_u128(77));
        assert_eq!((state.clean_shutdown, state.same_boot, state.kept_epoch), (false, false, -1));
        assert_eq!(dir.keys().collect::<Vec<_>>(), [".lock", META_PROPERTIES]);
    }
    let strict = DirectoryPlan { format: false, ..plan() };
    assert_eq!(open(&mut empty.clone(), &strict), Err(DirectoryError::NotFormatted));
}

#[test]
fn a_directory_that_is_not_ours_is_refused_and_not_touched() {
    let mut ours = Dir::new();
    open(&mut ours, &plan()).unwrap();
    let before = ours.clone();
    let cluster = DirectoryPlan { cluster_id: "other".into(), ..plan() };
    assert!(matches!(open(&mut ours, &cluster), Err(DirectoryError::OtherCluster { .. })));
    let node = DirectoryPlan { node_id: 2, ..plan() };
    assert_eq!(open(&mut ours, &node), Err(DirectoryError::OtherNode { found: 1, expected: 2 }));
    assert_eq!(ours, before);
    let mut half = Dir::from([("a-0".to_owned(), vec![])]);
    assert_eq!(open(&mut half, &plan()), Err(DirectoryError::Foreign { found: "a-0".into() }));
    let mut half = Dir::from([(LOG_STARTS.to_owned(), vec![])]);
    assert_eq!(open(&mut half, &plan()), Err(DirectoryError::Foreign { found: LOG_STARTS.into() }));
    for text in ["", "version=1\n", "version=2\ncluster.id=a\nnode.id=1\n", "\0\0\0\0"] {
        let mut malformed = Dir::from([(META_PROPERTIES.to_owned(), text.into())]);
        assert!(matches!(open(&mut malformed, &plan()), Err(DirectoryError::Malformed(_))), "{text:?}");
    }
    ours.insert(KAFKA_METADATA.into(), vec![]);
    assert_eq!(open(&mut ours, &plan()), Err(DirectoryError::OfKafka));
}

#[test]
fn a_directory_is_judged_before_anything_in_it_changes() {
    for marked in [false, true] {
        let mut dir = Dir::new();
        if marked {
            open(&mut dir, &plan()).unwrap();
            put(&mut dir, clean_shutdown_file(1));
        }
        let mut start = DirectoryStart::new(plan());
        let mut last = None;
        while let DirectoryStep::Op(op) = start.step(last.take()) {
            let reads = matches!(op, FileOp::List | FileOp::Read { .. });
            assert_eq!(start.judged().is_none(), reads, "{op:?}");
            last = Some(carry_out(&mut dir, &op));
        }
    }
}

#[test]
fn the_clean_marker_counts_once_and_is_durably_gone_before_the_logs_open() {
    let mut dir = Dir::new();
    open(&mut dir, &plan()).unwrap();
    put(&mut dir, clean_shutdown_file(42));
    let (operations, end) = run(&mut dir, &plan(), 1000);
    let Some(DirectoryStep::Done(state)) = end else { panic!("{end:?}") };
    assert!(state.clean_shutdown);
    assert_eq!(state.kept_epoch, 42);
    let marker = FileOp::Delete { file: Stem::Named(CLEAN_SHUTDOWN).into() };
    assert_eq!(operations[operations.len() - 2..], [marker, FileOp::SyncDir]);
    let again = open(&mut dir, &plan()).unwrap();
    assert_eq!((again.clean_shutdown, again.kept_epoch), (false, -1));
    // The start before may have died between the two.
    assert_eq!(run(&mut dir, &plan(), 1000).0.last(), Some(&FileOp::SyncDir));
}

#[test]
fn the_boot_is_the_same_only_after_the_boot_id_was_written_in_it() {
    let mut dir = Dir::new();
    assert!(!open(&mut dir, &plan()).unwrap().same_boot);
    assert!(!open(&mut dir, &plan()).unwrap().same_boot);
    put(&mut dir, boot_id_file("boot-a", 5));
    assert!(open(&mut dir, &plan()).unwrap().same_boot);
    let later = DirectoryPlan { boot_id: "boot-b".into(), ..plan() };
    assert!(!open(&mut dir, &later).unwrap().same_boot);
    dir.insert(BOOT_ID.into(), vec![]);
    assert!(!open(&mut dir, &DirectoryPlan { boot_id: String::new(), ..plan() }).unwrap().same_boot);
}

#[test]
fn the_death_of_a_process_loses_nothing_and_that_of_the_kernel_may() {
    let mut dir = Dir::new();
    open(&mut dir, &plan()).unwrap();
    let later = DirectoryPlan { boot_id: "boot-b".into(), ..plan() };
    let kept = |dir: &Dir, plan: &DirectoryPlan| open(&mut dir.clone(), plan).unwrap().kept_epoch;
    put(&mut dir, boot_id_file("boot-a", 5));
    assert_eq!((kept(&dir, &plan()), kept(&dir, &later)), (5, -1));
    put(&mut dir, clean_shutdown_file(6));
    assert_eq!((kept(&dir, &plan()), kept(&dir, &later)), (6, 6), "a clean stop goes before");
    for before in ["boot-a\n", "boot-a\nfive\n", ""] {
        let old = Dir::from([
            (META_PROPERTIES.to_owned(), dir[META_PROPERTIES].clone()),
            (BOOT_ID.to_owned(), before.into()),
        ]);
        assert_eq!(kept(&old, &plan()), -1, "{before:?}");
    }
}

#[test]
fn a_broker_has_what_it_had_where_all_its_directories_say_so() {
    let of = |epochs: &[i64], missing: bool| {
        let state = open(&mut Dir::new(), &plan()).unwrap();
        let states: Vec<_> =
            epochs.iter().map(|epoch| DirectoryState { kept_epoch: *epoch, ..state.clone() }).collect();
        kept_epoch(states.iter().map(Some).chain(missing.then_some(None)))
    };
    for (epochs, kept) in
        [(&[][..], -1), (&[7], 7), (&[7, 7], 7), (&[7, 6], -1), (&[-1, 7], -1), (&[7, -1], -1)]
    {
        assert_eq!((of(epochs, false), of(epochs, true)), (kept, -1), "{epochs:?}");
    }
}

#[test]
fn checkpoints_come_back_and_an_unreadable_one_counts_as_empty() {
    let mut dir = Dir::new();
    open(&mut dir, &plan()).unwrap();
    let offsets = Offsets::from([(("a".to_owned(), 0), 7)]);
    put(&mut dir, offsets_file(LOG_STARTS, &offsets));
    dir.insert(RECOVERY_POINTS.into(), b"0\n2\na 0 1\n".to_vec());
    dir.insert("a-0".into(), vec![]);
    dir.insert("b-1.0123456789abcdef0123456789abcdef-delete".into(), vec![]);
    let state = open(&mut dir, &plan()).unwrap();
    assert_eq!((state.log_starts, state.recovery_points), (offsets, Offsets::new()));
    assert_eq!(state.unreadable.len(), 1);
    let entries: Vec<LogDirEntry> = state.entries.into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(entries, [LogDirEntry::Log { topic: "a".into(), partition: 0 }, LogDirEntry::Deleted]);
}

#[test]
fn directory_names_are_kafkas() {
    let log = |topic: &str, partition| LogDirEntry::Log { topic: topic.to_owned(), partition };
    assert_eq!(parse_directory_name("a-0"), log("a", 0));
    assert_eq!(parse_directory_name("__consumer_offsets-49"), log("__consumer_offsets", 49));
    assert_eq!(parse_directory_name("a-b.c-7"), log("a-b.c", 7));
    assert_eq!(parse_directory_name("a-0.0123456789abcdef0123456789abcdef-stray"), LogDirEntry::Stray);
    assert_eq!(parse_directory_name("a-0.0123456789abcdef0123456789abcdef-future"), LogDirEntry::Future);
    let long = "x".repeat(250);
    for name in [
        "a",
        "a-",
        "-0",
        "a-01",
        "a-+1",
        "a--1-x",
        "..-0",
        "a b-0",
        "a-99999999999",
        &format!("{long}-0"),
        "a-0.12-delete",
    ] {
        assert_eq!(parse_directory_name(name), LogDirEntry::Other, "{name}");
    }
}

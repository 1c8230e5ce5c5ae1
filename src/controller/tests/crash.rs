//! Crashes at every operation of the log; damage; repeated seeds.

use super::*;

/// A life of the cluster, for so many operations: creations with snapshots in between, producer ids.
fn story(node: &mut Node, mut operations: usize) {
    node.ask(1, registration(0, 7));
    for token in 2..16 {
        node.ask(token, create(vec![new_topic(&format!("topic-{token}"), 3, 1)]));
        let now = operations.min(3);
        node.run(now);
        operations -= now;
    }
    node.ask(16, ControllerRequest::AllocateProducerIds);
    node.run(operations);
}

#[test]
fn acknowledged_topics_survive_a_crash_at_every_operation_and_no_topic_is_half_there() {
    let mut whole = Node::start(Disk::default(), 5);
    story(&mut whole, 10_000);
    assert_eq!(whole.answers.len(), 16, "{:?}", whole.answers);
    assert!(whole.disk.files.keys().any(|name| name.starts_with("raft-snapshot-")));
    let operations = whole.disk.operations;
    for (stop, torn) in (0..operations).flat_map(|stop| [(stop, 0), (stop, 13), (stop, usize::MAX)]) {
        let mut disk = Disk::default();
        let Some(answered) = live_until(&mut disk, stop) else { continue };
        disk.crash(torn);
        let again = {
            let mut node = Node::start(disk, 6);
            node.run(1000);
            node
        };
        for token in answered.iter().filter(|token| (2..16).contains(*token)) {
            assert!(again.image.topic(&format!("topic-{token}")).is_some(), "topic-{token} lost at {stop}");
        }
        if answered.contains(&16) {
            assert_eq!(again.image.producer_id_next(), 1000);
        }
        assert!(again.image.topics().all(|topic| topic.partitions.len() == 3), "half a topic at {stop}");
    }
}

#[test]
fn many_changes_at_any_moment_of_a_snapshot_leave_one_that_is_whole() {
    let creates = |node: &mut Node, tokens: std::ops::Range<u64>| {
        tokens.for_each(|token| node.ask(token, create(vec![new_topic(&format!("topic-{token}"), 1, 1)])));
    };
    for before in 0..40 {
        let mut node = Node::start(Disk::default(), 5);
        node.ask(1, registration(0, 7));
        creates(&mut node, 2..6);
        node.run(before);
        creates(&mut node, 6..14);
        node.run(10_000);
        assert_eq!(node.answers.len(), 13, "after {before} operations");
        let again = recover(&mut node.disk).unwrap_or_else(|why| panic!("after {before} operations: {why}"));
        assert!(again.stored.snapshot_index > 0, "after {before} operations");
    }
}

#[test]
fn what_a_start_has_found_is_there_after_a_power_cut() {
    let mut whole = Node::start(Disk::default(), 5);
    story(&mut whole, 10_000);
    for stop in 0..whole.disk.operations {
        let mut disk = Disk::default();
        if live_until(&mut disk, stop).is_none() {
            continue;
        }
        // The process died, and its writes are in the page cache only.
        let found = recover(&mut disk).unwrap();
        disk.crash(0);
        let again = recover(&mut disk).unwrap_or_else(|why| panic!("stopped at {stop}: {why}"));
        assert_eq!(again.stored, found.stored, "stopped at {stop}");
    }
}

#[test]
fn a_full_device_delays_metadata_and_loses_none() {
    let mut whole = Node::start(Disk::default(), 5);
    story(&mut whole, 10_000);
    for at in 0..whole.disk.operations {
        let mut node = Node::start(Disk::default(), 5);
        (node.full, node.full_from) = (3, at);
        story(&mut node, 10_000);
        assert_eq!(node.answers.len(), 16, "full at {at}: {:?}", node.answers);
        let said = node.trace.iter().filter(|output| output.as_str() == "Full").count();
        assert!(said <= 1, "said once, not {said} times");
        let mut again = Node::start(node.disk, 6);
        again.run(1000);
        assert_eq!(again.image.topics().count(), 14, "full at {at}");
    }
}

/// Lives the story for that many operations of the running controller; gives the tokens answered.
fn live_until(disk: &mut Disk, stop: usize) -> Option<Vec<u64>> {
    let mut node = Node::start(std::mem::take(disk), 5);
    let left = stop.checked_sub(node.disk.operations)?;
    story(&mut node, left);
    *disk = node.disk;
    Some(node.answers.iter().map(|(token, _)| *token).collect())
}

#[test]
fn damage_before_the_end_of_the_log_is_refused_and_a_torn_end_is_cut() {
    let mut node = Node::start(Disk::default(), 5);
    node.register(0);
    node.call(create(vec![new_topic("a", 1, 1)]));
    let name = node.disk.files.keys().find(|name| name.starts_with("raft-log-")).unwrap().clone();
    let mut torn = node.disk.clone();
    torn.files.get_mut(&name).unwrap().extend_from_slice(&[0, 0, 0, 90, 1, 2, 3]);
    assert!(recover(&mut torn).is_ok());
    assert_eq!(torn.files[&name], node.disk.files[&name]);
    let mut damaged = node.disk.clone();
    damaged.files.get_mut(&name).unwrap()[12] ^= 1;
    let why = recover(&mut damaged).unwrap_err();
    assert!(why.contains("is damaged at byte 0, and a whole entry follows"), "{why}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut node = Node::start(Disk::default(), seed);
        story(&mut node, 10_000);
        node.trace
    };
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6), "topic ids come from the seed");
}

#[test]
fn a_failed_write_stops_the_node() {
    let mut node = Node::start(Disk::default(), 5);
    let (ticket, _) = node.pending.pop_front().unwrap();
    let mut out = Vec::new();
    let result = Err(FileError::Io(5));
    node.controller.step(NOW, Input::Completed { ticket, result }, &mut out);
    assert!(matches!(out.as_slice(), [Output::Fatal(why)] if why.contains("errno 5")));
    node.controller.step(NOW, Input::Tick, &mut out);
    assert_eq!(out.len(), 1, "nothing follows");
}

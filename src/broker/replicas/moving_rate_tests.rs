//! The limited rate of copies between log directories.

use super::*;

#[test]
fn a_limited_rate_holds_the_copy_back() {
    let mut stage = Stage::filled(60);
    let limits = ReplicationLimits { moves_bytes_per_s: 2_000, ..ReplicationLimits::default() };
    stage.replicas.moves.limit(limits, Some(1));
    let began_ms = stage.now.mono_ms;
    stage.call(Op::Move { directory: 1 });
    stage.settle();
    assert_eq!(stage.directory(), 0);
    while stage.directory() == 0 {
        let future = *stage.replicas.moves.by_replica.values().next().unwrap();
        let wake_ms = stage.replicas.slots[future as usize].wake_at_ms.expect("it waits for its time");
        assert!(wake_ms > stage.now.mono_ms);
        stage.pass(wake_ms - stage.now.mono_ms);
    }
    let bytes = stage.content().0.len() as u64;
    let took_ms = stage.now.mono_ms - began_ms;
    assert!(took_ms + 2_000 >= bytes / 2, "{bytes} bytes in {took_ms} ms");
}

#[test]
fn a_rate_that_is_raised_counts_at_once() {
    let mut stage = Stage::filled(60);
    let slow = ReplicationLimits { moves_bytes_per_s: 1, ..ReplicationLimits::default() };
    stage.replicas.limit_moves(stage.now, slow);
    stage.call(Op::Move { directory: 1 });
    stage.settle();
    assert_eq!(stage.directory(), 0);
    stage.replicas.limit_moves(stage.now, ReplicationLimits::default());
    stage.take();
    stage.settle();
    assert_eq!(stage.directory(), 1, "no time has passed");
}

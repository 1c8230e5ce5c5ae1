//! Random histories of one log on a disk that forgets: appends as a leader and as a follower, truncations, restarts
//! at an offset, rolls, retention, full devices, crashes and power cuts, also inside recoveries and truncations.
//!
//! After each of these the log is compared with a list of batches: what was durable is there, nothing that was
//! truncated came back, and files, look-ups, leader epochs and producers agree. `CRASH_CASES` says how many
//! histories are played (300 without it), `CRASH_FIRST` which seed is the first of them (0 without it), `CRASH_SEED`
//! plays a single one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

#[allow(dead_code)]
#[path = "../sim/disk.rs"]
mod disk;
mod model;
mod moving;
mod world;

use world::World;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Plays one history; the seed is said if it fails.
fn play(seed: u64) -> world::Tally {
    let said = SaidOnPanic(seed);
    let mut world = World::new(seed);
    for _ in 0..world.steps {
        world.step();
    }
    let tally = world.end();
    std::mem::forget(said);
    tally
}

struct SaidOnPanic(u64);

impl Drop for SaidOnPanic {
    fn drop(&mut self) {
        eprintln!("this was CRASH_SEED={}", self.0);
    }
}

#[test]
fn nothing_durable_is_lost_and_nothing_truncated_comes_back() {
    if let Some(seed) = number("CRASH_SEED") {
        play(seed);
        return;
    }
    let cases = number("CRASH_CASES").unwrap_or(300);
    let mut all = world::Tally::default();
    let first = number("CRASH_FIRST").unwrap_or(0);
    for seed in first..first + cases {
        all.add(&play(seed));
    }
    println!("{all:?}");
    if cases >= 300 {
        assert!(all.truncated > 300 && all.restarted > 100, "truncations end: {all:?}");
        assert!(all.cut_while_truncating > 100, "power cuts meet truncations: {all:?}");
        assert!(all.cut_while_recovering > 100, "power cuts meet recoveries: {all:?}");
        assert!(all.starts_lowered > 50, "logs begin below the start in the checkpoint: {all:?}");
        assert!(all.marks_kept > 20, "recovery points become too high: {all:?}");
    }
}

#[test]
fn a_log_that_moves_is_there_once_and_whole_whenever_it_dies() {
    if let Some(seed) = number("CRASH_SEED") {
        moving::play(seed);
        return;
    }
    let cases = number("CRASH_CASES").unwrap_or(300);
    let (mut moved, mut died, mut twins) = (0, 0, 0);
    let first = number("CRASH_FIRST").unwrap_or(0);
    for seed in first..first + cases {
        let said = SaidOnPanic(seed);
        let tally = moving::play(seed);
        std::mem::forget(said);
        (moved, died, twins) = (moved + tally.moved, died + tally.died, twins + tally.twins);
    }
    println!("{moved} moves, {died} deaths, {twins} starts with two of it");
    if cases >= 300 {
        assert!(moved > 300 && died > 1_000 && twins > 20, "{moved} {died} {twins}");
    }
}

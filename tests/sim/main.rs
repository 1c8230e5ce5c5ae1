//! The broker on a simulated disk, clock and network, from one seed (`docs/TESTING.md`).
//!
//! One thread runs one broker of 1–4 shards and its clients in virtual time. The same seed gives the same run, event by
//! event; a failure prints how to repeat it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod admin;
mod auditor;
mod boot;
mod client;
mod commits;
mod consumer;
mod consumer_member;
mod disk;
mod eraser;
mod faults;
mod group_auditor;
mod history;
mod hostile;
mod member;
mod node;
mod operations;
mod plan;
mod producer;
mod starts;
mod trace;
mod tuner;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use plan::Plan;
use world::World;

/// Seeds of a run of the test command.
const SEEDS: u64 = 200;
/// Lines of the trace that a failure prints, unless `SIM_TAIL` says otherwise.
const TAIL_LINES: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {value}")))
}

/// Failed checks are told with their seed; a backtrace of each is wanted for a single seed only.
fn quiet() {
    if number("SIM_SEED").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// Runs a seed: the hash of its trace and a line about it, or what was violated.
fn run(seed: u64, with_words: bool) -> Result<(u64, String), (String, Box<World>)> {
    let mut world = Box::new(World::new(Plan::of(seed), with_words));
    match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(()) => Ok((world.trace.hash(), world.summary())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err((text.unwrap_or_default(), world))
        }
    }
}

/// The seeds that the environment asks for.
fn seeds() -> Vec<u64> {
    match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = number("SIM_FIRST").unwrap_or(1);
            (first..first + number("SIM_SEEDS").unwrap_or(SEEDS)).collect()
        }
    }
}

/// Tells a failure: what was violated, the run's last events, its parameters and how to repeat it.
fn report(seed: u64, violated: &str) -> String {
    let again = run(seed, true);
    let tail = match &again {
        Err((_, world)) => world.trace.tail(number("SIM_TAIL").unwrap_or(TAIL_LINES) as usize).join("\n"),
        Ok(_) => "the repeated run passed: the simulator is not deterministic".into(),
    };
    format!(
        "{tail}\n\nseed {seed}: {violated}\n{:#?}\nrepeat with: SIM_SEED={seed} cargo test --release --test sim seeds\n",
        Plan::of(seed)
    )
}

#[test]
fn seeds_run_clean() {
    quiet();
    let mut failed = Vec::new();
    for seed in seeds() {
        match run(seed, false) {
            Ok((hash, summary)) => println!("seed {seed}: {hash:016x}, {summary}"),
            Err((violated, _)) => {
                println!("seed {seed}: {violated}");
                failed.push((seed, violated));
            }
        }
    }
    if let Some((seed, violated)) = failed.first() {
        println!("{}", report(*seed, violated));
        panic!(
            "{} seeds failed: {:?}",
            failed.len(),
            failed.iter().map(|(seed, _)| *seed).collect::<Vec<_>>()
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 14, 159] {
        let hash = |result: Result<(u64, String), (String, Box<World>)>| match result {
            Ok((hash, _)) => hash,
            Err((_, world)) => world.trace.hash(),
        };
        assert_eq!(hash(run(seed, false)), hash(run(seed, true)), "seed {seed}");
    }
}

/// Each planted bug is found, and the seeds that find it are told.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_found() {
    use tidemill::planted::{Bug, plant};

    quiet();
    let bugs = [
        Bug::ReplyBeforeWrite,
        Bug::StateAfterFailedAppend,
        Bug::TornBatch,
        Bug::OutlivingCheckpoint,
        Bug::ReservedHighWatermark,
        Bug::ForgottenProducers,
        Bug::CommitBeforeWrite,
        Bug::LogStartBeforeCheckpoint,
        Bug::RetentionByFirstRecord,
    ];
    for bug in bugs {
        plant(Some(bug));
        let found = (1..=SEEDS).find_map(|seed| run(seed, false).err().map(|(violated, _)| (seed, violated)));
        plant(None);
        let Some((seed, violated)) = found else {
            println!("{bug:?} is not found in {SEEDS} seeds");
            panic!("{bug:?} is not found in {SEEDS} seeds");
        };
        println!("{bug:?} is found by seed {seed}: {violated}");
    }
}

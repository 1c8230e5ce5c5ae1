//! The broker on a simulated disk, clock and network, from one seed (`docs/TESTING.md`).
//!
//! One thread runs machines with a broker of 1–4 shards each, the network between them, and clients, in virtual time.
//! The same seed gives the same run, event by event; a failure prints how to repeat it, and a smaller run that fails.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod admin;
mod auditor;
mod boot;
mod client;
mod commits;
mod connections;
mod consumer;
mod consumer_member;
mod decisions;
mod disk;
mod eraser;
mod faults;
mod group_auditor;
mod history;
mod hostile;
mod images;
mod invariants;
mod leftovers;
mod linked;
mod links;
mod losses;
mod machine;
mod member;
mod membership;
mod network;
mod node;
mod operations;
mod plan;
#[cfg(feature = "planted-bugs")]
mod planted;
mod probe;
mod producer;
mod promises;
mod seats;
mod shrink;
mod starts;
mod trace;
mod tuner;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use faults::{Fault, Hits};
use plan::Plan;
use shrink::{Failure, Settings};
use world::World;

/// Seeds of a run of the test command.
const SEEDS: u64 = 200;
/// Seeds on several machines.
const MACHINE_SEEDS: u64 = 24;
/// Seeds on machines that are one cluster.
const LINKED_SEEDS: u64 = 100;
/// Lines of the trace that a failure prints, unless `SIM_TAIL` says otherwise.
const TAIL_LINES: u64 = 300;
/// Runs that a failed seed is made smaller with, unless `SIM_SHRINK` says otherwise.
const SHRINK_RUNS: u64 = 120;

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

/// A run that came to its end.
struct Done {
    hash: u64,
    summary: String,
    hits: Hits,
}

/// A run that violated something, and the world at that moment.
struct Failed {
    violated: String,
    world: Box<World>,
}

fn run(plan: Plan, with_words: bool) -> Result<Done, Failed> {
    let mut world = Box::new(World::new(plan, with_words));
    match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(()) => Ok(Done { hash: world.trace.hash(), summary: world.summary(), hits: world.hits.clone() }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(Failed { violated: text.unwrap_or_default(), world })
        }
    }
}

/// The machines of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cast {
    /// So many, each a cluster of its own.
    Strangers(u64),
    /// So many that are one cluster.
    Linked(u64),
}

impl Cast {
    /// What a seed is made of on them.
    fn plan(self, seed: u64) -> Plan {
        match self {
            Self::Strangers(machines) => Plan::of(seed).on_machines(machines as usize),
            Self::Linked(machines) => Plan::of(seed).linked_on(machines as usize),
        }
    }

    /// What the environment has to say to get them.
    fn told(self) -> String {
        match self {
            Self::Strangers(1) => String::new(),
            Self::Strangers(machines) => format!("SIM_MACHINES={machines} "),
            Self::Linked(machines) => format!("SIM_LINKED={machines} "),
        }
    }

    /// What the environment asks for.
    fn asked() -> Self {
        match (number("SIM_LINKED"), number("SIM_MACHINES")) {
            (Some(machines), _) => Self::Linked(machines),
            (None, machines) => Self::Strangers(machines.unwrap_or(1)),
        }
    }
}

/// What a seed is made of, with what the environment sets otherwise.
fn plan_of(seed: u64, cast: Cast) -> Plan {
    let plan = cast.plan(seed);
    let settings = std::env::var("SIM_SET").unwrap_or_default();
    Settings::parse(&settings).apply(&plan)
}

/// The seeds that the environment asks for.
fn seeds(count: u64) -> Vec<u64> {
    match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = number("SIM_FIRST").unwrap_or(1);
            (first..first + number("SIM_SEEDS").unwrap_or(count)).collect()
        }
    }
}

/// What tells one kind of violation from another: the first words without figures.
fn anomaly(violated: &str) -> String {
    let words = violated.lines().next().unwrap_or_default().split_whitespace();
    let words: Vec<&str> =
        words.filter(|word| !word.contains(|c: char| c.is_ascii_digit())).take(6).collect();
    words.join(" ")
}

/// The smallest settings with which a plan fails in the same way.
fn shrunk(plan: &Plan, failed: &Failed, runs: u64) -> Settings {
    let failure = |world: &World| Failure { at_ms: world.now_us / 1000, faults: world.faults_made };
    shrink::smallest(plan, failure(&failed.world), runs as u32, |plan| {
        let again = run(plan.clone(), false).err()?;
        (anomaly(&again.violated) == anomaly(&failed.violated)).then(|| failure(&again.world))
    })
}

/// Tells a failure: what was violated, the run's last events, its parameters, how to repeat it, and a smaller run.
fn report(seed: u64, cast: Cast, violated: &str) -> String {
    let plan = plan_of(seed, cast);
    let again = run(plan.clone(), true);
    let tail = match &again {
        Err(failed) => failed.world.trace.tail(number("SIM_TAIL").unwrap_or(TAIL_LINES) as usize).join("\n"),
        Ok(_) => "the repeated run passed: the simulator is not deterministic".into(),
    };
    let place = cast.told();
    let command = "cargo test --release --test sim seeds -- --nocapture";
    let mut told = format!(
        "{tail}\n\nseed {seed}: {violated}\n{plan:#?}\nrepeat with: {place}SIM_SEED={seed} {command}\n"
    );
    let runs = number("SIM_SHRINK").unwrap_or(SHRINK_RUNS);
    if let Err(failed) = again
        && runs > 0
        && std::env::var("SIM_SET").is_err()
    {
        let settings = shrunk(&plan, &failed, runs);
        told += &format!("smaller: {place}SIM_SEED={seed} SIM_SET=\"{settings}\" {command}\n");
    }
    told
}

/// Runs seeds to their ends; the faults that hit something in them. Tells the first failure and fails with all. As many
/// threads as `SIM_THREADS` says share the seeds: a run knows nothing of the others.
fn run_clean(seeds: &[u64], cast: impl Fn(u64) -> Cast + Sync) -> Hits {
    quiet();
    let (next, sum) = (AtomicUsize::new(0), Mutex::new((Hits::default(), BTreeMap::new())));
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = run(plan_of(*seed, cast(*seed)), false);
            let mut sum = sum.lock().unwrap();
            match done {
                Ok(done) => {
                    println!("seed {seed}: {:016x}, {}", done.hash, done.summary);
                    sum.0.add(&done.hits);
                }
                Err(why) => {
                    println!("seed {seed}: {}", why.violated);
                    sum.1.insert(*seed, why.violated);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        (1..number("SIM_THREADS").unwrap_or(1)).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    let (hits, failed) = sum.into_inner().unwrap();
    println!("faults that hit: {hits}");
    if let Some((seed, violated)) = failed.first_key_value() {
        println!("{}", report(*seed, cast(*seed), violated));
        panic!("{} seeds failed: {:?}", failed.len(), failed.keys().collect::<Vec<_>>());
    }
    hits
}

#[test]
fn seeds_run_clean() {
    run_clean(&seeds(SEEDS), |_| Cast::asked());
}

/// Several machines with the network's faults between them and their clients. Every fault has to hit something.
#[test]
fn several_machines_run_clean() {
    let count = number("SIM_MACHINE_SEEDS").unwrap_or(MACHINE_SEEDS);
    let hits = run_clean(&(1..=count).collect::<Vec<u64>>(), |seed| Cast::Strangers(2 + seed % 3));
    if count >= MACHINE_SEEDS {
        every_one_hit(&hits, Fault::OF_STRANGERS.into_iter());
    }
}

fn every_one_hit(hits: &Hits, faults: impl Iterator<Item = Fault>) {
    let missing: Vec<Fault> = faults.filter(|fault| hits.of(*fault) == 0).collect();
    assert!(missing.is_empty(), "faults that never hit anything: {missing:?}");
}

/// Machines that are one cluster. Every fault has to hit something.
#[test]
fn linked_machines_run_clean() {
    let count = number("SIM_LINKED_SEEDS").unwrap_or(LINKED_SEEDS);
    let hits = run_clean(&(1..=count).collect::<Vec<u64>>(), |seed| Cast::Linked(3 + seed % 3));
    if count >= LINKED_SEEDS {
        every_one_hit(&hits, Fault::OF_STRANGERS.into_iter().chain(Fault::OF_LINKED));
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let hash = |result: Result<Done, Failed>| match result {
        Ok(done) => done.hash,
        Err(failed) => failed.world.trace.hash(),
    };
    let casts = [(3, 1), (14, 1), (159, 1), (3, 3), (14, 4), (15, 2)];
    let casts = casts.map(|(seed, machines)| (seed, Cast::Strangers(machines)));
    for (seed, cast) in casts.into_iter().chain([(4, Cast::Linked(3)), (14, Cast::Linked(5))]) {
        let plan = || cast.plan(seed);
        assert_eq!(hash(run(plan(), false)), hash(run(plan(), true)), "seed {seed} on {cast:?}");
    }
}

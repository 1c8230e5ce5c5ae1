//! Each planted bug is found, and the seeds that find it are told (`src/planted.rs`).
//!
//! `SIM_BUGS=3` looks for three of them, others on other days: `SIM_BUGS_FROM` says with which one it begins. The test
//! command looks for three of clusters, others with each commit, and begins with the seed that found each before.
//! `SIM_BUG_SEEDS=300` looks through so many from the first one on.

use tidemill::planted::{Bug, plant};

use crate::{Cast, SEEDS, anomaly, number, quiet, run, shrunk};

/// Seeds in which a bug of a cluster is looked for, at most.
const LINKED_SEEDS: u64 = 2_000;

/// Bugs of a cluster that the test command looks for.
const CLUSTER_BUGS: usize = 3;

/// Runs that a find is made smaller with, unless `SIM_SHRINK` says otherwise.
const SHRINK_RUNS: u64 = 25;

/// Bugs of one broker.
const OF_ONE: [Bug; 9] = [
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

/// Bugs that only brokers have which are one cluster, each with the first seed that found it.
const OF_CLUSTERS: [(Bug, u64); 24] = [
    (Bug::WatermarkOfLeaderAlone, 1),
    (Bug::WatermarkOfKnownIsr, 46),
    (Bug::JoinsBeforeEpochStart, 1),
    (Bug::EndBeforeWatermark, 33),
    (Bug::ReadsUncommitted, 1),
    (Bug::EpochUnchecked, 13),
    (Bug::CutAtWatermark, 1),
    (Bug::DivergenceUntold, 1),
    (Bug::UnwrittenCountsAsHeld, 1),
    (Bug::WatermarkBeyondLog, 1),
    (Bug::FollowersProducersForgotten, 1),
    (Bug::OldBatchesForgotten, 33),
    (Bug::FollowersEpochsForgotten, 1),
    (Bug::AnyReplicaLeads, 3),
    (Bug::LeadsUnregistered, 1),
    (Bug::EpochOutlivesLeader, 1),
    (Bug::EligibleAfterLoss, 115),
    (Bug::IsrChangedBlindly, 19),
    (Bug::WatermarkOfTooFew, 1),
    (Bug::PromisedBeforePersisted, 14),
    (Bug::AnsweredBeforeCommit, 61),
    (Bug::ProducerIdsTwice, 1),
    (Bug::ReplicaOutlivesTopic, 3),
    (Bug::CutAtLeadersWord, 144),
];

/// The machines of a seed in which bugs of clusters are looked for.
fn linked(seed: u64) -> Cast {
    Cast::Linked(3 + seed % 3)
}

/// Looks for a bug in these seeds until one of them fails; which one, and how. A smaller run is made of it in so many.
fn find(bug: Bug, seeds: impl Iterator<Item = u64>, cast: fn(u64) -> Cast, runs: u64) -> bool {
    plant(Some(bug));
    let mut count = 0;
    let found = seeds.inspect(|_| count += 1).find_map(|seed| {
        let failed = run(cast(seed).plan(seed), false).err()?;
        plant(None);
        let is_its = run(cast(seed).plan(seed), false).is_ok();
        plant(Some(bug));
        if !is_its {
            println!("seed {seed} fails without {bug:?} too");
        }
        is_its.then_some((seed, failed))
    });
    let Some((seed, failed)) = found else {
        plant(None);
        println!("{bug:?} is not found in {count} seeds");
        return false;
    };
    println!("{bug:?} is found by seed {seed}: {}", failed.violated);
    let runs = number("SIM_SHRINK").unwrap_or(runs);
    let plan = cast(seed).plan(seed);
    if runs == 0 {
        plant(None);
        return true;
    }
    // What is left of the run fails in the same way.
    let settings = shrunk(&plan, &failed, runs);
    let again = run(settings.apply(&plan), false).err();
    let same = again.is_some_and(|again| anomaly(&again.violated) == anomaly(&failed.violated));
    plant(None);
    println!("  and with {settings}");
    assert!(same, "{bug:?} is not found any more with {settings}");
    true
}

/// Those of a list that are asked for, or so many of them.
fn asked<B: Copy>(bugs: &[B], count: usize) -> Vec<B> {
    let from = number("SIM_BUGS_FROM").unwrap_or(0) as usize % bugs.len();
    let count = number("SIM_BUGS").map_or(count, |count| count as usize);
    bugs.iter().cycle().skip(from).take(count.min(bugs.len())).copied().collect()
}

#[test]
fn planted_bugs_are_found() {
    quiet();
    let missed: Vec<Bug> = asked(&OF_ONE, OF_ONE.len())
        .into_iter()
        .filter(|bug| !find(*bug, 1..=SEEDS, |_| Cast::Strangers(1), SHRINK_RUNS))
        .collect();
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}

#[test]
fn planted_bugs_of_clusters_are_found() {
    quiet();
    let seeds = number("SIM_BUG_SEEDS").unwrap_or(LINKED_SEEDS);
    let is_search = number("SIM_BUG_SEEDS").is_some();
    let missed: Vec<(Bug, u64)> = asked(&OF_CLUSTERS, CLUSTER_BUGS)
        .into_iter()
        .filter(|(bug, seed)| {
            let known = (!is_search).then_some(*seed);
            !find(*bug, known.into_iter().chain(1..=seeds), linked, 0)
        })
        .collect();
    assert!(missed.is_empty(), "not found in {seeds} seeds: {missed:?}");
}

//! Each planted bug is found, and the seeds that find it are told (`src/planted.rs`).
//!
//! `SIM_BUGS=3` looks for three of them, others on other days: `SIM_BUGS_FROM` says with which one it begins.

use tidemill::planted::{Bug, plant};

use crate::shrink::Settings;
use crate::{Cast, SEEDS, anomaly, number, quiet, run, shrunk};

/// Seeds in which a bug of a cluster is looked for, at most.
const LINKED_SEEDS: u64 = 2_000;

/// Bugs of a cluster that the test command looks for: none, until the search for each of them has ended once.
const CLUSTER_BUGS: usize = 0;

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

/// Bugs that only brokers have which are one cluster.
const OF_CLUSTERS: [Bug; 20] = [
    Bug::WatermarkOfLeaderAlone,
    Bug::WatermarkOfKnownIsr,
    Bug::JoinsBeforeEpochStart,
    Bug::EndBeforeWatermark,
    Bug::ReadsUncommitted,
    Bug::EpochUnchecked,
    Bug::CutAtWatermark,
    Bug::DivergenceUntold,
    Bug::CutAtLeadersWord,
    Bug::UnwrittenCountsAsHeld,
    Bug::WatermarkBeyondLog,
    Bug::FollowersProducersForgotten,
    Bug::FollowersEpochsForgotten,
    Bug::AnyReplicaLeads,
    Bug::LeadsUnregistered,
    Bug::EpochOutlivesLeader,
    Bug::IsrChangedBlindly,
    Bug::PromisedBeforePersisted,
    Bug::AnsweredBeforeCommit,
    Bug::ProducerIdsTwice,
];

/// The machines of a seed in which bugs of clusters are looked for.
fn linked(seed: u64) -> Cast {
    Cast::Linked(3 + seed % 3)
}

/// Looks for a bug in seeds until one of them fails; which one, and how.
fn find(bug: Bug, seeds: u64, cast: fn(u64) -> Cast) -> bool {
    plant(Some(bug));
    let found = (1..=seeds).find_map(|seed| Some((seed, run(cast(seed).plan(seed), false).err()?)));
    let Some((seed, failed)) = found else {
        plant(None);
        println!("{bug:?} is not found in {seeds} seeds");
        return false;
    };
    println!("{bug:?} is found by seed {seed}: {}", failed.violated);
    let runs = number("SIM_SHRINK").unwrap_or(SHRINK_RUNS);
    let plan = cast(seed).plan(seed);
    // What is left of the run fails in the same way.
    let settings = if runs > 0 { shrunk(&plan, &failed, runs) } else { Settings::default() };
    let again = run(settings.apply(&plan), false).err();
    let same = again.is_some_and(|again| anomaly(&again.violated) == anomaly(&failed.violated));
    plant(None);
    println!("  and with {settings}");
    assert!(same, "{bug:?} is not found any more with {settings}");
    true
}

/// Those of a list that are asked for, or so many of them.
fn asked(bugs: &[Bug], count: usize) -> Vec<Bug> {
    let from = number("SIM_BUGS_FROM").unwrap_or(0) as usize % bugs.len();
    let count = number("SIM_BUGS").map_or(count, |count| count as usize);
    bugs.iter().cycle().skip(from).take(count.min(bugs.len())).copied().collect()
}

#[test]
fn planted_bugs_are_found() {
    quiet();
    let missed: Vec<Bug> = asked(&OF_ONE, OF_ONE.len())
        .into_iter()
        .filter(|bug| !find(*bug, SEEDS, |_| Cast::Strangers(1)))
        .collect();
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}

#[test]
fn planted_bugs_of_clusters_are_found() {
    quiet();
    let seeds = number("SIM_BUG_SEEDS").unwrap_or(LINKED_SEEDS);
    let missed: Vec<Bug> =
        asked(&OF_CLUSTERS, CLUSTER_BUGS).into_iter().filter(|bug| !find(*bug, seeds, linked)).collect();
    assert!(missed.is_empty(), "not found in {seeds} seeds: {missed:?}");
}

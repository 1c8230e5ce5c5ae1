//! Why the broker closed connections, as it says on its standard error: each reason of a client's own making
//! is said with its count, the first ten times and then at each doubling.

use std::collections::BTreeMap;

use crate::process::Broker;

/// For each reason, in order: how often it was said, and the highest count.
pub fn reasons(broker: &Broker) -> BTreeMap<String, u64> {
    let mut highest: BTreeMap<String, u64> = BTreeMap::new();
    for line in broker.lines() {
        let Some((_, rest)) = line.split_once("a connection was closed: ") else { continue };
        let Some((reason, rest)) = rest.split_once(" (") else { continue };
        let Some(count): Option<u64> = rest.split(' ').next().and_then(|count| count.parse().ok()) else {
            continue;
        };
        let seen = highest.entry(reason.to_owned()).or_default();
        *seen = count.max(*seen);
    }
    highest
}

/// How many connections a broker that has stopped closed for what was sent on them: of what its shards say
/// at their end, the reasons that are not the peer's going, idleness and the stop.
pub fn counted(lines: &[String]) -> u64 {
    let told = lines.iter().filter_map(|line| line.split_once(", in all: "));
    let counts =
        told.flat_map(|(_, counts)| counts.split(", ")).filter_map(|count| count.strip_prefix("closed "));
    let blamed =
        counts.filter(|count| !["Peer ", "Idle ", "Stopping "].iter().any(|own| count.starts_with(own)));
    blamed.map(|count| count.split(' ').nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

/// Lines that a healthy broker does not write.
pub fn alarms(broker: &Broker) -> Vec<String> {
    let alarming = ["panicked", "offline", "failed", "corrupt", "Fatal"];
    broker.lines().into_iter().filter(|line| alarming.iter().any(|word| line.contains(word))).collect()
}

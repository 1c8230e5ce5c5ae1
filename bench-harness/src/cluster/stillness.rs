//! When nodes are at rest: what topics have left them to do goes on for a while after these are there, and nobody tells
//! when it ends. So the nodes are looked at once a second until all of them were still for several looks in a row.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::broker::Broker;
use crate::host;

/// How long it takes from one look to the next.
const LOOK: Duration = Duration::from_secs(1);
/// So many looks in a row have to find every node still.
const STILL_LOOKS: usize = 10;
/// A node that writes more to its disk, in bytes a second, is not still.
const STILL_BYTES_PER_S: f64 = 1e6;

/// What is still, and how long it is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Stillness {
    /// The share of a core below which a node is still.
    pub below: f64,
    /// Nodes that are not still by then are not going to be.
    pub deadline: Duration,
}

/// A node at one look: the share of a core that it took since the one before, and the bytes a second that it wrote.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Busy {
    node: i32,
    cores: f64,
    bytes_per_s: f64,
}

/// What the processes have used and written so far.
fn used(broker: &Broker) -> Result<Vec<(i32, Duration, u64)>> {
    let each = broker.nodes.iter().map(|node| {
        let pid = node.pid().context("the node runs")?;
        Ok::<_, anyhow::Error>((node.id, host::cpu_time(pid)?, host::written_bytes(pid)))
    });
    each.collect()
}

impl Stillness {
    /// Waits until every node is still. Returns how long that took.
    pub fn wait(&self, broker: &Broker) -> Result<Duration> {
        let began = Instant::now();
        let (mut before, mut looked, mut still) = (used(broker)?, Instant::now(), 0);
        while still < STILL_LOOKS {
            std::thread::sleep(LOOK);
            let (after, took_s) = (used(broker)?, looked.elapsed().as_secs_f64());
            looked = Instant::now();
            let busy: Vec<Busy> = before
                .iter()
                .zip(&after)
                .map(|((node, cpu, bytes), (_, cpu_now, bytes_now))| Busy {
                    node: *node,
                    cores: cpu_now.saturating_sub(*cpu).as_secs_f64() / took_s,
                    bytes_per_s: bytes_now.saturating_sub(*bytes) as f64 / took_s,
                })
                .collect();
            before = after;
            still = self.looks_still(still, &busy);
            ensure!(began.elapsed() < self.deadline, "the nodes do not come to rest: {busy:?}");
            ensure!(!host::interrupted(), "interrupted");
        }
        Ok(began.elapsed())
    }

    /// How many looks in a row have found all nodes still, after one more.
    fn looks_still(&self, so_far: usize, busy: &[Busy]) -> usize {
        let is_still = |one: &Busy| one.cores < self.below && one.bytes_per_s < STILL_BYTES_PER_S;
        if busy.iter().all(is_still) { so_far + 1 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_busy_node_is_enough_to_begin_anew() {
        let rule = Stillness { below: 0.1, deadline: Duration::MAX };
        let node = |node, cores, bytes_per_s| Busy { node, cores, bytes_per_s };
        let still = [node(1, 0.02, 0.0), node(2, 0.09, 900e3)];
        assert_eq!(rule.looks_still(3, &still), 4);
        assert_eq!(rule.looks_still(3, &[node(1, 0.02, 0.0), node(2, 0.11, 0.0)]), 0, "it takes a core");
        assert_eq!(rule.looks_still(3, &[node(1, 0.02, 3e6), node(2, 0.01, 0.0)]), 0, "it writes");
    }
}

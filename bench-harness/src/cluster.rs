//! Figures of a cluster: three nodes of one contender on this machine, each controller and broker, with the same
//! settings for every contender. Leaders and controllers are killed or cut off, nodes are restarted under load, and
//! what the nodes use together is measured by the same workloads as that of one broker.

mod failover;
pub mod outcome;
mod partitions;
mod rolling;
mod stillness;
mod watch;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use crate::broker::{Broker, Node, Place, Recipe};
use crate::host::Machine;
use crate::network::Network;
use crate::report::Contender;
use outcome::{Finding, Outcome};

/// What is measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// kill -9 of a partition's leader under a producer with acks=all: the time until its next write.
    Failover {
        /// How many leaders are killed.
        #[arg(long, default_value_t = 100)]
        kills: usize,
        /// Writes a second between the kills.
        #[arg(long, default_value_t = 200.0)]
        writes: f64,
        /// Seconds of writing with every copy complete before each kill.
        #[arg(long, default_value_t = 1.0)]
        settle: f64,
    },
    /// A node's network is cut in silence: that of a partition's leader, or of a follower. Needs root.
    Cut {
        /// How many leaders are cut off, every other one the active controller too.
        #[arg(long, default_value_t = 20)]
        cuts: usize,
        /// How many followers are cut off after them, every other one the active controller too.
        #[arg(long, default_value_t = 4)]
        follower_cuts: usize,
        /// broker.session.timeout.ms of the nodes; broker.heartbeat.interval.ms is two ninths of it, as Kafka's is.
        #[arg(long, default_value_t = 9000)]
        session_ms: u64,
        /// Writes a second between the cuts.
        #[arg(long, default_value_t = 200.0)]
        writes: f64,
        /// Seconds of writing with every copy complete before each cut.
        #[arg(long, default_value_t = 1.0)]
        settle: f64,
    },
    /// One node after the other is stopped and started again under load: errors, and the writes' latencies meanwhile.
    Rolling {
        /// How often all nodes are restarted.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Producers, each with a partition of its own.
        #[arg(long, default_value_t = 6)]
        writers: usize,
        /// Writes a second over all of them.
        #[arg(long, default_value_t = 600.0)]
        writes: f64,
        /// Seconds of load before the clock runs, and between two restarts.
        #[arg(long, default_value_t = 3.0)]
        settle: f64,
        /// Seconds of load with all nodes up.
        #[arg(long, default_value_t = 10.0)]
        steady: f64,
    },
    /// Many partitions: CPU at rest, kill -9 of the active controller, and a node that comes back.
    Partitions {
        /// Partitions of all topics together.
        #[arg(long, default_value_t = 10_000)]
        partitions: usize,
        /// How many controllers are killed.
        #[arg(long, default_value_t = 10)]
        kills: usize,
        /// Seconds that the nodes are looked at while nobody asks anything, once they are at rest.
        #[arg(long, default_value_t = 10.0)]
        rest: f64,
        /// They are when each takes less than this, in percent of a core, and writes hardly anything, ten seconds long.
        #[arg(long, default_value_t = 10.0)]
        rest_below: f64,
        /// Seconds after which nodes that do not come to rest fail the run.
        #[arg(long, default_value_t = 600.0)]
        rest_deadline: f64,
    },
    /// The workloads cluster-… with acks=all on all contenders in turns: CPU of all nodes together, and latencies.
    Load {
        /// Turns that count.
        #[arg(long, default_value_t = 3)]
        turns: usize,
        /// Turns before those, which warm up and do not count.
        #[arg(long, default_value_t = 2)]
        warmup_turns: usize,
    },
}

impl Task {
    fn name(&self) -> &'static str {
        match self {
            Task::Failover { .. } => "failover",
            Task::Cut { .. } => "cut",
            Task::Rolling { .. } => "rolling",
            Task::Partitions { .. } => "partitions",
            Task::Load { .. } => "load",
        }
    }

    fn parameters(&self) -> BTreeMap<String, String> {
        let pairs = match self {
            Task::Failover { kills, writes, settle } => {
                vec![
                    ("kills", kills.to_string()),
                    ("writes", writes.to_string()),
                    ("settle", settle.to_string()),
                ]
            }
            Task::Cut { cuts, follower_cuts, session_ms, writes, settle } => vec![
                ("cuts", cuts.to_string()),
                ("follower-cuts", follower_cuts.to_string()),
                ("session-ms", session_ms.to_string()),
                ("writes", writes.to_string()),
                ("settle", settle.to_string()),
            ],
            Task::Rolling { rounds, writers, writes, settle, steady } => vec![
                ("rounds", rounds.to_string()),
                ("writers", writers.to_string()),
                ("writes", writes.to_string()),
                ("settle", settle.to_string()),
                ("steady", steady.to_string()),
            ],
            Task::Partitions { partitions, kills, rest, rest_below, rest_deadline } => vec![
                ("partitions", partitions.to_string()),
                ("kills", kills.to_string()),
                ("rest", rest.to_string()),
                ("rest-below", rest_below.to_string()),
                ("rest-deadline", rest_deadline.to_string()),
            ],
            Task::Load { turns, warmup_turns } => {
                vec![("turns", turns.to_string()), ("warmup-turns", warmup_turns.to_string())]
            }
        };
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn measure(&self, broker: &mut Broker) -> Result<Finding> {
        match self {
            Task::Failover { kills, writes, settle } => {
                let aims = failover::leaders(*kills);
                failover::run(broker, &failovers(failover::Harm::Kill, aims, *writes, *settle)?)
            }
            Task::Cut { cuts, follower_cuts, writes, settle, .. } => {
                let aims = failover::told_apart(*cuts, *follower_cuts);
                failover::run(broker, &failovers(failover::Harm::Cut, aims, *writes, *settle)?)
            }
            Task::Rolling { rounds, writers, writes, settle, steady } => {
                let plan = rolling::Plan {
                    rounds: *rounds,
                    writers: (*writers).max(1),
                    rate: rate(*writes)?,
                    settle: seconds(*settle)?,
                    steady: seconds(*steady)?,
                };
                rolling::run(broker, plan)
            }
            Task::Partitions { partitions, kills, rest, rest_below, rest_deadline } => {
                let plan = partitions::Plan {
                    partitions: (*partitions).max(1),
                    kills: *kills,
                    rest: seconds(*rest)?,
                    stillness: stillness::Stillness {
                        below: rest_below / 100.0,
                        deadline: seconds(*rest_deadline)?,
                    },
                };
                partitions::run(broker, plan)
            }
            Task::Load { .. } => anyhow::bail!("a load is a comparison of workloads"),
        }
    }

    /// Where its nodes run: a network has to be theirs alone to be cut.
    fn place(&self, place: &Place) -> Result<Place> {
        let network = match self {
            Task::Cut { .. } => Some(Arc::new(Network::new(place.nodes)?)),
            _ => None,
        };
        Ok(Place { network, ..place.clone() })
    }

    /// The settings of its nodes that are not what they are by themselves.
    fn settings(&self) -> Vec<String> {
        let Task::Cut { session_ms, .. } = self else { return Vec::new() };
        let heartbeat_ms = session_ms * 2 / 9;
        vec![
            format!("broker.session.timeout.ms={session_ms}"),
            format!("broker.heartbeat.interval.ms={heartbeat_ms}"),
        ]
    }
}

/// Runs a task on a cluster of each contender, one after the other. A contender that lost an acknowledged record is in
/// the result, and is an error of the caller's ([`Outcome::lost`]).
pub fn run(task: &Task, recipes: &[Recipe], place: &Place) -> Result<Outcome> {
    ensure!(place.nodes >= 3, "a cluster that loses a node and goes on has three at least");
    let place = &task.place(place)?;
    let mut outcome =
        Outcome::new(task.name(), task.parameters(), Machine::here(&place.data, place.cpu_count()));
    outcome.parameters.insert("nodes".to_owned(), place.nodes.to_string());
    outcome.parameters.insert("layout".to_owned(), place.layout.name().to_owned());
    for recipe in recipes {
        eprintln!("starting {} nodes of {}", place.nodes, recipe.name());
        let mut broker = Broker::start(&recipe.with_settings(&task.settings()), place)?;
        outcome.contenders.push(Contender {
            name: recipe.name().to_owned(),
            version: recipe.version(),
            command: broker.command.clone(),
            settings: broker.settings.clone(),
            start_up_s: broker.start_up.iter().map(Duration::as_secs_f64).collect(),
            resident_at_start_bytes: broker.resident_at_start_bytes.into_iter().collect(),
        });
        let found = task.measure(&mut broker);
        let said = || broker.nodes.iter().map(|node| format!("node {}: {}", node.id, node.last_words()));
        let found = found.with_context(|| said().collect::<Vec<_>>().join("\n"));
        outcome.findings.push(found.with_context(|| format!("{} on {}", task.name(), recipe.name()))?);
    }
    Ok(outcome)
}

fn failovers(
    harm: failover::Harm,
    aims: Vec<failover::Aim>,
    writes: f64,
    settle: f64,
) -> Result<failover::Plan> {
    Ok(failover::Plan { harm, aims, rate: rate(writes)?, settle: seconds(settle)? })
}

fn node_mut(broker: &mut Broker, id: i32) -> Result<&mut Node> {
    broker.nodes.iter_mut().find(|node| node.id == id).with_context(|| format!("there is no node {id}"))
}

/// A name for a topic unlike any of an earlier run.
fn topic(task: &str) -> String {
    static TOPICS: AtomicU64 = AtomicU64::new(0);
    let number = TOPICS.fetch_add(1, Ordering::Relaxed);
    format!("bench-{task}-{}-{number}", std::process::id())
}

fn seconds(value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("{value} is not a length of time in seconds"))
}

fn rate(value: f64) -> Result<f64> {
    ensure!(value > 0.0 && value.is_finite(), "a rate is above zero");
    Ok(value)
}

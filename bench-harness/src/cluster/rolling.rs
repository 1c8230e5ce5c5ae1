//! A rolling restart under load: one node after the other is asked to stop and started again, while producers write at
//! a steady rate. A write is timed from the moment it was meant to be sent.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::outcome::{Finding, Percentiles};
use super::watch::{Wait, Watch};
use super::writer::{ReadBack, Trouble, Writer};
use super::{node_mut, topic};
use crate::admin::Admin;
use crate::broker::{Broker, Stop};

/// Before the clock runs, all nodes up, and while nodes stop and start: where a write belongs by its intended moment.
const PHASES: usize = 3;
const WARM_UP: u8 = 0;
const STEADY: u8 = 1;
const ROLLING: u8 = 2;

/// How often, and beside what load.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often all nodes are restarted.
    pub rounds: usize,
    /// Producers, each with a partition of its own.
    pub writers: usize,
    /// Writes a second over all of them.
    pub rate: f64,
    /// The load before the clock runs, and between two restarts.
    pub settle: Duration,
    /// The load with all nodes up.
    pub steady: Duration,
}

/// What the thread of a writer hands back.
struct Written {
    writer: Writer,
    latency: Vec<Histogram<u64>>,
}

/// What the nodes' stops and starts took, in seconds.
#[derive(Default)]
struct Restarts {
    stop_s: Vec<f64>,
    complete_s: Vec<f64>,
}

/// Restarts every node in turn.
pub fn run(broker: &mut Broker, plan: Plan) -> Result<Finding> {
    let topic = topic("rolling");
    let mut admin = Admin::connect(broker.address()?)?;
    admin.create_topic(&topic, plan.writers, broker.replicas(), &[])?;
    let watch = Watch::new(broker, vec![topic.clone()]);
    let (phase, over) = (AtomicU8::new(WARM_UP), AtomicBool::new(false));
    let writers: Vec<Writer> = (0..plan.writers)
        .map(|partition| Writer::new(&topic, partition, watch.nodes().clone()))
        .collect::<Result<_>>()?;
    let (restarts, written) = std::thread::scope(|scope| {
        let interval = Duration::from_secs_f64(plan.writers as f64 / plan.rate);
        let threads: Vec<_> = writers
            .into_iter()
            .zip(0u32..)
            .map(|(writer, index)| {
                let due = Instant::now() + interval * index / plan.writers.max(1) as u32;
                let (phase, over) = (&phase, &over);
                scope.spawn(move || drive(writer, (due, interval), phase, over))
            })
            .collect();
        let restarts = roll(broker, &plan, &watch, &phase);
        over.store(true, Ordering::Relaxed);
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Written>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a writer panicked")))
        };
        (restarts, threads.into_iter().map(join).collect::<Vec<_>>())
    });
    let restarts = restarts?;
    let written: Vec<Written> = written.into_iter().collect::<Result<_>>()?;
    let mut read = ReadBack::default();
    for one in &written {
        read.add(one.writer.read_back(&mut watch.other_than(None)?)?);
    }
    finding(broker.name, restarts, &written, read)
}

/// One writer at its pace: what the leader's absence held up is sent as fast as it goes, and was meant to go earlier.
fn drive(
    mut writer: Writer,
    (mut due, interval): (Instant, Duration),
    phase: &AtomicU8,
    over: &AtomicBool,
) -> Result<Written> {
    let mut latency = vec![Histogram::new_with_bounds(1, 600_000_000_000, 3)?; PHASES];
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = usize::from(phase.load(Ordering::Relaxed));
        writer.write()?;
        let took = due.elapsed().as_nanos() as u64;
        latency.get_mut(now).context("a phase")?.saturating_record(took);
        due += interval;
    }
    Ok(Written { writer, latency })
}

fn roll(broker: &mut Broker, plan: &Plan, watch: &Watch, phase: &AtomicU8) -> Result<Restarts> {
    std::thread::sleep(plan.settle);
    phase.store(STEADY, Ordering::Relaxed);
    std::thread::sleep(plan.steady);
    phase.store(ROLLING, Ordering::Relaxed);
    let ids: Vec<i32> = broker.nodes.iter().map(|node| node.id).collect();
    let mut restarts = Restarts::default();
    for round in 0..plan.rounds {
        for id in &ids {
            let asked = Instant::now();
            node_mut(broker, *id)?.stop(Stop::Clean)?;
            restarts.stop_s.push(asked.elapsed().as_secs_f64());
            node_mut(broker, *id)?.launch()?;
            let mut full = Wait::new();
            let complete = loop {
                if let Some(took) = full.look("every copy to be complete", || watch.is_full(*id))? {
                    break took.as_secs_f64();
                }
                node_mut(broker, *id)?.check_alive()?;
                std::thread::sleep(Duration::from_millis(10));
            };
            let (stop, round) = (restarts.stop_s.last().copied().unwrap_or(0.0), round + 1);
            eprintln!(
                "round {round}, node {id}: stopped in {stop:.1} s, complete {complete:.1} s after its start"
            );
            restarts.complete_s.push(complete);
            std::thread::sleep(plan.settle);
        }
    }
    Ok(restarts)
}

fn finding(contender: &str, restarts: Restarts, written: &[Written], read: ReadBack) -> Result<Finding> {
    let mut found = Finding::new(contender);
    found.count("restarts", restarts.stop_s.len() as u64);
    for (phase, name) in [(STEADY, "writes, all nodes up"), (ROLLING, "writes, rolling restart")] {
        let mut sum = Histogram::<u64>::new_with_bounds(1, 600_000_000_000, 3)?;
        for one in written {
            sum.add(one.latency.get(usize::from(phase)).context("a phase")?)?;
        }
        found.count(name, sum.len());
        for (which, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            found.figure(&format!("{name}, {which}"), sum.value_at_quantile(share) as f64 / 1e6, "ms");
        }
    }
    found.percentiles("stop of a node", &Percentiles::of(restarts.stop_s.clone()), "s");
    let complete = Percentiles::of(restarts.complete_s.clone());
    found.percentiles("from its start until every copy is complete", &complete, "s");
    found.read_back(read);
    let mut trouble = Trouble::default();
    written.iter().for_each(|one| trouble.add(&one.writer.trouble));
    found.trouble(&trouble);
    found.series("stop_s", restarts.stop_s);
    found.series("complete_s", restarts.complete_s);
    Ok(found)
}

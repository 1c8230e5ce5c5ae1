//! Two brokers side by side under one workload: both are up, both have their load connected, and slices of a tenth of
//! a second go to one and the other in turns. A machine whose speed drifts from one second to the next drifts for both.
//!
//! A turn has new processes and new files, [`PAIRS`] pairs of slices, and one result: the median over its pairs of
//! the first broker's CPU (for a request, or for a byte) divided by the second's. A pair in which broker or load had to
//! wait for a CPU tells of others on the machine: further pairs are run then, and the least disturbed ones count. A
//! turn that waited too much all the same has no result.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::broker::{Broker, Place, Recipe};
use crate::host;
use crate::load::{Load, Plan};
use crate::markdown::short;
use crate::report::Spread;
use crate::trial::Stage;
use crate::workload::{Figure, Role, Workload};

/// Pairs of slices in a turn.
const PAIRS: usize = 8;
/// The most pairs that a turn runs to find so many.
const PAIRS_MAX: usize = 2 * PAIRS;
/// A pair in which broker and load waited for a CPU for a greater share of the time is disturbed.
const PAIR_WAIT_SHARE_MAX: f64 = 0.05;
/// A turn whose pairs waited for a greater share (their median) has no result. Beside another process of the same
/// priority (0.4 to 0.65) ratios were as on a quiet machine; beside one of a far higher priority they were not.
const TURN_WAIT_SHARE_MAX: f64 = 0.75;
/// A slice of a produce workload ends after this many bytes. A turn writes little enough that its files take the pages
/// that the turn before gave back: memory that a virtual machine touches for the first time costs up to four times the
/// broker's own work, for both, and hides it.
const WRITTEN_BYTES: u64 = 16 << 20;
/// How much each partition of a fetch workload holds: more than the processor's caches over all of them, and quickly
/// written and read back.
const STORED_BYTES: u64 = 16 << 20;

/// Who, and how.
pub struct Duel {
    /// The brokers.
    pub recipes: [Recipe; 2],
    /// The length of the warm-up and of a slice.
    pub plan: Plan,
    /// Where both run.
    pub place: Place,
}

/// What a turn cost, or the median of many.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The CPU of the second broker, which is the floor where there is one: microseconds for a request, or seconds for
    /// a GB.
    pub floor: f64,
    /// The first broker's CPU divided by the second's.
    pub ratio: f64,
}

/// One of the two, under load.
struct Side {
    broker: Broker,
    pid: u32,
    stage: Stage,
    load: Load,
}

/// What a turn came to.
struct Turn {
    /// The median over the pairs that count.
    ratio: f64,
    /// The median cost of each side.
    costs: [f64; 2],
    /// The median share of the time in which broker or load waited for a CPU.
    wait_share: f64,
}

/// What a slice came to.
#[derive(Clone, Copy, Debug)]
struct Slice {
    /// Seconds of CPU for a request, or for a byte.
    cost: f64,
    /// How long broker and load waited for a CPU.
    waited: Duration,
    /// How long it took.
    elapsed: Duration,
}

/// A slice of each.
#[derive(Clone, Copy, Debug)]
struct Pair([Slice; 2]);

impl Pair {
    fn ratio(&self) -> f64 {
        let [one, other] = self.0;
        one.cost / other.cost
    }

    /// The share of the time in which broker or load waited for a CPU.
    fn wait_share(&self) -> f64 {
        let [one, other] = self.0;
        (one.waited + other.waited).as_secs_f64() / (one.elapsed + other.elapsed).as_secs_f64().max(1e-9)
    }

    fn is_disturbed(&self) -> bool {
        self.wait_share() > PAIR_WAIT_SHARE_MAX
    }
}

/// The pairs that count: the least disturbed.
fn chosen(mut pairs: Vec<Pair>) -> Vec<Pair> {
    pairs.retain(|pair| pair.ratio().is_finite());
    pairs.sort_by(|a, b| a.wait_share().total_cmp(&b.wait_share()));
    pairs.truncate(PAIRS);
    pairs
}

impl Side {
    fn open(recipe: &Recipe, workload: &Workload, plan: &Plan, place: &Place) -> Result<Side> {
        let broker = Broker::start(recipe, place)?;
        let pid = *broker.pids().first().context("the broker's process is not known")?;
        let stored_bytes = workload.stored_bytes.min(STORED_BYTES);
        let mut stage = Stage::open(&broker, &Workload { stored_bytes, ..workload.clone() })?;
        let mut load = stage.load(None)?;
        load.slice(&Plan { measure: plan.warmup, bytes_max: plan.bytes_max.saturating_mul(2), ..*plan })?;
        Ok(Side { broker, pid, stage, load })
    }

    fn waited(&self) -> Duration {
        host::waited(Some(self.pid)) + host::waited(None)
    }

    /// The cost of a slice: seconds of CPU for a request, or for a byte.
    fn slice(&mut self, plan: &Plan, figure: Figure) -> Result<Slice> {
        let (before, waited, began) = (host::cpu_time(self.pid)?, self.waited(), Instant::now());
        let tally = self.load.slice(plan)?;
        let used: Duration = host::cpu_time(self.pid)?.saturating_sub(before);
        let (waited, elapsed) = (self.waited().saturating_sub(waited), began.elapsed());
        ensure!(tally.error_count() == 0, "requests were refused, by error code: {:?}", tally.errors);
        let units = match figure {
            Figure::CpuPerGb => tally.bytes,
            Figure::CpuPerRecord => tally.records,
            Figure::CpuPerRequest | Figure::MedianLatency | Figure::EndToEnd => tally.requests,
        };
        if units == 0 || used.is_zero() {
            // Neither had a CPU: nothing can be said.
            return Ok(Slice { cost: f64::NAN, waited: elapsed, elapsed });
        }
        Ok(Slice { cost: used.as_secs_f64() / units as f64, waited, elapsed })
    }

    fn close(self) -> Result<()> {
        self.stage.finish(&self.load.into_lanes())?;
        drop(self.broker);
        Ok(())
    }
}

impl Duel {
    /// Runs that many turns over all workloads; returns what each cost, once for every turn that has a result. The
    /// second broker's own is in microseconds for a request or seconds for a GB.
    pub fn turns(&self, workloads: Vec<Workload>, turns: usize) -> Result<Vec<(Workload, Vec<Cost>)>> {
        let mut results: Vec<(Workload, Vec<Cost>)> =
            workloads.into_iter().map(|workload| (workload, Vec::new())).collect();
        for turn in 1..=turns {
            for (workload, results) in &mut results {
                let by_latency = matches!(workload.figure, Figure::MedianLatency | Figure::EndToEnd);
                let judged = !by_latency && workload.suits_the_floor();
                ensure!(judged, "{} is not judged by CPU on both", workload.name);
                let context = || format!("workload {}, turn {turn}", workload.name);
                let Turn { ratio, costs, wait_share } = self.turn(workload).with_context(context)?;
                let scale = if workload.figure == Figure::CpuPerGb { 1e9 } else { 1e6 };
                let [first, second] = costs.map(|cost| cost * scale);
                let [one, other] = [&self.recipes[0], &self.recipes[1]].map(Recipe::name);
                let (name, unit) = (workload.name, workload.figure.unit());
                let shown = match wait_share <= TURN_WAIT_SHARE_MAX {
                    true => short(ratio),
                    false => "no result".to_owned(),
                };
                eprintln!(
                    "turn {turn} of {turns}  {name:<16} {one} {}, {other} {} {unit}: {shown}; \
                     waited for a CPU {:.0} % of the time",
                    short(first),
                    short(second),
                    wait_share * 100.0
                );
                let cost = Cost { floor: second, ratio };
                results.extend((wait_share <= TURN_WAIT_SHARE_MAX).then_some(cost));
            }
        }
        Ok(results)
    }

    fn turn(&self, workload: &Workload) -> Result<Turn> {
        let writes = workload.roles().iter().any(Role::writes);
        let bytes_max = if writes { self.plan.bytes_max.min(WRITTEN_BYTES) } else { self.plan.bytes_max };
        let plan = Plan { bytes_max, ..self.plan };
        let [first, second] = &self.recipes;
        let mut first = Side::open(first, workload, &plan, &self.place)?;
        let mut second = Side::open(second, workload, &plan, &self.place)?;
        let mut pairs: Vec<Pair> = Vec::new();
        while pairs.iter().filter(|pair| !pair.is_disturbed()).count() < PAIRS && pairs.len() < PAIRS_MAX {
            ensure!(!host::interrupted(), "interrupted");
            // Whoever comes second runs on what the other has left in the caches: that goes around too.
            pairs.push(if pairs.len().is_multiple_of(2) {
                let one = first.slice(&plan, workload.figure)?;
                Pair([one, second.slice(&plan, workload.figure)?])
            } else {
                let other = second.slice(&plan, workload.figure)?;
                Pair([first.slice(&plan, workload.figure)?, other])
            });
        }
        first.close()?;
        second.close()?;
        let pairs = chosen(pairs);
        ensure!(!pairs.is_empty(), "not one slice had an answer");
        let median = |values| Spread::of(values).map_or(0.0, |spread| spread.median);
        let over_pairs = |value: fn(&Pair) -> f64| median(pairs.iter().map(value).collect());
        Ok(Turn {
            ratio: over_pairs(Pair::ratio),
            costs: [over_pairs(|pair| pair.0[0].cost), over_pairs(|pair| pair.0[1].cost)],
            wait_share: over_pairs(Pair::wait_share),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(one: f64, other: f64, waited_ms: u64) -> Pair {
        let slice = |cost| Slice {
            cost,
            waited: Duration::from_millis(waited_ms),
            elapsed: Duration::from_millis(100),
        };
        Pair([slice(one), slice(other)])
    }

    #[test]
    fn the_least_disturbed_pairs_count() {
        assert!(!pair(1.0, 1.0, 5).is_disturbed() && pair(1.0, 1.0, 6).is_disturbed());
        let mut pairs = vec![pair(9.0, 1.0, 40); 3];
        pairs.push(pair(f64::NAN, 1.0, 0));
        pairs.extend(vec![pair(3.0, 2.0, 1); PAIRS - 1]);
        pairs.push(pair(8.0, 1.0, 50));
        let mut ratios: Vec<f64> = chosen(pairs).iter().map(Pair::ratio).collect();
        ratios.sort_by(f64::total_cmp);
        assert_eq!((ratios.len(), ratios.first(), ratios.last()), (PAIRS, Some(&1.5), Some(&9.0)));
        assert_eq!(ratios.iter().filter(|ratio| **ratio > 2.0).count(), 1);
    }
}

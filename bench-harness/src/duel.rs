//! Two brokers side by side under one workload: both are up, both have their load connected, and slices of a tenth of
//! a second go to one and the other in turns. A machine whose speed drifts from one second to the next drifts for both.
//!
//! A turn has new processes and new files, [`PAIRS`] pairs of slices, and one result: the median over its pairs of the
//! first broker's CPU (for a request, or for a byte) divided by the second's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::broker::{Broker, Place, Recipe};
use crate::host;
use crate::load::{Load, Plan};
use crate::markdown::short;
use crate::report::Spread;
use crate::trial::Stage;
use crate::workload::{Figure, Role, Workload};

/// Pairs of slices in a turn.
const PAIRS: usize = 8;
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

/// One of the two, under load.
struct Side {
    broker: Broker,
    pid: u32,
    stage: Stage,
    load: Load,
}

impl Side {
    fn open(recipe: &Recipe, workload: &Workload, plan: &Plan, place: &Place) -> Result<Side> {
        let broker = Broker::start(recipe, place)?;
        let pid = broker.pid.context("the broker's process is not known")?;
        let stored_bytes = workload.stored_bytes.min(STORED_BYTES);
        let mut stage = Stage::open(&broker, &Workload { stored_bytes, ..workload.clone() })?;
        let mut load = stage.load(None)?;
        load.slice(&Plan { measure: plan.warmup, bytes_max: plan.bytes_max.saturating_mul(2), ..*plan })?;
        Ok(Side { broker, pid, stage, load })
    }

    /// The cost of a slice: seconds of CPU for a request, or for a byte.
    fn slice(&mut self, plan: &Plan, figure: Figure) -> Result<f64> {
        let before = host::cpu_time(self.pid)?;
        let tally = self.load.slice(plan)?;
        let used: Duration = host::cpu_time(self.pid)?.saturating_sub(before);
        ensure!(tally.error_count() == 0, "requests were refused, by error code: {:?}", tally.errors);
        let units = match figure {
            Figure::CpuPerGb => tally.bytes,
            Figure::CpuPerRecord => tally.records,
            Figure::CpuPerRequest | Figure::MedianLatency | Figure::EndToEnd => tally.requests,
        };
        ensure!(units > 0 && !used.is_zero(), "a slice without an answer or without CPU");
        Ok(used.as_secs_f64() / units as f64)
    }

    fn close(self) -> Result<()> {
        self.stage.finish(&self.load.into_lanes())?;
        drop(self.broker);
        Ok(())
    }
}

impl Duel {
    /// Runs that many turns over all workloads; returns the ratios of each.
    pub fn turns(&self, workloads: Vec<Workload>, turns: usize) -> Result<Vec<(Workload, Vec<f64>)>> {
        let mut results: Vec<(Workload, Vec<f64>)> =
            workloads.into_iter().map(|workload| (workload, Vec::new())).collect();
        for turn in 1..=turns {
            for (workload, ratios) in &mut results {
                let by_latency = matches!(workload.figure, Figure::MedianLatency | Figure::EndToEnd);
                let judged = !by_latency && workload.suits_the_floor();
                ensure!(judged, "{} is not judged by CPU on both", workload.name);
                let context = || format!("workload {}, turn {turn}", workload.name);
                let (ratio, costs) = self.turn(workload).with_context(context)?;
                let scale = if workload.figure == Figure::CpuPerGb { 1e9 } else { 1e6 };
                let [first, second] = costs.map(|cost| short(cost * scale));
                let [one, other] = [&self.recipes[0], &self.recipes[1]].map(Recipe::name);
                let (name, unit) = (workload.name, workload.figure.unit());
                let ratio_shown = short(ratio);
                eprintln!(
                    "turn {turn} of {turns}  {name:<16} {one} {first}, {other} {second} {unit}: {ratio_shown}"
                );
                ratios.push(ratio);
            }
        }
        Ok(results)
    }

    /// The median ratio over a turn's pairs, and the median cost of each side.
    fn turn(&self, workload: &Workload) -> Result<(f64, [f64; 2])> {
        let writes = workload.roles().iter().any(Role::writes);
        let bytes_max = if writes { self.plan.bytes_max.min(WRITTEN_BYTES) } else { self.plan.bytes_max };
        let plan = Plan { bytes_max, ..self.plan };
        let [first, second] = &self.recipes;
        let mut first = Side::open(first, workload, &plan, &self.place)?;
        let mut second = Side::open(second, workload, &plan, &self.place)?;
        let (mut ratios, mut costs) = (Vec::new(), [Vec::new(), Vec::new()]);
        for pair in 0..PAIRS {
            ensure!(!host::interrupted(), "interrupted");
            // Whoever comes second runs on what the other has left in the caches: that goes around too.
            let (one, other) = if pair % 2 == 0 {
                let one = first.slice(&plan, workload.figure)?;
                (one, second.slice(&plan, workload.figure)?)
            } else {
                let other = second.slice(&plan, workload.figure)?;
                (first.slice(&plan, workload.figure)?, other)
            };
            ratios.push(one / other);
            costs[0].push(one);
            costs[1].push(other);
        }
        first.close()?;
        second.close()?;
        let median = |values| Spread::of(values).map_or(0.0, |spread| spread.median);
        Ok((median(ratios), costs.map(median)))
    }
}

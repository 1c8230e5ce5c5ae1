//! The search for the knee: the highest rate at which the 99th percentile stays within a bound. An open loop rises by
//! half until it leaves the bound, and the last step is halved until it is narrow enough.
//!
//! Invariant: latencies run from the intended sending, so a rate that the broker cannot serve leaves any bound.

use anyhow::{Result, ensure};

use crate::broker::{Place, Recipe};
use crate::host;
use crate::markdown;
use crate::report::{Knee, Report, Row};
use crate::seat::Seat;
use crate::trial::{Conditions, Measurement};
use crate::workload::{Drive, Workload};

/// How fast the rate rises.
const RISE: f64 = 1.5;
/// A rate above this is not searched: the load itself has its limits.
const RATE_MAX: f64 = 10e6;

/// What is searched.
pub struct Plan {
    /// The workload.
    pub workload: Workload,
    /// The broker.
    pub recipe: Recipe,
    /// What the 99th percentile may be, in milliseconds: end to end where somebody consumes, else to the answer.
    pub p99_bound_ms: f64,
    /// The first rate, in requests a second.
    pub from: f64,
    /// The search ends when the rate is known to this share.
    pub precision: f64,
    /// How often a rate may fail before it counts as too high: others on the machine make a good one fail.
    pub attempts: usize,
}

/// Finds the knee; `measure` runs a rate and says whether it stays within the bound.
fn search(
    from: f64,
    precision: f64,
    mut measure: impl FnMut(f64) -> Result<bool>,
) -> Result<(Option<f64>, Option<f64>)> {
    let (mut good, mut bad, mut rate) = (None, None, from);
    while bad.is_none() && rate <= RATE_MAX {
        if measure(rate)? {
            good = Some(rate);
            rate *= RISE;
        } else {
            bad = Some(rate);
        }
    }
    while let (Some(low), Some(high)) = (good, bad)
        && high / low > 1.0 + precision
    {
        let middle = f64::midpoint(low, high);
        if measure(middle)? {
            good = Some(middle);
        } else {
            bad = Some(middle);
        }
    }
    Ok((good, bad))
}

/// Runs the search: what was found, and the better run of each rate by rate. Each run is told as it ends.
pub fn find(
    plan: &Plan,
    conditions: &Conditions,
    place: &Place,
    seat: &mut Seat,
    told: &mut dyn FnMut(&Measurement),
) -> Result<(Knee, Vec<Measurement>)> {
    ensure!(matches!(plan.workload.drive, Drive::Wire(_)), "a foreign client keeps no rate");
    ensure!(plan.precision > 0.0 && plan.p99_bound_ms > 0.0 && plan.from > 0.0, "bounds are above zero");
    ensure!(seat.suits(&plan.workload), "the floor cannot run {}", plan.workload.name);
    seat.settle(&plan.workload.broker_settings, place)?;
    let mut curve = Vec::new();
    let (rate, rate_above) = search(plan.from, plan.precision, |rate| {
        let conditions = Conditions { rate: Some(rate), ..conditions.clone() };
        let mut best: Option<Measurement> = None;
        for _ in 0..plan.attempts.max(1) {
            ensure!(!host::interrupted(), "interrupted");
            let run = seat.run(&plan.workload, &conditions, place)?;
            told(&run);
            if best.as_ref().is_none_or(|best| p99_ms(&run) < p99_ms(best)) {
                best = Some(run);
            }
            if best.as_ref().is_some_and(|best| p99_ms(best) <= plan.p99_bound_ms) {
                break;
            }
        }
        let within = best.as_ref().is_some_and(|best| p99_ms(best) <= plan.p99_bound_ms);
        curve.extend(best);
        Ok(within)
    })?;
    curve.sort_by(|one, other| asked(one).total_cmp(&asked(other)));
    Ok((Knee { p99_bound_ms: plan.p99_bound_ms, rate, rate_above }, curve))
}

/// Runs the search, and prints each run as it ends. Each rate is a row of the result.
pub fn run(plan: &Plan, conditions: &Conditions, place: &Place) -> Result<Report> {
    let mut seat = Seat::new(plan.recipe.clone());
    let mut told =
        |run: &Measurement| println!("at {:.0} requests/s\n{}", asked(run), markdown::run_lines(run));
    let (knee, curve) = find(plan, conditions, place, &mut seat, &mut told)?;
    let settings = conditions.settings(1, 0);
    let workloads = std::slice::from_ref(&plan.workload);
    let mut report = Report::new(place, settings, workloads, &[plan.recipe.name()]);
    report.workloads.clear();
    for run in curve {
        let rate = ("rate".to_owned(), format!("{:.0}", asked(&run)));
        let row = Row::point(&plan.workload, vec![rate]);
        report.runs.push(Measurement { workload: row.name.clone(), ..run });
        report.workloads.push(row);
    }
    report.knee = Some(knee);
    report.contenders = vec![seat.known];
    Ok(report)
}

fn asked(run: &Measurement) -> f64 {
    run.rate_asked.unwrap_or(0.0)
}

/// The 99th percentile that the search goes by, in milliseconds.
pub fn p99_ms(run: &Measurement) -> f64 {
    run.latency().map_or(f64::INFINITY, |latency| latency.p99 / 1e3)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_search_ends_next_to_the_knee() {
        for knee in [1_000.0, 1_499.0, 54_321.0, 987_654.0] {
            let mut runs = 0;
            let (good, bad) = search(1_000.0, 0.05, |rate| {
                runs += 1;
                Ok(rate <= knee)
            })
            .unwrap();
            let (good, bad) = (good.unwrap(), bad.unwrap());
            assert!(good <= knee && knee < bad && bad / good <= 1.05, "{good} {bad}");
            assert!(runs < 30, "{runs}");
        }
    }

    #[test]
    fn a_first_rate_that_is_too_high_and_a_bound_that_nothing_leaves_are_said() {
        assert_eq!(search(1_000.0, 0.05, |_| Ok(false)).unwrap(), (None, Some(1_000.0)));
        let (good, bad) = search(1_000.0, 0.05, |_| Ok(true)).unwrap();
        assert!(good.unwrap() > RATE_MAX / RISE && bad.is_none());
    }
}

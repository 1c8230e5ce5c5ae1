//! The choice among candidates: a pure function of what was measured.
//!
//! Candidates that keep the goal in every workload come before those that do not. Among them counts the rate in the
//! workload in which a candidate falls behind most, or at a given rate what they cost; of those that are as good within
//! the precision of the measurement the one with the fewest shards is taken, as it leaves the most of the machine.

use serde::Serialize;

use crate::candidates::Candidate;

/// Candidates whose figures differ by less than this share are as good as each other.
const AS_GOOD: f64 = 0.05;

/// What a good choice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    /// The highest rate within the goal.
    Rate,
    /// The least CPU at a rate that was given.
    Cost,
}

/// What a candidate came to in one workload, the median of its turns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Whether the 99th percentile stayed within the goal.
    pub kept: bool,
    /// Requests a second: the highest rate within the goal, or what was reached of the one that was given. Without one
    /// that kept the goal, the lowest that was tried.
    pub rate: f64,
    /// The 99th percentile at that rate, in milliseconds.
    pub p99_ms: f64,
    /// The broker's CPU at that rate, as a number of cores.
    pub cores: f64,
    /// Microseconds of the broker's CPU for a request.
    pub us_per_request: f64,
}

/// A candidate and its figures, one for each workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// What was measured.
    #[serde(flatten)]
    pub candidate: Candidate,
    /// In the order of the workloads.
    pub workloads: Vec<Figures>,
}

impl Measured {
    /// Whether it kept the goal in every workload.
    pub fn kept(&self) -> bool {
        !self.workloads.is_empty() && self.workloads.iter().all(|one| one.kept)
    }

    fn cores(&self) -> f64 {
        self.workloads.iter().map(|one| one.cores).sum()
    }

    fn worst_p99_ms(&self) -> f64 {
        self.workloads.iter().map(|one| one.p99_ms).fold(0.0, f64::max)
    }

    /// The least share of the best rate of any workload.
    fn worst_share(&self, best: &[f64]) -> f64 {
        let shares = self.workloads.iter().zip(best).map(|(one, best)| one.rate / best.max(1e-9));
        shares.fold(f64::INFINITY, f64::min)
    }
}

/// The candidates by number, the best one first; none of none.
pub fn order(measured: &[Measured], aim: Aim) -> Vec<usize> {
    let is_kept = measured.iter().any(Measured::kept);
    let counted: Vec<(usize, &Measured)> =
        measured.iter().enumerate().filter(|(_, one)| one.kept() || !is_kept).collect();
    let best = best_rates(&counted);
    // Less is better.
    let figure = |one: &Measured| match aim {
        _ if !is_kept => one.worst_p99_ms(),
        Aim::Rate => -one.worst_share(&best),
        Aim::Cost => one.cores(),
    };
    let by_figure = |all: &mut Vec<(usize, &Measured)>| {
        all.sort_by(|(_, a), (_, b)| figure(a).total_cmp(&figure(b)));
    };
    let mut ranked = counted;
    by_figure(&mut ranked);
    let Some(least) = ranked.first().map(|(_, one)| figure(one)) else { return Vec::new() };
    let as_good = |one: &Measured| figure(one) <= least + AS_GOOD * least.abs();
    let leanest = ranked.iter().filter(|(_, one)| as_good(one)).min_by(|(_, a), (_, b)| {
        let lean = |one: &Measured| (one.candidate.shards, one.candidate.shares_with_load);
        lean(a).cmp(&lean(b)).then(a.cores().total_cmp(&b.cores()))
    });
    let first = leanest.map(|(number, _)| *number);
    let mut others: Vec<(usize, &Measured)> =
        measured.iter().enumerate().filter(|(_, one)| is_kept && !one.kept()).collect();
    others.sort_by(|(_, a), (_, b)| a.worst_p99_ms().total_cmp(&b.worst_p99_ms()));
    let rest =
        ranked.iter().chain(&others).map(|(number, _)| *number).filter(|number| Some(*number) != first);
    first.into_iter().chain(rest).collect()
}

/// The best rate of each workload.
fn best_rates(measured: &[(usize, &Measured)]) -> Vec<f64> {
    let workloads = measured.first().map_or(0, |(_, one)| one.workloads.len());
    let rates = |at: usize| measured.iter().filter_map(move |(_, one)| Some(one.workloads.get(at)?.rate));
    (0..workloads).map(|at| rates(at).fold(0.0, f64::max)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(shards: usize, workloads: &[(bool, f64, f64, f64)]) -> Measured {
        let figures = |(kept, rate, p99_ms, cores): &(bool, f64, f64, f64)| Figures {
            kept: *kept,
            rate: *rate,
            p99_ms: *p99_ms,
            cores: *cores,
            us_per_request: cores * 1e6 / rate,
        };
        Measured {
            candidate: Candidate { shards, cpus: (0..shards).collect(), shares_with_load: false },
            workloads: workloads.iter().map(figures).collect(),
        }
    }

    #[test]
    fn the_highest_rate_wins_and_fewer_shards_where_it_is_as_good() {
        let rates = |rates: [f64; 3]| {
            let all = [1, 2, 4].into_iter().zip(rates);
            let all: Vec<Measured> =
                all.map(|(shards, rate)| one(shards, &[(true, rate, 4.0, 1.0)])).collect();
            order(&all, Aim::Rate)
        };
        assert_eq!(rates([10_000.0, 18_000.0, 30_000.0]), [2, 1, 0]);
        assert_eq!(rates([10_000.0, 29_500.0, 30_000.0]), [1, 2, 0], "within the precision");
        assert_eq!(rates([29_000.0, 28_000.0, 30_000.0]), [0, 2, 1]);
    }

    #[test]
    fn several_workloads_count_by_the_one_that_suffers_most() {
        let all = [
            one(1, &[(true, 10_000.0, 4.0, 1.0), (true, 1_000.0, 4.0, 1.0)]),
            one(2, &[(true, 20_000.0, 4.0, 1.0), (true, 500.0, 4.0, 1.0)]),
            one(4, &[(true, 16_000.0, 4.0, 1.0), (true, 900.0, 4.0, 1.0)]),
        ];
        assert_eq!(order(&all, Aim::Rate), [2, 0, 1]);
    }

    #[test]
    fn at_a_given_rate_the_cheapest_that_keeps_the_goal_wins() {
        let all = [
            one(1, &[(false, 9_000.0, 80.0, 0.9)]),
            one(2, &[(true, 10_000.0, 3.0, 0.8)]),
            one(4, &[(true, 10_000.0, 1.0, 1.4)]),
        ];
        assert_eq!(order(&all, Aim::Cost), [1, 2, 0]);
    }

    #[test]
    fn a_candidate_that_misses_the_goal_in_one_workload_comes_behind_all_that_keep_it() {
        let all = [
            one(1, &[(true, 90_000.0, 4.0, 1.0), (false, 90_000.0, 6.0, 1.0)]),
            one(2, &[(true, 10.0, 4.0, 1.0), (true, 10.0, 4.0, 1.0)]),
        ];
        assert_eq!(order(&all, Aim::Rate), [1, 0]);
        assert!(!all.first().is_some_and(Measured::kept));
    }

    #[test]
    fn where_nobody_keeps_the_goal_the_lowest_tail_comes_first() {
        let all = [
            one(1, &[(false, 100.0, 9.0, 1.0)]),
            one(2, &[(false, 100.0, 7.0, 1.0)]),
            one(3, &[(false, 1.0, 8.0, 1.0)]),
        ];
        for aim in [Aim::Rate, Aim::Cost] {
            assert_eq!(order(&all, aim), [1, 2, 0]);
        }
        assert!(order(&[], Aim::Rate).is_empty());
    }
}

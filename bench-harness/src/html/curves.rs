//! The figures that a page's script draws, as JSON that may stand inside a script element: time series thinned to what
//! a screen can show, and the percentile curves.

use anyhow::Result;
use serde_json::{Value, json};

use super::{View, display};
use crate::meter::Latencies;
use crate::report::{Report, Row};
use crate::samples::{Series, ShardSeries};
use crate::trial::Measurement;

/// No series of a page has more samples.
const SAMPLES_MAX: usize = 240;
/// A point of a curve is left out when the last one was this close on both axes (powers of ten).
const CLOSE: f64 = 0.012;

/// The JSON of the page.
pub fn data(view: &View<'_>) -> Result<String> {
    let contenders: Vec<Value> =
        view.seats.iter().map(|seat| json!({ "name": display(&seat.one.name), "slot": seat.slot })).collect();
    let workloads = view.report.workloads.iter().map(|row| workload(view, row));
    let workloads = workloads.collect::<Result<Vec<Value>>>()?;
    let text = serde_json::to_string(&json!({ "contenders": contenders, "workloads": workloads }))?;
    // JSON knows no tags, but the page that it stands in ends a script at the first closing one.
    Ok(text.replace('<', "\\u003c"))
}

fn workload(view: &View<'_>, row: &Row) -> Result<Value> {
    let (mut runs, mut curves) = (Vec::new(), Vec::new());
    for (contender, seat) in view.seats.iter().enumerate() {
        let name = &seat.one.name;
        let middle = middle(view.report, row, name);
        for (turn, run) in view.report.runs_of(&row.name, name).enumerate() {
            let series = serde_json::to_value(thinned(&run.series))?;
            runs.push(json!({ "contender": contender, "middle": turn == middle, "series": series }));
        }
        let points = points(&view.report.latencies(&row.name, name));
        if !points.is_empty() {
            curves.push(json!({ "contender": contender, "points": points }));
        }
    }
    Ok(json!({ "runs": runs, "curves": curves }))
}

/// Which run of a contender has the middle value of the judged figure.
fn middle(report: &Report, row: &Row, contender: &str) -> usize {
    let value = |run: &Measurement| run.figure(row.figure).unwrap_or(0.0);
    let mut values: Vec<(usize, f64)> = report.runs_of(&row.name, contender).map(value).enumerate().collect();
    values.sort_by(|a, b| a.1.total_cmp(&b.1));
    values.get(values.len().saturating_sub(1) / 2).map_or(0, |(turn, _)| *turn)
}

/// Pairs of how far into the tail a share of answers lies (0 none, 1 at 90 %, 2 at 99 %) and their microseconds.
fn points(latencies: &Latencies) -> Vec<(f64, f64)> {
    let total = latencies.total() as f64;
    let (mut below, mut points) = (0.0, Vec::<(f64, f64)>::new());
    let pairs = latencies.pairs();
    let last = pairs.len().saturating_sub(1);
    for (at, (us, count)) in pairs.into_iter().enumerate() {
        // A bucket stands in the middle of the answers in it; the first one also at the curve's beginning.
        let middle = below + count as f64 / 2.0;
        below += count as f64;
        if points.is_empty() {
            points.push((0.0, us));
        }
        let point = ((total / (total - middle)).log10(), us);
        let close = points
            .last()
            .is_some_and(|(depth, before)| point.0 - depth < CLOSE && (us / before).log10() < CLOSE);
        if !close || at == last {
            points.push(((point.0 * 1e4).round() / 1e4, us));
        }
    }
    points
}

/// The mean of each few values.
fn means(values: &[f64], step: usize) -> Vec<f64> {
    let mean = |few: &[f64]| few.iter().sum::<f64>() / few.len() as f64;
    values
        .chunks(step)
        .map(|few| if step == 1 { mean(few) } else { (mean(few) * 1e4).round() / 1e4 })
        .collect()
}

fn highest(values: &[f64], step: usize) -> Vec<f64> {
    values.chunks(step).map(|few| few.iter().copied().fold(0.0, f64::max)).collect()
}

fn longest(values: &[Option<f64>], step: usize) -> Vec<Option<f64>> {
    values.chunks(step).map(|few| few.iter().flatten().copied().reduce(f64::max)).collect()
}

/// A series of few samples: rates and shares as means, latencies, lag and memory as the highest of those that become
/// one.
fn thinned(series: &Series) -> Series {
    let step = series.at_s.len().div_ceil(SAMPLES_MAX).max(1);
    let shard =
        |shard: &ShardSeries| ShardSeries { name: shard.name.clone(), busy: means(&shard.busy, step) };
    Series {
        at_s: series.at_s.chunks(step).filter_map(|few| few.last().copied()).collect(),
        requests_per_s: means(&series.requests_per_s, step),
        produced_records_per_s: Vec::new(),
        produced_mb_per_s: means(&series.produced_mb_per_s, step),
        consumed_records_per_s: Vec::new(),
        consumed_mb_per_s: means(&series.consumed_mb_per_s, step),
        p50_us: longest(&series.p50_us, step),
        p99_us: longest(&series.p99_us, step),
        p999_us: longest(&series.p999_us, step),
        max_us: longest(&series.max_us, step),
        end_to_end_p50_us: longest(&series.end_to_end_p50_us, step),
        end_to_end_p99_us: longest(&series.end_to_end_p99_us, step),
        end_to_end_p999_us: longest(&series.end_to_end_p999_us, step),
        lag_records: highest(&series.lag_records, step),
        broker_cores: means(&series.broker_cores, step),
        resident_mb: highest(&series.resident_mb, step),
        others_cores: means(&series.others_cores, step),
        shards: series.shards.iter().map(shard).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::report::tests::small;

    #[test]
    fn a_curve_begins_at_the_least_and_ends_at_the_longest() {
        let curve = points(&Latencies::from_pairs(&[(49.151, 900), (90.111, 99), (1245.183, 1)]));
        assert_eq!(curve.first(), Some(&(0.0, 49.151)));
        assert_eq!(curve.last(), Some(&(3.301, 1245.183)), "half of one in a thousand is above");
        assert!(curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        assert!(points(&Latencies::default()).is_empty());
    }

    #[test]
    fn a_long_series_is_thinned_and_keeps_its_tails() {
        let count = 10 * SAMPLES_MAX;
        let mut series = Series {
            at_s: (0..count).map(|at| at as f64).collect(),
            requests_per_s: (0..count).map(|at| (at % 2) as f64).collect(),
            max_us: vec![Some(1.0); count],
            ..Series::default()
        };
        *series.max_us.get_mut(77).unwrap() = Some(5000.0);
        let thin = thinned(&series);
        assert_eq!((thin.at_s.len(), thin.at_s.last()), (SAMPLES_MAX, Some(&(count as f64 - 1.0))));
        assert!(thin.requests_per_s.iter().all(|rate| *rate == 0.5));
        assert_eq!(thin.max_us.iter().filter(|longest| **longest == Some(5000.0)).count(), 1);
        let few = small().runs.first().unwrap().series.clone();
        assert_eq!(thinned(&few), few);
    }

    #[test]
    fn the_middle_run_is_the_one_with_the_middle_figure() {
        let mut report = small();
        let row = report.workloads.first().unwrap().clone();
        let third = report.runs.first().unwrap().clone();
        report.runs.push(third);
        for (run, cost) in report
            .runs
            .iter_mut()
            .filter(|run| run.workload == row.name && run.contender == "kafka")
            .zip([9.0, 1.0, 5.0])
        {
            run.broker.as_mut().unwrap().us_per_request = cost;
        }
        assert_eq!(middle(&report, &row, "kafka"), 2);
    }
}

//! The curves of a walk: each figure over the values of the parameter that was walked, as plain SVG, so that they are
//! there without a script. With two parameters each value of the first is a line of its own.

use std::fmt::Write;

use super::bars::ticks;
use super::{View, display, escape, section};
use crate::figures::{self, Column};
use crate::report::{Report, Row, Spread};

/// The size of a chart, and the room around its plot: left, right, top, bottom.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 210.0;
const ROOM: (f64, f64, f64, f64) = (62.0, 16.0, 10.0, 24.0);
/// Colours that lines take in turn.
const SLOTS: [usize; 6] = [2, 0, 3, 4, 5, 1];
/// The figures that have a curve wherever they were measured: the rest stands in the table.
const HEADS: [&str; 14] = [
    "CPU µs/request",
    "requests/s",
    "p50",
    "p99",
    "resident MB",
    "idle, % of a core",
    "idle after the load",
    "topics made in",
    "kB a partition",
    "kB a new connection",
    "MB after the load",
    "stop",
    "start until all is served",
    "after kill -9",
];

/// A line: its name, and the places and spreads of its points.
type Line = (String, Vec<(f64, Spread)>);

/// Where values lie along an axis, from 0 to 1: by their logarithm where all are numbers, else one after the other.
fn places(values: &[&str]) -> Vec<f64> {
    let numbers: Vec<f64> = values.iter().filter_map(|value| value.parse::<f64>().ok()).collect();
    let is_numeric = numbers.len() == values.len() && numbers.iter().all(|number| *number > 0.0);
    let logs: Vec<f64> = match is_numeric {
        true => numbers.iter().map(|number| number.ln()).collect(),
        false => (0..values.len()).map(|at| at as f64).collect(),
    };
    let (least, most) = logs.iter().fold((f64::MAX, f64::MIN), |(a, b), log| (a.min(*log), b.max(*log)));
    logs.iter().map(|log| if most > least { (log - least) / (most - least) } else { 0.5 }).collect()
}

/// The value of a row's parameter.
fn value(row: &Row, at: usize) -> &str {
    row.parameters.get(at).map_or("", |(_, value)| value.as_str())
}

fn unique<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

fn lines(report: &Report, column: &Column) -> (Vec<String>, Vec<Line>) {
    let last = report.parameters().len().saturating_sub(1);
    let values = unique(report.workloads.iter().map(|row| value(row, last)));
    let places = places(&values);
    let names = match last {
        0 => vec![""],
        _ => unique(report.workloads.iter().map(|row| value(row, 0))),
    };
    let line = |name: &&str| {
        let points = report.workloads.iter().filter(|row| last == 0 || value(row, 0) == *name);
        let points = points.filter_map(|row| {
            let at = values.iter().position(|known| *known == value(row, last))?;
            Some((*places.get(at)?, report.spread(&row.name, report.base(), column.of)?))
        });
        let first = report.parameters().first().copied().unwrap_or_default();
        let name = if last == 0 { String::new() } else { format!("{first}={name}") };
        (name, points.collect())
    };
    (values.iter().map(|value| (*value).to_owned()).collect(), names.iter().map(line).collect())
}

/// The section, where the rows are points of a walk.
pub fn curves(view: &View<'_>, body: &mut String) {
    let report = view.report;
    let parameters = report.parameters();
    let Some(axis) = parameters.last() else { return };
    let explained = format!(
        "{} on {}: each figure over {}, medians with least and greatest turn. Scales of their own, from zero.",
        escape(report.workloads.first().and_then(|row| row.name.split(' ').next()).unwrap_or("")),
        escape(display(report.base())),
        escape(axis),
    );
    section("walk", &format!("Over {axis}"), &explained, body);
    if let Some(knee) = &report.knee {
        let rate = knee.rate.map_or("at no rate".to_owned(), |rate| {
            format!("up to {} requests/s", crate::markdown::scaled(rate))
        });
        let _ = writeln!(body, "<p>p99 stays within {} ms {rate}.</p>", knee.p99_bound_ms);
    }
    body.push_str("<div class=\"grid\">\n");
    for column in HEADS.iter().filter_map(|head| figures::all().find(|column| column.head == *head)) {
        let (values, lines) = lines(report, column);
        if lines.iter().any(|(_, points)| points.len() > 1) {
            chart(column, &values, &lines, body);
        }
    }
    body.push_str("</div>\n</section>\n");
}

fn chart(column: &Column, values: &[String], lines: &[Line], body: &mut String) {
    let (left, right, top, bottom) = ROOM;
    let highest =
        lines.iter().flat_map(|(_, points)| points).map(|(_, spread)| spread.max).fold(0.0, f64::max);
    let (end, marks) = ticks(highest.max(1e-9));
    let across = |place: f64| left + place * (WIDTH - left - right);
    let up = |value: f64| HEIGHT - bottom - (value / end).clamp(0.0, 1.0) * (HEIGHT - top - bottom);
    let _ = write!(
        body,
        "<figure><figcaption>{}</figcaption><svg class=\"walk\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">",
        escape(column.head)
    );
    for mark in marks {
        let y = up(mark);
        let label = if mark == 0.0 { "0".to_owned() } else { (column.write)(mark) };
        let _ = write!(
            body,
            "<path class=\"gridline\" d=\"M{left} {y:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - right,
            left - 6.0,
            y + 4.0,
            escape(&label),
        );
    }
    let words: Vec<&str> = values.iter().map(String::as_str).collect();
    for (value, place) in words.iter().zip(places(&words)) {
        let _ = write!(
            body,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            across(place),
            HEIGHT - 6.0,
            escape(value),
        );
    }
    for ((name, points), slot) in lines.iter().zip(SLOTS.iter().cycle()) {
        line(name, points, *slot, (&across, &up), body);
    }
    body.push_str("</svg></figure>\n");
}

type Scale<'a> = &'a dyn Fn(f64) -> f64;

fn line(
    name: &str,
    points: &[(f64, Spread)],
    slot: usize,
    (across, up): (Scale<'_>, Scale<'_>),
    body: &mut String,
) {
    let mut sorted = points.to_vec();
    sorted.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let corners: Vec<String> = sorted
        .iter()
        .map(|(place, spread)| format!("{:.1},{:.1}", across(*place), up(spread.median)))
        .collect();
    let _ = write!(body, "<g class=\"s{slot}\"><polyline points=\"{}\"/>", corners.join(" "));
    for (place, spread) in &sorted {
        let (x, y) = (across(*place), up(spread.median));
        if spread.max > spread.min {
            let _ = write!(body, "<path d=\"M{x:.1} {:.1}V{:.1}\"/>", up(spread.min), up(spread.max));
        }
        let _ = write!(body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
    }
    if let Some((place, spread)) = sorted.last().filter(|_| !name.is_empty()) {
        let _ = write!(
            body,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            across(*place),
            up(spread.median) - 7.0,
            escape(name),
        );
    }
    body.push_str("</g>");
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::html::page;
    use crate::report::tests::walked;

    #[test]
    fn numbers_lie_by_their_logarithm_and_words_one_after_the_other() {
        let close = |found: &[f64], due: &[f64]| found.iter().zip(due).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close(&places(&["10", "100", "1000"]), &[0.0, 0.5, 1.0]));
        assert!(close(&places(&["all", "1", "0"]), &[0.0, 0.5, 1.0]));
        assert!(close(&places(&["7"]), &[0.5]));
    }

    #[test]
    fn a_walk_has_a_curve_for_each_figure_that_was_measured() {
        let report = walked();
        let page = page(&report).unwrap();
        assert!(page.contains("<section id=\"walk\">") && page.contains("Over connections"));
        assert!(page.contains("<figcaption>CPU µs/request</figcaption><svg class=\"walk\""));
        assert!(page.contains("kB a new connection") && !page.contains("after kill -9"), "nobody was killed");
        let (_, lines) = lines(&report, &figures::LOAD[7]);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].1.len(), 3);
        assert!(page.contains("Tidemill 4.3.1, walked over connections"));
    }

    #[test]
    fn two_parameters_give_a_line_for_each_value_of_the_first() {
        let mut report = walked();
        for (row, shards) in report.workloads.iter_mut().zip(["1", "2", "2"]) {
            row.parameters.insert(0, ("shards".to_owned(), shards.to_owned()));
        }
        let (values, lines) = lines(&report, &figures::LOAD[7]);
        let told: Vec<_> = lines.iter().map(|(name, points)| (name.as_str(), points.len())).collect();
        assert_eq!((values.len(), told), (3, vec![("shards=1", 1), ("shards=2", 2)]));
    }
}

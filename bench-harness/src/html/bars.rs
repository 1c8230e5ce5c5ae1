//! The bars of a page: how many times less, what a request and a byte cost, and memory.

use std::fmt::Write;

use super::{Seat, View, display, escape, section};
use crate::markdown::short;
use crate::report::{Report, Row, Spread};
use crate::trial::Measurement;

/// What is read from a run.
type Value = fn(&Measurement) -> Option<f64>;

/// How wide something is on an axis from zero to `end`, in percent.
fn along(value: f64, end: f64) -> f64 {
    (value / end * 100.0).clamp(0.0, 100.0)
}

/// The ticks of an axis from zero to a little above the highest value: at most seven, at round distances.
pub(super) fn ticks(highest: f64) -> (f64, Vec<f64>) {
    let power = 10f64.powf((highest.max(1e-9) / 6.0).log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| highest / step <= 6.0);
    let step = step.unwrap_or(10.0 * power);
    // Rounded, or the label of the third fifth would be 0.6000000000000001.
    let tick = |count: i32| (f64::from(count) * step * 1e6).round() / 1e6;
    (highest * 1.04, (0..=6).map(tick).filter(|tick| *tick <= highest).collect())
}

/// The headline: for each workload a bar of the ratio, with its spread and its goal.
pub fn ratios(view: &View<'_>, body: &mut String) {
    let (Some(base), Some(primary)) = (view.seats.first(), view.primary()) else { return };
    let (report, name) = (view.report, display(&primary.one.name));
    let others: Vec<&Seat<'_>> =
        view.seats.iter().skip(1).filter(|seat| seat.one.name != primary.one.name).collect();
    let base = display(&base.one.name);
    let explained = format!(
        "{}’s figure divided by {}’s, within each turn; longer is better. The figure is the broker’s own CPU, or what the row \
         says.",
        escape(base),
        escape(name),
    );
    section("ratios", &format!("How many times less than {base}"), &explained, body);
    legend(view, primary, &others, body);
    let all = report.workloads.iter().flat_map(|row| {
        let ratios = view.seats.iter().skip(1).filter_map(|seat| report.ratio(row, &seat.one.name));
        ratios.map(|ratio| ratio.max).chain(row.goal)
    });
    let (end, ticks) = ticks(all.fold(1.2, f64::max));
    body.push_str("<div class=\"ratios\">\n");
    for row in &report.workloads {
        ratio_row(report, row, primary, &others, (end, &ticks), body);
    }
    body.push_str("<div class=\"blank\"></div><div class=\"track axis\" aria-hidden=\"true\">");
    for tick in &ticks {
        let label = if *tick == 0.0 { "0".to_owned() } else { format!("{tick}×") };
        let _ = write!(body, "<span style=\"left:{:.2}%\">{label}</span>", along(*tick, end));
    }
    body.push_str("</div><div class=\"blank\"></div>\n</div>\n");
    tiles(view, primary, body);
    body.push_str("</section>\n");
}

fn legend(view: &View<'_>, primary: &Seat<'_>, others: &[&Seat<'_>], body: &mut String) {
    let _ = write!(
        body,
        "<ul class=\"legend\"><li class=\"s{}\"><span class=\"swatch\"></span>{}</li>",
        primary.slot,
        escape(display(&primary.one.name)),
    );
    for seat in others {
        let note =
            if seat.one.name == "floor" { " (a minimal program: parse, check, write, answer)" } else { "" };
        let name = escape(display(&seat.one.name));
        let slot = seat.slot;
        let _ = write!(body, "<li class=\"s{slot}\"><span class=\"swatch thin\"></span>{name}{note}</li>");
    }
    let base = view.seats.first().map_or("", |seat| display(&seat.one.name));
    let _ = write!(body, "<li><span class=\"level\"></span>as {}</li>", escape(base));
    if view.report.settings.turns > 1 {
        body.push_str("<li><span class=\"reach\"></span>least to greatest turn</li>");
    }
    if view.report.workloads.iter().any(|row| row.goal.is_some()) {
        body.push_str("<li><span class=\"mark\"></span>goal</li>");
    }
    body.push_str("</ul>\n");
}

fn ratio_row(
    report: &Report,
    row: &Row,
    primary: &Seat<'_>,
    others: &[&Seat<'_>],
    (end, ticks): (f64, &[f64]),
    body: &mut String,
) {
    let unit = row.figure.unit();
    let _ = write!(
        body,
        "<div class=\"label\">{}<small>{unit}</small></div><div class=\"track\">",
        escape(&row.title)
    );
    for tick in ticks {
        let _ = write!(body, "<span class=\"tick\" style=\"left:{:.2}%\"></span>", along(*tick, end));
    }
    let ratio = report.ratio(row, &primary.one.name);
    let _ = write!(body, "<span class=\"one\" style=\"left:{:.2}%\"></span>", along(1.0, end));
    if let Some(ratio) = &ratio {
        let _ = write!(
            body,
            "<span class=\"bar s{}\" style=\"width:{:.2}%\"></span>",
            primary.slot,
            along(ratio.median, end)
        );
        if ratio.max > ratio.min {
            let (from, to) = (along(ratio.min, end), along(ratio.max, end));
            let _ = write!(
                body,
                "<span class=\"whisker\" style=\"left:{from:.2}%;width:{:.2}%\"></span>",
                to - from
            );
        }
    }
    for seat in others {
        if let Some(ratio) = report.ratio(row, &seat.one.name) {
            let (slot, width) = (seat.slot, along(ratio.median, end));
            let _ = write!(body, "<span class=\"bar thin s{slot}\" style=\"width:{width:.2}%\"></span>");
        }
    }
    if let Some(goal) = row.goal {
        let _ = write!(body, "<span class=\"goal\" style=\"left:{:.2}%\"></span>", along(goal, end));
    }
    let _ = writeln!(body, "</div><div class=\"value\">{}</div>", ratio_text(ratio, row.goal));
}

/// A ratio in two digits, which is what a spread over turns allows; in three where two would hide on which side of its
/// goal it is.
pub fn times(ratio: f64, goal: Option<f64>) -> String {
    let rounded = (ratio * 10.0).round() / 10.0;
    match goal.is_some_and(|goal| (rounded >= goal) != (ratio >= goal)) {
        true => short(ratio),
        // A little less than as much is not as much.
        false if ratio < 0.995 => short(ratio),
        false if ratio >= 10.0 => format!("{ratio:.0}"),
        false => format!("{ratio:.1}"),
    }
}

fn ratio_text(ratio: Option<Spread>, goal: Option<f64>) -> String {
    let Some(ratio) = ratio else { return "<small>not measured</small>".to_owned() };
    let mut text = format!("<b>{}×</b>", times(ratio.median, goal));
    if let Some(goal) = goal {
        let _ = match ratio.median >= goal {
            true => write!(text, " <span class=\"good\">✓ goal {goal}</span>"),
            false => write!(text, " <span class=\"bad\">✗ goal {goal}</span>"),
        };
    }
    if ratio.max > ratio.min {
        let _ = write!(text, "<small>turns {}–{}</small>", times(ratio.min, None), times(ratio.max, None));
    }
    text
}

/// Memory and start: one tile each.
fn tiles(view: &View<'_>, primary: &Seat<'_>, body: &mut String) {
    let (report, Some(base)) = (view.report, view.seats.first()) else { return };
    let goals = report.goals.as_ref();
    let tiles = [
        (
            "memory, the most under these loads",
            report.resident_peak(&base.one.name).zip(report.resident_peak(&primary.one.name)),
            (1e6, "MB"),
            goals.map(|goals| goals.loaded_mb),
        ),
        (
            "memory, just started",
            base.one.resident_at_start().zip(primary.one.resident_at_start()),
            (1e6, "MB"),
            goals.map(|goals| goals.started_mb),
        ),
        (
            "start until it answers",
            base.one.start_up().zip(primary.one.start_up()),
            (1e-3, "ms"),
            goals.map(|goals| goals.start_up_ms),
        ),
    ];
    body.push_str("<ul class=\"tiles\">\n");
    for (title, both, (scale, unit), goal) in tiles {
        let Some((theirs, ours)) = both else { continue };
        let (theirs, ours) = (theirs / scale, ours / scale);
        let _ = write!(
            body,
            "<li><span>{title}</span><b>{} {unit}</b><span class=\"soft\">{}: {} {unit}, {} times that</span>",
            short(ours),
            escape(display(&base.one.name)),
            short(theirs),
            times(theirs / ours.max(1e-9), None),
        );
        if let Some(goal) = goal {
            let (class, mark) = if ours <= goal { ("good", "✓") } else { ("bad", "✗") };
            let _ = write!(body, "<span class=\"{class}\">{mark} goal at most {goal} {unit}</span>");
        }
        body.push_str("</li>\n");
    }
    body.push_str("</ul>\n");
}

/// CPU for a request and for a GB, and memory: bars of all contenders side by side.
pub fn cost(view: &View<'_>, body: &mut String) {
    let explained = "What each contender’s process used, as medians over the turns; shorter is better. Each group has a scale of \
                     its own.";
    section("cpu", "CPU and memory", explained, body);
    let figures: [(&str, &str, Value); 2] = [
        ("CPU for a request", "µs", |run| Some(run.broker.as_ref()?.us_per_request)),
        ("CPU for a GB", "s", |run| Some(run.broker.as_ref()?.s_per_gb)),
    ];
    for (heading, unit, figure) in figures {
        let _ = writeln!(body, "<h3>{heading}</h3>\n<div class=\"grid narrow\">");
        for row in &view.report.workloads {
            let spread = |seat: &Seat<'_>| view.report.spread(&row.name, &seat.one.name, figure);
            group(view, &escape(&row.title), unit, spread, body);
        }
        body.push_str("</div>\n");
    }
    body.push_str("<h3>Memory and start</h3>\n<div class=\"grid narrow\">\n");
    let once = |value: Option<f64>| Spread::of(value.into_iter().collect());
    let peak = |seat: &Seat<'_>| once(view.report.resident_peak(&seat.one.name).map(|bytes| bytes / 1e6));
    group(view, "resident memory, the most under these loads", "MB", peak, body);
    let started = |seat: &Seat<'_>| once(seat.one.resident_at_start().map(|bytes| bytes / 1e6));
    group(view, "resident memory, just started", "MB", started, body);
    let start = |seat: &Seat<'_>| once(seat.one.start_up().map(|seconds| seconds * 1e3));
    group(view, "start until it answers", "ms", start, body);
    body.push_str("</div>\n</section>\n");
}

fn group(
    view: &View<'_>,
    title: &str,
    unit: &str,
    spread: impl Fn(&Seat<'_>) -> Option<Spread>,
    body: &mut String,
) {
    let known: Vec<(&Seat<'_>, Spread)> =
        view.seats.iter().filter_map(|seat| Some((seat, spread(seat)?))).collect();
    let highest = known.iter().map(|(_, spread)| spread.median).fold(0.0, f64::max);
    if highest <= 0.0 {
        return;
    }
    let _ = write!(body, "<figure class=\"bars\"><figcaption>{title}</figcaption>");
    for (seat, spread) in known {
        let turns = if spread.max > spread.min {
            format!(" <small>{}–{}</small>", short(spread.min), short(spread.max))
        } else {
            String::new()
        };
        let _ = write!(
            body,
            "<div class=\"row s{}\"><span>{}</span><span class=\"fill\"><i style=\"width:{:.1}%\"></i>{} {unit}{turns}</span></div>",
            seat.slot,
            escape(display(&seat.one.name)),
            // Room for the longest bar's figure.
            along(spread.median, highest) * 0.5,
            short(spread.median),
        );
    }
    body.push_str("</figure>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::small;

    #[test]
    fn an_axis_has_a_few_round_ticks() {
        assert_eq!(ticks(8.5).1, [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(
            ticks(1.2).1,
            [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2].map(|tick: f64| (tick * 5.0).round() / 5.0)
        );
        assert!(ticks(57.0).1.len() <= 7 && ticks(57.0).0 > 57.0);
    }

    #[test]
    fn a_ratio_below_its_goal_says_so_in_words() {
        let ratio = Some(Spread { median: 2.76, min: 2.09, max: 3.44 });
        let text = ratio_text(ratio, Some(3.5));
        assert!(
            text.contains("2.8×") && text.contains("✗ goal 3.5") && text.contains("turns 2.1–3.4"),
            "{text}"
        );
        assert!(ratio_text(ratio, Some(2.8)).contains("<b>2.76×</b>"));
        assert!(ratio_text(ratio, Some(2.0)).contains("✓ goal 2"));
        assert!(!ratio_text(ratio, None).contains("goal"));
        assert_eq!([times(0.96, None), times(0.996, None), times(57.2, None)], ["0.96", "1.0", "57"]);
        assert!(ratio_text(None, Some(2.0)).contains("not measured"));
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let report = small();
        let (view, mut body) = (View::new(&report), String::new());
        cost(&view, &mut body);
        // 40, 4 and 5 µs a request: the longest takes half of the room.
        for part in ["width:50.0%\"></i>40.0 µs <small>30.0–50.0</small>", "width:5.0%", "width:6.2%"] {
            assert!(body.contains(part), "{part} in {body}");
        }
    }
}

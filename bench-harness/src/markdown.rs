//! Results as people read them in a terminal or a document: two lines for each run, and the table of a comparison in
//! Markdown.

use std::fmt::Write;

use crate::figures::{self, Column};
use crate::host::{Build, Layout, Machine};
use crate::report::{Report, Row, Spread};
use crate::trial::{Latency, Measurement};
use crate::workload::Figure;

/// Three significant digits.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A count with k or M.
pub fn scaled(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", short(value / 1e6)),
        value if value >= 1e4 => format!("{}k", short(value / 1e3)),
        value => format!("{value:.0}"),
    }
}

/// One run in two lines.
pub fn run_lines(run: &Measurement) -> String {
    // Foreign clients do not tell their requests.
    let by_record = run.requests == 0;
    let requests = if by_record { "–".to_owned() } else { scaled(run.request_rate()) };
    let mut text = format!(
        "{:<22} {:<8} {requests:>7} requests/s  {:>7} records/s  {:>8} MB/s",
        run.workload,
        run.contender,
        scaled(run.record_rate()),
        short(run.megabytes_a_second()),
    );
    if let Some(latency) = &run.latency_us {
        let _ = write!(text, "\n  latency µs: {}", percentiles(latency));
    }
    if let Some(latency) = &run.end_to_end_us {
        let _ = write!(text, "\n  end to end µs: {}", percentiles(latency));
    }
    if run.read.requests > 0 {
        let (rate, read) = (run.read.records as f64 / run.seconds, run.read.bytes as f64 / run.seconds / 1e6);
        let _ = write!(text, "\n  read: {} records/s  {} MB/s", scaled(rate), short(read));
    }
    if let Some(share) = &run.broker {
        let (each, unit) =
            if by_record { (share.us_per_record, "record") } else { (share.us_per_request, "request") };
        let _ = write!(
            text,
            "\n  broker: {} µs CPU/{unit}, {} s CPU/GB (user {:.2} s, kernel {:.2} s), {} MB resident, {} MB at most",
            short(each),
            short(share.s_per_gb),
            share.user_s,
            share.system_s,
            share.resident_bytes / 1_000_000,
            share.resident_peak_bytes / 1_000_000,
        );
    }
    let _ = match run.batches_checked {
        0 => write!(text, "\n  checked: the number of records, 0 errors"),
        batches => write!(text, "\n  checked: {batches} batches read back equal, 0 errors"),
    };
    if run.records_deleted > 0 {
        let _ = write!(text, "; {} records were deleted meanwhile", run.records_deleted);
    }
    text
}

fn percentiles(latency: &Latency) -> String {
    format!(
        "p50 {} p90 {} p99 {} p99.9 {} max {}",
        short(latency.p50),
        latency.p90.map_or("–".to_owned(), short),
        short(latency.p99),
        short(latency.p999),
        short(latency.max),
    )
}

/// Where and how, as the first lines of Markdown.
pub fn heading(machine: &Machine, build: &Build, layout: Layout) -> String {
    let mut text = format!("Date: {}. Layout: **{}**.\n", machine.date, layout.name());
    let _ = writeln!(text, "Machine: {}.", machine.sentence());
    let _ = writeln!(text, "Commit: {}. Command: `{}`.\n", build.commit, machine.command);
    text
}

/// Markdown: where and how, one row for each workload, memory and start.
pub fn table(report: &Report) -> String {
    let mut text = heading(&report.machine, &report.build, report.settings.layout);
    if !report.parameters().is_empty() {
        walk(report, &mut text);
        return text;
    }
    let (others, base) = (report.contenders.get(1..).unwrap_or(&[]), report.base());
    let with_goals = report.workloads.iter().any(|row| row.goal.is_some());
    let mut header = format!("| workload | {base} |");
    for other in others {
        let _ = write!(header, " {} | {base} ÷ {} (min–max) |", other.name, other.name);
    }
    let goal = if with_goals { " goal |" } else { "" };
    let rule = "|---".repeat(2 + 2 * others.len() + usize::from(with_goals));
    let _ = writeln!(text, "{header}{goal}\n{rule}|");
    for row in &report.workloads {
        if report.values(row, base).is_empty() {
            continue;
        }
        let _ = write!(text, "| {} | {} |", row.title, cell(report, row, base));
        for other in others {
            let ratio = report.ratio(row, &other.name).map_or("–".to_owned(), |ratio| {
                format!("**{}** ({}–{})", short(ratio.median), short(ratio.min), short(ratio.max))
            });
            let _ = write!(text, " {} | {ratio} |", cell(report, row, &other.name));
        }
        if with_goals {
            let _ = write!(text, " {} |", row.goal.map_or(String::new(), |goal| format!("≥ {goal}")));
        }
        text.push('\n');
    }
    memory_rows(report, with_goals, &mut text);
    limit_lines(report, &mut text);
    text
}

/// The last two columns of a walk: the ends of the CPU of a request, and its multiple of the first point's.
const CPU_SPREAD: &str = "CPU (min–max) | CPU ÷ the first (min–max)";

fn us_per_request(run: &Measurement) -> Option<f64> {
    Some(run.broker.as_ref()?.us_per_request)
}

/// CPU for a request as a multiple of the first point's in the same turn: the median, least and greatest.
fn against_first(report: &Report, row: &Row) -> String {
    let of =
        |row: &Row| report.runs_of(&row.name, report.base()).filter_map(us_per_request).collect::<Vec<f64>>();
    let firsts = report.workloads.first().map(of).unwrap_or_default();
    let pairs = of(row).into_iter().zip(firsts).filter(|(_, first)| *first > 0.0);
    Spread::of(pairs.map(|(cost, first)| cost / first).collect()).map_or("–".to_owned(), |ratio| {
        format!("**{:.2}** ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max)
    })
}

/// A row for each point of a walk or rate of a search, with every figure that was measured.
fn walk(report: &Report, text: &mut String) {
    let (names, broker) = (report.parameters(), report.base());
    let workload = report.workloads.first().and_then(|row| row.name.split(' ').next()).unwrap_or("");
    if let Some(knee) = &report.knee {
        let rate = |rate: Option<f64>| rate.map_or("none".to_owned(), scaled);
        let (within, above) = (rate(knee.rate), rate(knee.rate_above));
        let bound = knee.p99_bound_ms;
        let _ = writeln!(text, "**{workload} on {broker}: p99 within {bound} ms up to {within} requests/s**");
        let _ = writeln!(text, "(the lowest rate that left it: {above}).\n");
    } else {
        let _ = writeln!(text, "Workload: {workload}. Broker: {broker}. Turns: {}.\n", report.settings.turns);
    }
    let used = |column: &&Column| report.runs.iter().any(|run| (column.of)(run).is_some());
    let columns: Vec<&Column> = figures::all().filter(used).collect();
    let heads: Vec<&str> = columns.iter().map(|column| column.head).collect();
    let _ = writeln!(text, "| {} | {} | {CPU_SPREAD} |", names.join(" | "), heads.join(" | "));
    let _ = writeln!(text, "{}|", "|---".repeat(names.len() + columns.len() + 2));
    for row in &report.workloads {
        let values: Vec<&str> = row.parameters.iter().map(|(_, value)| value.as_str()).collect();
        let median = |column: &&Column| column.median(report.runs_of(&row.name, broker));
        let cells: Vec<String> = columns.iter().map(median).collect();
        let against = against_first(report, row);
        let cpu = report.spread(&row.name, broker, us_per_request);
        let cpu = cpu.map_or("–".to_owned(), |cpu| format!("({}–{})", short(cpu.min), short(cpu.max)));
        let _ = writeln!(text, "| {} | {} | {cpu} | {against} |", values.join(" | "), cells.join(" | "));
    }
}

/// The judged figure and the rate, as medians.
fn cell(report: &Report, row: &Row, contender: &str) -> String {
    let figure = Spread::of(report.values(row, contender));
    let rate = report.spread(&row.name, contender, |run| Some(run.rate(row.figure)));
    let (Some(figure), Some(rate)) = (figure, rate) else { return "–".to_owned() };
    let rate = if row.figure == Figure::CpuPerGb { short(rate.median) } else { scaled(rate.median) };
    let unit = row.figure.rate_unit();
    format!("{} {}, {rate} {unit}", short(figure.median), row.figure.unit())
}

fn memory_rows(report: &Report, with_goals: bool, text: &mut String) {
    let megabytes = |bytes: Option<f64>| bytes.map_or("–".to_owned(), |bytes| short(bytes / 1e6) + " MB");
    let mut rows = [
        "| memory, started".to_owned(),
        "| memory, the most under these loads".to_owned(),
        "| start until it answers".to_owned(),
    ];
    for (index, one) in report.contenders.iter().enumerate() {
        let cells = [
            megabytes(one.resident_at_start()),
            megabytes(report.resident_peak(&one.name)),
            one.start_up().map_or("–".to_owned(), |seconds| short(seconds * 1e3) + " ms"),
        ];
        for (row, cell) in rows.iter_mut().zip(cells) {
            let _ = write!(row, " | {cell}{}", if index == 0 { "" } else { " |" });
        }
    }
    let goals = report.goals.as_ref().filter(|_| with_goals).map(|goals| {
        [
            format!(" | ≤ {} MB", goals.started_mb),
            format!(" | ≤ {} MB", goals.loaded_mb),
            format!(" | ≤ {} ms", goals.start_up_ms),
        ]
    });
    for (row, goal) in rows.iter().zip(goals.unwrap_or_default()) {
        let _ = writeln!(text, "{row}{goal} |");
    }
}

fn limit_lines(report: &Report, text: &mut String) {
    if report.limits.is_empty() {
        return;
    }
    text.push_str("\n| limit of the machine, in the same run | | CPU |\n|---|---|---|\n");
    for limit in &report.limits {
        let cpu = limit.cpu_s_per_gb.map_or(String::new(), |cpu| format!("{} s/GB", short(cpu)));
        let _ = writeln!(text, "| {} | {} {} | {cpu} |", limit.title, short(limit.value), limit.unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::small;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([short(1234.5), short(12.34), short(1.234)], ["1234", "12.3", "1.23"]);
        assert_eq!([scaled(999.0), scaled(26_040.0), scaled(2.5e6)], ["999", "26.0k", "2.50M"]);
    }

    #[test]
    fn every_row_of_the_table_has_as_many_cells_as_its_head() {
        let text = table(&small());
        let (first, _) = text.split_once("\n\n| limit").unwrap_or((&text, ""));
        let rows: Vec<&str> = first.lines().filter(|line| line.starts_with('|')).collect();
        assert!(rows.len() > 5, "{text}");
        for row in &rows {
            assert_eq!(
                row.matches('|').count(),
                rows.first().map_or(0, |head| head.matches('|').count()),
                "{row}"
            );
        }
        assert!(text.contains("**8.00** (6.00–10.0)") && text.contains("≥ 6.5"), "{text}");
    }
}

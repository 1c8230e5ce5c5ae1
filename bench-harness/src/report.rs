//! Results as people read them, and as files: one line for each run, the table of a comparison in Markdown, and JSON.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::host::{Layout, Machine};
use crate::trial::Measurement;
use crate::workload::{self, Workload};

/// What is known of a contender besides its runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Contender {
    /// Its name.
    pub name: String,
    /// Seconds from the start of its process to its first answer, one for each start.
    pub start_up_s: Vec<f64>,
    /// Resident bytes after a second of rest, one for each start.
    pub resident_at_start_bytes: Vec<u64>,
}

/// A whole result file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Where and how.
    pub machine: Machine,
    /// Where broker and load ran.
    pub layout: Layout,
    /// In the order of the runs.
    pub contenders: Vec<Contender>,
    /// Every measured run, pair after pair.
    pub runs: Vec<Measurement>,
}

/// The middle, and the ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle value; of an even number, the mean of the middle two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// None of no values.
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Spread { median: (lower + upper) / 2.0, min, max })
    }
}

/// Three significant digits.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A count with k or M.
fn scaled(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", short(value / 1e6)),
        value if value >= 1e4 => format!("{}k", short(value / 1e3)),
        value => format!("{value:.0}"),
    }
}

/// One run in two lines.
pub fn run_lines(run: &Measurement) -> String {
    let latency = &run.latency_us;
    let mut text = format!(
        "{:<22} {:<8} {:>7} requests/s  {:>7} records/s  {:>8} MB/s\n",
        run.workload,
        run.contender,
        scaled(run.request_rate()),
        scaled(run.record_rate()),
        short(run.megabytes_a_second()),
    );
    let _ = write!(
        text,
        "  latency µs: p50 {} p90 {} p99 {} p99.9 {} max {}",
        short(latency.p50),
        short(latency.p90),
        short(latency.p99),
        short(latency.p999),
        short(latency.max),
    );
    if let Some(share) = &run.broker {
        let _ = write!(
            text,
            "\n  broker: {} µs CPU/request, {} s CPU/GB (user {:.2} s, kernel {:.2} s), {} MB resident, {} MB at most",
            short(share.us_per_request),
            short(share.s_per_gb),
            share.user_s,
            share.system_s,
            share.resident_bytes / 1_000_000,
            share.resident_peak_bytes / 1_000_000,
        );
    }
    let _ = write!(text, "\n  checked: {} batches read back equal, 0 errors", run.batches_checked);
    text
}

impl Report {
    fn values(&self, workload: &Workload, contender: &str) -> Vec<f64> {
        let of_both =
            self.runs.iter().filter(|run| run.workload == workload.name && run.contender == contender);
        of_both.filter_map(|run| run.figure(workload.figure)).collect()
    }

    fn rate(&self, workload: &Workload, contender: &str) -> Option<Spread> {
        let of_both =
            self.runs.iter().filter(|run| run.workload == workload.name && run.contender == contender);
        let by_volume = workload.figure == workload::Figure::CpuPerGb;
        let rate = |run: &Measurement| if by_volume { run.megabytes_a_second() } else { run.request_rate() };
        Spread::of(of_both.map(rate).collect())
    }

    /// How many times more the first contender needs than another, turn by turn.
    pub fn ratios(&self, workload: &Workload, other: &str) -> Vec<f64> {
        let first = self.contenders.first().map_or("", |first| first.name.as_str());
        let pairs = self.values(workload, first).into_iter().zip(self.values(workload, other));
        pairs.filter(|(_, cost)| *cost > 0.0).map(|(base, cost)| base / cost).collect()
    }

    /// Markdown: where and how, one row for each workload, memory and start.
    pub fn markdown(&self) -> String {
        let machine = &self.machine;
        let mut text = format!("Date: {}. Layout: **{}**.\n", machine.date, self.layout.name());
        let _ = writeln!(
            text,
            "Machine: {}, {} CPUs, {} GiB; Linux {}; {}; {}.",
            machine.processor,
            machine.cpus,
            machine.memory_gib,
            machine.kernel,
            machine.file_system,
            if machine.java.is_empty() { "no Java" } else { &machine.java },
        );
        let _ = writeln!(text, "Commit: {}. Command: `{}`.\n", machine.commit, machine.command);
        let (others, base) = (self.contenders.get(1..).unwrap_or(&[]), self.contenders.first());
        let base = base.map_or("", |one| one.name.as_str());
        let mut header = format!("| workload | {base} |");
        for other in others {
            let _ = write!(header, " {} | {base} ÷ {} (min–max) |", other.name, other.name);
        }
        let rule = "|---".repeat(2 + 2 * others.len());
        let _ = writeln!(text, "{header}\n{rule}|");
        for workload in workload::ALL {
            if self.values(&workload, base).is_empty() {
                continue;
            }
            let _ = write!(text, "| {} | {} |", workload.title, self.cell(&workload, base));
            for other in others {
                let ratio = Spread::of(self.ratios(&workload, &other.name));
                let ratio = ratio.map_or("–".to_owned(), |ratio| {
                    format!("**{}** ({}–{})", short(ratio.median), short(ratio.min), short(ratio.max))
                });
                let _ = write!(text, " {} | {ratio} |", self.cell(&workload, &other.name));
            }
            text.push('\n');
        }
        self.memory_rows(&mut text);
        text
    }

    /// The judged figure and the rate, as medians.
    fn cell(&self, workload: &Workload, contender: &str) -> String {
        let figure = Spread::of(self.values(workload, contender));
        let (Some(figure), Some(rate)) = (figure, self.rate(workload, contender)) else {
            return "–".to_owned();
        };
        let by_volume = workload.figure == workload::Figure::CpuPerGb;
        let unit = if by_volume { "MB/s" } else { "requests/s" };
        let rate = if by_volume { short(rate.median) } else { scaled(rate.median) };
        format!("{} {}, {rate} {unit}", short(figure.median), workload.figure.unit())
    }

    fn memory_rows(&self, text: &mut String) {
        let megabytes =
            |bytes: Option<f64>| bytes.map_or("–".to_owned(), |bytes| short(bytes / 1e6) + " MB");
        let mut rows = [
            "| memory, started".to_owned(),
            "| memory, the most under these loads".to_owned(),
            "| start until it answers".to_owned(),
        ];
        for (index, one) in self.contenders.iter().enumerate() {
            let started = Spread::of(one.resident_at_start_bytes.iter().map(|bytes| *bytes as f64).collect());
            let runs = self.runs.iter().filter(|run| run.contender == one.name);
            let peaks =
                runs.filter_map(|run| run.broker.as_ref()).map(|share| share.resident_peak_bytes as f64);
            let start_up = Spread::of(one.start_up_s.clone());
            let cells = [
                megabytes(started.map(|spread| spread.median)),
                megabytes(peaks.reduce(f64::max)),
                start_up.map_or("–".to_owned(), |spread| short(spread.median * 1e3) + " ms"),
            ];
            for (row, cell) in rows.iter_mut().zip(cells) {
                let _ = write!(row, " | {cell}{}", if index == 0 { "" } else { " |" });
            }
        }
        for row in rows {
            let _ = writeln!(text, "{row} |");
        }
    }

    /// Writes `NAME.json` and `NAME.md` into a folder.
    pub fn save(&self, folder: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(self)?)?;
        fs::write(folder.join(format!("{name}.md")), self.markdown())?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_of_odd_and_even_counts() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]).unwrap().median, 2.5);
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([short(1234.5), short(12.34), short(1.234)], ["1234", "12.3", "1.23"]);
        assert_eq!([scaled(999.0), scaled(26_040.0), scaled(2.5e6)], ["999", "26.0k", "2.50M"]);
    }
}

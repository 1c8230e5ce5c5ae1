//! A result: what was measured, where and how, as one file that explains itself. Tables and pages are made from it
//! alone, so that a stored one can be shown by any later version that knows its shape (`docs/BENCHMARKS.md`, the
//! result file).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::broker::Place;
use crate::goals::{self, Goals};
use crate::host::{Build, Layout, Machine};
use crate::limits::{self, Limit};
use crate::meter::Latencies;
use crate::trial::Measurement;
use crate::workload::{Figure, Workload};
use crate::{html, markdown};

/// What the first field of a result file says.
const FORMAT: &str = "tidemill-bench";
/// The shape of the file. Fields may be added under the same number; a change of meaning raises it.
const VERSION: u32 = 1;

/// How runs were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Where broker and load ran.
    pub layout: Layout,
    /// The length of each measured phase at most.
    pub seconds: f64,
    /// The load before it.
    pub warmup_seconds: f64,
    /// Bytes of batches after which a measured phase ends too.
    pub bytes_max: u64,
    /// Requests a second, or none for the closed loop.
    pub rate: Option<f64>,
    /// Turns that count.
    pub turns: usize,
    /// Turns before those.
    pub warmup_turns: usize,
}

/// One row of the tables: a workload, and how it is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The workload's name, as in its runs.
    pub name: String,
    /// What it does, in words.
    pub title: String,
    /// The figure that is compared; less of it is better.
    pub figure: Figure,
    /// How many times less than Kafka it is to be.
    pub goal: Option<f64>,
    /// Names and values of what was set, where the row is a point of a walk or a rate of a search.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<(String, String)>,
}

/// What the search for the highest rate within a bound has found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knee {
    /// What the 99th percentile may be, in milliseconds.
    pub p99_bound_ms: f64,
    /// The highest rate within the bound, in requests a second; none when even the first was too high.
    pub rate: Option<f64>,
    /// The lowest rate that left it; none when none did.
    pub rate_above: Option<f64>,
}

/// What is known of a contender besides its runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contender {
    /// Its name.
    pub name: String,
    /// Its version, empty where it was not told.
    pub version: String,
    /// The command that started it, with folders replaced by their meaning.
    pub command: String,
    /// The `key=value` lines of its settings.
    pub settings: Vec<String>,
    /// Seconds from the start of its process to its first answer, one for each start.
    pub start_up_s: Vec<f64>,
    /// Resident bytes after a second of rest, one for each start.
    pub resident_at_start_bytes: Vec<u64>,
}

impl Contender {
    /// Resident bytes after the start, the median of all starts.
    pub fn resident_at_start(&self) -> Option<f64> {
        let bytes = self.resident_at_start_bytes.iter().map(|bytes| *bytes as f64).collect();
        Spread::of(bytes).map(|spread| spread.median)
    }

    /// Seconds from the start to the first answer, the median of all starts.
    pub fn start_up(&self) -> Option<f64> {
        Spread::of(self.start_up_s.clone()).map(|spread| spread.median)
    }
}

/// A whole result file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always `tidemill-bench`.
    pub format: String,
    /// The shape of this file.
    pub version: u32,
    /// Where.
    pub machine: Machine,
    /// Which harness, and so which Tidemill where none was named.
    pub build: Build,
    /// How.
    pub settings: Settings,
    /// What the machine can do at all, measured in the same run. Empty where it could not be measured.
    pub limits: Vec<Limit>,
    /// In the order of the tables.
    pub workloads: Vec<Row>,
    /// What holds for the process as a whole, where Tidemill was measured beside Kafka.
    pub goals: Option<Goals>,
    /// In the order of the runs; the first is what the others are compared with.
    pub contenders: Vec<Contender>,
    /// What was found, where the highest rate within a bound was searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knee: Option<Knee>,
    /// Every measured run, turn after turn.
    pub runs: Vec<Measurement>,
}

/// Writes a file into a folder, which is made where it is missing.
pub fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(folder.join(name), text).with_context(|| format!("writing {name}"))
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

impl Row {
    /// A point of a walk over a workload.
    pub fn point(workload: &Workload, parameters: Vec<(String, String)>) -> Row {
        let set: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let set = set.join(" ");
        Row {
            name: format!("{} {set}", workload.name),
            title: set,
            figure: workload.figure,
            goal: None,
            parameters,
        }
    }
}

impl Report {
    /// A result without runs, with the machine's limits. Where Tidemill runs beside Kafka, its workloads have goals.
    pub fn new(place: &Place, settings: Settings, workloads: &[Workload], contenders: &[&str]) -> Report {
        let limits = limits::measure(place).unwrap_or_else(|error| {
            eprintln!("the machine's limits were not measured: {error:#}");
            Vec::new()
        });
        let machine = Machine::here(&place.data, place.cpu_count());
        let report = Report::of(machine, settings, workloads, contenders);
        // What holds for the process holds for one that stands alone.
        Report { limits, goals: report.goals.clone().filter(|_| place.nodes == 1), ..report }
    }

    fn of(machine: Machine, settings: Settings, workloads: &[Workload], contenders: &[&str]) -> Report {
        let judged = contenders.first() == Some(&"kafka") && contenders.contains(&"tidemill");
        let row = |workload: &Workload| Row {
            name: workload.name.to_owned(),
            title: workload.title.to_owned(),
            figure: workload.figure,
            goal: goals::ratio(workload.name).filter(|_| judged),
            parameters: Vec::new(),
        };
        Report {
            format: FORMAT.to_owned(),
            version: VERSION,
            machine,
            build: Build::this(),
            settings,
            limits: Vec::new(),
            workloads: workloads.iter().map(row).collect(),
            goals: judged.then(Goals::of_the_design),
            contenders: Vec::new(),
            knee: None,
            runs: Vec::new(),
        }
    }

    /// What was walked: the names of the parameters; none where the rows are workloads.
    pub fn parameters(&self) -> Vec<&str> {
        let first = self.workloads.iter().find(|row| !row.parameters.is_empty());
        first.map_or(Vec::new(), |row| row.parameters.iter().map(|(name, _)| name.as_str()).collect())
    }

    /// The name of the contender that the others are compared with.
    pub fn base(&self) -> &str {
        self.contenders.first().map_or("", |one| one.name.as_str())
    }

    /// The runs of a contender on a workload, in order.
    pub fn runs_of(&self, workload: &str, contender: &str) -> impl Iterator<Item = &Measurement> {
        self.runs.iter().filter(move |run| run.workload == workload && run.contender == contender)
    }

    /// The judged figure of each run.
    pub fn values(&self, row: &Row, contender: &str) -> Vec<f64> {
        self.runs_of(&row.name, contender).filter_map(|run| run.figure(row.figure)).collect()
    }

    /// Any figure over the turns.
    pub fn spread(
        &self,
        workload: &str,
        contender: &str,
        figure: impl Fn(&Measurement) -> Option<f64>,
    ) -> Option<Spread> {
        Spread::of(self.runs_of(workload, contender).filter_map(figure).collect())
    }

    /// How many times more the first contender needs than another, turn by turn.
    pub fn ratio(&self, row: &Row, other: &str) -> Option<Spread> {
        let pairs = self.values(row, self.base()).into_iter().zip(self.values(row, other));
        Spread::of(pairs.filter(|(_, cost)| *cost > 0.0).map(|(base, cost)| base / cost).collect())
    }

    /// The most bytes that a contender ever held during the runs.
    pub fn resident_peak(&self, contender: &str) -> Option<f64> {
        let runs = self.runs.iter().filter(|run| run.contender == contender);
        let peaks = runs.filter_map(|run| run.broker.as_ref()).map(|share| share.resident_peak_bytes as f64);
        peaks.reduce(f64::max)
    }

    /// The latencies of all turns together: added, never averaged. End to end where somebody consumes.
    pub fn latencies(&self, workload: &str, contender: &str) -> Latencies {
        let mut all = Latencies::default();
        for run in self.runs_of(workload, contender) {
            let of_readers = &run.end_to_end_histogram;
            let pairs = if of_readers.is_empty() { &run.histogram } else { of_readers };
            all.merge(&Latencies::from_pairs(pairs));
        }
        all
    }

    /// Cores that somebody else used while runs were measured, on the mean of all samples.
    pub fn others_cores(&self) -> Option<f64> {
        let samples = self.runs.iter().flat_map(|run| &run.series.others_cores);
        let (sum, count) = samples.fold((0.0, 0u32), |(sum, count), cores| (sum + cores, count + 1));
        (count > 0).then(|| sum / f64::from(count))
    }

    /// Reads a stored result. Refuses another format, or a version that came later.
    pub fn load(path: &Path) -> Result<Report> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let name = path.display();
        let head: Head = serde_json::from_slice(&bytes).with_context(|| format!("{name} is not a result"))?;
        ensure!(head.format == FORMAT, "{name} is of format {}, not {FORMAT}", head.format);
        let version = head.version;
        ensure!(version <= VERSION, "{name} has version {version}; this program knows {VERSION} and older");
        serde_json::from_slice(&bytes).with_context(|| format!("reading {name}"))
    }

    /// Writes `NAME.json`, `NAME.md` and `NAME.html` into a folder.
    pub fn save(&self, folder: &Path, name: &str) -> Result<()> {
        write(folder, &format!("{name}.json"), &self.json()?)?;
        write(folder, &format!("{name}.md"), &markdown::table(self))?;
        write(folder, &format!("{name}.html"), &html::page(self)?)
    }

    /// The file's text: a line for each run, so that files compare.
    fn json(&self) -> Result<String> {
        let mut value = serde_json::to_value(self)?;
        let runs = value.get_mut("runs").map(serde_json::Value::take).unwrap_or_default();
        let lines: Vec<String> =
            runs.as_array().into_iter().flatten().map(|run| format!("    {run}")).collect();
        let head = serde_json::to_string_pretty(&value)?;
        let lines = if lines.is_empty() { "[]".to_owned() } else { format!("[\n{}\n  ]", lines.join(",\n")) };
        Ok(head.replacen("\"runs\": null", &format!("\"runs\": {lines}"), 1) + "\n")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "report_tests.rs"]
pub mod tests;

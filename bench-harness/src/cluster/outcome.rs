//! What a run on clusters came to: named figures of each contender, as a table and as a file.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::writer::{ReadBack, Trouble};
use crate::host::{Build, Machine};
use crate::markdown::short;
use crate::report::{Contender, write};

/// What the first field of a file says.
const FORMAT: &str = "tidemill-bench-cluster";

/// The figure that says whether anything was lost.
const MISSING: &str = "acknowledged records missing";

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// The unit of the value; empty for a count.
    pub unit: String,
}

/// What one contender came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Who was measured.
    pub contender: String,
    /// In the order of the table.
    pub figures: Vec<Figure>,
    /// Every single value of some figures, in the order in which they were measured.
    pub series: BTreeMap<String, Vec<f64>>,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Always `tidemill-bench-cluster`.
    pub format: String,
    /// The shape of this file: fields may be added under the same number.
    pub version: u32,
    /// What was run.
    pub task: String,
    /// Names and values of what was asked for.
    pub parameters: BTreeMap<String, String>,
    /// Where.
    pub machine: Machine,
    /// Which harness, and so which Tidemill where none was named.
    pub build: Build,
    /// Who, with the settings of the first node.
    pub contenders: Vec<Contender>,
    /// One for each contender.
    pub findings: Vec<Finding>,
}

/// The middle and the far end of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// Half are not above.
    pub p50: f64,
    /// 99 % are not above.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Percentiles {
    /// By nearest rank; none of no values.
    pub fn of(mut values: Vec<f64>) -> Option<Percentiles> {
        values.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let at = (share * values.len() as f64).ceil() as usize;
            values.get(at.saturating_sub(1)).copied()
        };
        Some(Percentiles { p50: rank(0.5)?, p99: rank(0.99)?, max: rank(1.0)? })
    }
}

impl Finding {
    /// Nothing found yet.
    pub fn new(contender: &str) -> Finding {
        Finding { contender: contender.to_owned(), ..Finding::default() }
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: &str, value: f64, unit: &str) {
        self.figures.push(Figure { name: name.to_owned(), value, unit: unit.to_owned() });
    }

    /// Adds a count.
    pub fn count(&mut self, name: &str, count: u64) {
        self.figure(name, count as f64, "");
    }

    /// Adds three figures; nothing where there are no values.
    pub fn percentiles(&mut self, name: &str, of: &Option<Percentiles>, unit: &str) {
        let Some(of) = of else { return };
        for (which, value) in [("p50", of.p50), ("p99", of.p99), ("max", of.max)] {
            self.figure(&format!("{name}, {which}"), value, unit);
        }
    }

    /// Adds what was read at the end.
    pub fn read_back(&mut self, read: ReadBack) {
        self.count("acknowledged records", read.acknowledged);
        self.count(MISSING, read.missing);
        self.count("records stored twice", read.stored.saturating_sub(read.acknowledged));
    }

    /// Adds what stood in the way of the writes.
    pub fn trouble(&mut self, trouble: &Trouble) {
        self.count("lost connections", trouble.lost);
        self.count("retriable errors", trouble.retriable.values().sum());
        self.count("errors that are not retriable", trouble.fatal.values().sum());
        for (code, count) in trouble.retriable.iter().chain(&trouble.fatal) {
            self.count(&format!("of them code {code}"), *count);
        }
    }

    /// Keeps single values.
    pub fn series(&mut self, name: &str, values: Vec<f64>) {
        self.series.insert(name.to_owned(), values);
    }

    /// The value of a figure.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}

impl Outcome {
    /// A file without findings.
    pub fn new(task: &str, parameters: BTreeMap<String, String>, machine: Machine) -> Outcome {
        Outcome {
            format: FORMAT.to_owned(),
            version: 1,
            task: task.to_owned(),
            parameters,
            machine,
            build: Build::this(),
            contenders: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// The contenders that lost acknowledged records.
    pub fn lost(&self) -> Vec<&str> {
        let lost = |found: &&Finding| found.value(MISSING).is_some_and(|count| count > 0.0);
        self.findings.iter().filter(lost).map(|found| found.contender.as_str()).collect()
    }

    /// A row for each figure, a column for each contender.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n\n| {} |", self.machine.sentence(), self.task);
        for found in &self.findings {
            let _ = write!(text, " {} |", found.contender);
        }
        let _ = write!(text, "\n|---|{}\n", "---:|".repeat(self.findings.len()));
        let mut names: Vec<(&str, &str)> = Vec::new();
        for figure in self.findings.iter().flat_map(|found| &found.figures) {
            if !names.iter().any(|(name, _)| *name == figure.name) {
                names.push((&figure.name, &figure.unit));
            }
        }
        for (name, unit) in names {
            let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
            let _ = write!(text, "| {name}{unit} |");
            for found in &self.findings {
                let value = found.value(name);
                let shown = value.map_or("–".to_owned(), |value| match unit.is_empty() {
                    true => format!("{value:.0}"),
                    false => short(value),
                });
                let _ = write!(text, " {shown} |");
            }
            text.push('\n');
        }
        text
    }

    /// Writes `cluster-TASK.json` and `cluster-TASK.md` into a folder.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let name = format!("cluster-{}", self.task);
        write(folder, &format!("{name}.json"), &(serde_json::to_string_pretty(self)? + "\n"))?;
        write(folder, &format!("{name}.md"), &self.table())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let all = Percentiles::of((1..=200).map(f64::from).rev().collect()).unwrap();
        assert_eq!(all, Percentiles { p50: 100.0, p99: 198.0, max: 200.0 });
        assert_eq!(Percentiles::of(vec![7.0]).unwrap(), Percentiles { p50: 7.0, p99: 7.0, max: 7.0 });
        assert_eq!(Percentiles::of(Vec::new()), None);
    }

    #[test]
    fn the_table_has_a_row_for_every_figure_that_anybody_has() {
        let mut outcome = Outcome::new("failover", BTreeMap::new(), Machine::here(Path::new("/"), 1));
        let (mut one, mut other) = (Finding::new("kafka"), Finding::new("tidemill"));
        one.count("kills", 3);
        other.count("kills", 3);
        other.percentiles("until the next write", &Percentiles::of(vec![12.25]), "ms");
        outcome.findings = vec![one, other];
        let table = outcome.table();
        assert!(
            table.contains("| failover | kafka | tidemill |\n|---|---:|---:|\n| kills | 3 | 3 |\n"),
            "{table}"
        );
        assert!(table.contains("| until the next write, p99 (ms) | – | 12.2 |"), "{table}");
    }
}

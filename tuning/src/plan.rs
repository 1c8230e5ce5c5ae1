//! What was found, as people and programs take it: the properties file that `tidemill start` reads, a table, and JSON.

use std::fmt::Write;

use bench_harness::host::{Build, Machine};
use bench_harness::markdown::{scaled, short};
use serde::Serialize;

use crate::choice::{Aim, Figures, Measured};
use crate::topology::in_words;

/// What the first field of the JSON says.
pub const FORMAT: &str = "tidemill-tune-shards";
/// The shape of the JSON. Fields may be added under the same number; a change of meaning raises it.
pub const VERSION: u32 = 1;

/// Everything that was measured, and what follows.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Always `tidemill-tune-shards`.
    pub format: &'static str,
    /// The shape of the document.
    pub version: u32,
    /// The command as it was given.
    pub command: String,
    /// Where.
    pub machine: Machine,
    /// Which build measured, and was measured unless `--broker` named another.
    pub build: Build,
    /// The version of the broker.
    pub broker: String,
    /// The workloads' names.
    pub workloads: Vec<String>,
    /// What the 99th percentile may be, in milliseconds.
    pub p99_ms: f64,
    /// Requests a second, where a rate was given.
    pub rate: Option<f64>,
    /// What a good choice is.
    pub aim: Aim,
    /// How often everything was measured.
    pub turns: usize,
    /// The CPUs of the load.
    pub load_cpus: Vec<usize>,
    /// Whether the first candidate keeps the goal.
    pub reached: bool,
    /// The best one first.
    pub candidates: Vec<Measured>,
}

impl Plan {
    fn goal(&self) -> String {
        let workloads = self.workloads.join(", ");
        match self.rate {
            Some(rate) => format!(
                "{workloads}: the least CPU at {} requests/s with p99 within {} ms",
                scaled(rate),
                self.p99_ms
            ),
            None => format!("{workloads}: the highest rate with p99 within {} ms", self.p99_ms),
        }
    }

    /// Lines of equal width: a candidate each, the chosen one first.
    fn rows(&self) -> Vec<Vec<String>> {
        let mut head = vec!["shards".to_owned(), "CPUs".to_owned()];
        for workload in &self.workloads {
            head.extend([workload.clone(), "p99".to_owned(), "cores".to_owned(), "µs/request".to_owned()]);
        }
        let mut rows = vec![head];
        for one in &self.candidates {
            let star = if one.candidate.shares_with_load { "*" } else { "" };
            let mut row =
                vec![one.candidate.shards.to_string(), format!("{}{star}", in_words(&one.candidate.cpus))];
            row.extend(one.workloads.iter().flat_map(cells));
            rows.push(row);
        }
        rows
    }

    /// The candidates as a table, the chosen one first.
    pub fn table(&self) -> String {
        let rows = self.rows();
        let columns = rows.first().map_or(0, Vec::len);
        let width =
            |at: usize| rows.iter().filter_map(|row| Some(row.get(at)?.chars().count())).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        if self.candidates.iter().any(|one| one.candidate.shares_with_load) {
            let _ = writeln!(text, "* shared with the load, on CPU {}", in_words(&self.load_cpus));
        }
        text
    }

    /// What stands above the table, and what was chosen.
    pub fn summary(&self) -> String {
        let mut text = format!("{}\n\n{}\n", self.goal(), self.table());
        let Some(best) = self.candidates.first() else { return text };
        let [count, cpus] = best.candidate.settings();
        let _ = match self.reached {
            true => writeln!(text, "The plan: {count} {cpus}"),
            false => writeln!(text, "No candidate reached the goal. The best of them: {count} {cpus}"),
        };
        text
    }

    /// The file that `tidemill start` reads, with what it is based on as comments.
    pub fn properties(&self) -> String {
        let mut text = String::new();
        let mut comment = |line: &str| {
            let _ = writeln!(text, "{}", format!("# {line}").trim_end());
        };
        comment("Shards of a Tidemill node, found by measuring. Put it over the node's own file:");
        comment("  tidemill start server.properties THIS-FILE");
        comment("");
        comment(&format!("Date:    {}", self.machine.date));
        comment(&format!("Command: {}", one_line(&self.command)));
        comment(&format!("Machine: {}", one_line(&self.machine.sentence())));
        comment(&format!(
            "Broker:  tidemill {}; the load ran on CPU {}",
            one_line(&self.broker),
            in_words(&self.load_cpus)
        ));
        comment(&format!("Goal:    {}", self.goal()));
        if !self.reached {
            comment("The goal was NOT reached by any candidate; this is the one that came nearest.");
        }
        comment("");
        comment(&format!("Measured in {}, medians; the first line is this plan:", counted(self.turns)));
        self.table().lines().for_each(|line| comment(&format!("  {line}")));
        if let Some(best) = self.candidates.first() {
            for line in best.candidate.settings() {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}

/// A comment that spans lines would put its rest among the settings.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn counted(turns: usize) -> String {
    if turns == 1 { "one turn".to_owned() } else { format!("{turns} turns") }
}

fn cells(one: &Figures) -> [String; 4] {
    let mark = if one.kept { "" } else { "!" };
    [
        format!("{}/s", scaled(one.rate)),
        format!("{} ms{mark}", short(one.p99_ms)),
        short(one.cores),
        short(one.us_per_request),
    ]
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::candidates::Candidate;

    /// Two candidates, and a command that would break out of a comment.
    pub fn small(reached: bool) -> Plan {
        let figures =
            Figures { kept: reached, rate: 12_345.0, p99_ms: 3.21, cores: 0.5, us_per_request: 40.5 };
        let candidate = |shards: usize, shares_with_load| Measured {
            candidate: Candidate { shards, cpus: (0..shards).collect(), shares_with_load },
            workloads: vec![figures],
        };
        Plan {
            format: FORMAT,
            version: VERSION,
            command: "tidemill-tune shards --out a\nshard.count=99".to_owned(),
            machine: Machine {
                processor: "Some processor".to_owned(),
                cpus: 2,
                memory_gib: 8.0,
                kernel: "6.18".to_owned(),
                file_system: "ext4".to_owned(),
                java: String::new(),
                date: "2026-11-21 15:00 UTC".to_owned(),
                command: String::new(),
            },
            build: Build::this(),
            broker: "0.1.0".to_owned(),
            workloads: vec!["produce-medium".to_owned()],
            p99_ms: 5.0,
            rate: None,
            aim: Aim::Rate,
            turns: 1,
            load_cpus: vec![1],
            reached,
            candidates: vec![candidate(1, false), candidate(2, true)],
        }
    }

    #[test]
    fn the_file_has_the_settings_of_the_first_candidate_and_everything_else_as_comments() {
        let text = small(true).properties();
        let settings: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(settings, ["shard.count=1", "shard.cpus=0"], "{text}");
        let entries = tidemill::config::properties::parse(&text).map(|entries| entries.len());
        assert_eq!(entries, Ok(2));
        for part in
            ["produce-medium: the highest rate with p99 within 5 ms", "12.3k/s", "Some processor", "0-1*"]
        {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(!text.contains("NOT reached"));
    }

    #[test]
    fn a_goal_that_was_missed_is_said_in_the_file_and_on_the_screen() {
        let plan = small(false);
        assert!(plan.properties().contains("NOT reached"));
        assert!(
            plan.summary().contains("No candidate reached the goal") && plan.summary().contains("3.21 ms!")
        );
        let at_a_rate = Plan { rate: Some(20_000.0), aim: Aim::Cost, ..small(true) };
        assert!(at_a_rate.summary().contains("the least CPU at 20.0k requests/s"));
    }

    #[test]
    fn every_line_of_the_table_has_a_column_for_each_of_its_head() {
        let plan = small(true);
        let rows = plan.rows();
        assert!(rows.iter().all(|row| row.len() == 6) && rows.len() == 3, "{rows:?}");
        assert!(plan.table().contains("* shared with the load, on CPU 1"));
    }
}

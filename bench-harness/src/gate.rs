//! The gate: the broker and the floor in turns, and whether the broker's CPU for a request (for a GB, where the
//! requests are large) has grown against the floor's.
//!
//! A file of the repository stores for each workload how many times the floor's CPU the broker took when somebody last
//! looked, and by how much more it may take. What counts is the median over the turns of the ratio within a turn: the
//! speed of a machine drifts, both ride on it. A workload above its limit is measured once more with more turns,
//! and only that second median fails it: a build that has become worse is worse twice.
//!
//! The ratio is not the same on every processor: what Tidemill does beyond the floor is its own code, what both do is
//! mostly the kernel's, and processors are not alike fast at both. So the file has a ratio for each maker of
//! processors that was measured. One that was not is judged by the greatest of them.
//!
//! A turn is a [`duel`](crate::duel): new processes of both, and slices of load in turns. Where others keep the machine
//! so busy that half of the turns have no result, a workload is not judged; a gate that judged nothing has not passed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::host::Layout;
use crate::markdown::short;
use crate::report::Spread;
use crate::workload::Workload;

/// What the repository stores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// For whoever opens the file.
    pub about: String,
    /// Where broker and load run.
    pub layout: Layout,
    /// One for each workload of the gate, in the order in which they run.
    pub workloads: Vec<Measured>,
}

/// What a workload cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The workload.
    pub name: String,
    /// The broker's CPU divided by the floor's when it was stored, by the maker of the processor (`vendor_id` in
    /// `/proc/cpuinfo`).
    pub ratios: BTreeMap<String, f64>,
    /// By which share of the ratio a median may be above it.
    pub margin: f64,
}

impl Measured {
    /// What holds on a processor of this maker.
    fn on(&self, maker: &str) -> Allowance {
        let (known, ratio) = match self.ratios.get(maker) {
            Some(ratio) => (true, *ratio),
            None => (false, self.ratios.values().copied().fold(0.0, f64::max)),
        };
        let processor = if known { maker.to_owned() } else { format!("any, as {maker} was not measured") };
        Allowance { name: self.name.clone(), processor, ratio, margin: self.margin }
    }
}

/// What a workload may cost here.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowance {
    /// The workload.
    pub name: String,
    /// Whose processors the ratio is of.
    pub processor: String,
    /// The broker's CPU divided by the floor's when it was stored.
    pub ratio: f64,
    /// By which share of the ratio a median may be above it.
    pub margin: f64,
}

impl Allowance {
    /// The greatest median that passes.
    pub fn limit(&self) -> f64 {
        self.ratio * (1.0 + self.margin)
    }

    /// Below this a median says that the stored ratio is out of date.
    fn outdated(&self) -> f64 {
        self.ratio * (1.0 - self.margin)
    }
}

impl Stored {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Stored> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let stored: Stored =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        for one in &stored.workloads {
            let sound = |ratio: &f64| *ratio > 0.0 && ratio.is_finite();
            let sound = !one.ratios.is_empty() && one.ratios.values().all(sound) && sound(&one.margin);
            ensure!(sound, "{}: {}: ratios and margin must be above zero", path.display(), one.name);
        }
        Ok(stored)
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
    }

    /// The workloads stored, or those of them that were asked for, and what they may cost on a processor of this maker.
    pub fn chosen(&self, asked: &[String], maker: &str) -> Result<Vec<(Workload, Allowance)>> {
        for name in asked {
            let stored = self.workloads.iter().any(|one| one.name == *name);
            ensure!(stored, "the gate has no workload {name}");
        }
        let chosen = self.workloads.iter().filter(|one| asked.is_empty() || asked.contains(&one.name));
        let named = |one: &Measured| {
            let workload = Workload::named(&one.name).with_context(|| format!("no workload {}", one.name))?;
            Ok((workload, one.on(maker)))
        };
        chosen.map(named).collect()
    }

    /// Takes over ratios measured on a processor of this maker; margins stay.
    pub fn take_over(&mut self, measured: &[(Workload, Vec<f64>)], maker: &str) {
        for (workload, ratios) in measured {
            let stored = self.workloads.iter_mut().find(|one| one.name == workload.name);
            if let (Some(one), Some(spread)) = (stored, Spread::of(ratios.clone())) {
                one.ratios.insert(maker.to_owned(), (spread.median * 1000.0).round() / 1000.0);
            }
        }
    }
}

/// What came of one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    allowance: Allowance,
    /// Turns and their ratios, of the first and, where there was one, of the second measurement.
    measured: Vec<(usize, Vec<f64>)>,
}

impl Verdict {
    /// The last measurement's median; none if too few of its turns have a result.
    fn median(&self) -> Option<f64> {
        let (_, ratios) = self.measured.last().filter(|(turns, ratios)| 2 * ratios.len() > *turns)?;
        Spread::of(ratios.clone()).map(|spread| spread.median)
    }

    /// Whether the median is within the limit.
    pub fn passes(&self) -> bool {
        self.median().is_some_and(|median| median <= self.allowance.limit())
    }

    /// Whether the median is above the limit.
    pub fn fails(&self) -> bool {
        self.median().is_some_and(|median| median > self.allowance.limit())
    }

    fn lines(&self) -> String {
        let Allowance { name, processor, ratio, margin } = &self.allowance;
        let word = match self.median() {
            None => "not judged, the machine is busy:",
            Some(_) if self.passes() => "ok    ",
            Some(_) => "FAILED",
        };
        let mut text = format!(
            "{word} {name}: stored {ratio:.3} ({processor}), margin {:.0} %, so at most {:.3}",
            margin * 100.0,
            self.allowance.limit()
        );
        for (round, (_, ratios)) in self.measured.iter().enumerate() {
            let when = if round == 0 { "measured" } else { "measured again" };
            let median = Spread::of(ratios.clone()).map_or("nothing".to_owned(), |one| short(one.median));
            let turns: Vec<String> = ratios.iter().map(|ratio| short(*ratio)).collect();
            let _ = write!(text, "\n         {when} {median}, turn by turn: {}", turns.join(" "));
        }
        if self.median().is_some_and(|median| median < self.allowance.outdated()) {
            text +=
                "\n         That is below the stored ratio by more than the margin: store the better one.";
        }
        text
    }
}

/// How many turns the second measurement has; odd, so that it has a middle.
pub fn turns_again(turns: usize) -> usize {
    2 * turns + 1
}

/// Measures every workload, and those above their limits once more. `measure` runs that many turns over some workloads
/// and returns the ratios of each.
pub fn judge(
    chosen: &[(Workload, Allowance)],
    turns: usize,
    mut measure: impl FnMut(Vec<Workload>, usize) -> Result<Vec<(Workload, Vec<f64>)>>,
) -> Result<Vec<Verdict>> {
    let mut verdicts: Vec<Verdict> = chosen
        .iter()
        .map(|(_, allowance)| Verdict { allowance: allowance.clone(), measured: Vec::new() })
        .collect();
    for turns in [turns, turns_again(turns)] {
        let open = verdicts.iter().zip(chosen).filter(|(verdict, _)| !verdict.passes());
        let open: Vec<Workload> = open.map(|(_, (workload, _))| workload.clone()).collect();
        if open.is_empty() {
            break;
        }
        for (workload, ratios) in measure(open, turns)? {
            if let Some(verdict) = verdicts.iter_mut().find(|one| one.allowance.name == workload.name) {
                verdict.measured.push((turns, ratios));
            }
        }
    }
    Ok(verdicts)
}

/// What the gate prints at its end; its last line is counted by the test command.
pub fn summary(verdicts: &[Verdict], file: &Path) -> String {
    let mut text = String::from("Tidemill's CPU ÷ the floor's, the median over the turns:\n");
    for verdict in verdicts {
        let _ = writeln!(text, "{}", verdict.lines());
    }
    let failed: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.fails()).collect();
    let passed = verdicts.iter().filter(|verdict| verdict.passes()).count();
    if !failed.is_empty() {
        let names: Vec<String> =
            failed.iter().map(|one| format!(" --workload {}", one.allowance.name)).collect();
        let names = names.concat();
        let _ = write!(
            text,
            "\nThe broker takes more CPU than this repository allows. To see it again:\n  \
             cargo run --release -p bench-harness -- gate{names}\n\
             Compare with the commit before, and make it cheaper. Where the cost is meant, store the new ratio in \
             {} and say in the commit why:\n  \
             cargo run --release -p bench-harness -- gate --store{names}\n\n",
            file.display()
        );
    }
    let _ = write!(text, "{passed} passed, {} failed", failed.len());
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stored(names: &[&str]) -> Stored {
        let ratios = BTreeMap::from([("A".to_owned(), 1.2), ("B".to_owned(), 1.4), ("C".to_owned(), 0.9)]);
        let measured =
            |name: &&str| Measured { name: (*name).to_owned(), ratios: ratios.clone(), margin: 0.25 };
        let workloads = names.iter().map(measured).collect();
        Stored { about: String::new(), layout: Layout::Split, workloads }
    }

    fn chosen(names: &[&str]) -> Vec<(Workload, Allowance)> {
        stored(names).chosen(&[], "A").unwrap()
    }

    /// Judges one workload whose measurements come out as given, and says how many turns were asked for.
    fn outcome(measurements: &[&[f64]]) -> (Verdict, Vec<usize>) {
        let (mut left, mut asked) = (measurements.iter(), Vec::new());
        let verdicts = judge(&chosen(&["produce-small"]), 5, |workloads, turns| {
            asked.push(turns);
            Ok(vec![(workloads.first().unwrap().clone(), left.next().unwrap().to_vec())])
        });
        (verdicts.unwrap().remove(0), asked)
    }

    #[test]
    fn a_median_within_the_limit_passes_whatever_single_turns_say() {
        let (verdict, asked) = outcome(&[&[1.1, 9.0, 1.5, 1.2, 8.0]]);
        assert!(verdict.passes());
        assert_eq!(asked, [5]);
    }

    #[test]
    fn a_median_above_the_limit_is_measured_again_with_more_turns_before_it_fails() {
        let (verdict, asked) = outcome(&[&[1.51, 1.6, 1.51], &[1.51, 1.52, 1.4, 1.51, 1.51, 1.51]]);
        assert!(!verdict.passes());
        assert_eq!(asked, [5, 11]);
        let text = summary(&[verdict], Path::new("bench-harness/gate.json"));
        for part in [
            "FAILED produce-small: stored 1.200 (A), margin 25 %, so at most 1.500",
            "measured again 1.51, turn by turn: 1.51 1.52 1.40 1.51 1.51 1.51",
            "gate --store --workload produce-small",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(text.ends_with("\n0 passed, 1 failed"));
    }

    #[test]
    fn a_bad_first_measurement_is_forgiven_by_a_good_second() {
        let (verdict, _) = outcome(&[&[2.0, 2.0, 2.0], &[1.3, 1.2, 2.0, 1.3, 1.3, 1.2]]);
        assert!(verdict.passes());
        assert!(summary(&[verdict], Path::new("f")).ends_with("\n1 passed, 0 failed"));
    }

    #[test]
    fn a_workload_with_results_of_half_its_turns_is_measured_again_and_else_not_judged() {
        let (verdict, asked) = outcome(&[&[9.0, 9.0], &[9.0; 5]]);
        assert!(!verdict.passes() && !verdict.fails());
        assert_eq!(asked, [5, 11]);
        let text = summary(&[verdict], Path::new("f"));
        assert!(text.contains("not judged") && text.ends_with("\n0 passed, 0 failed"), "{text}");
        let (verdict, _) = outcome(&[&[1.0, 1.0], &[1.0; 6]]);
        assert!(verdict.passes());
    }

    #[test]
    fn only_what_is_above_its_limit_is_measured_again() {
        let mut rounds = Vec::new();
        let verdicts = judge(&chosen(&["produce-small", "fetch-1mb"]), 3, |workloads, turns| {
            rounds.push(workloads.iter().map(|one| one.name).collect::<Vec<_>>());
            let ratio = |one: &Workload| if one.name == "fetch-1mb" { 1.6 } else { 1.0 };
            Ok(workloads.iter().map(|one| (one.clone(), vec![ratio(one); turns])).collect())
        })
        .unwrap();
        assert_eq!(rounds, [vec!["produce-small", "fetch-1mb"], vec!["fetch-1mb"]]);
        assert_eq!(verdicts.iter().map(Verdict::passes).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_much_better_median_asks_to_be_stored() {
        let (verdict, _) = outcome(&[&[0.8, 0.85, 0.7]]);
        assert!(verdict.passes() && verdict.lines().contains("store the better one"));
        let (verdict, _) = outcome(&[&[1.0; 5]]);
        assert!(!verdict.lines().contains("store the better"));
    }

    #[test]
    fn new_ratios_are_taken_over_and_margins_stay() {
        let mut stored = stored(&["produce-small", "fetch-1mb"]);
        stored.take_over(&[(Workload::named("produce-small").unwrap(), vec![1.0, 2.0, 1.23456])], "A");
        let rows = |maker: &str| -> Vec<(f64, f64)> {
            let chosen = stored.chosen(&[], maker).unwrap();
            chosen.iter().map(|(_, one)| (one.ratio, one.margin)).collect()
        };
        assert_eq!(rows("A"), [(1.235, 0.25), (1.2, 0.25)]);
        assert_eq!(rows("B"), [(1.4, 0.25), (1.4, 0.25)]);
        assert!(stored.chosen(&["no-such".to_owned()], "A").is_err());
        assert_eq!(stored.chosen(&["fetch-1mb".to_owned()], "A").unwrap().len(), 1);
    }

    #[test]
    fn a_processor_that_nobody_measured_is_judged_by_the_greatest_ratio() {
        let chosen = stored(&["produce-small"]).chosen(&[], "D").unwrap();
        let (_, allowance) = chosen.first().unwrap();
        assert_eq!(allowance.ratio, 1.4);
        assert_eq!(allowance.processor, "any, as D was not measured");
    }

    #[test]
    fn the_stored_file_names_known_workloads() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gate.json");
        let stored = Stored::read(&path).unwrap();
        assert!(stored.chosen(&[], "any").unwrap().len() >= 5);
    }
}

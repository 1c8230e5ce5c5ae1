//! The gate: the broker and the floor in turns, and whether the broker's CPU for a request (for a GB, where the
//! requests are large) has grown against the floor's.
//!
//! A file of the repository stores for each workload how many times the floor's CPU the broker took when somebody last
//! looked, and by how much more it may take. What counts is the median over the turns of the ratio within a turn: the
//! speed of a machine drifts, both ride on it. A workload above its limit is measured once more with more turns,
//! and only that second median fails it: a build that has become worse is worse twice.
//!
//! The ratio is not the same on every processor: what Tidemill does beyond the floor is its own code, what both do is
//! mostly the kernel's, and processors are not alike fast at both. Nor is it on every machine of one maker: where
//! others use its caches, or waking is dear, the floor takes twice the CPU and Tidemill three times. So the file has
//! ratios for each maker of processors, each beside what the floor took then, and the one whose floor is nearest
//! holds. A maker that was not measured is judged by the greatest of all.
//!
//! A turn is a [`duel`](crate::duel): new processes of both, and slices of load in turns. Where others keep the machine
//! so busy that half of the turns have no result, a workload is not judged; a gate that judged nothing has not passed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::duel::Cost;
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
    /// What was measured, by the maker of the processor (`vendor_id` in `/proc/cpuinfo`); one for each kind of machine.
    pub ratios: BTreeMap<String, Vec<Cost>>,
    /// By which share of the ratio a median may be above it.
    pub margin: f64,
}

impl Cost {
    /// The medians; none of nothing.
    fn median(turns: &[Cost]) -> Option<Cost> {
        let median = |value: fn(&Cost) -> f64| Spread::of(turns.iter().map(value).collect());
        Some(Cost { floor: median(|one| one.floor)?.median, ratio: median(|one| one.ratio)?.median })
    }

    /// How many times the floors of two machines differ, whichever is the greater.
    fn distance(&self, floor: f64) -> f64 {
        (self.floor / floor).max(floor / self.floor)
    }
}

/// Two machines of one maker whose floors differ by more than this are not of one kind.
const KIND_DISTANCE_MAX: f64 = 1.5;

impl Measured {
    /// What holds on a processor of this maker, where the floor takes so much.
    fn on(&self, maker: &str, floor: f64) -> Allowance {
        let nearest = |costs: &Vec<Cost>| {
            costs.iter().min_by(|one, other| one.distance(floor).total_cmp(&other.distance(floor))).copied()
        };
        let (known, stored) = match self.ratios.get(maker).and_then(nearest) {
            Some(cost) => (true, cost),
            None => {
                let all = self.ratios.values().flatten();
                let greatest = all.max_by(|one, other| one.ratio.total_cmp(&other.ratio)).copied();
                (false, greatest.unwrap_or(Cost { floor, ratio: 0.0 }))
            }
        };
        let processor = if known { maker.to_owned() } else { format!("any, as {maker} was not measured") };
        Allowance { processor, stored, margin: self.margin }
    }

    /// Takes over what was measured, in the place of a machine of its kind.
    fn take_over(&mut self, maker: &str, cost: Cost) {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        let cost = Cost { floor: round(cost.floor), ratio: round(cost.ratio) };
        let kinds = self.ratios.entry(maker.to_owned()).or_default();
        kinds.retain(|one| one.distance(cost.floor) > KIND_DISTANCE_MAX);
        kinds.push(cost);
        kinds.sort_by(|one, other| one.floor.total_cmp(&other.floor));
    }
}

/// What a workload may cost here.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowance {
    /// Whose processors the ratio is of.
    pub processor: String,
    /// What it cost when it was stored.
    pub stored: Cost,
    /// By which share of the ratio a median may be above it.
    pub margin: f64,
}

impl Allowance {
    /// The greatest median that passes.
    pub fn limit(&self) -> f64 {
        self.stored.ratio * (1.0 + self.margin)
    }

    /// Below this a median says that the stored ratio is out of date.
    fn outdated(&self) -> f64 {
        self.stored.ratio * (1.0 - self.margin)
    }
}

impl Stored {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Stored> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let stored: Stored =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        for one in &stored.workloads {
            let sound = |value: f64| value > 0.0 && value.is_finite();
            let mut costs = one.ratios.values().flatten();
            let all = costs.all(|cost| sound(cost.floor) && sound(cost.ratio)) && sound(one.margin);
            let some = one.ratios.values().any(|costs| !costs.is_empty());
            ensure!(
                all && some,
                "{}: {}: floors, ratios and margin must be above zero",
                path.display(),
                one.name
            );
        }
        Ok(stored)
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
    }

    /// The workloads stored, or those of them that were asked for.
    pub fn chosen(&self, asked: &[String]) -> Result<Vec<(Workload, Measured)>> {
        for name in asked {
            let stored = self.workloads.iter().any(|one| one.name == *name);
            ensure!(stored, "the gate has no workload {name}");
        }
        let chosen = self.workloads.iter().filter(|one| asked.is_empty() || asked.contains(&one.name));
        let named = |one: &Measured| {
            let workload = Workload::named(&one.name).with_context(|| format!("no workload {}", one.name))?;
            Ok((workload, one.clone()))
        };
        chosen.map(named).collect()
    }

    /// Takes over what was measured on a processor of this maker; margins stay.
    pub fn take_over(&mut self, measured: &[(Workload, Vec<Cost>)], maker: &str) {
        for (workload, turns) in measured {
            let stored = self.workloads.iter_mut().find(|one| one.name == workload.name);
            if let (Some(one), Some(cost)) = (stored, Cost::median(turns)) {
                one.take_over(maker, cost);
            }
        }
    }
}

/// What came of one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    stored: Measured,
    /// The processor's maker.
    maker: String,
    /// Turns and what they cost, of the first and, where there was one, of the second measurement.
    measured: Vec<(usize, Vec<Cost>)>,
}

impl Verdict {
    /// The last measurement's medians; none if too few of its turns have a result.
    fn median(&self) -> Option<Cost> {
        let (_, turns) = self.measured.last().filter(|(turns, costs)| 2 * costs.len() > *turns)?;
        Cost::median(turns)
    }

    /// What was measured last, and what it may be; none if nothing can be said.
    fn judged(&self) -> Option<(f64, Allowance)> {
        let cost = self.median()?;
        Some((cost.ratio, self.stored.on(&self.maker, cost.floor)))
    }

    /// Whether the median is within the limit.
    pub fn passes(&self) -> bool {
        self.judged().is_some_and(|(ratio, allowance)| ratio <= allowance.limit())
    }

    /// Whether the median is above the limit.
    pub fn fails(&self) -> bool {
        self.judged().is_some_and(|(ratio, allowance)| ratio > allowance.limit())
    }

    fn lines(&self) -> String {
        let name = &self.stored.name;
        let mut text = match self.judged() {
            None => format!("not judged, the machine is busy: {name}"),
            Some((ratio, allowance)) => {
                let word = if ratio <= allowance.limit() { "ok    " } else { "FAILED" };
                let Allowance { processor, stored, margin } = &allowance;
                format!(
                    "{word} {name}: stored {:.3} ({processor}, floor {}), margin {:.0} %, so at most {:.3}",
                    stored.ratio,
                    short(stored.floor),
                    margin * 100.0,
                    allowance.limit()
                )
            }
        };
        for (round, (_, costs)) in self.measured.iter().enumerate() {
            let when = if round == 0 { "measured" } else { "measured again" };
            let median = Cost::median(costs).map_or("nothing".to_owned(), |one| {
                format!("{} (floor {})", short(one.ratio), short(one.floor))
            });
            let turns: Vec<String> = costs.iter().map(|one| short(one.ratio)).collect();
            let _ = write!(text, "\n         {when} {median}, turn by turn: {}", turns.join(" "));
        }
        if self.judged().is_some_and(|(ratio, allowance)| ratio < allowance.outdated()) {
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
/// and returns what each of them cost on a processor of this maker.
pub fn judge(
    chosen: &[(Workload, Measured)],
    maker: &str,
    turns: usize,
    mut measure: impl FnMut(Vec<Workload>, usize) -> Result<Vec<(Workload, Vec<Cost>)>>,
) -> Result<Vec<Verdict>> {
    let open =
        |stored: &Measured| Verdict { stored: stored.clone(), maker: maker.to_owned(), measured: Vec::new() };
    let mut verdicts: Vec<Verdict> = chosen.iter().map(|(_, stored)| open(stored)).collect();
    for turns in [turns, turns_again(turns)] {
        let open = verdicts.iter().zip(chosen).filter(|(verdict, _)| !verdict.passes());
        let open: Vec<Workload> = open.map(|(_, (workload, _))| workload.clone()).collect();
        if open.is_empty() {
            break;
        }
        for (workload, costs) in measure(open, turns)? {
            if let Some(verdict) = verdicts.iter_mut().find(|one| one.stored.name == workload.name) {
                verdict.measured.push((turns, costs));
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
            failed.iter().map(|one| format!(" --workload {}", one.stored.name)).collect();
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

    /// Turns on a machine whose floor takes 10.
    fn turns(ratios: &[f64]) -> Vec<Cost> {
        ratios.iter().map(|ratio| Cost { floor: 10.0, ratio: *ratio }).collect()
    }

    fn stored(names: &[&str]) -> Stored {
        let maker = |maker: &str, ratio: f64| (maker.to_owned(), turns(&[ratio]));
        let ratios = BTreeMap::from([maker("A", 1.2), maker("B", 1.4), maker("C", 0.9)]);
        let measured =
            |name: &&str| Measured { name: (*name).to_owned(), ratios: ratios.clone(), margin: 0.25 };
        let workloads = names.iter().map(measured).collect();
        Stored { about: String::new(), layout: Layout::Split, workloads }
    }

    fn chosen(names: &[&str]) -> Vec<(Workload, Measured)> {
        stored(names).chosen(&[]).unwrap()
    }

    /// Judges one workload whose measurements come out as given, and says how many turns were asked for.
    fn outcome(measurements: &[&[f64]]) -> (Verdict, Vec<usize>) {
        let (mut left, mut asked) = (measurements.iter(), Vec::new());
        let verdicts = judge(&chosen(&["produce-small"]), "A", 5, |workloads, count| {
            asked.push(count);
            Ok(vec![(workloads.first().unwrap().clone(), turns(left.next().unwrap()))])
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
            "FAILED produce-small: stored 1.200 (A, floor 10.0), margin 25 %, so at most 1.500",
            "measured again 1.51 (floor 10.0), turn by turn: 1.51 1.52 1.40 1.51 1.51 1.51",
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
        let verdicts = judge(&chosen(&["produce-small", "fetch-1mb"]), "A", 3, |workloads, count| {
            rounds.push(workloads.iter().map(|one| one.name).collect::<Vec<_>>());
            let ratio = |one: &Workload| if one.name == "fetch-1mb" { 1.6 } else { 1.0 };
            Ok(workloads.iter().map(|one| (one.clone(), turns(&vec![ratio(one); count]))).collect())
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
        let small = Workload::named("produce-small").unwrap();
        stored.take_over(&[(small.clone(), turns(&[1.0, 2.0, 1.23456]))], "A");
        let rows = |stored: &Stored, maker: &str, floor: f64| -> Vec<(f64, f64)> {
            let chosen = stored.chosen(&[]).unwrap();
            let allowances = chosen.iter().map(|(_, one)| one.on(maker, floor));
            allowances.map(|one| (one.stored.ratio, one.margin)).collect()
        };
        assert_eq!(rows(&stored, "A", 10.0), [(1.235, 0.25), (1.2, 0.25)]);
        assert_eq!(rows(&stored, "B", 10.0), [(1.4, 0.25), (1.4, 0.25)]);
        stored.take_over(&[(small, vec![Cost { floor: 22.0, ratio: 1.7 }])], "A");
        assert_eq!(rows(&stored, "A", 10.0), [(1.235, 0.25), (1.2, 0.25)], "a machine of another kind");
        assert_eq!(rows(&stored, "A", 30.0), [(1.7, 0.25), (1.2, 0.25)]);
        assert!(stored.chosen(&["no-such".to_owned()]).is_err());
        assert_eq!(stored.chosen(&["fetch-1mb".to_owned()]).unwrap().len(), 1);
    }

    #[test]
    fn the_ratio_holds_whose_floor_is_nearest() {
        let kinds = vec![Cost { floor: 16.0, ratio: 1.3 }, Cost { floor: 36.0, ratio: 1.7 }];
        let one = Measured {
            name: "one".to_owned(),
            ratios: BTreeMap::from([("A".to_owned(), kinds)]),
            margin: 0.25,
        };
        let ratio = |floor: f64| one.on("A", floor).stored.ratio;
        assert_eq!([1.0, 23.9, 24.1, 99.0].map(ratio), [1.3, 1.3, 1.7, 1.7]);
    }

    #[test]
    fn a_processor_that_nobody_measured_is_judged_by_the_greatest_ratio() {
        let chosen = chosen(&["produce-small"]);
        let allowance = chosen.first().unwrap().1.on("D", 99.0);
        assert_eq!(allowance.stored.ratio, 1.4);
        assert_eq!(allowance.processor, "any, as D was not measured");
    }

    #[test]
    fn the_stored_file_names_known_workloads() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gate.json");
        let stored = Stored::read(&path).unwrap();
        assert!(stored.chosen(&[]).unwrap().len() >= 5);
    }
}

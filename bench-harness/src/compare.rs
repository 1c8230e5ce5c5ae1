//! Several brokers on the same workloads, in turns: A B C, A B C, … so that a machine whose speed drifts
//! drifts for all.
//! Ratios are taken within a turn; medians and spreads over the turns.

use anyhow::{Result, ensure};

use crate::broker::{Place, Recipe};
use crate::host;
use crate::markdown::run_lines;
use crate::report::Report;
use crate::seat::Seat;
use crate::trial::Conditions;
use crate::workload::Workload;

/// What is run, and how often.
pub struct Comparison {
    /// The contenders; the first is what the others are compared with.
    pub recipes: Vec<Recipe>,
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// Turns that count.
    pub turns: usize,
    /// Turns before those, which are thrown away: they warm the Java compiler.
    pub warmup_turns: usize,
}

/// Runs all turns and prints each run as it ends.
pub fn run(comparison: &Comparison, conditions: &Conditions, place: &Place) -> Result<Report> {
    let names: Vec<&str> = comparison.recipes.iter().map(Recipe::name).collect();
    let settings = conditions.settings(comparison.turns, comparison.warmup_turns);
    let mut report = Report::new(place, settings, &comparison.workloads, &names);
    // Everybody runs everything with the settings of all workloads: a broker that restarted between them would be cold.
    let mut settings: Vec<String> = Vec::new();
    for line in comparison.workloads.iter().flat_map(|workload| &workload.broker_settings) {
        if !settings.iter().any(|known| known == line) {
            settings.push(line.clone());
        }
    }
    let mut seats = Vec::new();
    for recipe in &comparison.recipes {
        let mut seat = Seat::new(recipe.clone());
        seat.settle(&settings, place)?;
        seats.push(seat);
    }
    for turn in 0..comparison.warmup_turns + comparison.turns {
        let counts = turn >= comparison.warmup_turns;
        match counts {
            true => eprintln!("turn {} of {}", turn - comparison.warmup_turns + 1, comparison.turns),
            false => eprintln!("warm-up turn"),
        }
        for workload in &comparison.workloads {
            for seat in seats.iter_mut().filter(|seat| seat.suits(workload)) {
                ensure!(!host::interrupted(), "interrupted");
                let measured = seat.run(workload, conditions, place)?;
                if counts {
                    println!("{}", run_lines(&measured));
                    report.runs.push(measured);
                }
            }
        }
    }
    report.contenders = seats.into_iter().map(|seat| seat.known).collect();
    Ok(report)
}

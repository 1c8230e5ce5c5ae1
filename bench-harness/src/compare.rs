//! Several brokers on the same workloads, in turns: A B C, A B C, … so that a machine whose speed drifts
//! drifts for all.
//! Ratios are taken within a turn; medians and spreads over the turns.

use anyhow::{Result, ensure};

use crate::broker::{Broker, Place, Recipe};
use crate::host::{self, Machine};
use crate::report::{Contender, Report, run_lines};
use crate::trial::{self, Conditions};
use crate::workload::Workload;

/// Where one contender stands during the comparison.
struct Seat {
    recipe: Recipe,
    /// None while a contender that gets a new process for each run is between two.
    broker: Option<Broker>,
    known: Contender,
}

impl Seat {
    fn new(recipe: &Recipe, place: &Place) -> Result<Seat> {
        let known = Contender { name: recipe.name().to_owned(), ..Contender::default() };
        let mut seat = Seat { recipe: recipe.clone(), broker: None, known };
        if !recipe.fresh_for_each_run() {
            seat.start(place)?;
        }
        Ok(seat)
    }

    fn start(&mut self, place: &Place) -> Result<()> {
        let broker = Broker::start(&self.recipe, place)?;
        self.known.start_up_s.extend(broker.start_up.map(|time| time.as_secs_f64()));
        self.known.resident_at_start_bytes.extend(broker.resident_at_start_bytes);
        self.broker = Some(broker);
        Ok(())
    }

    fn run(
        &mut self,
        workload: &Workload,
        conditions: &Conditions,
        place: &Place,
    ) -> Result<trial::Measurement> {
        if self.broker.is_none() {
            self.start(place)?;
        }
        let broker = self.broker.as_mut().expect("a broker was started");
        let measured = trial::run(broker, workload, conditions);
        if self.recipe.fresh_for_each_run() {
            self.broker = None;
        }
        measured
    }
}

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
    let mut seats = Vec::new();
    for recipe in &comparison.recipes {
        eprintln!("starting {}", recipe.name());
        seats.push(Seat::new(recipe, place)?);
    }
    let mut runs = Vec::new();
    for turn in 0..comparison.warmup_turns + comparison.turns {
        let counts = turn >= comparison.warmup_turns;
        match counts {
            true => eprintln!("turn {} of {}", turn - comparison.warmup_turns + 1, comparison.turns),
            false => eprintln!("warm-up turn"),
        }
        for workload in &comparison.workloads {
            for seat in &mut seats {
                ensure!(!host::interrupted(), "interrupted");
                let measured = seat.run(workload, conditions, place)?;
                if counts {
                    println!("{}", run_lines(&measured));
                    runs.push(measured);
                }
            }
        }
    }
    let machine = Machine::here(&place.data, place.cpus.len());
    let contenders = seats.into_iter().map(|seat| seat.known).collect();
    Ok(Report { machine, layout: conditions.layout, contenders, runs })
}

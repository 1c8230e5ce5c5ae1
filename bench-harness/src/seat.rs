//! A contender during a session: its broker, started when it is needed and again when it needs other settings.

use anyhow::{Context, Result};

use crate::broker::{Broker, Place, Recipe};
use crate::report::Contender;
use crate::trial::{self, Conditions, Measurement};
use crate::workload::Workload;

/// Where one contender stands.
pub struct Seat {
    recipe: Recipe,
    settings: Vec<String>,
    /// None while a contender that gets a new process for each run is between two.
    broker: Option<Broker>,
    /// What is known of it besides its runs.
    pub known: Contender,
}

impl Seat {
    /// A seat whose broker is not yet started.
    pub fn new(recipe: Recipe) -> Seat {
        let known =
            Contender { name: recipe.name().to_owned(), version: recipe.version(), ..Contender::default() };
        Seat { recipe, settings: Vec::new(), broker: None, known }
    }

    /// Whether the contender can run that workload.
    pub fn suits(&self, workload: &Workload) -> bool {
        !matches!(self.recipe, Recipe::Floor { .. }) || workload.suits_the_floor()
    }

    /// Has the broker run with these settings besides its recipe's: one that runs with others is stopped first.
    pub fn settle(&mut self, settings: &[String], place: &Place) -> Result<()> {
        if self.settings != settings {
            self.broker = None;
            self.settings = settings.to_vec();
        }
        if self.broker.is_none() && !self.recipe.fresh_for_each_run() {
            self.start(place)?;
        }
        Ok(())
    }

    /// Stops the broker: the next run gets a new one.
    pub fn leave(&mut self) {
        self.broker = None;
    }

    fn start(&mut self, place: &Place) -> Result<()> {
        eprintln!("starting {} {}", self.recipe.name(), self.settings.join(" "));
        let broker = Broker::start(&self.recipe.with_settings(&self.settings), place)?;
        self.known.start_up_s.extend(broker.start_up.map(|time| time.as_secs_f64()));
        self.known.resident_at_start_bytes.extend(broker.resident_at_start_bytes);
        (self.known.command, self.known.settings) = (broker.command.clone(), broker.settings.clone());
        self.broker = Some(broker);
        Ok(())
    }

    /// Runs a workload once.
    pub fn run(
        &mut self,
        workload: &Workload,
        conditions: &Conditions,
        place: &Place,
    ) -> Result<Measurement> {
        if self.broker.is_none() {
            self.start(place)?;
        }
        let broker = self.broker.as_mut().context("the broker was started")?;
        let measured = trial::run(broker, workload, conditions);
        if self.recipe.fresh_for_each_run() {
            self.broker = None;
        }
        measured
    }
}

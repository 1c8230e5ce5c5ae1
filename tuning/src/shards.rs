//! `tidemill-tune shards`: runs the bench harness against every candidate and writes the plan.
//!
//! Without a rate each candidate is driven faster and faster until its 99th percentile leaves the goal; with one, each
//! is driven at that rate. All candidates have their turn before the next turn begins, so that a machine whose speed
//! drifts drifts for all.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench_harness::broker::{Place, Recipe};
use bench_harness::client::Home;
use bench_harness::host::{self, Build, Layout, Machine};
use bench_harness::knee;
use bench_harness::load::Plan as LoadPlan;
use bench_harness::report::Spread;
use bench_harness::seat::Seat;
use bench_harness::trial::{Conditions, Measurement};
use bench_harness::workload::{self, Drive, Workload};
use clap::{Args, ValueEnum};

use crate::candidates::{self, Candidate};
use crate::choice::{self, Aim, Figures, Measured};
use crate::plan::{FORMAT, Plan, VERSION};
use crate::topology;

const EXAMPLES: &str = "Examples:
  tidemill-tune shards --workload produce-medium --p99-ms 5 --out plan.properties
  tidemill-tune shards --workload tail --workload produce-small --p99-ms 10 --counts 1,2,4 --turns 3
  tidemill-tune shards --workload tail --rate 20000 --p99-ms 5 --out plan.properties
  tidemill start server.properties plan.properties

Exit codes: 0 a plan was found; 1 failed; 2 no candidate reached the goal, and the best one was written.";

/// What to measure, and what for.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// A workload of the bench harness by name, may be given several times; `bench-harness workloads` lists them.
    #[arg(long, required = true)]
    workload: Vec<String>,
    /// The goal: what the 99th percentile may be, in milliseconds; end to end where the workload has readers at the
    /// log's end, else to the answer.
    #[arg(long)]
    p99_ms: f64,
    /// The load that is expected, in requests a second: the plan is then the cheapest that keeps the goal at it
    /// [default: none; the plan is what keeps the goal at the highest rate].
    #[arg(long)]
    rate: Option<f64>,
    /// Write the plan into this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How results are shown.
    #[arg(long, default_value = "text")]
    output: Output,
    /// Numbers of shards to try [default: powers of two, all CPUs besides the load's, and all].
    #[arg(long, value_delimiter = ',')]
    counts: Vec<usize>,
    /// CPUs to choose from, as `shard.cpus` takes them.
    #[arg(long, default_value = "all")]
    cpus: String,
    /// CPUs of the load [default: the last core].
    #[arg(long)]
    load_cpus: Option<String>,
    /// How often everything is measured; medians count.
    #[arg(long, default_value_t = 1)]
    turns: usize,
    /// The length of each measured run, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The load before it, in seconds.
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// The first rate of a search, in requests a second.
    #[arg(long, default_value_t = 1000.0)]
    from: f64,
    /// A search ends when the rate is known to this share.
    #[arg(long, default_value_t = 0.1)]
    precision: f64,
    /// How often a rate may miss the goal before it counts as too high.
    #[arg(long, default_value_t = 2)]
    attempts: usize,
    /// A binary of Tidemill [default: this program, which has it within].
    #[arg(long, value_name = "PATH")]
    broker: Option<PathBuf>,
    /// Where brokers keep their data while they run: a folder on the device of the log directories tells most [default:
    /// the system's folder for temporary files].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Measures, writes the plan and shows it. Says whether the goal was reached.
pub fn run(options: &Options) -> Result<bool> {
    let session = Session::of(options)?;
    host::catch_signals()?;
    let measured = session.measure()?;
    let plan = session.plan(measured);
    if let Some(file) = &options.out {
        std::fs::write(file, plan.properties()).with_context(|| format!("writing {}", file.display()))?;
    }
    match options.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&plan)?),
        Output::Text => {
            print!("{}", plan.summary());
            if let Some(file) = &options.out {
                println!(
                    "Written to {0}; start with it: tidemill start server.properties {0}",
                    file.display()
                );
            }
        }
    }
    Ok(plan.reached)
}

/// Everything that is decided before the first run.
struct Session<'a> {
    options: &'a Options,
    workloads: Vec<Workload>,
    candidates: Vec<Candidate>,
    cpus: Vec<usize>,
    load_cpus: Vec<usize>,
    recipe: Recipe,
    data: PathBuf,
    load: LoadPlan,
}

impl<'a> Session<'a> {
    fn of(options: &'a Options) -> Result<Session<'a>> {
        ensure!(options.p99_ms > 0.0, "--p99-ms must be above zero");
        ensure!(options.rate.is_none_or(|rate| rate > 0.0 && rate.is_finite()), "--rate must be above zero");
        ensure!(options.turns > 0 && options.attempts > 0, "--turns and --attempts must be above zero");
        ensure!(options.precision > 0.0 && options.from > 0.0, "--precision and --from must be above zero");
        let workloads: Vec<Workload> =
            options.workload.iter().map(|name| named(name)).collect::<Result<_>>()?;
        let cpus = topology::chosen(&options.cpus, &host::cpus()).context("--cpus")?;
        let places = topology::of(&cpus);
        let load_cpus = match &options.load_cpus {
            Some(text) => topology::chosen(text, &host::cpus()).context("--load-cpus")?,
            None => candidates::load_cpus(&places),
        };
        let counts = match options.counts.is_empty() {
            true => candidates::usual_counts(&places, &load_cpus),
            false => options.counts.clone(),
        };
        ensure!(counts.iter().all(|count| (1..=1024).contains(count)), "--counts are 1 to 1024");
        let binary = match &options.broker {
            Some(path) => std::fs::canonicalize(path)
                .with_context(|| format!("{} is not there: build it first", path.display()))?,
            None => std::env::current_exe()?,
        };
        Ok(Session {
            options,
            workloads,
            candidates: candidates::of(&places, &load_cpus, &counts),
            cpus: host::cpus(),
            load_cpus,
            recipe: Recipe::tidemill(binary),
            data: options.data.clone().unwrap_or_else(std::env::temp_dir),
            load: LoadPlan {
                warmup: length(options.warmup, "warmup")?,
                measure: length(options.seconds, "seconds")?,
                bytes_max: u64::MAX,
            },
        })
    }

    /// The figures of every candidate: medians over the turns.
    fn measure(&self) -> Result<Vec<Measured>> {
        let mut turns: Vec<Vec<Vec<Figures>>> =
            self.candidates.iter().map(|_| self.workloads.iter().map(|_| Vec::new()).collect()).collect();
        for turn in 0..self.options.turns {
            for (candidate, found) in self.candidates.iter().zip(&mut turns) {
                let settings = candidate.settings();
                eprintln!("turn {} of {}: {}", turn + 1, self.options.turns, settings.join(" "));
                let mut seat = Seat::new(self.recipe.with_settings(&settings));
                for (workload, found) in self.workloads.iter().zip(found) {
                    ensure!(!host::interrupted(), "interrupted");
                    found.push(self.figures(candidate, workload, &mut seat)?);
                }
            }
        }
        let middle =
            |workloads: Vec<Vec<Figures>>| workloads.iter().filter_map(|runs| median(runs)).collect();
        let measured = self.candidates.iter().cloned().zip(turns);
        Ok(measured
            .map(|(candidate, workloads)| Measured { candidate, workloads: middle(workloads) })
            .collect())
    }

    fn figures(&self, candidate: &Candidate, workload: &Workload, seat: &mut Seat) -> Result<Figures> {
        let place = self.place(candidate);
        place.enter_load()?;
        let conditions = Conditions {
            layout: place.layout,
            rate: self.options.rate,
            plan: self.load,
            clients: Home { cache: PathBuf::new(), records: 1 },
            rest: None,
            restart: false,
        };
        let mut told = |run: &Measurement| {
            let asked = run.rate_asked.unwrap_or(0.0);
            eprintln!("  {} at {asked:.0} requests/s: p99 {:.2} ms", workload.name, knee::p99_ms(run));
        };
        if self.options.rate.is_some() {
            seat.settle(&workload.broker_settings, &place)?;
            let run = seat.run(workload, &conditions, &place)?;
            told(&run);
            return Ok(self.of_run(&run, self.keeps(&run)));
        }
        let search = knee::Plan {
            workload: workload.clone(),
            recipe: self.recipe.clone(),
            p99_bound_ms: self.options.p99_ms,
            from: self.options.from,
            precision: self.options.precision,
            attempts: self.options.attempts,
        };
        let (found, curve) = knee::find(&search, &conditions, &place, seat, &mut told)?;
        let at_knee = curve.iter().find(|run| found.rate.is_some() && run.rate_asked == found.rate);
        let run = at_knee.or(curve.first()).context("not one rate was tried")?;
        Ok(self.of_run(run, found.rate.is_some()))
    }

    /// A run at a given rate keeps the goal when it also keeps the rate.
    fn keeps(&self, run: &Measurement) -> bool {
        let asked = run.rate_asked.unwrap_or(0.0);
        knee::p99_ms(run) <= self.options.p99_ms && run.request_rate() >= 0.98 * asked
    }

    fn of_run(&self, run: &Measurement, kept: bool) -> Figures {
        let share = run.broker.as_ref();
        Figures {
            kept,
            rate: run.request_rate(),
            p99_ms: knee::p99_ms(run),
            cores: share.map_or(0.0, |share| (share.user_s + share.system_s) / run.seconds.max(1e-3)),
            us_per_request: share.map_or(0.0, |share| share.us_per_request),
        }
    }

    /// The broker may use every CPU that it could use in earnest, but for the load's: its helpers are not pinned.
    fn place(&self, candidate: &Candidate) -> Place {
        let others: Vec<usize> =
            self.cpus.iter().copied().filter(|cpu| !self.load_cpus.contains(cpu)).collect();
        let apart = !candidate.shares_with_load && !others.is_empty();
        Place {
            layout: if apart { Layout::Split } else { Layout::Shared },
            broker_cpus: if apart { others } else { self.cpus.clone() },
            load_cpus: self.load_cpus.clone(),
            data: self.data.clone(),
            rest: Duration::ZERO,
            nodes: 1,
            network: None,
        }
    }

    fn plan(&self, measured: Vec<Measured>) -> Plan {
        let aim = if self.options.rate.is_some() { Aim::Cost } else { Aim::Rate };
        let order = choice::order(&measured, aim);
        let candidates: Vec<Measured> = order.iter().filter_map(|at| measured.get(*at).cloned()).collect();
        Plan {
            format: FORMAT,
            version: VERSION,
            command: command(),
            machine: Machine::here(&self.data, self.cpus.len()),
            build: Build::this(),
            broker: self.recipe.version(),
            workloads: self.workloads.iter().map(|workload| workload.name.to_owned()).collect(),
            p99_ms: self.options.p99_ms,
            rate: self.options.rate,
            aim,
            turns: self.options.turns,
            load_cpus: self.load_cpus.clone(),
            reached: candidates.first().is_some_and(Measured::kept),
            candidates,
        }
    }
}

fn named(name: &str) -> Result<Workload> {
    let found = Workload::named(name).with_context(|| {
        let names: Vec<&str> =
            workload::all().iter().filter(|one| is_wire(one)).map(|one| one.name).collect();
        format!("there is no workload {name}; there are: {}", names.join(", "))
    })?;
    ensure!(is_wire(&found), "{name} is a foreign client, which keeps no rate");
    Ok(found)
}

fn is_wire(workload: &Workload) -> bool {
    matches!(workload.drive, Drive::Wire(_))
}

fn length(seconds: f64, name: &str) -> Result<Duration> {
    let length = Duration::try_from_secs_f64(seconds);
    length.with_context(|| format!("--{name} {seconds} is not a length of time"))
}

/// The command as it was typed, without the folder of the program.
fn command() -> String {
    let mut words = vec!["tidemill-tune".to_owned()];
    words.extend(std::env::args().skip(1));
    words.join(" ")
}

/// The middle of several runs, figure by figure; the goal counts as kept when most of them kept it.
fn median(runs: &[Figures]) -> Option<Figures> {
    let of = |figure: fn(&Figures) -> f64| Some(Spread::of(runs.iter().map(figure).collect())?.median);
    Some(Figures {
        kept: 2 * runs.iter().filter(|run| run.kept).count() > runs.len(),
        rate: of(|run| run.rate)?,
        p99_ms: of(|run| run.p99_ms)?,
        cores: of(|run| run.cores)?,
        us_per_request: of(|run| run.us_per_request)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_that_is_not_there_or_keeps_no_rate_is_refused_by_name() {
        let said = |name: &str| named(name).unwrap_err().to_string();
        assert!(
            said("no-such").contains("there is no workload no-such")
                && said("no-such").contains("produce-medium")
        );
        assert!(said("java-producer").contains("keeps no rate"));
        assert_eq!(named("tail").unwrap().name, "tail");
    }

    #[test]
    fn the_median_takes_each_figure_by_itself_and_the_verdict_of_most() {
        let run = |kept, rate| Figures { kept, rate, p99_ms: 1.0 / rate, cores: rate, us_per_request: rate };
        let middle = median(&[run(true, 1.0), run(false, 4.0), run(true, 2.0)]).unwrap();
        assert_eq!((middle.kept, middle.rate, middle.p99_ms), (true, 2.0, 0.5));
        assert!(!median(&[run(true, 1.0), run(false, 1.0)]).unwrap().kept);
        assert_eq!(median(&[]), None);
    }
}

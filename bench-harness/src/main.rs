//! Measures producers and consumers of a broker: rates, latency percentiles, and the broker's own CPU and memory.
//!
//! | file | what it is |
//! |---|---|
//! | `workload` | the workloads as data |
//! | `wire` | encoded frames and their answers |
//! | `lane` | what one connection says, and how it checks the answers |
//! | `load` | one thread that drives many connections, open or closed loop |
//! | `admin` | topics, and reading back what was written |
//! | `broker`, `kafka`, `floor` | the contenders: how they start and stop |
//! | `trial` | one run of one workload against one broker |
//! | `compare` | several brokers in turns |
//! | `duel` | two brokers side by side, in turns of a tenth of a second |
//! | `gate` | whether the broker has become dearer than what the repository stores |
//! | `live`, `report` | what is shown during and after |
//! | `host` | CPUs, `/proc`, and what a result says of its machine |

mod admin;
mod broker;
mod compare;
mod duel;
mod floor;
mod gate;
mod host;
mod kafka;
mod lane;
mod live;
mod load;
mod report;
mod trial;
mod wire;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::broker::{Place, Recipe};
use crate::compare::Comparison;
use crate::duel::Duel;
use crate::host::Layout;
use crate::load::{Pace, Plan};
use crate::trial::Conditions;
use crate::workload::Workload;

const EXAMPLES: &str = "Examples:
  bench-harness                                      the canonical workloads on a broker of its own
  bench-harness --workload produce-small --rate 5000 latency at a given rate, from the intended send times
  bench-harness --bootstrap HOST:9092                any Kafka broker
  bench-harness floor                                the least that one core must spend
  bench-harness compare kafka --turns 5              Apache Kafka, the floor and Tidemill in turns
  bench-harness gate                                 has the broker become dearer than the repository allows";

/// The broker's allocator, as the broker may be this program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures producers and consumers of a Kafka broker.
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Measures the floor: a minimal program that parses, checks the CRC, writes and answers.
    Floor,
    /// Runs several brokers in turns.
    Compare {
        /// With whom.
        #[arg(value_parser = ["kafka"])]
        with: String,
        /// Turns that count.
        #[arg(long, default_value_t = 3)]
        turns: usize,
        /// Turns before those, which warm up and do not count.
        #[arg(long, default_value_t = 2)]
        warmup_turns: usize,
        /// A further line for Kafka's server.properties; may be given several times.
        #[arg(long, value_name = "KEY=VALUE")]
        kafka_config: Vec<String>,
        /// Leave Tidemill out: Kafka and the floor only.
        #[arg(long)]
        without_tidemill: bool,
    },
    /// Fails when the broker's CPU has grown against the floor's, by the ratios that the repository stores.
    Gate {
        /// Turns of the first measurement; what fails it is measured again with twice as many and one.
        #[arg(long, default_value_t = 5)]
        turns: usize,
        /// The stored ratios.
        #[arg(long, default_value = "bench-harness/gate.json")]
        file: PathBuf,
        /// Store what is measured now, with twice the turns and one, instead of judging it.
        #[arg(long)]
        store: bool,
    },
    /// Lists the workloads.
    Workloads,
    #[command(hide = true)]
    ServeFloor {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        data: PathBuf,
    },
    /// Tidemill itself, out of this very program: the broker that is measured unless --broker names another.
    #[command(hide = true)]
    Start { file: PathBuf },
}

#[derive(Args)]
struct Options {
    /// A workload by name, may be given several times [default: the canonical ones, for compare all].
    #[arg(long, global = true)]
    workload: Vec<String>,
    /// The length of each measured phase, in seconds [default: 3; of the gate 0.1].
    #[arg(long, global = true)]
    seconds: Option<f64>,
    /// The load before the measured phases, in seconds [default: 1; of the gate 0.2].
    #[arg(long, global = true)]
    warmup: Option<f64>,
    /// A measured phase also ends after this many MB.
    #[arg(long, global = true, default_value_t = 2000)]
    max_megabytes: u64,
    /// Requests a second over all connections (open loop) [default: as many as are answered].
    #[arg(long, global = true)]
    rate: Option<f64>,
    /// Which CPUs broker and load use [default: split where there are two].
    #[arg(long, global = true)]
    layout: Option<Layout>,
    /// A binary of Tidemill, run as `PATH start FILE.properties` [default: this program, which has it within].
    #[arg(long, global = true, value_name = "PATH")]
    broker: Option<PathBuf>,
    /// Drive this broker and start none.
    #[arg(long, global = true, value_name = "HOST:PORT", conflicts_with = "broker")]
    bootstrap: Option<String>,
    /// The process of that broker, to read its CPU and memory.
    #[arg(long, global = true, requires = "bootstrap")]
    pid: Option<u32>,
    /// Where brokers keep their data while they run [default: the system's folder for temporary files].
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where downloads are kept.
    #[arg(long, global = true, value_name = "DIR", default_value = ".cache")]
    cache: PathBuf,
    /// Write the result as JSON and Markdown into this folder.
    #[arg(long, global = true, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Options {
    fn place(&self) -> Result<Place> {
        let cpus = host::cpus();
        let default = if cpus.len() >= 2 { Layout::Split } else { Layout::Shared };
        let layout = self.layout.unwrap_or(default);
        layout.check(&cpus)?;
        let data = self.data.clone().unwrap_or_else(std::env::temp_dir);
        Ok(Place { layout, cpus, data, rest: Duration::from_secs(1) })
    }

    /// `usual` is the length of warm-up and measured phase in seconds where none was given.
    fn conditions(&self, layout: Layout, usual: (f64, f64)) -> Result<Conditions> {
        let seconds = |value: f64, name: &str| {
            Duration::try_from_secs_f64(value)
                .with_context(|| format!("--{name} {value} is not a length of time"))
        };
        let (warmup_s, measure_s) = (self.warmup.unwrap_or(usual.0), self.seconds.unwrap_or(usual.1));
        ensure!(measure_s > 0.0, "--seconds must be above zero");
        let plan = Plan {
            pace: self.rate.map_or(Pace::Closed, |rate| Pace::Open { rate }),
            warmup: seconds(warmup_s, "warmup")?,
            measure: seconds(measure_s, "seconds")?,
            bytes_max: self.max_megabytes.saturating_mul(1_000_000).max(1),
        };
        Ok(Conditions { layout, plan })
    }

    /// The workloads named, or else all that `default` picks.
    fn workloads(&self, default: impl Fn(&Workload) -> bool) -> Result<Vec<Workload>> {
        if self.workload.is_empty() {
            return Ok(workload::ALL.iter().filter(|workload| default(workload)).copied().collect());
        }
        let named = |name: &String| {
            Workload::named(name)
                .with_context(|| format!("no workload {name}; `bench-harness workloads` lists them"))
        };
        self.workload.iter().map(named).collect()
    }

    fn tidemill(&self) -> Result<Recipe> {
        let Some(binary) = &self.broker else { return Ok(Recipe::Tidemill(std::env::current_exe()?)) };
        let path = std::fs::canonicalize(binary)
            .with_context(|| format!("{} is not there: build it first", binary.display()))?;
        Ok(Recipe::Tidemill(path))
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Task::Start { file }) = cli.command {
        return tidemill::cli::start::run(Some(file), Vec::new());
    }
    match perform(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes in one line; a backtrace helps nobody here.
            eprintln!("bench-harness: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(cli: &Cli) -> Result<()> {
    let options = &cli.options;
    match &cli.command {
        Some(Task::ServeFloor { port, data }) => floor::serve(*port, data.clone()),
        Some(Task::Start { .. }) => Ok(()),
        Some(Task::Workloads) => {
            for workload in workload::ALL {
                println!("{:<24} {}", workload.name, workload.title);
            }
            Ok(())
        }
        Some(Task::Floor) => single(options, Recipe::Floor),
        Some(Task::Gate { turns, file, store }) => guard(options, *turns, file, *store),
        None => {
            let recipe = match &options.bootstrap {
                Some(bootstrap) => Recipe::Running { bootstrap: bootstrap.clone(), pid: options.pid },
                None => options.tidemill()?,
            };
            single(options, recipe)
        }
        Some(Task::Compare { turns, warmup_turns, kafka_config, without_tidemill, .. }) => {
            let jars = kafka::jars(&options.cache)?;
            let mut recipes = vec![Recipe::Kafka { jars, settings: kafka_config.clone() }, Recipe::Floor];
            if !without_tidemill {
                recipes.push(options.tidemill()?);
            }
            let workloads = options.workloads(|_| true)?;
            measure(options, Comparison { recipes, workloads, turns: *turns, warmup_turns: *warmup_turns })
        }
    }
}

/// The canonical run: one broker, each workload once.
fn single(options: &Options, recipe: Recipe) -> Result<()> {
    let workloads = options.workloads(|workload| workload.canonical)?;
    measure(options, Comparison { recipes: vec![recipe], workloads, turns: 1, warmup_turns: 0 })
}

fn measure(options: &Options, comparison: Comparison) -> Result<()> {
    host::catch_signals()?;
    let place = options.place()?;
    let conditions = options.conditions(place.layout, (1.0, 3.0))?;
    place.layout.enter_load(&place.cpus)?;
    let report = compare::run(&comparison, &conditions, &place)?;
    println!("\n{}", report.markdown());
    if let Some(folder) = &options.out {
        let names: Vec<&str> = comparison.recipes.iter().map(Recipe::name).collect();
        report.save(folder, &names.join("-"))?;
    }
    Ok(())
}

/// Runs the gate: a workload above its limit is an error.
fn guard(options: &Options, turns: usize, file: &Path, store: bool) -> Result<()> {
    ensure!(
        options.bootstrap.is_none() && options.rate.is_none(),
        "the gate starts its brokers, closed loop"
    );
    ensure!(turns > 0, "--turns must be above zero");
    host::catch_signals()?;
    let mut stored = gate::Stored::read(file)?;
    let chosen = stored.chosen(&options.workload)?;
    let place = Place { rest: Duration::ZERO, ..options.place()? };
    ensure!(place.layout == stored.layout, "the stored ratios are of layout {}", stored.layout.name());
    let plan = options.conditions(place.layout, (0.2, 0.1))?.plan;
    place.layout.enter_load(&place.cpus)?;
    let duel = Duel { recipes: [options.tidemill()?, Recipe::Floor], plan, place };
    if store {
        let workloads = chosen.iter().map(|(workload, _)| *workload).collect();
        stored.take_over(&duel.turns(workloads, gate::turns_again(turns))?);
        stored.write(file)?;
        println!("stored in {}", file.display());
        return Ok(());
    }
    let verdicts = gate::judge(&chosen, turns, |workloads, turns| duel.turns(workloads, turns))?;
    println!("{}", gate::summary(&verdicts, file));
    ensure!(!verdicts.iter().any(gate::Verdict::fails), "the gate is closed");
    ensure!(verdicts.iter().any(gate::Verdict::passes), "the machine is too busy to judge a single workload");
    Ok(())
}

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
//! | `meter`, `process`, `samples` | what the load counts and the broker uses, read four times a second |
//! | `live` | what is shown during a run |
//! | `report`, `goals` | the result as a file, and what it is judged by |
//! | `markdown`, `html` | the result as people read it |
//! | `limits` | what the machine can do at all |
//! | `host` | CPUs, and what a result says of its machine |

mod admin;
mod broker;
mod compare;
mod floor;
mod goals;
mod host;
mod html;
mod kafka;
mod lane;
mod limits;
mod live;
mod load;
mod markdown;
mod meter;
mod process;
mod report;
mod samples;
mod trial;
mod wire;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::broker::{Place, Recipe};
use crate::compare::Comparison;
use crate::host::Layout;
use crate::load::{Pace, Plan};
use crate::report::Report;
use crate::trial::Conditions;
use crate::workload::Workload;

const EXAMPLES: &str = "Examples:
  bench-harness                                      the canonical workloads on a broker of its own
  bench-harness --workload produce-small --rate 5000 latency at a given rate, from the intended send times
  bench-harness --bootstrap HOST:9092                any Kafka broker
  bench-harness floor                                the least that one core must spend
  bench-harness compare kafka --turns 5 --out DIR    Apache Kafka, the floor and Tidemill in turns
  bench-harness report DIR/kafka-floor-tidemill.json the page of a stored result";

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
    /// Makes the page of a stored result.
    Report {
        /// The result, as --out wrote it.
        #[arg(value_name = "RESULT.json")]
        result: PathBuf,
        /// Where the page goes [default: beside the result, with .html].
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
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
    /// The length of each measured phase, in seconds.
    #[arg(long, global = true, default_value_t = 3.0)]
    seconds: f64,
    /// The load before each measured phase, in seconds.
    #[arg(long, global = true, default_value_t = 1.0)]
    warmup: f64,
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
    /// Write the result as JSON, Markdown and a page of HTML into this folder.
    #[arg(long, global = true, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Options {
    fn place(&self) -> Result<Place> {
        let cpus = host::cpus();
        let default = if cpus.len() >= 2 { Layout::Split } else { Layout::Shared };
        let layout = self.layout.unwrap_or(default);
        layout.check(&cpus)?;
        Ok(Place { layout, cpus, data: self.data.clone().unwrap_or_else(std::env::temp_dir) })
    }

    fn conditions(&self, layout: Layout) -> Result<Conditions> {
        let seconds = |value: f64, name: &str| {
            Duration::try_from_secs_f64(value)
                .with_context(|| format!("--{name} {value} is not a length of time"))
        };
        ensure!(self.seconds > 0.0, "--seconds must be above zero");
        let plan = Plan {
            pace: self.rate.map_or(Pace::Closed, |rate| Pace::Open { rate }),
            warmup: seconds(self.warmup, "warmup")?,
            measure: seconds(self.seconds, "seconds")?,
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
        Some(Task::Report { result, html }) => {
            let page = html::page(&Report::load(result)?)?;
            let file = html.clone().unwrap_or_else(|| result.with_extension("html"));
            std::fs::write(&file, page).with_context(|| format!("writing {}", file.display()))
        }
        Some(Task::Floor) => single(options, Recipe::Floor),
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
    let conditions = options.conditions(place.layout)?;
    place.layout.enter_load(&place.cpus)?;
    let report = compare::run(&comparison, &conditions, &place)?;
    println!("\n{}", markdown::table(&report));
    if let Some(folder) = &options.out {
        let names: Vec<&str> = comparison.recipes.iter().map(Recipe::name).collect();
        report.save(folder, &names.join("-"))?;
    }
    Ok(())
}

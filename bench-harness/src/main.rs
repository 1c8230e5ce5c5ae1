//! The command line of the harness: options in, results out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};

use bench_harness::broker::{Place, Recipe};
use bench_harness::client::Home;
use bench_harness::compare::Comparison;
use bench_harness::duel::Duel;
use bench_harness::floor::Append;
use bench_harness::host::Layout;
use bench_harness::load::Plan;
use bench_harness::report::{Report, Spread};
use bench_harness::sweep::Axis;
use bench_harness::trial::Conditions;
use bench_harness::workload::{Figure, Group, Workload};
use bench_harness::{cluster, compare, floor, gate, host, html, kafka, knee, markdown, sweep, workload};

const EXAMPLES: &str = "Examples:
  bench-harness                                      the canonical workloads on a broker of its own
  bench-harness --workload produce-small --rate 5000 latency at a given rate, from the intended send times
  bench-harness --workload tail --workload tail-and-backlog
                                                     end to end, without and with a reader from the start
  bench-harness --workload retention --seconds 600 --max-megabytes 50000
  bench-harness --bootstrap HOST:9092                any Kafka broker
  bench-harness floor                                the least that one core must spend
  bench-harness compare kafka --turns 5 --out DIR    Apache Kafka, the floor and Tidemill in turns
  bench-harness report DIR/kafka-floor-tidemill.json the page of a stored result
  bench-harness compare kafka --kafka-config num.io.threads=2 --workload fan-out
  bench-harness compare OLD NEW --turns 5            two builds of Tidemill in turns
  bench-harness clients                              Java's perf tools and librdkafka on Kafka and Tidemill
  bench-harness sweep shards=1,2 partitions=4,64 --layout shared
  bench-harness sweep shards=1,2,4 reach=home,away --layout shared --turns 5
                                                     what it costs that a partition is on another shard
  bench-harness sweep flush.messages=1,100 --workload produce-medium --contender kafka
  bench-harness knee --workload tail --p99-bound-ms 5
  bench-harness cluster failover --kills 100         three nodes: leaders are killed under a producer
  bench-harness cluster cut                          their networks are cut in silence (needs root)
  bench-harness cluster rolling                      nodes are restarted under load
  bench-harness cluster partitions --partitions 10000 --kills 10
  bench-harness cluster load --turns 3               CPU and latency at acks=all
  bench-harness gate                                 has the broker become dearer than the repository allows";

/// The broker's allocator, as the broker may be this program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    Floor {
        /// How it writes; several race in turns.
        #[arg(long, value_delimiter = ',', default_value = "plain")]
        append: Vec<Append>,
        /// An answer waits until its bytes are durable.
        #[arg(long)]
        flush: bool,
        /// Two of them in slices of a tenth of a second, as the gate does it: CPU alone.
        #[arg(long)]
        duel: bool,
        /// How often all are run.
        #[arg(long, default_value_t = 1)]
        turns: usize,
    },
    /// Runs several brokers in turns: Kafka, the floor and Tidemill, or two builds of Tidemill.
    Compare {
        /// `kafka`, or the executables of two builds.
        #[arg(value_name = "kafka | OLD NEW", num_args = 1..=2, required = true)]
        with: Vec<String>,
        #[command(flatten)]
        turns: Turns,
        /// Leave Tidemill out: Kafka and the floor only.
        #[arg(long)]
        without_tidemill: bool,
    },
    /// Runs real clients against Kafka and Tidemill in turns.
    Clients {
        #[command(flatten)]
        turns: Turns,
    },
    /// Walks up to three parameters over lists of values; a broker is started afresh where the parameter is its own.
    Sweep {
        /// What to walk: shards, partitions, record-bytes, records (of a batch), connections, in-flight, acks, reach
        /// (home, away or any: where a connection's partition is), a setting of the broker such as shard.cpus, or one
        /// of the topic such as flush.messages [default: what the workload brings].
        #[arg(value_name = "NAME=V1,V2,…", num_args = 0..=3)]
        axes: Vec<Axis>,
        /// Look at the broker for so many seconds before and after each load, with the topics and connections there:
        /// its CPU at rest, and its memory. Each point gets a new broker.
        #[arg(long, value_name = "SECONDS")]
        rest: Option<f64>,
        /// After each load start the broker again with what it has stored, after a clean stop and after kill -9.
        #[arg(long)]
        restart: bool,
        /// How often all points are run.
        #[arg(long, default_value_t = 1)]
        turns: usize,
        /// Which broker.
        #[arg(long, default_value = "tidemill")]
        contender: Contender,
    },
    /// Searches the highest rate at which the 99th percentile stays within a bound.
    Knee {
        /// The bound, in milliseconds: end to end where somebody consumes, else to the answer.
        #[arg(long, default_value_t = 10.0)]
        p99_bound_ms: f64,
        /// The first rate, in requests a second.
        #[arg(long, default_value_t = 1000.0)]
        from: f64,
        /// The search ends when the rate is known to this share.
        #[arg(long, default_value_t = 0.05)]
        precision: f64,
        /// How often a rate may fail before it counts as too high.
        #[arg(long, default_value_t = 2)]
        attempts: usize,
        /// Which broker.
        #[arg(long, default_value = "tidemill")]
        contender: Contender,
    },
    /// Figures of clusters of three nodes: Kafka and Tidemill, one after the other, or those named.
    Cluster {
        #[command(subcommand)]
        task: cluster::Task,
        /// Which contenders.
        #[arg(long, global = true, value_delimiter = ',', default_value = "kafka,tidemill")]
        contender: Vec<Contender>,
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
        #[arg(long, default_value = "plain")]
        append: Append,
        #[arg(long)]
        flush: bool,
    },
    /// Tidemill itself, out of this very program: the broker that is measured unless --broker names another.
    #[command(hide = true)]
    Start { file: PathBuf },
    #[command(hide = true)]
    Format(tidemill::cli::storage::FormatOptions),
}

#[derive(Args)]
struct Turns {
    /// Turns that count.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Turns before those, which warm up and do not count.
    #[arg(long, default_value_t = 2)]
    warmup_turns: usize,
}

/// A broker that the harness starts.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Contender {
    /// Tidemill, or the broker that --bootstrap names.
    Tidemill,
    /// Apache Kafka.
    Kafka,
    /// The floor.
    Floor,
}

#[derive(Args)]
struct Options {
    /// A workload by name, may be given several times [default: the canonical ones, for compare those of the design's
    /// table, for sweep and knee produce-small].
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
    /// Requests a second over all connections (open loop) [default: the workload's own, or as many as are answered].
    #[arg(long, global = true)]
    rate: Option<f64>,
    /// Which CPUs broker and load use [default: split where there are two].
    #[arg(long, global = true)]
    layout: Option<Layout>,
    /// A binary of Tidemill, run as `PATH start FILE.properties` [default: this program, which has it within].
    #[arg(long, global = true, value_name = "PATH")]
    broker: Option<PathBuf>,
    /// How many nodes, each controller and broker, a broker of a comparison or of `cluster` has [default: 1; of
    /// `cluster` 3].
    #[arg(long, global = true)]
    nodes: Option<usize>,
    /// Drive this broker and start none.
    #[arg(long, global = true, value_name = "HOST:PORT", conflicts_with = "broker")]
    bootstrap: Option<String>,
    /// The process of that broker, to read its CPU and memory.
    #[arg(long, global = true, requires = "bootstrap")]
    pid: Option<u32>,
    /// A line for Kafka's server.properties, or a file of such lines; may be given several times, the last wins.
    #[arg(long, global = true, value_name = "FILE|KEY=VALUE")]
    kafka_config: Vec<String>,
    /// Records that a real client writes.
    #[arg(long, global = true, default_value_t = 200_000)]
    records: u64,
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
        let data = self.data.clone().unwrap_or_else(std::env::temp_dir);
        Ok(Place::new(layout, &cpus, data, Duration::from_secs(1)))
    }

    /// `usual` is the length of warm-up and measured phase in seconds where none was given.
    fn conditions(&self, layout: Layout, usual: (f64, f64)) -> Result<Conditions> {
        let (warmup_s, measure_s) = (self.warmup.unwrap_or(usual.0), self.seconds.unwrap_or(usual.1));
        ensure!(measure_s > 0.0, "--seconds must be above zero");
        let plan = Plan {
            warmup: seconds(warmup_s, "warmup")?,
            measure: seconds(measure_s, "seconds")?,
            bytes_max: self.max_megabytes.saturating_mul(1_000_000).max(1),
        };
        let clients = Home { cache: self.cache.clone(), records: self.records.max(1) };
        Ok(Conditions { layout, rate: self.rate, plan, clients, rest: None, restart: false })
    }

    /// The workloads named, or else all that `default` picks.
    fn workloads(&self, default: impl Fn(&Workload) -> bool) -> Result<Vec<Workload>> {
        if self.workload.is_empty() {
            return Ok(workload::all().into_iter().filter(|workload| default(workload)).collect());
        }
        let named = |name: &String| {
            Workload::named(name)
                .with_context(|| format!("no workload {name}; `bench-harness workloads` lists them"))
        };
        self.workload.iter().map(named).collect()
    }

    /// One workload: the one named, or produce-small.
    fn only_workload(&self) -> Result<Workload> {
        let mut named = self.workloads(|workload| workload.name == "produce-small")?;
        ensure!(named.len() == 1, "one workload at a time");
        named.pop().context("a workload")
    }

    fn tidemill(&self) -> Result<Recipe> {
        let Some(binary) = &self.broker else { return Ok(Recipe::tidemill(std::env::current_exe()?)) };
        Ok(Recipe::tidemill(executable(binary)?))
    }

    fn kafka(&self) -> Result<Recipe> {
        let settings: Vec<Vec<String>> =
            self.kafka_config.iter().map(|argument| kafka::settings(argument)).collect::<Result<_>>()?;
        Ok(Recipe::Kafka { jars: kafka::jars(&self.cache)?, settings: settings.concat() })
    }

    /// The broker that --bootstrap names, or else Tidemill.
    fn own(&self) -> Result<Recipe> {
        match &self.bootstrap {
            Some(bootstrap) => Ok(Recipe::Running { bootstrap: bootstrap.clone(), pid: self.pid }),
            None => self.tidemill(),
        }
    }

    fn recipe(&self, contender: Contender) -> Result<Recipe> {
        match contender {
            Contender::Tidemill => self.own(),
            Contender::Kafka => self.kafka(),
            Contender::Floor => Ok(Recipe::FLOOR),
        }
    }
}

fn executable(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).with_context(|| format!("{} is not there: build it first", path.display()))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Task::Start { file }) = cli.command {
        return tidemill::cli::start::run(&[file], &[]);
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
        Some(Task::ServeFloor { port, data, append, flush }) => {
            floor::serve(*port, data.clone(), *append, *flush)
        }
        Some(Task::Start { .. }) => Ok(()),
        Some(Task::Format(options)) => Ok(tidemill::cli::storage::format(options)?),
        Some(Task::Cluster { task, contender }) => clusters(options, task, contender),
        Some(Task::Workloads) => {
            for workload in workload::all() {
                println!("{:<24} {}", workload.name, workload.title);
            }
            Ok(())
        }
        Some(Task::Report { result, html }) => page(result, html.as_deref()),
        Some(Task::Floor { append, flush, duel, turns }) => {
            let recipes =
                append.iter().map(|append| Recipe::Floor { append: *append, flush: *flush }).collect();
            engines(options, recipes, *duel, *turns)
        }
        Some(Task::Gate { turns, file, store }) => guard(options, *turns, file, *store),
        None => single(options, options.own()?),
        Some(Task::Compare { with, turns, without_tidemill }) => {
            let recipes = opponents(options, with, *without_tidemill)?;
            let of_table = |workload: &Workload| matches!(workload.group, Group::Canonical | Group::Table);
            in_turns(options, recipes, turns, options.workloads(of_table)?)
        }
        Some(Task::Clients { turns }) => {
            let recipes = vec![options.kafka()?, options.own()?];
            in_turns(options, recipes, turns, options.workloads(|workload| workload.group == Group::Clients)?)
        }
        Some(Task::Sweep { axes, rest, restart, turns, contender }) => {
            let recipe = options.recipe(*contender)?;
            let plan = sweep::Plan::new(options.only_workload()?, axes, recipe, *turns)?;
            let (place, conditions) = prepare(options)?;
            let rest = rest.map(|rest| seconds(rest, "rest")).transpose()?;
            let conditions = Conditions { rest, restart: *restart, ..conditions };
            let found = sweep::run(&plan, &conditions, &place)?;
            conclude(options, &format!("sweep-{}-{}", plan.workload.name, plan.recipe.name()), &found)
        }
        Some(Task::Knee { p99_bound_ms, from, precision, attempts, contender }) => {
            let plan = knee::Plan {
                workload: options.only_workload()?,
                recipe: options.recipe(*contender)?,
                p99_bound_ms: *p99_bound_ms,
                from: *from,
                precision: *precision,
                attempts: *attempts,
            };
            let (place, conditions) = prepare(options)?;
            let found = knee::run(&plan, &conditions, &place)?;
            conclude(options, &format!("knee-{}-{}", plan.workload.name, plan.recipe.name()), &found)
        }
    }
}

/// The figures of clusters.
fn clusters(options: &Options, task: &cluster::Task, contenders: &[Contender]) -> Result<()> {
    ensure!(options.bootstrap.is_none(), "the nodes of a cluster are started here");
    let recipes: Vec<Recipe> =
        contenders.iter().map(|contender| options.recipe(*contender)).collect::<Result<_>>()?;
    let nodes = options.nodes.unwrap_or(3);
    if let cluster::Task::Load { turns, warmup_turns } = task {
        let turns = Turns { turns: *turns, warmup_turns: *warmup_turns };
        let workloads = options.workloads(|workload| workload.group == Group::Cluster)?;
        return in_turns_on(options, nodes, recipes, &turns, workloads);
    }
    let (place, _) = prepare(options)?;
    let outcome = cluster::run(task, &recipes, &Place { nodes, ..place })?;
    println!("\n{}", outcome.table());
    options.out.as_ref().map_or(Ok(()), |folder| outcome.save(folder))?;
    let lost = outcome.lost();
    ensure!(lost.is_empty(), "acknowledged records are missing on {}", lost.join(" and "));
    Ok(())
}

/// Who is compared: Kafka, the floor and Tidemill, or two builds.
fn opponents(options: &Options, with: &[String], without_tidemill: bool) -> Result<Vec<Recipe>> {
    let build = |name, path: &str| {
        Ok::<_, anyhow::Error>(Recipe::Tidemill {
            name,
            binary: executable(Path::new(path))?,
            settings: Vec::new(),
        })
    };
    match with {
        [old, new] => Ok(vec![build("old", old)?, build("new", new)?]),
        [one] if one == "kafka" && without_tidemill => Ok(vec![options.kafka()?, Recipe::FLOOR]),
        [one] if one == "kafka" => Ok(vec![options.kafka()?, Recipe::FLOOR, options.own()?]),
        _ => bail!("compare with `kafka`, or give two executables of Tidemill"),
    }
}

/// The canonical run: one broker, each workload once.
fn single(options: &Options, recipe: Recipe) -> Result<()> {
    let workloads = options.workloads(|workload| workload.group == Group::Canonical)?;
    in_turns(options, vec![recipe], &Turns { turns: 1, warmup_turns: 0 }, workloads)
}

/// Makes the page of a stored result.
fn page(result: &Path, html: Option<&Path>) -> Result<()> {
    let page = html::page(&Report::load(result)?)?;
    let file = html.map_or_else(|| result.with_extension("html"), Path::to_owned);
    std::fs::write(&file, page).with_context(|| format!("writing {}", file.display()))
}

/// Ways of writing in turns, or two of them in slices.
fn engines(options: &Options, recipes: Vec<Recipe>, duel: bool, turns: usize) -> Result<()> {
    if duel {
        return engines_side_by_side(options, recipes, turns);
    }
    let workloads = options.workloads(|workload| workload.group == Group::Canonical)?;
    in_turns(options, recipes, &Turns { turns, warmup_turns: 0 }, workloads)
}

/// Two ways of writing in slices; prints the ratios of their CPU.
fn engines_side_by_side(options: &Options, recipes: Vec<Recipe>, turns: usize) -> Result<()> {
    let recipes: [Recipe; 2] = recipes.try_into().ok().context("a duel is between two")?;
    let workloads = options.workloads(|workload| workload.group == Group::Canonical)?;
    let workloads = workloads.into_iter().filter(|one| one.figure != Figure::MedianLatency).collect();
    host::catch_signals()?;
    let place = Place { rest: Duration::ZERO, ..options.place()? };
    let plan = options.conditions(place.layout, (0.2, 0.1))?.plan;
    place.enter_load()?;
    let names = [&recipes[0], &recipes[1]].map(Recipe::name);
    for (workload, costs) in (Duel { recipes, plan, place }).turns(workloads, turns)? {
        let ratios: Vec<f64> = costs.iter().map(|cost| cost.ratio).collect();
        let Some(spread) = Spread::of(ratios.clone()) else { continue };
        let [one, other] = names;
        println!(
            "{:<16} {one} ÷ {other}: {} ({}–{}) over {} turns",
            workload.name,
            markdown::short(spread.median),
            markdown::short(spread.min),
            markdown::short(spread.max),
            ratios.len()
        );
    }
    Ok(())
}

fn in_turns(options: &Options, recipes: Vec<Recipe>, turns: &Turns, workloads: Vec<Workload>) -> Result<()> {
    in_turns_on(options, options.nodes.unwrap_or(1), recipes, turns, workloads)
}

fn in_turns_on(
    options: &Options,
    nodes: usize,
    recipes: Vec<Recipe>,
    turns: &Turns,
    workloads: Vec<Workload>,
) -> Result<()> {
    let names: Vec<&str> = recipes.iter().map(Recipe::name).collect();
    let of_several = if nodes > 1 { "cluster-" } else { "" };
    let name = format!("{of_several}{}", names.join("-"));
    let comparison = Comparison { recipes, workloads, turns: turns.turns, warmup_turns: turns.warmup_turns };
    let (place, conditions) = prepare(options)?;
    let report = compare::run(&comparison, &conditions, &Place { nodes, ..place })?;
    conclude(options, &name, &report)
}

/// Where and how runs are made; from here on a signal ends them in order.
fn prepare(options: &Options) -> Result<(Place, Conditions)> {
    host::catch_signals()?;
    let place = options.place()?;
    let conditions = options.conditions(place.layout, (1.0, 3.0))?;
    place.enter_load()?;
    Ok((place, conditions))
}

/// Shows a result, and keeps it where --out says.
fn conclude(options: &Options, name: &str, report: &Report) -> Result<()> {
    println!("\n{}", markdown::table(report));
    options.out.as_ref().map_or(Ok(()), |folder| report.save(folder, name))
}

fn seconds(value: f64, name: &str) -> Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("--{name} {value} is not a length of time"))
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
    let maker = host::processor("vendor_id");
    let chosen = stored.chosen(&options.workload)?;
    let place = Place { rest: Duration::ZERO, ..options.place()? };
    ensure!(place.layout == stored.layout, "the stored ratios are of layout {}", stored.layout.name());
    let plan = options.conditions(place.layout, (0.2, 0.1))?.plan;
    place.enter_load()?;
    let duel = Duel { recipes: [options.tidemill()?, Recipe::FLOOR], plan, place };
    if store {
        let workloads = chosen.iter().map(|(workload, _)| workload.clone()).collect();
        stored.take_over(&duel.turns(workloads, gate::turns_again(turns))?, &maker);
        stored.write(file)?;
        println!("stored in {}", file.display());
        return Ok(());
    }
    let verdicts = gate::judge(&chosen, &maker, turns, |workloads, turns| duel.turns(workloads, turns))?;
    println!("{}", gate::summary(&verdicts, file));
    ensure!(!verdicts.iter().any(gate::Verdict::fails), "the gate is closed");
    ensure!(verdicts.iter().any(gate::Verdict::passes), "the machine is too busy to judge a single workload");
    Ok(())
}

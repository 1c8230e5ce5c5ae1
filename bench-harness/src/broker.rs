//! Brokers under test: how each is started, found, and stopped. A broker that the harness starts gets a
//! directory of its own and free ports on the loopback, and both go with it; nothing outlives the harness,
//! killed or not. A broker may be a cluster: several processes of the same program that know each other.

mod node;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::admin::Admin;
use crate::floor::Append;
use crate::host::{self, Layout, Usage};
use crate::kafka;
use crate::network::Network;
pub use node::Node;

/// The id that clusters of the harness are formatted with.
pub const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";
/// Copies of each partition, where there are as many nodes.
const REPLICAS: usize = 3;

/// How to get a broker.
#[derive(Clone, Debug)]
pub enum Recipe {
    /// The harness's own minimal program.
    Floor {
        /// How it writes.
        append: Append,
        /// Whether an answer waits until its bytes are durable.
        flush: bool,
    },
    /// A binary of Tidemill, run as `PATH start FILE.properties`.
    Tidemill {
        /// Its name in tables.
        name: &'static str,
        /// The binary.
        binary: PathBuf,
        /// `key=value` lines that come last.
        settings: Vec<String>,
    },
    /// Apache Kafka from the jars in a folder, with further settings.
    Kafka {
        /// The folder of the jars.
        jars: PathBuf,
        /// `key=value` lines that come last.
        settings: Vec<String>,
    },
    /// Somebody else's broker.
    Running {
        /// Where it listens.
        bootstrap: String,
        /// Its process, if its CPU is to be read.
        pid: Option<u32>,
    },
}

impl Recipe {
    /// The yardstick.
    pub const FLOOR: Recipe = Recipe::Floor { append: Append::Plain, flush: false };

    /// The contender's name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Recipe::Floor { append, .. } => append.name(),
            Recipe::Tidemill { name, .. } => name,
            Recipe::Kafka { .. } => "kafka",
            Recipe::Running { .. } => "broker",
        }
    }

    /// Tidemill under its own name.
    pub fn tidemill(binary: PathBuf) -> Recipe {
        Recipe::Tidemill { name: "tidemill", binary, settings: Vec::new() }
    }

    /// The same with further settings, which win; a broker that is not started by settings keeps its own.
    pub fn with_settings(&self, more: &[String]) -> Recipe {
        let mut recipe = self.clone();
        match &mut recipe {
            Recipe::Tidemill { settings, .. } | Recipe::Kafka { settings, .. } => {
                settings.extend_from_slice(more)
            }
            Recipe::Floor { .. } | Recipe::Running { .. } => {}
        }
        recipe
    }

    /// What it is a version of; empty where that cannot be told.
    pub fn version(&self) -> String {
        match self {
            Recipe::Kafka { .. } => kafka::VERSION.to_owned(),
            Recipe::Tidemill { binary, .. } if std::env::current_exe().ok().as_ref() != Some(binary) => {
                host::spoken(Command::new(binary).arg("--version")).replace("tidemill ", "")
            }
            Recipe::Floor { .. } | Recipe::Tidemill { .. } => env!("CARGO_PKG_VERSION").to_owned(),
            Recipe::Running { .. } => String::new(),
        }
    }

    /// Whether every run gets a new process: the floor cannot delete what a run wrote.
    pub fn fresh_for_each_run(&self) -> bool {
        matches!(self, Recipe::Floor { .. })
    }
}

/// A directory that goes when its owner goes.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a new directory under `parent`.
    pub fn new(parent: &Path, name: &str) -> Result<Scratch> {
        for attempt in 0..1000 {
            let path = parent.join(format!("bench-{name}-{}-{attempt}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch { path }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context(format!("creating {}", path.display())),
            }
        }
        bail!("no free name for a directory under {}", parent.display())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}

/// A broker that answers: one process, or the nodes of a cluster.
pub struct Broker {
    /// The contender's name.
    pub name: &'static str,
    /// Its nodes; one that stands alone is one.
    pub nodes: Vec<Node>,
    /// From the start of the first process to the last one's first answer.
    pub start_up: Option<Duration>,
    /// Resident bytes when it first answered and had rested ([`Place::rest`]).
    pub resident_at_start_bytes: Option<u64>,
    /// How it was started, in a form that means something on another machine; empty for one that was there before.
    pub command: String,
    /// The lines of its settings, in the same form; of a cluster those of the first node.
    pub settings: Vec<String>,
    /// Whether topics can be created and deleted.
    pub has_topics: bool,
}

/// A node among those of its cluster, as its settings name it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id, from 1 on.
    pub id: usize,
    /// Where it listens for clients.
    pub address: SocketAddr,
    /// Where the controllers of all nodes listen, in the order of the ids.
    pub control: Vec<SocketAddr>,
}

impl Member {
    /// The lines that make a node that is controller and broker one of its cluster; the same for every contender.
    pub fn lines(&self) -> Vec<String> {
        let own = self.control.get(self.id - 1).copied().unwrap_or(self.address);
        let voters: Vec<String> = self.control.iter().zip(1..).map(|(at, id)| format!("{id}@{at}")).collect();
        let replicas = replicas(self.control.len());
        vec![
            "process.roles=broker,controller".to_owned(),
            format!("node.id={}", self.id),
            format!("controller.quorum.voters={}", voters.join(",")),
            format!("listeners=PLAINTEXT://{},CONTROLLER://{own}", self.address),
            format!("advertised.listeners=PLAINTEXT://{}", self.address),
            "controller.listener.names=CONTROLLER".to_owned(),
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned(),
            format!("default.replication.factor={replicas}"),
            format!("offsets.topic.replication.factor={replicas}"),
            format!("transaction.state.log.replication.factor={replicas}"),
            format!("transaction.state.log.min.isr={}", replicas.div_ceil(2)),
            format!("min.insync.replicas={}", replicas.div_ceil(2)),
        ]
    }
}

/// Copies of each partition on that many nodes.
pub fn replicas(nodes: usize) -> usize {
    nodes.min(REPLICAS)
}

/// How a broker is stopped before it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is asked to.
    Clean,
    /// It is killed.
    Kill,
}

/// Where brokers run and keep their data.
#[derive(Clone, Debug)]
pub struct Place {
    /// Whether broker and load share CPUs.
    pub layout: Layout,
    /// The CPUs that the broker may use.
    pub broker_cpus: Vec<usize>,
    /// The CPUs of the load.
    pub load_cpus: Vec<usize>,
    /// The folder in which scratch directories are made.
    pub data: PathBuf,
    /// How long a broker rests before its memory is read for the first time.
    pub rest: Duration,
    /// How many nodes a broker has.
    pub nodes: usize,
    /// The network of those nodes; without one they are all on the loopback.
    pub network: Option<Arc<Network>>,
}

impl Place {
    /// The CPUs of a layout, out of those that the harness may use, for brokers of one node.
    pub fn new(layout: Layout, cpus: &[usize], data: PathBuf, rest: Duration) -> Place {
        let (broker_cpus, load_cpus) = (layout.broker_cpus(cpus).to_vec(), layout.load_cpus(cpus).to_vec());
        Place { layout, broker_cpus, load_cpus, data, rest, nodes: 1, network: None }
    }

    /// How many CPUs broker and load use together.
    pub fn cpu_count(&self) -> usize {
        let more = self.load_cpus.iter().filter(|cpu| !self.broker_cpus.contains(cpu));
        self.broker_cpus.len() + more.count()
    }

    /// Moves this thread to the broker's CPUs.
    pub fn enter_broker(&self) -> Result<()> {
        host::pin(&self.broker_cpus)
    }

    /// Moves this thread to the broker's CPUs and a node's network, for the moment in which it starts the node: a child
    /// inherits both.
    fn enter_node(&self, id: usize) -> Result<()> {
        self.network.as_ref().map_or(Ok(()), |network| network.enter_node(id))?;
        self.enter_broker()
    }

    /// Moves this thread to the CPUs and the network of the load.
    pub fn enter_load(&self) -> Result<()> {
        self.network.as_ref().map_or(Ok(()), |network| network.enter_load())?;
        host::pin(&self.load_cpus)
    }

    /// Where a node is.
    fn host(&self, id: usize) -> IpAddr {
        self.network.as_ref().map_or(Ipv4Addr::LOCALHOST.into(), |network| network.address(id))
    }
}

impl Broker {
    /// Follows a recipe until every node answers.
    pub fn start(recipe: &Recipe, place: &Place) -> Result<Broker> {
        if let Recipe::Running { bootstrap, pid } = recipe {
            return Broker::attach(bootstrap, *pid);
        }
        let alone = matches!(recipe, Recipe::Floor { .. });
        ensure!(place.nodes == 1 || place.nodes > 1 && !alone, "the floor is one node");
        let ports = free_ports(2 * place.nodes)?;
        let (clients, control) = ports.split_at(place.nodes);
        let address = |(port, id): (&u16, usize)| SocketAddr::from((place.host(id), *port));
        let control: Vec<SocketAddr> = control.iter().zip(1..).map(address).collect();
        let mut nodes = Vec::new();
        for (port, id) in clients.iter().zip(1..) {
            let scratch = Scratch::new(&place.data, recipe.name())?;
            let member = Member { id, address: address((port, id)), control: control.clone() };
            let command = command(recipe, place, scratch.path(), &member)?;
            nodes.push(Node::new(&member, command, scratch, place.clone()));
        }
        let first = nodes.first().context("a broker has a node")?;
        let (command, settings) = (
            first.command(|command, scratch| in_words(command, recipe, scratch)),
            first.command(|_, scratch| settings_of(scratch)),
        );
        let mut broker = Broker {
            name: recipe.name(),
            nodes,
            start_up: None,
            resident_at_start_bytes: None,
            command: command.unwrap_or_default(),
            settings: settings.unwrap_or_default(),
            has_topics: !alone,
        };
        broker.start_up = Some(broker.start_nodes()?);
        std::thread::sleep(place.rest);
        broker.resident_at_start_bytes = Some(broker.resident_bytes());
        Ok(broker)
    }

    fn attach(bootstrap: &str, pid: Option<u32>) -> Result<Broker> {
        let mut addresses = bootstrap.to_socket_addrs().with_context(|| format!("looking up {bootstrap}"))?;
        let address = addresses.next().with_context(|| format!("{bootstrap} has no address"))?;
        Admin::connect(address)?.answers()?;
        Ok(Broker {
            name: "broker",
            nodes: vec![Node::foreign(address, pid)],
            start_up: None,
            resident_at_start_bytes: None,
            command: String::new(),
            settings: Vec::new(),
            has_topics: true,
        })
    }

    /// Where its first node listens.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.nodes.first().context("a broker has a node")?.address)
    }

    /// Its processes, as far as they are known.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(Node::pid).collect()
    }

    /// Copies that its topics have of each partition.
    pub fn replicas(&self) -> usize {
        replicas(self.nodes.len())
    }

    /// Resident bytes at this moment; 0 where the processes are not known.
    pub fn resident_bytes(&self) -> u64 {
        Usage::of_all(&self.pids()).ok().flatten().map_or(0, |usage| usage.resident_bytes)
    }

    /// Stops the broker and starts it again with what it has stored. Returns how long it took to stop, and from the
    /// start of the process to its first answer.
    pub fn restart(&mut self, how: Stop) -> Result<(Duration, Duration)> {
        let asked = Instant::now();
        self.nodes.iter_mut().try_for_each(|node| node.stop(how))?;
        Ok((asked.elapsed(), self.start_nodes()?))
    }

    /// Starts all nodes, which may need each other, and then waits for their answers.
    fn start_nodes(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.nodes.iter_mut().try_for_each(Node::launch)?;
        self.nodes.iter_mut().try_for_each(|node| node.await_answer().map(drop))?;
        Ok(started.elapsed())
    }

    /// Fails when a process has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        let name = self.name;
        self.nodes.iter_mut().try_for_each(|node| node.check_alive().context(name))
    }
}

/// Lets the child end when this process ends, however that is.
pub fn tie_to_this_process(command: &mut Command) {
    // SAFETY: prctl is one system call, safe between fork and exec.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
}

/// The lines of a properties file: of each key the last.
pub fn properties(lines: &[String]) -> String {
    let key = |line: &String| line.split('=').next().unwrap_or("").trim().to_owned();
    let last =
        |(at, line): &(usize, &String)| !lines.iter().skip(at + 1).any(|later| key(later) == key(line));
    lines.iter().enumerate().filter(last).map(|(_, line)| format!("{line}\n")).collect()
}

fn command(recipe: &Recipe, place: &Place, scratch: &Path, member: &Member) -> Result<Command> {
    let data = scratch.join("data");
    match recipe {
        Recipe::Floor { append, flush } => {
            fs::create_dir(&data)?;
            let mut command = Command::new(std::env::current_exe()?);
            command
                .arg("serve-floor")
                .arg("--port")
                .arg(member.address.port().to_string())
                .arg("--data")
                .arg(&data);
            if *append != Append::Plain {
                command.arg("--append").arg(append.argument());
            }
            command.args(flush.then_some("--flush"));
            Ok(command)
        }
        Recipe::Tidemill { binary, settings, .. } => {
            let file = scratch.join("server.properties");
            let shards = place.broker_cpus.len();
            let mut lines = match member.control.as_slice() {
                [_] => vec![format!("listeners=PLAINTEXT://{}", member.address)],
                _ => member.lines(),
            };
            lines.push(format!("log.dirs={}", data.display()));
            lines.push(format!("shard.count={shards}"));
            lines.extend(settings.iter().cloned());
            fs::write(&file, properties(&lines))?;
            if member.control.len() > 1 {
                let mut format = Command::new(binary);
                format.args(["format", "--cluster-id", CLUSTER_ID, "--config"]).arg(&file);
                done(format.current_dir(scratch), "tidemill format")?;
            }
            let mut command = Command::new(binary);
            command.arg("start").arg(file).current_dir(scratch);
            Ok(command)
        }
        Recipe::Kafka { jars, settings } => kafka::command(jars, settings, scratch, member),
        Recipe::Running { .. } => bail!("a running broker is not started"),
    }
}

/// A command without the folders of this machine: they are named by what they are.
fn in_words(command: &Command, recipe: &Recipe, scratch: &Path) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let jars = match recipe {
        Recipe::Kafka { jars, .. } => fs::canonicalize(jars).ok(),
        _ => None,
    };
    let word = |word: &std::ffi::OsStr| {
        let word = without_scratch(&word.to_string_lossy(), scratch);
        jars.as_ref().map_or(word.clone(), |jars| word.replace(&jars.display().to_string(), "libs"))
    };
    std::iter::once(program).chain(command.get_args().map(word)).collect::<Vec<String>>().join(" ")
}

fn without_scratch(text: &str, scratch: &Path) -> String {
    text.replace(&format!("{}/", scratch.display()), "")
}

/// The settings that a recipe wrote into its scratch directory.
fn settings_of(scratch: &Path) -> Vec<String> {
    let text = fs::read_to_string(scratch.join("server.properties")).unwrap_or_default();
    text.lines().map(|line| without_scratch(line, scratch)).collect()
}

/// Ports that were free a moment ago, no two the same.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let bound = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)));
    let listeners: Vec<TcpListener> = bound.collect::<std::io::Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Runs a command to its end, which must be a good one.
pub fn done(command: &mut Command, what: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("running {:?}", command.get_program()))?;
    ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_settings_name_no_folder_of_this_machine() {
        let scratch = Scratch::new(&std::env::temp_dir(), "words").unwrap();
        let jars = scratch.path().join("cache/kafka/libs");
        fs::create_dir_all(&jars).unwrap();
        let home = scratch.path().join("run");
        fs::create_dir(&home).unwrap();
        fs::write(home.join("server.properties"), format!("log.dirs={}/data\na=1\n", home.display()))
            .unwrap();
        let mut command = Command::new("/usr/bin/java");
        command.args(["-cp", &format!("{}/*", fs::canonicalize(&jars).unwrap().display()), "kafka.Kafka"]);
        command.arg(home.join("server.properties"));
        let recipe = Recipe::Kafka { jars, settings: Vec::new() };
        assert_eq!(in_words(&command, &recipe, &home), "java -cp libs/* kafka.Kafka server.properties");
        assert_eq!(settings_of(&home), ["log.dirs=data", "a=1"]);
    }

    #[test]
    fn of_each_key_the_last_line_wins() {
        let lines = ["a=1", "b.c=2", "a=3", "a.b=4"].map(str::to_owned);
        assert_eq!(properties(&lines), "b.c=2\na=3\na.b=4\n");
    }

    #[test]
    fn settings_reach_the_brokers_that_are_started_by_settings() {
        let more = ["x=1".to_owned()];
        let recipe = Recipe::tidemill(PathBuf::from("t")).with_settings(&more).with_settings(&more);
        assert!(matches!(recipe, Recipe::Tidemill { settings, .. } if settings.len() == 2));
        assert!(matches!(Recipe::FLOOR.with_settings(&more), Recipe::Floor { .. }));
    }

    #[test]
    fn the_nodes_of_a_cluster_name_each_other_and_have_ports_of_their_own() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let lines = Member { id: 2, address: at(7), control: [4, 5, 6].map(at).to_vec() }.lines();
        let has = |line: &str| lines.iter().any(|one| one == line);
        assert!(has("controller.quorum.voters=1@127.0.0.1:4,2@127.0.0.1:5,3@127.0.0.1:6"));
        assert!(has("listeners=PLAINTEXT://127.0.0.1:7,CONTROLLER://127.0.0.1:5"));
        assert!(has("default.replication.factor=3") && has("min.insync.replicas=2"));
        let mut ports = free_ports(8).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
        let alone = Member { id: 1, address: at(7), control: vec![at(4)] }.lines();
        assert!(alone.iter().any(|line| line == "min.insync.replicas=1"));
    }
}

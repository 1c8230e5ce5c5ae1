//! `tidemill demo-cluster`: several nodes on this machine in one command, to try a cluster out.
//!
//! Each node is a process of this executable with both roles, a folder and ports of its own. They are formatted with
//! each other as the quorum's voters, started, watched and stopped together; the kernel ends them with this process,
//! whatever ends it.

mod plan;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use self::plan::{Plan, PlannedNode};
use super::output::print;
use crate::client::{Admin, ClientError, Cluster, ConnectionConfig};
use crate::shard::children::{self, StopSignals};

/// How long the nodes may take until they are a cluster, and until they have stopped.
const READY_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for an answer about the cluster, and between two questions.
const ASK_PATIENCE: Duration = Duration::from_secs(2);
const ASK_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill demo-cluster
  tidemill demo-cluster --dir ./demo --nodes 5 --shards 2 --base-port 29092")]
pub(super) struct Options {
    /// The folder of all nodes; the cluster that is there already is started again. A temporary one unless given,
    /// removed at the end.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Nodes of a new cluster; 3 unless given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Option<u16>,
    /// Shards of each node of a new cluster; 1 unless given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: Option<u16>,
    /// The first port of a new cluster: one for each broker, then one for each controller. Free ones unless given.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65_000))]
    base_port: Option<u16>,
}

/// Runs the cluster until a signal.
pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    let signals = StopSignals::block().map_err(|error| failed("the signals cannot be waited for", &error))?;
    let (folder, is_temporary) = folder(options)?;
    let plan = if plan::is_there(&folder) {
        Plan::read(&folder, options)?
    } else {
        let plan = Plan::new(&folder, options)?;
        plan.write()?;
        plan
    };
    let then = if is_temporary { ", removed at the end (--dir keeps it)" } else { "" };
    print(&format!("{} nodes with data in {}{then}\n", plan.nodes.len(), folder.display()))?;
    let (sender, events) = mpsc::channel();
    let stopping = sender.clone();
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if stopping.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    let mut running = Running { events, sender, nodes: Vec::new() };
    let watched = running.start(&plan).and_then(|()| running.watch(&plan));
    let stopped = running.stop();
    let result = watched.and(stopped);
    if is_temporary && result.is_ok() {
        return fs::remove_dir_all(&folder).map_err(|error| failed("the folder cannot be removed", &error));
    }
    result
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> ClientError {
    ClientError::Usage(format!("{what}: {error}"))
}

/// The folder of the cluster, made, and whether it is a temporary one.
fn folder(options: &Options) -> Result<(PathBuf, bool), ClientError> {
    let make = |folder: &Path| {
        fs::create_dir_all(folder)
            .and_then(|()| fs::canonicalize(folder))
            .map_err(|error| failed(&format!("the folder {} cannot be made", folder.display()), &error))
    };
    match &options.dir {
        Some(folder) => Ok((make(folder)?, false)),
        None => {
            let name = format!("tidemill-demo-{}", uuid::Uuid::new_v4().simple());
            Ok((make(&std::env::temp_dir().join(name))?, true))
        }
    }
}

/// What happens while the nodes run.
enum Event {
    /// A node has said a line.
    Said(i32, String),
    /// A node's standard error has ended, and so has the node.
    Ended(i32),
    /// This process was asked to stop.
    Signal(&'static str),
}

/// A node as a process.
struct Node {
    id: i32,
    /// How to start it again by hand.
    again: String,
    /// `None` once it has ended.
    child: Option<Child>,
    is_ready: bool,
}

/// The cluster.
struct Running {
    nodes: Vec<Node>,
    events: Receiver<Event>,
    sender: Sender<Event>,
}

impl Running {
    /// Starts every node and waits until they are a cluster. A signal meanwhile is put off until they are.
    fn start(&mut self, plan: &Plan) -> Result<(), ClientError> {
        let program =
            std::env::current_exe().map_err(|error| failed("this executable is not found", &error))?;
        for node in &plan.nodes {
            let node = start_node(&program, node, &self.sender)?;
            self.nodes.push(node);
        }
        let deadline = Instant::now() + READY_PATIENCE;
        let mut admin = admin(plan);
        let mut signal = None;
        loop {
            match self.events.recv_timeout(ASK_PAUSE) {
                Ok(Event::Said(id, line)) => self.said(id, &line),
                Ok(Event::Ended(id)) => {
                    let how = self.ended(id).unwrap_or_default();
                    return Err(ClientError::Usage(format!(
                        "node {id} ended before the cluster was ready: {how}"
                    )));
                }
                // A second one is in a hurry.
                Ok(Event::Signal(name)) if signal.is_some() => {
                    return Err(ClientError::Usage(name.to_owned()));
                }
                Ok(Event::Signal(name)) => signal = Some(name),
                Err(_) if signal.is_some() => break,
                Err(_) if self.nodes.iter().all(|node| node.is_ready) && has_all(&mut admin, plan) => break,
                Err(_) => {}
            }
            if Instant::now() > deadline {
                let why = format!("no cluster of all nodes within {} s", READY_PATIENCE.as_secs());
                return Err(ClientError::Usage(why));
            }
        }
        // It is found again by who watches.
        signal.map_or(Ok(()), |name| {
            self.sender.send(Event::Signal(name)).map_err(|error| failed("stop", &error))
        })
    }

    /// Says that the cluster is there, and then who leaves it, until a signal.
    fn watch(&mut self, plan: &Plan) -> Result<(), ClientError> {
        print(&greeting(plan))?;
        loop {
            match self.events.recv() {
                Ok(Event::Said(id, line)) => self.said(id, &line),
                Ok(Event::Ended(id)) => {
                    let Some(how) = self.ended(id) else { continue };
                    let left = self.nodes.iter().filter(|node| node.child.is_some()).count();
                    let again = self.nodes.iter().find(|node| node.id == id).map(|node| node.again.as_str());
                    let again = again.unwrap_or_default();
                    print(&format!(
                        "node {id} has ended ({how}), {left} go on; start it again with: {again}\n"
                    ))?;
                    if left == 0 {
                        return Err(ClientError::Usage("every node has ended".to_owned()));
                    }
                }
                Ok(Event::Signal(name)) => return print(&format!("{name}: stopping all nodes\n")),
                Err(error) => return Err(failed("nothing can be waited for", &error)),
            }
        }
    }

    /// Asks every node to stop and waits for them; after a second signal, or when they take too long, they are killed.
    fn stop(&mut self) -> Result<(), ClientError> {
        self.nodes.iter().filter_map(|node| node.child.as_ref()).for_each(children::terminate);
        let deadline = Instant::now() + STOP_PATIENCE;
        let mut unclean = Vec::new();
        while self.nodes.iter().any(|node| node.child.is_some()) {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Said(id, line)) => self.said(id, &line),
                Ok(Event::Ended(id)) => match self.ended(id) {
                    Some(how) if how != STOPPED => unclean.push(format!("node {id} ended with {how}")),
                    _ => {}
                },
                Ok(Event::Signal(_)) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    unclean.extend(self.kill());
                }
            }
        }
        if unclean.is_empty() { Ok(()) } else { Err(ClientError::Usage(unclean.join("; "))) }
    }

    /// Kills who still runs; what is to be said of each.
    fn kill(&mut self) -> Vec<String> {
        let running = self.nodes.iter_mut().filter_map(|node| Some((node.id, node.child.take()?)));
        running
            .map(|(id, mut child)| match child.kill().and_then(|()| child.wait()) {
                Ok(_) => format!("node {id} did not stop and was killed"),
                Err(error) => format!("node {id} did not stop: {error}"),
            })
            .collect()
    }

    fn said(&mut self, id: i32, line: &str) {
        let line = line.strip_prefix("tidemill: ").unwrap_or(line);
        eprintln!("node {id}: {line}");
        let node = self.nodes.iter_mut().find(|node| node.id == id);
        node.into_iter().for_each(|node| node.is_ready |= line.starts_with("ready on "));
    }

    /// How a node has ended; `None` if that is known already.
    fn ended(&mut self, id: i32) -> Option<String> {
        let mut child = self.nodes.iter_mut().find(|node| node.id == id)?.child.take()?;
        Some(child.wait().map_or_else(|error| error.to_string(), |status| status.to_string()))
    }
}

/// What an [`ExitStatus`](std::process::ExitStatus) says of a clean stop.
const STOPPED: &str = "exit status: 0";

fn start_node(program: &Path, node: &PlannedNode, events: &Sender<Event>) -> Result<Node, ClientError> {
    let mut command = Command::new(program);
    command.arg("start").arg(&node.config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = children::spawn(&mut command)
        .map_err(|error| failed(&format!("node {} cannot be started", node.id), &error))?;
    if let Some(stderr) = child.stderr.take() {
        let (id, events) = (node.id, events.clone());
        std::thread::spawn(move || {
            // What is no text is still a line.
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if events.send(Event::Said(id, line)).is_err() {
                    return;
                }
            }
            let _ = events.send(Event::Ended(id));
        });
    }
    let again = format!("{} start {}", program.display(), node.config.display());
    Ok(Node { id: node.id, again, child: Some(child), is_ready: false })
}

fn admin(plan: &Plan) -> Admin {
    let config = ConnectionConfig { response_timeout: ASK_PATIENCE, ..ConnectionConfig::default() };
    let addresses = plan.nodes.iter().map(|node| node.address.clone()).collect();
    Admin::new(Cluster::new(addresses, config).with_patience(ASK_PATIENCE), ASK_PATIENCE)
}

/// Whether the cluster has every broker.
fn has_all(admin: &mut Admin, plan: &Plan) -> bool {
    let found = admin.describe_cluster(false).map(|cluster| cluster.brokers.len());
    found.is_ok_and(|brokers| brokers == plan.nodes.len())
}

fn greeting(plan: &Plan) -> String {
    let addresses: Vec<&str> = plan.nodes.iter().map(|node| node.address.as_str()).collect();
    let addresses = addresses.join(",");
    let program = std::env::args().next().unwrap_or_else(|| "tidemill".to_owned());
    let replicas = plan.nodes.len().min(3);
    format!(
        "bootstrap servers: {addresses}

Try in another terminal:
  export TIDEMILL_BOOTSTRAP_SERVER={addresses}
  {program} topics --create --topic words --partitions 6 --replication-factor {replicas}
  echo hello | {program} console-producer --topic words
  {program} topics --describe --topic words

Ctrl-C stops all nodes.
"
    )
}

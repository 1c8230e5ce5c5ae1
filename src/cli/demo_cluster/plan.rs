//! The nodes of a demo cluster: their folders, ports and configurations.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::start::load_quietly;
use super::super::storage::{format_node, random_id};
use super::{Options, failed};
use crate::client::ClientError;
use crate::log::encode_uuid;
use crate::shard::children;

const HOST: &str = "127.0.0.1";
const CONFIG: &str = "server.properties";
/// Where free ports are looked for: near Kafka's own, below those that outgoing connections are given.
const FIRST_PORT: u16 = 19_092;

/// A cluster.
pub(super) struct Plan {
    /// Its nodes, by id.
    pub nodes: Vec<PlannedNode>,
    /// What a new cluster is formatted with: its id, and its voters.
    new: Option<(String, String)>,
}

/// A node.
pub(super) struct PlannedNode {
    pub id: i32,
    /// Its file of properties.
    pub config: PathBuf,
    /// `host:port` for clients.
    pub address: String,
    /// What the file is to say; empty for one that is there.
    properties: String,
}

/// Whether a folder holds a cluster.
pub(super) fn is_there(folder: &Path) -> bool {
    config_of(folder, 1).exists()
}

fn config_of(folder: &Path, id: i32) -> PathBuf {
    folder.join(format!("node-{id}")).join(CONFIG)
}

impl Plan {
    /// A new cluster in a folder.
    pub fn new(folder: &Path, options: &Options) -> Result<Self, ClientError> {
        if folder.to_string_lossy().contains([',', '\\', '\n']) {
            let shown = folder.display();
            return Err(ClientError::Usage(format!(
                "{shown}: commas and backslashes cannot be in a folder's name"
            )));
        }
        let (count, shards) = (options.nodes.unwrap_or(3), options.shards.unwrap_or(1));
        let base = match options.base_port {
            Some(base) if children::are_free(base, 2 * count) => base,
            Some(base) => {
                let last = base + 2 * count - 1;
                return Err(ClientError::Usage(format!("not all ports from {base} to {last} are free")));
            }
            None => children::free_ports(FIRST_PORT, 2 * count)
                .ok_or_else(|| ClientError::Usage(format!("no {} free ports in a row", 2 * count)))?,
        };
        let controllers: Vec<String> =
            (0..count).map(|index| format!("{HOST}:{}", base + count + index)).collect();
        let voters: Vec<String> = (1_i32..)
            .zip(&controllers)
            .map(|(id, controller)| format!("{id}@{controller}:{}", encode_uuid(random_id())))
            .collect();
        let cpus = children::allowed_cpus();
        let nodes = (1_i32..).zip(&controllers).zip(base..).map(|((id, controller), port)| {
            let address = format!("{HOST}:{port}");
            let node = Sketch {
                id,
                address: &address,
                controller,
                controllers: &controllers,
                data: &folder.join(format!("node-{id}")).join("data"),
                shards,
                cpus: &cpus_of(id, shards, &cpus),
            };
            let properties = node.properties();
            PlannedNode { id, config: config_of(folder, id), address, properties }
        });
        let new = Some((encode_uuid(random_id()), voters.join(",")));
        Ok(Self { nodes: nodes.collect(), new })
    }

    /// The cluster that a folder holds.
    pub fn read(folder: &Path, options: &Options) -> Result<Self, ClientError> {
        if options.nodes.is_some() || options.shards.is_some() || options.base_port.is_some() {
            return Err(ClientError::Usage(format!(
                "{} holds a cluster already: --nodes, --shards and --base-port are for a new one",
                folder.display()
            )));
        }
        let mut nodes = Vec::new();
        for id in 1.. {
            let config = config_of(folder, id);
            if !config.exists() {
                break;
            }
            let read = load_quietly(std::slice::from_ref(&config), &[]).map_err(ClientError::Usage)?;
            let listener = read
                .listeners
                .first()
                .ok_or_else(|| ClientError::Usage(format!("{} has no listener", config.display())))?;
            let address = format!("{HOST}:{}", listener.bind.port);
            nodes.push(PlannedNode { id, config, address, properties: String::new() });
        }
        Ok(Self { nodes, new: None })
    }

    /// Writes the files of a new cluster and formats its nodes.
    pub fn write(&self) -> Result<(), ClientError> {
        let Some((cluster_id, voters)) = &self.new else { return Ok(()) };
        for node in &self.nodes {
            let shown = node.config.display();
            let folder = node.config.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(&node.config, &node.properties))
                .map_err(|error| failed(&format!("{shown} cannot be written"), &error))?;
            format_node(node.config.clone(), cluster_id, voters)?;
        }
        Ok(())
    }
}

/// The CPUs of a node: the next ones after those of the node before it, so that the nodes share the machine.
fn cpus_of(id: i32, shards: u16, cpus: &[usize]) -> Vec<usize> {
    let shards = usize::from(shards);
    let before = usize::try_from(id - 1).unwrap_or(0) * shards;
    cpus.iter().copied().cycle().skip(before).take(shards.min(cpus.len())).collect()
}

/// What a node's file says.
struct Sketch<'a> {
    id: i32,
    address: &'a str,
    controller: &'a str,
    controllers: &'a [String],
    data: &'a Path,
    shards: u16,
    cpus: &'a [usize],
}

impl Sketch<'_> {
    fn properties(&self) -> String {
        let cpus: Vec<String> = self.cpus.iter().map(ToString::to_string).collect();
        let cpus = if cpus.is_empty() { "all".to_owned() } else { cpus.join(",") };
        let replicas = self.controllers.len().min(3);
        let in_sync = replicas.div_ceil(2);
        format!(
            "process.roles=broker,controller
node.id={id}
listeners=PLAINTEXT://{address},CONTROLLER://{controller}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers={controllers}
log.dirs={data}
shard.count={shards}
shard.cpus={cpus}
default.replication.factor={replicas}
offsets.topic.replication.factor={replicas}
min.insync.replicas={in_sync}
group.initial.rebalance.delay.ms=0
",
            id = self.id,
            address = self.address,
            controller = self.controller,
            controllers = self.controllers.join(","),
            data = self.data.display(),
            shards = self.shards,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(nodes: Option<u16>) -> Options {
        Options { dir: None, nodes, shards: None, base_port: None }
    }

    #[test]
    fn a_new_cluster_is_formatted_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_there(folder.path()));
        let plan = Plan::new(folder.path(), &options(Some(4))).unwrap();
        plan.write().unwrap();
        assert!(is_there(folder.path()));
        let addresses = |plan: &Plan| -> Vec<(i32, String)> {
            plan.nodes.iter().map(|node| (node.id, node.address.clone())).collect()
        };
        let found = Plan::read(folder.path(), &options(None)).unwrap();
        assert_eq!(addresses(&found), addresses(&plan));
        assert_eq!(found.nodes.len(), 4);
        for (node, id) in found.nodes.iter().zip(1..) {
            let config = load_quietly(std::slice::from_ref(&node.config), &[]).unwrap();
            assert_eq!((config.node_id, config.cluster.bootstrap_servers.len()), (id, 4));
            assert_eq!((config.num_partitions, config.shard_count), (1, 1));
            let data = node.config.parent().unwrap().join("data");
            assert!(data.join("meta.properties").exists() && data.join("quorum.properties").exists());
        }
        let refused = Plan::read(folder.path(), &options(Some(3))).err().unwrap().to_string();
        assert!(refused.contains("holds a cluster already"), "{refused}");
    }

    #[test]
    fn nodes_take_turns_on_the_cpus() {
        let of = |shards, cpus: &[usize]| (1..=3).map(|id| cpus_of(id, shards, cpus)).collect::<Vec<_>>();
        assert_eq!(of(1, &[0, 5]), [[0], [5], [0]]);
        assert_eq!(of(2, &[0, 1, 2, 3]), [[0, 1], [2, 3], [0, 1]]);
        assert_eq!(of(4, &[0, 1]), [[0, 1], [0, 1], [0, 1]]);
        assert_eq!(of(1, &[]), [[], [], []] as [[usize; 0]; 3]);
    }

    #[test]
    fn ports_in_use_are_said() {
        let taken = std::net::TcpListener::bind((HOST, 0)).unwrap();
        let base_port = Some(taken.local_addr().unwrap().port().min(60_000));
        let given = Options { base_port, ..options(None) };
        if base_port == taken.local_addr().ok().map(|address| address.port()) {
            let refused = Plan::new(Path::new("/none"), &given).err().unwrap().to_string();
            assert!(refused.contains("not all ports from"), "{refused}");
        }
    }
}

//! What makes the node of a machine one of a cluster: its configuration, who votes, and where it finds the others.
//! What a real start reads from a file and its disk (`src/shard/quorum.rs`) follows from the plan here.

use std::sync::Arc;

use tidemill::broker::PeersStart;
use tidemill::broker::peers::finder::VoterAddress;
use tidemill::broker::peers::messages::Registration;
use tidemill::config::{self, NodeConfig, ProcessRoles, SecurityProtocol};
use tidemill::controller::quorum::{founder_raft_id, raft_id_of};
use tidemill::controller::{Endpoint, VoterEndpoint, features};
use uuid::Uuid;

use crate::links::CONTROLLER_PORT;
use crate::plan::Plan;

/// The id of the cluster, or of each cluster.
pub const CLUSTER_ID: &str = "simulated";
/// The port of the listener for clients and brokers.
pub const CLIENTS_PORT: u16 = 9092;
const CLIENTS: &str = "PLAINTEXT";
const CONTROLLERS: &str = "CONTROLLER";

/// A node's place in the quorum of its cluster.
#[derive(Debug)]
pub struct QuorumPlace {
    pub raft_id: u64,
    /// Who votes at first; nobody where the node joins a quorum that is there.
    pub voters: Vec<VoterEndpoint>,
}

/// The keys of a node that is one of several.
pub fn make_member(config: &mut NodeConfig, plan: &Plan, machine: usize) {
    let listener = |name: &str, host: String, port: u16, is_told: bool| {
        let bind = config::Endpoint { host, port };
        let advertised = is_told.then(|| bind.clone());
        config::Listener { name: name.into(), protocol: SecurityProtocol::Plaintext, bind, advertised }
    };
    let host = plan.host_of(machine);
    config.roles = ProcessRoles { broker: true, controller: plan.has_controller(machine) };
    config.listeners = vec![listener(CLIENTS, host.clone(), CLIENTS_PORT, true)];
    if plan.has_controller(machine) {
        config.listeners.push(listener(CONTROLLERS, host, CONTROLLER_PORT, false));
    }
    config.inter_broker_listener = CLIENTS.into();
    config.controller_listeners = vec![CONTROLLERS.into()];
    let at = |voter: usize| config::Endpoint { host: plan.host_of(voter), port: CONTROLLER_PORT };
    if plan.cluster.has_moving_voters {
        config.cluster.bootstrap_servers = (0..plan.machines).map(at).collect();
    } else {
        let voters = (0..plan.cluster.voters)
            .map(|voter| config::Voter { node_id: plan.node_id_of(voter), endpoint: at(voter) });
        config.cluster.voters = voters.collect();
    }
    config.cluster.heartbeat_interval_ms = plan.cluster.heartbeat_ms;
    config.cluster.session_timeout_ms = plan.cluster.session_ms;
    config.replica_lag_time_max_ms = plan.cluster.lag_ms;
    config.auto_create_topics = false;
    config.rack = rack_of(plan, machine);
    config.rack_aware_reads = plan.cluster.racks > 0;
    config.group.offsets_topic_replication_factor = 3.min(plan.machines as i16);
    config.topic_defaults.min_insync_replicas = plan.cluster.offsets_in_sync;
    if plan.syncs_all() {
        config.topic_defaults.flush_messages = 1;
    }
}

/// The rack of a machine, or of a consumer with that number.
pub fn rack_of(plan: &Plan, number: usize) -> Option<String> {
    let racks = plan.cluster.racks;
    (racks > 0).then(|| format!("rack-{}", number % racks))
}

/// Where clients and brokers reach a machine.
pub fn endpoint(plan: &Plan, machine: usize) -> Endpoint {
    let host = plan.host_of(machine).into();
    Endpoint { name: CLIENTS.into(), host, port: CLIENTS_PORT, security_protocol: 0 }
}

/// The id of a log directory of a cluster's machine, after so many disks that it has lost. An operator knows them.
pub fn directory_id(plan: &Plan, machine: usize, directory: usize, disks_lost: u64) -> Uuid {
    let number = (machine as u64) << 32 | (directory as u64) << 16 | disks_lost;
    let mut random = fastrand::Rng::with_seed(plan.seed.wrapping_mul(0x9e37_79b9) ^ number ^ 0xd1_4ec7);
    Uuid::from_u64_pair(random.u64(1..), random.u64(1..))
}

/// Who a node is in the quorum, on a disk with this directory id.
pub fn quorum_place(plan: &Plan, machine: usize, directory_id: Uuid) -> QuorumPlace {
    let node_id = plan.node_id_of(machine);
    let raft_id = raft_id_of(directory_id);
    if !plan.has_controller(machine) {
        return QuorumPlace { raft_id, voters: Vec::new() };
    }
    if plan.cluster.has_moving_voters {
        let voters: Vec<VoterEndpoint> = (0..plan.cluster.voters).map(|at| founder(plan, at)).collect();
        let founds = voters.iter().any(|voter| voter.raft_id == Some(raft_id));
        return QuorumPlace { raft_id, voters: if founds { voters } else { Vec::new() } };
    }
    if !plan.linked || plan.cluster.voters == 1 {
        return QuorumPlace { raft_id, voters: vec![VoterEndpoint::alone(node_id, raft_id)] };
    }
    let voters = (0..plan.cluster.voters).map(|at| voter(plan, at)).collect();
    QuorumPlace { raft_id: founder_raft_id(CLUSTER_ID, node_id), voters }
}

/// A voter that is known by its first disk.
fn founder(plan: &Plan, machine: usize) -> VoterEndpoint {
    VoterEndpoint { raft_id: Some(raft_id_of(directory_id(plan, machine, 0, 0))), ..voter(plan, machine) }
}

fn voter(plan: &Plan, machine: usize) -> VoterEndpoint {
    VoterEndpoint {
        node_id: plan.node_id_of(machine),
        // The disks of these machines are never lost: they need not ask whether their quorum is new.
        raft_id: Some(founder_raft_id(CLUSTER_ID, plan.node_id_of(machine))),
        host: plan.host_of(machine).into(),
        port: CONTROLLER_PORT,
    }
}

/// What this start of a node tells the others.
#[derive(Clone, Debug)]
pub struct Life {
    pub incarnation: Uuid,
    /// Ids of its log directories.
    pub directories: Vec<Uuid>,
    /// The broker epoch of its last run, if every log directory was closed in order, else -1.
    pub previous_epoch: i64,
}

/// What a node needs to find the others; nothing where it is alone.
pub fn peers(plan: &Plan, machine: usize, place: &QuorumPlace, life: Life) -> Option<PeersStart> {
    if !plan.linked {
        return None;
    }
    // One that joins knows where controllers are, and not who.
    let knows_names = !plan.cluster.has_moving_voters || !place.voters.is_empty();
    let address = |at: usize| VoterAddress {
        node_id: if knows_names { plan.node_id_of(at) } else { -1 - at as i32 },
        host: plan.host_of(at).into(),
        port: CONTROLLER_PORT,
    };
    let known = if knows_names { plan.cluster.voters } else { plan.machines };
    let told = endpoint(plan, machine);
    // Who has no controllers' listener asks for its mail.
    let (host, port) =
        if plan.has_controller(machine) { (told.host.clone(), CONTROLLER_PORT) } else { ("".into(), 0) };
    let supported = features::supported();
    let levels = supported.iter();
    let levels = levels.map(|feature| (feature.name.to_string(), feature.level_least, feature.level_most));
    Some(PeersStart {
        directory_ids: life.directories.iter().copied().map(Some).collect(),
        endpoint: Endpoint { name: CONTROLLERS.into(), host, port, security_protocol: 0 },
        registration: Registration {
            node_id: plan.node_id_of(machine),
            cluster_id: Arc::from(CLUSTER_ID),
            incarnation: life.incarnation,
            listeners: vec![told],
            rack: rack_of(plan, machine).map(Arc::from),
            directories: life.directories,
            features: levels.collect(),
        },
        is_broker: true,
        voters: (0..known).map(address).collect(),
        previous_epoch: life.previous_epoch,
        raft_id: place.raft_id,
    })
}

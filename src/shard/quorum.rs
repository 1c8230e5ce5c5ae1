//! Who this node is in the metadata quorum, as its configuration and its disk say when it starts.
//!
//! | what is there | who votes at first | this node's raft id |
//! |---|---|---|
//! | `quorum.properties` with voters, itself among them | these | of its directory |
//! | `quorum.properties` without | nobody that it knows: it is added to a quorum that is there | of its directory |
//! | `controller.quorum.voters` | these | of cluster and node id: no configuration names directories |
//! | none of them, and both roles | itself alone | of its directory |
//! | a broker alone | nobody that it knows | of its directory |
//!
//! All of that counts until the quorum's own log says who its members are. A disk of the third kind that replaces a
//! lost one takes another raft id, which is in its log's directory then.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::broker::peers::finder::VoterAddress;
use crate::config::{self, INITIAL_VOTERS_FILE, InitialVoters, NodeConfig};
use crate::controller::quorum::{founder_raft_id, raft_id_of};
use crate::controller::{Endpoint, VoterEndpoint};
use crate::log::encode_uuid;

/// A node's place in the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QuorumPlace {
    /// This node's raft id on this disk.
    pub raft_id: u64,
    /// Who votes at first; nobody where the quorum is there already.
    pub voters: Vec<VoterEndpoint>,
    /// Nobody else is there, and nobody can come: the node has no listener for controllers.
    pub is_alone: bool,
}

impl QuorumPlace {
    /// Reads what the metadata directory says; the error is for the operator.
    pub fn read(
        config: &NodeConfig,
        directory: &Path,
        directory_id: Uuid,
        cluster_id: &str,
    ) -> Result<Self, String> {
        let path = directory.join(INITIAL_VOTERS_FILE);
        let shown = path.display();
        let initial = match fs::read_to_string(&path) {
            Ok(text) => {
                Some(InitialVoters::decode(&text).map_err(|why| format!("{}: {why}", directory.display()))?)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("cannot read {shown}: {error}")),
        };
        Self::of(config, initial.as_ref(), directory_id, cluster_id).map_err(|why| format!("{shown} {why}"))
    }

    fn of(
        config: &NodeConfig,
        initial: Option<&InitialVoters>,
        directory_id: Uuid,
        cluster_id: &str,
    ) -> Result<Self, String> {
        let raft_id = raft_id_of(directory_id);
        let joins = Self { raft_id, voters: Vec::new(), is_alone: false };
        if !config.roles.controller {
            return Ok(joins);
        }
        if let Some(initial) = initial {
            if initial.voters.len() != 1 && !hears_controllers(config) {
                return Err(format!(
                    "says that this node is one of several controllers ({initial}), and it has no listener for them: \
                     add one to listeners, and its name to controller.listener.names"
                ));
            }
            if initial.voters.is_empty() {
                return Ok(joins);
            }
            check_own(config.node_id, initial, directory_id)?;
            let voters: Vec<_> = initial
                .voters
                .iter()
                .map(|voter| voter_at(voter.node_id, Some(raft_id_of(voter.directory_id)), &voter.endpoint))
                .collect();
            let is_alone = voters.len() == 1 && !hears_controllers(config);
            return Ok(Self { raft_id, voters, is_alone });
        }
        if config.cluster.voters.len() > 1 {
            let voters = config.cluster.voters.iter();
            let voters = voters.map(|voter| voter_at(voter.node_id, None, &voter.endpoint));
            let raft_id = founder_raft_id(cluster_id, config.node_id);
            return Ok(Self { raft_id, voters: voters.collect(), is_alone: false });
        }
        // It may be the disk of a node whose quorum is elsewhere.
        let has_others = !config.roles.broker || config.cluster.bootstrap_servers.len() > 1;
        if has_others && config.cluster.voters.is_empty() {
            return Err("is not there: format this controller with --standalone, --initial-controllers or \
                        --no-initial-controllers"
                .to_owned());
        }
        let voters = vec![VoterEndpoint::alone(config.node_id, raft_id)];
        Ok(Self { raft_id, voters, is_alone: !hears_controllers(config) })
    }

    /// Where a node begins to look for the active controller. Bootstrap servers have no node ids; they get some that
    /// no node has.
    pub fn known_voters(&self, config: &NodeConfig) -> Vec<VoterAddress> {
        let own = self.voters.iter().filter(|voter| voter.port > 0).map(|voter| VoterAddress {
            node_id: voter.node_id,
            host: Arc::clone(&voter.host),
            port: voter.port,
        });
        let named = config.cluster.voters.iter().map(|voter| (voter.node_id, &voter.endpoint));
        let servers = (1..).zip(&config.cluster.bootstrap_servers).map(|(at, server)| (-at, server));
        let given: Vec<_> =
            if config.cluster.voters.is_empty() { servers.collect() } else { named.collect() };
        let given = given.into_iter().map(|(node_id, endpoint)| VoterAddress {
            node_id,
            host: endpoint.host.as_str().into(),
            port: endpoint.port,
        });
        let own: Vec<_> = own.collect();
        if own.is_empty() { given.collect() } else { own }
    }

    /// Where other members reach this one: where its controllers' listener is advertised, or bound; where that is any
    /// address of the machine, at what the list of the format says. A voter that the configuration names is reached
    /// there. A broker is not reached by controllers, and has port 0.
    pub fn endpoint(&self, config: &NodeConfig, listeners: &[Endpoint]) -> Endpoint {
        let own = self.voters.iter().find(|voter| voter.node_id == config.node_id && voter.port > 0);
        let known = || own.map(|voter| (Arc::clone(&voter.host), voter.port));
        let is_controllers =
            |endpoint: &&Endpoint| config.controller_listeners.iter().any(|name| **name == *endpoint.name);
        let bound = || {
            let found = listeners.iter().find(is_controllers)?;
            Some((Arc::clone(&found.host), found.port))
        };
        let told = config.listeners.iter().find(|own| config.controller_listeners.contains(&own.name));
        let told = told.map(|listener| listener.advertised.as_ref().unwrap_or(&listener.bind));
        let is_exact = told.is_some_and(|told| !matches!(told.host.as_str(), "" | "0.0.0.0" | "::"));
        let is_listed_by_disk = own.is_some_and(|voter| voter.raft_id.is_some());
        let reached =
            if is_exact && is_listed_by_disk { bound().or_else(known) } else { known().or_else(bound) };
        let (host, port) = reached.unwrap_or_else(|| ("".into(), 0));
        Endpoint { name: "CONTROLLER".into(), host, port, security_protocol: 0 }
    }
}

/// A voter as an operator names it.
fn voter_at(node_id: i32, raft_id: Option<u64>, endpoint: &config::Endpoint) -> VoterEndpoint {
    VoterEndpoint { node_id, raft_id, host: endpoint.host.as_str().into(), port: endpoint.port }
}

/// Whether other controllers and brokers can reach this one's.
fn hears_controllers(config: &NodeConfig) -> bool {
    config.listeners.iter().any(|listener| config.controller_listeners.contains(&listener.name))
}

/// Whether the file names this node, on this disk.
fn check_own(node_id: i32, initial: &InitialVoters, directory_id: Uuid) -> Result<(), String> {
    match initial.voter(node_id) {
        Some(own) if own.directory_id == directory_id => Ok(()),
        Some(own) => Err(format!(
            "names directory {} as that of this voter, and this one is {}: it was copied from another disk; format an \
             empty directory",
            encode_uuid(own.directory_id),
            encode_uuid(directory_id)
        )),
        None => Err(format!(
            "names the voters {initial}, and this node {node_id} is none of them; format an empty directory with \
             --no-initial-controllers to add it to that quorum"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str =
        "1@a:9093:AAAAAAAAAAAAAAAAAAAAAQ,2@b:9093:AAAAAAAAAAAAAAAAAAAAAw,3@c:9093:AAAAAAAAAAAAAAAAAAAABQ";

    fn config(given: &[(&str, &str)]) -> NodeConfig {
        let pairs: Vec<_> = given.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        NodeConfig::load(None, &pairs).unwrap().0
    }

    fn combined(more: &[(&str, &str)]) -> NodeConfig {
        let mut given = vec![
            ("listeners", "PLAINTEXT://h:9092,CONTROLLER://h:9093"),
            ("controller.listener.names", "CONTROLLER"),
        ];
        given.extend(more);
        config(&given)
    }

    fn place(config: &NodeConfig, initial: Option<&str>, directory_id: u128) -> Result<QuorumPlace, String> {
        let voters = initial.map(|text| InitialVoters::parse(text).unwrap_or_default());
        QuorumPlace::of(config, voters.as_ref(), Uuid::from_u128(directory_id), "c")
    }

    #[test]
    fn a_node_that_nobody_is_told_of_is_a_quorum_of_its_own() {
        let alone = place(&NodeConfig::default(), None, 1).unwrap();
        assert_eq!((alone.raft_id, alone.is_alone), (1, true));
        assert_eq!(alone.voters, [VoterEndpoint::alone(1, 1)]);
        assert!(alone.known_voters(&NodeConfig::default()).is_empty());
        assert!(!place(&combined(&[]), None, 1).unwrap().is_alone, "others may be added to it");
    }

    #[test]
    fn voters_of_a_formatted_disk_vote_as_that_disk_and_on_no_other() {
        let config = combined(&[("node.id", "2")]);
        let two = place(&config, Some(THREE), 3).unwrap();
        assert_eq!((two.raft_id, two.is_alone, two.voters.len()), (3, false, 3));
        assert_eq!(two.voters[0].raft_id, Some(1));
        assert_eq!(two.endpoint(&config, &[]).host.as_ref(), "b");
        assert_eq!(two.known_voters(&config).len(), 3);
        assert!(place(&config, Some(THREE), 4).unwrap_err().contains("copied from another disk"));
        let deaf = NodeConfig { node_id: 2, ..NodeConfig::default() };
        assert!(place(&deaf, Some(THREE), 3).unwrap_err().contains("no listener for them"));
        assert!(place(&deaf, Some(""), 3).unwrap_err().contains("no listener for them"));
        let stranger = combined(&[("node.id", "4")]);
        assert!(place(&stranger, Some(THREE), 4).unwrap_err().contains("none of them"));
    }

    #[test]
    fn a_voter_is_reached_where_its_listener_is_and_where_that_says_nothing_as_the_list_has_it() {
        let moved = Endpoint { name: "CONTROLLER".into(), host: "x".into(), port: 1, security_protocol: 0 };
        let bound = std::slice::from_ref(&moved);
        let config = combined(&[("node.id", "2")]);
        let two = place(&config, Some(THREE), 3).unwrap();
        assert_eq!(two.endpoint(&config, bound), moved);
        let any = ("listeners", "PLAINTEXT://h:9092,CONTROLLER://0.0.0.0:9093");
        let config = combined(&[("node.id", "2"), any, ("advertised.listeners", "PLAINTEXT://h:9092")]);
        assert_eq!(two.endpoint(&config, bound).host.as_ref(), "b", "this machine's name says less");
        let named = combined(&[("controller.quorum.voters", "1@a:9093,2@b:9093")]);
        let one = place(&named, None, 7).unwrap();
        assert_eq!(one.endpoint(&named, bound).host.as_ref(), "a", "that is where others look, too");
    }

    #[test]
    fn voters_of_the_configuration_have_ids_of_cluster_and_node() {
        let config = combined(&[("controller.quorum.voters", "1@a:9093,2@b:9093")]);
        let one = place(&config, None, 7).unwrap();
        assert_eq!(one.raft_id, founder_raft_id("c", 1));
        assert_eq!(one.voters[1].raft_id, None);
        assert_eq!(one.known_voters(&config)[1].node_id, 2);
    }

    #[test]
    fn a_broker_and_a_controller_that_is_added_know_only_where_to_ask() {
        let servers = ("controller.quorum.bootstrap.servers", "a:9093,b:9093");
        let broker =
            config(&[("process.roles", "broker"), ("controller.listener.names", "CONTROLLER"), servers]);
        let joins = place(&broker, None, 8).unwrap();
        assert_eq!((joins.raft_id, joins.voters.len(), joins.is_alone), (9, 0, false));
        let known = joins.known_voters(&broker);
        assert_eq!(known.iter().map(|voter| voter.node_id).collect::<Vec<_>>(), [-1, -2]);
        let listener =
            Endpoint { name: "CONTROLLER".into(), host: "x".into(), port: 1, security_protocol: 0 };
        let of_brokers = Endpoint { name: "PLAINTEXT".into(), ..listener.clone() };
        assert_eq!(joins.endpoint(&broker, std::slice::from_ref(&of_brokers)).port, 0);
        assert!(place(&combined(&[servers]), None, 8).unwrap_err().contains("--no-initial-controllers"));
        let added = place(&combined(&[servers]), Some(""), 8).unwrap();
        assert_eq!(added.endpoint(&combined(&[]), &[of_brokers, listener.clone()]), listener);
        assert_eq!((added.raft_id, added.voters.len()), (9, 0));
    }
}

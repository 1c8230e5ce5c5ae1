//! The voters that a new metadata quorum begins with, as a controller's log directory is formatted with them: text on
//! a command line, and the file that keeps it until the quorum's own log holds the voters. Kafka keeps them in the
//! first snapshot of its metadata log (KIP-853).

use std::fmt;

use uuid::Uuid;

use super::Endpoint;
use super::cluster::parse_endpoint;
use super::properties;
use crate::log::{encode_uuid, parse_uuid};

/// The file's name, in the directory of `metadata.log.dir`.
pub const INITIAL_VOTERS_FILE: &str = "quorum.properties";
/// Version of the file.
const VERSION: &str = "1";

/// One voter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialVoter {
    /// Its `node.id`.
    pub node_id: i32,
    /// Where its controller's listener is reached.
    pub endpoint: Endpoint,
    /// `directory.id` of the directory that holds its metadata: on another disk it is another voter.
    pub directory_id: Uuid,
}

/// The voters of a new quorum, by node id. None at all is what a controller is formatted with that is added to a
/// quorum later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialVoters {
    /// Each node once.
    pub voters: Vec<InitialVoter>,
}

impl InitialVoters {
    /// Reads `id@host:port:directory,…`, at least one.
    ///
    /// # Errors
    /// What is wrong, in words for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut voters: Vec<InitialVoter> = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let voter = parse_voter(entry)?;
            if voters.iter().any(|other| other.node_id == voter.node_id) {
                return Err(format!("Node id {} was specified more than once.", voter.node_id));
            }
            voters.push(voter);
        }
        if voters.is_empty() {
            return Err("No voters given.".to_owned());
        }
        voters.sort_by_key(|voter| voter.node_id);
        Ok(Self { voters })
    }

    /// The voter of a node, if it is one.
    pub fn voter(&self, node_id: i32) -> Option<&InitialVoter> {
        self.voters.iter().find(|voter| voter.node_id == node_id)
    }

    /// The file's text.
    pub fn encode(&self) -> String {
        format!("#\nversion={VERSION}\nvoters={}\n", self.to_string().replace(':', "\\:"))
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong, in words for the operator.
    pub fn decode(text: &str) -> Result<Self, String> {
        let entries = properties::parse(text).map_err(|error| {
            format!("{INITIAL_VOTERS_FILE}, line {}: {} is no escape", error.line, error.escape)
        })?;
        let value =
            |key: &str| entries.iter().rev().find(|entry| entry.key == key).map(|entry| entry.value.trim());
        if value("version") != Some(VERSION) {
            return Err(format!("{INITIAL_VOTERS_FILE} is of another version than {VERSION}"));
        }
        match value("voters") {
            None => Err(format!("{INITIAL_VOTERS_FILE} has no voters")),
            Some("") => Ok(Self::default()),
            Some(voters) => Self::parse(voters).map_err(|why| format!("{INITIAL_VOTERS_FILE}: {why}")),
        }
    }
}

impl fmt::Display for InitialVoters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, voter) in self.voters.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{voter}")?;
        }
        Ok(())
    }
}

impl fmt::Display for InitialVoter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node_id, endpoint: Endpoint { host, port }, directory_id } = self;
        let directory = encode_uuid(*directory_id);
        match host.contains(':') {
            true => write!(f, "{node_id}@[{host}]:{port}:{directory}"),
            false => write!(f, "{node_id}@{host}:{port}:{directory}"),
        }
    }
}

fn parse_voter(entry: &str) -> Result<InitialVoter, String> {
    let wrong =
        |what: &str| format!("{what} in dynamic voter string {entry}: expected id@host:port:directory");
    let (id, rest) = entry.split_once('@').ok_or_else(|| wrong("No @ found"))?;
    let node_id = id.parse().ok().filter(|id: &i32| *id >= 0);
    let node_id = node_id.ok_or_else(|| wrong("Failed to parse node id"))?;
    let (address, directory) = rest.rsplit_once(':').ok_or_else(|| wrong("No : found after port"))?;
    let endpoint = parse_endpoint(address).map_err(|part| wrong(&format!("Failed to parse host {part}")))?;
    let directory_id = parse_uuid(directory).filter(|id| !id.is_nil());
    let directory_id = directory_id.ok_or_else(|| wrong("Failed to parse directory ID"))?;
    Ok(InitialVoter { node_id, endpoint, directory_id })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THREE: &str =
        "3@[::1]:9093:AAAAAAAAAAAAAAAAAAAAAw,1@a:9093:AAAAAAAAAAAAAAAAAAAAAQ,2@b:9094:AAAAAAAAAAAAAAAAAAAABA";

    #[test]
    fn voters_are_read_in_any_order_and_the_file_gives_them_back() {
        let voters = InitialVoters::parse(THREE).unwrap();
        let ids: Vec<_> = voters.voters.iter().map(|voter| (voter.node_id, &*voter.endpoint.host)).collect();
        assert_eq!(ids, [(1, "a"), (2, "b"), (3, "::1")]);
        assert_eq!(voters.voter(2).unwrap().endpoint.port, 9094);
        assert_eq!(voters.voter(4), None);
        for voters in [voters, InitialVoters::default()] {
            assert_eq!(InitialVoters::decode(&voters.encode()), Ok(voters));
        }
    }

    #[test]
    fn what_is_no_voter_is_refused() {
        let refused = |text: &str| InitialVoters::parse(text).unwrap_err();
        assert_eq!(refused(" , "), "No voters given.");
        assert!(refused("1").starts_with("No @ found"));
        assert!(refused("-1@a:9093:AAAAAAAAAAAAAAAAAAAAAQ").starts_with("Failed to parse node id"));
        assert!(refused("1@a").starts_with("No : found after port"));
        assert!(refused("1@:9093:AAAAAAAAAAAAAAAAAAAAAQ").starts_with("Failed to parse host name"));
        assert!(refused("1@a:0:AAAAAAAAAAAAAAAAAAAAAQ").starts_with("Failed to parse host port"));
        assert!(refused("1@a:9093").starts_with("Failed to parse host port"));
        assert!(refused("1@a:9093:AAAAAAAAAAAAAAAAAAAAAA").starts_with("Failed to parse directory ID"));
        let twice = "1@a:9093:AAAAAAAAAAAAAAAAAAAAAQ,1@b:9093:AAAAAAAAAAAAAAAAAAAAAw";
        assert_eq!(refused(twice), "Node id 1 was specified more than once.");
        assert!(InitialVoters::decode("version=2\nvoters=\n").unwrap_err().contains("another version"));
        assert!(InitialVoters::decode("version=1\n").unwrap_err().contains("no voters"));
        assert!(InitialVoters::decode("version=1\nvoters=x\n").unwrap_err().contains("No @ found"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            if let Ok(voters) = InitialVoters::parse(&text) {
                prop_assert_eq!(InitialVoters::decode(&voters.encode()), Ok(voters));
            }
            let _ = InitialVoters::decode(&text);
        }
    }
}

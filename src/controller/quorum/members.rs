//! Who belongs to the metadata quorum: voters, and learners, which get the log and have no say.
//!
//! The members are metadata: a record holds all of them, so that a log entry with it tells any node what the quorum
//! is from there on, whatever it knew before. An entry that begins with that record is what raft calls a
//! configuration change: one at a time, in force as soon as it is applied.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::controller::codec::{Malformed, Reader, put_list, put_text};
use crate::controller::record::{Endpoint, QUORUM_TYPE};

/// Most members that a quorum may have: every node of a cluster is one.
pub const MEMBERS_MAX: usize = 1000;

/// A voter as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterEndpoint {
    /// Node id.
    pub node_id: i32,
    /// Raft id; `None` for a founder of a cluster whose configurations name none: [`founder_raft_id`].
    pub raft_id: Option<u64>,
    /// Host of its controller listener.
    pub host: Arc<str>,
    /// Port of its controller listener.
    pub port: u16,
}

impl VoterEndpoint {
    /// The voter of a node that has no peers and so needs no address.
    pub fn alone(node_id: i32, raft_id: u64) -> Self {
        Self { node_id, raft_id: Some(raft_id), host: "".into(), port: 0 }
    }
}

/// The raft id of a voter that founds a cluster, where no configuration names one. Only a disk that is formatted for
/// a new cluster may take it: a disk that replaces a lost one takes any other, or it would go back on what was
/// promised.
pub fn founder_raft_id(cluster_id: &str, node_id: i32) -> u64 {
    let half = |salt: u8| {
        let seeded = crc32c::crc32c_append(crc32c::crc32c(&[salt]), cluster_id.as_bytes());
        u64::from(crc32c::crc32c_append(seeded, &node_id.to_be_bytes()))
    };
    // Not 0, which is nobody.
    (half(1) << 32 | half(2)).max(1)
}

/// The raft id of a disk by its `directory.id`: half of it, and not 0. It is new with every one: a wiped disk must not
/// vote as its predecessor.
pub fn raft_id_of(directory: Uuid) -> u64 {
    directory.as_u64_pair().1 | 1
}

/// A node as raft knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RaftPeer {
    /// Node id.
    pub node_id: i32,
    /// Raft id: another one for each disk that the node has had.
    pub raft_id: u64,
}

/// A member of the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Raft id, not 0, never given to another disk.
    pub raft_id: u64,
    /// Node id.
    pub node_id: i32,
    /// Whether it votes; otherwise it learns.
    pub is_voter: bool,
    /// Where its controller listens.
    pub endpoint: Endpoint,
}

impl Member {
    /// How messages to it are addressed.
    pub fn peer(&self) -> RaftPeer {
        RaftPeer { node_id: self.node_id, raft_id: self.raft_id }
    }
}

/// All members, by raft id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    list: Vec<Member>,
}

impl Members {
    /// The voters of a new cluster. A node that joins one knows none.
    pub fn of_voters(voters: &[VoterEndpoint], cluster_id: &str) -> Result<Self, &'static str> {
        let each = voters.iter().map(|voter| {
            let raft_id = voter.raft_id.unwrap_or_else(|| founder_raft_id(cluster_id, voter.node_id));
            let (host, port) = (voter.host.clone(), voter.port);
            let endpoint = Endpoint { name: "CONTROLLER".into(), host, port, security_protocol: 0 };
            Member { raft_id, node_id: voter.node_id, is_voter: true, endpoint }
        });
        let list: Vec<_> = each.collect();
        if list.is_empty() { Ok(Self::default()) } else { Self::checked(list) }
    }

    /// Members that may be a quorum: ids are there and differ, somebody votes, and no node does so twice.
    pub fn checked(mut list: Vec<Member>) -> Result<Self, &'static str> {
        list.sort_by_key(|member| member.raft_id);
        let twice = list.windows(2).any(|pair| matches!(pair, [a, b] if a.raft_id == b.raft_id));
        let mut voters: Vec<i32> =
            list.iter().filter(|member| member.is_voter).map(|member| member.node_id).collect();
        voters.sort_unstable();
        if twice || list.first().is_some_and(|member| member.raft_id == 0) {
            Err("a member of the quorum has no id of its own")
        } else if voters.is_empty() {
            Err("the quorum has no voter")
        } else if voters.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            Err("a node votes twice")
        } else if list.len() > MEMBERS_MAX {
            Err("the quorum has too many members")
        } else {
            Ok(Self { list })
        }
    }

    /// All of them, by raft id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Member> + Clone {
        self.list.iter()
    }

    /// Those who vote, by raft id.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.list.iter().filter(|member| member.is_voter)
    }

    /// Those who do not, by raft id.
    pub fn learners(&self) -> impl Iterator<Item = &Member> {
        self.list.iter().filter(|member| !member.is_voter)
    }

    /// The member with that raft id.
    pub fn get(&self, raft_id: u64) -> Option<&Member> {
        self.list.iter().find(|member| member.raft_id == raft_id)
    }

    /// Whether that one votes.
    pub fn is_voter(&self, raft_id: u64) -> bool {
        self.get(raft_id).is_some_and(|member| member.is_voter)
    }

    /// Whether that one votes and nobody else does.
    pub fn is_sole_voter(&self, raft_id: u64) -> bool {
        self.is_voter(raft_id) && self.voters().count() == 1
    }

    /// Whether there is anybody else than that one.
    pub fn has_others(&self, raft_id: u64) -> bool {
        self.list.iter().any(|member| member.raft_id != raft_id)
    }

    /// With this member in place of the one with its raft id, or as another one.
    pub(super) fn with(&self, member: Member) -> Result<Self, &'static str> {
        let others = self.list.iter().filter(|known| known.raft_id != member.raft_id).cloned();
        let list = others.chain(std::iter::once(member.clone())).collect();
        Self::checked(list)
    }

    /// Without those for whom `goes` holds.
    pub(super) fn without(&self, goes: impl Fn(&Member) -> bool) -> Result<Self, &'static str> {
        Self::checked(self.list.iter().filter(|member| !goes(member)).cloned().collect())
    }

    pub(in crate::controller) fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.list, |out, member| {
            out.extend_from_slice(&member.raft_id.to_be_bytes());
            out.extend_from_slice(&member.node_id.to_be_bytes());
            out.push(u8::from(member.is_voter));
            put_text(out, &member.endpoint.name);
            put_text(out, &member.endpoint.host);
            out.extend_from_slice(&member.endpoint.port.to_be_bytes());
            out.extend_from_slice(&member.endpoint.security_protocol.to_be_bytes());
        });
    }

    pub(in crate::controller) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let list = reader.list(|reader| {
            Ok(Member {
                raft_id: reader.u64()?,
                node_id: reader.i32()?,
                is_voter: reader.flag()?,
                endpoint: Endpoint {
                    name: reader.text()?,
                    host: reader.text()?,
                    port: reader.u16()?,
                    security_protocol: reader.i16()?,
                },
            })
        })?;
        Self::checked(list).map_err(Malformed)
    }

    /// As bytes of their own.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.bytes_estimate());
        self.encode(&mut bytes);
        bytes.into()
    }

    /// From bytes of their own; `None` where they are no members.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Self::decode(&mut reader).ok().filter(|_| reader.is_empty())
    }

    /// Bytes that it takes in a record; never fewer.
    pub(in crate::controller) fn bytes_estimate(&self) -> usize {
        self.list.iter().map(|member| member.endpoint.name.len() + member.endpoint.host.len() + 24).sum()
    }
}

/// Whether an entry changes the quorum: it begins with the record that holds the members.
pub(in crate::controller) fn changes_members(data: &[u8]) -> bool {
    data.first_chunk::<2>().is_some_and(|type_id| u16::from_be_bytes(*type_id) == QUORUM_TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(node_id: i32, raft_id: u64) -> VoterEndpoint {
        VoterEndpoint { node_id, raft_id: Some(raft_id), host: "h".into(), port: 9093 }
    }

    fn of(voters: &[VoterEndpoint]) -> Result<Members, &'static str> {
        Members::of_voters(voters, "c")
    }

    #[test]
    fn a_quorum_has_voters_each_with_an_id_and_a_node_of_its_own() {
        let members = of(&[voter(2, 20), voter(1, 10)]).unwrap();
        assert_eq!(members.iter().map(|member| member.raft_id).collect::<Vec<_>>(), [10, 20]);
        assert!(members.is_voter(10) && !members.is_sole_voter(10) && !members.is_voter(11));
        assert!(of(&[voter(1, 10), voter(1, 11)]).is_err());
        assert!(of(&[voter(1, 10), voter(2, 10)]).is_err());
        assert!(of(&[voter(1, 0)]).is_err());
        let founder = |node_id| VoterEndpoint { raft_id: None, ..voter(node_id, 1) };
        let founders = of(&[founder(1), founder(2), founder(3)]).unwrap();
        assert!(founders.is_voter(founder_raft_id("c", 2)) && !founders.is_voter(founder_raft_id("d", 2)));
        assert!(members.without(|member| member.is_voter).is_err(), "somebody has to vote");
    }

    #[test]
    fn members_come_back_from_their_bytes() {
        let members = of(&[voter(2, 20), voter(1, 10)]).unwrap();
        let learner = Member { is_voter: false, raft_id: 5, ..members.get(10).unwrap().clone() };
        let members = members.with(learner).unwrap();
        let mut bytes = Vec::new();
        members.encode(&mut bytes);
        assert!(bytes.len() <= members.bytes_estimate() + 80);
        assert_eq!(Members::from_bytes(&members.to_bytes()), Some(members.clone()));
        assert_eq!(Members::from_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Members::decode(&mut Reader::new(&bytes)), Ok(members));
    }
}

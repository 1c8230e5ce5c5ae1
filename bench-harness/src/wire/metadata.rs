//! Metadata 7: the nodes, and who leads and follows each partition.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, ensure};

use super::{Cursor, Frame, api};

/// What a node says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Host and port of each node that clients may ask, by id.
    pub nodes: BTreeMap<i32, (String, u16)>,
    /// The partitions of the topics asked for, in the order of their numbers, topic after topic.
    pub partitions: Vec<PartitionView>,
}

/// Who has a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// Its number.
    pub number: i32,
    /// Kafka's error code, of the topic or of the partition.
    pub error: i16,
    /// The node that leads it, -1 where none does.
    pub leader: i32,
    /// How many nodes are to have it.
    pub replicas: usize,
    /// Those that have all that is acknowledged.
    pub in_sync: Vec<i32>,
}

impl PartitionView {
    /// Whether somebody leads it.
    pub fn is_led(&self) -> bool {
        self.error == 0 && self.leader >= 0
    }

    /// Whether all who are to have it have all of it.
    pub fn is_full(&self) -> bool {
        self.is_led() && self.in_sync.len() == self.replicas
    }
}

impl Metadata {
    /// Where a node listens.
    pub fn address(&self, node: i32) -> Result<SocketAddr> {
        let (host, port) = self.nodes.get(&node).with_context(|| format!("node {node} is not known"))?;
        let mut found =
            (host.as_str(), *port).to_socket_addrs().with_context(|| format!("looking up {host}"))?;
        found.next().with_context(|| format!("{host} has no address"))
    }
}

/// A Metadata 7 request for some topics.
pub fn metadata(topics: &[&str]) -> Vec<u8> {
    let mut frame = Frame::new(api::METADATA, 7);
    frame.count(topics.len());
    topics.iter().for_each(|topic| {
        frame.text(topic);
    });
    frame.i8(0); // no topic is made by asking for it
    frame.finish()
}

/// Reads a Metadata 7 answer after its correlation id.
pub fn read_metadata(mut answer: Cursor<'_>) -> Result<Metadata> {
    let mut found = Metadata::default();
    answer.i32()?; // throttle
    for _ in 0..answer.count()? {
        let (id, host, port) = (answer.i32()?, answer.text()?, answer.i32()?);
        answer.text()?; // rack
        found.nodes.insert(id, (String::from_utf8_lossy(host).into_owned(), u16::try_from(port)?));
    }
    answer.text()?; // cluster
    answer.i32()?; // controller
    for _ in 0..answer.count()? {
        let topic_error = answer.i16()?;
        answer.text()?;
        answer.i8()?;
        let (count, first) = (answer.count()?, found.partitions.len());
        ensure!(topic_error != 0 || count > 0, "a topic without partitions");
        for _ in 0..count {
            let (error, number, leader) = (answer.i16()?, answer.i32()?, answer.i32()?);
            answer.i32()?; // leader epoch
            let replicas = read_nodes(&mut answer)?.len();
            let in_sync = read_nodes(&mut answer)?;
            read_nodes(&mut answer)?; // offline
            let error = if topic_error == 0 { error } else { topic_error };
            found.partitions.push(PartitionView { number, error, leader, replicas, in_sync });
        }
        found.partitions.get_mut(first..).unwrap_or(&mut []).sort_by_key(|one| one.number);
    }
    Ok(found)
}

fn read_nodes(answer: &mut Cursor<'_>) -> Result<Vec<i32>> {
    let count = answer.count()?;
    (0..count).map(|_| answer.i32()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn partitions_come_in_order_and_a_short_answer_is_an_error() {
        let mut frame = Frame::new(0, 0);
        frame.i32(0).count(1).i32(2).text("127.0.0.1").i32(9092).i16(-1).i16(-1).i32(2);
        frame.count(1).i16(0).text("t").i8(0).count(2);
        frame.i16(0).i32(1).i32(2).i32(5).count(2).i32(2).i32(3).count(1).i32(2).count(0);
        frame.i16(5).i32(0).i32(-1).i32(5).count(2).i32(2).i32(3).count(2).i32(2).i32(3).count(0);
        let bytes = frame.finish().split_off(4 + 8 + 7);
        let found = read_metadata(Cursor::new(&bytes)).unwrap();
        assert_eq!(found.address(2).unwrap(), SocketAddr::from(([127, 0, 0, 1], 9092)));
        assert!(found.address(3).is_err());
        let view = |number, error, leader, in_sync: &[i32]| PartitionView {
            number,
            error,
            leader,
            replicas: 2,
            in_sync: in_sync.to_vec(),
        };
        assert_eq!(found.partitions, [view(0, 5, -1, &[2, 3]), view(1, 0, 2, &[2])]);
        assert!(!found.partitions.iter().any(PartitionView::is_full));
        assert!(view(1, 0, 2, &[2, 3]).is_full());
        for length in 0..bytes.len() {
            assert!(read_metadata(Cursor::new(bytes.get(..length).unwrap())).is_err());
        }
    }
}

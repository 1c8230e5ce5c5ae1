//! One request at a time, outside the measured phase: topics come and go, and what was written is read back
//! and compared with what was sent.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::wire::{
    self, Acknowledgement, BatchView, CORRELATION_AT, Cursor, Metadata, Producer, fingerprint,
};

/// A fetch of the check asks for this much.
const CHECK_FETCH_BYTES: usize = 1 << 20;
/// After a rest of this length it connects anew: brokers close connections that rested for ten minutes.
const REST_MAX: Duration = Duration::from_secs(60);
/// A topic's partitions have leaders within this time.
const TOPIC_PATIENCE: Duration = Duration::from_secs(30);
/// A request for log ends names so many partitions.
const LISTED_AT_ONCE: usize = 1000;
/// Kafka's code for a topic that exists, which may be one on its way out.
pub const TOPIC_ALREADY_EXISTS: i16 = 36;

/// Kafka's code for batches that this version of Fetch does not get: those of zstd before version 10.
const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;

/// A blocking connection, and on several nodes one to each that leads.
pub struct Admin {
    address: SocketAddr,
    stream: TcpStream,
    called: Instant,
    correlation: i32,
    /// The floor knows version 7 only, and only version 10 gets zstd.
    fetch_version: i16,
    /// Where each partition of a topic is led, on several nodes; topics of a broker of one node are not here.
    leaders: HashMap<String, Vec<SocketAddr>>,
    /// Connections to other nodes, which lead.
    elsewhere: HashMap<SocketAddr, Admin>,
}

impl Admin {
    /// Connects once.
    pub fn connect(address: SocketAddr) -> Result<Admin> {
        let stream = connect(address)?;
        Ok(Admin {
            address,
            stream,
            called: Instant::now(),
            correlation: 0,
            fetch_version: 7,
            leaders: HashMap::new(),
            elsewhere: HashMap::new(),
        })
    }

    /// Which of Tidemill's shards serves this connection: the low ten bits of a fetch session's id name it. The session
    /// is ended again.
    pub fn shard(&mut self) -> Result<usize> {
        let answer = self.call(wire::fetch_session(0, 0))?;
        let id = wire::read_session(Cursor::new(&answer))?;
        ensure!(id > 0, "the broker made no fetch session, whose id would tell the shard of a connection");
        self.call(wire::fetch_session(id, -1))?;
        Ok((id & 0x3ff) as usize)
    }

    /// The connection, for another use.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn call(&mut self, frame: Vec<u8>) -> Result<Vec<u8>> {
        self.send(frame)?;
        self.receive()
    }

    fn send(&mut self, mut frame: Vec<u8>) -> Result<()> {
        if self.called.elapsed() > REST_MAX {
            self.stream = connect(self.address)?;
        }
        self.called = Instant::now();
        self.correlation += 1;
        wire::put(&mut frame, CORRELATION_AT, &self.correlation.to_be_bytes());
        Ok(self.stream.write_all(&frame)?)
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix)?;
        let length = u32::from_be_bytes(prefix) as usize;
        ensure!(length <= 64 << 20, "an answer of {length} bytes");
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        ensure!(Cursor::new(&answer).i32()? == self.correlation, "an answer to another request");
        Ok(answer.split_off(4))
    }

    /// Whether the broker answers at all.
    pub fn answers(&mut self) -> Result<()> {
        let answer = self.call(wire::api_versions())?;
        let error = Cursor::new(&answer).i16()?;
        ensure!(error == 0, "ApiVersions answered with error {error}");
        Ok(())
    }

    /// Creates a topic and waits until each partition has a leader that serves, and all of its copies.
    pub fn create_topic(
        &mut self,
        topic: &str,
        partitions: usize,
        replicas: usize,
        settings: &[String],
    ) -> Result<()> {
        let made = |admin: &mut Admin| admin.try_create(topic, partitions, replicas, settings);
        self.create(topic, partitions, replicas, made)
    }

    /// Creates a topic of one partition on these nodes, the first of which leads it, and waits in the same way.
    pub fn create_topic_on(&mut self, topic: &str, replicas: &[i32]) -> Result<()> {
        let made = |admin: &mut Admin| admin.ask_for_topic(wire::create_topic_on(topic, replicas));
        self.create(topic, 1, replicas.len(), made)
    }

    fn create(
        &mut self,
        topic: &str,
        partitions: usize,
        replicas: usize,
        made: impl Fn(&mut Admin) -> Result<i16>,
    ) -> Result<()> {
        let deadline = Instant::now() + TOPIC_PATIENCE;
        let mut before = Vec::new();
        loop {
            match made(self)? {
                0 => break,
                TOPIC_ALREADY_EXISTS => bail!("topic {topic} exists already; errors before: {before:?}"),
                error => {
                    ensure!(Instant::now() < deadline, "CreateTopics answered with error {error}");
                    before.push(error);
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        loop {
            let known = self.metadata(&[topic])?;
            let led = known.partitions.iter().filter(|partition| partition.is_full()).count();
            if led == partitions && known.nodes.len() >= replicas {
                if replicas > 1 {
                    let leaders = known.partitions.iter().map(|partition| known.address(partition.leader));
                    self.leaders.insert(topic.to_owned(), leaders.collect::<Result<_>>()?);
                }
                break;
            }
            ensure!(Instant::now() < deadline, "{led} of {partitions} partitions of {topic} are complete");
            std::thread::sleep(Duration::from_millis(10));
        }
        // Kafka announces a leader some time before that leader serves.
        self.await_serving(topic, partitions, deadline)
    }

    /// Asks once for a topic. Returns Kafka's error code.
    pub fn try_create(
        &mut self,
        topic: &str,
        partitions: usize,
        replicas: usize,
        settings: &[String],
    ) -> Result<i16> {
        let pairs: Vec<(&str, &str)> = settings.iter().filter_map(|line| line.split_once('=')).collect();
        self.ask_for_topic(wire::create_topic(topic, partitions, replicas, &pairs))
    }

    fn ask_for_topic(&mut self, frame: Vec<u8>) -> Result<i16> {
        let answer = self.call(frame)?;
        wire::read_topic_error(Cursor::new(&answer))
    }

    /// What this node knows of the cluster and of these topics.
    pub fn metadata(&mut self, topics: &[&str]) -> Result<Metadata> {
        let answer = self.call(wire::metadata(topics))?;
        wire::read_metadata(Cursor::new(&answer))
    }

    /// The active controller, where this node knows it.
    pub fn controller(&mut self) -> Result<Option<wire::ActiveController>> {
        let answer = self.call(wire::describe_quorum())?;
        wire::read_quorum_leader(Cursor::new(&answer))
    }

    /// Sends a [`wire::produce_to_all`].
    pub fn send_batch(&mut self, frame: Vec<u8>) -> Result<()> {
        self.send(frame)
    }

    /// Whether an answer, or the connection's end, comes within that time.
    pub fn is_answered(&self, within: Duration) -> Result<bool> {
        let timeout = PollTimeout::try_from(within).context("a time to wait")?;
        Ok(poll(&mut [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)], timeout)? > 0)
    }

    /// The answer to [`Admin::send_batch`].
    pub fn acknowledgement(&mut self) -> Result<Acknowledgement> {
        let answer = self.receive()?;
        wire::read_acknowledgement(Cursor::new(&answer))
    }

    /// Where a partition is led, where that may be another node than the one that this speaks to.
    pub fn leader(&self, topic: &str, partition: usize) -> Option<SocketAddr> {
        self.leaders.get(topic)?.get(partition).copied()
    }

    /// Finds out anew who leads a topic on several nodes.
    pub fn find_leaders(&mut self, topic: &str) -> Result<()> {
        let known = self.metadata(&[topic])?;
        let leaders = known.partitions.iter().map(|partition| known.address(partition.leader));
        self.leaders.insert(topic.to_owned(), leaders.collect::<Result<_>>()?);
        Ok(())
    }

    /// Asks the node that leads a partition.
    fn call_leader(&mut self, topic: &str, partition: usize, frame: Vec<u8>) -> Result<Vec<u8>> {
        match self.leader(topic, partition) {
            Some(leader) if leader != self.address => {
                let other = match self.elsewhere.remove(&leader) {
                    Some(other) => other,
                    None => Admin::connect(leader)?,
                };
                self.elsewhere.entry(leader).or_insert(other).call(frame)
            }
            _ => self.call(frame),
        }
    }

    /// Waits until every partition of a topic serves.
    pub fn await_serving(&mut self, topic: &str, partitions: usize, deadline: Instant) -> Result<()> {
        while let Err(error) = self.log_ends(topic, partitions) {
            ensure!(Instant::now() < deadline, "{topic} does not serve: {error:#}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Deletes a topic.
    pub fn delete_topic(&mut self, topic: &str) -> Result<()> {
        let answer = self.call(wire::delete_topic(topic))?;
        let error = wire::read_topic_error(Cursor::new(&answer))?;
        ensure!(error == 0, "DeleteTopics answered with error {error}");
        Ok(())
    }

    /// The log end offset of a partition.
    pub fn log_end(&mut self, topic: &str, partition: usize) -> Result<i64> {
        self.offset(topic, partition, wire::LOG_END)
    }

    /// The log end offsets of a topic's first partitions.
    pub fn log_ends(&mut self, topic: &str, partitions: usize) -> Result<Vec<i64>> {
        let mut ends = Vec::with_capacity(partitions);
        while ends.len() < partitions {
            let first = ends.len();
            let (leader, limit) = (self.leader(topic, first), partitions.min(first + LISTED_AT_ONCE));
            let led = (first..limit).take_while(|partition| self.leader(topic, *partition) == leader).count();
            let some = first..first + led;
            let answer =
                self.call_leader(topic, first, wire::list_offsets(topic, some.clone(), wire::LOG_END))?;
            ends.extend(wire::read_listed_offsets(Cursor::new(&answer), some)?);
        }
        Ok(ends)
    }

    fn offset(&mut self, topic: &str, partition: usize, which: i64) -> Result<i64> {
        let one = partition..partition + 1;
        let answer = self.call_leader(topic, partition, wire::list_offsets(topic, one.clone(), which))?;
        wire::read_listed_offsets(Cursor::new(&answer), one)?.pop().context("one partition was asked for")
    }

    /// The log start offset of a partition.
    pub fn log_start(&mut self, topic: &str, partition: usize) -> Result<i64> {
        self.offset(topic, partition, wire::LOG_START)
    }

    /// A new idempotent producer. A broker may have to get ids first.
    pub fn producer(&mut self) -> Result<Producer> {
        let deadline = Instant::now() + TOPIC_PATIENCE;
        loop {
            let answer = self.call(wire::init_producer_id())?;
            match wire::read_producer(Cursor::new(&answer)) {
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
                Ok(producer) => return Ok(producer),
            }
        }
    }

    /// Reads batches from the one that holds `offset` to `offset_end` or until `bytes_max`, and compares each with what
    /// was sent: offsets without a gap, the CRC, and the bytes that a broker must not change. With none `sent` only the
    /// CRC says that a batch is whole. Returns the number of batches.
    pub fn check(
        &mut self,
        topic: &str,
        partition: usize,
        range: (i64, i64),
        bytes_max: usize,
        sent: Option<&HashSet<u64>>,
    ) -> Result<u64> {
        self.read(topic, partition, range, bytes_max, |batch| {
            let known = sent.is_none_or(|sent| sent.contains(&fingerprint(batch.bytes)));
            ensure!(
                known,
                "{topic}-{partition}: the batch at {} is not one that was sent",
                batch.base_offset
            );
            Ok(())
        })
    }

    /// Reads batches from the one that holds `offset` to `offset_end` or until `bytes_max`: offsets without a gap, each
    /// with a good CRC. Returns the number of batches.
    pub fn read(
        &mut self,
        topic: &str,
        partition: usize,
        (mut offset, offset_end): (i64, i64),
        bytes_max: usize,
        mut each: impl FnMut(BatchView<'_>) -> Result<()>,
    ) -> Result<u64> {
        let (mut batches, mut bytes) = (0, 0);
        while offset < offset_end && bytes < bytes_max {
            let (mut frame, offsets_at) =
                wire::fetch_of_version(self.fetch_version, topic, &[partition], CHECK_FETCH_BYTES);
            offsets_at.iter().for_each(|at| wire::put(&mut frame, *at, &offset.to_be_bytes()));
            let answer = self.call_leader(topic, partition, frame)?;
            let (before, mut too_old) = (batches, false);
            let error = wire::read_fetched(Cursor::new(&answer), |fetched| {
                too_old = fetched.error == UNSUPPORTED_COMPRESSION_TYPE && self.fetch_version < 10;
                if too_old {
                    return Ok(());
                }
                ensure!(fetched.error == 0, "Fetch answered with error {}", fetched.error);
                ensure!(
                    fetched.high_watermark >= offset_end,
                    "the high watermark is below what was acknowledged"
                );
                let mut rest = fetched.records;
                while let Some((batch, after)) = BatchView::split(rest) {
                    let at = batch.base_offset;
                    // Only the first may hold the offset in its middle.
                    let due = at == offset || batches == 0 && at < offset && offset < batch.offset_end;
                    ensure!(due, "{topic}-{partition}: a batch at {at} where {offset} is due");
                    ensure!(batch.crc_holds(), "{topic}-{partition}: the batch at {at} fails its CRC");
                    each(batch)?;
                    (offset, rest) = (batch.offset_end, after);
                    (batches, bytes) = (batches + 1, bytes + batch.bytes.len());
                }
                Ok(())
            })?;
            ensure!(error == 0, "Fetch answered with error {error}");
            if too_old {
                self.fetch_version = 10;
                continue;
            }
            let stuck = || format!("{topic}-{partition}: nothing at {offset}, acknowledged to {offset_end}");
            (batches > before).then_some(()).with_context(stuck)?;
        }
        Ok(batches)
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_that_rested_is_made_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let broker = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut frame = vec![0; wire::api_versions().len()];
                stream.read_exact(&mut frame).unwrap();
                let correlation = &frame[CORRELATION_AT..CORRELATION_AT + 4];
                stream.write_all(&[&6_u32.to_be_bytes()[..], correlation, &[0, 0]].concat()).unwrap();
            }
        });
        let mut admin = Admin::connect(address).unwrap();
        admin.answers().unwrap();
        admin.called -= 2 * REST_MAX;
        admin.answers().unwrap();
        broker.join().unwrap();
    }
}

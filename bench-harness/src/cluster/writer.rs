//! A producer with acks=all that follows the leader of one partition, one request at a time, as a client does: it has a
//! producer id, looks for another leader when it is refused or loses its connection, and sends the same batch again
//! until it is acknowledged. Where a node is known to be cut off it waits for that one's answer and asks the others who
//! leads all the while.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::admin::Admin;
use crate::host;
use crate::wire::{self, Contents, Metadata, Payload, Producer};

/// The pause before it asks again, where asking at once would get the same answer.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// A batch that is not acknowledged within this time fails the run.
const PATIENCE: Duration = Duration::from_secs(90);
/// Kafka's codes after which a client sends again: the unknown topic, no leader yet, not the leader, out of time, a
/// broker or a replica that is not there, too few copies before and after the append, a disk, and leader epochs.
const RETRIABLE: [i16; 11] = [3, 5, 6, 7, 8, 9, 19, 20, 56, 74, 75];
/// Those of them that say that somebody else leads.
const ELSEWHERE: [i16; 5] = [3, 5, 6, 74, 75];
/// One record of 100 B.
const SMALL: Contents =
    Contents { records: 1, record_bytes: 100, keyed: false, codec: tidemill::log::codec::Codec::None };

/// What stood in the way of the writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Refusals after which a client sends again, by Kafka's code.
    pub retriable: BTreeMap<i16, u64>,
    /// Refusals after which it does not.
    pub fatal: BTreeMap<i16, u64>,
    /// Connections that were lost or refused.
    pub lost: u64,
}

impl Trouble {
    /// Adds what another writer met.
    pub fn add(&mut self, other: &Trouble) {
        other.retriable.iter().for_each(|(code, count)| *self.retriable.entry(*code).or_default() += count);
        other.fatal.iter().for_each(|(code, count)| *self.fatal.entry(*code).or_default() += count);
        self.lost += other.lost;
    }
}

/// The producer.
pub struct Writer {
    topic: String,
    partition: usize,
    /// Where every node listens, by id.
    nodes: BTreeMap<i32, SocketAddr>,
    /// Who is taken to lead, and the connection to it.
    leader: Option<(i32, Admin)>,
    /// Connections to nodes that were asked who leads.
    asked: BTreeMap<i32, Admin>,
    /// The node that was lost last: it is asked last.
    lost: Option<i32>,
    /// A node that does not answer: see [`Writer::avoid`].
    avoided: Option<i32>,
    producer: Producer,
    /// The next batch's sequence in this producer's epoch, and its number of all.
    sequence: i32,
    number: u64,
    /// The timestamp of every record.
    timestamp_ms: i64,
    /// Every acknowledged batch: where it is said to be, and what it is.
    acknowledged: HashMap<i64, u64>,
    /// What stood in the way.
    pub trouble: Trouble,
}

/// How an attempt ended.
enum Attempt {
    Acknowledged(i64),
    Again,
    AfterPause,
}

impl Writer {
    /// A producer for a partition of a cluster with those nodes.
    pub fn new(topic: &str, partition: usize, nodes: BTreeMap<i32, SocketAddr>) -> Result<Writer> {
        let first = *nodes.values().next().context("a cluster has nodes")?;
        Ok(Writer {
            topic: topic.to_owned(),
            partition,
            nodes,
            leader: None,
            asked: BTreeMap::new(),
            lost: None,
            avoided: None,
            producer: Admin::connect(first)?.producer()?,
            sequence: 0,
            number: 0,
            timestamp_ms: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64,
            acknowledged: HashMap::new(),
            trouble: Trouble::default(),
        })
    }

    /// The node that it takes for the leader.
    pub fn leader(&self) -> Option<i32> {
        self.leader.as_ref().map(|(node, _)| *node)
    }

    /// A node is about to be cut off, or is not any more. It is neither asked nor connected to, and while it owes an
    /// answer the others are asked who leads: a client that knew nothing would wait out its own timeouts.
    pub fn avoid(&mut self, node: Option<i32>) {
        self.avoided = node;
        if let Some(node) = node {
            self.asked.remove(&node);
        }
    }

    /// Batches that were acknowledged.
    pub fn count(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// Writes the next batch. Returns the node that acknowledged it.
    pub fn write(&mut self) -> Result<i32> {
        self.write_and(|| Ok(()))
    }

    /// The same; once the request is sent for the first time, something else is done before its answer is read.
    pub fn write_and(&mut self, mut meanwhile: impl FnMut() -> Result<()>) -> Result<i32> {
        let deadline = Instant::now() + PATIENCE;
        let mut first = true;
        let seed = self.partition as u64 * 1_000_003 + self.number;
        let mut batch = wire::encode(SMALL, self.producer, self.timestamp_ms, &mut Payload::new(seed));
        loop {
            if Instant::now() > deadline || host::interrupted() {
                bail!("{}-{}: no acknowledgement; {:?}", self.topic, self.partition, self.trouble);
            }
            wire::set_sequence(&mut batch, self.sequence);
            let attempt =
                self.attempt(&batch, || if std::mem::take(&mut first) { meanwhile() } else { Ok(()) })?;
            match attempt {
                Attempt::Acknowledged(offset) => {
                    (self.sequence, self.number) =
                        (self.sequence.wrapping_add(1) & i32::MAX, self.number + 1);
                    self.acknowledged.insert(offset, wire::fingerprint(&batch));
                    return self.leader().context("a leader answered");
                }
                Attempt::Again => {}
                Attempt::AfterPause => std::thread::sleep(RETRY_PAUSE),
            }
            if self.sequence == 0 {
                // A new producer id after a refusal that was not to be.
                batch = wire::encode(SMALL, self.producer, self.timestamp_ms, &mut Payload::new(seed));
            }
        }
    }

    fn attempt(&mut self, batch: &[u8], meanwhile: impl FnOnce() -> Result<()>) -> Result<Attempt> {
        if self.leader.is_none() && !self.find_leader() {
            return Ok(Attempt::AfterPause);
        }
        let Some((node, mut link)) = self.leader.take() else { return Ok(Attempt::AfterPause) };
        let frame = wire::produce_to_all(&self.topic, self.partition, batch);
        let sent = link.send_batch(frame).and_then(|()| meanwhile());
        if sent.is_ok() && self.avoided == Some(node) && self.find_leader_while_silent(node, &link)? {
            return Ok(Attempt::Again);
        }
        let Ok(answer) = sent.and_then(|()| link.acknowledgement()) else {
            self.trouble.lost += 1;
            self.lost = Some(node);
            return Ok(Attempt::Again);
        };
        match answer.error {
            0 => {
                (self.leader, self.lost) = (Some((node, link)), None);
                return Ok(Attempt::Acknowledged(answer.base_offset));
            }
            code if RETRIABLE.contains(&code) => *self.trouble.retriable.entry(code).or_default() += 1,
            code => {
                *self.trouble.fatal.entry(code).or_default() += 1;
                // As Java's producer does: what comes next begins anew.
                if let Ok(producer) = link.producer() {
                    (self.producer, self.sequence) = (producer, 0);
                }
            }
        }
        let elsewhere = ELSEWHERE.contains(&answer.error);
        match answer.leader.filter(|leader| elsewhere && *leader != node) {
            Some(leader) if self.go_to(leader) => return Ok(Attempt::Again),
            _ if elsewhere => {}
            _ => self.leader = Some((node, link)),
        }
        Ok(Attempt::AfterPause)
    }

    /// A node that may be cut off owes an answer: until it comes, the others are asked who leads. True where that is
    /// one of them by now.
    fn find_leader_while_silent(&mut self, node: i32, link: &Admin) -> Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        while !link.is_answered(RETRY_PAUSE)? {
            if self.find_leader() {
                (self.trouble.lost, self.lost) = (self.trouble.lost + 1, Some(node));
                return Ok(true);
            }
            if Instant::now() > deadline || host::interrupted() {
                bail!("{}-{}: nobody but node {node} leads", self.topic, self.partition);
            }
        }
        Ok(false)
    }

    /// Connects to a node as to the leader.
    fn go_to(&mut self, node: i32) -> bool {
        if self.avoided == Some(node) {
            return false;
        }
        let link = self.nodes.get(&node).and_then(|address| Admin::connect(*address).ok());
        self.trouble.lost += u64::from(link.is_none());
        self.leader = link.map(|link| (node, link));
        self.leader.is_some()
    }

    /// Asks the nodes in turn who leads, the one that was lost last. False where nobody knows one that can be reached.
    fn find_leader(&mut self) -> bool {
        let mut nodes: Vec<i32> = self.nodes.keys().copied().filter(|id| self.avoided != Some(*id)).collect();
        nodes.sort_by_key(|id| (Some(*id) == self.lost, *id));
        for id in nodes {
            let Ok(known) = self.ask(id) else { continue };
            let leader = leader_of(&known, self.partition);
            // The word of one who has not heard of a loss yet is not worth a try.
            if let Some(leader) = leader.filter(|leader| Some(*leader) != self.lost || *leader == id)
                && self.go_to(leader)
            {
                return true;
            }
        }
        false
    }

    /// What a node knows, over the connection of the last time if that still works.
    fn ask(&mut self, node: i32) -> Result<Metadata> {
        if let Some(mut link) = self.asked.remove(&node)
            && let Ok(known) = link.metadata(&[&self.topic])
        {
            self.asked.insert(node, link);
            return Ok(known);
        }
        let mut link = Admin::connect(*self.nodes.get(&node).context("a node")?)?;
        let known = link.metadata(&[&self.topic])?;
        self.asked.insert(node, link);
        Ok(known)
    }

    /// Reads the partition and compares it with what was acknowledged.
    pub fn read_back(&self, admin: &mut Admin) -> Result<ReadBack> {
        admin.find_leaders(&self.topic)?;
        let end = admin.log_end(&self.topic, self.partition)?;
        let mut found = ReadBack { acknowledged: self.count(), ..ReadBack::default() };
        let mut equal = 0;
        found.stored = admin.read(&self.topic, self.partition, (0, end), usize::MAX, |batch| {
            let is_it = |known: &u64| *known == wire::fingerprint(batch.bytes);
            equal += u64::from(self.acknowledged.get(&batch.base_offset).is_some_and(is_it));
            Ok(())
        })?;
        found.missing = found.acknowledged - equal;
        Ok(found)
    }
}

/// Who leads a partition of the only topic asked for.
fn leader_of(known: &Metadata, partition: usize) -> Option<i32> {
    let found = known.partitions.iter().find(|one| usize::try_from(one.number) == Ok(partition))?;
    found.is_led().then_some(found.leader)
}

/// What a partition holds at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadBack {
    /// Batches that were acknowledged.
    pub acknowledged: u64,
    /// Of them, those that are not at their offsets as they were sent: 0, or the broker has lost something.
    pub missing: u64,
    /// Batches in the partition. More than were acknowledged: some were written twice.
    pub stored: u64,
}

impl ReadBack {
    /// Adds another partition's.
    pub fn add(&mut self, other: ReadBack) {
        self.acknowledged += other.acknowledged;
        self.missing += other.missing;
        self.stored += other.stored;
    }
}

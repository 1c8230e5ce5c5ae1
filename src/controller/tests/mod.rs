//! Scenarios of the whole controller on a simulated directory: requests and answers, crashes, repeated seeds.

mod brokers;
mod cluster;
mod configs;
mod crash;
mod install;
mod lost_directories;
mod net;
mod partitions;
mod placed;
mod quorum;
mod replay;
mod scenarios;
mod walk;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::recovery::{Recovery, Step};
use super::request::NewTopic;
use super::*;
use crate::effect::{FileDone, FileError};

/// A directory that forgets on a crash what was not synced.
#[derive(Clone, Default)]
struct Disk {
    files: BTreeMap<String, Vec<u8>>,
    /// What a crash leaves: names as of the last directory sync, bytes as of each file's last sync.
    durable: BTreeMap<String, Vec<u8>>,
    synced: BTreeMap<String, Vec<u8>>,
    operations: usize,
}

impl Disk {
    fn run(&mut self, op: &FileOp) -> FileResult {
        self.operations += 1;
        match op {
            FileOp::MakeDir | FileOp::SyncParent => {}
            FileOp::SyncDir => {
                let synced = &self.synced;
                let keep = |name: &String| (name.clone(), synced.get(name).cloned().unwrap_or_default());
                self.durable = self.files.keys().map(keep).collect();
            }
            FileOp::List => {
                let listing = self.files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64));
                return Ok(FileDone::Listing(listing.collect()));
            }
            FileOp::Create { file, .. } => {
                self.files.insert(file.to_string(), Vec::new());
            }
            FileOp::Write { file, position, bytes } => {
                let content = self.files.get_mut(&file.to_string()).ok_or(FileError::NotFound)?;
                content.resize((*position as usize).max(content.len()), 0);
                let end = content.len().min(*position as usize + bytes.len());
                content.splice(*position as usize..end, bytes.iter().copied());
            }
            FileOp::Read { file, position, length } => {
                let content = self.files.get(&file.to_string()).ok_or(FileError::NotFound)?;
                let end = content.len().min((position + length) as usize);
                return Ok(FileDone::Bytes(Bytes::copy_from_slice(&content[*position as usize..end])));
            }
            FileOp::Sync { file } => {
                let name = file.to_string();
                let content = self.files.get(&name).ok_or(FileError::NotFound)?;
                if let Some(durable) = self.durable.get_mut(&name) {
                    durable.clone_from(content);
                }
                self.synced.insert(name, content.clone());
            }
            FileOp::Truncate { file, length } => {
                self.files.get_mut(&file.to_string()).ok_or(FileError::NotFound)?.resize(*length as usize, 0);
            }
            FileOp::Rename { from, to } => {
                let content = self.files.remove(&from.to_string()).ok_or(FileError::NotFound)?;
                if let Some(synced) = self.synced.remove(&from.to_string()) {
                    self.synced.insert(to.to_string(), synced);
                }
                self.files.insert(to.to_string(), content);
            }
            FileOp::Delete { file } => {
                self.files.remove(&file.to_string());
            }
            other => panic!("the controller never asks for {other:?}"),
        }
        Ok(FileDone::Ok)
    }

    /// After a power cut: what was synced. `torn` bytes of what was written after it may have reached the device.
    fn crash(&mut self, torn: usize) {
        let mut left = self.durable.clone();
        for (name, bytes) in &mut left {
            if let Some(written) = self.files.get(name)
                && written.len() > bytes.len()
            {
                bytes.extend_from_slice(
                    &written[bytes.len()..written.len().min(bytes.len().saturating_add(torn))],
                );
            }
        }
        self.files.clone_from(&left);
        self.synced.clone_from(&left);
        self.durable = left;
    }
}

/// Node 0, whose topics have two partitions by default.
fn node_config() -> NodeConfig {
    let pairs = [("node.id", "0"), ("num.partitions", "2")];
    let pairs = pairs.map(|(key, value)| (key.to_string(), value.to_string()));
    NodeConfig::load(None, &pairs).unwrap().0
}

fn config(seed: u64) -> ControllerConfig {
    ControllerConfig {
        raft_id: 1,
        voters: vec![VoterEndpoint::alone(0, 1)],
        cluster_id: "4L6g3nShT-eMCtK--X86sw".into(),
        node: Arc::new(node_config()),
        snapshot_entries: 5,
        snapshot_bytes: 1 << 20,
        seed,
    }
}

fn recover(disk: &mut Disk) -> Result<Recovered, String> {
    let mut recovery = Recovery::new();
    let mut step = recovery.step(None);
    loop {
        step = match step {
            Step::Op(op) => recovery.step(Some(disk.run(&op))),
            Step::Done(recovered) => return Ok(*recovered),
            Step::Failed(why) => return Err(why),
        }
    }
}

const NOW: Now = Now { mono_ms: 0, wall_ms: 0 };

/// A controller on a disk, and what it said.
struct Node {
    controller: Controller,
    disk: Disk,
    pending: VecDeque<(Ticket, FileOp)>,
    image: Arc<Image>,
    images: Vec<Arc<Image>>,
    published: Vec<ImageDelta>,
    answers: Vec<(u64, ControllerAnswer)>,
    trace: Vec<String>,
    /// So many more operations find the device full, once this many were carried out.
    full: u32,
    full_from: usize,
    now_ms: u64,
    /// There are other brokers to listen for.
    peers: bool,
}

impl Node {
    fn start(mut disk: Disk, seed: u64) -> Self {
        let recovered = recover(&mut disk).unwrap();
        let controller = Controller::new(config(seed), recovered).unwrap();
        let mut node = Self {
            controller,
            disk,
            pending: VecDeque::new(),
            image: Arc::default(),
            images: Vec::new(),
            published: Vec::new(),
            answers: Vec::new(),
            trace: Vec::new(),
            full: 0,
            full_from: 0,
            now_ms: 0,
            peers: false,
        };
        node.give(Input::Tick);
        node
    }

    fn give(&mut self, input: Input) {
        let mut out = Vec::new();
        self.controller.step(Now { mono_ms: self.now_ms, wall_ms: 0 }, input, &mut out);
        for output in out {
            self.trace.push(format!("{output:?}"));
            match output {
                Output::File(ticket, op) => self.pending.push_back((ticket, op)),
                Output::Publish(image, delta) => {
                    self.images.push(Arc::clone(&image));
                    self.published.push(delta);
                    self.image = image;
                }
                Output::Answer { token, version, answer } => {
                    assert!(version <= self.image.version(), "an answer never outruns the Image");
                    self.answers.push((token, answer));
                }
                Output::Leader { node_id, .. } => assert_eq!(node_id, Some(0)),
                Output::Send { .. } => panic!("there is nobody to send to"),
                Output::RaftId(_) | Output::Notice(_) => panic!("the quorum is this node"),
                Output::WakeAt(_) => {
                    assert!(self.full > 0 || self.peers, "a single voter needs no clock")
                }
                Output::Full => assert!(self.full > 0, "there is space"),
                Output::Fatal(why) => panic!("{why}"),
            }
        }
    }

    fn ask(&mut self, token: u64, request: ControllerRequest) {
        self.give(Input::Request { token, request });
    }

    /// Carries out at most so many operations.
    fn run(&mut self, operations: usize) {
        for _ in 0..operations {
            let Some((ticket, op)) = self.pending.pop_front() else { return };
            let grows = matches!(op, FileOp::Write { .. } | FileOp::Create { .. } | FileOp::Rename { .. });
            if self.full > 0 && grows && self.disk.operations >= self.full_from {
                self.refuse(ticket, &op);
                continue;
            }
            let result = self.disk.run(&op);
            self.give(Input::Completed { ticket, result });
        }
    }

    /// The device is full: of a write it takes a few bytes. Nothing is tried again before time passes.
    fn refuse(&mut self, ticket: Ticket, op: &FileOp) {
        if let FileOp::Write { file, position, bytes } = op {
            let torn =
                FileOp::Write { file: *file, position: *position, bytes: bytes.slice(..bytes.len() / 2) };
            self.disk.run(&torn).unwrap();
        }
        self.give(Input::Completed { ticket, result: Err(FileError::NoSpace) });
        self.give(Input::Tick);
        assert!(self.pending.is_empty(), "the log rests: {:?}", self.pending);
        self.full -= 1;
        self.now_ms += 1000;
        self.give(Input::Tick);
    }

    fn call(&mut self, request: ControllerRequest) -> ControllerAnswer {
        self.ask(99, request);
        self.run(1000);
        let at = self.answers.iter().position(|(token, _)| *token == 99).unwrap();
        self.answers.remove(at).1
    }

    fn register(&mut self, node_id: i32) {
        self.peers |= node_id != 0;
        self.call(registration(node_id, 7));
        let broker = self.image.broker(node_id).unwrap();
        if broker.fenced {
            let epoch = broker.epoch;
            self.call(heartbeat(node_id, epoch));
        }
    }
}

fn registration(node_id: i32, incarnation: u128) -> ControllerRequest {
    ControllerRequest::RegisterBroker {
        node_id,
        incarnation: uuid::Uuid::from_u128(incarnation),
        listeners: Vec::new(),
        rack: None,
        directories: Vec::new(),
        previous_epoch: -1,
        cluster_id: None,
    }
}

/// A broker that has applied its registration and wants nothing.
fn heartbeat(node_id: i32, epoch: i64) -> ControllerRequest {
    ControllerRequest::Heartbeat {
        node_id,
        epoch,
        applied_version: epoch as u64,
        wants_fence: false,
        wants_shutdown: false,
        offline_directories: Vec::new(),
    }
}

fn new_topic(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor, ..NewTopic::default() }
}

fn create(topics: Vec<NewTopic>) -> ControllerRequest {
    ControllerRequest::CreateTopics { topics, validate_only: false }
}

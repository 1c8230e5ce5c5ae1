//! The controller's shard beside one that does not get on: what waits for it, and what views say of the node.

use std::net::Ipv4Addr;

use bytes::Bytes;

use super::*;
use crate::broker::peers::messages::Registration;
use crate::broker::{ConnectionKey, DirectoryFacts, PeersStart, StoredOffsets};
use crate::controller::recovery::{Recovery, Step};
use crate::controller::{ControllerConfig, VoterEndpoint};
use crate::log::memory_dir::MemoryDir;
use crate::request::RequestContext;
use crate::security::Principal;

const NOW: Now = Now { mono_ms: 10, wall_ms: 1_700_000_000_000 };
const OTHER: ShardId = ShardId(1);
const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";
const CLIENTS: usize = 0;
const CONTROLLERS: usize = 1;

/// Shard 0 of a node with two, and what it has told the other one.
struct Stage {
    shard: Shard,
    directories: BTreeMap<Owner, MemoryDir>,
    /// Version of each view, and whether it says that nothing is led here.
    views: Vec<(u64, bool)>,
    /// The other shard applies views.
    applies: bool,
    answered: Vec<ConnectionKey>,
}

fn config() -> NodeConfig {
    let text = "node.id=1\nprocess.roles=broker,controller\nlisteners=PLAINTEXT://:9092,CONTROLLER://:9093\n\
                controller.listener.names=CONTROLLER\n";
    NodeConfig::load(Some(text), &[]).unwrap().0
}

impl Stage {
    fn start(mut directories: BTreeMap<Owner, MemoryDir>, incarnation: u128, is_clustered: bool) -> Self {
        let config = config();
        let directory = directories.entry(Owner::Controller).or_default();
        let (mut recovery, mut last) = (Recovery::new(), None);
        let recovered = loop {
            match recovery.step(last.take()) {
                Step::Op(op) => last = Some(directory.execute(&op, std::iter::empty())),
                Step::Done(recovered) => break *recovered,
                Step::Failed(why) => panic!("{why}"),
            }
        };
        let controller = ControllerConfig {
            raft_id: 1,
            voters: vec![VoterEndpoint::alone(1, 1)],
            cluster_id: CLUSTER.into(),
            node: Arc::new(config.clone()),
            snapshot_entries: 1000,
            snapshot_bytes: 1 << 20,
            seed: 7,
        };
        let start = ControlStart {
            controller: Controller::new(controller, recovered).unwrap(),
            placement: ShardPlacement::new(1, 2, 1),
            found: FoundReplicas::new(),
            incarnation: Uuid::from_u128(incarnation),
            listeners: Vec::new(),
            metadata_directory: 0,
            checkpoints: Checkpoints::new(vec![StoredOffsets::default()], ("boot".to_owned(), -1), &config),
        };
        let view = Arc::new(ClusterView::before_any(Arc::new(config.clone())));
        let node = Arc::new(Node { cluster_id: CLUSTER.to_owned(), shard_count: 2, seed: 7, config });
        let facts: Arc<[DirectoryFacts]> = Arc::from([DirectoryFacts::default()]);
        let mut shard = Shard::new(ShardId(0), node, view, facts, Some(Box::new(ControlHost::new(start))));
        if is_clustered {
            shard.join_cluster(NOW, peers(incarnation));
        }
        shard.start(NOW);
        Self { shard, directories, views: Vec::new(), applies: false, answered: Vec::new() }
    }

    /// Everything goes on until nothing more comes, and some seconds of time.
    fn run(&mut self) {
        let (mut outputs, mut now) = (Vec::new(), NOW);
        for _ in 0..10_000 {
            self.shard.end_turn(now);
            self.shard.take_outputs(&mut outputs);
            if outputs.is_empty() {
                let Some(at_ms) = self.shard.next_wake_ms().filter(|at_ms| *at_ms < NOW.mono_ms + 5_000)
                else {
                    return;
                };
                now.mono_ms = now.mono_ms.max(at_ms);
                self.shard.wake(now);
                continue;
            }
            for output in outputs.drain(..) {
                match output {
                    Output::File(owner, ticket, op) => {
                        let directory = self.directories.entry(owner).or_default();
                        let result = directory.execute(&op, std::iter::empty());
                        self.shard.completed(NOW, owner, ticket, result);
                    }
                    Output::Send(OTHER, Message::Publish(view)) => {
                        self.views.push((view.version, view.leads_nothing));
                        self.tell_applied();
                    }
                    Output::Flush(key) => self.answered.push(key),
                    Output::Fatal(why) => panic!("{why}"),
                    _ => {}
                }
            }
        }
        panic!("it never rests");
    }

    fn tell_applied(&mut self) {
        if let Some((version, _)) = self.views.last().filter(|_| self.applies) {
            self.shard.message(NOW, OTHER, Message::Applied(*version));
        }
    }

    /// From now on the other shard applies what it is told.
    fn go_on(&mut self) {
        self.applies = true;
        self.tell_applied();
        self.run();
    }

    /// Somebody asks for the quorum by a listener.
    fn ask(&mut self, listener: usize) -> ConnectionKey {
        let peer = Ipv4Addr::LOCALHOST.into();
        let key = self.shard.connect(RequestContext { listener, peer, principal: Principal::Anonymous });
        let mut frame = vec![0, 55, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 2, 19];
        frame.extend_from_slice(b"__cluster_metadata");
        frame.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
        self.shard.frame(NOW, key, Bytes::from(frame));
        key
    }
}

fn peers(incarnation: u128) -> PeersStart {
    let registration = Registration {
        node_id: 1,
        cluster_id: CLUSTER.into(),
        incarnation: Uuid::from_u128(incarnation),
        listeners: Vec::new(),
        rack: None,
        directories: vec![Uuid::from_u128(3)],
        features: Vec::new(),
    };
    let endpoint =
        Endpoint { name: "CONTROLLER".into(), host: "localhost".into(), port: 9093, security_protocol: 0 };
    PeersStart {
        registration,
        is_broker: true,
        voters: Vec::new(),
        previous_epoch: -1,
        raft_id: 1,
        endpoint,
        directory_ids: vec![Some(Uuid::from_u128(3))],
    }
}

#[test]
fn only_who_reads_on_this_node_waits_for_its_shards() {
    let mut stage = Stage::start(BTreeMap::new(), 5, false);
    stage.run();
    let (client, peer) = (stage.ask(CLIENTS), stage.ask(CONTROLLERS));
    stage.run();
    assert_eq!(stage.answered, [peer], "the other shard has not applied the first view");
    stage.go_on();
    assert_eq!(stage.answered, [peer, client]);
}

#[test]
fn views_say_that_nothing_is_led_until_the_process_is_registered() {
    let mut directories = BTreeMap::new();
    for incarnation in 5..7 {
        let mut stage = Stage::start(directories, incarnation, true);
        stage.go_on();
        assert_eq!(stage.views.first().map(|(_, leads_nothing)| *leads_nothing), Some(true));
        assert_eq!(stage.views.last().map(|(_, leads_nothing)| *leads_nothing), Some(false));
        assert!(stage.views.is_sorted_by_key(|(_, leads_nothing)| !leads_nothing), "{:?}", stage.views);
        directories = stage.directories;
    }
    let mut alone = Stage::start(BTreeMap::new(), 5, false);
    alone.go_on();
    assert!(alone.views.iter().all(|(_, leads_nothing)| !leads_nothing), "nobody else could have led");
}

//! A controllers' listener: what controllers say to each other is taken there, refused where it is for somebody else,
//! and unknown everywhere else.

use std::net::{TcpListener, TcpStream};

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, BrokerId, DescribeClusterRequest, DescribeClusterResponse,
    FetchRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request};
use tidemill::controller::quorum::codec::{self, Body};
use tidemill::controller::quorum::raft_id_of;
use tidemill::log::parse_uuid;
use tidemill::wire::api::RAFT_FRAME_BYTES;
use tidemill::wire::outbound::{self, JOIN_QUORUM, JoinQuorum, OutboundRequest, RAFT_MESSAGES, RaftMessages};

use crate::process::{Broker, Home, PATIENCE};
use crate::wire::{Raw, connect, create, describe, name, read_all, request};

/// What it takes to speak to the controller of a node that was started for it.
struct Stage {
    home: Home,
    broker: Broker,
    controller: String,
    cluster_id: String,
}

impl Stage {
    fn new(overrides: &[&str]) -> Self {
        let controller = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let listeners = format!("listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://{controller}");
        let own = [&listeners[..], "controller.listener.names=CONTROLLER"];
        let home = Home::new(&[overrides, &own[..]].concat());
        let broker = home.start();
        let cluster_id = describe(&mut connect(&broker), &[]).cluster_id.unwrap().to_string();
        Self { home, broker, controller, cluster_id }
    }

    /// A connection to the controllers' listener.
    fn raw(&self) -> Raw {
        let stream = TcpStream::connect(&self.controller).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Raw(stream)
    }

    /// The raft id of this node, from the file that its directory has.
    fn raft_id(&self) -> u64 {
        let text = std::fs::read_to_string(self.home.data().join("meta.properties")).unwrap();
        let id = text.lines().find_map(|line| line.strip_prefix("directory.id=")).unwrap();
        raft_id_of(parse_uuid(id).unwrap())
    }

    fn mail(&self, messages: Vec<Bytes>) -> RaftMessages {
        let cluster_id = self.cluster_id.clone();
        RaftMessages { cluster_id, node_id: 9, from: 90, to: self.raft_id(), messages }
    }
}

fn frame(mail: &RaftMessages, correlation_id: i32) -> Bytes {
    let mut request = OutboundRequest::begin(RAFT_MESSAGES, 0, correlation_id, 64);
    mail.write(request.body());
    request.finish()
}

/// The correlation id and the error code of the next answer.
fn told(raw: &mut Raw) -> (i32, i16) {
    let (correlation_id, body) = outbound::answer(&raw.frame().into()).unwrap();
    let (code, mail) = outbound::parse_raft_answer(&body).unwrap();
    assert!(mail.is_empty());
    (correlation_id, code)
}

fn ask<Q: Encodable + Request, R: Decodable>(raw: &mut Raw, request: &Q, version: i16, tags: usize) -> R {
    raw.send(&outbound::encode(request, version, 5).unwrap());
    let mut body = Bytes::from(raw.frame()).slice(4 + tags..);
    R::decode(&mut body, version).unwrap()
}

#[test]
fn controllers_are_heard_on_their_listener_alone() {
    let stage = Stage::new(&["socket.request.max.bytes=1000000"]);
    let body = Body::Heartbeat { commit: 0 };
    let stale = codec::Message { from: 90, to: stage.raft_id(), term: 1, body };
    let sound = stage.mail(vec![codec::encode(&stale).unwrap(), Bytes::from_static(b"noise")]);
    let mut client = Raw::open(&stage.broker);
    client.send(&frame(&sound, 1));
    client.assert_closed("raft messages of a client");
    for (key, version) in [(56, 2), (58, 0), (62, 0), (63, 0), (67, 0), (JOIN_QUORUM, 0)] {
        let mut client = Raw::open(&stage.broker);
        client.send_frame(&request(key, version, 1, &[0; 40]));
        client.assert_closed("what a broker asks of a controller, from a client");
    }
    stage.broker.wait_for_line("a connection was closed: UnknownApi");
    stage.broker.wait_for_line("InvalidRequest for API 62, BrokerRegistration");
    let mut raw = stage.raw();
    let other_cluster = RaftMessages { cluster_id: "another".to_owned(), ..sound.clone() };
    let other_disk = RaftMessages { to: sound.to ^ 2, ..sound.clone() };
    // Longer than a client's request may be.
    let long = stage.mail(vec![vec![7; 3_000_000].into()]);
    for (at, mail) in (0..).zip([&sound, &other_cluster, &other_disk, &long, &sound]) {
        raw.send(&frame(mail, at));
    }
    let answers: Vec<_> = (0..5).map(|_| told(&mut raw)).collect();
    // The quorum is this node alone: node 9 is no member, which its leader tells.
    assert_eq!(answers, [(0, 127), (1, 104), (2, 94), (3, 127), (4, 127)]);
    stage.broker.wait_for_line("refused raft messages of node 9 at 127.0.0.1: InconsistentClusterId");
    stage.broker.wait_for_line("refused raft messages of node 9 at 127.0.0.1: InconsistentVoterSet");
    let mut huge = (RAFT_FRAME_BYTES + 1).to_be_bytes().to_vec();
    huge.extend_from_slice(&[0x03, 0xe8, 0, 0]);
    raw.send(&huge);
    raw.assert_closed("more than any controller says at once");
    create(&mut connect(&stage.broker), "after", 1, &[]);
    assert_eq!(stage.broker.stop(), Some(0));
}

/// WriteTxnMarkers is for coordinators of transactions, which are not there: a client's markers would end what it never
/// began. As Kafka does with an API that a listener does not have, the connection is closed.
#[test]
fn markers_of_transactions_are_taken_from_nobody_and_it_is_said() {
    const WRITE_TXN_MARKERS: i16 = 27;
    let stage = Stage::new(&[]);
    create(&mut connect(&stage.broker), "t", 1, &[]);
    for version in [0, 1, 2] {
        for mut raw in [Raw::open(&stage.broker), stage.raw()] {
            raw.send_frame(&request(WRITE_TXN_MARKERS, version, 1, &[0; 40]));
            raw.assert_closed("markers");
        }
    }
    let line = stage.broker.wait_for_line("InvalidRequest for API 27 (");
    assert!(line.contains("refused an unknown API of a client at 127.0.0.1: "), "{line}");
    let versions: ApiVersionsResponse =
        connect(&stage.broker).call(&ApiVersionsRequest::default(), 2).unwrap();
    assert!(versions.api_keys.iter().all(|row| row.api_key != WRITE_TXN_MARKERS));
    assert_eq!(read_all(&mut connect(&stage.broker), "t", 0), []);
}

#[test]
fn what_controllers_say_is_not_advertised_and_who_they_are_is_told() {
    let stage = Stage::new(&["node.id=7"]);
    let mut raw = stage.raw();
    let asking = ApiVersionsRequest::default()
        .with_client_software_name("t".to_owned().into())
        .with_client_software_version("1".to_owned().into());
    let versions: ApiVersionsResponse = ask(&mut raw, &asking, 3, 0);
    let keys: Vec<i16> = versions.api_keys.iter().map(|row| row.api_key).collect();
    assert!(keys.contains(&62) && !keys.contains(&RAFT_MESSAGES), "{keys:?}");
    let request = DescribeClusterRequest::default().with_endpoint_type(2);
    let described: DescribeClusterResponse = ask(&mut raw, &request, 2, 1);
    assert_eq!((described.error_code, described.controller_id.0), (0, 7));
    let controllers: Vec<_> =
        described.brokers.iter().map(|one| format!("{}:{}", one.host, one.port)).collect();
    assert_eq!(controllers, std::slice::from_ref(&stage.controller));
    assert_eq!(stage.broker.stop(), Some(0));
}

#[test]
fn a_member_that_was_thrown_out_is_told_so() {
    let stage = Stage::new(&[]);
    let mut raw = stage.raw();
    let join = |raft_id| {
        let (cluster_id, host) = (stage.cluster_id.clone(), String::new());
        let mut request = OutboundRequest::begin(JOIN_QUORUM, 0, 1, 64);
        JoinQuorum { cluster_id, node_id: 9, raft_id, host, port: 0 }.write(request.body());
        request.finish()
    };
    let code = |raw: &mut Raw| {
        let (_, body) = outbound::answer(&raw.frame().into()).unwrap();
        outbound::parse_raft_answer(&body).unwrap().0
    };
    raw.send(&join(90));
    assert_eq!(code(&mut raw), 0);
    raw.send(&frame(&stage.mail(Vec::new()), 2));
    assert_eq!(code(&mut raw), 0, "a member is answered with its mail");
    raw.send(&join(91));
    assert_eq!(code(&mut raw), 0, "node 9 has another disk");
    raw.send(&frame(&stage.mail(Vec::new()), 3));
    assert_eq!(code(&mut raw), 127, "its old one is no member any more");
    raw.send(&join(90));
    assert_eq!(code(&mut raw), 0, "and may come again");
    assert_eq!(stage.broker.stop(), Some(0));
}

#[test]
fn nobody_poses_as_a_replica_on_a_listener_of_clients() {
    let brokers = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:0,BROKERS://{brokers}");
    let home = Home::new(&[
        &listeners,
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,BROKERS:PLAINTEXT",
        "inter.broker.listener.name=BROKERS",
    ]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 1, &[]);
    let topic_id = describe(&mut connection, &["t"]).topics[0].topic_id;
    let partition = FetchPartition::default().with_partition_max_bytes(1_000);
    let topic = FetchTopic::default().with_topic_id(topic_id).with_partitions(vec![partition]);
    let replica = ReplicaState::default().with_replica_id(BrokerId(2)).with_replica_epoch(5);
    let request = FetchRequest::default().with_replica_state(replica).with_topics(vec![topic]);
    let refused = connection.call(&request, 17).unwrap();
    assert_eq!(refused.error_code, 31);
    let line = broker.wait_for_line("refused a fetch as the replica of node 2");
    assert!(line.contains("ClusterAuthorizationFailed"), "{line}");
    assert_eq!(describe(&mut connection, &["t"]).topics[0].name, Some(name("t")));
    assert_eq!(broker.stop(), Some(0));
}

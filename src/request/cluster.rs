//! DescribeCluster: the cluster's id, its brokers and who to ask for changes. Any broker takes those, so any one that
//! lives is named, as in Kafka. On a listener of controllers it is the controllers that are told, and who leads them.

use bytes::Bytes;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use super::authorized::{CLUSTER_OPERATIONS, NOT_ASKED};
use super::leader_hint::endpoint;
use super::raft_messages::{QuorumAsk, QuorumTold};
use super::{CloseReason, Node, Scene, Work, encoded};
use crate::partition::ReplyTo;
use crate::wire::api::Listener;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// Kafka's numbers of what a client may want to reach.
const ENDPOINT_BROKER: i8 = 1;
const ENDPOINT_CONTROLLER: i8 = 2;

/// Nobody, or nobody that is known.
const NOBODY: i32 = -1;

pub(super) fn describe(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: DescribeClusterRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let door = scene.node.door(scene.context.listener);
    let answer = match refusal(request.endpoint_type, door) {
        Some((error, message)) => DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(message)))
            .with_cluster_authorized_operations(NOT_ASKED),
        None if door == Listener::Controller => return Ok(Controllers::start(header, to, scene)),
        None => described(&request, scene),
    };
    Ok(encoded(header, &answer))
}

/// A request for the controllers that waits for the word of the controller's shard who leads them.
#[derive(Debug)]
pub struct Controllers {
    response: DescribeClusterResponse,
    is_told: bool,
}

impl Controllers {
    fn start(header: &RequestHeader, to: ReplyTo, scene: &mut Scene) -> Work {
        let response = described_controllers(scene);
        if response.brokers.len() == 1 {
            return encoded(header, &response.with_controller_id(BrokerId(scene.node.config.node_id)));
        }
        scene.desk.quorum.push((to, QuorumAsk::Leader));
        Work::Controllers(Box::new(Self { response, is_told: false }))
    }

    pub(super) fn answer(&mut self, told: QuorumTold) {
        let QuorumTold::Leader(leader) = told else { return };
        self.response.controller_id = BrokerId(leader.unwrap_or(NOBODY));
        self.is_told = true;
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_told
    }

    /// The whole response.
    pub(super) fn encode(self, header: &RequestHeader) -> Work {
        encoded(header, &self.response)
    }
}

fn refusal(endpoint_type: i8, door: Listener) -> Option<(ErrorCode, String)> {
    let (own, own_name) = match door {
        Listener::Controller => (ENDPOINT_CONTROLLER, "CONTROLLER"),
        Listener::Client | Listener::Broker => (ENDPOINT_BROKER, "BROKER"),
    };
    let wanted = match endpoint_type {
        _ if endpoint_type == own => return None,
        ENDPOINT_BROKER => "BROKER",
        ENDPOINT_CONTROLLER => "CONTROLLER",
        other => {
            return Some((ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}")));
        }
    };
    let words = format!(
        "The request was sent to an endpoint of type {own_name}, but we wanted an endpoint of type {wanted}"
    );
    Some((ErrorCode::MismatchedEndpointType, words))
}

/// The controllers that vote, by node id: as the quorum's log names them, or before it does as the configuration does;
/// this node alone where neither names any.
fn described_controllers(scene: &Scene) -> DescribeClusterResponse {
    let Node { config, cluster_id, .. } = scene.node;
    let in_log = scene.view.image.quorum().into_iter().flat_map(|members| members.voters());
    let in_log = in_log.map(|voter| {
        let at = &voter.endpoint;
        broker_of(voter.node_id, &at.host, i32::from(at.port), None)
    });
    let mut controllers: Vec<_> = in_log.collect();
    if controllers.is_empty() {
        let named = config.cluster.voters.iter();
        controllers.extend(named.map(|voter| {
            broker_of(voter.node_id, &voter.endpoint.host, i32::from(voter.endpoint.port), None)
        }));
    }
    if let Some(own) = config.listeners.get(scene.context.listener) {
        let at = own.advertised.as_ref().unwrap_or(&own.bind);
        let own = broker_of(config.node_id, &at.host, i32::from(at.port), None);
        // A quorum that began with one voter has never written down where that one is.
        let is_unplaced =
            |one: &&mut DescribeClusterBroker| one.broker_id == own.broker_id && one.host.is_empty();
        if controllers.is_empty() {
            controllers.push(own);
        } else if let Some(known) = controllers.iter_mut().find(is_unplaced) {
            *known = own;
        }
    }
    controllers.sort_by_key(|controller| controller.broker_id.0);
    DescribeClusterResponse::default()
        .with_endpoint_type(ENDPOINT_CONTROLLER)
        .with_cluster_id(StrBytes::from_string(cluster_id.clone()))
        .with_controller_id(BrokerId(NOBODY))
        .with_brokers(controllers)
        .with_cluster_authorized_operations(NOT_ASKED)
}

/// Any one of these nodes, at random where there are several: who is named to clients as the controller. Each takes
/// what is the controller's and passes it on, and so they spread.
pub(super) fn anyone(nodes: &[i32], random: &mut fastrand::Rng) -> i32 {
    match nodes {
        [] => NOBODY,
        [only] => *only,
        several => several.get(random.usize(..several.len())).copied().unwrap_or(NOBODY),
    }
}

fn described(request: &DescribeClusterRequest, scene: &mut Scene) -> DescribeClusterResponse {
    let live = scene.view.image.brokers().filter_map(|broker| {
        let node = endpoint(scene, broker.node_id)?;
        Some(broker_of(node.node_id, node.host, node.port, node.rack))
    });
    let mut brokers: Vec<_> = live.collect();
    let told: Vec<i32> = brokers.iter().map(|broker| broker.broker_id.0).collect();
    let listener =
        scene.node.config.listeners.get(scene.context.listener).map(|listener| listener.name.as_str());
    let fenced = scene.view.image.brokers().filter(|broker| broker.fenced).filter_map(|broker| {
        let at = broker.listeners.iter().find(|endpoint| Some(&*endpoint.name) == listener)?;
        let rack = broker.rack.as_deref();
        Some(broker_of(broker.node_id, &at.host, i32::from(at.port), rack).with_is_fenced(true))
    });
    if request.include_fenced_brokers {
        brokers.extend(fenced);
    }
    let asked = request.include_cluster_authorized_operations;
    DescribeClusterResponse::default()
        .with_endpoint_type(ENDPOINT_BROKER)
        .with_cluster_id(StrBytes::from_string(scene.node.cluster_id.clone()))
        .with_controller_id(BrokerId(anyone(&told, &mut scene.desk.random)))
        .with_brokers(brokers)
        .with_cluster_authorized_operations(if asked { CLUSTER_OPERATIONS } else { NOT_ASKED })
}

fn broker_of(node_id: i32, host: &str, port: i32, rack: Option<&str>) -> DescribeClusterBroker {
    DescribeClusterBroker::default()
        .with_broker_id(BrokerId(node_id))
        .with_host(StrBytes::from_string(host.to_string()))
        .with_port(port)
        .with_rack(rack.map(|rack| StrBytes::from_string(rack.to_string())))
}

#[cfg(test)]
mod tests {
    use super::super::Answered;
    use super::super::stage::{Stage, TO};
    use super::*;
    use crate::controller::record::Record;
    use crate::controller::{Endpoint, Member, Members};
    use crate::wire::api::ApiKey;

    fn ask(stage: &mut Stage, version: i16, request: &DescribeClusterRequest) -> DescribeClusterResponse {
        stage.ask(ApiKey::DescribeCluster, version, request)
    }

    #[test]
    fn every_version_tells_the_brokers_and_the_operations_asked_for() {
        let mut stage = Stage::new(&[("broker.rack", "r1")]);
        stage.broker(2, None, true);
        for version in 0..=2 {
            let quiet = ask(&mut stage, version, &DescribeClusterRequest::default());
            assert_eq!((quiet.error_code, quiet.controller_id.0), (0, 1));
            assert_eq!(quiet.cluster_id.as_str(), "AAAAAAAAAAAAAAAAAAAAAA");
            assert_eq!(quiet.cluster_authorized_operations, i32::MIN);
            let broker = &quiet.brokers[0];
            assert_eq!(
                (broker.host.as_str(), broker.port, broker.rack.as_deref()),
                ("host-1", 9092, Some("r1"))
            );
            assert_eq!(quiet.brokers.len(), 1);
            let asking = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
            assert_eq!(ask(&mut stage, version, &asking).cluster_authorized_operations, 8096);
        }
        let fenced = DescribeClusterRequest::default().with_include_fenced_brokers(true);
        let all: Vec<_> =
            ask(&mut stage, 2, &fenced).brokers.iter().map(|b| (b.broker_id.0, b.is_fenced)).collect();
        assert_eq!(all, [(1, false), (2, true)]);
    }

    #[test]
    fn controllers_are_described_on_their_own_listener() {
        let listeners = [
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://c:9093"),
            ("controller.listener.names", "CONTROLLER"),
        ];
        let mut stage = Stage::new(&listeners);
        stage.context.listener = 1;
        let request = DescribeClusterRequest::default().with_endpoint_type(2);
        for version in 1..=2 {
            let told = ask(&mut stage, version, &request);
            assert_eq!((told.error_code, told.endpoint_type, told.controller_id.0), (0, 2, 1));
            let controller = &told.brokers[0];
            assert_eq!((controller.broker_id.0, controller.host.as_str(), controller.port), (1, "c", 9093));
        }
        for version in 0..=2 {
            let refused = ask(&mut stage, version, &DescribeClusterRequest::default());
            assert_eq!(refused.error_code, 114, "brokers are asked for elsewhere");
        }
    }

    #[test]
    fn any_broker_that_lives_is_named_as_the_controller() {
        let mut stage = Stage::new(&[]);
        stage.broker(2, None, false);
        stage.broker(3, None, true);
        let request = DescribeClusterRequest::default().with_include_fenced_brokers(true);
        let named: std::collections::BTreeSet<i32> =
            (0..50).map(|_| ask(&mut stage, 2, &request).controller_id.0).collect();
        assert_eq!(named.into_iter().collect::<Vec<_>>(), [1, 2]);
        let mut random = fastrand::Rng::with_seed(1);
        assert_eq!((anyone(&[], &mut random), anyone(&[7], &mut random)), (-1, 7));
    }

    #[test]
    fn the_voters_of_the_log_are_the_controllers_and_their_leader_is_asked_for() {
        let mut stage = Stage::new(&[
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://own:9093"),
            ("controller.listener.names", "CONTROLLER"),
        ]);
        stage.context.listener = 1;
        let member = |node_id: i32, host: &str, is_voter| Member {
            raft_id: 100 - node_id as u64,
            node_id,
            is_voter,
            endpoint: Endpoint { name: "C".into(), host: host.into(), port: 9093, security_protocol: 0 },
        };
        let members = vec![member(1, "", true), member(2, "b", true), member(3, "c", false)];
        stage.apply(Record::Quorum(Members::checked(members).unwrap()));
        for (leader, told) in [(Some(2), 2), (None, -1)] {
            let request = DescribeClusterRequest::default().with_endpoint_type(2);
            let (header, mut work) = stage.start(ApiKey::DescribeCluster, 2, &request);
            assert_eq!(stage.desk.quorum.pop(), Some((TO, QuorumAsk::Leader)));
            assert!(!work.is_done());
            work.answer(&header, TO, Answered::Quorum(QuorumTold::Leader(leader)), &mut stage.scene());
            let response: DescribeClusterResponse = stage.finish(&header, work);
            assert_eq!(response.controller_id.0, told);
            let named: Vec<_> =
                response.brokers.iter().map(|one| (one.broker_id.0, one.host.as_str())).collect();
            assert_eq!(named, [(1, "own"), (2, "b")]);
        }
    }

    #[test]
    fn controllers_are_not_described_to_a_clients_listener() {
        let mut stage = Stage::new(&[]);
        for (endpoint_type, error) in [(2, 114), (3, 115)] {
            let request = DescribeClusterRequest::default().with_endpoint_type(endpoint_type);
            let refused = ask(&mut stage, 1, &request);
            assert_eq!(refused.error_code, error);
            assert!(refused.brokers.is_empty() && refused.error_message.is_some());
        }
    }
}

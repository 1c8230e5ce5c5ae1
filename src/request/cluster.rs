//! DescribeCluster: the cluster's id, its brokers and who to ask for changes. Any broker takes those, and
//! names itself. On a listener of controllers it is the controllers that are told.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use super::authorized::{CLUSTER_OPERATIONS, NOT_ASKED};
use super::leader_hint::endpoint;
use super::{CloseReason, Node, Scene, Work};
use crate::wire::api::{ApiKey, Listener};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// Kafka's numbers of what a client may want to reach.
const ENDPOINT_BROKER: i8 = 1;
const ENDPOINT_CONTROLLER: i8 = 2;

pub(super) fn describe(header: &RequestHeader, body: &Bytes, scene: &Scene) -> Result<Work, CloseReason> {
    let request: DescribeClusterRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let mut buffer = BytesMut::new();
    let door = scene.node.door(scene.context.listener);
    let answer = match refusal(request.endpoint_type, door) {
        Some((error, message)) => DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(message)))
            .with_cluster_authorized_operations(NOT_ASKED),
        None if door == Listener::Controller => described_controllers(scene),
        None => described(&request, scene),
    };
    response::encode(&mut buffer, ApiKey::DescribeCluster, header.version, header.correlation_id, &answer)
        .expect("fields that a version lacks have their defaults there");
    Ok(Work::Encoded(buffer))
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

/// The controllers as the configuration names them; this node alone where it names none.
fn described_controllers(scene: &Scene) -> DescribeClusterResponse {
    let Node { config, cluster_id, .. } = scene.node;
    let named = config.cluster.voters.iter();
    let mut controllers: Vec<_> = named
        .map(|voter| broker_of(voter.node_id, &voter.endpoint.host, i32::from(voter.endpoint.port), None))
        .collect();
    if controllers.is_empty()
        && let Some(own) = config.listeners.get(scene.context.listener)
    {
        let at = own.advertised.as_ref().unwrap_or(&own.bind);
        controllers.push(broker_of(config.node_id, &at.host, i32::from(at.port), None));
    }
    let leader = if controllers.len() == 1 { config.node_id } else { -1 };
    DescribeClusterResponse::default()
        .with_endpoint_type(ENDPOINT_CONTROLLER)
        .with_cluster_id(StrBytes::from_string(cluster_id.clone()))
        .with_controller_id(BrokerId(leader))
        .with_brokers(controllers)
        .with_cluster_authorized_operations(NOT_ASKED)
}

fn described(request: &DescribeClusterRequest, scene: &Scene) -> DescribeClusterResponse {
    let live = scene.view.image.brokers().filter_map(|broker| {
        let node = endpoint(scene, broker.node_id)?;
        Some(broker_of(node.node_id, node.host, node.port, node.rack))
    });
    let listener =
        scene.node.config.listeners.get(scene.context.listener).map(|listener| listener.name.as_str());
    let fenced = scene.view.image.brokers().filter(|broker| broker.fenced).filter_map(|broker| {
        let at = broker.listeners.iter().find(|endpoint| Some(&*endpoint.name) == listener)?;
        let rack = broker.rack.as_deref();
        Some(broker_of(broker.node_id, &at.host, i32::from(at.port), rack).with_is_fenced(true))
    });
    let brokers: Vec<_> =
        if request.include_fenced_brokers { live.chain(fenced).collect() } else { live.collect() };
    let node_id = scene.node.config.node_id;
    let is_told = brokers.iter().any(|broker| broker.broker_id.0 == node_id);
    let asked = request.include_cluster_authorized_operations;
    DescribeClusterResponse::default()
        .with_endpoint_type(ENDPOINT_BROKER)
        .with_cluster_id(StrBytes::from_string(scene.node.cluster_id.clone()))
        .with_controller_id(BrokerId(if is_told { node_id } else { -1 }))
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
    use super::super::stage::Stage;
    use super::*;

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

//! AddRaftVoter, RemoveRaftVoter and UpdateRaftVoter (KIP-853): the leader of the metadata quorum changes who votes,
//! and where voters are reached. A quorum whose voters are fixed in the configuration (`kraft.version` 0) has those
//! that it began with; they may move.

use bytes::Bytes;
use kafka_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
    UpdateRaftVoterRequest, UpdateRaftVoterResponse,
};
use uuid::Uuid;

use super::controlled::{Asked, Controlled};
use super::topics::limit_wait;
use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::features::KRAFT_VERSION;
use crate::controller::quorum::raft_id_of;
use crate::controller::{ApiError, ControllerAnswer, ControllerRequest, Endpoint};
use crate::partition::ReplyTo;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// Whether the voters are those of the configuration for good: it names them, or nobody to ask for them.
pub(super) fn has_fixed_voters(scene: &Scene) -> bool {
    let cluster = &scene.node.config.cluster;
    !cluster.voters.is_empty() || cluster.bootstrap_servers.is_empty()
}

/// A refusal with its words.
fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError { code, message: message.into() })
}

/// What all of them are checked for: the cluster, and a voter that may be one.
fn check_voter(
    verb: &str,
    cluster_id: Option<&str>,
    (voter, directory): (i32, Uuid),
    scene: &Scene,
) -> Result<(), ApiError> {
    if cluster_id.is_some_and(|id| id != scene.node.cluster_id) {
        return refuse(ErrorCode::InconsistentClusterId, "");
    }
    if voter < 0 || directory.is_nil() {
        let words = format!("{verb} voter request didn't include a valid voter");
        return refuse(ErrorCode::InvalidRequest, words);
    }
    Ok(())
}

/// The endpoint of these that the quorum's members find each other by: that of the first of the controllers'
/// listeners, as in Kafka.
fn default_endpoint<'a>(
    verb: &str,
    mut listeners: impl Iterator<Item = (&'a str, &'a str, u16)>,
    scene: &Scene,
) -> Result<Endpoint, ApiError> {
    let name = scene.node.config.controller_listeners.first().map_or("", String::as_str);
    let Some((_, host, port)) = listeners.find(|(listener, ..)| *listener == name) else {
        let words =
            format!("{verb} voter request didn't include the endpoint for the default listener name {name}");
        return refuse(ErrorCode::InvalidRequest, words);
    };
    Ok(Endpoint { name: name.into(), host: host.into(), port, security_protocol: 0 })
}

/// What the requests that change who votes are checked for.
fn check(
    (verb, changing): (&str, &str),
    cluster_id: Option<&str>,
    (voter, directory): (i32, Uuid),
    scene: &Scene,
) -> Result<(), ApiError> {
    check_voter(verb, cluster_id, (voter, directory), scene)?;
    if has_fixed_voters(scene) {
        let words =
            format!("Cluster doesn't support {changing} voter because the kraft.version feature is 0");
        return refuse(ErrorCode::UnsupportedVersion, words);
    }
    Ok(())
}

/// What the controller is asked for a voter that is to be added.
fn added(request: &AddRaftVoterRequest, scene: &Scene) -> Result<ControllerRequest, ApiError> {
    let voter = (request.voter_id, request.voter_directory_id);
    check(("Add", "adding"), request.cluster_id.as_deref(), voter, scene)?;
    let listeners = request.listeners.iter().map(|one| (one.name.as_str(), one.host.as_str(), one.port));
    Ok(ControllerRequest::AddVoter {
        node_id: request.voter_id,
        raft_id: raft_id_of(request.voter_directory_id),
        endpoint: default_endpoint("Add", listeners, scene)?,
    })
}

/// What the controller is asked for a voter that is reached elsewhere.
fn updated(request: &UpdateRaftVoterRequest, scene: &Scene) -> Result<ControllerRequest, ApiError> {
    let voter = (request.voter_id, request.voter_directory_id);
    check_voter("Update", request.cluster_id.as_deref(), voter, scene)?;
    let kraft = &request.k_raft_version_feature;
    let finalized = scene.view.image.feature(KRAFT_VERSION);
    if !(kraft.min_supported_version..=kraft.max_supported_version).contains(&finalized) {
        return refuse(ErrorCode::InvalidRequest, "");
    }
    let listeners = request.listeners.iter().map(|one| (one.name.as_str(), one.host.as_str(), one.port));
    Ok(ControllerRequest::UpdateVoter {
        node_id: request.voter_id,
        raft_id: raft_id_of(request.voter_directory_id),
        leader_epoch: request.current_leader_epoch,
        endpoint: default_endpoint("Update", listeners, scene)?,
    })
}

/// Asks the controller for what is in order; else gives what is to be answered.
fn ask(
    checked: Result<ControllerRequest, ApiError>,
    asked: Asked,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, ControllerAnswer> {
    let request = checked.map_err(|error| ControllerAnswer::QuorumChanged(Err(error)))?;
    scene.desk.controls.push((to, request));
    Ok(Controlled::waiting(asked))
}

pub(super) fn add(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: AddRaftVoterRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let checked = added(&request, scene);
    if checked.is_ok() {
        limit_wait(request.timeout_ms, to, scene);
    }
    Ok(ask(checked, Asked::AddVoter, to, scene).unwrap_or_else(|refused| encode_added(header, Some(refused))))
}

pub(super) fn remove(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: RemoveRaftVoterRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let (node_id, directory) = (request.voter_id, request.voter_directory_id);
    let checked = check(("Remove", "removing"), request.cluster_id.as_deref(), (node_id, directory), scene);
    let asks = checked.map(|()| ControllerRequest::RemoveVoter { node_id, raft_id: raft_id_of(directory) });
    Ok(ask(asks, Asked::RemoveVoter, to, scene)
        .unwrap_or_else(|refused| encode_removed(header, Some(refused))))
}

pub(super) fn update(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: UpdateRaftVoterRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let asks = updated(&request, scene);
    Ok(ask(asks, Asked::UpdateVoter, to, scene)
        .unwrap_or_else(|refused| encode_updated(header, Some(refused))))
}

/// The code of an answer, and its words; Kafka tells none where its code says all.
fn told(answer: Option<ControllerAnswer>) -> (i16, Option<StrBytes>) {
    match answer {
        Some(ControllerAnswer::QuorumChanged(Ok(()))) => (0, None),
        Some(ControllerAnswer::QuorumChanged(Err(ApiError { code, message }))) => {
            (code.code(), (!message.is_empty()).then(|| StrBytes::from_string(message)))
        }
        Some(ControllerAnswer::Refused(code)) => (code.code(), None),
        _ => (ErrorCode::UnknownServerError.code(), None),
    }
}

pub(super) fn encode_added(header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
    let (code, words) = told(answer);
    encoded(header, &AddRaftVoterResponse::default().with_error_code(code).with_error_message(words))
}

pub(super) fn encode_removed(header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
    let (code, words) = told(answer);
    encoded(header, &RemoveRaftVoterResponse::default().with_error_code(code).with_error_message(words))
}

/// Who leads is not told: a voter asks for that elsewhere.
pub(super) fn encode_updated(header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
    encoded(header, &UpdateRaftVoterResponse::default().with_error_code(told(answer).0))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::add_raft_voter_request::Listener;
    use kafka_protocol::protocol::{Decodable, Encodable, Request};

    use super::super::stage::{Stage, TO};
    use super::*;
    use crate::wire::api::ApiKey;

    fn text(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    /// A controller of a quorum whose voters stand in its own log.
    fn stage() -> Stage {
        Stage::new(&[
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ("controller.listener.names", "CONTROLLER"),
            ("controller.quorum.bootstrap.servers", "a:9093"),
        ])
    }

    fn directory() -> Uuid {
        Uuid::from_u64_pair(7, 40)
    }

    fn adding(listeners: &[(&str, &str, u16)]) -> AddRaftVoterRequest {
        let listeners = listeners.iter().map(|(name, host, port)| {
            Listener::default().with_name(text(name)).with_host(text(host)).with_port(*port)
        });
        AddRaftVoterRequest::default()
            .with_cluster_id(Some(text("AAAAAAAAAAAAAAAAAAAAAA")))
            .with_timeout_ms(3_000)
            .with_voter_id(4)
            .with_voter_directory_id(directory())
            .with_listeners(listeners.collect())
    }

    fn both<Q: Encodable + Request, R: Decodable>(
        key: ApiKey,
        request: &Q,
        code_of: impl Fn(R) -> (i16, Option<StrBytes>),
    ) -> ControllerRequest {
        let refused = |code, words: &str| {
            ControllerAnswer::QuorumChanged(Err(ApiError { code, message: words.to_owned() }))
        };
        let mut asked = None;
        for (answer, code, words) in [
            (ControllerAnswer::QuorumChanged(Ok(())), 0, None),
            (
                refused(ErrorCode::DuplicateVoter, "the node votes already"),
                126,
                Some("the node votes already"),
            ),
            (refused(ErrorCode::VoterNotFound, ""), 127, None),
            (ControllerAnswer::Refused(ErrorCode::NotController), 41, None),
            (ControllerAnswer::Refused(ErrorCode::RequestTimedOut), 7, None),
        ] {
            let (of, response): (_, R) = stage().ask_controller(key, 0, request, answer);
            let (told_code, told_words) = code_of(response);
            assert_eq!((told_code, told_words.as_deref()), (code, words));
            asked = Some(of);
        }
        asked.unwrap()
    }

    #[test]
    fn a_voter_is_added_by_its_disk_and_the_controllers_first_listener() {
        let request = adding(&[("OTHER", "no", 1), ("CONTROLLER", "d", 9093)]);
        let asked = both(ApiKey::AddRaftVoter, &request, |response: AddRaftVoterResponse| {
            (response.error_code, response.error_message)
        });
        let endpoint =
            Endpoint { name: "CONTROLLER".into(), host: "d".into(), port: 9093, security_protocol: 0 };
        assert_eq!(asked, ControllerRequest::AddVoter { node_id: 4, raft_id: 41, endpoint });
        let mut stage = stage();
        stage.start(ApiKey::AddRaftVoter, 0, &request);
        let timer = stage.desk.timers.pop().expect("it has a time");
        assert_eq!((timer.at_ms, timer.to), (4_000, TO));
        let elsewhere: AddRaftVoterResponse =
            stage.ask(ApiKey::AddRaftVoter, 0, &adding(&[("OTHER", "no", 1)]));
        assert_eq!(elsewhere.error_code, 42);
        assert!(elsewhere.error_message.unwrap().contains("the default listener name CONTROLLER"));
    }

    #[test]
    fn a_voter_is_removed_by_its_disk() {
        let request = RemoveRaftVoterRequest::default()
            .with_cluster_id(None)
            .with_voter_id(4)
            .with_voter_directory_id(directory());
        let asked = both(ApiKey::RemoveRaftVoter, &request, |response: RemoveRaftVoterResponse| {
            (response.error_code, response.error_message)
        });
        assert_eq!(asked, ControllerRequest::RemoveVoter { node_id: 4, raft_id: 41 });
    }

    #[test]
    fn a_voter_tells_where_it_is_reached() {
        use kafka_protocol::messages::update_raft_voter_request::Listener;
        let listener = Listener::default().with_name(text("CONTROLLER")).with_host(text("d")).with_port(9094);
        let request = UpdateRaftVoterRequest::default()
            .with_cluster_id(Some(text("AAAAAAAAAAAAAAAAAAAAAA")))
            .with_current_leader_epoch(6)
            .with_voter_id(4)
            .with_voter_directory_id(directory())
            .with_listeners(vec![listener]);
        let done = ControllerAnswer::QuorumChanged(Ok(()));
        let (asked, response): (_, UpdateRaftVoterResponse) =
            stage().ask_controller(ApiKey::UpdateRaftVoter, 0, &request, done);
        assert_eq!(response.error_code, 0);
        let endpoint =
            Endpoint { name: "CONTROLLER".into(), host: "d".into(), port: 9094, security_protocol: 0 };
        let moved = ControllerRequest::UpdateVoter { node_id: 4, raft_id: 41, leader_epoch: 6, endpoint };
        assert_eq!(asked, moved);
        for (request, code) in [
            (request.clone().with_listeners(Vec::new()), 42),
            (request.clone().with_voter_id(-1), 42),
            (request.with_cluster_id(Some(text("another"))), 104),
        ] {
            let refused: UpdateRaftVoterResponse = stage().ask(ApiKey::UpdateRaftVoter, 0, &request);
            assert_eq!(refused.error_code, code);
        }
    }

    #[test]
    fn voters_that_the_configuration_names_are_fixed() {
        let mut named = Stage::new(&[
            ("process.roles", "broker,controller"),
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ("controller.listener.names", "CONTROLLER"),
            ("controller.quorum.voters", "1@localhost:9093"),
        ]);
        assert!(has_fixed_voters(&named.scene()));
        let refused: AddRaftVoterResponse =
            named.ask(ApiKey::AddRaftVoter, 0, &adding(&[("CONTROLLER", "d", 9093)]));
        assert_eq!(refused.error_code, 35);
        assert!(has_fixed_voters(&Stage::new(&[]).scene()), "a cluster of one node");
        assert!(!has_fixed_voters(&stage().scene()));
    }
}

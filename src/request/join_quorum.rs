//! JoinQuorum: a node wants to be fed the metadata log, or has moved. The active controller decides; its answer tells
//! who is a member. So does NOT_CONTROLLER: whoever asks may know voters of old only.

use bytes::{Bytes, BytesMut};

use super::controlled::{Asked, Controlled};
use super::refused::Refusal;
use super::{CloseReason, Scene, Work};
use crate::controller::{ControllerAnswer, ControllerRequest, Endpoint};
use crate::partition::ReplyTo;
use crate::wire::header::{self, RequestHeader};
use crate::wire::outbound::{self, JoinQuorum};
use crate::wire::{ErrorCode, error_number};

/// The longest name of a host (RFC 1035).
const HOST_BYTES_MAX: usize = 255;

pub(super) fn join(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let JoinQuorum { cluster_id, node_id, raft_id, host, port } = JoinQuorum::parse(body)?;
    let refused = if cluster_id != scene.node.cluster_id {
        Some(ErrorCode::InconsistentClusterId)
    } else if node_id < 0 || raft_id == 0 || host.len() > HOST_BYTES_MAX {
        Some(ErrorCode::InvalidRequest)
    } else {
        None
    };
    if let Some(code) = refused {
        scene.refused(Refusal::Join, node_id, code);
        return Ok(answered(header, Err(code), scene));
    }
    let endpoint = Endpoint { name: "CONTROLLER".into(), host: host.into(), port, security_protocol: 0 };
    scene.desk.controls.push((to, ControllerRequest::JoinQuorum { node_id, raft_id, endpoint }));
    Ok(Controlled::waiting(Asked::JoinQuorum(node_id)))
}

/// The answer: the members, as this node's Image has them by now.
pub(super) fn encode(header: &RequestHeader, answer: Option<ControllerAnswer>, scene: &Scene) -> Work {
    let result = match answer {
        Some(ControllerAnswer::QuorumChanged(result)) => result.map_err(|error| error.code),
        Some(ControllerAnswer::Refused(code)) => Err(code),
        _ => Err(ErrorCode::UnknownServerError),
    };
    answered(header, result, scene)
}

fn answered(header: &RequestHeader, result: Result<(), ErrorCode>, scene: &Scene) -> Work {
    let tells = matches!(result, Ok(()) | Err(ErrorCode::NotController));
    let members = scene.view.image.quorum().filter(|_| tells).map(|members| members.to_bytes());
    let mut buffer = BytesMut::new();
    let start = header::begin_response(&mut buffer, header.api, header.version, header.correlation_id);
    outbound::write_raft_answer(&mut buffer, error_number(result.err()), members.as_slice());
    header::end_response(&mut buffer, start, 0);
    Work::Encoded(buffer)
}

#[cfg(test)]
mod tests {
    use super::super::Answered;
    use super::super::stage::{Stage, TO};
    use super::*;
    use crate::controller::record::Record;
    use crate::controller::{Members, VoterEndpoint};
    use crate::wire::api::ApiKey;

    const OWN_CLUSTER: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn body(cluster_id: &str, node_id: i32) -> BytesMut {
        let (cluster_id, host) = (cluster_id.to_owned(), "d".to_owned());
        let mut body = BytesMut::new();
        JoinQuorum { cluster_id, node_id, raft_id: 41, host, port: 9093 }.write(&mut body);
        body
    }

    #[test]
    fn the_controller_decides_and_who_joined_learns_who_the_members_are() {
        let mut stage = Stage::new(&[]);
        let voters = [VoterEndpoint::alone(1, 10)];
        let members = Members::of_voters(&voters, OWN_CLUSTER).unwrap();
        stage.apply(Record::Quorum(members.clone()));
        for (answer, code) in [
            (ControllerAnswer::QuorumChanged(Ok(())), 0),
            (ControllerAnswer::Refused(ErrorCode::NotController), 41),
            (ControllerAnswer::Refused(ErrorCode::RequestTimedOut), 7),
        ] {
            let (header, mut work) = stage.start_bytes(ApiKey::JoinQuorum, 0, &body(OWN_CLUSTER, 4));
            let (to, asked) = stage.desk.controls.pop().unwrap();
            let endpoint =
                Endpoint { name: "CONTROLLER".into(), host: "d".into(), port: 9093, security_protocol: 0 };
            assert_eq!(
                (to, asked),
                (TO, ControllerRequest::JoinQuorum { node_id: 4, raft_id: 41, endpoint })
            );
            work.answer(&header, TO, Answered::Controller(Box::new(answer)), &mut stage.scene());
            let (told_code, mail) = stage.finish_raft(&header, work);
            assert_eq!(told_code, code);
            let told = mail.first().and_then(|bytes| Members::from_bytes(bytes));
            assert_eq!(told, Some(members.clone()).filter(|_| code != 7));
            assert_eq!(stage.desk.refusals.is_silent(), code != 7);
        }
    }

    #[test]
    fn a_node_of_another_cluster_is_refused_and_the_operator_learns_of_it() {
        for (cluster_id, node_id, code) in [("another", 4, 104), (OWN_CLUSTER, -1, 42)] {
            let mut stage = Stage::new(&[]);
            let (header, work) = stage.start_bytes(ApiKey::JoinQuorum, 0, &body(cluster_id, node_id));
            assert_eq!(stage.finish_raft(&header, work), (code, Vec::new()));
            assert!(stage.desk.controls.is_empty() && stage.desk.refusals.take().len() == 1);
        }
    }
}

//! AddRaftVoter and RemoveRaftVoter (KIP-853). A quorum whose `kraft.version` is 0 has the voters that it began with.

use bytes::Bytes;
use kafka_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
};
use uuid::Uuid;

use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::ApiError;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// A refusal with its words.
fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError { code, message: message.into() })
}

/// What both requests are checked for.
fn check(
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

fn unsupported(verb: &str) -> ApiError {
    let words = format!("Cluster doesn't support {verb} voter because the kraft.version feature is 0");
    ApiError { code: ErrorCode::UnsupportedVersion, message: words }
}

/// The words of an answer; Kafka tells none where its code says all.
fn words(error: &ApiError) -> Option<StrBytes> {
    (!error.message.is_empty()).then(|| StrBytes::from_string(error.message.clone()))
}

pub(super) fn add(header: &RequestHeader, body: &Bytes, scene: &Scene) -> Result<Work, CloseReason> {
    let request: AddRaftVoterRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let voter = (request.voter_id, request.voter_directory_id);
    let checked = check("Add", request.cluster_id.as_deref(), voter, scene);
    let error = checked.err().unwrap_or_else(|| unsupported("adding"));
    let response = AddRaftVoterResponse::default().with_error_code(error.code.code());
    Ok(encoded(header, &response.with_error_message(words(&error))))
}

pub(super) fn remove(header: &RequestHeader, body: &Bytes, scene: &Scene) -> Result<Work, CloseReason> {
    let request: RemoveRaftVoterRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let voter = (request.voter_id, request.voter_directory_id);
    let checked = check("Remove", request.cluster_id.as_deref(), voter, scene);
    let error = checked.err().unwrap_or_else(|| unsupported("removing"));
    let response = RemoveRaftVoterResponse::default().with_error_code(error.code.code());
    Ok(encoded(header, &response.with_error_message(words(&error))))
}

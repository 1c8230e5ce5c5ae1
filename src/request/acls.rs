//! DescribeAcls, CreateAcls and DeleteAcls without an authorizer: security is disabled, says Kafka. What
//! names a kind of thing that does not exist is malformed there and here.

use bytes::Bytes;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse,
};

use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// What an ACL or a filter is about, in Kafka's numbers; 1 is any.
struct About {
    resource_type: i8,
    pattern_type: i8,
    operation: i8,
    permission: i8,
}

impl About {
    fn is_known(&self) -> bool {
        (1..=7).contains(&self.resource_type)
            && (1..=4).contains(&self.pattern_type)
            && (1..=15).contains(&self.operation)
            && (1..=3).contains(&self.permission)
    }
}

fn all_known(mut abouts: impl Iterator<Item = About>) -> Result<(), CloseReason> {
    if abouts.all(|about| about.is_known()) { Ok(()) } else { Err(CloseReason::Malformed) }
}

pub(super) fn describe(header: &RequestHeader, body: &Bytes, _: &Scene) -> Result<Work, CloseReason> {
    let request: DescribeAclsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    all_known(std::iter::once(About {
        resource_type: request.resource_type_filter,
        pattern_type: request.pattern_type_filter,
        operation: request.operation,
        permission: request.permission_type,
    }))?;
    let words = StrBytes::from_static_str("No Authorizer is configured on the broker");
    let response = DescribeAclsResponse::default()
        .with_error_code(ErrorCode::SecurityDisabled.code())
        .with_error_message(Some(words));
    Ok(encoded(header, &response))
}

fn disabled() -> (i16, Option<StrBytes>) {
    let words = StrBytes::from_static_str("No Authorizer is configured.");
    (ErrorCode::SecurityDisabled.code(), Some(words))
}

pub(super) fn create(header: &RequestHeader, body: &Bytes, _: &Scene) -> Result<Work, CloseReason> {
    let request: CreateAclsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    all_known(request.creations.iter().map(|acl| About {
        resource_type: acl.resource_type,
        pattern_type: acl.resource_pattern_type,
        operation: acl.operation,
        permission: acl.permission_type,
    }))?;
    let (code, words) = disabled();
    let result = AclCreationResult::default().with_error_code(code).with_error_message(words);
    let results = request.creations.iter().map(|_| result.clone()).collect();
    Ok(encoded(header, &CreateAclsResponse::default().with_results(results)))
}

pub(super) fn delete(header: &RequestHeader, body: &Bytes, _: &Scene) -> Result<Work, CloseReason> {
    let request: DeleteAclsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    all_known(request.filters.iter().map(|filter| About {
        resource_type: filter.resource_type_filter,
        pattern_type: filter.pattern_type_filter,
        operation: filter.operation,
        permission: filter.permission_type,
    }))?;
    let (code, words) = disabled();
    let result = DeleteAclsFilterResult::default().with_error_code(code).with_error_message(words);
    let results = request.filters.iter().map(|_| result.clone()).collect();
    Ok(encoded(header, &DeleteAclsResponse::default().with_filter_results(results)))
}

//! DescribeUserScramCredentials: there are no users yet, so none has credentials.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use kafka_protocol::messages::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};

use super::{CloseReason, StrBytes, Work, encoded};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

pub(super) fn describe(header: &RequestHeader, body: &Bytes) -> Result<Work, CloseReason> {
    let request: DescribeUserScramCredentialsRequest =
        guard::decode(body, header.version, guard::Limits::default())?;
    let mut times: BTreeMap<StrBytes, usize> = BTreeMap::new();
    let mut users = Vec::new();
    for user in request.users.unwrap_or_default() {
        let seen = times.entry(user.name.clone()).or_default();
        *seen += 1;
        if *seen == 1 {
            users.push(user.name);
        }
    }
    let result = |user: StrBytes| {
        let (code, words) = if times.get(&user).is_some_and(|times| *times > 1) {
            let words = "Cannot describe SCRAM credentials for the same user twice in a single request";
            (ErrorCode::DuplicateResource, format!("{words}: {user}"))
        } else {
            let words = "Attempt to describe a user credential that does not exist";
            (ErrorCode::ResourceNotFound, format!("{words}: {user}"))
        };
        DescribeUserScramCredentialsResult::default()
            .with_user(user)
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(words)))
    };
    let results = users.into_iter().map(result).collect();
    let response = DescribeUserScramCredentialsResponse::default()
        .with_error_message(Some(StrBytes::default()))
        .with_results(results);
    Ok(encoded(header, &response))
}

//! DescribeClientQuotas and AlterClientQuotas: checked as Kafka checks them. Quotas are not enforced yet, so none
//! is taken: a quota that is kept and not enforced would be a promise that nobody keeps.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::alter_client_quotas_request::{EntryData, OpData};
use kafka_protocol::messages::alter_client_quotas_response::{EntityData, EntryData as EntryAnswer};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
};

use super::{CloseReason, StrBytes, Work, encoded};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// Kafka's numbers of how a filter matches.
const MATCH_EXACT: i8 = 0;
const MATCH_DEFAULT: i8 = 1;
const MATCH_ANY: i8 = 2;

const USER: &str = "user";
const CLIENT: &str = "client-id";
const IP: &str = "ip";

type Refusal = (ErrorCode, String);

pub(super) fn describe(header: &RequestHeader, body: &Bytes) -> Result<Work, CloseReason> {
    let request: DescribeClientQuotasRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let response = DescribeClientQuotasResponse::default();
    let response = match check_filter(&request.components) {
        Ok(()) => response.with_error_message(Some(StrBytes::default())).with_entries(Some(Vec::new())),
        Err((code, words)) => response
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(words)))
            .with_entries(None),
    };
    Ok(encoded(header, &response))
}

fn check_filter(components: &[ComponentData]) -> Result<(), Refusal> {
    let invalid = |words: String| Err((ErrorCode::InvalidRequest, words));
    let mut types = BTreeSet::new();
    for component in components {
        let entity_type = component.entity_type.as_str();
        match (component.match_type, &component._match) {
            (MATCH_EXACT, None) => {
                return invalid("Request specified MATCH_TYPE_EXACT, but set match string to null.".into());
            }
            (MATCH_DEFAULT, Some(_)) => {
                return invalid(
                    "Request specified MATCH_TYPE_DEFAULT, but also specified a match string.".into(),
                );
            }
            (MATCH_ANY, Some(_)) => {
                return invalid(
                    "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.".into(),
                );
            }
            (MATCH_EXACT | MATCH_DEFAULT | MATCH_ANY, _) => {}
            (other, _) => return invalid(format!("Unknown match type {other}")),
        }
        if entity_type.is_empty() {
            return invalid("Invalid empty entity type.".into());
        }
        if !matches!(entity_type, USER | CLIENT | IP) {
            return Err((ErrorCode::UnsupportedVersion, format!("Unsupported entity type {entity_type}")));
        }
        if !types.insert(entity_type) {
            return invalid(format!("Entity type {entity_type} cannot appear more than once in the filter."));
        }
    }
    if types.contains(IP) && types.len() > 1 {
        return invalid(
            "Invalid entity filter component combination. IP filter component should not be used with user or \
             clientId filter component."
                .into(),
        );
    }
    Ok(())
}

pub(super) fn alter(header: &RequestHeader, body: &Bytes) -> Result<Work, CloseReason> {
    let request: AlterClientQuotasRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let answered = |entry: EntryData| {
        let error = check_entry(&entry).err();
        let entity = entry.entity.into_iter().map(|part| {
            EntityData::default().with_entity_type(part.entity_type).with_entity_name(part.entity_name)
        });
        EntryAnswer::default()
            .with_error_code(error.as_ref().map_or(0, |(code, _)| code.code()))
            .with_error_message(error.map(|(_, words)| StrBytes::from_string(words)))
            .with_entity(entity.collect())
    };
    let entries = request.entries.into_iter().map(answered).collect();
    Ok(encoded(header, &AlterClientQuotasResponse::default().with_entries(entries)))
}

fn check_entry(entry: &EntryData) -> Result<(), Refusal> {
    let invalid = |words: String| Err((ErrorCode::InvalidRequest, words));
    if entry.entity.is_empty() {
        return invalid("Invalid empty client quota entity".into());
    }
    let mut types = BTreeSet::new();
    for part in &entry.entity {
        let entity_type = part.entity_type.as_str();
        if !matches!(entity_type, USER | CLIENT | IP) {
            return invalid(format!("Unhandled client quota entity type: {entity_type}"));
        }
        if part.entity_name.as_ref().is_some_and(|name| name.is_empty()) {
            return invalid(format!("Empty {entity_type} not supported"));
        }
        types.insert(entity_type);
    }
    if types.contains(IP) && types.len() > 1 {
        return invalid(
            "Invalid quota entity combination, IP entity should not be combined with User or ClientId".into(),
        );
    }
    for op in &entry.ops {
        check_op(op, types.contains(IP))?;
    }
    // To take away what is not there is nothing.
    if entry.ops.iter().all(|op| op.remove) {
        return Ok(());
    }
    let words = "Client quotas are not enforced by this broker yet, so none is stored.";
    Err((ErrorCode::UnsupportedVersion, words.into()))
}

fn check_op(op: &OpData, of_ip: bool) -> Result<(), Refusal> {
    let invalid = |words: String| Err((ErrorCode::InvalidRequest, words));
    let key = op.key.as_str();
    let is_whole = match (key, of_ip) {
        ("connection_creation_rate", true) => true,
        ("producer_byte_rate" | "consumer_byte_rate", false) => true,
        ("request_percentage" | "controller_mutation_rate", false) => false,
        _ => return invalid(format!("Invalid configuration key {key}")),
    };
    if op.remove {
        return Ok(());
    }
    if op.value <= 0.0 {
        return invalid(format!("Quota {key} must be greater than 0"));
    }
    if is_whole && (op.value - op.value.round()).abs() > 1e-6 {
        return invalid(format!("{key} cannot be a fractional value."));
    }
    Ok(())
}

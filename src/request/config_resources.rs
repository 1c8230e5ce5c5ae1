//! ListConfigResources: the resources that have, or may have, a configuration of their own.

use bytes::Bytes;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::configs::resource_types::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::ResourceType;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// Every type, in the order in which Kafka lists them.
const TYPES: [i8; 5] = [GROUP, CLIENT_METRICS, BROKER_LOGGER, BROKER, TOPIC];

pub(super) fn list(header: &RequestHeader, body: &Bytes, scene: &Scene) -> Result<Work, CloseReason> {
    let request: ListConfigResourcesRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let response = ListConfigResourcesResponse::default();
    if !request.resource_types.iter().all(|asked| TYPES.contains(asked)) {
        return Ok(encoded(header, &response.with_error_code(ErrorCode::UnsupportedVersion.code())));
    }
    // Version 0 knows client metrics only, and does not tell types.
    let is_asked = |one: &i8| match header.version {
        0 => *one == CLIENT_METRICS,
        _ => request.resource_types.is_empty() || request.resource_types.contains(one),
    };
    let of_type = |resource_type: i8| {
        names(resource_type, scene).into_iter().map(move |name| {
            ConfigResource::default().with_resource_name(name).with_resource_type(resource_type)
        })
    };
    let resources = TYPES.into_iter().filter(is_asked).flat_map(of_type).collect();
    Ok(encoded(header, &response.with_config_resources(resources)))
}

fn names(resource_type: i8, scene: &Scene) -> Vec<StrBytes> {
    let image = &scene.view.image;
    let text = |name: &str| StrBytes::from_string(name.to_string());
    match resource_type {
        GROUP => image.configured(ResourceType::Group).map(|name| text(name)).collect(),
        CLIENT_METRICS => image.configured(ResourceType::ClientMetrics).map(|name| text(name)).collect(),
        TOPIC => image.topics().map(|topic| text(&topic.name)).collect(),
        _ => image.brokers().map(|broker| text(&broker.node_id.to_string())).collect(),
    }
}

//! AlterConfigs and IncrementalAlterConfigs: what the request itself gets wrong is answered here, resource by
//! resource; the rest is one request to the controller. As Kafka's `ConfigAdminManager`, words included, with one
//! exception: an operation that does not exist is an invalid request for every kind of resource, where Kafka
//! calls it an unknown server error for some.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource as IncrementalResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::configs::resource_types;
use super::controlled::{Asked, Controlled};
use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::request::{ConfigChanges, ConfigOp};
use crate::controller::{ApiError, ControllerAnswer, ControllerRequest, ResourceType};
use crate::partition::ReplyTo;
use crate::wire::api::Listener;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// Kafka's numbers of what is done to a key (`AlterConfigOp.OpType`).
mod operations {
    pub const SET: i8 = 0;
    pub const DELETE: i8 = 1;
    pub const APPEND: i8 = 2;
    pub const SUBTRACT: i8 = 3;
}

/// The resources of a request, in its order.
#[derive(Debug)]
pub(super) struct Alter(Vec<Resource>);

#[derive(Debug)]
struct Resource {
    resource_type: i8,
    name: StrBytes,
    /// What became of it; `None` while the controller has it.
    result: Option<Result<(), ApiError>>,
}

/// One resource as either request asks.
struct Wanted {
    resource_type: i8,
    name: StrBytes,
    /// Key, operation, value.
    configs: Vec<(StrBytes, i8, Option<StrBytes>)>,
}

pub(super) fn alter(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: AlterConfigsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let wanted = |resource: AlterConfigsResource| Wanted {
        resource_type: resource.resource_type,
        name: resource.resource_name,
        configs: resource.configs.into_iter().map(|one| (one.name, operations::SET, one.value)).collect(),
    };
    let wanted = request.resources.into_iter().map(wanted).collect();
    Ok(start(header, wanted, request.validate_only, true, to, scene))
}

pub(super) fn alter_incrementally(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: IncrementalAlterConfigsRequest =
        guard::decode(body, header.version, guard::Limits::default())?;
    let wanted = |resource: IncrementalResource| Wanted {
        resource_type: resource.resource_type,
        name: resource.resource_name,
        configs: resource
            .configs
            .into_iter()
            .map(|one| (one.name, one.config_operation, one.value))
            .collect(),
    };
    let wanted = request.resources.into_iter().map(wanted).collect();
    Ok(start(header, wanted, request.validate_only, false, to, scene))
}

fn start(
    header: &RequestHeader,
    wanted: Vec<Wanted>,
    validate_only: bool,
    replace: bool,
    to: ReplyTo,
    scene: &mut Scene,
) -> Work {
    let mut times: BTreeMap<(i8, StrBytes), usize> = BTreeMap::new();
    for resource in &wanted {
        *times.entry((resource.resource_type, resource.name.clone())).or_default() += 1;
    }
    let (mut resources, mut asked) = (Vec::new(), Vec::new());
    for resource in wanted {
        let is_repeated = times.get(&(resource.resource_type, resource.name.clone())).is_some_and(|n| *n > 1);
        let checked = if is_repeated {
            invalid("Each resource must appear at most once.".into())
        } else {
            changes(&resource, replace, scene)
        };
        let result = match checked {
            Ok(Some(changes)) => {
                asked.push(changes);
                None
            }
            Ok(None) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        };
        resources.push(Resource { resource_type: resource.resource_type, name: resource.name, result });
    }
    let alter = Alter(resources);
    if asked.is_empty() {
        return alter.encode(header, replace, None);
    }
    scene.desk.controls.push((to, ControllerRequest::AlterConfigs { resources: asked, validate_only }));
    let asked = if replace { Asked::AlterConfigs(alter) } else { Asked::IncrementalAlterConfigs(alter) };
    Controlled::waiting(asked)
}

fn invalid<T>(message: String) -> Result<T, ApiError> {
    Err(ApiError { code: ErrorCode::InvalidRequest, message })
}

/// What the controller is to do; `None` if there is nothing to be done.
fn changes(resource: &Wanted, replace: bool, scene: &Scene) -> Result<Option<ConfigChanges>, ApiError> {
    let mut keys = BTreeSet::new();
    if !resource.configs.iter().all(|(key, _, _)| keys.insert(key)) {
        return invalid("Error due to duplicate config keys".into());
    }
    let is_null = |(_, operation, value): &&(StrBytes, i8, Option<StrBytes>)| {
        value.is_none() && *operation != operations::DELETE
    };
    let nulls: Vec<&str> = resource.configs.iter().filter(is_null).map(|(key, _, _)| key.as_str()).collect();
    if !nulls.is_empty() {
        return invalid(format!("Null value not supported for : {}", nulls.join(", ")));
    }
    let name = resource.name.as_str();
    let resource_type = match resource.resource_type {
        resource_types::TOPIC => ResourceType::Topic,
        resource_types::BROKER => {
            check_broker(name, scene)?;
            ResourceType::Broker
        }
        resource_types::CLIENT_METRICS => ResourceType::ClientMetrics,
        resource_types::GROUP => ResourceType::Group,
        resource_types::BROKER_LOGGER if !replace => return alter_loggers(resource, scene).map(|()| None),
        other => return invalid(format!("Unknown resource type {other}")),
    };
    let mut changes = Vec::new();
    for (key, operation, value) in &resource.configs {
        let value = || value.as_ref().map(ToString::to_string).unwrap_or_default();
        let op = match *operation {
            operations::SET => ConfigOp::Set(value()),
            operations::DELETE => ConfigOp::Delete,
            operations::APPEND => ConfigOp::Append(value()),
            operations::SUBTRACT => ConfigOp::Subtract(value()),
            other => return invalid(format!("Unknown operations type {other}")),
        };
        changes.push((key.to_string(), op));
    }
    Ok(Some(ConfigChanges { resource_type, name: name.to_string(), changes, replace }))
}

/// A broker changes its own values, and those of all brokers; a controller, which is asked by brokers, those of each.
fn check_broker(name: &str, scene: &Scene) -> Result<(), ApiError> {
    if name.is_empty() {
        return Ok(());
    }
    let expected = scene.node.config.node_id;
    let is_of_any = scene.node.door(scene.context.listener) == Listener::Controller;
    match name.parse::<i32>() {
        Err(_) => invalid(format!("Node id must be an integer, but it is: {name}")),
        Ok(id) if id != expected && !is_of_any => {
            invalid(format!("Unexpected broker id, expected {expected}, but received {name}"))
        }
        Ok(_) => Ok(()),
    }
}

/// There are no loggers whose level could be changed while the node runs.
fn alter_loggers(resource: &Wanted, scene: &Scene) -> Result<(), ApiError> {
    let (name, expected) = (resource.name.as_str(), scene.node.config.node_id);
    match name.parse::<i32>() {
        Err(_) => return invalid(format!("Node id must be an integer, but it is: {name}")),
        Ok(id) if id != expected => {
            return invalid(format!("Unexpected node id. Expected {expected}, but received {name}"));
        }
        Ok(_) => {}
    }
    if let Some((logger, operation, _)) = resource.configs.first() {
        let verb = match *operation {
            operations::SET | operations::DELETE => {
                let message = format!("Logger {logger} does not exist!");
                return Err(ApiError { code: ErrorCode::InvalidConfig, message });
            }
            operations::APPEND => "APPEND",
            operations::SUBTRACT => "SUBTRACT",
            other => return invalid(format!("Unknown operations type {other}")),
        };
        return invalid(format!("{verb} operation is not allowed for the BROKER_LOGGER resource"));
    }
    Ok(())
}

impl Alter {
    pub(super) fn encode(
        self,
        header: &RequestHeader,
        replace: bool,
        answer: Option<ControllerAnswer>,
    ) -> Work {
        let (mut results, refusal) = match answer {
            Some(ControllerAnswer::Configs(results)) => (results.into_iter(), None),
            Some(ControllerAnswer::Refused(code)) => (Vec::new().into_iter(), Some(code)),
            _ => (Vec::new().into_iter(), None),
        };
        // The controller answers in the order in which it was asked.
        let mut next = || match results.next() {
            Some((_, _, result)) => result,
            None => Err(ApiError {
                code: refusal.unwrap_or(ErrorCode::UnknownServerError),
                message: String::new(),
            }),
        };
        let answered: Vec<_> = self
            .0
            .into_iter()
            .map(|resource| {
                let error = resource.result.unwrap_or_else(&mut next).err();
                let code = error.as_ref().map_or(0, |error| error.code.code());
                let words = error.map(|error| error.message).filter(|words| !words.is_empty());
                (resource.resource_type, resource.name, code, words.map(StrBytes::from_string))
            })
            .collect();
        let answered = answered.into_iter();
        if replace {
            let responses = answered.map(|(resource_type, name, code, words)| {
                AlterConfigsResourceResponse::default()
                    .with_resource_type(resource_type)
                    .with_resource_name(name)
                    .with_error_code(code)
                    .with_error_message(words)
            });
            return encoded(header, &AlterConfigsResponse::default().with_responses(responses.collect()));
        }
        let responses = answered.map(|(resource_type, name, code, words)| {
            IncrementalResponse::default()
                .with_resource_type(resource_type)
                .with_resource_name(name)
                .with_error_code(code)
                .with_error_message(words)
        });
        encoded(header, &IncrementalAlterConfigsResponse::default().with_responses(responses.collect()))
    }
}

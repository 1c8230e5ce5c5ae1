//! AlterConfigs and IncrementalAlterConfigs: what a resource is configured to do is checked as a whole, with the
//! values that it keeps, as Kafka's ConfigurationControlManager and ControllerConfigurationValidator check it.
//!
//! Kafka checks a broker's values on that broker before they reach its controller, so they are refused as an
//! invalid request there and here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::image::{Image, ImageBuilder};
use super::record::{Record, ResourceType};
use super::request::{ApiError, ConfigChanges, ConfigOp};
use super::topics::{Checked, Rules, apply_all, check_topic_name, refuse};
use super::{elections, features};
use crate::config::keys::{Kind, broker_key, topic_key};
use crate::config::{
    Refusal, check_broker_configs, check_group_configs, check_metrics_configs, check_topic_configs,
};
use crate::wire::ErrorCode;

/// Bytes of one configuration value.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// Bytes of one configuration key or resource name.
const NAME_BYTES_MAX: usize = 32_767;

pub(super) fn alter(
    rules: &Rules<'_>,
    state: &mut ImageBuilder,
    resources: &[ConfigChanges],
    records: &mut Vec<Record>,
) -> Vec<(ResourceType, String, Checked<()>)> {
    let mut answers = Vec::new();
    for changes in resources {
        let result = alter_one(rules, state.image(), changes).map(|made| apply_all(state, &made, records));
        answers.push((changes.resource_type, changes.name.clone(), result));
    }
    answers
}

fn alter_one(rules: &Rules<'_>, image: &Image, changes: &ConfigChanges) -> Checked<Vec<Record>> {
    let (of, name) = (changes.resource_type, changes.name.as_str());
    if of.metadata_version_first() > image.metadata_version() {
        let words = "The cluster's metadata.version is too old for this; upgrade it with kafka-features.";
        return refuse(ErrorCode::UnsupportedVersion, words);
    }
    let before: BTreeMap<&str, &str> = image.config_overrides(of, name).collect();
    let mut altered: Vec<(&str, Option<String>)> = Vec::new();
    for (key, op) in &changes.changes {
        altered.push((key, after(of, key, before.get(key.as_str()).copied(), op)?));
    }
    let mut values = if changes.replace { BTreeMap::new() } else { before.clone() };
    for (key, value) in &altered {
        let _ = match value {
            Some(value) => values.insert(*key, value),
            None => values.remove(key),
        };
    }
    check(rules, image, changes, &values)?;
    check_eligible(image, changes, &before, &values)?;
    let resource: Arc<str> = Arc::from(name);
    let record = |key: &str, value: Option<&str>| Record::Config {
        resource_type: of,
        resource: Arc::clone(&resource),
        key: Arc::from(key),
        value: value.map(Arc::from),
    };
    let gone = before.keys().filter(|key| !values.contains_key(*key)).map(|key| record(key, None));
    let set = values.iter().filter(|(key, value)| before.get(*key) != Some(value));
    Ok(gone.chain(set.map(|(key, value)| record(key, Some(value)))).collect())
}

/// The value of a key after a change; `None` if it has none of its own.
fn after(of: ResourceType, key: &str, now: Option<&str>, op: &ConfigOp) -> Checked<Option<String>> {
    let (verb, given) = match op {
        ConfigOp::Set(value) => return Ok(Some(value.clone())),
        ConfigOp::Delete => return Ok(None),
        ConfigOp::Append(given) => ("append", given),
        ConfigOp::Subtract(given) => ("subtract", given),
    };
    let row = match of {
        ResourceType::Topic => topic_key(key).map(|row| (row.kind, row.default)),
        ResourceType::Broker => broker_key(key).map(|row| (row.kind, row.default)),
        ResourceType::ClientMetrics | ResourceType::Group => None,
    };
    let default = match (row, of) {
        (Some((Kind::List, default)), _) => default,
        (None, ResourceType::Broker) => {
            return refuse(ErrorCode::InvalidConfig, format!("Unknown config name: {key}"));
        }
        (Some(_), ResourceType::Broker) => {
            let words = format!("Config value {verb} is not allowed for config key: {key}");
            return refuse(ErrorCode::InvalidConfig, words);
        }
        _ => {
            let words = format!("Can't {} to key {key} because its type is not LIST.", verb.to_uppercase());
            return refuse(ErrorCode::InvalidConfig, words);
        }
    };
    let has = now.or(default).unwrap_or_default();
    let mut items: Vec<&str> = has.split(',').filter(|item| !item.is_empty()).collect();
    for item in given.split(',') {
        let place = items.iter().position(|has| *has == item);
        match (op, place) {
            (ConfigOp::Append(_), None) => items.push(item),
            (ConfigOp::Subtract(_), Some(place)) => drop(items.remove(place)),
            _ => {}
        }
    }
    Ok(Some(items.join(",")))
}

/// Whether a resource that is there may have these values.
fn check(
    rules: &Rules<'_>,
    image: &Image,
    changes: &ConfigChanges,
    values: &BTreeMap<&str, &str>,
) -> Checked<()> {
    let name = changes.name.as_str();
    check_lengths(name, values)?;
    match changes.resource_type {
        ResourceType::Topic => {
            if name.is_empty() {
                return refuse(ErrorCode::InvalidRequest, "Default topic resources are not allowed.");
            }
            check_topic_name(name)?;
            check_topic(rules, image, values)?;
            if image.topic(name).is_none() {
                let words = format!("The topic '{name}' does not exist.");
                return refuse(ErrorCode::UnknownTopicOrPartition, words);
            }
            Ok(())
        }
        ResourceType::Broker => {
            let known = image.brokers().any(|broker| broker.node_id.to_string() == name);
            if !name.is_empty() && !known {
                let words = format!("No broker with id {name} found.");
                return refuse(ErrorCode::BrokerIdNotRegistered, words);
            }
            let own = rules.node.node_id.to_string();
            let other = if name.is_empty() { own.as_str() } else { "" };
            let others = image.config_overrides(ResourceType::Broker, other).collect();
            check_broker_configs(rules.node, values, &others, !name.is_empty()).map_err(refused)
        }
        ResourceType::Group if name.is_empty() => {
            refuse(ErrorCode::InvalidRequest, "Default group resources are not allowed.")
        }
        ResourceType::Group => check_group_configs(rules.node, values).map_err(refused),
        ResourceType::ClientMetrics if name.is_empty() => {
            refuse(ErrorCode::InvalidRequest, "Subscription name can't be empty")
        }
        ResourceType::ClientMetrics => check_metrics_configs(values).map_err(refused),
    }
}

/// Whether a topic may have these values, on what nodes have by default now.
pub(super) fn check_topic(rules: &Rules<'_>, image: &Image, values: &BTreeMap<&str, &str>) -> Checked<()> {
    check_lengths("", values)?;
    let node = rules.node.with_dynamic(&image.dynamic_configs(rules.node.node_id));
    let pairs = values.iter().map(|(key, value)| (*key, *value));
    check_topic_configs(&node, pairs).map_err(|words| ApiError::new(ErrorCode::InvalidConfig, words))
}

/// With eligible leader replicas `min.insync.replicas` is of all brokers, and not of one.
fn check_eligible(
    image: &Image,
    changes: &ConfigChanges,
    before: &BTreeMap<&str, &str>,
    values: &BTreeMap<&str, &str>,
) -> Checked<()> {
    let is_on = image.feature(features::ELIGIBLE_LEADER_REPLICAS_VERSION) > 0;
    if !is_on || changes.resource_type != ResourceType::Broker {
        return Ok(());
    }
    let (had, has) = (before.contains_key(elections::MIN_ISR), values.contains_key(elections::MIN_ISR));
    if !changes.name.is_empty() && has {
        let words = "Broker-level min.insync.replicas cannot be altered while ELR is enabled.";
        return refuse(ErrorCode::InvalidConfig, words);
    }
    if changes.name.is_empty() && had && !has {
        let words = "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.";
        return refuse(ErrorCode::InvalidConfig, words);
    }
    Ok(())
}

fn check_lengths(name: &str, values: &BTreeMap<&str, &str>) -> Checked<()> {
    let too_long = |(key, value): (&&str, &&str)| key.len() > NAME_BYTES_MAX || value.len() > VALUE_BYTES_MAX;
    if name.len() > NAME_BYTES_MAX || values.iter().any(too_long) {
        return refuse(ErrorCode::InvalidConfig, "The configuration key or value is too long.");
    }
    Ok(())
}

fn refused(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::Request(words) => ApiError::new(ErrorCode::InvalidRequest, words),
        Refusal::Config(words) => ApiError::new(ErrorCode::InvalidConfig, words),
    }
}

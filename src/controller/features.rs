//! The features that this build knows, and UpdateFeatures: as Kafka's FeatureControlManager answers it.
//!
//! A feature is here only when what it gates is served. `metadata.version` is told in Kafka's levels: what one of our
//! metadata versions may hold is what Kafka's metadata of that level holds of what we have. It goes up and never
//! down. `kraft.version` 0 is a quorum with fixed voters, which ours is.

use super::elections;
use super::image::{Image, ImageBuilder};
use super::record::{METADATA_VERSION_CLUSTER, METADATA_VERSION_LATEST, Record, ResourceType};
use super::request::{ApiError, FeatureUpdate};
use super::topics::apply_all;
use crate::config::NodeConfig;
use crate::wire::ErrorCode;
use crate::wire::api;

/// Kafka's name of the version of the metadata's records.
pub const METADATA_VERSION: &str = "metadata.version";
/// Kafka's name of the version of the quorum's own protocol.
pub const KRAFT_VERSION: &str = "kraft.version";
/// Kafka's name of the version of the group coordinator's protocols; 1 is the consumer protocol.
pub const GROUP_VERSION: &str = "group.version";
/// Kafka's name of the feature of eligible leader replicas (KIP-966).
pub const ELIGIBLE_LEADER_REPLICAS_VERSION: &str = "eligible.leader.replicas.version";

/// Level of `metadata.version` for our metadata version 1 (4.2-IV0); each version is one level.
const METADATA_LEVEL_FIRST: i16 = 28;
/// The oldest level that Kafka 4.3 still knows (3.3-IV3).
const METADATA_LEVEL_OLDEST: i16 = 7;
/// API key of ConsumerGroupHeartbeat.
const CONSUMER_GROUP_HEARTBEAT: i16 = 68;

/// A feature that this build knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// The lowest level.
    pub level_least: i16,
    /// The highest level.
    pub level_most: i16,
}

/// The features that this build knows, by name.
pub fn supported() -> Vec<Feature> {
    let eligible = Feature { name: ELIGIBLE_LEADER_REPLICAS_VERSION, level_least: 0, level_most: 1 };
    let mut features = vec![eligible];
    if api::find(CONSUMER_GROUP_HEARTBEAT).is_some() {
        features.push(Feature { name: GROUP_VERSION, level_least: 0, level_most: 1 });
    }
    features.push(Feature { name: KRAFT_VERSION, level_least: 0, level_most: 0 });
    features.push(Feature {
        name: METADATA_VERSION,
        level_least: METADATA_LEVEL_OLDEST,
        level_most: metadata_level(METADATA_VERSION_LATEST),
    });
    features
}

/// What a new cluster with so many controllers begins with: every feature at its highest level. With one controller
/// there may be one broker only, and nothing to be eligible for; `min.insync.replicas` stays with each broker.
pub(super) fn of_new_cluster(node: &NodeConfig, controllers: usize) -> Vec<Record> {
    let is_elected = |feature: &Feature| feature.name == ELIGIBLE_LEADER_REPLICAS_VERSION;
    let begins = |feature: &Feature| {
        feature.name != METADATA_VERSION
            && feature.level_most > 0
            && (controllers > 1 || !is_elected(feature))
    };
    let stored = supported().into_iter().filter(begins);
    let level = |feature: Feature| Record::Feature { name: feature.name.into(), level: feature.level_most };
    let mut records: Vec<_> = stored.map(level).collect();
    if controllers > 1 {
        records.extend(one_min_isr(node, &Image::default()));
    }
    records
}

/// The features that the metadata has finalized above level 0, and their levels, by name.
pub fn finalized(image: &Image) -> Vec<(String, i16)> {
    let mut levels: Vec<_> = image.features().map(|(name, level)| (name.to_owned(), level)).collect();
    if image.metadata_version() > 0 {
        levels.push((METADATA_VERSION.to_owned(), metadata_level(image.metadata_version())));
    }
    levels.sort();
    levels
}

/// Kafka's release of the metadata that a new cluster begins with.
pub fn release() -> &'static str {
    match metadata_level(METADATA_VERSION_LATEST) {
        ..=29 => "4.2-IV1",
        30 => "4.3-IV0",
        _ => "4.4-IV0",
    }
}

/// Kafka's level of one of our metadata versions.
fn metadata_level(version: u16) -> i16 {
    METADATA_LEVEL_FIRST + i16::try_from(version.saturating_sub(1)).unwrap_or_default()
}

/// Checks every update and makes their records; the first one that fails refuses all.
pub(super) fn update(
    node: &NodeConfig,
    state: &mut ImageBuilder,
    updates: &[FeatureUpdate],
    records: &mut Vec<Record>,
) -> Result<(), ApiError> {
    for update in updates {
        let made = update_one(node.node_id, state.image(), update).map_err(|why| {
            let words =
                format!("The update failed for all features since the following feature had an error: {why}");
            ApiError::new(ErrorCode::InvalidUpdateVersion, words)
        })?;
        apply_all(state, &Vec::from_iter(made), records);
        if update.name == ELIGIBLE_LEADER_REPLICAS_VERSION {
            after_eligible(node, state, records);
        }
    }
    Ok(())
}

/// With eligible leader replicas every broker and the controller have to mean the same by `min.insync.replicas`: it
/// becomes a value of all brokers, and no broker has its own. Without them nobody stays eligible.
fn after_eligible(node: &NodeConfig, state: &mut ImageBuilder, records: &mut Vec<Record>) {
    let image = state.image();
    if image.feature(ELIGIBLE_LEADER_REPLICAS_VERSION) == 0 {
        return elections::forget_eligible(state, records);
    }
    apply_all(state, &one_min_isr(node, image), records);
}

/// The records that make `min.insync.replicas` a value of all brokers alone.
fn one_min_isr(node: &NodeConfig, image: &Image) -> Vec<Record> {
    let record = |resource: &str, value: Option<String>| Record::Config {
        resource_type: ResourceType::Broker,
        resource: resource.into(),
        key: elections::MIN_ISR.into(),
        value: value.map(Into::into),
    };
    let given = |name: &str| image.config(ResourceType::Broker, name, elections::MIN_ISR).is_some();
    let of_all = (!given("")).then(|| record("", Some(node.topic_defaults.min_insync_replicas.to_string())));
    let own = image.configured(ResourceType::Broker).filter(|name| !name.is_empty() && given(name));
    of_all.into_iter().chain(own.map(|name| record(name, None))).collect()
}

fn update_one(node_id: i32, image: &Image, update: &FeatureUpdate) -> Result<Option<Record>, String> {
    let FeatureUpdate { name, level, upgrade_type } = update;
    let invalid = |why: &str| Err(format!("Invalid update version {level} for feature {name}. {why}"));
    if !(1..=3).contains(upgrade_type) {
        return invalid("The controller does not support the given upgrade type.");
    }
    if *level < 0 {
        return invalid("A feature version cannot be less than 0.");
    }
    let Some(known) = supported().into_iter().find(|feature| feature.name == name) else {
        return match level {
            0 => invalid(&format!("Feature {name} not found.")),
            _ => invalid(&format!("Local controller {node_id} does not support this feature.")),
        };
    };
    let (least, most) = (known.level_least, known.level_most);
    if !(least..=most).contains(level) {
        return invalid(&format!("Local controller {node_id} only supports versions {least}-{most}"));
    }
    let levels = finalized(image);
    let now = levels.iter().find(|(feature, _)| feature == name).map_or(0, |(_, level)| *level);
    if *level == now {
        return Ok(None);
    }
    if *level < now && *upgrade_type == 1 {
        return invalid(
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or \
             unsafe downgrade.",
        );
    }
    if name == ELIGIBLE_LEADER_REPLICAS_VERSION && image.metadata_version() < METADATA_VERSION_CLUSTER {
        let needed = metadata_level(METADATA_VERSION_CLUSTER);
        let why = format!("because it depends on metadata.version level {needed}");
        return Err(format!("{name} could not be set to {level} {why}"));
    }
    if name != METADATA_VERSION {
        return Ok(Some(Record::Feature { name: name.as_str().into(), level: *level }));
    }
    if *level < now {
        let why = match upgrade_type {
            3 => "Unsafe metadata downgrade is not supported in this version.",
            _ => "Refusing to perform the requested downgrade because it might delete metadata information.",
        };
        return Err(format!("Unsupported metadata.version downgrade from {now} to {level}. {why}"));
    }
    let version = u16::try_from(level - METADATA_LEVEL_FIRST + 1).unwrap_or_default();
    Ok(Some(Record::MetadataVersion { version }))
}

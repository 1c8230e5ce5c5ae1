//! The features that this build knows, and UpdateFeatures: as Kafka's FeatureControlManager answers it.
//!
//! A feature is here only when what it gates is served. `metadata.version` is told in Kafka's levels: what one of our
//! metadata versions may hold is what Kafka's metadata of that level holds of what we have. It goes up and never
//! down. `kraft.version` 0 is a quorum with fixed voters, which ours is.

use super::image::{Image, ImageBuilder};
use super::record::{METADATA_VERSION_LATEST, Record};
use super::request::{ApiError, FeatureUpdate};
use super::topics::apply_all;
use crate::wire::ErrorCode;
use crate::wire::api;

/// Kafka's name of the version of the metadata's records.
pub const METADATA_VERSION: &str = "metadata.version";
/// Kafka's name of the version of the quorum's own protocol.
pub const KRAFT_VERSION: &str = "kraft.version";
/// Kafka's name of the version of the group coordinator's protocols; 1 is the consumer protocol.
pub const GROUP_VERSION: &str = "group.version";

/// Level of `metadata.version` for our metadata version 1 (4.2-IV1); each version is one level.
const METADATA_LEVEL_FIRST: i16 = 29;
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
    let mut features = Vec::new();
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

/// What a new cluster begins with: every feature at its highest level.
pub(super) fn of_new_cluster() -> impl Iterator<Item = Record> {
    let stored =
        supported().into_iter().filter(|feature| feature.name != METADATA_VERSION && feature.level_most > 0);
    stored.map(|feature| Record::Feature { name: feature.name.into(), level: feature.level_most })
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

/// Kafka's level of one of our metadata versions.
fn metadata_level(version: u16) -> i16 {
    METADATA_LEVEL_FIRST + i16::try_from(version.saturating_sub(1)).unwrap_or_default()
}

/// Checks every update and makes their records; the first one that fails refuses all.
pub(super) fn update(
    node_id: i32,
    state: &mut ImageBuilder,
    updates: &[FeatureUpdate],
    records: &mut Vec<Record>,
) -> Result<(), ApiError> {
    for update in updates {
        let made = update_one(node_id, state.image(), update).map_err(|why| {
            let words =
                format!("The update failed for all features since the following feature had an error: {why}");
            ApiError::new(ErrorCode::InvalidUpdateVersion, words)
        })?;
        apply_all(state, &Vec::from_iter(made), records);
    }
    Ok(())
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

//! The metadata of a cluster at a version is the same wherever it is shown.
//!
//! One Image is shown by nobody but those who go to a snapshot: where a topic in it has the name of one that they still
//! have, that one goes first, with an Image of its own at the version that they had. It is that version's without
//! topics that are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill::controller::Image;

/// Versions that are remembered: nobody is further behind for long.
const VERSIONS_KEPT: usize = 512;

/// The metadata at each version that anybody published.
#[derive(Debug, Default)]
pub struct Images {
    by_version: BTreeMap<u64, Arc<Image>>,
}

impl Images {
    /// Somebody shows the metadata at its version.
    pub fn saw(&mut self, image: &Arc<Image>) -> Result<(), String> {
        let version = image.version();
        let Some(known) = self.by_version.get(&version) else {
            self.by_version.insert(version, Arc::clone(image));
            if self.by_version.len() > VERSIONS_KEPT {
                self.by_version.pop_first();
            }
            return Ok(());
        };
        let newest = self.by_version.values().next_back();
        if known == image || newest.is_some_and(|newest| is_between(known, image, newest)) {
            return Ok(());
        }
        Err(format!("two images of version {version}: {known:?} and {image:?}"))
    }
}

/// Whether one of two is the other without topics that the newest has no more.
fn is_between(one: &Image, other: &Image, newest: &Image) -> bool {
    let (less, more) = if one.topic_count() < other.topic_count() { (one, other) } else { (other, one) };
    let is_kept = less.topics().all(|topic| more.topic_by_id(topic.id) == Some(topic));
    let mut gone = more.topics().filter(|topic| less.topic_by_id(topic.id).is_none());
    let keys = |image: &Image, name: &str| -> Vec<(String, String)> {
        let own = image.topic_config_overrides(name);
        own.map(|(key, value)| (key.to_string(), value.to_string())).collect()
    };
    is_kept
        && gone.all(|topic| newest.topic_by_id(topic.id).is_none())
        && less.topics().all(|topic| keys(less, &topic.name) == keys(more, &topic.name))
        && less.brokers().eq(more.brokers())
        && less.quorum() == more.quorum()
        && less.features().eq(more.features())
        && less.producer_id_next() == more.producer_id_next()
}

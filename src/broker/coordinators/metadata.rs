//! What coordinators are told of the cluster: its topics, and what groups have configured of their own.
//!
//! Each coordinator is told when it begins to lead, and whenever something has changed that groups can see.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::group_number;
use crate::controller::record::ResourceType;
use crate::group::Input;
use crate::group::consumer::GroupOverrides;
use crate::group::consumer::topics::Topics;
use crate::request::ClusterView;

const SESSION_TIMEOUT: &str = "consumer.session.timeout.ms";
const HEARTBEAT_INTERVAL: &str = "consumer.heartbeat.interval.ms";

type Overrides = BTreeMap<Arc<str>, GroupOverrides>;

/// What the coordinators of a shard know.
#[derive(Default)]
pub(super) struct Metadata {
    topics: Arc<Topics>,
    overrides: Arc<Overrides>,
}

impl Metadata {
    /// Takes a new view; what coordinators have to be told of it.
    pub(super) fn take(&mut self, view: &ClusterView) -> Vec<Input> {
        let mut news = Vec::new();
        let topics = view.removed.iter().chain(view.changed.iter()).map(|id| {
            let topic = view.image.topic_by_id(*id);
            let partitions = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
            (*id, topic.map(|topic| (topic.name.clone(), partitions(topic.partitions.len()))))
        });
        let version = i64::try_from(view.version).unwrap_or(i64::MAX);
        if let Some(topics) = self.topics.changed(version, topics) {
            self.topics = Arc::new(topics);
            news.push(Input::Topics(Arc::clone(&self.topics)));
        }
        let overrides = overrides(view);
        if overrides != *self.overrides {
            self.overrides = Arc::new(overrides);
            news.push(Input::Overrides(Arc::clone(&self.overrides)));
        }
        news
    }

    /// All there is to tell.
    pub(super) fn known(&self) -> [Input; 2] {
        [Input::Topics(Arc::clone(&self.topics)), Input::Overrides(Arc::clone(&self.overrides))]
    }
}

fn overrides(view: &ClusterView) -> Overrides {
    let groups = view.image.configured(ResourceType::Group).map(|group| {
        let values: BTreeMap<&str, &str> = view.image.config_overrides(ResourceType::Group, group).collect();
        let own = |key: &str| {
            let number = values.contains_key(key).then(|| group_number(&view.config, &values, key))?;
            i32::try_from(number).ok()
        };
        let of_group = GroupOverrides {
            session_timeout_ms: own(SESSION_TIMEOUT),
            heartbeat_interval_ms: own(HEARTBEAT_INTERVAL),
        };
        (Arc::clone(group), of_group)
    });
    groups.collect()
}

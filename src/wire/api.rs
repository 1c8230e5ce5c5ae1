//! The API table: everything the broker knows about an API before it reads a request's body.
//!
//! ApiVersions is answered from it, connections order requests by it, and `docs/PROTOCOL.md` is
//! generated from it. A version stands here only when its meaning is implemented.

use std::fmt::Write as _;

/// The APIs that are served, by their Kafka number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum ApiKey {
    /// Appends record batches.
    Produce = 0,
    /// Reads record batches.
    Fetch = 1,
    /// Finds offsets by timestamp.
    ListOffsets = 2,
    /// Describes brokers, topics and partitions.
    Metadata = 3,
    /// Finds the coordinator of a group or a transactional id.
    FindCoordinator = 10,
    /// Tells which APIs and versions are served.
    ApiVersions = 18,
    /// Creates topics.
    CreateTopics = 19,
    /// Deletes topics.
    DeleteTopics = 20,
    /// Moves the log start of partitions.
    DeleteRecords = 21,
    /// Gives out a producer id and epoch.
    InitProducerId = 22,
    /// Tells where a leader epoch ended.
    OffsetForLeaderEpoch = 23,
    /// Tells the configuration of topics and brokers.
    DescribeConfigs = 32,
    /// Moves replicas between log directories.
    AlterReplicaLogDirs = 34,
    /// Tells what is in the log directories.
    DescribeLogDirs = 35,
    /// Adds partitions to topics.
    CreatePartitions = 37,
    /// Describes the cluster and its brokers.
    DescribeCluster = 60,
    /// Tells who produces to partitions.
    DescribeProducers = 61,
    /// Describes topics, page by page.
    DescribeTopicPartitions = 75,
}

/// Who is at the other end of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Clients and tools.
    Client,
    /// Other brokers.
    Broker,
    /// Controllers, and brokers that call a controller.
    Controller,
}

/// The listeners that may call an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// Listeners of clients.
    pub client: bool,
    /// Listeners of other brokers.
    pub broker: bool,
    /// Listeners of the controller.
    pub controller: bool,
}

impl Listeners {
    /// Whether a listener is among them.
    pub fn admit(self, listener: Listener) -> bool {
        match listener {
            Listener::Client => self.client,
            Listener::Broker => self.broker,
            Listener::Controller => self.controller,
        }
    }
}

/// The operation that a principal needs, and on what; finer checks are the handler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclOperation {
    /// Nothing.
    None,
    /// READ on each topic.
    TopicRead,
    /// WRITE on each topic.
    TopicWrite,
    /// DESCRIBE on each topic.
    TopicDescribe,
    /// CREATE on the cluster or on each topic.
    TopicCreate,
    /// DELETE on each topic.
    TopicDelete,
    /// ALTER on the cluster.
    ClusterAlter,
    /// DESCRIBE on the cluster.
    ClusterDescribe,
    /// ALTER on each topic.
    TopicAlter,
    /// DESCRIBE_CONFIGS on each topic, or on the cluster for what is not a topic's.
    DescribeConfigs,
    /// WRITE on the transactional id, or IDEMPOTENT_WRITE on the cluster without one.
    ProducerWrite,
}

/// Where a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// On the connection's shard, from its Image.
    Local,
    /// By the shards that own the partitions named.
    Partitions,
    /// By the partition of the coordinator.
    Coordinator,
    /// By the controller shard.
    Controller,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Api {
    /// Key.
    pub key: ApiKey,
    /// Kafka's name.
    pub name: &'static str,
    /// First version that is answered.
    pub version_first: i16,
    /// Last version that is answered and advertised.
    pub version_last: i16,
    /// First version that is advertised; lower than the first answered only for Produce.
    pub advertised_first: i16,
    /// First version with compact lengths and tagged fields.
    pub flexible_first: i16,
    /// Listeners that may call it.
    pub listeners: Listeners,
    /// What its caller must be allowed to do.
    pub acl: AclOperation,
    /// Where it is answered.
    pub route: Route,
    /// Whether it starts only when all earlier requests of its connection are answered.
    pub barrier: bool,
    /// Frames above this are refused; `socket.request.max.bytes` applies besides.
    pub frame_limit_bytes: u32,
}

const EVERY_LISTENER: Listeners = Listeners { client: true, broker: true, controller: true };
const BROKER_LISTENERS: Listeners = Listeners { client: true, broker: true, controller: false };

/// No limit but `socket.request.max.bytes`: records have their own, and views take no memory.
const FRAME_UNLIMITED: u32 = i32::MAX as u32;
/// Lists of topics and partitions: 100,000 partitions of ListOffsets are 2 MB.
const FRAME_LIST: u32 = 4 * 1024 * 1024;
/// A handful of names.
const FRAME_SMALL: u32 = 64 * 1024;

/// The table, by key.
pub static TABLE: [Api; 18] = [
    Api {
        key: ApiKey::Produce,
        name: "Produce",
        version_first: 3,
        version_last: 13,
        // librdkafka compresses only if the range starts at 0 (KAFKA-18659).
        advertised_first: 0,
        flexible_first: 9,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::TopicWrite,
        route: Route::Partitions,
        barrier: false,
        frame_limit_bytes: FRAME_UNLIMITED,
    },
    Api {
        key: ApiKey::Fetch,
        name: "Fetch",
        version_first: 4,
        version_last: 18,
        advertised_first: 4,
        flexible_first: 12,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::TopicRead,
        route: Route::Partitions,
        barrier: false,
        frame_limit_bytes: FRAME_UNLIMITED,
    },
    Api {
        key: ApiKey::ListOffsets,
        name: "ListOffsets",
        version_first: 1,
        version_last: 10,
        advertised_first: 1,
        flexible_first: 6,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::TopicDescribe,
        route: Route::Partitions,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        key: ApiKey::Metadata,
        name: "Metadata",
        version_first: 0,
        version_last: 13,
        advertised_first: 0,
        flexible_first: 9,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::TopicDescribe,
        route: Route::Local,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        // Every answer is an error until there are coordinators; librdkafka compresses with LZ4 only
        // where this API is there.
        key: ApiKey::FindCoordinator,
        name: "FindCoordinator",
        version_first: 0,
        version_last: 6,
        advertised_first: 0,
        flexible_first: 3,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::None,
        route: Route::Local,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        key: ApiKey::ApiVersions,
        name: "ApiVersions",
        version_first: 0,
        version_last: 4,
        advertised_first: 0,
        flexible_first: 3,
        listeners: EVERY_LISTENER,
        acl: AclOperation::None,
        route: Route::Local,
        barrier: true,
        frame_limit_bytes: FRAME_SMALL,
    },
    Api {
        key: ApiKey::CreateTopics,
        name: "CreateTopics",
        version_first: 2,
        version_last: 7,
        advertised_first: 2,
        flexible_first: 5,
        listeners: EVERY_LISTENER,
        acl: AclOperation::TopicCreate,
        route: Route::Controller,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        key: ApiKey::DeleteTopics,
        name: "DeleteTopics",
        version_first: 1,
        version_last: 6,
        advertised_first: 1,
        flexible_first: 4,
        listeners: EVERY_LISTENER,
        acl: AclOperation::TopicDelete,
        route: Route::Controller,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        key: ApiKey::DeleteRecords,
        name: "DeleteRecords",
        version_first: 0,
        version_last: 2,
        advertised_first: 0,
        flexible_first: 2,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::TopicDelete,
        route: Route::Partitions,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        key: ApiKey::InitProducerId,
        name: "InitProducerId",
        version_first: 0,
        version_last: 5,
        advertised_first: 0,
        flexible_first: 2,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::ProducerWrite,
        route: Route::Coordinator,
        barrier: true,
        frame_limit_bytes: FRAME_SMALL,
    },
    Api {
        key: ApiKey::OffsetForLeaderEpoch,
        name: "OffsetForLeaderEpoch",
        version_first: 2,
        version_last: 4,
        advertised_first: 2,
        flexible_first: 4,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::TopicDescribe,
        route: Route::Partitions,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        key: ApiKey::DescribeConfigs,
        name: "DescribeConfigs",
        version_first: 1,
        version_last: 4,
        advertised_first: 1,
        flexible_first: 4,
        listeners: EVERY_LISTENER,
        acl: AclOperation::DescribeConfigs,
        route: Route::Local,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        key: ApiKey::AlterReplicaLogDirs,
        name: "AlterReplicaLogDirs",
        version_first: 1,
        version_last: 2,
        advertised_first: 1,
        flexible_first: 2,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::ClusterAlter,
        route: Route::Local,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        key: ApiKey::DescribeLogDirs,
        name: "DescribeLogDirs",
        version_first: 1,
        version_last: 4,
        advertised_first: 1,
        flexible_first: 2,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::ClusterDescribe,
        route: Route::Partitions,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        key: ApiKey::CreatePartitions,
        name: "CreatePartitions",
        version_first: 0,
        version_last: 3,
        advertised_first: 0,
        flexible_first: 2,
        listeners: EVERY_LISTENER,
        acl: AclOperation::TopicAlter,
        route: Route::Controller,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        // Kafka answers it on a controller's listener too, with the controllers.
        key: ApiKey::DescribeCluster,
        name: "DescribeCluster",
        version_first: 0,
        version_last: 2,
        advertised_first: 0,
        flexible_first: 0,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::None,
        route: Route::Local,
        barrier: true,
        frame_limit_bytes: FRAME_SMALL,
    },
    Api {
        key: ApiKey::DescribeProducers,
        name: "DescribeProducers",
        version_first: 0,
        version_last: 0,
        advertised_first: 0,
        flexible_first: 0,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::TopicRead,
        route: Route::Partitions,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
    Api {
        key: ApiKey::DescribeTopicPartitions,
        name: "DescribeTopicPartitions",
        version_first: 0,
        version_last: 0,
        advertised_first: 0,
        flexible_first: 0,
        listeners: BROKER_LISTENERS,
        acl: AclOperation::TopicDescribe,
        route: Route::Local,
        barrier: true,
        frame_limit_bytes: FRAME_LIST,
    },
];

/// The row of a key.
pub fn find(key: i16) -> Option<&'static Api> {
    let row = TABLE.binary_search_by_key(&key, |api| api.key as i16).ok()?;
    TABLE.get(row)
}

impl ApiKey {
    /// Its row.
    pub fn api(self) -> &'static Api {
        find(self as i16).expect("every key has a row")
    }
}

impl Api {
    /// Whether a version is answered.
    pub fn serves(&self, version: i16) -> bool {
        (self.version_first..=self.version_last).contains(&version)
    }

    /// Whether a version has compact lengths and tagged fields.
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_first
    }
}

/// The table as Markdown, for `docs/PROTOCOL.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "| key | API | versions | advertised | flexible from | listeners | needs | answered by | order | frame limit |\n\
         |--:|---|---|---|--:|---|---|---|---|---|\n",
    );
    for api in &TABLE {
        let listeners = [
            (api.listeners.client, "client"),
            (api.listeners.broker, "broker"),
            (api.listeners.controller, "controller"),
        ];
        let listeners: Vec<_> =
            listeners.iter().filter(|(admitted, _)| *admitted).map(|(_, name)| *name).collect();
        let limit = match api.frame_limit_bytes {
            FRAME_UNLIMITED => "`socket.request.max.bytes`".to_owned(),
            bytes => format!("{} KiB", bytes / 1024),
        };
        writeln!(
            text,
            "| {} | {} | {}–{} | {}–{} | {} | {} | {} | {} | {} | {limit} |",
            api.key as i16,
            api.name,
            api.version_first,
            api.version_last,
            api.advertised_first,
            api.version_last,
            api.flexible_first,
            listeners.join(", "),
            api.acl.text(),
            api.route.text(),
            if api.barrier { "barrier" } else { "overlaps" },
        )
        .expect("writing to a string cannot fail");
    }
    text
}

impl AclOperation {
    fn text(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::TopicRead => "READ on topic",
            Self::TopicWrite => "WRITE on topic",
            Self::TopicDescribe => "DESCRIBE on topic",
            Self::TopicCreate => "CREATE on cluster or topic",
            Self::TopicDelete => "DELETE on topic",
            Self::ClusterAlter => "ALTER on cluster",
            Self::ClusterDescribe => "DESCRIBE on cluster",
            Self::TopicAlter => "ALTER on topic",
            Self::DescribeConfigs => "DESCRIBE_CONFIGS on topic or cluster",
            Self::ProducerWrite => "WRITE on transactional id, or IDEMPOTENT_WRITE on cluster",
        }
    }
}

impl Route {
    fn text(self) -> &'static str {
        match self {
            Self::Local => "connection's shard",
            Self::Partitions => "partitions' shards",
            Self::Coordinator => "coordinator",
            Self::Controller => "controller",
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages;

    use super::*;

    #[test]
    fn the_table_agrees_with_the_library_on_names_ranges_and_flexible_versions() {
        assert!(TABLE.is_sorted_by_key(|api| api.key));
        for api in &TABLE {
            let library = messages::ApiKey::try_from(api.key as i16).unwrap();
            assert_eq!(format!("{library:?}"), api.name);
            let range = library.valid_versions();
            assert!(range.min <= api.version_first, "{}", api.name);
            assert!(range.max >= api.version_last, "{}", api.name);
            for version in api.version_first..=api.version_last {
                let flexible = library.request_header_version(version) == 2;
                assert_eq!(api.is_flexible(version), flexible, "{} v{version}", api.name);
                let expected = if flexible && api.key != ApiKey::ApiVersions { 1 } else { 0 };
                assert_eq!(library.response_header_version(version), expected);
            }
        }
    }

    #[test]
    fn only_produce_and_fetch_overlap() {
        for api in &TABLE {
            assert_eq!(api.barrier, !matches!(api.key, ApiKey::Produce | ApiKey::Fetch), "{}", api.name);
            assert_eq!(api.key.api(), api);
        }
        assert_eq!(find(4), None);
    }
}

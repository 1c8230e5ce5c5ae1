//! The API table as a document.

use std::fmt::Write as _;

use super::api::{AclOperation, FRAME_UNLIMITED, Route, TABLE};

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
        let advertised = match api.is_private() {
            true => "never".to_owned(),
            false => format!("{}–{}", api.advertised_first, api.version_last),
        };
        writeln!(
            text,
            "| {} | {} | {}–{} | {advertised} | {} | {} | {} | {} | {} | {limit} |",
            api.key as i16,
            api.name,
            api.version_first,
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
            Self::GroupRead => "READ on group",
            Self::GroupDescribe => "DESCRIBE on group",
            Self::GroupDelete => "DELETE on group",
            Self::TopicRead => "READ on topic",
            Self::TopicWrite => "WRITE on topic",
            Self::TopicDescribe => "DESCRIBE on topic",
            Self::TopicCreate => "CREATE on cluster or topic",
            Self::TopicDelete => "DELETE on topic",
            Self::TopicAlter => "ALTER on topic",
            Self::DescribeConfigs => "DESCRIBE_CONFIGS on topic or cluster",
            Self::AlterConfigs => "ALTER_CONFIGS on topic, group or cluster",
            Self::ClusterDescribe => "DESCRIBE on cluster",
            Self::ClusterAlter => "ALTER on cluster",
            Self::ClusterAction => "CLUSTER_ACTION on cluster",
            Self::ClusterDescribeConfigs => "DESCRIBE_CONFIGS on cluster",
            Self::ClusterAlterConfigs => "ALTER_CONFIGS on cluster",
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

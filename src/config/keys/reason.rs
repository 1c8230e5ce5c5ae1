//! Why keys are ignored or refused, one sentence for each family of keys.

use super::Tier::{self, Refused};

pub(super) const SHARDS: &str = "shards take the place of thread pools (shard.count, shard.cpus)";
pub(super) const JVM: &str = "it tunes or extends the Java process";
pub(super) const JMX: &str = "there is no JMX";
pub(super) const QUORUM: &str = "the metadata quorum and the calls between nodes keep their own times";
pub(super) const OWN_PACE: &str = "the broker keeps its own pace here";
pub(super) const ORDER: &str = "controllers' listeners open at once, all others when the node is ready";
pub(super) const ZOOKEEPER: &str = "there is no ZooKeeper";
pub(super) const REMOVED: &str = "Kafka 4 has removed it";

const NO_PLUGIN: &str = "a Java class cannot be loaded; remove the key";

pub(super) const PLUGIN: Tier = Refused { unless: &[], why: NO_PLUGIN };
pub(super) const SHARE_ASSIGNORS: Tier = Refused {
    unless: &["simple", "org.apache.kafka.coordinator.group.assignor.SimpleAssignor"],
    why: "a Java class cannot be loaded; keep to simple",
};
pub(super) const PROVIDERS: Tier = Refused {
    unless: &[],
    why: "references to other files are not resolved yet; write the values themselves and remove the key",
};
pub(super) const GSSAPI: Tier = Refused {
    unless: &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
    why: "Kerberos is not supported; list PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
};
pub(super) const CLIENT_AUTH: Tier = Refused {
    unless: &["none", "requested"],
    why: "TLS is not built yet, so no client could show a certificate; remove the key",
};
pub(super) const AUTHORIZER: Tier = Refused {
    unless: &[],
    why: "authorization is not built yet and everyone would be allowed everything; remove the key",
};
pub(super) const CLEANER: Tier = Refused {
    unless: &["true"],
    why: "the broker's own compacted topics would grow without end; remove the key",
};
pub(super) const MIGRATION: Tier = Refused {
    unless: &["false"],
    why: "metadata cannot be moved from ZooKeeper; migrate with Kafka first, or start with empty directories",
};

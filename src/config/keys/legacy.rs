//! Keys that Kafka 4 no longer has and older files still carry.

use super::{Key, key_table};

key_table! {
    "zookeeper.connect" Text None, Any, ReadOnly, Ignored(ZOOKEEPER),
        "Where ZooKeeper was; without `process.roles` the node is broker and controller.";
    "zookeeper.session.timeout.ms" Int Some("18000"), Any, ReadOnly, Ignored(ZOOKEEPER),
        "Silence after which ZooKeeper took a broker for dead.";
    "zookeeper.connection.timeout.ms" Int None, Any, ReadOnly, Ignored(ZOOKEEPER),
        "How long connecting to ZooKeeper took at most.";
    "zookeeper.sync.time.ms" Int Some("2000"), Any, ReadOnly, Ignored(ZOOKEEPER),
        "How far behind a ZooKeeper follower could be.";
    "zookeeper.set.acl" Boolean Some("false"), Any, ReadOnly, Ignored(ZOOKEEPER),
        "Whether nodes in ZooKeeper were protected.";
    "zookeeper.max.in.flight.requests" Int Some("10"), Min(1), ReadOnly, Ignored(ZOOKEEPER),
        "Requests to ZooKeeper at a time.";
    "zookeeper.ssl.client.enable" Boolean Some("false"), Any, ReadOnly, Ignored(ZOOKEEPER),
        "Whether ZooKeeper was reached over TLS.";
    "zookeeper.clientCnxnSocket" Text None, Any, ReadOnly, Ignored(ZOOKEEPER),
        "Java class of the connection to ZooKeeper.";
    "zookeeper.ssl.keystore.location" Text None, Any, ReadOnly, Ignored(ZOOKEEPER),
        "Key store towards ZooKeeper.";
    "zookeeper.ssl.keystore.password" Password None, Any, ReadOnly, Ignored(ZOOKEEPER),
        "Password of that key store.";
    "zookeeper.ssl.keystore.type" Text None, Any, ReadOnly, Ignored(ZOOKEEPER),
        "Format of that key store.";
    "zookeeper.ssl.truststore.location" Text None, Any, ReadOnly, Ignored(ZOOKEEPER),
        "Trust store towards ZooKeeper.";
    "zookeeper.ssl.truststore.password" Password None, Any, ReadOnly, Ignored(ZOOKEEPER),
        "Password of that trust store.";
    "zookeeper.ssl.truststore.type" Text None, Any, ReadOnly, Ignored(ZOOKEEPER),
        "Format of that trust store.";
    "zookeeper.ssl.protocol" Text Some("TLSv1.2"), Any, ReadOnly, Ignored(ZOOKEEPER),
        "TLS version towards ZooKeeper.";
    "zookeeper.ssl.enabled.protocols" List None, Any, ReadOnly, Ignored(ZOOKEEPER),
        "TLS versions towards ZooKeeper.";
    "zookeeper.ssl.cipher.suites" List None, Any, ReadOnly, Ignored(ZOOKEEPER),
        "Cipher suites towards ZooKeeper.";
    "zookeeper.ssl.endpoint.identification.algorithm" Text Some("HTTPS"), Any, ReadOnly, Ignored(ZOOKEEPER),
        "How ZooKeeper's name was checked.";
    "zookeeper.ssl.crl.enable" Boolean Some("false"), Any, ReadOnly, Ignored(ZOOKEEPER),
        "Whether revoked certificates were looked up.";
    "zookeeper.ssl.ocsp.enable" Boolean Some("false"), Any, ReadOnly, Ignored(ZOOKEEPER),
        "Whether certificates were checked online.";
    "zookeeper.metadata.migration.enable" Boolean Some("false"), Any, ReadOnly, MIGRATION,
        "Whether metadata moves from ZooKeeper to KRaft.";
    "zookeeper.metadata.migration.min.batch.size" Int Some("200"), Min(1), ReadOnly, Ignored(ZOOKEEPER),
        "Records of a batch of that move.";
    "port" Int Some("9092"), Range(0, 65_535), ReadOnly, Honoured,
        "Port of the one plaintext listener, when `listeners` is not given.";
    "host.name" Text Some(""), Any, ReadOnly, Honoured,
        "Host of the one plaintext listener, when `listeners` is not given.";
    "advertised.host.name" Text None, Any, ReadOnly, Honoured,
        "Host that clients were told, when `advertised.listeners` is not given.";
    "advertised.port" Int None, Range(0, 65_535), ReadOnly, Honoured,
        "Port that clients were told, when `advertised.listeners` is not given.";
    "inter.broker.protocol.version" Text None, Any, ReadOnly, Ignored(REMOVED),
        "Version that brokers spoke among themselves.";
    "log.message.format.version" Text None, Any, ReadOnly, Ignored(REMOVED),
        "Record format on disk; it is always version 2.";
    "log.message.downconversion.enable" Boolean Some("true"), Any, ReadOnly, Ignored(REMOVED),
        "Whether records were rewritten for old consumers.";
    "log.message.timestamp.difference.max.ms" Long Some("9223372036854775807"), Min(0), ReadOnly, Honoured,
        "How far a timestamp may lie from now; stands for the before and after keys when they are not given.";
    "broker.id.generation.enable" Boolean Some("true"), Any, ReadOnly, Ignored(REMOVED),
        "Whether a broker got its number from ZooKeeper.";
    "reserved.broker.max.id" Int Some("1000"), Min(0), ReadOnly, Ignored(REMOVED),
        "Greatest number that was not generated.";
    "controlled.shutdown.max.retries" Int Some("3"), Any, ReadOnly, Ignored(REMOVED),
        "Attempts to move leadership away before a stop.";
    "controlled.shutdown.retry.backoff.ms" Long Some("5000"), Any, ReadOnly, Ignored(REMOVED),
        "Wait between those attempts.";
    "leader.imbalance.per.broker.percentage" Int Some("10"), Any, ReadOnly, Ignored(REMOVED),
        "Share of misplaced leaders that started a rebalance.";
    "offsets.commit.required.acks" Short Some("-1"), Any, ReadOnly, Ignored(REMOVED),
        "Acknowledgements that a commit waited for.";
    "delegation.token.master.key" Password None, Any, ReadOnly, Planned,
        "The older name of `delegation.token.secret.key`.";
    "password.encoder.secret" Password None, Any, ReadOnly, Ignored(REMOVED),
        "Secret that encrypted passwords in ZooKeeper.";
    "password.encoder.old.secret" Password None, Any, ReadOnly, Ignored(REMOVED),
        "The secret before that.";
    "password.encoder.keyfactory.algorithm" Text None, Any, ReadOnly, Ignored(REMOVED),
        "How that secret became a key.";
    "password.encoder.cipher.algorithm" Text Some("AES/CBC/PKCS5Padding"), Any, ReadOnly, Ignored(REMOVED),
        "Cipher of those passwords.";
    "password.encoder.key.length" Int Some("128"), Min(8), ReadOnly, Ignored(REMOVED),
        "Key length of that cipher.";
    "password.encoder.iterations" Int Some("4096"), Min(1024), ReadOnly, Ignored(REMOVED),
        "Rounds that made that key.";
    "control.plane.listener.name" Text None, Any, ReadOnly, Ignored(REMOVED),
        "Listener of the controller's calls to brokers.";
    "eligible.leader.replicas.enable" Boolean Some("false"), Any, ReadOnly, Ignored(REMOVED),
        "Whether replicas outside the ISR may be remembered as eligible.";
}

//! Who the node is, where it listens, what it admits, and the keys that are our own.

use super::{Key, key_table};

key_table! {
    "node.id" Int Some("1"), Min(0), ReadOnly, Honoured,
        "Number of this node in its cluster; 1 when neither it nor `broker.id` is given.";
    "broker.id" Int Some("-1"), Min(-1), ReadOnly, Honoured,
        "The older name of `node.id`.";
    "process.roles" List Some("broker,controller"), OneOf(&["broker", "controller"]), ReadOnly, Honoured,
        "`broker`, `controller` or both; both when not given.";
    "broker.rack" Text None, Any, ReadOnly, Honoured,
        "Where the node stands: replicas are spread over racks, and consumers may read from near ones.";
    "controller.listener.names" List Some(""), Any, ReadOnly, Honoured,
        "Listeners that only answer the controller's API.";
    "controller.quorum.voters" List Some(""), Any, ReadOnly, Honoured,
        "The metadata quorum as `id@host:port`, the same on every node; voters cannot be changed then.";
    "controller.quorum.bootstrap.servers" List Some(""), Any, ReadOnly, Honoured,
        "Where to find the metadata quorum, whose voters stand in its own log.";
    "listeners" List Some("PLAINTEXT://127.0.0.1:9092"), Any, Broker, Honoured,
        "`NAME://host:port` entries; an empty host is every interface, port 0 any free port.";
    "advertised.listeners" List None, Any, ReadOnly, Honoured,
        "What clients are told to connect to; `listeners` when not given.";
    "listener.security.protocol.map" Text
        Some("SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT"),
        Any, Broker, Honoured,
        "Listener name to protocol: `NAME:PLAINTEXT`; names that are protocols map to themselves.";
    "inter.broker.listener.name" Text None, Any, ReadOnly, Honoured,
        "The listener that brokers use among themselves.";
    "security.inter.broker.protocol" Text Some("PLAINTEXT"),
        OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]), ReadOnly, Honoured,
        "Chooses the listener between brokers by its protocol, in place of its name.";
    "early.start.listeners" List None, Any, ReadOnly, Ignored(ORDER),
        "Listeners to open before the broker is ready.";
    "max.connections" Int Some("2147483647"), Min(0), Cluster, Honoured,
        "Most open connections on this node; a further one is accepted when one has gone.";
    "max.connections.per.ip" Int Some("2147483647"), Min(0), Cluster, Honoured,
        "Most open connections from one address; a further one is closed.";
    "max.connections.per.ip.overrides" Text Some(""), Any, Cluster, Honoured,
        "Limits for single addresses: `host:limit`, comma-separated.";
    "max.connection.creation.rate" Int Some("2147483647"), Min(0), Cluster, Honoured,
        "Most new connections per second, and at once; further ones are accepted later. 0 counts as 1.";
    "connections.max.idle.ms" Long Some("600000"), Any, ReadOnly, Honoured,
        "A connection without traffic for this long is closed; negative never.";
    "connections.max.reauth.ms" Long Some("0"), Any, ReadOnly, Planned,
        "How long an authentication is good for.";
    "connection.failed.authentication.delay.ms" Int Some("100"), Min(0), ReadOnly, Planned,
        "How long a failed authentication waits before its connection is closed.";
    "socket.request.max.bytes" Int Some("104857600"), Min(1), ReadOnly, Honoured,
        "The largest request frame.";
    "socket.send.buffer.bytes" Int Some("102400"), RangeOr(1, i64::MAX, -1), ReadOnly, Honoured,
        "Kernel send buffer of a connection; -1 leaves it to the kernel.";
    "socket.receive.buffer.bytes" Int Some("102400"), RangeOr(1, i64::MAX, -1), ReadOnly, Honoured,
        "Kernel receive buffer of a connection; -1, or not given, leaves it to the kernel, which takes half the CPU where \
         requests are large.";
    "socket.listen.backlog.size" Int Some("50"), Min(1), ReadOnly, Honoured,
        "Connections that wait for accept.";
    "queued.max.request.bytes" Long Some("-1"), Any, ReadOnly, Honoured,
        "Most bytes of requests held by the node; -1 is the shards' own budget.";
}

//! Keys that Kafka does not know: shards, their memory, and the floor of free disk.

use super::{Key, key_table};

key_table! {
    "shard.count" Int Some("0"), Range(0, 1024), ReadOnly, Honoured,
        "Shards of this node, each on one core; 0 is one per CPU of `shard.cpus`.";
    "shard.cpus" Text Some("all"), Any, ReadOnly, Honoured,
        "CPUs that shards may run on: `all`, or numbers and ranges such as `0-3,6`.";
    "shard.connections.move" Boolean Some("true"), Any, ReadOnly, Honoured,
        "Whether a connection is handed to the shard that owns most of what it asks for.";
    "shard.memory.percent" Int Some("25"), Range(1, 80), ReadOnly, Honoured,
        "Share of the machine's memory that requests in progress may hold, over all shards.";
    "log.dir.free.floor.bytes" Long Some("-1"), Min(-1), ReadOnly, Planned,
        "Free space that writes must leave; -1 is the less of 1 GiB and 5 % of the device.";
}

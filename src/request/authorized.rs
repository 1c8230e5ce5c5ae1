//! The operations that a caller may do on a resource, as a bit field with one bit per number of Kafka's
//! `AclOperation`. There is no authorizer yet, and without one Kafka answers everything that the kind of
//! resource supports.

/// On a topic: READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub(super) const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;

/// On the cluster: CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS,
/// IDEMPOTENT_WRITE.
pub(super) const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// On a group: READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub(super) const GROUP_OPERATIONS: i32 = 0b1101_0100_1000;

/// Nobody asked.
pub(super) const NOT_ASKED: i32 = i32::MIN;

"""The habits of kafka-python's admin client."""

import uuid
from typing import Dict, Optional

from habit import Place, equal, fails, hold, until
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, MemberToRemove, OffsetSpec, OffsetTimestamp
from kafka.errors import (InvalidPartitionsError, InvalidReplicationFactorError, InvalidTopicError, NoError, OffsetOutOfRangeError,
                          TopicAlreadyExistsError, UnknownTopicOrPartitionError)
from kafka.structs import OffsetAndMetadata


def admin_of(place: Place) -> KafkaAdminClient:
    return place.opened(KafkaAdminClient(bootstrap_servers=place.bootstrap))


def topic_of(place: Place, partitions: int, configs: Optional[Dict[str, str]] = None, name: str = "") -> str:
    """A new topic whose partitions have leaders."""
    name = name or place.name("topic")
    admin = KafkaAdminClient(bootstrap_servers=place.bootstrap)
    try:
        admin.create_topics({name: {"num_partitions": partitions, "replication_factor": 1, "configs": configs or {}}},
                            wait_for_metadata=True)
    finally:
        admin.close()
    return name


def fill(place: Place, topic: str, partitions: int, count: int) -> None:
    with KafkaProducer(bootstrap_servers=place.bootstrap) as producer:
        for future in [producer.send(topic, b"%d" % i, partition=i % partitions) for i in range(count)]:
            future.get(timeout=30)


def member_of(place: Place, topic: str, group: str, count: int, **settings) -> KafkaConsumer:
    """A member that has read and committed all records."""
    consumer = place.opened(KafkaConsumer(topic, bootstrap_servers=place.bootstrap, group_id=group, enable_auto_commit=False,
                                          auto_offset_reset="earliest", heartbeat_interval_ms=100, **settings))
    seen = []

    def all_read() -> bool:
        for some in consumer.poll(timeout_ms=30_000).values():
            seen.extend(some)
        return len(seen) >= count

    until("all are read", all_read)
    consumer.commit()
    return consumer


def topics(place: Place) -> None:
    admin = admin_of(place)
    name, placed = place.name("topic"), place.name("placed")
    admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1, "configs": {"retention.ms": "1000000"}},
                         placed: {"assignments": {0: [1], 1: [1]}}}, wait_for_metadata=True)
    hold("both are listed", {name, placed} <= set(admin.list_topics()))
    described = {one["name"]: one for one in admin.describe_topics([name, placed])}
    equal("the partitions", [len(described[one]["partitions"]) for one in (name, placed)], [3, 2])
    equal("the leaders", {one["leader_id"] for one in described[name]["partitions"]}, {1})
    fails("creating it again", TopicAlreadyExistsError, lambda: admin.create_topics([name]))
    fails("too many replicas", InvalidReplicationFactorError,
          lambda: admin.create_topics({place.name("wide"): {"num_partitions": 1, "replication_factor": 3}}))
    fails("no partitions", InvalidPartitionsError,
          lambda: admin.create_topics({place.name("none"): {"num_partitions": 0, "replication_factor": 1}}))
    fails("an illegal name", InvalidTopicError, lambda: admin.create_topics(["a b"]))
    admin.delete_topics([name])
    until("it is gone", lambda: name not in admin.list_topics())
    fails("deleting it again", UnknownTopicOrPartitionError, lambda: admin.delete_topics([name]))
    hold("the other is there", placed in admin.list_topics())


def validates(place: Place) -> None:
    admin = admin_of(place)
    name = place.name("only-thought-of")
    admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1}}, validate_only=True)
    hold("it is not there", name not in admin.list_topics())


def topic_ids(place: Place) -> None:
    admin = admin_of(place)
    name = topic_of(place, 2)
    described = admin.describe_topics([name])[0]
    # The client puts the id where the name stands.
    by_id = admin.describe_topics([uuid.UUID(described["topic_id"])])[0]
    equal("the topic by its id", (by_id["topic_id"], by_id["error_code"], len(by_id["partitions"])), (described["topic_id"], 0, 2))
    page = admin.describe_topic_partitions([name], response_partition_limit=1)
    equal("the page", [one["partition_index"] for one in page["topics"][0]["partitions"]], [0])
    equal("the next page", page["next_cursor"]["partition_index"], 1)


def configs(place: Place) -> None:
    admin = admin_of(place)
    name = topic_of(place, 1, {"segment.ms": "1000000"})

    def described(filtered: str) -> dict:
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        return next(iter(admin.describe_configs([resource], config_filter=filtered).values()))[name]

    def value(key: str) -> str:
        return described("all")[key]["value"]

    hold("what was set is modified", "segment.ms" in described("modified"))
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs={"retention.bytes": "5000000"})])
    until("it is altered", lambda: value("retention.bytes") == "5000000")
    equal("what was set before", value("segment.ms"), "1000000")
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs={"cleanup.policy": ("APPEND", "compact")})])
    until("it is appended", lambda: value("cleanup.policy") == "delete,compact")
    admin.reset_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=["retention.bytes"])])
    until("it is reset", lambda: value("retention.bytes") == "-1")
    broker = next(iter(admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")], config_filter="all").values()))["1"]
    equal("the broker's value", broker["log.segment.bytes"]["value"], "1073741824")


def partitions(place: Place) -> None:
    admin = admin_of(place)
    name = topic_of(place, 1)
    admin.create_partitions({name: 3})
    until("they are there", lambda: len(admin.describe_topics([name])[0]["partitions"]) == 3)
    fails("fewer", InvalidPartitionsError, lambda: admin.create_partitions({name: 2}))
    fill(place, name, 3, 9)
    offsets = admin.list_partition_offsets({TopicPartition(name, partition): OffsetSpec.LATEST for partition in range(3)})
    equal("the ends", [offsets[TopicPartition(name, partition)].offset for partition in range(3)], [3, 3, 3])


def offsets(place: Place) -> None:
    admin = admin_of(place)
    name = topic_of(place, 1)
    partition = TopicPartition(name, 0)
    producer = place.opened(KafkaProducer(bootstrap_servers=place.bootstrap))
    for seconds in (10, 50, 30):
        producer.send(name, b"v", timestamp_ms=1_600_000_000_000 + seconds * 1_000).get(timeout=30)
    specs = {"earliest": (OffsetSpec.EARLIEST, 0), "latest": (OffsetSpec.LATEST, 3), "the greatest time": (OffsetSpec.MAX_TIMESTAMP, 1),
             "a time": (1_600_000_020_000, 1)}
    for what, (spec, due) in specs.items():
        equal(f"the offset of {what}", admin.list_partition_offsets({partition: spec})[partition].offset, due)


def records(place: Place) -> None:
    admin = admin_of(place)
    name = topic_of(place, 1)
    partition = TopicPartition(name, 0)
    fill(place, name, 1, 20)
    equal("the new beginning", admin.delete_records({partition: 12})[partition]["low_watermark"], 12)
    equal("the earliest", admin.list_partition_offsets({partition: OffsetSpec.EARLIEST})[partition].offset, 12)
    consumer = place.opened(KafkaConsumer(bootstrap_servers=place.bootstrap, auto_offset_reset="earliest"))
    consumer.assign([partition])
    consumer.seek(partition, 0)
    seen = until("records come", lambda: consumer.poll(timeout_ms=30_000))
    equal("the first that is read", seen[partition][0].offset, 12)
    fails("more than there is", OffsetOutOfRangeError, lambda: admin.delete_records({partition: 21}))


def groups(place: Place) -> None:
    admin = admin_of(place)
    topic, group = topic_of(place, 2), place.name("group")
    fill(place, topic, 2, 20)
    consumer = member_of(place, topic, group, 20, client_id="the-client")
    hold("it is listed", group in {one["group_id"] for one in admin.list_groups(states_filter=["Stable"])})
    described = admin.describe_groups([group])[group]
    equal("the state and protocol", (described["group_state"], described["protocol_type"]), ("Stable", "consumer"))
    equal("the clients", [(one["client_id"], one["client_host"]) for one in described["members"]], [("the-client", "/127.0.0.1")])
    committed = admin.list_group_offsets({group: None})[group]
    equal("the offsets", {one.partition: at.offset for one, at in committed.items()}, {0: 10, 1: 10})
    hold("a group with a member stays", admin.delete_groups([group])[group] not in (NoError, "OK"))
    consumer.close(autocommit=False)
    equal("the state without members", admin.describe_groups([group])[group]["group_state"], "Empty")
    admin.delete_groups([group])
    hold("it is not listed", group not in {one["group_id"] for one in admin.list_groups()})


def group_offsets(place: Place) -> None:
    admin = admin_of(place)
    topic, group = topic_of(place, 2), place.name("group")
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    fill(place, topic, 2, 20)
    member_of(place, topic, group, 20).close(autocommit=False)
    equal("the alteration", admin.alter_group_offsets(group, {first: OffsetAndMetadata(3, "back", -1)}), {first: NoError})
    equal("what is committed", admin.list_group_offsets({group: [first]})[group][first].offset, 3)
    reset = admin.reset_group_offsets(group, {first: OffsetSpec.EARLIEST, second: 999})
    equal("the reset", {one: at["offset"] for one, at in reset.items()}, {first: 0, second: 10})
    reset = admin.reset_group_offsets(group, {first: OffsetTimestamp(1)})
    equal("the reset to a time", reset[first]["offset"], 0)
    equal("the deletion", admin.delete_group_offsets(group, [second]), {second: NoError})
    equal("what is left", set(admin.list_group_offsets({group: None})[group]), {first})


def members(place: Place) -> None:
    admin = admin_of(place)
    topic, group = topic_of(place, 1), place.name("group")
    fill(place, topic, 1, 5)
    member_of(place, topic, group, 5, group_instance_id="fixed", session_timeout_ms=30_000)
    described = admin.describe_groups([group])[group]
    equal("the members", [one["group_instance_id"] for one in described["members"]], ["fixed"])
    removed = admin.remove_group_members(group, [MemberToRemove(group_instance_id="fixed")])
    equal("the removal", list(removed.values()), [NoError])
    equal("the members then", admin.describe_groups([group])[group]["members"], [])


def cluster(place: Place) -> None:
    admin = admin_of(place)
    described = admin.describe_cluster()
    equal("the brokers", [(one["host"] + ":" + str(one["port"])) for one in described["brokers"]], [place.bootstrap])
    equal("the controller", described["controller_id"], 1)
    hold("it has an id", described["cluster_id"])
    hold("it has features", admin.describe_features()["metadata.version"]["finalized"][1] > 1)
    equal("the reassignments", admin.list_partition_reassignments(), {})


def log_dirs(place: Place) -> None:
    admin = admin_of(place)
    topic = topic_of(place, 1)
    fill(place, topic, 1, 100)
    found = [partition["partition_size"] for broker in admin.describe_log_dirs([topic])
             for directory in broker["log_dirs"] for one in directory["topics"] for partition in one["partitions"]]
    equal("the replicas", len(found), 1)
    hold("it has a size", found[0] > 500)


HABITS = {
    "admin creates and lists and describes and deletes topics": topics,
    "admin only validates": validates,
    "admin describes topics by id and page": topic_ids,
    "admin describes and alters and resets configurations": configs,
    "admin adds partitions": partitions,
    "admin lists offsets": offsets,
    "admin deletes records": records,
    "admin lists and describes and deletes groups": groups,
    "admin alters and resets and deletes a group's offsets": group_offsets,
    "admin removes members": members,
    "admin describes the cluster": cluster,
    "admin describes log directories": log_dirs,
}

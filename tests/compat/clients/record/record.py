"""What the Python clients ask about groups and administration: record.py kafka-python|librdkafka BOOTSTRAP TOPIC."""

import sys
import time


def call(what, *arguments, **named) -> None:
    """What a broker refuses is recorded too."""
    try:
        print(what.__name__, what(*arguments, **named))
    except Exception as error:
        print(what.__name__, type(error).__name__, error)


def kafka_python(bootstrap: str, topic: str) -> None:
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import (ACLFilter, ACLOperation, ACLPermissionType, ConfigResource, ConfigResourceType,
                             KafkaAdminClient, NewPartitions, NewTopic, ResourcePatternFilter, ResourceType)
    from kafka.admin import ACLResourcePatternType
    from kafka.structs import OffsetAndMetadata

    # Whole bodies as the versions of three generations of brokers have them.
    for generation in (None, (2, 2, 0), (1, 0, 0)):
        named = {"bootstrap_servers": bootstrap, "client_id": "python"}
        named |= {"api_version": generation} if generation else {}
        mine = f"{topic}-{generation[0] if generation else 'new'}"
        group = f"group-{mine}"
        partition = TopicPartition(mine, 0)
        admin = KafkaAdminClient(**named)
        call(admin.create_topics, [NewTopic(mine, 2, 1, topic_configs={"retention.ms": "1000000"})])
        time.sleep(0.5)
        producer = KafkaProducer(**named)
        producer.send(mine, b"value", partition=0).get(30)
        producer.close()
        consumer = KafkaConsumer(mine, **named, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                                 session_timeout_ms=6000, heartbeat_interval_ms=300)
        until = time.monotonic() + 30
        while not consumer.poll(500) and time.monotonic() < until:
            pass
        consumer.commit()
        call(consumer.committed, partition)
        rest = time.monotonic() + 1.5
        while time.monotonic() < rest:
            consumer.poll(200)
        call(admin.describe_groups, [group])
        consumer.close()
        call(admin.create_partitions, {mine: NewPartitions(3)})
        resource = ConfigResource(ConfigResourceType.TOPIC, mine, configs={"max.message.bytes": "100000"})
        call(admin.alter_configs, [resource])
        call(admin.describe_configs, [ConfigResource(ConfigResourceType.TOPIC, mine)])
        call(admin.list_groups)
        call(admin.list_group_offsets, {group: None})
        call(admin.alter_group_offsets, group, {partition: OffsetAndMetadata(0, "noted", -1)})
        call(admin.delete_group_offsets, group, [partition])
        call(admin.delete_groups, [group])
        call(admin.delete_records, {partition: 1})
        call(admin.describe_log_dirs)
        call(admin.elect_leaders, 0, {mine: [0]})
        call(admin.list_partition_reassignments)
        call(admin.describe_producers, [partition])
        pattern = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        call(admin.describe_acls, ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, pattern))
        call(admin.describe_cluster)
        call(admin.describe_metadata_quorum)
        call(admin.update_features, {"group.version": 1}, validate_only=True)
        call(admin.list_config_resources)
        call(admin.describe_topic_partitions, [mine])
        call(admin.delete_topics, [mine])
        admin.close()


def librdkafka(bootstrap: str, topic: str) -> None:
    from confluent_kafka import Consumer, ElectionType, Producer, TopicPartition
    from confluent_kafka.admin import (AclBindingFilter, AclOperation, AclPermissionType, AdminClient, AlterConfigOpType,
                                       ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec,
                                       ResourcePatternType, ResourceType)
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicCollection

    common = {"bootstrap.servers": bootstrap, "client.id": "librdkafka"}
    group = f"group-{topic}"
    admin = AdminClient(common)

    def ask(name: str, *arguments, **named) -> None:
        try:
            done = getattr(admin, name)(*arguments, **named)
            for future in done.values() if isinstance(done, dict) else [done]:
                print(name, future.result(30))
        except Exception as error:
            print(name, type(error).__name__, error)

    ask("create_topics", [NewTopic(topic, 2, 1, config={"retention.ms": "1000000"})])
    time.sleep(0.5)
    producer = Producer(common)
    producer.produce(topic, b"value", partition=0)
    producer.flush(30)
    for protocol in ("classic", "consumer"):
        named = group if protocol == "classic" else f"{group}-new"
        settings = {"group.id": named, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                    "group.protocol": protocol}
        settings |= {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300} if protocol == "classic" else {}
        consumer = Consumer(common | settings)
        consumer.subscribe([topic])
        until = time.monotonic() + 30
        while not (message := consumer.poll(0.5)) and time.monotonic() < until:
            pass
        consumer.commit(message=message, asynchronous=False)
        print(consumer.committed([TopicPartition(topic, 0)], 10))
        rest = time.monotonic() + 1.5
        while time.monotonic() < rest:
            consumer.poll(0.2)
        ask("describe_consumer_groups", [named], include_authorized_operations=True)
        consumer.close()
    ask("create_partitions", [NewPartitions(topic, 3)])
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, set_config={"max.message.bytes": "100000"})
    ask("alter_configs", [resource])
    changed = ConfigEntry("max.message.bytes", "200000", incremental_operation=AlterConfigOpType.SET)
    ask("incremental_alter_configs", [ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[changed])])
    ask("describe_configs", [ConfigResource(ConfigResource.Type.TOPIC, topic)])
    ask("list_consumer_groups")
    ask("list_consumer_group_offsets", [ConsumerGroupTopicPartitions(group)])
    ask("alter_consumer_group_offsets", [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 0)])])
    ask("list_offsets", {TopicPartition(topic, 0): OffsetSpec.earliest()})
    ask("delete_records", [TopicPartition(topic, 0, 1)])
    ask("elect_leaders", ElectionType.PREFERRED, [TopicPartition(topic, 0)])
    ask("describe_acls", AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, None, None,
                                          AclOperation.ANY, AclPermissionType.ANY))
    ask("describe_cluster", include_authorized_operations=True)
    ask("describe_topics", TopicCollection([topic]))
    ask("delete_consumer_groups", [group])
    ask("delete_topics", [topic])


if __name__ == "__main__":
    {"kafka-python": kafka_python, "librdkafka": librdkafka}[sys.argv[1]](*sys.argv[2:])
